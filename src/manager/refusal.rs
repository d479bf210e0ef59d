//! Why a request is not served.

use std::time::Duration;

use crate::session::end_reason::EndReason;

/// What a client waits before it asks again when the registry failed.
pub(crate) const REGISTRY_RETRY_AFTER: RetryAfter = RetryAfter(Duration::from_secs(1));

/// Why a request is not served with the session that it claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The session ended, just now or before.
    Ended(EndReason),
    /// The request was made for another user than the session's.
    OtherUser,
    /// The browser has to go through the provider first, without the user noticing.
    SilentLogin,
    /// Nobody can tell at the moment.
    Unavailable(RetryAfter),
    /// It may still stand, but only user activity may ask the provider.
    Unconfirmed,
    /// There is none, or it ended so long ago that nobody knows why.
    Unknown,
}

impl Refusal {
    /// Whether the session is over for good.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Ended(_) | Self::Unknown)
    }

    pub(crate) fn over(reason: Option<EndReason>) -> Self {
        reason.map_or(Self::Unknown, Self::Ended)
    }
}

/// How long a client had better wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetryAfter(pub(crate) Duration);
