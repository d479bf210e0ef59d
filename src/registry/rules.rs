//! The decisions of a registry, for stores of every kind: pure, and explored by the [`model`](super::model).

use std::time::SystemTime;

use super::TOMBSTONE_TOLERANCE;
use crate::session::record::Version;

/// Whether a new session may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CreateRule {
    Covered,
    Create,
    Exists,
}

pub(crate) fn create(key: Key, cover: Cover) -> CreateRule {
    match (key, cover) {
        (Key::Taken, _) => CreateRule::Exists,
        (Key::Free, Cover::Covered) => CreateRule::Covered,
        (Key::Free, Cover::Open) => CreateRule::Create,
    }
}

/// Whether a key is, or was, a session's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Free,
    Taken,
}

/// Whether a tombstone covers a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cover {
    Covered,
    Open,
}

/// `by_sid` is until when logins with the `sid` are refused; `by_subject` the same for the subject, with the time at which
/// the logout token was issued.
pub(crate) fn cover(
    issued_at: SystemTime,
    by_sid: Option<SystemTime>,
    by_subject: Option<(SystemTime, SystemTime)>,
    now: SystemTime,
) -> Cover {
    let is_covered = by_sid.is_some_and(|until| now < until)
        || by_subject.is_some_and(|(until, token)| now < until && issued_at <= token + TOMBSTONE_TOLERANCE);
    if is_covered { Cover::Covered } else { Cover::Open }
}

/// Who may refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClaimRule {
    Changed,
    Gone,
    Grant,
    Held,
}

/// `stored` is the version of a live session and who has its lease.
pub(crate) fn claim<H: PartialEq>(stored: Option<(Version, Option<H>)>, version: Version, holder: &H) -> ClaimRule {
    match stored {
        None => ClaimRule::Gone,
        Some((current, _)) if current != version => ClaimRule::Changed,
        Some((_, Some(current))) if current != *holder => ClaimRule::Held,
        Some(_) => ClaimRule::Grant,
    }
}

/// Whether a changed record may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitRule {
    Commit,
    Gone,
    Stale,
}

pub(crate) fn commit(stored: Option<Version>, made_from: Version) -> CommitRule {
    match stored {
        None => CommitRule::Gone,
        Some(current) if current != made_from => CommitRule::Stale,
        Some(_) => CommitRule::Commit,
    }
}
