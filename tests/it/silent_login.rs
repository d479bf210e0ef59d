//! Sessions without tokens: the local deadline, and silent logins that make navigations a signal.

use http::StatusCode;
use serde_json::json;
use tower_oidc_session::EndReason;
use tower_oidc_session::test_provider::{Endpoint, Fault, Interaction, SignIn};

use crate::until::until;
use crate::world::{G, Options, SECOND, T, World, policy};

fn tokenless() -> Options {
    Options { policy: policy().discard_tokens(), ..Options::silent() }
}

async fn silent() -> World {
    World::signed_in_with(Options { policy: policy().discard_tokens().signal_by_silent_login(), ..tokenless() }).await
}

fn cookie(world: &World) -> String {
    world.browser.session_cookie(&world.app.url).unwrap()
}

#[tokio::test]
async fn discarded_tokens_are_kept_nowhere_and_signal_nothing() {
    let world = World::signed_in_with(tokenless()).await;
    assert_eq!(world.browser.get(&world.app.at("/me")).await.json()["token"], json!(null));
    world.clock.advance(T - SECOND);
    assert_eq!(world.me().await, StatusCode::OK);
    world.clock.advance(T);
    let page = world.browser.step(&world.app.at("/me")).await;
    assert_eq!(page.location().as_str(), world.app.at("/auth/login?return_to=/me"));
    world.app.until_ended(EndReason::IdleTimeout).await;
    let requests = [Endpoint::Token, Endpoint::UserInfo].map(|e| world.provider.requests(e));
    assert_eq!(requests, [1, 0]);
    assert_eq!(world.provider.requests(Endpoint::Revocation), 0, "some providers end the session for it");
}

#[tokio::test]
async fn a_logout_token_ends_a_session_without_tokens() {
    let world = World::signed_in_with(tokenless()).await;
    assert_eq!(world.provider.end_sessions_of("alice").await, 1);
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
    world.app.assert_ended(EndReason::BackChannelLogout);
}

#[tokio::test]
async fn a_navigation_signals_by_a_silent_login_and_comes_back() {
    let world = silent().await;
    let before = cookie(&world);
    for _ in 0..9 {
        world.clock.advance(G);
        let page = world.browser.step(&world.app.at("/me?x=1")).await;
        assert_eq!(page.location().as_str(), world.app.at("/auth/login?return_to=/me%3Fx%3D1&prompt=none"));
        let page = world.browser.go(page.location().as_str()).await;
        assert_eq!((page.status, page.url.as_str()), (StatusCode::OK, world.app.at("/me?x=1").as_str()));
    }
    world.provider.sweep().await;
    assert_eq!(world.provider.sessions().len(), 1, "the provider has taken it as activity");
    assert_eq!(cookie(&world), before, "it is the same session");
    assert!(world.app.ends().is_empty());
}

#[tokio::test]
async fn p5_scripts_and_passive_requests_are_never_sent_away() {
    let world = silent().await;
    world.clock.advance(T - SECOND);
    assert_eq!(world.me().await, StatusCode::OK);
    assert_eq!(world.poll().await, StatusCode::OK);
    let poll = world.browser.step(&world.app.at("/poll")).await;
    assert_eq!(poll.status, StatusCode::OK);
    world.clock.advance(SECOND);
    for path in ["/me", "/poll"] {
        let page = world.browser.get(&world.app.at(path)).await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED);
        assert_eq!(page.json(), json!({"error": "not_confirmed", "login": "/auth/login"}), "{path}");
        assert!(!page.is_removal());
    }
    assert_eq!(world.browser.post(&world.app.at("/auth/session")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.provider.requests(Endpoint::Authorize), 1);
    assert!(world.app.ends().is_empty());
}

#[tokio::test]
async fn one_active_application_keeps_a_silent_one_alive() {
    let world = silent().await;
    let active = world.another_app("active").await;
    for _ in 0..9 {
        world.clock.advance(G);
        assert_eq!(world.browser.go(&active.at("/me")).await.status, StatusCode::OK);
    }
    let before = cookie(&world);
    assert_eq!(world.browser.go(&world.app.at("/me")).await.status, StatusCode::OK);
    assert_eq!(cookie(&world), before);
    assert!(world.app.ends().is_empty());
}

#[tokio::test]
async fn login_required_ends_the_session_and_leads_to_a_visible_login() {
    let world = silent().await;
    world.provider.forget_session(&world.sid());
    world.provider.set_sign_in(SignIn::Page);
    world.clock.advance(G);
    let page = world.browser.go(&world.app.at("/me")).await;
    assert_eq!((page.status, page.url.path()), (StatusCode::OK, "/authorize"), "{page:?}");
    assert!(page.body.contains("Sign in"));
    assert!(!page.url.query().unwrap().contains("prompt=none"));
    world.app.assert_ended(EndReason::LoginRequired);
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn interaction_required_leads_to_a_visible_login() {
    let world = silent().await;
    world.provider.set_interaction(Interaction::Required);
    world.clock.advance(G);
    let page = world.browser.go(&world.app.at("/me")).await;
    assert_eq!((page.status, page.url.path()), (StatusCode::OK, "/me"));
    // Refused silently, granted visibly: two more requests after the one of the first login.
    assert_eq!(world.provider.requests(Endpoint::Authorize), 3);
    assert_eq!(world.app.ends(), ["ended: superseded_by_login"]);
}

#[tokio::test]
async fn p4_a_provider_that_is_down_makes_no_loop_and_ends_nothing() {
    let mut options = Options { policy: policy().discard_tokens().signal_by_silent_login(), ..tokenless() };
    // Somebody else keeps the provider's session alive meanwhile.
    options.provider = options.provider.session_lifetime(T * 2);
    let world = World::signed_in_with(options).await;
    world.provider.set_fault(Endpoint::Authorize, Fault::Status { code: 503, retry_after: None });
    world.clock.advance(G);
    // The browser ends on the provider's error page; the next click is served, the session stands.
    let page = world.browser.go(&world.app.at("/me")).await;
    assert_eq!((page.status, page.url.path()), (StatusCode::SERVICE_UNAVAILABLE, "/authorize"));
    assert_eq!(world.browser.go(&world.app.at("/me")).await.status, StatusCode::OK);
    world.clock.advance(T - G);
    let page = world.browser.go(&world.app.at("/me")).await;
    assert_eq!((page.status, page.url.path()), (StatusCode::SERVICE_UNAVAILABLE, "/authorize"));
    let page = world.browser.go(&world.app.at("/me")).await;
    assert_eq!((page.status, page.url.path()), (StatusCode::SERVICE_UNAVAILABLE, "/me"), "nothing unchecked after T");
    assert!(page.headers.contains_key("retry-after"));
    world.provider.clear_faults();
    world.clock.advance(SECOND * 30);
    assert_eq!(world.browser.go(&world.app.at("/me")).await.status, StatusCode::OK);
    assert!(world.app.ends().is_empty());
}

#[tokio::test]
async fn another_user_at_the_provider_is_another_session() {
    let world = silent().await;
    let before = cookie(&world);
    world.provider.forget_session(&world.sid());
    world.provider.set_sign_in(SignIn::Automatic("bob".to_owned()));
    let other = world.another_app("other").await;
    assert_eq!(world.browser.go(&other.at("/me")).await.status, StatusCode::OK);
    world.clock.advance(G);
    let page = world.browser.go(&world.app.at("/me")).await;
    assert_eq!((page.status, &page.json()["sub"]), (StatusCode::OK, &json!("bob")));
    assert_ne!(cookie(&world), before);
    assert_eq!(world.app.ends(), ["ended: superseded_by_login"]);
}

#[tokio::test]
async fn p1_a_logout_while_a_silent_login_waits_for_its_tokens_is_final() {
    use tower_oidc_session::test_provider::GateAt;
    let world = silent().await;
    world.clock.advance(G);
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Response);
    let (browser, url) = (world.browser.clone(), world.app.at("/me"));
    let login = tokio::spawn(async move { browser.go(&url).await });
    gate.arrived().await;
    assert_eq!(world.provider.end_sessions_of("alice").await, 1);
    gate.open();
    assert_eq!(login.await.unwrap().status, StatusCode::BAD_REQUEST);
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
    world.app.assert_ended(EndReason::BackChannelLogout);
}

#[tokio::test]
async fn a_foreign_link_to_a_silent_login_ends_nothing() {
    let world = silent().await;
    let begun = world.browser.step(&world.app.at("/auth/login?prompt=none")).await;
    world.provider.forget_session(&world.sid());
    world.provider.set_sign_in(SignIn::Page);
    // The provider says login_required, but the session had not asked.
    let page = world.browser.go(begun.location().as_str()).await;
    assert_eq!(page.url.path(), "/authorize");
    assert_eq!(world.me().await, StatusCode::OK);
    assert!(world.app.ends().is_empty());
    for query in ["prompt=none&max_age=0", "prompt=none&acr_values=gold", "prompt=sudo", "max_age=x", "acr_values=%00"]
    {
        let page = world.browser.step(&world.app.at(&format!("/auth/login?{query}"))).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{query}");
    }
}

#[tokio::test]
async fn p1_a_silent_login_starts_no_session_after_a_logout_here() {
    use tower_oidc_session::test_provider::GateAt;
    for waits_at in [Endpoint::Authorize, Endpoint::Token] {
        let world = silent().await;
        world.clock.advance(G);
        let mut gate = world.provider.gate(waits_at, GateAt::Response);
        let (browser, url) = (world.browser.clone(), world.app.at("/me"));
        let login = tokio::spawn(async move { browser.go(&url).await });
        gate.arrived().await;
        assert_eq!(world.browser.post(&world.app.at("/auth/logout")).await.status, StatusCode::SEE_OTHER);
        gate.open();
        assert_eq!(login.await.unwrap().status, StatusCode::BAD_REQUEST, "{waits_at:?}");
        assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
        world.app.assert_ended(EndReason::RpInitiatedLogout);
    }
}

#[tokio::test]
async fn a_silent_login_that_another_login_overtook_leads_to_the_new_session() {
    use tower_oidc_session::test_provider::GateAt;
    for waits_at in [Endpoint::Authorize, Endpoint::Token] {
        let world = silent().await;
        world.clock.advance(G);
        let mut gate = world.provider.gate(waits_at, GateAt::Response);
        let (browser, url) = (world.browser.clone(), world.app.at("/me"));
        let tab = tokio::spawn(async move { browser.go(&url).await });
        gate.arrived().await;
        let (browser, url) = (world.browser.clone(), world.app.at("/auth/login?return_to=/me"));
        let other = tokio::spawn(async move { browser.go(&url).await });
        until(|| gate.waiting() >= 2).await;
        gate.open();
        for page in [tab.await.unwrap(), other.await.unwrap()] {
            assert_eq!((page.status, page.url.path()), (StatusCode::OK, "/me"), "{waits_at:?} {page:?}");
        }
        assert_eq!(world.me().await, StatusCode::OK);
        assert_eq!(world.provider.requests(Endpoint::Revocation), 0);
    }
}

#[tokio::test]
async fn p8_activity_that_cannot_be_confirmed_by_a_program_is_no_end() {
    let world = silent().await;
    let (browser, url) = (world.browser.clone(), world.app.at("/socket-activity"));
    let request = tokio::spawn(async move { browser.get(&url).await.body });
    world.app.slow.arrived().await;
    world.clock.advance(T);
    world.app.slow.go_on();
    assert_eq!(request.await.unwrap(), "false 401 the session has not been confirmed for a while");
    assert!(world.app.ends().is_empty());
}
