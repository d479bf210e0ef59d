//! An application below a path, with its routes elsewhere than at `/auth`.

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request, StatusCode, Uri};
use tower::{ServiceExt, service_fn};
use tower_oidc_session::test_provider::{SignIn, TestClient, TestProvider};
use tower_oidc_session::{ClientCredentials, OidcSession, RelyingParty};

use crate::browser::Browser;
use crate::leaks;
use crate::world::CLIENT_SECRET;

/// What stands before the application.
#[derive(Clone, Copy, Debug)]
enum Proxy {
    /// It takes `/shop` away.
    Cuts,
    /// It does not, and the router nests the application.
    Leaves,
}

async fn serve(proxy: Proxy) -> (TestProvider, RelyingParty, String) {
    let provider = leaks::provider().sign_in(SignIn::Automatic("alice".to_owned())).start().await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/shop", listener.local_addr().unwrap());
    provider.register(
        TestClient::new("shop", CLIENT_SECRET)
            .redirect_uri(format!("{url}/sign-in/callback"))
            .post_logout_redirect_uri(format!("{url}/"))
            .backchannel_logout_uri(format!("{url}/sign-in/backchannel-logout")),
    );
    let rp = RelyingParty::builder(provider.issuer(), ClientCredentials::secret("shop", CLIENT_SECRET), &url)
        .auth_path("/sign-in")
        .build()
        .unwrap();
    let app = Router::new()
        .route("/me", get(async |session: OidcSession| session.subject().to_string()))
        .route("/note", post(async |body: String| body))
        .route_layer(rp.require_session())
        .merge(rp.routes())
        .layer(rp.layer());
    assert_eq!(rp.check_wiring(app.clone()).await, Ok(()));
    let app = match proxy {
        Proxy::Leaves => Router::new().nest("/shop", app),
        Proxy::Cuts => Router::new().fallback_service(service_fn(move |mut request: Request<Body>| {
            let cut = request.uri().to_string().strip_prefix("/shop").map(str::to_owned).unwrap();
            *request.uri_mut() = cut.parse::<Uri>().unwrap();
            request.extensions_mut().clear();
            app.clone().oneshot(request)
        })),
    };
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (provider, rp, url)
}

#[tokio::test]
async fn an_application_below_a_path_is_found_there() {
    for proxy in [Proxy::Cuts, Proxy::Leaves] {
        let (provider, rp, url) = serve(proxy).await;
        let browser = Browser::new();
        let page =
            browser.page(browser.request(Method::GET, &format!("{url}/me?a=b")).header(ACCEPT, "text/html")).await;
        let expected = format!("{url}/sign-in/login?return_to=/shop/me%3Fa%3Db");
        assert_eq!(page.location().as_str(), expected, "{proxy:?}");
        let me = browser.go(page.location().as_str()).await;
        assert_eq!((me.url.as_str(), me.body.as_str()), (format!("{url}/me?a=b").as_str(), "alice"), "{proxy:?}");

        let script = browser.get(&url.replace("/shop", &rp.session_script())).await;
        assert_eq!(script.status, StatusCode::OK, "{}", rp.session_script());
        assert!(rp.session_script().starts_with("/shop/sign-in/session/"));

        let lost =
            browser.page(browser.request(Method::GET, &format!("{url}/sign-in/x")).header(ACCEPT, "text/html")).await;
        assert_eq!(lost.status, StatusCode::NOT_FOUND);
        assert!(lost.body.contains("<a href=\"/shop/\">"), "{}", lost.body);
        let ask = browser
            .page(browser.request(Method::GET, &format!("{url}/sign-in/logout")).header(ACCEPT, "text/html"))
            .await;
        assert!(ask.body.contains("action=\"/shop/sign-in/logout\""), "{}", ask.body);

        assert_eq!(provider.end_sessions_of("alice").await, 1);
        let form = browser
            .request(Method::POST, &format!("{url}/note"))
            .header(ACCEPT, "text/html")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header("sec-fetch-mode", "navigate")
            .header("sec-fetch-site", "same-origin");
        let kept = browser.page(form.body("note=x")).await;
        assert_eq!(kept.status, StatusCode::UNAUTHORIZED);
        for part in ["src=\"/shop/sign-in/form.js\"", "data-href=\"/shop/sign-in/login?return_to=/shop/sign-in/form\""]
        {
            assert!(kept.body.contains(part), "{part} in {}", kept.body);
        }
        browser.go(&format!("{url}/sign-in/login")).await;
        let logout = browser.post(&format!("{url}/sign-in/logout")).await;
        let back = logout
            .location()
            .query_pairs()
            .find(|(name, _)| name == "post_logout_redirect_uri")
            .unwrap()
            .1
            .into_owned();
        assert_eq!(back, format!("{url}/"));
    }
}
