//! Whether a request navigates.

use http::header::ACCEPT;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method};

use crate::protocol::fetch_metadata::SEC_FETCH_MODE;

/// A path to link to, as it was asked for: two slashes would name another host.
pub(crate) fn own_path(path: &PathAndQuery) -> &str {
    let path = path.as_str();
    let is_own = path.starts_with('/') && !path.starts_with("//") && !path.contains('\\');
    if is_own { path } else { "/" }
}

/// Who waits for the answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// A browser that shows it as a page.
    Page,
    /// The same, of a form that it has posted.
    Form,
    /// A script, or another program.
    Script,
}

impl Asker {
    pub(crate) fn of(method: &Method, headers: &HeaderMap) -> Self {
        Self::of_who(method, || match headers.get(&SEC_FETCH_MODE) {
            Some(mode) => mode.as_bytes() == b"navigate",
            None => prefers_html(headers),
        })
    }

    pub(crate) fn of_who(method: &Method, navigates: impl FnOnce() -> bool) -> Self {
        let asker = match *method {
            Method::GET | Method::HEAD => Self::Page,
            Method::POST => Self::Form,
            _ => return Self::Script,
        };
        if navigates() { asker } else { Self::Script }
    }

    /// Whether a person looks at the answer.
    pub(crate) fn is_person(self) -> bool {
        self != Self::Script
    }
}

/// Whether `Accept` names HTML, and not after JSON.
pub(crate) fn prefers_html(headers: &HeaderMap) -> bool {
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
    use http::HeaderValue;

    #[test]
    fn links_stay_here() {
        for (path, expected) in
            [("/me?a=b", "/me?a=b"), ("//evil.example/x", "/"), ("/", "/"), ("/a//b", "/a//b"), ("*", "/")]
        {
            assert_eq!(own_path(&path.parse().unwrap()), expected, "{path}");
        }
    }

    use super::*;

    #[test]
    fn navigations_are_told_from_scripts() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
        for (method, headers, expected) in [
            (Method::GET, &[("accept", browser)][..], Asker::Page),
            (Method::HEAD, &[("accept", browser)], Asker::Page),
            (Method::GET, &[("accept", browser), ("sec-fetch-mode", "navigate")], Asker::Page),
            (Method::GET, &[("accept", "*/*"), ("sec-fetch-mode", "navigate")], Asker::Page),
            (Method::GET, &[("accept", browser), ("sec-fetch-mode", "cors")], Asker::Script),
            (Method::POST, &[("accept", browser)], Asker::Form),
            (Method::POST, &[("accept", browser), ("sec-fetch-mode", "navigate")], Asker::Form),
            (Method::POST, &[("accept", browser), ("sec-fetch-mode", "same-origin")], Asker::Script),
            (Method::POST, &[("accept", "application/json")], Asker::Script),
            (Method::PUT, &[("accept", browser)], Asker::Script),
            (Method::GET, &[], Asker::Script),
            (Method::GET, &[("accept", "*/*")], Asker::Script),
            (Method::GET, &[("accept", "application/json")], Asker::Script),
            (Method::GET, &[("accept", "application/json, text/html")], Asker::Script),
            (Method::GET, &[("accept", "text/html, application/json")], Asker::Page),
            (Method::GET, &[("accept", "text/html;q=0.5, application/json")], Asker::Script),
            (Method::GET, &[("accept", "application/json;q=0.5, text/html")], Asker::Page),
            (Method::GET, &[("accept", "text/html;q=0")], Asker::Script),
            (Method::GET, &[("accept", "text/html;q=x")], Asker::Script),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(Asker::of(&method, &map), expected, "{method} {headers:?}");
        }
    }
}
