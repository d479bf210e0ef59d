//! What the registry keeps of a session.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::id::SessionKey;
use super::policy::SessionPolicy;
use crate::protocol::names::{AccessToken, ClientId, IdTokenHint, Issuer, RefreshToken, Sid, Subject};

/// One client at one provider. Registries keep the sessions of different registrations apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Registration {
    issuer: Issuer,
    client_id: ClientId,
}

impl Registration {
    /// The client `client_id` at `issuer`.
    #[must_use]
    pub fn new(issuer: Issuer, client_id: ClientId) -> Self {
        Self { issuer, client_id }
    }

    /// The provider.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// The client.
    #[must_use]
    pub fn client_id(&self) -> &ClientId {
        &self.client_id
    }
}

/// How a session tells the provider that its user is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ActivitySignal {
    /// It cannot: the provider issued no access token that the session may use.
    None,
    /// By refreshing its tokens.
    Refresh,
    /// By a userinfo request with its access token.
    UserInfo,
}

/// Counts the changes of a record: a change is made only to the version it was decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(u64);

impl Version {
    /// The version of a new record.
    pub const FIRST: Self = Self(1);

    /// The version after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The version of that number, for registries.
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The number, for registries.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

/// The tokens of a session, replaced as a whole at every refresh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tokens {
    pub(crate) access_token: Option<AccessToken>,
    pub(crate) refresh_token: Option<RefreshToken>,
    pub(crate) id_token: IdTokenHint,
    /// `expires_in`, counted from the signal that brought the token.
    pub(crate) expires_in: Option<Duration>,
}

/// What the login established and nothing changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Login {
    pub(crate) registration: Registration,
    pub(crate) subject: Subject,
    pub(crate) nonce: String,
    /// The ID token's `iat`: the provider's clock, as in logout tokens.
    pub(crate) issued_at: SystemTime,
    pub(crate) auth_time: Option<SystemTime>,
    pub(crate) started_at: SystemTime,
    pub(crate) signal: ActivitySignal,
    pub(crate) claims: Map<String, Value>,
    pub(crate) offline_access: bool,
}

/// The record of a session, as a registry keeps it.
///
/// Registries look at the parts that have accessors and keep the rest as it is: the record serializes with serde.
/// It holds tokens, so it is to be kept like a password; `Debug` does not show them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    pub(crate) key: SessionKey,
    pub(crate) version: Version,
    pub(crate) login: Arc<Login>,
    /// Providers may give a session a new `sid` at a refresh.
    pub(crate) sid: Option<Sid>,
    pub(crate) session_expiry: Option<SystemTime>,
    pub(crate) tokens: Tokens,
    /// The last confirmed signal; for a session that cannot signal, its last recorded user activity.
    pub(crate) last_signal: SystemTime,
    pub(crate) expires_at: SystemTime,
}

impl SessionRecord {
    /// The name of the session in the registry.
    #[must_use]
    pub fn key(&self) -> &SessionKey {
        &self.key
    }

    /// The version, which [`commit`](crate::SessionRegistry::commit) compares.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The client and provider the session belongs to.
    #[must_use]
    pub fn registration(&self) -> &Registration {
        &self.login.registration
    }

    /// The user.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.login.subject
    }

    /// The session at the provider, if the provider names it.
    #[must_use]
    pub fn sid(&self) -> Option<&Sid> {
        self.sid.as_ref()
    }

    /// When the provider issued the ID token of the login, by its clock.
    #[must_use]
    pub fn issued_at(&self) -> SystemTime {
        self.login.issued_at
    }

    /// When the record may be forgotten: no request can be served with it any more.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// The latest of the session's own deadlines, to be kept in `expires_at` whenever the record changes.
    pub(crate) fn with_expiry(mut self, policy: &SessionPolicy) -> Self {
        let mut expires_at = self.absolute_deadline(policy);
        if self.login.signal == ActivitySignal::None {
            expires_at = expires_at.min(self.idle_deadline(policy));
        }
        self.expires_at = expires_at;
        self
    }

    /// When the session ends whatever happens: the absolute lifetime or the provider's `session_expiry`.
    pub(crate) fn absolute_deadline(&self, policy: &SessionPolicy) -> SystemTime {
        let lifetime_over = self.login.started_at + policy.absolute_lifetime;
        self.session_expiry.map_or(lifetime_over, |expiry| expiry.min(lifetime_over))
    }

    /// *T* after the last signal.
    pub(crate) fn idle_deadline(&self, policy: &SessionPolicy) -> SystemTime {
        self.last_signal + policy.op_session_lifetime
    }

    /// When the application stops using the access token: *G* or `expires_in` after it came, whichever is less.
    pub(crate) fn token_deadline(&self, policy: &SessionPolicy) -> SystemTime {
        let lifetime = self
            .tokens
            .expires_in
            .map_or(policy.access_token_lifetime, |expires_in| expires_in.min(policy.access_token_lifetime));
        self.last_signal + lifetime
    }

    /// When user activity has to be signalled again. A little before a short-lived token expires, so that
    /// the request that causes the refresh does not carry a token that dies on its way.
    pub(crate) fn signal_deadline(&self, policy: &SessionPolicy) -> SystemTime {
        const LONGEST_MARGIN: Duration = Duration::from_secs(10);
        let interval = match (self.login.signal, self.tokens.expires_in) {
            (ActivitySignal::Refresh, Some(expires_in)) => {
                let margin = (expires_in / 10).min(LONGEST_MARGIN);
                expires_in.saturating_sub(margin).min(policy.access_token_lifetime)
            }
            _ => policy.access_token_lifetime,
        };
        self.last_signal + interval
    }
}
