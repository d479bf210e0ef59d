//! `LemonLDAP::NG` 2.16, as Debian 12 has it: it tells applications nothing, so only a refused refresh does.
//!
//! By itself it does not count refreshes as activity. `tests/lemonldap/Tests/Coordinate.pm` makes it do so.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use http::{Method, StatusCode};
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::parts::is_there;
use crate::process::{Process, address, free_ports, web_app};
use crate::report::{Column, Report};
use crate::until;
use crate::visitor::{Page, Visitor};

const T: Duration = Duration::from_secs(6);
const G: Duration = Duration::from_secs(2);
/// It counts whole seconds, and looks at a session's age only when somebody uses it.
const ROUNDING: Duration = Duration::from_secs(2);

const PORTAL: &str = "/usr/share/lemonldap-ng/portal/htdocs/index.psgi";
const SESSIONS: &str = "/usr/share/lemonldap-ng/bin/lemonldap-ng-sessions";

struct World {
    visitor: Visitor,
    issuer: String,
    app: String,
    folder: PathBuf,
    _processes: [Process; 2],
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lemonldap")
}

impl World {
    async fn start(plugin: &str) -> Self {
        let [port] = free_ports();
        let issuer = format!("http://127.0.0.1:{port}");
        let web_app = Process::start(
            web_app()
                .env("OIDC_ISSUER", &issuer)
                .env("OIDC_CLIENT_ID", "web-app")
                .env("OIDC_CLIENT_SECRET", "web-app-secret")
                .env("OP_SESSION_LIFETIME", format!("{}s", T.as_secs()))
                .env("ACCESS_TOKEN_LIFETIME", format!("{}s", G.as_secs())),
        );
        let app = address(&web_app);

        let folder = std::env::temp_dir().join(format!("tower-oidc-session-lemonldap-{}-{port}", std::process::id()));
        for name in ["conf", "sessions", "persistent", "locks", "cache"] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
        }
        let addresses = |text: &str| {
            let text = text.replace("$FOLDER", folder.to_str().unwrap());
            text.replace("$ISSUER", &issuer).replace("$APP", &app)
        };
        let mut config: Value = serde_json::from_str(&addresses(include_str!("../lemonldap/lmConf-1.json"))).unwrap();
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        config["oidcServicePrivateKeySig"] = json!(key.serialize_pem());
        config["oidcServicePublicKeySig"] = json!(key.public_key_pem());
        config["timeoutActivity"] = json!(T.as_secs());
        config["customPlugins"] = json!(plugin);
        std::fs::write(folder.join("conf/lmConf-1.json"), config.to_string()).unwrap();
        std::fs::write(folder.join("lemonldap-ng.ini"), addresses(include_str!("../lemonldap/lemonldap-ng.ini")))
            .unwrap();

        // It does not say when it listens.
        let serve = r#"echo starts; exec plackup -E deployment --host 127.0.0.1 --port "$0" "$1""#;
        let lemonldap = Process::start(
            with_config(&mut Command::new("sh"), &folder)
                .args(["-c", serve, &port.to_string(), PORTAL])
                .env("PERL5LIB", sources()),
        );
        let world = Self { visitor: Visitor::new(), issuer, app, folder, _processes: [lemonldap, web_app] };
        until("web_app reaches the provider", async || world.get("/").await.status == StatusCode::OK).await;
        world
    }

    /// Its administrator's command.
    fn sessions(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("perl");
        // As root it would go on as www-data.
        with_config(&mut command, &self.folder).args([SESSIONS, "--user", "root", "--group", "root"]).args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Ends the sessions of all users, and says how many there were.
    fn end_sessions(&self) -> usize {
        let ids = self.sessions(&["search", "--where", "_session_kind=SSO", "--id-only"]);
        for id in ids.lines() {
            self.sessions(&["delete", id]);
        }
        ids.lines().count()
    }

    async fn get(&self, path: &str) -> Page {
        self.visitor.get(&format!("{}{path}", self.app)).await
    }

    async fn sign_in(&self) {
        let form = self.visitor.go(Method::GET, &format!("{}/me", self.app)).await;
        let page = self.visitor.post_form(&form.url, &[("user", "dwho"), ("password", "dwho")]).await;
        assert_eq!((page.status, page.url.path()), (StatusCode::OK, "/me"), "{page:?}");
        let me = page.json();
        assert_eq!((&me["sub"], &me["sid"]), (&json!("dwho"), &Value::Null), "{me}");
    }

    async fn assert_ended(&self, reason: &str) {
        self.visitor.assert_ended(&self.app, reason).await;
    }
}

fn with_config<'a>(command: &'a mut Command, folder: &Path) -> &'a mut Command {
    command.env("LLNG_DEFAULTCONFFILE", folder.join("lemonldap-ng.ini"))
}

#[tokio::test]
async fn a_plugin_makes_refreshes_count_as_activity() {
    if !is_there("LemonLDAP::NG", Path::new(PORTAL)) {
        return;
    }
    let mut report = Report::of("LemonLDAP::NG 2.16");
    let world = World::start("Tests::Coordinate").await;
    assert_eq!(world.get("/me").await.status, StatusCode::UNAUTHORIZED);
    world.sign_in().await;
    report.holds(Column::Login);
    let discovery = world.visitor.get(&format!("{}/.well-known/openid-configuration", world.issuer)).await.json();
    assert_eq!(discovery["backchannel_logout_supported"], false, "{discovery}");
    report.is(Column::LogoutBySid, "front-channel only");
    report.is(Column::LogoutBySub, "front-channel only");

    // Active for twice the timeout, with one refresh token that stays.
    world.visitor.stay_active(&world.app, G / 4, T * 2).await;
    report.is(Column::SignalExtends, "with a plugin");
    report.is(Column::Rotation, "no, the refresh token stays");

    // Idle: nobody is told, and the next refresh is refused.
    sleep(T + ROUNDING).await;
    world.assert_ended("refresh_token_rejected").await;
    report.is(Column::IdleEndSeen, "at the next refresh");

    // An administrator ends it.
    world.sign_in().await;
    assert!(world.end_sessions() >= 1, "idle ones stay until somebody sweeps them up");
    assert_eq!(world.get("/poll").await.status, StatusCode::OK, "nobody is told");
    sleep(G).await;
    world.assert_ended("refresh_token_rejected").await;
    report.holds(Column::RefusedRefreshEnds);

    // A logout goes to the provider and back.
    world.sign_in().await;
    let page = world.visitor.go(Method::POST, &format!("{}/auth/logout", world.app)).await;
    assert_eq!((page.status, page.url.as_str()), (StatusCode::OK, &*format!("{}/", world.app)), "{page:?}");
    assert_eq!(world.get("/auth/session").await.json()["authenticated"], false);
    assert_eq!(world.end_sessions(), 0);
}

#[tokio::test]
async fn without_it_active_users_are_signed_out_as_the_provider_does() {
    if !is_there("LemonLDAP::NG", Path::new(PORTAL)) {
        return;
    }
    let world = World::start("").await;
    world.sign_in().await;
    let begin = Instant::now();
    while world.get("/me").await.status == StatusCode::OK {
        assert!(begin.elapsed() < T + G + ROUNDING * 2, "refreshes do not count as activity");
        sleep(G / 4).await;
    }
    assert!(begin.elapsed() + ROUNDING > T, "after {:?}", begin.elapsed());
    assert_eq!(world.get("/auth/session").await.json()["authenticated"], false);
}
