use serde_json::json;

use super::*;
use crate::protocol::jwt::samples::{CLIENT, ISSUER, NOW, TOLERANCE, at, expected, verified, with};

const IS_MISSING: &str = "is missing";
const NO_TEXT: &str = "is not a non-empty string";
const NO_DATE: &str = "is not a NumericDate";
/// The longest age of a token without `exp` in these tests, in seconds.
const AGE: u64 = 120;

fn claims() -> Value {
    json!({
        "iss": ISSUER, "sub": "alice", "aud": CLIENT, "iat": NOW, "exp": NOW + 120, "jti": "j", "sid": "s",
        "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
    })
}

fn header(typ: Option<&Value>) -> Value {
    with(&json!({"alg": "RS256"}), "typ", typ)
}

fn lenient() -> LogoutTokenPolicy {
    LogoutTokenPolicy::new().missing_expiry(MissingExpiry::AcceptYoungerThan(Duration::from_secs(AGE)))
}

fn validate(claims: &Value, policy: LogoutTokenPolicy) -> Result<LogoutToken, TokenError> {
    LogoutToken::validate(verified(&header(None), claims), &expected(), policy)
}

/// Rows that come out alike whatever the policy: one claim changed or taken away, and what is wrong then.
#[track_caller]
fn check<const N: usize>(claims: &Value, name: &'static str, rows: [(Option<Value>, Option<&'static str>); N]) {
    for (value, rule) in rows {
        let claims = with(claims, name, value.as_ref());
        let error = rule.map(|rule| TokenError::Claim(name, rule));
        for policy in [LogoutTokenPolicy::new(), lenient()] {
            assert_eq!(validate(&claims, policy).err(), error, "{name}: {value:?} with {policy:?}");
        }
    }
}

#[test]
fn a_logout_token_says_whom_and_when() {
    let expected = LogoutToken {
        issuer: Issuer::new(ISSUER),
        whom: Whom::Sid { sid: Sid::new("s"), subject: Some(Subject::new("alice")) },
        issued_at: at(NOW - 7),
        jti: "j".to_owned(),
        reason: LogoutReason::Unknown,
    };
    let claims = with(&claims(), "iat", Some(&json!(NOW - 7)));
    assert_eq!(validate(&claims, LogoutTokenPolicy::new()), Ok(expected));
    for (written, expected) in [
        (json!("session_expiration"), LogoutReason::SessionExpiration),
        (json!("terminated"), LogoutReason::Terminated),
        (json!("user_logout"), LogoutReason::UserLogout),
        (json!("something_new"), LogoutReason::Unknown),
        (json!(7), LogoutReason::Unknown),
    ] {
        let token = validate(&with(&claims, "logout_reason", Some(&written)), LogoutTokenPolicy::new());
        assert_eq!(token.map(|token| token.reason), Ok(expected), "{written}");
    }
}

#[test]
fn rule_1_the_typ_is_one_of_a_logout_token() {
    let other = || Some(TokenError::Header("typ", "is that of another kind of token"));
    let not_logout = || Some(TokenError::Header("typ", "is not logout+jwt"));
    let no_string = || Some(TokenError::Header("typ", "is not a string"));
    // What is wrong with any `typ`, and where `logout+jwt` is required.
    let rows = [
        (Some(json!("logout+jwt")), None, None),
        (Some(json!("Logout+JWT")), None, None),
        (Some(json!("application/logout+jwt")), None, None),
        (Some(json!("APPLICATION/logout+jwt")), None, None),
        (None, None, not_logout()),
        (Some(json!("JWT")), None, not_logout()),
        (Some(json!("jwt")), None, not_logout()),
        (Some(json!("at+jwt")), other(), not_logout()),
        (Some(json!("secevent+jwt")), other(), not_logout()),
        (Some(json!("logout+jwt ")), other(), not_logout()),
        (Some(json!("text/logout+jwt")), other(), not_logout()),
        (Some(json!("application/application/logout+jwt")), other(), not_logout()),
        (Some(json!("logout")), other(), not_logout()),
        (Some(json!("")), other(), not_logout()),
        (Some(json!(null)), no_string(), no_string()),
        (Some(json!(["logout+jwt"])), no_string(), no_string()),
    ];
    for (typ, any, required) in rows {
        for (rule, error) in [(LogoutTokenTyp::Any, any), (LogoutTokenTyp::Required, required)] {
            let jwt = verified(&header(typ.as_ref()), &claims());
            let outcome = LogoutToken::validate(jwt, &expected(), LogoutTokenPolicy::new().typ(rule));
            assert_eq!(outcome.err(), error, "{rule:?}: {typ:?}");
        }
    }
    assert_eq!(LogoutTokenPolicy::new().typ, LogoutTokenTyp::Any, "what holds where nothing is said");
}

#[test]
fn rule_2_issuer_audience_and_issue_are_those_of_id_tokens() {
    check(
        &claims(),
        "iss",
        [
            (Some(json!(ISSUER)), None),
            (Some(json!("https://other.example")), Some("is not the configured issuer")),
            (None, Some("is not the configured issuer")),
            (Some(json!(null)), Some(NO_TEXT)),
        ],
    );
    check(
        &claims(),
        "aud",
        [
            (Some(json!([CLIENT])), None),
            (Some(json!("other")), Some("is not this client")),
            (Some(json!([CLIENT, "other"])), Some("is not this client alone")),
            (Some(json!([])), Some("is not this client")),
            (None, Some(IS_MISSING)),
        ],
    );
    check(&claims(), "azp", [(Some(json!(CLIENT)), None), (Some(json!("other")), Some("is not this client"))]);
    check(
        &claims(),
        "nbf",
        [(Some(json!(NOW + TOLERANCE)), None), (Some(json!(NOW + TOLERANCE + 1)), Some("is in the future"))],
    );
    check(
        &claims(),
        "iat",
        [
            // Age alone is no reason where there is an expiry.
            (Some(json!(0)), None),
            (Some(json!(NOW + TOLERANCE)), None),
            (Some(json!(NOW + TOLERANCE + 1)), Some("is in the future")),
            (None, Some(IS_MISSING)),
            (Some(json!("now")), Some(NO_DATE)),
            (Some(json!(null)), Some(NO_DATE)),
        ],
    );
}

#[test]
fn rule_3_an_expiry_that_is_there_counts_whatever_the_policy() {
    check(
        &claims(),
        "exp",
        [
            (Some(json!(NOW - TOLERANCE + 1)), None),
            (Some(json!(NOW - TOLERANCE)), Some("is in the past")),
            (Some(json!(0)), Some("is in the past")),
            // There, though no date: not the same as missing.
            (Some(json!(null)), Some(NO_DATE)),
            (Some(json!("")), Some(NO_DATE)),
            (Some(json!(-1)), Some(NO_DATE)),
        ],
    );
}

#[test]
fn rule_3_without_an_expiry_the_age_counts_where_the_policy_says_so() {
    const TOO_OLD: TokenError = TokenError::Claim("iat", "is too long ago for a token without exp");
    let oldest = NOW - AGE - TOLERANCE;
    let rows = [
        (json!(NOW + TOLERANCE), None),
        (json!(NOW), None),
        (json!(NOW - AGE), None),
        (json!(oldest), None),
        (json!(1_699_999_819.5), Some(TOO_OLD)),
        (json!(oldest - 1), Some(TOO_OLD)),
        (json!(0), Some(TOO_OLD)),
    ];
    for (issued_at, error) in rows {
        let claims = with(&with(&claims(), "exp", None), "iat", Some(&issued_at));
        assert_eq!(validate(&claims, lenient()).err(), error, "{issued_at}, where the age counts");
        let error = Some(TokenError::Claim("exp", IS_MISSING));
        assert_eq!(validate(&claims, LogoutTokenPolicy::new()).err(), error, "{issued_at}, where exp is required");
    }
    assert_eq!(LogoutTokenPolicy::new().missing_expiry, MissingExpiry::Refuse, "what holds where nothing is said");
    // However old.
    let any_age = LogoutTokenPolicy::new().missing_expiry(MissingExpiry::AcceptYoungerThan(Duration::MAX));
    let claims = with(&with(&claims(), "exp", None), "iat", Some(&json!(0)));
    assert!(validate(&claims, any_age).is_ok());
}

#[test]
fn rule_4_sub_or_sid_says_whom() {
    let sid = || Sid::new("s");
    let alice = || Subject::new("alice");
    let nobody = TokenError::Claim("sid", "and the claim sub are both missing");
    let rows = [
        // With both, `sub` must not widen what `sid` names.
        (Some(json!("s")), Some(json!("alice")), Ok(Whom::Sid { sid: sid(), subject: Some(alice()) })),
        (Some(json!("s")), None, Ok(Whom::Sid { sid: sid(), subject: None })),
        (None, Some(json!("alice")), Ok(Whom::Subject(alice()))),
        (None, None, Err(nobody)),
        // A claim that is there and says nothing does not become one that is absent: that would widen the logout.
        (Some(json!("")), Some(json!("alice")), Err(TokenError::Claim("sid", NO_TEXT))),
        (Some(json!(null)), Some(json!("alice")), Err(TokenError::Claim("sid", NO_TEXT))),
        (Some(json!(7)), Some(json!("alice")), Err(TokenError::Claim("sid", NO_TEXT))),
        (Some(json!(["s"])), Some(json!("alice")), Err(TokenError::Claim("sid", NO_TEXT))),
        (Some(json!("s")), Some(json!("")), Err(TokenError::Claim("sub", NO_TEXT))),
        (Some(json!("s")), Some(json!(null)), Err(TokenError::Claim("sub", NO_TEXT))),
        (Some(json!("s")), Some(json!(7)), Err(TokenError::Claim("sub", NO_TEXT))),
        (None, Some(json!(null)), Err(TokenError::Claim("sub", NO_TEXT))),
    ];
    for (sid, subject, expected) in rows {
        let claims = with(&with(&claims(), "sid", sid.as_ref()), "sub", subject.as_ref());
        let whom = validate(&claims, LogoutTokenPolicy::new()).map(|token| token.whom);
        assert_eq!(whom, expected, "sid {sid:?}, sub {subject:?}");
    }
}

#[test]
fn rule_5_events_has_the_logout_event() {
    const NO_EVENT: &str = "does not hold the back-channel logout event";
    check(
        &claims(),
        "events",
        [
            (Some(json!({LOGOUT_EVENT: {}})), None),
            // What else it says is not ours to refuse.
            (Some(json!({LOGOUT_EVENT: {"reason": "admin"}})), None),
            (Some(json!({LOGOUT_EVENT: {}, "https://example.com/event": {}})), None),
            (None, Some(NO_EVENT)),
            (Some(json!(null)), Some(NO_EVENT)),
            (Some(json!({})), Some(NO_EVENT)),
            (Some(json!({"https://example.com/event": {}})), Some(NO_EVENT)),
            (Some(json!({"http://schemas.openid.net/event/backchannel-logout/": {}})), Some(NO_EVENT)),
            (Some(json!({"https://schemas.openid.net/event/backchannel-logout": {}})), Some(NO_EVENT)),
            (Some(json!({"http://schemas.openid.net/event/Backchannel-Logout": {}})), Some(NO_EVENT)),
            (Some(json!(LOGOUT_EVENT)), Some(NO_EVENT)),
            (Some(json!([LOGOUT_EVENT])), Some(NO_EVENT)),
            (Some(json!([{LOGOUT_EVENT: {}}])), Some(NO_EVENT)),
            // The value has to be an object.
            (Some(json!({LOGOUT_EVENT: null})), Some(NO_EVENT)),
            (Some(json!({LOGOUT_EVENT: true})), Some(NO_EVENT)),
            (Some(json!({LOGOUT_EVENT: ""})), Some(NO_EVENT)),
            (Some(json!({LOGOUT_EVENT: []})), Some(NO_EVENT)),
            (Some(json!({LOGOUT_EVENT: [{}]})), Some(NO_EVENT)),
        ],
    );
}

#[test]
fn rule_6_there_is_no_nonce_whatever_its_value() {
    const PROHIBITED: &str = "is prohibited";
    check(
        &claims(),
        "nonce",
        [
            (None, None),
            (Some(json!("n")), Some(PROHIBITED)),
            (Some(json!("")), Some(PROHIBITED)),
            (Some(json!(null)), Some(PROHIBITED)),
            (Some(json!(false)), Some(PROHIBITED)),
            (Some(json!(0)), Some(PROHIBITED)),
            (Some(json!({})), Some(PROHIBITED)),
        ],
    );
}

#[test]
fn rule_7_there_is_a_jti() {
    check(
        &claims(),
        "jti",
        [
            (Some(json!("another")), None),
            (None, Some(IS_MISSING)),
            (Some(json!("")), Some(NO_TEXT)),
            (Some(json!(null)), Some(NO_TEXT)),
            (Some(json!(7)), Some(NO_TEXT)),
        ],
    );
}

#[test]
fn an_id_token_is_no_logout_token() {
    let id_token = json!({
        "iss": ISSUER, "sub": "alice", "aud": CLIENT, "iat": NOW, "exp": NOW + 300, "nonce": "n", "sid": "s", "jti": "j",
    });
    for policy in [LogoutTokenPolicy::new(), lenient()] {
        let error = TokenError::Claim("events", "does not hold the back-channel logout event");
        assert_eq!(validate(&id_token, policy), Err(error), "{policy:?}");
        // Not even if the provider let somebody put the event into it.
        let with_event = with(&id_token, "events", Some(&json!({LOGOUT_EVENT: {}})));
        assert_eq!(validate(&with_event, policy), Err(TokenError::Claim("nonce", "is prohibited")), "{policy:?}");
    }
}
