//! The two names of a local session: the secret in the cookie and the key in the registry.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::str::FromStr;

use aws_lc_rs::{digest, rand};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::partition::Partition;
use crate::protocol::names::{Registration, Sid, Subject};

const LENGTH: usize = 32;
/// So many characters of base64url without padding hold that many bytes.
const TEXT_LENGTH: usize = 43;

/// The characters of base64url, in the order of their values.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The cookie's value: a character that says where the session lies, and 250 random bits, as base64url, new at every login.
/// Whoever has it has the session.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SessionId([u8; TEXT_LENGTH]);

impl SessionId {
    pub(crate) fn random() -> Self {
        let mut bytes = [0; LENGTH];
        fill_random(&mut bytes);
        let mut text = [0; TEXT_LENGTH];
        for (to, from) in text.iter_mut().zip(URL_SAFE_NO_PAD.encode(bytes).bytes()) {
            *to = from;
        }
        Self(text)
    }

    /// That of a session that a login with these names opens.
    pub(crate) fn random_for(registration: &Registration, sid: Option<&Sid>, subject: &Subject) -> Self {
        Self::random_in(match sid {
            Some(sid) => Partition::of_hash(&hash_of_sid(registration, sid)),
            None => Partition::of_hash(SubjectHash::of(registration, subject).as_bytes()),
        })
    }

    fn random_in(partition: Partition) -> Self {
        let mut id = Self::random();
        let [first, ..] = &mut id.0;
        *first = ALPHABET.get(usize::from(partition.number())).copied().unwrap_or(*first);
        id
    }

    /// Where the session lies, if it is one of ours.
    fn partition(&self) -> Partition {
        let [first, ..] = self.0;
        Partition::from_number(match first {
            b'A'..=b'Z' => first - b'A',
            b'a'..=b'z' => first - b'a' + 26,
            b'0'..=b'9' => first - b'0' + 52,
            b'-' => 62,
            _ => 63,
        })
    }

    /// Anything of the right length: it is looked up by its hash, which nothing has but what was handed out.
    pub(crate) fn parse(cookie: &[u8]) -> Option<Self> {
        cookie.try_into().ok().map(Self)
    }

    pub(crate) fn to_cookie(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(…)")
    }
}

/// A short name of a client and its issuer; of a tenant's, where tenants may have them in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientTag([u8; Self::LENGTH]);

impl ClientTag {
    const LENGTH: usize = 12;

    pub(crate) fn of(registration: &Registration, tenant: &str) -> Self {
        Self(hash_of("client", registration, tenant).first_chunk().copied().unwrap_or_default())
    }
}

/// The name of a session in its registry: the number of the part of the store that it lies in (one byte), and a hash of the
/// cookie's value, the issuer and the client id.
///
/// A copy of the registry opens no session, and the cookie of one client is none for another that shares the store.
///
/// As text it is 64 hexadecimal digits, by `Display` and `FromStr`; serde reads that too, so that a form or a path may hold one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct SessionKey([u8; LENGTH]);

impl<'de> Deserialize<'de> for SessionKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// As stores write it, or as people do.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Bytes([u8; LENGTH]),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Bytes(bytes) => Ok(Self(bytes)),
            Written::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

impl SessionKey {
    pub(crate) fn of(id: &SessionId, client: ClientTag) -> Self {
        // Both fit into one block of SHA-256, which is most of what a request costs with a registry in memory.
        let mut named = [0; TEXT_LENGTH + ClientTag::LENGTH];
        let (first, second) = named.split_at_mut(TEXT_LENGTH);
        first.copy_from_slice(&id.0);
        second.copy_from_slice(&client.0);
        let mut key = [0; LENGTH];
        key.copy_from_slice(digest::digest(&digest::SHA256, &named).as_ref());
        let [first, ..] = &mut key;
        *first = id.partition().number();
        Self(key)
    }

    /// Where the session lies.
    #[cfg(feature = "redis")]
    pub(crate) fn partition(&self) -> Partition {
        Partition::of_hash(&self.0)
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

/// For maps in memory. A key is a hash that nobody chooses: a part of it tells keys apart as well as all of it, and better
/// than a hash of it.
impl Hash for SessionKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let part = self.0.last_chunk().copied().unwrap_or_default();
        state.write_u64(u64::from_ne_bytes(part));
    }
}

/// Takes a number for its hash.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

pub(crate) type KeyMap<V> = HashMap<SessionKey, V, BuildHasherDefault<AsItIs>>;

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

    /// The key of these bytes, for registries.
    #[must_use]
    pub fn from_bytes(bytes: [u8; LENGTH]) -> Self {
        Self(bytes)
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
    /// The hash of a user. Stores that find sessions by it tell nobody who reads them whose they are, unless they
    /// guess the `sub`.
    #[must_use]
    pub fn of(registration: &Registration, subject: &Subject) -> Self {
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

/// The name of a `sid` in a store: a hash, which tells a reader of the store nothing.
#[must_use]
pub fn hash_of_sid(registration: &Registration, sid: &Sid) -> [u8; LENGTH] {
    hash_of("sid", registration, sid.as_str())
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
        // `from_str_radix` would take a sign as well.
        if hex.len() != 2 * LENGTH || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(hex.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

/// A text that is no key of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it takes the 64 hexadecimal digits of a session's key")]
#[non_exhaustive]
pub struct UnknownSessionKey;

impl FromStr for SessionKey {
    type Err = UnknownSessionKey;

    fn from_str(text: &str) -> Result<Self, UnknownSessionKey> {
        Self::from_hex(text).ok_or(UnknownSessionKey)
    }
}

/// In hexadecimal, for registries, forms and logs, and as the mark of a login in application data.
impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |number: u8| DIGITS.get(usize::from(number)).map_or('?', |digit| char::from(*digit));
    let mut hex = String::with_capacity(2 * bytes.len());
    hex.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
    hex
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

/// A random name that people can read to each other: eight characters.
pub(crate) fn random_reference() -> String {
    let mut bytes = [0; 4];
    fill_random(&mut bytes);
    hex(&bytes)
}

/// 256 random bits as text: 43 characters, what the conformance suite allows a `nonce`.
pub(crate) fn random_text() -> String {
    SessionId::random().to_cookie()
}

/// Whether a text may be one of those.
pub(crate) fn is_random_text(text: &str) -> bool {
    text.len() == TEXT_LENGTH && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::names::{ClientId, Issuer};

    #[test]
    fn cookies_are_read_back_and_nothing_else_is() {
        let id = SessionId::random();
        assert!(is_random_text(&id.to_cookie()));
        assert_eq!(SessionId::parse(id.to_cookie().as_bytes()), Some(id));
        for odd in ["", "x", &"é".repeat(22), &"A".repeat(42), &"A".repeat(44)] {
            assert_eq!(SessionId::parse(odd.as_bytes()), None, "{odd}");
            assert!(!is_random_text(odd), "{odd}");
        }
        assert!(!is_random_text(&"=".repeat(43)));
    }

    #[test]
    fn a_key_says_where_its_session_lies() {
        let tag = ClientTag::of(&Registration::new(Issuer::new("https://op"), ClientId::new("shop")), "");
        for number in 0..Partition::COUNT {
            let id = SessionId::random_in(Partition::from_number(number));
            assert!(is_random_text(&id.to_cookie()));
            assert_eq!(SessionKey::of(&id, tag).as_bytes().first(), Some(&number), "{}", id.to_cookie());
        }
    }

    #[test]
    fn a_key_is_read_from_its_digits_alone() {
        let key = SessionKey::from_bytes([0x0f; LENGTH]);
        assert_eq!(SessionKey::from_hex(&key.to_string()), Some(key));
        let odd = |text: &str| key.to_string().replacen("0f", text, 1);
        for text in ["", "0f", &odd("+f"), &odd("-f"), &odd(" f"), &odd("0x"), &odd("é"), &odd("0f0")] {
            assert_eq!(SessionKey::from_hex(text), None, "{text}");
        }
    }

    #[test]
    fn keys_are_read_as_they_are_shown() {
        let key = SessionKey::from_bytes([7; LENGTH]);
        let text = key.to_string();
        assert_eq!(text.parse(), Ok(key));
        let read = |json: &str| serde_json::from_str::<SessionKey>(json).ok();
        assert_eq!(read(&format!("\"{text}\"")), Some(key));
        assert_eq!(read(&serde_json::to_string(&key).unwrap()), Some(key), "as stores have it");
        assert_eq!(serde_json::to_string(&key).unwrap(), format!("[{}]", ["7"; LENGTH].join(",")));
        for odd in ["\"07\"", "[7]", "7", "null", "\"\""] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }

    #[test]
    fn keys_are_scoped_by_issuer_and_client() {
        let id = SessionId::random();
        let tag =
            |iss: &str, client: &str| ClientTag::of(&Registration::new(Issuer::new(iss), ClientId::new(client)), "");
        let key = SessionKey::of(&id, tag("https://op", "shop"));
        let registration = Registration::new(Issuer::new("https://op"), ClientId::new("shop"));
        assert_ne!(key, SessionKey::of(&id, ClientTag::of(&registration, "acme")));
        assert_eq!(key, SessionKey::of(&id, tag("https://op", "shop")));
        assert_ne!(key, SessionKey::of(&id, tag("https://op", "shop2")));
        assert_ne!(key, SessionKey::of(&id, tag("https://op2", "shop")));
        assert_eq!(format!("{key:?}").len(), "SessionKey(01020304…)".len());
        assert_eq!(format!("{id:?}"), "SessionId(…)");
    }

    #[test]
    fn p13_the_names_in_stores_are_those_of_earlier_versions() {
        let shop = Registration::new(Issuer::new("https://op.example"), ClientId::new("shop"));
        let subject = SubjectHash::of(&shop, &Subject::new("alice"));
        assert_eq!(hex(subject.as_bytes()), "537a99178b50cbcec49b146b1e6427660b9ff4e0110d50cede4bae21d69af40e");
        let sid = hash_of_sid(&shop, &Sid::new("s"));
        assert_eq!(hex(&sid), "552e49ee3fe740caaec19b1d5efd1df764cf5e1c96cea5908ce0ae11116fced8");
        let attempt = AttemptKey::of("state", &shop);
        assert_eq!(hex(attempt.as_bytes()), "dd824bdd87dd9e3116da1cbffa8f0f930302860dd17141416f72f119bfe7ac2c");
    }

    #[test]
    fn what_is_random_is_of_its_kind_and_not_the_same_twice() {
        let fractions: Vec<f64> = (0..100).map(|_| random_fraction()).collect();
        assert!(fractions.iter().all(|fraction| (0.0..=1.0).contains(fraction)), "{fractions:?}");
        // All on one side would be a chance of one in 2^99.
        assert!(fractions.iter().any(|fraction| *fraction < 0.5) && fractions.iter().any(|fraction| *fraction > 0.5));
        let (one, other) = (random_reference(), random_reference());
        assert!(one != other && one.len() == 8, "{one} {other}");
    }
}
