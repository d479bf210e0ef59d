//! Waiting for what others do, within bounds.

use std::time::Duration;

/// Completes when `condition` holds.
#[track_caller]
pub(crate) fn until(condition: impl Fn() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    let waiting = async move {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    async move {
        let waited = tokio::time::timeout(Duration::from_secs(30), waiting).await;
        assert!(waited.is_ok(), "what is waited for at {caller} has not come");
    }
}
