//! Records as bytes, for stores outside this process: JSON, encrypted where a key is given.
//!
//! | byte 0 | what follows |
//! |---|---|
//! | 1 | the record as JSON |
//! | 2 | 4 bytes key id, 12 bytes nonce, the JSON under AES-256-GCM with the session's key as associated data |
//!
//! A record that cannot be read, of a newer version or under a key that is gone, counts as unknown: its user logs in
//! again.

use std::fmt;
use std::time::SystemTime;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{Context, SHA256, digest};

use super::RegistryError;
use crate::error::{ConfigError, secret_from_base64};
use crate::protocol::names::Registration;
use crate::session::id::SessionKey;
use crate::session::record::{SessionRecord, Version};

/// What a [`name_of`] is of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Sid,
    Subject,
}

/// A name under which sessions are found in a store: it tells a reader of the store nothing.
pub(crate) fn name_of(kind: Kind, registration: &Registration, name: &str) -> [u8; 32] {
    let kind = match kind {
        Kind::Sid => "sid",
        Kind::Subject => "sub",
    };
    let mut context = Context::new(&SHA256);
    for part in [kind, registration.issuer().as_str(), registration.client_id().as_str(), name] {
        context.update(part.as_bytes());
        context.update(&[0]);
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    bytes
}

/// A point in time as stores write it.
pub(crate) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}

const PLAIN: u8 = 1;
const SEALED: u8 = 2;
const NONCE_LENGTH: usize = 12;

/// A key that the records of sessions, and with them the tokens, are encrypted with in a store.
#[derive(Clone)]
pub struct StorageKey {
    id: [u8; 4],
    bytes: Vec<u8>,
}

impl StorageKey {
    const LENGTH: usize = 32;

    /// 32 random bytes in base64.
    ///
    /// # Errors
    /// If it is not base64, or not of 32 bytes.
    pub fn from_base64(text: &str) -> Result<Self, ConfigError> {
        let takes = "32 random bytes in base64, as of `openssl rand -base64 32`";
        let bytes = secret_from_base64("storage_key", text, Self::LENGTH, takes)?;
        let mut id = [0; 4];
        for (to, from) in id.iter_mut().zip(digest(&SHA256, &bytes).as_ref()) {
            *to = *from;
        }
        Ok(Self { id, bytes })
    }

    fn cipher(&self) -> Result<RandomizedNonceKey, RegistryError> {
        RandomizedNonceKey::new(&AES_256_GCM, &self.bytes).map_err(|_| RegistryError::new("a storage key is no key"))
    }
}

impl fmt::Debug for StorageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StorageKey(…)")
    }
}

/// How a registry writes and reads records. The first key seals, all open.
#[derive(Clone, Debug, Default)]
pub(crate) struct Codec {
    keys: Vec<StorageKey>,
}

impl Codec {
    pub(crate) fn new(keys: Vec<StorageKey>) -> Self {
        Self { keys }
    }

    pub(crate) fn encode(&self, record: &SessionRecord) -> Result<Vec<u8>, RegistryError> {
        let failed = |error| RegistryError::with_source("a record could not be written", error);
        let mut json = serde_json::to_vec(record).map_err(failed)?;
        let Some(key) = self.keys.first() else {
            json.insert(0, PLAIN);
            return Ok(json);
        };
        let aad = Aad::from(record.key().as_bytes());
        let nonce = key.cipher()?.seal_in_place_append_tag(aad, &mut json);
        let nonce = nonce.map_err(|_| RegistryError::new("a record could not be encrypted"))?;
        let mut sealed = vec![SEALED];
        sealed.extend_from_slice(&key.id);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.append(&mut json);
        Ok(sealed)
    }

    /// Reads a record; the version is the store's to say.
    pub(crate) fn decode(&self, key: &SessionKey, version: Version, bytes: &[u8]) -> Option<SessionRecord> {
        let record = self.open(key, bytes).and_then(|json| serde_json::from_slice::<SessionRecord>(&json).ok());
        let Some(mut record) = record.filter(|record| record.key() == key) else {
            tracing::warn!(session = ?key, "a stored session cannot be read: it counts as unknown");
            return None;
        };
        record.version = version;
        Some(record)
    }

    fn open(&self, key: &SessionKey, bytes: &[u8]) -> Option<Vec<u8>> {
        let (kind, rest) = bytes.split_first()?;
        // Where there are keys, nothing is believed that was not encrypted with one of them.
        match (*kind, self.keys.is_empty()) {
            (PLAIN, true) => Some(rest.to_vec()),
            (SEALED, false) => {
                let (id, rest) = rest.split_at_checked(4)?;
                let (nonce, sealed) = rest.split_at_checked(NONCE_LENGTH)?;
                let storage_key = self.keys.iter().find(|key| key.id == id)?;
                let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
                let mut sealed = sealed.to_vec();
                let aad = Aad::from(key.as_bytes());
                let json = storage_key.cipher().ok()?.open_in_place(nonce, aad, &mut sealed).ok()?;
                Some(json.to_vec())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::record::samples;

    fn key(byte: u8) -> StorageKey {
        StorageKey::from_base64(&base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [byte; 32]))
            .unwrap()
    }

    fn codec(keys: &[u8]) -> Codec {
        Codec::new(keys.iter().copied().map(key).collect())
    }

    fn decode(codec: &Codec, bytes: &[u8]) -> Option<SessionRecord> {
        codec.decode(samples::record().key(), Version::FIRST, bytes)
    }

    #[test]
    fn what_is_written_is_read_by_those_who_have_the_key() {
        let record = samples::record();
        for (writes, reads, expected) in [
            (&[][..], &[][..], true),
            (&[1], &[1], true),
            // Rotation: the new key writes, the old one still opens.
            (&[1], &[2, 1], true),
            (&[2, 1], &[1, 2], true),
            (&[2, 1], &[1], false),
            (&[1], &[], false),
            // Where there are keys, nothing is believed that was not encrypted.
            (&[], &[1], false),
        ] {
            let bytes = codec(writes).encode(&record).unwrap();
            let read = decode(&codec(reads), &bytes);
            assert_eq!(read, expected.then(|| record.clone()), "{writes:?} {reads:?}");
        }
    }

    #[test]
    fn p9_an_encrypted_record_shows_no_token() {
        let bytes = codec(&[1]).encode(&samples::record()).unwrap();
        let has = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        let plain = codec(&[]).encode(&samples::record()).unwrap();
        for text in ["refresh", "access", "alice", "nonce"] {
            assert!(has(&plain, text) && !has(&bytes, text), "{text}");
        }
        assert_ne!(bytes, codec(&[1]).encode(&samples::record()).unwrap(), "no nonce comes twice");
    }

    #[test]
    fn whatever_was_changed_is_not_believed() {
        let codec = codec(&[1]);
        let bytes = codec.encode(&samples::record()).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(decode(&codec, &changed), None, "byte {at}");
            assert_eq!(decode(&codec, &bytes[..at]), None, "cut at {at}");
        }
        let other = SessionKey::from_bytes([8; 32]);
        assert_eq!(codec.decode(&other, Version::FIRST, &bytes), None, "a record of another session");
    }

    #[test]
    fn the_version_is_the_stores() {
        let bytes = codec(&[]).encode(&samples::record()).unwrap();
        let read = codec(&[]).decode(samples::record().key(), Version::from_number(9), &bytes);
        assert_eq!(read.unwrap().version().number(), 9);
    }
}
