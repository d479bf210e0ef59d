//! Application data in tower-sessions beside the login.

use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use tower_oidc_session::SessionRegistry;
use tower_oidc_session::registry::{Loaded, SessionRecord};
use tower_oidc_session::test_provider::SignIn;

use crate::browser::Browser;
use crate::world::{G, World};

const COOKIE: &str = "id";

async fn cart(world: &World, browser: &Browser) -> String {
    browser.get(&world.app.at("/cart")).await.body
}

fn cookie(world: &World, browser: &Browser) -> String {
    browser.cookies(&world.app.url)[COOKIE].clone()
}

#[tokio::test]
async fn a_login_gives_the_data_a_new_id() {
    let world = World::new().await;
    world.browser.post(&world.app.at("/put")).await;
    let before = cookie(&world, &world.browser);
    let attacker = world.browser.copy();
    world.sign_in().await;
    assert_ne!(cookie(&world, &world.browser), before);
    assert_eq!(cart(&world, &world.browser).await, "milk", "what was in the cart stays");
    assert_eq!(cart(&world, &attacker).await, "", "but not for who knew the old id");
}

#[tokio::test]
async fn a_logout_takes_the_data_along() {
    let world = World::signed_in().await;
    world.browser.post(&world.app.at("/remember")).await;
    assert_eq!(cart(&world, &world.browser).await, "tea");
    let thief = world.browser.copy();
    world.browser.post(&world.app.at("/auth/logout")).await;
    assert_eq!(cart(&world, &world.browser).await, "");
    assert_eq!(cart(&world, &thief).await, "");
}

#[tokio::test]
async fn an_end_by_back_channel_takes_the_data_along() {
    let world = World::signed_in().await;
    world.browser.post(&world.app.at("/remember")).await;
    let data = Browser::new();
    data.set_cookie(&world.app.url, COOKIE, &cookie(&world, &world.browser));
    assert_eq!(cart(&world, &data).await, "tea");
    world.provider.end_sessions_of("alice").await;
    // Without the login's cookie: it is the store that has forgotten.
    assert_eq!(cart(&world, &data).await, "");
}

#[tokio::test]
async fn p1_a_late_save_brings_nothing_back() {
    for path in ["/slow", "/slow?cycle"] {
        let world = World::signed_in().await;
        world.browser.post(&world.app.at("/remember")).await;
        let (browser, url) = (world.browser.clone(), world.app.at(path));
        let request = tokio::spawn(async move { browser.get(&url).await });
        world.app.slow.arrived().await;
        world.provider.end_sessions_of("alice").await;
        world.app.slow.go_on();
        assert_eq!(request.await.unwrap().status, StatusCode::OK, "and the response is no error");
        // Whoever has the id that the data had, or got just now.
        let data = Browser::new();
        data.set_cookie(&world.app.url, COOKIE, &cookie(&world, &world.browser));
        for browser in [&data, &world.browser] {
            assert_eq!(cart(&world, browser).await, "", "{path}");
        }
    }
}

#[tokio::test]
async fn another_user_in_the_same_browser_inherits_nothing() {
    let world = World::signed_in().await;
    world.browser.post(&world.app.at("/remember")).await;
    world.provider.set_sign_in(SignIn::Automatic("bob".to_owned()));
    world.provider.forget_session(&world.sid());
    let alices = cookie(&world, &world.browser);
    let page = world.browser.go(&world.app.at("/auth/login?return_to=/me")).await;
    assert_eq!(page.json()["sub"], "bob");
    // Alice knows the id that her data had.
    assert_ne!(cookie(&world, &world.browser), alices);
    assert_eq!(cart(&world, &world.browser).await, "");
    assert_eq!(world.browser.page(world.browser.request(Method::POST, &world.app.at("/remember"))).await.status, 200);
    assert_eq!(cart(&world, &world.browser).await, "tea");
}

#[tokio::test]
async fn p15_the_same_user_who_signs_in_again_keeps_everything() {
    let world = World::signed_in().await;
    world.browser.post(&world.app.at("/remember")).await;
    let before = cookie(&world, &world.browser);
    for round in 0..2 {
        let page = world.browser.go(&world.app.at("/auth/login?return_to=/me&max_age=60")).await;
        assert_eq!(page.json()["sub"], "alice");
        assert_eq!(cart(&world, &world.browser).await, "tea", "{round}");
    }
    // Under another id, and bound to the new login.
    let thief = Browser::new();
    thief.set_cookie(&world.app.url, COOKIE, &before);
    assert_eq!(cart(&world, &thief).await, "");
    world.provider.end_sessions_of("alice").await;
    assert_eq!(cart(&world, &world.browser).await, "");
}

/// The same session, committed at a time at which it has so much left until `deadline`.
async fn commit_shortly_before(world: &World, deadline: impl Fn(&SessionRecord) -> SystemTime) {
    let registry = &world.app.registry;
    let Loaded::Live(record) = SessionRegistry::load(registry, &registry.last()).await.unwrap() else { panic!() };
    registry.commit(SessionRecord::clone(&record), deadline(&record) - Duration::from_millis(300)).await.unwrap();
    // By the store's clock, which in memory is that of the process.
    tokio::time::sleep(Duration::from_millis(310)).await;
    world.clock.advance(Duration::from_millis(310));
}

#[tokio::test]
async fn p8_data_of_a_login_whose_time_is_over_is_not_served() {
    let stands_no_longer = |record: &SessionRecord| record.expires_at() - record.unconfirmed_for();
    for deadline in [SessionRecord::expires_at, stands_no_longer] {
        let world = World::signed_in().await;
        world.browser.post(&world.app.at("/remember")).await;
        assert_eq!(cart(&world, &world.browser).await, "tea");
        commit_shortly_before(&world, deadline).await;
        // A public page, and nobody has looked at the session since.
        assert_eq!(cart(&world, &world.browser).await, "");
        let registry = &world.app.registry;
        let loaded = SessionRegistry::load(registry, &registry.last()).await.unwrap();
        assert!(matches!(loaded, Loaded::Live(_)), "{loaded:?}");
    }
}

/// As of somebody who was active in another application meanwhile.
#[tokio::test]
async fn p8_data_are_back_once_the_provider_has_confirmed_the_session() {
    let world = World::signed_in().await;
    world.browser.post(&world.app.at("/remember")).await;
    commit_shortly_before(&world, |record| record.expires_at() - record.unconfirmed_for()).await;
    // tower-sessions takes the cookie from a browser whose data it does not find.
    assert_eq!(cart(&world, &world.browser.copy()).await, "");
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
    assert_eq!(cart(&world, &world.browser).await, "tea");
}

/// A step-up that takes so long that *T* is over meanwhile.
#[tokio::test]
async fn p15_a_login_that_outlasts_the_session_before_it_keeps_the_data_of_its_user() {
    let world = World::signed_in().await;
    world.browser.post(&world.app.at("/remember")).await;
    commit_shortly_before(&world, |record| record.expires_at() - record.unconfirmed_for()).await;
    assert_eq!(cart(&world, &world.browser.copy()).await, "");
    let page = world.browser.go(&world.app.at("/auth/login?return_to=/me&max_age=60")).await;
    assert_eq!(page.json()["sub"], "alice");
    assert_eq!(cart(&world, &world.browser).await, "tea");
}
