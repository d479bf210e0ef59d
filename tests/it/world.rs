//! A provider and applications that share a clock.

use std::convert::Infallible;
use std::future::IntoFuture;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, StatusCode};
use serde_json::json;
use tokio::sync::{Notify, mpsc};
use tower::{Layer, ServiceExt};
use tower_oidc_session::test_provider::{
    ExpiredSessions, ManualClock, SignIn, TestClient, TestProvider, TestProviderBuilder,
};
use tower_oidc_session::{
    ApiError, ApiResponse, ClientCredentials, CookieKey, EndReason, EventKind, OidcSession, RelyingParty,
    RelyingPartyBuilder, SessionClient, SessionPolicy, SessionRegistry, Sid, Subject,
};
use tower_sessions::{Session, SessionManagerLayer};

use crate::browser::{Browser, Page};
use crate::clients;
use crate::leaks;
use crate::registry::Registry;
use crate::until::until;

pub(crate) const T: Duration = Duration::from_secs(900);
pub(crate) const G: Duration = Duration::from_secs(300);
pub(crate) const ABSOLUTE: Duration = Duration::from_secs(12 * 3600);
/// Of every client. It stands in no text.
pub(crate) const CLIENT_SECRET: &str = "vK3dQ9xT7mW2bZ5nR8cL4hY6jP1fG0sA";
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Everything one test needs.
pub(crate) struct World {
    pub clock: ManualClock,
    pub provider: TestProvider,
    pub app: App,
    pub browser: Browser,
    /// The last to be dropped.
    pub _search: leaks::Search,
}

/// A world without an application.
pub(crate) struct Bare {
    pub clock: ManualClock,
    pub provider: TestProvider,
}

/// An application with its relying party.
#[derive(Clone)]
pub(crate) struct App {
    pub url: String,
    pub rp: RelyingParty,
    pub registry: Registry,
    pub events: Arc<Mutex<Vec<String>>>,
    pub slow: Slow,
    _server: Arc<Server>,
}

struct Server(tokio::task::JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Holds requests to `/slow` inside their handler.
#[derive(Clone)]
pub(crate) struct Slow {
    arrived: Arc<Mutex<mpsc::UnboundedReceiver<()>>>,
    arrive: mpsc::UnboundedSender<()>,
    go_on: Arc<Notify>,
}

impl Slow {
    fn new() -> Self {
        let (arrive, arrived) = mpsc::unbounded_channel();
        Self { arrived: Arc::new(Mutex::new(arrived)), arrive, go_on: Arc::new(Notify::new()) }
    }

    pub(crate) async fn arrived(&self) {
        std::future::poll_fn(|cx| self.arrived.lock().unwrap().poll_recv(cx)).await;
    }

    pub(crate) fn go_on(&self) {
        self.go_on.notify_one();
    }
}

pub(crate) struct Options {
    pub provider: TestProviderBuilder,
    pub policy: SessionPolicy,
    pub configure: Box<dyn Fn(RelyingPartyBuilder) -> RelyingPartyBuilder>,
    pub client: Box<dyn Fn(TestClient) -> TestClient>,
    /// The base URL of the API behind `/api`.
    pub api: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            provider: leaks::provider()
                .sign_in(SignIn::Automatic("alice".to_owned()))
                .session_lifetime(T)
                // Longer than G, which cuts it.
                .access_token_lifetime(G * 2),
            policy: policy(),
            configure: Box::new(|builder| builder),
            client: Box::new(|client| client),
            api: None,
        }
    }
}

pub(crate) fn policy() -> SessionPolicy {
    SessionPolicy::new().op_session_lifetime(T).access_token_lifetime(G).absolute_lifetime(ABSOLUTE)
}

impl Options {
    /// The provider says nothing of sessions that expire, as those do that send no logout tokens then.
    pub(crate) fn silent() -> Self {
        let options = Self::default();
        Self { provider: options.provider.expired_sessions(ExpiredSessions::StaySilent), ..options }
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        Self::over(Registry::new().await, options).await
    }

    /// A world whose application keeps its sessions in `registry`.
    pub(crate) async fn over(registry: Registry, options: Options) -> Self {
        let clock = ManualClock::new();
        let provider = clients::provider(options.provider).clock(clock.clone()).start().await.unwrap();
        let configure = |builder: RelyingPartyBuilder| {
            let builder = options.api.iter().fold(builder, RelyingPartyBuilder::api);
            (options.configure)(builder.policy(options.policy.clone()))
        };
        let app = App::start(&provider, &clock, "shop", registry, configure, &options.client, options.api.clone());
        let app = app.await;
        Self { clock, provider, app, browser: Browser::new(), _search: leaks::Search }
    }

    /// A provider, and a browser.
    pub(crate) async fn without_app(options: Options) -> Bare {
        let clock = ManualClock::new();
        let provider = options.provider.clock(clock.clone()).start().await.unwrap();
        Bare { clock, provider }
    }

    /// Another application over the same registry.
    pub(crate) async fn serve(&self, builder: RelyingPartyBuilder, api: Option<String>) -> App {
        App::serve(listener().await, builder, self.app.registry.clone(), api)
    }

    /// A world whose user is signed in.
    pub(crate) async fn signed_in() -> Self {
        Self::signed_in_with(Options::default()).await
    }

    pub(crate) async fn signed_in_with(options: Options) -> Self {
        let world = Self::with(options).await;
        world.sign_in().await;
        world
    }

    pub(crate) async fn sign_in(&self) -> Page {
        let page = self.browser.go(&self.app.at("/me")).await;
        assert_eq!(page.status, StatusCode::OK, "{page:?}");
        page
    }

    pub(crate) async fn me(&self) -> StatusCode {
        self.browser.get(&self.app.at("/me")).await.status
    }

    pub(crate) async fn poll(&self) -> StatusCode {
        self.browser.get(&self.app.at("/poll")).await.status
    }

    pub(crate) fn sid(&self) -> String {
        self.provider.sessions()[0].sid().to_owned()
    }

    /// Another application of the same provider.
    pub(crate) async fn another_app(&self, client_id: &str) -> App {
        let registry = Registry::new().await;
        App::start(&self.provider, &self.clock, client_id, registry, |b| b.policy(policy()), &|c| c, None).await
    }

    /// Another replica of the application: the same client, store, key and public URL.
    pub(crate) async fn replica(&self, registry: impl SessionRegistry) -> App {
        self.replica_calling(registry, &[], None).await
    }

    /// The same, which calls APIs.
    pub(crate) async fn replica_calling(
        &self,
        registry: impl SessionRegistry,
        apis: &[tower_oidc_session::Api],
        api: Option<String>,
    ) -> App {
        let builder = clients::relying_party(self.provider.issuer(), "shop", &self.app.url)
            .cookie_key(key())
            .policy(policy())
            .clock(self.clock.clone())
            .registry(registry);
        let builder = apis.iter().cloned().fold(builder, RelyingPartyBuilder::api);
        App::serve(listener().await, builder, self.app.registry.clone(), api)
    }
}

pub(crate) fn key() -> CookieKey {
    CookieKey::from_base64(&"A".repeat(86).chars().chain("==".chars()).collect::<String>()).unwrap()
}

async fn listener() -> tokio::net::TcpListener {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap()
}

impl App {
    pub(crate) async fn start(
        provider: &TestProvider,
        clock: &ManualClock,
        client_id: &str,
        registry: Registry,
        configure: impl Fn(RelyingPartyBuilder) -> RelyingPartyBuilder,
        client: &dyn Fn(TestClient) -> TestClient,
        api: Option<String>,
    ) -> Self {
        let listener = listener().await;
        let url = format!("http://{}", listener.local_addr().unwrap());
        provider.register(client(clients::registered(TestClient::at(client_id, CLIENT_SECRET, &url), &url)));
        let builder = clients::relying_party(provider.issuer(), client_id, &url)
            .cookie_key(key())
            .clock(clock.clone())
            .registry(registry.clone());
        Self::serve(listener, configure(builder), registry, api)
    }

    /// The same of the client "shop" with other credentials; `register` says what the provider knows it by.
    pub(crate) async fn start_as(
        provider: &TestProvider,
        clock: &ManualClock,
        (credentials, register): (&ClientCredentials, &dyn Fn(TestClient, &str) -> TestClient),
        registry: Registry,
        configure: impl Fn(RelyingPartyBuilder) -> RelyingPartyBuilder,
        api: Option<String>,
    ) -> Self {
        let listener = listener().await;
        let url = format!("http://{}", listener.local_addr().unwrap());
        provider.register(register(TestClient::at("shop", CLIENT_SECRET, &url), &url));
        let builder = RelyingParty::builder(provider.issuer(), credentials.clone(), &url)
            .clock(clock.clone())
            .registry(registry.clone());
        Self::serve(listener, configure(builder), registry, api)
    }

    fn serve(
        listener: tokio::net::TcpListener,
        builder: RelyingPartyBuilder,
        registry: Registry,
        api: Option<String>,
    ) -> Self {
        let url = format!("http://{}", listener.local_addr().unwrap());
        let events = Arc::new(Mutex::new(Vec::new()));
        let rp = builder
            .on_event({
                let events = events.clone();
                move |event| {
                    leaks::left(format!("{event:?}").as_bytes());
                    let text = match event.kind() {
                        EventKind::Started => "started".to_owned(),
                        EventKind::Refreshed => "refreshed".to_owned(),
                        EventKind::Ended { reason, .. } => format!("ended: {reason}"),
                        // What is no session's is told to those who ask.
                        EventKind::LoginFailed { .. }
                        | EventKind::LogoutTokenRefused { .. }
                        | EventKind::SecurityEventRefused { .. } => return,
                        EventKind::SecurityEvent { event, .. } => format!("event: {event}"),
                        EventKind::SessionsRevoked { subject, sid, ended, reason_user, .. } => {
                            let (sub, sid) = (subject.as_ref().map(Subject::as_str), sid.as_ref().map(Sid::as_str));
                            format!("revoked: {ended} of {sub:?} {sid:?} {reason_user:?}")
                        }
                        other => panic!("an event that no test knows: {other:?}"),
                    };
                    events.lock().unwrap().push(text);
                }
            })
            .build()
            .unwrap();
        leaks::left(format!("{rp:?} {registry:?}").as_bytes());
        let slow = Slow::new();
        let router = router(&rp, &registry, slow.clone(), api);
        let server = tokio::spawn(async move {
            axum::serve(listener, router).into_future().await.unwrap();
        });
        Self { url, rp, registry, events, slow, _server: Arc::new(Server(server)) }
    }

    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub(crate) fn events(&self) -> Vec<String> {
        self.events.lock().unwrap().clone()
    }

    pub(crate) fn ends(&self) -> Vec<String> {
        self.events().into_iter().filter(|event| event.starts_with("ended")).collect()
    }

    /// The same where the end may be found by the cleaner just as well, which tells of it a moment later.
    pub(crate) async fn until_ended(&self, reason: EndReason) {
        until(|| !self.ends().is_empty()).await;
        self.assert_ended(reason);
    }

    #[track_caller]
    pub(crate) fn assert_ended(&self, reason: EndReason) {
        assert_eq!(self.ends(), [format!("ended: {reason}")]);
        assert!(self.registry.has(0));
    }
}

fn router(rp: &RelyingParty, registry: &Registry, slow: Slow, api: Option<String>) -> Router {
    let passive = Router::new()
        .route("/poll", get(me))
        .route("/events", get(stream_of_events))
        .route("/passive-orders", get(orders).with_state(api.clone().unwrap_or_default()))
        .route_layer(rp.require_session())
        .route_layer(rp.passive());
    let protected = Router::new()
        .route("/me", get(me).post(me))
        .route(
            "/slow",
            get(async |State(slow): State<Slow>, uri: http::Uri, session: Session| {
                // Loaded before the wait, so that a late save has something to bring back.
                session.get::<String>("cart").await.unwrap();
                slow.arrive.send(()).unwrap();
                slow.go_on.notified().await;
                session.insert("late", true).await.unwrap();
                if uri.query() == Some("cycle") {
                    session.cycle_id().await.unwrap();
                }
                "done"
            }),
        )
        .route(
            "/previous-end",
            get(async |session: OidcSession| session.previous_end().map_or("", |reason| reason.as_str())),
        )
        .route(
            "/socket-activity",
            get(async |State(slow): State<Slow>, session: OidcSession| {
                slow.arrive.send(()).unwrap();
                slow.go_on.notified().await;
                match session.record_activity().await {
                    Ok(()) => "recorded".to_owned(),
                    Err(over) => format!("{} {} {over}", over.is_session_over(), over.status().as_u16()),
                }
            }),
        )
        .route(
            "/typed",
            get(async |session: OidcSession| {
                let claims = session.id_token_claims().unwrap();
                format!("{} {}", claims.subject().as_str(), claims.email().map_or("", |email| email.as_str()))
            }),
        )
        .route("/download", get(download))
        .route("/socket", any(socket))
        .route(
            "/leave",
            post(async |session: OidcSession| session.end().await.map(|()| "left").map_err(|e| e.to_string())),
        )
        .route("/remember", post(async |session: Session| session.insert("cart", "tea").await.unwrap()))
        .route(
            "/note",
            post(async |uri: http::Uri, headers: HeaderMap, body: String| {
                format!("{uri} {} {body}", headers["content-type"].to_str().unwrap())
            }),
        )
        .route("/orders", get(orders).with_state(api.clone().unwrap_or_default()))
        .route("/layered", post(layered).with_state(api.clone().unwrap_or_default()))
        .route("/long", get(long).with_state((slow.clone(), api.clone().unwrap_or_default())))
        .route("/passed-on", get(passed_on).with_state(api.clone().unwrap_or_default()))
        .route("/elsewhere", get(async |client: SessionClient| client.get("http://127.0.0.1:9/x").send().await))
        .nest("/api", Router::new().route("/{*path}", any(forward)).with_state(api.unwrap_or_default()))
        .route_layer(rp.require_session())
        .with_state(slow);
    Router::new()
        .merge(passive)
        .merge(protected)
        .route(
            "/",
            get(async |session: Option<OidcSession>| match session {
                Some(session) => format!("hello {}", session.subject()),
                None => "hello stranger".to_owned(),
            }),
        )
        .route("/public", get(async || "public"))
        .route("/public-socket", any(socket))
        .route("/cart", get(async |session: Session| session.get::<String>("cart").await.unwrap().unwrap_or_default()))
        .route("/put", post(async |session: Session| session.insert("cart", "milk").await.unwrap()))
        .merge(rp.routes())
        .layer(rp.layer())
        .layer(SessionManagerLayer::new(registry.clone()))
        .route("/healthz", get(async || "ok"))
}

async fn me(session: OidcSession) -> axum::Json<serde_json::Value> {
    leaks::left(format!("{session:?} {:?}", session.access_token()).as_bytes());
    axum::Json(json!({
        "sub": session.subject().as_str(),
        "iss": session.issuer().as_str(),
        "sid": session.sid().map(|sid| sid.as_str().to_owned()),
        "token": session.access_token().map(|token| token.secret().to_owned()),
        "claims": session.claims(),
    }))
}

async fn stream_of_events() -> Response {
    let chunks = stream::iter([Ok::<_, Infallible>(Bytes::from("data: hello\n\n"))]).chain(stream::pending());
    ([("content-type", "text/event-stream")], Body::from_stream(chunks)).into_response()
}

async fn download() -> Response {
    let chunks = stream::iter([Ok::<_, Infallible>(Bytes::from("first half"))]).chain(stream::pending());
    ([("content-type", "application/octet-stream")], Body::from_stream(chunks)).into_response()
}

async fn socket(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async |mut socket| {
        while let Some(Ok(message)) = socket.recv().await {
            if socket.send(message).await.is_err() {
                return;
            }
        }
    })
}

/// A call that is put together piece by piece.
async fn orders(State(api): State<String>, client: SessionClient) -> Result<String, ApiError> {
    let request = client.post(format!("{api}/orders")).query([("state", "open")]).header("x-custom", "1");
    request.json(&json!({"page": 1})).send().await?.text().await
}

/// A handler that goes on calling long after its user has asked.
async fn long(State((slow, api)): State<(Slow, String)>, client: SessionClient) -> Result<String, ApiError> {
    let debug = format!("{client:?} {:?} {:?}", client.get(&api), client.layer());
    slow.arrive.send(()).unwrap();
    slow.go_on.notified().await;
    client.post(&api).body(debug).send().await?.text().await
}

async fn passed_on(State(api): State<String>, client: SessionClient) -> Result<ApiResponse, ApiError> {
    client.get(api).send().await
}

/// The same by a client of the application's own.
async fn layered(State(api): State<String>, client: SessionClient, body: String) -> Result<Response, ApiError> {
    let http = tower::service_fn(async |request: Request| {
        let request = request.map(|body| reqwest::Body::wrap_stream(body.into_data_stream()));
        let answer = reqwest::Client::new().execute(request.try_into()?).await?;
        Ok::<_, reqwest::Error>(http::Response::from(answer))
    });
    let request = http::Request::put(format!("{api}/layered")).body(Body::from(body))?;
    client.layer().layer(http).oneshot(request).await
}

async fn forward(State(api): State<String>, client: SessionClient, request: Request) -> Result<Response, ApiError> {
    client.forward(request, &api).await
}
