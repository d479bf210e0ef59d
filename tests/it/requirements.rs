//! What routes want of a session, what an authorization request says, and what the application says to a login.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::header::ACCEPT;
use http::{Method, Request, StatusCode};
use serde_json::json;
use tower::ServiceExt;
use tower_oidc_session::{LoginRefused, NewLogin};

use crate::secrets::collect_log;
use crate::world::{Options, SECOND, World};

async fn answer(world: &World, app: &Router, path: &str, accept: &str) -> axum::response::Response {
    let request =
        Request::get(path).header(ACCEPT, accept).header("cookie", world.browser.cookie_header(&world.app.url));
    app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

async fn text(response: axum::response::Response) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), 100_000).await.unwrap();
    String::from_utf8(bytes.into()).unwrap()
}

#[tokio::test]
async fn routes_want_claims() {
    let world = World::new().await;
    world.provider.tamper_id_token(|_, claims| claims["groups"] = json!(["staff"]));
    world.sign_in().await;
    let rp = &world.app.rp;
    let route = |path: &str, group: &str| {
        Router::new().route(path, get(async || "done")).route_layer(rp.require_session().with_claim("groups", group))
    };
    let app = route("/staff", "staff").merge(route("/admin", "admin")).merge(rp.routes()).layer(rp.layer());
    assert_eq!(answer(&world, &app, "/staff", "text/html").await.status(), StatusCode::OK);
    let page = answer(&world, &app, "/admin", "text/html").await;
    assert_eq!(page.status(), StatusCode::FORBIDDEN);
    assert!(text(page).await.contains("may not do this"));
    let json = answer(&world, &app, "/admin", "application/json").await;
    assert_eq!((json.status(), text(json).await.as_str()), (StatusCode::FORBIDDEN, r#"{"error":"forbidden"}"#));
}

#[tokio::test]
async fn routes_want_a_kind_and_an_age_of_authentication() {
    let world = World::signed_in().await;
    let rp = &world.app.rp;
    let app = Router::new()
        .route("/vault", get(async || "open"))
        .route_layer(rp.require_session().acr("gold").max_age(Duration::from_secs(300)))
        .merge(rp.routes())
        .layer(rp.layer());
    let page = answer(&world, &app, "/vault?a=b", "text/html").await;
    assert_eq!(page.status(), StatusCode::SEE_OTHER);
    let login = "/auth/login?return_to=/vault%3Fa%3Db&acr_values=gold&max_age=300";
    assert_eq!(page.headers()["location"], login);
    let told = answer(&world, &app, "/vault", "application/json").await;
    assert_eq!(told.status(), StatusCode::UNAUTHORIZED);
    let expected =
        json!({"error": "insufficient_user_authentication", "login": "/auth/login?acr_values=gold&max_age=300"});
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text(told).await).unwrap(), expected);
    // The provider gives what is asked for, with a time that refreshes do not renew.
    world.browser.go(&world.app.at("/auth/login?return_to=/me&acr_values=gold&max_age=300")).await;
    assert_eq!(answer(&world, &app, "/vault", "text/html").await.status(), StatusCode::OK);
    for _ in 0..4 {
        world.clock.advance(SECOND * 100);
        assert_eq!(world.me().await, StatusCode::OK);
    }
    assert_eq!(answer(&world, &app, "/vault", "text/html").await.status(), StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_provider_that_cannot_give_it_makes_no_loop() {
    let world = World::new().await;
    world.provider.tamper_id_token(|_, claims| claims["acr"] = "bronze".into());
    world.browser.go(&world.app.at("/auth/login?return_to=/me&acr_values=gold")).await;
    let rp = &world.app.rp;
    let app = Router::new()
        .route("/vault", get(async || "open"))
        .route_layer(rp.require_session().acr("gold"))
        .merge(rp.routes())
        .layer(rp.layer());
    assert_eq!(answer(&world, &app, "/vault", "text/html").await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn two_requirements_are_met_by_one_login() {
    let world = World::new().await;
    // The provider says when somebody authenticated only where it was asked for an age.
    world.provider.tamper_id_token(|_, claims| drop(claims.as_object_mut().unwrap().remove("auth_time")));
    world.browser.go(&world.app.at("/auth/login?return_to=/me&acr_values=gold")).await;
    let rp = &world.app.rp;
    let app = Router::new()
        .route("/vault", get(async || "open"))
        .route_layer(rp.require_session().max_age(Duration::from_secs(300)))
        .route_layer(rp.require_session().acr("gold"))
        .merge(rp.routes())
        .layer(rp.layer());
    let page = answer(&world, &app, "/vault", "text/html").await;
    let login = "/auth/login?return_to=/vault&acr_values=gold&max_age=300";
    assert_eq!(page.headers()["location"], login, "no less than before");
    let login = world.app.at("/auth/login?return_to=/me&acr_values=gold&max_age=300");
    world.provider.tamper_id_token(|_, _| {});
    world.browser.go(&login).await;
    assert_eq!(answer(&world, &app, "/vault", "text/html").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn what_is_posted_to_a_route_that_wants_more_is_kept() {
    let world = World::signed_in().await;
    let rp = &world.app.rp;
    let app = Router::new()
        .route("/vault", axum::routing::post(async |body: String| body))
        .route_layer(rp.require_session().acr("gold"))
        .merge(rp.routes())
        .layer(rp.layer());
    let request = Request::post("/vault")
        .header(ACCEPT, "text/html")
        .header("sec-fetch-mode", "navigate")
        .header("sec-fetch-site", "same-origin")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("cookie", world.browser.cookie_header(&world.app.url));
    let response = app.oneshot(request.body(Body::from("amount=7")).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let page = text(response).await;
    assert!(page.contains("id=\"kept\"") && page.contains("sign in once more"), "{page}");
    assert!(page.contains("/auth/login?return_to=/auth/form&amp;acr_values=gold"), "{page}");
}

#[tokio::test]
async fn authorization_requests_say_what_is_set_and_what_a_link_may_set() {
    let configure = |builder: tower_oidc_session::RelyingPartyBuilder| {
        builder
            .authorization_parameter("kc_idp_hint", "corporate")
            .linked_parameters(["login_hint", "kc_idp_hint"])
            .post_logout_path("/public")
    };
    let world = World::with(Options { configure: Box::new(configure), ..Options::default() }).await;
    for (query, expected) in [
        ("", "kc_idp_hint=corporate"),
        ("?login_hint=alice%40shop.example&ui_locales=de", "kc_idp_hint=corporate login_hint=alice@shop.example"),
        ("?kc_idp_hint=partner&prompt=select_account", "kc_idp_hint=partner prompt=select_account"),
        ("?prompt=login&acr_values=gold", "acr_values=gold kc_idp_hint=corporate prompt=login"),
        ("?redirect_uri=https://evil.example&scope=admin", "kc_idp_hint=corporate"),
    ] {
        let page = world.browser.step(&world.app.at(&format!("/auth/login{query}"))).await;
        let own = [
            "client_id",
            "redirect_uri",
            "response_type",
            "scope",
            "state",
            "nonce",
            "code_challenge",
            "code_challenge_method",
        ];
        let location = page.location();
        let mut said: Vec<_> = location.query_pairs().filter(|(name, _)| !own.contains(&name.as_ref())).collect();
        said.sort();
        let said: Vec<_> = said.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(said.join(" "), expected, "{query}");
        assert!(location.query_pairs().filter(|(name, _)| name == "redirect_uri").count() == 1);
    }
    let wrong = world.browser.step(&world.app.at("/auth/login?prompt=sudo")).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    world.sign_in().await;
    let logout = world.browser.post(&world.app.at("/auth/logout")).await;
    let back =
        logout.location().query_pairs().find(|(name, _)| name == "post_logout_redirect_uri").unwrap().1.into_owned();
    assert_eq!(back, world.app.at("/public"));
}

/// A world whose application says this to logins.
async fn world_saying(says: Result<(), LoginRefused>) -> (World, Arc<Mutex<Vec<String>>>) {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let configure = {
        let asked = asked.clone();
        move |builder: tower_oidc_session::RelyingPartyBuilder| {
            let (asked, says) = (asked.clone(), says.clone());
            builder.on_login(move |login: NewLogin| {
                asked.lock().unwrap().push(format!("{} {}", login.subject(), login.access_token().is_some()));
                let says = says.clone();
                async move { says }
            })
        }
    };
    (World::with(Options { configure: Box::new(configure), ..Options::default() }).await, asked)
}

#[tokio::test]
async fn the_application_is_asked_at_a_login_and_may_refuse() {
    let (world, asked) = world_saying(Ok(())).await;
    world.sign_in().await;
    assert_eq!(world.me().await, StatusCode::OK);
    assert_eq!(*asked.lock().unwrap(), ["alice true"]);
    for (refused, status, words) in [
        (LoginRefused::not_allowed("not on the list"), StatusCode::FORBIDDEN, "may not do this"),
        (LoginRefused::unavailable("the database is down"), StatusCode::SERVICE_UNAVAILABLE, "tries again by itself"),
    ] {
        let (log, _guard) = collect_log("warn");
        let reason = refused.to_string();
        let (world, _) = world_saying(Err(refused)).await;
        let request = world.browser.request(Method::GET, &world.app.at("/me")).header(ACCEPT, "text/html");
        let page = world.browser.page(request).await;
        let page = world.browser.go(page.location().as_str()).await;
        assert_eq!(page.status, status);
        assert!(page.body.contains(words), "{}", page.body);
        if status == StatusCode::FORBIDDEN {
            // The provider would sign in the same user again: there is a way to another.
            let again = page.body.contains("/auth/login?return_to=/me&amp;prompt=login");
            assert!(again && page.body.contains("\"/auth/logout\""), "{}", page.body);
        }
        assert!(log.text().contains(&reason), "{}", log.text());
        assert!(world.browser.session_cookie(&world.app.url).is_none());
        assert!(world.app.events.lock().unwrap().is_empty(), "nothing began");
    }
}
