//! The inactivity timeout: what keeps a session alive, and what ends it.

use http::{HeaderName, Method, StatusCode};
use tower_oidc_session::EndReason;
use tower_oidc_session::test_provider::{Coordination, Endpoint, ExpiredSessions, GateAt, RefreshTokens};

use crate::until::until;
use crate::world::{ABSOLUTE, G, Options, SECOND, T, World, policy};

fn without_refresh_token() -> Options {
    let mut options = Options::default();
    options.provider = options.provider.refresh_tokens(RefreshTokens::None).access_token_lifetime(ABSOLUTE);
    options
}

/// A provider that issues nothing a session could signal with. It hears of no activity, so its own session ends first: it
/// tells nobody, or its logout token would come before the deadline here, or after, as it happens.
async fn without_signal() -> World {
    let mut options = without_refresh_token();
    options.provider = options.provider.expired_sessions(ExpiredSessions::StaySilent);
    let world = World::with(options).await;
    world.provider.tamper_metadata(|metadata| metadata["userinfo_endpoint"] = serde_json::Value::Null);
    // The metadata are fetched in the background, so this has to come first.
    let app = world.another_app("tokenless").await;
    let world = World { app, ..world };
    world.sign_in().await;
    world
}

#[tokio::test]
async fn activity_keeps_the_session_at_the_provider_alive() {
    let world = World::signed_in().await;
    for refreshes in 1..=9 {
        world.clock.advance(G);
        assert_eq!(world.me().await, StatusCode::OK);
        assert_eq!(world.provider.requests(Endpoint::Token), 1 + refreshes);
    }
    world.provider.sweep().await;
    assert_eq!(world.provider.sessions().len(), 1);
    assert!(world.app.ends().is_empty());
}

#[tokio::test]
async fn a_signal_is_sent_once_in_g() {
    let world = World::signed_in().await;
    for (after, refreshes) in [(G - SECOND, 0), (SECOND, 1), (G - SECOND, 1), (SECOND, 2)] {
        world.clock.advance(after);
        assert_eq!(world.me().await, StatusCode::OK);
        assert_eq!(world.me().await, StatusCode::OK);
        assert_eq!(world.provider.requests(Endpoint::Token), 1 + refreshes, "{after:?}");
    }
}

#[tokio::test]
async fn public_pages_count_too() {
    let world = World::signed_in().await;
    for path in ["/", "/public"] {
        world.clock.advance(G);
        let before = world.provider.requests(Endpoint::Token);
        assert_eq!(world.browser.get(&world.app.at(path)).await.status, StatusCode::OK);
        // What nobody asked for is counted after the response.
        until(|| world.provider.requests(Endpoint::Token) == before + 1).await;
        until(|| world.app.events().len() == 2 + usize::from(path == "/public")).await;
    }
}

#[tokio::test]
async fn p5_passive_requests_signal_nothing_and_end_nothing() {
    let world = World::signed_in().await;
    for _ in 0..2 {
        world.clock.advance(G);
        assert_eq!(world.poll().await, StatusCode::OK);
        world.browser.get(&world.app.at("/auth/session")).await;
        world.browser.get(&world.app.at("/healthz")).await;
        let prefetch = world.browser.request(Method::GET, &world.app.at("/me")).header("sec-purpose", "prefetch");
        assert_eq!(world.browser.page(prefetch).await.status, StatusCode::OK);
    }
    world.clock.advance(G - SECOND);
    assert_eq!(world.poll().await, StatusCode::OK);
    // T after the last signal.
    world.provider.set_expired_sessions(ExpiredSessions::StaySilent);
    world.clock.advance(SECOND);
    let page = world.browser.get(&world.app.at("/poll")).await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    assert!(!page.is_removal(), "the session is not ended: the provider may know better");
    assert_eq!(
        world.browser.get(&world.app.at("/auth/session")).await.json(),
        serde_json::json!({"authenticated": false, "state": "unconfirmed"})
    );
    assert_eq!(world.provider.requests(Endpoint::Token), 1);
    assert!(world.app.ends().is_empty());
}

#[tokio::test]
async fn p5_no_timer_signals() {
    let world = World::signed_in().await;
    let app2 = world.another_app("app2").await;
    world.browser.go(&app2.at("/me")).await;
    let before: u64 = [Endpoint::Token, Endpoint::UserInfo].map(|e| world.provider.requests(e)).iter().sum();
    for _ in 0..20 {
        world.clock.advance(T / 10);
        tokio::task::yield_now().await;
    }
    world.provider.sweep().await;
    let after: u64 = [Endpoint::Token, Endpoint::UserInfo].map(|e| world.provider.requests(e)).iter().sum();
    assert_eq!(before, after);
    // The provider's own sweeper may have been first, and its logout tokens on their way.
    world.app.until_ended(EndReason::BackChannelLogout).await;
    app2.until_ended(EndReason::BackChannelLogout).await;
}

#[tokio::test]
async fn one_active_application_keeps_the_other_alive() {
    let world = World::signed_in().await;
    let idle = world.another_app("idle").await;
    assert_eq!(world.browser.go(&idle.at("/me")).await.status, StatusCode::OK);
    for _ in 0..9 {
        world.clock.advance(G);
        assert_eq!(world.me().await, StatusCode::OK);
    }
    world.provider.sweep().await;
    // Nothing was heard of the idle one for three times T: the provider is asked, and says yes.
    assert_eq!(world.browser.get(&idle.at("/poll")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.browser.get(&idle.at("/me")).await.status, StatusCode::OK);
    assert_eq!(world.browser.get(&idle.at("/poll")).await.status, StatusCode::OK);
    assert!(idle.ends().is_empty());
}

#[tokio::test]
async fn after_t_the_provider_decides_and_nothing_protected_is_served_before() {
    let world = World::signed_in_with(Options::silent()).await;
    world.clock.advance(T);
    let page = world.browser.get(&world.app.at("/me")).await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    let ended = serde_json::json!({"error": "session_ended", "reason": "refresh_token_rejected"});
    // As often as it asks.
    assert_eq!((page.json(), page.is_removal()), (ended.clone(), false));
    assert_eq!(world.browser.get(&world.app.at("/me")).await.json(), ended);
    let status = world.browser.get(&world.app.at("/auth/session")).await;
    let state = serde_json::json!({"authenticated": false, "state": "ended", "reason": "refresh_token_rejected"});
    assert_eq!((status.json(), status.is_removal()), (state, false));
    // A person who is sent to the login comes back with another cookie.
    let page = world.browser.step(&world.app.at("/me")).await;
    assert_eq!((page.status, page.is_removal()), (StatusCode::SEE_OTHER, true));
    world.app.assert_ended(EndReason::RefreshTokenRejected);
    assert_eq!(world.provider.revoked(), 0, "a dead token is not worth a request");
}

#[tokio::test]
async fn a_provider_that_does_not_coordinate_refuses_nothing() {
    let mut options = Options::default();
    options.provider = options.provider.coordination(Coordination::Off).expired_sessions(ExpiredSessions::StaySilent);
    let world = World::signed_in_with(options).await;
    world.clock.advance(T);
    assert_eq!(world.me().await, StatusCode::OK);
    assert_eq!(world.provider.requests(Endpoint::Token), 2);
}

#[tokio::test]
async fn only_user_gestures_count_where_the_policy_says_so() {
    let activity = HeaderName::from_static("x-user-active");
    let policy = policy().only_user_gestures(activity);
    let world = World::signed_in_with(Options { policy, ..Options::default() }).await;
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
    assert_eq!(world.provider.requests(Endpoint::Token), 1);
    let click = world.browser.request(Method::GET, &world.app.at("/me")).header("sec-fetch-user", "?1");
    assert_eq!(world.browser.page(click).await.status, StatusCode::OK);
    assert_eq!(world.provider.requests(Endpoint::Token), 2);
    world.clock.advance(G);
    let typing = world.browser.request(Method::GET, &world.app.at("/me")).header("x-user-active", "1");
    assert_eq!(world.browser.page(typing).await.status, StatusCode::OK);
    assert_eq!(world.provider.requests(Endpoint::Token), 3);
}

#[tokio::test]
async fn the_absolute_lifetime_ends_active_sessions() {
    let world = World::signed_in().await;
    let steps = ABSOLUTE.as_secs() / G.as_secs();
    for _ in 1..steps {
        world.clock.advance(G);
        assert_eq!(world.me().await, StatusCode::OK);
    }
    world.clock.advance(G - SECOND);
    assert_eq!(world.me().await, StatusCode::OK);
    world.clock.advance(SECOND);
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
    world.app.until_ended(EndReason::AbsoluteLifetime).await;
}

/// The provider has said when it ends the session, and a signal is due.
async fn a_second_before_the_session_expires() -> World {
    let world = World::new().await;
    let expiry = seconds_of(&world) + G.as_secs() + 1;
    world.provider.tamper_id_token(move |_, claims| claims["session_expiry"] = expiry.into());
    world.sign_in().await;
    world.clock.advance(G);
    world
}

#[tokio::test]
async fn who_wants_to_stay_signed_in_after_the_end_does_not_and_the_provider_is_not_asked() {
    let world = a_second_before_the_session_expires().await;
    assert_eq!(world.me().await, StatusCode::OK, "confirmed a moment before");
    world.clock.advance(SECOND);
    assert_eq!(world.browser.post(&world.app.at("/auth/session")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.provider.requests(Endpoint::Token), 2);
    world.app.assert_ended(EndReason::SessionExpiry);
}

#[tokio::test]
async fn a_session_that_comes_to_its_end_while_the_provider_is_asked_serves_nobody() {
    let world = a_second_before_the_session_expires().await;
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Response);
    let passes = async {
        gate.arrived().await;
        world.clock.advance(SECOND);
        gate.open();
    };
    let (status, ()) = futures_util::future::join(world.me(), passes).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    world.app.until_ended(EndReason::SessionExpiry).await;
}

#[tokio::test]
async fn the_providers_session_expiry_ends_the_session() {
    let world = World::with(Options::default()).await;
    let expiry = seconds_of(&world) + 100;
    world.provider.tamper_id_token(move |_, claims| claims["session_expiry"] = expiry.into());
    world.sign_in().await;
    world.clock.advance(SECOND * 99);
    assert_eq!(world.poll().await, StatusCode::OK);
    let status = world.browser.get(&world.app.at("/auth/session")).await.json();
    assert_eq!(status["absolute_expires_in"], 1);
    world.clock.advance(SECOND);
    assert_eq!(world.poll().await, StatusCode::UNAUTHORIZED);
    world.app.until_ended(EndReason::SessionExpiry).await;
}

fn seconds_of(world: &World) -> u64 {
    use tower_oidc_session::Clock;
    world.clock.now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test]
async fn without_refresh_token_userinfo_is_the_signal() {
    let world = World::signed_in_with(without_refresh_token()).await;
    for requests in 1..=9 {
        world.clock.advance(G);
        assert_eq!(world.me().await, StatusCode::OK);
        assert_eq!(world.me().await, StatusCode::OK);
        assert_eq!(world.provider.requests(Endpoint::UserInfo), requests);
    }
    world.provider.sweep().await;
    assert_eq!(world.provider.sessions().len(), 1);
    world.provider.forget_session(&world.sid());
    assert_eq!(world.me().await, StatusCode::OK);
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
    world.app.assert_ended(EndReason::AccessTokenRejected);
}

#[tokio::test]
async fn without_any_signal_the_local_idle_deadline_ends_the_session() {
    let world = without_signal().await;
    for _ in 0..5 {
        world.clock.advance(T - SECOND);
        assert_eq!(world.me().await, StatusCode::OK);
    }
    // A request within G is not written down: the next deadline counts from the last that was.
    world.clock.advance(G - SECOND);
    assert_eq!(world.me().await, StatusCode::OK);
    world.clock.advance(T - G);
    assert_eq!(world.poll().await, StatusCode::OK);
    world.clock.advance(SECOND);
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
    world.app.until_ended(EndReason::IdleTimeout).await;
    let calls = [Endpoint::UserInfo, Endpoint::Introspection].map(|e| world.provider.requests(e));
    assert_eq!((calls, world.provider.requests(Endpoint::Token)), ([0, 0], 1));
}

#[tokio::test]
async fn the_status_counts_down() {
    let world = World::signed_in().await;
    world.clock.advance(SECOND * 100);
    let page = world.browser.get(&world.app.at("/auth/session")).await;
    assert_eq!(page.headers["cache-control"], "no-store");
    assert_eq!(
        page.json(),
        serde_json::json!({
            "authenticated": true, "state": "confirmed", "sub": "alice",
            "idle_expires_in": T.as_secs() - 100, "absolute_expires_in": ABSOLUTE.as_secs() - 100,
            "session": page.json()["session"], "idle_timeout": T.as_secs(), "signal_interval": G.as_secs(),
        })
    );
    let stranger = crate::browser::Browser::new().get(&world.app.at("/auth/session")).await;
    assert_eq!(stranger.json(), serde_json::json!({"authenticated": false, "state": "none"}));
}

#[tokio::test]
async fn stay_signed_in_signals_now() {
    let world = World::signed_in().await;
    let stay = world.app.at("/auth/session");
    assert_eq!(world.browser.post(&stay).await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.provider.requests(Endpoint::Token), 2);
    let foreign = world.browser.request(Method::POST, &stay).header("sec-fetch-site", "cross-site");
    assert_eq!(world.browser.page(foreign).await.status, StatusCode::FORBIDDEN);
    assert_eq!(world.provider.requests(Endpoint::Token), 2);
    assert_eq!(world.browser.post(&stay).await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.provider.requests(Endpoint::Token), 2, "confirmed a moment ago");
    world.provider.forget_session(&world.sid());
    // Not asked again at once.
    world.clock.advance(SECOND * 5);
    let page = world.browser.post(&stay).await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    world.app.assert_ended(EndReason::RefreshTokenRejected);
    assert_eq!(world.browser.post(&stay).await.status, StatusCode::UNAUTHORIZED);
}
