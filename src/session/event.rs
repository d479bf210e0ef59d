//! What happens to sessions, for logs, metrics and the application.

use super::end_reason::EndReason;
use super::record::SessionRecord;
use crate::protocol::names::{Issuer, Sid, Subject};

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
