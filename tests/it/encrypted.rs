//! What providers sign or encrypt besides: userinfo answers that are JWTs, and tokens that nobody here can read.
//!
//! Encryption is not supported. Whatever is encrypted confirms nothing and ends nothing, the log says what to switch off at the
//! provider, and no page is a dead end.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::{Value, json};
use tower_oidc_session::ClaimsFrom;
use tower_oidc_session::test_provider::{ExpiredSessions, RefreshTokens, TestProvider};

use crate::secrets::collect_log;
use crate::world::{ABSOLUTE, G, Options, SECOND, T, World};

const SWITCH_IT_OFF: &str = "it is encrypted, which is not supported: have the provider sign it only";

/// A JWE in compact form, of random bytes.
fn encrypted() -> String {
    let part = |letter: &str, length| URL_SAFE_NO_PAD.encode(letter.repeat(length));
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": "RSA-OAEP", "enc": "A256GCM", "cty": "JWT"}).to_string());
    format!("{header}.{}.{}.{}.{}", part("k", 256), part("i", 12), part("c", 500), part("t", 16))
}

/// A userinfo endpoint of the provider that answers with this JWT.
async fn answer_user_info(world: &World) -> Arc<Mutex<String>> {
    let answer = Arc::new(Mutex::new(String::new()));
    let serve = async |State(answer): State<Arc<Mutex<String>>>| {
        ([("content-type", "application/jwt")], answer.lock().unwrap().clone())
    };
    let router = Router::new().route("/userinfo", get(serve)).with_state(answer.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/userinfo", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    world.provider.tamper_metadata(move |metadata| metadata["userinfo_endpoint"] = url.clone().into());
    answer
}

fn claims(provider: &TestProvider) -> Value {
    json!({"iss": provider.issuer(), "aud": "shop", "sub": "alice", "email": "alice@example.test"})
}

/// The world of a login that asks userinfo, the same where it is signed, and what that login comes to.
async fn log_in(answer: impl Fn(&TestProvider) -> String) -> (World, crate::browser::Page) {
    let options = Options { configure: Box::new(|b| b.claims_from(ClaimsFrom::UserInfo)), ..Options::default() };
    let world = World::with(options).await;
    *answer_user_info(&world).await.lock().unwrap() = answer(&world.provider);
    let page = world.browser.go(&world.app.at("/me")).await;
    (world, page)
}

#[tokio::test]
async fn signed_userinfo_is_taken_with_and_without_audience() {
    let signed = |change: fn(&mut Value)| {
        move |provider: &TestProvider| {
            let mut claims = claims(provider);
            change(&mut claims);
            provider.sign(&json!({}), &claims)
        }
    };
    for (row, change) in [
        ("as it has to be", (|_| {}) as fn(&mut Value)),
        ("one of several audiences", |claims| claims["aud"] = json!(["shop", "bank"])),
        ("no audience", |claims| _ = claims.as_object_mut().unwrap().remove("aud")),
    ] {
        let (_world, page) = log_in(signed(change)).await;
        assert_eq!(page.status, StatusCode::OK, "{row}");
        assert_eq!(page.json()["claims"]["email"], "alice@example.test", "{row}");
    }
}

#[tokio::test]
async fn userinfo_that_is_not_the_providers_word_for_this_client_fails_the_login() {
    let sign = |provider: &TestProvider, header: Value, change: &dyn Fn(&mut Value)| {
        let mut claims = claims(provider);
        change(&mut claims);
        provider.sign(&header, &claims)
    };
    let rows: [(&str, &str, &dyn Fn(&TestProvider) -> String); 9] = [
        ("encrypted", SWITCH_IT_OFF, &|_| encrypted()),
        ("another key", "the signature is wrong", &|p| p.sign_with_foreign_key(&json!({}), &claims(p))),
        ("unsigned", "the header parameter alg is not", &|p| sign(p, json!({"alg": "none"}), &|_| {})),
        ("another algorithm", "the header parameter alg is not", &|p| sign(p, json!({"alg": "ES256"}), &|_| {})),
        ("another issuer", "the claim iss is not", &|p| {
            sign(p, json!({}), &|c| c["iss"] = "https://op.example".into())
        }),
        ("no issuer", "the claim iss is missing", &|p| {
            sign(p, json!({}), &|c| _ = c.as_object_mut().unwrap().remove("iss"))
        }),
        ("another client", "the claim aud is not this client", &|p| sign(p, json!({}), &|c| c["aud"] = "bank".into())),
        ("another user", "not about this user", &|p| sign(p, json!({}), &|c| c["sub"] = "bob".into())),
        ("no JWT", "not a signed JWT", &|_| "tea".to_owned()),
    ];
    for (row, reason, answer) in rows {
        let (log, guard) = collect_log("warn");
        let (world, page) = log_in(answer).await;
        assert_eq!(page.status, StatusCode::BAD_GATEWAY, "{row}");
        assert!(page.body.contains("/auth/login"), "{row}: the way on");
        assert!(world.app.registry.has(0), "{row}");
        assert_eq!(world.browser.session_cookie(&world.app.url), None, "{row}");
        let text = log.text();
        assert!(text.contains(reason), "{row}: {text}");
        drop(guard);
    }
}

#[tokio::test]
async fn p4_encrypted_userinfo_confirms_nothing_and_ends_nothing() {
    let mut options = Options::default();
    options.provider = options.provider.refresh_tokens(RefreshTokens::None).access_token_lifetime(ABSOLUTE);
    options.provider = options.provider.expired_sessions(ExpiredSessions::StaySilent);
    let world = World::with(options).await;
    let answer = answer_user_info(&world).await;
    world.sign_in().await;
    *answer.lock().unwrap() = encrypted();
    let (log, _guard) = collect_log("error");
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
    assert_eq!(world.app.events(), ["started"], "nothing is confirmed");
    assert!(log.text().contains(SWITCH_IT_OFF), "{}", log.text());
    world.clock.advance(T);
    assert_eq!(world.me().await, StatusCode::SERVICE_UNAVAILABLE);
    // Where it is only signed again, the session goes on.
    *answer.lock().unwrap() = world.provider.sign(&json!({}), &claims(&world.provider));
    world.clock.advance(SECOND * 60);
    assert_eq!(world.me().await, StatusCode::OK);
    assert_eq!(world.app.events(), ["started", "refreshed"]);
}

#[tokio::test]
async fn p15_an_encrypted_id_token_fails_the_login_and_the_log_says_what_to_do() {
    let world = World::new().await;
    let (log, _guard) = collect_log("warn");
    world.provider.tamper_token_response(|response| response["id_token"] = encrypted().into());
    let page = world.browser.go(&world.app.at("/me")).await;
    assert_eq!(page.status, StatusCode::BAD_GATEWAY);
    assert!(page.body.contains("/auth/login"), "the way on");
    assert!(world.app.registry.has(0));
    assert!(log.text().contains(SWITCH_IT_OFF), "{}", log.text());
    world.provider.clear_tampering();
    world.sign_in().await;
}

#[tokio::test]
async fn p4_an_encrypted_id_token_in_a_refresh_ends_nothing() {
    let world = World::signed_in_with(Options::silent()).await;
    let (log, _guard) = collect_log("error");
    world.provider.tamper_token_response(|response| response["id_token"] = encrypted().into());
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
    assert_eq!(world.app.events(), ["started"], "nothing is confirmed");
    assert!(log.text().contains(SWITCH_IT_OFF), "{}", log.text());
    world.provider.clear_tampering();
    world.clock.advance(SECOND * 4);
    assert_eq!(world.me().await, StatusCode::OK);
    assert_eq!(world.app.events(), ["started", "refreshed"], "the rotated token was kept");
}
