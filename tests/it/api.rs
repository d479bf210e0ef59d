//! Calls to APIs on behalf of a session, against a real API that asks the provider about tokens.

use http::{Method, StatusCode};
use tower_oidc_session::test_provider::{Endpoint, ExpiredSessions, Fault, RefreshTokens, TestClient};
use tower_oidc_session::{Clock, EndReason};

use crate::api_server::{Answer, Api, FOR_ITS_OWN_ORIGIN};
use crate::world::{ABSOLUTE, CLIENT_SECRET, G, Options, SECOND, World};

pub(crate) async fn world(api: &Api, provider: impl Fn(Options) -> Options) -> World {
    let options = provider(Options { api: Some(api.url.clone()), ..Options::default() });
    let world = World::with(options).await;
    world.provider.register(TestClient::new("api", CLIENT_SECRET));
    world.sign_in().await;
    world
}

#[tokio::test]
async fn method_path_query_body_and_answer_are_passed_on() {
    let api = Api::start().await;
    let world = world(&api, |o| o).await;
    let request = world.browser.request(Method::PUT, &world.app.at("/api/orders/7%2F8?full=1&x=%20"));
    let request = request.header("x-custom", "1").header("connection", "x-hop").header("x-hop", "1").body("tea");
    let page = world.browser.page(request).await;
    assert_eq!((page.status, page.body.as_str()), (StatusCode::OK, "tea"));
    assert!(!page.headers.contains_key("set-cookie"));
    let (method, uri, headers, body) = api.seen.lock().unwrap().pop().unwrap();
    assert_eq!((method, uri.as_str(), &body[..]), (Method::PUT, "/v1/orders/7%2F8?full=1&x=%20", &b"tea"[..]));
    assert_eq!(headers["x-custom"], "1");
    assert!(!headers.contains_key("cookie") && !headers.contains_key("x-hop"));
    assert_eq!(headers["host"], api.url.strip_prefix("http://").unwrap().strip_suffix("/v1").unwrap());
}

#[tokio::test]
async fn p9_nobody_speaks_for_another_through_the_proxy() {
    const OF_PROXIES: [&str; 14] = [
        "forwarded",
        "proxy-connection",
        "remote-user",
        "true-client-ip",
        "x-auth-request-user",
        "x-client-ip",
        "x-forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-user",
        "x-original-url",
        "x-real-ip",
        "x-remote-user",
        "x_forwarded_for",
    ];
    let api = Api::start().await;
    let world = world(&api, |o| o).await;
    let request = world.browser.request(Method::GET, &world.app.at("/api/x")).header("x-custom", "1");
    let request = OF_PROXIES.iter().fold(request, |request, name| request.header(*name, "root"));
    let page = world.browser.page(request).await;
    assert_eq!(page.status, StatusCode::OK);
    let (_, _, headers, _) = api.seen.lock().unwrap().pop().unwrap();
    assert_eq!(headers["x-custom"], "1");
    for name in OF_PROXIES {
        assert!(!headers.contains_key(name), "the browser's {name}");
    }
    for name in FOR_ITS_OWN_ORIGIN {
        assert!(!page.headers.contains_key(name), "the API's {name}");
    }
}

#[tokio::test]
async fn p9_a_request_that_would_come_back_with_its_token_is_not_passed_on() {
    let api = Api::start().await;
    let world = world(&api, |o| o).await;
    let request = world.browser.request(Method::TRACE, &world.app.at("/api/x"));
    let page = world.browser.page(request).await;
    assert_eq!(
        (page.status, page.body.as_str()),
        (StatusCode::METHOD_NOT_ALLOWED, r#"{"error":"method_not_allowed"}"#)
    );
    assert_eq!(api.calls(), 0);
}

#[tokio::test]
async fn a_rejected_token_is_refreshed_once_and_the_call_sent_again() {
    let api = Api::start().await;
    let world = world(&api, |mut o| {
        // The provider revokes the token under the session, and a refresh brings a good one.
        o.provider = o.provider.access_token_lifetime(SECOND * 100);
        o
    })
    .await;
    api.answers(Answer::Ask(world.provider.issuer()));
    assert_eq!(world.browser.get(&world.app.at("/api/x")).await.status, StatusCode::OK);
    let old = world.browser.get(&world.app.at("/me")).await.json()["token"].clone();
    let form = format!("token={}&client_id=shop&client_secret={CLIENT_SECRET}", old.as_str().unwrap());
    let revoke = world.browser.request(Method::POST, &format!("{}/revoke", world.provider.issuer()));
    let revoke = revoke.header("content-type", "application/x-www-form-urlencoded").body(form);
    assert_eq!(world.browser.page(revoke).await.status, StatusCode::OK);
    let request = world.browser.request(Method::POST, &world.app.at("/api/x")).body("again");
    let page = world.browser.page(request).await;
    assert_eq!((page.status, page.body.as_str()), (StatusCode::OK, "again"));
    assert_eq!(api.calls(), 3);
    assert_eq!(world.provider.requests(Endpoint::Token), 2);
    assert!(world.app.ends().is_empty());
}

#[tokio::test]
async fn a_second_rejection_ends_the_session() {
    let api = Api::start().await;
    let world = world(&api, |o| o).await;
    api.answers(Answer::rejected());
    let page = world.clock.run(world.browser.get(&world.app.at("/api/x"))).await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    assert_eq!(page.json()["reason"], "access_token_rejected");
    assert!(!page.is_removal(), "a script's page may still ask why");
    // The last time when the new token was no longer new to anybody.
    assert_eq!((api.calls(), world.provider.requests(Endpoint::Token)), (3, 2));
    world.app.assert_ended(EndReason::AccessTokenRejected);
}

#[tokio::test]
async fn p4_an_api_whose_clock_is_behind_ends_nothing() {
    let api = Api::start().await;
    let world = world(&api, |o| o).await;
    // It takes no token that is younger than 2 s.
    let began_at = world.clock.now();
    api.answers_next(Answer::rejected());
    api.answers_next(Answer::rejected());
    let page = world.clock.run(world.browser.get(&world.app.at("/api/x"))).await;
    assert_eq!(page.status, StatusCode::OK, "{page:?}");
    let tokens = api.tokens();
    assert!(tokens.len() == 3 && tokens[0] != tokens[1] && tokens[1] == tokens[2], "{tokens:?}");
    let waited = world.clock.now().duration_since(began_at).unwrap();
    assert!(waited >= SECOND * 3 && waited < SECOND * 6, "{waited:?}");
    assert_eq!(world.browser.get(&world.app.at("/api/x")).await.status, StatusCode::OK);
    assert_eq!((api.calls(), world.provider.requests(Endpoint::Token)), (4, 2));
    assert!(world.app.ends().is_empty());
}

#[tokio::test]
async fn answers_that_say_nothing_about_the_session_are_passed_back() {
    let api = Api::start().await;
    let world = world(&api, |o| o).await;
    for (status, challenge) in [
        (403, Some(r#"Bearer error="insufficient_scope""#)),
        (401, Some(r#"Bearer error="insufficient_user_authentication", acr_values="gold""#)),
        (401, Some(r#"DPoP error="use_dpop_nonce""#)),
        (401, Some(r#"Basic realm="x""#)),
        (400, None),
        (404, None),
        (429, None),
        (500, None),
        (503, None),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        api.answers(Answer::Fixed(status, challenge));
        let before = api.calls();
        assert_eq!(world.browser.get(&world.app.at("/api/x")).await.status, status, "{challenge:?}");
        assert_eq!(api.calls(), before + 1);
    }
    assert_eq!(world.provider.requests(Endpoint::Token), 1);
    assert!(world.app.ends().is_empty());
}

#[tokio::test]
async fn p4_an_expired_token_and_no_provider_is_503() {
    let api = Api::start().await;
    let world = world(&api, |o| o).await;
    world.provider.set_fault(Endpoint::Token, Fault::Status { code: 503, retry_after: None });
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
    let page = world.browser.get(&world.app.at("/api/x")).await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(page.headers.contains_key("retry-after"));
    assert_eq!(api.calls(), 0);
    assert!(world.app.ends().is_empty());
}

#[tokio::test]
async fn without_refresh_token_a_rejection_ends_the_session() {
    let api = Api::start().await;
    let world = world(&api, |mut o| {
        o.provider = o.provider.refresh_tokens(RefreshTokens::None).access_token_lifetime(ABSOLUTE);
        o.provider = o.provider.expired_sessions(ExpiredSessions::StaySilent);
        o
    })
    .await;
    api.answers(Answer::Ask(world.provider.issuer()));
    assert_eq!(world.browser.get(&world.app.at("/api/x")).await.status, StatusCode::OK);
    world.provider.forget_session(&world.sid());
    world.clock.advance(SECOND * 3);
    let page = world.browser.step(&world.app.at("/api/x")).await;
    assert_eq!(page.location().as_str(), world.app.at("/auth/login?return_to=/api/x"));
    world.app.assert_ended(EndReason::AccessTokenRejected);
}

#[tokio::test]
async fn long_bodies_are_streamed_and_not_sent_twice() {
    let api = Api::start().await;
    let world = world(&api, |o| o).await;
    let body = "x".repeat(300_000);
    let request = || world.browser.request(Method::POST, &world.app.at("/api/x")).body(body.clone());
    assert_eq!(world.browser.page(request()).await.body.len(), body.len());
    api.answers(Answer::rejected());
    let page = world.browser.page(request()).await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "the caller may try again with the new token");
    assert_eq!(api.calls(), 2);
    assert!(world.app.ends().is_empty());
}

#[tokio::test]
async fn other_sites_cannot_use_the_api() {
    let api = Api::start().await;
    let world = world(&api, |o| o).await;
    let request =
        world.browser.request(Method::DELETE, &world.app.at("/api/x")).header("origin", "https://evil.example");
    assert_eq!(world.browser.page(request).await.status, StatusCode::FORBIDDEN);
    assert_eq!(api.calls(), 0);
}

#[tokio::test]
async fn an_api_that_is_not_there_is_502() {
    let api = Api::start().await;
    let world = world(&api, |mut o| {
        o.api = Some("http://127.0.0.1:9".to_owned());
        o
    })
    .await;
    assert_eq!(world.browser.get(&world.app.at("/api/x")).await.status, StatusCode::BAD_GATEWAY);
    assert!(world.app.ends().is_empty());
}
