//! `GET /auth/jwks.json`: the client's public keys, for a provider that fetches them (`jwks_uri`).

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use super::own_session::OwnContext;

/// How long the keys may be kept: a new one is published for longer than that before it signs.
const KEPT_FOR: &str = "public, max-age=300";

pub(super) async fn jwks(OwnContext(context): OwnContext) -> Response {
    match context.provider().published_keys() {
        Some(keys) => {
            let headers = [(CONTENT_TYPE, "application/jwk-set+json"), (CACHE_CONTROL, KEPT_FOR)];
            (headers, keys.to_string()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
