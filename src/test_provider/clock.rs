//! A clock that is set by hand.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::clock::{Clock, Sleep};

/// A [`Clock`] that stands still until it is told to move. Clones share the time.
///
/// ```
/// use std::time::Duration;
/// use tower_oidc_session::{Clock, test_provider::ManualClock};
///
/// let clock = ManualClock::new();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(15 * 60));
/// assert_eq!(clock.now(), before + Duration::from_secs(900));
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock {
    now: Arc<watch::Sender<SystemTime>>,
}

impl ManualClock {
    /// A clock that shows a fixed time in the year 2027.
    #[must_use]
    pub fn new() -> Self {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        Self { now: Arc::new(watch::Sender::new(start)) }
    }

    /// Moves the time on by `by` and wakes every sleeper whose deadline has come.
    pub fn advance(&self, by: Duration) {
        self.now.send_modify(|now| *now += by);
    }

    /// Lets time pass until `future` completes, for what waits by the clock before it goes on: 50 ms for each real
    /// millisecond, so that whatever needs real time, as a request over a socket, is not overtaken by far.
    ///
    /// # Cancel safety
    /// The future is dropped; the time stays as it is.
    pub async fn run<F: Future>(&self, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        loop {
            match tokio::time::timeout(Duration::from_millis(1), &mut future).await {
                Ok(output) => return output,
                Err(_) => self.advance(Duration::from_millis(50)),
            }
        }
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        *self.now.borrow()
    }

    fn sleep_until(&self, deadline: SystemTime) -> Sleep {
        let mut time = self.now.subscribe();
        Box::pin(async move {
            // An error means that the clock is gone: nobody can move the time any more.
            if time.wait_for(|now| *now >= deadline).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}
