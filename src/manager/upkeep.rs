//! What goes on in the background for as long as a manager is in use.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Manager;
use super::family::Family;
use crate::registry::RegistryError;

/// How often expired records are removed.
const CLEANING_INTERVAL: Duration = Duration::from_secs(60);
/// The provider is asked for its metadata until it answers, after this pause at first, then after twice as long, …
const FIRST_READY_PAUSE: Duration = Duration::from_secs(1);
/// … up to this.
const LONGEST_READY_PAUSE: Duration = Duration::from_secs(30);

/// Begins the upkeep of one provider.
///
/// # Panics
/// Outside of a tokio runtime.
pub(crate) fn begin(manager: &Arc<Manager>) {
    tokio::spawn(get_ready(Arc::downgrade(manager)));
}

/// Begins the upkeep of a registry.
///
/// # Panics
/// Outside of a tokio runtime.
pub(crate) fn begin_cleaning(family: &Arc<Family>) {
    tokio::spawn(clean(Arc::downgrade(family)));
}

/// Removes expired records, once for all who share a registry here.
async fn clean(family: Weak<Family>) {
    loop {
        let Some(clock) = family.upgrade().map(|family| family.clock.clone()) else { return };
        clock.sleep(CLEANING_INTERVAL).await;
        let Some(family) = family.upgrade() else { return };
        let removed = family.registry.remove_expired().await;
        if let Ok(Some(count)) = family.registry.count().await {
            #[expect(clippy::cast_precision_loss, reason = "nobody has so many")]
            metrics::gauge!("oidc_sessions").set(count as f64);
        }
        if let Err(error) = &removed {
            tracing::warn!(%error, "expired sessions could not be removed");
        }
        for record in removed.as_ref().map_or_else(RegistryError::ended, Vec::as_slice) {
            // Another application may share the registry; its sessions are its own business.
            if let Some(manager) = family.of(record.registration()) {
                manager.conclude(record, record.expires_for());
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
        let again = manager.clock.sleep(pause);
        drop(manager);
        again.await;
        pause = (pause * 2).min(LONGEST_READY_PAUSE);
    }
}
