//! How long calls to a store took, as a metric.

use std::time::Duration;

pub(super) fn record_call(store: &'static str, took: Duration) {
    metrics::histogram!("oidc_store_call_seconds", "store" => store).record(took.as_secs_f64());
}
