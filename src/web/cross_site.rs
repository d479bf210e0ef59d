//! Whether a request comes from another site: the rule that protects against cross-site request forgery.

use http::header::{ORIGIN, UPGRADE};
use http::{HeaderMap, Method};

use crate::protocol::fetch_metadata::SEC_FETCH_SITE;

/// Whether the request could do harm if another site sent it: an unsafe method, or the handshake of a WebSocket, to
/// which browsers attach cookies whatever page opens it.
pub(crate) fn can_do_harm(method: &Method, headers: &HeaderMap) -> bool {
    !method.is_safe() || headers.contains_key(UPGRADE)
}

/// Whether another site sent the request.
///
/// 1. `Sec-Fetch-Site` decides where it is: only `same-origin` and `none` (the user's own doing) are not cross-site.
/// 2. Without it `Origin` decides: it has to be this application's.
/// 3. Without both it is no browser, and nobody's cookies are abused.
pub(crate) fn is_cross_site(headers: &HeaderMap, own_origin: &str) -> bool {
    let sites = headers.get_all(&SEC_FETCH_SITE);
    if sites.iter().next().is_some() {
        return !sites.iter().all(|site| matches!(site.as_bytes(), b"same-origin" | b"none"));
    }
    !headers.get_all(ORIGIN).iter().all(|origin| origin.as_bytes() == own_origin.as_bytes())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn cross_site() {
        for (headers, expected) in [
            (&[][..], false),
            (&[("sec-fetch-site", "same-origin")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "same-site")], true),
            (&[("sec-fetch-site", "cross-site")], true),
            (&[("sec-fetch-site", "new-thing")], true),
            (&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], true),
            (&[("sec-fetch-site", "same-origin"), ("origin", "https://evil.example")], false),
            (&[("origin", "https://shop.example")], false),
            (&[("origin", "https://evil.example")], true),
            (&[("origin", "http://shop.example")], true),
            (&[("origin", "null")], true),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            assert_eq!(is_cross_site(&map, "https://shop.example"), expected, "{headers:?}");
        }
    }
}
