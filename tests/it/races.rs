//! P1, P2, P3: what is under way when something else happens. Gates force the order; nothing is left to luck.

use futures_util::future::join_all;
use http::{Method, StatusCode};
use tower_oidc_session::test_provider::{Endpoint, ExpiredSessions, GateAt, InlineLogout, Sids, SignIn};
use tower_oidc_session::{EndReason, Subject};

use crate::browser::{Browser, Page};
use crate::until::until;
use crate::world::{G, Options, SECOND, T, World};

/// A request to `path` that is under way.
fn begin(world: &World, path: &str) -> tokio::task::JoinHandle<Page> {
    let (browser, url) = (world.browser.clone(), world.app.at(path));
    tokio::spawn(async move { browser.get(&url).await })
}

#[tokio::test]
async fn p1_a_logout_while_a_refresh_is_in_flight_is_final() {
    for at in [GateAt::Request, GateAt::Response] {
        let world = World::signed_in().await;
        world.clock.advance(G);
        let mut gate = world.provider.gate(Endpoint::Token, at);
        let request = begin(&world, "/me");
        gate.arrived().await;
        let token = world.provider.logout_token("shop", Some("alice"), Some(&world.sid()));
        let answer = world.provider.post_logout_token(&world.app.at("/auth/backchannel-logout"), &token).await;
        assert_eq!(answer, Ok(200));
        gate.open();
        let page = request.await.unwrap();
        assert_eq!(page.status, StatusCode::UNAUTHORIZED, "{at:?}");
        assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
        world.app.assert_ended(EndReason::BackChannelLogout);
        // The old token is revoked, and so are new ones that no session holds.
        let revocations = if at == GateAt::Response { 2 } else { 1 };
        world.clock.run(until(|| world.provider.requests(Endpoint::Revocation) >= revocations)).await;
    }
}

#[tokio::test]
async fn p1_a_logout_while_a_handler_holds_the_session_is_final() {
    let world = World::signed_in().await;
    let thief = world.browser.copy();
    let request = begin(&world, "/slow");
    world.app.slow.arrived().await;
    assert_eq!(world.provider.end_sessions_of("alice").await, 1);
    world.app.slow.go_on();
    assert_eq!(request.await.unwrap().status, StatusCode::OK);
    for browser in [&world.browser, &thief] {
        assert_eq!(browser.get(&world.app.at("/me")).await.status, StatusCode::UNAUTHORIZED);
    }
    world.app.assert_ended(EndReason::BackChannelLogout);
}

#[tokio::test]
async fn p1_a_logout_while_a_login_waits_for_its_tokens_is_final() {
    for with_sid in [true, false] {
        let world = World::new().await;
        let mut gate = world.provider.gate(Endpoint::Token, GateAt::Response);
        let (browser, url) = (world.browser.clone(), world.app.at("/me"));
        let login = tokio::spawn(async move { browser.go(&url).await });
        gate.arrived().await;
        let sid = world.sid();
        let token = world.provider.logout_token("shop", Some("alice"), with_sid.then_some(&sid));
        let answer = world.provider.post_logout_token(&world.app.at("/auth/backchannel-logout"), &token).await;
        assert_eq!(answer, Ok(200));
        gate.open();
        // It went through the provider once more, which knows its user still; what came of it first was dropped.
        let page = login.await.unwrap();
        assert_eq!((page.status, page.url.path()), (StatusCode::OK, "/me"), "{page:?}");
        assert_eq!(page.json()["sid"], sid, "a provider may give a sid anew");
        assert_eq!(world.provider.requests(Endpoint::Authorize), 2);
        assert_eq!(world.provider.requests(Endpoint::Token), 2);
        assert_eq!(world.app.events(), ["started"]);
        assert!(world.app.registry.has(1));
        assert_eq!(world.provider.revoked(), 0, "at some providers another login stands on the same grant");
    }
}

#[tokio::test]
async fn p15_after_a_logout_one_can_sign_in_at_once_and_stays_signed_in() {
    for with_sid in [true, false] {
        let world = World::signed_in().await;
        let sid = world.sid();
        let token = world.provider.logout_token("shop", Some("alice"), with_sid.then_some(&sid));
        let receiver = world.app.at("/auth/backchannel-logout");
        let log_out = async || assert_eq!(world.provider.post_logout_token(&receiver, &token).await, Ok(200));
        log_out().await;
        assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
        // In the same second, and the provider gives the same sid.
        assert_eq!(world.sign_in().await.json()["sid"], sid);
        // Whoever sends the token again shuts nobody out, and later on ends nothing either.
        world.clock.advance(SECOND * 31);
        let other = Browser::new();
        for _ in 0..3 {
            log_out().await;
            assert_eq!(other.go(&world.app.at("/me")).await.status, StatusCode::OK);
        }
        assert_eq!(other.get(&world.app.at("/me")).await.status, StatusCode::OK, "with sid: {with_sid}");
    }
}

#[tokio::test]
async fn p15_an_administrator_ends_the_session_and_the_browser_comes_back_with_the_same_sid() {
    let provider = Options::default().provider.sids(Sids::OfTheBrowser);
    let world = World::signed_in_with(Options { provider, ..Options::default() }).await;
    let sid = world.sid();
    for _ in 0..3 {
        assert_eq!(world.provider.end_session(&sid).await, 1);
        assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
        assert_eq!(world.sign_in().await.json()["sid"], sid);
    }
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
    assert_eq!(world.app.ends(), vec!["ended: back_channel_logout"; 3]);
}

#[tokio::test]
async fn p4_an_authentication_in_another_application_goes_on_here() {
    let provider = Options::default().provider.sids(Sids::OfTheBrowser);
    let world = World::signed_in_with(Options { provider, ..Options::default() }).await;
    let before = world.browser.get(&world.app.at("/me")).await.json()["claims"]["auth_time"].clone();
    world.clock.advance(SECOND * 10);
    let other = world.another_app("other").await;
    let page = world.browser.go(&other.at("/auth/login?return_to=/me&max_age=5")).await;
    assert_ne!(page.json()["claims"]["auth_time"], before, "{page:?}");
    world.clock.advance(G);
    let page = world.browser.get(&world.app.at("/me")).await;
    assert_eq!((page.status, &page.json()["claims"]["auth_time"]), (StatusCode::OK, &before));
    assert!(world.app.ends().is_empty());
}

#[tokio::test]
async fn p1_ending_all_sessions_of_a_user_reaches_logins_under_way() {
    let world = World::new().await;
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Response);
    let (browser, url) = (world.browser.clone(), world.app.at("/me"));
    let login = tokio::spawn(async move { browser.go(&url).await });
    gate.arrived().await;
    assert_eq!(world.app.rp.end_sessions_of(&Subject::new("alice")).await.unwrap(), 0);
    world.provider.set_sign_in(SignIn::Page);
    world.provider.forget_session(&world.sid());
    gate.open();
    let page = login.await.unwrap();
    assert_eq!((page.status, page.url.path()), (StatusCode::OK, "/authorize"), "the provider asks who it is: {page:?}");
    assert!(world.app.registry.has(0) && world.app.events().is_empty());
}

#[tokio::test]
async fn p1_an_end_by_the_application_is_final() {
    let world = World::signed_in().await;
    let thief = world.browser.copy();
    let page = world.browser.post(&world.app.at("/leave")).await;
    assert_eq!((page.status, page.body.as_str()), (StatusCode::OK, "left"));
    assert!(page.is_removal());
    assert_eq!(thief.get(&world.app.at("/me")).await.status, StatusCode::UNAUTHORIZED);
    world.app.assert_ended(EndReason::EndedByApplication);
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_a_thousand_requests_make_one_token_request() {
    let world = World::signed_in().await;
    world.clock.advance(G);
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Request);
    let requests: Vec<_> = (0..1000).map(|_| begin(&world, "/me")).collect();
    gate.arrived().await;
    assert_eq!(gate.waiting(), 1);
    gate.open();
    for page in join_all(requests).await {
        assert_eq!(page.unwrap().status, StatusCode::OK);
    }
    assert_eq!(world.provider.requests(Endpoint::Token), 2);
    assert!(world.app.ends().is_empty());
}

#[tokio::test]
async fn p2_a_refresh_token_is_not_sent_while_its_answer_is_pending() {
    let world = World::signed_in().await;
    world.clock.advance(G);
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Response);
    let first = begin(&world, "/me");
    gate.arrived().await;
    let others: Vec<_> = ["/me", "/", "/public", "/me"].map(|path| begin(&world, path)).into();
    // They have all been admitted as far as they come without the answer.
    let stay = {
        let (browser, url) = (world.browser.clone(), world.app.at("/auth/session"));
        tokio::spawn(async move { browser.page(browser.request(Method::POST, &url)).await })
    };
    assert_eq!(world.poll().await, StatusCode::OK);
    assert_eq!(world.provider.requests(Endpoint::Token), 2);
    gate.open();
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
    for page in join_all(others).await {
        assert_eq!(page.unwrap().status, StatusCode::OK);
    }
    assert_eq!(stay.await.unwrap().status, StatusCode::NO_CONTENT);
    assert!(world.app.ends().is_empty());
}

#[tokio::test]
async fn p3_a_refresh_is_stored_though_its_request_was_dropped() {
    let world = World::signed_in().await;
    world.clock.advance(G);
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Response);
    let request = begin(&world, "/me");
    gate.arrived().await;
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    gate.open();
    until(|| world.app.events() == ["started", "refreshed"]).await;
    // The rotated token is the one that is used next: the old one would end the session.
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
    assert!(world.app.ends().is_empty());
}

#[tokio::test]
async fn p3_saving_application_data_does_not_touch_tokens() {
    let world = World::signed_in().await;
    let request = begin(&world, "/slow");
    world.app.slow.arrived().await;
    for _ in 0..2 {
        world.clock.advance(G);
        assert_eq!(world.me().await, StatusCode::OK);
    }
    world.app.slow.go_on();
    assert_eq!(request.await.unwrap().status, StatusCode::OK);
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
    assert!(world.app.ends().is_empty());
}

#[tokio::test]
async fn p6_a_logout_token_from_inside_the_token_request_does_not_wait() {
    let mut options = Options::default();
    options.provider = options.provider.inline_logout(InlineLogout::On).expired_sessions(ExpiredSessions::StaySilent);
    // The sweeper would be first: a session that is over and not swept yet is what a refresh finds.
    let world = World::signed_in_with(options).await;
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Request);
    world.clock.advance(T - G);
    let request = begin(&world, "/me");
    gate.arrived().await;
    let sid = world.sid();
    let token = world.provider.logout_token("shop", None, Some(&sid));
    // As Keycloak does it: the answer to the logout token comes before the answer to the refresh.
    let answer = world.provider.post_logout_token(&world.app.at("/auth/backchannel-logout"), &token).await;
    assert_eq!(answer, Ok(200));
    world.provider.forget_session(&sid);
    gate.open();
    assert_eq!(request.await.unwrap().status, StatusCode::UNAUTHORIZED);
    world.app.assert_ended(EndReason::BackChannelLogout);
}
