//! Times and reasons as stores write them.

use std::time::{Duration, SystemTime};

use super::RegistryError;
use super::codec::unreadable;
use crate::session::end_reason::EndReason;

/// A point in time as stores write it.
pub(crate) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}

/// A point in time as stores write it, read back.
pub(crate) fn from_millis(millis: u64) -> Result<SystemTime, RegistryError> {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis));
    time.ok_or_else(|| RegistryError::new("the store names a time that cannot be"))
}

/// Why a session ended, as the store tells it. A reason of a newer version is none that can be told here.
pub(crate) fn reason_from(text: &[u8]) -> Result<EndReason, RegistryError> {
    let reason = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    reason.ok_or_else(|| unreadable("why it ended is not known here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p13_a_reason_that_is_not_known_is_an_error() {
        assert_eq!(reason_from(b"back_channel_logout").unwrap(), EndReason::BackChannelLogout);
        for text in [&b"a_reason_of_tomorrow"[..], b"", b"\xff"] {
            assert!(reason_from(text).is_err());
        }
    }
}
