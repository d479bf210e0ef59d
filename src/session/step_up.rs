//! Whether a login that an API asks for can help.

use std::time::{Duration, SystemTime};

use crate::protocol::authorization::{Authentication, can_be_asked_for};

/// A login that was made as an API asked, and does not content it, is not repeated for so long.
const PAUSE: Duration = Duration::from_secs(60);
/// Where a login has to be even younger than that, this much time is left for coming back from it.
const SHORTEST_PAUSE: Duration = Duration::from_secs(30);

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

/// The login that brings an authentication of one of these kinds, not older than that: one that asked for an
/// age goes on doing so, and so does one that asked for a kind, or two who want an age and a kind send browsers from one to the other.
/// Of two who want different kinds a login can content only one. Kinds that no login could be begun with are not asked for: the
/// link would be a dead end.
pub(crate) fn wanted(login: &Authentication, acr_values: Option<&str>, max_age: Option<Duration>) -> Authentication {
    let acr_values =
        acr_values.filter(|values| !values.trim().is_empty() && can_be_asked_for(values)).map(str::to_owned);
    let max_ages = [max_age, login.max_age].into_iter().flatten();
    Authentication {
        acr_values: acr_values.or_else(|| login.acr_values.clone()),
        max_age: max_ages.min(),
        ..Authentication::default()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::session) fn of(acr: Option<&str>, max_age: Option<u64>) -> Authentication {
        Authentication {
            acr_values: acr.map(str::to_owned),
            max_age: max_age.map(Duration::from_secs),
            ..Authentication::default()
        }
    }

    #[test]
    fn a_login_asks_for_no_less_than_the_one_before() {
        for (login, acr, max_age, expected) in [
            (of(None, None), Some("gold"), None, of(Some("gold"), None)),
            (of(Some("gold"), None), None, Some(300), of(Some("gold"), Some(300))),
            (of(Some("gold"), Some(300)), Some("platinum"), None, of(Some("platinum"), Some(300))),
            (of(None, Some(60)), None, Some(300), of(None, Some(60))),
            (of(None, None), Some(" "), None, of(None, None)),
            (of(None, None), Some("größer"), Some(300), of(None, Some(300))),
            (of(Some("gold"), None), Some(&"a".repeat(501)), None, of(Some("gold"), None)),
        ] {
            assert_eq!(
                wanted(&login, acr, max_age.map(Duration::from_secs)),
                expected,
                "{login:?} {acr:?} {max_age:?}"
            );
        }
    }

    #[test]
    fn logins_that_cannot_help() {
        for (login, challenge, seconds, expected) in [
            (of(None, None), of(Some("gold"), None), 0, false),
            (of(Some("gold"), None), of(Some("gold"), None), 59, true),
            (of(Some("gold"), None), of(Some("gold"), None), 60, false),
            (of(Some("gold"), None), of(Some("gold"), Some(5)), 0, false),
            (of(None, Some(5)), of(None, Some(5)), 29, true),
            (of(None, Some(5)), of(None, Some(5)), 30, false),
            (of(None, Some(30)), of(None, Some(30)), 29, true),
            (of(None, Some(30)), of(None, Some(30)), 30, false),
            (of(None, Some(3600)), of(None, Some(3600)), 60, false),
        ] {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let found = is_hopeless(&login, SystemTime::UNIX_EPOCH, &challenge, now);
            assert_eq!(found, expected, "{login:?} {challenge:?} {seconds} s");
        }
    }
}
