//! When to leave a provider in peace. Pure: time is an argument.
//!
//! Failures that follow each other without a success make the pause grow, 1 s, 2 s, 4 s. For one session, or one
//! fetch, the first failure counts ([`Pause`]). The provider as a whole is spared from the fifth on, where connections fail or break, or answers of
//! several subjects do: one user's trouble is nobody else's. After a pause one call goes through as a probe while the
//! others keep waiting.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use crate::protocol::names::Subject;

/// So many failures in a row are needed before all sessions leave the provider in peace.
const THRESHOLD: u32 = 5;

/// The first pause after that; each is longer than the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Users may be waiting for what is paused.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// A provider's `Retry-After` is honoured up to this.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// The pause after something that failed: one session's signals, a fetch of metadata or keys.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pause {
    failures: u32,
    /// Since when, and for how long.
    pause: Option<(SystemTime, Duration)>,
}

/// Nobody may call before this much time has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) retry_after: Duration,
}

impl Pause {
    /// Whether a call may go out.
    pub(crate) fn check(&self, now: SystemTime) -> Result<(), Open> {
        check(self.pause, now)
    }

    pub(crate) fn failed(&mut self, now: SystemTime, asked: Option<Duration>) {
        self.failures = self.failures.saturating_add(1);
        let asked = asked.map_or(Duration::ZERO, |asked| asked.min(LONGEST_RETRY_AFTER));
        self.pause = Some((now, asked.max(grown(self.failures - 1))));
    }
}

/// How a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The provider answered this subject's call with a fault of its own.
    Answer(Subject),
    /// No connection, a broken one, or one on which nothing comes.
    Transport,
}

impl Failure {
    pub(crate) fn of(subject: &Subject) -> Self {
        Self::Answer(subject.clone())
    }
}

/// Whether the provider as a whole is left in peace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Circuit {
    transport_failures: u32,
    subjects: HashSet<Subject>,
    /// How often it has opened since the last success.
    openings: u32,
    pause: Option<(SystemTime, Duration)>,
}

impl Circuit {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Whether a call may go out; if it does, others wait for up to `probe` while its outcome is not known.
    pub(crate) fn enter(&mut self, now: SystemTime, probe: Duration) -> Result<(), Open> {
        check(self.pause, now)?;
        if self.has_opened() {
            self.pause = Some((now, probe));
        }
        Ok(())
    }

    /// Whether so much has failed that calls are spared.
    pub(crate) fn has_opened(&self) -> bool {
        let subjects = u32::try_from(self.subjects.len()).unwrap_or(u32::MAX);
        self.transport_failures.saturating_add(subjects) >= THRESHOLD
    }

    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn failed(&mut self, failure: Failure, now: SystemTime) {
        match failure {
            Failure::Transport => self.transport_failures = self.transport_failures.saturating_add(1),
            Failure::Answer(subject) if self.subjects.len() < THRESHOLD as usize => {
                self.subjects.insert(subject);
            }
            Failure::Answer(_) => {}
        }
        if self.has_opened() {
            self.pause = Some((now, grown(self.openings)));
            self.openings = self.openings.saturating_add(1);
        }
    }
}

fn grown(times: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(times)).min(LONGEST_PAUSE)
}

/// A pause that has not begun yet says that the clock was set back: it is over.
fn check(pause: Option<(SystemTime, Duration)>, now: SystemTime) -> Result<(), Open> {
    let Some((since, pause)) = pause else { return Ok(()) };
    match now.duration_since(since) {
        Ok(passed) if passed < pause => Err(Open { retry_after: pause.saturating_sub(passed) }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn wait(seconds: u64) -> Result<(), Open> {
        Err(Open { retry_after: Duration::from_secs(seconds) })
    }

    #[test]
    fn pauses_of_a_session_grow_up_to_the_limit() {
        let mut pause = Pause::default();
        assert_eq!(pause.check(at(0)), Ok(()));
        for seconds in [1, 2, 4, 4] {
            pause.failed(at(10), None);
            assert_eq!(pause.check(at(10)), wait(seconds));
            assert_eq!(pause.check(at(10 + seconds)), Ok(()), "exactly at the end of the pause");
            assert_eq!(pause.check(at(9)), Ok(()), "the clock was set back");
        }
        pause.failed(at(10), Some(Duration::from_secs(7)));
        assert_eq!(pause.check(at(10)), wait(7));
        pause.failed(at(10), Some(Duration::from_secs(9999)));
        assert_eq!(pause.check(at(10)), wait(60));
    }

    #[test]
    fn p12_one_subjects_failures_do_not_open_the_circuit_and_those_of_five_do() {
        let mut circuit = Circuit::new();
        for _ in 0..50 {
            circuit.failed(Failure::of(&Subject::new("alice")), at(0));
        }
        assert_eq!(circuit.enter(at(0), Duration::from_secs(5)), Ok(()));
        for subject in ["bob", "carol", "dave"] {
            circuit.failed(Failure::of(&Subject::new(subject)), at(0));
            assert_eq!(circuit.enter(at(0), Duration::from_secs(5)), Ok(()));
        }
        circuit.failed(Failure::of(&Subject::new("eve")), at(0));
        assert_eq!(circuit.enter(at(0), Duration::from_secs(5)), wait(1));
        circuit.succeeded();
        assert_eq!(circuit.enter(at(0), Duration::from_secs(5)), Ok(()));
    }

    #[test]
    fn one_probe_at_a_time_after_a_pause_and_pauses_stay_short() {
        let mut circuit = Circuit::new();
        for _ in 0..4 {
            circuit.failed(Failure::Transport, at(0));
        }
        assert_eq!(circuit.enter(at(0), Duration::from_secs(5)), Ok(()));
        circuit.failed(Failure::Transport, at(0));
        assert_eq!(circuit.enter(at(0), Duration::from_secs(5)), wait(1));
        assert_eq!(circuit.enter(at(1), Duration::from_secs(5)), Ok(()));
        assert_eq!(circuit.enter(at(1), Duration::from_secs(5)), wait(5));
        assert_eq!(circuit.enter(at(6), Duration::from_secs(5)), Ok(()), "a probe that never reported back");
        for seconds in [2, 4, 4] {
            circuit.failed(Failure::Transport, at(10));
            assert_eq!(circuit.enter(at(10), Duration::from_secs(5)), wait(seconds));
        }
        assert_eq!(circuit.enter(at(9), Duration::from_secs(5)), Ok(()), "the clock was set back");
    }
}
