//! The answers that are ours: JSON for scripts, and redirects.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};

use crate::manager::RetryAfter;

/// Adds `Retry-After`, in whole seconds and at least one.
pub(crate) fn with_retry_after(mut response: Response, RetryAfter(pause): RetryAfter) -> Response {
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(whole_seconds(pause)));
    response
}

/// Rounded up, and at least one.
pub(crate) fn whole_seconds(pause: Duration) -> u64 {
    pause.saturating_add(Duration::from_millis(999)).as_secs().max(1)
}

pub(crate) fn json(status: StatusCode, value: &serde_json::Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    no_store(response)
}

pub(crate) fn error(status: StatusCode, error: &str) -> Response {
    json(status, &serde_json::json!({ "error": error }))
}

pub(crate) fn redirect(location: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    // Locations are URLs that were parsed or encoded, so they are header values.
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    no_store(response)
}

/// RFC 9110 §15.5.2: a 401 says how to authenticate. No browser knows this scheme, so none asks for a password.
pub(crate) fn with_challenge(mut response: Response) -> Response {
    if matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::CONFLICT) {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("OidcSession realm=\"session\""));
    }
    response
}

pub(crate) fn no_store(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up() {
        for (millis, expected) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2")] {
            let response = with_retry_after(Response::new(Body::empty()), RetryAfter(Duration::from_millis(millis)));
            assert_eq!(response.headers()[RETRY_AFTER], expected);
        }
    }
}
