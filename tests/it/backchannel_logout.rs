//! P6 and the back-channel logout receiver, rule by rule. The names of the OpenID conformance suite's modules stand in
//! `conformance.rs`.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower_oidc_session::test_provider::{Endpoint, Fault, GateAt, OldKeys};
use tower_oidc_session::{EndReason, LogoutTokenPolicy, LogoutTokenTyp, MissingExpiry};

use crate::browser::Page;
use crate::world::{G, Options, SECOND, World};

const FORM: &str = "application/x-www-form-urlencoded";

pub(crate) async fn post(world: &World, content_type: &str, body: String) -> Page {
    let url = world.app.at("/auth/backchannel-logout");
    let request = world.browser.request(Method::POST, &url).header("content-type", content_type).body(body);
    let page = crate::browser::Browser::new().page(request).await;
    assert_eq!(page.headers["cache-control"], "no-store");
    for header in ["set-cookie", "access-control-allow-origin", "location"] {
        assert!(!page.headers.contains_key(header), "{page:?}");
    }
    page
}

pub(crate) async fn post_token(world: &World, token: &str) -> StatusCode {
    let page = post(world, FORM, format!("logout_token={token}")).await;
    if page.status == StatusCode::BAD_REQUEST {
        assert_eq!(page.headers["content-type"], "application/json");
        assert_eq!(page.json()["error"], "invalid_request");
        assert!(token.len() < 20 || !page.body.contains(token));
    }
    page.status
}

/// A logout token for the user's session with one change.
pub(crate) fn changed(world: &World, change: impl FnOnce(&mut Value, &mut Value)) -> String {
    let mut header = json!({"typ": "logout+jwt"});
    let mut claims = world.provider.logout_claims("shop", Some("alice"), Some(&world.sid()));
    change(&mut header, &mut claims);
    world.provider.sign(&header, &claims)
}

type Change = fn(&mut Value, &mut Value);

#[track_caller]
fn seconds(claims: &Value, name: &str) -> u64 {
    claims[name].as_u64().unwrap()
}

#[tokio::test]
async fn wrong_tokens_are_refused_and_end_nothing() {
    let wrong: &[(&str, Change)] = &[
        ("iss missing", |_, c| c["iss"] = Value::Null),
        ("iss another", |_, c| c["iss"] = "https://op.example".into()),
        ("iss an array", |_, c| c["iss"] = json!([c["iss"]])),
        ("aud missing", |_, c| drop(c.as_object_mut().unwrap().remove("aud"))),
        ("aud another", |_, c| c["aud"] = "bank".into()),
        ("aud with others", |_, c| c["aud"] = json!(["shop", "bank"])),
        ("aud empty", |_, c| c["aud"] = json!([])),
        ("iat missing", |_, c| drop(c.as_object_mut().unwrap().remove("iat"))),
        ("iat in the future", |_, c| c["iat"] = (seconds(c, "iat") + 31).into()),
        ("iat a string", |_, c| c["iat"] = "now".into()),
        ("iat absurd", |_, c| c["iat"] = json!(1e300)),
        ("exp missing", |_, c| drop(c.as_object_mut().unwrap().remove("exp"))),
        ("exp past", |_, c| c["exp"] = (seconds(c, "iat") - 30).into()),
        ("nbf in the future", |_, c| c["nbf"] = (seconds(c, "iat") + 31).into()),
        ("jti missing", |_, c| drop(c.as_object_mut().unwrap().remove("jti"))),
        ("jti empty", |_, c| c["jti"] = "".into()),
        ("neither sub nor sid", |_, c| {
            c.as_object_mut().unwrap().retain(|name, _| name != "sub" && name != "sid");
        }),
        ("sid a number", |_, c| c["sid"] = 7.into()),
        ("sub empty", |_, c| c["sub"] = "".into()),
        ("events missing", |_, c| drop(c.as_object_mut().unwrap().remove("events"))),
        ("events without the event", |_, c| c["events"] = json!({"urn:other": {}})),
        ("events a string", |_, c| c["events"] = "http://schemas.openid.net/event/backchannel-logout".into()),
        ("the event no object", |_, c| c["events"] = json!({"http://schemas.openid.net/event/backchannel-logout": []})),
        ("nonce", |_, c| c["nonce"] = "n".into()),
        ("nonce null", |_, c| c["nonce"] = Value::Null),
        ("typ of access tokens", |h, _| h["typ"] = "at+jwt".into()),
        ("typ a number", |h, _| h["typ"] = 1.into()),
        ("alg none", |h, _| h["alg"] = "none".into()),
        ("alg another", |h, _| h["alg"] = "PS256".into()),
        ("alg symmetric", |h, _| h["alg"] = "HS256".into()),
        ("kid unknown", |h, _| h["kid"] = "unknown".into()),
        ("kid a number", |h, _| h["kid"] = 1.into()),
        ("crit", |h, _| h["crit"] = json!(["exp"])),
    ];
    let world = World::signed_in().await;
    for (name, change) in wrong {
        let token = changed(&world, change);
        assert_eq!(post_token(&world, &token).await, StatusCode::BAD_REQUEST, "{name}");
    }
    let claims = world.provider.logout_claims("shop", Some("alice"), Some(&world.sid()));
    let forged = world.provider.sign_with_foreign_key(&json!({"typ": "logout+jwt"}), &claims);
    let good = changed(&world, |_, _| {});
    let (unsigned, _) = good.rsplit_once('.').unwrap();
    for token in [forged.as_str(), "", "x", "a.b.c", "..", unsigned, &format!("{unsigned}."), &format!("{good}.x")] {
        assert_eq!(post_token(&world, token).await, StatusCode::BAD_REQUEST, "{token}");
    }
    assert_eq!(world.me().await, StatusCode::OK);
    assert!(world.app.ends().is_empty());
    // One for the keys at login, one for the first unknown kid, none for the next.
    assert_eq!(world.provider.requests(Endpoint::Jwks), 2);
}

#[tokio::test]
async fn right_tokens_of_all_kinds_are_accepted() {
    let right: &[(&str, Change)] = &[
        ("as it is", |_, _| {}),
        ("without typ", |h, _| h["typ"] = Value::Null),
        ("typ JWT", |h, _| h["typ"] = "JWT".into()),
        ("typ in capitals", |h, _| h["typ"] = "LOGOUT+JWT".into()),
        ("typ in full", |h, _| h["typ"] = "application/logout+jwt".into()),
        ("without kid, one key", |h, _| h["kid"] = Value::Null),
        ("aud an array", |_, c| c["aud"] = json!(["shop"])),
        ("sid alone", |_, c| drop(c.as_object_mut().unwrap().remove("sub"))),
        ("sub alone", |_, c| drop(c.as_object_mut().unwrap().remove("sid"))),
        ("sid of another sub", |_, c| c["sub"] = "somebody".into()),
        ("unknown claims", |_, c| c["logout_reasons"] = "session_expiration".into()),
        ("a reason that is not known", |_, c| c["logout_reason"] = "full moon".into()),
        ("a reason that is none", |_, c| c["logout_reason"] = json!(["terminated"])),
        ("more events", |_, c| c["events"]["urn:other"] = json!(1)),
        ("the event with members", |_, c| {
            c["events"]["http://schemas.openid.net/event/backchannel-logout"] = json!({"a": 1});
        }),
        ("exp far away", |_, c| c["exp"] = (seconds(c, "iat") + 86_400).into()),
        ("exp just past", |_, c| c["exp"] = (seconds(c, "iat") - 29).into()),
        ("exp with a fraction", |_, c| c["exp"] = json!(seconds(c, "iat") as f64 + 1.5)),
        ("iat just ahead", |_, c| c["iat"] = (seconds(c, "iat") + 30).into()),
    ];
    for (name, change) in right {
        let world = World::signed_in().await;
        let token = changed(&world, change);
        assert_eq!(post_token(&world, &token).await, StatusCode::OK, "{name}");
        assert_eq!(world.me().await, StatusCode::UNAUTHORIZED, "{name}");
        world.app.assert_ended(EndReason::BackChannelLogout);
    }
}

/// As Duende IdentityServer 7.3 says why.
#[tokio::test]
async fn the_providers_reason_is_that_of_the_end() {
    for (reason, expected) in [
        ("session_expiration", EndReason::ProviderSessionExpired),
        ("terminated", EndReason::ProviderTerminated),
        ("user_logout", EndReason::ProviderUserLogout),
    ] {
        let world = World::signed_in().await;
        let token = changed(&world, |_, claims| claims["logout_reason"] = reason.into());
        assert_eq!(post_token(&world, &token).await, StatusCode::OK, "{reason}");
        world.app.assert_ended(expected);
        assert_eq!(world.browser.get(&world.app.at("/auth/session")).await.json()["reason"], expected.as_str());
    }
}

#[tokio::test]
async fn unknown_sessions_are_a_success() {
    let world = World::signed_in().await;
    for (sub, sid) in [(Some("nobody"), None), (None, Some("unknown")), (Some("alice"), Some("unknown"))] {
        let token = world.provider.logout_token("shop", sub, sid);
        assert_eq!(post_token(&world, &token).await, StatusCode::OK);
    }
    assert_eq!(world.me().await, StatusCode::OK, "an unknown sid does not widen to the user");
}

#[tokio::test]
async fn a_token_without_sid_ends_all_sessions_of_the_user() {
    let world = World::signed_in().await;
    let second = crate::browser::Browser::new();
    second.go(&world.app.at("/me")).await;
    assert!(world.app.registry.has(2));
    let token = world.provider.logout_token("shop", Some("alice"), None);
    assert_eq!(post_token(&world, &token).await, StatusCode::OK);
    assert!(world.app.registry.has(0));
}

#[tokio::test]
async fn a_sid_ends_its_session_and_no_other() {
    let world = World::signed_in().await;
    let sid = world.sid();
    let second = crate::browser::Browser::new();
    second.go(&world.app.at("/me")).await;
    let token = world.provider.logout_token("shop", Some("alice"), Some(&sid));
    assert_eq!(post_token(&world, &token).await, StatusCode::OK);
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
    assert_eq!(second.get(&world.app.at("/me")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_replayed_token_ends_no_later_session() {
    for with_sid in [true, false] {
        let world = World::signed_in().await;
        let sid = world.sid();
        let token = world.provider.logout_token("shop", Some("alice"), with_sid.then_some(&sid));
        assert_eq!(post_token(&world, &token).await, StatusCode::OK);
        world.provider.forget_session(&sid);
        world.clock.advance(SECOND * 2);
        world.sign_in().await;
        assert_eq!(post_token(&world, &token).await, StatusCode::OK, "again");
        assert_eq!(world.me().await, StatusCode::OK);
    }
}

#[tokio::test]
async fn strict_and_lenient_policies() {
    let with = |policy: LogoutTokenPolicy| Options {
        configure: Box::new(move |builder| builder.logout_tokens(policy)),
        ..Options::default()
    };
    let world = World::signed_in_with(with(LogoutTokenPolicy::new().typ(LogoutTokenTyp::Required))).await;
    for typ in [Value::Null, "JWT".into()] {
        let token = changed(&world, |header, _| header["typ"] = typ);
        assert_eq!(post_token(&world, &token).await, StatusCode::BAD_REQUEST);
    }
    assert_eq!(post_token(&world, &changed(&world, |_, _| {})).await, StatusCode::OK);

    let lenient = MissingExpiry::AcceptYoungerThan(Duration::from_secs(120));
    let world = World::signed_in_with(with(LogoutTokenPolicy::new().missing_expiry(lenient))).await;
    let token = changed(&world, |_, claims| drop(claims.as_object_mut().unwrap().remove("exp")));
    let past = changed(&world, |_, claims| claims["exp"] = (seconds(claims, "iat") - 60).into());
    assert_eq!(post_token(&world, &past).await, StatusCode::BAD_REQUEST, "a past exp stays wrong");
    world.clock.advance(SECOND * 151);
    assert_eq!(post_token(&world, &token).await, StatusCode::BAD_REQUEST, "too old");
    let token = changed(&world, |_, claims| drop(claims.as_object_mut().unwrap().remove("exp")));
    world.clock.advance(SECOND * 150);
    assert_eq!(post_token(&world, &token).await, StatusCode::OK);
    world.app.assert_ended(EndReason::BackChannelLogout);
}

#[tokio::test]
async fn requests_have_to_be_right_too() {
    let world = World::signed_in().await;
    let token = changed(&world, |_, _| {});
    let good = format!("logout_token={token}");
    for (content_type, body, status) in [
        ("application/json", good.clone(), 415),
        ("text/plain", good.clone(), 415),
        (FORM, String::new(), 400),
        (FORM, "other=1".to_owned(), 400),
        (FORM, "logout_token=".to_owned(), 400),
        (FORM, format!("{good}&{good}"), 400),
        (FORM, format!("{good}&a=1&a=2"), 400),
        (FORM, format!("LOGOUT_TOKEN={token}"), 400),
        (FORM, format!("logout_token={}", "x".repeat(64 * 1024)), 413),
    ] {
        let page = post(&world, content_type, body).await;
        assert_eq!(page.status.as_u16(), status, "{content_type}");
    }
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS, Method::HEAD] {
        let request = world.browser.request(method, &world.app.at("/auth/backchannel-logout"));
        let page = world.browser.page(request).await;
        assert_eq!((page.status.as_u16(), &page.headers["allow"]), (405, &"POST".parse().unwrap()));
        assert_eq!(page.headers["cache-control"], "no-store");
    }
    let encoded = world
        .browser
        .request(Method::POST, &world.app.at("/auth/backchannel-logout"))
        .header("content-type", FORM)
        .header("content-encoding", "gzip")
        .body(good.clone());
    assert_eq!(world.browser.page(encoded).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(world.me().await, StatusCode::OK);
    // What is not understood is ignored, and a charset and a foreign origin are nothing to worry about.
    let request = world
        .browser
        .request(Method::POST, &world.app.at("/auth/backchannel-logout"))
        .header("content-type", format!("{FORM};charset=UTF-8"))
        .header("origin", "https://evil.example")
        .header("sec-fetch-site", "cross-site")
        .body(format!("x=y&{good}"));
    assert_eq!(world.browser.page(request).await.status, StatusCode::OK);
    world.app.assert_ended(EndReason::BackChannelLogout);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let world = World::signed_in().await;
    let address = world.app.url.strip_prefix("http://").unwrap();
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /auth/backchannel-logout HTTP/1.1\r\nhost: {address}\r\ncontent-type: {FORM}\r\ncontent-length: 9\r\n\r\nl"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    tokio::time::pause();
    let mut answer = vec![0; 64];
    let read = socket.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer[..read]));
}

#[tokio::test]
async fn p6_it_makes_at_most_one_request_for_keys_and_unknown_ones_cause_no_more() {
    let world = World::signed_in().await;
    world.provider.rotate_keys(OldKeys::Drop);
    assert_eq!(world.provider.requests(Endpoint::Jwks), 1);
    let token = changed(&world, |_, _| {});
    assert_eq!(post_token(&world, &token).await, StatusCode::OK);
    assert_eq!(world.provider.requests(Endpoint::Jwks), 2);
    // 400 only where a set that was fetched after the token's arrival lacks the key: some give up on it.
    let (unknown, refused) = (StatusCode::SERVICE_UNAVAILABLE, StatusCode::BAD_REQUEST);
    for (seconds, first) in [(0, unknown), (29, unknown), (1, refused)] {
        world.clock.advance(SECOND * seconds);
        for (kid, expected) in [("a", first), ("b", unknown)] {
            let claims = world.provider.logout_claims("shop", Some("alice"), None);
            let token = world.provider.sign(&json!({ "kid": kid }), &claims);
            assert_eq!(post_token(&world, &token).await, expected, "{seconds} {kid}");
        }
    }
    assert_eq!(world.provider.requests(Endpoint::Jwks), 3, "once in 30 s");
    let foreign = world.provider.sign(&json!({"kid": "c"}), &json!({"iss": "https://evil.example"}));
    world.clock.advance(SECOND * 60);
    assert_eq!(post_token(&world, &foreign).await, StatusCode::BAD_REQUEST);
    assert_eq!(world.provider.requests(Endpoint::Jwks), 3, "another issuer's token causes none");
    assert_eq!(world.provider.requests(Endpoint::Discovery), 1);
}

#[tokio::test]
async fn p6_keys_out_of_reach_are_503_and_a_known_key_goes_on() {
    let world = World::signed_in().await;
    world.provider.set_fault(Endpoint::Jwks, Fault::Refuse);
    let known = changed(&world, |_, _| {});
    world.provider.rotate_keys(OldKeys::Keep);
    let unknown = changed(&world, |_, _| {});
    let page = post(&world, FORM, format!("logout_token={unknown}")).await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(page.headers.contains_key("retry-after"));
    assert_eq!(world.me().await, StatusCode::OK);
    assert_eq!(post_token(&world, &known).await, StatusCode::OK);
    world.app.assert_ended(EndReason::BackChannelLogout);
}

#[tokio::test]
async fn p6_slow_keys_do_not_hold_up_the_answer() {
    let world = World::signed_in().await;
    world.provider.rotate_keys(OldKeys::Keep);
    world.provider.set_fault(Endpoint::Jwks, Fault::Hang);
    let token = changed(&world, |_, _| {});
    let answer = tokio::time::timeout(Duration::from_secs(2), post(&world, FORM, format!("logout_token={token}")));
    assert_eq!(answer.await.unwrap().status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn p6_keys_that_come_too_late_for_one_token_are_there_for_the_next() {
    let world = World::signed_in().await;
    world.provider.rotate_keys(OldKeys::Keep);
    let mut gate = world.provider.gate(Endpoint::Jwks, GateAt::Response);
    let before = world.provider.requests(Endpoint::Jwks);
    // Strangers' tokens wait with it, and cause no more.
    let claims = world.provider.logout_claims("shop", Some("nobody"), None);
    let junk = world.provider.sign_with_foreign_key(&json!({"alg": "RS256", "kid": "no-such-key"}), &claims);
    let token = changed(&world, |_, _| {});
    for token in [&junk, &token] {
        assert_eq!(post_token(&world, token).await, StatusCode::SERVICE_UNAVAILABLE);
    }
    gate.arrived().await;
    assert_eq!((gate.waiting(), world.provider.requests(Endpoint::Jwks) - before), (1, 1));
    gate.open();
    // It is taken in a moment later.
    let mut status = StatusCode::SERVICE_UNAVAILABLE;
    for _ in 0..100 {
        if status == StatusCode::OK {
            break;
        }
        status = post_token(&world, &token).await;
    }
    assert_eq!((status, world.provider.requests(Endpoint::Jwks) - before), (StatusCode::OK, 1));
    world.app.assert_ended(EndReason::BackChannelLogout);
}

#[tokio::test]
async fn p6_it_waits_for_no_refresh() {
    let world = World::signed_in().await;
    world.clock.advance(G);
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Request);
    let (browser, url) = (world.browser.clone(), world.app.at("/me"));
    let request = tokio::spawn(async move { browser.get(&url).await.status });
    gate.arrived().await;
    assert_eq!(post_token(&world, &changed(&world, |_, _| {})).await, StatusCode::OK);
    world.app.assert_ended(EndReason::BackChannelLogout);
    gate.open();
    assert_eq!(request.await.unwrap(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_receiver_can_stand_alone() {
    use tower::ServiceExt;
    let world = World::signed_in().await;
    let token = changed(&world, |_, _| {});
    let request = http::Request::post("/auth/backchannel-logout")
        .header("content-type", FORM)
        .body(axum::body::Body::from(format!("logout_token={token}")))
        .unwrap();
    let response = world.app.rp.backchannel_logout_route().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    world.app.assert_ended(EndReason::BackChannelLogout);
}
