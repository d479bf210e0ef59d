//! ID tokens.
//!
//! [Core §3.1.3.7](https://openid.net/specs/openid-connect-core-1_0.html#IDTokenValidation) at login,
//! [Core §12.2](https://openid.net/specs/openid-connect-core-1_0.html#RefreshTokenResponse) at a refresh.
//! The signature has been checked before; these are the claims, in the order of the specification.

use std::time::{Duration, SystemTime};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::jwt::{
    Expected, Moment, SigningAlg, TokenError, VerifiedJwt, check_common, check_expiry, check_not_before, date, issuer,
    text,
};
use super::logout_token::LOGOUT_EVENT;
use super::names::{AccessToken, Issuer, Registration, Sid, Subject};

/// The claims of a validated ID token.
#[derive(Clone, Debug)]
pub(crate) struct IdToken {
    pub(crate) issuer: Issuer,
    pub(crate) subject: Subject,
    pub(crate) sid: Option<Sid>,
    pub(crate) issued_at: SystemTime,
    pub(crate) auth_time: Option<SystemTime>,
    /// IPSIE `session_expiry`: when the session has to end, whatever happens.
    pub(crate) session_expiry: Option<SystemTime>,
    pub(crate) claims: Map<String, Value>,
}

/// What a login asked for and the answer has to bear out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AuthenticationRequest<'a> {
    pub(crate) nonce: &'a str,
    pub(crate) max_age: Option<Duration>,
}

/// What a session knows of the login that a refreshed ID token has to repeat.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OriginalLogin<'a> {
    pub(crate) registration: &'a Registration,
    pub(crate) subject: &'a Subject,
    pub(crate) nonce: &'a str,
}

/// The ID token of a refresh.
#[derive(Clone, Debug)]
pub(crate) struct Refreshed {
    pub(crate) id_token: IdToken,
    /// What is wrong with its times, if anything is: somebody's clock.
    pub(crate) clock: Option<TokenError>,
}

/// Why the ID token of a refresh cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RefreshedError {
    /// It speaks of another provider, client, user or login.
    OtherLogin(TokenError),
    /// It cannot be read as an ID token.
    Unusable(TokenError),
}

impl From<TokenError> for RefreshedError {
    fn from(error: TokenError) -> Self {
        Self::Unusable(error)
    }
}

/// RFC 8725 §3.12: no other kind of token may pass for an ID token.
fn check_typ(jwt: &VerifiedJwt) -> Result<(), TokenError> {
    match jwt.typ()? {
        Some(typ) if !typ.eq_ignore_ascii_case("JWT") => {
            Err(TokenError::Header("typ", "is that of another kind of token"))
        }
        _ => Ok(()),
    }
}

/// Core §12.2: the same issuer, subject, client and nonce. More or fewer further audiences say nothing, nor does a claim
/// that cannot be read: that is no word of somebody else.
fn check_same_login(claims: &Map<String, Value>, original: OriginalLogin<'_>) -> Result<(), TokenError> {
    let differs = |name: &str, value: &str| matches!(claims.get(name), Some(Value::String(text)) if text != value);
    let client_id = original.registration.client_id().as_str();
    for (name, value) in [("iss", original.registration.issuer().as_str()), ("sub", original.subject.as_str())] {
        if differs(name, value) {
            return Err(TokenError::Claim(name, "is not that of the login"));
        }
    }
    if differs("nonce", original.nonce) {
        return Err(TokenError::Claim("nonce", "is not that of the login"));
    }
    let names_client = match claims.get("aud") {
        Some(Value::String(audience)) => audience == client_id,
        Some(Value::Array(list)) => list.iter().any(|audience| audience.as_str() == Some(client_id)),
        _ => true,
    };
    if !names_client {
        return Err(TokenError::Claim("aud", "does not name this client"));
    }
    if differs("azp", client_id) {
        return Err(TokenError::Claim("azp", "is not this client"));
    }
    Ok(())
}

/// What is wrong with the times of a refreshed ID token.
fn check_times(claims: &Map<String, Value>, at: Moment) -> Result<(), TokenError> {
    check_not_before(claims, at)?;
    check_expiry(claims, at)
}

impl IdToken {
    /// Validates the ID token of a login.
    pub(crate) fn of_login(
        jwt: VerifiedJwt,
        expected: &Expected<'_>,
        request: AuthenticationRequest<'_>,
    ) -> Result<Self, TokenError> {
        let token = Self::common(jwt, expected)?;
        match text(&token.claims, "nonce")? {
            Some(nonce) if nonce == request.nonce => {}
            Some(_) => return Err(TokenError::Claim("nonce", "is not the one that was sent")),
            None => return Err(TokenError::Claim("nonce", "is missing")),
        }
        // Core §3.1.3.7, 13: where a maximum age was asked for, the answer has to bear it out.
        match (request.max_age, token.auth_time) {
            (None, _) => Ok(token),
            (Some(_), None) => Err(TokenError::Claim("auth_time", "is missing")),
            (Some(max_age), Some(auth_time)) if expected.at.now > auth_time + max_age + expected.at.tolerance => {
                Err(TokenError::Claim("auth_time", "is longer ago than was asked for"))
            }
            (Some(_), Some(_)) => Ok(token),
        }
    }

    /// Validates the ID token of a refresh, of which only this ends a session: that it speaks of somebody else.
    ///
    /// A clock says nothing about the user, nor does a later `auth_time`: the user authenticated again in another
    /// application.
    pub(crate) fn of_refresh(
        jwt: VerifiedJwt,
        at: Moment,
        original: OriginalLogin<'_>,
    ) -> Result<Refreshed, RefreshedError> {
        let typ = check_typ(&jwt);
        let claims = jwt.into_claims();
        check_same_login(&claims, original).map_err(RefreshedError::OtherLogin)?;
        typ?;
        let clock = check_times(&claims, at).err();
        Ok(Refreshed { id_token: Self::read(original.registration.issuer().clone(), claims)?, clock })
    }

    fn common(jwt: VerifiedJwt, expected: &Expected<'_>) -> Result<Self, TokenError> {
        check_typ(&jwt)?;
        let claims = jwt.into_claims();
        check_common(&claims, expected)?;
        check_expiry(&claims, expected.at)?;
        Self::read(issuer(&claims, expected)?, claims)
    }

    fn read(issuer: Issuer, claims: Map<String, Value>) -> Result<Self, TokenError> {
        let issued_at = date(&claims, "iat")?.ok_or(TokenError::Claim("iat", "is missing"))?;
        let subject = text(&claims, "sub")?.ok_or(TokenError::Claim("sub", "is missing"))?;
        // Core §2.
        if subject.chars().count() > 255 {
            return Err(TokenError::Claim("sub", "is longer than 255 characters"));
        }
        if claims.get("events").is_some_and(|events| events.get(LOGOUT_EVENT).is_some()) {
            return Err(TokenError::Claim("events", "makes it a logout token"));
        }
        Ok(Self {
            issuer,
            subject: Subject::new(subject),
            sid: text(&claims, "sid")?.map(Sid::new),
            issued_at,
            auth_time: match claims.get("auth_time") {
                // As if it were absent: LemonLDAP::NG writes this where it does not know.
                Some(Value::Null) => None,
                _ => date(&claims, "auth_time")?,
            },
            session_expiry: date(&claims, "session_expiry")?,
            claims,
        })
    }

    /// Checks `at_hash` if it is there (Core §3.1.3.8).
    pub(crate) fn check_access_token(&self, token: &AccessToken, alg: SigningAlg) -> Result<(), TokenError> {
        // Ed25519's digest is not settled between providers.
        if alg == SigningAlg::EdDSA {
            return Ok(());
        }
        let Some(hash) = text(&self.claims, "at_hash")? else { return Ok(()) };
        let digest = aws_lc_rs::digest::digest(alg.digest(), token.secret().as_bytes());
        let (left_half, _) = digest.as_ref().split_at(digest.as_ref().len() / 2);
        if URL_SAFE_NO_PAD.encode(left_half) == hash {
            Ok(())
        } else {
            Err(TokenError::Claim("at_hash", "does not belong to the access token"))
        }
    }
}

#[cfg(test)]
#[path = "id_token_tests.rs"]
mod tests;
