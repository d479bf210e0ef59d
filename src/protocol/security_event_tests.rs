use std::time::Duration;

use serde_json::json;

use super::*;
use crate::protocol::issuers::IssuerTenants;
use crate::protocol::jwt::samples::{CLIENT, ISSUER, NOW, TOLERANCE, at, verified, with};

const TRANSMITTER: &str = "https://events.example";

fn claims(event: &Value) -> Value {
    json!({
        "iss": TRANSMITTER, "aud": CLIENT, "iat": NOW, "jti": "j",
        "sub_id": {"format": "opaque", "id": "s"},
        "events": {SESSION_REVOKED: event},
    })
}

fn validate_as(typ: Option<&str>, claims: &Value) -> Result<SecurityEventToken, TokenError> {
    let (transmitter, issuers) = (Issuer::new(TRANSMITTER), Issuers::one(Issuer::new(ISSUER)));
    let moment = Moment { now: at(NOW), tolerance: Duration::from_secs(TOLERANCE) };
    let expected = ExpectedEvent { transmitter: &transmitter, audience: CLIENT, issuers: &issuers, at: moment };
    let typ = typ.map(|typ| json!(typ));
    SecurityEventToken::validate(verified(&with(&json!({"alg": "RS256"}), "typ", typ.as_ref()), claims), &expected)
}

fn validate(claims: &Value) -> Result<SecurityEventToken, TokenError> {
    validate_as(Some("secevent+jwt"), claims)
}

#[test]
fn the_typ_is_that_of_events_and_of_nothing_else() {
    let claims = claims(&json!({}));
    for (typ, is_right) in [
        (Some("secevent+jwt"), true),
        (Some("application/SecEvent+JWT"), true),
        (Some("logout+jwt"), false),
        (Some("JWT"), false),
        (None, false),
    ] {
        assert_eq!(validate_as(typ, &claims).is_ok(), is_right, "{typ:?}");
    }
}

#[test]
fn each_claim_is_checked() {
    let good = claims(&json!({}));
    let late = NOW + TOLERANCE + 1;
    for (name, value, right) in [
        ("iss", Some(json!(ISSUER)), false),
        ("iss", None, false),
        ("aud", Some(json!([CLIENT, "other"])), true),
        ("aud", Some(json!("other")), false),
        ("aud", None, false),
        ("iat", Some(json!(late)), false),
        ("iat", None, false),
        ("nbf", Some(json!(late)), false),
        ("exp", Some(json!(NOW - TOLERANCE)), false),
        ("exp", Some(json!(NOW)), true),
        ("jti", None, false),
        ("events", None, false),
        ("events", Some(json!({})), false),
        ("events", Some(json!({SESSION_REVOKED: 1})), false),
        ("events", Some(json!({SESSION_REVOKED: {"event_timestamp": late}})), false),
        ("events", Some(json!({SESSION_REVOKED: {"event_timestamp": late - 1}})), true),
        ("events", Some(json!({SESSION_REVOKED: {"event_timestamp": NOW * 1000}})), false),
        ("events", Some(json!({SESSION_REVOKED: {"event_timestamp": 0}})), true),
    ] {
        let claims = with(&good, name, value.as_ref());
        assert_eq!(validate(&claims).is_ok(), right, "{name}: {value:?}");
    }
}

#[test]
fn an_event_says_when_and_by_whom() {
    for (event, when, by) in [
        (json!({}), NOW, Initiator::Other),
        (json!({"event_timestamp": NOW - 60, "initiating_entity": "admin"}), NOW - 60, Initiator::Admin),
        (json!({"initiating_entity": "user"}), NOW, Initiator::User),
        (json!({"initiating_entity": "policy"}), NOW, Initiator::Other),
        (json!({"initiating_entity": 7}), NOW, Initiator::Other),
    ] {
        let whom = Whom::Sid { sid: Sid::new("s"), subject: None };
        let expected = Revocation { issuer: None, whom, at: at(when), by, reason_user: BTreeMap::new() };
        let events = validate(&claims(&event)).unwrap().events;
        assert_eq!(events, [SecurityEvent::SessionRevoked(expected)], "{event}");
    }
}

#[test]
fn words_for_the_user_are_taken_as_far_as_they_are_such() {
    let long = "x".repeat(LONGEST_TEXT + 1);
    let many: Map<String, Value> = (0..100).map(|number| (format!("l{number}"), json!("x"))).collect();
    for (written, expected) in [
        (json!(null), 0),
        (json!("in one language"), 0),
        (json!({}), 0),
        (json!({"en": "a", "de": "b"}), 2),
        (json!({"en": "a", "de": 1, "fr": null, "nl": ["c"]}), 1),
        (json!({"en": &long[1..], "de": long}), 1),
        (json!({"x".repeat(36): "a"}), 0),
        (Value::Object(many), MOST_TEXTS),
    ] {
        let events = validate(&claims(&json!({"reason_user": written}))).unwrap().events;
        let [SecurityEvent::SessionRevoked(Revocation { reason_user, .. })] = &*events else { panic!("{events:?}") };
        assert_eq!(reason_user.len(), expected, "{written}");
    }
}

#[test]
fn subjects_are_told_or_nobody_is_meant() {
    let user = json!({"format": "iss_sub", "iss": ISSUER, "sub": "alice"});
    let of_another = json!({"format": "iss_sub", "iss": "https://other.example", "sub": "alice"});
    let session = json!({"format": "opaque", "id": "s"});
    let alice = || Subject::new("alice");
    let sid = |subject| Some(Whom::Sid { sid: Sid::new("s"), subject });
    for (subject, expected) in [
        (user.clone(), Some(Whom::Subject(alice()))),
        (session.clone(), sid(None)),
        (json!({"format": "complex", "user": user, "session": session}), sid(Some(alice()))),
        (json!({"user": user, "session": session}), sid(Some(alice()))),
        (json!({"format": "complex", "session": session}), sid(None)),
        (json!({"format": "complex", "user": user}), Some(Whom::Subject(alice()))),
        (of_another.clone(), None),
        (json!({"format": "complex", "user": of_another, "session": session}), None),
        // Of one device alone: all of them would be too many.
        (json!({"format": "complex", "user": user, "device": {"format": "opaque", "id": "d"}}), None),
        (json!({"format": "complex", "user": 7, "session": session}), None),
        (json!({"format": "complex"}), None),
        (json!({"format": "email", "email": "alice@shop.example"}), None),
        (json!({"format": "iss_sub", "iss": ISSUER}), None),
        (json!({"format": "opaque", "id": ""}), None),
        (json!("alice"), None),
    ] {
        let claims = with(&claims(&json!({})), "sub_id", Some(&subject));
        let events = validate(&claims).unwrap().events;
        match (&events[..], &expected) {
            ([SecurityEvent::SessionRevoked(revocation)], Some(whom)) => {
                assert_eq!(revocation.whom, *whom, "{subject}");
            }
            ([SecurityEvent::Other(kind)], None) => assert_eq!(kind, SESSION_REVOKED, "{subject}"),
            _ => panic!("{subject}: {events:?}"),
        }
    }
    // Whose session that is of several issuers, nobody says.
    let template = "https://op.example/{tenantid}".to_owned();
    let issuers = Issuers::tenants(Issuer::new(ISSUER), template, IssuerTenants::any());
    let tenants = json!({"format": "iss_sub", "iss": "https://op.example/acme", "sub": "alice"});
    for (subject, is_known) in [
        (&session, false),
        (&json!({"format": "complex", "session": session}), false),
        (&json!({"format": "complex", "user": tenants, "session": session}), true),
        (&tenants, true),
    ] {
        assert_eq!(whom(subject.as_object().unwrap(), &issuers).is_some(), is_known, "{subject}");
    }
    // As drafts had it.
    let claims = with(&claims(&json!({"subject": user})), "sub_id", None);
    assert!(matches!(&validate(&claims).unwrap().events[..], [SecurityEvent::SessionRevoked(_)]));
}

#[test]
fn other_events_are_told_and_followed_by_nothing() {
    let events = json!({VERIFICATION: {"state": "x"}, "https://example.org/other": {}});
    let claims = with(&claims(&json!({})), "events", Some(&events));
    let events = validate(&claims).unwrap().events;
    assert!(events.contains(&SecurityEvent::Verification), "{events:?}");
    assert!(events.contains(&SecurityEvent::Other("https://example.org/other".to_owned())), "{events:?}");
}
