//! Ory Hydra: it has no users and no pages, so the test is its login application too.
//!
//! Hydra's login sessions do not run out by inactivity, and its logout tokens have a `sid`, no `sub` and no `exp`.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::response::Redirect;
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::sleep;
use url::form_urlencoded;

use crate::parts::{cache, is_there};
use crate::process::{Process, address, free_ports, web_app};
use crate::report::{Column, Report};
use crate::until;
use crate::visitor::{Page, Visitor};

const T: Duration = Duration::from_secs(6);
const G: Duration = Duration::from_secs(2);

/// The login application, which says yes to everything. It also stands between Hydra and the receiver of logout tokens.
#[derive(Clone)]
struct LoginApp {
    http: reqwest::Client,
    admin: String,
    web_app: Arc<OnceLock<String>>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// Whether Hydra knew the user already, for each login.
    logins: Vec<bool>,
    refreshes: usize,
    logouts: usize,
    /// The header and the claims of each logout token, and what it was answered.
    logout_tokens: Vec<(Value, Value, StatusCode)>,
}

impl LoginApp {
    async fn start(admin: String) -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Self { http: reqwest::Client::new(), admin, web_app: Arc::default(), seen: Arc::default() };
        let router = Router::new()
            .route("/login", get(login))
            .route("/consent", get(consent))
            .route("/logout", get(logout))
            .route("/refreshed", post(refreshed))
            .route("/backchannel-logout", post(logout_token))
            .with_state(app.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (app, url)
    }

    /// A call to Hydra's admin API.
    async fn call(&self, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
        let request = self.http.request(method, format!("{}/admin{path}", self.admin));
        let answer = request.header(CONTENT_TYPE, "application/json").body(body.to_string()).send().await.unwrap();
        let status = answer.status();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
    }

    /// What Hydra asks, by the `…_challenge=…` that it sent the browser with.
    async fn request(&self, kind: &str, challenge: &str) -> Value {
        self.call(Method::GET, &format!("/oauth2/auth/requests/{kind}?{challenge}"), &Value::Null).await.1
    }

    async fn accept(&self, kind: &str, challenge: &str, body: Value) -> Redirect {
        let path = format!("/oauth2/auth/requests/{kind}/accept?{challenge}");
        let (status, answer) = self.call(Method::PUT, &path, &body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        Redirect::to(answer["redirect_to"].as_str().unwrap())
    }
}

async fn login(State(app): State<LoginApp>, RawQuery(challenge): RawQuery) -> Redirect {
    let challenge = challenge.unwrap();
    let request = app.request("login", &challenge).await;
    app.seen.lock().unwrap().logins.push(request["skip"] == true);
    app.accept("login", &challenge, json!({"subject": "alice", "remember": true, "remember_for": 3600})).await
}

async fn consent(State(app): State<LoginApp>, RawQuery(challenge): RawQuery) -> Redirect {
    let challenge = challenge.unwrap();
    let request = app.request("consent", &challenge).await;
    let session = json!({"id_token": {"name": "Alice"}});
    app.accept("consent", &challenge, json!({"grant_scope": request["requested_scope"], "session": session})).await
}

async fn logout(State(app): State<LoginApp>, RawQuery(challenge): RawQuery) -> Redirect {
    app.seen.lock().unwrap().logouts += 1;
    app.accept("logout", &challenge.unwrap(), Value::Null).await
}

/// Hydra goes on with what it has.
async fn refreshed(State(app): State<LoginApp>) -> StatusCode {
    app.seen.lock().unwrap().refreshes += 1;
    StatusCode::NO_CONTENT
}

async fn logout_token(State(app): State<LoginApp>, body: Bytes) -> StatusCode {
    let (_, token) = form_urlencoded::parse(&body).find(|(name, _)| name == "logout_token").expect("there is one");
    let parts: Vec<Value> = token
        .split('.')
        .take(2)
        .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
        .collect();
    let url = format!("{}/auth/backchannel-logout", app.web_app.get().unwrap());
    let request = app.http.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body.clone());
    let status = request.send().await.unwrap().status();
    app.seen.lock().unwrap().logout_tokens.push((parts[0].clone(), parts[1].clone(), status));
    status
}

struct World {
    visitor: Visitor,
    login_app: LoginApp,
    app: String,
    config: PathBuf,
    _processes: [Process; 2],
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.config);
    }
}

fn hydra() -> PathBuf {
    cache().join("hydra-2.3.0")
}

impl World {
    async fn start(missing_expiry: &str) -> Self {
        let hydra = hydra();
        let [port, admin_port] = free_ports();
        let (login_app, login_url) = LoginApp::start(format!("http://127.0.0.1:{admin_port}")).await;
        let config = include_str!("../hydra/hydra.yml")
            .replace("$PUBLIC_PORT", &port.to_string())
            .replace("$ADMIN_PORT", &admin_port.to_string())
            .replace("$LOGIN_APP", &login_url);
        let path = std::env::temp_dir().join(format!("tower-oidc-session-hydra-{}-{port}.yml", std::process::id()));
        std::fs::write(&path, config).unwrap();
        // Its log goes to the other output; http needs --dev.
        let serve = r#"exec "$0" serve all --dev --config "$1" 2>&1"#;
        let listens = format!("http server on 127.0.0.1:{port}");
        let hydra = Process::start_until(Command::new("sh").args(["-c", serve]).arg(hydra).arg(&path), move |line| {
            line.contains(&listens)
        });
        let web_app = Process::start(
            web_app()
                .env("OIDC_ISSUER", format!("http://127.0.0.1:{port}"))
                .env("OIDC_CLIENT_ID", "web-app")
                .env("OIDC_CLIENT_SECRET", "web-app-secret")
                .env("OIDC_SCOPES", "openid offline_access")
                .env("LOGOUT_TOKEN_MISSING_EXP", missing_expiry)
                .env("OP_SESSION_LIFETIME", format!("{}s", T.as_secs()))
                .env("ACCESS_TOKEN_LIFETIME", format!("{}s", G.as_secs())),
        );
        let app = address(&web_app);
        login_app.web_app.set(app.clone()).unwrap();
        let world =
            Self { visitor: Visitor::new(), login_app, app: app.clone(), config: path, _processes: [hydra, web_app] };
        until("web_app reaches the provider", async || world.get("/").await.status == StatusCode::OK).await;
        let client = json!({
            "client_id": "web-app", "client_secret": "web-app-secret",
            "redirect_uris": [format!("{app}/auth/callback")],
            "post_logout_redirect_uris": [format!("{app}/")],
            "backchannel_logout_uri": format!("{login_url}/backchannel-logout"),
            "backchannel_logout_session_required": true,
            "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
            "scope": "openid offline_access", "token_endpoint_auth_method": "client_secret_basic",
        });
        let (status, answer) = world.login_app.call(Method::POST, "/clients", &client).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        world
    }

    async fn get(&self, path: &str) -> Page {
        self.visitor.get(&format!("{}{path}", self.app)).await
    }

    /// Signs in, and gives the `sid`.
    async fn sign_in(&self) -> String {
        let page = self.visitor.go(Method::GET, &format!("{}/me", self.app)).await;
        assert_eq!((page.status, page.url.path()), (StatusCode::OK, "/me"), "{page:?}");
        let me = page.json();
        assert_eq!((&me["sub"], &me["name"]), (&json!("alice"), &json!("Alice")), "{me}");
        me["sid"].as_str().expect("Hydra's ID tokens have a sid").to_owned()
    }

    async fn delete(&self, sessions: &str) {
        let path = format!("/oauth2/auth/sessions/{sessions}");
        let (status, answer) = self.login_app.call(Method::DELETE, &path, &Value::Null).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{answer}");
    }

    /// The last of so many logout tokens: its claims, and what it was answered.
    async fn logout_token(&self, number: usize) -> (Value, StatusCode) {
        let seen = &self.login_app.seen;
        until("a logout token is sent", async || seen.lock().unwrap().logout_tokens.len() >= number).await;
        let seen = seen.lock().unwrap();
        assert_eq!(seen.logout_tokens.len(), number);
        let (header, claims, status) = seen.logout_tokens.last().unwrap();
        assert_eq!(header["typ"], "JWT", "{header}");
        (claims.clone(), *status)
    }

    async fn assert_ended(&self, reason: &str) {
        self.visitor.assert_ended(&self.app, reason).await;
    }

    fn refreshes(&self) -> usize {
        self.login_app.seen.lock().unwrap().refreshes
    }

    /// Goes on for so long, as an active user.
    async fn stay_active(&self, duration: Duration) {
        self.visitor.stay_active(&self.app, G / 4, duration).await;
    }
}

#[tokio::test]
async fn sessions_end_when_hydra_says_so() {
    if !is_there("Ory Hydra", &hydra()) {
        return;
    }
    let mut report = Report::of("Ory Hydra 2.3.0");
    let world = World::start("2m").await;
    assert_eq!(world.get("/me").await.status, StatusCode::UNAUTHORIZED);
    let sid = world.sign_in().await;
    report.holds(Column::Login);

    // Every refresh token is used once.
    world.stay_active(T * 2).await;
    let refreshes = world.refreshes();
    assert!((4..=6).contains(&refreshes), "{refreshes} refreshes");
    report.holds(Column::Rotation);
    report.is(Column::SignalExtends, "no idle timeout");
    report.is(Column::IdleEndSeen, "no idle timeout");

    // An administrator ends the login session.
    world.delete(&format!("login?sid={sid}")).await;
    let (claims, status) = world.logout_token(1).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&claims["sid"], &claims["aud"]), (&json!(sid), &json!(["web-app"])), "{claims}");
    assert!(claims.get("sub").is_none() && claims.get("exp").is_none(), "{claims}");
    world.assert_ended("back_channel_logout").await;
    report.is(Column::LogoutBySid, "yes, with `MissingExpiry::AcceptYoungerThan`");
    report.is(Column::LogoutBySub, "not sent");

    // Hydra has forgotten who that browser was. Then the user's consent is withdrawn, and nobody is told.
    let other = world.sign_in().await;
    assert_ne!(other, sid);
    assert_eq!(world.login_app.seen.lock().unwrap().logins, [false, false]);
    world.delete("consent?subject=alice&client=web-app").await;
    assert_eq!(world.get("/poll").await.status, StatusCode::OK);
    sleep(G).await;
    world.assert_ended("refresh_token_rejected").await;
    report.holds(Column::RefusedRefreshEnds);

    // The next login needs no password, and a logout goes to Hydra and back.
    assert_eq!(world.sign_in().await, other);
    assert_eq!(world.login_app.seen.lock().unwrap().logins, [false, false, true]);
    let page = world.visitor.go(Method::POST, &format!("{}/auth/logout", world.app)).await;
    assert_eq!((page.status, page.url.as_str()), (StatusCode::OK, &*format!("{}/", world.app)), "{page:?}");
    assert_eq!(world.login_app.seen.lock().unwrap().logouts, 1);
    assert_eq!(world.get("/auth/session").await.json()["authenticated"], false);
    // Its own logout token finds nothing to end.
    let (claims, status) = world.logout_token(2).await;
    assert_eq!((&claims["sid"], status), (&json!(other), StatusCode::OK));
    world.sign_in().await;
    assert_eq!(world.login_app.seen.lock().unwrap().logins, [false, false, true, false]);
}

#[tokio::test]
async fn logout_tokens_without_exp_are_refused_unless_asked_for() {
    if !is_there("Ory Hydra", &hydra()) {
        return;
    }
    let world = World::start("refuse").await;
    let sid = world.sign_in().await;
    world.delete(&format!("login?sid={sid}")).await;
    let (_, status) = world.logout_token(1).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    // Tokens of the scope offline_access outlive the login session.
    world.stay_active(G * 2).await;
    assert!(world.refreshes() >= 1);
}
