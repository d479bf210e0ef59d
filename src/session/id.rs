//! The two names of a local session: the secret in the cookie and the key in the registry.

use std::fmt;

use aws_lc_rs::{digest, rand};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::protocol::names::{Registration, Subject};

const LENGTH: usize = 32;

/// The cookie's value: 256 random bits, new at every login. Whoever has it has the session.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SessionId([u8; LENGTH]);

impl SessionId {
    pub(crate) fn random() -> Self {
        let mut bytes = [0; LENGTH];
        fill_random(&mut bytes);
        Self(bytes)
    }

    pub(crate) fn parse(cookie: &str) -> Option<Self> {
        // The exact length first: whatever else a cookie holds costs nothing.
        (cookie.len() == 43).then(|| URL_SAFE_NO_PAD.decode(cookie).ok()?.try_into().ok().map(Self))?
    }

    pub(crate) fn to_cookie(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(…)")
    }
}

/// The name of a session in its registry: a hash of the cookie's value, the issuer and the client id.
///
/// A copy of the registry opens no session, and the cookie of one client is none for another that shares the store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionKey([u8; LENGTH]);

impl SessionKey {
    pub(crate) fn of(id: &SessionId, registration: &Registration) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&id.0);
        context.update(registration.issuer().as_str().as_bytes());
        context.update(&[0]);
        context.update(registration.client_id().as_str().as_bytes());
        let mut key = [0; LENGTH];
        key.copy_from_slice(context.finish().as_ref());
        Self(key)
    }

    /// The key's bytes, for registries.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }

    /// The key of these bytes, for registries.
    #[must_use]
    pub fn from_bytes(bytes: [u8; LENGTH]) -> Self {
        Self(bytes)
    }
}

/// The name of a login attempt in a registry: a hash of its `state`, the issuer and the client id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AttemptKey([u8; LENGTH]);

impl AttemptKey {
    pub(crate) fn of(state: &str, registration: &Registration) -> Self {
        Self(hash_of("attempt", registration, state))
    }

    /// The key's bytes, for registries.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }
}

/// Tells whether two sessions are of one user, and nothing else: a hash of issuer, client id and `sub`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SubjectHash([u8; LENGTH]);

impl From<SubjectHash> for String {
    fn from(hash: SubjectHash) -> Self {
        URL_SAFE_NO_PAD.encode(hash.0)
    }
}

impl TryFrom<String> for SubjectHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or("no hash of a subject")
    }
}

impl SubjectHash {
    pub(crate) fn of(registration: &Registration, subject: &Subject) -> Self {
        Self(hash_of("sub", registration, subject.as_str()))
    }

    /// The hash, for registries.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }

    /// The hash of these bytes, for registries.
    #[must_use]
    pub fn from_bytes(bytes: [u8; LENGTH]) -> Self {
        Self(bytes)
    }
}

/// A name under which a store has something of one client: it tells a reader of the store nothing.
pub(crate) fn hash_of(kind: &str, registration: &Registration, name: &str) -> [u8; LENGTH] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [kind, registration.issuer().as_str(), registration.client_id().as_str(), name] {
        context.update(part.as_bytes());
        context.update(&[0]);
    }
    let mut bytes = [0; LENGTH];
    bytes.copy_from_slice(context.finish().as_ref());
    bytes
}

impl SessionKey {
    /// Reads what `Display` writes.
    pub(crate) fn from_hex(hex: &str) -> Option<Self> {
        let mut bytes = [0; LENGTH];
        if !hex.is_ascii() || hex.len() != 2 * LENGTH {
            return None;
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(hex.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

/// In hexadecimal, for registries and as the mark of a login in application data.
impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The first bytes only: enough to follow a session through a log.
impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex: String = self.to_string().chars().take(8).collect();
        write!(f, "SessionKey({hex}…)")
    }
}

/// Fills `bytes` from the operating system's generator.
///
/// # Panics
/// If the operating system has no randomness: nothing that needs it may go on then.
#[expect(clippy::expect_used, reason = "without randomness nothing here may go on")]
pub(crate) fn fill_random(bytes: &mut [u8]) {
    rand::fill(bytes).expect("the operating system provides randomness");
}

/// Random, between 0 and 1: for pauses that are not to come in step.
pub(crate) fn random_fraction() -> f64 {
    let mut bytes = [0; 4];
    fill_random(&mut bytes);
    f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX)
}

/// The first bytes of a hash, where a name of so many is enough.
pub(crate) fn short_hash<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut short = [0; N];
    for (to, from) in short.iter_mut().zip(digest::digest(&digest::SHA256, bytes).as_ref()) {
        *to = *from;
    }
    short
}

/// 256 random bits as text: 43 characters, what the conformance suite allows a `nonce`.
pub(crate) fn random_text() -> String {
    SessionId::random().to_cookie()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::names::{ClientId, Issuer};

    #[test]
    fn cookies_are_read_back_and_nothing_else_is() {
        let id = SessionId::random();
        assert_eq!(SessionId::parse(&id.to_cookie()), Some(id));
        for odd in ["", "x", &"é".repeat(22), &"A".repeat(44), &"=".repeat(43)] {
            assert_eq!(SessionId::parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn keys_are_scoped_by_issuer_and_client() {
        let id = SessionId::random();
        let registration = |iss: &str, client: &str| Registration::new(Issuer::new(iss), ClientId::new(client));
        let key = SessionKey::of(&id, &registration("https://op", "shop"));
        assert_eq!(key, SessionKey::of(&id, &registration("https://op", "shop")));
        assert_ne!(key, SessionKey::of(&id, &registration("https://op", "shop2")));
        assert_ne!(key, SessionKey::of(&id, &registration("https://op2", "shop")));
        assert_eq!(format!("{key:?}").len(), "SessionKey(01020304…)".len());
        assert_eq!(format!("{id:?}"), "SessionId(…)");
    }
}
