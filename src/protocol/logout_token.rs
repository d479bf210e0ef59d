//! Logout tokens.
//!
//! [Back-Channel Logout 1.0, errata 1, §2.4 and §2.6](https://openid.net/specs/openid-connect-backchannel-1_0.html#Validation).
//! The signature has been checked before. Then:
//!
//! 1. `typ` is absent, `JWT` or `logout+jwt`; [`LogoutTokenTyp::Required`] takes `logout+jwt` only.
//! 2. `iss` and `iat` are right, as for ID tokens; `aud` is this client alone.
//! 3. `exp` is there and not past; [`MissingExpiry::AcceptYoungerThan`] takes the age by `iat` instead.
//! 4. There is a `sub` or a `sid`.
//! 5. `events` has the logout event, whose value is an object.
//! 6. There is no `nonce`, whatever its value: else an ID token could pass.
//! 7. There is a `jti`.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use super::jwt::{Expected, TokenError, VerifiedJwt, check_audience_alone, check_common, check_expiry, issuer, text};
use super::names::{Issuer, Sid, Subject};

pub(crate) const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// What a logout token's `typ` header has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogoutTokenTyp {
    /// Absent, `JWT` or `logout+jwt`: the specification warns that requiring it breaks most providers.
    #[default]
    Any,
    /// `logout+jwt`: what OWASP ASVS 5.0 §10.5.5 asks for. Use it where your provider sends it.
    Required,
}

/// What to do with a logout token that has no `exp`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MissingExpiry {
    /// Refuse it, as the specification says since its errata of December 2023.
    #[default]
    Refuse,
    /// Accept it for this long after its `iat`: some providers (Ory Hydra, Keycloak before 23,
    /// `LemonLDAP::NG`) send none. Two minutes are plenty.
    AcceptYoungerThan(Duration),
}

/// How strict the back-channel logout receiver is where providers differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct LogoutTokenPolicy {
    pub(crate) typ: LogoutTokenTyp,
    pub(crate) missing_expiry: MissingExpiry,
}

impl LogoutTokenPolicy {
    /// What the specification says, with every `typ` it tolerates.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the `typ` header has to be; default [`LogoutTokenTyp::Any`].
    pub fn typ(mut self, typ: LogoutTokenTyp) -> Self {
        self.typ = typ;
        self
    }

    /// What to do where `exp` is missing; default [`MissingExpiry::Refuse`].
    pub fn missing_expiry(mut self, missing_expiry: MissingExpiry) -> Self {
        self.missing_expiry = missing_expiry;
        self
    }
}

/// A validated logout token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogoutToken {
    pub(crate) issuer: Issuer,
    pub(crate) whom: Whom,
    pub(crate) issued_at: SystemTime,
    pub(crate) jti: String,
    pub(crate) reason: LogoutReason,
}

/// Why a provider logs somebody out, where it says so: Duende IdentityServer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogoutReason {
    SessionExpiration,
    Terminated,
    UserLogout,
    /// It does not, or in words that are not known here.
    Unknown,
}

impl LogoutReason {
    fn of(claims: &Map<String, Value>) -> Self {
        match claims.get("logout_reason").and_then(Value::as_str) {
            Some("session_expiration") => Self::SessionExpiration,
            Some("terminated") => Self::Terminated,
            Some("user_logout") => Self::UserLogout,
            _ => Self::Unknown,
        }
    }
}

/// Whom a logout token logs out. `sid` narrows: with both, `sub` alone must not widen the logout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    Sid { sid: Sid, subject: Option<Subject> },
    Subject(Subject),
}

impl LogoutToken {
    pub(crate) fn validate(
        jwt: VerifiedJwt,
        expected: &Expected<'_>,
        policy: LogoutTokenPolicy,
    ) -> Result<Self, TokenError> {
        check_typ(jwt.typ()?, policy.typ)?;
        let claims = jwt.into_claims();
        check_audience_alone(&claims, expected)?;
        let issued_at = check_common(&claims, expected)?;
        let issuer = issuer(&claims, expected)?;
        match (claims.contains_key("exp"), policy.missing_expiry) {
            (false, MissingExpiry::AcceptYoungerThan(age)) => {
                // However long an age is accepted, no sum overflows.
                let longest = age.saturating_add(expected.at.tolerance);
                if expected.at.now.duration_since(issued_at).is_ok_and(|passed| passed > longest) {
                    return Err(TokenError::Claim("iat", "is too long ago for a token without exp"));
                }
            }
            _ => check_expiry(&claims, expected.at)?,
        }
        let subject = text(&claims, "sub")?.map(Subject::new);
        let whom = match (text(&claims, "sid")?.map(Sid::new), subject) {
            (Some(sid), subject) => Whom::Sid { sid, subject },
            (None, Some(subject)) => Whom::Subject(subject),
            (None, None) => return Err(TokenError::Claim("sid", "and the claim sub are both missing")),
        };
        if !matches!(claims.get("events").and_then(|events| events.get(LOGOUT_EVENT)), Some(Value::Object(_))) {
            return Err(TokenError::Claim("events", "does not hold the back-channel logout event"));
        }
        if claims.contains_key("nonce") {
            return Err(TokenError::Claim("nonce", "is prohibited"));
        }
        let jti = text(&claims, "jti")?.ok_or(TokenError::Claim("jti", "is missing"))?.to_owned();
        Ok(Self { issuer, whom, issued_at, jti, reason: LogoutReason::of(&claims) })
    }
}

fn check_typ(typ: Option<&str>, rule: LogoutTokenTyp) -> Result<(), TokenError> {
    let is = |name: &str| typ.is_some_and(|typ| typ.eq_ignore_ascii_case(name));
    // RFC 7515 §4.1.9: "application/" may be left out of the media type.
    let logout = is("logout+jwt") || is("application/logout+jwt");
    match rule {
        LogoutTokenTyp::Any if typ.is_none() || is("JWT") || logout => Ok(()),
        LogoutTokenTyp::Required if logout => Ok(()),
        LogoutTokenTyp::Any => Err(TokenError::Header("typ", "is that of another kind of token")),
        LogoutTokenTyp::Required => Err(TokenError::Header("typ", "is not logout+jwt")),
    }
}

#[cfg(test)]
#[path = "logout_token_tests.rs"]
mod tests;
