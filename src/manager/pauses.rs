//! When this process leaves the provider in peace over one session.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::refusal::RetryAfter;
use crate::protocol::authorization::Audience;
use crate::provider::circuit::Pause;
use crate::session::id::SessionKey;

/// How long the provider is spared after it has denied a session a token for an audience.
const DENIAL: Duration = Duration::from_secs(30);
/// Below this many entries nobody tidies up.
const FEW: usize = 1024;

/// The sessions whose last signal failed, and the audiences that they were denied.
#[derive(Default)]
pub(super) struct Pauses {
    sessions: Mutex<Tidy<SessionKey, Pause>>,
    /// Until when a session does not ask for a token to an audience again.
    denials: Mutex<Tidy<(SessionKey, Audience), SystemTime>>,
}

impl Pauses {
    /// How long the session's signal has to wait, if it has to.
    pub(super) fn of(&self, key: &SessionKey, now: SystemTime) -> Option<RetryAfter> {
        let sessions = lock(&self.sessions);
        sessions.entries.get(key).and_then(|pause| pause.check(now).err()).map(|open| RetryAfter(open.retry_after))
    }

    pub(super) fn failed(&self, key: &SessionKey, asked: Duration, now: SystemTime) {
        let mut sessions = lock(&self.sessions);
        sessions.tidy(|pause| pause.check(now).is_err());
        let pause = sessions.entries.entry(*key).or_default();
        pause.failed(now, Some(asked));
    }

    pub(super) fn succeeded(&self, key: &SessionKey) {
        lock(&self.sessions).entries.remove(key);
    }

    pub(super) fn is_denied(&self, key: &SessionKey, audience: &Audience, now: SystemTime) -> bool {
        lock(&self.denials)
            .entries
            .get(&(*key, audience.clone()))
            .is_some_and(|until| now < *until && *until <= now + DENIAL)
    }

    pub(super) fn denied(&self, key: &SessionKey, audience: &Audience, now: SystemTime) {
        let mut denials = lock(&self.denials);
        denials.tidy(|until| now < *until);
        denials.entries.insert((*key, audience.clone()), now + DENIAL);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A map that is gone through only when it has doubled since the last time, so that an entry costs the same however
/// many there are.
struct Tidy<K, V> {
    entries: HashMap<K, V>,
    tidy_at: usize,
}

impl<K, V> Default for Tidy<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), tidy_at: FEW }
    }
}

impl<K: Eq + std::hash::Hash, V> Tidy<K, V> {
    fn tidy(&mut self, is_needed: impl Fn(&V) -> bool) {
        if self.entries.len() >= self.tidy_at {
            self.entries.retain(|_, value| is_needed(value));
            self.tidy_at = FEW.max(self.entries.len() * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;
    const SECOND: Duration = Duration::from_secs(1);

    fn key(number: usize) -> SessionKey {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        SessionKey::from_bytes(bytes)
    }

    #[test]
    fn pauses_that_are_over_are_forgotten_at_a_cost_that_does_not_grow() {
        let pauses = Pauses::default();
        for number in 0..4 * FEW {
            pauses.failed(&key(number), SECOND, NOW);
            if number >= 2 * FEW {
                assert_eq!(lock(&pauses.sessions).tidy_at, 4 * FEW, "gone through at 1024 and at 2048 only");
            }
        }
        pauses.failed(&key(0), SECOND, NOW + SECOND);
        assert_eq!(lock(&pauses.sessions).entries.len(), 1);
    }

    #[test]
    fn a_denial_is_one_sessions_and_one_audiences() {
        let pauses = Pauses::default();
        let audience = |resource: &str| Audience { resource: Some(resource.to_owned()), ..Audience::default() };
        pauses.denied(&key(1), &audience("a"), NOW);
        for (session, resource, after, expected) in
            [(1, "a", 29, true), (1, "a", 30, false), (2, "a", 0, false), (1, "b", 0, false)]
        {
            let found = pauses.is_denied(&key(session), &audience(resource), NOW + SECOND * after);
            assert_eq!(found, expected, "{session} {resource} {after}");
        }
        // The others are no less denied when those that are over are forgotten.
        for number in 1..FEW {
            pauses.denied(&key(number), &audience("b"), NOW + SECOND);
        }
        pauses.denied(&key(FEW), &audience("b"), NOW + SECOND * 30);
        assert_eq!(lock(&pauses.denials).entries.len(), FEW, "but for the first");
    }

    #[test]
    fn a_session_whose_signal_failed_waits_until_its_pause_is_over_or_one_succeeds() {
        let pauses = Pauses::default();
        pauses.failed(&key(1), SECOND * 10, NOW);
        assert!(pauses.of(&key(1), NOW + SECOND).is_some());
        assert_eq!(pauses.of(&key(2), NOW + SECOND), None);
        assert_eq!(pauses.of(&key(1), NOW + SECOND * 10), None);
        pauses.failed(&key(1), SECOND * 10, NOW + SECOND * 10);
        pauses.succeeded(&key(1));
        assert_eq!(pauses.of(&key(1), NOW + SECOND * 11), None);
    }
}
