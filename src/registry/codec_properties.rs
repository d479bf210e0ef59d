//! Whatever is written is read as the same, and nothing else is.

use base64::{Engine, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::session::record::strategies::{cases, record};

fn codec(keys: &[u8]) -> Codec {
    Codec::new(keys.iter().map(|byte| StorageKey::from_base64(&STANDARD.encode([*byte; 32])).unwrap()))
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn p13_what_is_written_is_read_as_the_same(record in record(), keys in prop::collection::vec(1..4_u8, 0..3)) {
        let (key, version) = (*record.key(), record.version());
        let bytes = codec(&keys).encode(&record).unwrap();
        prop_assert_eq!(codec(&keys).decode(&key, version, &bytes).unwrap(), record.clone());
        // The version is the store's to say, and a record is that of one session.
        let next = codec(&keys).decode(&key, version.next(), &bytes).unwrap();
        prop_assert_eq!(next, record.clone().with_version(version.next()));
        prop_assert!(codec(&keys).decode(&SessionKey::from_bytes([8; 32]), version, &bytes).is_err());
        // Who has the key that sealed it reads it, and who has no key reads what is not sealed.
        for others in [&[][..], &[1], &[2, 3], &[3, 1, 2]] {
            let may = keys.first().map_or(others.is_empty(), |first| others.contains(first));
            prop_assert_eq!(codec(others).decode(&key, version, &bytes).is_ok(), may);
        }
    }

    #[test]
    fn p13_records_of_versions_before_are_read(record in record()) {
        let mut written = serde_json::to_value(&record).unwrap();
        let fields = written.as_object_mut().unwrap();
        fields.remove("expires_for");
        fields.remove("confirmed_until");
        fields["login"].as_object_mut().unwrap().remove("previous_end");
        // What a later version may add is none of ours.
        fields.insert("of_tomorrow".to_owned(), 1.into());
        let bytes = [&[PLAIN][..], written.to_string().as_bytes()].concat();
        let read = codec(&[]).decode(record.key(), record.version(), &bytes).unwrap();
        prop_assert_eq!(read.expires_for(), crate::session::end_reason::EndReason::AbsoluteLifetime);
        prop_assert_eq!((read.tokens, read.last_signal), (record.tokens, record.last_signal));
    }

    #[test]
    fn p13_what_was_changed_is_not_believed(record in record(), at in any::<Index>(), change in 1..=255_u8) {
        let codec = codec(&[1]);
        let mut bytes = codec.encode(&record).unwrap();
        let at = at.index(bytes.len());
        prop_assert!(codec.decode(record.key(), record.version(), &bytes[..at]).is_err());
        bytes[at] ^= change;
        prop_assert!(codec.decode(record.key(), record.version(), &bytes).is_err());
    }
}
