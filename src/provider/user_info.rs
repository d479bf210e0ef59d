//! The userinfo endpoint.
//!
//! [Core §5.3](https://openid.net/specs/openid-connect-core-1_0.html#UserInfo).

use std::sync::Arc;
use std::time::SystemTime;

use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use serde_json::{Map, Value};
use url::Url;

use super::circuit::Failure;
use super::dpop::Nonce;
use super::http::Answer;
use super::{Provider, Unavailable};
use crate::protocol::challenge::{self, ApiVerdict, Scheme};
use crate::protocol::jwt::{TokenError, UnverifiedJwt};
use crate::protocol::names::{AccessToken, IdTokenHint, Subject};
use crate::protocol::token_response;

/// What a userinfo answer says about the session.
#[derive(Clone, Debug)]
pub(crate) enum UserInfoVerdict {
    Confirmed(Map<String, Value>),
    /// The token is none for userinfo.
    Forbidden,
    /// A definite no to the access token.
    Refused,
    /// A sign of life with claims that nobody has verified yet.
    Signed(IdTokenHint),
    /// An answer that neither confirms nor refuses.
    Unavailable(Unavailable),
    /// The same, and the next will be like it: encrypted, or no JWT though it says so.
    Unusable(TokenError),
}

impl Provider {
    /// Asks for the user's claims, which the provider takes as a sign of life.
    pub(crate) async fn user_info(
        self: &Arc<Self>,
        token: &AccessToken,
        subject: &Subject,
    ) -> Result<UserInfoVerdict, Unavailable> {
        let metadata = self.metadata().await?;
        let Some(endpoint) = &metadata.userinfo_endpoint else {
            return Err(Unavailable::not_sent("it has no userinfo endpoint"));
        };
        self.enter()?;
        let mut answer = self.get_user_info(endpoint, token).await?;
        let nonce = self.note_nonce(endpoint, &answer.headers);
        let verdict = challenge::judge(answer.status, &answer.headers, Scheme::of(token));
        if nonce == Nonce::Given && verdict == ApiVerdict::NonceWanted {
            answer = self.get_user_info(endpoint, token).await?;
            self.note_nonce(endpoint, &answer.headers);
        }
        if answer.status.is_server_error() {
            self.leave(Err(Failure::of(subject)));
        } else {
            self.leave(Ok(()));
        }
        Ok(judge_user_info(&answer, subject, Scheme::of(token), self.clock.now()))
    }

    async fn get_user_info(&self, endpoint: &Url, token: &AccessToken) -> Result<Answer, Unavailable> {
        let headers = self.headers_with(token, (&Method::GET, endpoint)).await;
        let headers = headers.map_err(|error| Unavailable::not_sent(error.to_string()))?;
        self.http.get(endpoint.as_str(), headers).await.map_err(|error| {
            self.leave(Err(Failure::Transport));
            error.into()
        })
    }
}

/// | observed | verdict |
/// |---|---|
/// | 2xx, about this user | confirmed |
/// | 2xx, signed (`application/jwt`), about this user as far as it says | signed: a sign of life; its claims are to be verified |
/// | 2xx, about somebody else (Core §5.3.2) | refused |
/// | 2xx, `application/jwt` that is encrypted or none | unusable: no answer |
/// | 2xx without `sub`, or nothing that can be read | unavailable: no answer |
/// | 401 that is about the token, or does not say why | refused |
/// | 403, but for a page (`text/html`), which is a gateway's | forbidden: this token is none for userinfo |
/// | anything else | unavailable |
fn judge_user_info(answer: &Answer, subject: &Subject, scheme: Scheme, now: SystemTime) -> UserInfoVerdict {
    let unreadable = || UserInfoVerdict::Unavailable(Unavailable::not_sent("its userinfo answer cannot be read"));
    let about =
        |claims: &Map<String, Value>| claims.get("sub").and_then(Value::as_str).map(|sub| sub == subject.as_str());
    if answer.status.is_success() {
        let is_jwt =
            answer.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/jwt"));
        if is_jwt {
            let raw = String::from_utf8_lossy(&answer.body).trim().to_owned();
            return match UnverifiedJwt::parse(&raw).map(|jwt| about(jwt.unverified_claims())) {
                Ok(Some(true)) => UserInfoVerdict::Signed(IdTokenHint::new(raw)),
                Ok(Some(false)) => UserInfoVerdict::Refused,
                Ok(None) => unreadable(),
                Err(error) => UserInfoVerdict::Unusable(error),
            };
        }
        let Ok(claims) = serde_json::from_slice::<Map<String, Value>>(&answer.body) else { return unreadable() };
        return match about(&claims) {
            Some(true) => UserInfoVerdict::Confirmed(claims),
            Some(false) => UserInfoVerdict::Refused,
            None => unreadable(),
        };
    }
    let is_page = answer.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if answer.status == StatusCode::FORBIDDEN && !is_page {
        return UserInfoVerdict::Forbidden;
    }
    let verdict = challenge::judge(answer.status, &answer.headers, scheme);
    if matches!(verdict, ApiVerdict::TokenRejected | ApiVerdict::Unexplained) {
        return UserInfoVerdict::Refused;
    }
    UserInfoVerdict::Unavailable(Unavailable {
        retry_after: token_response::retry_after(&answer.headers, now),
        ..Unavailable::not_sent(format!("its userinfo endpoint answered {}", answer.status))
    })
}
