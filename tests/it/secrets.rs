//! P9: no token, code, secret or cookie value in what is shown.

use std::io::Write;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::header::{ACCEPT, CACHE_CONTROL, COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use tower::ServiceExt;
use tower_oidc_session::test_provider::{Endpoint, Fault};
use tower_oidc_session::{CookieKey, OidcSession};
use tracing::Dispatch;
use tracing::subscriber::{DefaultGuard, NoSubscriber};

use crate::world::{CLIENT_SECRET, G, Options, World};

#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        crate::leaks::left(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Collects what this thread logs, where all tasks of a test run, until the guard is dropped.
pub(crate) fn collect_log(filter: &str) -> (Log, (DefaultGuard, Dispatch)) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(move || writer.clone()).finish();
    // With a single subscriber in the process, a place that logs for the first time asks the subscriber of its own thread
    // whether it may ever log: in another test that is none, and the place would be silent here as well. With two, all
    // are asked.
    let another = Dispatch::new(NoSubscriber::new());
    (log, (tracing::subscriber::set_default(subscriber), another))
}

#[tokio::test]
async fn p9_no_secrets_in_logs_and_answers() {
    let filter = "trace,hyper=off,hyper_util=off,h2=off,reqwest=off,tower_sessions=off,tower_sessions_core=off";
    let (log, _guard) = collect_log(filter);
    let mut options = Options::silent();
    let cookie_key = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [7; 64]);
    options.configure = Box::new({
        let key = cookie_key.clone();
        move |builder| builder.cookie_key(CookieKey::from_base64(&key).unwrap())
    });
    let world = World::with(options).await;
    // Every token that the provider gives.
    let tokens = Arc::new(Mutex::new(Vec::new()));
    world.provider.tamper_token_response({
        let tokens = tokens.clone();
        move |answer| {
            let named =
                ["access_token", "refresh_token", "id_token"].map(|name| answer[name].as_str().map(str::to_owned));
            tokens.lock().unwrap().extend(named.into_iter().flatten());
        }
    });
    let to_provider = world.browser.step(&world.app.at("/auth/login")).await.location();
    let answer = world.browser.step(to_provider.as_str()).await.location();
    assert_eq!(world.browser.step(answer.as_str()).await.status, StatusCode::SEE_OTHER);

    let mut secrets: Vec<String> = world.browser.cookies(&world.app.url).into_values().collect();
    let is_secret = |name: &str| ["code", "code_challenge", "nonce", "state"].contains(&name);
    let pairs = to_provider.query_pairs().chain(answer.query_pairs());
    secrets.extend(pairs.filter(|(name, _)| is_secret(name)).map(|(_, value)| value.into_owned()));
    secrets.push(cookie_key);
    let me = world.browser.get(&world.app.at("/me")).await.json();
    secrets.push(me["token"].as_str().unwrap().to_owned());
    secrets.push(CLIENT_SECRET.to_owned());
    let mut shown = format!("{:?} {:?}", world.app.rp, world.app.registry);
    for fault in [Fault::Truncate, Fault::Status { code: 500, retry_after: None }] {
        world.provider.set_fault_times(Endpoint::Token, fault, 2);
        world.clock.advance(G);
        assert_eq!(world.me().await, StatusCode::OK);
    }
    let logout = world.browser.post(&world.app.at("/auth/logout")).await;
    let hint = logout.location().query_pairs().find(|(name, _)| name == "id_token_hint").unwrap().1.into_owned();
    secrets.push(hint.clone());
    secrets.push(hint.rsplit_once('.').unwrap().1.to_owned());
    let token = world.provider.logout_token("shop", None, Some("unknown"));
    for token in [token.as_str(), &format!("{token}x")] {
        let answer = crate::backchannel_logout::post_token(&world, token).await;
        shown.push_str(answer.as_str());
        secrets.push(token.to_owned());
    }
    let callback = world.app.at("/auth/callback?code=the-secret-code&state=the-secret-state");
    shown.push_str(&world.browser.step(&callback).await.body);
    secrets.extend(["the-secret-code", "the-secret-state"].map(str::to_owned));

    secrets.extend(tokens.lock().unwrap().drain(..));
    assert!(secrets.len() > 15, "{}", secrets.len());
    shown.push_str(&String::from_utf8_lossy(&log.0.lock().unwrap()));
    assert!(shown.contains("session started") && shown.contains("session ended"), "{shown}");
    for secret in secrets.iter().filter(|secret| secret.len() > 5) {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

/// What an application answers to a page view with these cookies.
async fn answer(app: Router, path: &str, cookies: &str) -> (HeaderMap, String) {
    let request = Request::get(path).header(ACCEPT, "text/html").header(COOKIE, cookies).body(Body::empty()).unwrap();
    let (parts, body) = app.oneshot(request).await.unwrap().into_parts();
    let body = axum::body::to_bytes(body, 1024).await.unwrap();
    (parts.headers, String::from_utf8(body.into()).unwrap())
}

fn dead_cookie(world: &World) -> String {
    let cookies = world.browser.cookies(&world.app.url);
    format!("{}=dead", cookies.keys().find(|name| name.starts_with("__Host-session-")).unwrap())
}

#[tokio::test]
async fn p9_cookies_are_marked_as_secrets() {
    let world = World::signed_in().await;
    let are_sensitive =
        async |headers: HeaderMap| headers.get_all(COOKIE).iter().all(HeaderValue::is_sensitive).to_string();
    let app = Router::new().route("/", get(are_sensitive)).merge(world.app.rp.routes()).layer(world.app.rp.layer());
    let cookies = world.browser.cookie_header(&world.app.url).to_str().unwrap().to_owned();
    assert_eq!(answer(app.clone(), "/", &cookies).await.1, "true");
    for (path, cookies) in [("/auth/login", cookies), ("/", dead_cookie(&world))] {
        let (headers, _) = answer(app.clone(), path, &cookies).await;
        assert!(headers[SET_COOKIE].is_sensitive(), "{path}");
    }
}

#[tokio::test]
async fn p9_no_cache_shares_what_was_made_for_one_browser() {
    let world = World::signed_in().await;
    let greet =
        async |session: Option<OidcSession>| session.map(|session| session.subject().to_string()).unwrap_or_default();
    let own = async |session: Option<OidcSession>| ([(CACHE_CONTROL, "max-age=9")], session.is_some().to_string());
    let app = Router::new()
        .route("/greet", get(greet))
        .route("/own", get(own))
        .route("/same-for-all", get(async || "hello"))
        .layer(world.app.rp.layer());
    let (live, dead) = (world.browser.cookie_header(&world.app.url).to_str().unwrap().to_owned(), dead_cookie(&world));
    for (path, cookies, expected) in [
        ("/greet", live.as_str(), Some("private")),
        ("/greet", &dead, Some("private")),
        ("/greet", "", Some("private")),
        ("/own", &live, Some("max-age=9")),
        ("/same-for-all", &live, None),
        ("/same-for-all", "", None),
        ("/same-for-all", &dead, Some("private")),
    ] {
        let (headers, _) = answer(app.clone(), path, cookies).await;
        let found = headers.get(CACHE_CONTROL).map(|value| value.to_str().unwrap());
        assert_eq!(found, expected, "{path} {cookies}");
    }
}
