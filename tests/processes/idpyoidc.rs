//! idpyoidc, a Python library, as `tests/idpyoidc/op.py` makes a provider of it.
//!
//! Its logout tokens have no `typ`, no `sub` and a `sid` of some 330 characters, and it refuses what is over with `invalid_request`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::parts::{cache, is_there};
use crate::process::{Process, address, free_ports, web_app};
use crate::report::{Column, Report};
use crate::until;
use crate::visitor::{Page, Visitor};

const T: Duration = Duration::from_secs(6);
const G: Duration = Duration::from_secs(2);

struct World {
    visitor: Visitor,
    issuer: String,
    app: String,
    op: Process,
    _web_app: Process,
}

fn python() -> PathBuf {
    cache().join("idpyoidc-5.0.0/bin/python")
}

impl World {
    async fn start() -> Self {
        let [port] = free_ports();
        let issuer = format!("http://127.0.0.1:{port}");
        let web_app = Process::start(
            web_app()
                .env("OIDC_ISSUER", &issuer)
                .env("OIDC_CLIENT_ID", "web-app")
                .env("OIDC_CLIENT_SECRET", "web-app-secret-0123456789")
                .env("OIDC_SCOPES", "openid profile offline_access")
                .env("OP_SESSION_LIFETIME", format!("{}s", T.as_secs()))
                .env("ACCESS_TOKEN_LIFETIME", format!("{}s", G.as_secs())),
        );
        let app = address(&web_app);
        let op = Process::start(
            Command::new(python())
                .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/idpyoidc/op.py"))
                .env("PORT", port.to_string())
                .env("APP", &app)
                .env("SESSION_TTL", T.as_secs().to_string())
                .env("ACCESS_TTL", T.as_secs().to_string()),
        );
        let world = Self { visitor: Visitor::new(), issuer, app, op, _web_app: web_app };
        until("web_app reaches the provider", async || world.get("/").await.status == StatusCode::OK).await;
        world
    }

    async fn get(&self, path: &str) -> Page {
        self.visitor.get(&format!("{}{path}", self.app)).await
    }

    /// Ends all sessions, and says how many there were.
    async fn end_sessions(&self, notify: &str) -> u64 {
        let url = format!("{}/admin/end-session?notify={notify}", self.issuer).parse().unwrap();
        self.visitor.send(Method::POST, &url, "application/json").await.json()["ended"].as_u64().unwrap()
    }

    /// Signs in, and gives the `sid`.
    async fn sign_in(&self) -> Value {
        // It gives refresh tokens to those only who are asked for their consent (Core §11).
        let login = format!("{}/auth/login?prompt=consent&return_to=/me", self.app);
        let form = self.visitor.go(Method::GET, &login).await;
        let (_, rest) = form.body.split_once(r#"name="token" value=""#).unwrap_or_else(|| panic!("{form:?}"));
        let (token, _) = rest.split_once('"').unwrap();
        let url = format!("{}/verify/user", self.issuer).parse().unwrap();
        let fields = [("token", token), ("username", "alice"), ("password", "alice")];
        let page = self.visitor.post_form(&url, &fields).await;
        assert_eq!((page.status, page.url.path()), (StatusCode::OK, "/me"), "{page:?}");
        page.json()["sid"].clone()
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
async fn sessions_live_as_long_as_those_of_the_provider() {
    if !is_there("idpyoidc", &python()) {
        return;
    }
    let mut report = Report::of("idpyoidc 5.0.0, coordinated");
    let world = World::start().await;
    assert_eq!(world.get("/me").await.status, StatusCode::UNAUTHORIZED);
    let sid = world.sign_in().await;
    assert!(sid.as_str().unwrap().len() > 255 && sid.as_str().unwrap().ends_with('='), "{sid}");
    report.holds(Column::Login);

    // Active for twice the timeout: rotating refreshes keep the provider's session alive.
    world.stay_active(T * 2).await;
    report.holds(Column::SignalExtends);
    report.holds(Column::Rotation);

    // An administrator ends it.
    assert_eq!(world.end_sessions("1").await, 1);
    world.assert_ended("back_channel_logout").await;
    report.is(Column::LogoutBySub, "not sent");
    report.holds(Column::LogoutBySid);

    // Nobody is told. It refuses the next refresh with invalid_request, which may mean much else: once more, and it is a no.
    world.sign_in().await;
    assert_eq!(world.end_sessions("0").await, 1);
    assert_eq!(world.get("/poll").await.status, StatusCode::OK);
    sleep(G).await;
    world.assert_ended("refresh_token_rejected").await;
    report.is(Column::RefusedRefreshEnds, "yes, the second `invalid_request`");

    // A logout goes to the provider and back.
    world.sign_in().await;
    let page = world.visitor.go(Method::POST, &format!("{}/auth/logout", world.app)).await;
    assert_eq!((page.status, page.url.as_str()), (StatusCode::OK, &*format!("{}/", world.app)), "{page:?}");
    assert_eq!(world.get("/auth/session").await.json()["authenticated"], false);
    assert_eq!(world.end_sessions("0").await, 0, "it is over there, too");

    // An outage is no end.
    world.sign_in().await;
    world.op.signal("STOP");
    sleep(G).await;
    assert_eq!(world.get("/poll").await.status, StatusCode::OK);
    world.op.signal("CONT");
    assert_eq!(world.get("/me").await.status, StatusCode::OK);

    // Idle, with nothing but polling: the provider ends the session and says so.
    let quiet = Instant::now();
    while world.get("/poll").await.status == StatusCode::OK {
        assert!(quiet.elapsed() < T * 2, "polling keeps nobody signed in");
        sleep(G / 4).await;
    }
    assert!(quiet.elapsed() + G + Duration::from_secs(1) > T, "after {:?}", quiet.elapsed());
    until("its logout token arrives", async || world.get("/poll").await.json()["reason"] == "back_channel_logout")
        .await;
    report.is(Column::IdleEndSeen, "at once, by logout token");
}
