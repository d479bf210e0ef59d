//! A clock that goes on as the system's does, and can be moved on: what waits for another replica waits by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tower_oidc_session::{Clock, Sleep};

/// Clones are one clock.
#[derive(Clone, Debug, Default)]
pub struct Ahead(Arc<AtomicU64>);

impl Ahead {
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), Ordering::Relaxed);
    }

    /// How far it is ahead.
    pub fn by(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

impl Clock for Ahead {
    fn now(&self) -> SystemTime {
        SystemTime::now() + self.by()
    }

    fn sleep_until(&self, deadline: SystemTime) -> Sleep {
        let clock = self.clone();
        Box::pin(async move {
            while let Ok(left) = deadline.duration_since(clock.now()) {
                // It may be moved on meanwhile.
                tokio::time::sleep(left.min(Duration::from_millis(2))).await;
            }
        })
    }
}
