//! What has to happen to a request. With *s* = time since the last confirmed signal (for a session that cannot signal:
//! since its last recorded activity):
//!
//! | | user activity | passive request |
//! |---|---|---|
//! | absolute lifetime over, or `session_expiry` over | End | End |
//! | *s* < *G* | Proceed | Proceed |
//! | *G* ≤ *s* < *T* | Signal | Proceed |
//! | *s* ≥ *T*, can signal | Signal: the provider decides | Refuse: end nothing, call nobody |
//! | *s* ≥ *T*, cannot signal | End(IdleTimeout) | End(IdleTimeout) |
//!
//! A session that signals by silent logins can do so with navigations only:
//!
//! | | navigation | other activity | passive request |
//! |---|---|---|---|
//! | *s* < *G* | Proceed | Proceed | Proceed |
//! | *G* ≤ *s* < *T* | SilentLogin, but Proceed within 30 s of the last attempt | Proceed | Proceed |
//! | *s* ≥ *T* | SilentLogin, but Wait within 30 s of the last attempt | Refuse | Refuse |

use std::time::{Duration, SystemTime};

use super::end_reason::EndReason;
use super::policy::{RequestKind, SessionPolicy};
use super::record::{ActivitySignal, SessionRecord, Version};
use crate::clock::is_within;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The session is over.
    End(EndReason),
    /// Serve the request.
    Proceed,
    /// Do not serve it, and leave the session as it is: only user activity may ask the provider.
    Refuse,
    /// Send the browser through the provider first.
    SilentLogin,
    /// Do not serve it for so long: an attempt to ask the provider is under way.
    Wait(Duration),
    /// Tell the provider first (a session that cannot: write the activity down).
    Signal,
}

/// The times of replicas may be so far apart.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(30);
/// A browser is sent through the provider at most once in this time.
const SILENT_LOGIN_PAUSE: Duration = Duration::from_secs(30);

/// What has to happen to a request of `kind` that carries the session of `record` and arrives at `now`.
pub(crate) fn decide(record: &SessionRecord, policy: &SessionPolicy, now: SystemTime, kind: RequestKind) -> Decision {
    let (deadline, reason) = record.absolute_deadline(policy);
    if now >= deadline {
        return Decision::End(reason);
    }
    let confirmed = is_confirmed(record, policy, now);
    match (kind, record.login.signal) {
        (_, ActivitySignal::None) if !confirmed => Decision::End(EndReason::IdleTimeout),
        (RequestKind::Navigation, ActivitySignal::SilentLogin) if is_due(record, policy, now) => {
            let again_at = record.silent_login_at.map(|at| at + SILENT_LOGIN_PAUSE);
            let left = again_at.and_then(|at| at.duration_since(now).ok());
            // One that is longer than the longest was dated by a clock that was ahead.
            match left.filter(|left| !left.is_zero() && *left <= SILENT_LOGIN_PAUSE) {
                None => Decision::SilentLogin,
                Some(_) if confirmed => Decision::Proceed,
                Some(left) => Decision::Wait(left),
            }
        }
        (_, ActivitySignal::SilentLogin) if confirmed => Decision::Proceed,
        (_, ActivitySignal::SilentLogin) => Decision::Refuse,
        (RequestKind::Passive, _) if confirmed => Decision::Proceed,
        (RequestKind::Passive, _) => Decision::Refuse,
        (_, _) if is_due(record, policy, now) => Decision::Signal,
        (_, _) => Decision::Proceed,
    }
}

/// Whether the session stands without asking the provider: less than *T* has passed since the last signal.
pub(crate) fn is_confirmed(record: &SessionRecord, policy: &SessionPolicy, now: SystemTime) -> bool {
    now < record.idle_deadline(policy)
}

/// Whether user activity has to be signalled. A signal that lies in the future was dated by a clock that was ahead: the
/// provider may not have heard of the user for as long.
fn is_due(record: &SessionRecord, policy: &SessionPolicy, now: SystemTime) -> bool {
    now >= record.signal_deadline(policy) || record.last_signal > now + CLOCK_TOLERANCE
}

/// Whether a signal has confirmed the session so lately that another would only be a burden to the provider: within 5 s, or
/// a quarter of *G* if that is less. The login itself is no signal.
pub(crate) fn was_just_confirmed(record: &SessionRecord, policy: &SessionPolicy, now: SystemTime) -> bool {
    let lately = (policy.longest_silence() / 4).min(Duration::from_secs(5));
    record.version() != Version::FIRST && is_within(record.last_signal, lately, now)
}

/// When a response that streams on has to be looked at again.
pub(crate) fn next_deadline(record: &SessionRecord, policy: &SessionPolicy) -> SystemTime {
    record.idle_deadline(policy).min(record.absolute_deadline(policy).0)
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "decide_properties.rs"]
mod properties;
