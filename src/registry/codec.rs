//! Records as bytes, for stores outside this process: JSON, encrypted where a key is given.
//!
//! | byte 0 | what follows |
//! |---|---|
//! | 1 | the record as JSON |
//! | 2 | 4 bytes key id, 12 bytes nonce, the JSON under AES-256-GCM with the session's key as associated data |
//!
//! A record that cannot be read, of a newer format or under a key that is not given, is an error, as a store that is down
//! is: somebody else, a newer replica or one with more keys, reads it, so its session has neither ended nor never been.

use std::borrow::Cow;
use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};

use super::RegistryError;
use crate::error::{ConfigError, secret_from_base64};
use crate::session::id::{SessionKey, short_hash};
use crate::session::record::{SessionRecord, Version};

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
        Ok(Self { id: short_hash(&bytes), bytes })
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
pub struct Codec {
    keys: Vec<StorageKey>,
}

impl Codec {
    /// With these keys; without any, records are not encrypted.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = StorageKey>) -> Self {
        Self { keys: keys.into_iter().collect() }
    }

    /// Writes a record.
    ///
    /// # Errors
    /// If a key is no key.
    pub fn encode(&self, record: &SessionRecord) -> Result<Vec<u8>, RegistryError> {
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
    ///
    /// # Errors
    /// If it is not the record of that session in a format, and under a key, that are known here.
    pub fn decode(&self, key: &SessionKey, version: Version, bytes: &[u8]) -> Result<SessionRecord, RegistryError> {
        // What serde says may quote the record.
        let mut record: SessionRecord = serde_json::from_slice(&self.open(key, bytes)?)
            .map_err(|_| unreadable("its fields are not those of here"))?;
        if record.key() != key {
            return Err(unreadable("it is another session's"));
        }
        if !record.has_times_of_clocks() {
            return Err(unreadable("its times are none that a clock shows"));
        }
        record.version = version;
        Ok(record)
    }

    fn open<'a>(&self, key: &SessionKey, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, RegistryError> {
        let (kind, rest) = bytes.split_first().ok_or_else(|| unreadable("it is empty"))?;
        // Where there are keys, nothing is believed that was not encrypted with one of them.
        match (*kind, self.keys.is_empty()) {
            (PLAIN, true) => Ok(Cow::Borrowed(rest)),
            (PLAIN, false) => Err(unreadable("it is not encrypted, though storage keys are given")),
            (SEALED, _) => self.unseal(key, rest).map(Cow::Owned),
            (format, _) => Err(unreadable(&format!("its format {format} is not known here"))),
        }
    }

    fn unseal(&self, key: &SessionKey, bytes: &[u8]) -> Result<Vec<u8>, RegistryError> {
        let cut = || unreadable("it is cut short");
        let (id, rest) = bytes.split_at_checked(4).ok_or_else(cut)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LENGTH).ok_or_else(cut)?;
        let storage_key = self.keys.iter().find(|key| key.id == id);
        let storage_key = storage_key.ok_or_else(|| unreadable("its storage key is not among those given"))?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| cut())?;
        let mut sealed = sealed.to_vec();
        let json = storage_key.cipher()?.open_in_place(nonce, Aad::from(key.as_bytes()), &mut sealed);
        json.map(|json| json.to_vec()).map_err(|_| unreadable("it is not what was encrypted"))
    }
}

/// What a store holds and this replica does not understand.
pub(crate) fn unreadable(why: &str) -> RegistryError {
    RegistryError::new(format!("a stored session cannot be read: {why}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::protocol::authorization::{Authentication, Prompt};
    use crate::protocol::names::AccessToken;
    use crate::session::end_reason::EndReason;
    use crate::session::record::{OtherToken, samples};

    fn key(byte: u8) -> StorageKey {
        StorageKey::from_base64(&base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [byte; 32]))
            .unwrap()
    }

    fn codec(keys: &[u8]) -> Codec {
        Codec::new(keys.iter().copied().map(key))
    }

    fn decode(codec: &Codec, bytes: &[u8]) -> Result<SessionRecord, String> {
        codec.decode(samples::record().key(), Version::FIRST, bytes).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_is_read_by_those_who_have_the_key() {
        let record = samples::record();
        let (key_missing, plain) = (Some("its storage key is not among"), Some("it is not encrypted"));
        for (writes, reads, refused) in [
            (&[][..], &[][..], None),
            (&[1], &[1], None),
            // Rotation: the new key writes, the old one still opens.
            (&[1], &[2, 1], None),
            (&[2, 1], &[1, 2], None),
            (&[2, 1], &[1], key_missing),
            (&[1], &[], key_missing),
            // Where there are keys, nothing is believed that was not encrypted.
            (&[], &[1], plain),
        ] {
            let bytes = codec(writes).encode(&record).unwrap();
            let read = decode(&codec(reads), &bytes);
            match refused {
                None => assert_eq!(read.as_ref(), Ok(&record), "{writes:?} {reads:?}"),
                Some(why) => assert!(read.unwrap_err().contains(why), "{writes:?} {reads:?}"),
            }
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
            assert!(decode(&codec, &changed).is_err(), "byte {at}");
            assert!(decode(&codec, &bytes[..at]).is_err(), "cut at {at}");
        }
        let other = SessionKey::from_bytes([8; 32]);
        assert!(codec.decode(&other, Version::FIRST, &bytes).is_err(), "a record of another session");
    }

    #[test]
    fn p13_what_cannot_be_read_is_an_error_that_says_why_and_shows_nothing() {
        let record = samples::record();
        let mut newer = codec(&[]).encode(&record).unwrap();
        newer[0] = 9;
        for (bytes, why) in [
            (newer.as_slice(), "its format 9 is not known here"),
            (b"", "it is empty"),
            (b"\x01{\"refresh\":\"secret\"}", "its fields are not those of here"),
            (b"\x01secret", "its fields are not those of here"),
            (b"\x02abc", "it is cut short"),
        ] {
            let error = decode(&codec(&[]), bytes).unwrap_err();
            assert!(error.contains(why) && !error.contains("secret"), "{error}");
        }
        let other =
            codec(&[]).decode(&SessionKey::from_bytes([8; 32]), Version::FIRST, &codec(&[]).encode(&record).unwrap());
        assert!(other.unwrap_err().to_string().contains("another session's"));
    }

    /// A record with everything that one can have.
    fn full_record() -> SessionRecord {
        let at = |seconds: u64| samples::LOGIN + Duration::from_millis(seconds * 1000 + 250);
        let mut record = samples::record();
        let login = Arc::make_mut(&mut record.login);
        login.auth_time = Some(at(1));
        login.claims = serde_json::Map::from_iter([("name".to_owned(), "Alice".into())]);
        login.authentication = Authentication {
            prompt: Prompt::None,
            acr_values: Some("gold".to_owned()),
            max_age: Some(Duration::from_secs(60)),
        };
        record.session_expiry = Some(at(36_000));
        record.silent_login_at = Some(at(300));
        record.tokens.expires_in = Some(Duration::from_secs(300));
        let other = OtherToken {
            access_token: AccessToken::new("other"),
            expires_in: Some(Duration::from_secs(60)),
            obtained_at: at(2),
        };
        record.tokens.others.insert("https://api.example  read".to_owned(), other);
        record
    }

    #[test]
    fn p13_records_in_the_format_of_earlier_versions_are_read() {
        let bytes = |golden: &str| [&[PLAIN], golden.trim_end().as_bytes()].concat();
        for (golden, expected) in [
            (include_str!("../../tests/golden/record_1.json"), samples::record()),
            (include_str!("../../tests/golden/full_record_1.json"), full_record()),
        ] {
            assert_eq!(decode(&codec(&[]), &bytes(golden)).as_ref(), Ok(&expected));
        }
        let mut full = full_record();
        full.expires_for = EndReason::SessionExpiry;
        for (golden, expected) in [
            (include_str!("../../tests/golden/record_2.json"), samples::record()),
            (include_str!("../../tests/golden/full_record_2.json"), full.clone()),
        ] {
            assert_eq!(decode(&codec(&[]), &bytes(golden)).as_ref(), Ok(&expected));
        }
        // This is what is written today, too: a new format gets new files, and those of before stay readable.
        full.confirmed_until = Some(samples::LOGIN + Duration::from_secs(900));
        for (golden, expected) in [
            (include_str!("../../tests/golden/record_3.json"), samples::record()),
            (include_str!("../../tests/golden/full_record_3.json"), full),
        ] {
            assert_eq!(decode(&codec(&[]), &bytes(golden)).as_ref(), Ok(&expected));
            let written = codec(&[]).encode(&expected).unwrap();
            assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(&bytes(golden)));
        }
        let sealed = include_str!("../../tests/golden/full_record_1.sealed.base64").trim_end();
        let sealed = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, sealed).unwrap();
        assert_eq!(decode(&codec(&[1]), &sealed), Ok(full_record()));
    }

    #[test]
    fn p13_a_record_of_no_time_is_an_error_and_no_panic() {
        let written = serde_json::to_value(full_record()).unwrap();
        let never = serde_json::json!({"secs_since_epoch": i64::MAX, "nanos_since_epoch": 0});
        for (path, value) in [
            ("/last_signal", &never),
            ("/silent_login_at", &never),
            ("/session_expiry", &never),
            ("/expires_at", &never),
            ("/login/started_at", &never),
            ("/tokens/obtained_at", &never),
            ("/tokens/expires_in", &serde_json::json!({"secs": u64::MAX, "nanos": 0})),
        ] {
            let mut written = written.clone();
            *written.pointer_mut(path).unwrap() = value.clone();
            let bytes = [&[PLAIN], written.to_string().as_bytes()].concat();
            let error = decode(&codec(&[]), &bytes).unwrap_err();
            assert!(error.contains("its times are none that a clock shows"), "{path}: {error}");
        }
    }

    #[test]
    fn the_version_is_the_stores() {
        let bytes = codec(&[]).encode(&samples::record()).unwrap();
        let read = codec(&[]).decode(samples::record().key(), Version::from_number(9), &bytes);
        assert_eq!(read.unwrap().version().number(), 9);
    }
}

#[cfg(test)]
#[path = "codec_properties.rs"]
mod properties;
