//! `examples/web_app.rs` in a real browser: the page for a person. The browser is driven by `suite.mjs` (Chromium) and
//! `firefox.mjs`; this starts the
//! application and its provider, and does at the provider what the suite asks for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use std::process::Command;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::post;
use tower_oidc_session::test_provider::{Endpoint, ExpiredSessions, Fault, TestClient, TestProvider};

#[allow(dead_code, reason = "each binary of tests uses its part")]
#[path = "../processes/process.rs"]
mod process;
#[allow(dead_code, reason = "each binary of tests uses its part")]
#[path = "../support/servers.rs"]
mod servers;

/// Short, so that people's minutes are the tests' seconds.
const T: Duration = Duration::from_secs(12);
const G: Duration = Duration::from_secs(3);

#[derive(Clone)]
struct World {
    provider: TestProvider,
    app: String,
}

/// Does at the provider what the suite asks for.
async fn control(State(world): State<World>, Path((what, how)): Path<(String, String)>) -> String {
    let provider = &world.provider;
    match what.as_str() {
        // A logout token with that reason, as of Duende IdentityServer.
        "end" => {
            let mut claims = provider.logout_claims("shop", Some("alice"), None);
            if how != "silently" {
                claims["logout_reason"] = how.into();
            }
            for session in provider.sessions() {
                provider.forget_session(session.sid());
            }
            let token = provider.sign(&serde_json::json!({"typ": "logout+jwt"}), &claims);
            let answer = provider.post_logout_token(&format!("{}/auth/backchannel-logout", world.app), &token).await;
            assert_eq!(answer, Ok(200));
        }
        // The provider forgets everybody and tells nobody.
        "forget" => {
            for session in provider.sessions() {
                provider.forget_session(session.sid());
            }
        }
        "token-endpoint" if how == "down" => {
            provider.set_fault(Endpoint::Token, Fault::Status { code: 503, retry_after: None });
        }
        "token-endpoint" => provider.clear_faults(),
        "refreshes" => return provider.requests(Endpoint::Token).to_string(),
        _ => panic!("{what} {how}"),
    }
    String::new()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_at_the_screen() {
    let [port, control_port] = process::free_ports();
    let app = format!("http://127.0.0.1:{port}");
    let provider = TestProvider::builder()
        .session_lifetime(T)
        .expired_sessions(ExpiredSessions::StaySilent)
        .access_token_lifetime(Duration::from_secs(60))
        .user("bob")
        .start()
        .await
        .unwrap();
    provider.register(TestClient::at("shop", "secret", &app));
    let start = || {
        let mut command = process::web_app();
        command
            .env("LISTEN", format!("127.0.0.1:{port}"))
            .env("OIDC_ISSUER", provider.issuer())
            .env("OIDC_CLIENT_ID", "shop")
            .env("OIDC_CLIENT_SECRET", "secret")
            .env("OP_SESSION_LIFETIME", format!("{}s", T.as_secs()))
            .env("ACCESS_TOKEN_LIFETIME", format!("{}s", G.as_secs()))
            .env("WARN", "4s");
        process::Process::start(&mut command)
    };
    let web_app = start();
    let world = World { provider: provider.clone(), app: app.clone() };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", control_port)).await.unwrap();
    let routes = Router::new().route("/{what}/{how}", post(control)).with_state(world);
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    for suite in ["suite.mjs", "firefox.mjs"] {
        let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser").join(suite);
        let mut command = Command::new("node");
        command.arg(script).arg(&app).arg(format!("http://127.0.0.1:{control_port}"));
        let status = tokio::task::spawn_blocking(move || command.status()).await.unwrap();
        assert!(status.expect("node is there: run ci/tools").success(), "the browser's tests failed: see above");
    }
    drop(web_app);
}
