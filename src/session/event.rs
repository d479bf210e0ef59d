//! What happens to sessions and logins, for logs, metrics and the application.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::browser::Browser;
use super::end_reason::EndReason;
use super::id::SessionKey;
use super::record::SessionRecord;
use crate::protocol::names::{Issuer, Sid, Subject};

/// What happened on this replica, for an audit log. It holds no secret.
#[derive(Clone, Debug)]
pub struct SessionEvent {
    kind: EventKind,
    at: SystemTime,
    session: Option<SessionInfo>,
    browser: Browser,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// The session ended. A sign-out is [`EndReason::RpInitiatedLogout`], a refused refresh
    /// [`EndReason::RefreshTokenRejected`]. One whose user does not come back ends when the provider sends a logout token, else with its
    /// absolute lifetime, however long it was idle: nobody has asked.
    #[non_exhaustive]
    Ended {
        /// Why.
        reason: EndReason,
    },
    /// A login came to nothing.
    #[non_exhaustive]
    LoginFailed {
        /// Why, in words for the log.
        reason: String,
    },
    /// A logout token was refused; whoever sent it may have been anybody.
    #[non_exhaustive]
    LogoutTokenRefused {
        /// Why, in words for the log.
        reason: String,
    },
    /// The provider confirmed the session.
    Refreshed,
    /// A transmitter sent an event that ends no session here: of another kind, or about somebody who is not told from others.
    #[non_exhaustive]
    SecurityEvent {
        /// Its type, a URI.
        event: String,
    },
    /// A security event was refused; whoever sent it may have been anybody.
    #[non_exhaustive]
    SecurityEventRefused {
        /// Why, in words for the log.
        reason: String,
    },
    /// A transmitter revoked sessions. Each that there was has its own [`Ended`](Self::Ended) before this.
    #[non_exhaustive]
    SessionsRevoked {
        /// Whose, if it names a user.
        subject: Option<Subject>,
        /// Which one, if it names one.
        sid: Option<Sid>,
        /// How many sessions ended.
        ended: usize,
        /// The transmitter's `reason_user`, words for the user by language (BCP 47): for your own pages and mails. The crate's pages have
        /// their own, by who did it. It is the transmitter's text: escape it.
        reason_user: BTreeMap<String, String>,
    },
    /// A user logged in, and the session began.
    Started,
}

impl SessionEvent {
    pub(crate) fn of(kind: EventKind, at: SystemTime, record: &SessionRecord) -> Self {
        Self { kind, at, session: Some(SessionInfo::of(record)), browser: Browser::default() }
    }

    pub(crate) fn of_nobody(kind: EventKind, at: SystemTime) -> Self {
        Self { kind, at, session: None, browser: Browser::default() }
    }

    pub(crate) fn by(self, browser: Browser) -> Self {
        Self { browser, ..self }
    }

    /// What happened.
    #[must_use]
    pub fn kind(&self) -> &EventKind {
        &self.kind
    }

    /// When, by the clock of this replica.
    #[must_use]
    pub fn at(&self) -> SystemTime {
        self.at
    }

    /// Whose session it is about, if it is about one.
    #[must_use]
    pub fn session(&self) -> Option<&SessionInfo> {
        self.session.as_ref()
    }

    /// The browser that did it, as far as that is known: of logins and sign-outs.
    #[must_use]
    pub fn browser(&self) -> &Browser {
        &self.browser
    }
}

/// A session: whose it is, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    key: SessionKey,
    issuer: Issuer,
    subject: Subject,
    sid: Option<Sid>,
    started_at: SystemTime,
    last_signal: SystemTime,
    browser: Browser,
}

impl SessionInfo {
    pub(crate) fn of(record: &SessionRecord) -> Self {
        Self {
            key: *record.key(),
            issuer: record.registration().issuer().clone(),
            subject: record.subject().clone(),
            sid: record.sid().cloned(),
            started_at: record.login.started_at,
            last_signal: record.last_signal,
            browser: record.login.browser.as_deref().cloned().unwrap_or_default(),
        }
    }

    /// The session's name, as log lines have it: with that nobody can use the session.
    #[must_use]
    pub fn key(&self) -> &SessionKey {
        &self.key
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

    /// When the user logged in.
    #[must_use]
    pub fn started_at(&self) -> SystemTime {
        self.started_at
    }

    /// When the provider was told last that the user is active; of a session that cannot tell it, when its last activity was written
    /// down. At most `access_token_lifetime` behind the last request.
    #[must_use]
    pub fn last_signal(&self) -> SystemTime {
        self.last_signal
    }

    /// The browser that logged in, as far as it is known.
    #[must_use]
    pub fn browser(&self) -> &Browser {
        &self.browser
    }
}
