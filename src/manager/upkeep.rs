//! What goes on in the background for as long as a manager is in use.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Manager;
use crate::session::decide::{Decision, decide};
use crate::session::event::EndReason;
use crate::session::policy::RequestKind;

/// How often expired records are removed.
const CLEANING_INTERVAL: Duration = Duration::from_secs(60);
/// How often the provider is asked for its metadata until it answers.
const READY_INTERVAL: Duration = Duration::from_secs(1);

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
        let now = clock.now();
        match manager.registry.remove_expired(now).await {
            Ok(removed) => {
                for record in removed {
                    let reason = match decide(&record, &manager.policy, now, RequestKind::Passive) {
                        Decision::End(reason) => reason,
                        _ => EndReason::AbsoluteLifetime,
                    };
                    manager.conclude(&record, reason);
                }
            }
            Err(error) => tracing::warn!(%error, "expired sessions could not be removed"),
        }
    }
}

/// Asks the provider for its metadata until it answers: nothing of a user's is touched.
async fn get_ready(manager: Weak<Manager>) {
    while let Some(manager) = manager.upgrade() {
        let now = manager.now();
        match manager.provider.metadata().await {
            Ok(_) => return,
            Err(error) => tracing::warn!(%error, "not ready yet"),
        }
        let again = manager.clock.sleep_until(now + READY_INTERVAL);
        drop(manager);
        again.await;
    }
}
