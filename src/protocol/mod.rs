//! What the specifications say, and nothing else: no I/O, no clock, no logging.
//!
//! | file | specification |
//! |---|---|
//! | `metadata` | OpenID Connect Discovery 1.0 §3, §4.3 |
//! | `authorization` | Core §3.1.2, RFC 7636, RFC 9207 |
//! | `token_response` | RFC 6749 §5.1, §5.2 and what providers make of it |
//! | `issuers` | whose tokens a client takes |
//! | `jwt` | RFC 7515, 7517, 7519, 8725: parsing, keys, signatures, common claims |
//! | `key_pair` | RFC 7518 §3: the application's own signatures |
//! | `id_token` | Core §3.1.3.7, §12.2 |
//! | `logout_token` | Back-Channel Logout 1.0 (errata 1) §2.4, §2.6 |
//! | `security_event` | RFC 8417, CAEP 1.0 §3.1 |
//! | `challenge` | RFC 9110 §11.6.1, RFC 6750 §3: `WWW-Authenticate` |

pub(crate) mod authorization;
pub(crate) mod challenge;
pub(crate) mod fetch_metadata;
pub(crate) mod id_token;
pub(crate) mod issuers;
pub(crate) mod jwt;
pub(crate) mod key_pair;
pub(crate) mod logout_token;
pub(crate) mod metadata;
pub(crate) mod names;
pub(crate) mod security_event;
pub(crate) mod token_response;
pub(crate) mod url;
