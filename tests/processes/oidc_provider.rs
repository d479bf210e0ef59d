//! npm's `oidc-provider`, with sessions coordinated as `tests/node-op/op.mjs` says.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::header::{ACCEPT, COOKIE, LOCATION, SET_COOKIE};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use url::Url;

use super::{Process, web_app};

const T: Duration = Duration::from_secs(6);
const G: Duration = Duration::from_secs(2);

struct World {
    http: reqwest::Client,
    jar: Arc<Mutex<Vec<(String, String, String)>>>,
    admin: String,
    app: String,
    _processes: [Process; 2],
}

fn free_ports() -> (u16, u16) {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (one, two) = (free(), free());
    (one.local_addr().unwrap().port(), two.local_addr().unwrap().port())
}

impl World {
    async fn start() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node-op");
        assert!(folder.join("node_modules/oidc-provider").exists(), "oidc-provider is not installed: run ci/tools");
        let (port, admin_port) = free_ports();
        let issuer = format!("http://127.0.0.1:{port}");
        let op = Process::start(
            Command::new("node")
                .arg("op.mjs")
                .current_dir(&folder)
                .env("PORT", port.to_string())
                .env("ADMIN_PORT", admin_port.to_string())
                .env("AUTOLOGIN", "alice")
                .env("SESSION_TTL", T.as_secs().to_string())
                .env("ACCESS_TTL", T.as_secs().to_string())
                .env("NODE_NO_WARNINGS", "1"),
        );
        assert!(op.first_line.contains("ready"), "{}", op.first_line);
        let web_app = Process::start(
            web_app()
                .env("OIDC_ISSUER", &issuer)
                .env("OIDC_CLIENT_ID", "web-app")
                .env("OIDC_CLIENT_SECRET", "web-app-secret")
                .env("OP_SESSION_LIFETIME", format!("{}s", T.as_secs()))
                .env("ACCESS_TOKEN_LIFETIME", format!("{}s", G.as_secs())),
        );
        let app = web_app.first_line.trim().strip_prefix("listening on ").expect("it says where").to_owned();
        let world = Self {
            http: reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap(),
            jar: Arc::default(),
            admin: format!("http://127.0.0.1:{admin_port}"),
            app: app.clone(),
            _processes: [op, web_app],
        };
        let client = json!({
            "client_id": "web-app", "client_secret": "web-app-secret",
            "redirect_uris": [format!("{app}/auth/callback")],
            "post_logout_redirect_uris": [format!("{app}/")],
            "backchannel_logout_uri": format!("{app}/auth/backchannel-logout"),
            "backchannel_logout_session_required": true,
            "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
            "token_endpoint_auth_method": "client_secret_basic",
        });
        world.admin(&Method::POST, "/clients", &client.to_string()).await;
        world.until_ready().await;
        world
    }

    async fn until_ready(&self) {
        let begin = Instant::now();
        while self.send(Method::GET, &self.at("/"), "*/*").await.0 != StatusCode::OK {
            assert!(begin.elapsed() < Duration::from_secs(30), "web_app reaches the provider");
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn at(&self, path: &str) -> Url {
        Url::parse(&format!("{}{path}", self.app)).unwrap()
    }

    async fn admin(&self, method: &Method, path: &str, body: &str) -> Value {
        let request = self.http.request(method.clone(), format!("{}{path}", self.admin)).body(body.to_owned());
        let answer = request.send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    async fn events(&self, kind: &str) -> Vec<Value> {
        self.admin(&Method::GET, &format!("/events?kind={kind}"), "").await.as_array().unwrap().clone()
    }

    async fn send(&self, method: Method, url: &Url, accept: &str) -> (StatusCode, Option<Url>, String) {
        let origin = url.origin().ascii_serialization();
        let cookies: Vec<String> = self
            .jar
            .lock()
            .unwrap()
            .iter()
            .filter(|(host, ..)| *host == origin)
            .map(|(_, name, value)| format!("{name}={value}"))
            .collect();
        let request = self.http.request(method, url.clone()).header(ACCEPT, accept).header(COOKIE, cookies.join("; "));
        let response = request.send().await.unwrap();
        for value in response.headers().get_all(SET_COOKIE) {
            let value = value.to_str().unwrap();
            let (name, rest) = value.split_once('=').unwrap();
            let mut jar = self.jar.lock().unwrap();
            jar.retain(|(host, known, _)| *host != origin || known != name);
            if !value.contains("Max-Age=0") && !value.contains("1970") {
                jar.push((origin.clone(), name.to_owned(), rest.split(';').next().unwrap().to_owned()));
            }
        }
        let location = response.headers().get(LOCATION).map(|value| url.join(value.to_str().unwrap()).unwrap());
        (response.status(), location, response.text().await.unwrap())
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let (status, _, body) = self.send(Method::GET, &self.at(path), "application/json").await;
        (status, serde_json::from_str(&body).unwrap_or_default())
    }

    async fn go(&self, method: Method, path: &str) -> (StatusCode, Url, String) {
        let (mut method, mut url) = (method, self.at(path));
        for _ in 0..12 {
            let (status, location, body) = self.send(method, &url, "text/html").await;
            match location {
                Some(location) => url = location,
                None => return (status, url, body),
            }
            method = Method::GET;
        }
        panic!("a redirect loop at {url}");
    }

    async fn sign_in(&self) {
        let (status, url, body) = self.go(Method::GET, "/me").await;
        assert_eq!((status, url.path()), (StatusCode::OK, "/me"), "{body}");
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["sub"], "alice");
    }
}

#[tokio::test]
async fn sessions_live_as_long_as_those_of_the_provider() {
    let world = World::start().await;
    assert_eq!(world.get("/me").await.0, StatusCode::UNAUTHORIZED);
    world.sign_in().await;

    // Active for twice the timeout: rotating refreshes keep the provider's session alive.
    let begin = Instant::now();
    while begin.elapsed() < T * 2 {
        assert_eq!(world.get("/me").await.0, StatusCode::OK);
        sleep(G / 4).await;
    }
    let extended = world.events("session.extended").await;
    let refreshes = extended.iter().filter(|event| event["grant_type"] == "refresh_token").count();
    assert!((4..=6).contains(&refreshes), "{refreshes} refreshes");

    // An administrator ends it: the logout token arrives, and the next request is refused.
    assert_eq!(world.admin(&Method::POST, "/end-session?sub=alice", "").await["ended"], 1);
    assert_eq!(world.events("backchannel.success").await.len(), 1);
    let (status, body) = world.get("/me").await;
    assert_eq!((status, &body["reason"]), (StatusCode::UNAUTHORIZED, &json!("back_channel_logout")));

    // Nobody is told: the next refresh is refused.
    world.sign_in().await;
    assert_eq!(world.admin(&Method::POST, "/end-session?sub=alice&notify=0", "").await["ended"], 1);
    assert_eq!(world.get("/me").await.0, StatusCode::OK);
    sleep(G).await;
    let (status, body) = world.get("/me").await;
    assert_eq!((status, &body["reason"]), (StatusCode::UNAUTHORIZED, &json!("refresh_token_rejected")));

    // An outage is no end.
    world.sign_in().await;
    world.admin(&Method::POST, "/fault", r#"{"mode":"status","path":"/token"}"#).await;
    sleep(G).await;
    assert_eq!(world.get("/me").await.0, StatusCode::OK);
    world.admin(&Method::POST, "/fault", "{}").await;
    sleep(Duration::from_millis(1100)).await;
    assert_eq!(world.get("/me").await.0, StatusCode::OK);

    // New keys in the middle of it.
    world.admin(&Method::POST, "/rotate-keys?keep=0", "").await;
    sleep(G).await;
    assert_eq!(world.get("/me").await.0, StatusCode::OK);

    // Idle, with nothing but polling: the provider ends the session and says so.
    let quiet = Instant::now();
    while world.get("/poll").await.0 == StatusCode::OK {
        assert!(quiet.elapsed() < T * 2, "polling keeps nobody signed in");
        sleep(G / 4).await;
    }
    assert!(quiet.elapsed() + G + Duration::from_secs(1) > T, "after {:?}", quiet.elapsed());
    assert_eq!(world.events("session.ended").await.last().unwrap()["reason"], "idle");
}

#[tokio::test]
async fn a_logout_goes_to_the_provider_and_back() {
    let world = World::start().await;
    world.sign_in().await;
    let (status, url, page) = world.go(Method::POST, "/auth/logout").await;
    // This provider asks; the session here is over all the same.
    assert_eq!((status, url.path()), (StatusCode::OK, "/session/end"), "{page}");
    assert_eq!(world.get("/me").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(world.get("/auth/session").await.1, json!({"authenticated": false}));
}
