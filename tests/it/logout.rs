//! Logout by the user: P7, local first.

use std::time::Duration;

use http::{Method, StatusCode};
use tower_oidc_session::EndReason;
use tower_oidc_session::test_provider::{Endpoint, Fault};

use crate::browser::Browser;
use crate::until::until;
use crate::world::{Options, World};

#[tokio::test]
async fn it_ends_the_session_here_and_at_the_provider() {
    let world = World::signed_in().await;
    let other = world.another_app("other").await;
    world.browser.go(&other.at("/me")).await;
    let thief = world.browser.copy();

    let page = world.browser.post(&world.app.at("/auth/logout")).await;
    assert_eq!(page.status, StatusCode::SEE_OTHER);
    assert!(page.is_removal());
    assert_eq!(thief.get(&world.app.at("/me")).await.status, StatusCode::UNAUTHORIZED, "before the browser leaves");
    world.app.assert_ended(EndReason::RpInitiatedLogout);

    let query: std::collections::HashMap<_, _> = page.location().query_pairs().into_owned().collect();
    assert_eq!(query["client_id"], "shop");
    assert_eq!(query["post_logout_redirect_uri"], world.app.at("/"));
    assert!(query["id_token_hint"].starts_with("ey"));

    let page = world.browser.go(page.location().as_str()).await;
    assert_eq!(page.url.as_str(), world.app.at("/"));
    assert_eq!(page.body, "hello stranger");
    assert!(world.provider.sessions().is_empty());
    other.assert_ended(EndReason::BackChannelLogout);
    // The provider's own logout token found nothing, which is a success.
    assert!(world.provider.logouts().iter().all(|logout| logout.status == Ok(200)));
    // This application's after the sign-out, and the other one's after its logout token.
    world.clock.run(until(|| world.provider.requests(Endpoint::Revocation) == 2)).await;
}

#[tokio::test]
async fn other_sites_cannot_log_a_user_out() {
    let world = World::signed_in().await;
    let url = world.app.at("/auth/logout");
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example"),
        ("origin", "null"),
    ] {
        let page = world.browser.page(world.browser.request(Method::POST, &url).header(name, value)).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{name}: {value}");
        assert!(!page.is_removal());
    }
    assert_eq!(world.browser.get(&url).await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(world.me().await, StatusCode::OK);
    let own = world.browser.request(Method::POST, &url).header("origin", &world.app.url);
    assert_eq!(world.browser.page(own).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn p15_a_sign_out_reaches_the_provider_also_when_the_session_here_is_gone() {
    let world = World::signed_in().await;
    let token = world.provider.logout_token("shop", None, Some(&world.sid()));
    let receiver = world.app.at("/auth/backchannel-logout");
    assert_eq!(world.provider.post_logout_token(&receiver, &token).await, Ok(200));
    for browser in [&world.browser, &Browser::new()] {
        let page = browser.post(&world.app.at("/auth/logout")).await;
        let location = page.location();
        let names: Vec<_> = location.query_pairs().map(|(name, _)| name.into_owned()).collect();
        assert_eq!(names, ["client_id", "post_logout_redirect_uri"], "{location}");
    }
}

#[tokio::test]
async fn a_long_id_token_is_left_out_of_the_sign_out() {
    let world = World::new().await;
    world.provider.tamper_id_token(|_, claims| claims["groups"] = "x".repeat(20_000).into());
    world.sign_in().await;
    let page = world.browser.post(&world.app.at("/auth/logout")).await;
    assert_eq!(page.status, StatusCode::SEE_OTHER);
    assert!(page.location().as_str().len() < 1000 && page.location().as_str().contains("client_id=shop"));
    world.app.assert_ended(EndReason::RpInitiatedLogout);
}

#[tokio::test]
async fn p7_the_session_ends_here_whatever_the_provider_does() {
    for fault in [Fault::Hang, Fault::Refuse, Fault::Status { code: 500, retry_after: None }] {
        let world = World::signed_in().await;
        for endpoint in [Endpoint::Revocation, Endpoint::EndSession, Endpoint::Discovery, Endpoint::Token] {
            world.provider.set_fault(endpoint, fault.clone());
        }
        assert_eq!(world.browser.post(&world.app.at("/auth/logout")).await.status, StatusCode::SEE_OTHER);
        world.app.assert_ended(EndReason::RpInitiatedLogout);
        assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn p7_revocation_is_courtesy() {
    let world = World::signed_in().await;
    world.provider.set_fault(Endpoint::Revocation, Fault::Hang);
    assert_eq!(world.browser.post(&world.app.at("/leave")).await.status, StatusCode::OK);
    world.app.assert_ended(EndReason::EndedByApplication);
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_provider_without_logout_gets_its_token_back() {
    let world = World::new().await;
    world.provider.tamper_metadata(|metadata| {
        metadata.as_object_mut().unwrap().remove("end_session_endpoint");
    });
    let app = world.another_app("plain").await;
    world.browser.go(&app.at("/me")).await;
    let page = world.browser.post(&app.at("/auth/logout")).await;
    assert_eq!(page.location().as_str(), app.at("/"));
    app.assert_ended(EndReason::RpInitiatedLogout);
    world.clock.run(until(|| world.provider.revoked() > 0)).await;
}

#[tokio::test]
async fn p7_no_revocation_harms_another_session_of_the_same_sign_on() {
    for (path, reason) in [("/auth/logout", EndReason::RpInitiatedLogout), ("/leave", EndReason::EndedByApplication)] {
        let world = World::signed_in().await;
        // A second browser profile with the cookies of the provider: two sessions of one sid.
        let provider = Browser::new();
        for (name, value) in world.browser.cookies(&world.provider.issuer()) {
            provider.set_cookie(&world.provider.issuer(), &name, &value);
        }
        assert_eq!(provider.go(&world.app.at("/me")).await.json()["sid"], world.sid());
        world.browser.post(&world.app.at(path)).await;
        assert_eq!(world.app.ends(), [format!("ended: {reason}")]);
        world.clock.run(tokio::time::sleep(Duration::from_millis(150))).await;
        assert_eq!(world.provider.requests(Endpoint::Revocation), 0, "{path}");
        // The last of them gives the token back.
        provider.post(&world.app.at(path)).await;
        world.clock.run(until(|| world.provider.requests(Endpoint::Revocation) == 1)).await;
        assert_eq!(world.app.ends().len(), 2);
    }
}

#[tokio::test]
async fn tokens_with_offline_access_outlive_a_logout_at_the_provider() {
    for (scopes, revocations) in [("openid", 1), ("openid offline_access", 0)] {
        let options =
            Options { configure: Box::new(move |builder| builder.scopes(scopes.split(' '))), ..Options::default() };
        let world = World::signed_in_with(options).await;
        // A logout token alone, so that the provider's own clean-up does not hide what the application does.
        let token = world.provider.logout_token("shop", None, Some(&world.sid()));
        let answer = world.provider.post_logout_token(&world.app.at("/auth/backchannel-logout"), &token).await;
        assert_eq!(answer, Ok(200));
        world.app.assert_ended(EndReason::BackChannelLogout);
        // The provider's logout may be under way.
        world.clock.advance(Duration::from_secs(2));
        assert_eq!(world.provider.requests(Endpoint::Revocation), 0);
        world.clock.advance(Duration::from_secs(1));
        if revocations > 0 {
            until(|| world.provider.revoked() > 0).await;
        }
        assert_eq!(world.provider.requests(Endpoint::Revocation), revocations, "{scopes}");
    }
}
