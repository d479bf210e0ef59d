//! Applications with several providers, with tenants, and with a provider of many tenants.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::header::{ACCEPT, LOCATION};
use http::{Method, StatusCode};
use serde_json::json;
use tower_oidc_session::test_provider::{
    Endpoint, ExpiredSessions, IssuerInResponse, ManualClock, SignIn, TestClient, TestProvider, TestProviderBuilder,
};
use tower_oidc_session::{
    ClientCredentials, CookieKey, EventKind, IssuerTenants, MemoryRegistry, OidcSession, RelyingParties, RelyingParty,
    RelyingPartyBuilder,
};

use crate::browser::{Browser, Page};
use crate::leaks;
use crate::registry::Registry;
use crate::secrets::collect_log;
use crate::until::until;
use crate::world::CLIENT_SECRET;

const STAFF: &str = "staff";
const CUSTOMERS: &str = "customers";

fn of_alice() -> TestProviderBuilder {
    leaks::provider().sign_in(SignIn::Automatic("alice".to_owned()))
}

async fn provider() -> TestProvider {
    of_alice().start().await.unwrap()
}

/// A provider with one discovery document for all of its tenants, as Microsoft Entra ID, and the template of their issuers. Who
/// signs in is of the tenant that `tenant` says.
pub(crate) async fn provider_of_many(tenant: impl Fn() -> String + Send + Sync + 'static) -> (TestProvider, String) {
    let provider = of_alice().issuer_in_response(IssuerInResponse::Absent).start().await.unwrap();
    let template = format!("{}/{{tenantid}}/v2.0", provider.issuer());
    provider.tamper_metadata({
        let template = template.clone();
        move |json| json["issuer"] = template.clone().into()
    });
    provider.tamper_id_token({
        let template = template.clone();
        move |_, claims| {
            let tenant = tenant();
            claims["iss"] = template.replace("{tenantid}", &tenant).into();
            claims["tid"] = tenant.into();
        }
    });
    (provider, template)
}

pub(crate) fn client(url: &str, routes: &str) -> TestClient {
    TestClient::new("shop", CLIENT_SECRET)
        .redirect_uri(format!("{url}{routes}/callback"))
        .post_logout_redirect_uri(format!("{url}/"))
        .backchannel_logout_uri(format!("{url}{routes}/backchannel-logout"))
}

pub(crate) fn at(provider: &TestProvider, url: &str) -> RelyingPartyBuilder {
    RelyingParty::builder(provider.issuer(), ClientCredentials::secret("shop", CLIENT_SECRET), url)
}

fn app(parties: &RelyingParties) -> Router {
    Router::new()
        .route("/me", get(async |session: OidcSession| format!("{} of {}", session.subject(), session.issuer())))
        .route_layer(parties.require_session())
        .route(
            "/",
            get(async |session: Option<OidcSession>| {
                session.map_or("nobody".to_owned(), |session| session.subject().to_string())
            }),
        )
        .merge(parties.routes())
}

/// Two providers, and an application that has both.
struct TwoProviders {
    staff: TestProvider,
    customers: TestProvider,
    parties: RelyingParties,
    registry: Registry,
    url: String,
    events: Arc<Mutex<Vec<String>>>,
}

impl TwoProviders {
    async fn start() -> Self {
        Self::start_over(Registry::new().await, ManualClock::new()).await
    }

    async fn start_over(registry: Registry, clock: ManualClock) -> Self {
        let provider = || of_alice().clock(clock.clone()).expired_sessions(ExpiredSessions::StaySilent).start();
        let (staff, customers) = (provider().await.unwrap(), provider().await.unwrap());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        staff.register(client(&url, "/auth/staff"));
        customers.register(client(&url, "/auth/customers"));
        let events = Arc::new(Mutex::new(Vec::new()));
        let listening = |builder: RelyingPartyBuilder, name: &'static str| {
            let events = events.clone();
            builder.on_event(move |event| {
                if let EventKind::Ended { reason, .. } = event.kind() {
                    events.lock().unwrap().push(format!("{name}: {reason}"));
                }
            })
        };
        let parties = RelyingParties::builder()
            .registry(registry.clone())
            .clock(clock)
            .cookie_key(CookieKey::generate())
            .providers([
                (STAFF, "Staff & friends", listening(at(&staff, &url), STAFF)),
                (CUSTOMERS, "Customers", listening(at(&customers, &url), CUSTOMERS)),
            ])
            .unwrap();
        let app = app(&parties).layer(parties.layer());
        assert_eq!(parties.check_wiring(app.clone()).await, Ok(()));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { staff, customers, parties, registry, url, events }
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    async fn navigate(&self, browser: &Browser, path: &str) -> Page {
        browser.page(browser.request(Method::GET, &self.at(path)).header(ACCEPT, "text/html")).await
    }
}

#[tokio::test]
async fn p15_who_is_not_signed_in_chooses_a_provider_and_comes_back() {
    let world = TwoProviders::start().await;
    let browser = Browser::new();
    let sent = world.navigate(&browser, "/me?a=b").await;
    assert_eq!(sent.headers[LOCATION], "/auth/login?return_to=/me%3Fa%3Db");
    let choice = world.navigate(&browser, "/auth/login?return_to=/me%3Fa%3Db").await;
    assert_eq!(choice.status, StatusCode::OK);
    assert!(choice.body.contains("<h1>Sign in</h1>") && choice.body.contains("Staff &amp; friends"), "{}", choice.body);
    for name in [STAFF, CUSTOMERS] {
        let link = format!("href=\"/auth/{name}/login?return_to=/me%3Fa%3Db\"");
        assert!(choice.body.contains(&link), "{}", choice.body);
    }
    let me = browser.go(&world.at("/auth/customers/login?return_to=/me%3Fa%3Db")).await;
    assert_eq!(me.url.as_str(), world.at("/me?a=b"));
    assert_eq!(me.body, format!("alice of {}", world.customers.issuer()));
    let status = browser.get(&world.at("/auth/session")).await.json();
    assert_eq!(status["iss"], world.customers.issuer());

    // Once the provider has ended the session, its own login is what is offered.
    assert_eq!(world.customers.end_sessions_of("alice").await, 1);
    let sent = world.navigate(&browser, "/me").await;
    assert_eq!(sent.headers[LOCATION], "/auth/customers/login?return_to=/me");
}

#[tokio::test]
async fn a_login_at_another_provider_takes_the_place_of_the_one_before_and_revokes_nothing() {
    let world = TwoProviders::start().await;
    let browser = Browser::new();
    browser.go(&world.at("/auth/staff/login")).await;
    let old = browser.copy();
    let me = browser.go(&world.at("/auth/customers/login?return_to=/me")).await;
    assert_eq!(me.body, format!("alice of {}", world.customers.issuer()));
    assert_eq!(browser.cookies(&world.url).keys().filter(|name| name.contains("session-")).count(), 1);
    assert_eq!(old.get(&world.at("/me")).await.status, StatusCode::UNAUTHORIZED, "a copy of the old cookie");
    assert!(world.registry.has(1));
    assert_eq!(*world.events.lock().unwrap(), ["staff: superseded_by_login"]);
    world.parties.drain(Duration::from_secs(5)).await;
    assert_eq!(world.staff.requests(Endpoint::Revocation), 0);

    // Should a browser have both, the later one counts, as browsers name the older first.
    let both = |first: &Browser, second: &Browser| {
        let [first, second] =
            [first, second].map(|browser| browser.cookie_header(&world.url).to_str().unwrap().to_owned());
        format!("{first}; {second}")
    };
    for (cookies, expected) in
        [(both(&old, &browser), StatusCode::OK), (both(&browser, &old), StatusCode::UNAUTHORIZED)]
    {
        let answer = reqwest::Client::new().get(world.at("/me")).header("cookie", &cookies).send().await.unwrap();
        assert_eq!(answer.status(), expected);
    }

    // A sign-out goes to the provider of the session.
    let out = browser
        .page(browser.request(Method::POST, &world.at("/auth/logout")).header("sec-fetch-site", "same-origin"))
        .await;
    assert!(out.location().as_str().starts_with(&world.customers.issuer()), "{}", out.location());
    assert_eq!(browser.get(&world.at("/me")).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn p12_no_provider_touches_the_sessions_of_another() {
    let world = TwoProviders::start().await;
    let (at_staff, at_customers) = (Browser::new(), Browser::new());
    at_staff.go(&world.at("/auth/staff/login")).await;
    at_customers.go(&world.at("/auth/customers/login")).await;
    // Both are "alice" of the client "shop"; only the issuer tells them apart.
    let token = world.staff.logout_token("shop", Some("alice"), None);
    for (routes, expected) in [("customers", Ok(400)), ("staff", Ok(200))] {
        let uri = world.at(&format!("/auth/{routes}/backchannel-logout"));
        assert_eq!(world.staff.post_logout_token(&uri, &token).await, expected, "{routes}");
    }
    assert_eq!(at_staff.get(&world.at("/me")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(at_customers.get(&world.at("/me")).await.status, StatusCode::OK);
    // Nor does an answer of one provider finish a login at another.
    let begun = at_staff.step(&world.at("/auth/staff/login")).await;
    let answer = at_staff.step(begun.location().as_str()).await.location();
    let mixed = answer.as_str().replace("/auth/staff/", "/auth/customers/");
    let confused = at_staff.step(&mixed).await;
    assert!(
        confused.location().as_str().starts_with(&world.customers.issuer()),
        "it begins anew: {}",
        confused.location()
    );
    assert_eq!(at_staff.get(&world.at("/me")).await.status, StatusCode::UNAUTHORIZED);

    // The application ends sessions by provider.
    let customers = world.parties.get(CUSTOMERS).await.unwrap().unwrap();
    assert!(world.parties.get("nobody").await.unwrap().is_none());
    let alice = tower_oidc_session::Subject::new("alice");
    let key = *customers.sessions_of(&alice).await.unwrap()[0].key();
    world.parties.get(STAFF).await.unwrap().unwrap().end_session(&key).await.unwrap();
    assert_eq!(at_customers.get(&world.at("/me")).await.status, StatusCode::OK);
    assert_eq!(customers.end_sessions_of(&alice).await.unwrap(), 1);
    assert_eq!(*world.events.lock().unwrap(), ["staff: back_channel_logout", "customers: ended_by_application"]);
}

#[tokio::test]
async fn sessions_that_expire_are_told_of_by_whose_they_are() {
    let clock = ManualClock::new();
    // Those of a store expire by the store's clock, which nobody sets.
    let world = TwoProviders::start_over(Registry::over(MemoryRegistry::new()), clock.clone()).await;
    for routes in [STAFF, CUSTOMERS] {
        assert_eq!(
            Browser::new().go(&world.at(&format!("/auth/{routes}/login?return_to=/me"))).await.status,
            StatusCode::OK
        );
    }
    clock.advance(Duration::from_secs(24 * 60 * 60));
    until(|| world.events.lock().unwrap().len() >= 2).await;
    world.events.lock().unwrap().sort_unstable();
    assert_eq!(*world.events.lock().unwrap(), ["customers: absolute_lifetime", "staff: absolute_lifetime"]);
    let revoked = || [&world.staff, &world.customers].map(|provider| provider.requests(Endpoint::Revocation));
    clock.run(until(|| revoked() == [1, 1])).await;
}

#[tokio::test]
async fn a_script_may_say_of_which_issuer_its_user_is() {
    let world = TwoProviders::start().await;
    let browser = Browser::new();
    browser.go(&world.at("/auth/staff/login")).await;
    let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    for (named, expected) in [
        ("alice".to_owned(), StatusCode::OK),
        (format!("alice {}", encoded(&world.staff.issuer())), StatusCode::OK),
        (format!("alice {}", encoded(&world.customers.issuer())), StatusCode::CONFLICT),
        ("bob".to_owned(), StatusCode::CONFLICT),
    ] {
        let page =
            browser.page(browser.request(Method::GET, &world.at("/me")).header("oidc-session-sub", &named)).await;
        assert_eq!(page.status, expected, "{named}");
    }
}

#[tokio::test]
async fn providers_that_cannot_stand_side_by_side_are_refused() {
    let one =
        || RelyingParty::builder("https://op.example", ClientCredentials::secret("a", "b"), "https://shop.example");
    let two =
        || RelyingParty::builder("https://id.example", ClientCredentials::secret("a", "b"), "https://shop.example");
    let build = |providers: Vec<(&str, RelyingPartyBuilder)>| {
        let providers = providers.into_iter().map(|(name, builder)| (name, name, builder));
        RelyingParties::builder().providers(providers).map(drop).map_err(|error| error.setting())
    };
    let elsewhere =
        RelyingParty::builder("https://id.example", ClientCredentials::secret("a", "b"), "https://b.example");
    for (providers, expected) in [
        (vec![("one", one()), ("two", two())], Ok(())),
        (vec![], Err("providers")),
        (vec![("one", one()), ("one", two())], Err("providers")),
        (vec![("session", one())], Err("providers")),
        (vec![("One", one())], Err("providers")),
        (vec![("a/b", one())], Err("providers")),
        (vec![("one", one()), ("two", elsewhere)], Err("public_url")),
        (vec![("one", one()), ("two", two().auth_path("/sign-in"))], Err("auth_path")),
        (vec![("one", one().cookie_key(CookieKey::generate()))], Err("cookie_key")),
        (vec![("one", one().issuer_template("https://op.example", IssuerTenants::any()))], Err("issuer_template")),
    ] {
        assert_eq!(build(providers), expected);
    }
}

/// Tenants by path: `/t/acme`, `/t/globex`; each has a provider of its own.
#[tokio::test]
async fn tenants_are_found_as_they_come() {
    let (acme, globex) = (provider().await, provider().await);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    acme.register(client(&format!("{url}/t/acme"), "/auth"));
    globex.register(client(&format!("{url}/t/globex"), "/auth"));
    let asked = Arc::new(AtomicUsize::new(0));
    let tenants = RelyingParties::builder().registry(Registry::new().await).cookie_key(CookieKey::generate()).tenants(
        |request| request.uri.path().strip_prefix("/t/")?.split('/').next().map(str::to_owned),
        {
            let (acme, globex, url, asked) = (acme.clone(), globex.clone(), url.clone(), asked.clone());
            move |name: String| {
                asked.fetch_add(1, Ordering::Relaxed);
                let url = format!("{url}/t/{name}");
                std::future::ready(match name.as_str() {
                    "acme" => Ok(Some(at(&acme, &url))),
                    "globex" => Ok(Some(at(&globex, &url))),
                    "broken" => Err("the database is away"),
                    _ => Ok(None),
                })
            }
        },
    );
    let app = Router::new()
        .nest("/t/{tenant}", app(&tenants))
        .route("/", get(async |session: Option<OidcSession>| format!("{}", session.is_some())))
        .route("/mine", get(async |_: OidcSession| "mine"))
        .layer(tenants.layer());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let browser = Browser::new();
    let at = |path: &str| format!("{url}{path}");

    let me = browser.go(&at("/t/acme/auth/login?return_to=/t/acme/me")).await;
    assert_eq!(me.body, format!("alice of {}", acme.issuer()));
    assert_eq!(browser.get(&at("/t/acme/me")).await.status, StatusCode::OK);
    let elsewhere = browser.page(browser.request(Method::GET, &at("/t/globex/me")).header(ACCEPT, "text/html")).await;
    assert_eq!(elsewhere.headers[LOCATION], "/t/globex/auth/login?return_to=/t/globex/me");
    let me = browser.go(&at("/t/globex/auth/login?return_to=/t/globex/me")).await;
    assert_eq!(me.body, format!("alice of {}", globex.issuer()));
    assert_eq!(browser.get(&at("/t/acme/me")).await.status, StatusCode::OK, "tenants are applications of their own");

    // A logout token at another tenant's address is nothing to it.
    let token = acme.logout_token("shop", Some("alice"), None);
    assert_eq!(acme.post_logout_token(&at("/t/globex/auth/backchannel-logout"), &token).await, Ok(400));
    assert_eq!(acme.post_logout_token(&at("/t/acme/auth/backchannel-logout"), &token).await, Ok(200));
    assert_eq!(browser.get(&at("/t/acme/me")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(browser.get(&at("/t/globex/me")).await.status, StatusCode::OK);

    // Each was looked up once; what there is not, once in a minute; what cannot be told, each time.
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    let (log, _guard) = collect_log("error");
    for (path, expected, lookups) in [
        ("/t/nobody/me", StatusCode::NOT_FOUND, 3),
        ("/t/nobody/me", StatusCode::NOT_FOUND, 3),
        ("/t/broken/me", StatusCode::SERVICE_UNAVAILABLE, 4),
        ("/t/broken/me", StatusCode::SERVICE_UNAVAILABLE, 5),
        ("/", StatusCode::OK, 5),
        ("/mine", StatusCode::NOT_FOUND, 5),
    ] {
        assert_eq!(browser.get(&at(path)).await.status, expected, "{path}");
        assert_eq!(asked.load(Ordering::Relaxed), lookups, "{path}");
    }
    drop(log);
    tenants.forget("acme");
    assert_eq!(browser.get(&at("/t/acme/me")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(asked.load(Ordering::Relaxed), 6);
    assert!(tenants.get("acme").await.unwrap().is_some());
    assert!(tenants.get("broken").await.is_err());
    let page = browser.page(browser.request(Method::GET, &at("/t/nobody/me")).header(ACCEPT, "text/html")).await;
    assert!(page.body.contains("<h1>"), "{}", page.body);
}

#[tokio::test]
async fn p12_sessions_of_tenants_have_issuers_of_their_own() {
    let tenant = Arc::new(Mutex::new("acme".to_owned()));
    let (provider, template) = provider_of_many({
        let tenant = tenant.clone();
        move || tenant.lock().unwrap().clone()
    })
    .await;
    let issuer_of = |tenant: &str| template.replace("{tenantid}", tenant);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    provider.register(TestClient::at("shop", CLIENT_SECRET, &url));
    let registry = Registry::new().await;
    let rp = at(&provider, &url)
        .issuer_template(&template, IssuerTenants::only(["acme", "globex"]))
        .registry(registry.clone())
        .cookie_key(CookieKey::generate())
        .build()
        .unwrap();
    let app = Router::new()
        .route("/me", get(async |session: OidcSession| session.issuer().to_string()))
        .merge(rp.routes())
        .layer(rp.layer());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let sign_in = async |name: &str| {
        name.clone_into(&mut tenant.lock().unwrap());
        let browser = Browser::new();
        let page = browser.go(&format!("{url}/auth/login?return_to=/me")).await;
        (browser, page)
    };
    let (acme, me) = sign_in("acme").await;
    assert_eq!(me.body, issuer_of("acme"));
    let (globex, me) = sign_in("globex").await;
    assert_eq!(me.body, issuer_of("globex"));
    let (_, stranger) = sign_in("evil").await;
    assert_eq!(stranger.status, StatusCode::BAD_GATEWAY, "{}", stranger.body);

    // Both are "alice": a logout token reaches those of its own issuer.
    let logout = async |tenant: &str, issuer: &str| {
        let mut claims = provider.logout_claims("shop", Some("alice"), None);
        claims["iss"] = issuer.into();
        claims["tid"] = tenant.into();
        let token = provider.sign(&json!({"typ": "logout+jwt"}), &claims);
        provider.post_logout_token(&format!("{url}/auth/backchannel-logout"), &token).await
    };
    assert_eq!(logout("evil", &issuer_of("evil")).await, Ok(400));
    assert_eq!(logout("acme", &issuer_of("globex")).await, Ok(400), "tid and iss are of two tenants");
    assert_eq!(logout("acme", &issuer_of("acme")).await, Ok(200));
    assert_eq!(acme.get(&format!("{url}/me")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(globex.get(&format!("{url}/me")).await.body, issuer_of("globex"));
    assert!(registry.has(1));
}
