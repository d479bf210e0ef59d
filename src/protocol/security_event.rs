//! Security event tokens ([RFC 8417](https://www.rfc-editor.org/rfc/rfc8417)), as far as they end sessions
//! ([CAEP 1.0 §3.1](https://openid.net/specs/openid-caep-1_0-final.html)). The signature has been checked before. Then:
//!
//! 1. `typ` is `secevent+jwt`: a logout token is none, whoever signed it.
//! 2. `iss` is the transmitter, the receiver is among `aud`, `iat` and `nbf` are not in the future, `exp` is not past if it is there.
//! 3. There is a `jti`, and an event at least.
//!
//! Whom `session-revoked` names:
//!
//! | subject | whom |
//! |---|---|
//! | `iss_sub` | the user's sessions |
//! | `opaque` | the session with that `sid`; nobody where there are several issuers (tenants) |
//! | complex, with `session` | the session with that `sid`, if it is that user's where it has `user` |
//! | complex, with `user` alone | the user's sessions |
//! | anything else, another issuer's user, complex with more to it | nobody: who is meant is not known here |

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::{Map, Value};

use super::issuers::Issuers;
use super::jwt::{Moment, TokenError, VerifiedJwt, check_expiry, check_not_before, date, text};
use super::logout_token::Whom;
use super::names::{Issuer, Sid, Subject};

const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
/// Nobody writes a reason in more languages for a user.
const MOST_TEXTS: usize = 64;
/// Some sentences.
const LONGEST_TEXT: usize = 2048;
const VERIFICATION: &str = "https://schemas.openid.net/secevent/ssf/event-type/verification";

/// What a token is compared with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExpectedEvent<'a> {
    pub(crate) transmitter: &'a Issuer,
    pub(crate) audience: &'a str,
    /// Whose users have sessions here.
    pub(crate) issuers: &'a Issuers,
    pub(crate) at: Moment,
}

/// A validated token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SecurityEventToken {
    pub(crate) jti: String,
    pub(crate) events: Vec<SecurityEvent>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecurityEvent {
    /// Of a kind, or about somebody, that nothing here goes by.
    Other(String),
    SessionRevoked(Revocation),
    /// The transmitter tries out whether it is heard.
    Verification,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Revocation {
    /// The user's issuer; `None` stands for the configured one.
    pub(crate) issuer: Option<Issuer>,
    pub(crate) whom: Whom,
    /// When it happened, by the transmitter's clock.
    pub(crate) at: SystemTime,
    pub(crate) by: Initiator,
    /// Why, for the user, by language (`reason_user`).
    pub(crate) reason_user: BTreeMap<String, String>,
}

/// Who revoked the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Initiator {
    Admin,
    /// A policy, the system, or it is not said.
    Other,
    User,
}

impl SecurityEventToken {
    pub(crate) fn validate(jwt: VerifiedJwt, expected: &ExpectedEvent<'_>) -> Result<Self, TokenError> {
        let typ = jwt.typ()?.unwrap_or_default();
        // RFC 7515 §4.1.9: "application/" may be left out of the media type.
        if !["secevent+jwt", "application/secevent+jwt"].iter().any(|name| typ.eq_ignore_ascii_case(name)) {
            return Err(TokenError::Header("typ", "is not secevent+jwt"));
        }
        let claims = jwt.into_claims();
        if text(&claims, "iss")? != Some(expected.transmitter.as_str()) {
            return Err(TokenError::Claim("iss", "is not the transmitter"));
        }
        let is_receiver = |audience: &Value| audience.as_str() == Some(expected.audience);
        let is_meant = match claims.get("aud") {
            Some(Value::Array(list)) => list.iter().any(is_receiver),
            Some(audience) => is_receiver(audience),
            None => false,
        };
        if !is_meant {
            return Err(TokenError::Claim("aud", "is not this receiver"));
        }
        let issued_at = check_not_before(&claims, expected.at)?;
        if claims.contains_key("exp") {
            check_expiry(&claims, expected.at)?;
        }
        let jti = text(&claims, "jti")?.ok_or(TokenError::Claim("jti", "is missing"))?.to_owned();
        let events = claims.get("events").and_then(Value::as_object).filter(|events| !events.is_empty());
        let events = events.ok_or(TokenError::Claim("events", "is missing"))?;
        let read = |(kind, event): (&String, &Value)| read_event(kind, event, &claims, issued_at, expected);
        Ok(Self { jti, events: events.iter().map(read).collect::<Result<_, _>>()? })
    }
}

fn read_event(
    kind: &str,
    event: &Value,
    claims: &Map<String, Value>,
    issued_at: SystemTime,
    expected: &ExpectedEvent<'_>,
) -> Result<SecurityEvent, TokenError> {
    let Some(event) = event.as_object() else { return Err(TokenError::Claim("events", "holds no object")) };
    match kind {
        VERIFICATION => Ok(SecurityEvent::Verification),
        SESSION_REVOKED => {
            let at = date(event, "event_timestamp")?.unwrap_or(issued_at);
            if at > expected.at.now + expected.at.tolerance {
                return Err(TokenError::Claim("event_timestamp", "is in the future"));
            }
            let by = match event.get("initiating_entity").and_then(Value::as_str) {
                Some("admin") => Initiator::Admin,
                Some("user") => Initiator::User,
                _ => Initiator::Other,
            };
            // Before CAEP was final the subject stood in the event.
            let subject = claims.get("sub_id").or(event.get("subject")).and_then(Value::as_object);
            let reason_user = texts(event.get("reason_user"));
            let named = subject.and_then(|subject| whom(subject, expected.issuers));
            Ok(named.map_or_else(
                || SecurityEvent::Other(kind.to_owned()),
                |(issuer, whom)| SecurityEvent::SessionRevoked(Revocation { issuer, whom, at, by, reason_user }),
            ))
        }
        kind => Ok(SecurityEvent::Other(kind.to_owned())),
    }
}

/// Texts by language ([CAEP 1.0 §2](https://openid.net/specs/openid-caep-1_0-final.html#section-2)), as far as they are such: what a
/// session ended for must not depend on how well that is written.
fn texts(value: Option<&Value>) -> BTreeMap<String, String> {
    let all = value.and_then(Value::as_object).into_iter().flatten();
    let texts = all.filter_map(|(language, text)| Some((language, text.as_str()?)));
    let is_short = |(language, text): &(&String, &str)| language.len() <= 35 && text.len() <= LONGEST_TEXT;
    texts.filter(is_short).take(MOST_TEXTS).map(|(language, text)| (language.clone(), text.to_owned())).collect()
}

/// Whom a subject names, if that can be told.
fn whom(subject: &Map<String, Value>, issuers: &Issuers) -> Option<(Option<Issuer>, Whom)> {
    let format = subject.get("format").and_then(Value::as_str);
    match format {
        Some("iss_sub") => user(subject, issuers).map(|(issuer, subject)| (Some(issuer), Whom::Subject(subject))),
        // Whose it is of several issuers, nobody says.
        Some("opaque") if issuers.are_many() => None,
        Some("opaque") => Some((None, Whom::Sid { sid: session(subject)?, subject: None })),
        // Earlier drafts named no format where there were several subjects.
        Some("complex") | None => {
            // Who is narrowed down by what is not known here is nobody that is known.
            if subject.keys().any(|name| !["format", "session", "user"].contains(&name.as_str())) {
                return None;
            }
            let part = |name: &str| subject.get(name).map(Value::as_object);
            let user = match part("user") {
                Some(named) => Some(user(named?, issuers)?),
                None => None,
            };
            match (part("session"), user) {
                (Some(_), None) if issuers.are_many() => None,
                (Some(named), user) => {
                    let sid = session(named?)?;
                    let (issuer, subject) = user.unzip();
                    Some((issuer, Whom::Sid { sid, subject }))
                }
                (None, Some((issuer, subject))) => Some((Some(issuer), Whom::Subject(subject))),
                (None, None) => None,
            }
        }
        Some(_) => None,
    }
}

fn user(named: &Map<String, Value>, issuers: &Issuers) -> Option<(Issuer, Subject)> {
    let text = |name: &str| named.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let is_iss_sub = named.get("format").is_none_or(|format| format == "iss_sub");
    let issuer = text("iss").filter(|issuer| is_iss_sub && issuers.have(issuer))?;
    Some((Issuer::new(issuer), Subject::new(text("sub")?)))
}

fn session(named: &Map<String, Value>) -> Option<Sid> {
    let is_opaque = named.get("format").is_none_or(|format| format == "opaque");
    let id = named.get("id").and_then(Value::as_str).filter(|id| is_opaque && !id.is_empty())?;
    Some(Sid::new(id))
}

#[cfg(test)]
#[path = "security_event_tests.rs"]
mod tests;
