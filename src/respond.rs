//! Answers to requests without a good session, and small pages.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::manager::{Admission, RetryAfter};
use crate::protocol::authorization::Authentication;
use crate::session::event::EndReason;

/// What a query value must not hold as it is; slashes may stay, which keeps `return_to` readable.
const QUERY_VALUE: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'&').add(b'+').add(b'<').add(b'=').add(b'>').add(b'?');

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

/// What is known of a request when it is turned away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visitor<'a> {
    pub(crate) method: &'a Method,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) path: Option<&'a PathAndQuery>,
}

impl SessionRejection {
    /// The answer to a request that was not admitted; `None` if it was.
    pub(crate) fn of(admission: &Admission, visitor: Visitor<'_>) -> Option<Self> {
        match admission {
            Admission::Admitted(_) => None,
            Admission::Ended(reason) => Some(Self::sign_in(visitor, Some(*reason))),
            Admission::Refused => Some(Self { kind: Kind::Unconfirmed }),
            Admission::SilentLogin => {
                Some(Self { kind: Kind::SignIn { location: login_url(visitor.path, &Authentication::silent()) } })
            }
            Admission::Unavailable(retry_after) => Some(Self::unavailable(*retry_after)),
            Admission::Unknown => Some(Self::sign_in(visitor, None)),
        }
    }

    pub(crate) fn sign_in(visitor: Visitor<'_>, reason: Option<EndReason>) -> Self {
        if !is_navigation(visitor.method, visitor.headers) {
            return Self { kind: Kind::Unauthorized { reason } };
        }
        Self { kind: Kind::SignIn { location: login_url(visitor.path, &Authentication::default()) } }
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

/// The login, from which the browser comes back to `return_to`.
pub(crate) fn login_url(return_to: Option<&PathAndQuery>, authentication: &Authentication) -> String {
    let mut url = "/auth/login".to_owned();
    let return_to = return_to.map(|path| ("return_to", path.as_str().to_owned()));
    for (number, (name, value)) in return_to.into_iter().chain(authentication.parameters()).enumerate() {
        url.push(if number == 0 { '?' } else { '&' });
        url.push_str(name);
        url.push('=');
        url.extend(utf8_percent_encode(&value, QUERY_VALUE));
    }
    url
}

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

/// A short page for a person. The texts are ours: nothing of the request is repeated.
pub(crate) fn page(status: StatusCode, title: &str, text: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{title}</title><style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;\
         padding:0 1rem}}</style><h1>{title}</h1><p>{text}<p><a href=\"/\">To the front page</a>"
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

/// Whether a browser shows the answer to this request as a page.
pub(crate) fn is_navigation(method: &Method, headers: &HeaderMap) -> bool {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return false;
    }
    let is_fetch = headers.get("sec-fetch-mode").is_some_and(|mode| mode.as_bytes() != b"navigate");
    !is_fetch && prefers_html(headers)
}

/// Whether `Accept` names HTML, and not after JSON.
fn prefers_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut html = 0.0_f32;
    let mut json = 0.0_f32;
    for range in accepted.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0));
        match kind.as_str() {
            // Of two that weigh the same the first is preferred.
            "text/html" | "application/xhtml+xml" if weight > html && weight > json => html = weight,
            "application/json" if weight > json => json = if weight > html { weight } else { json },
            _ => {}
        }
    }
    html > 0.0 && html > json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_navigations_are_redirected() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
        for (method, headers, expected) in [
            (Method::GET, &[("accept", browser)][..], true),
            (Method::HEAD, &[("accept", browser)], true),
            (Method::GET, &[("accept", browser), ("sec-fetch-mode", "navigate")], true),
            (Method::GET, &[("accept", browser), ("sec-fetch-mode", "cors")], false),
            (Method::POST, &[("accept", browser)], false),
            (Method::GET, &[], false),
            (Method::GET, &[("accept", "*/*")], false),
            (Method::GET, &[("accept", "application/json")], false),
            (Method::GET, &[("accept", "application/json, text/html")], false),
            (Method::GET, &[("accept", "text/html, application/json")], true),
            (Method::GET, &[("accept", "text/html;q=0.5, application/json")], false),
            (Method::GET, &[("accept", "application/json;q=0.5, text/html")], true),
            (Method::GET, &[("accept", "text/html;q=0")], false),
            (Method::GET, &[("accept", "text/html;q=x")], false),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(is_navigation(&method, &map), expected, "{method} {headers:?}");
        }
    }

    #[test]
    fn return_to_is_encoded() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("text/html"));
        let path = PathAndQuery::from_static("/me?a=b&c=d+e");
        let visitor = Visitor { method: &Method::GET, headers: &headers, path: Some(&path) };
        let response = SessionRejection::of(&Admission::Unknown, visitor).unwrap().into_response();
        assert_eq!(response.headers()[LOCATION], "/auth/login?return_to=/me%3Fa%3Db%26c%3Dd%2Be");
    }

    #[test]
    fn retry_after_is_rounded_up() {
        for (millis, expected) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2")] {
            let response = with_retry_after(Response::new(Body::empty()), RetryAfter(Duration::from_millis(millis)));
            assert_eq!(response.headers()[RETRY_AFTER], expected);
        }
    }
}
