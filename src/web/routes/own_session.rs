//! The session that a request to one of the crate's own routes claims.

use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::web::context::Context;
use crate::web::reject::SessionRejection;
use crate::web::request::RequestSession;

/// The session that a request to one of these routes claims.
pub(super) struct OwnSession(pub(super) RequestSession);

/// The relying party that such a request is for.
pub(super) struct OwnContext(pub(super) Context);

impl<S: Send + Sync> FromRequestParts<S> for OwnContext {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, SessionRejection> {
        let OwnSession(session) = OwnSession::from_request_parts(parts, state).await?;
        Ok(Self(session.context().clone()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OwnSession {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, SessionRejection> {
        parts.extensions.get().cloned().map(Self).ok_or_else(|| {
            SessionRejection::without_layer(
                &parts.extensions,
                "rp.routes() stand outside of rp.layer(): merge them before .layer(rp.layer())",
            )
        })
    }
}
