//! What happens to sessions, for logs, metrics and the application.

use std::fmt;

use super::record::SessionRecord;
use crate::protocol::names::{Issuer, Sid, Subject};

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EndReason {
    /// The absolute lifetime was over.
    AbsoluteLifetime,
    /// An API or the userinfo endpoint refused the access token and no better one was to be had.
    AccessTokenRejected,
    /// The provider sent a logout token.
    BackChannelLogout,
    /// The application ended it.
    EndedByApplication,
    /// A session that cannot signal saw no activity for the provider's inactivity timeout.
    IdleTimeout,
    /// The provider answered a silent login with `login_required`: its session is over.
    LoginRequired,
    /// The provider's answer to a refresh spoke of another user or login.
    ProviderMisbehaved,
    /// The provider refused the refresh: its session is over.
    RefreshTokenRejected,
    /// The user logged out in this application.
    RpInitiatedLogout,
    /// The time that the provider set with `session_expiry` has come.
    SessionExpiry,
    /// The user logged in again in the same browser.
    SupersededByLogin,
}

impl EndReason {
    const ALL: [Self; 11] = [
        Self::AbsoluteLifetime,
        Self::AccessTokenRejected,
        Self::BackChannelLogout,
        Self::EndedByApplication,
        Self::IdleTimeout,
        Self::LoginRequired,
        Self::ProviderMisbehaved,
        Self::RefreshTokenRejected,
        Self::RpInitiatedLogout,
        Self::SessionExpiry,
        Self::SupersededByLogin,
    ];

    /// The reason of that stable name, for registries.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }

    /// A stable name for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AbsoluteLifetime => "absolute_lifetime",
            Self::AccessTokenRejected => "access_token_rejected",
            Self::BackChannelLogout => "back_channel_logout",
            Self::EndedByApplication => "ended_by_application",
            Self::IdleTimeout => "idle_timeout",
            Self::LoginRequired => "login_required",
            Self::ProviderMisbehaved => "provider_misbehaved",
            Self::RefreshTokenRejected => "refresh_token_rejected",
            Self::RpInitiatedLogout => "rp_initiated_logout",
            Self::SessionExpiry => "session_expiry",
            Self::SupersededByLogin => "superseded_by_login",
        }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happened to a session, on this replica.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SessionEvent {
    /// A user logged in.
    Started(SessionInfo),
    /// The provider confirmed the session.
    Refreshed(SessionInfo),
    /// The session ended.
    Ended(SessionInfo, EndReason),
}

/// Whose session an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    issuer: Issuer,
    subject: Subject,
    sid: Option<Sid>,
}

impl SessionInfo {
    pub(crate) fn of(record: &SessionRecord) -> Self {
        Self {
            issuer: record.registration().issuer().clone(),
            subject: record.subject().clone(),
            sid: record.sid().cloned(),
        }
    }

    /// The provider.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// The user.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The session at the provider, if the provider names it.
    #[must_use]
    pub fn sid(&self) -> Option<&Sid> {
        self.sid.as_ref()
    }
}
