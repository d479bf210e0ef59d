//! What a registry answers about a record.

use std::sync::Arc;
use std::time::SystemTime;

use super::end_reason::{EndMark, EndReason};
use super::record::SessionRecord;

/// The answer of [`SessionRegistry::spend`](crate::SessionRegistry::spend).
///
/// Exhaustive: a registry that hands on the answers of another has to know each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// Somebody has spent the attempt before.
    Before,
    /// The caller has.
    Now,
}

/// The answer of [`SessionRegistry::create`](crate::SessionRegistry::create).
///
/// Exhaustive: a registry that hands on the answers of another has to know each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// A logout has overtaken the login; nothing was stored. The last one that did arrived then, by the store's clock.
    Covered(SystemTime),
    /// The session is stored.
    Created,
    /// The key is taken; nothing was stored.
    Exists,
}

/// The answer of [`SessionRegistry::load`](crate::SessionRegistry::load).
///
/// Exhaustive: a registry that hands on the answers of another has to know each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// It ended, and the registry still knows why.
    Ended(EndMark),
    /// It is there.
    Live(Arc<SessionRecord>),
    /// There is no such session.
    Unknown,
}

/// The answer of [`SessionRegistry::claim_refresh`](crate::SessionRegistry::claim_refresh).
///
/// Exhaustive: a registry that hands on the answers of another has to know each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The record has another version by now.
    Changed(Arc<SessionRecord>),
    /// The lease is the caller's.
    Granted,
    /// The session is gone.
    Gone(Option<EndReason>),
    /// Somebody else has the lease.
    Held,
}

/// The answer of [`SessionRegistry::commit`](crate::SessionRegistry::commit).
///
/// Exhaustive: a registry that hands on the answers of another has to know each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// The record is stored as this.
    Committed(Arc<SessionRecord>),
    /// The session is gone; nothing was stored.
    Gone(Option<EndReason>),
    /// Somebody else changed the record to this; nothing was stored.
    Stale(Arc<SessionRecord>),
}
