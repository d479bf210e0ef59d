//! What the long responses of one session share: one guard, which looks at the registry for all of them.

use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::over::Over;
use crate::session::id::{KeyMap, SessionKey};

/// So many guards of a process look at the registry at once.
const LOOKS_AT_ONCE: usize = 64;

/// What the long responses of one session share, for as long as there are any.
pub(super) struct Guards {
    by_session: Mutex<KeyMap<WeakShared<BoxFuture<'static, Over>>>>,
    turns: Semaphore,
}

impl Guards {
    pub(super) fn new() -> Self {
        Self { by_session: Mutex::default(), turns: Semaphore::new(LOOKS_AT_ONCE) }
    }

    /// Waits for a turn to look at the registry.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.turns.acquire().await.ok()
    }

    /// The guard of a session, which completes when it is over.
    pub(super) fn of(
        &self,
        key: SessionKey,
        begin: impl FnOnce() -> BoxFuture<'static, Over>,
    ) -> Shared<BoxFuture<'static, Over>> {
        let mut by_session = self.by_session.lock().unwrap_or_else(PoisonError::into_inner);
        // One that has completed may be held still by a response that nobody reads; the session may have been confirmed since.
        if let Some(guard) = by_session.get(&key).and_then(WeakShared::upgrade).filter(|guard| guard.peek().is_none()) {
            return guard;
        }
        // Those that nobody waits for any more go when there are twice as many as are in use.
        if by_session.len() == by_session.capacity() {
            by_session.retain(|_, guard| guard.upgrade().is_some());
        }
        let guard = begin().shared();
        by_session.extend(guard.downgrade().map(|guard| (key, guard)));
        guard
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn p11_the_responses_of_a_session_share_one_guard_and_nothing_leaks() {
        let guards = Guards::new();
        let begun = AtomicUsize::new(0);
        let of = |byte: u8| {
            guards.of(SessionKey::from_bytes([byte; 32]), || {
                begun.fetch_add(1, Ordering::Relaxed);
                std::future::pending().boxed()
            })
        };
        let (first, second) = (of(1), of(1));
        assert_eq!(begun.load(Ordering::Relaxed), 1);
        drop((first, second));
        let again = of(1);
        assert_eq!(begun.load(Ordering::Relaxed), 2);
        for round in 0..10_000_u32 {
            let [_, _, one, two] = round.to_be_bytes();
            drop(guards.of(SessionKey::from_bytes([[one; 16], [two; 16]].concat().try_into().unwrap()), || {
                std::future::ready(Over::Session(None)).boxed()
            }));
        }
        assert!(guards.by_session.lock().unwrap().len() < 100);
        drop(again);
    }

    #[tokio::test]
    async fn p12_so_many_look_at_the_registry_at_once_and_no_more() {
        let guards = Guards::new();
        let turns: Vec<_> = (0..LOOKS_AT_ONCE).map(|_| guards.turn().now_or_never().flatten()).collect();
        assert!(turns.iter().all(Option::is_some));
        assert!(guards.turn().now_or_never().is_none());
        drop(turns);
        assert!(guards.turn().now_or_never().is_some());
    }
}
