//! Whether it is the API's fault that it rejects tokens.
//!
//! An API with a wrong issuer, audience or clock rejects everybody's tokens, also those that the provider issued a moment
//! ago. Ending the session of each of them would log everybody out, again and again. So rejections of *fresh* tokens are
//! counted for each API: where several sessions' were rejected lately, and more than were accepted, no session ends for
//! it, and it is reported.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, SystemTime};

use crate::session::id::SessionKey;

/// A token is fresh for so long after the provider issued it.
pub(crate) const FRESH: Duration = Duration::from_secs(60);
/// How long an answer counts.
const WINDOW: Duration = Duration::from_secs(60);
/// Fewer sessions say nothing about the API.
const FEWEST: usize = 3;
/// No more answers are remembered.
const MOST: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    Accepted,
    Rejected,
}

/// Whose fault it is, by how many sessions' fresh tokens were rejected and accepted lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Api,
    Session,
}

pub(crate) fn fault(rejected: usize, accepted: usize) -> Fault {
    if rejected >= FEWEST && rejected > accepted { Fault::Api } else { Fault::Session }
}

/// What an API answered to fresh tokens lately.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    answers: VecDeque<(SystemTime, SessionKey, Outcome)>,
}

impl Answers {
    /// Notes an answer, and says whose fault rejections are now.
    pub(crate) fn note(&mut self, session: &SessionKey, outcome: Outcome, now: SystemTime) -> Fault {
        self.answers.push_back((now, *session, outcome));
        while self.answers.len() > MOST
            || self.answers.front().is_some_and(|(at, ..)| now.duration_since(*at).is_ok_and(|age| age >= WINDOW))
        {
            self.answers.pop_front();
        }
        let sessions = |wanted| {
            let keys = self.answers.iter().filter(|(_, _, outcome)| *outcome == wanted).map(|(_, key, _)| *key);
            keys.collect::<HashSet<_>>().len()
        };
        fault(sessions(Outcome::Rejected), sessions(Outcome::Accepted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults() {
        for (rejected, accepted, expected) in [
            (0, 0, Fault::Session),
            (2, 0, Fault::Session),
            (3, 0, Fault::Api),
            (3, 2, Fault::Api),
            (3, 3, Fault::Session),
            (4, 3, Fault::Api),
            (100, 100, Fault::Session),
        ] {
            assert_eq!(fault(rejected, accepted), expected, "{rejected} rejected, {accepted} accepted");
        }
    }

    #[test]
    fn sessions_count_once_and_for_a_minute() {
        let key = |byte| SessionKey::from_bytes([byte; 32]);
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut answers = Answers::default();
        for second in 0..5 {
            assert_eq!(answers.note(&key(1), Outcome::Rejected, at(second)), Fault::Session, "one session");
        }
        assert_eq!(answers.note(&key(2), Outcome::Rejected, at(5)), Fault::Session);
        assert_eq!(answers.note(&key(3), Outcome::Rejected, at(6)), Fault::Api);
        assert_eq!(answers.note(&key(4), Outcome::Rejected, at(63)), Fault::Api);
        assert_eq!(answers.note(&key(4), Outcome::Rejected, at(66)), Fault::Session, "the others are forgotten");
    }
}
