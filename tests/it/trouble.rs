//! P4, P12: whose trouble it is. Keys that cannot be had, clocks, slow answers, one user's limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use futures_util::future::{BoxFuture, join_all};
use http::StatusCode;
use serde_json::json;
use tower_oidc_session::test_provider::{Endpoint, Fault, GateAt, ManualClock, OldKeys, RefreshTokens, SignIn};
use tower_oidc_session::{Clock, EndReason};

use crate::browser::Browser;
use crate::secrets::collect_log;
use crate::until::until;
use crate::world::{G, Options, SECOND, T, World};

fn body(status: u16, body: &str) -> Fault {
    Fault::Body { status, content_type: "application/json", body: body.to_owned() }
}

/// A request to `path` that is under way.
pub(crate) fn begin(world: &World, browser: &Browser, path: &str) -> tokio::task::JoinHandle<StatusCode> {
    let (browser, url) = (browser.clone(), world.app.at(path));
    tokio::spawn(async move { browser.get(&url).await.status })
}

async fn another_user(world: &World) -> Browser {
    let browser = Browser::new();
    assert_eq!(browser.go(&world.app.at("/me")).await.status, StatusCode::OK);
    browser
}

fn assert_unharmed(world: &World) {
    assert_eq!((world.app.ends(), world.provider.revoked()), (vec![], 0));
}

#[tokio::test]
async fn p4_keys_that_cannot_be_had_end_no_session() {
    let faults = [
        Fault::Status { code: 503, retry_after: None },
        Fault::Status { code: 429, retry_after: Some(SECOND * 60) },
        Fault::Refuse,
        body(200, r#"{"keys":[]}"#),
        body(200, "{}"),
        body(200, "<html>maintenance</html>"),
    ];
    for fault in faults {
        let world = World::signed_in_with(Options::silent()).await;
        let second = another_user(&world).await;
        world.clock.advance(G);
        world.provider.rotate_keys(OldKeys::Drop);
        world.provider.set_fault(Endpoint::Jwks, fault.clone());
        assert_eq!(world.me().await, StatusCode::OK, "{fault:?}");
        world.clock.advance(SECOND * 2);
        assert_eq!(second.get(&world.app.at("/me")).await.status, StatusCode::OK, "{fault:?}");
        assert_unharmed(&world);
        // A login has to know.
        let page = Browser::new().go(&world.app.at("/me")).await;
        assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "{fault:?}");
        world.provider.clear_faults();
        world.clock.advance(SECOND * 5);
        assert_eq!(Browser::new().go(&world.app.at("/me")).await.status, StatusCode::OK, "{fault:?}");
    }
}

#[tokio::test]
async fn p12_a_strangers_logout_token_makes_no_key_rotation_end_sessions() {
    let world = World::signed_in_with(Options::silent()).await;
    world.clock.advance(G);
    let claims = world.provider.logout_claims("shop", Some("nobody"), None);
    let junk = world.provider.sign_with_foreign_key(&json!({"alg": "RS256", "kid": "no-such-key"}), &claims);
    let receiver = world.app.at("/auth/backchannel-logout");
    assert_eq!(world.provider.post_logout_token(&receiver, &junk).await, Ok(400));
    world.provider.rotate_keys(OldKeys::Keep);
    assert_eq!(world.me().await, StatusCode::OK);
    // The stranger's 30 s are the receiver's; a login needs the new key two seconds later.
    world.clock.advance(SECOND * 2);
    assert_eq!(Browser::new().go(&world.app.at("/me")).await.status, StatusCode::OK);
    assert_unharmed(&world);
}

#[tokio::test]
async fn p6_a_logout_token_that_is_sent_again_after_a_failed_fetch_of_keys_is_taken() {
    let world = World::signed_in_with(Options::silent()).await;
    world.provider.rotate_keys(OldKeys::Drop);
    world.provider.set_fault_times(Endpoint::Jwks, Fault::Status { code: 503, retry_after: None }, 1);
    let token = world.provider.logout_token("shop", Some("alice"), Some(&world.sid()));
    let receiver = world.app.at("/auth/backchannel-logout");
    assert_eq!(world.provider.post_logout_token(&receiver, &token).await, Ok(503));
    world.clock.advance(SECOND);
    assert_eq!(world.provider.post_logout_token(&receiver, &token).await, Ok(200));
    world.app.assert_ended(EndReason::BackChannelLogout);
}

#[tokio::test]
async fn p4_an_empty_key_set_takes_the_place_of_no_good_one() {
    let world = World::signed_in_with(Options::silent()).await;
    for _ in 0..11 {
        world.clock.advance(G);
        assert_eq!(world.me().await, StatusCode::OK);
    }
    world.provider.tamper_jwks(|set| set["keys"] = json!([]));
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
    assert_unharmed(&world);
}

#[tokio::test]
async fn p6_one_logout_token_makes_at_most_one_request_for_keys_also_where_the_copy_is_old() {
    for age in [3601, 24 * 3600] {
        let world = World::signed_in_with(Options::silent()).await;
        world.clock.advance(SECOND * age);
        let claims = world.provider.logout_claims("shop", Some("nobody"), None);
        let junk = world.provider.sign_with_foreign_key(&json!({"alg": "RS256", "kid": "no-such-key"}), &claims);
        let before = world.provider.requests(Endpoint::Jwks);
        let receiver = world.app.at("/auth/backchannel-logout");
        assert_eq!(world.provider.post_logout_token(&receiver, &junk).await, Ok(400), "{age}");
        assert_eq!(world.provider.requests(Endpoint::Jwks) - before, 1, "{age}");
    }
}

#[tokio::test]
async fn p6_keys_older_than_a_day_verify_nothing_but_end_nothing_either() {
    let mut options = Options::silent();
    options.policy = options.policy.absolute_lifetime(SECOND * 3600 * 48).op_session_lifetime(SECOND * 3600 * 48);
    options.provider = options.provider.session_lifetime(SECOND * 3600 * 48);
    let world = World::signed_in_with(options).await;
    world.provider.set_fault(Endpoint::Jwks, Fault::Refuse);
    world.clock.advance(SECOND * 3600 * 24);
    let token = world.provider.logout_token("shop", Some("alice"), Some(&world.sid()));
    let receiver = world.app.at("/auth/backchannel-logout");
    assert_eq!(world.provider.post_logout_token(&receiver, &token).await, Ok(503));
    assert_eq!(Browser::new().go(&world.app.at("/me")).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(world.me().await, StatusCode::OK, "the channel vouches");
    assert_eq!(world.app.events(), ["started", "refreshed"]);
}

#[tokio::test]
async fn p4_keys_that_hang_hold_up_no_refresh() {
    let world = World::signed_in_with(Options::silent()).await;
    for _ in 0..11 {
        world.clock.advance(G);
        assert_eq!(world.me().await, StatusCode::OK);
    }
    let keys = world.provider.gate(Endpoint::Jwks, GateAt::Request);
    let discovery = world.provider.gate(Endpoint::Discovery, GateAt::Request);
    for _ in 0..3 {
        world.clock.advance(G);
        assert_eq!(world.me().await, StatusCode::OK);
    }
    assert_eq!(world.app.events().len(), 15);
    until(|| (keys.waiting(), discovery.waiting()) == (1, 1)).await;
    assert_unharmed(&world);
}

#[tokio::test]
async fn p4_endpoints_that_moved_are_found() {
    let world = World::signed_in_with(Options::silent()).await;
    // The copy names an endpoint that is gone; the provider's document has the right one.
    world.provider.tamper_metadata(|metadata| {
        let gone = format!("{}-gone", metadata["token_endpoint"].as_str().unwrap());
        metadata["token_endpoint"] = gone.into();
    });
    let app = world.another_app("moved").await;
    until(|| app.rp.is_ready()).await;
    let browser = Browser::new();
    world.provider.tamper_metadata(|_| {});
    let before = world.provider.requests(Endpoint::Discovery);
    assert_eq!(browser.go(&app.at("/me")).await.status, StatusCode::BAD_GATEWAY, "still by the old copy");
    until(|| world.provider.requests(Endpoint::Discovery) == before + 1).await;
    // The answer is taken in a moment later.
    let mut status = StatusCode::BAD_GATEWAY;
    for _ in 0..100 {
        if status == StatusCode::OK {
            break;
        }
        status = browser.go(&app.at("/me")).await.status;
    }
    assert_eq!((status, world.provider.requests(Endpoint::Discovery)), (StatusCode::OK, before + 1));
}

#[tokio::test]
async fn p4_a_clock_that_is_off_ends_nothing() {
    for (claim, seconds) in [("iat", 45_i64), ("iat", 100_000), ("nbf", 600), ("exp", -100_000)] {
        let (log, _guard) = collect_log("error");
        let world = World::signed_in_with(Options::silent()).await;
        let others = [another_user(&world).await, another_user(&world).await];
        world.clock.advance(G);
        world.provider.tamper_id_token(move |_, claims| {
            claims[claim] = json!(claims["iat"].as_i64().unwrap() + seconds);
        });
        let before = world.browser.get(&world.app.at("/poll")).await.json()["token"].clone();
        let page = world.browser.get(&world.app.at("/me")).await;
        assert_eq!(page.status, StatusCode::OK, "{claim} {seconds}");
        assert_ne!(page.json()["token"], before, "its tokens are used");
        for other in others {
            assert_eq!(other.get(&world.app.at("/me")).await.status, StatusCode::OK);
        }
        let events = [["started"; 3], ["refreshed"; 3]].concat();
        assert_eq!(world.app.events(), events, "{claim} {seconds}");
        assert_eq!(log.text().matches("are apart").count(), 1, "it is said, not all the time: {}", log.text());
        assert_unharmed(&world);
    }
}

#[tokio::test]
async fn p4_a_step_up_in_another_application_goes_on_here() {
    let world = World::signed_in_with(Options::silent()).await;
    world.clock.advance(G);
    world.provider.tamper_id_token(|_, claims| {
        claims["auth_time"] = json!(claims["auth_time"].as_u64().unwrap() + 100);
    });
    assert_eq!(world.me().await, StatusCode::OK);
    assert_eq!(world.app.events(), ["started", "refreshed"]);
    assert_unharmed(&world);
}

#[tokio::test]
async fn p4_a_session_whose_token_is_none_for_userinfo_ends_like_one_that_cannot_signal() {
    let mut options = Options::silent();
    options.provider = options.provider.refresh_tokens(RefreshTokens::None).access_token_lifetime(T * 4);
    let world = World::signed_in_with(options).await;
    world.provider.set_fault(Endpoint::UserInfo, body(403, "{}"));
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
    world.clock.advance(T - SECOND);
    assert_eq!(world.me().await, StatusCode::OK, "its own activity counts");
    assert_eq!(world.provider.requests(Endpoint::UserInfo), 1);
    world.clock.advance(T);
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
    world.app.assert_ended(EndReason::IdleTimeout);
}

#[tokio::test]
async fn p12_an_unclear_refusal_of_many_subjects_ends_none_of_them() {
    let mut options = Options::silent();
    options.provider = (0..7).fold(options.provider, |provider, number| provider.user(format!("user{number}")));
    let world = World::with(options).await;
    let mut users = Vec::new();
    for number in 0..7 {
        world.provider.set_sign_in(SignIn::Automatic(format!("user{number}")));
        users.push(another_user(&world).await);
    }
    world.clock.advance(G);
    world.provider.set_fault(Endpoint::Token, body(400, r#"{"error":"invalid_request"}"#));
    // They come together: an upgrade of the provider's, or a gateway.
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Request);
    let clicks: Vec<_> = users.iter().map(|user| begin(&world, user, "/me")).collect();
    for _ in &users {
        gate.arrived().await;
    }
    gate.open();
    // The jitter of second attempts is at least 50 ms: what is under way has its answer before.
    until(|| world.provider.requests(Endpoint::Token) == 14).await;
    for click in world.clock.run(join_all(clicks)).await {
        assert_eq!(click.unwrap(), StatusCode::OK);
    }
    assert_unharmed(&world);
    // One alone who is refused twice after somebody was not is out.
    world.provider.clear_faults();
    world.clock.advance(SECOND * 30);
    assert_eq!(world.clock.run(users[1].get(&world.app.at("/me"))).await.status, StatusCode::OK);
    world.provider.set_fault(Endpoint::Token, body(400, r#"{"error":"invalid_request"}"#));
    assert_eq!(world.clock.run(users[0].get(&world.app.at("/me"))).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.app.ends(), ["ended: refresh_token_rejected"]);
}

#[tokio::test]
async fn p2_an_answer_that_comes_late_is_waited_for_and_its_token_is_kept() {
    let world = World::signed_in_with(Options::silent()).await;
    world.clock.advance(G);
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Response);
    let request = begin(&world, &world.browser, "/me");
    gate.arrived().await;
    // The request's patience is five seconds, the flight's is not.
    assert_eq!(world.clock.run(request).await.unwrap(), StatusCode::OK, "within T it is served");
    for _ in 0..3 {
        // Who finds a flight that old is served at once.
        assert_eq!(world.me().await, StatusCode::OK);
    }
    world.clock.advance(SECOND * 100);
    assert_eq!(gate.waiting(), 1, "the token is presented once");
    gate.open();
    until(|| world.app.events().len() == 2).await;
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
    assert_eq!(world.app.events(), ["started", "refreshed", "refreshed"]);
    assert_eq!(world.provider.requests(Endpoint::Token), 3);
}

/// A clock that somebody sets; pauses take as long as they do.
#[derive(Clone, Debug, Default)]
struct SetClock {
    passes: ManualClock,
    ahead: Arc<AtomicU32>,
}

impl SetClock {
    fn ahead(&self) -> std::time::Duration {
        SECOND * self.ahead.load(Ordering::SeqCst)
    }
}

impl Clock for SetClock {
    fn now(&self) -> SystemTime {
        self.passes.now() + self.ahead()
    }

    fn sleep_until(&self, deadline: SystemTime) -> BoxFuture<'static, ()> {
        self.passes.sleep_until(deadline - self.ahead())
    }

    fn sleep(&self, pause: std::time::Duration) -> BoxFuture<'static, ()> {
        self.passes.sleep(pause)
    }
}

#[tokio::test]
async fn p2_an_answer_is_waited_for_wherever_the_clock_is_set_meanwhile() {
    let clock = SetClock::default();
    let configure = clock.clone();
    let world = World::signed_in_with(Options {
        configure: Box::new(move |builder| builder.clock(configure.clone())),
        ..Options::silent()
    })
    .await;
    clock.passes.advance(G);
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Response);
    let request = begin(&world, &world.browser, "/me");
    gate.arrived().await;
    clock.ahead.store(u32::try_from(T.as_secs()).unwrap(), Ordering::SeqCst);
    assert_ne!(clock.passes.run(request).await.unwrap(), StatusCode::UNAUTHORIZED);
    clock.passes.advance(SECOND * 10);
    // The flight has had every occasion to give up.
    let _ = clock.passes.run(world.me()).await;
    clock.ahead.store(0, Ordering::SeqCst);
    assert_eq!(world.provider.requests(Endpoint::Token), 2, "the token is presented once");
    gate.open();
    until(|| world.app.events().len() == 2).await;
    assert_eq!(world.app.events(), ["started", "refreshed"]);
}

#[tokio::test]
async fn p4_a_provider_that_hangs_makes_each_user_wait_once_and_five_users_at_most() {
    let world = World::with(Options::silent()).await;
    let mut users = Vec::new();
    for _ in 0..7 {
        users.push(another_user(&world).await);
    }
    world.clock.advance(G);
    let _gate = world.provider.gate(Endpoint::Token, GateAt::Request);
    for user in &users[..5] {
        let asked_before = world.provider.requests(Endpoint::Token);
        let (user, url) = (user.clone(), world.app.at("/me"));
        let mut request = tokio::spawn(async move { user.get(&url).await });
        until(|| world.provider.requests(Endpoint::Token) > asked_before).await;
        // By the clock, which goes on only here: what comes after takes none of the pauses away.
        world.clock.advance(SECOND * 5 - SECOND / 10);
        let early = tokio::time::timeout(SECOND / 20, &mut request).await;
        assert!(early.is_err(), "{early:?}");
        world.clock.advance(SECOND / 10);
        assert_eq!(request.await.unwrap().status, StatusCode::OK);
    }
    // Nobody waits any more, neither they nor others: the clock stands still.
    for user in users.iter().chain(&users) {
        assert_eq!(user.get(&world.app.at("/me")).await.status, StatusCode::OK);
    }
    world.clock.advance(T);
    assert_eq!(
        users[0].get(&world.app.at("/me")).await.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "after T nothing is served unconfirmed"
    );
    assert_unharmed(&world);
}

#[tokio::test]
async fn p4_public_pages_do_not_wait_for_the_provider() {
    let world = World::signed_in_with(Options::silent()).await;
    world.clock.advance(G);
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Request);
    let page = world.browser.get(&world.app.at("/public")).await;
    assert_eq!((page.status, page.body.as_str()), (StatusCode::OK, "public"));
    gate.arrived().await;
    gate.open();
    until(|| world.app.events() == ["started", "refreshed"]).await;
}

#[tokio::test]
async fn p12_one_users_limit_is_nobody_elses() {
    for fault in [
        Fault::Status { code: 429, retry_after: Some(SECOND * 60) },
        Fault::Status { code: 500, retry_after: None },
        body(400, r#"{"error":"slow_down"}"#),
    ] {
        let world = World::signed_in_with(Options::silent()).await;
        let other = another_user(&world).await;
        world.clock.advance(G);
        world.provider.set_fault_times(Endpoint::Token, fault.clone(), 1);
        assert_eq!(world.me().await, StatusCode::OK, "{fault:?}");
        assert_eq!(other.get(&world.app.at("/me")).await.status, StatusCode::OK);
        assert_eq!(world.app.events(), ["started", "started", "refreshed"], "{fault:?}");
    }
}

#[tokio::test]
async fn p12_staying_signed_in_is_no_hammer() {
    let world = World::signed_in_with(Options::silent()).await;
    let stay = async || world.browser.post(&world.app.at("/auth/session")).await.status;
    for _ in 0..50 {
        assert_eq!(stay().await, StatusCode::NO_CONTENT);
    }
    assert_eq!(world.provider.requests(Endpoint::Token), 2, "the login is no signal, one refresh is enough");
    world.clock.advance(SECOND * 5);
    assert_eq!(stay().await, StatusCode::NO_CONTENT);
    assert_eq!(world.provider.requests(Endpoint::Token), 3);
}

#[tokio::test]
async fn p1_a_logout_during_a_refresh_without_answer_is_final() {
    let world = World::signed_in_with(Options::silent()).await;
    world.clock.advance(G);
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Request);
    let request = begin(&world, &world.browser, "/me");
    gate.arrived().await;
    let token = world.provider.logout_token("shop", Some("alice"), Some(&world.sid()));
    let receiver = world.app.at("/auth/backchannel-logout");
    assert_eq!(world.provider.post_logout_token(&receiver, &token).await, Ok(200));
    assert_eq!(world.clock.run(request).await.unwrap(), StatusCode::UNAUTHORIZED, "not served with the old record");
}

#[tokio::test]
async fn p4_an_answer_that_comes_late_is_waited_for_and_used() {
    let world = World::signed_in_with(Options::silent()).await;
    world.provider.set_fault_times(Endpoint::Token, Fault::Late(SECOND * 12), 1);
    world.clock.advance(G);
    assert_eq!(world.clock.run(world.me()).await, StatusCode::OK, "served, within T");
    let is_refreshed = || world.app.events().iter().any(|event| event == "refreshed");
    assert!(!is_refreshed());
    world.clock.run(until(is_refreshed)).await;
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK, "by the token that came late");
    assert_eq!(world.provider.requests(Endpoint::Token), 3);
    assert_unharmed(&world);
}

#[tokio::test]
async fn p4_a_refreshed_id_token_that_names_no_issuer_is_no_word_of_somebody_else() {
    for iss in [None, Some(json!(7))] {
        let world = World::signed_in_with(Options::silent()).await;
        let changed = iss.clone();
        world.provider.tamper_id_token(move |_, claims| {
            let claims = claims.as_object_mut().unwrap();
            match &changed {
                None => drop(claims.remove("iss")),
                Some(iss) => drop(claims.insert("iss".to_owned(), iss.clone())),
            }
        });
        world.clock.advance(G);
        assert_eq!(world.me().await, StatusCode::OK, "{iss:?}");
        world.provider.clear_tampering();
        world.clock.advance(SECOND * 60);
        assert_eq!(world.me().await, StatusCode::OK, "{iss:?}");
        assert_unharmed(&world);
    }
}

#[tokio::test]
async fn p4_a_gateways_page_instead_of_userinfo_is_no_answer() {
    let mut options = Options::silent();
    options.provider = options.provider.refresh_tokens(RefreshTokens::None).access_token_lifetime(T * 4);
    let world = World::signed_in_with(options).await;
    let page = Fault::Body { status: 403, content_type: "text/html", body: "<html>maintenance</html>".to_owned() };
    world.provider.set_fault(Endpoint::UserInfo, page);
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK, "within T it is served");
    world.provider.clear_faults();
    for asked in 2..5 {
        world.clock.advance(G);
        assert_eq!(world.me().await, StatusCode::OK);
        assert_eq!(world.provider.requests(Endpoint::UserInfo), asked, "it is asked as before");
    }
}
