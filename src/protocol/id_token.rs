//! ID tokens.
//!
//! [Core §3.1.3.7](https://openid.net/specs/openid-connect-core-1_0.html#IDTokenValidation) at login,
//! [Core §12.2](https://openid.net/specs/openid-connect-core-1_0.html#RefreshTokenResponse) at a refresh.
//! The signature has been checked before; these are the claims, in the order of the specification.

use std::time::{Duration, SystemTime};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::jwt::{Expected, SigningAlg, TokenError, VerifiedJwt, check_common, check_expiry, date, text};
use super::logout_token::LOGOUT_EVENT;
use super::names::{AccessToken, Sid, Subject};

/// The claims of a validated ID token.
#[derive(Clone, Debug)]
pub(crate) struct IdToken {
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
    pub(crate) subject: &'a Subject,
    pub(crate) nonce: &'a str,
    pub(crate) auth_time: Option<SystemTime>,
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
            (Some(max_age), Some(auth_time)) if expected.now > auth_time + max_age + expected.tolerance => {
                Err(TokenError::Claim("auth_time", "is longer ago than was asked for"))
            }
            (Some(_), Some(_)) => Ok(token),
        }
    }

    /// Validates the ID token of a refresh: it has to speak of the same user and login.
    pub(crate) fn of_refresh(
        jwt: VerifiedJwt,
        expected: &Expected<'_>,
        original: OriginalLogin<'_>,
    ) -> Result<Self, TokenError> {
        let token = Self::common(jwt, expected)?;
        if token.subject != *original.subject {
            return Err(TokenError::Claim("sub", "is not that of the login"));
        }
        if text(&token.claims, "nonce")?.is_some_and(|nonce| nonce != original.nonce) {
            return Err(TokenError::Claim("nonce", "is not that of the login"));
        }
        match (token.auth_time, original.auth_time) {
            (Some(now), Some(then)) if now != then => Err(TokenError::Claim("auth_time", "is not that of the login")),
            _ => Ok(token),
        }
    }

    fn common(jwt: VerifiedJwt, expected: &Expected<'_>) -> Result<Self, TokenError> {
        // RFC 8725 §3.12: no other kind of token may pass for an ID token.
        if jwt.typ()?.is_some_and(|typ| !typ.eq_ignore_ascii_case("JWT")) {
            return Err(TokenError::Header("typ", "is that of another kind of token"));
        }
        let claims = jwt.into_claims();
        let issued_at = check_common(&claims, expected)?;
        check_expiry(&claims, expected)?;
        let subject = text(&claims, "sub")?.ok_or(TokenError::Claim("sub", "is missing"))?;
        // Core §2.
        if subject.chars().count() > 255 {
            return Err(TokenError::Claim("sub", "is longer than 255 characters"));
        }
        if claims.get("events").is_some_and(|events| events.get(LOGOUT_EVENT).is_some()) {
            return Err(TokenError::Claim("events", "makes it a logout token"));
        }
        Ok(Self {
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
