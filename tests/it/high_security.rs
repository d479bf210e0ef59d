//! Clients of banks: keys instead of secrets, pushed authorization requests, access tokens that are bound to a key. The embedded provider
//! checks all of it strictly; `TEST_CLIENT=bound` runs every other test of this binary with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{BoxError, Router};
use http::{Method, StatusCode};
use serde_json::json;
use tower_oidc_session::test_provider::{
    DpopError, DpopNonces, Endpoint, Fault, GateAt, PushedRequests, RefreshTokens, TestClient, TestProvider,
};
use tower_oidc_session::{
    ClientAuthentication, ClientCredentials, ClientSecret, PushedAuthorization, RelyingPartyBuilder, Signer,
    SigningAlg, SigningKey,
};

use crate::api_server::introspect;
use crate::browser::Browser;
use crate::clients::new_key;
use crate::leaks;
use crate::registry::Registry;
use crate::until::until;
use crate::world::{App, Bare, CLIENT_SECRET, G, Options, SECOND, T, World};

/// How one application of these tests is set up.
struct Setup {
    credentials: ClientCredentials,
    dpop: Option<SigningKey>,
    configure: Box<dyn Fn(RelyingPartyBuilder) -> RelyingPartyBuilder>,
}

impl Setup {
    fn new() -> Self {
        Self { credentials: by_key(&new_key()), dpop: Some(new_key()), configure: Box::new(|builder| builder) }
    }

    fn configure(self, configure: impl Fn(RelyingPartyBuilder) -> RelyingPartyBuilder + 'static) -> Self {
        Self { configure: Box::new(configure), ..self }
    }

    fn apply(&self, builder: RelyingPartyBuilder) -> RelyingPartyBuilder {
        let builder = builder.policy(crate::world::policy());
        let builder = self.dpop.iter().cloned().fold(builder, RelyingPartyBuilder::dpop);
        (self.configure)(builder)
    }

    async fn world(self) -> World {
        self.world_with(Options::default(), None).await
    }

    async fn world_with(self, options: Options, api: Option<&BoundApi>) -> World {
        let world = World::without_app(options).await;
        world.add_app(&self, api).await
    }
}

fn by_key(key: &SigningKey) -> ClientCredentials {
    ClientCredentials::new("shop", ClientAuthentication::PrivateKeyJwt(key.clone()))
}

/// An API that takes bound tokens with a good proof only.
#[derive(Clone)]
struct BoundApi {
    url: String,
    provider: Arc<Mutex<Option<TestProvider>>>,
    /// What each call came to, and the key that was proven.
    calls: Arc<Mutex<Vec<(StatusCode, Option<String>)>>>,
    /// Every proof is refused.
    refuses_proofs: Arc<AtomicBool>,
}

impl BoundApi {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let api = Self { url, provider: Arc::default(), calls: Arc::default(), refuses_proofs: Arc::default() };
        let router = Router::new().fallback(Self::serve).with_state(api.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        api
    }

    fn calls(&self) -> Vec<StatusCode> {
        self.calls.lock().unwrap().iter().map(|(status, _)| *status).collect()
    }

    fn last_key(&self) -> String {
        self.calls.lock().unwrap().last().unwrap().1.clone().unwrap()
    }

    async fn serve(State(api): State<Self>, request: Request) -> Response {
        let provider = api.provider.lock().unwrap().clone().unwrap();
        let Some(authorization) =
            request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned())
        else {
            api.calls.lock().unwrap().push((StatusCode::UNAUTHORIZED, None));
            return StatusCode::UNAUTHORIZED.into_response();
        };
        let (scheme, token) = authorization.split_once(' ').unwrap();
        let url = format!("{}{}", api.url.strip_suffix("/v1").unwrap(), request.uri().path());
        let proven = provider.check_proof((request.method().as_str(), &url), request.headers(), token);
        let refuse = |error: &str| (StatusCode::UNAUTHORIZED, format!(r#"DPoP algs="ES256", error="{error}""#));
        let claims = introspect(&provider.issuer(), token).await;
        let (mut nonce, mut key) = (None, None);
        let (status, challenge) = match proven {
            _ if api.refuses_proofs.load(Ordering::Relaxed) => refuse("invalid_dpop_proof"),
            Err(DpopError::UseNonce(fresh)) => {
                nonce = Some(fresh);
                refuse("use_dpop_nonce")
            }
            Err(error) => panic!("{error:?}"),
            Ok(Some(proven)) if scheme == "DPoP" && claims["active"] == true && claims["cnf"]["jkt"] == *proven => {
                key = Some(proven);
                (StatusCode::OK, String::new())
            }
            Ok(_) => refuse("invalid_token"),
        };
        api.calls.lock().unwrap().push((status, key));
        let mut response = status.into_response();
        if !challenge.is_empty() {
            response.headers_mut().insert("www-authenticate", challenge.parse().unwrap());
        }
        if let Some(nonce) = nonce {
            response.headers_mut().insert("dpop-nonce", nonce.parse().unwrap());
        }
        response
    }
}

impl Bare {
    /// The same with such an application.
    async fn add_app(self, setup: &Setup, api: Option<&BoundApi>) -> World {
        let apply = |builder: RelyingPartyBuilder| {
            let builder = setup.apply(builder);
            api.map(|api| api.url.clone()).iter().fold(builder, RelyingPartyBuilder::api)
        };
        let register = |client: TestClient, url: &str| client.jwks_uri(format!("{url}/auth/jwks.json"));
        let url = api.map(|api| api.url.clone());
        let registry = Registry::new().await;
        let Self { provider, clock } = self;
        let app = App::start_as(&provider, &clock, (&setup.credentials, &register), registry, apply, url).await;
        if let Some(api) = api {
            *api.provider.lock().unwrap() = Some(provider.clone());
            provider.register(TestClient::new("api", CLIENT_SECRET));
        }
        World { clock, provider, app, browser: Browser::new(), _search: leaks::Search }
    }
}

/// A browser has the same cookies at all replicas.
fn carry(browser: &Browser, from: &App, to: &App) {
    for (name, value) in browser.cookies(&from.url) {
        browser.set_cookie(&to.url, &name, &value);
    }
}

fn strict(options: Options) -> Options {
    let provider = options.provider.pushed_requests(PushedRequests::Required).dpop_nonces(DpopNonces::Required);
    Options { provider, ..options }
}

#[tokio::test]
async fn a_key_signs_the_client_in_for_everything_and_is_published_without_its_secret() {
    let world = Setup::new().world().await;
    world.sign_in().await;
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
    world.browser.post(&world.app.at("/auth/logout")).await;
    world.clock.run(until(|| world.provider.revoked() == 1)).await;
    let page = world.browser.get(&world.app.at("/auth/jwks.json")).await;
    assert_eq!(page.headers["content-type"], "application/jwk-set+json");
    let keys = page.json();
    let key = keys["keys"][0].as_object().unwrap();
    let mut names: Vec<_> = key.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
    // There is nothing to publish of a secret.
    let setup = Setup { credentials: ClientCredentials::secret("shop", CLIENT_SECRET), ..Setup::new() };
    let world = setup.world().await;
    assert_eq!(world.browser.get(&world.app.at("/auth/jwks.json")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn p4_a_secret_is_replaced_by_a_key_and_nobody_notices() {
    let secret = ClientAuthentication::ClientSecretPost(ClientSecret::new(CLIENT_SECRET));
    let credentials = by_key(&new_key()).or(secret);
    let world = Setup { credentials, dpop: None, ..Setup::new() }.world().await;
    // It has the key of the provider's client; first it is one with a secret.
    world.provider.register(TestClient::at("shop", CLIENT_SECRET, &world.app.url));
    world.sign_in().await;
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
    let keys = world.app.at("/auth/jwks.json");
    world.provider.register(TestClient::at("shop", CLIENT_SECRET, &world.app.url).jwks_uri(keys));
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
    assert_eq!(world.app.events().iter().filter(|event| *event == "refreshed").count(), 2);
}

#[tokio::test]
async fn a_secret_is_shown_as_is_set_or_else_as_the_provider_wants_it() {
    #[derive(Debug, PartialEq, Eq)]
    enum Shown {
        Basic,
        Post,
    }
    let secret = || ClientSecret::new(CLIENT_SECRET);
    let (basic, post) = ("client_secret_basic", "client_secret_post");
    for (authentication, offered, expected) in [
        (ClientAuthentication::ClientSecret(secret()), json!([basic, post]), Shown::Basic),
        (ClientAuthentication::ClientSecret(secret()), json!([post]), Shown::Post),
        (ClientAuthentication::ClientSecretBasic(secret()), json!([post]), Shown::Basic),
        (ClientAuthentication::ClientSecretPost(secret()), json!([basic]), Shown::Post),
    ] {
        let case = format!("{authentication:?} {offered}");
        let shown = Arc::new(Mutex::new(Vec::new()));
        let client = reqwest::Client::new();
        let seen = shown.clone();
        let service = tower::service_fn(move |request: http::Request<axum::body::Body>| {
            let (client, seen) = (client.clone(), seen.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 1 << 16).await?;
                if parts.uri.path() == "/token" {
                    let in_form = url::form_urlencoded::parse(&body).any(|(name, _)| name == "client_secret");
                    assert_ne!(in_form, parts.headers.contains_key("authorization"), "one way alone");
                    seen.lock().unwrap().push(if in_form { Shown::Post } else { Shown::Basic });
                }
                let request = http::Request::from_parts(parts, reqwest::Body::from(body)).try_into()?;
                Ok::<_, BoxError>(http::Response::from(client.execute(request).await?))
            }
        });
        let credentials = ClientCredentials::new("shop", authentication);
        let setup = Setup { credentials, dpop: None, ..Setup::new() };
        let bare = World::without_app(Options::default()).await;
        bare.provider.tamper_metadata(move |metadata| {
            metadata["token_endpoint_auth_methods_supported"] = offered.clone();
        });
        let world = bare.add_app(&setup.configure(move |builder| builder.http_client(service.clone())), None).await;
        world.provider.register(TestClient::at("shop", CLIENT_SECRET, &world.app.url));
        world.sign_in().await;
        assert_eq!(*shown.lock().unwrap(), [expected], "{case}");
    }
}

#[tokio::test]
async fn p2_a_proof_that_is_refused_without_a_nonce_is_not_sent_again() {
    let world = Setup::new().world().await;
    world.sign_in().await;
    for status in [400, 401] {
        let body = json!({"error": "use_dpop_nonce"}).to_string();
        world.provider.set_fault(Endpoint::Token, Fault::Body { status, content_type: "application/json", body });
        world.clock.advance(G);
        let before = world.provider.requests(Endpoint::Token);
        assert_eq!(world.me().await, StatusCode::OK, "within T it is served");
        assert_eq!(world.provider.requests(Endpoint::Token), before + 1, "{status}");
        world.provider.clear_faults();
        world.clock.advance(G);
        assert_eq!(world.me().await, StatusCode::OK, "and nothing has ended");
    }
}

#[tokio::test]
async fn p4_a_key_that_cannot_sign_ends_nothing_and_sends_nothing() {
    #[derive(Clone, Debug)]
    struct Hsm {
        key: Arc<rcgen::KeyPair>,
        is_away: Arc<AtomicBool>,
    }
    #[async_trait]
    impl Signer for Hsm {
        async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, BoxError> {
            if self.is_away.load(Ordering::Relaxed) {
                return Err("the HSM does not answer".into());
            }
            let signature = rcgen::SigningKey::sign(&*self.key, message)?;
            Ok(fixed_size(&signature))
        }
    }
    /// An ECDSA signature as JWS has it, of the ASN.1 that others write.
    fn fixed_size(asn1: &[u8]) -> Vec<u8> {
        let number = |at: usize| {
            let length = usize::from(asn1[at + 1]);
            (&asn1[at + 2..at + 2 + length], at + 2 + length)
        };
        let (r, next) = number(2);
        let (s, _) = number(next);
        let padded = |number: &[u8]| {
            let number = &number[number.len().saturating_sub(32)..];
            [vec![0; 32 - number.len()], number.to_vec()].concat()
        };
        [padded(r), padded(s)].concat()
    }
    let hsm = Hsm { key: Arc::new(rcgen::KeyPair::generate().unwrap()), is_away: Arc::default() };
    let point = rcgen::PublicKeyData::der_bytes(&*hsm.key).to_vec();
    let encode = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, bytes);
    let jwk = json!({"kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..65])});
    let key = SigningKey::from_signer(&jwk.to_string(), hsm.clone()).unwrap();
    let world = Setup { credentials: by_key(&key), ..Setup::new() }.world().await;
    world.sign_in().await;
    hsm.is_away.store(true, Ordering::Relaxed);
    world.clock.advance(G);
    let before = world.provider.requests(Endpoint::Token);
    assert_eq!(world.me().await, StatusCode::OK, "within T it is served");
    world.clock.advance(T);
    assert_eq!(world.me().await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(world.provider.requests(Endpoint::Token), before, "nothing was sent");
    hsm.is_away.store(false, Ordering::Relaxed);
    world.clock.advance(SECOND * 60);
    // The provider has ended it meanwhile, and says so.
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
    world.sign_in().await;
}

#[tokio::test]
async fn browsers_bring_a_name_where_requests_are_pushed() {
    let world = Setup::new().world_with(strict(Options::default()), None).await;
    let location = world.browser.step(&world.app.at("/auth/login?return_to=/me&login_hint=bob")).await.location();
    let names: Vec<_> = location.query_pairs().map(|(name, _)| name.into_owned()).collect();
    assert_eq!(names, ["client_id", "request_uri"]);
    assert_eq!(world.browser.go(location.as_str()).await.json()["sub"], "bob", "the rest was pushed");
    // The name counts once, and for a minute.
    assert_eq!(world.browser.go(location.as_str()).await.status, StatusCode::BAD_REQUEST);
    let late = world.browser.step(&world.app.at("/auth/login?return_to=/me")).await.location();
    world.clock.advance(SECOND * 61);
    assert_eq!(world.browser.go(late.as_str()).await.status, StatusCode::BAD_REQUEST);
    // Whoever tries again arrives.
    assert_eq!(world.browser.go(&world.app.at("/auth/login?return_to=/me")).await.json()["sub"], "bob");
}

#[tokio::test]
async fn p15_a_login_that_cannot_be_pushed_says_so_and_can_be_tried_again() {
    let options = Options::default();
    let provider = options.provider.pushed_requests(PushedRequests::Taken);
    let world = Setup::new().world_with(Options { provider, ..options }, None).await;
    let login = world.app.at("/auth/login?return_to=/me");
    let fault = |status, error: &str| Fault::Body {
        status,
        content_type: "application/json",
        body: json!({ "error": error }).to_string(),
    };
    for (fault, status) in [
        (Fault::Refuse, StatusCode::SERVICE_UNAVAILABLE),
        (Fault::Status { code: 503, retry_after: Some(SECOND * 7) }, StatusCode::SERVICE_UNAVAILABLE),
        (Fault::Status { code: 429, retry_after: None }, StatusCode::SERVICE_UNAVAILABLE),
        (fault(201, "none"), StatusCode::SERVICE_UNAVAILABLE),
        (fault(400, "temporarily_unavailable"), StatusCode::SERVICE_UNAVAILABLE),
        (fault(403, "Forbidden"), StatusCode::SERVICE_UNAVAILABLE),
        (Fault::Status { code: 403, retry_after: None }, StatusCode::SERVICE_UNAVAILABLE),
        (fault(400, "invalid_request"), StatusCode::BAD_GATEWAY),
        (fault(401, "invalid_client"), StatusCode::BAD_GATEWAY),
    ] {
        world.provider.set_fault(Endpoint::PushedAuthorization, fault.clone());
        let page = world.browser.step(&login).await;
        assert_eq!(page.status, status, "{fault:?}");
        assert!(page.body.contains("/auth/login?return_to=/me"), "{fault:?}: {}", page.body);
        assert_eq!(page.headers.contains_key("refresh"), status == StatusCode::SERVICE_UNAVAILABLE, "{fault:?}");
    }
    world.provider.clear_faults();
    assert_eq!(world.browser.go(&login).await.status, StatusCode::OK);
    // Where it is required and not offered, nobody is sent there with the whole request.
    let setup = Setup::new().configure(|builder| builder.pushed_authorization(PushedAuthorization::Required));
    let world = setup.world().await;
    let page = world.browser.step(&world.app.at("/auth/login")).await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    // And where it is off, everybody is.
    let options = Options::default();
    let provider = options.provider.pushed_requests(PushedRequests::Taken);
    let setup = Setup::new().configure(|builder| builder.pushed_authorization(PushedAuthorization::Off));
    let world = setup.world_with(Options { provider, ..options }, None).await;
    world.sign_in().await;
    assert_eq!(world.provider.requests(Endpoint::PushedAuthorization), 0);
}

#[tokio::test]
async fn tokens_are_shown_with_proofs_and_nonces_are_answered() {
    let api = BoundApi::start().await;
    let world = Setup::new().world_with(strict(Options::default()), Some(&api)).await;
    world.sign_in().await;
    assert_eq!(world.browser.get(&world.app.at("/api/orders?x=1")).await.status, StatusCode::OK);
    assert_eq!(api.calls(), [StatusCode::UNAUTHORIZED, StatusCode::OK], "the API's nonce was not known");
    assert_eq!(world.browser.post(&world.app.at("/api/orders")).await.status, StatusCode::OK);
    assert_eq!(api.calls().len(), 3, "and is remembered");
    // Refreshes go on, whatever nonce is wanted; the token is presented once.
    world.provider.change_dpop_nonce();
    world.clock.advance(G);
    let before = world.provider.requests(Endpoint::Token);
    assert_eq!(world.me().await, StatusCode::OK);
    assert_eq!(world.provider.requests(Endpoint::Token), before + 2, "once for the nonce");
    assert_eq!(world.browser.get(&world.app.at("/api/orders")).await.status, StatusCode::OK);
    assert!(world.app.ends().is_empty());
}

#[tokio::test]
async fn p4_an_api_that_refuses_proofs_ends_nothing() {
    let api = BoundApi::start().await;
    let world = Setup::new().world_with(strict(Options::default()), Some(&api)).await;
    world.sign_in().await;
    api.refuses_proofs.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        let page = world.browser.get(&world.app.at("/api/orders")).await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED, "it is passed back");
    }
    assert_eq!(api.calls().len(), 3, "and not asked again");
    assert_eq!(world.me().await, StatusCode::OK);
    // A body that is too long to be kept is not sent twice, for a nonce neither.
    api.refuses_proofs.store(false, Ordering::Relaxed);
    let request = world.browser.request(Method::POST, &world.app.at("/api/orders")).body(vec![b'x'; 100_000]);
    let page = world.browser.page(request).await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "{page:?}");
    assert_eq!(world.me().await, StatusCode::OK);
    assert!(world.app.ends().is_empty());
}

#[tokio::test]
async fn p4_a_token_of_another_type_is_refused_at_the_login_and_ends_nothing_later() {
    let world = Setup::new().world().await;
    let login = world.app.at("/auth/login?return_to=/me");
    world.provider.tamper_token_response(|response| response["token_type"] = "Bearer".into());
    assert_eq!(world.browser.go(&login).await.status, StatusCode::BAD_GATEWAY);
    world.provider.clear_tampering();
    world.sign_in().await;
    world.provider.tamper_token_response(|response| response["token_type"] = "Bearer".into());
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK, "within T it is served");
    world.provider.clear_tampering();
    world.clock.advance(SECOND * 60);
    assert_eq!(world.me().await, StatusCode::OK);
    assert!(world.app.ends().is_empty(), "the refresh token that had rotated was kept");
    assert_eq!(world.app.events().iter().filter(|event| *event == "refreshed").count(), 1);
}

#[tokio::test]
async fn p13_the_key_is_replaced_replica_by_replica() {
    let api = BoundApi::start().await;
    let (old, new) = (new_key(), new_key());
    let setup = Setup { dpop: Some(old.clone()), ..Setup::new() };
    let registry = Registry::new().await;
    let shared = registry.clone();
    let further = new.clone();
    let setup = setup.configure(move |builder| {
        builder.registry(shared.clone()).further_dpop_key(further.clone()).cookie_key(crate::world::key())
    });
    let world = World::without_app(strict(Options::default())).await.add_app(&setup, Some(&api)).await;
    let call_as = async |browser: &Browser, app: &App| {
        carry(browser, &world.app, app);
        browser.get(&app.at("/api/orders")).await.status
    };
    let call = async |app: &App| call_as(&world.browser, app).await;
    world.sign_in().await;
    assert_eq!(call(&world.app).await, StatusCode::OK);
    let of_old = api.last_key();

    // Another replica has the new key, and the old one besides.
    let builder = |dpop: &SigningKey| {
        tower_oidc_session::RelyingParty::builder(world.provider.issuer(), setup.credentials.clone(), &world.app.url)
            .cookie_key(crate::world::key())
            .policy(crate::world::policy())
            .clock(world.clock.clone())
            .registry(registry.clone())
            .api(api.url.clone())
            .dpop(dpop.clone())
    };
    let replica = world.serve(builder(&new).further_dpop_key(old.clone()), Some(api.url.clone())).await;
    assert_eq!(call(&replica).await, StatusCode::OK);
    assert_eq!(api.last_key(), of_old, "the token is bound to the old key still");
    world.clock.advance(G);
    assert_eq!(call(&replica).await, StatusCode::OK);
    let of_new = api.last_key();
    assert_ne!(of_new, of_old, "the next one is not");
    assert_eq!(call(&world.app).await, StatusCode::OK);
    assert_eq!(api.last_key(), of_new, "the other replica can show it");

    // A login that began with the one ends with it, on whichever replica.
    let browser = Browser::new();
    let at_provider = browser.step(&world.app.at("/auth/login?return_to=/me")).await.location();
    let mut callback = browser.step(at_provider.as_str()).await.location();
    callback.set_port(url::Url::parse(&replica.url).unwrap().port()).unwrap();
    carry(&browser, &world.app, &replica);
    assert_eq!(browser.step(callback.as_str()).await.status, StatusCode::SEE_OTHER);
    carry(&browser, &replica, &world.app);
    assert_eq!(call_as(&browser, &replica).await, StatusCode::OK);
    assert_eq!(api.last_key(), of_old);

    // Who has dropped the old key gets another token.
    let last = world.serve(builder(&new), Some(api.url.clone())).await;
    assert_eq!(call_as(&browser, &last).await, StatusCode::OK);
    assert_eq!(api.last_key(), of_new);
    assert!(world.app.ends().is_empty() && replica.ends().is_empty() && last.ends().is_empty());
}

#[tokio::test]
async fn userinfo_is_asked_with_a_proof() {
    let options = Options::default();
    let provider = options.provider.refresh_tokens(RefreshTokens::None).access_token_lifetime(T * 4);
    let world = Setup::new().world_with(strict(Options { provider, ..options }), None).await;
    world.sign_in().await;
    for _ in 0..3 {
        world.clock.advance(G);
        world.provider.change_dpop_nonce();
        assert_eq!(world.me().await, StatusCode::OK);
    }
    assert!(world.provider.requests(Endpoint::UserInfo) >= 2);
    world.provider.forget_session(&world.sid());
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn p2_p3_a_refresh_token_is_presented_by_one_however_many_nonces_there_are() {
    let world = Setup::new().world_with(strict(Options::default()), None).await;
    world.sign_in().await;
    world.provider.change_dpop_nonce();
    world.clock.advance(G);
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Request);
    let ask = async || world.me().await;
    let requests = futures_util::future::join_all((0..20).map(|_| ask()));
    let open = async {
        gate.arrived().await;
        assert_eq!(gate.waiting(), 1);
        gate.open();
    };
    let (statuses, ()) = futures_util::future::join(requests, open).await;
    assert!(statuses.iter().all(|status| *status == StatusCode::OK), "{statuses:?}");
    // The embedded provider takes a token that comes again for theft.
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
    assert!(world.app.ends().is_empty());
}

#[tokio::test]
async fn p2_an_answer_that_is_lost_after_a_nonce_is_one_that_is_lost() {
    let options = Options::default();
    let provider = options.provider.refresh_tokens(RefreshTokens::Reuse);
    let world = Setup::new().world_with(strict(Options { provider, ..options }), None).await;
    world.sign_in().await;
    world.clock.advance(G);
    world.provider.change_dpop_nonce();
    let before = world.provider.requests(Endpoint::Token);
    // The answer that brings the nonce arrives, and the one after that is lost.
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Response);
    let lost = async {
        gate.arrived().await;
        world.provider.set_fault_times(Endpoint::Token, Fault::DropAfterWork, 1);
        gate.open();
    };
    let (status, ()) = world.clock.run(futures_util::future::join(world.me(), lost)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(world.provider.requests(Endpoint::Token) - before, 3, "for the nonce, in vain, and once more");
    assert!(world.app.ends().is_empty());
}

#[tokio::test]
async fn p2_a_proof_that_is_not_taken_is_made_anew_once() {
    let world = Setup::new().world().await;
    world.sign_in().await;
    let body = json!({"error": "invalid_dpop_proof"}).to_string();
    let refused = Fault::Body { status: 400, content_type: "application/json", body };
    for (times, requests) in [(1, 2), (2, 2)] {
        world.provider.set_fault_times(Endpoint::Token, refused.clone(), times);
        world.clock.advance(G);
        let before = world.provider.requests(Endpoint::Token);
        assert_eq!(world.me().await, StatusCode::OK);
        assert_eq!(world.provider.requests(Endpoint::Token) - before, requests, "{times}");
    }
    world.clock.advance(SECOND * 60);
    assert_eq!(world.me().await, StatusCode::OK);
    assert!(world.app.ends().is_empty());
}

#[tokio::test]
async fn p14_without_the_key_of_its_token_a_session_calls_no_api_as_nobody() {
    let api = BoundApi::start().await;
    let options = Options::default();
    let provider = options.provider.refresh_tokens(RefreshTokens::None).access_token_lifetime(T * 4);
    let setup = Setup::new().configure(|builder| builder.cookie_key(crate::world::key()));
    let world = setup.world_with(Options { provider, ..options }, Some(&api)).await;
    world.sign_in().await;
    let credentials = by_key(&new_key());
    let builder = tower_oidc_session::RelyingParty::builder(world.provider.issuer(), credentials, &world.app.url)
        .cookie_key(crate::world::key())
        .policy(crate::world::policy())
        .clock(world.clock.clone())
        .registry(world.app.registry.clone())
        .api(api.url.clone())
        .dpop(new_key());
    let replica = world.serve(builder, Some(api.url.clone())).await;
    carry(&world.browser, &world.app, &replica);
    let page = world.browser.get(&replica.at("/api/orders")).await;
    assert_eq!((page.status, api.calls().len()), (StatusCode::BAD_GATEWAY, 0));
    assert_eq!(world.browser.get(&world.app.at("/api/orders")).await.status, StatusCode::OK, "who has it calls");
    assert!(replica.ends().is_empty());
}

/// What a page of another site makes a browser do.
async fn from_another_site(world: &World, path: &str, mode: &str) -> crate::browser::Page {
    let request = world.browser.request(Method::GET, &world.app.at(path));
    let request = request.header("accept", "text/html").header("sec-fetch-site", "cross-site");
    world.browser.page(request.header("sec-fetch-mode", mode)).await
}

#[tokio::test]
async fn p12_another_sites_page_begins_no_login_behind_its_visitors_back() {
    // As an image, a script or a fetch: never.
    let world = World::new().await;
    for mode in ["no-cors", "cors", "same-origin"] {
        let page = from_another_site(&world, "/auth/login?return_to=/me", mode).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{mode}");
        assert!(!page.headers.contains_key("set-cookie"), "{mode}");
    }
    assert_eq!(from_another_site(&world, "/auth/callback?state=x", "no-cors").await.status, StatusCode::FORBIDDEN);
    for path in ["/auth/login?return_to=/me", "/auth/callback?state=x"] {
        let page = from_another_site(&world, path, "navigate").await;
        assert_eq!(page.status, StatusCode::SEE_OTHER, "a link is one");
    }
    // A link only after its visitor was asked, where that is wanted.
    let options = Options::default();
    let provider = options.provider.signing_alg(SigningAlg::PS256);
    let setup = Setup::new().configure(RelyingPartyBuilder::fapi2);
    let world = setup.world_with(strict(Options { provider, ..options }), None).await;
    for path in ["/auth/login?return_to=/me&acr_values=a%26b", "/auth/login?prompt=none"] {
        let page = from_another_site(&world, path, "navigate").await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED);
        assert!(page.body.contains(&format!("href=\"{}\"", path.replace('&', "&amp;"))), "{}", page.body);
        assert!(!page.headers.contains_key("set-cookie"));
    }
    let page = from_another_site(&world, "/auth/callback?state=x", "navigate").await;
    assert!(page.status == StatusCode::BAD_REQUEST && page.body.contains("href=\"/auth/login\""), "{}", page.body);
    assert_eq!(world.provider.requests(Endpoint::PushedAuthorization), 0);
    // With a session that has begun no silent login, too: somebody else may be signed in at the provider.
    world.sign_in().await;
    let page = from_another_site(&world, "/auth/login?prompt=none", "navigate").await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.me().await, StatusCode::OK);
    for site in ["same-origin", "none"] {
        let request = world.browser.request(Method::GET, &world.app.at("/auth/login?return_to=/me"));
        let page = world.browser.page(request.header("sec-fetch-site", site)).await;
        assert_eq!(page.status, StatusCode::SEE_OTHER, "{site}");
    }
}

#[tokio::test]
async fn p4_an_endpoint_for_pushed_requests_that_moved_is_found() {
    let options = Options::default();
    let provider = options.provider.pushed_requests(PushedRequests::Taken);
    let bare = World::without_app(Options { provider, ..options }).await;
    bare.provider.tamper_metadata(|metadata| {
        let gone = format!("{}-gone", metadata["pushed_authorization_request_endpoint"].as_str().unwrap());
        metadata["pushed_authorization_request_endpoint"] = gone.into();
    });
    let world = bare.add_app(&Setup::new(), None).await;
    let login = world.app.at("/auth/login?return_to=/me");
    assert_eq!(world.browser.step(&login).await.status, StatusCode::SERVICE_UNAVAILABLE);
    world.provider.clear_tampering();
    world.clock.advance(SECOND * 60);
    let mut page = world.browser.step(&login).await;
    for _ in 0..100 {
        if page.status == StatusCode::SEE_OTHER {
            break;
        }
        page = world.browser.step(&login).await;
    }
    assert_eq!(page.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn fapi2_works_with_what_it_demands() {
    let options = Options::default();
    let provider = options.provider.signing_alg(SigningAlg::PS256);
    let setup = Setup::new().configure(RelyingPartyBuilder::fapi2);
    let world = setup.world_with(strict(Options { provider, ..options }), None).await;
    world.sign_in().await;
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
    // `iss` has to be there, whatever the metadata say.
    world.provider.tamper_metadata(|metadata| {
        metadata["authorization_response_iss_parameter_supported"] = false.into();
    });
    let browser = Browser::new();
    let at_provider = browser.step(&world.app.at("/auth/login?return_to=/me")).await.location();
    let mut callback = browser.step(at_provider.as_str()).await.location();
    let without: Vec<(String, String)> =
        callback.query_pairs().into_owned().filter(|(name, _)| name != "iss").collect();
    callback.query_pairs_mut().clear().extend_pairs(without);
    let before = world.provider.requests(Endpoint::Token);
    assert_eq!(browser.step(callback.as_str()).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(world.provider.requests(Endpoint::Token), before, "the code goes nowhere");
}

#[tokio::test]
async fn settings_that_contradict_each_other_are_named() {
    let (certificate_pem, key) = {
        let made = rcgen::generate_simple_self_signed(["shop".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    };
    let certificate = || {
        let certificate = tower_oidc_session::ClientCertificate::from_pem(&certificate_pem, &key).unwrap();
        ClientAuthentication::TlsClientAuth(certificate)
    };
    let with = |credentials| {
        tower_oidc_session::RelyingParty::builder("https://op.example", credentials, "https://shop.example")
    };
    let client = tower::service_fn(async |_: http::Request<axum::body::Body>| {
        Ok::<_, std::io::Error>(http::Response::new(axum::body::Body::empty()))
    });
    let error = |builder: RelyingPartyBuilder| builder.build().err().map(|error| error.setting());
    let another = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let unfit = tower_oidc_session::ClientCertificate::from_pem(&certificate_pem, another).unwrap_err();
    assert_eq!(unfit.setting(), "client_certificate", "{unfit}");
    let by_certificate = || ClientCredentials::new("shop", certificate());
    assert_eq!(error(with(by_certificate()).http_client(client)), Some("client_certificate"));
    assert_eq!(error(with(by_certificate().or(certificate()))), Some("client_certificate"));
    assert_eq!(error(with(by_certificate()).further_dpop_key(new_key())), Some("further_dpop_key"));
    assert_eq!(error(with(by_certificate()).fapi2()), None);
    assert_eq!(error(with(by_certificate()).fapi2().signing_alg(SigningAlg::RS256)), Some("signing_alg"));
    assert_eq!(error(with(ClientCredentials::secret("shop", "s")).fapi2()), Some("client_authentication"));
    for wrong in ["", "no key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        assert_eq!(SigningKey::from_pem(wrong).err().map(|error| error.setting()), Some("signing_key"), "{wrong}");
    }
}
