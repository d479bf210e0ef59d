//! How long a long response, or a handler, may go on.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use futures_util::future::{Either, select};

use super::Manager;
use super::ends::{EndWatch, Notice};
use crate::registry::Loaded;
use crate::session::decide::{Decision, decide, next_deadline};
use crate::session::id::{SessionKey, fill_random};
use crate::session::policy::RequestKind;

/// How long a long response or handler goes on without a look at the registry, should a notice be lost.
const LONGEST_TRUST: Duration = Duration::from_secs(30);
/// The looks of all sessions are spread over this time.
const SPREAD: Duration = Duration::from_secs(10);
/// The same where a notice may have been lost.
const SPREAD_OF_DOUBT: Duration = Duration::from_secs(2);
/// A look that failed is tried again after this, and at most twice as long.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

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

    /// Completes when nothing more may be sent of a long response of this session. All of them share the looks.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn until_over(self: Arc<Self>, key: SessionKey) {
        let guard = self.guards.of(key, || self.clone().guard(key).boxed());
        guard.await;
    }

    async fn guard(self: Arc<Self>, key: SessionKey) {
        let mut watch = self.ends.watch(key);
        let mut plan = Plan::at_once(self.now());
        loop {
            let heard = std::pin::pin!(async {
                match select(std::pin::pin!(watch.notice()), std::pin::pin!(self.tasks.closing())).await {
                    Either::Left((notice, _)) => Some(notice),
                    Either::Right(((), _)) => None,
                }
            });
            match select(heard, self.clock.sleep_until(plan.look_at)).await {
                // It ended, or the process is about to.
                Either::Left((Some(Notice::Ended(_)) | None, _)) => return,
                Either::Left((Some(Notice::Look), _)) => {
                    plan.look_soon(self.now(), fraction());
                    continue;
                }
                Either::Right(_) => {}
            }
            // The others wait: a store that has just come back is not overrun.
            let turn = self.guards.turn().await;
            let (now, found) = (self.now(), self.registry.load(&key).await);
            drop(turn);
            plan = match found {
                Ok(Loaded::Live(record)) => match decide(&record, &self.policy, now, RequestKind::Passive) {
                    Decision::Proceed | Decision::Signal | Decision::SilentLogin => {
                        Plan::after_look(now, next_deadline(&record, &self.policy), fraction())
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
                    match plan.after_failure(self.now(), fraction()) {
                        Some(plan) => plan,
                        None => return,
                    }
                }
            };
        }
    }
}

/// When the session of a long response is looked at next, and until when it is trusted if that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    look_at: SystemTime,
    trusted_until: SystemTime,
}

impl Plan {
    fn at_once(now: SystemTime) -> Self {
        Self { look_at: now, trusted_until: now + LONGEST_TRUST }
    }

    /// Looks do not come in step, whatever made them begin together: `fraction` is random.
    fn after_look(now: SystemTime, deadline: SystemTime, fraction: f64) -> Self {
        let trusted_until = deadline.min(now + LONGEST_TRUST);
        Self { look_at: trusted_until.min(now + LONGEST_TRUST - SPREAD.mul_f64(fraction)), trusted_until }
    }

    /// A notice may have been lost, for all sessions at once.
    fn look_soon(&mut self, now: SystemTime, fraction: f64) {
        self.look_at = self.look_at.min(now + SPREAD_OF_DOUBT.mul_f64(fraction));
    }

    /// Nothing if the time is over for which the last look was good.
    fn after_failure(self, now: SystemTime, fraction: f64) -> Option<Self> {
        let look_at = self.trusted_until.min(now + SHORTEST_PAUSE + SHORTEST_PAUSE.mul_f64(fraction));
        (now < self.trusted_until).then_some(Self { look_at, ..self })
    }
}

/// Random, between 0 and 1.
fn fraction() -> f64 {
    let mut bytes = [0; 4];
    fill_random(&mut bytes);
    f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn p11_looks_are_spread_in_time_and_tried_again_within_the_trust() {
        let far = at(10_000);
        for (fraction, look_at) in [(0.0, 130), (0.5, 125), (1.0, 120)] {
            let plan = Plan { look_at: at(look_at), trusted_until: at(130) };
            assert_eq!(Plan::after_look(at(100), far, fraction), plan);
        }
        // A deadline is kept to the second.
        for fraction in [0.0, 1.0] {
            let plan = Plan::after_look(at(100), at(110), fraction);
            assert_eq!(plan, Plan { look_at: at(110), trusted_until: at(110) });
        }
        for (fraction, look_at) in [(0.0, 101), (0.5, 102), (1.0, 103)] {
            let mut plan = Plan { look_at: at(120), trusted_until: at(130) };
            plan.look_soon(at(101), fraction);
            assert_eq!(plan, Plan { look_at: at(look_at), trusted_until: at(130) });
        }
        let plan = Plan { look_at: at(120), trusted_until: at(130) };
        for (now, fraction, look_at) in
            [(120, 0.0, Some(121)), (120, 1.0, Some(122)), (129, 1.0, Some(130)), (130, 0.0, None), (131, 0.0, None)]
        {
            let expected = look_at.map(|look_at| Plan { look_at: at(look_at), ..plan });
            assert_eq!(plan.after_failure(at(now), fraction), expected, "{now} {fraction}");
        }
    }
}
