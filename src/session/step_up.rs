//! Whether a login that an API asks for can help.

use std::time::{Duration, SystemTime};

use crate::protocol::authorization::Authentication;

/// A login that was made as an API asked, and does not content it, is not repeated for so long.
const PAUSE: Duration = Duration::from_secs(60);
/// Where a login has to be even younger than that, this much time is left for coming back from it.
const SHORTEST_PAUSE: Duration = Duration::from_secs(10);

/// Whether the user has only just logged in as `wanted`, so that another login would change nothing: without this an API
/// that is never content sends browsers round in circles.
pub(crate) fn is_hopeless(
    login: &Authentication,
    logged_in_at: SystemTime,
    wanted: &Authentication,
    now: SystemTime,
) -> bool {
    let pause = wanted.max_age.map_or(PAUSE, |max_age| max_age.clamp(SHORTEST_PAUSE, PAUSE));
    login.acr_values == wanted.acr_values && login.max_age == wanted.max_age && now < logged_in_at + pause
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_that_cannot_help() {
        let wanted = |acr: Option<&str>, max_age: Option<u64>| Authentication {
            acr_values: acr.map(str::to_owned),
            max_age: max_age.map(Duration::from_secs),
            ..Authentication::default()
        };
        for (login, challenge, seconds, expected) in [
            (wanted(None, None), wanted(Some("gold"), None), 0, false),
            (wanted(Some("gold"), None), wanted(Some("gold"), None), 59, true),
            (wanted(Some("gold"), None), wanted(Some("gold"), None), 60, false),
            (wanted(Some("gold"), None), wanted(Some("gold"), Some(5)), 0, false),
            (wanted(None, Some(5)), wanted(None, Some(5)), 9, true),
            (wanted(None, Some(5)), wanted(None, Some(5)), 10, false),
            (wanted(None, Some(30)), wanted(None, Some(30)), 29, true),
            (wanted(None, Some(30)), wanted(None, Some(30)), 30, false),
            (wanted(None, Some(3600)), wanted(None, Some(3600)), 60, false),
        ] {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let found = is_hopeless(&login, SystemTime::UNIX_EPOCH, &challenge, now);
            assert_eq!(found, expected, "{login:?} {challenge:?} {seconds} s");
        }
    }
}
