//! `GET /auth/session.js`: the guard of a page, `session.js`.

use std::sync::OnceLock;

use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::session::id::{hex, short_hash};

/// The script as it is sent, and its name in URLs that never change.
struct Script {
    text: String,
    hash: String,
    etag: Option<HeaderValue>,
}

fn script() -> &'static Script {
    static SCRIPT: OnceLock<Script> = OnceLock::new();
    SCRIPT.get_or_init(|| {
        // Comments are for readers of the source; no line of the script is one inside of a text.
        let lines = include_str!("../guard/session.js").lines().map(str::trim_start);
        let text: String = lines
            .filter(|line| !line.is_empty() && !line.starts_with("//") && !line.starts_with("/**"))
            .flat_map(|line| [line, "\n"])
            .collect();
        let hash = hex(&short_hash::<8>(text.as_bytes()));
        Script { etag: HeaderValue::try_from(format!("\"{hash}\"")).ok(), text, hash }
    })
}

/// The name of the script that browsers may keep for ever, among the routes.
pub(crate) fn lasting_name() -> String {
    format!("session/{}.js", script().hash)
}

/// What browsers ask about anew each time.
pub(super) const ASK: HeaderValue = HeaderValue::from_static("no-cache");
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

pub(super) async fn current(headers: HeaderMap) -> Response {
    let script = script();
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let is_known = known.flat_map(|value| value.split(',')).any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.trim_start_matches("W/").trim_matches('"') == script.hash
    });
    let mut response = if is_known { StatusCode::NOT_MODIFIED.into_response() } else { javascript(&script.text) };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, ASK);
    headers.extend(script.etag.clone().map(|etag| (ETAG, etag)));
    response
}

/// While replicas of two versions run, a page of one may ask the other: it gets what there is, and asks anew next time.
pub(super) async fn lasting(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let script = script();
    let Some(hash) = name.strip_suffix(".js") else { return StatusCode::NOT_FOUND.into_response() };
    if hash != script.hash {
        return current(headers).await;
    }
    let mut response = javascript(&script.text);
    response.headers_mut().insert(CACHE_CONTROL, FOR_EVER);
    response
}

pub(super) fn javascript(text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/javascript; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
