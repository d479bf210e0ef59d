//! What the metrics mean, for whoever collects them.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Describes the metrics to the recorder that is installed by now.
pub(crate) fn describe() {
    describe_counter!("oidc_api_at_fault_total", "APIs that rejected the fresh tokens of many sessions");
    describe_counter!("oidc_login_failures_total", "Logins that came to nothing");
    describe_counter!("oidc_logout_tokens_total", "Logout tokens, by outcome");
    describe_counter!("oidc_provider_fetches_total", "Fetches of the provider's metadata and keys");
    describe_counter!("oidc_refreshes_total", "Refreshes, by outcome");
    describe_counter!("oidc_security_events_total", "Pushed security events, by outcome");
    describe_counter!("oidc_sessions_ended_total", "Sessions that ended, by reason");
    describe_counter!("oidc_sessions_started_total", "Sessions that began");
    describe_gauge!("oidc_provider_circuit_open", "1 while a provider that fails is left in peace, by issuer");
    describe_gauge!("oidc_refreshes_under_way", "Signals to the provider that are under way in this process");
    describe_gauge!(
        "oidc_sessions",
        "About how many sessions the store has, of all who share it; counted once a minute"
    );
    describe_histogram!(
        "oidc_provider_call_seconds",
        Unit::Seconds,
        "How long calls to the provider took, by outcome: success, refused, no_answer"
    );
    describe_histogram!(
        "oidc_store_call_seconds",
        Unit::Seconds,
        "How long calls to the store took, by store: postgres, redis"
    );
}
