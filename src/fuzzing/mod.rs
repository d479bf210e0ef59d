//! What fuzzers drive: one function for each kind of input that strangers, browsers, providers and stores send.
//!
//! Each takes any bytes and asserts what has to hold of whatever is read from them. There is nothing of this in the crate
//! as it is used: `cargo fuzz` sets `cfg(fuzzing)`, and the crate's own tests go through the seeds in `fuzz/corpus`, where
//! everything that a fuzzer has found lies as well.

#![allow(clippy::missing_panics_doc, reason = "to panic is how a fuzzer is told of a finding")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the same")]

mod browser;
mod provider;
mod stored;

pub use browser::{callback_query, cookie_header, form_body, login_query, partition_id};
pub use provider::{discovery_document, jwk_set, jwt, logout_body, security_event, token_response, www_authenticate};
pub use stored::{session_record, store_entry};

use std::time::{Duration, SystemTime};

use crate::protocol::names::{ClientId, Issuer, Registration};

/// A target: its name, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 14] = [
    ("callback_query", callback_query),
    ("cookie_header", cookie_header),
    ("discovery_document", discovery_document),
    ("form_body", form_body),
    ("jwk_set", jwk_set),
    ("jwt", jwt),
    ("login_query", login_query),
    ("logout_body", logout_body),
    ("partition_id", partition_id),
    ("security_event", security_event),
    ("session_record", session_record),
    ("store_entry", store_entry),
    ("token_response", token_response),
    ("www_authenticate", www_authenticate),
];

const ISSUER: &str = "https://op.example";

fn registration() -> Registration {
    Registration::new(Issuer::new(ISSUER), ClientId::new("shop"))
}

/// The moment at which inputs arrive.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

/// The first line of an input, and what follows it.
fn line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (first, rest) = bytes.split_at(end);
    (first, rest.strip_prefix(b"\n").unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Each target has seeds, and holds with them and with all that was ever found.
    #[test]
    fn the_seeds_hold() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        // Published packages have no `fuzz/`.
        let Ok(folders) = fs::read_dir(&corpus) else { return };
        let mut found: Vec<String> = folders.map(|folder| folder.unwrap().file_name().into_string().unwrap()).collect();
        found.sort();
        assert_eq!(found, TARGETS.map(|(name, _)| name));
        for (name, target) in TARGETS {
            for seed in fs::read_dir(corpus.join(name)).unwrap() {
                let seed = fs::read(seed.unwrap().path()).unwrap();
                target(&seed);
                // What is cut short or goes on is an input, too.
                for end in (0..seed.len()).step_by(seed.len().div_ceil(50).max(1)) {
                    target(&seed[..end]);
                    target(&[&seed[..end], b"\xff", &seed[end..]].concat());
                }
            }
        }
    }
}
