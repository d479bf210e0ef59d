//! npm's `oidc-provider`, with sessions coordinated as `tests/node-op/op.mjs` says.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::mutual_tls::{Authority, Certificate};
use crate::parts::{is_there, key_file};
use crate::process::{Process, address, free_ports, web_app};
use crate::report::{Column, Report};
use crate::until;
use crate::visitor::{Page, Visitor};

const T: Duration = Duration::from_secs(6);
const G: Duration = Duration::from_secs(2);

struct World {
    visitor: Visitor,
    admin: String,
    app: String,
    _processes: [Process; 2],
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node-op")
}

/// What kind of client `web_app` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    /// With keys, as the FAPI 2.0 Security Profile has it, which the provider enforces.
    Fapi2,
    /// The same with a certificate.
    Fapi2MutualTls,
    Secret,
}

impl World {
    async fn start() -> Self {
        Self::start_as(Client::Secret).await
    }

    async fn start_as(kind: Client) -> Self {
        let folder = folder();
        let [port, admin_port] = free_ports();
        let mut op = Command::new("node");
        op.arg("op.mjs")
            .current_dir(&folder)
            .env("PORT", port.to_string())
            .env("ADMIN_PORT", admin_port.to_string())
            .env("AUTOLOGIN", "alice")
            .env("SESSION_TTL", T.as_secs().to_string())
            .env("ACCESS_TTL", T.as_secs().to_string())
            .env("NODE_NO_WARNINGS", "1");
        let mut app = web_app();
        let mut issuer = format!("http://127.0.0.1:{port}");
        let mut visitor = Visitor::new();
        let mut certificate = None;
        match kind {
            Client::Fapi2MutualTls => {
                issuer = issuer.replace("http:", "https:");
                let (authority, own) = (Authority::new(), Certificate::new("oidc-provider"));
                let file = |name: &str, pem: &str| own.write_beside(name, pem);
                op.env("FAPI2", "on")
                    .env("ALG", "PS256")
                    .env("TLS_CERT", file("provider.pem", &authority.certificate))
                    .env("TLS_KEY", file("provider-key.pem", &authority.key));
                app.env("FAPI2", "on")
                    .env("SSL_CERT_FILE", file("root.pem", &authority.root))
                    .env("CLIENT_AUTH", "self_signed_tls_client_auth")
                    .env("CLIENT_CERT", &own.chain)
                    .env("CLIENT_KEY", &own.key);
                visitor = Visitor::trusting(&authority.root);
                certificate = Some(own.jwk());
            }
            Client::Fapi2 => {
                op.env("FAPI2", "on").env("ALG", "PS256");
                app.env("FAPI2", "on")
                    .env("CLIENT_AUTH", "private_key_jwt")
                    .env("CLIENT_KEY", key_file("client-key"))
                    .env("DPOP", key_file("dpop"));
            }
            Client::Secret => _ = app.env("OIDC_CLIENT_SECRET", "web-app-secret"),
        }
        app.env("OIDC_ISSUER", &issuer)
            .env("OIDC_CLIENT_ID", "web-app")
            .env("OP_SESSION_LIFETIME", format!("{}s", T.as_secs()))
            .env("ACCESS_TOKEN_LIFETIME", format!("{}s", G.as_secs()));
        let op = Process::start_until(&mut op, |line| line.contains("ready"));
        let web_app = Process::start(&mut app);
        let app = address(&web_app);
        let world = Self {
            visitor,
            admin: format!("http://127.0.0.1:{admin_port}"),
            app: app.clone(),
            _processes: [op, web_app],
        };
        let mut client = json!({
            "client_id": "web-app",
            "redirect_uris": [format!("{app}/auth/callback")],
            "post_logout_redirect_uris": [format!("{app}/")],
            "backchannel_logout_uri": format!("{app}/auth/backchannel-logout"),
            "backchannel_logout_session_required": true,
            "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
        });
        let more = match kind {
            Client::Fapi2 => json!({
                "token_endpoint_auth_method": "private_key_jwt", "token_endpoint_auth_signing_alg": "ES256",
                "jwks_uri": format!("{app}/auth/jwks.json"), "dpop_bound_access_tokens": true,
                "require_pushed_authorization_requests": true,
            }),
            Client::Fapi2MutualTls => json!({
                "token_endpoint_auth_method": "self_signed_tls_client_auth", "jwks": {"keys": [certificate]},
                "tls_client_certificate_bound_access_tokens": true, "require_pushed_authorization_requests": true,
            }),
            Client::Secret => {
                json!({"client_secret": "web-app-secret", "token_endpoint_auth_method": "client_secret_basic"})
            }
        };
        client.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        world.admin(&Method::POST, "/clients", &client.to_string()).await;
        until("web_app reaches the provider", async || world.get("/").await.status == StatusCode::OK).await;
        world
    }

    async fn admin(&self, method: &Method, path: &str, body: &str) -> Value {
        let request = self.visitor.http.request(method.clone(), format!("{}{path}", self.admin)).body(body.to_owned());
        let answer = request.send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    async fn events(&self, kind: &str) -> Vec<Value> {
        self.admin(&Method::GET, &format!("/events?kind={kind}"), "").await.as_array().unwrap().clone()
    }

    async fn get(&self, path: &str) -> Page {
        self.visitor.get(&format!("{}{path}", self.app)).await
    }

    async fn sign_in(&self) {
        let page = self.visitor.go(Method::GET, &format!("{}/me", self.app)).await;
        assert_eq!((page.status, page.url.path()), (StatusCode::OK, "/me"), "{page:?}");
        assert_eq!(page.json()["sub"], "alice");
    }

    async fn assert_ended(&self, reason: &str) {
        self.visitor.assert_ended(&self.app, reason).await;
    }
}

#[tokio::test]
async fn sessions_live_as_long_as_those_of_the_provider() {
    as_long_as_the_provider_says(Client::Secret, "npm oidc-provider 9, coordinated").await;
}

#[tokio::test]
async fn the_same_with_the_profile_of_fapi_2() {
    as_long_as_the_provider_says(Client::Fapi2, "npm oidc-provider 9, FAPI 2.0").await;
}

#[tokio::test]
async fn the_same_with_a_certificate() {
    as_long_as_the_provider_says(Client::Fapi2MutualTls, "npm oidc-provider 9, FAPI 2.0 with mutual TLS").await;
}

async fn as_long_as_the_provider_says(client: Client, name: &'static str) {
    if !is_there("oidc-provider", &folder().join("node_modules/oidc-provider")) {
        return;
    }
    let mut report = Report::of(name);
    let world = World::start_as(client).await;
    assert_eq!(world.get("/me").await.status, StatusCode::UNAUTHORIZED);
    world.sign_in().await;
    report.holds(Column::Login);

    // Active for twice the timeout: rotating refreshes keep the provider's session alive.
    world.visitor.stay_active(&world.app, G / 4, T * 2).await;
    let extended = world.events("session.extended").await;
    let refreshes = extended.iter().filter(|event| event["grant_type"] == "refresh_token").count();
    assert!((4..=6).contains(&refreshes), "{refreshes} refreshes");
    report.holds(Column::SignalExtends);
    report.holds(Column::Rotation);
    match client {
        Client::Fapi2 => {
            report.holds(Column::PrivateKeyJwt);
            report.holds(Column::Pushed);
            report.is(Column::Dpop, "yes, with nonces");
        }
        Client::Fapi2MutualTls => {
            report.holds(Column::Pushed);
            report.holds(Column::MutualTls);
        }
        Client::Secret => {}
    }

    // An administrator ends it: the logout token arrives, and the next request is refused.
    assert_eq!(world.admin(&Method::POST, "/end-session?sub=alice", "").await["ended"], 1);
    assert_eq!(world.events("backchannel.success").await.len(), 1);
    world.assert_ended("back_channel_logout").await;
    report.holds(Column::LogoutBySid);

    // Nobody is told: the next refresh is refused.
    world.sign_in().await;
    assert_eq!(world.admin(&Method::POST, "/end-session?sub=alice&notify=0", "").await["ended"], 1);
    assert_eq!(world.get("/poll").await.status, StatusCode::OK);
    sleep(G).await;
    world.assert_ended("refresh_token_rejected").await;
    report.holds(Column::RefusedRefreshEnds);

    // An outage is no end.
    world.sign_in().await;
    world.admin(&Method::POST, "/fault", r#"{"mode":"status","path":"/token"}"#).await;
    sleep(G).await;
    assert_eq!(world.get("/me").await.status, StatusCode::OK);
    world.admin(&Method::POST, "/fault", "{}").await;
    sleep(Duration::from_millis(1100)).await;
    assert_eq!(world.get("/me").await.status, StatusCode::OK);

    // New keys in the middle of it.
    world.admin(&Method::POST, "/rotate-keys?keep=0", "").await;
    sleep(G).await;
    assert_eq!(world.get("/me").await.status, StatusCode::OK);

    // Idle, with nothing but polling: the provider ends the session and says so.
    let told = world.events("backchannel.success").await.len();
    let quiet = Instant::now();
    let refusal = loop {
        let page = world.get("/poll").await;
        if page.status == StatusCode::UNAUTHORIZED {
            break page;
        }
        assert!(quiet.elapsed() < T * 2, "polling keeps nobody signed in");
        sleep(G / 4).await;
    };
    assert!(quiet.elapsed() + G + Duration::from_secs(1) > T, "after {:?}", quiet.elapsed());
    until("the provider ends it too", async || {
        world.events("session.ended").await.last().is_some_and(|event| event["reason"] == "idle")
    })
    .await;
    until("its logout token arrives", async || world.events("backchannel.success").await.len() > told).await;
    // Polling is refused at T by the application's own clock, unless the token was faster.
    let refusal = if refusal.json()["error"] == "not_confirmed" { world.get("/poll").await } else { refusal };
    assert_eq!(refusal.json()["reason"], "back_channel_logout");
    report.is(Column::IdleEndSeen, "at once, by logout token");
}

#[tokio::test]
async fn a_logout_goes_to_the_provider_and_back() {
    if !is_there("oidc-provider", &folder().join("node_modules/oidc-provider")) {
        return;
    }
    let world = World::start().await;
    world.sign_in().await;
    let page = world.visitor.go(Method::POST, &format!("{}/auth/logout", world.app)).await;
    // This provider asks; the session here is over all the same.
    assert_eq!((page.status, page.url.path()), (StatusCode::OK, "/session/end"), "{page:?}");
    assert_eq!(world.get("/me").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.get("/auth/session").await.json()["authenticated"], false);
}
