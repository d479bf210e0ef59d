//! What one attempt to log in has to remember until the browser comes back.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use url::Url;

use super::end_reason::EndMark;
use super::id::SessionKey;
use crate::protocol::authorization::Authentication;
use crate::protocol::names::KeyThumbprint;

/// A login has to be finished in this time.
pub(crate) const LOGIN_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// How much later than a logout arrived an attempt may have begun that it still covers: replicas measure the store's clock
/// once a minute, and a provider may send its logout tokens some time after the logout.
const COVER_TOLERANCE: Duration = Duration::from_secs(30);

/// When a login was begun, by the clock of the registry's store.
///
/// Exhaustive: tests of a store put it together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginAttempt {
    /// When the browser was sent to the provider.
    pub began_at: SystemTime,
    /// When the logout arrived because of which it was sent there once more.
    pub seen: Option<SystemTime>,
}

impl LoginAttempt {
    /// Whether the login may be of a session that this logout ended: the attempt began before it arrived, or not more than
    /// 30 s after, and not because of it. Wrong times may widen that; a login that is covered is sent through the provider
    /// once more and says which logout it has seen, so no clock decides in the end.
    #[must_use]
    pub fn is_covered_by(&self, arrived: SystemTime) -> bool {
        self.began_at <= arrived + COVER_TOLERANCE && self.seen.is_none_or(|seen| seen < arrived)
    }
}

/// Everything that one attempt to log in has to remember until the browser comes back.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct LoginTransaction {
    pub(crate) state: String,
    pub(crate) nonce: String,
    pub(crate) pkce_verifier: String,
    pub(crate) return_to: ReturnTo,
    /// By our own clock.
    pub(crate) started_at: SystemTime,
    pub(crate) authentication: Authentication,
    /// The session that a silent login is to confirm; no other login has one.
    pub(crate) session: Option<SessionKey>,
    /// By the store's clock. Attempts that an earlier version began have none, and are covered by any logout.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "in_millis")]
    pub(crate) began_at: Option<SystemTime>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "in_millis")]
    pub(crate) seen: Option<SystemTime>,
    /// The session that the browser had before, if that has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) follows: Option<EndMark>,
    /// What else the link to the login says to the provider.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) linked: Vec<(String, String)>,
    /// The key that its tokens are to be bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dpop_jkt: Option<KeyThumbprint>,
}

impl LoginTransaction {
    /// As the registry knows attempts; `now` is by the store's clock. One that is to begin yet began while that clock was ahead, nobody
    /// knows when: any logout covers it that it has not seen, as one whose beginning is not known.
    pub(crate) fn attempt(&self, now: SystemTime) -> LoginAttempt {
        let began_at = self.began_at.filter(|began_at| *began_at <= now + COVER_TOLERANCE);
        LoginAttempt { began_at: began_at.unwrap_or(SystemTime::UNIX_EPOCH), seen: self.seen }
    }
}

/// Cookies are small. Rounded up: who has seen a logout has seen all of it.
mod in_millis {
    use std::time::{Duration, SystemTime};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
        let since = |time: &SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let millis =
            time.as_ref().map(|time| u64::try_from(since(time).as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX));
        millis.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
        let millis = Option::<u64>::deserialize(deserializer)?;
        Ok(millis.and_then(|millis| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis))))
    }
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
    /// A path of the application's own making.
    pub(crate) fn own(path: String) -> Self {
        Self(path)
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
    fn p13_an_attempt_that_is_yet_to_begin_is_covered_by_any_logout() {
        let at = |second: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let mut transaction: LoginTransaction = serde_json::from_value(serde_json::json!({
            "state": "s", "nonce": "n", "pkce_verifier": "v", "return_to": "/", "started_at": at(0),
            "authentication": Authentication::default(), "session": null,
        }))
        .unwrap();
        // The store's clock was an hour ahead, and is right when the logout arrives and the login comes back.
        for (began_at, now, is_covered) in [
            (Some(at(3_600)), at(20), true),
            (Some(at(51)), at(20), true),
            (Some(at(50)), at(20), false),
            (Some(at(5)), at(20), true),
            (None, at(20), true),
        ] {
            transaction.began_at = began_at;
            assert_eq!(transaction.attempt(now).is_covered_by(at(15)), is_covered, "{began_at:?}");
        }
    }

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
