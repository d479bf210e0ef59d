//! A form that was sent after the end of its session: kept by the browser, sealed, until its user has signed in again.

use std::time::{Duration, SystemTime};

use axum::extract::OriginalUri;
use http::header::{CONTENT_TYPE, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, Uri};
use serde::{Deserialize, Serialize};

use super::multipart::base64_bytes;
use super::multipart::{self, Content, Field};
use crate::protocol::fetch_metadata::SEC_FETCH_SITE;
use crate::session::id::{SubjectHash, random_text};

/// A sealed one is larger, and percent-encoded when it is sent.
pub(crate) const MOST_SEALED: usize = 512 * 1024;
/// How long one is kept: as long as the end of its session is remembered.
pub(crate) const RETENTION: Duration = Duration::from_secs(10 * 60);
/// What the address that a form is sent to again ends with.
pub(crate) const MARK: &str = "oidc-session-form";

/// A form that somebody has sent, with what binds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct KeptForm {
    /// Names it, so that it is sent once.
    pub(crate) id: String,
    /// Path and query, as the browser sees them.
    pub(crate) path: String,
    pub(crate) entered: Entered,
    /// Whose session it was.
    pub(crate) subject: SubjectHash,
    /// The browser that sent it, by its cookie.
    pub(crate) browser: String,
    pub(crate) sent_at: SystemTime,
}

/// What somebody has entered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Entered {
    /// A body, byte by byte.
    Plain {
        content_type: String,
        #[serde(with = "base64_bytes")]
        body: Vec<u8>,
    },
    /// A form that may have had files.
    Multipart(Vec<Field>),
}

impl Entered {
    /// Content type and body of a request that sends it.
    pub(crate) fn into_body(self) -> (String, Vec<u8>) {
        match self {
            Self::Plain { content_type, body } => (content_type, body),
            Self::Multipart(fields) => multipart::write(&fields),
        }
    }

    /// Whether something of it is not kept.
    pub(crate) fn had_files(&self) -> bool {
        matches!(self, Self::Multipart(fields) if fields.iter().any(|field| field.content == Content::File))
    }

    /// For a look at it.
    pub(crate) fn fields(&self) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match self {
            Self::Plain { content_type, body } if is_urlencoded(content_type) => {
                let pairs = url::form_urlencoded::parse(body);
                pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
            }
            Self::Plain { body, .. } => vec![(String::new(), text(body))],
            Self::Multipart(fields) => {
                let values = fields.iter().filter_map(|Field { name, content }| match content {
                    Content::Value(value) => Some((name.clone(), text(value))),
                    Content::File | Content::NoFile => None,
                });
                values.collect()
            }
        }
    }
}

impl KeptForm {
    pub(crate) fn new(
        path: String,
        entered: Entered,
        subject: SubjectHash,
        browser: String,
        sent_at: SystemTime,
    ) -> Self {
        Self { id: random_text(), path, entered, subject, browser, sent_at }
    }

    pub(crate) fn is_of(&self, browser: &str, now: SystemTime) -> bool {
        let age = now.duration_since(self.sent_at).unwrap_or_default();
        age < RETENTION
            && aws_lc_rs::constant_time::verify_slices_are_equal(self.browser.as_bytes(), browser.as_bytes()).is_ok()
    }

    /// Where it is sent to again.
    pub(crate) fn action(&self) -> String {
        format!("{}{}{MARK}", self.path, if self.path.contains('?') { '&' } else { '?' })
    }
}

/// The media type without its parameters.
pub(crate) fn media_type(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

pub(crate) fn is_urlencoded(content_type: &str) -> bool {
    media_type(content_type).eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// What kind of form a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its body can be kept as it is.
    Plain(String),
    /// It may have files, which are not kept.
    Multipart(String),
    Other,
}

impl Kind {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match media_type(content_type).to_ascii_lowercase().as_str() {
            "application/x-www-form-urlencoded" | "text/plain" => Self::Plain(content_type.to_owned()),
            "multipart/form-data" => Self::Multipart(content_type.to_owned()),
            _ => Self::Other,
        }
    }
}

/// Whether a browser says that a page of this application has sent it; who says nothing may be anybody.
pub(crate) fn is_own(headers: &HeaderMap, origin: &str) -> bool {
    let mut sites = headers.get_all(&SEC_FETCH_SITE).iter().peekable();
    if sites.peek().is_some() {
        return sites.all(|site| site.as_bytes() == b"same-origin");
    }
    let mut origins = headers.get_all(ORIGIN).iter().peekable();
    origins.peek().is_some() && origins.all(|sent| sent.as_bytes() == origin.as_bytes())
}

/// Takes the mark of a form that is sent again from the address of a `POST`; says whether it was there.
pub(crate) fn take_mark(parts: &mut Parts) -> bool {
    let Some(uri) = without_mark(&parts.uri) else { return false };
    parts.uri = uri;
    if let Some(original) = parts.extensions.get_mut::<OriginalUri>()
        && let Some(uri) = without_mark(&original.0)
    {
        original.0 = uri;
    }
    true
}

fn without_mark(uri: &Uri) -> Option<Uri> {
    let rest = uri.query()?.strip_suffix(MARK)?;
    let path = match rest.strip_suffix('&') {
        Some(query) => format!("{}?{query}", uri.path()),
        None if rest.is_empty() => uri.path().to_owned(),
        None => return None,
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path.parse().ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn p13_forms_in_the_format_of_earlier_versions_are_read() {
        for golden in [
            include_str!("../../tests/golden/kept_form_1.json"),
            // With files, of which nothing is kept.
            include_str!("../../tests/golden/kept_form_2.json"),
        ] {
            let form: KeptForm = serde_json::from_str(golden).unwrap();
            assert_eq!(serde_json::to_string(&form).unwrap(), golden.trim());
        }
    }

    #[test]
    fn addresses_of_forms_that_are_sent_again() {
        for (path, expected) in [
            ("/desk?oidc-session-form", Some("/desk")),
            ("/desk?a=b&oidc-session-form", Some("/desk?a=b")),
            ("/desk", None),
            ("/desk?a=b", None),
            ("/desk?xoidc-session-form", None),
            ("https://shop.example/desk?oidc-session-form", Some("https://shop.example/desk")),
        ] {
            let (mut parts, ()) = http::Request::post(path).body(()).unwrap().into_parts();
            assert_eq!(take_mark(&mut parts), expected.is_some(), "{path}");
            assert_eq!(parts.uri.to_string(), expected.unwrap_or(path), "{path}");
        }
    }

    #[test]
    fn a_form_is_kept_only_where_the_browser_says_that_it_is_ours() {
        for (headers, expected) in [
            (&[][..], false),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site"), ("origin", "https://shop.example")], false),
            (&[("origin", "https://shop.example")], true),
            (&[("origin", "null")], false),
            (&[("origin", "https://evil.example")], false),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            assert_eq!(is_own(&map, "https://shop.example"), expected, "{headers:?}");
        }
    }
}
