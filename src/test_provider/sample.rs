//! Records of sessions that nobody has signed in for: for tests and measurements of registries.

use std::time::{Duration, SystemTime};

use crate::protocol::authorization::Authentication;
use crate::protocol::names::{AccessToken, IdTokenHint, Nonce, RefreshToken, Registration, Sid, Subject};
use crate::session::end_reason::EndReason;
use crate::session::id::{ClientTag, SessionId, SessionKey};
use crate::session::record::{ActivitySignal, Login, SessionRecord, Tokens, Version};

/// A record as after a login whose ID token was issued at `issued_at`: with a key of its own, tokens of `token_bytes` bytes
/// together, and 10 000 s to go.
#[must_use]
pub fn sample_record(
    registration: &Registration,
    subject: &str,
    sid: Option<&str>,
    issued_at: SystemTime,
    token_bytes: usize,
) -> SessionRecord {
    let token = |bytes| "t".repeat(bytes);
    let (subject, sid) = (Subject::new(subject), sid.map(Sid::new));
    SessionRecord {
        key: sample_key(registration, sid.as_ref(), &subject),
        version: Version::FIRST,
        login: std::sync::Arc::new(Login {
            registration: registration.clone(),
            subject,
            nonce: Nonce::new("nonce"),
            issued_at,
            auth_time: None,
            started_at: issued_at,
            signal: ActivitySignal::Refresh,
            claims: serde_json::Map::new(),
            offline_access: false,
            authentication: Authentication::default(),
            previous_end: None,
            browser: None,
        }),
        sid,
        session_expiry: None,
        tokens: Tokens {
            access_token: Some(AccessToken::new(token(token_bytes * 2 / 5))),
            refresh_token: Some(RefreshToken::new(token(token_bytes / 5))),
            id_token: IdTokenHint::new(token(token_bytes * 2 / 5)),
            expires_in: Some(Duration::from_secs(60)),
            obtained_at: issued_at,
            others: std::collections::BTreeMap::new(),
        },
        last_signal: issued_at,
        silent_login_at: None,
        expires_at: issued_at + Duration::from_secs(10_000),
        expires_for: EndReason::SessionExpiry,
        confirmed_until: None,
    }
}

/// The key of another session that a login with these names opens.
pub(super) fn sample_key(registration: &Registration, sid: Option<&Sid>, subject: &Subject) -> SessionKey {
    SessionKey::of(&SessionId::random_for(registration, sid, subject), ClientTag::of(registration, ""))
}
