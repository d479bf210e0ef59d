//! Stores over TLS, with a user and a password.

use std::process::Command;

use http::{Method, StatusCode};
use tower_oidc_session::test_provider::{SignIn, TestClient, TestProvider};

use crate::process::{Process, address, free_ports, web_app};
use crate::servers::Store;
use crate::until;
use crate::visitor::Visitor;

const STORAGE_KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

async fn start(store: &Store, configure: impl Fn(&mut Command)) -> (TestProvider, Process, String) {
    let [port] = free_ports();
    let provider = TestProvider::builder()
        .sign_in(SignIn::Automatic("alice".to_owned()))
        .client(TestClient::at("shop", "secret", &format!("http://127.0.0.1:{port}")))
        .start()
        .await
        .unwrap();
    let mut command = web_app();
    command
        .env("LISTEN", format!("127.0.0.1:{port}"))
        .env("OIDC_ISSUER", provider.issuer())
        .env("OIDC_CLIENT_ID", "shop")
        .env("OIDC_CLIENT_SECRET", "secret")
        .env("STORE_KEYS", STORAGE_KEY)
        .env("STORE_URL", store.url());
    configure(&mut command);
    let app = Process::start(&mut command);
    let url = address(&app);
    let stranger = Visitor::new();
    until("web_app is ready", async || stranger.get(&format!("{url}/me")).await.status == StatusCode::UNAUTHORIZED)
        .await;
    (provider, app, url)
}

async fn trusted_stores_are_used_and_others_not(store: Store) {
    let trusted = |command: &mut Command| {
        command.env("SSL_CERT_FILE", store.authority());
    };
    let (_provider, _app, url) = start(&store, trusted).await;
    let visitor = Visitor::new();
    // The schema may still be on its way.
    until("a login works", async || visitor.go(Method::GET, &format!("{url}/me")).await.status == StatusCode::OK).await;
    assert_eq!(visitor.get(&format!("{url}/me")).await.status, StatusCode::OK);

    let (_provider, _app, url) = start(&store, |_| ()).await;
    let page = Visitor::new().go(Method::GET, &format!("{url}/me")).await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "nobody vouches for this store: {page:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis() {
    trusted_stores_are_used_and_others_not(Store::redis_over_tls()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres() {
    trusted_stores_are_used_and_others_not(Store::postgres_over_tls()).await;
}
