//! When to leave a provider in peace. Pure: time is an argument.
//!
//! Failures that follow each other without a success make the pause grow, 1 s, 2 s, 4 s … up to a limit. For one
//! session the first failure counts; the provider as a whole is spared from the fifth on. After a pause one call
//! goes through as a probe while the others keep waiting.

use std::time::{Duration, SystemTime};

/// So many failures in a row are needed before all sessions leave the provider in peace.
pub(crate) const PROVIDER_THRESHOLD: u32 = 5;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A provider's `Retry-After` is honoured up to this.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Circuit {
    threshold: u32,
    longest_pause: Duration,
    failures: u32,
    open_until: Option<SystemTime>,
}

/// Nobody may call before this much time has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) retry_after: Duration,
}

impl Circuit {
    pub(crate) fn new(threshold: u32, longest_pause: Duration) -> Self {
        Self { threshold, longest_pause, failures: 0, open_until: None }
    }

    /// Whether a call may go out; if it does, others wait for up to `probe` while its outcome is not known.
    pub(crate) fn enter(&mut self, now: SystemTime, probe: Duration) -> Result<(), Open> {
        self.check(now)?;
        if self.failures >= self.threshold {
            self.open_until = Some(now + probe);
        }
        Ok(())
    }

    /// Whether a call might go out.
    pub(crate) fn check(&self, now: SystemTime) -> Result<(), Open> {
        match self.open_until.and_then(|until| until.duration_since(now).ok()).filter(|left| !left.is_zero()) {
            Some(retry_after) => Err(Open { retry_after }),
            None => Ok(()),
        }
    }

    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
        self.open_until = None;
    }

    pub(crate) fn failed(&mut self, now: SystemTime, retry_after: Option<Duration>) {
        self.failures = self.failures.saturating_add(1);
        let asked = retry_after.map(|asked| asked.min(LONGEST_RETRY_AFTER));
        let grown = self.failures.checked_sub(self.threshold).map(|beyond| {
            FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(beyond)).min(self.longest_pause.max(FIRST_PAUSE))
        });
        self.open_until = asked.max(grown).map(|pause| now + pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: SystemTime = SystemTime::UNIX_EPOCH;

    fn at(seconds: u64) -> SystemTime {
        START + Duration::from_secs(seconds)
    }

    fn wait(seconds: u64) -> Result<(), Open> {
        Err(Open { retry_after: Duration::from_secs(seconds) })
    }

    #[test]
    fn pauses_grow_up_to_the_limit_and_a_success_ends_them() {
        let mut circuit = Circuit::new(1, Duration::from_secs(5));
        assert_eq!(circuit.check(START), Ok(()));
        for pause in [1, 2, 4, 5, 5] {
            circuit.failed(START, None);
            assert_eq!(circuit.check(START), wait(pause));
            assert_eq!(circuit.check(at(pause)), Ok(()), "exactly at the end of the pause");
        }
        circuit.succeeded();
        assert_eq!(circuit.check(START), Ok(()));
        circuit.failed(START, None);
        assert_eq!(circuit.check(START), wait(1));
    }

    #[test]
    fn below_the_threshold_only_the_provider_itself_asks_for_a_pause() {
        let mut circuit = Circuit::new(3, Duration::from_secs(30));
        circuit.failed(START, None);
        assert_eq!(circuit.check(START), Ok(()));
        circuit.failed(START, Some(Duration::from_secs(7)));
        assert_eq!(circuit.check(START), wait(7));
        circuit.failed(START, Some(Duration::from_secs(9999)));
        assert_eq!(circuit.check(START), wait(60));
    }

    #[test]
    fn one_probe_at_a_time_after_a_pause() {
        let mut circuit = Circuit::new(1, Duration::from_secs(30));
        circuit.failed(START, None);
        assert_eq!(circuit.enter(at(1), Duration::from_secs(5)), Ok(()));
        assert_eq!(circuit.enter(at(1), Duration::from_secs(5)), wait(5));
        assert_eq!(circuit.enter(at(6), Duration::from_secs(5)), Ok(()), "a probe that never reported back");
    }
}
