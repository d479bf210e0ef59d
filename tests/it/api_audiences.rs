//! Access tokens for several APIs, got with one refresh token; and APIs that ask the provider about each.

use http::StatusCode;
use serde_json::json;
use tower_oidc_session::test_provider::{Coordination, Endpoint, ExpiredSessions, Fault, GateAt, RefreshTokens};
use tower_oidc_session::{Api as Listed, EndReason, RelyingPartyBuilder};

use crate::api::world;
use crate::api_server::{Answer, Api, introspect};
use crate::trouble::begin;
use crate::until::until;
use crate::world::{ABSOLUTE, G, Options, SECOND, World, policy};

const BILLING: &str = "https://billing.example";

async fn with(api: &Api, listed: Listed) -> World {
    world(api, |mut o| {
        let listed = listed.clone();
        o.configure = Box::new(move |builder| builder.api(listed.clone()));
        o.client = Box::new(|client| client.resource(BILLING));
        o
    })
    .await
}

#[tokio::test]
async fn an_api_gets_a_token_of_its_own() {
    let api = Api::start().await;
    let world = with(&api, Listed::at(&api.url).resource(BILLING).scopes(["profile"])).await;
    api.answers(Answer::Ask(world.provider.issuer()));
    for _ in 0..3 {
        assert_eq!(world.browser.get(&world.app.at("/api/x")).await.status, StatusCode::OK);
    }
    assert_eq!(world.provider.requests(Endpoint::Token), 2, "it is kept");
    let claims = introspect(&world.provider.issuer(), &api.tokens()[0]).await;
    assert_eq!((&claims["aud"], &claims["scope"]), (&json!(BILLING), &json!("profile")));
    let own = world.browser.get(&world.app.at("/me")).await.json()["token"].clone();
    assert_ne!(own, api.tokens()[0]);
    let claims = introspect(&world.provider.issuer(), own.as_str().unwrap()).await;
    assert_eq!(claims["scope"], "openid profile");

    // It is refreshed by the same rules: after G, and when the API refuses it.
    world.clock.advance(G);
    assert_eq!(world.browser.get(&world.app.at("/api/x")).await.status, StatusCode::OK);
    assert_ne!(api.tokens()[3], api.tokens()[0]);
    api.answers_next(Answer::rejected());
    assert_eq!(world.browser.get(&world.app.at("/api/x")).await.status, StatusCode::OK);
    assert_ne!(api.tokens()[5], api.tokens()[4]);
    api.answers(Answer::rejected());
    let page = world.clock.run(world.browser.get(&world.app.at("/api/x"))).await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    world.app.assert_ended(EndReason::AccessTokenRejected);
}

#[tokio::test]
async fn p2_requests_for_two_audiences_do_not_use_one_refresh_token_twice() {
    let api = Api::start().await;
    let world = with(&api, Listed::at(format!("{}/billing", api.url)).resource(BILLING)).await;
    world.clock.advance(G);
    let requests = ["/me", "/api/billing/x", "/api/orders", "/me", "/api/billing/y"]
        .map(|path| begin(&world, &world.browser, path));
    for status in futures_util::future::join_all(requests).await {
        assert_eq!(status.unwrap(), StatusCode::OK);
    }
    assert_eq!(world.provider.requests(Endpoint::Token), 3);
    assert!(world.app.ends().is_empty());
    // Rotation has not lost the way.
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
}

#[tokio::test]
async fn p4_a_resource_that_the_provider_does_not_know_ends_nothing() {
    let api = Api::start().await;
    let world = with(&api, Listed::at(&api.url).resource("https://unknown.example")).await;
    let page = world.browser.get(&world.app.at("/api/x")).await;
    assert_eq!((page.status, &page.json()["error"]), (StatusCode::BAD_GATEWAY, &json!("no_token_for_api")));
    assert_eq!(api.calls(), 0);
    // The provider is spared for a while, and nothing else of the session has to wait for that.
    assert_eq!(world.browser.get(&world.app.at("/api/x")).await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(world.provider.requests(Endpoint::Token), 2);
    world.clock.advance(SECOND * 30);
    assert_eq!(world.browser.get(&world.app.at("/api/x")).await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(world.provider.requests(Endpoint::Token), 3);
    assert_eq!(world.browser.post(&world.app.at("/auth/session")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.me().await, StatusCode::OK);
    assert!(world.app.ends().is_empty());
}

#[tokio::test]
async fn reference_tokens_without_refresh_token_live_and_die_with_the_session() {
    let api = Api::start().await;
    let world = world(&api, |mut o| {
        o.provider = o
            .provider
            .coordination(Coordination::AllClients)
            .expired_sessions(ExpiredSessions::StaySilent)
            .refresh_tokens(RefreshTokens::None)
            .access_token_lifetime(ABSOLUTE);
        Options { api: Some(api.url.clone()), ..o }
    })
    .await;
    api.answers(Answer::Ask(world.provider.issuer()));
    for signals in 1..=6 {
        world.clock.advance(G);
        assert_eq!(world.browser.get(&world.app.at("/api/x")).await.status, StatusCode::OK);
        let requests = [Endpoint::UserInfo, Endpoint::Introspection].map(|e| world.provider.requests(e));
        assert_eq!(requests, [signals, signals]);
    }
    assert_eq!(world.provider.requests(Endpoint::Token), 1);
    // The end is seen by whoever asks first: here the API, within G of the last signal.
    world.provider.forget_session(&world.sid());
    world.clock.advance(SECOND);
    let page = world.browser.get(&world.app.at("/api/x")).await;
    assert_eq!((page.status, &page.json()["reason"]), (StatusCode::UNAUTHORIZED, &json!("access_token_rejected")));
    assert_eq!(api.calls(), 7, "there is nothing to try again with");
    world.app.assert_ended(EndReason::AccessTokenRejected);
}

#[tokio::test]
async fn what_an_audience_is_refused_ends_nothing_but_a_dead_grant_does() {
    for (error, ends) in [
        ("access_denied", 0),
        ("invalid_target", 0),
        ("invalid_scope", 0),
        ("consent_required", 1),
        ("invalid_grant", 1),
    ] {
        let api = Api::start().await;
        let world = with(&api, Listed::at(&api.url).resource(BILLING)).await;
        let body = format!(r#"{{"error":"{error}"}}"#);
        let fault = Fault::Body { status: 400, content_type: "application/json", body };
        world.provider.set_fault(Endpoint::Token, fault);
        let status = world.browser.get(&world.app.at("/api/x")).await.status;
        let expected = if ends == 0 { StatusCode::BAD_GATEWAY } else { StatusCode::UNAUTHORIZED };
        assert_eq!((status, world.app.ends().len()), (expected, ends), "{error}");
    }
}

#[tokio::test]
async fn p4_a_grant_refused_for_one_api_is_confirmed_by_a_plain_refresh() {
    for error in ["invalid_grant", "consent_required", "interaction_required"] {
        let api = Api::start().await;
        let world = with(&api, Listed::at(&api.url).resource(BILLING)).await;
        let body = format!(r#"{{"error":"{error}","suberror":"consent_required"}}"#);
        let fault = Fault::Body { status: 400, content_type: "application/json", body };
        world.provider.set_fault_times(Endpoint::Token, fault, 1);
        let status = world.browser.get(&world.app.at("/api/x")).await.status;
        assert_eq!((status, world.app.ends()), (StatusCode::BAD_GATEWAY, vec![]), "{error}");
        assert_eq!(world.provider.requests(Endpoint::Token), 3, "{error}: the login, this API, a plain refresh");
        assert_eq!(world.me().await, StatusCode::OK);
    }
}

#[tokio::test]
async fn p12_what_one_user_is_denied_another_may_get() {
    let api = Api::start().await;
    let world = with(&api, Listed::at(&api.url).resource(BILLING)).await;
    let body = r#"{"error":"access_denied"}"#.to_owned();
    let fault = Fault::Body { status: 403, content_type: "application/json", body };
    world.provider.set_fault_times(Endpoint::Token, fault, 1);
    assert_eq!(world.browser.get(&world.app.at("/api/x")).await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(world.browser.get(&world.app.at("/api/x")).await.status, StatusCode::BAD_GATEWAY, "not asked again");
    let other = crate::browser::Browser::new();
    other.go(&world.app.at("/me")).await;
    assert_eq!(other.get(&world.app.at("/api/x")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_api_that_was_given_no_token_cannot_end_a_session() {
    // One that gets the login's token, of a session that keeps none.
    let api = Api::start().await;
    api.answers(Answer::rejected());
    let tokenless = world(&api, |o| Options { policy: policy().discard_tokens(), ..o }).await;
    assert_eq!(tokenless.browser.step(&tokenless.app.at("/api/x")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!((api.calls(), api.tokens()), (1, vec![String::new()]));
    assert_eq!(tokenless.me().await, StatusCode::OK);
    // One that gets a token of its own, which takes a refresh token.
    let api = Api::start().await;
    let listed = Listed::at(&api.url).resource(BILLING);
    let world = world(&api, |mut o| {
        let listed = listed.clone();
        o.configure = Box::new(move |builder| builder.api(listed.clone()));
        o.provider = o.provider.refresh_tokens(RefreshTokens::None).access_token_lifetime(ABSOLUTE);
        o
    })
    .await;
    assert_eq!(world.browser.get(&world.app.at("/api/x")).await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(api.calls(), 0);
    assert_eq!(world.me().await, StatusCode::OK);
}

#[tokio::test]
async fn p2_a_replica_that_is_overtaken_by_another_audience_gets_its_own_token_all_the_same() {
    let api = Api::start().await;
    let listed = [Listed::at(&api.url), Listed::at(format!("{}/billing", api.url)).resource(BILLING)];
    let world = with(&api, listed[1].clone()).await;
    let replica = world.replica_calling(world.app.registry.clone(), &listed, Some(api.url.clone())).await;
    let at_replica = world.browser.copy();
    for (name, value) in world.browser.cookies(&world.app.url) {
        at_replica.set_cookie(&replica.url, &name, &value);
    }
    // One replica refreshes for billing; the other is told meanwhile that the login's token is no good.
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Response);
    let billing = begin(&world, &world.browser, "/api/billing/x");
    gate.arrived().await;
    api.answers_next(Answer::rejected());
    let orders = tokio::spawn(async move { at_replica.get(&replica.at("/api/orders")).await.status });
    until(|| api.calls() >= 1).await;
    gate.open();
    let both = world.clock.run(futures_util::future::join(billing, orders)).await;
    assert_eq!((both.0.unwrap(), both.1.unwrap()), (StatusCode::OK, StatusCode::OK));
    assert_eq!(world.provider.requests(Endpoint::Token), 3);
    assert!(world.app.ends().is_empty());
}

/// A request that begins while another of its session waits for the provider; whether it joins that one or comes later, the outcome
/// is the same.
async fn meanwhile(world: &World, first: &str, second: &str) -> (StatusCode, StatusCode) {
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Response);
    let first = begin(world, &world.browser, first);
    gate.arrived().await;
    let second = begin(world, &world.browser, second);
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    gate.open();
    let (first, second) = futures_util::future::join(first, second).await;
    (first.unwrap(), second.unwrap())
}

#[tokio::test]
async fn a_refresh_for_one_api_is_none_for_another_nor_is_its_refusal() {
    const STORE: &str = "https://store.example";
    for (known, expected) in [(true, StatusCode::OK), (false, StatusCode::BAD_GATEWAY)] {
        let api = Api::start().await;
        let listed = [("billing", BILLING), ("store", STORE)]
            .map(|(path, resource)| Listed::at(format!("{}/{path}", api.url)).resource(resource));
        let world = world(&api, |mut o| {
            let listed = listed.clone();
            o.configure = Box::new(move |builder| listed.iter().cloned().fold(builder, RelyingPartyBuilder::api));
            o.client = Box::new(move |client| {
                let client = client.resource(STORE);
                if known { client.resource(BILLING) } else { client }
            });
            o
        })
        .await;
        let answers = meanwhile(&world, "/api/billing/x", "/api/store/x").await;
        assert_eq!(answers, (expected, StatusCode::OK));
        assert_eq!(world.provider.requests(Endpoint::Token), 3, "the login, and one for each");
    }
}

#[tokio::test]
async fn a_provider_that_gives_the_same_token_again_is_asked_once() {
    let api = Api::start().await;
    let world = world(&api, |o| o).await;
    let token = world.browser.get(&world.app.at("/me")).await.json()["token"].clone();
    world.provider.tamper_token_response(move |json| json["access_token"] = token.clone());
    world.provider.tamper_id_token(|_, claims| drop(claims.as_object_mut().unwrap().remove("at_hash")));
    api.answers_next(Answer::rejected());
    let status = world.browser.get(&world.app.at("/api/x")).await.status;
    assert_eq!((status, api.calls()), (StatusCode::OK, 2), "who refused it may take it now");
    assert_eq!(world.provider.requests(Endpoint::Token), 2);
}
