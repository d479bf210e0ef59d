//! What is put around a handler that answers "hello".

use std::collections::HashMap;
use std::convert::Infallible;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use tower::{Layer, Service};
use tower_oidc_session::test_provider::{SignIn, TestClient, TestProvider};
use tower_oidc_session::{
    ClientCredentials, CookieKey, MemoryRegistry, OidcSession, RelyingParty, SessionRegistry, SessionService,
};
use tower_sessions::{MemoryStore, Session, SessionManagerLayer};

use crate::user::{Cookies, request, sign_in};

/// An application and the cookies of a browser that has been there.
#[derive(Clone)]
pub struct Contestant<S = Router> {
    pub app: S,
    pub cookies: String,
}

/// What answers requests: a router, or one with a layer around it. Layers stand around the router rather than in it, so that
/// what axum does for each layer of a route is nobody's.
pub trait App:
    Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> App for S where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static
{
}

/// Where the application is for browsers.
pub const PUBLIC_URL: &str = "https://shop.example";
pub(crate) const PAGE: &str = "/page";

pub(crate) async fn hello() -> &'static str {
    "hello"
}

/// Nothing around it. What the browser sends is the same.
pub fn bare() -> Contestant {
    let cookies = format!("__Host-session-abcdefgh={}", "a".repeat(43));
    Contestant { app: Router::new().route(PAGE, get(hello)), cookies }
}

/// With a layer in the router that does nothing: what axum does for any, such as `require_session` on a route.
pub fn layered() -> Contestant {
    let app = Router::new().route(PAGE, get(hello)).layer(tower::layer::util::Identity::new());
    Contestant { app, cookies: bare().cookies }
}

/// A session layer as one writes it by hand: a cookie looked up in a map.
pub fn by_hand() -> Contestant<impl App> {
    #[derive(Clone)]
    struct User(#[expect(dead_code, reason = "as an application has it")] String);

    let sessions = HashMap::from([("0123456789abcdef0123456789abcdef".to_owned(), User("alice".to_owned()))]);
    let sessions = std::sync::Arc::new(std::sync::RwLock::new(sessions));
    let layer = from_fn(move |mut request: Request, next: Next| {
        let sessions = sessions.clone();
        async move {
            let cookies = request.headers().get(http::header::COOKIE).and_then(|value| value.to_str().ok());
            let id = cookies.and_then(|cookies| cookies.split("; ").find_map(|pair| pair.strip_prefix("id=")));
            let user = id.and_then(|id| sessions.read().expect("nobody panics").get(id).cloned());
            if let Some(user) = user {
                request.extensions_mut().insert(user);
            }
            next.run(request).await
        }
    });
    let page = get(async |user: Option<Extension<User>>| if user.is_some() { "hello" } else { "stranger" });
    let cookies = "id=0123456789abcdef0123456789abcdef".to_owned();
    Contestant { app: layer.layer(Router::new().route(PAGE, page)), cookies }
}

async fn read_value(session: Session) -> &'static str {
    let value: Option<u64> = session.get("value").await.expect("the store answers");
    if value.is_some() { "hello" } else { "stranger" }
}

async fn write_value(session: Session) {
    session.insert("value", 1_u64).await.expect("the store answers");
}

/// tower-sessions with one small value, in memory.
pub async fn tower_sessions_memory() -> Contestant<impl App> {
    let app = Router::new().route(PAGE, get(read_value)).route("/write", get(write_value));
    with_cookies_of(SessionManagerLayer::new(MemoryStore::default()).layer(app), "/write").await
}

pub async fn with_cookies_of<S: App>(app: S, path: &str) -> Contestant<S> {
    let mut cookies = Cookies::default();
    let response = tower::ServiceExt::oneshot(app.clone(), request(path, "")).await.expect("routers do not fail");
    assert!(response.status().is_success(), "{response:?}");
    cookies.keep(&response);
    Contestant { app, cookies: cookies.header() }
}

/// How a handler of ours looks at the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It does not.
    Public,
    Extractor,
    Required,
}

async fn greet(_session: OidcSession) -> &'static str {
    "hello"
}

/// The application without the layer around it.
pub fn page_of(rp: &RelyingParty, look: Look) -> Router {
    let page = match look {
        Look::Public => Router::new().route(PAGE, get(hello)),
        Look::Extractor => Router::new().route(PAGE, get(greet)),
        Look::Required => Router::new().route(PAGE, get(hello)).route_layer(rp.require_session()),
    };
    page.merge(rp.routes())
}

/// The provider that users sign in at.
pub async fn provider() -> TestProvider {
    let provider = TestProvider::builder().sign_in(SignIn::Automatic("alice".to_owned()));
    let provider = provider.start().await.expect("the provider starts");
    provider.register(TestClient::at("shop", "secret", PUBLIC_URL));
    provider
}

pub async fn relying_party(provider: &TestProvider, registry: impl SessionRegistry) -> RelyingParty {
    let credentials = ClientCredentials::secret("shop", "secret");
    RelyingParty::builder(provider.issuer(), credentials, PUBLIC_URL)
        .cookie_key(CookieKey::generate())
        .registry(registry)
        .build()
        .expect("the configuration is good")
}

/// This crate over a registry, with a user who has signed in.
pub async fn ours(registry: impl SessionRegistry, look: Look) -> Contestant<SessionService<Router>> {
    let provider = provider().await;
    let rp = relying_party(&provider, registry).await;
    let app = rp.layer().layer(page_of(&rp, look));
    let cookies = sign_in(&app, &provider).await.header();
    Contestant { app, cookies }
}

/// This crate in memory.
pub async fn ours_in_memory(look: Look) -> Contestant<SessionService<Router>> {
    ours(MemoryRegistry::new(), look).await
}

/// This crate in memory, and a browser whose session nobody knows.
pub async fn ours_unknown() -> Contestant<SessionService<Router>> {
    let known = ours_in_memory(Look::Public).await;
    let (name, value) = known.cookies.split_once('=').expect("there is a cookie");
    let last = if value.starts_with('A') { 'B' } else { 'A' };
    let cookies = format!("{name}={last}{}", &value[1..]);
    Contestant { cookies, ..known }
}
