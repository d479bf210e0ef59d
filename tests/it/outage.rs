//! P4, P8: refused is not unreachable, and nothing goes on unchecked.

use http::StatusCode;
use tower_oidc_session::EndReason;
use tower_oidc_session::test_provider::{Endpoint, Fault};

use crate::world::{G, Options, SECOND, T, World};

fn json(status: u16, body: &str) -> Fault {
    Fault::Body { status, content_type: "application/json", body: body.to_owned() }
}

#[tokio::test]
async fn p4_an_outage_ends_nothing() {
    for fault in [
        Fault::Status { code: 503, retry_after: None },
        Fault::Status { code: 500, retry_after: None },
        Fault::Status { code: 429, retry_after: Some(SECOND) },
        Fault::Status { code: 404, retry_after: None },
        Fault::Refuse,
        json(404, r#"{"timestamp":"2026-01-01","status":404,"error":"Not Found","path":"/token"}"#),
        json(404, r#"{"error":"Realm does not exist"}"#),
        json(404, r#"{"error":"invalid_grant"}"#),
        json(403, r#"{"error":"Forbidden"}"#),
        json(405, r#"{"status":405,"error":"Method Not Allowed"}"#),
        json(421, r#"{"error":"Misdirected Request"}"#),
        json(400, r#"{"error":"never_heard_of"}"#),
        json(429, r#"{"error":"invalid_grant"}"#),
        json(500, r#"{"error":"invalid_grant"}"#),
        json(400, r#"{"error":"temporarily_unavailable"}"#),
        json(401, r#"{"error":"invalid_client"}"#),
        json(400, "<html>blocked by a firewall</html>"),
        json(200, "<html>maintenance</html>"),
        json(200, r#"{"token_type":"Bearer"}"#),
    ] {
        let world = World::signed_in_with(Options::silent()).await;
        world.provider.set_fault(Endpoint::Token, fault.clone());
        world.clock.advance(G);
        assert_eq!(world.me().await, StatusCode::OK, "within T: {fault:?}");
        world.clock.advance(T - G - SECOND);
        assert_eq!(world.me().await, StatusCode::OK, "within T: {fault:?}");
        world.clock.advance(SECOND);
        for _ in 0..2 {
            let page = world.browser.get(&world.app.at("/me")).await;
            assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "after T: {fault:?}");
            assert!(page.headers.contains_key("retry-after"));
            assert!(!page.is_removal());
            let page = world.browser.step(&world.app.at("/me")).await;
            assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "no redirect to the login: {fault:?}");
            let page = world.browser.get(&world.app.at("/")).await;
            assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "nor an anonymous page: {fault:?}");
        }
        assert_eq!(world.poll().await, StatusCode::UNAUTHORIZED);
        assert!(world.app.ends().is_empty(), "{fault:?}");
    }
}

#[tokio::test]
async fn p4_it_goes_on_when_the_provider_is_back() {
    let world = World::signed_in_with(Options::silent()).await;
    world.provider.set_fault(Endpoint::Token, Fault::Status { code: 503, retry_after: None });
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
    world.provider.clear_faults();
    world.clock.advance(SECOND);
    assert_eq!(world.me().await, StatusCode::OK);
    assert_eq!(world.app.events(), ["started", "refreshed"]);
}

#[tokio::test]
async fn p4_the_provider_is_spared() {
    let world = World::signed_in_with(Options::silent()).await;
    world.provider.set_fault(Endpoint::Token, Fault::Status { code: 503, retry_after: None });
    world.clock.advance(G);
    // After 1, 2, 4 and 4 s.
    for (advance, requests) in [(0, 1), (0, 1), (1, 2), (1, 2), (1, 3), (3, 3), (1, 4), (3, 4), (1, 5)] {
        world.clock.advance(SECOND * advance);
        assert_eq!(world.me().await, StatusCode::OK);
        assert_eq!(world.provider.requests(Endpoint::Token), 1 + requests, "after {advance} s more");
    }
}

#[tokio::test]
async fn p4_retry_after_is_honoured_and_passed_on() {
    let world = World::signed_in_with(Options::silent()).await;
    world.provider.set_fault(Endpoint::Token, Fault::Status { code: 429, retry_after: Some(SECOND * 30) });
    world.clock.advance(T - SECOND);
    assert_eq!(world.me().await, StatusCode::OK);
    world.clock.advance(SECOND);
    let page = world.browser.get(&world.app.at("/me")).await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(page.headers["retry-after"], "29");
    assert_eq!(world.provider.requests(Endpoint::Token), 2);
}

#[tokio::test]
async fn p4_definite_refusals_end_the_session() {
    for (status, error) in [
        (400, "invalid_grant"),
        (403, "invalid_grant"),
        (401, "token_inactive"),
        (400, "login_required"),
        (200, "invalid_grant"),
    ] {
        let world = World::signed_in_with(Options::silent()).await;
        world.provider.set_fault(Endpoint::Token, json(status, &format!(r#"{{"error":"{error}"}}"#)));
        world.clock.advance(G);
        assert_eq!(world.me().await, StatusCode::UNAUTHORIZED, "{error}");
        assert_eq!(world.provider.requests(Endpoint::Token), 2, "{error}");
        world.app.assert_ended(EndReason::RefreshTokenRejected);
    }
}

#[tokio::test]
async fn p4_unclear_refusals_are_tried_once_more() {
    for error in ["invalid_request", "invalid_scope"] {
        let fault = json(400, &format!(r#"{{"error":"{error}"}}"#));
        let world = World::signed_in_with(Options::silent()).await;
        world.provider.set_fault_times(Endpoint::Token, fault.clone(), 1);
        world.clock.advance(G);
        assert_eq!(world.clock.run(world.me()).await, StatusCode::OK, "{error}");
        assert_eq!(world.provider.requests(Endpoint::Token), 3);
        world.provider.set_fault(Endpoint::Token, fault);
        world.clock.advance(G);
        assert_eq!(world.clock.run(world.me()).await, StatusCode::UNAUTHORIZED, "{error}");
        assert_eq!(world.provider.requests(Endpoint::Token), 5);
        world.app.assert_ended(EndReason::RefreshTokenRejected);
    }
}

#[tokio::test]
async fn p4_a_lost_answer_is_asked_for_once_more() {
    // Nothing was rotated: the second attempt brings the tokens.
    let world = World::signed_in_with(Options::silent()).await;
    world.provider.set_fault_times(Endpoint::Token, Fault::Refuse, 1);
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
    assert_eq!(world.app.events(), ["started", "refreshed"]);
    // Something was: this provider takes the second attempt for theft, and its word is final.
    world.provider.set_fault_times(Endpoint::Token, Fault::DropAfterWork, 1);
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
    world.app.assert_ended(EndReason::RefreshTokenRejected);
}

#[tokio::test]
async fn p4_userinfo_outages_end_nothing_either() {
    use tower_oidc_session::test_provider::RefreshTokens;
    for fault in [
        Fault::Status { code: 503, retry_after: None },
        Fault::Refuse,
        json(200, "<html>"),
        json(200, "{}"),
        json(200, r#"{"status":"maintenance"}"#),
    ] {
        let mut options = Options::silent();
        options.provider = options.provider.refresh_tokens(RefreshTokens::None).access_token_lifetime(T * 2);
        let world = World::signed_in_with(options).await;
        world.provider.set_fault(Endpoint::UserInfo, fault.clone());
        world.clock.advance(G);
        assert_eq!(world.me().await, StatusCode::OK, "{fault:?}");
        world.clock.advance(T - G);
        assert_eq!(world.me().await, StatusCode::SERVICE_UNAVAILABLE, "{fault:?}");
        assert!(world.app.ends().is_empty());
    }
}

#[tokio::test]
async fn start_up_does_not_need_the_provider() {
    let world = World::new().await;
    for endpoint in [Endpoint::Discovery, Endpoint::Jwks] {
        world.provider.set_fault(endpoint, Fault::Refuse);
    }
    let app = world.another_app("late").await;
    let page = world.browser.step(&app.at("/auth/login")).await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    let token = world.provider.logout_token("late", Some("alice"), None);
    let answer = world.provider.post_logout_token(&app.at("/auth/backchannel-logout"), &token).await;
    assert_eq!(answer, Ok(503));
    world.provider.clear_faults();
    world.clock.advance(SECOND);
    assert_eq!(world.browser.go(&app.at("/me")).await.status, StatusCode::OK);
    assert!(app.rp.is_ready());
}

#[tokio::test]
async fn a_provider_that_is_away_at_the_start_is_asked_less_and_less() {
    let world = World::new().await;
    world.provider.set_fault(Endpoint::Discovery, Fault::Status { code: 503, retry_after: None });
    let app = world.another_app("late").await;
    let before = world.provider.requests(Endpoint::Discovery);
    for _ in 0..120 {
        world.clock.advance(SECOND / 2);
        assert_eq!(world.browser.get(&app.at("/healthz")).await.status, StatusCode::OK);
    }
    let asked = world.provider.requests(Endpoint::Discovery) - before;
    assert!((3..=16).contains(&asked), "{asked} times in a minute");
}
