//! The modules of the OpenID conformance suite's plans for relying parties (code flow): each test has the name of a
//! module, and for the modules of a family the same course: what the provider does wrong, and that nothing comes of it.
//!
//! Two modules are missing, because nothing here could fail: `oidcc-client-test-rp-init-logout-invalid-state` and
//! `oidcc-client-test-rp-init-logout-no-state` send the user back from the logout with a wrong `state` or none. The
//! session has ended before the user leaves for the provider, no `state` is sent along, and the page that the user
//! comes back to is the application's own: no code of ours reads a `state` there.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::{Value, json};
use tower_oidc_session::test_provider::{Endpoint, OldKeys};
use tower_oidc_session::{ClaimsFrom, EndReason, RelyingPartyBuilder, SigningAlg};

use crate::backchannel_logout::{changed, post_token};
use crate::oracle::{Judgement, Of, Oracle};
use crate::world::{G, Options, SECOND, World};

type Change = fn(&mut Value, &mut Value);

fn remove(claims: &mut Value, name: &str) {
    claims.as_object_mut().unwrap().remove(name);
}

/// A login whose ID token is damaged comes to nothing.
async fn login_is_refused(row: &str, change: Change) {
    let options = Options { configure: Box::new(|b| b.claims_from(ClaimsFrom::UserInfo)), ..Options::default() };
    let world = World::with(options).await;
    let oracle = Oracle::watch(&world, change);
    let page = world.browser.go(&world.app.at("/me")).await;
    assert_eq!(page.status, StatusCode::BAD_GATEWAY);
    assert!(world.app.registry.has(0));
    assert_eq!(world.browser.session_cookie(&world.app.url), None);
    assert_eq!(world.provider.requests(Endpoint::UserInfo), 0, "the access token is not used");
    oracle.agrees(&world, Of::Login, Judgement::Refuses, row).await;
}

async fn login_is_accepted(row: &str, change: Change) {
    let world = World::new().await;
    let oracle = Oracle::watch(&world, change);
    world.sign_in().await;
    oracle.agrees(&world, Of::Login, Judgement::Accepts, row).await;
}

/// A refresh whose ID token is damaged ends the session, and its tokens are never used.
async fn refresh_is_refused(row: &str, change: Change) {
    let world = World::new().await;
    let oracle = Oracle::watch(&world, |_, _| {});
    world.sign_in().await;
    world.provider.tamper_id_token(change);
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
    world.app.assert_ended(EndReason::ProviderMisbehaved);
    assert_eq!(world.provider.requests(Endpoint::UserInfo), 0);
    oracle.agrees(&world, Of::Refresh, Judgement::Refuses, row).await;
}

/// A refresh whose ID token cannot be believed ends nothing: it says nothing of the user. Its access token is never used,
/// and nothing is confirmed; but a rotated refresh token is kept, so that the session goes on when all is well again.
async fn refresh_is_not_believed(row: &str, change: Change) {
    let world = World::with(Options::silent()).await;
    let oracle = Oracle::watch(&world, |_, _| {});
    world.sign_in().await;
    let token = world.browser.get(&world.app.at("/me")).await.json()["token"].clone();
    world.provider.tamper_id_token(change);
    world.clock.advance(G);
    let page = world.browser.get(&world.app.at("/me")).await;
    assert_eq!((page.status, &page.json()["token"]), (StatusCode::OK, &token), "{page:?}");
    assert_eq!(world.app.events(), ["started"], "nothing is confirmed");
    assert_eq!(world.provider.revoked(), 0);
    oracle.agrees(&world, Of::Refresh, Judgement::Refuses, row).await;
    world.provider.tamper_id_token(|_, _| {});
    world.clock.advance(SECOND * 4);
    assert_eq!(world.me().await, StatusCode::OK);
    assert_eq!(world.app.events(), ["started", "refreshed"], "the rotated token was kept");
}

async fn refresh_is_accepted(row: &str, change: Change) {
    let world = World::new().await;
    let oracle = Oracle::watch(&world, |_, _| {});
    world.sign_in().await;
    world.provider.tamper_id_token(change);
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
    assert_eq!(world.app.events(), ["started", "refreshed"]);
    oracle.agrees(&world, Of::Refresh, Judgement::Accepts, row).await;
}

/// A logout token that is damaged is answered with 400 and ends nothing. The other library knows no logout tokens.
async fn logout_token_is_refused(_row: &str, change: Change) {
    let world = World::signed_in().await;
    assert_eq!(post_token(&world, &changed(&world, change)).await, StatusCode::BAD_REQUEST);
    assert_eq!(world.me().await, StatusCode::OK);
}

macro_rules! modules {
    ($course:ident: $($(#[$doc:meta])* $name:ident $change:expr;)+) => {
        $($(#[$doc])* #[tokio::test]
        async fn $name() {
            $course(stringify!($name), $change).await;
        })+
    };
}

modules! { login_is_accepted:
    oidcc_client_test |_, _| {};
    oidcc_client_test_kid_absent_single_jwks |h, _| h["kid"] = Value::Null;
    oidcc_client_test_missing_athash |_, c| remove(c, "at_hash");
    aud_as_an_array |_, c| c["aud"] = json!([c["aud"]]);
    auth_time_of_null |_, c| c["auth_time"] = Value::Null;
    no_auth_time |_, c| remove(c, "auth_time");
    no_sid |_, c| remove(c, "sid");
    azp_of_this_client |_, c| c["azp"] = "shop".into();
    /// ZITADEL always names its project too.
    aud_with_others_in_a_token_for_this_client |_, c| {
        c["aud"] = json!(["project", "shop"]);
        c["azp"] = "shop".into();
    };
    sub_of_255_characters |_, c| c["sub"] = "x".repeat(255).into();
    times_with_fractions |_, c| c["exp"] = json!(c["exp"].as_f64().unwrap() + 0.5);
}

modules! { login_is_refused:
    oidcc_client_test_invalid_iss |_, c| c["iss"] = "https://op.example".into();
    oidcc_client_test_missing_sub |_, c| remove(c, "sub");
    oidcc_client_test_invalid_aud |_, c| c["aud"] = "bank".into();
    oidcc_client_test_missing_aud |_, c| remove(c, "aud");
    oidcc_client_test_missing_iat |_, c| remove(c, "iat");
    oidcc_client_test_nonce_invalid |_, c| c["nonce"] = "another".into();
    oidcc_client_test_invalid_athash |_, c| c["at_hash"] = "AAAAAAAAAAAAAAAAAAAAAA".into();
    oidcc_client_test_idtoken_sig_none |h, _| h["alg"] = "none".into();
    oidcc_client_test_invalid_sig_hs256 |h, _| h["alg"] = "HS256".into();
    oidcc_client_test_invalid_sig_es256 |h, _| h["alg"] = "ES256".into();
    nonce_missing |_, c| remove(c, "nonce");
    exp_missing |_, c| remove(c, "exp");
    exp_past |_, c| c["exp"] = (c["iat"].as_u64().unwrap() - 30).into();
    iat_in_the_future |_, c| c["iat"] = (c["iat"].as_u64().unwrap() + 31).into();
    aud_with_others |_, c| c["aud"] = json!(["shop", "bank"]);
    aud_with_others_in_a_token_for_another_client |_, c| {
        c["aud"] = json!(["shop", "bank"]);
        c["azp"] = "bank".into();
    };
    aud_of_others_in_a_token_for_this_client |_, c| {
        c["aud"] = json!(["project", "bank"]);
        c["azp"] = "shop".into();
    };
    aud_with_what_is_no_string |_, c| {
        c["aud"] = json!(["shop", 7]);
        c["azp"] = "shop".into();
    };
    sub_of_more_than_255_characters |_, c| c["sub"] = "x".repeat(256).into();
    azp_of_another_client |_, c| c["azp"] = "bank".into();
    a_logout_token |_, c| c["events"] = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
    typ_of_a_logout_token |h, _| h["typ"] = "logout+jwt".into();
    typ_of_an_access_token |h, _| h["typ"] = "at+jwt".into();
    critical_extensions |h, _| h["crit"] = json!(["x"]);
    kid_unknown |h, _| h["kid"] = "unknown".into();
}

modules! { refresh_is_accepted:
    oidcc_client_test_refresh_token |_, _| {};
    refreshed_aud_with_others_in_a_token_for_this_client |_, c| {
        c["aud"] = json!(["project", "shop"]);
        c["azp"] = "shop".into();
    };
    the_nonce_is_not_needed |_, c| remove(c, "nonce");
    auth_time_is_not_needed |_, c| remove(c, "auth_time");
    a_later_auth_time |_, c| c["auth_time"] = (c["auth_time"].as_u64().unwrap() + 1).into();
    further_audiences |_, c| c["aud"] = json!(["bank", c["aud"]]);
}

modules! { refresh_is_refused:
    oidcc_client_test_refresh_token_invalid_issuer |_, c| c["iss"] = "https://op.example".into();
    oidcc_client_test_refresh_token_invalid_sub |_, c| c["sub"] = "bob".into();
    oidcc_client_test_refresh_token_invalid_aud |_, c| c["aud"] = "bank".into();
    oidcc_client_test_refresh_token_invalid_azp |_, c| c["azp"] = "bank".into();
    another_nonce |_, c| c["nonce"] = "another".into();
}

modules! { refresh_is_not_believed:
    an_unsigned_id_token |h, _| h["alg"] = "none".into();
    an_id_token_of_another_algorithm |h, _| h["alg"] = "ES256".into();
    an_access_token_of_another |_, c| c["at_hash"] = "AAAAAAAAAAAAAAAAAAAAAA".into();
    an_id_token_without_sub |_, c| remove(c, "sub");
}

modules! { logout_token_is_refused:
    oidcc_client_test_rp_backchannel_rpinitlogout_alg_none |h, _| h["alg"] = "none".into();
    oidcc_client_test_rp_backchannel_rpinitlogout_wrong_alg |h, _| h["alg"] = "PS256".into();
    oidcc_client_test_rp_backchannel_rpinitlogout_wrong_issuer |_, c| c["iss"] = "https://op.example".into();
    oidcc_client_test_rp_backchannel_rpinitlogout_wrong_aud |_, c| c["aud"] = "bank".into();
    /// What an ID token may have: a logout token is for this client alone.
    logout_aud_with_others |_, c| {
        c["aud"] = json!(["project", "shop"]);
        c["azp"] = "shop".into();
    };
    oidcc_client_test_rp_backchannel_rpinitlogout_no_event |_, c| remove(c, "events");
    oidcc_client_test_rp_backchannel_rpinitlogout_wrong_event |_, c| c["events"] = json!({"urn:wrong": {}});
    oidcc_client_test_rp_backchannel_rpinitlogout_with_nonce |_, c| c["nonce"] = "n".into();
}

#[tokio::test]
async fn oidcc_client_test_rp_backchannel_rpinitlogout() {
    let world = World::signed_in().await;
    let page = world.browser.post(&world.app.at("/auth/logout")).await;
    let page = world.browser.go(page.location().as_str()).await;
    assert_eq!(page.url.as_str(), world.app.at("/"));
    assert_eq!(world.provider.logouts().len(), 1);
    assert_eq!(world.provider.logouts()[0].status, Ok(200), "the session is gone already, which is a success");
}

#[tokio::test]
async fn oidcc_client_test_rp_init_logout() {
    let world = World::signed_in().await;
    let page = world.browser.post(&world.app.at("/auth/logout")).await;
    assert_eq!(page.location().origin().ascii_serialization(), world.provider.issuer());
    assert_eq!(world.browser.go(page.location().as_str()).await.body, "hello stranger");
}

#[tokio::test]
async fn oidcc_client_test_discovery_openid_config_and_jwks_uri_keys() {
    let world = World::signed_in().await;
    assert_eq!(world.provider.requests(Endpoint::Discovery), 1);
    assert_eq!(world.provider.requests(Endpoint::Jwks), 1);
}

#[tokio::test]
async fn oidcc_client_test_discovery_issuer_mismatch() {
    let world = World::new().await;
    world.provider.tamper_metadata(|metadata| metadata["issuer"] = "https://op.example".into());
    let app = world.another_app("mismatch").await;
    let page = world.browser.go(&app.at("/me")).await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(world.provider.requests(Endpoint::Authorize), 0);
    assert!(!app.rp.is_ready());
}

#[tokio::test]
async fn oidcc_client_test_signing_key_rotation() {
    let world = World::signed_in().await;
    world.provider.rotate_keys(OldKeys::Keep);
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
    assert_eq!(world.provider.requests(Endpoint::Jwks), 2);
    world.browser.go(&world.app.at("/auth/login?return_to=/me")).await;
    assert_eq!(world.provider.requests(Endpoint::Jwks), 2);
}

#[tokio::test]
async fn oidcc_client_test_signing_key_rotation_just_before_signing() {
    let world = World::signed_in().await;
    world.provider.rotate_keys(OldKeys::Drop);
    let page = world.browser.go(&world.app.at("/auth/login?return_to=/me")).await;
    assert_eq!(page.status, StatusCode::OK);
}

#[tokio::test]
async fn oidcc_client_test_kid_absent_multiple_jwks() {
    // One of the two behaviours that the module permits: the token is refused.
    let world = World::new().await;
    world.provider.rotate_keys(OldKeys::Keep);
    world.provider.tamper_id_token(|header, _| header["kid"] = Value::Null);
    let page = world.browser.go(&world.app.at("/me")).await;
    assert_eq!(page.status, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn oidcc_client_test_ignores_unparseable_key_in_jwks() {
    let world = World::new().await;
    world.provider.tamper_jwks(|jwks| {
        let keys = jwks["keys"].as_array_mut().unwrap();
        keys.insert(0, json!({"kty": "new", "kid": "odd"}));
        keys.insert(0, json!({"kty": "RSA", "use": "enc", "kid": "enc", "n": "AQAB", "e": "AQAB"}));
        keys.insert(0, json!("not even an object"));
    });
    world.sign_in().await;
}

#[tokio::test]
async fn keys_are_found_as_providers_publish_them() {
    type Publish = fn(&mut Vec<Value>);
    let publish: [(&str, Publish); 4] = [
        ("two keys of one kid", |_| {}),
        ("the other way round", |keys| keys.reverse()),
        ("the same key twice", |keys| keys.extend(keys.clone())),
        ("numbers with leading zeros", |keys| {
            for key in keys {
                for name in ["n", "e"] {
                    let bytes = URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
                    key[name] = URL_SAFE_NO_PAD.encode([&[0, 0][..], &bytes].concat()).into();
                }
            }
        }),
    ];
    for (case, publish) in publish {
        let world = World::new().await;
        world.provider.rotate_keys(OldKeys::Keep);
        world.provider.tamper_id_token(|header, _| header["kid"] = "same".into());
        world.provider.tamper_jwks(move |jwks| {
            let keys = jwks["keys"].as_array_mut().unwrap();
            for key in keys.iter_mut() {
                key["kid"] = "same".into();
            }
            publish(keys);
        });
        assert_eq!(world.browser.go(&world.app.at("/me")).await.status, StatusCode::OK, "{case}");
    }
}

#[tokio::test]
async fn a_key_for_something_else_verifies_nothing() {
    for (used_for, operations, expected) in [
        (json!("sig"), json!(["verify"]), StatusCode::OK),
        (Value::Null, json!(["sign", "verify"]), StatusCode::OK),
        (Value::Null, Value::Null, StatusCode::OK),
        // Without a key nobody can tell whether the token is right.
        (json!("enc"), Value::Null, StatusCode::SERVICE_UNAVAILABLE),
        (json!("enc"), json!(["verify"]), StatusCode::SERVICE_UNAVAILABLE),
        (Value::Null, json!(["encrypt"]), StatusCode::SERVICE_UNAVAILABLE),
        (json!("sig"), json!(["sign"]), StatusCode::SERVICE_UNAVAILABLE),
        (json!("sig"), json!([]), StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let world = World::new().await;
        let case = format!("{used_for} {operations}");
        world.provider.tamper_jwks(move |jwks| {
            for key in jwks["keys"].as_array_mut().unwrap() {
                key["use"] = used_for.clone();
                key["key_ops"] = operations.clone();
            }
        });
        assert_eq!(world.browser.go(&world.app.at("/me")).await.status, expected, "{case}");
    }
}

#[tokio::test]
async fn oidcc_client_test_invalid_sig_rs256() {
    let world = World::new().await;
    world.provider.tamper_token_response(|response| {
        let token = response["id_token"].as_str().unwrap().to_owned();
        let (message, signature) = token.rsplit_once('.').unwrap();
        // Of the right length, and not the right one.
        let forged: String = signature.chars().rev().collect();
        response["id_token"] = format!("{message}.{}A", &forged[1..]).into();
    });
    let page = world.browser.go(&world.app.at("/me")).await;
    assert_eq!(page.status, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn oidcc_client_test_userinfo_invalid_sub_and_bearer_header() {
    let options = Options { configure: Box::new(|b| b.claims_from(ClaimsFrom::UserInfo)), ..Options::default() };
    let world = World::with(options).await;
    world.provider.tamper_user_info(|claims| claims["sub"] = "mallory".into());
    assert_eq!(world.browser.go(&world.app.at("/me")).await.status, StatusCode::BAD_GATEWAY);
    world.provider.clear_tampering();
    world.sign_in().await;
}

/// A provider that signs like this, and an application that was set up like that.
fn signing(alg: SigningAlg, configure: impl Fn(RelyingPartyBuilder) -> RelyingPartyBuilder + 'static) -> Options {
    let options = Options::default();
    Options { configure: Box::new(configure), provider: options.provider.signing_alg(alg), ..options }
}

fn alg_of(token: &str) -> Value {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    serde_json::from_slice::<Value>(&header).unwrap()["alg"].clone()
}

#[tokio::test]
async fn oidcc_client_test_idtoken_sig_rs256() {
    let world = World::new().await;
    let algorithms = Arc::new(Mutex::new(Vec::new()));
    world.provider.tamper_token_response({
        let algorithms = algorithms.clone();
        move |response| algorithms.lock().unwrap().push(alg_of(response["id_token"].as_str().unwrap()))
    });
    world.sign_in().await;
    assert_eq!(*algorithms.lock().unwrap(), ["RS256"]);
}

#[tokio::test]
async fn an_id_token_that_is_not_signed_with_rs256_is_refused_where_nothing_else_was_agreed_on() {
    for alg in SigningAlg::ALL.into_iter().filter(|alg| *alg != SigningAlg::RS256) {
        let world = World::with(signing(alg, |builder| builder)).await;
        // The token is well signed, and the key could be one for RS256 if it is an RSA key.
        world.provider.tamper_jwks(|jwks| remove(&mut jwks["keys"][0], "alg"));
        let page = world.browser.go(&world.app.at("/me")).await;
        assert_eq!(page.status, StatusCode::BAD_GATEWAY, "{alg:?}");
        assert_eq!(world.browser.session_cookie(&world.app.url), None, "{alg:?}");
    }
}

#[tokio::test]
async fn each_signing_algorithm_carries_logins_refreshes_rotations_and_logouts() {
    for alg in SigningAlg::ALL {
        let world = World::with(signing(alg, move |builder| builder.signing_alg(alg))).await;
        let oracle = Oracle::watch(&world, |_, _| {});
        world.sign_in().await;
        assert_eq!(oracle.judge(&world, Of::Login, alg).await, (Judgement::Accepts, String::new()), "{alg:?}");
        world.provider.rotate_keys(OldKeys::Keep);
        world.clock.advance(G + SECOND);
        assert_eq!(world.me().await, StatusCode::OK, "{alg:?}");
        let forged = world.provider.logout_claims("shop", Some("alice"), Some(&world.sid()));
        let forged = world.provider.sign_with_foreign_key(&json!({"typ": "logout+jwt"}), &forged);
        assert_eq!(post_token(&world, &forged).await, StatusCode::BAD_REQUEST, "{alg:?}");
        world.provider.end_sessions_of("alice").await;
        world.app.assert_ended(EndReason::BackChannelLogout);
    }
}

#[tokio::test]
async fn a_new_sid_at_a_refresh_is_followed() {
    let world = World::signed_in().await;
    world.provider.tamper_id_token(|_, claims| claims["sid"] = "renewed".into());
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
    let token = world.provider.logout_token("shop", Some("alice"), Some("renewed"));
    assert_eq!(post_token(&world, &token).await, StatusCode::OK);
    world.app.assert_ended(EndReason::BackChannelLogout);
}
