//! A complete relying party, configured by environment variables: point it at any OpenID provider.
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `LISTEN` | `127.0.0.1:3000` | address to bind; port 0 picks a free one |
//! | `PUBLIC_URL` | `http://LISTEN` | the origin that browsers see |
//! | `OIDC_ISSUER` | required | the provider; plain http for loopback hosts only |
//! | `OIDC_CLIENT_ID`, `OIDC_CLIENT_SECRET` | required | the client; the secret is not needed where `CLIENT_AUTH` needs none |
//! | `CLIENT_AUTH` | by the provider | `client_secret_basic`, `client_secret_post`, `private_key_jwt`, `tls_client_auth`, `self_signed_tls_client_auth` |
//! | `CLIENT_KEY`, `CLIENT_CERT` | none | PEM files: the key of client assertions, or the certificate and key of mutual TLS |
//! | `PAR` | `auto` | pushed authorization requests: `auto` (where the provider takes them), `required`, `off` |
//! | `DPOP` | `off` | `off`, or a PEM file with the ES256 key that access tokens are bound to, shared by replicas |
//! | `FRONTCHANNEL_LOGOUT` | `off` | `on`: `GET /auth/frontchannel-logout` |
//! | `SECURITY_EVENTS` | none | the issuer of a transmitter of security events: `POST /auth/security-events` |
//! | `FAPI2` | `off` | `on`: what is weaker than FAPI 2.0 is refused at the start |
//! | `OIDC_SCOPES` | `openid profile` | separated by spaces |
//! | `OIDC_SIGNING_ALG` | `RS256` | the algorithm of ID tokens and logout tokens |
//! | `OIDC_USERINFO` | `signal` | `claims`: ask userinfo at login too |
//! | `STORE_URL` | `memory:` | where sessions live: `memory:`, `redis://…`, `postgres://…` |
//! | `CONFIRMED_BY` | `0` | Redis: how many replicas must have an end, a tombstone, a lease or new tokens before they are answered |
//! | `STORE_KEYS` | none | keys that encrypt stored sessions, 32 bytes in base64 each, separated by spaces; the first writes |
//! | `OP_SESSION_LIFETIME` | `15m` | the provider's inactivity timeout |
//! | `ACCESS_TOKEN_LIFETIME` | a fifth of that | how long one access token is used before a refresh |
//! | `ABSOLUTE_LIFETIME` | `12h` | sessions end this long after the login |
//! | `LOGOUT_TOKEN_MISSING_EXP` | `refuse` | how long after its `iat` a logout token without `exp` is accepted, as `2m` |
//! | `PROVIDER_TIMEOUT` | `5s` | how long a request waits for the provider |
//! | `DRAIN_TIMEOUT` | `10s` | how long SIGTERM waits for refreshes and writes under way |
//! | `COOKIE_KEY` | random | 64 bytes in base64, shared by replicas |
//! | `API_URL` | none | the base URL of an API |
//! | `WARN` | `60s` | how long before the idle end the page `/desk` warns |
//! | `RUST_LOG` | `info` | the log filter |

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

use std::convert::Infallible;
use std::env;
use std::future::IntoFuture;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Request, State};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use futures_util::stream::{self, Stream, StreamExt};
use http::{Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tower_oidc_session::{
    ApiError, ClaimsFrom, ClientAuthentication, ClientCertificate, ClientCredentials, ClientSecret, ConfigError,
    CookieKey, LogoutTokenPolicy, MemoryRegistry, MissingExpiry, OidcSession, Page, PageKind, PostgresRegistry,
    PushedAuthorization, RedisRegistry, RelyingParty, RelyingPartyBuilder, SessionClient, SessionPolicy,
    SessionRejection, SigningAlg, SigningKey, StorageKey,
};
use tower_sessions::cookie::SameSite;
use tower_sessions::session::{Id, Record};
use tower_sessions::{Session, SessionManagerLayer, SessionStore, session_store};

#[tokio::main]
async fn main() -> ExitCode {
    let filter = env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run().await {
        // Not by way of what the runtime waits for, as a name that is being resolved: the bound is the drain's.
        Ok(()) => std::process::exit(0),
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}

async fn run() -> Result<(), String> {
    let listen: SocketAddr = parsed("LISTEN", "127.0.0.1:3000", "an address and a port, as 127.0.0.1:3000")?;
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .map_err(|error| format!("LISTEN is {listen}: it takes an address that can be bound ({error})"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let (rp, data) = relying_party(&format!("http://{address}"))?;
    let warn = duration("WARN", "60s")?;
    let drain_timeout = duration("DRAIN_TIMEOUT", "10s")?;
    println!("listening on http://{address}");
    let server = axum::serve(listener, app(&rp, data, warn)).with_graceful_shutdown(stop());
    // Beside it: streams that go on would hold the server up.
    let drain = async {
        stop().await;
        rp.drain(drain_timeout).await
    };
    let overdue = async {
        stop().await;
        tokio::time::sleep(drain_timeout).await;
    };
    tokio::select! {
        (outcome, _) = async { tokio::join!(server.into_future(), drain) } => outcome.map_err(|error| error.to_string()),
        () = overdue => Ok(()),
    }
}

/// Completes when the process is told to stop.
async fn stop() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

fn app(rp: &RelyingParty, data: Data, warn: Duration) -> Router {
    // Application data of sessions; the provider sends the browser back by a navigation of another site.
    let data = SessionManagerLayer::new(data).with_same_site(SameSite::Lax).with_name("web_app");
    Router::new()
        .route("/poll", get(me))
        .route("/events", get(events))
        .route_layer(rp.require_session())
        .route_layer(rp.passive())
        .merge(
            Router::new()
                .route("/me", get(me))
                .nest("/api", Router::new().route("/{*path}", any(api)))
                .route("/desk", get(desk).post(write).with_state(warn))
                .route_layer(rp.require_session()),
        )
        .route("/", get(index))
        .merge(rp.routes())
        .layer(rp.layer())
        .layer(data)
        .layer(middleware::from_fn_with_state(rp.clone(), not_ready))
        .route("/healthz", get(async || "ok"))
}

/// Until the provider has been reached there is nothing to say but that.
async fn not_ready(State(rp): State<RelyingParty>, request: Request, next: Next) -> Response {
    if rp.is_ready() {
        return next.run(request).await;
    }
    let accepts = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if request.method() == Method::GET && accepts.contains("text/html") {
        return Page::new(PageKind::Unavailable).into_response();
    }
    let text = "the sign-in service cannot be reached yet";
    let headers = [(header::RETRY_AFTER, "1"), (header::CACHE_CONTROL, "no-store")];
    (StatusCode::SERVICE_UNAVAILABLE, headers, text).into_response()
}

async fn index(session: Result<Option<OidcSession>, SessionRejection>) -> Html<String> {
    Html(match session {
        Ok(Some(session)) => format!(
            "<!doctype html><title>web_app</title><p>Signed in as <b>{}</b>. <a href=/me>Me</a>\
             <form method=post action=/auth/logout><button>Sign out</button></form>",
            escape(session.subject().as_str())
        ),
        Ok(None) => "<!doctype html><title>web_app</title><p>Not signed in. <a href=/me>Sign in</a>".to_owned(),
        Err(_) => "<!doctype html><title>web_app</title><p>Whether you are signed in cannot be told now.".to_owned(),
    })
}

async fn me(session: OidcSession) -> Json<Value> {
    let mut me = session.claims().clone();
    me.insert("iss".to_owned(), json!(session.issuer().as_str()));
    me.insert("sub".to_owned(), json!(session.subject().as_str()));
    me.insert("sid".to_owned(), json!(session.sid().map(ToString::to_string)));
    Json(Value::Object(me))
}

/// The notes of a session, on a page with the guard.
async fn desk(State(warn): State<Duration>, session: OidcSession, data: Session) -> Result<Response, Page> {
    let notes: Vec<String> = read(&data).await?;
    let notes = notes.iter().fold(String::new(), |html, note| html + "<li>" + &escape(note) + "</li>");
    let previous = session.previous_end().map(|reason| {
        format!(
            "<p id=previous-end data-reason={reason}>Your last session ended: {}.</p>",
            reason.to_string().replace('_', " ")
        )
    });
    let subject = escape(session.subject().as_str());
    let page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>Desk</title><script type=module src=/auth/session.js></script>\
         <session-guard warn={} hide=main sub=\"{subject}\"></session-guard>\
         <main><h1>Desk</h1><p>Signed in as <b id=who>{subject}</b></p>{}<ul id=notes>{notes}</ul>\
         <form method=post action=/desk><p><label>Note<br><textarea name=note></textarea></label>\
         <p><button>Save</button></form><form method=post action=/auth/logout><button>Sign out</button></form></main>",
        warn.as_secs_f64(),
        previous.unwrap_or_default(),
    );
    let policy = [(header::CONTENT_SECURITY_POLICY, "default-src 'self'; frame-ancestors 'none'")];
    Ok((policy, Html(page)).into_response())
}

#[derive(serde::Deserialize)]
struct Note {
    note: String,
}

async fn write(data: Session, note: Result<Form<Note>, FormRejection>) -> Result<Response, Page> {
    let note = match note {
        Ok(Form(Note { note })) if note.len() <= 4 * 1024 => note,
        Err(rejection) if rejection.status() != StatusCode::PAYLOAD_TOO_LARGE => return Ok(rejection.into_response()),
        _ => return Err(Page::new(PageKind::TooLarge)),
    };
    let mut notes = read(&data).await?;
    notes.push(note);
    data.insert("notes", notes).await.map_err(|_| Page::new(PageKind::Unavailable))?;
    Ok(Redirect::to("/desk").into_response())
}

async fn read(data: &Session) -> Result<Vec<String>, Page> {
    let notes = data.get("notes").await.map_err(|_| Page::new(PageKind::Unavailable))?;
    Ok(notes.unwrap_or_default())
}

async fn api(client: SessionClient, request: Request) -> Result<Response, ApiError> {
    match env::var("API_URL") {
        Ok(base_url) => client.forward(request, &base_url).await,
        Err(_) => Ok((StatusCode::NOT_FOUND, "API_URL is not set").into_response()),
    }
}

async fn events() -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let hello = stream::iter([Ok(Event::default().event("hello").data("hello"))]);
    Sse::new(hello.chain(stream::pending())).keep_alive(KeepAlive::default().interval(Duration::from_secs(15)))
}

fn relying_party(default_url: &str) -> Result<(RelyingParty, Data), String> {
    let client_id = required("OIDC_CLIENT_ID", "the client's id at the provider")?;
    let credentials = ClientCredentials::new(client_id, client_authentication()?);
    let op_session_lifetime = duration("OP_SESSION_LIFETIME", "15m")?;
    let access_token_lifetime = match env::var("ACCESS_TOKEN_LIFETIME") {
        Ok(_) => duration("ACCESS_TOKEN_LIFETIME", "")?,
        Err(_) => op_session_lifetime / 5,
    };
    let policy = SessionPolicy::new()
        .op_session_lifetime(op_session_lifetime)
        .access_token_lifetime(access_token_lifetime)
        .absolute_lifetime(duration("ABSOLUTE_LIFETIME", "12h")?);
    let alg = env::var("OIDC_SIGNING_ALG").ok().map(|alg| {
        let names = SigningAlg::ALL.map(SigningAlg::as_str).join(", ");
        SigningAlg::from_name(&alg).ok_or(format!("OIDC_SIGNING_ALG is {alg}: it takes one of {names}"))
    });
    let claims_from = match variable("OIDC_USERINFO", "signal").as_str() {
        "signal" => ClaimsFrom::IdToken,
        "claims" => ClaimsFrom::UserInfo,
        other => return Err(format!("OIDC_USERINFO is {other}: it takes signal or claims")),
    };
    let missing_expiry = match variable("LOGOUT_TOKEN_MISSING_EXP", "refuse").as_str() {
        "refuse" => MissingExpiry::Refuse,
        value => MissingExpiry::AcceptYoungerThan(
            seconds(value)
                .ok_or_else(|| format!("LOGOUT_TOKEN_MISSING_EXP is {value}: it takes refuse or a duration, as 2m"))?,
        ),
    };
    let issuer = required("OIDC_ISSUER", "the provider's issuer URL")?;
    let mut builder =
        RelyingParty::builder(issuer, credentials, variable("PUBLIC_URL", default_url).trim_end_matches('/'))
            .policy(policy)
            .scopes(variable("OIDC_SCOPES", "openid profile").split_whitespace())
            .pushed_authorization(pushed_authorization()?)
            .claims_from(claims_from)
            .logout_tokens(LogoutTokenPolicy::new().missing_expiry(missing_expiry))
            .provider_timeout(duration("PROVIDER_TIMEOUT", "5s")?);
    if let Some(alg) = alg {
        builder = builder.signing_alg(alg?);
    }
    match variable("DPOP", "off").as_str() {
        "off" => {}
        file => match signing_key("DPOP", file)? {
            key if key.alg() == SigningAlg::ES256 => builder = builder.dpop(key),
            key => {
                return Err(format!(
                    "DPOP is {file}, a key for {}: it takes off, or a PEM file with a P-256 key (ES256)",
                    key.alg().as_str()
                ));
            }
        },
    }
    if switch("FAPI2")? {
        builder = builder.fapi2();
    }
    if switch("FRONTCHANNEL_LOGOUT")? {
        builder = builder.frontchannel_logout();
    }
    if let Ok(transmitter) = env::var("SECURITY_EVENTS") {
        builder = builder.security_events(transmitter);
    }
    let (builder_with_store, data) = with_store(builder)?;
    builder = builder_with_store;
    if let Ok(key) = env::var("COOKIE_KEY") {
        builder = builder.cookie_key(CookieKey::from_base64(&key).map_err(|error| name_variable(&error))?);
    }
    if let Ok(api) = env::var("API_URL") {
        builder = builder.api(api);
    }
    let rp = builder.build().map_err(|error| name_variable(&error))?;
    Ok((rp, data))
}

/// How the client proves itself to the provider.
fn client_authentication() -> Result<ClientAuthentication, String> {
    let secret = || required("OIDC_CLIENT_SECRET", "the client's secret").map(ClientSecret::new);
    let key = || required("CLIENT_KEY", "a PEM file with the client's private key");
    let certificate = || {
        let files = (required("CLIENT_CERT", "a PEM file with the client's certificate")?, key()?);
        read_file("CLIENT_KEY", &files.1)?;
        ClientCertificate::from_files(files.0, files.1)
            .map_err(|error| error.to_string().replacen(error.setting(), "CLIENT_CERT", 1))
    };
    Ok(match variable("CLIENT_AUTH", "").as_str() {
        "" if switch("FAPI2")? => {
            return Err(
                "CLIENT_AUTH is not set: it takes private_key_jwt, tls_client_auth or self_signed_tls_client_auth, \
                        with FAPI2=on"
                    .to_owned(),
            );
        }
        "" => ClientAuthentication::ClientSecret(secret()?),
        "client_secret_basic" => ClientAuthentication::ClientSecretBasic(secret()?),
        "client_secret_post" => ClientAuthentication::ClientSecretPost(secret()?),
        "private_key_jwt" => ClientAuthentication::PrivateKeyJwt(signing_key("CLIENT_KEY", &key()?)?),
        "self_signed_tls_client_auth" => ClientAuthentication::SelfSignedTlsClientAuth(certificate()?),
        "tls_client_auth" => ClientAuthentication::TlsClientAuth(certificate()?),
        other => {
            return Err(format!(
                "CLIENT_AUTH is {other}: it takes client_secret_basic, client_secret_post, private_key_jwt, \
                 tls_client_auth or self_signed_tls_client_auth"
            ));
        }
    })
}

fn signing_key(variable: &str, file: &str) -> Result<SigningKey, String> {
    SigningKey::from_pem(read_file(variable, file)?)
        .map_err(|error| error.to_string().replacen(error.setting(), variable, 1))
}

fn read_file(variable: &str, file: &str) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("{variable} is {file}: it takes a PEM file that can be read ({error})"))
}

fn pushed_authorization() -> Result<PushedAuthorization, String> {
    match variable("PAR", "auto").as_str() {
        "auto" => Ok(PushedAuthorization::WhereOffered),
        "required" => Ok(PushedAuthorization::Required),
        "off" => Ok(PushedAuthorization::Off),
        other => Err(format!("PAR is {other}: it takes auto, required or off")),
    }
}

fn switch(name: &str) -> Result<bool, String> {
    match variable(name, "off").as_str() {
        "on" => Ok(true),
        "off" => Ok(false),
        other => Err(format!("{name} is {other}: it takes on or off")),
    }
}

/// Where the application's data lives: beside the sessions, in whichever store.
#[derive(Clone, Debug)]
struct Data(Arc<dyn SessionStore>);

#[async_trait]
impl SessionStore for Data {
    async fn create(&self, record: &mut Record) -> session_store::Result<()> {
        self.0.create(record).await
    }

    async fn save(&self, record: &Record) -> session_store::Result<()> {
        self.0.save(record).await
    }

    async fn load(&self, id: &Id) -> session_store::Result<Option<Record>> {
        self.0.load(id).await
    }

    async fn delete(&self, id: &Id) -> session_store::Result<()> {
        self.0.delete(id).await
    }
}

/// Sessions, and the application's data, live in one store.
fn with_store(builder: RelyingPartyBuilder) -> Result<(RelyingPartyBuilder, Data), String> {
    let url = variable("STORE_URL", "memory:");
    let keys = variable("STORE_KEYS", "");
    let keys = keys.split_whitespace().map(StorageKey::from_base64).collect::<Result<Vec<_>, _>>();
    let keys = keys.map_err(|error| name_variable(&error))?;
    let confirmed_by = parsed("CONFIRMED_BY", "0", "a number of replicas of Redis, as 1")?;
    // What comes after the scheme may hold a password.
    match url.split(':').next().unwrap_or_default() {
        "memory" => {
            let registry = MemoryRegistry::new();
            Ok((builder.registry(registry.clone()), Data(Arc::new(registry))))
        }
        "postgres" | "postgresql" => {
            let registry = PostgresRegistry::connect_with(&url, "oidc_session", keys);
            let registry = registry.map_err(|error| name_variable(&error))?;
            tokio::spawn(migrate(registry.clone()));
            Ok((builder.registry(registry.clone()), Data(Arc::new(registry))))
        }
        "redis" | "rediss" | "redis-sentinel" | "rediss-sentinel" => {
            let registry = RedisRegistry::connect_with(&url, "oidc-session", keys);
            let registry = registry.map_err(|error| name_variable(&error))?.confirmed_by(confirmed_by);
            Ok((builder.registry(registry.clone()), Data(Arc::new(registry))))
        }
        scheme => {
            Err(format!("STORE_URL is of the kind {scheme:?}: it takes memory:, redis://host:port or postgres://…"))
        }
    }
}

/// The database may come up after the application; until then requests that need it get 503.
async fn migrate(registry: PostgresRegistry) {
    while let Err(error) = registry.migrate().await {
        tracing::warn!(%error, "the store is not ready");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Says which variable a setting comes from.
fn name_variable(error: &ConfigError) -> String {
    let setting = error.setting();
    let variable = match setting {
        "api" => "API_URL".to_owned(),
        "client_authentication" => "CLIENT_AUTH".to_owned(),
        "pushed_authorization" => "PAR".to_owned(),
        "signing_alg" => "OIDC_SIGNING_ALG".to_owned(),
        "storage_key" => "STORE_KEYS".to_owned(),
        "client_id" | "client_secret" | "issuer" | "scopes" => format!("OIDC_{}", setting.to_uppercase()),
        other => other.to_uppercase(),
    };
    error.to_string().replacen(setting, &variable, 1)
}

fn variable(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn required(name: &str, takes: &str) -> Result<String, String> {
    env::var(name).ok().filter(|value| !value.is_empty()).ok_or(format!("{name} is not set: it takes {takes}"))
}

fn parsed<T: std::str::FromStr>(name: &str, default: &str, takes: &str) -> Result<T, String> {
    let value = variable(name, default);
    value.parse().map_err(|_| format!("{name} is {value}: it takes {takes}"))
}

fn duration(name: &str, default: &str) -> Result<Duration, String> {
    let value = variable(name, default);
    seconds(&value).ok_or_else(|| format!("{name} is {value}: it takes a duration, as 20s, 15m or 12h"))
}

fn seconds(duration: &str) -> Option<Duration> {
    let (number, unit) = duration.split_at_checked(duration.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
