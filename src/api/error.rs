//! Why an API could not be called.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::StatusCode;

use crate::calls::transport::NoAnswer;
use crate::manager::RetryAfter;
use crate::protocol::authorization::Authentication;
use crate::web::keep_form::StepUpNeeded;
use crate::web::navigation::Asker;
use crate::web::page::{error, json, redirect, with_challenge, with_retry_after};
use crate::web::pages::{Page, PageKind, for_people};
use crate::web::reject::SessionRejection;

/// Why an API could not be called. As a response it is what the contract of the layer says: 401 or a redirect to the
/// login where the session is over or the API wants the user to authenticate again, 503 where it cannot be told, 502 and
/// 504 for the API's own failures.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{problem}")]
pub struct ApiError {
    problem: Problem,
}

#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("the API rejects the fresh tokens of many sessions: it is wrong, not they")]
    AtFault,
    #[error("the request is not valid: {0}")]
    Invalid(String),
    #[error("requests of this method are not passed on")]
    Method,
    #[error("{0} is not listed as an API of the sessions")]
    NotListed(String),
    #[error("the provider gives the session no token for the API")]
    NoToken,
    #[error("the body was too long to be sent again with a new token")]
    NotReplayed,
    #[error("the path leads out of the API's base URL")]
    Path,
    #[error("the session does not admit the call")]
    Rejected(SessionRejection),
    #[error("the API wants the user to authenticate again")]
    StepUp { login: String, asker: Asker, authentication: Authentication },
    #[error("the user has just authenticated as the API wanted, and it is not content")]
    StepUpFailed,
    #[error("the API did not answer in time")]
    Timeout,
    #[error("the API's answer is too long or cannot be read: {0}")]
    Unreadable(String),
    #[error("the API could not be reached: {0}")]
    Unreachable(String),
}

impl ApiError {
    /// Where the user has to go to authenticate as the API wants
    /// ([RFC 9470](https://www.rfc-editor.org/rfc/rfc9470)), if that is the reason: a path of this application. A page's
    /// script adds its own `return_to`.
    #[must_use]
    pub fn step_up(&self) -> Option<&str> {
        match &self.problem {
            Problem::StepUp { login, .. } => Some(login),
            _ => None,
        }
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self { problem }
    }
}

impl From<NoAnswer> for Problem {
    fn from(no_answer: NoAnswer) -> Self {
        match no_answer {
            NoAnswer::Invalid(error) => Self::Invalid(error),
            NoAnswer::Timeout => Self::Timeout,
            NoAnswer::Unreachable(error) => Self::Unreachable(error),
        }
    }
}

impl From<http::Error> for ApiError {
    fn from(error: http::Error) -> Self {
        Problem::Invalid(error.to_string()).into()
    }
}

impl IntoResponse for ApiError {
    /// To a program JSON, to a person a page.
    fn into_response(self) -> Response {
        const STEP_UP: &str = "insufficient_user_authentication";
        let (status, code, page) = match self.problem {
            Problem::Rejected(rejection) => return rejection.into_response(),
            Problem::StepUp { login, asker: Asker::Page, .. } => return redirect(&login),
            Problem::StepUp { login, authentication, .. } => {
                let body = serde_json::json!({"error": STEP_UP, "login": login});
                let mut response = with_challenge(json(StatusCode::UNAUTHORIZED, &body));
                response.extensions_mut().insert(StepUpNeeded(authentication));
                return response;
            }
            Problem::StepUpFailed => {
                tracing::warn!("an API is not content with a login that was made as it asked");
                (StatusCode::FORBIDDEN, STEP_UP, PageKind::ServiceFailed)
            }
            Problem::NotReplayed => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                let answer = with_retry_after(error(status, "temporarily_unavailable"), RetryAfter(Duration::ZERO));
                return for_people(answer, Page::unavailable_to_send(Duration::ZERO));
            }
            Problem::Method => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", PageKind::MethodNotAllowed),
            Problem::Path => (StatusCode::BAD_REQUEST, "bad_path", PageKind::NotFound),
            Problem::Timeout => (StatusCode::GATEWAY_TIMEOUT, "api_timeout", PageKind::ServiceFailed),
            Problem::NoToken => (StatusCode::BAD_GATEWAY, "no_token_for_api", PageKind::ServiceFailed),
            Problem::AtFault => (StatusCode::BAD_GATEWAY, "api_rejects_all_tokens", PageKind::ServiceFailed),
            Problem::Unreachable(_) | Problem::Unreadable(_) => {
                tracing::warn!(error = %self.problem, "an API call failed");
                (StatusCode::BAD_GATEWAY, "api_unreachable", PageKind::ServiceFailed)
            }
            Problem::Invalid(_) | Problem::NotListed(_) => {
                tracing::error!(error = %self.problem, "an API call is wrong");
                (StatusCode::INTERNAL_SERVER_ERROR, "api_call_invalid", PageKind::ServiceFailed)
            }
        };
        for_people(error(status, code), Page::new(page))
    }
}
