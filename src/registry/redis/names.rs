//! The names of keys, and in which of a cluster's slots they lie.

use std::fmt;

use crate::protocol::names::{Registration, Sid, Subject};
use crate::registry::LogoutTarget;
use crate::session::id::{SessionKey, SubjectHash, hash_of_sid};
use crate::session::partition::Partition;

/// The slots of a cluster.
const SLOTS: u16 = 16_384;

/// The prefixes of all keys, by partition: each is a hash tag, in braces.
pub(super) struct Names {
    prefix: String,
    tags: Vec<String>,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        let tags = Partition::all().map(|partition| format!("{{{}}}", tag(prefix, partition))).collect();
        Self { prefix: prefix.to_owned(), tags }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What all keys of a partition begin with.
    pub(super) fn tag(&self, partition: Partition) -> &str {
        self.tags.get(usize::from(partition.number())).map_or("", String::as_str)
    }

    pub(super) fn key(&self, partition: Partition, name: impl fmt::Display) -> String {
        format!("{}:{name}", self.tag(partition))
    }

    pub(super) fn session(&self, key: &SessionKey) -> String {
        self.key(key.partition(), format_args!("s:{key}"))
    }

    /// Where ends are published, on all nodes of a cluster.
    pub(super) fn channel(&self) -> String {
        format!("{{{}}}:ends", self.prefix)
    }
}

/// A hash tag of the partition, in the part of the slots that is the partition's: nodes that have equal ranges of slots have
/// equal shares of partitions.
fn tag(prefix: &str, partition: Partition) -> String {
    let first = format!("{prefix}:{}", partition.number());
    let is_in_part = |tag: &String| {
        u32::from(slot(tag)) * u32::from(Partition::COUNT) / u32::from(SLOTS) == u32::from(partition.number())
    };
    let more = (1..SLOTS).map(|number| format!("{first}.{number}"));
    // One of 64 is there, on average.
    std::iter::once(first.clone()).chain(more).find(is_in_part).unwrap_or(first)
}

/// The slot of a hash tag: CRC-16 of XMODEM.
fn slot(tag: &str) -> u16 {
    let crc = tag.bytes().fold(0_u16, |crc, byte| {
        (0..8)
            .fold(crc ^ (u16::from(byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
    });
    crc % SLOTS
}

/// The sessions of a `sid` or of a user.
pub(super) struct Index {
    /// Where sessions of it begin.
    pub(super) home: Partition,
    name: String,
}

impl Index {
    fn of_hash(letter: &str, hash: [u8; 32]) -> Self {
        Self { home: Partition::of_hash(&hash), name: format!("{letter}:{}", SessionKey::from_bytes(hash)) }
    }

    pub(super) fn of_sid(registration: &Registration, sid: &Sid) -> Self {
        Self::of_hash("i", hash_of_sid(registration, sid))
    }

    pub(super) fn of_subject(registration: &Registration, subject: &Subject) -> Self {
        Self::of_hash("u", *SubjectHash::of(registration, subject).as_bytes())
    }

    /// That of those whom a logout names.
    pub(super) fn of_target(target: &LogoutTarget) -> Self {
        match target {
            LogoutTarget::Sid { registration, sid, .. } => Self::of_sid(registration, sid),
            LogoutTarget::Subject { registration, subject, .. } => Self::of_subject(registration, subject),
        }
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // From the specification of the cluster: CRC-16 of "123456789" is 0x31C3.
        assert_eq!(slot("123456789"), 0x31C3);
        assert_eq!(slot("foo"), 12_182);
        assert_eq!(slot(""), 0);
    }

    #[test]
    fn equal_ranges_of_slots_have_equal_shares_of_partitions() {
        for prefix in ["oidc-session", "shop", ""] {
            let names = Names::new(prefix);
            for partition in Partition::all() {
                let tag = names.tag(partition).trim_matches(['{', '}']);
                assert_eq!(slot(tag) / 256, u16::from(partition.number()), "{tag}");
            }
        }
    }
}
