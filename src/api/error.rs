//! Why an API could not be called.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::StatusCode;

use crate::calls::transport::{Cause, NoAnswer};
use crate::error::with_causes;
use crate::manager::RetryAfter;
use crate::protocol::authorization::Authentication;
use crate::protocol::challenge::STEP_UP;
use crate::web::keep_form::StepUpNeeded;
use crate::web::navigation::Asker;
use crate::web::page::{error, json, redirect, with_challenge, with_retry_after};
use crate::web::pages::{Page, PageKind, for_people};
use crate::web::reject::SessionRejection;

/// Why an API could not be called. As a response it is what the contract of the layer says: 401 or a redirect to the
/// login where the session is over or the API wants the user to authenticate again, 503 where it cannot be told, 502 and
/// 504 for the API's own failures; pages for people, for programs JSON with one of these codes as its `error`, besides those
/// of [`SessionRejection`]:
///
/// | status | `error` |
/// |---|---|
/// | 400 | `bad_path` |
/// | 401, 403 | `insufficient_user_authentication`, with `login` where one may help |
/// | 405 | `method_not_allowed` |
/// | 500 | `api_call_invalid` |
/// | 502 | `api_unreachable`, `api_rejects_all_tokens`, `no_token_for_api` |
/// | 503 | `temporarily_unavailable` |
/// | 504 | `api_timeout` |
///
/// ```
/// use tower_oidc_session::{ApiError, ApiErrorKind, SessionClient};
///
/// async fn orders(api: SessionClient) -> Result<String, ApiError> {
///     match api.get("https://api.example/orders").send().await {
///         Ok(answer) => answer.text().await,
///         // The page works without them.
///         Err(error) if matches!(error.kind(), ApiErrorKind::Unreachable | ApiErrorKind::Timeout) => Ok(String::new()),
///         Err(error) => Err(error),
///     }
/// }
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[error("{problem}")]
pub struct ApiError {
    problem: Problem,
}

/// Whose fault it is that an API could not be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ApiErrorKind {
    /// The API answered what cannot be used, or rejects everybody.
    Api,
    /// The call is wrong: the application's fault, or that of whoever sent it what it passed on.
    Call,
    /// The provider gives the session no token for the API.
    Provider,
    /// It was to be sent once more, and is too long to have been kept.
    Repeat,
    /// The session is over, or cannot be confirmed.
    Session,
    /// The API wants the user to authenticate again.
    StepUp,
    /// The API did not answer in time.
    Timeout,
    /// The API could not be reached.
    Unreachable,
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
    #[error("the API could not be reached: {}", with_causes(.0.as_ref()))]
    Unreachable(#[source] Cause),
}

impl Problem {
    fn kind(&self) -> ApiErrorKind {
        match self {
            Self::Invalid(_) | Self::Method | Self::NotListed(_) | Self::Path => ApiErrorKind::Call,
            Self::AtFault | Self::Unreadable(_) => ApiErrorKind::Api,
            Self::NoToken => ApiErrorKind::Provider,
            Self::NotReplayed => ApiErrorKind::Repeat,
            Self::Rejected(_) => ApiErrorKind::Session,
            Self::StepUp { .. } | Self::StepUpFailed => ApiErrorKind::StepUp,
            Self::Timeout => ApiErrorKind::Timeout,
            Self::Unreachable(_) => ApiErrorKind::Unreachable,
        }
    }

    /// Status, code and page of the answer.
    fn answer(&self) -> (StatusCode, &'static str, PageKind) {
        match self {
            Self::Rejected(rejection) => (rejection.status(), "", PageKind::ServiceFailed),
            Self::StepUp { asker: Asker::Page, .. } => (StatusCode::SEE_OTHER, STEP_UP, PageKind::StepUp),
            Self::StepUp { .. } => (StatusCode::UNAUTHORIZED, STEP_UP, PageKind::StepUp),
            Self::StepUpFailed => (StatusCode::FORBIDDEN, STEP_UP, PageKind::ServiceFailed),
            Self::NotReplayed => (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", PageKind::Unavailable),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", PageKind::MethodNotAllowed),
            Self::Path => (StatusCode::BAD_REQUEST, "bad_path", PageKind::NotFound),
            Self::Timeout => (StatusCode::GATEWAY_TIMEOUT, "api_timeout", PageKind::ServiceFailed),
            Self::NoToken => (StatusCode::BAD_GATEWAY, "no_token_for_api", PageKind::ServiceFailed),
            Self::AtFault => (StatusCode::BAD_GATEWAY, "api_rejects_all_tokens", PageKind::ServiceFailed),
            Self::Unreachable(_) | Self::Unreadable(_) => {
                (StatusCode::BAD_GATEWAY, "api_unreachable", PageKind::ServiceFailed)
            }
            Self::Invalid(_) | Self::NotListed(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "api_call_invalid", PageKind::ServiceFailed)
            }
        }
    }
}

impl ApiError {
    /// Whose fault it is.
    #[must_use]
    pub fn kind(&self) -> ApiErrorKind {
        self.problem.kind()
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.problem.answer().0
    }

    /// Whether the session has ended, before the call or by it.
    #[must_use]
    pub fn is_session_over(&self) -> bool {
        matches!(&self.problem, Problem::Rejected(rejection) if rejection.is_session_over())
    }

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
    fn into_response(self) -> Response {
        let (status, code, page) = self.problem.answer();
        match &self.problem {
            Problem::StepUpFailed | Problem::Unreachable(_) | Problem::Unreadable(_) => {
                tracing::warn!(error = %self.problem, "an API call failed");
            }
            Problem::Invalid(_) | Problem::NotListed(_) => {
                tracing::error!(error = %self.problem, "an API call is wrong");
            }
            _ => {}
        }
        match self.problem {
            Problem::Rejected(rejection) => rejection.into_response(),
            Problem::StepUp { login, asker: Asker::Page, .. } => redirect(&login),
            Problem::StepUp { login, authentication, .. } => {
                let mut response = with_challenge(json(status, &serde_json::json!({"error": code, "login": login})));
                response.extensions_mut().insert(StepUpNeeded(authentication));
                response
            }
            Problem::NotReplayed => {
                let answer = with_retry_after(error(status, code), RetryAfter(Duration::ZERO));
                for_people(answer, Page::unavailable_to_send(Duration::ZERO))
            }
            _ => for_people(error(status, code), Page::new(page)),
        }
    }
}
