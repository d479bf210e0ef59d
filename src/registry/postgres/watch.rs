//! A name that leads elsewhere, while the server of before is still there and its connections are open.

use std::sync::Weak;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::link::{Link, TIMEOUT, failed, too_late};
use crate::registry::RegistryError;

/// How often it is looked where the name leads. A server that was replaced is used no longer than this.
const PAUSE: Duration = Duration::from_secs(3);

/// Looks for as long as the registry is in use. Nothing that goes wrong here matters: whoever needs the database says so.
pub(super) async fn watch(link: Weak<Link>) {
    let mut known = None;
    while let Some(link) = link.upgrade() {
        if let Ok(found) = who_is_there(&link).await {
            if known.as_ref().is_some_and(|known| *known != found) {
                tracing::warn!("the name of the database leads to another server than before");
                link.moved();
            }
            known = Some(found);
        }
        drop(link);
        sleep(PAUSE).await;
    }
}

/// Tells servers apart, and one from itself before a restart.
async fn who_is_there(link: &Link) -> Result<String, RegistryError> {
    let started = link.address().ask_for_text("SELECT pg_postmaster_start_time()::text");
    timeout(TIMEOUT, started).await.map_err(|_| too_late())?.map_err(failed)
}
