//! What holds of tombstones, leases and versions, whatever the order of what comes.

use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::session::record::strategies::cases;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A logout: the `iat` and `jti` of its token, if it has one, and how long after the one before it arrives. A clock that is
/// set back makes that negative.
fn logouts(most: usize) -> impl Strategy<Value = Vec<(Option<(u64, u8)>, i64)>> {
    let token = (0..6_u64, 0..40_u8);
    prop::collection::vec((option::weighted(0.9, token), -30..300_i64), 0..most)
}

fn mark((issued_at, jti): (u64, u8)) -> TokenMark {
    TokenMark::new(at(issued_at), &jti.to_string())
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn p15_no_token_renews_a_tombstone_twice(logouts in logouts(60), later in 0..300_u64) {
        let mut tombstone: Option<Tombstone> = None;
        let mut heard = Vec::new();
        let mut here = 10_000_u64;
        for (token, passed) in logouts {
            here = here.saturating_add_signed(passed);
            let before = tombstone.as_ref().map(Tombstone::arrived);
            let after = Tombstone::after(tombstone, token.map(mark).as_ref(), at(here));
            prop_assert!(before.is_none_or(|before| before <= after.arrived()), "it became older than it is");
            prop_assert!(before.is_none_or(|before| after.arrived() == before || after.arrived() == at(here)));
            if token.is_none() {
                prop_assert!(after.arrived() >= at(here), "the application means what it says");
            }
            heard.extend(token);
            // So many tokens of one second are told apart, and there are no more of one here.
            for known in heard.iter().rev().take(MOST_TOKENS) {
                let again = Tombstone::after(Some(after.clone()), Some(&mark(*known)), at(here + later));
                prop_assert_eq!(&again, &after, "a token that was heard says something new");
            }
            // A token of a later second is news.
            let news = Tombstone::after(Some(after.clone()), Some(&mark((99, 0))), after.arrived() + Duration::from_secs(later));
            prop_assert_eq!(news.arrived(), after.arrived() + Duration::from_secs(later));
            // A store that keeps it as serde writes it has the same.
            let written = serde_json::to_string(&after).unwrap();
            prop_assert_eq!(serde_json::from_str::<Tombstone>(&written).unwrap(), after.clone());
            prop_assert!(after.latest.as_ref().is_none_or(|(_, ids)| ids.len() <= MOST_TOKENS));
            tombstone = Some(after);
        }
    }

    #[test]
    fn p1_a_login_that_a_logout_may_be_of_is_never_stored(
        began_at in 0..1000_u64, seen in option::of(0..1000_u64), arrivals in prop::collection::vec(0..1000_u64, 0..5),
    ) {
        let attempt = LoginAttempt { began_at: at(began_at), seen: seen.map(at) };
        let all = || arrivals.iter().copied().map(at);
        let rule = create(Key::Free, attempt, all());
        let overtakes = |arrived: &u64| began_at <= arrived + 30 && seen.is_none_or(|seen| seen < *arrived);
        let last = arrivals.iter().copied().filter(overtakes).max();
        prop_assert_eq!(rule, last.map_or(CreateRule::Create, |last| CreateRule::Covered(at(last))));
        // One more logout uncovers nobody, whenever it arrives.
        for more in [0, began_at, 999] {
            let covered = create(Key::Free, attempt, all().chain([at(more)]));
            prop_assert!(rule == CreateRule::Create || matches!(covered, CreateRule::Covered(_)));
        }
        // P15: whoever is sent through the provider once more is through, whatever the clocks say.
        if let CreateRule::Covered(seen) = rule {
            for began_at in [0, began_at, 2000] {
                let again = LoginAttempt { began_at: at(began_at), seen: Some(seen) };
                let rest = all().filter(|arrived| *arrived <= seen);
                prop_assert_eq!(create(Key::Free, again, rest), CreateRule::Create);
            }
        }
    }

    #[test]
    fn a_tombstone_is_kept_as_long_as_a_login_may_need_it(
        issued_at in 0..10_000_u64, now in 0..10_000_u64, here in 0..10_000_u64, began_ago in 0..600_u64,
    ) {
        let token = mark((issued_at, 0));
        // A login that is under way began at most ten minutes ago; the token is of a logout after that.
        if now.min(here).saturating_sub(began_ago) <= issued_at {
            prop_assert!(leaves_tombstone(Some(&token), at(now), at(here)));
        }
        let tombstone = Tombstone::after(None, Some(&token), at(here));
        prop_assert!(tombstone.until() >= at(here + began_ago));
    }

    #[test]
    fn p3_no_lease_is_given_away_before_its_time(
        steps in prop::collection::vec((0..3_u8, 0..8_u64, any::<bool>()), 1..80),
    ) {
        const LEASE: u64 = 15;
        let grace = LAPSE_GRACE.as_secs();
        let mut now = 0;
        // By whom, until when, and since when somebody else has asked.
        let mut lease: Option<(u8, u64, Option<u64>)> = None;
        for (caller, passed, release) in steps {
            now += passed;
            let held = lease.and_then(|(holder, until, contested)| Held::at(at(now), holder, at(until), contested.map(at)));
            match claim(Some((Version::FIRST, held)), Version::FIRST, &caller) {
                ClaimRule::Grant => {
                    if let Some((holder, until, contested)) = lease && holder != caller {
                        let asked = contested.expect("nobody had asked");
                        prop_assert!(asked >= until && now >= asked + grace, "{lease:?} at {now}");
                    }
                    lease = Some((caller, now + LEASE, None));
                    // Who has it gives it back now and then.
                    if release {
                        lease = None;
                    }
                }
                ClaimRule::Contest => {
                    let (holder, until, contested) = lease.expect("somebody has it");
                    prop_assert!(holder != caller && now >= until && contested.is_none());
                    lease = Some((holder, until, Some(now)));
                }
                ClaimRule::Held => prop_assert!(lease.is_some_and(|(holder, ..)| holder != caller)),
                other => prop_assert!(false, "{other:?}"),
            }
        }
        // P15: however it is held, somebody gets it in the end.
        let (holder, until, _) = lease.unwrap_or((0, 0, None));
        let late = at(now.max(until) + grace + 1);
        prop_assert_eq!(Held::at(late, holder, at(until), Some(at(now.max(until)))), None);
    }

    #[test]
    fn p1_of_changes_made_from_one_version_one_is_stored(versions in prop::collection::vec(1..6_u64, 1..40)) {
        let mut stored = Version::FIRST;
        let mut made = std::collections::BTreeSet::new();
        for version in versions.into_iter().map(Version::from_number) {
            match commit(Some(stored), version) {
                CommitRule::Commit => {
                    prop_assert!(made.insert(version), "two changes of one version were stored");
                    stored = stored.next();
                }
                CommitRule::Stale => prop_assert_ne!(stored, version),
                CommitRule::Gone => prop_assert!(false, "it is there"),
            }
            prop_assert_eq!(commit(None, version), CommitRule::Gone);
            prop_assert_eq!(claim::<u8>(None, version, &0), ClaimRule::Gone);
        }
    }

    #[test]
    fn a_logout_by_subject_reaches_no_further_than_one_by_sid(issued_at in 0..10_000_u64) {
        use crate::protocol::names::{ClientId, Issuer, Registration, Sid, Subject};

        let registration = Registration::new(Issuer::new("https://op.example"), ClientId::new("shop"));
        let token = mark((issued_at, 0));
        let by_sid = reach(&LogoutTarget::Sid {
            registration: registration.clone(), sid: Sid::new("sid"), subject: None, token,
        });
        prop_assert!(by_sid.by_subject <= by_sid.by_sid && by_sid.by_subject >= Some(at(issued_at)));
        let by_subject = |token| reach(&LogoutTarget::Subject {
            registration: registration.clone(), subject: Subject::new("alice"), token,
        });
        prop_assert_eq!(by_subject(Some(token)), by_sid);
        prop_assert_eq!(by_subject(None), Reach { by_sid: None, by_subject: None });
    }
}
