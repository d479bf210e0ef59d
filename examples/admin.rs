//! A page for administrators: whose sessions there are, since when and where, and a button to end each.
//!
//! ```text
//! cargo run --example admin --features test-provider
//! ```
//!
//! Then open <http://127.0.0.1:3000>. The provider is embedded; sign in as `alice`, who is an administrator, or in another browser as
//! `bob`, with the name as the password.

#![allow(clippy::print_stdout, reason = "a program talks to its user")]

use std::fmt::Write;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::SystemTime;

use axum::Router;
use axum::extract::{ConnectInfo, Form, Path, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use http::StatusCode;
use serde::Deserialize;
use tower_oidc_session::test_provider::{TestClient, TestProvider};
use tower_oidc_session::{
    ClientCredentials, Clock, OidcSession, RegistryError, RelyingParty, SessionPolicy, Subject, SystemClock,
};

const URL: &str = "http://127.0.0.1:3000";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    let provider = TestProvider::builder()
        .user_claims("alice", [("groups", serde_json::json!(["admin"]))])
        .user("bob")
        .client(TestClient::at("desk", "secret", URL))
        .start()
        .await?;
    let rp = RelyingParty::builder(provider.issuer(), ClientCredentials::secret("desk", "secret"), URL)
        .policy(SessionPolicy::new().sessions_per_user(NonZeroUsize::MIN.saturating_add(2)))
        .client_address(|_, extensions| extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(from)| from.ip()))
        .build()?;
    let app = Router::new()
        .route("/admin/{user}", get(list))
        .route("/admin/{user}/end", post(end))
        .route_layer(rp.require_session().with_claim("groups", "admin"))
        .merge(Router::new().route("/", get(home)).route_layer(rp.require_session()))
        .merge(rp.routes())
        .layer(rp.layer())
        .with_state(rp);
    println!("open {URL}");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
    Ok(())
}

async fn home(session: OidcSession) -> Html<String> {
    page(&format!(
        "<p>You are {}.</p><ul><li><a href=\"/admin/alice\">Sessions of alice</a><li><a href=\"/admin/bob\">of bob</a></ul>\
         <form method=\"post\" action=\"/auth/logout\"><button>Sign out</button></form>",
        escape(session.subject().as_str())
    ))
}

async fn list(State(rp): State<RelyingParty>, Path(user): Path<String>) -> Result<Html<String>, StoreAway> {
    let mut rows = String::new();
    let ago = |time: SystemTime| SystemClock.now().duration_since(time).unwrap_or_default().as_secs();
    for session in rp.sessions_of(&Subject::new(&user)).await? {
        let browser = session.browser();
        let _ = write!(
            rows,
            "<tr><td>{} s ago<td>{} s ago<td>{}<td>{}<td><button name=\"key\" value=\"{}\">End</button>",
            ago(session.started_at()),
            ago(session.last_signal()),
            browser.address().map(|address| address.to_string()).unwrap_or_default(),
            escape(browser.user_agent().unwrap_or_default()),
            session.key(),
        );
    }
    let user = escape(&user);
    Ok(page(&format!(
        "<h1>Sessions of {user}</h1><form method=\"post\" action=\"/admin/{user}/end\"><table>\
         <tr><th>began<th>last signal<th>address<th>browser<th>{rows}</table>\
         <p><button name=\"key\" value=\"\">End all</button></form><p><a href=\"/\">Back</a>"
    )))
}

#[derive(Deserialize)]
struct Which {
    key: String,
}

/// One, or all; on all replicas, and at once.
async fn end(
    State(rp): State<RelyingParty>,
    Path(user): Path<String>,
    Form(Which { key }): Form<Which>,
) -> Result<Response, StoreAway> {
    if key.is_empty() {
        rp.end_sessions_of(&Subject::new(&user)).await?;
    } else {
        let Ok(key) = key.parse() else { return Ok(StatusCode::BAD_REQUEST.into_response()) };
        rp.end_session(&key).await?;
    }
    Ok(Redirect::to(&format!("/admin/{user}")).into_response())
}

/// Nothing is known, and nothing was ended.
struct StoreAway(RegistryError);

impl From<RegistryError> for StoreAway {
    fn from(error: RegistryError) -> Self {
        Self(error)
    }
}

impl IntoResponse for StoreAway {
    fn into_response(self) -> Response {
        tracing::error!(error = %self.0, "the sessions cannot be looked at");
        self.0.status().into_response()
    }
}

fn page(body: &str) -> Html<String> {
    Html(format!("<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Desk</title>{body}"))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
