//! What goes on in the background for as long as a manager is in use.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Manager;

/// How often expired records are removed.
const CLEANING_INTERVAL: Duration = Duration::from_secs(60);
/// The provider is asked for its metadata until it answers, after this pause at first, then after twice as long, …
const FIRST_READY_PAUSE: Duration = Duration::from_secs(1);
/// … up to this.
const LONGEST_READY_PAUSE: Duration = Duration::from_secs(30);

/// Begins the upkeep.
///
/// # Panics
/// Outside of a tokio runtime.
pub(crate) fn begin(manager: &Arc<Manager>) {
    tokio::spawn(clean(Arc::downgrade(manager)));
    tokio::spawn(get_ready(Arc::downgrade(manager)));
}

/// Removes expired records.
async fn clean(manager: Weak<Manager>) {
    loop {
        let Some(clock) = manager.upgrade().map(|manager| manager.clock.clone()) else { return };
        clock.sleep_until(clock.now() + CLEANING_INTERVAL).await;
        let Some(manager) = manager.upgrade() else { return };
        match manager.registry.remove_expired().await {
            Ok(removed) => {
                for record in removed {
                    manager.conclude(&record, record.expires_for());
                }
            }
            Err(error) => {
                tracing::warn!(%error, "expired sessions could not be removed");
                for record in error.ended() {
                    manager.conclude(record, record.expires_for());
                }
            }
        }
    }
}

/// Asks the provider for its metadata until it answers: nothing of a user's is touched.
async fn get_ready(manager: Weak<Manager>) {
    let mut pause = FIRST_READY_PAUSE;
    while let Some(manager) = manager.upgrade() {
        // What is wrong was said where it was found.
        if manager.provider.metadata().await.is_ok() {
            return;
        }
        let again = manager.clock.sleep_until(manager.now() + pause);
        drop(manager);
        again.await;
        pause = (pause * 2).min(LONGEST_READY_PAUSE);
    }
}
