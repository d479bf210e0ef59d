//! Where an application lives, whom it trusts, and what an audit log hears of it.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::get;
use http::header::{ACCEPT, ORIGIN, SET_COOKIE, USER_AGENT};
use http::{Method, StatusCode};
use serde_json::json;
use tower_oidc_session::test_provider::{Endpoint, Fault, IssuerInResponse, SignIn, TestClient};
use tower_oidc_session::{
    ClientCredentials, Dangerous, EventKind, OidcSession, RelyingParty, RelyingPartyBuilder, SessionEvent,
};

use crate::backchannel_logout::post_token;
use crate::browser::Browser;
use crate::leaks;
use crate::secrets::collect_log;
use crate::world::{CLIENT_SECRET, Options, World};

fn configured(configure: impl Fn(RelyingPartyBuilder) -> RelyingPartyBuilder + 'static) -> Options {
    Options { configure: Box::new(configure), ..Options::default() }
}

#[tokio::test]
async fn plain_http_is_for_this_machine_and_for_those_that_are_named_dangerous() {
    let build = |issuer: &str, dangerous| {
        let builder = RelyingParty::builder(issuer, ClientCredentials::secret("shop", "s"), "https://shop.example");
        builder.dangerous(dangerous).build().map(drop).map_err(|error| error.to_string())
    };
    let (log, _guard) = collect_log("warn");
    let refused = build("http://keycloak:8080", Dangerous::new()).unwrap_err();
    assert!(refused.contains("one that dangerous() names"), "{refused}");
    assert!(!log.text().contains("protections are off"));
    assert_eq!(build("http://keycloak:8080", Dangerous::new().plain_http("keycloak")), Ok(()));
    assert!(log.text().contains("protections are off"), "{}", log.text());
    assert!(build("http://other:8080", Dangerous::new().plain_http("keycloak")).is_err());
}

#[tokio::test]
async fn development_cookies_go_over_plain_http() {
    let world = World::with(configured(|b| b.dangerous(Dangerous::new().development_cookies()))).await;
    let begun = world.browser.step(&world.app.at("/auth/login")).await;
    let cookie = begun.headers[SET_COOKIE].to_str().unwrap();
    assert!(cookie.starts_with("dev-login-") && !cookie.contains("Secure"), "{cookie}");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
    world.sign_in().await;
    assert!(world.browser.cookies(&world.app.url).keys().any(|name| name.starts_with("dev-session-")));
    assert_eq!(world.me().await, StatusCode::OK);
}

#[tokio::test]
async fn a_provider_is_found_inside_where_browsers_do_not_find_it() {
    const OUTSIDE: &str = "http://op.localhost:1";
    let provider = leaks::provider()
        .sign_in(SignIn::Automatic("alice".to_owned()))
        .issuer_in_response(IssuerInResponse::Absent)
        .start()
        .await
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    provider.register(TestClient::at("shop", CLIENT_SECRET, &url));
    let inside = provider.issuer().clone();
    provider.tamper_metadata({
        let inside = inside.clone();
        move |json| *json = serde_json::from_str(&json.to_string().replace(&inside, OUTSIDE)).unwrap()
    });
    provider.tamper_id_token(|_, claims| claims["iss"] = OUTSIDE.into());
    let rp = RelyingParty::builder(OUTSIDE, ClientCredentials::secret("shop", CLIENT_SECRET), &url)
        .internal_provider_url(&inside)
        .build()
        .unwrap();
    let app = Router::new()
        .route("/me", get(async |session: OidcSession| session.issuer().to_string()))
        .route_layer(rp.require_session())
        .merge(rp.routes())
        .layer(rp.layer());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let browser = Browser::new();
    let begun = browser.step(&format!("{url}/auth/login?return_to=/me")).await;
    assert!(begun.location().as_str().starts_with(&format!("{OUTSIDE}/authorize")), "{begun:?}");
    let page = browser.go(&begun.location().as_str().replacen(OUTSIDE, &inside, 1)).await;
    assert_eq!((page.status, page.body.as_str()), (StatusCode::OK, OUTSIDE));
    let logout = browser.post(&format!("{url}/auth/logout")).await;
    assert!(logout.location().as_str().starts_with(&format!("{OUTSIDE}/logout")), "{logout:?}");
}

#[tokio::test]
async fn a_front_end_on_a_sibling_host_may_be_trusted() {
    let world = World::signed_in_with(configured(|b| b.trusted_origin("https://app.shop.example"))).await;
    for (origin, expected) in
        [("https://app.shop.example", StatusCode::OK), ("https://evil.shop.example", StatusCode::FORBIDDEN)]
    {
        let request = world.browser.request(Method::POST, &world.app.at("/me"));
        let page = world.browser.page(request.header("sec-fetch-site", "same-site").header(ORIGIN, origin)).await;
        assert_eq!(page.status, expected, "{origin}");
    }
    let builder = RelyingParty::builder("https://op", ClientCredentials::secret("shop", "s"), "https://shop.example");
    let error = builder.trusted_origin("https://app.shop.example/").build().unwrap_err().to_string();
    assert!(error.starts_with("trusted_origin is https://app.shop.example/: it takes an origin alone"), "{error}");
}

/// A world, and what its audit log hears: the kind, the user, the address and the name of the browser.
async fn audited() -> (World, Arc<Mutex<Vec<String>>>) {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let configure = {
        let heard = heard.clone();
        move |builder: RelyingPartyBuilder| {
            let heard = heard.clone();
            builder.client_address(|_, _| Some(IpAddr::from([203, 0, 113, 7]))).on_event(move |event: &SessionEvent| {
                let who = event.session().map_or("-", |session| session.subject().as_str());
                let address = event.browser().address().map_or("-".to_owned(), |address| address.to_string());
                let agent = event.browser().user_agent().unwrap_or("-");
                let kind = match event.kind() {
                    EventKind::Started => "started".to_owned(),
                    EventKind::Refreshed => "refreshed".to_owned(),
                    EventKind::Ended { reason, .. } => format!("ended {reason}"),
                    EventKind::LoginFailed { reason, .. } => format!("login failed, {reason}"),
                    EventKind::LogoutTokenRefused { reason, .. } => format!("logout token refused, {reason}"),
                    other => format!("{other:?}"),
                };
                heard.lock().unwrap().push(format!("{kind}: {who} {address} {agent}"));
            })
        }
    };
    (World::with(configured(configure)).await, heard)
}

#[tokio::test]
async fn an_audit_log_hears_of_logins_ends_and_refusals() {
    let (world, heard) = audited().await;
    let by_agent = async |method: Method, url: &str| {
        let request = world.browser.request(method, url).header(USER_AGENT, "Test/1").header(ACCEPT, "text/html");
        world.browser.page(request).await
    };
    let callback = async |begun: crate::browser::Page| {
        let at_provider = world.browser.step(begun.location().as_str()).await;
        by_agent(Method::GET, at_provider.location().as_str()).await
    };
    let begun = world.browser.step(&world.app.at("/auth/login")).await;
    callback(begun).await;
    by_agent(Method::POST, &world.app.at("/auth/logout")).await;
    world.provider.set_fault(Endpoint::Token, Fault::Status { code: 400, retry_after: None });
    let begun = world.browser.step(&world.app.at("/auth/login")).await;
    callback(begun).await;
    let heard = heard.lock().unwrap().clone();
    assert_eq!(heard[0], "started: alice 203.0.113.7 Test/1");
    assert_eq!(heard[1], "ended rp_initiated_logout: alice 203.0.113.7 Test/1");
    assert!(heard[2].starts_with("login failed, ") && heard[2].ends_with(": - 203.0.113.7 Test/1"), "{heard:?}");
    assert_eq!(heard.len(), 3, "{heard:?}");
}

#[tokio::test]
async fn an_administrator_ends_one_session() {
    let keys: Arc<Mutex<Vec<String>>> = Arc::default();
    let configure = {
        let keys = keys.clone();
        move |builder: RelyingPartyBuilder| {
            let keys = keys.clone();
            builder.on_event(move |event| {
                keys.lock().unwrap().extend(event.session().map(|session| session.key().to_string()));
            })
        }
    };
    let world = World::signed_in_with(configured(configure)).await;
    let other = Browser::new();
    other.go(&world.app.at("/me")).await;
    let first = keys.lock().unwrap()[0].parse().unwrap();
    world.app.rp.end_session(&first).await.unwrap();
    world.app.rp.end_session(&first).await.unwrap();
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
    assert_eq!(other.get(&world.app.at("/me")).await.status, StatusCode::OK, "the other goes on");
    let late = world.browser.get(&world.app.at("/me")).await;
    assert_eq!((late.status, &late.json()["reason"]), (StatusCode::UNAUTHORIZED, &json!("ended_by_application")));
    assert!("junk".parse::<tower_oidc_session::SessionKey>().is_err());
}

#[tokio::test]
async fn p12_a_strangers_junk_makes_a_bounded_number_of_lines_and_events() {
    let (log, _guard) = collect_log("warn");
    let (world, heard) = audited().await;
    for _ in 0..100 {
        post_token(&world, "junk").await;
    }
    assert_eq!(heard.lock().unwrap().len(), 60);
    assert_eq!(log.text().matches("logout token refused").count(), 60);
    world.clock.advance(std::time::Duration::from_secs(60));
    post_token(&world, "junk").await;
    assert!(log.text().contains("unwritten=40"), "{}", log.text());
}

#[tokio::test]
async fn the_test_provider_has_users_with_claims_and_a_way_out() {
    let provider = leaks::provider()
        .sign_in(SignIn::Page)
        .user_claims("carol", [("groups", json!(["staff"])), ("email", json!("carol@shop.example"))]);
    let world = World::with(Options { provider, ..Options::default() }).await;
    let form = world.browser.go(&world.app.at("/auth/login?return_to=/me")).await;
    assert!(form.body.contains("Cancel"), "{}", form.body);
    let cancelled = world.browser.page(world.browser.request(Method::POST, form.url.as_str()).body("cancel=1")).await;
    let told = world.browser.go(cancelled.location().as_str()).await;
    assert_eq!(told.status, StatusCode::BAD_REQUEST);
    assert!(told.body.contains("did not sign you in"), "{}", told.body);
    let form = world.browser.go(&world.app.at("/auth/login?return_to=/me")).await;
    let body = "user=carol&password=carol";
    let signed_in = world.browser.page(world.browser.request(Method::POST, form.url.as_str()).body(body)).await;
    let me = world.browser.go(signed_in.location().as_str()).await;
    assert_eq!(me.json()["claims"]["groups"], json!(["staff"]));
    assert_eq!(me.json()["claims"]["email"], "carol@shop.example");
    let typed = world.browser.get(&world.app.at("/typed")).await;
    assert_eq!(typed.body, "carol carol@shop.example", "by the types of openidconnect");
}

#[tokio::test]
async fn a_client_of_ones_own_carries_all_calls() {
    // It finds hosts that no other knows.
    #[derive(Clone, Default)]
    struct Client {
        inner: reqwest::Client,
        sent: Arc<Mutex<Vec<String>>>,
        address: Arc<Mutex<String>>,
    }
    let own = Client::default();
    let service = {
        let own = own.clone();
        tower::service_fn(move |request: http::Request<axum::body::Body>| {
            let own = own.clone();
            async move {
                let path = request.uri().path().to_owned();
                own.sent.lock().unwrap().push(format!("{} {path}", request.method()));
                let address = own.address.lock().unwrap().clone();
                let (mut parts, body) = request.into_parts();
                parts.uri = parts.uri.to_string().replace("https://op.internal", &address).parse().unwrap();
                let body = reqwest::Body::wrap_stream(body.into_data_stream());
                let request = http::Request::from_parts(parts, body).try_into()?;
                Ok::<_, reqwest::Error>(http::Response::from(own.inner.execute(request).await?))
            }
        })
    };
    let world = World::with(Options {
        configure: Box::new(move |builder| {
            builder.internal_provider_url("https://op.internal").http_client(service.clone())
        }),
        ..Options::default()
    })
    .await;
    let issuer = world.provider.issuer();
    *own.address.lock().unwrap() = issuer.clone();
    world.sign_in().await;
    world.clock.advance(crate::world::G);
    assert_eq!(world.me().await, StatusCode::OK);
    let sent = own.sent.lock().unwrap().clone();
    for expected in ["GET /.well-known/openid-configuration", "POST /token", "GET /jwks"] {
        assert!(sent.iter().any(|sent| sent == expected), "{expected}: {sent:?}");
    }
    assert_eq!(world.provider.requests(Endpoint::Token), 2, "a login and a refresh");

    // A refused connection is told from an answer that was lost: the refresh token is presented again.
    "http://127.0.0.1:1".clone_into(&mut own.address.lock().unwrap());
    world.clock.advance(crate::world::G);
    assert_eq!(world.me().await, StatusCode::OK, "within T of the last signal it is served");
    *own.address.lock().unwrap() = issuer;
    world.clock.advance(crate::world::SECOND * 60);
    assert_eq!(world.me().await, StatusCode::OK);
    assert_eq!(world.provider.requests(Endpoint::Token), 3);
}

#[tokio::test]
async fn p4_a_client_secret_is_replaced_and_nobody_notices() {
    let world = World::with(configured(|builder| builder)).await;
    let issuer = world.provider.issuer();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    world.provider.register(TestClient::at("bank", "old", &url));
    let rp = RelyingParty::builder(&issuer, ClientCredentials::secret("bank", "new").or_secret("old"), &url)
        .policy(crate::world::policy())
        .clock(world.clock.clone())
        .build()
        .unwrap();
    let app = Router::new()
        .route("/me", get(async |session: OidcSession| session.subject().to_string()))
        .merge(rp.routes())
        .layer(rp.layer());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let browser = Browser::new();
    let before = world.provider.requests(Endpoint::Token);
    assert_eq!(browser.go(&format!("{url}/auth/login?return_to=/me")).await.body, "alice");
    assert_eq!(world.provider.requests(Endpoint::Token) - before, 2, "the new one is not known there yet");
    let me = async || browser.get(&format!("{url}/me")).await.status;
    world.clock.advance(crate::world::G);
    assert_eq!(me().await, StatusCode::OK);
    assert_eq!(world.provider.requests(Endpoint::Token) - before, 3, "the old one is remembered");
    // Replaced at the provider.
    world.provider.register(TestClient::at("bank", "new", &url));
    world.clock.advance(crate::world::G);
    assert_eq!(me().await, StatusCode::OK);
    assert_eq!(world.provider.requests(Endpoint::Token) - before, 5);
    world.clock.advance(crate::world::G);
    assert_eq!(me().await, StatusCode::OK);
    assert_eq!(world.provider.requests(Endpoint::Token) - before, 6);
}
