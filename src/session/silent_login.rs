//! What a silent login, answered by the provider with an ID token, means for the session that asked for it. Pure.
//!
//! | the session | step |
//! |---|---|
//! | is there, signals by silent logins, and the ID token is of its user | commit the confirmation |
//! | is there, but of another user or kind | a new session, as of any login |
//! | is unknown | a new session |
//! | ended by a newer login of the same browser | confirmed: the browser has the newer session |
//! | ended otherwise | logged out |
//! | the commit came too late, and nobody has confirmed it since | commit again |
//! | the commit came too late, and somebody has | confirmed |
//! | the commit found the session gone | logged out, and ended if only a tombstone for its new `sid` hides it |

use std::sync::Arc;
use std::time::SystemTime;

use super::end_reason::{EndMark, EndReason};
use super::record::{ActivitySignal, SessionRecord};
use super::stored::{Committed, Loaded};
use crate::protocol::id_token::IdToken;

/// What the registry answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Committed(Committed),
    Loaded(Loaded),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Commit(Arc<SessionRecord>),
    Confirmed,
    /// The session is to be ended for this reason first, if there is one.
    LoggedOut(Option<EndReason>),
    NewSession,
}

pub(crate) fn judge(found: Found, id_token: &IdToken, sent_at: SystemTime) -> Step {
    match found {
        Found::Loaded(Loaded::Live(record)) => {
            let is_its_user =
                *record.subject() == id_token.subject && *record.registration().issuer() == id_token.issuer;
            if is_its_user && record.login.signal == ActivitySignal::SilentLogin {
                Step::Commit(record)
            } else {
                Step::NewSession
            }
        }
        Found::Loaded(Loaded::Unknown) => Step::NewSession,
        Found::Loaded(Loaded::Ended(EndMark { reason: EndReason::SupersededByLogin, .. }))
        | Found::Committed(Committed::Committed(_) | Committed::Gone(Some(EndReason::SupersededByLogin))) => {
            Step::Confirmed
        }
        Found::Loaded(Loaded::Ended(_)) => Step::LoggedOut(None),
        // Another attempt began meanwhile; that is not an answer yet.
        Found::Committed(Committed::Stale(newer)) if newer.last_signal < sent_at => Step::Commit(newer),
        Found::Committed(Committed::Stale(_)) => Step::Confirmed,
        Found::Committed(Committed::Gone(reason)) => {
            Step::LoggedOut(Some(reason.unwrap_or(EndReason::BackChannelLogout)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::names::Subject;
    use crate::session::record::samples;

    #[test]
    fn silent_logins() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let record = |signal: ActivitySignal, last_signal: SystemTime| {
            let mut record = samples::record();
            let mut login = (*record.login).clone();
            login.signal = signal;
            record.login = Arc::new(login);
            record.last_signal = last_signal;
            Arc::new(record)
        };
        let before = record(ActivitySignal::SilentLogin, now - Duration::from_secs(1));
        let since = record(ActivitySignal::SilentLogin, now);
        let other_kind = record(ActivitySignal::Refresh, now);
        let ended = EndReason::BackChannelLogout;
        let superseded = EndReason::SupersededByLogin;
        let mark = |reason| Loaded::Ended(EndMark { reason, subject: None });
        for (found, subject, expected) in [
            (Found::Loaded(Loaded::Live(before.clone())), "alice", Step::Commit(before.clone())),
            (Found::Loaded(Loaded::Live(before.clone())), "bob", Step::NewSession),
            (Found::Loaded(Loaded::Live(other_kind)), "alice", Step::NewSession),
            (Found::Loaded(Loaded::Unknown), "alice", Step::NewSession),
            (Found::Loaded(mark(superseded)), "alice", Step::Confirmed),
            (Found::Loaded(mark(ended)), "alice", Step::LoggedOut(None)),
            (Found::Committed(Committed::Committed(since.clone())), "alice", Step::Confirmed),
            (Found::Committed(Committed::Stale(before.clone())), "alice", Step::Commit(before)),
            (Found::Committed(Committed::Stale(since)), "alice", Step::Confirmed),
            (Found::Committed(Committed::Gone(Some(superseded))), "alice", Step::Confirmed),
            (
                Found::Committed(Committed::Gone(Some(EndReason::LoginRequired))),
                "alice",
                Step::LoggedOut(Some(EndReason::LoginRequired)),
            ),
            (Found::Committed(Committed::Gone(None)), "alice", Step::LoggedOut(Some(ended))),
        ] {
            let mut id_token = samples::id_token();
            id_token.subject = Subject::new(subject);
            assert_eq!(judge(found.clone(), &id_token, now), expected, "{found:?} {subject}");
        }
    }
}
