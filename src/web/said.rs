//! What the headers of a request say that its session is concerned with: read in one pass, which costs less than to look
//! up six names.

use http::{HeaderMap, HeaderValue, Method};

use super::cookie::{Cookies, Presented};
use super::navigation::{Asker, prefers_html};
use crate::session::policy::says_prefetch;

pub(crate) struct Said {
    pub(crate) presented: Presented,
    pub(crate) asker: Asker,
    /// Whether the browser only guesses that its user will want this.
    pub(crate) is_prefetch: bool,
    /// The user whom a script has made it for, percent-encoded.
    pub(crate) subject: Option<HeaderValue>,
    /// `Accept-Language`, where a person looks at the answer.
    pub(crate) languages: Option<HeaderValue>,
}

impl Said {
    /// Marks all cookies as secrets, for whoever logs or compresses the headers.
    pub(crate) fn by(method: &Method, headers: &mut HeaderMap, cookies: &Cookies) -> Self {
        let mut presented = Presented::Nothing;
        let (mut mode, mut subject, mut languages) = (None, None, None);
        let (mut is_prefetch, mut has_accept) = (false, false);
        for (name, value) in headers.iter_mut() {
            match name.as_str() {
                "cookie" => {
                    value.set_sensitive(true);
                    if let Presented::Nothing = presented {
                        presented = cookies.session(value);
                    }
                }
                "accept" => has_accept = true,
                // Of several the first counts.
                "accept-language" => _ = languages.get_or_insert(&*value),
                "oidc-session-sub" => _ = subject.get_or_insert(&*value),
                "sec-fetch-mode" => _ = mode.get_or_insert(&*value),
                "purpose" | "sec-purpose" => is_prefetch |= says_prefetch(value),
                _ => {}
            }
        }
        let navigates = mode.map(|mode| mode.as_bytes() == b"navigate");
        let languages = languages.cloned();
        let subject = subject.cloned();
        // A browser says what it does; of others nobody knows more than what they like to read.
        let asker = Asker::of_who(method, || navigates.unwrap_or_else(|| has_accept && prefers_html(headers)));
        let languages = languages.filter(|_| asker.is_person());
        Self { presented, asker, is_prefetch, subject, languages }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::protocol::names::{ClientId, Issuer, Registration};
    use crate::session::id::SessionId;
    use crate::web::cookie::{CookieKey, CookieKind};

    #[test]
    fn what_requests_say() {
        let registration = Registration::new(Issuer::new("https://op"), ClientId::new("shop"));
        let cookies = Cookies::new(&registration, &CookieKey::generate(), &[], CookieKind::Host, "").unwrap();
        let id = SessionId::random();
        let own = cookies.set_session(&id, None);
        let own = own.to_str().unwrap().split(';').next().unwrap();
        let html = "text/html";
        let said = |method: &Method, headers: &[(&'static str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
            }
            let said = Said::by(method, &mut map, &cookies);
            assert!(map.get_all("cookie").iter().all(HeaderValue::is_sensitive));
            let words = |value: Option<HeaderValue>| value.map(|value| value.to_str().unwrap().to_owned());
            (
                matches!(said.presented, Presented::Id(_)),
                said.asker,
                said.is_prefetch,
                words(said.subject.or(said.languages)),
            )
        };
        let (get, post) = (&Method::GET, &Method::POST);
        let is = |text: &str| Some(text.to_owned());
        for (method, headers, expected) in [
            (get, &[][..], (false, Asker::Script, false, None)),
            (get, &[("cookie", own)], (true, Asker::Script, false, None)),
            (get, &[("cookie", "a=b"), ("cookie", own)], (true, Asker::Script, false, None)),
            (get, &[("accept", html)], (false, Asker::Page, false, None)),
            (post, &[("accept", html)], (false, Asker::Form, false, None)),
            (get, &[("accept", "application/json"), ("accept", html)], (false, Asker::Script, false, None)),
            (get, &[("accept", html), ("sec-fetch-mode", "cors")], (false, Asker::Script, false, None)),
            (get, &[("sec-fetch-mode", "navigate")], (false, Asker::Page, false, None)),
            (get, &[("sec-fetch-mode", "cors"), ("sec-fetch-mode", "navigate")], (false, Asker::Script, false, None)),
            (get, &[("sec-purpose", "prefetch;prerender")], (false, Asker::Script, true, None)),
            (get, &[("purpose", "prefetch")], (false, Asker::Script, true, None)),
            (get, &[("purpose", "fun")], (false, Asker::Script, false, None)),
            (get, &[("accept", html), ("accept-language", "de")], (false, Asker::Page, false, is("de"))),
            (get, &[("accept-language", "de")], (false, Asker::Script, false, None)),
            (get, &[("oidc-session-sub", "a"), ("oidc-session-sub", "b")], (false, Asker::Script, false, is("a"))),
        ] {
            assert_eq!(said(method, headers), expected, "{method} {headers:?}");
        }
    }
}
