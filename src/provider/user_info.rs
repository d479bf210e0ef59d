//! The userinfo endpoint.
//!
//! [Core §5.3](https://openid.net/specs/openid-connect-core-1_0.html#UserInfo).

use std::time::SystemTime;

use http::header::CONTENT_TYPE;
use serde_json::{Map, Value};

use super::http::Answer;
use super::{Provider, Unavailable};
use crate::protocol::challenge::{self, ApiVerdict};
use crate::protocol::names::AccessToken;
use crate::protocol::token_response;

/// What a userinfo answer says about the session.
#[derive(Clone, Debug)]
pub(crate) enum UserInfoVerdict {
    Confirmed(Map<String, Value>),
    /// A definite no to the access token.
    Refused,
    /// An answer that neither confirms nor refuses.
    Unavailable(Unavailable),
}

impl Provider {
    /// Asks for the user's claims, which the provider takes as a sign of life.
    pub(crate) async fn user_info(&self, token: &AccessToken, subject: &str) -> Result<UserInfoVerdict, Unavailable> {
        let metadata = self.metadata().await?;
        let Some(endpoint) = &metadata.userinfo_endpoint else {
            return Err(Unavailable::not_sent("it has no userinfo endpoint"));
        };
        self.enter()?;
        let answer = match self.http.get(endpoint.as_str(), Some(token.secret())).await {
            Ok(answer) => answer,
            Err(error) => {
                self.leave(Err(None));
                return Err(error.into());
            }
        };
        let verdict = judge_user_info(&answer, subject, self.clock.now());
        self.leave(match &verdict {
            UserInfoVerdict::Unavailable(unavailable) => Err(unavailable.retry_after),
            _ => Ok(()),
        });
        Ok(verdict)
    }
}

fn judge_user_info(answer: &Answer, subject: &str, now: SystemTime) -> UserInfoVerdict {
    if answer.status.is_success() {
        // A signed answer (application/jwt) is a sign of life too; its claims are not used.
        let json = serde_json::from_slice::<Map<String, Value>>(&answer.body);
        let is_jwt =
            answer.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/jwt"));
        return match json {
            // Core §5.3.2: claims about somebody else must not be used.
            Ok(claims) if claims.get("sub").and_then(Value::as_str) == Some(subject) => {
                UserInfoVerdict::Confirmed(claims)
            }
            Ok(_) => UserInfoVerdict::Refused,
            Err(_) if is_jwt => UserInfoVerdict::Confirmed(Map::new()),
            Err(_) => UserInfoVerdict::Unavailable(Unavailable::not_sent("its userinfo answer cannot be read")),
        };
    }
    let verdict = challenge::judge(answer.status, &answer.headers);
    if matches!(verdict, ApiVerdict::TokenRejected | ApiVerdict::Unexplained) {
        return UserInfoVerdict::Refused;
    }
    UserInfoVerdict::Unavailable(Unavailable {
        retry_after: token_response::retry_after(&answer.headers, now),
        ..Unavailable::not_sent(format!("its userinfo endpoint answered {}", answer.status))
    })
}
