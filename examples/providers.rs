//! One application, two providers: staff and customers sign in at their own, and a page lets them choose.
//!
//! ```text
//! cargo run --example providers --features test-provider
//! ```
//!
//! Then open <http://127.0.0.1:3000>. The providers are embedded; sign in as `alice` or `bob`, with the name as the password.

#![allow(clippy::print_stdout, reason = "a program talks to its user")]

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use tower_oidc_session::test_provider::{TestClient, TestProvider};
use tower_oidc_session::{ClientCredentials, OidcSession, RelyingParties, RelyingParty};

const PUBLIC_URL: &str = "http://127.0.0.1:3000";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    let (staff, customers) = (provider("staff").await?, provider("customers").await?);
    let at = |provider: &TestProvider| {
        RelyingParty::builder(provider.issuer(), ClientCredentials::secret("shop", "secret"), PUBLIC_URL)
    };
    let parties = RelyingParties::builder()
        .providers([("staff", "Staff", at(&staff)), ("customers", "Customers", at(&customers))])?;

    let app = Router::new()
        .route("/me", get(me))
        .route_layer(parties.require_session())
        .route("/", get(async || Html("<!doctype html><title>Shop</title><h1>Shop</h1><a href=\"/me\">Who am I?</a>")))
        .merge(parties.routes())
        .layer(parties.layer());
    parties.check_wiring(app.clone()).await?;
    println!("open {PUBLIC_URL}");
    axum::serve(listener, app).await?;
    Ok(())
}

/// Staff are not customers, whatever their names: a user is one of an issuer.
async fn me(session: OidcSession) -> Html<String> {
    Html(format!(
        "<!doctype html><title>Shop</title><h1>{} of {}</h1><form method=\"post\" action=\"/auth/logout\"><button>Sign \
         out</button></form>",
        session.subject(),
        session.issuer()
    ))
}

/// A provider with two users, which knows the routes of that name.
async fn provider(name: &str) -> std::io::Result<TestProvider> {
    let provider = TestProvider::builder().user("alice").user("bob").start().await?;
    provider.register(
        TestClient::new("shop", "secret")
            .redirect_uri(format!("{PUBLIC_URL}/auth/{name}/callback"))
            .post_logout_redirect_uri(format!("{PUBLIC_URL}/"))
            .backchannel_logout_uri(format!("{PUBLIC_URL}/auth/{name}/backchannel-logout")),
    );
    Ok(provider)
}
