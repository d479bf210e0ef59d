//! The session that a request to one of the crate's own routes claims.

use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::web::reject::SessionRejection;
use crate::web::request::RequestSession;

/// The session that a request to one of these routes claims.
pub(super) struct OwnSession(pub(super) RequestSession);

impl<S: Send + Sync> FromRequestParts<S> for OwnSession {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, SessionRejection> {
        parts.extensions.get().cloned().map(Self).ok_or_else(|| {
            SessionRejection::miswired("rp.routes() stand outside of rp.layer(): merge them before .layer(rp.layer())")
        })
    }
}
