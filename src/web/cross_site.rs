//! Whether a request comes from another site: the rule that protects against cross-site request forgery.

use http::header::{ORIGIN, UPGRADE};
use http::{HeaderMap, HeaderValue, Method};

use crate::protocol::fetch_metadata::SEC_FETCH_SITE;

/// Whether the request could do harm if another site sent it: an unsafe method, or the handshake of a WebSocket, to
/// which browsers attach cookies whatever page opens it.
pub(crate) fn can_do_harm(method: &Method, headers: &HeaderMap) -> bool {
    !method.is_safe() || headers.contains_key(UPGRADE)
}

/// Whose pages may send requests: the application's own, and those that it trusts.
#[derive(Debug)]
pub(crate) struct Origins {
    pub(crate) own: String,
    pub(crate) trusted: Vec<String>,
}

impl Origins {
    fn trusts(&self, origin: &HeaderValue) -> bool {
        self.trusted.iter().any(|trusted| trusted.as_bytes() == origin.as_bytes())
    }
}

/// Whether another site sent the request.
///
/// 1. `Sec-Fetch-Site` decides where it is: only `same-origin` and `none` (the user's own doing) are not cross-site, and what
///    an origin has sent that is trusted.
/// 2. Without it `Origin` decides: it has to be this application's, or trusted.
/// 3. Without both it is no browser, and nobody's cookies are abused.
pub(crate) fn is_cross_site(headers: &HeaderMap, origins: &Origins) -> bool {
    let mut senders = headers.get_all(ORIGIN).iter().peekable();
    let sites = headers.get_all(&SEC_FETCH_SITE);
    if sites.iter().next().is_some() {
        let is_own = sites.iter().all(|site| matches!(site.as_bytes(), b"same-origin" | b"none"));
        let is_trusted = senders.peek().is_some() && senders.all(|origin| origins.trusts(origin));
        return !is_own && !is_trusted;
    }
    !senders.all(|origin| origin.as_bytes() == origins.own.as_bytes() || origins.trusts(origin))
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn cross_site() {
        let origins =
            Origins { own: "https://shop.example".to_owned(), trusted: vec!["https://app.example".to_owned()] };
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
            (&[("origin", "https://app.example")], false),
            (&[("sec-fetch-site", "same-site"), ("origin", "https://app.example")], false),
            (&[("sec-fetch-site", "cross-site"), ("origin", "https://app.example")], false),
            (&[("sec-fetch-site", "same-site"), ("origin", "https://api.example")], true),
            (&[("sec-fetch-site", "same-site"), ("origin", "https://app.example"), ("origin", "null")], true),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            assert_eq!(is_cross_site(&map, &origins), expected, "{headers:?}");
        }
    }
}
