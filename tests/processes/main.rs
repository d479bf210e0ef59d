//! `examples/web_app.rs` as a process of its own, in real time: against providers that nobody here wrote, as
//! several replicas on one store, and with settings that cannot work.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod examples;
mod glewlwyd;
mod hydra;
mod idpyoidc;
#[allow(dead_code, reason = "each binary of tests uses its part")]
#[path = "../support/jar.rs"]
mod jar;
mod keycloak;
mod lemonldap;
mod mutual_tls;
mod oidc_provider;
mod parts;
mod process;
mod replicas;
mod report;
mod secure_stores;
#[allow(dead_code, reason = "each binary of tests uses its part")]
#[path = "../support/servers.rs"]
mod servers;
mod settings;
mod visitor;

/// Awaits a condition for at most half a minute.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begin = tokio::time::Instant::now();
    while !holds().await {
        assert!(begin.elapsed() < std::time::Duration::from_secs(30), "{what}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
