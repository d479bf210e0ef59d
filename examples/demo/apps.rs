//! The cast: a provider, four applications of three kinds, an API.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::extract::{Path, Request, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use http::StatusCode;
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_oidc_session::test_provider::{Coordination, Endpoint, ExpiredSessions, Fault, TestClient, TestProvider};
use tower_oidc_session::{
    ApiError, ClientCredentials, EndReason, EventKind, OidcSession, RelyingParty, SessionClient, SessionEvent,
    SessionPolicy,
};

const SECRET: &str = "a secret of the demonstration";
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Everything that runs.
pub(crate) struct Demo {
    pub(crate) provider: TestProvider,
    pub(crate) apps: Vec<App>,
}

/// One application.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) name: &'static str,
    pub(crate) url: String,
    pub(crate) kind: ClientKind,
    log: Arc<Mutex<Vec<(SystemTime, Happening)>>>,
}

/// What an application has to signal activity with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientKind {
    Refreshing,
    Introspected,
    Tokenless,
}

impl ClientKind {
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Refreshing => "has a refresh token: signals by refreshing",
            Self::Introspected => "has an access token only: signals by userinfo, and its API by introspection",
            Self::Tokenless => "has no token: signals by sending page views through the provider",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happening {
    SignedIn,
    Signalled,
    Ended(EndReason),
}

impl App {
    fn note(&self, event: &SessionEvent) {
        let happening = match event.kind() {
            EventKind::Started => Happening::SignedIn,
            EventKind::Refreshed => Happening::Signalled,
            EventKind::Ended { reason, .. } => Happening::Ended(*reason),
            _ => return,
        };
        #[expect(clippy::disallowed_methods, reason = "for people, to the second")]
        let now = SystemTime::now();
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push((now, happening));
    }

    /// What has happened to its sessions so far.
    pub(crate) fn happenings(&self) -> Vec<(SystemTime, Happening)> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Demo {
    /// `port` is the provider's, before those of the applications; with 0 all are free ones.
    pub(crate) async fn start(
        session_lifetime: Duration,
        signal_interval: Duration,
        port: u16,
    ) -> Result<Self, String> {
        let provider = TestProvider::builder()
            .address(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .session_lifetime(session_lifetime)
            .access_token_lifetime(session_lifetime)
            .coordination(Coordination::AllClients)
            .expired_sessions(ExpiredSessions::TriggerBackchannelLogout)
            .client(TestClient::new("api", SECRET))
            .start()
            .await
            .map_err(|error| in_use(port, &error))?;
        let api = start_api(&provider).await?;
        let mut apps = Vec::new();
        let others = Arc::<Mutex<Vec<App>>>::default();
        for (number, (name, kind)) in (1..).zip([
            ("shop", ClientKind::Refreshing),
            ("bank", ClientKind::Refreshing),
            ("reports", ClientKind::Introspected),
            ("wiki", ClientKind::Tokenless),
        ]) {
            let port = if port == 0 { 0 } else { port + number };
            let context = Surroundings {
                provider: provider.clone(),
                api: api.clone(),
                others: others.clone(),
                session_lifetime,
                signal_interval,
            };
            apps.push(start_app(name, kind, port, context).await?);
        }
        others.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&apps);
        Ok(Self { provider, apps })
    }
}

fn in_use(port: u16, error: &std::io::Error) -> String {
    format!("port {port} cannot be had ({error}): choose another by --port, or 0 for free ones")
}

async fn listen(port: u16) -> Result<(TcpListener, String), String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(|error| in_use(port, &error))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    Ok((listener, format!("http://{address}")))
}

fn serve(listener: TcpListener, router: Router) {
    tokio::spawn(async move { axum::serve(listener, router).await });
}

/// An API that asks the provider about each token.
async fn start_api(provider: &TestProvider) -> Result<String, String> {
    let (listener, url) = listen(0).await?;
    let introspection = format!("{}/introspect", provider.issuer());
    serve(listener, Router::new().fallback(answer).with_state(introspection));
    Ok(url)
}

async fn answer(State(introspection): State<String>, request: Request) -> Response {
    let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let body = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("client_id", "api"), ("client_secret", SECRET), ("token", token.unwrap_or_default())])
        .finish();
    let ask =
        reqwest::Client::new().post(introspection).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body);
    let claims = async { ask.send().await.ok()?.bytes().await.ok() }.await;
    match claims.and_then(|claims| serde_json::from_slice::<Value>(&claims).ok()) {
        Some(claims) if claims.get("active") == Some(&json!(true)) => {
            Json(json!({"message": "the API knows you", "sub": claims.get("sub")})).into_response()
        }
        Some(_) => (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, r#"Bearer error="invalid_token""#)]).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// What is around an application.
#[derive(Clone)]
struct Surroundings {
    provider: TestProvider,
    api: String,
    others: Arc<Mutex<Vec<App>>>,
    session_lifetime: Duration,
    signal_interval: Duration,
}

#[derive(Clone)]
struct Context {
    app: App,
    around: Surroundings,
}

async fn start_app(name: &'static str, kind: ClientKind, port: u16, around: Surroundings) -> Result<App, String> {
    let (listener, url) = listen(port).await?;
    let provider = &around.provider;
    let client = TestClient::at(name, SECRET, &url);
    provider.register(match kind {
        ClientKind::Refreshing | ClientKind::Tokenless => client,
        // It cannot be had anew, so it has to live as long as the session.
        ClientKind::Introspected => client.without_refresh_token().access_token_lifetime(A_DAY),
    });
    let app = App { name, url: url.clone(), kind, log: Arc::default() };
    let policy =
        SessionPolicy::new().op_session_lifetime(around.session_lifetime).access_token_lifetime(around.signal_interval);
    let rp = RelyingParty::builder(provider.issuer(), ClientCredentials::secret(name, SECRET), &url)
        .policy(match kind {
            ClientKind::Refreshing | ClientKind::Introspected => policy,
            ClientKind::Tokenless => policy.discard_tokens().signal_by_silent_login(),
        })
        .api(around.api.as_str())
        .on_event({
            let app = app.clone();
            move |event| app.note(event)
        })
        .build()
        .map_err(|error| error.to_string())?;
    let context = Context { app: app.clone(), around };
    let router = Router::new()
        .route("/poll", get(async || "nothing new"))
        .route_layer(rp.require_session())
        .route_layer(rp.passive())
        .merge(
            Router::new()
                .route("/me", get(me))
                .route("/click", post(me))
                .route("/visit", get(async || Redirect::to("/")))
                .nest("/api", Router::new().route("/{*path}", any(call)).with_state(context.clone()))
                .route_layer(rp.require_session()),
        )
        .merge(Router::new().route("/state", get(state)).layer(rp.passive()))
        .route("/outage/{how}", post(outage).layer(rp.passive()))
        .route("/", get(async || Html(include_str!("page.html"))).layer(rp.passive()))
        .with_state(context)
        .merge(rp.routes())
        .layer(rp.layer());
    serve(listener, router);
    Ok(app)
}

async fn me(session: OidcSession) -> Json<Value> {
    Json(json!({"sub": session.subject().as_str()}))
}

async fn call(State(context): State<Context>, client: SessionClient, request: Request) -> Result<Response, ApiError> {
    client.forward(request, &context.around.api).await
}

/// Takes the provider away from all applications, and gives it back.
async fn outage(State(context): State<Context>, Path(how): Path<String>) -> StatusCode {
    let provider = &context.around.provider;
    provider.clear_faults();
    if how == "begins" {
        for endpoint in [Endpoint::Authorize, Endpoint::Token, Endpoint::UserInfo, Endpoint::Introspection] {
            provider.set_fault(endpoint, Fault::Status { code: 503, retry_after: None });
        }
    }
    StatusCode::NO_CONTENT
}

/// What the page shows. It is asked for every second and is no activity.
async fn state(State(context): State<Context>, session: Option<OidcSession>) -> Json<Value> {
    #[expect(clippy::disallowed_methods, reason = "for people, to the second")]
    let now = SystemTime::now();
    let left = |until: SystemTime| until.duration_since(now).unwrap_or_default().as_secs_f64();
    let at_provider: Vec<Value> = context
        .around
        .provider
        .sessions()
        .iter()
        .map(|session| {
            let (_, by) = session.last_signal();
            json!({"sub": session.sub(), "left": left(session.expires_at()), "clients": session.clients(), "by": by})
        })
        .collect();
    let log: Vec<Value> = context
        .app
        .happenings()
        .iter()
        .rev()
        .take(12)
        .map(|(at, happening)| {
            let ago = now.duration_since(*at).unwrap_or_default().as_secs();
            json!({"ago": ago, "what": format!("{happening:?}")})
        })
        .collect();
    let others = context.around.others.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let others: Vec<Value> = others
        .iter()
        .map(|app| {
            let last = app.happenings().last().map(|(_, happening)| format!("{happening:?}"));
            json!({"name": app.name, "url": app.url, "last": last})
        })
        .collect();
    Json(json!({
        "others": others,
        "app": context.app.name,
        "kind": context.app.kind.describe(),
        "clicks": if context.app.kind == ClientKind::Tokenless { "navigate" } else { "fetch" },
        "sub": session.as_ref().map(|session| session.subject().as_str().to_owned()),
        "idle": session.as_ref().map(|session| left(session.idle_expires_at())),
        "lifetime": context.around.session_lifetime.as_secs_f64(),
        "provider": at_provider,
        "log": log,
    }))
}
