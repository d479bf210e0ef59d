use serde_json::json;

use super::*;
use crate::protocol::jwt::samples::{CLIENT, ISSUER, NOW, TOLERANCE, at, encode, expected, verified, with};
use crate::protocol::names::ClientId;

const NONCE: &str = "the nonce that was sent";
const IS_MISSING: &str = "is missing";
const NO_TEXT: &str = "is not a non-empty string";
const NO_DATE: &str = "is not a NumericDate";

fn claims() -> Value {
    json!({"iss": ISSUER, "sub": "alice", "aud": CLIENT, "iat": NOW, "exp": NOW + 300, "nonce": NONCE})
}

fn registration() -> Registration {
    Registration::new(Issuer::new(ISSUER), ClientId::new(CLIENT))
}

fn header() -> Value {
    json!({"alg": "RS256", "kid": "k"})
}

fn login(claims: &Value, max_age: Option<u64>) -> Result<IdToken, TokenError> {
    let request = AuthenticationRequest { nonce: NONCE, max_age: max_age.map(Duration::from_secs) };
    IdToken::of_login(verified(&header(), claims), &expected(), request)
}

fn refresh(claims: &Value) -> Result<Refreshed, RefreshedError> {
    let registration = registration();
    let original = OriginalLogin { registration: &registration, subject: &Subject::new("alice"), nonce: NONCE };
    IdToken::of_refresh(verified(&header(), claims), expected().at, original)
}

/// What a refresh makes of it, in a word.
fn refreshed(claims: &Value) -> &'static str {
    match refresh(claims) {
        Ok(Refreshed { clock: None, .. }) => "fine",
        Ok(Refreshed { clock: Some(_), .. }) => "a clock",
        Err(RefreshedError::OtherLogin(_)) => "another login",
        Err(RefreshedError::Unusable(_)) => "unusable",
    }
}

#[test]
fn the_claims_of_a_token_are_what_it_says() {
    let more = json!({
        "iss": ISSUER, "sub": "alice", "aud": CLIENT, "iat": NOW - 5, "exp": NOW + 300, "nonce": NONCE,
        "sid": "s", "auth_time": NOW - 10, "session_expiry": NOW + 3600, "email": "alice@example.com",
    });
    for (name, outcome) in [
        ("login", login(&more, None)),
        ("refresh", refresh(&more).map(|refreshed| refreshed.id_token).map_err(|_| TokenError::Signature)),
    ] {
        let token = outcome.unwrap();
        assert_eq!(token.subject, Subject::new("alice"), "{name}");
        assert_eq!(token.sid, Some(Sid::new("s")), "{name}");
        assert_eq!(token.issued_at, at(NOW - 5), "{name}");
        assert_eq!(token.auth_time, Some(at(NOW - 10)), "{name}");
        assert_eq!(token.session_expiry, Some(at(NOW + 3600)), "{name}");
        assert_eq!(Value::Object(token.claims), more, "{name}");
    }
    for (name, outcome) in [
        ("login", login(&claims(), None)),
        ("refresh", refresh(&claims()).map(|refreshed| refreshed.id_token).map_err(|_| TokenError::Signature)),
    ] {
        let token = outcome.unwrap();
        assert_eq!((token.sid, token.auth_time, token.session_expiry), (None, None, None), "{name}");
    }
}

#[test]
fn each_claim_of_a_login_is_checked() {
    // One claim changed or taken away, and what is wrong then.
    let rows = [
        ("iss", Some(json!("https://other.example")), Some("is not the configured issuer")),
        ("iss", None, Some("is not the configured issuer")),
        ("iss", Some(json!(7)), Some(NO_TEXT)),
        ("sub", None, Some(IS_MISSING)),
        ("sub", Some(json!("")), Some(NO_TEXT)),
        ("sub", Some(json!(null)), Some(NO_TEXT)),
        ("sub", Some(json!(7)), Some(NO_TEXT)),
        ("sub", Some(json!(["alice"])), Some(NO_TEXT)),
        ("sub", Some(json!("é".repeat(255))), None),
        ("sub", Some(json!("é".repeat(256))), Some("is longer than 255 characters")),
        ("aud", Some(json!([CLIENT])), None),
        ("aud", None, Some(IS_MISSING)),
        ("aud", Some(json!("other")), Some("is not this client")),
        ("aud", Some(json!([CLIENT, "other"])), Some("has others, and azp does not name this client")),
        ("azp", Some(json!(CLIENT)), None),
        ("azp", Some(json!("other")), Some("is not this client")),
        ("nbf", Some(json!(NOW + TOLERANCE)), None),
        ("nbf", Some(json!(NOW + TOLERANCE + 1)), Some("is in the future")),
        ("iat", None, Some(IS_MISSING)),
        ("iat", Some(json!(NOW + TOLERANCE)), None),
        ("iat", Some(json!(NOW + TOLERANCE + 1)), Some("is in the future")),
        ("iat", Some(json!("now")), Some(NO_DATE)),
        ("exp", None, Some(IS_MISSING)),
        ("exp", Some(json!(null)), Some(NO_DATE)),
        ("exp", Some(json!(NOW - TOLERANCE + 1)), None),
        ("exp", Some(json!(NOW - TOLERANCE)), Some("is in the past")),
        ("sid", Some(json!("s")), None),
        ("sid", Some(json!("")), Some(NO_TEXT)),
        ("sid", Some(json!(null)), Some(NO_TEXT)),
        ("sid", Some(json!(7)), Some(NO_TEXT)),
        ("auth_time", Some(json!(0)), None),
        // As if it were absent: some providers write it where they do not know.
        ("auth_time", Some(json!(null)), None),
        ("auth_time", Some(json!("yesterday")), Some(NO_DATE)),
        ("auth_time", Some(json!(-1)), Some(NO_DATE)),
        ("session_expiry", Some(json!(NOW)), None),
        ("session_expiry", Some(json!(null)), Some(NO_DATE)),
        ("session_expiry", Some(json!("tomorrow")), Some(NO_DATE)),
        ("nonce", Some(json!("")), Some(NO_TEXT)),
        ("nonce", Some(json!(null)), Some(NO_TEXT)),
        ("nonce", Some(json!(7)), Some(NO_TEXT)),
        ("nonce", Some(json!([NONCE])), Some(NO_TEXT)),
        ("something", Some(json!({"else": [1, 2]})), None),
    ];
    for (name, value, rule) in rows {
        let claims = with(&claims(), name, value.as_ref());
        let error = rule.map(|rule| TokenError::Claim(name, rule));
        assert_eq!(login(&claims, None).err(), error, "{name}: {value:?}");
    }
    let among_others = with(&with(&claims(), "aud", Some(&json!([CLIENT, "other"]))), "azp", Some(&json!(CLIENT)));
    assert_eq!(login(&among_others, None).err(), None);
}

#[test]
fn p4_only_another_login_is_a_word_about_the_session() {
    let rows = [
        ("iss", Some(json!("https://other.example")), "another login"),
        ("iss", None, "fine"),
        ("sub", Some(json!("mallory")), "another login"),
        ("sub", Some(json!("Alice")), "another login"),
        ("sub", Some(json!("alice ")), "another login"),
        ("sub", None, "unusable"),
        ("sub", Some(json!(7)), "unusable"),
        ("nonce", None, "fine"),
        ("nonce", Some(json!("another one")), "another login"),
        ("nonce", Some(json!("The nonce that was sent")), "another login"),
        ("nonce", Some(json!(7)), "fine"),
        ("aud", Some(json!([CLIENT])), "fine"),
        ("aud", Some(json!([CLIENT, "other"])), "fine"),
        ("aud", Some(json!("other")), "another login"),
        ("aud", Some(json!([])), "another login"),
        ("aud", None, "fine"),
        ("azp", Some(json!(CLIENT)), "fine"),
        ("azp", Some(json!("other")), "another login"),
        ("nbf", Some(json!(NOW + TOLERANCE)), "fine"),
        ("nbf", Some(json!(NOW + TOLERANCE + 1)), "a clock"),
        ("iat", Some(json!(NOW + TOLERANCE + 1)), "a clock"),
        ("iat", None, "unusable"),
        ("iat", Some(json!("now")), "unusable"),
        ("exp", Some(json!(NOW - TOLERANCE)), "a clock"),
        ("exp", None, "a clock"),
        ("sid", Some(json!(7)), "unusable"),
        // The user authenticated again, here or in another application.
        ("auth_time", Some(json!(NOW - 1000)), "fine"),
        ("auth_time", Some(json!(NOW)), "fine"),
        ("auth_time", Some(json!("yesterday")), "unusable"),
        ("session_expiry", Some(json!("tomorrow")), "unusable"),
        ("events", Some(json!({LOGOUT_EVENT: {}})), "unusable"),
    ];
    for (name, value, expected) in rows {
        assert_eq!(refreshed(&with(&claims(), name, value.as_ref())), expected, "{name}: {value:?}");
    }
}

#[test]
fn a_login_has_the_nonce_that_was_sent() {
    const OTHER: &str = "is not the one that was sent";
    for (nonce, rule) in [
        (Some(NONCE), None),
        (None, Some(IS_MISSING)),
        (Some("another one"), Some(OTHER)),
        (Some("The nonce that was sent"), Some(OTHER)),
        (Some("the nonce that was sent "), Some(OTHER)),
        (Some("the nonce"), Some(OTHER)),
    ] {
        let claims = with(&claims(), "nonce", nonce.map(|nonce| json!(nonce)).as_ref());
        let error = rule.map(|rule| TokenError::Claim("nonce", rule));
        assert_eq!(login(&claims, None).err(), error, "{nonce:?}");
    }
}

#[test]
fn an_age_that_was_asked_for_is_borne_out() {
    const TOO_OLD: &str = "is longer ago than was asked for";
    let longest = u64::from(u32::MAX);
    let rows = [
        // Nothing was asked for.
        (None, None, None),
        (None, Some(json!(0)), None),
        (None, Some(json!(null)), None),
        (Some(100), None, Some(IS_MISSING)),
        (Some(100), Some(json!(null)), Some(IS_MISSING)),
        (Some(100), Some(json!(NOW)), None),
        (Some(100), Some(json!(NOW - 100)), None),
        // The tolerance is for clocks that differ.
        (Some(100), Some(json!(NOW - 100 - TOLERANCE)), None),
        (Some(100), Some(json!(1_699_999_839.5)), Some(TOO_OLD)),
        (Some(100), Some(json!(NOW - 100 - TOLERANCE - 1)), Some(TOO_OLD)),
        (Some(100), Some(json!(0)), Some(TOO_OLD)),
        // Now.
        (Some(0), Some(json!(NOW - TOLERANCE)), None),
        (Some(0), Some(json!(NOW - TOLERANCE - 1)), Some(TOO_OLD)),
        // A clock that is ahead.
        (Some(0), Some(json!(NOW + 30)), None),
        // The ends of what can be asked for and said: no sum overflows.
        (Some(longest), Some(json!(253_402_300_799_u64)), None),
        (Some(longest), Some(json!(0)), None),
    ];
    for (max_age, auth_time, rule) in rows {
        let claims = with(&claims(), "auth_time", auth_time.as_ref());
        let error = rule.map(|rule| TokenError::Claim("auth_time", rule));
        assert_eq!(login(&claims, max_age).err(), error, "{auth_time:?} for {max_age:?}");
    }
}

#[test]
fn another_kind_of_token_is_no_id_token() {
    let other = TokenError::Header("typ", "is that of another kind of token");
    let no_string = TokenError::Header("typ", "is not a string");
    let rows = [
        (None, None),
        (Some(json!("JWT")), None),
        (Some(json!("jwt")), None),
        (Some(json!("at+jwt")), Some(other.clone())),
        (Some(json!("application/at+jwt")), Some(other.clone())),
        (Some(json!("logout+jwt")), Some(other.clone())),
        (Some(json!("Logout+JWT")), Some(other.clone())),
        (Some(json!("secevent+jwt")), Some(other.clone())),
        (Some(json!("JWT ")), Some(other.clone())),
        (Some(json!("")), Some(other)),
        (Some(json!(null)), Some(no_string.clone())),
        (Some(json!(["JWT"])), Some(no_string)),
    ];
    for (typ, error) in rows {
        let header = with(&header(), "typ", typ.as_ref());
        let request = AuthenticationRequest { nonce: NONCE, max_age: None };
        let registration = registration();
        let original = OriginalLogin { registration: &registration, subject: &Subject::new("alice"), nonce: NONCE };
        let at_login = IdToken::of_login(verified(&header, &claims()), &expected(), request);
        let at_refresh = IdToken::of_refresh(verified(&header, &claims()), expected().at, original);
        assert_eq!(at_login.err(), error, "login: {typ:?}");
        assert_eq!(at_refresh.err(), error.map(RefreshedError::Unusable), "refresh: {typ:?}");
    }
}

#[test]
fn a_logout_token_is_no_id_token() {
    let logout = Some(TokenError::Claim("events", "makes it a logout token"));
    let rows = [
        (json!({"http://schemas.openid.net/event/backchannel-logout": {}}), logout.clone()),
        // Whatever stands there.
        (json!({"http://schemas.openid.net/event/backchannel-logout": null}), logout.clone()),
        (json!({"https://example.com/event": {}, LOGOUT_EVENT: {}}), logout),
        // A claim of the provider's own that happens to have this name.
        (json!({"https://example.com/event": {}}), None),
        (json!({}), None),
        (json!(null), None),
        (json!([LOGOUT_EVENT]), None),
        (json!(LOGOUT_EVENT), None),
    ];
    for (events, error) in rows {
        let claims = with(&claims(), "events", Some(&events));
        assert_eq!(login(&claims, None).err(), error, "{events}");
    }
}

#[test]
fn an_access_token_belongs_to_the_id_token_that_has_its_hash() {
    const TOKEN: &str = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y";
    // The example of Core, appendix A.3: SHA-256, the left half.
    const HASH: &str = "77QmUPtjPfzWtF2AnpK9RQ";
    let half = |algorithm, token: &str| {
        let digest = aws_lc_rs::digest::digest(algorithm, token.as_bytes());
        encode(&digest.as_ref()[..digest.as_ref().len() / 2])
    };
    let sha384 = half(&aws_lc_rs::digest::SHA384, TOKEN);
    let sha512 = half(&aws_lc_rs::digest::SHA512, TOKEN);
    let other = half(&aws_lc_rs::digest::SHA256, "another token");
    let whole = encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, TOKEN.as_bytes()).as_ref());
    let padded = format!("{HASH}==");
    let cut = &HASH[..HASH.len() - 2];
    let right_for = |alg| match alg {
        SigningAlg::ES256 | SigningAlg::PS256 | SigningAlg::RS256 => HASH,
        SigningAlg::ES384 | SigningAlg::PS384 | SigningAlg::RS384 => &sha384,
        SigningAlg::EdDSA | SigningAlg::PS512 | SigningAlg::RS512 => &sha512,
    };
    for alg in SigningAlg::ALL {
        for hash in [HASH, &sha384, &sha512, &other, &whole, &padded, cut, "x"] {
            let token = login(&with(&claims(), "at_hash", Some(&json!(hash))), None).unwrap();
            // With Ed25519 providers do not agree on the digest, so none is wrong.
            let is_right = alg == SigningAlg::EdDSA || hash == right_for(alg);
            let error = (!is_right).then_some(TokenError::Claim("at_hash", "does not belong to the access token"));
            assert_eq!(token.check_access_token(&AccessToken::new(TOKEN), alg).err(), error, "{alg:?}: {hash}");
        }
        for (value, rule) in [(None, None), (Some(json!("")), Some(NO_TEXT)), (Some(json!(null)), Some(NO_TEXT))] {
            let token = login(&with(&claims(), "at_hash", value.as_ref()), None).unwrap();
            let rule = if alg == SigningAlg::EdDSA { None } else { rule };
            let error = rule.map(|rule| TokenError::Claim("at_hash", rule));
            assert_eq!(token.check_access_token(&AccessToken::new(TOKEN), alg).err(), error, "{alg:?}: {value:?}");
        }
    }
}
