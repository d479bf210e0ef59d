//! What the registry keeps of a session.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::browser::Browser;
use super::end_reason::EndReason;
use super::id::{SessionKey, SubjectHash};
use super::login_attempt::LoginTransaction;
use super::policy::{KeptTokens, SessionPolicy, SilentLogin};
use crate::protocol::authorization::{Audience, Authentication, Prompt};
use crate::protocol::id_token::IdToken;
use crate::protocol::names::{AccessToken, IdTokenHint, Nonce, RefreshToken, Registration, Sid, Subject};
use crate::protocol::token_response::TokenResponse;

/// How a session tells the provider that its user is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ActivitySignal {
    /// It cannot: the provider issued no access token that the session may use.
    None,
    /// By refreshing its tokens.
    Refresh,
    /// By sending navigations through the provider with `prompt=none`.
    SilentLogin,
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
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Tokens {
    pub(crate) access_token: Option<AccessToken>,
    pub(crate) refresh_token: Option<RefreshToken>,
    pub(crate) id_token: IdTokenHint,
    /// `expires_in`, counted from `obtained_at`.
    pub(crate) expires_in: Option<Duration>,
    pub(crate) obtained_at: SystemTime,
    /// Access tokens for other audiences, got with the same refresh token.
    pub(crate) others: BTreeMap<String, OtherToken>,
}

/// An access token for one audience.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct OtherToken {
    pub(crate) access_token: AccessToken,
    pub(crate) expires_in: Option<Duration>,
    pub(crate) obtained_at: SystemTime,
}

/// What the login established and nothing changes.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Login {
    pub(crate) registration: Registration,
    pub(crate) subject: Subject,
    pub(crate) nonce: Nonce,
    /// The ID token's `iat`: the provider's clock, as in logout tokens.
    pub(crate) issued_at: SystemTime,
    pub(crate) auth_time: Option<SystemTime>,
    pub(crate) started_at: SystemTime,
    pub(crate) signal: ActivitySignal,
    pub(crate) claims: Map<String, Value>,
    pub(crate) offline_access: bool,
    /// What the login had asked for.
    pub(crate) authentication: Authentication,
    /// Why the session ended that the browser had before, where that was the same user's and not by a sign-out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) previous_end: Option<EndReason>,
    /// The browser that logged in, as far as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) browser: Option<Box<Browser>>,
}

/// Of the claims only the names are shown: the nonce is among them, and what nobody but the application has to know of the user.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("registration", &self.registration)
            .field("subject", &self.subject)
            .field("issued_at", &self.issued_at)
            .field("auth_time", &self.auth_time)
            .field("started_at", &self.started_at)
            .field("signal", &self.signal)
            .field("claims", &self.claims.keys().collect::<Vec<_>>())
            .field("offline_access", &self.offline_access)
            .field("authentication", &self.authentication)
            .field("previous_end", &self.previous_end)
            .field("browser", &self.browser)
            .finish_non_exhaustive()
    }
}

/// The record of a session, as a registry keeps it.
///
/// Registries look at the parts that have accessors and keep the rest as it is: the record serializes with serde.
/// It holds tokens, so it is to be kept like a password; `Debug` does not show them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// When a silent login was begun last.
    pub(crate) silent_login_at: Option<SystemTime>,
    pub(crate) expires_at: SystemTime,
    /// Why it is over then. Records of earlier versions do not say.
    #[serde(default = "absolute_lifetime")]
    pub(crate) expires_for: EndReason,
    /// *T* after the last signal, or when it expires if that comes first. Records of earlier versions do not say.
    #[serde(default)]
    pub(crate) confirmed_until: Option<SystemTime>,
}

fn absolute_lifetime() -> EndReason {
    EndReason::AbsoluteLifetime
}

/// What is known of a login when its session begins.
#[derive(Debug)]
pub(crate) struct NewLogin<'a> {
    pub(crate) key: SessionKey,
    pub(crate) registration: Registration,
    pub(crate) id_token: IdToken,
    pub(crate) claims: Map<String, Value>,
    pub(crate) transaction: &'a LoginTransaction,
    pub(crate) requested_scopes: &'a [String],
    pub(crate) user_info: UserInfoEndpoint,
    pub(crate) browser: Browser,
}

/// Whether the provider can be asked for userinfo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UserInfoEndpoint {
    Missing,
    There,
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

    /// The record with another version. For registries: [`commit`](crate::SessionRegistry::commit) counts it up.
    #[must_use]
    pub fn with_version(self, version: Version) -> Self {
        Self { version, ..self }
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

    /// How long that is from `now` on. For stores, which keep a record for so long by their own clock.
    #[must_use]
    pub fn time_left(&self, now: SystemTime) -> Duration {
        self.expires_at.duration_since(now).unwrap_or_default()
    }

    /// How long before it expires the session stops to stand by itself: from then on it takes a word of the provider that it
    /// goes on. For stores, which give application data of a login only while that stands.
    #[must_use]
    pub fn unconfirmed_for(&self) -> Duration {
        let until = self.confirmed_until.unwrap_or(self.expires_at);
        self.expires_at.duration_since(until).unwrap_or_default()
    }

    /// Why the session ends when the record expires.
    #[must_use]
    pub fn expires_for(&self) -> EndReason {
        self.expires_for
    }

    /// What is kept of the user when the session has ended.
    #[must_use]
    pub fn subject_hash(&self) -> SubjectHash {
        SubjectHash::of(self.registration(), self.subject())
    }

    /// The record of a new login.
    pub(crate) fn of_login(
        login: NewLogin<'_>,
        response: TokenResponse,
        raw: IdTokenHint,
        sent_at: SystemTime,
        policy: &SessionPolicy,
    ) -> Self {
        let keeps_tokens = policy.tokens == KeptTokens::All;
        let signal = match (&response.refresh_token, login.user_info) {
            (Some(_), _) if keeps_tokens => ActivitySignal::Refresh,
            (None, UserInfoEndpoint::There) if keeps_tokens => ActivitySignal::UserInfo,
            _ if policy.silent_login == SilentLogin::WhenDue => ActivitySignal::SilentLogin,
            _ => ActivitySignal::None,
        };
        // RFC 6749 §5.1: without scope in the answer what was asked for was granted.
        let offline_access = match &response.scope {
            Some(scopes) => scopes.split(' ').any(|scope| scope == "offline_access"),
            None => login.requested_scopes.iter().any(|scope| scope == "offline_access"),
        };
        let own = SubjectHash::of(&login.registration, &login.id_token.subject);
        let follows = login.transaction.follows.filter(|before| before.subject == Some(own));
        let told = |reason: &EndReason| !matches!(reason, EndReason::RpInitiatedLogout | EndReason::SupersededByLogin);
        let record = Self {
            key: login.key,
            version: Version::FIRST,
            login: Arc::new(Login {
                registration: login.registration,
                subject: login.id_token.subject,
                nonce: Nonce::new(login.transaction.nonce.clone()),
                issued_at: login.id_token.issued_at,
                auth_time: login.id_token.auth_time,
                started_at: sent_at,
                signal,
                claims: login.claims,
                offline_access,
                // The prompt is over; earlier versions would not know each.
                authentication: Authentication { prompt: Prompt::AsNeeded, ..login.transaction.authentication.clone() },
                previous_end: follows.map(|before| before.reason).filter(told),
                browser: Some(login.browser).filter(|browser| !browser.is_unknown()).map(Box::new),
            }),
            sid: login.id_token.sid,
            session_expiry: login.id_token.session_expiry,
            tokens: Tokens {
                access_token: Some(response.access_token).filter(|_| keeps_tokens),
                refresh_token: response.refresh_token.filter(|_| keeps_tokens),
                id_token: raw,
                expires_in: response.expires_in,
                obtained_at: sent_at,
                others: BTreeMap::new(),
            },
            last_signal: sent_at,
            silent_login_at: None,
            expires_at: sent_at,
            expires_for: EndReason::AbsoluteLifetime,
            confirmed_until: None,
        };
        record.with_expiry(policy)
    }

    /// The record after a silent login that confirms it.
    pub(crate) fn confirmed_by_silent_login(
        &self,
        response: &TokenResponse,
        id_token: &IdToken,
        sent_at: SystemTime,
        policy: &SessionPolicy,
    ) -> Self {
        let mut next = self.clone();
        next.last_signal = sent_at;
        next.silent_login_at = None;
        next.sid = id_token.sid.clone().or(next.sid);
        next.session_expiry = id_token.session_expiry.or(next.session_expiry);
        if let Some(raw) = &response.id_token {
            next.tokens.id_token = raw.clone();
        }
        if next.tokens.access_token.is_some() {
            next.tokens.access_token = Some(response.access_token.clone());
            next.tokens.expires_in = response.expires_in;
            next.tokens.obtained_at = sent_at;
        }
        next.with_expiry(policy)
    }

    /// The record of a session that turned out not to be able to signal: from now on its own activity counts.
    pub(crate) fn without_signal(mut self) -> Self {
        Arc::make_mut(&mut self.login).signal = ActivitySignal::None;
        self
    }

    /// Whether the provider can be told of its user's activity.
    pub(crate) fn can_signal(&self) -> bool {
        self.login.signal != ActivitySignal::None
    }

    /// The session's own deadlines: when it ends whatever happens and why, and until when it stands by itself; to be kept
    /// whenever the record changes.
    pub(crate) fn with_expiry(mut self, policy: &SessionPolicy) -> Self {
        (self.expires_at, self.expires_for) = self.absolute_deadline(policy);
        let idle_deadline = self.idle_deadline(policy);
        if self.login.signal == ActivitySignal::None && idle_deadline < self.expires_at {
            (self.expires_at, self.expires_for) = (idle_deadline, EndReason::IdleTimeout);
        }
        self.confirmed_until = Some(idle_deadline.min(self.expires_at));
        self
    }

    /// Whether its times are such as clocks show: no sum with a policy's durations overflows then.
    pub(crate) fn has_times_of_clocks(&self) -> bool {
        // The year 9999, as for tokens.
        let latest = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
        let (login, tokens) = (&self.login, &self.tokens);
        let times = [login.issued_at, login.started_at, tokens.obtained_at, self.last_signal, self.expires_at];
        let others = tokens.others.values().map(|other| other.obtained_at);
        let may_be = [login.auth_time, self.session_expiry, self.silent_login_at, self.confirmed_until];
        let runs_out = tokens.obtained_at.checked_add(tokens.expires_in.unwrap_or_default());
        times.into_iter().chain(others).chain(may_be.into_iter().flatten()).all(|time| time <= latest)
            && runs_out.is_some_and(|time| time <= latest)
    }

    /// When the session ends whatever happens, and why: the absolute lifetime or the provider's `session_expiry`.
    pub(crate) fn absolute_deadline(&self, policy: &SessionPolicy) -> (SystemTime, EndReason) {
        let lifetime_over = (self.login.started_at + policy.absolute_lifetime, EndReason::AbsoluteLifetime);
        match self.session_expiry {
            Some(expiry) if expiry <= lifetime_over.0 => (expiry, EndReason::SessionExpiry),
            _ => lifetime_over,
        }
    }

    /// *T* after the last signal.
    pub(crate) fn idle_deadline(&self, policy: &SessionPolicy) -> SystemTime {
        self.last_signal + policy.op_session_lifetime
    }

    /// The access token for an audience, and when the application stops using it. `None` stands for that of the login.
    pub(crate) fn access_token(
        &self,
        audience: Option<&Audience>,
        policy: &SessionPolicy,
    ) -> Option<(&AccessToken, SystemTime)> {
        let (token, obtained_at, expires_in) = self.token_for(audience)?;
        Some((token, token_deadline(policy, obtained_at, expires_in)))
    }

    /// When that access token came.
    pub(crate) fn access_token_obtained_at(&self, audience: Option<&Audience>) -> Option<SystemTime> {
        self.token_for(audience).map(|(_, obtained_at, _)| obtained_at)
    }

    fn token_for(&self, audience: Option<&Audience>) -> Option<(&AccessToken, SystemTime, Option<Duration>)> {
        let tokens = &self.tokens;
        match audience {
            None => Some((tokens.access_token.as_ref()?, tokens.obtained_at, tokens.expires_in)),
            Some(audience) => {
                let other = tokens.others.get(&audience.name())?;
                Some((&other.access_token, other.obtained_at, other.expires_in))
            }
        }
    }

    /// When user activity has to be signalled again. A little before a short-lived token expires, so that
    /// the request that causes the refresh does not carry a token that dies on its way.
    pub(crate) fn signal_deadline(&self, policy: &SessionPolicy) -> SystemTime {
        /// A token that lives for long dies at no request's expense.
        const LONGEST_MARGIN: Duration = Duration::from_secs(10);
        let due = self.last_signal + policy.longest_silence();
        match (self.login.signal, self.tokens.expires_in) {
            (ActivitySignal::Refresh, Some(expires_in)) => {
                let margin = (expires_in / 10).min(LONGEST_MARGIN);
                due.min(self.tokens.obtained_at + expires_in.saturating_sub(margin))
            }
            _ => due,
        }
    }
}

/// When the application stops using an access token: *G* or `expires_in` after it came, whichever is less.
fn token_deadline(policy: &SessionPolicy, obtained_at: SystemTime, expires_in: Option<Duration>) -> SystemTime {
    let longest = policy.longest_silence();
    obtained_at + expires_in.map_or(longest, |expires_in| expires_in.min(longest))
}

/// Records and tokens for the tests of rules.
#[cfg(test)]
pub(crate) mod samples {
    use super::*;
    use crate::protocol::authorization::Authentication;
    use crate::protocol::names::{ClientId, Issuer};

    pub(crate) const LOGIN: SystemTime = SystemTime::UNIX_EPOCH;

    /// A session of alice's that began at [`LOGIN`] and signals by refreshes.
    pub(crate) fn record() -> SessionRecord {
        let login = Login {
            registration: Registration::new(Issuer::new("https://op.example"), ClientId::new("shop")),
            subject: Subject::new("alice"),
            nonce: Nonce::new("nonce"),
            issued_at: LOGIN,
            auth_time: None,
            started_at: LOGIN,
            signal: ActivitySignal::Refresh,
            claims: Map::new(),
            offline_access: false,
            authentication: Authentication::default(),
            previous_end: None,
            browser: None,
        };
        SessionRecord {
            key: SessionKey::from_bytes([7; 32]),
            version: Version::FIRST,
            login: Arc::new(login),
            sid: Some(Sid::new("sid")),
            session_expiry: None,
            tokens: Tokens {
                access_token: Some(AccessToken::new("access")),
                refresh_token: Some(RefreshToken::new("refresh")),
                id_token: IdTokenHint::new("id"),
                expires_in: None,
                obtained_at: LOGIN,
                others: BTreeMap::new(),
            },
            last_signal: LOGIN,
            silent_login_at: None,
            expires_at: LOGIN + Duration::from_secs(12 * 60 * 60),
            expires_for: EndReason::AbsoluteLifetime,
            confirmed_until: None,
        }
    }

    /// The ID token of that login.
    pub(crate) fn id_token() -> IdToken {
        IdToken {
            issuer: Issuer::new("https://op.example"),
            subject: Subject::new("alice"),
            sid: Some(Sid::new("sid")),
            issued_at: LOGIN,
            auth_time: None,
            session_expiry: None,
            claims: Map::new(),
        }
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "record_strategies.rs"]
pub(crate) mod strategies;
