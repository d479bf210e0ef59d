//! How long a long response, or a handler, may go on.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::{Either, select};

use super::Manager;
use super::ends::{EndWatch, Notice};
use crate::registry::Loaded;
use crate::session::decide::{Decision, decide, next_deadline};
use crate::session::id::SessionKey;
use crate::session::policy::RequestKind;

/// How long a long response or handler goes on without a look at the registry, should a notice be lost.
const LONGEST_TRUST: Duration = Duration::from_secs(30);

/// What a handler knows of its session after it was admitted. Most calls of APIs come right after, and cost no look at the
/// registry; a handler that outlives its session must not go on with its tokens.
#[derive(Debug)]
pub(crate) struct Standing {
    watch: EndWatch,
    trusted_until: SystemTime,
}

impl Standing {
    /// Whether the session has to be looked up before anything more is done for it.
    pub(crate) fn is_doubtful(&self, now: SystemTime) -> bool {
        now >= self.trusted_until || self.watch.has_heard()
    }
}

impl Manager {
    /// Listens for the end of a session that was looked up at `looked_at` or later.
    pub(crate) fn standing(&self, key: SessionKey, looked_at: SystemTime) -> Standing {
        Standing { watch: self.ends.watch(key), trusted_until: looked_at + LONGEST_TRUST }
    }

    /// Completes when nothing more may be sent of a long response of this session.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn until_over(self: Arc<Self>, key: SessionKey) {
        let mut watch = self.ends.watch(key);
        // What to go by while the registry does not answer: nothing is trusted for longer than this.
        let mut trusted_until = self.now() + LONGEST_TRUST;
        loop {
            let now = self.now();
            match self.registry.load(&key).await {
                Ok(Loaded::Live(record)) => match decide(&record, &self.policy, now, RequestKind::Passive) {
                    Decision::Proceed | Decision::Signal | Decision::SilentLogin => {
                        trusted_until = next_deadline(&record, &self.policy).min(now + LONGEST_TRUST);
                    }
                    Decision::Refuse | Decision::Wait(_) => return,
                    Decision::End(reason) => {
                        // Where the registry fails, the next request ends it.
                        let _ = self.end(&key, reason).await;
                        return;
                    }
                },
                Ok(Loaded::Ended(_) | Loaded::Unknown) => return,
                Err(error) => {
                    tracing::warn!(%error, "a long response could not be checked");
                    if now >= trusted_until {
                        return;
                    }
                }
            }
            let heard = std::pin::pin!(async {
                match select(std::pin::pin!(watch.notice()), std::pin::pin!(self.tasks.closing())).await {
                    Either::Left((notice, _)) => Some(notice),
                    Either::Right(((), _)) => None,
                }
            });
            let look = self.clock.sleep_until(trusted_until);
            match select(heard, look).await {
                // It ended, or the process is about to.
                Either::Left((Some(Notice::Ended(_)) | None, _)) => return,
                Either::Left((Some(Notice::Look), _)) | Either::Right(_) => {}
            }
        }
    }
}
