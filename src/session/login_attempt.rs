//! What one attempt to log in has to remember until the browser comes back.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use url::Url;

use super::id::SessionKey;
use crate::protocol::authorization::Authentication;

/// Everything that one attempt to log in has to remember until the browser comes back.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct LoginTransaction {
    pub(crate) state: String,
    pub(crate) nonce: String,
    pub(crate) pkce_verifier: String,
    pub(crate) return_to: ReturnTo,
    pub(crate) started_at: SystemTime,
    pub(crate) authentication: Authentication,
    /// The session that a silent login is to confirm; no other login has one.
    pub(crate) session: Option<SessionKey>,
}

impl std::fmt::Debug for LoginTransaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginTransaction").field("return_to", &self.return_to).finish_non_exhaustive()
    }
}

/// Where the browser goes after the login: a path on this application's own origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ReturnTo(String);

impl ReturnTo {
    /// The front page.
    pub(crate) fn front_page() -> Self {
        Self("/".to_owned())
    }

    /// Takes a path with an optional query, and nothing that a browser could read as another origin.
    pub(crate) fn parse(value: &str, origin: &Url) -> Option<Self> {
        // Browsers drop tabs and line ends from URLs and read a backslash as a slash.
        let harmless = value.starts_with('/') && !value.contains(|c: char| c.is_control() || c == '\\');
        let resolved = harmless.then(|| origin.join(value).ok())??;
        // A path that repeats its slash would name a host if it were ever written as a relative reference.
        (resolved.origin() == origin.origin() && !resolved.path().starts_with("//")).then(|| {
            let mut path = resolved.path().to_owned();
            for (mark, part) in [('?', resolved.query()), ('#', resolved.fragment())] {
                if let Some(part) = part {
                    path.push(mark);
                    path.push_str(part);
                }
            }
            Self(path)
        })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn return_to_takes_own_paths_only() {
        let origin = Url::parse("https://shop.example").unwrap();
        for (value, expected) in [
            ("/", Some("/")),
            ("/me?a=b&c=%2F#d", Some("/me?a=b&c=%2F#d")),
            ("/a/../b", Some("/b")),
            ("/é", Some("/%C3%A9")),
            ("/a?u=https://evil.example", Some("/a?u=https://evil.example")),
            ("", None),
            ("me", None),
            ("//evil.example", None),
            ("/\\evil.example", None),
            ("/..//evil.example", None),
            ("/.//evil.example", None),
            ("/\t/evil.example", None),
            ("https://shop.example/me", None),
            ("https:evil.example", None),
            ("javascript:alert(1)", None),
            ("/a\r\nSet-Cookie: x=y", None),
        ] {
            let parsed = ReturnTo::parse(value, &origin);
            assert_eq!(parsed.as_ref().map(ReturnTo::as_str), expected, "{value:?}");
        }
    }
}
