#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tower_oidc_session::fuzzing::security_event(bytes));
