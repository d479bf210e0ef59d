//! Glewlwyd 2.7, as Debian 12 has it.
//!
//! Its logout tokens have no `exp` and are `JWT`s by their `typ`; it refuses a refresh with 400 and no words; its pages are programs, so
//! the test speaks to its API in their place.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use http::{Method, StatusCode};
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::parts::is_there;
use crate::process::{Process, address, free_ports, web_app};
use crate::report::{Column, Report};
use crate::until;
use crate::visitor::{Page, Visitor};

const T: Duration = Duration::from_secs(6);
const G: Duration = Duration::from_secs(2);
/// It counts whole seconds.
const ROUNDING: Duration = Duration::from_secs(1);

const GLEWLWYD: &str = "/usr/bin/glewlwyd";
/// Its tables, with an administrator whose password is `password`.
const TABLES: &str = "/usr/share/dbconfig-common/data/glewlwyd/install/sqlite3";

struct World {
    visitor: Visitor,
    api: String,
    app: String,
    folder: PathBuf,
    glewlwyd: Process,
    _web_app: Process,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl World {
    async fn start() -> Self {
        let [port] = free_ports();
        let api = format!("http://127.0.0.1:{port}/api");
        let issuer = format!("{api}/oidc");
        let folder = std::env::temp_dir().join(format!("tower-oidc-session-glewlwyd-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let config = include_str!("../glewlwyd/glewlwyd.conf").replace("$PORT", &port.to_string());
        std::fs::write(folder.join("glewlwyd.conf"), config.replace("$FOLDER", folder.to_str().unwrap())).unwrap();
        let made = Command::new("sqlite3")
            .arg(folder.join("glewlwyd.sqlite"))
            .arg(format!(".read {TABLES}"))
            .status()
            .expect("sqlite3 is there");
        assert!(made.success());
        let serve = r#"echo starts; exec "$0" --config-file="$1""#;
        let glewlwyd =
            Process::start(Command::new("sh").args(["-c", serve, GLEWLWYD]).arg(folder.join("glewlwyd.conf")));
        let web_app = Process::start(
            web_app()
                .env("OIDC_ISSUER", &issuer)
                .env("OIDC_CLIENT_ID", "web-app")
                .env("OIDC_CLIENT_SECRET", "web-app-secret")
                .env("OIDC_SCOPES", "openid")
                .env("LOGOUT_TOKEN_MISSING_EXP", "2m")
                .env("OP_SESSION_LIFETIME", format!("{}s", T.as_secs()))
                .env("ACCESS_TOKEN_LIFETIME", format!("{}s", G.as_secs())),
        );
        let app = address(&web_app);
        let world = Self { visitor: Visitor::new(), api, app, folder, glewlwyd, _web_app: web_app };
        world.configure(&issuer).await;
        until("web_app reaches the provider", async || world.get("/").await.status == StatusCode::OK).await;
        world
    }

    /// What an administrator does.
    async fn configure(&self, issuer: &str) {
        let admin = Visitor::new();
        let password = json!({"username": "admin", "password": "password"});
        until("Glewlwyd listens", async || admin.http.get(&self.api).send().await.is_ok()).await;
        let call = async |path: &str, body: &Value| {
            let page = admin.send_json(Method::POST, &format!("{}{path}", self.api), body).await;
            assert_eq!(page.status, StatusCode::OK, "{path}: {page:?}");
        };
        call("/auth/", &password).await;
        let mut plugin: Value = serde_json::from_str(include_str!("../glewlwyd/plugin.json")).unwrap();
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let parameters = plugin["parameters"].as_object_mut().unwrap();
        for (name, value) in [
            ("iss", json!(issuer)),
            ("key", json!(key.serialize_pem())),
            ("cert", json!(key.public_key_pem())),
            ("access-token-duration", json!(T.as_secs())),
            ("refresh-token-duration", json!(T.as_secs())),
        ] {
            parameters.insert(name.to_owned(), value);
        }
        call("/mod/plugin/", &plugin).await;
        let app = &self.app;
        let client = json!({
            "client_id": "web-app", "name": "web-app", "client_secret": "web-app-secret",
            "confidential": true, "enabled": true, "scope": ["openid"],
            "redirect_uri": [format!("{app}/auth/callback")],
            "authorization_type": ["code", "refresh_token", "id_token"],
            "token_endpoint_auth_method": ["client_secret_basic"],
            "post_logout_redirect_uris": format!("{app}/"),
            "backchannel_logout_uri": format!("{app}/auth/backchannel-logout"),
            "backchannel_logout_session_required": "1",
        });
        call("/client/", &client).await;
        let alice = json!({
            "username": "alice", "name": "Alice", "password": "alice", "enabled": true, "scope": ["openid", "g_profile"],
        });
        call("/user/", &alice).await;
    }

    async fn get(&self, path: &str) -> Page {
        self.visitor.get(&format!("{}{path}", self.app)).await
    }

    /// Signs in, as its page does, and gives the `sid`.
    async fn sign_in(&self) -> String {
        let login = format!("{}/auth/login?return_to=/me", self.app).parse().unwrap();
        let to_provider = self.visitor.send(Method::GET, &login, "text/html").await.location.unwrap();
        let password = json!({"username": "alice", "password": "alice"});
        let known = self.visitor.send_json(Method::POST, &format!("{}/auth/", self.api), &password).await;
        assert_eq!(known.status, StatusCode::OK, "{known:?}");
        let scope = json!({"scope": "openid"});
        let url = format!("{}/auth/grant/web-app", self.api);
        let granted = self.visitor.send_json(Method::PUT, &url, &scope).await;
        assert_eq!(granted.status, StatusCode::OK, "{granted:?}");
        let page = self.visitor.go(Method::GET, &format!("{to_provider}&g_continue")).await;
        assert_eq!((page.status, page.url.path()), (StatusCode::OK, "/me"), "{page:?}");
        page.json()["sid"].as_str().expect("its ID tokens have a sid").to_owned()
    }

    /// The user ends a session on Glewlwyd's page.
    async fn end_session(&self, sid: &str) {
        let url = format!("{}/oidc/session/{sid}", self.api);
        let page = self.visitor.send_json(Method::DELETE, &url, &Value::Null).await;
        assert_eq!(page.status, StatusCode::OK, "{page:?}");
    }

    async fn assert_ended(&self, reason: &str) {
        self.visitor.assert_ended(&self.app, reason).await;
    }

    /// Goes on for so long, as an active user.
    async fn stay_active(&self, duration: Duration) {
        self.visitor.stay_active(&self.app, G / 4, duration).await;
    }
}

#[tokio::test]
async fn sessions_live_as_long_as_refresh_tokens_do() {
    if !is_there("Glewlwyd", Path::new(GLEWLWYD)) {
        return;
    }
    let mut report = Report::of("Glewlwyd 2.7.5");
    let world = World::start().await;
    assert_eq!(world.get("/me").await.status, StatusCode::UNAUTHORIZED);
    let sid = world.sign_in().await;
    report.holds(Column::Login);

    // Active for twice the life of a refresh token, which rolls.
    world.stay_active(T * 2).await;
    report.is(Column::SignalExtends, "yes, its refresh tokens");
    report.holds(Column::Rotation);

    // The user ends it at the provider.
    world.end_session(&sid).await;
    // Its logout token has a thread of its own.
    until("a logout token comes", async || world.get("/poll").await.status != StatusCode::OK).await;
    world.assert_ended("back_channel_logout").await;
    report.is(Column::LogoutBySid, "yes, with `MissingExpiry::AcceptYoungerThan`");
    report.is(Column::LogoutBySub, "not sent");

    // Idle: nobody is told, and the next refresh is refused, without a word that says why. So nobody is served, and nothing ends;
    // people are shown the way to a new login.
    world.sign_in().await;
    sleep(T + ROUNDING).await;
    assert_eq!(world.get("/me").await.status, StatusCode::SERVICE_UNAVAILABLE);
    let page = world.visitor.go(Method::GET, &format!("{}/me", world.app)).await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(page.body.contains("/auth/login?return_to="), "{page:?}");
    report.is(Column::IdleEndSeen, "at the next refresh");
    report.is(Column::RefusedRefreshEnds, "a 400 without a word: nobody is served, and a page leads to the login");

    // An outage is no end.
    world.sign_in().await;
    world.glewlwyd.signal("STOP");
    sleep(G).await;
    assert_eq!(world.get("/poll").await.status, StatusCode::OK);
    world.glewlwyd.signal("CONT");
    assert_eq!(world.get("/me").await.status, StatusCode::OK);

    // A logout goes to the provider's page, which asks.
    let page = world.visitor.go(Method::POST, &format!("{}/auth/logout", world.app)).await;
    let asks = page.url.query().unwrap();
    assert!(page.url.path() == "/login.html" && asks.contains("prompt=end_session"), "{page:?}");
    assert_eq!(world.get("/me").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.get("/auth/session").await.json()["authenticated"], false);
}
