//! What many sessions meet at once is no word about any of them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::clock::is_within;
use crate::protocol::names::Subject;
use crate::session::signal::Ambiguity;

/// How long an unclear refusal counts.
const WINDOW: Duration = Duration::from_secs(60);
/// So many subjects make it the provider's trouble.
const MANY: usize = 5;
/// What is odd about the provider's answers is said once in this time.
const REMARK_INTERVAL: Duration = Duration::from_secs(60);

/// The subjects whose refreshes were refused unclearly since the last success.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    subjects: Mutex<HashMap<Subject, SystemTime>>,
}

impl Doubts {
    fn subjects(&self) -> MutexGuard<'_, HashMap<Subject, SystemTime>> {
        self.subjects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, subject: &Subject, now: SystemTime) {
        let mut subjects = self.subjects();
        // Never more than those that count, and one.
        subjects.retain(|_, at| counts(*at, now));
        if subjects.len() <= MANY || subjects.contains_key(subject) {
            subjects.insert(subject.clone(), now);
        }
    }

    /// A success: the provider is as it should be.
    pub(super) fn forget(&self) {
        self.subjects().clear();
    }

    pub(super) fn ambiguity(&self, now: SystemTime) -> Ambiguity {
        let count = self.subjects().values().filter(|at| counts(**at, now)).count();
        if count >= MANY { Ambiguity::Widespread } else { Ambiguity::Single }
    }
}

fn counts(at: SystemTime, now: SystemTime) -> bool {
    is_within(at, WINDOW, now)
}

/// Lets something be said once a minute.
#[derive(Debug, Default)]
pub(super) struct Remarks {
    said_at: Mutex<Option<SystemTime>>,
}

impl Remarks {
    pub(super) fn is_due(&self, now: SystemTime) -> bool {
        let mut said_at = self.said_at.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that went back is no reason for silence.
        let is_due = said_at.is_none_or(|at| !is_within(at, REMARK_INTERVAL, now));
        if is_due {
            *said_at = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn p12_five_subjects_within_a_minute_are_many_and_one_with_many_sessions_is_one() {
        let doubts = Doubts::default();
        for _ in 0..9 {
            doubts.note(&Subject::new("alice"), at(0));
        }
        assert_eq!(doubts.ambiguity(at(0)), Ambiguity::Single);
        for (seconds, subject) in [(1, "bob"), (2, "carol"), (3, "dave")] {
            doubts.note(&Subject::new(subject), at(seconds));
            assert_eq!(doubts.ambiguity(at(seconds)), Ambiguity::Single, "{subject}");
        }
        doubts.note(&Subject::new("eve"), at(4));
        assert_eq!(doubts.ambiguity(at(59)), Ambiguity::Widespread);
        assert_eq!(doubts.ambiguity(at(60)), Ambiguity::Single, "alice's was a minute ago");
        for number in 0..100 {
            doubts.note(&Subject::new(number.to_string()), at(60));
        }
        assert!(doubts.subjects().len() <= MANY + 1);
        doubts.forget();
        assert_eq!(doubts.ambiguity(at(60)), Ambiguity::Single);
    }

    #[test]
    fn remarks_are_made_once_a_minute() {
        let remarks = Remarks::default();
        for (seconds, expected) in [(100, true), (159, false), (160, true), (50, true), (51, false)] {
            assert_eq!(remarks.is_due(at(seconds)), expected, "{seconds}");
        }
    }
}
