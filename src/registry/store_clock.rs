//! The clock of the registry's store, by which login attempts and logouts are dated.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::SessionRegistry;
use crate::clock::monotonic;

/// The store is asked so often at most: whoever begins a login costs it nothing.
const LONGEST_TRUST: Duration = Duration::from_secs(60);

/// What the store's clock showed, and when that was.
#[derive(Debug, Default)]
pub(crate) struct StoreClock {
    read: Mutex<Option<(Instant, SystemTime)>>,
}

impl StoreClock {
    fn get(&self) -> Option<(Instant, SystemTime)> {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, time: SystemTime) {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some((monotonic(), time));
    }

    /// The time there. Where it cannot be had, what was read before and the time since, if ever anything was.
    pub(crate) async fn time(&self, registry: &dyn SessionRegistry) -> Option<SystemTime> {
        let read = self.get();
        if read.is_none_or(|(at, _)| at.elapsed() >= LONGEST_TRUST) {
            match registry.time().await {
                Ok(time) => {
                    self.set(time);
                    return Some(time);
                }
                Err(error) => tracing::info!(%error, "the store's clock cannot be read at the moment"),
            }
        }
        read.map(|(at, time)| time + at.elapsed())
    }
}
