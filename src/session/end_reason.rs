//! Why sessions end, and what is left of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::id::SubjectHash;

macro_rules! end_reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a session ended.
        ///
        /// Its text, by [`Display`](fmt::Display) and [`as_str`](EndReason::as_str), is a stable name for logs, metrics and
        /// stores; [`FromStr`] reads it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum EndReason {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl EndReason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The stable name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

end_reasons! {
    /// The absolute lifetime was over.
    AbsoluteLifetime = "absolute_lifetime",
    /// An API or the userinfo endpoint refused the access token and no better one was to be had.
    AccessTokenRejected = "access_token_rejected",
    /// The provider sent a logout token that does not say why.
    BackChannelLogout = "back_channel_logout",
    /// The application ended it.
    EndedByApplication = "ended_by_application",
    /// A page of the provider, or of whoever knew the `sid`, told the browser to load our front-channel logout.
    FrontChannelLogout = "front_channel_logout",
    /// A session that cannot signal saw no activity for the provider's inactivity timeout.
    IdleTimeout = "idle_timeout",
    /// The provider answered a silent login with `login_required`: its session is over.
    LoginRequired = "login_required",
    /// The provider's answer to a refresh spoke of another user or login.
    ProviderMisbehaved = "provider_misbehaved",
    /// The provider sent a logout token whose `logout_reason` says that its session was idle for too long, or too old.
    ProviderSessionExpired = "provider_session_expired",
    /// The same, or an event of a transmitter, that somebody ended it who may: an administrator.
    ProviderTerminated = "provider_terminated",
    /// The same, or an event of a transmitter, that its user signed out, in another application or at the provider.
    ProviderUserLogout = "provider_user_logout",
    /// The provider refused the refresh: its session is over.
    RefreshTokenRejected = "refresh_token_rejected",
    /// The user logged out in this application.
    RpInitiatedLogout = "rp_initiated_logout",
    /// The time that the provider set with `session_expiry` has come.
    SessionExpiry = "session_expiry",
    /// A transmitter of security events said that it is revoked, and not by whom.
    SessionRevoked = "session_revoked",
    /// The user logged in again in the same browser.
    SupersededByLogin = "superseded_by_login",
    /// The user had more sessions than [`SessionPolicy::sessions_per_user`](crate::SessionPolicy::sessions_per_user) allows: this was the
    /// oldest.
    TooManySessions = "too_many_sessions",
}

/// A text that names no end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no end of a session has this name")]
#[non_exhaustive]
pub struct UnknownEndReason;

impl FromStr for EndReason {
    type Err = UnknownEndReason;

    fn from_str(name: &str) -> Result<Self, UnknownEndReason> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == name).ok_or(UnknownEndReason)
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is left of a session that ended.
///
/// Exhaustive: registries put it together from what they have stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndMark {
    /// Why it ended.
    pub reason: EndReason,
    /// Whose it was; sessions that were ended by an earlier version do not say.
    pub subject: Option<SubjectHash>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p13_what_earlier_versions_have_written_of_ends_is_read() {
        // A name may be added; none goes, nor gets another meaning.
        for name in include_str!("../../tests/golden/end_reasons_1.txt").lines() {
            assert_eq!(name.parse().map(EndReason::as_str), Ok(name));
        }
        assert_eq!("unheard_of".parse::<EndReason>(), Err(UnknownEndReason));
        let golden = include_str!("../../tests/golden/end_mark_1.json");
        let mark: EndMark = serde_json::from_str(golden).unwrap();
        assert_eq!((mark.reason, mark.subject), (EndReason::IdleTimeout, Some(SubjectHash::from_bytes([7; 32]))));
        assert_eq!(serde_json::to_string(&mark).unwrap(), golden.trim());
    }
}
