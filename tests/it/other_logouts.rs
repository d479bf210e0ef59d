//! Other roads of a logout: by a frame of the provider's page, and by events that a transmitter pushes.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::routing::get;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tower_oidc_session::test_provider::{Endpoint, Fault, GateAt, Sids, SignIn};
use tower_oidc_session::{Clock, EndReason, EventTransmitter, RelyingPartyBuilder};

use crate::browser::{Browser, Page};
use crate::leaks;
use crate::registry::Registry;
use crate::until::until;
use crate::world::{App, Bare, G, Options, SECOND, World};

const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const VERIFICATION: &str = "https://schemas.openid.net/secevent/ssf/event-type/verification";

fn by_frame() -> Options {
    Options { configure: Box::new(RelyingPartyBuilder::frontchannel_logout), ..Options::default() }
}

/// What a frame loads, in a browser that sends no cookies there.
async fn frame(world: &World, iss: &str, sid: &str) -> Page {
    let query =
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs([("iss", iss), ("sid", sid)]).finish();
    Browser::new().get(&world.app.at(&format!("/auth/frontchannel-logout?{query}"))).await
}

#[tokio::test]
async fn p1_a_frame_of_the_provider_ends_the_session_that_it_names() {
    let world = World::signed_in_with(by_frame()).await;
    let issuer = world.provider.issuer();
    let page = frame(&world, &issuer, &world.sid()).await;
    assert_eq!(page.status, StatusCode::OK);
    assert_eq!(page.headers["cache-control"], "no-store");
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert_eq!(policy, format!("default-src 'none'; frame-ancestors {issuer}"));
    assert!(!page.headers.contains_key("x-frame-options") && !page.headers.contains_key("set-cookie"));
    until(|| !world.app.ends().is_empty()).await;
    world.app.assert_ended(EndReason::FrontChannelLogout);
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
    assert_eq!(frame(&world, &issuer, &world.sid()).await.status, StatusCode::OK, "once more is nothing more");
    // Nothing was revoked: the provider's session is the provider's.
    world.clock.advance(SECOND * 10);
    assert_eq!(world.provider.revoked(), 0);
    world.sign_in().await;
}

#[tokio::test]
async fn p12_a_frame_learns_nothing_and_reaches_nobody_else() {
    let world = World::signed_in_with(by_frame()).await;
    let issuer = world.provider.issuer();
    let (unknown, known) = {
        let began = tokio::time::Instant::now();
        let unknown = frame(&world, &issuer, "made-up").await;
        let between = tokio::time::Instant::now();
        let known = frame(&world, &issuer, &world.sid()).await;
        let times = [between - began, between.elapsed()];
        // Each answer comes after the same time, in which the session is ended or not.
        assert!(times.iter().all(|time| *time >= Duration::from_millis(150)), "{times:?}");
        (unknown, known)
    };
    let seen = |page: &Page| {
        let mut headers = page.headers.clone();
        headers.remove("date");
        (page.status, headers, page.body.clone())
    };
    assert_eq!(seen(&unknown), seen(&known));
    until(|| !world.app.ends().is_empty()).await;
    let at = |query: &str| world.app.at(&format!("/auth/frontchannel-logout{query}"));
    world.sign_in().await;
    let sid = world.provider.sessions().last().unwrap().sid().to_owned();
    for query in ["", "?sid=x", &format!("?iss={issuer}"), &format!("?iss=https://other.example&sid={sid}")] {
        assert_eq!(Browser::new().get(&at(query)).await.status, StatusCode::BAD_REQUEST, "{query}");
    }
    assert_eq!(world.me().await, StatusCode::OK);
    // It is not there where nobody asked for it.
    let plain = World::signed_in().await;
    assert_eq!(frame(&plain, &plain.provider.issuer(), &plain.sid()).await.status, StatusCode::NOT_FOUND);
    assert_eq!(plain.me().await, StatusCode::OK);
}

#[tokio::test]
async fn p12_a_sid_that_everybody_knows_ends_nothing() {
    for claim in ["sub", "preferred_username"] {
        let world = World::with(by_frame()).await;
        world.provider.tamper_id_token(move |_, claims| {
            claims["preferred_username"] = "alice@shop".into();
            claims["sid"] = claims[claim].clone();
        });
        world.sign_in().await;
        let sid = if claim == "sub" { "alice" } else { "alice@shop" };
        assert_eq!(frame(&world, &world.provider.issuer(), sid).await.status, StatusCode::OK);
        assert_eq!(world.me().await, StatusCode::OK, "{claim}");
        assert!(world.app.ends().is_empty(), "{claim}");
    }
}

#[tokio::test]
async fn p12_a_frame_leaves_no_tombstone_for_the_next_session_of_the_same_sid() {
    let options = by_frame();
    let provider = options.provider.sids(Sids::OfTheBrowser);
    let world = World::signed_in_with(Options { provider, ..options }).await;
    let sid = world.sid();
    let at_provider = world.browser.step(&world.app.at("/auth/login?return_to=/me")).await.location();
    assert_eq!(frame(&world, &world.provider.issuer(), &sid).await.status, StatusCode::OK);
    until(|| !world.app.ends().is_empty()).await;
    let callback = world.browser.step(at_provider.as_str()).await.location();
    let arrived = world.browser.step(callback.as_str()).await.location();
    assert_eq!(arrived.path(), "/me", "the login that was under way is not sent through the provider again");
    assert_eq!(world.me().await, StatusCode::OK);
}

/// A world whose provider is the transmitter of events, too.
async fn with_events() -> World {
    let bare = World::without_app(Options::default()).await;
    let transmitter = bare.provider.issuer();
    with_transmitter(bare, transmitter).await
}

async fn with_transmitter(Bare { clock, provider }: Bare, transmitter: String) -> World {
    let configure = move |builder: RelyingPartyBuilder| {
        builder.policy(crate::world::policy()).security_events(EventTransmitter::at(&*transmitter))
    };
    let app = App::start(&provider, &clock, "shop", Registry::new().await, configure, &|client| client, None).await;
    World { clock, provider, app, browser: Browser::new(), _search: leaks::Search }
}

/// A token with one event; `change` may damage it.
fn event(world: &World, kind: &str, event: &Value, change: impl FnOnce(&mut Value)) -> String {
    let mut claims = json!({
        "iss": world.provider.issuer(), "aud": "shop", "iat": now(world), "jti": format!("{event}"),
        "events": {kind: event},
    });
    change(&mut claims);
    world.provider.sign(&json!({"typ": "secevent+jwt"}), &claims)
}

fn now(world: &World) -> u64 {
    world.clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

async fn push(world: &World, token: String) -> Page {
    let browser = Browser::new();
    let request = browser.request(Method::POST, &world.app.at("/auth/security-events"));
    browser.page(request.header("content-type", "application/secevent+jwt").body(token)).await
}

fn of_alice(world: &World) -> Value {
    json!({"format": "iss_sub", "iss": world.provider.issuer(), "sub": "alice"})
}

#[tokio::test]
async fn p1_an_event_ends_the_sessions_that_it_names() {
    for (initiator, reason) in [
        ("admin", EndReason::ProviderTerminated),
        ("user", EndReason::ProviderUserLogout),
        ("policy", EndReason::SessionRevoked),
    ] {
        let world = with_events().await;
        world.sign_in().await;
        let second = Browser::new();
        second.go(&world.app.at("/me")).await;
        // One session by its sid; the other by its user.
        let sid = second_sid(&world);
        let token = event(&world, SESSION_REVOKED, &json!({"initiating_entity": initiator}), |claims| {
            claims["sub_id"] = json!({"format": "opaque", "id": sid});
        });
        let page = push(&world, token).await;
        assert_eq!((page.status, page.body.as_str()), (StatusCode::ACCEPTED, ""));
        assert_eq!(page.headers["cache-control"], "no-store");
        assert_eq!(world.app.ends(), [format!("ended: {reason}")]);
        let subject = of_alice(&world);
        let token = event(&world, SESSION_REVOKED, &json!({}), |claims| claims["sub_id"] = subject);
        assert_eq!(push(&world, token).await.status, StatusCode::ACCEPTED);
        assert_eq!(world.app.ends().len(), 2);
        let statuses = [world.me().await, second.get(&world.app.at("/me")).await.status];
        assert_eq!(statuses, [StatusCode::UNAUTHORIZED; 2]);
    }
}

#[tokio::test]
async fn p14_why_a_session_was_revoked_is_told_in_the_words_for_its_user() {
    let world = with_events().await;
    world.sign_in().await;
    let subject = of_alice(&world);
    let words =
        json!({"en": "Your laptop was reported stolen.", "de": "Ihr Laptop wurde gestohlen gemeldet.", "fr": 1});
    let told = json!({"initiating_entity": "admin", "reason_user": words, "reason_admin": {"en": "case 4711"}});
    let token = event(&world, SESSION_REVOKED, &told, |claims| claims["sub_id"] = subject.clone());
    assert_eq!(push(&world, token).await.status, StatusCode::ACCEPTED);
    let revoked = |ended: usize, words: &str| format!("revoked: {ended} of Some(\"alice\") None {words}");
    let both = r#"{"de": "Ihr Laptop wurde gestohlen gemeldet.", "en": "Your laptop was reported stolen."}"#;
    assert_eq!(world.app.events(), ["started", "ended: provider_terminated", &revoked(1, both)]);
    // Nothing of that kind keeps a session alive.
    let told = json!({"reason_user": "of an earlier draft", "n": 2});
    let token = event(&world, SESSION_REVOKED, &told, |claims| claims["sub_id"] = subject);
    assert_eq!(push(&world, token).await.status, StatusCode::ACCEPTED);
    assert_eq!(world.app.events().last(), Some(&revoked(0, "{}")));
}

fn second_sid(world: &World) -> String {
    world.provider.sessions()[1].sid().to_owned()
}

#[tokio::test]
async fn p13_an_event_reaches_no_session_that_began_after_it_and_counts_once() {
    let world = with_events().await;
    world.clock.advance(SECOND * 3600);
    world.sign_in().await;
    let subject = of_alice(&world);
    let revoked = |at: u64| {
        event(&world, SESSION_REVOKED, &json!({"event_timestamp": at}), |claims| claims["sub_id"] = subject.clone())
    };
    let began = now(&world);
    assert_eq!(push(&world, revoked(began - 20 * 60)).await.status, StatusCode::ACCEPTED);
    assert_eq!(world.me().await, StatusCode::OK, "it began later");
    world.clock.advance(SECOND * 60);
    let token = revoked(began + 60);
    assert_eq!(push(&world, token.clone()).await.status, StatusCode::ACCEPTED);
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
    world.clock.advance(SECOND * 60);
    world.sign_in().await;
    assert_eq!(push(&world, token).await.status, StatusCode::ACCEPTED, "the same once more");
    assert_eq!(world.me().await, StatusCode::OK);
    assert_eq!(world.app.ends().len(), 1);
}

#[tokio::test]
async fn p12_events_and_logout_tokens_do_not_pass_for_each_other() {
    let world = with_events().await;
    world.sign_in().await;
    let subject = of_alice(&world);
    let set = event(&world, SESSION_REVOKED, &json!({}), |claims| claims["sub_id"] = subject.clone());
    // With everything else that a logout token has.
    let both = event(&world, SESSION_REVOKED, &json!({}), |claims| {
        claims["sub"] = "alice".into();
        claims["exp"] = (now(&world) + 60).into();
        claims["events"]["http://schemas.openid.net/event/backchannel-logout"] = json!({});
    });
    for token in [&set, &both] {
        let uri = world.app.at("/auth/backchannel-logout");
        assert_eq!(world.provider.post_logout_token(&uri, token).await, Ok(400));
    }
    let logout = world.provider.logout_token("shop", Some("alice"), Some(&world.sid()));
    assert_eq!(push(&world, logout).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(world.me().await, StatusCode::OK);
    // Nor is one an ID token.
    world.provider.tamper_id_token(|header, _| header["typ"] = "secevent+jwt".into());
    assert_eq!(Browser::new().go(&world.app.at("/me")).await.status, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn what_is_wrong_with_an_event_is_said_in_the_words_of_rfc_8935() {
    let world = with_events().await;
    world.sign_in().await;
    let subject = of_alice(&world);
    let with = |change: &dyn Fn(&mut Value)| {
        event(&world, SESSION_REVOKED, &json!({}), |claims| {
            claims["sub_id"] = subject.clone();
            change(claims);
        })
    };
    let forged = {
        let claims = json!({"iss": world.provider.issuer(), "aud": "shop", "iat": now(&world), "jti": "j",
            "sub_id": subject, "events": {SESSION_REVOKED: {}}});
        world.provider.sign_with_foreign_key(&json!({"typ": "secevent+jwt"}), &claims)
    };
    for (token, error) in [
        (with(&|claims| claims["iss"] = "https://other.example".into()), "invalid_issuer"),
        (with(&|claims| claims["aud"] = "bank".into()), "invalid_audience"),
        (with(&|claims| claims["jti"] = Value::Null), "invalid_request"),
        (with(&|claims| claims["iat"] = (now(&world) + 3600).into()), "invalid_request"),
        (forged, "authentication_failed"),
        ("no token".to_owned(), "invalid_request"),
    ] {
        let page = push(&world, token).await;
        assert_eq!((page.status, page.json()["err"].as_str()), (StatusCode::BAD_REQUEST, Some(error)), "{page:?}");
        assert_eq!(page.headers["content-type"], "application/json");
    }
    let post = async |kind: &str, body: Vec<u8>| {
        let browser = Browser::new();
        let request = browser.request(Method::POST, &world.app.at("/auth/security-events"));
        browser.page(request.header("content-type", kind).body(body)).await.status
    };
    let token = with(&|_| {});
    assert_eq!(post("application/jwt", token.clone().into()).await, StatusCode::BAD_REQUEST);
    assert_eq!(post("application/secevent+jwt", vec![b'x'; 70_000]).await, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(Browser::new().get(&world.app.at("/auth/security-events")).await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(world.me().await, StatusCode::OK);
    let plain = World::signed_in().await;
    assert_eq!(push(&plain, token).await.status, StatusCode::NOT_FOUND, "there is no receiver");
}

#[tokio::test]
async fn other_events_are_taken_and_told() {
    let world = with_events().await;
    world.sign_in().await;
    let token = event(&world, VERIFICATION, &json!({"state": "x"}), |_| {});
    assert_eq!(push(&world, token).await.status, StatusCode::ACCEPTED);
    let other = "https://schemas.openid.net/secevent/caep/event-type/credential-change";
    let token = event(&world, other, &json!({}), |_| {});
    assert_eq!(push(&world, token).await.status, StatusCode::ACCEPTED);
    // Of somebody on one device: who else is there is not meant.
    let subject = of_alice(&world);
    let token = event(&world, SESSION_REVOKED, &json!({}), |claims| {
        claims["sub_id"] = json!({"format": "complex", "user": subject, "device": {"format": "opaque", "id": "d"}});
    });
    assert_eq!(push(&world, token).await.status, StatusCode::ACCEPTED);
    assert_eq!(
        world.app.events(),
        ["started".to_owned(), format!("event: {other}"), format!("event: {SESSION_REVOKED}")]
    );
    assert_eq!(world.me().await, StatusCode::OK);
}

#[tokio::test]
async fn p6_an_event_does_not_wait_for_a_refresh_and_keys_that_are_away_are_503() {
    let world = with_events().await;
    world.sign_in().await;
    let subject = of_alice(&world);
    let token = event(&world, SESSION_REVOKED, &json!({}), |claims| claims["sub_id"] = subject);
    world.provider.set_fault(Endpoint::Jwks, Fault::Status { code: 503, retry_after: None });
    let page = push(&world, token.clone()).await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(page.headers.contains_key("retry-after"));
    world.provider.clear_faults();
    world.clock.advance(SECOND * 60);

    world.clock.advance(G);
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Response);
    let refresh = world.me();
    let end = async {
        gate.arrived().await;
        assert_eq!(push(&world, token).await.status, StatusCode::ACCEPTED);
        world.app.assert_ended(EndReason::SessionRevoked);
        gate.open();
    };
    let (status, ()) = futures_util::future::join(refresh, end).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn p6_an_empty_key_set_of_the_transmitter_takes_the_place_of_no_good_one() {
    let world = with_events().await;
    world.sign_in().await;
    let subject = of_alice(&world);
    let token = |event_name: &str| event(&world, event_name, &json!({}), |claims| claims["sub_id"] = subject.clone());
    assert_eq!(push(&world, token("https://example.org/other")).await.status, StatusCode::ACCEPTED);
    world.provider.tamper_jwks(|set| set["keys"] = json!([]));
    // A key that nobody knows, and then time, speak for newer keys.
    world.clock.advance(SECOND * 60);
    let junk = json!({"typ": "secevent+jwt", "alg": "RS256", "kid": "no-such-key"});
    let claims = json!({"iss": world.provider.issuer(), "aud": "shop", "iat": now(&world), "jti": "junk"});
    let page = push(&world, world.provider.sign_with_foreign_key(&junk, &claims)).await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "no key is not a wrong token");
    assert_eq!(push(&world, token(SESSION_REVOKED)).await.status, StatusCode::ACCEPTED, "by the keys that there were");
    world.app.assert_ended(EndReason::SessionRevoked);

    // They do for a day, and are then no reason to take a token for wrong.
    let at = |age: u64| event(&world, VERIFICATION, &json!({"state": age.to_string()}), |_| {});
    world.clock.advance(SECOND * 3600);
    assert_eq!(push(&world, at(1)).await.status, StatusCode::ACCEPTED);
    world.clock.advance(SECOND * 3600 * 23);
    assert_eq!(push(&world, at(24)).await.status, StatusCode::SERVICE_UNAVAILABLE, "it is to be sent again");
    world.provider.tamper_jwks(|_| {});
    world.clock.advance(SECOND * 10);
    assert_eq!(push(&world, at(24)).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn p6_the_metadata_of_a_transmitter_are_its_own() {
    // What others say, and what is said with an error, lead to no keys.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let bare = World::without_app(Options::default()).await;
    let keys = format!("{}/jwks", bare.provider.issuer());
    let nowhere = format!("{url}/nowhere");
    let shared_signals = Arc::new(Mutex::new((StatusCode::NOT_FOUND, json!({}))));
    let said = shared_signals.clone();
    let own = json!({"issuer": url, "jwks_uri": keys});
    let router = axum::Router::new()
        .route(
            "/.well-known/ssf-configuration",
            get(move || {
                let (status, json) = said.lock().unwrap().clone();
                async move { (status, axum::Json(json)) }
            }),
        )
        .route("/.well-known/openid-configuration", get(async move || axum::Json(own.clone())));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    for (status, json) in [
        (StatusCode::OK, json!({"issuer": "https://other.example", "jwks_uri": nowhere})),
        (StatusCode::OK, json!({"issuer": url})),
        (StatusCode::BAD_GATEWAY, json!({"issuer": url, "jwks_uri": nowhere})),
    ] {
        let case = format!("{status} {json}");
        *shared_signals.lock().unwrap() = (status, json);
        let world = with_transmitter(World::without_app(Options::default()).await, url.clone()).await;
        let claims = json!({
            "iss": url, "aud": "shop", "iat": now(&world), "jti": "j", "events": {VERIFICATION: {"state": "1"}},
        });
        let token = bare.provider.sign(&json!({"typ": "secevent+jwt"}), &claims);
        assert_eq!(push(&world, token).await.status, StatusCode::ACCEPTED, "{case}");
    }
}

#[tokio::test]
async fn p12_an_event_of_one_users_session_and_another_user_ends_neither() {
    let world = with_events().await;
    world.sign_in().await;
    let bob = json!({"format": "iss_sub", "iss": world.provider.issuer(), "sub": "bob"});
    let (mut subject, sid) = (bob, world.sid());
    for (sub, ended) in [("bob", 0), ("alice", 1)] {
        subject["sub"] = sub.into();
        let token = event(&world, SESSION_REVOKED, &json!({"of": sub}), |claims| {
            claims["sub_id"] =
                json!({"format": "complex", "user": subject, "session": {"format": "opaque", "id": sid}});
        });
        assert_eq!(push(&world, token).await.status, StatusCode::ACCEPTED);
        assert_eq!(world.app.ends().len(), ended, "{sub}");
    }
}

#[tokio::test]
async fn p12_of_two_users_with_one_sid_an_event_ends_the_session_of_the_one_it_names() {
    let world = with_events().await;
    world.provider.tamper_id_token(|_, claims| claims["sid"] = "of the browser".into());
    world.sign_in().await;
    world.provider.set_sign_in(SignIn::Automatic("bob".to_owned()));
    let bobs = Browser::new();
    bobs.go(&world.app.at("/me")).await;
    let subject = of_alice(&world);
    let token = event(&world, SESSION_REVOKED, &json!({}), |claims| {
        let session = json!({"format": "opaque", "id": "of the browser"});
        claims["sub_id"] = json!({"format": "complex", "user": subject, "session": session});
    });
    assert_eq!(push(&world, token).await.status, StatusCode::ACCEPTED);
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
    assert_eq!(bobs.get(&world.app.at("/me")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn p6_a_transmitter_whose_keys_are_slow_is_heard_all_the_same() {
    let world = with_events().await;
    world.sign_in().await;
    let subject = of_alice(&world);
    let revoked = |number: u32| {
        event(&world, SESSION_REVOKED, &json!({"n": number}), |claims| claims["sub_id"] = subject.clone())
    };
    // Those of this world's receiver, not of its provider: there are none yet.
    let mut gate = world.provider.gate(Endpoint::Jwks, GateAt::Response);
    let token = revoked(1);
    assert_eq!(push(&world, token.clone()).await.status, StatusCode::SERVICE_UNAVAILABLE);
    gate.arrived().await;
    gate.open();
    let mut status = StatusCode::SERVICE_UNAVAILABLE;
    for _ in 0..100 {
        if status == StatusCode::ACCEPTED {
            break;
        }
        status = push(&world, token.clone()).await.status;
    }
    assert_eq!(status, StatusCode::ACCEPTED);
    world.app.assert_ended(EndReason::SessionRevoked);
    // A good copy that is due is used while the next is on its way.
    world.clock.advance(SECOND * 3601);
    let _hangs = world.provider.gate(Endpoint::Jwks, GateAt::Request);
    assert_eq!(push(&world, revoked(2)).await.status, StatusCode::ACCEPTED);
}
