//! The answers that are ours: JSON for scripts, redirects, and a short page for people.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderValue, StatusCode};

use crate::manager::RetryAfter;

/// Adds `Retry-After`, in whole seconds and at least one.
pub(crate) fn with_retry_after(mut response: Response, RetryAfter(pause): RetryAfter) -> Response {
    let seconds = pause.saturating_add(Duration::from_millis(999)).as_secs().max(1);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
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

/// A short page for a person, with a way on: `again` is where the login begins. The texts are ours: nothing of the request
/// is repeated but where it wanted to go, encoded.
pub(crate) fn page(status: StatusCode, title: &str, text: &str, again: &str) -> Response {
    // Its other signs are percent-encoded.
    let again = again.replace('&', "&amp;");
    let html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{title}</title><style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;\
         padding:0 1rem}}</style><h1>{title}</h1><p>{text}<p><a href=\"{again}\">Try again</a>\
         <p><a href=\"/\">To the front page</a>"
    );
    let mut response = Response::new(Body::from(html));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    );
    no_store(response)
}

pub(crate) fn no_store(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The page for a provider or registry that is out of reach.
pub(crate) fn unavailable(retry_after: Option<Duration>) -> Response {
    let text = "Signing in is not possible at the moment. Please try again shortly.";
    let page = page(StatusCode::SERVICE_UNAVAILABLE, "Please try again", text, "/auth/login");
    with_retry_after(page, RetryAfter(retry_after.unwrap_or_default()))
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
