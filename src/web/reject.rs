//! What requests without a good session are answered.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::uri::PathAndQuery;

use super::navigation::{Asker, login_url};
use super::page::{error, json, redirect, with_retry_after};
use crate::manager::{Refusal, RetryAfter};
use crate::protocol::authorization::Authentication;
use crate::session::end_reason::EndReason;

/// What a request without a good session is answered.
///
/// Browser navigations are redirected to the login, everything else gets a JSON body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRejection {
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    CrossSite,
    NoLayer,
    SignIn { location: String },
    Unauthorized { reason: Option<EndReason> },
    Unconfirmed,
    Unavailable { retry_after: RetryAfter },
}

impl SessionRejection {
    /// The answer to a request that was not admitted.
    pub(crate) fn of(refusal: Refusal, asker: Asker, path: Option<&PathAndQuery>) -> Self {
        let kind = match (refusal, asker) {
            (Refusal::Ended(_) | Refusal::Unknown, Asker::Page) => {
                Kind::SignIn { location: login_url(path, &Authentication::default()) }
            }
            (Refusal::Ended(reason), Asker::Script) => Kind::Unauthorized { reason: Some(reason) },
            (Refusal::Unknown, Asker::Script) => Kind::Unauthorized { reason: None },
            (Refusal::SilentLogin, _) => Kind::SignIn { location: login_url(path, &Authentication::silent()) },
            (Refusal::Unavailable(retry_after), _) => Kind::Unavailable { retry_after },
            (Refusal::Unconfirmed, _) => Kind::Unconfirmed,
        };
        Self { kind }
    }

    pub(crate) fn cross_site() -> Self {
        Self { kind: Kind::CrossSite }
    }

    pub(crate) fn no_layer() -> Self {
        tracing::error!("a session was asked for outside of RelyingParty::layer()");
        Self { kind: Kind::NoLayer }
    }

    pub(crate) fn unavailable(retry_after: RetryAfter) -> Self {
        Self { kind: Kind::Unavailable { retry_after } }
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self.kind {
            Kind::CrossSite => StatusCode::FORBIDDEN,
            Kind::NoLayer => StatusCode::INTERNAL_SERVER_ERROR,
            Kind::SignIn { .. } => StatusCode::SEE_OTHER,
            Kind::Unauthorized { .. } | Kind::Unconfirmed => StatusCode::UNAUTHORIZED,
            Kind::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for SessionRejection {
    fn into_response(self) -> Response {
        let status = self.status();
        match self.kind {
            Kind::CrossSite => error(status, "cross_site_request"),
            Kind::NoLayer => error(status, "misconfigured"),
            Kind::SignIn { location } => redirect(&location),
            Kind::Unauthorized { reason: None } => error(status, "not_authenticated"),
            // The session may stand: a navigation of the user's makes it known, a request of a script cannot.
            Kind::Unconfirmed => json(
                status,
                &serde_json::json!({"error": "not_confirmed", "login": login_url(None, &Authentication::default())}),
            ),
            Kind::Unauthorized { reason: Some(reason) } => {
                json(status, &serde_json::json!({"error": "session_ended", "reason": reason.as_str()}))
            }
            Kind::Unavailable { retry_after } => {
                with_retry_after(error(status, "temporarily_unavailable"), retry_after)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::LOCATION;

    use super::*;

    #[test]
    fn return_to_is_encoded() {
        let path = PathAndQuery::from_static("/me?a=b&c=d+e");
        let response = SessionRejection::of(Refusal::Unknown, Asker::Page, Some(&path)).into_response();
        assert_eq!(response.headers()[LOCATION], "/auth/login?return_to=/me%3Fa%3Db%26c%3Dd%2Be");
    }
}
