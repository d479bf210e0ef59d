//! The smallest application: a public page, a page that needs a login, a button to sign out.
//!
//!     OIDC_ISSUER=… OIDC_CLIENT_ID=… OIDC_CLIENT_SECRET=… cargo run --example minimal
//!
//! Register `http://127.0.0.1:3000/auth/callback` as redirect URI. `api_calls` and `tokenless` differ from it in one
//! thing each.

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
                .access_token_lifetime(Duration::from_secs(5 * 60)), // signal activity at least this often
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
