//! `minimal` for an application that signs users in and calls no API for them: it keeps no token.
//!
//! Such a session cannot refresh. Its pages tell the provider of the user's activity by a silent round trip
//! (`prompt=none`) at most every *G*, which also learns whether the provider's session still stands; scripts' requests
//! and polling never leave the application. Without `signal_by_silent_login` a logout token ends it, or *T* without
//! activity here.
//!
//!     OIDC_ISSUER=… OIDC_CLIENT_ID=… OIDC_CLIENT_SECRET=… cargo run --example tokenless

#![allow(clippy::print_stdout, reason = "a program talks to its user")]

use std::env::{self, VarError};
use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use tower_oidc_session::{ClientCredentials, OidcSession, RelyingParty, SessionPolicy};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = tokio::net::TcpListener::bind(variable("LISTEN").unwrap_or("127.0.0.1:3000".to_owned())).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let client = ClientCredentials::secret(variable("OIDC_CLIENT_ID")?, variable("OIDC_CLIENT_SECRET")?);
    let rp = RelyingParty::builder(variable("OIDC_ISSUER")?, client, &url)
        .policy(
            SessionPolicy::new()
                .op_session_lifetime(Duration::from_secs(15 * 60)) // the provider's inactivity timeout
                .access_token_lifetime(Duration::from_secs(5 * 60)) // signal activity at least this often
                .discard_tokens()
                .signal_by_silent_login(),
        )
        .build()?;

    let app = Router::new()
        .route("/me", get(me))
        .route_layer(rp.require_session()) // everything above needs a login
        .route("/", get(index))
        .merge(rp.routes())
        .layer(rp.layer()); // around everything
    println!("listening on {url}");
    Ok(axum::serve(listener, app).await?)
}

async fn index(session: Option<OidcSession>) -> Html<&'static str> {
    Html(match session {
        Some(_) => "<a href=/me>Me</a> <form method=post action=/auth/logout><button>Sign out</button></form>",
        None => "<a href=/me>Sign in</a>",
    })
}

async fn me(session: OidcSession) -> String {
    format!("You are {}.", session.subject())
}

fn variable(name: &str) -> Result<String, VarError> {
    env::var(name).inspect_err(|_| println!("{name} is not set"))
}
