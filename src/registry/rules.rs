//! The decisions of a registry, for stores of every kind: pure functions of what is stored, what is asked and the time.
//!
//! A store that decides in its own process, under a lock or in a transaction, calls them; one that decides on a server has
//! them written down there, as [`RedisRegistry`](crate::RedisRegistry) has in Lua. The crate's model of replicas, stores and
//! logouts explores these functions in every order of steps. All types are exhaustive: a store has to answer each.

use std::collections::VecDeque;
use std::ops::Add;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{LAPSE_GRACE, LogoutTarget, SID_TOLERANCE, SUBJECT_TOLERANCE, TOMBSTONE_RETENTION, TokenMark};
use crate::session::login_attempt::LoginAttempt;
use crate::session::record::Version;

/// Whether a new session may be stored.
///
/// Exhaustive: a store has to answer each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateRule {
    /// A logout that arrived then has overtaken the login.
    Covered(SystemTime),
    /// It is stored.
    Create,
    /// The key is taken.
    Exists,
}

/// Whether a new session is stored. `arrivals` are of the logouts whose tombstones name the login.
pub fn create(key: Key, attempt: LoginAttempt, arrivals: impl IntoIterator<Item = SystemTime>) -> CreateRule {
    match (key, cover(attempt, arrivals)) {
        (Key::Taken, _) => CreateRule::Exists,
        (Key::Free, Some(arrived)) => CreateRule::Covered(arrived),
        (Key::Free, None) => CreateRule::Create,
    }
}

/// Whether a key is, or was, a session's.
///
/// Exhaustive: a store says which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// It never was.
    Free,
    /// It is, or a mark says that it was.
    Taken,
}

/// When the last of those logouts arrived that cover a login.
fn cover(attempt: LoginAttempt, arrivals: impl IntoIterator<Item = SystemTime>) -> Option<SystemTime> {
    arrivals.into_iter().filter(|arrived| attempt.is_covered_by(*arrived)).max()
}

/// What is remembered of the logouts of one `sid` or subject.
///
/// Stores keep it as serde writes it, or tell [`arrived`](Self::arrived) and [`until`](Self::until) apart to search by them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    pub(crate) arrived: SystemTime,
    /// The latest `iat`, and the tokens with it; the application has none.
    pub(crate) latest: Option<(SystemTime, VecDeque<u128>)>,
}

/// So many tokens of one second are told apart.
const MOST_TOKENS: usize = 32;

impl Tombstone {
    /// When the last logout arrived that was not heard before, by the store's clock.
    #[must_use]
    pub fn arrived(&self) -> SystemTime {
        self.arrived
    }

    /// Until when it is kept.
    #[must_use]
    pub fn until(&self) -> SystemTime {
        self.arrived + TOMBSTONE_RETENTION
    }

    /// The tombstone after a logout that arrives at `arrived`; `before` is one that is kept until later. Whoever sends one token again renews nothing: it would shut
    /// out the user whom it logged out.
    #[must_use]
    pub fn after(before: Option<Self>, token: Option<&TokenMark>, arrived: SystemTime) -> Self {
        let Some(mut tombstone) = before else {
            let latest = token.map(|token| (token.issued_at(), VecDeque::from([token.id()])));
            return Self { arrived, latest };
        };
        let renews = match (token, &mut tombstone.latest) {
            (None, _) => true,
            (Some(token), Some((issued_at, _))) if token.issued_at() < *issued_at => false,
            (Some(token), Some((issued_at, ids))) if token.issued_at() == *issued_at => {
                let is_new = !ids.contains(&token.id());
                if is_new {
                    ids.push_back(token.id());
                    ids.drain(..ids.len().saturating_sub(MOST_TOKENS));
                }
                is_new
            }
            (Some(token), latest) => {
                *latest = Some((token.issued_at(), VecDeque::from([token.id()])));
                true
            }
        };
        if renews {
            tombstone.arrived = tombstone.arrived.max(arrived);
        }
        tombstone
    }
}

/// Whether a logout leaves a tombstone: no login that is under way is older than the retention, so a token that is
/// overtakes none. By the replica's clock, `now`, and by the store's, `here`, one of which may be ahead.
#[must_use]
pub fn leaves_tombstone(token: Option<&TokenMark>, now: SystemTime, here: SystemTime) -> bool {
    token.is_none_or(|token| now.min(here) <= token.issued_at() + TOMBSTONE_RETENTION)
}

/// Which sessions a logout ends, by when the ID token of their login was issued; `None` stands for all.
///
/// Exhaustive: a store has to heed all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// With exactly the `sid`.
    pub by_sid: Option<SystemTime>,
    /// Of the subject.
    pub by_subject: Option<SystemTime>,
}

/// Which sessions a logout ends.
#[must_use]
pub fn reach(target: &LogoutTarget) -> Reach {
    let latest = |tolerance: Duration| target.token().map(|token| token.issued_at() + tolerance);
    Reach { by_sid: latest(SID_TOLERANCE), by_subject: latest(SUBJECT_TOLERANCE) }
}

/// Who may refresh.
///
/// Exhaustive: a store has to answer each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimRule {
    /// The record has another version by now.
    Changed,
    /// Another's lease ran out, and this is the first to ask: from now on it is held for [`LAPSE_GRACE`].
    Contest,
    /// There is no live session.
    Gone,
    /// The lease is the caller's.
    Grant,
    /// It is somebody else's.
    Held,
}

/// The lease of a session.
///
/// Exhaustive: a store says which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Held<H> {
    /// It runs.
    Running(H),
    /// It ran out, and nobody has asked since.
    Lapsed(H),
    /// It ran out, somebody has asked, and its holder has some time left.
    Contested(H),
}

impl<H> Held<H> {
    /// The state of a lease at `now`, that runs until `until` and was first asked for by another after that at `contested`;
    /// nothing when its time is over for good. By whichever clock the store has for leases.
    pub fn at<T>(now: T, holder: H, until: T, contested: Option<T>) -> Option<Self>
    where
        T: Copy + PartialOrd + Add<Duration, Output = T>,
    {
        match contested {
            _ if now < until => Some(Self::Running(holder)),
            None => Some(Self::Lapsed(holder)),
            Some(since) if now < since + LAPSE_GRACE => Some(Self::Contested(holder)),
            Some(_) => None,
        }
    }
}

/// Who gets the lease. `stored` is the version of a live session and who has its lease.
pub fn claim<H: PartialEq>(stored: Option<(Version, Option<Held<H>>)>, version: Version, holder: &H) -> ClaimRule {
    match stored {
        None => ClaimRule::Gone,
        Some((current, _)) if current != version => ClaimRule::Changed,
        Some((_, None)) => ClaimRule::Grant,
        Some((_, Some(Held::Running(current) | Held::Lapsed(current) | Held::Contested(current))))
            if current == *holder =>
        {
            ClaimRule::Grant
        }
        Some((_, Some(Held::Lapsed(_)))) => ClaimRule::Contest,
        Some((_, Some(Held::Running(_) | Held::Contested(_)))) => ClaimRule::Held,
    }
}

/// Whether a changed record may be stored.
///
/// Exhaustive: a store has to answer each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitRule {
    /// It is.
    Commit,
    /// The session is gone.
    Gone,
    /// Somebody else has changed it.
    Stale,
}

/// `stored` is the version of the live session, `made_from` the one that the change was made from.
#[must_use]
pub fn commit(stored: Option<Version>, made_from: Version) -> CommitRule {
    match stored {
        None => CommitRule::Gone,
        Some(current) if current != made_from => CommitRule::Stale,
        Some(_) => CommitRule::Commit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn p13_tombstones_in_the_format_of_earlier_versions_are_read() {
        let golden = include_str!("../../tests/golden/tombstone_1.json");
        let tombstone: Tombstone = serde_json::from_str(golden).unwrap();
        assert_eq!(
            tombstone.latest.as_ref().map(|(issued_at, ids)| (*issued_at, ids.len())),
            Some((at(1_699_999_999), 2))
        );
        assert_eq!(serde_json::to_string(&tombstone).unwrap(), golden.trim());
    }

    #[test]
    fn p1_a_logout_covers_the_logins_that_began_before_it_was_seen() {
        for (began_at, seen, arrivals, expected) in [
            (100, None, &[][..], CreateRule::Create),
            (100, None, &[200], CreateRule::Covered(at(200))),
            // Whatever clocks differ by, and the time that a logout token takes.
            (230, None, &[200], CreateRule::Covered(at(200))),
            (231, None, &[200], CreateRule::Create),
            (231, None, &[200, 210], CreateRule::Covered(at(210))),
            (100, None, &[300, 200], CreateRule::Covered(at(300))),
            // It was begun because of that logout.
            (201, Some(200), &[200], CreateRule::Create),
            (201, Some(200), &[200, 190], CreateRule::Create),
            (201, Some(200), &[200, 205], CreateRule::Covered(at(205))),
        ] {
            let attempt = LoginAttempt { began_at: at(began_at), seen: seen.map(at) };
            let arrivals = || arrivals.iter().copied().map(at);
            assert_eq!(create(Key::Free, attempt, arrivals()), expected, "{began_at} {seen:?}");
            assert_eq!(create(Key::Taken, attempt, arrivals()), CreateRule::Exists);
        }
    }

    #[test]
    fn p15_no_token_that_is_sent_again_renews_a_tombstone() {
        let token = |issued_at, jti| Some(TokenMark::new(at(issued_at), jti));
        let mut tombstone = None;
        for (token, arrives, expected) in [
            (token(100, "a"), 100, 100),
            (token(100, "a"), 101, 100),
            (token(99, "b"), 102, 100),
            (token(100, "c"), 103, 103),
            (token(100, "a"), 104, 103),
            (token(101, "a"), 105, 105),
            (token(100, "d"), 106, 105),
            // The application means what it says.
            (None, 107, 107),
            (token(101, "a"), 108, 107),
            // A clock that was set back makes nothing younger than it is.
            (token(109, "e"), 90, 107),
        ] {
            let after = Tombstone::after(tombstone, token.as_ref(), at(arrives));
            assert_eq!(after.arrived, at(expected), "{arrives}");
            tombstone = Some(after);
        }
    }

    #[test]
    fn p12_a_tombstone_keeps_a_bounded_number_of_tokens() {
        let mut tombstone = None;
        for number in 0..100 {
            let token = TokenMark::new(at(100), &number.to_string());
            tombstone = Some(Tombstone::after(tombstone, Some(&token), at(100 + number)));
        }
        let tombstone = tombstone.unwrap();
        assert_eq!((tombstone.arrived, tombstone.latest.unwrap().1.len()), (at(199), MOST_TOKENS));
    }

    #[test]
    fn tokens_that_overtake_nobody_leave_no_tombstone() {
        let token = TokenMark::new(at(100), "a");
        let retention = TOMBSTONE_RETENTION.as_secs();
        for (now, here, expected) in [
            (100 + retention, 100 + retention, true),
            // The provider's clock is ahead, or one of ours.
            (50, 50, true),
            (101 + retention, 100 + retention, true),
            (100 + retention, 101 + retention, true),
            (101 + retention, 101 + retention, false),
        ] {
            assert_eq!(leaves_tombstone(Some(&token), at(now), at(here)), expected, "{now} {here}");
        }
        assert!(leaves_tombstone(None, at(5000), at(5000)));
    }

    #[test]
    fn p3_a_lease_that_ran_out_is_its_holders_for_a_while() {
        let grace = LAPSE_GRACE.as_secs();
        for (now, contested, expected) in [
            (99, None, Some(Held::Running('a'))),
            (99, Some(90), Some(Held::Running('a'))),
            (100, None, Some(Held::Lapsed('a'))),
            (5000, None, Some(Held::Lapsed('a'))),
            (200 + grace - 1, Some(200), Some(Held::Contested('a'))),
            (200 + grace, Some(200), None),
        ] {
            assert_eq!(Held::at(at(now), 'a', at(100), contested.map(at)), expected, "{now} {contested:?}");
        }
    }

    #[test]
    fn p2_p3_whose_a_lease_is() {
        let (one, two) = (Version::FIRST, Version::FIRST.next());
        for (stored, expected) in [
            (None, ClaimRule::Gone),
            (Some((two, None)), ClaimRule::Changed),
            (Some((two, Some(Held::Lapsed('a')))), ClaimRule::Changed),
            (Some((one, None)), ClaimRule::Grant),
            (Some((one, Some(Held::Running('a')))), ClaimRule::Held),
            (Some((one, Some(Held::Lapsed('a')))), ClaimRule::Contest),
            (Some((one, Some(Held::Contested('a')))), ClaimRule::Held),
            (Some((one, Some(Held::Running('b')))), ClaimRule::Grant),
            (Some((one, Some(Held::Lapsed('b')))), ClaimRule::Grant),
            (Some((one, Some(Held::Contested('b')))), ClaimRule::Grant),
        ] {
            assert_eq!(claim(stored, one, &'b'), expected, "{stored:?}");
        }
    }
}

#[cfg(test)]
#[path = "rules_properties.rs"]
mod properties;
