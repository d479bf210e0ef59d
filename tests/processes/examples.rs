//! The small examples do what their first lines say.

use axum::Router;
use axum::routing::get;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, StatusCode};
use tower_oidc_session::test_provider::{Endpoint, SignIn, TestClient, TestProvider};

use crate::process::{Process, address, example, free_ports};
use crate::visitor::Visitor;

struct World {
    provider: TestProvider,
    visitor: Visitor,
    url: String,
    _process: Process,
}

impl World {
    async fn start(name: &str) -> Self {
        let api = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api_url = format!("http://{}", api.local_addr().unwrap());
        let orders = Router::new().route(
            "/orders",
            get(async |headers: HeaderMap| {
                let has_token =
                    headers.get(AUTHORIZATION).is_some_and(|value| value.as_bytes().starts_with(b"Bearer "));
                if has_token { Ok("tea") } else { Err(StatusCode::UNAUTHORIZED) }
            }),
        );
        tokio::spawn(async move { axum::serve(api, orders).await });

        let [port] = free_ports();
        let provider = TestProvider::builder()
            .sign_in(SignIn::Automatic("alice".to_owned()))
            .client(TestClient::at("shop", "secret", &format!("http://127.0.0.1:{port}")))
            .start()
            .await
            .unwrap();
        let process = Process::start(
            example(name)
                .env("LISTEN", format!("127.0.0.1:{port}"))
                .env("API_URL", api_url)
                .env("OIDC_ISSUER", provider.issuer())
                .env("OIDC_CLIENT_ID", "shop")
                .env("OIDC_CLIENT_SECRET", "secret"),
        );
        let (visitor, url) = (Visitor::new(), address(&process));
        assert!(visitor.get(&url).await.body.contains("Sign in"));
        assert_eq!(visitor.get(&format!("{url}/me")).await.status, StatusCode::UNAUTHORIZED);
        let page = visitor.go(Method::GET, &format!("{url}/me")).await;
        assert_eq!((page.status, page.body.as_str()), (StatusCode::OK, "You are alice."), "{page:?}");
        assert!(visitor.get(&url).await.body.contains("Sign out"));
        Self { provider, visitor, url, _process: process }
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let page = self.visitor.get(&format!("{}{path}", self.url)).await;
        (page.status, page.body)
    }

    async fn assert_ends_with_the_provider(&self) {
        assert_eq!(self.provider.end_sessions_of("alice").await, 1);
        assert_eq!(self.get("/me").await.0, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn minimal() {
    let world = World::start("minimal").await;
    let page = world.visitor.go(Method::POST, &format!("{}/auth/logout", world.url)).await;
    assert!(page.body.contains("Sign in"), "{page:?}");
    assert!(world.provider.sessions().is_empty());
}

#[tokio::test]
async fn api_calls() {
    let world = World::start("api_calls").await;
    assert_eq!(world.get("/orders").await, (StatusCode::OK, "tea".to_owned()));
    world.assert_ends_with_the_provider().await;
}

#[tokio::test]
async fn tokenless() {
    let world = World::start("tokenless").await;
    assert_eq!(world.provider.requests(Endpoint::Token), 1);
    world.assert_ends_with_the_provider().await;
}
