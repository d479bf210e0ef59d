//! `SessionClient`: requests put together, other clients, whose fault a rejection is, and step-up.

use std::time::Duration;

use futures_util::future::join_all;
use http::{Method, StatusCode};
use serde_json::json;
use tower_oidc_session::test_provider::{Endpoint, ExpiredSessions, RefreshTokens};
use tower_oidc_session::{EndReason, Unexplained};

use crate::api::world;
use crate::api_server::{Answer, Api};
use crate::backchannel_logout::post_token;
use crate::browser::Browser;
use crate::until::until;
use crate::world::{G, SECOND, T};

#[tokio::test]
async fn requests_are_put_together() {
    let api = Api::start().await;
    let world = world(&api, |o| o).await;
    let page = world.browser.get(&world.app.at("/orders")).await;
    assert_eq!((page.status, page.json()), (StatusCode::OK, json!({"page": 1})));
    let (method, uri, headers, _) = api.seen.lock().unwrap().pop().unwrap();
    assert_eq!((method, uri.as_str()), (Method::POST, "/v1/orders?state=open"));
    assert_eq!(
        (&headers["x-custom"], &headers["content-type"]),
        (&"1".parse().unwrap(), &"application/json".parse().unwrap())
    );
}

#[tokio::test]
async fn an_answer_is_passed_on_without_its_cookies() {
    let api = Api::start().await;
    let world = world(&api, |o| o).await;
    api.answers(Answer::Fixed(StatusCode::IM_A_TEAPOT, None));
    let page = world.browser.get(&world.app.at("/passed-on")).await;
    assert_eq!(page.status, StatusCode::IM_A_TEAPOT);
    assert!(!page.headers.contains_key("set-cookie"));
}

#[tokio::test]
async fn other_clients_get_the_same_by_a_layer() {
    let api = Api::start().await;
    let world = world(&api, |o| o).await;
    api.answers_next(Answer::rejected());
    let request = world.browser.request(Method::POST, &world.app.at("/layered")).body("tea");
    let page = world.browser.page(request).await;
    assert_eq!((page.status, page.body.as_str()), (StatusCode::OK, "tea"));
    let tokens = api.tokens();
    assert!(tokens.len() == 2 && tokens[0] != tokens[1] && !tokens[0].is_empty(), "{tokens:?}");
    assert_eq!(world.provider.requests(Endpoint::Token), 2);
    api.answers(Answer::rejected());
    let request = world.browser.request(Method::POST, &world.app.at("/layered")).body("tea");
    assert_eq!(world.clock.run(world.browser.page(request)).await.status, StatusCode::UNAUTHORIZED);
    world.app.assert_ended(EndReason::AccessTokenRejected);
}

#[tokio::test]
async fn a_token_that_was_replaced_meanwhile_is_not_refreshed_again() {
    let api = Api::start().await;
    let world = world(&api, |o| o).await;
    api.answers_next(Answer::rejected());
    api.close();
    let (browser, url) = (world.browser.clone(), world.app.at("/api/x"));
    let call = tokio::spawn(async move { browser.get(&url).await });
    until(|| api.calls() > 0).await;
    assert_eq!(world.browser.post(&world.app.at("/auth/session")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.provider.requests(Endpoint::Token), 2);
    api.open();
    assert_eq!(call.await.unwrap().status, StatusCode::OK);
    assert_eq!((api.calls(), world.provider.requests(Endpoint::Token)), (2, 2));
    assert_ne!(api.tokens()[0], api.tokens()[1]);
}

#[tokio::test]
async fn p2_calls_whose_tokens_are_rejected_together_share_one_refresh() {
    let api = Api::start().await;
    let world = world(&api, |o| o).await;
    (0..20).for_each(|_| api.answers_next(Answer::rejected()));
    api.close();
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let (browser, url) = (world.browser.clone(), world.app.at("/api/x"));
            tokio::spawn(async move { browser.get(&url).await.status })
        })
        .collect();
    until(|| api.calls() >= 20).await;
    api.open();
    for status in join_all(calls).await {
        assert_eq!(status.unwrap(), StatusCode::OK);
    }
    assert_eq!((api.calls(), world.provider.requests(Endpoint::Token)), (40, 2));
}

#[tokio::test]
async fn an_api_at_fault_does_not_log_everybody_out() {
    let api = Api::start().await;
    let world = world(&api, |o| o).await;
    api.answers(Answer::rejected());
    let browsers: Vec<_> = (0..7).map(|_| Browser::new()).collect();
    for browser in &browsers {
        assert_eq!(browser.go(&world.app.at("/me")).await.status, StatusCode::OK);
    }
    let mut statuses = Vec::new();
    for browser in &browsers {
        let page = world.clock.run(browser.get(&world.app.at("/api/x"))).await;
        statuses.push(page.status.as_u16());
    }
    assert_eq!(statuses, [401, 401, 401, 401, 502, 502, 502]);
    assert_eq!(world.app.ends(), vec!["ended: access_token_rejected"; 4]);
    for browser in &browsers[4..] {
        assert_eq!(browser.get(&world.app.at("/me")).await.status, StatusCode::OK);
    }
    // Mended, it is called as before, and single rejections end their sessions again.
    api.answers(Answer::Fixed(StatusCode::OK, None));
    world.clock.advance(SECOND * 61);
    for browser in &browsers[4..] {
        assert_eq!(browser.get(&world.app.at("/api/x")).await.status, StatusCode::OK);
    }
    api.answers(Answer::rejected());
    let page = world.clock.run(browsers[4].get(&world.app.at("/api/x"))).await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.app.ends().len(), 5);
}

#[tokio::test]
async fn an_unexplained_401_is_judged_as_the_api_is_listed() {
    // With the number of token requests: the login, and one that asks.
    for (unexplained, expected, ends, asked) in [
        (Unexplained::AskProvider, "mine", 0, 2),
        (Unexplained::TokenRejected, "session_ended", 1, 2),
        (Unexplained::PassedBack, "mine", 0, 1),
    ] {
        for challenge in [None, Some("Bearer"), Some(r#"Bearer realm="x""#)] {
            let api = Api::start().await;
            let listed = tower_oidc_session::Api::at(&api.url).unexplained(unexplained);
            let world = world(&api, |mut o| {
                let listed = listed.clone();
                o.configure = Box::new(move |builder| builder.api(listed.clone()));
                o
            })
            .await;
            api.answers(Answer::Fixed(StatusCode::UNAUTHORIZED, challenge));
            let request = world.browser.request(Method::POST, &world.app.at("/api/x")).body("mine");
            let page = world.clock.run(world.browser.page(request)).await;
            assert_eq!(page.status, StatusCode::UNAUTHORIZED);
            assert!(page.body.contains(expected), "{unexplained:?} {challenge:?} {page:?}");
            assert_eq!(world.app.ends().len(), ends);
            assert_eq!(world.provider.requests(Endpoint::Token), asked, "{unexplained:?}");
        }
    }
}

#[tokio::test]
async fn p4_what_an_api_does_not_explain_the_provider_answers() {
    let silent = Answer::Fixed(StatusCode::UNAUTHORIZED, None);
    for has_refresh_token in [true, false] {
        for stands in [true, false] {
            let api = Api::start().await;
            let world = world(&api, |mut o| {
                o.provider = o.provider.expired_sessions(ExpiredSessions::StaySilent);
                if !has_refresh_token {
                    o.provider = o.provider.refresh_tokens(RefreshTokens::None).access_token_lifetime(T * 4);
                }
                o
            })
            .await;
            api.answers(silent.clone());
            if !stands {
                world.provider.forget_session(&world.sid());
            }
            let request = world.browser.request(Method::POST, &world.app.at("/api/x")).body("mine");
            let page = world.browser.page(request).await;
            assert_eq!(page.status, StatusCode::UNAUTHORIZED);
            let row = format!("{has_refresh_token} {stands}: {page:?}");
            assert_eq!((page.body.contains("mine"), world.app.ends().is_empty()), (stands, stands), "{row}");
        }
    }
}

#[tokio::test]
async fn p5_a_passive_request_does_not_refresh_for_an_api() {
    let api = Api::start().await;
    let world = world(&api, |o| o).await;
    assert_eq!(world.browser.get(&world.app.at("/passive-orders")).await.status, StatusCode::OK);
    world.clock.advance(G);
    let page = world.browser.get(&world.app.at("/passive-orders")).await;
    assert_eq!((page.status, &page.json()["error"]), (StatusCode::UNAUTHORIZED, &json!("not_confirmed")));
    assert!(!page.is_removal());
    assert_eq!((api.calls(), world.provider.requests(Endpoint::Token)), (1, 1));
    // A token that is refused before its time is no reason either.
    assert_eq!(world.me().await, StatusCode::OK);
    api.answers(Answer::rejected());
    assert_eq!(world.browser.get(&world.app.at("/passive-orders")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.provider.requests(Endpoint::Token), 2);
    assert!(world.app.ends().is_empty());
}

#[tokio::test]
async fn p9_apis_that_are_not_listed_get_no_token() {
    let api = Api::start().await;
    let world = world(&api, |o| o).await;
    let page = world.browser.get(&world.app.at("/elsewhere")).await;
    assert_eq!((page.status, &page.json()["error"]), (StatusCode::INTERNAL_SERVER_ERROR, &json!("api_call_invalid")));
}

#[tokio::test]
async fn answers_that_are_read_whole_are_bounded() {
    let api = Api::start().await;
    let world = world(&api, |o| o).await;
    api.answers(Answer::Long(16 * 1024 * 1024));
    assert_eq!(world.browser.get(&world.app.at("/orders")).await.status, StatusCode::OK);
    api.answers(Answer::Long(16 * 1024 * 1024 + 1));
    assert_eq!(world.browser.get(&world.app.at("/orders")).await.status, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn an_api_that_wants_a_better_login_gets_one() {
    let api = Api::start().await;
    let world = world(&api, |o| o).await;
    api.answers(Answer::AskForAcr(world.provider.issuer(), "gold"));
    // A page comes back to where it was.
    let page = world.browser.step(&world.app.at("/api/x?y=1")).await;
    assert_eq!(
        page.location().as_str(),
        world.app.at("/auth/login?return_to=/api/x%3Fy%3D1&acr_values=gold&max_age=60")
    );
    let page = world.browser.go(page.location().as_str()).await;
    assert_eq!((page.status, page.url.as_str()), (StatusCode::OK, world.app.at("/api/x?y=1").as_str()));
    assert_eq!(world.app.ends(), ["ended: superseded_by_login"]);
    let me = world.browser.get(&world.app.at("/me")).await.json();
    assert_eq!((&me["sub"], &me["claims"]["acr"]), (&json!("alice"), &json!("gold")));
    // It is still there for the next call.
    assert_eq!(world.browser.get(&world.app.at("/api/x")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_script_is_told_where_to_step_up() {
    let api = Api::start().await;
    let world = world(&api, |o| o).await;
    api.answers(Answer::AskForAcr(world.provider.issuer(), "gold"));
    let page = world.browser.get(&world.app.at("/orders")).await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        page.json(),
        json!({"error": "insufficient_user_authentication", "login": "/auth/login?acr_values=gold&max_age=60"})
    );
    assert!(!page.is_removal() && world.app.ends().is_empty());
}

#[tokio::test]
async fn an_api_that_is_never_content_makes_no_loop() {
    let api = Api::start().await;
    let world = world(&api, |o| o).await;
    // The provider knows no platinum, and says so by its silence.
    world.provider.tamper_id_token(|_, claims| claims["acr"] = "bronze".into());
    api.answers(Answer::Fixed(
        StatusCode::UNAUTHORIZED,
        Some(r#"Bearer error="insufficient_user_authentication", acr_values="platinum""#),
    ));
    let page = world.browser.go(&world.app.at("/api/x")).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN, "{page:?}");
    assert_eq!(world.me().await, StatusCode::OK);
    world.clock.advance(T - SECOND);
    let page = world.browser.step(&world.app.at("/api/x")).await;
    assert!(page.location().as_str().contains("acr_values=platinum"), "later it may be worth another try");
}

#[tokio::test]
async fn p5_a_handler_that_goes_on_for_long_is_no_activity() {
    let api = Api::start().await;
    let world = world(&api, |o| o).await;
    for (active, expected) in [(false, StatusCode::UNAUTHORIZED), (true, StatusCode::OK)] {
        let (browser, url) = (world.browser.clone(), world.app.at("/long"));
        let call = tokio::spawn(async move { browser.get(&url).await });
        world.app.slow.arrived().await;
        let before = world.provider.requests(Endpoint::Token);
        world.clock.advance(G);
        if active {
            // With the tokens that the user's own requests bring it goes on.
            assert_eq!(world.me().await, StatusCode::OK);
        }
        world.app.slow.go_on();
        assert_eq!(call.await.unwrap().status, expected);
        assert_eq!(world.provider.requests(Endpoint::Token), before + u64::from(active));
        assert_eq!(world.me().await, StatusCode::OK);
    }
    assert!(world.app.ends().is_empty());
}

#[tokio::test]
async fn p1_a_handler_that_outlives_its_session_calls_no_api() {
    for passed in [Duration::ZERO, SECOND * 200, G, T] {
        let api = Api::start().await;
        let world = world(&api, |o| o).await;
        let (browser, url) = (world.browser.clone(), world.app.at("/long"));
        let call = tokio::spawn(async move { browser.get(&url).await });
        world.app.slow.arrived().await;
        let token = world.provider.logout_token("shop", None, Some(&world.sid()));
        assert_eq!(post_token(&world, &token).await, StatusCode::OK);
        world.clock.advance(passed);
        world.app.slow.go_on();
        let page = call.await.unwrap();
        assert_eq!(page.status, StatusCode::UNAUTHORIZED, "{passed:?} after the end");
        assert_eq!(api.calls(), 0, "{passed:?} after the end");
    }
}

#[tokio::test]
async fn p9_clients_show_no_secret() {
    let api = Api::start().await;
    let world = world(&api, |o| o).await;
    world.app.slow.go_on();
    let page = world.browser.get(&world.app.at("/long")).await;
    assert!(page.body.contains("SessionClient"), "{page:?}");
    for secret in world.browser.cookies(&world.app.url).values().chain(&api.tokens()) {
        assert!(!secret.is_empty() && !page.body.contains(secret), "{}", page.body);
    }
}

#[tokio::test]
async fn a_page_whose_calls_are_always_rejected_makes_no_endless_loop() {
    let api = Api::start().await;
    let world = world(&api, |o| o).await;
    api.answers(Answer::rejected());
    let mut next = world.app.at("/api/x");
    let mut redirects = 0;
    let page = loop {
        let page = world.clock.run(world.browser.step(&next)).await;
        if !page.status.is_redirection() {
            break page;
        }
        redirects += 1;
        next = page.location().into();
    };
    // Browsers give up after twenty.
    assert!(page.status == StatusCode::BAD_GATEWAY && redirects < 20, "{redirects} {page:?}");
    assert_eq!(world.me().await, StatusCode::OK);
}

#[tokio::test]
async fn a_provider_that_gives_the_same_token_again_is_not_asked_for_ever() {
    let api = Api::start().await;
    let world = world(&api, |o| o).await;
    let token = world.browser.get(&world.app.at("/me")).await.json()["token"].clone();
    world.provider.tamper_id_token(|_, claims| {
        claims.as_object_mut().unwrap().remove("at_hash");
    });
    world.provider.tamper_token_response(move |response| response["access_token"] = token.clone());
    api.answers(Answer::rejected());
    let page = world.clock.run(world.browser.get(&world.app.at("/api/x"))).await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    assert_eq!((api.calls(), world.provider.requests(Endpoint::Token)), (3, 2));
    world.app.assert_ended(EndReason::AccessTokenRejected);
}
