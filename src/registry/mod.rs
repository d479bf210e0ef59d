//! Where sessions live: the contract of a registry, and the one in memory.

pub(crate) mod binding;
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) mod codec;
mod listeners;
pub(crate) mod memory;
#[cfg(test)]
mod model;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "redis")]
pub(crate) mod redis;
pub(crate) mod rules;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::protocol::names::{Registration, Sid, Subject};
use crate::session::event::EndReason;
use crate::session::id::{SessionKey, fill_random};
use crate::session::record::{SessionRecord, Version};
pub use crate::session::stored::{Claimed, Committed, Created, Loaded};

/// How long a registry remembers that a session ended, and whom a logout token logged out.
///
/// It has to outlast a login whose tokens are on their way while the logout token arrives, and the answer to the next
/// request of a browser whose session is gone says why for as long.
pub const TOMBSTONE_RETENTION: Duration = Duration::from_secs(10 * 60);

/// How much later than a logout token by `sub` an ID token may have been issued and still be covered by it: the
/// provider writes whole seconds, perhaps on two machines.
pub const TOMBSTONE_TOLERANCE: Duration = Duration::from_secs(1);

/// Where sessions live, and the only authority on whether somebody is logged in.
///
/// # Contract
///
/// Every operation is atomic in the store itself, because replicas share it.
///
/// 1. A key that ended is never live again: after [`end`](Self::end) or [`end_matching`](Self::end_matching) has
///    returned, [`load`](Self::load) does not find it, and [`commit`](Self::commit) and
///    [`claim_refresh`](Self::claim_refresh) refuse it, on every replica.
/// 2. [`create`](Self::create) refuses a key that exists, and a login that a tombstone covers: one whose
///    `(registration, sid)` was ended by [`end_matching`](Self::end_matching) within [`TOMBSTONE_RETENTION`], or whose
///    `(registration, sub)` was, if its ID token was issued not later than [`TOMBSTONE_TOLERANCE`] after the logout
///    token.
/// 3. `end_matching` by `sid` ends the sessions with exactly that registration and `sid`. Only if there is none, and
///    the target names a subject, it ends the subject's sessions *without* `sid` that are not younger than the token:
///    no later logout token could reach those. It never widens to sessions with another `sid`.
/// 4. `end_matching` by subject ends all sessions of that registration and subject that are not younger than the
///    token, with the same tolerance as the tombstone.
/// 5. `commit` stores the record only if the stored one has the version that the new one was made from, and counts the
///    version up. The indices follow a changed `sid`.
/// 6. At most one holder has the lease of a session. It is asked for a version; a lease that ran out is free, and
///    asking again as its holder renews it.
/// 7. Ends are published to the [`subscribe`](Self::subscribe)rs on all replicas. Admission never relies on it.
/// 8. Time is an argument. A record that has [expired](SessionRecord::expires_at) may vanish at any time.
#[async_trait]
pub trait SessionRegistry: fmt::Debug + Send + Sync + 'static {
    /// Stores the session of a new login.
    ///
    /// # Errors
    /// If the store could not be reached or did not confirm the write.
    async fn create(&self, record: SessionRecord, now: SystemTime) -> Result<Created, RegistryError>;

    /// Finds a session, in one round trip.
    ///
    /// # Errors
    /// If the store could not be reached.
    async fn load(&self, key: &SessionKey) -> Result<Loaded, RegistryError>;

    /// Claims the right to refresh the session, or renews the claim. Leases go by the store's own clock: those of replicas
    /// may differ.
    ///
    /// # Errors
    /// If the store could not be reached or did not confirm the write.
    async fn claim_refresh(&self, key: &SessionKey, version: Version, lease: Lease) -> Result<Claimed, RegistryError>;

    /// Gives a claim back. One that is not held is left alone.
    ///
    /// # Errors
    /// If the store could not be reached: the lease runs out by itself.
    async fn release_refresh(&self, key: &SessionKey, holder: LeaseHolder) -> Result<(), RegistryError>;

    /// Replaces a record, gives the lease back and counts the version up.
    ///
    /// # Errors
    /// If the store could not be reached or did not confirm the write.
    async fn commit(&self, record: SessionRecord, now: SystemTime) -> Result<Committed, RegistryError>;

    /// Ends one session; `None` if it was gone already.
    ///
    /// # Errors
    /// If the store could not be reached or did not confirm the write.
    async fn end(
        &self,
        key: &SessionKey,
        reason: EndReason,
        now: SystemTime,
    ) -> Result<Option<Arc<SessionRecord>>, RegistryError>;

    /// Ends all sessions of a logout target, returns them and leaves a tombstone, also if there are none.
    ///
    /// # Errors
    /// If the store could not be reached or did not confirm the write.
    async fn end_matching(
        &self,
        target: &LogoutTarget,
        reason: EndReason,
        now: SystemTime,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError>;

    /// Removes some of the records that have expired, and returns those it removed.
    ///
    /// # Errors
    /// If the store could not be reached.
    async fn remove_expired(&self, now: SystemTime) -> Result<Vec<Arc<SessionRecord>>, RegistryError>;

    /// Tells `listener` of every end from now on, on whichever replica it happens.
    fn subscribe(&self, listener: EndListener);
}

/// Is told of ends by a registry; must return at once.
pub type EndListener = Box<dyn Fn(EndNotice) + Send + Sync>;

/// What a registry tells its subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndNotice {
    /// This session ended.
    Ended(SessionKey, EndReason),
    /// Notices may have been lost: look at every session that matters.
    Missed,
}

/// A claim on the right to refresh, for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Who claims it.
    pub holder: LeaseHolder,
    /// For how long.
    pub duration: Duration,
}

/// One attempt to refresh, on one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseHolder(u128);

impl LeaseHolder {
    pub(crate) fn random() -> Self {
        let mut bytes = [0; 16];
        fill_random(&mut bytes);
        Self(u128::from_be_bytes(bytes))
    }

    /// The number, for registries.
    #[must_use]
    pub fn number(self) -> u128 {
        self.0
    }
}

/// Whom a logout token logs out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogoutTarget {
    /// One session at the provider, whatever its user.
    Sid {
        /// Where.
        registration: Registration,
        /// Which.
        sid: Sid,
        /// The user, if the token names one: reaches sessions that have no `sid`.
        subject: Option<Subject>,
        /// The token's `iat`, the provider's clock.
        issued_at: SystemTime,
    },
    /// All sessions of a user that began before the token was issued.
    Subject {
        /// Where.
        registration: Registration,
        /// Who.
        subject: Subject,
        /// The token's `iat`, the provider's clock.
        issued_at: SystemTime,
    },
}

/// The store of a registry failed: nothing is known about the session, so nothing may be served.
#[derive(Debug, thiserror::Error)]
#[error("the session registry failed: {message}")]
pub struct RegistryError {
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl RegistryError {
    /// An error with a message that holds no secret.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }

    /// An error with its cause.
    #[must_use]
    pub fn with_source(
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { message: message.into(), source: Some(source.into()) }
    }
}
