//! Tells long responses of this process that their session is over.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::registry::EndNotice;
use crate::session::end_reason::EndReason;
use crate::session::id::{KeyMap, SessionKey};

/// What a long response knows of its session between two looks at the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    Ended(EndReason),
    /// Nothing was heard, or a notice may have been missed: look.
    Look,
}

/// The sessions that long responses of this process wait for.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    watched: Mutex<KeyMap<watch::Sender<Notice>>>,
    /// How many notices there were, whomever they were about.
    count: AtomicU64,
}

impl Ends {
    fn watched(&self) -> MutexGuard<'_, KeyMap<watch::Sender<Notice>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts to wait for the end of a session. Ends that came before are not reported: compare the [`count`](Self::count)
    /// after, or look at the registry.
    pub(crate) fn watch(self: &Arc<Self>, key: SessionKey) -> EndWatch {
        let notices = self.watched().entry(key).or_insert_with(|| watch::Sender::new(Notice::Look)).subscribe();
        EndWatch { ends: self.clone(), key, notices }
    }

    /// How many notices there were: whoever finds the same number later has missed none.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Passes on what a registry says.
    pub(crate) fn notice(&self, notice: EndNotice) {
        match notice {
            EndNotice::Ended(key, reason) => self.ended(&key, reason),
            EndNotice::Missed => {
                self.count.fetch_add(1, Ordering::SeqCst);
                for sender in self.watched().values() {
                    sender.send_replace(Notice::Look);
                }
            }
        }
    }

    /// Reports an end.
    pub(crate) fn ended(&self, key: &SessionKey, reason: EndReason) {
        self.count.fetch_add(1, Ordering::SeqCst);
        if let Some(sender) = self.watched().get(key) {
            sender.send_replace(Notice::Ended(reason));
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.watched().len()
    }
}

/// One long response's wait for the end of its session.
pub(crate) struct EndWatch {
    ends: Arc<Ends>,
    key: SessionKey,
    notices: watch::Receiver<Notice>,
}

impl EndWatch {
    /// Whether there was any notice since this watch began.
    pub(crate) fn has_heard(&self) -> bool {
        self.notices.has_changed().unwrap_or(true)
    }

    /// The next notice.
    ///
    /// # Cancel safety
    /// No notice is lost.
    pub(crate) async fn notice(&mut self) -> Notice {
        // The sender lives as long as there are receivers.
        if self.notices.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        *self.notices.borrow_and_update()
    }
}

/// Without the sessions of others.
impl fmt::Debug for EndWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndWatch").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Drop for EndWatch {
    fn drop(&mut self) {
        let mut watched = self.ends.watched();
        // Under the lock: a receiver that is about to be added is either counted or finds a new sender.
        if watched.get(&self.key).is_some_and(|sender| sender.receiver_count() <= 1) {
            watched.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SessionKey {
        SessionKey::from_bytes([byte; 32])
    }

    #[tokio::test]
    async fn p11_each_response_of_a_session_hears_of_its_end_and_nothing_leaks() {
        let ends = Arc::new(Ends::default());
        let (mut first, mut second, mut other) = (ends.watch(key(1)), ends.watch(key(1)), ends.watch(key(2)));
        assert_eq!(ends.count(), 0);
        ends.notice(EndNotice::Ended(key(1), EndReason::BackChannelLogout));
        assert_eq!((first.has_heard(), other.has_heard()), (true, false));
        assert_eq!(first.notice().await, Notice::Ended(EndReason::BackChannelLogout));
        assert_eq!(second.notice().await, Notice::Ended(EndReason::BackChannelLogout));
        ends.notice(EndNotice::Missed);
        assert!(other.has_heard());
        assert_eq!(other.notice().await, Notice::Look);
        // Whoever comes later learns that there was something, whomever it was about.
        assert_eq!(ends.count(), 2);
        drop(first);
        assert_eq!(ends.len(), 2);
        drop((second, other));
        assert_eq!(ends.len(), 0);
    }
}
