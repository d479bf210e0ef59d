//! The session in a handler.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::StatusCode;
use http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::reject::{SessionRejection, is_of_nobody};
use super::request::{Admitted, RequestSession};
use crate::manager::Refusal;
use crate::manager::watch::Looked;
use crate::protocol::names::{AccessToken, Issuer, Sid, Subject};
use crate::registry::RegistryError;
use crate::session::end_reason::EndReason;
use crate::session::policy::RequestKind;
use crate::session::record::SessionRecord;

/// The session of the user who sent the request.
///
/// As an extractor it turns requests without a session away; `Option<OidcSession>` is `None` for them. It does not look where a request
/// comes from: for what changes something put [`require_session`](crate::RelyingParty::require_session) over the route, which refuses
/// other sites' requests. Where nobody can
/// tell, because the registry or, with a signal overdue, the provider is out of reach, both answer 503: a request never
/// goes on as an anonymous one without having been checked.
///
/// ```
/// use tower_oidc_session::OidcSession;
///
/// async fn greet(session: Option<OidcSession>) -> String {
///     match session {
///         Some(session) => format!("Hello {}", session.subject()),
///         None => "Hello stranger".to_owned(),
///     }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct OidcSession {
    record: Arc<SessionRecord>,
    looked: Looked,
    request: RequestSession,
}

impl OidcSession {
    /// Noted before the session was looked up.
    pub(crate) fn looked(&self) -> Looked {
        self.looked
    }

    pub(crate) fn record(&self) -> &Arc<SessionRecord> {
        &self.record
    }

    pub(crate) fn request(&self) -> &RequestSession {
        &self.request
    }

    /// The user, the `sub` claim. Unique with [`issuer`](Self::issuer) only.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        self.record.subject()
    }

    /// The provider, the `iss` claim.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        self.record.registration().issuer()
    }

    /// The session at the provider, the `sid` claim, if the provider sends it.
    #[must_use]
    pub fn sid(&self) -> Option<&Sid> {
        self.record.sid()
    }

    /// The claims of the login's ID token, with those of userinfo if [`ClaimsFrom::UserInfo`](crate::ClaimsFrom) is set.
    #[must_use]
    pub fn claims(&self) -> &Map<String, Value> {
        &self.record.login.claims
    }

    /// The same as a type of the application's.
    ///
    /// ```
    /// use tower_oidc_session::OidcSession;
    ///
    /// #[derive(serde::Deserialize)]
    /// struct User {
    ///     email: Option<String>,
    ///     #[serde(default)]
    ///     groups: Vec<String>,
    /// }
    ///
    /// async fn groups(session: OidcSession) -> String {
    ///     session.claims_as::<User>().map(|user| user.groups.join(", ")).unwrap_or_default()
    /// }
    /// ```
    ///
    /// # Errors
    /// If a claim is missing or of another type.
    pub fn claims_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.record.login.claims)
    }

    /// The same as the types of the crate `openidconnect`: names with their languages, addresses, times.
    ///
    /// ```
    /// # use tower_oidc_session::OidcSession;
    /// async fn greet(session: OidcSession) -> String {
    ///     let claims = session.id_token_claims();
    ///     let email = claims.ok().and_then(|claims| claims.email().map(|email| email.to_string()));
    ///     email.unwrap_or_else(|| session.subject().to_string())
    /// }
    /// ```
    ///
    /// # Errors
    /// If a claim is of another type than it says.
    #[cfg(feature = "openidconnect")]
    pub fn id_token_claims(&self) -> Result<openidconnect::core::CoreIdTokenClaims, serde_json::Error> {
        self.claims_as()
    }

    /// When the user authenticated at the provider, the `auth_time` claim, if the provider sends it.
    #[must_use]
    pub fn authenticated_at(&self) -> Option<SystemTime> {
        self.record.login.auth_time
    }

    /// When the session began here.
    #[must_use]
    pub fn started_at(&self) -> SystemTime {
        self.record.login.started_at
    }

    /// When, without further activity, the provider has to confirm the session before anything is served.
    #[must_use]
    pub fn idle_expires_at(&self) -> SystemTime {
        self.record.idle_deadline(self.request.manager().policy())
    }

    /// When the session ends, active or not.
    #[must_use]
    pub fn absolute_expires_at(&self) -> SystemTime {
        self.record.absolute_deadline(self.request.manager().policy()).0
    }

    /// Why the session ended that this browser had before, if it was the same user's and ended within ten minutes before the
    /// login: "you were signed out after 15 minutes without activity". `None` after a sign-out of one's own.
    #[must_use]
    pub fn previous_end(&self) -> Option<EndReason> {
        self.record.login.previous_end
    }

    /// The access token as it was when the request was admitted. Prefer [`SessionClient`](crate::SessionClient), which
    /// refreshes it and judges the API's answer.
    #[must_use]
    pub fn access_token(&self) -> Option<&AccessToken> {
        self.record.tokens.access_token.as_ref()
    }

    /// Reports activity that the layer cannot see, on a WebSocket or in a long upload. Costs one read of the registry,
    /// and a signal to the provider at most every *G*, as any request.
    ///
    /// # Errors
    /// If the session is over or cannot be confirmed.
    ///
    /// # Cancel safety
    /// A signal that was begun is finished without the caller.
    pub async fn record_activity(&self) -> Result<(), SessionOver> {
        let admitted = self.request.manager().admit(self.record.key(), RequestKind::UserActivity).await;
        admitted.map(drop).map_err(|refusal| match refusal {
            Refusal::Ended(reason) => SessionOver::Ended(reason),
            Refusal::OtherUser | Refusal::Unknown => SessionOver::Unknown,
            Refusal::SilentLogin | Refusal::Unconfirmed => SessionOver::Unconfirmed,
            Refusal::Unavailable(_) => SessionOver::Unavailable,
        })
    }

    /// Ends the session in this application. The provider's session goes on; to end that too, send the browser to
    /// `POST /auth/logout`.
    ///
    /// # Errors
    /// If the registry could not be reached: the session may go on.
    ///
    /// # Cancel safety
    /// The end is finished without the caller.
    pub async fn end(&self) -> Result<(), RegistryError> {
        self.request.manager().end(self.record.key(), EndReason::EndedByApplication).await?;
        self.request.mark_ended_here();
        Ok(())
    }

    /// Completes when nothing more may be sent with this session: it ended, on whichever replica, or its idle deadline
    /// came. Responses that stream and WebSockets are cut by the layer itself; this is for everything else that goes
    /// on after the response.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub fn over(&self) -> impl Future<Output = ()> + Send + 'static {
        let over = self.request.manager().clone().until_over(self.record.clone(), self.looked);
        async move {
            over.await;
        }
    }
}

/// Why a session cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionOver {
    /// It ended.
    #[error("the session ended: {0}")]
    Ended(EndReason),
    /// Whether it goes on cannot be told at the moment.
    #[error("the session cannot be confirmed at the moment")]
    Unavailable,
    /// It may go on, and only a page view can find out: one sends the browser to the provider.
    #[error("the session has not been confirmed for a while")]
    Unconfirmed,
    /// It is gone.
    #[error("the session is gone")]
    Unknown,
}

impl SessionOver {
    /// Whether it has ended; otherwise nobody can tell at the moment.
    #[must_use]
    pub fn is_session_over(&self) -> bool {
        !matches!(self, Self::Unavailable | Self::Unconfirmed)
    }

    /// The status of an answer that says so.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Ended(_) | Self::Unconfirmed | Self::Unknown => StatusCode::UNAUTHORIZED,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// The session, or why there is none.
async fn admit(parts: &Parts) -> Result<(RequestSession, Result<OidcSession, Refusal>), SessionRejection> {
    let request = parts.extensions.get::<RequestSession>().cloned().ok_or_else(|| {
        SessionRejection::without_layer(
            &parts.extensions,
            "OidcSession is used outside of rp.layer(): put .layer(rp.layer()) last, around everything",
        )
    })?;
    let admitted = match request.admit().await {
        Ok(Admitted { record, looked }) => {
            Ok(OidcSession { record: record.clone(), looked: *looked, request: request.clone() })
        }
        Err(refusal) => Err(*refusal),
    };
    Ok((request, admitted))
}

impl<S: Send + Sync> FromRequestParts<S> for OidcSession {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, SessionRejection> {
        let (request, admitted) = admit(parts).await?;
        admitted.map_err(|refusal| request.rejection(refusal))
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for OidcSession {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, SessionRejection> {
        if is_of_nobody(&parts.extensions) {
            return Ok(None);
        }
        let (request, admitted) = admit(parts).await?;
        match admitted {
            Ok(session) => Ok(Some(session)),
            // Nobody can tell; or somebody is there, and a public page that greets them is worth the detour.
            Err(refusal @ (Refusal::Unavailable(_) | Refusal::SilentLogin | Refusal::OtherUser)) => {
                Err(request.rejection(refusal))
            }
            Err(Refusal::Ended(_) | Refusal::Unconfirmed | Refusal::Unknown) => Ok(None),
        }
    }
}
