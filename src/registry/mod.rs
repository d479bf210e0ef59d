//! Where sessions live: the contract of a registry, and what is needed to write one for another store.
//!
//! [`SessionRegistry`] is the contract; [`MemoryRegistry`](crate::MemoryRegistry), `RedisRegistry` and `PostgresRegistry` keep it,
//! and so does `examples/sqlite_registry.rs`, which is written with the public items of this module alone: [`rules`] are the
//! decisions, [`Codec`] writes records, and `test_provider::check_registry` (feature `test-provider`) tests a store. The trait is
//! made with [`macro@async_trait`], as it has to be object safe.

mod arc;
#[cfg(feature = "tower-sessions")]
pub(crate) mod binding;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod call_time;
pub(crate) mod codec;
mod listeners;
pub(crate) mod memory;
#[cfg(test)]
mod model;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod recent;
#[cfg(feature = "redis")]
pub(crate) mod redis;
pub mod rules;
#[cfg(test)]
mod signal_properties;
pub(crate) mod store_clock;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod words;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use async_trait::async_trait;

use http::StatusCode;

pub use self::codec::{Codec, StorageKey};
pub use self::listeners::Listeners;
use crate::clock::Clock;
use crate::protocol::logout_token::Whom;
pub use crate::protocol::names::{Registration, Sid, Subject};
pub use crate::session::end_reason::EndMark;
use crate::session::end_reason::EndReason;
pub use crate::session::id::{AttemptKey, SessionKey, SubjectHash, hash_of_sid};
use crate::session::id::{fill_random, short_hash};
use crate::session::login_attempt::LOGIN_TIMEOUT;
pub use crate::session::login_attempt::LoginAttempt;
pub use crate::session::record::{SessionRecord, Version};
pub use crate::session::stored::{Claimed, Committed, Created, Loaded, Spent};

/// How long a registry remembers whom a logout reached.
///
/// It has to outlast a login that is under way while the logout arrives: the ten minutes that a login may take, the
/// exchange of its code, and a minute more.
pub const TOMBSTONE_RETENTION: Duration = LOGIN_TIMEOUT.saturating_add(Duration::from_secs(2 * 60));

/// How long a registry remembers why a session ended, and whose it was: as long as its user may still ask.
pub const END_MARK_RETENTION: Duration = Duration::from_secs(10 * 60);

/// How long a registry remembers that a login attempt was spent, or a kept form: two minutes longer than any lives, for clocks
/// that differ.
pub const SPENT_RETENTION: Duration = LOGIN_TIMEOUT.saturating_add(Duration::from_secs(2 * 60));

/// How long nobody else gets a lease that ran out, counted from the first who asks: its holder may be about to commit what
/// the provider answered while the store was out of reach.
pub const LAPSE_GRACE: Duration = Duration::from_secs(2);

/// How much later than a logout token for one `sid` the ID token of a login may have been issued that it still ends. Later
/// ones are of the next session of a provider that gives a `sid` anew.
pub const SID_TOLERANCE: Duration = Duration::from_secs(30);

/// The same for a logout token by `sub`: the provider writes whole seconds, perhaps on two machines.
pub const SUBJECT_TOLERANCE: Duration = Duration::from_secs(1);

/// Where sessions live, and the only authority on whether somebody is logged in.
///
/// # Contract
///
/// Every operation is atomic in the store itself, because replicas share it.
///
/// 1. A key that ended is never live again: after [`end`](Self::end) or [`end_matching`](Self::end_matching) has
///    returned, [`load`](Self::load) does not find it, and [`commit`](Self::commit) and
///    [`claim_refresh`](Self::claim_refresh) refuse it, on every replica.
/// 2. [`create`](Self::create) refuses a key that exists, and a login whose attempt a tombstone
///    [covers](LoginAttempt::is_covered_by): that of its `(registration, sid)` or of its `(registration, sub)`.
/// 3. `end_matching` leaves a tombstone, which keeps when the logout [arrived](Self::time), for [`TOMBSTONE_RETENTION`].
///    One that is there is renewed only by a token with a later `iat`, or with the same `iat` and another `jti`, and by the
///    application; its arrival never goes back. A token that is older than the retention leaves none.
/// 4. `end_matching` by `sid` ends the sessions with exactly that registration and `sid` whose login's ID token was issued
///    not later than [`SID_TOLERANCE`] after the token. Only if there is no session with that `sid`, and the target names a
///    subject, it ends the subject's sessions *without* `sid` that are not younger than the token, and covers the logins
///    that are to be such: no later logout token could reach those. It never widens to sessions with another `sid`.
/// 5. `end_matching` by subject ends all sessions of that registration and subject whose login's ID token was issued not
///    later than [`SUBJECT_TOLERANCE`] after the token; if the application asks, all.
/// 6. `commit` stores the record only if the stored one has the version that the new one was made from, and counts the
///    version up. The indices follow a changed `sid`; one that has a tombstone is refused.
/// 7. At most one holder has the lease of a session. It is asked for a version; asking again as its holder renews it. A
///    lease that ran out is its holder's for [`LAPSE_GRACE`] more, counted from the first who asks for it.
/// 8. Whatever removes a session leaves a mark for [`END_MARK_RETENTION`], with the reason and a hash of the `sub`, and is
///    published to the [`subscribe`](Self::subscribe)rs on all replicas. Admission never relies on the latter.
///    A store that cannot tell all replicas at once tells them within [`trust`](Self::trust).
/// 9. What is kept, leased and removed goes by the store's own clock: those of replicas may differ. A record goes when as
///    much time has passed there as was left until it [expires](SessionRecord::expires_at) by the `now` that came with it.
/// 10. A record that cannot be read, under a key or in a format that is not known here, is an error where it is asked for; but it
///     ends as any other: nothing keeps a logout or the cleaning from what they can do.
#[async_trait]
pub trait SessionRegistry: fmt::Debug + Send + Sync + 'static {
    /// The time by the store's clock, by which tombstones and login attempts are dated.
    ///
    /// # Errors
    /// If the store could not be reached.
    async fn time(&self) -> Result<SystemTime, RegistryError>;

    /// Notes that a login attempt is spent, for [`SPENT_RETENTION`]: only the first who says so gets
    /// [`Spent::Now`].
    ///
    /// # Errors
    /// If the store could not be reached or did not confirm the write.
    async fn spend(&self, attempt: &AttemptKey) -> Result<Spent, RegistryError>;

    /// Stores the session of a new login.
    ///
    /// # Errors
    /// If the store could not be reached or did not confirm the write.
    async fn create(
        &self,
        record: SessionRecord,
        attempt: LoginAttempt,
        now: SystemTime,
    ) -> Result<Created, RegistryError>;

    /// Finds a session, in one round trip.
    ///
    /// # Errors
    /// If the store could not be reached.
    async fn load(&self, key: &SessionKey) -> Result<Loaded, RegistryError>;

    /// What [`load`](Self::load) says, where that is known without waiting: a request that has no more to ask is served
    /// without a pause. Never from a copy, which may not know of an end yet (rule 1). `None`, the default, says nothing.
    fn load_at_once(&self, _key: &SessionKey) -> Option<Loaded> {
        None
    }

    /// Whether there is another session of the record's `sid`, or of its subject if it has none.
    ///
    /// # Errors
    /// If the store could not be reached.
    async fn has_sibling(&self, record: &SessionRecord) -> Result<bool, RegistryError>;

    /// All live sessions of a user, in no order.
    ///
    /// # Errors
    /// If the store could not be reached, or one of them cannot be read.
    async fn sessions_of(
        &self,
        registration: &Registration,
        subject: &Subject,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError>;

    /// All live sessions of one session at the provider, in no order.
    ///
    /// # Errors
    /// If the store could not be reached, or one of them cannot be read.
    async fn sessions_with_sid(
        &self,
        registration: &Registration,
        sid: &Sid,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError>;

    /// About how many sessions there are, of all who share the store; for a gauge, once a minute. `None`, the default, says nothing.
    ///
    /// # Errors
    /// If the store could not be reached.
    async fn count(&self) -> Result<Option<u64>, RegistryError> {
        Ok(None)
    }

    /// Claims the right to refresh the session, or renews the claim.
    ///
    /// # Errors
    /// If the store could not be reached or did not confirm the write.
    async fn claim_refresh(&self, key: &SessionKey, version: Version, lease: Lease) -> Result<Claimed, RegistryError>;

    /// Gives a claim back. One that is not held is left alone.
    ///
    /// # Errors
    /// If the store could not be reached: the lease runs out by itself.
    async fn release_refresh(&self, key: &SessionKey, holder: LeaseHolder) -> Result<(), RegistryError>;

    /// Replaces a record, gives the lease back and counts the version up. A `sid` that has a tombstone is answered with
    /// `Gone(Some(BackChannelLogout))`, and nothing is changed: the caller ends the session, and says so.
    ///
    /// # Errors
    /// If the store could not be reached or did not confirm the write.
    async fn commit(&self, record: SessionRecord, now: SystemTime) -> Result<Committed, RegistryError>;

    /// Ends one session; `None` if it was gone already.
    ///
    /// # Errors
    /// If the store could not be reached or did not confirm the write.
    async fn end(&self, key: &SessionKey, reason: EndReason) -> Result<Option<Arc<SessionRecord>>, RegistryError>;

    /// Ends all sessions of a logout target, returns them and leaves a tombstone, also if there are none. `now` is for the
    /// age of its token.
    ///
    /// # Errors
    /// If the store could not be reached or did not confirm the write, or not all of it; the error has those that have
    /// [ended](RegistryError::ended).
    async fn end_matching(
        &self,
        target: &LogoutTarget,
        reason: EndReason,
        now: SystemTime,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError>;

    /// Ends the sessions whose records have expired, each for its [reason](SessionRecord::expires_for), and returns them.
    ///
    /// # Errors
    /// If the store could not be reached; the error has those that have [ended](RegistryError::ended).
    async fn remove_expired(&self) -> Result<Vec<Arc<SessionRecord>>, RegistryError>;

    /// How long a look at a session is good for responses that stream, while there is no [notice](Self::subscribe) of its end;
    /// then they are looked after again. Default: 30 s, as notices may be lost on their way between replicas.
    fn trust(&self) -> Duration {
        Duration::from_secs(30)
    }

    /// Whether other processes see the same sessions; default: they do. Memory is its process's own.
    fn is_shared(&self) -> bool {
        true
    }

    /// Is called by each relying party that is built over the registry, with its clock. Only a store without a clock of its
    /// own has use for it, as that in the memory of the process; it takes the first.
    fn adopt_clock(&self, _clock: &Arc<dyn Clock>) {}

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
#[non_exhaustive]
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

    /// The holder of that number, for registries.
    #[must_use]
    pub fn from_number(number: u128) -> Self {
        Self(number)
    }
}

/// Whom a logout reaches.
///
/// Exhaustive: a registry that does not know a kind of logout would leave sessions alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogoutTarget {
    /// One session at the provider, whatever its user.
    Sid {
        /// Where.
        registration: Registration,
        /// Which.
        sid: Sid,
        /// The user, if the token names one: reaches sessions that have no `sid`.
        subject: Option<Subject>,
        /// The logout token.
        token: TokenMark,
    },
    /// All sessions of a user that began before.
    Subject {
        /// Where.
        registration: Registration,
        /// Who.
        subject: Subject,
        /// The logout token; `None` where the application asks, which is followed in any case.
        token: Option<TokenMark>,
    },
}

impl LogoutTarget {
    /// Those whom a verified token names.
    pub(crate) fn of(whom: Whom, registration: Registration, token: TokenMark) -> Self {
        match whom {
            Whom::Sid { sid, subject } => Self::Sid { registration, sid, subject, token },
            Whom::Subject(subject) => Self::Subject { registration, subject, token: Some(token) },
        }
    }

    /// Where.
    #[must_use]
    pub fn registration(&self) -> &Registration {
        match self {
            Self::Sid { registration, .. } | Self::Subject { registration, .. } => registration,
        }
    }

    /// Which session at the provider, if it is one.
    #[must_use]
    pub fn sid(&self) -> Option<&Sid> {
        match self {
            Self::Sid { sid, .. } => Some(sid),
            Self::Subject { .. } => None,
        }
    }

    /// The user, if it names one.
    #[must_use]
    pub fn subject(&self) -> Option<&Subject> {
        match self {
            Self::Sid { subject, .. } => subject.as_ref(),
            Self::Subject { subject, .. } => Some(subject),
        }
    }

    /// The token that asks for the logout, if none of the application's does.
    #[must_use]
    pub fn token(&self) -> Option<&TokenMark> {
        match self {
            Self::Sid { token, .. } => Some(token),
            Self::Subject { token, .. } => token.as_ref(),
        }
    }
}

/// What a tombstone keeps of a logout token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenMark {
    issued_at: SystemTime,
    id: u128,
}

impl TokenMark {
    /// The token with this `iat`, by the provider's clock, and this `jti`. Time counts to the millisecond, as stores write it.
    #[must_use]
    pub fn new(issued_at: SystemTime, jti: &str) -> Self {
        Self::from_parts(issued_at, u128::from_be_bytes(short_hash(jti.as_bytes())))
    }

    /// The mark with this `iat` and [`id`](Self::id), for registries that were told of it from elsewhere.
    #[must_use]
    pub fn from_parts(issued_at: SystemTime, id: u128) -> Self {
        let since = issued_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let millis = Duration::new(since.as_secs(), since.subsec_millis() * 1_000_000);
        Self { issued_at: SystemTime::UNIX_EPOCH + millis, id }
    }

    /// The token's `iat`.
    #[must_use]
    pub fn issued_at(&self) -> SystemTime {
        self.issued_at
    }

    /// A hash of the token's `jti`.
    #[must_use]
    pub fn id(&self) -> u128 {
        self.id
    }
}

/// The store of a registry failed: nothing is known about the session, so nothing may be served.
#[derive(Debug, thiserror::Error)]
#[error("the session registry failed: {message}")]
pub struct RegistryError {
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    ended: Vec<Arc<SessionRecord>>,
}

impl RegistryError {
    /// An error with a message that holds no secret.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None, ended: Vec::new() }
    }

    /// An error with its cause.
    #[must_use]
    pub fn with_source(
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { message: message.into(), source: Some(source.into()), ended: Vec::new() }
    }

    /// The same of an operation that was to end many sessions, and has ended these before it failed: they are told of.
    #[must_use]
    pub fn after_ending(self, ended: Vec<Arc<SessionRecord>>) -> Self {
        Self { ended, ..self }
    }

    /// The status of an answer that says so: whatever was asked of the store may be there, and nobody can tell.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        StatusCode::SERVICE_UNAVAILABLE
    }

    /// The sessions that have ended all the same.
    #[must_use]
    pub fn ended(&self) -> &[Arc<SessionRecord>] {
        &self.ended
    }
}
