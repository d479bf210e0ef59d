//! What keeps providers and tenants of one application apart, and what they must not do to each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use http::header::{ACCEPT, CONTENT_TYPE, ORIGIN};
use http::{Method, Request, StatusCode};
use tokio::sync::Semaphore;
use tower::{Layer, ServiceExt};
use tower_oidc_session::test_provider::{Endpoint, IssuerInResponse, SignIn, TestClient, TestProvider};
use tower_oidc_session::{
    ClientCredentials, IssuerTenants, OidcSession, RelyingParties, RelyingParty, RelyingPartyBuilder, Subject,
};

use crate::browser::{Browser, Page};
use crate::leaks;
use crate::registry::Registry;
use crate::several::{at, client, provider_of_many};
use crate::stores::within;
use crate::world::CLIENT_SECRET;

const SITE: &str = "sec-fetch-site";
const MODE: &str = "sec-fetch-mode";

async fn provider() -> TestProvider {
    let sign_in = SignIn::Automatic("alice".to_owned());
    leaks::provider().sign_in(sign_in).issuer_in_response(IssuerInResponse::Absent).start().await.unwrap()
}

fn app(parties: &RelyingParties) -> Router {
    Router::new()
        .route("/me", get(async |session: OidcSession| format!("{} of {}", session.subject(), session.issuer())))
        .route("/note", post(async |body: String| body))
        .route_layer(parties.require_session())
        .merge(parties.routes())
}

struct Pair {
    one: TestProvider,
    two: TestProvider,
    parties: RelyingParties,
    url: String,
}

impl Pair {
    async fn start() -> Self {
        let (one, two) = (provider().await, provider().await);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        one.register(client(&url, "/auth/one"));
        two.register(client(&url, "/auth/two"));
        let providers = [("one", "One", at(&one, &url)), ("two", "Two", at(&two, &url))];
        let parties = RelyingParties::builder().registry(Registry::new().await).providers(providers).unwrap();
        let app = app(&parties).layer(parties.layer());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { one, two, parties, url }
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    async fn signed_in_at(&self, name: &str) -> Browser {
        let browser = Browser::new();
        self.sign_in(&browser, name).await;
        browser
    }

    async fn sign_in(&self, browser: &Browser, name: &str) {
        let me = browser.go(&self.at(&format!("/auth/{name}/login?return_to=/me"))).await;
        assert_eq!(me.status, StatusCode::OK);
    }

    async fn me(&self, browser: &Browser) -> (StatusCode, String) {
        let page = browser.get(&self.at("/me")).await;
        (page.status, page.body)
    }

    async fn sign_out(&self, browser: &Browser) -> Page {
        browser.page(browser.request(Method::POST, &self.at("/auth/logout")).header(SITE, "same-origin")).await
    }
}

#[tokio::test]
async fn p12_an_administrator_of_one_provider_ends_and_revokes_nothing_of_another() {
    let world = Pair::start().await;
    let browser = world.signed_in_at("two").await;
    let [one, two] = ["one", "two"].map(|name| world.parties.get(name));
    let (one, two) = (one.await.unwrap().unwrap(), two.await.unwrap().unwrap());
    let key = *two.sessions_of(&Subject::new("alice")).await.unwrap()[0].key();
    one.end_session(&key).await.unwrap();
    assert_eq!(world.me(&browser).await.0, StatusCode::OK);
    two.end_session(&key).await.unwrap();
    assert_eq!(world.me(&browser).await.0, StatusCode::UNAUTHORIZED);
    let revoked = async || world.two.requests(Endpoint::Revocation) == 1;
    within(Duration::from_secs(5), "it is revoked where it came from", revoked).await;
    assert_eq!(world.one.requests(Endpoint::Revocation), 0);
}

#[tokio::test]
async fn p15_a_link_of_a_stranger_swaps_no_session_for_one_of_another_provider() {
    let world = Pair::start().await;
    let stale = "/auth/two/callback?code=x&state=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for path in ["/auth/two/login", stale] {
        // Both providers know the browser.
        let browser = world.signed_in_at("two").await;
        world.sign_in(&browser, "one").await;
        let before = world.me(&browser).await;
        let link = browser.request(Method::GET, &world.at(path)).header(ACCEPT, "text/html");
        let sent = browser.page(link.header(SITE, "cross-site").header(MODE, "navigate")).await;
        assert_eq!(sent.location().path(), "/", "{path}");
        assert_eq!(world.me(&browser).await, before, "{path}");
    }
}

#[tokio::test]
async fn p1_a_sign_out_ends_what_the_browser_has_at_every_provider() {
    let world = Pair::start().await;
    // Two tabs whose logins came back at once.
    let both = world.signed_in_at("one").await;
    let other = world.signed_in_at("two").await;
    for (name, value) in other.cookies(&world.url) {
        both.set_cookie(&world.url, &name, &value);
    }
    assert_eq!(world.me(&both).await.0, StatusCode::OK);
    world.sign_out(&both).await;
    assert_eq!(world.me(&both).await.0, StatusCode::UNAUTHORIZED);
    assert!(!both.cookies(&world.url).keys().any(|name| name.contains("session-")));
    assert_eq!(world.me(&other).await.0, StatusCode::UNAUTHORIZED, "a copy of the cookie");
    // Of nobody no provider is asked.
    assert_eq!(world.sign_out(&Browser::new()).await.location().as_str(), world.at("/"));
}

#[tokio::test]
async fn p15_a_form_is_kept_for_whichever_provider_its_user_had() {
    let world = Pair::start().await;
    for (name, provider) in [("one", &world.one), ("two", &world.two)] {
        let browser = world.signed_in_at(name).await;
        assert_eq!(provider.end_sessions_of("alice").await, 1);
        // Another tab goes to the login, which takes the cookie.
        let away = browser.request(Method::GET, &world.at("/me")).header(ACCEPT, "text/html").header(MODE, "navigate");
        assert_eq!(browser.page(away).await.location().path(), format!("/auth/{name}/login"));
        let form = browser.request(Method::POST, &world.at("/note")).header(ACCEPT, "text/html");
        let form = form.header(MODE, "navigate").header(SITE, "same-origin").header(ORIGIN, &world.url);
        let page = browser.page(form.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body("a=b")).await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED);
        assert!(
            page.body.contains("id=\"kept\"") && page.body.contains(&format!("/auth/{name}/login")),
            "{}",
            page.body
        );
    }
}

#[test]
fn two_providers_are_not_one_client_of_one_issuer() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _guard = runtime.enter();
    let one = || {
        RelyingParty::builder("https://op.example", ClientCredentials::secret("a", "b"), "https://shop.example")
            .authorization_parameter("kc_idp_hint", "google")
    };
    let error = RelyingParties::builder().providers([("one", "One", one()), ("two", "Two", one())]).unwrap_err();
    assert_eq!(error.setting(), "providers");
}

/// Tenants by path, at one provider that has one client for all of them.
async fn tenants_of(
    provider: &TestProvider,
    configure: impl Fn(RelyingPartyBuilder, &str) -> RelyingPartyBuilder + Send + Sync + 'static,
) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (one, two) = (format!("{url}/t/acme/auth/callback"), format!("{url}/t/globex/auth/callback"));
    provider.register(TestClient::new("shop", CLIENT_SECRET).redirect_uri(one).redirect_uri(two));
    let tenants = RelyingParties::builder().registry(Registry::new().await).tenants(
        |request| request.uri.path().strip_prefix("/t/")?.split('/').next().map(str::to_owned),
        {
            let (issuer, url) = (provider.issuer(), url.clone());
            move |name: String| {
                let credentials = ClientCredentials::secret("shop", CLIENT_SECRET);
                let builder = RelyingParty::builder(&issuer, credentials, format!("{url}/t/{name}"));
                std::future::ready(Ok::<_, std::io::Error>(Some(configure(builder, &name))))
            }
        },
    );
    let app = Router::new().nest("/t/{tenant}", app(&tenants)).layer(tenants.layer());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    url
}

/// Brings every cookie under the names of the other tenant's too.
fn confuse(browser: &Browser, url: &str, other: &Browser) {
    let session = |browser: &Browser| browser.cookies(url).into_iter().find(|(name, _)| name.contains("session-"));
    let ((_, value), (name, _)) = (session(browser).unwrap(), session(other).unwrap());
    browser.set_cookie(url, &name, &value);
}

#[tokio::test]
async fn p12_tenants_of_one_client_share_no_session() {
    let provider = provider().await;
    let url = tenants_of(&provider, |builder, _| builder).await;
    let at = |path: &str| format!("{url}{path}");
    let browser = Browser::new();
    assert_eq!(browser.go(&at("/t/acme/auth/login?return_to=/t/acme/me")).await.status, StatusCode::OK);
    assert_eq!(browser.get(&at("/t/acme/me")).await.status, StatusCode::OK);
    assert_eq!(browser.get(&at("/t/globex/me")).await.status, StatusCode::UNAUTHORIZED);
    // Nor is its cookie worth anything there.
    let other = Browser::new();
    other.go(&at("/t/globex/auth/login?return_to=/t/globex/me")).await;
    confuse(&browser, &url, &other);
    assert_eq!(browser.get(&at("/t/globex/me")).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn p12_a_tenant_that_may_not_sign_in_has_no_session_either() {
    let (provider, template) = provider_of_many(|| "acme".to_owned()).await;
    let url =
        tenants_of(&provider, move |builder, name| builder.issuer_template(&template, IssuerTenants::only([name])))
            .await;
    let browser = Browser::new();
    let me = browser.go(&format!("{url}/t/acme/auth/login?return_to=/t/acme/me")).await;
    assert_eq!(me.status, StatusCode::OK, "{}", me.body);
    assert_eq!(browser.get(&format!("{url}/t/globex/me")).await.status, StatusCode::UNAUTHORIZED);
    let refused = browser.go(&format!("{url}/t/globex/auth/login?return_to=/t/globex/me")).await;
    assert_eq!(refused.status, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn p15_a_look_up_that_fails_once_is_made_again() {
    let calls = Arc::new(AtomicUsize::new(0));
    let tenants = RelyingParties::builder().tenants(|_| Some("a".into()), {
        let calls = calls.clone();
        move |_: String| {
            assert!(calls.fetch_add(1, Ordering::SeqCst) > 0, "once, before there is a future");
            std::future::ready(Ok::<_, std::io::Error>(None))
        }
    });
    assert!(tenants.get("a").await.is_err());
    assert!(tenants.get("a").await.unwrap().is_none());
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_was_found_before_a_tenant_was_forgotten_is_not_kept() {
    let (gates, calls) = ([0, 1].map(|_| Arc::new(Semaphore::new(0))), Arc::new(AtomicUsize::new(0)));
    let tenants = RelyingParties::builder().tenants(|_| Some("a".into()), {
        let (gates, calls) = (gates.clone(), calls.clone());
        move |_: String| {
            let number = calls.fetch_add(1, Ordering::SeqCst);
            let gate = gates[number.min(1)].clone();
            async move {
                gate.acquire().await.unwrap().forget();
                // From the second look on it is gone.
                let credentials = ClientCredentials::secret("a", "b");
                let found = RelyingParty::builder("https://op.example", credentials, "https://shop.example");
                Ok::<_, std::io::Error>((number == 0).then_some(found))
            }
        }
    });
    let look = || {
        let tenants = tenants.clone();
        tokio::spawn(async move { tenants.get("a").await.unwrap().is_some() })
    };
    let begun = async |count: usize| {
        let has_begun = async || calls.load(Ordering::SeqCst) == count;
        within(Duration::from_secs(5), "the look-up has begun", has_begun).await;
    };
    let first = look();
    begun(1).await;
    tenants.forget("a");
    let second = look();
    begun(2).await;
    gates[0].add_permits(1);
    assert!(first.await.unwrap());
    gates[1].add_permits(1);
    assert!(!second.await.unwrap());
    assert!(tenants.get("a").await.unwrap().is_none());
}

#[tokio::test]
async fn p12_strangers_who_make_up_tenants_cost_a_bounded_amount() {
    let (gate, calls) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let name_of = |request: &http::request::Parts| request.headers.get("host")?.to_str().ok().map(str::to_owned);
    let tenants = RelyingParties::builder().tenants(name_of, {
        let (gate, calls) = (gate.clone(), calls.clone());
        move |_: String| {
            let (gate, calls) = (gate.clone(), calls.clone());
            async move {
                calls.fetch_add(1, Ordering::SeqCst);
                let _permit = gate.acquire().await.unwrap();
                Ok::<_, std::io::Error>(None)
            }
        }
    });
    let service = tenants.layer().layer(Router::new());
    let mut waiting = Vec::new();
    let mut turned_away = 0;
    for number in 0..400 {
        let request = Request::get("/").header("host", format!("x{number}")).body(Body::empty()).unwrap();
        let mut answer = Box::pin(service.clone().oneshot(request));
        match futures_util::poll!(&mut answer) {
            std::task::Poll::Ready(answer) => {
                assert_eq!(answer.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
                turned_away += 1;
            }
            std::task::Poll::Pending => waiting.push(answer),
        }
    }
    assert_eq!((waiting.len(), turned_away), (256, 144));
    gate.add_permits(1);
    for answer in waiting {
        assert_eq!(answer.await.unwrap().status(), StatusCode::NOT_FOUND);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 256);
}
