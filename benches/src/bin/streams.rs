//! `streams COUNT`: event streams that stay open, each of a session of its own: memory of each, the processor's time that
//! they take while nothing happens, and what one lost channel of notices costs.

use std::convert::Infallible;
use std::process::Command;
use std::time::Duration;

use axum::Router;
use axum::response::Sse;
use axum::response::sse::Event;
use axum::routing::get;
use http_body_util::BodyExt;
use tower::Layer;
use tower_oidc_session::{MemoryRegistry, OidcSession};
use tower_oidc_session_benches::contestants::{provider, relying_party};
use tower_oidc_session_benches::figure::{self, CpuTime, resident};
use tower_oidc_session_benches::stores::{self, Kind};
use tower_oidc_session_benches::user::{request, sign_in};

async fn silent(_session: OidcSession) -> Sse<futures_util::stream::Pending<Result<Event, Infallible>>> {
    Sse::new(futures_util::stream::pending())
}

async fn bare() -> Sse<futures_util::stream::Pending<Result<Event, Infallible>>> {
    Sse::new(futures_util::stream::pending())
}

const IDLE: Duration = Duration::from_secs(60);
/// By then all have been looked after.
const LOST: Duration = Duration::from_secs(10);

/// Opens so many streams and returns the bytes of each.
async fn open<S>(mut app: S, cookies: &[String], path: &str, count: usize) -> f64
where
    S: tower_oidc_session_benches::contestants::App,
{
    let before = resident();
    for number in 0..count {
        let cookie = &cookies[number % cookies.len()];
        let response = app.call(request(path, cookie)).await.expect("routers do not fail");
        assert!(response.status().is_success());
        let mut body = response.into_body();
        // As a connection does, which sends what comes.
        tokio::spawn(async move { while body.frame().await.is_some() {} });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    (resident() - before) as f64 / count as f64
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let count: usize = std::env::args().nth(1).expect("COUNT").parse().expect("a number");
    let provider = provider().await;
    let kind = Kind::of_environment();
    let url = stores::url().unwrap_or_default();
    let rp = match kind {
        Kind::Memory => relying_party(&provider, MemoryRegistry::new()).await,
        Kind::Redis => relying_party(&provider, stores::redis(&url).await).await,
        Kind::Postgres => relying_party(&provider, stores::postgres(&url).await).await,
    };
    let app = rp.layer().layer(Router::new().route("/events", get(silent)).merge(rp.routes()));
    // Each session has ten streams, as of a user with ten tabs.
    let mut cookies = Vec::new();
    for _ in 0..(count / 10).max(1) {
        cookies.push(sign_in(&app, &provider).await.header());
    }
    let floor = open(Router::new().route("/events", get(bare)), &cookies, "/events", count).await;
    let ours = open(app, &cookies, "/events", count).await;
    figure::print(&format!("{count} streams: memory of each, bare"), floor, "B");
    figure::print(&format!("{count} streams: memory of each, ours above that"), ours - floor, "B");
    drop(provider);
    let before = CpuTime::now(&[]);
    tokio::time::sleep(IDLE).await;
    let (own, _) = before.since(&[]);
    let idle = own / IDLE.as_secs_f64();
    figure::print(&format!("{count} streams, {}: idle", kind.name()), 100.0 * idle, "% of a core");
    if kind == Kind::Redis {
        // Connections for notices are cut, so that each session with streams is looked after.
        let before = CpuTime::now(&[]);
        let killed = Command::new("redis-cli").args(["-u", &url, "CLIENT", "KILL", "TYPE", "pubsub"]).status();
        assert!(killed.expect("redis-cli is there").success());
        tokio::time::sleep(LOST).await;
        let (own, _) = before.since(&[]);
        figure::print(
            &format!("{count} streams, Redis: a lost channel"),
            own - idle * LOST.as_secs_f64(),
            "s of a core",
        );
    }
    std::process::exit(0);
}
