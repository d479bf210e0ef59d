//! The library's only source of time.
//!
//! Rules take `now` as an argument; the shells that call them ask a [`Clock`]. Hours of inactivity are tested in
//! milliseconds with [`ManualClock`](crate::test_provider::ManualClock) (feature `test-provider`).

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime};

/// The future of [`Clock::sleep`] and [`Clock::sleep_until`].
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

/// Where the library takes the time from.
///
/// Applications keep the default, [`SystemClock`]; tests set the time by hand.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> SystemTime;

    /// Completes when [`now`](Self::now) is at or after `deadline`.
    fn sleep_until(&self, deadline: SystemTime) -> Sleep;

    /// Completes when so much time has passed. Default: by [`now`](Self::now). A clock that can be set meanwhile measures it by
    /// one that cannot, or a pause of a moment lasts for as long as the clock was set back.
    fn sleep(&self, pause: Duration) -> Sleep {
        self.sleep_until(self.now() + pause)
    }
}

/// The operating system's clock.
///
/// Exhaustive: its name alone makes one.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the time")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep_until(&self, deadline: SystemTime) -> Sleep {
        let clock = *self;
        Box::pin(async move {
            // The wall clock may be set while we sleep, so the answer is checked, not assumed.
            while let Ok(remaining) = deadline.duration_since(clock.now()) {
                if remaining.is_zero() {
                    return;
                }
                tokio::time::sleep(remaining).await;
            }
        })
    }

    fn sleep(&self, pause: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(pause))
    }
}

/// Whether `since` is less than `span` ago. What lies in the future was dated by a clock that was set back since, and is not.
pub(crate) fn is_within(since: SystemTime, span: Duration, now: SystemTime) -> bool {
    now.duration_since(since).is_ok_and(|passed| passed < span)
}

/// What no setting of clocks moves: for leases in memory, which measure real time as those in other stores do, and for the
/// time since another clock was read.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the time")]
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pause_goes_by_no_clock_that_can_be_set() {
        // The machine's clock stands still meanwhile, as good as one that was set back.
        let begin = tokio::time::Instant::now();
        SystemClock.sleep(Duration::from_secs(1_000)).await;
        assert!((1_000..=1_001).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    }
}
