//! What requests without a good session are answered.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::uri::PathAndQuery;

use super::navigation::{Asker, login_url, own_path};
use super::page::{error, json, redirect, with_challenge, with_retry_after};
use super::pages::{Page, PageKind, SentToLogin};
use crate::manager::{Refusal, RetryAfter};
use crate::protocol::authorization::Authentication;
use crate::session::end_reason::EndReason;

/// What a request without a good session is answered.
///
/// Browser navigations are redirected to the login, or get a page; everything else gets a JSON body, with one of these codes as
/// its `error`:
///
/// | status | `error` | besides |
/// |---|---|---|
/// | 401 | `not_authenticated` | nobody is signed in |
/// | 401 | `session_ended` | `reason`: why, an [`EndReason`] |
/// | 401 | `not_confirmed` | `login`: whether the session stands has not been asked for *T*; a navigation there finds out |
/// | 403 | `cross_site_request` | |
/// | 409 | `other_user` | `Oidc-Session-Sub` names somebody else than the session's user |
/// | 500 | `misconfigured` | there is no [`RelyingParty::layer`](crate::RelyingParty::layer) around |
/// | 503 | `temporarily_unavailable` | `Retry-After` |
///
/// 401 and 409 carry `WWW-Authenticate: OidcSession`, which tells them from an API's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRejection {
    kind: Kind,
    asker: Asker,
    /// Where a person comes back to.
    path: Option<PathAndQuery>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    CrossSite,
    /// A person is told why before the login.
    Explained {
        reason: EndReason,
    },
    NoLayer,
    OtherUser,
    SilentLogin,
    Unauthorized {
        reason: Option<EndReason>,
    },
    Unavailable {
        retry_after: RetryAfter,
    },
    Unconfirmed,
}

impl SessionRejection {
    /// The answer to a request that was not admitted.
    pub(crate) fn of(refusal: Refusal, asker: Asker, path: Option<&PathAndQuery>) -> Self {
        let kind = match refusal {
            Refusal::Ended(reason) => Kind::Unauthorized { reason: Some(reason) },
            Refusal::OtherUser => Kind::OtherUser,
            Refusal::SilentLogin => Kind::SilentLogin,
            Refusal::Unavailable(retry_after) => Kind::Unavailable { retry_after },
            Refusal::Unconfirmed => Kind::Unconfirmed,
            Refusal::Unknown => Kind::Unauthorized { reason: None },
        };
        Self { kind, asker, path: path.cloned() }
    }

    /// A session that has ended, to a person who is told why.
    pub(crate) fn explained(reason: EndReason, path: Option<&PathAndQuery>) -> Self {
        Self { kind: Kind::Explained { reason }, asker: Asker::Page, path: path.cloned() }
    }

    pub(crate) fn cross_site(asker: Asker) -> Self {
        Self { kind: Kind::CrossSite, asker, path: None }
    }

    pub(crate) fn no_layer() -> Self {
        tracing::error!("a session was asked for outside of RelyingParty::layer()");
        Self { kind: Kind::NoLayer, asker: Asker::Script, path: None }
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self.kind {
            Kind::CrossSite => StatusCode::FORBIDDEN,
            Kind::NoLayer => StatusCode::INTERNAL_SERVER_ERROR,
            Kind::OtherUser => StatusCode::CONFLICT,
            Kind::SilentLogin => StatusCode::SEE_OTHER,
            // Who only looks is led on.
            Kind::Unauthorized { .. } if self.asker == Asker::Page => StatusCode::SEE_OTHER,
            Kind::Explained { .. } | Kind::Unauthorized { .. } | Kind::Unconfirmed => StatusCode::UNAUTHORIZED,
            Kind::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn login(&self, authentication: &Authentication) -> String {
        login_url(self.path.as_ref(), authentication)
    }

    /// The page for a person, where there is one.
    fn page(&self) -> Option<Page> {
        let login = || self.login(&Authentication::default());
        Some(match self.kind {
            Kind::CrossSite => Page::new(PageKind::Forbidden),
            Kind::Explained { reason } => Page::sign_in_needed(Some(reason)).link("do_sign_in", login()),
            Kind::OtherUser => Page::new(PageKind::OtherUser),
            Kind::NoLayer | Kind::SilentLogin => return None,
            Kind::Unauthorized { reason } => Page::sign_in_needed(reason).text("not_kept").link("do_sign_in", login()),
            Kind::Unavailable { retry_after: RetryAfter(pause) } => {
                // What a person has sent is not to be lost by itself.
                if self.asker == Asker::Form {
                    return Some(Page::unavailable_to_send(pause));
                }
                let again = self.path.as_ref().map_or("/", own_path).to_owned();
                Page::unavailable(pause, None).link("again", again).link("do_sign_in", login())
            }
            // A passive route asks nobody, however often it is opened.
            Kind::Unconfirmed => Page::new(PageKind::Unconfirmed).link("continue", login()),
        })
    }

    fn json(&self) -> Response {
        let status = self.status();
        match self.kind {
            Kind::CrossSite => error(status, "cross_site_request"),
            Kind::NoLayer => error(status, "misconfigured"),
            Kind::OtherUser => error(status, "other_user"),
            Kind::SilentLogin => redirect(&self.login(&Authentication::silent())),
            Kind::Unauthorized { .. } if self.asker == Asker::Page => redirect(&self.login(&Authentication::default())),
            Kind::Unauthorized { reason: None } => error(status, "not_authenticated"),
            Kind::Explained { reason } | Kind::Unauthorized { reason: Some(reason) } => {
                json(status, &serde_json::json!({"error": "session_ended", "reason": reason.as_str()}))
            }
            // The session may stand: a navigation of the user's makes it known, a request of a script cannot.
            Kind::Unconfirmed => json(
                status,
                &serde_json::json!({"error": "not_confirmed", "login": login_url(None, &Authentication::default())}),
            ),
            Kind::Unavailable { retry_after } => {
                with_retry_after(error(status, "temporarily_unavailable"), retry_after)
            }
        }
    }
}

impl IntoResponse for SessionRejection {
    fn into_response(self) -> Response {
        let page = self.page().filter(|_| self.asker.is_person() && !self.status().is_redirection());
        let mut response = page.map_or_else(|| self.json(), IntoResponse::into_response);
        let is_over = matches!(self.kind, Kind::Explained { .. } | Kind::Unauthorized { .. });
        if is_over && self.asker == Asker::Page {
            response.extensions_mut().insert(SentToLogin);
        }
        with_challenge(response)
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
