//! How long a long response, or a handler, may go on.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use futures_util::future::{Either, select};

use super::Manager;
use super::ends::{EndWatch, Notice};
use super::over::Over;
use crate::registry::{Loaded, RegistryError};
use crate::session::decide::{Decision, decide, next_deadline};
use crate::session::id::{SessionKey, random_fraction};
use crate::session::policy::RequestKind;
use crate::session::record::SessionRecord;

/// A look is good for so long at least, whatever the store says: more would be a hammer.
const SHORTEST_TRUST: Duration = Duration::from_secs(1);
/// And for so long at most, also where no notice is ever lost.
const LONGEST_TRUST: Duration = Duration::from_secs(24 * 60 * 60);
/// The looks of all sessions are spread over this time, or over a third of the trust if that is less.
const SPREAD: Duration = Duration::from_secs(10);
/// The same where a notice may have been lost.
const SPREAD_OF_DOUBT: Duration = Duration::from_secs(2);
/// A look that failed is tried again after this, and at most twice as long.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// Before a session was looked up: what ends from then on is noticed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Looked {
    at: SystemTime,
    notices: u64,
}

/// What a handler knows of its session after it was admitted. Most calls of APIs come right after, and cost no look at the
/// registry; a handler that outlives its session must not go on with its tokens.
#[derive(Debug)]
pub(crate) struct Standing {
    watch: EndWatch,
    looked_at: SystemTime,
    trusted_until: SystemTime,
}

impl Standing {
    /// Whether the session has to be looked up before anything more is done for it.
    pub(crate) fn is_doubtful(&self, now: SystemTime) -> bool {
        !(self.looked_at..self.trusted_until).contains(&now) || self.watch.has_heard()
    }
}

impl Manager {
    /// How long a look is good, within reason.
    fn trust(&self) -> Duration {
        self.registry.trust().clamp(SHORTEST_TRUST, LONGEST_TRUST)
    }

    /// To be noted before a session is looked up.
    pub(crate) fn before_look(&self) -> Looked {
        Looked { at: self.now(), notices: self.ends.count() }
    }

    /// Listens for the end of a session that was looked up after `looked`.
    pub(crate) fn standing(&self, record: &SessionRecord, looked: Looked) -> Standing {
        let watch = self.ends.watch(*record.key());
        // Somebody's session has ended since: it may be this one.
        let is_sure = self.ends.count() == looked.notices;
        let trusted_until = looked.at + if is_sure { self.trust() } else { Duration::ZERO };
        // A deadline that passes is no end, and nobody tells of it.
        let trusted_until = trusted_until.min(next_deadline(record, &self.policy));
        Standing { watch, looked_at: looked.at, trusted_until }
    }

    /// Completes when nothing more may be sent of a long response of this session, whose record was looked up after
    /// `looked`. All of them share the looks.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn until_over(self: Arc<Self>, record: Arc<SessionRecord>, looked: Looked) -> Over {
        let guard = self.guards.of(*record.key(), || self.clone().guard(record.clone(), looked).boxed());
        // Stores make one for each request; a thousand streams need none.
        drop(record);
        guard.await
    }

    async fn guard(self: Arc<Self>, record: Arc<SessionRecord>, looked: Looked) -> Over {
        let key = *record.key();
        let mut watch = self.ends.watch(key);
        let mut plan = if self.ends.count() == looked.notices {
            Plan::after_look(looked.at, self.trust(), next_deadline(&record, &self.policy), random_fraction())
        } else {
            Plan::at_once(self.now(), self.trust())
        };
        drop(record);
        loop {
            let due = self.clock.sleep(plan.pause(self.now(), self.trust()));
            let look = pin!(async {
                due.await;
                self.look_in_turn(key).await
            });
            let closing = pin!(self.tasks.closing());
            let (now, found) = match select(select(pin!(watch.notice()), closing), look).await {
                Either::Left((Either::Left((Notice::Ended(reason), _)), _)) => {
                    return Over::Session(Some(reason));
                }
                Either::Left((Either::Left((Notice::Look, _)), _)) => {
                    plan.look_soon(self.now(), random_fraction());
                    continue;
                }
                Either::Left((Either::Right(_), _)) => return Over::Process,
                Either::Right((looked, _)) => looked,
            };
            plan = match found {
                Ok(Loaded::Live(record)) => match decide(&record, &self.policy, now, RequestKind::Passive) {
                    Decision::Proceed | Decision::Signal | Decision::SilentLogin => {
                        Plan::after_look(now, self.trust(), next_deadline(&record, &self.policy), random_fraction())
                    }
                    Decision::Refuse | Decision::Wait(_) => return Over::Session(None),
                    Decision::End(reason) => {
                        // Where the registry fails, the next request ends it.
                        let _ = self.end(&key, reason).await;
                        return Over::Session(Some(reason));
                    }
                },
                Ok(Loaded::Ended(mark)) => return Over::Session(Some(mark.reason)),
                Ok(Loaded::Unknown) => return Over::Session(None),
                Err(error) => {
                    tracing::warn!(%error, "a long response could not be checked");
                    match plan.after_failure(self.now(), random_fraction()) {
                        Some(plan) => plan,
                        None => return Over::Session(None),
                    }
                }
            };
        }
    }

    /// Looks at the registry in a task of its own: whoever reads a response slowly polls its guard slowly, and would keep a
    /// turn from the others.
    async fn look_in_turn(self: &Arc<Self>, key: SessionKey) -> (SystemTime, Result<Loaded, RegistryError>) {
        let manager = self.clone();
        let look = tokio::spawn(async move {
            // The others wait: a store that has just come back is not overrun.
            let _turn = manager.guards.turn().await;
            (manager.now(), manager.registry.load(&key).await)
        });
        let panicked = |panic| (self.now(), Err(RegistryError::with_source("a look panicked", panic)));
        look.await.unwrap_or_else(panicked)
    }
}

/// When the session of a long response is looked at next, and until when it is trusted if that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    looked_at: SystemTime,
    look_at: SystemTime,
    trusted_until: SystemTime,
}

impl Plan {
    fn at_once(now: SystemTime, trust: Duration) -> Self {
        Self { looked_at: now, look_at: now, trusted_until: now + trust }
    }

    /// Looks do not come in step, whatever made them begin together: `fraction` is random.
    fn after_look(now: SystemTime, trust: Duration, deadline: SystemTime, fraction: f64) -> Self {
        let trusted_until = deadline.min(now + trust);
        let look_at = trusted_until.min(now + trust - SPREAD.min(trust / 3).mul_f64(fraction));
        Self { looked_at: now, look_at, trusted_until }
    }

    /// How long the look is waited for from `now` on. However far the clock was set back since: no longer than a look is
    /// good, and by a clock that cannot be set.
    fn pause(&self, now: SystemTime, trust: Duration) -> Duration {
        self.look_at.duration_since(now).unwrap_or_default().min(trust)
    }

    /// A notice may have been lost, for all sessions at once.
    fn look_soon(&mut self, now: SystemTime, fraction: f64) {
        self.look_at = self.look_at.min(now + SPREAD_OF_DOUBT.mul_f64(fraction));
    }

    /// Nothing if the time is over for which the last look was good, or cannot be told since the clock was set back.
    fn after_failure(self, now: SystemTime, fraction: f64) -> Option<Self> {
        let look_at = self.trusted_until.min(now + SHORTEST_PAUSE + SHORTEST_PAUSE.mul_f64(fraction));
        (self.looked_at..self.trusted_until).contains(&now).then_some(Self { look_at, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::ends::Ends;
    use crate::session::end_reason::EndReason;

    const TRUST: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn p11_looks_are_spread_in_time_and_tried_again_within_the_trust() {
        let far = at(10_000);
        for (fraction, look_at) in [(0.0, 130), (0.5, 125), (1.0, 120)] {
            let plan = Plan { looked_at: at(100), look_at: at(look_at), trusted_until: at(130) };
            assert_eq!(Plan::after_look(at(100), TRUST, far, fraction), plan);
        }
        assert_eq!(
            Plan::at_once(at(100), TRUST),
            Plan { looked_at: at(100), look_at: at(100), trusted_until: at(130) }
        );
        // Short trust is spread by a third of it.
        let plan = Plan { looked_at: at(100), look_at: at(102), trusted_until: at(103) };
        assert_eq!(Plan::after_look(at(100), Duration::from_secs(3), far, 1.0), plan);
        // A deadline is kept to the second.
        for fraction in [0.0, 1.0] {
            let plan = Plan::after_look(at(100), TRUST, at(110), fraction);
            assert_eq!(plan, Plan { looked_at: at(100), look_at: at(110), trusted_until: at(110) });
        }
        for (fraction, look_at) in [(0.0, 101), (0.5, 102), (1.0, 103)] {
            let mut plan = Plan { looked_at: at(100), look_at: at(120), trusted_until: at(130) };
            plan.look_soon(at(101), fraction);
            assert_eq!(plan, Plan { looked_at: at(100), look_at: at(look_at), trusted_until: at(130) });
        }
        let plan = Plan { looked_at: at(100), look_at: at(120), trusted_until: at(130) };
        for (now, fraction, look_at) in
            [(120, 0.0, Some(121)), (120, 1.0, Some(122)), (129, 1.0, Some(130)), (130, 0.0, None), (131, 0.0, None)]
        {
            let expected = look_at.map(|look_at| Plan { look_at: at(look_at), ..plan });
            assert_eq!(plan.after_failure(at(now), fraction), expected, "{now} {fraction}");
        }
    }

    #[test]
    fn p11_a_clock_that_is_set_back_delays_no_look_and_lengthens_no_trust() {
        let plan = Plan { looked_at: at(1_000), look_at: at(1_020), trusted_until: at(1_030) };
        for (now, pause) in [(1_000, 20), (1_019, 1), (1_020, 0), (9_000, 0), (10, 30)] {
            assert_eq!(plan.pause(at(now), TRUST), Duration::from_secs(pause), "{now}");
        }
        assert_eq!(plan.after_failure(at(999), 0.0), None);
    }

    #[test]
    fn p10_a_handlers_session_is_looked_up_again_once_it_is_doubtful() {
        let ends = Arc::new(Ends::default());
        let key = SessionKey::from_bytes([1; 32]);
        let standing = Standing { watch: ends.watch(key), looked_at: at(100), trusted_until: at(130) };
        let doubtful = [99, 100, 129, 130, 131].map(|now| standing.is_doubtful(at(now)));
        assert_eq!(doubtful, [true, false, false, true, true]);
        ends.ended(&key, EndReason::BackChannelLogout);
        assert!(standing.is_doubtful(at(100)), "it has ended");
    }
}
