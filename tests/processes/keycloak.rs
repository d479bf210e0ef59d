//! Keycloak, whose sessions end when they have been idle for the realm's "SSO Session Idle".

use std::fs;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::future::join;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use url::Url;

use crate::parts::{cache, is_there, key_file};
use crate::process::{Process, address, free_ports, web_app};
use crate::report::{Column, Report};
use crate::until;
use crate::visitor::{Page, Visitor};

/// "SSO Session Idle" of `tests/keycloak/realm.json`.
const T: Duration = Duration::from_secs(12);
const G: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_secs(1);
/// Keycloak takes no longer to start.
const PATIENCE: Duration = Duration::from_secs(180);
const RELEASE: &str = "26.7.3";

const APP: usize = 0;
const APP2: usize = 1;
const CLIENTS: [&str; 2] = ["app", "app2"];

/// The example of RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// A copy of the distribution, with a database of its own, that is removed with the test.
struct Keycloak {
    home: PathBuf,
    port: u16,
    shell: Option<Child>,
}

impl Drop for Keycloak {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.home);
    }
}

fn distribution() -> PathBuf {
    cache().join(format!("keycloak-{RELEASE}"))
}

impl Keycloak {
    async fn start(port: u16, realm: &str) -> Self {
        let distribution = distribution();
        let home = std::env::temp_dir().join(format!("tower-oidc-session-{}-{port}", std::process::id()));
        let mut keycloak = Self { home: home.clone(), port, shell: None };
        let copied = Command::new("cp").arg("-r").args([&distribution, &home]).status().unwrap();
        assert!(copied.success(), "{} can be copied to {}", distribution.display(), home.display());
        fs::create_dir_all(home.join("data/import")).unwrap();
        fs::write(home.join("data/import/realm.json"), realm).unwrap();
        keycloak.run().await;
        keycloak
    }

    /// Starts it, the first time or again.
    async fn run(&mut self) {
        let port = self.port;
        let log = fs::File::options().create(true).append(true).open(self.home.join("log")).unwrap();
        // The shell reads a pipe that the test holds, so that nothing is left whatever becomes of the test.
        let mut shell = Command::new("sh");
        shell.args(["-c", "bin/kc.sh \"$@\" </dev/null & cat; kill -s KILL 0", "keycloak"]);
        shell.args(["start", "--optimized", "--import-realm", "--cache=local", "--http-enabled=true"]);
        shell.args(["--http-host=127.0.0.1", &format!("--http-port={port}")]);
        shell.arg(format!("--hostname=http://127.0.0.1:{port}"));
        shell.env("KC_BOOTSTRAP_ADMIN_USERNAME", "admin").env("KC_BOOTSTRAP_ADMIN_PASSWORD", "admin");
        shell.current_dir(&self.home).process_group(0);
        shell.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        self.shell = Some(shell.spawn().unwrap());
        let discovery = format!("{}/.well-known/openid-configuration", self.issuer());
        let (http, begin) = (reqwest::Client::new(), Instant::now());
        while !http.get(&discovery).send().await.is_ok_and(|answer| answer.status() == StatusCode::OK) {
            assert!(begin.elapsed() < PATIENCE, "Keycloak does not start: {}", self.log());
            sleep(PAUSE / 10).await;
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }

    fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}/realms/app", self.port)
    }

    /// Ends it as a power failure would, and leaves nobody at its port.
    fn kill(&mut self) {
        let Some(mut shell) = self.shell.take() else { return };
        drop(shell.stdin.take());
        let _ = shell.wait();
        while TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
            std::thread::sleep(PAUSE / 100);
        }
    }
}

struct World {
    keycloak: Keycloak,
    apps: [Process; 2],
    /// A client to which Keycloak's policies for FAPI 2.0 apply, behind a proxy that ends TLS.
    bank: Process,
    administrator: Visitor,
}

/// Where browsers find that.
const BANK: &str = "https://shop.example";

impl World {
    async fn start() -> Self {
        let [port] = free_ports();
        let issuer = format!("http://127.0.0.1:{port}/realms/app");
        // The applications come first: they wait for their provider, which has to know their addresses.
        let apps = CLIENTS.map(|client| {
            let mut app = web_app();
            app.env("OIDC_ISSUER", &issuer)
                .env("OIDC_CLIENT_ID", client)
                .env("PROVIDER_TIMEOUT", "2s")
                .env("OP_SESSION_LIFETIME", format!("{}s", T.as_secs()))
                .env("ACCESS_TOKEN_LIFETIME", format!("{}s", G.as_secs()));
            // The second has keys: it signs its requests, pushes them, and gets tokens that are bound (DPoP).
            if client == CLIENTS[APP2] {
                app.env("CLIENT_AUTH", "private_key_jwt")
                    .env("CLIENT_KEY", key_file("keycloak-client"))
                    .env("DPOP", key_file("keycloak-dpop"))
                    .env("PAR", "required");
            } else {
                app.env("OIDC_CLIENT_SECRET", format!("{client}-secret"));
            }
            Process::start(&mut app)
        });
        let bank = Process::start(
            web_app()
                .env("OIDC_ISSUER", &issuer)
                .env("OIDC_CLIENT_ID", "fapi")
                .env("PUBLIC_URL", BANK)
                .env("FAPI2", "on")
                .env("CLIENT_AUTH", "private_key_jwt")
                .env("CLIENT_KEY", key_file("keycloak-bank"))
                .env("DPOP", key_file("keycloak-bank-dpop"))
                // Keycloak makes its key for PS256 when it signs by it first.
                .env("PROVIDER_TIMEOUT", "10s")
                .env("OP_SESSION_LIFETIME", format!("{}s", T.as_secs()))
                .env("ACCESS_TOKEN_LIFETIME", format!("{}s", G.as_secs())),
        );
        let realm = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keycloak/realm.json");
        let mut realm = fs::read_to_string(realm).unwrap();
        for (app, client) in apps.iter().zip(CLIENTS) {
            realm = realm.replace(&format!("http://{client}.invalid"), &address(app));
        }
        realm = realm.replace("http://fapi.invalid", &address(&bank));
        let keycloak = Keycloak::start(port, &realm).await;
        let world = Self { keycloak, apps, bank, administrator: Visitor::new() };
        for app in [APP, APP2] {
            let page = async || Visitor::new().get(&world.at(app, "/me")).await;
            until("the application reaches its provider", async || page().await.status == 401).await;
        }
        let bank = Visitor::new().proxied(BANK, &address(&world.bank));
        until("so does that of the bank", async || bank.get(&format!("{BANK}/me")).await.status == 401).await;
        world
    }

    fn at(&self, app: usize, path: &str) -> String {
        format!("{}{path}", address(&self.apps[app]))
    }

    async fn api(&self, method: Method, path: &str, body: Value) -> Value {
        let origin = format!("http://127.0.0.1:{}", self.keycloak.port);
        let form = "grant_type=password&client_id=admin-cli&username=admin&password=admin";
        let http = &self.administrator.http;
        let token = http.post(format!("{origin}/realms/master/protocol/openid-connect/token"));
        let token = token.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form).send().await.unwrap();
        let token: Value = serde_json::from_str(&token.text().await.unwrap()).unwrap();
        let request = http.request(method, format!("{origin}/admin/realms/app{path}"));
        let request = request.header(AUTHORIZATION, format!("Bearer {}", token["access_token"].as_str().unwrap()));
        let request = if body.is_null() {
            request
        } else {
            request.header(CONTENT_TYPE, "application/json").body(body.to_string())
        };
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    async fn list(&self, path: &str) -> Vec<Value> {
        self.api(Method::GET, path, Value::Null).await.as_array().unwrap().clone()
    }

    async fn user_id(&self, name: &str) -> String {
        let users = self.list(&format!("/users?exact=true&username={name}")).await;
        users[0]["id"].as_str().unwrap().to_owned()
    }

    /// A navigation that has to meet the login form, which is filled in.
    async fn sign_in(&self, visitor: &Visitor, app: usize, user: &str) {
        let page = visitor.go(Method::GET, &self.at(app, "/me")).await;
        assert_is_login_form(&page);
        let page = visitor.post_form(&action(&page), &[("username", user), ("password", user)]).await;
        assert_eq!((page.status, page.url.as_str()), (StatusCode::OK, self.at(app, "/me").as_str()), "{page:?}");
        assert_eq!(page.json()["preferred_username"], user);
    }

    /// A navigation that asks for nothing, since Keycloak knows the visitor.
    async fn enter(&self, visitor: &Visitor, app: usize) {
        let page = visitor.go(Method::GET, &self.at(app, "/me")).await;
        assert_eq!((page.status, page.url.as_str()), (StatusCode::OK, self.at(app, "/me").as_str()), "{page:?}");
    }

    /// A visitor who is signed in to both applications.
    async fn visitor(&self, user: &str) -> Visitor {
        let visitor = Visitor::new();
        self.sign_in(&visitor, APP, user).await;
        self.enter(&visitor, APP2).await;
        visitor
    }

    /// The login of Keycloak's account console.
    fn console_login(&self, console: &str, prompt: Option<&str>) -> Url {
        let mut login = Url::parse(&format!("{}/protocol/openid-connect/auth", self.keycloak.issuer())).unwrap();
        let request = [
            ("client_id", "account-console"),
            ("redirect_uri", console),
            ("response_type", "code"),
            ("scope", "openid"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ];
        login.query_pairs_mut().extend_pairs(request).extend_pairs(prompt.map(|prompt| ("prompt", prompt)));
        login
    }

    async fn sid(&self, visitor: &Visitor) -> String {
        visitor.get(&self.at(APP, "/me")).await.json()["sid"].as_str().unwrap().to_owned()
    }

    async fn assert_lives(&self, visitor: &Visitor, app: usize) {
        let page = visitor.get(&self.at(app, "/me")).await;
        assert_eq!(page.status, StatusCode::OK, "{page:?}");
    }

    async fn assert_ended(&self, visitor: &Visitor, app: usize, reason: &str) {
        let page = visitor.get(&self.at(app, "/me")).await;
        assert_eq!((page.status, &page.json()["reason"]), (StatusCode::UNAUTHORIZED, &json!(reason)));
    }

    /// Requests in applications for a time.
    async fn stay_active(&self, visitor: &Visitor, apps: &[usize], time: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < time {
            for app in apps {
                self.assert_lives(visitor, *app).await;
            }
            sleep(PAUSE).await;
        }
    }

    /// Why Keycloak refused the last refresh.
    async fn refusal(&self, client: &str) -> Value {
        let refusals = self.list(&format!("/events?type=REFRESH_TOKEN_ERROR&client={client}")).await;
        refusals.first().map(|refusal| refusal["details"]["reason"].clone()).unwrap_or_default()
    }
}

#[track_caller]
fn assert_is_login_form(page: &Page) {
    // A request that was pushed is sent on to where it is dealt with.
    let paths = ["/realms/app/protocol/openid-connect/auth", "/realms/app/login-actions/authenticate"];
    assert!(paths.contains(&page.url.path()), "{page:?}");
    assert!(page.status == StatusCode::OK && page.body.contains("kc-form-login"), "{page:?}");
}

/// What stands between quotes after `before` in a page.
fn quoted(page: &Page, before: &str) -> String {
    let (_, rest) = page.body.split_once(&format!("{before}\"")).unwrap_or_else(|| panic!("{before} in {page:?}"));
    rest.split('"').next().unwrap().replace("&amp;", "&")
}

/// Where the form of a page goes.
fn action(page: &Page) -> Url {
    page.url.join(&quoted(page, " action=")).unwrap()
}

#[tokio::test]
async fn sessions_live_as_long_as_those_of_the_realm() {
    if !is_there("Keycloak", &distribution().join("bin/kc.sh")) {
        return;
    }
    let mut report = Report::of("Keycloak 26.7.3");
    let mut world = World::start().await;
    activity_extends(&world, &mut report).await;
    idleness_ends(&world, &mut report).await;
    a_logout_in_one_application_ends_the_other(&world, &mut report).await;
    a_sign_out_with_a_revocation_before_it_ends_the_other(&world).await;
    an_administrator_ends_sessions(&world, &mut report).await;
    the_same_browser_signs_in_again(&world).await;
    an_authentication_elsewhere_ends_nothing(&world).await;
    the_account_console_ends_sessions(&world).await;
    a_disabled_user_is_refused(&world, &mut report).await;
    keys_rotate(&world, &mut report).await;
    its_policies_for_fapi_are_kept(&world).await;
    an_outage_is_no_end(&mut world).await;
}

/// What the profile `fapi-2-dpop-security-profile` enforces.
async fn its_policies_for_fapi_are_kept(world: &World) {
    let alice = Visitor::new().proxied(BANK, &address(&world.bank));
    // A request that is not pushed is refused.
    let callback = format!("{BANK}/auth/callback");
    let mut plain = Url::parse(&format!("{}/protocol/openid-connect/auth", world.keycloak.issuer())).unwrap();
    let request = [("client_id", "fapi"), ("redirect_uri", &*callback), ("response_type", "code"), ("scope", "openid")];
    plain.query_pairs_mut().extend_pairs(request);
    let page = alice.send(Method::GET, &plain, "text/html").await;
    let refusal = page.location.as_ref().and_then(Url::query).unwrap_or_default();
    assert!(refusal.contains("error=invalid_request") || page.status == StatusCode::BAD_REQUEST, "{page:?}");
    let page = alice.go(Method::GET, &format!("{BANK}/me")).await;
    assert_is_login_form(&page);
    let page = alice.post_form(&action(&page), &[("username", "alice"), ("password", "alice")]).await;
    assert_eq!((page.status, page.url.as_str()), (StatusCode::OK, &*format!("{BANK}/me")), "{page:?}");
    let begin = Instant::now();
    while begin.elapsed() < T * 3 / 2 {
        let page = alice.get(&format!("{BANK}/me")).await;
        assert_eq!(page.status, StatusCode::OK, "{page:?}");
        sleep(PAUSE).await;
    }
    let user = world.user_id("alice").await;
    world.api(Method::POST, &format!("/users/{user}/logout"), Value::Null).await;
    let page = alice.get(&format!("{BANK}/me")).await;
    assert_eq!((page.status, &page.json()["reason"]), (StatusCode::UNAUTHORIZED, &json!("back_channel_logout")));
}

async fn activity_extends(world: &World, report: &mut Report) {
    let alice = world.visitor("alice").await;
    report.holds(Column::Login);
    // The first click in the other application comes late, and is confirmed.
    world.stay_active(&alice, &[APP], T * 3 / 4).await;
    world.assert_lives(&alice, APP2).await;
    world.stay_active(&alice, &[APP], T * 9 / 4).await;
    // A refresh token lives no longer than the idle time, whatever happens elsewhere: a script is refused.
    world.assert_ended(&alice, APP2, "refresh_token_rejected").await;
    assert_eq!(world.refusal("app2").await, "Token is not active");
    // The session was extended past three idle times, so that a click asks for nothing. The refusal cost nobody else.
    world.enter(&alice, APP2).await;
    world.assert_lives(&alice, APP).await;
    report.holds(Column::SignalExtends);
    // Of the second application Keycloak asks for all three.
    for column in [Column::PrivateKeyJwt, Column::Pushed, Column::Dpop] {
        report.holds(column);
    }
}

async fn idleness_ends(world: &World, report: &mut Report) {
    let alice = world.visitor("alice").await;
    sleep(T + PAUSE).await;
    // Keycloak says nothing by itself; it refuses whoever asks.
    world.assert_ended(&alice, APP, "refresh_token_rejected").await;
    assert_eq!(world.refusal("app").await, "Token is not active");
    assert_is_login_form(&alice.go(Method::GET, &world.at(APP, "/me")).await);
    assert_is_login_form(&alice.go(Method::GET, &world.at(APP2, "/me")).await);
    report.is(Column::IdleEndSeen, "the next click");
}

async fn a_logout_in_one_application_ends_the_other(world: &World, report: &mut Report) {
    let alice = world.visitor("alice").await;
    let page = alice.go(Method::POST, &world.at(APP, "/auth/logout")).await;
    assert_eq!((page.status, page.url.as_str()), (StatusCode::OK, world.at(APP, "/").as_str()), "{page:?}");
    assert_eq!(alice.get(&world.at(APP, "/me")).await.status, StatusCode::UNAUTHORIZED);
    world.assert_ended(&alice, APP2, "back_channel_logout").await;
    assert_is_login_form(&alice.go(Method::GET, &world.at(APP2, "/me")).await);
    report.holds(Column::LogoutBySid);
}

/// Keycloak detaches a client from the session when its refresh token is revoked. The others hear of the sign-out all the
/// same.
async fn a_sign_out_with_a_revocation_before_it_ends_the_other(world: &World) {
    let revocations = async || world.list("/events?type=REVOKE_GRANT&client=app").await.len();
    let before = revocations().await;
    let alice = world.visitor("alice").await;
    let page = alice.send(Method::POST, &Url::parse(&world.at(APP, "/auth/logout")).unwrap(), "text/html").await;
    until("the refresh token is revoked", async || revocations().await > before).await;
    world.assert_lives(&alice, APP2).await;
    let page = alice.go(Method::GET, page.location.unwrap().as_str()).await;
    assert_eq!((page.status, page.url.as_str()), (StatusCode::OK, world.at(APP, "/").as_str()), "{page:?}");
    world.assert_ended(&alice, APP2, "back_channel_logout").await;
    assert_is_login_form(&alice.go(Method::GET, &world.at(APP, "/me")).await);
}

/// After an end by an administrator the user comes back at once, in the same second perhaps. Some versions of Keycloak give
/// the browser's next session the same `sid`; this one does not.
async fn the_same_browser_signs_in_again(world: &World) {
    let alice = world.visitor("alice").await;
    for all in [false, true] {
        let path = if all {
            (Method::POST, format!("/users/{}/logout", world.user_id("alice").await))
        } else {
            (Method::DELETE, format!("/sessions/{}", world.sid(&alice).await))
        };
        world.api(path.0, &path.1, Value::Null).await;
        world.assert_ended(&alice, APP, "back_channel_logout").await;
        world.assert_ended(&alice, APP2, "back_channel_logout").await;
        world.sign_in(&alice, APP, "alice").await;
        world.enter(&alice, APP2).await;
    }
    world.stay_active(&alice, &[APP, APP2], G * 2).await;
}

/// `prompt=login` in another application: the session has a later `auth_time` from then on, also in refreshed ID tokens.
async fn an_authentication_elsewhere_ends_nothing(world: &World) {
    let alice = world.visitor("alice").await;
    let before = alice.get(&world.at(APP, "/me")).await.json();
    sleep(PAUSE * 2).await;
    let console = format!("{}/account/", world.keycloak.issuer());
    let form = alice.go(Method::GET, world.console_login(&console, Some("login")).as_str()).await;
    assert_is_login_form(&form);
    let page = alice.post_form(&action(&form), &[("username", "alice"), ("password", "alice")]).await;
    assert!(page.url.as_str().starts_with(&console), "{page:?}");
    world.stay_active(&alice, &[APP, APP2], G * 3).await;
    let after = alice.get(&world.at(APP, "/me")).await.json();
    assert_eq!(
        (&before["sid"], &before["auth_time"]),
        (&after["sid"], &after["auth_time"]),
        "it is this session's login"
    );
}

async fn an_administrator_ends_sessions(world: &World, report: &mut Report) {
    // One session of two.
    let (alice, elsewhere) = (world.visitor("alice").await, world.visitor("alice").await);
    let session = format!("/sessions/{}", world.sid(&alice).await);
    world.api(Method::DELETE, &session, Value::Null).await;
    world.assert_ended(&alice, APP, "back_channel_logout").await;
    world.assert_ended(&alice, APP2, "back_channel_logout").await;
    world.assert_lives(&elsewhere, APP).await;
    world.assert_lives(&elsewhere, APP2).await;
    // All sessions of a user, and nobody else's.
    let bob = world.visitor("bob").await;
    let logout = format!("/users/{}/logout", world.user_id("alice").await);
    world.api(Method::POST, &logout, Value::Null).await;
    world.assert_ended(&elsewhere, APP, "back_channel_logout").await;
    world.assert_ended(&elsewhere, APP2, "back_channel_logout").await;
    world.assert_lives(&bob, APP).await;
    world.assert_lives(&bob, APP2).await;

    // Without "Backchannel logout session required" a logout token names the user only.
    let mut client = world.list("/clients?clientId=app2").await.remove(0);
    let path = format!("/clients/{}", client["id"].as_str().unwrap());
    client["attributes"]["backchannel.logout.session.required"] = json!("false");
    world.api(Method::PUT, &path, client.clone()).await;
    let (alice, elsewhere) = (world.visitor("alice").await, world.visitor("alice").await);
    let session = format!("/sessions/{}", world.sid(&alice).await);
    world.api(Method::DELETE, &session, Value::Null).await;
    world.assert_ended(&alice, APP, "back_channel_logout").await;
    world.assert_lives(&elsewhere, APP).await;
    world.assert_ended(&alice, APP2, "back_channel_logout").await;
    world.assert_ended(&elsewhere, APP2, "back_channel_logout").await;
    world.assert_lives(&bob, APP2).await;
    report.holds(Column::LogoutBySub);
    client["attributes"]["backchannel.logout.session.required"] = json!("true");
    world.api(Method::PUT, &path, client).await;
    // It names no time finer than the second, and ends each login that began before.
    sleep(PAUSE * 2).await;
}

async fn the_account_console_ends_sessions(world: &World) {
    let issuer = world.keycloak.issuer();
    // "Sign out" of one of the signed-in devices, with the console's own token.
    let alice = world.visitor("alice").await;
    let console = format!("{issuer}/account/");
    let login = world.console_login(&console, None);
    let answer = alice.send(Method::GET, &login, "text/html").await.location.unwrap();
    let code = answer.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    let request = [
        ("client_id", "account-console"),
        ("redirect_uri", &console),
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("code_verifier", VERIFIER),
    ];
    let tokens = Url::parse(&format!("{issuer}/protocol/openid-connect/token")).unwrap();
    let tokens = alice.post_form(&tokens, &request).await.json();
    let session = format!("{issuer}/account/sessions/{}", world.sid(&alice).await);
    let request = alice.http.delete(session).header(ACCEPT, "application/json");
    let request = request.header(AUTHORIZATION, format!("Bearer {}", tokens["access_token"].as_str().unwrap()));
    assert_eq!(request.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    world.assert_ended(&alice, APP, "back_channel_logout").await;
    world.assert_ended(&alice, APP2, "back_channel_logout").await;

    // Keycloak's logout page, which asks.
    let alice = world.visitor("alice").await;
    let page = alice.go(Method::GET, &format!("{issuer}/protocol/openid-connect/logout")).await;
    world.assert_lives(&alice, APP).await;
    let form = [("session_code", &*quoted(&page, "name=\"session_code\" value=")), ("confirmLogout", "Logout")];
    let page = alice.post_form(&action(&page), &form).await;
    assert!(page.status == StatusCode::OK && page.body.contains("You are logged out"), "{page:?}");
    world.assert_ended(&alice, APP, "back_channel_logout").await;
    world.assert_ended(&alice, APP2, "back_channel_logout").await;
}

async fn a_disabled_user_is_refused(world: &World, report: &mut Report) {
    let bob = world.visitor("bob").await;
    let path = format!("/users/{}", world.user_id("bob").await);
    let mut user = world.api(Method::GET, &path, Value::Null).await;
    user["enabled"] = json!(false);
    world.api(Method::PUT, &path, user.clone()).await;
    // Keycloak tells nobody; the next refresh is refused.
    sleep(G).await;
    for app in [APP, APP2] {
        world.assert_ended(&bob, app, "refresh_token_rejected").await;
        assert_eq!(world.refusal(CLIENTS[app]).await, "User disabled");
        assert_is_login_form(&bob.go(Method::GET, &world.at(app, "/me")).await);
    }
    report.holds(Column::RefusedRefreshEnds);
    user["enabled"] = json!(true);
    world.api(Method::PUT, &path, user).await;
    world.visitor("bob").await;
}

async fn keys_rotate(world: &World, report: &mut Report) {
    let alice = world.visitor("alice").await;
    let keys = "/components?type=org.keycloak.keys.KeyProvider";
    let old = world.list(keys).await;
    let realm = world.api(Method::GET, "", Value::Null).await;
    let new = json!({
        "name": "new", "providerId": "rsa-generated", "providerType": "org.keycloak.keys.KeyProvider",
        "parentId": realm["id"], "config": {"priority": ["200"], "algorithm": ["RS256"]},
    });
    // While refreshes run, the new key comes, and then the old one goes.
    let rotate = async {
        sleep(PAUSE).await;
        world.api(Method::POST, "/components", new).await;
        sleep(G * 2).await;
        for old in old.iter().filter(|old| old["providerId"] == "rsa-generated") {
            world.api(Method::DELETE, &format!("/components/{}", old["id"].as_str().unwrap()), Value::Null).await;
        }
    };
    join(rotate, world.stay_active(&alice, &[APP, APP2], G * 4)).await;
    world.visitor("bob").await;
    report.holds(Column::Rotation);
    // Logout tokens are signed by the new key too.
    let session = format!("/sessions/{}", world.sid(&alice).await);
    world.api(Method::DELETE, &session, Value::Null).await;
    world.assert_ended(&alice, APP, "back_channel_logout").await;
    world.assert_ended(&alice, APP2, "back_channel_logout").await;
}

async fn an_outage_is_no_end(world: &mut World) {
    // The session at Keycloak outlives the outage.
    world.api(Method::PUT, "", json!({"ssoSessionIdleTimeout": 600})).await;
    let alice = world.visitor("alice").await;
    sleep(G).await;
    let signal = Instant::now();
    world.assert_lives(&alice, APP).await;
    world.assert_lives(&alice, APP2).await;
    // Its database writes a second behind.
    sleep(G / 2).await;
    world.keycloak.kill();
    while signal.elapsed() + PAUSE * 2 < T {
        world.assert_lives(&alice, APP).await;
        sleep(PAUSE).await;
    }
    sleep((T + PAUSE).saturating_sub(signal.elapsed())).await;
    for app in [APP, APP2] {
        let page = alice.get(&world.at(app, "/me")).await;
        assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "{page:?}");
    }
    world.keycloak.run().await;
    for app in [APP, APP2] {
        until("the session goes on", async || {
            let page = alice.get(&world.at(app, "/me")).await;
            assert_ne!(page.status, StatusCode::UNAUTHORIZED, "{page:?}");
            page.status == StatusCode::OK
        })
        .await;
    }
    world.stay_active(&alice, &[APP, APP2], G * 2).await;
    let session = format!("/sessions/{}", world.sid(&alice).await);
    world.api(Method::DELETE, &session, Value::Null).await;
    world.assert_ended(&alice, APP, "back_channel_logout").await;
    world.assert_ended(&alice, APP2, "back_channel_logout").await;
}
