//! The layers are Tower's: around services that are not axum's, with any error. And they say when they are put together wrongly.

use axum::body::Body;
use axum::routing::get;
use axum::{Router, response::Response};
use http::header::{ACCEPT, COOKIE};
use http::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_http::services::ServeDir;
use tower_oidc_session::{OidcSession, RelyingParty};

use crate::secrets::collect_log;
use crate::world::World;

fn page(path: &str) -> Request<Body> {
    Request::get(path).header(ACCEPT, "text/html").body(Body::empty()).unwrap()
}

#[tokio::test]
async fn files_are_served_to_who_is_signed_in() {
    let world = World::signed_in().await;
    let rp = &world.app.rp;
    let files = ServeDir::new(concat!(env!("CARGO_MANIFEST_DIR"), "/docs"));
    let app = ServiceBuilder::new().layer(rp.layer()).layer(rp.passive()).layer(rp.require_session()).service(files);
    let response = app.clone().oneshot(page("/features.md")).await.unwrap();
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    let mut request = page("/features.md");
    request.headers_mut().insert("cookie", world.browser.cookie_header(&world.app.url));
    assert_eq!(app.oneshot(request).await.unwrap().status(), StatusCode::OK);
}

#[derive(Debug, thiserror::Error)]
#[error("the service is broken")]
struct Broken;

#[tokio::test]
async fn a_service_of_hyper_with_an_error_of_its_own_is_wrapped() {
    let world = World::signed_in().await;
    let rp = &world.app.rp;
    let inner = service_fn(async |request: Request<Body>| match request.uri().path() {
        "/broken" => Err(Broken),
        _ => Ok(http::Response::new(http_body_util::Full::new(bytes::Bytes::from("hello")))),
    });
    let app = ServiceBuilder::new().layer(rp.layer()).layer(rp.require_session()).service(inner);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = TowerToHyperService::new(app.clone());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service.clone());
            tokio::spawn(connection);
        }
    });
    let client = reqwest::Client::new();
    let cookie = world.browser.cookie_header(&world.app.url);
    let answer = client.get(&url).header("cookie", cookie.clone()).send().await.unwrap();
    assert_eq!((answer.status(), answer.text().await.unwrap().as_str()), (StatusCode::OK, "hello"));
    assert_eq!(client.get(&url).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let mut request = page("/broken");
    request.headers_mut().insert("cookie", cookie);
    assert_eq!(app.oneshot(request).await.unwrap_err().to_string(), "the service is broken");
}

#[tokio::test]
async fn p5_a_layer_within_a_layer_does_nothing_and_the_log_says_so() {
    let (log, _guard) = collect_log("error");
    let world = World::signed_in().await;
    let rp = &world.app.rp;
    let inner = Router::new()
        .route("/poll", get(async |session: OidcSession| session.subject().to_string()))
        .route_layer(rp.passive())
        .layer(rp.layer());
    let app = inner.merge(rp.routes()).layer(rp.layer());
    world.clock.advance(crate::world::G);
    let mut request = page("/poll");
    request.headers_mut().insert("cookie", world.browser.cookie_header(&world.app.url));
    assert_eq!(app.oneshot(request).await.unwrap().status(), StatusCode::OK);
    assert_eq!(world.provider.requests(tower_oidc_session::test_provider::Endpoint::Token), 1, "no activity");
    assert!(log.text().contains("rp.layer() stands around rp.layer()"), "{}", log.text());
}

#[derive(Clone)]
struct AppState(&'static str);

#[tokio::test]
async fn routes_are_merged_into_a_router_with_state() {
    let world = World::new().await;
    let rp = &world.app.rp;
    let greet = async |axum::extract::State(AppState(text)): axum::extract::State<AppState>| text;
    let app = Router::new().route("/", get(greet)).merge(rp.routes()).with_state(AppState("hello")).layer(rp.layer());
    assert_eq!(app.clone().oneshot(page("/")).await.unwrap().status(), StatusCode::OK);
    assert_eq!(rp.check_wiring(app).await, Ok(()));
}

fn orders(rp: &RelyingParty) -> Router {
    Router::new()
        .route("/orders", get(async |session: OidcSession| session.subject().to_string()))
        .route_layer(rp.require_session())
}

#[tokio::test]
async fn p15_wrong_wiring_is_found_before_the_first_user() {
    let world = World::new().await;
    let rp = &world.app.rp;
    for (app, expected) in [
        (orders(rp).merge(rp.routes()).layer(rp.layer()), None),
        (orders(rp).layer(rp.layer()), Some(".merge(rp.routes()) is missing")),
        (Router::new().nest("/shop", orders(rp).merge(rp.routes()).layer(rp.layer())), Some("nested below a path")),
        (orders(rp).layer(rp.layer()).merge(rp.routes()), Some("stand outside of rp.layer()")),
        (orders(rp).merge(rp.routes()), Some("stand outside of rp.layer()")),
        (
            orders(rp).merge(rp.routes()).layer(rp.require_session()).layer(rp.layer()),
            Some("require_session() stands over rp.routes()"),
        ),
        (Router::new().fallback(async || "everything").layer(rp.layer()), Some("another route or layer has it")),
    ] {
        let found = rp.check_wiring(app).await.err().map(|error| error.to_string());
        match expected {
            None => assert_eq!(found, None),
            Some(part) => assert!(found.as_ref().is_some_and(|text| text.contains(part)), "{found:?}"),
        }
    }
}

#[tokio::test]
async fn p15_the_log_says_what_to_write_instead() {
    let world = World::new().await;
    let rp = &world.app.rp;
    let status = async |app: Router, path: &str| -> StatusCode {
        let response: Response = app.oneshot(page(path)).await.unwrap();
        response.status()
    };
    for (app, path, expected, part) in [
        (orders(rp), "/orders", 500, "require_session() stands outside of rp.layer(): put .layer(rp.layer()) last"),
        (
            Router::new().route("/", get(async |_: Option<OidcSession>| "")),
            "/",
            500,
            "OidcSession is used outside of rp.layer()",
        ),
        (rp.routes(), "/auth/login", 500, "merge them before .layer(rp.layer())"),
        (
            orders(rp).merge(rp.routes()).layer(rp.require_session()).layer(rp.layer()),
            "/auth/login",
            500,
            "require_session() stands over rp.routes()",
        ),
        (
            Router::new().route("/", get(async || "")).layer(rp.layer()).layer(rp.passive()),
            "/",
            200,
            "passive() stands outside of rp.layer()",
        ),
    ] {
        let (log, _guard) = collect_log("error");
        assert_eq!(status(app, path).await, expected, "{part}");
        assert!(log.text().contains(part), "{part} in {}", log.text());
    }
    // With a session, which has counted by then.
    world.sign_in().await;
    let app = Router::new()
        .route("/poll", get(async || "nothing new"))
        .route_layer(rp.passive())
        .route_layer(rp.require_session())
        .layer(rp.layer());
    let (log, _guard) = collect_log("error");
    let mut request = page("/poll");
    request.headers_mut().insert(COOKIE, world.browser.cookie_header(&world.app.at("/poll")));
    assert_eq!(app.oneshot(request).await.unwrap().status(), StatusCode::OK);
    assert!(log.text().contains("passive() stands inside require_session()"), "{}", log.text());
}
