//! Whether it is the API's fault that it rejects tokens.
//!
//! An API with a wrong issuer, audience or clock rejects everybody's tokens, also those that the provider issued a moment
//! ago. Ending the session of each of them would log everybody out, again and again. So rejections of *fresh* tokens are
//! counted for each API: where several sessions' were rejected lately, and more than were accepted, no session ends for
//! it, and it is reported.

use std::time::{Duration, SystemTime};

use crate::clock::is_within;
use crate::session::id::{KeyMap, SessionKey};

/// A token is fresh for so long after the provider issued it.
pub(super) const FRESH: Duration = Duration::from_secs(60);
/// How long an answer counts.
const WINDOW: Duration = Duration::from_secs(60);
/// Fewer sessions say nothing about the API.
const FEWEST: usize = 5;
/// The answers of no more sessions are remembered.
const MOST: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    Accepted,
    Rejected,
}

/// Whose fault it is, by how many sessions' fresh tokens were rejected and accepted lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Api,
    Session,
}

pub(super) fn fault(rejected: usize, accepted: usize) -> Fault {
    if rejected >= FEWEST && rejected > accepted { Fault::Api } else { Fault::Session }
}

/// What an API answered to each session's fresh tokens lately. A rejection outweighs answers that came after it: an API
/// that takes a token for one thing and not for another would look sound otherwise.
#[derive(Debug, Default)]
pub(super) struct Answers {
    answers: KeyMap<(SystemTime, Outcome)>,
}

impl Answers {
    /// Notes an answer.
    pub(super) fn note(&mut self, session: &SessionKey, outcome: Outcome, now: SystemTime) {
        match (self.answers.get(session), outcome) {
            (Some((at, Outcome::Rejected)), Outcome::Accepted) if counts(*at, now) => {}
            (known, _) => {
                if known.is_none() && self.answers.len() >= MOST {
                    self.forget_oldest();
                }
                self.answers.insert(*session, (now, outcome));
            }
        }
    }

    /// Whose fault rejections are now.
    pub(super) fn fault(&mut self, now: SystemTime) -> Fault {
        self.answers.retain(|_, (at, _)| counts(*at, now));
        let count = |wanted| self.answers.values().filter(|(_, outcome)| *outcome == wanted).count();
        fault(count(Outcome::Rejected), count(Outcome::Accepted))
    }

    fn forget_oldest(&mut self) {
        let oldest = self.answers.iter().min_by_key(|(_, (at, _))| *at).map(|(key, _)| *key);
        if let Some(key) = oldest {
            self.answers.remove(&key);
        }
    }
}

/// Whether an answer of that time still counts.
fn counts(at: SystemTime, now: SystemTime) -> bool {
    is_within(at, WINDOW, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Answers {
        fn note_and_judge(&mut self, session: &SessionKey, outcome: Outcome, now: SystemTime) -> Fault {
            self.note(session, outcome, now);
            self.fault(now)
        }
    }

    #[test]
    fn faults() {
        for (rejected, accepted, expected) in [
            (0, 0, Fault::Session),
            (4, 0, Fault::Session),
            (5, 0, Fault::Api),
            (5, 4, Fault::Api),
            (5, 5, Fault::Session),
            (6, 5, Fault::Api),
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
            assert_eq!(answers.note_and_judge(&key(1), Outcome::Rejected, at(second)), Fault::Session, "one session");
        }
        for number in 2..5 {
            assert_eq!(answers.note_and_judge(&key(number), Outcome::Rejected, at(5)), Fault::Session);
        }
        assert_eq!(answers.note_and_judge(&key(5), Outcome::Rejected, at(6)), Fault::Api);
        assert_eq!(answers.note_and_judge(&key(3), Outcome::Accepted, at(7)), Fault::Api, "a rejection outweighs it");
        assert_eq!(answers.note_and_judge(&key(6), Outcome::Rejected, at(63)), Fault::Api);
        assert_eq!(
            answers.note_and_judge(&key(6), Outcome::Rejected, at(66)),
            Fault::Session,
            "the others are forgotten"
        );
        assert_eq!(answers.fault(at(66)), Fault::Session);
    }

    #[test]
    fn no_client_drives_the_others_out() {
        let key = |number: u16| {
            let mut bytes = [0; 32];
            bytes[..2].copy_from_slice(&number.to_be_bytes());
            SessionKey::from_bytes(bytes)
        };
        let now = SystemTime::UNIX_EPOCH;
        let mut answers = Answers::default();
        for number in 0..5 {
            answers.note_and_judge(&key(number), Outcome::Rejected, now);
        }
        for _ in 0..=MOST {
            assert_eq!(answers.note_and_judge(&key(9), Outcome::Accepted, now), Fault::Api);
        }
        for number in 10..5000 {
            answers.note_and_judge(&key(number), Outcome::Accepted, now + Duration::from_secs(1));
        }
        assert_eq!(answers.answers.len(), MOST);
    }
}
