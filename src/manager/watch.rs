//! How long a long response may go on.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};

use super::Manager;
use super::ends::Notice;
use crate::registry::Loaded;
use crate::session::decide::{Decision, decide, next_deadline};
use crate::session::id::SessionKey;
use crate::session::policy::RequestKind;

/// How long a long response goes on without a look at the registry, should a notice be lost.
const LONGEST_TRUST: Duration = Duration::from_secs(30);

impl Manager {
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
            let notice = std::pin::pin!(watch.notice());
            let look = self.clock.sleep_until(trusted_until);
            if let Either::Left((Notice::Ended(_), _)) = select(notice, look).await {
                return;
            }
        }
    }
}
