//! What requests without a good session are answered.

use std::fmt;
use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::uri::PathAndQuery;
use http::{Extensions, StatusCode};

use super::navigation::{Asker, own_path};
use super::page::{error, json, redirect, with_challenge, with_retry_after};
use super::pages::{FormRefused, Page, PageKind, SentToLogin};
use super::paths::Paths;
use crate::manager::{Refusal, RetryAfter};
use crate::protocol::authorization::Authentication;
use crate::protocol::challenge::STEP_UP;
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
/// | 401 | `insufficient_user_authentication` | `login`: one that asks for what is wanted; a page's script adds its `return_to` |
/// | 403 | `cross_site_request` | |
/// | 403 | `forbidden` | the session does not have what the route wants |
/// | 404 | `not_found` | the request is for no tenant, where an application has some |
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
    paths: Option<Arc<Paths>>,
}

/// In a request: it is for no tenant, and nobody has a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OfNobody;

pub(crate) fn is_of_nobody(extensions: &Extensions) -> bool {
    extensions.get::<OfNobody>().is_some()
}

/// Why there is no session that admits a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectionKind {
    /// Another site has sent it.
    CrossSite,
    /// The session has ended; [`SessionRejection::reason`] says why.
    Ended,
    /// The session does not have what the route wants.
    Forbidden,
    /// There is no [`RelyingParty::layer`](crate::RelyingParty::layer) around.
    Misconfigured,
    /// It is for no tenant, where an application has some.
    NoTenant,
    /// It was made for another user.
    OtherUser,
    /// Nobody is signed in.
    SignedOut,
    /// The user has to authenticate in another way, or anew.
    StepUp,
    /// The provider or the store is out of reach, and nobody can tell.
    Unavailable,
    /// Whether the session stands has not been asked for a while; a page view finds out.
    Unconfirmed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    CrossSite,
    Forbidden,
    /// A person is told why before the login.
    Explained {
        reason: EndReason,
    },
    Miswired,
    NoTenant,
    OtherUser,
    SilentLogin,
    /// The user has to authenticate in another way, or anew.
    StepUp(Authentication),
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
    pub(crate) fn of(refusal: Refusal, asker: Asker, path: Option<&PathAndQuery>, paths: &Arc<Paths>) -> Self {
        let kind = match refusal {
            Refusal::Ended(reason) => Kind::Unauthorized { reason: Some(reason) },
            Refusal::OtherUser => Kind::OtherUser,
            Refusal::SilentLogin => Kind::SilentLogin,
            Refusal::Unavailable(retry_after) => Kind::Unavailable { retry_after },
            Refusal::Unconfirmed => Kind::Unconfirmed,
            Refusal::Unknown => Kind::Unauthorized { reason: None },
        };
        Self { kind, asker, path: path.cloned(), paths: Some(paths.clone()) }
    }

    /// A session that has ended, to a person who is told why.
    pub(crate) fn explained(reason: EndReason, path: Option<&PathAndQuery>, paths: &Arc<Paths>) -> Self {
        let kind = Kind::Explained { reason };
        Self { kind, asker: Asker::Page, path: path.cloned(), paths: Some(paths.clone()) }
    }

    pub(crate) fn cross_site(asker: Asker) -> Self {
        Self { kind: Kind::CrossSite, asker, path: None, paths: None }
    }

    pub(crate) fn forbidden(asker: Asker) -> Self {
        Self { kind: Kind::Forbidden, asker, path: None, paths: None }
    }

    pub(crate) fn step_up(
        wanted: Authentication,
        asker: Asker,
        path: Option<&PathAndQuery>,
        paths: &Arc<Paths>,
    ) -> Self {
        Self { kind: Kind::StepUp(wanted), asker, path: path.cloned(), paths: Some(paths.clone()) }
    }

    /// There is no session at all: the request is for no tenant, or the application is put together wrongly; `message` says what to write
    /// instead.
    pub(crate) fn without_layer(extensions: &Extensions, message: &'static str) -> Self {
        if is_of_nobody(extensions) {
            return Self { kind: Kind::NoTenant, asker: Asker::Script, path: None, paths: None };
        }
        Self::miswired(message)
    }

    /// The application is put together wrongly; `message` says what to write instead.
    pub(crate) fn miswired(message: &'static str) -> Self {
        tracing::error!("{message}");
        Self { kind: Kind::Miswired, asker: Asker::Script, path: None, paths: None }
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self.kind {
            Kind::CrossSite | Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::Miswired => StatusCode::INTERNAL_SERVER_ERROR,
            Kind::NoTenant => StatusCode::NOT_FOUND,
            Kind::OtherUser => StatusCode::CONFLICT,
            Kind::SilentLogin => StatusCode::SEE_OTHER,
            // Who only looks is led on.
            Kind::StepUp(_) | Kind::Unauthorized { .. } if self.asker == Asker::Page => StatusCode::SEE_OTHER,
            Kind::Explained { .. } | Kind::StepUp(_) | Kind::Unauthorized { .. } | Kind::Unconfirmed => {
                StatusCode::UNAUTHORIZED
            }
            Kind::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Why there is no session that admits the request.
    #[must_use]
    pub fn kind(&self) -> RejectionKind {
        match self.kind {
            Kind::CrossSite => RejectionKind::CrossSite,
            Kind::Forbidden => RejectionKind::Forbidden,
            Kind::Miswired => RejectionKind::Misconfigured,
            Kind::NoTenant => RejectionKind::NoTenant,
            Kind::OtherUser => RejectionKind::OtherUser,
            Kind::SilentLogin | Kind::Unconfirmed => RejectionKind::Unconfirmed,
            Kind::StepUp(_) => RejectionKind::StepUp,
            Kind::Explained { .. } | Kind::Unauthorized { reason: Some(_) } => RejectionKind::Ended,
            Kind::Unauthorized { reason: None } => RejectionKind::SignedOut,
            Kind::Unavailable { .. } => RejectionKind::Unavailable,
        }
    }

    /// Why the session ended, if it did.
    #[must_use]
    pub fn reason(&self) -> Option<EndReason> {
        match self.kind {
            Kind::Explained { reason } => Some(reason),
            Kind::Unauthorized { reason } => reason,
            _ => None,
        }
    }

    /// Whether there is no session any more, or there never was one.
    #[must_use]
    pub fn is_session_over(&self) -> bool {
        matches!(self.kind(), RejectionKind::Ended | RejectionKind::SignedOut)
    }

    fn login(&self, authentication: &Authentication) -> String {
        self.login_to(self.path.as_ref(), authentication)
    }

    fn login_to(&self, path: Option<&PathAndQuery>, authentication: &Authentication) -> String {
        match &self.paths {
            Some(paths) => paths.login(path, authentication),
            None => Paths::default().login(path, authentication),
        }
    }

    /// The page for a person, where there is one.
    fn page(&self) -> Option<Page> {
        let login = || self.login(&Authentication::default());
        Some(match self.kind {
            Kind::CrossSite => Page::new(PageKind::Forbidden),
            Kind::Forbidden => Page::not_allowed(),
            Kind::StepUp(ref wanted) => Page::new(PageKind::StepUp).link("do_sign_in", self.login(wanted)),
            Kind::Explained { reason } => Page::sign_in_needed(Some(reason)).link("do_sign_in", login()),
            Kind::OtherUser => Page::new(PageKind::OtherUser),
            Kind::Miswired | Kind::NoTenant | Kind::SilentLogin => return None,
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
            Kind::Forbidden => error(status, "forbidden"),
            Kind::StepUp(ref wanted) if self.asker == Asker::Page => redirect(&self.login(wanted)),
            Kind::StepUp(ref wanted) => {
                json(status, &serde_json::json!({"error": STEP_UP, "login": self.login_to(None, wanted)}))
            }
            Kind::Miswired => error(status, "misconfigured"),
            Kind::NoTenant => error(status, "not_found"),
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
                &serde_json::json!({"error": "not_confirmed", "login": self.login_to(None, &Authentication::default())}),
            ),
            Kind::Unavailable { retry_after } => {
                with_retry_after(error(status, "temporarily_unavailable"), retry_after)
            }
        }
    }
}

impl fmt::Display for SessionRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind() {
            RejectionKind::CrossSite => "another site has sent the request",
            RejectionKind::Ended => "the session has ended",
            RejectionKind::Forbidden => "the session does not have what is wanted of it",
            RejectionKind::Misconfigured => "the application is put together wrongly",
            RejectionKind::NoTenant => "the request is for no tenant",
            RejectionKind::OtherUser => "the request was made for another user",
            RejectionKind::SignedOut => "nobody is signed in",
            RejectionKind::StepUp => "the user has to authenticate in another way, or anew",
            RejectionKind::Unavailable => "nobody can tell at the moment whether the session stands",
            RejectionKind::Unconfirmed => "whether the session stands has not been asked for a while",
        })
    }
}

impl std::error::Error for SessionRejection {}

impl IntoResponse for SessionRejection {
    fn into_response(self) -> Response {
        let page = self.page().filter(|_| self.asker.is_person() && !self.status().is_redirection());
        let mut response = page.map_or_else(|| self.json(), IntoResponse::into_response);
        let is_over = matches!(self.kind, Kind::Explained { .. } | Kind::Unauthorized { .. });
        if is_over && self.asker == Asker::Page {
            response.extensions_mut().insert(SentToLogin);
        }
        if self.asker == Asker::Form {
            let refusal = match self.kind {
                Kind::Unauthorized { reason: Some(reason) } => Some(Refusal::Ended(reason)),
                Kind::Unconfirmed => Some(Refusal::Unconfirmed),
                _ => None,
            };
            if let Some(refusal) = refusal {
                response.extensions_mut().insert(FormRefused(refusal));
            }
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
        let response =
            SessionRejection::of(Refusal::Unknown, Asker::Page, Some(&path), &Arc::default()).into_response();
        assert_eq!(response.headers()[LOCATION], "/auth/login?return_to=/me%3Fa%3Db%26c%3Dd%2Be");
    }
}
