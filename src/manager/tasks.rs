//! What goes on without the request that caused it, and how it is brought to an end with the process.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::{Either, select};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Sleep;

/// So many revocations are under way at once.
const REVOCATIONS_AT_ONCE: usize = 4;
/// More do not wait: they are a courtesy.
const MOST_REVOCATIONS: usize = 1024;

/// The tasks of a manager.
#[derive(Debug)]
pub(super) struct Tasks {
    /// What holds a token or a write.
    needed: TaskTracker,
    /// What is a courtesy to the provider.
    courtesies: TaskTracker,
    turns: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    closing: CancellationToken,
}

impl Tasks {
    pub(super) fn new() -> Self {
        Self {
            needed: TaskTracker::new(),
            courtesies: TaskTracker::new(),
            turns: Arc::new(Semaphore::new(REVOCATIONS_AT_ONCE)),
            waiting: Arc::default(),
            closing: CancellationToken::new(),
        }
    }

    /// Runs what has to be finished, whoever goes away.
    pub(super) fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.needed.spawn(work)
    }

    /// Runs a courtesy once it is due and its turn comes, if not too many wait. What is not due when the process is about to
    /// end is dropped.
    pub(super) fn spawn_courtesy(&self, due: Sleep, work: impl Future<Output = ()> + Send + 'static) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= MOST_REVOCATIONS {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            tracing::info!("a refresh token is not revoked: too many are waiting for it");
            return;
        }
        let (turns, waiting, closing) = (self.turns.clone(), self.waiting.clone(), self.closing.clone());
        self.courtesies.spawn(async move {
            let ends = pin!(closing.cancelled());
            if let Either::Left(_) = select(due, ends).await {
                // The semaphore is never closed.
                let turn = turns.acquire().await;
                work.await;
                drop(turn);
            }
            waiting.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Whether the process is about to end.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// Completes when the process is about to end.
    pub(super) async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Lets no more begin, and completes when all is done.
    pub(super) async fn finish(&self) {
        self.closing.cancel();
        for tasks in [&self.needed, &self.courtesies] {
            tasks.close();
            tasks.wait().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_once() -> Sleep {
        Box::pin(std::future::ready(()))
    }

    #[tokio::test]
    async fn p12_few_courtesies_are_under_way_at_once_and_all_are_done() {
        let tasks = Tasks::new();
        let (under_way, most, done) =
            (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        for _ in 0..300 {
            let (under_way, most, done) = (under_way.clone(), most.clone(), done.clone());
            tasks.spawn_courtesy(at_once(), async move {
                most.fetch_max(under_way.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                under_way.fetch_sub(1, Ordering::Relaxed);
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        tasks.finish().await;
        assert_eq!((most.load(Ordering::Relaxed), done.load(Ordering::Relaxed)), (REVOCATIONS_AT_ONCE, 300));
    }

    #[tokio::test]
    async fn courtesies_beyond_measure_are_dropped() {
        let tasks = Tasks::new();
        for _ in 0..2 * MOST_REVOCATIONS {
            tasks.spawn_courtesy(at_once(), std::future::ready(()));
        }
        assert_eq!(tasks.waiting.load(Ordering::Relaxed), MOST_REVOCATIONS);
        tasks.finish().await;
        assert!(tasks.is_closing());
    }
}
