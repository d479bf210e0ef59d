//! The modules of the OpenID conformance suite's plans for relying parties, by their names, as far as they can go
//! wrong here. What a module shares with a test elsewhere is not repeated.
