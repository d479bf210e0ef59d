//! What stores hold, and what the application has sealed into cookies: of earlier and later versions, and of others.

use std::sync::Arc;
use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::now;
use crate::protocol::jwt::SigningAlg;
use crate::registry::StorageKey;
use crate::registry::codec::Codec;
use crate::session::decide::{decide, is_confirmed, next_deadline, was_just_confirmed};
use crate::session::end_reason::{EndMark, EndReason};
use crate::session::id::SessionKey;
use crate::session::login_attempt::LoginTransaction;
use crate::session::policy::{RequestKind, SessionPolicy};
use crate::session::record::{SessionRecord, Version};
use crate::session::signal::{self, Ambiguity, Terms};
use crate::web::cookie::Noted;
use crate::web::form::KeptForm;

/// The record of a session.
pub fn session_record(bytes: &[u8]) {
    let key = SessionKey::from_bytes([7; 32]);
    let plain = Codec::default();
    let sealing = Codec::new([StorageKey::from_base64(&STANDARD.encode([2; 32])).expect("a key")]);
    let version = Version::from_number(3);
    assert!(sealing.decode(&key, version, bytes).is_err(), "nobody else can seal");
    let Ok(record) = plain.decode(&key, version, bytes) else { return };
    assert_eq!((record.key(), record.version()), (&key, version));
    for codec in [&plain, &sealing] {
        let written = codec.encode(&record).expect("it can be written");
        assert_eq!(codec.decode(&key, version, &written).expect("it can be read"), record);
        assert!(codec.decode(&SessionKey::from_bytes([8; 32]), version, &written).is_err(), "it is another's");
    }
    serve(&record);
}

/// What is done with a record that was read.
fn serve(record: &SessionRecord) {
    let policy = SessionPolicy::new();
    for now in [now(), record.expires_at(), record.last_signal] {
        for kind in [RequestKind::Navigation, RequestKind::UserActivity, RequestKind::Passive] {
            let _ = decide(record, &policy, now, kind);
        }
        let _ = (is_confirmed(record, &policy, now), was_just_confirmed(record, &policy, now));
        let _ = (record.time_left(now), record.unconfirmed_for(), next_deadline(record, &policy));
    }
    let _ = record.access_token(None, &policy);
    let terms = Terms {
        policy: &policy,
        signing_alg: SigningAlg::RS256,
        clock_tolerance: Duration::from_secs(30),
        ambiguity: Ambiguity::Single,
        claim_patience: Duration::from_secs(10),
        now: now(),
    };
    let _ = signal::start(Arc::new(record.clone()), None, &terms);
    let changed = record.clone().with_expiry(&policy);
    assert_eq!(changed.clone().with_expiry(&policy), changed);
}

/// Everything else that is written as JSON or as a line of text.
pub fn store_entry(bytes: &[u8]) {
    if let Some(attempt) = read_again::<LoginTransaction>(bytes) {
        let _ = attempt.attempt(now()).is_covered_by(now());
    }
    read_again::<Noted>(bytes);
    read_again::<EndMark>(bytes);
    if let Some(form) = read_again::<KeptForm>(bytes) {
        let _ = (form.is_of("browser", now()), form.action(), form.entered.had_files(), form.entered.fields());
    }
    if let Some(reason) = std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<EndReason>().ok()) {
        assert_eq!(reason.as_str().as_bytes(), bytes);
    }
    #[cfg(feature = "redis")]
    of_redis(bytes);
}

/// What is written of what was read is read as the same.
fn read_again<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(bytes).ok()?;
    let written = serde_json::to_string(&read).expect("it can be written");
    let again: T = serde_json::from_str(&written).expect("it can be read");
    assert_eq!(serde_json::to_string(&again).expect("it can be written"), written);
    Some(again)
}

#[cfg(feature = "redis")]
fn of_redis(bytes: &[u8]) {
    use crate::registry::redis::{end_mark, split};

    if let Some((version, record)) = split(bytes) {
        let header = format!("L{{\"v\":{}}}\n", version.number());
        let written = [header.as_bytes(), record].concat();
        assert_eq!(split(&written), Some((version, record)));
        assert!(bytes.ends_with(record));
    }
    if let Ok(mark) = end_mark(bytes) {
        let hash = mark.subject.map(|hash| SessionKey::from_bytes(*hash.as_bytes()).to_string());
        let written = [Some(mark.reason.as_str().to_owned()), hash].into_iter().flatten().collect::<Vec<_>>().join(" ");
        assert!(written.as_bytes().eq_ignore_ascii_case(bytes));
    }
}
