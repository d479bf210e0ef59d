//! What goes further than the next hop, where the browser's own requests are passed on to an API.

use axum::response::Response;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, SET_COOKIE, UPGRADE};
use http::{HeaderMap, HeaderName, Method};
use url::Url;

use super::error::Problem;

/// An API's answer as it goes to the browser.
pub(super) fn passed_on(answer: Response) -> Response {
    let (mut parts, body) = answer.into_parts();
    parts.headers = end_to_end(parts.headers, &[SET_COOKIE]);
    remove(&mut parts.headers, speaks_for_an_origin);
    Response::from_parts(parts, body)
}

/// The headers of a browser's request as they go to an API.
pub(super) fn to_the_api(headers: HeaderMap) -> HeaderMap {
    let mut headers = end_to_end(headers, &[COOKIE, AUTHORIZATION, HOST, CONTENT_LENGTH]);
    remove(&mut headers, is_a_proxys_word);
    headers
}

/// Whether a request of this method may be passed on. The answer to `TRACE` is the request itself, token and all;
/// `CONNECT` asks for a tunnel.
pub(super) fn is_passed_on(method: &Method) -> bool {
    !matches!(*method, Method::TRACE | Method::CONNECT)
}

/// Whether a header says what a proxy knows of its client. An API behind this one believes it, and whoever wants to be
/// somebody else can write it.
fn is_a_proxys_word(name: &str) -> bool {
    // Many servers do not tell the one from the other.
    let name = name.replace('_', "-");
    let is = ["forwarded", "proxy-connection", "remote-user", "true-client-ip", "x-client-ip", "x-real-ip"];
    let begins = ["x-auth-request-", "x-forwarded", "x-original-", "x-remote-", "x-rewrite-"];
    is.contains(&name.as_str()) || begins.iter().any(|begin| name.starts_with(begin))
}

/// Whether a header of an answer speaks for the origin that the browser sees, which is not the API's: who may read it,
/// what is stored for it, how it is connected to.
fn speaks_for_an_origin(name: &str) -> bool {
    let is = ["alt-svc", "clear-site-data", "nel", "report-to", "service-worker-allowed", "strict-transport-security"];
    let begins = ["access-control-", "public-key-pins"];
    is.contains(&name) || begins.iter().any(|begin| name.starts_with(begin))
}

fn remove(headers: &mut HeaderMap, is_unwanted: fn(&str) -> bool) {
    let unwanted: Vec<HeaderName> = headers.keys().filter(|name| is_unwanted(name.as_str())).cloned().collect();
    for name in unwanted {
        headers.remove(name);
    }
}

/// The URL of `uri`'s path and query below `base_url`, and nowhere else.
pub(super) fn below(base_url: &str, uri: &http::Uri) -> Result<Url, Problem> {
    let base = Url::parse(base_url).map_err(|error| Problem::Invalid(error.to_string()))?;
    let prefix = format!("{}/", base.path().trim_end_matches('/'));
    let path = uri.path().trim_start_matches('/');
    let mut url = base.clone();
    url.set_path(&format!("{prefix}{path}"));
    url.set_query(uri.query());
    // Dot segments, written as they are or encoded, are resolved by now and may lead out of the base.
    if url.path().starts_with(&prefix) { Ok(url) } else { Err(Problem::Path) }
}

/// The headers that go further than the next hop (RFC 9110 §7.6.1), without `others`.
fn end_to_end(mut headers: HeaderMap, others: &[HeaderName]) -> HeaderMap {
    const HOP_BY_HOP: [HeaderName; 7] = [
        HeaderName::from_static("keep-alive"),
        http::header::PROXY_AUTHENTICATE,
        http::header::PROXY_AUTHORIZATION,
        http::header::TE,
        http::header::TRAILER,
        http::header::TRANSFER_ENCODING,
        UPGRADE,
    ];
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP).chain(&[CONNECTION]).chain(others) {
        headers.remove(name);
    }
    headers
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_is_for_the_next_hop_only_goes_no_further() {
        for named in ["x-hop", "close, X-Hop", "é, x-hop", ",x-hop,"] {
            let headers = HeaderMap::from_iter([
                (CONNECTION, HeaderValue::from_str(named).unwrap()),
                (HeaderName::from_static("keep-alive"), HeaderValue::from_static("5")),
                (HeaderName::from_static("x-hop"), HeaderValue::from_static("1")),
                (HeaderName::from_static("x-custom"), HeaderValue::from_static("1")),
            ]);
            let left = to_the_api(headers);
            let names: Vec<_> = left.keys().map(HeaderName::as_str).collect();
            assert_eq!(names, ["x-custom"], "{named}");
        }
    }

    #[test]
    fn forwarded_paths_stay_below_the_base() {
        for (base, path, expected) in [
            ("http://api.example", "/orders?x=1", Some("http://api.example/orders?x=1")),
            ("http://api.example/v1/", "/orders", Some("http://api.example/v1/orders")),
            ("http://api.example/v1", "/a%2Fb", Some("http://api.example/v1/a%2Fb")),
            ("http://api.example/v1", "/../secret", None),
            ("http://api.example/v1", "/%2e%2e/secret", None),
            ("http://api.example/v1", "/a/../../v1x", None),
            ("http://api.example/v1", "//evil.example/x", Some("http://api.example/v1/evil.example/x")),
        ] {
            let url = below(base, &path.parse().unwrap()).ok();
            assert_eq!(url.as_ref().map(Url::as_str), expected, "{base} {path}");
        }
    }
}
