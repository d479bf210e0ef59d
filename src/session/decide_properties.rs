//! What holds of every session, policy and moment.

use proptest::prelude::*;
use proptest::sample::select;

use super::Decision::{End, Proceed, Refuse, Signal, SilentLogin, Wait};
use super::*;
use crate::session::policy::RequestKind::{Navigation, Passive, UserActivity};
use crate::session::record::strategies::{cases, duration, policy, timed_record};

fn kind() -> impl Strategy<Value = RequestKind> {
    select(vec![Navigation, UserActivity, Passive])
}

/// A moment that matters to a session: about one of its deadlines, or anywhere.
fn now(record: &SessionRecord, policy: &SessionPolicy, which: u8, beside: Duration, before: bool) -> SystemTime {
    let at = match which {
        0 => record.signal_deadline(policy),
        1 => record.idle_deadline(policy),
        2 => record.absolute_deadline(policy).0,
        3 => record.silent_login_at.unwrap_or(record.last_signal) + SILENT_LOGIN_PAUSE,
        _ => record.last_signal,
    };
    if before { at.checked_sub(beside).unwrap_or(at) } else { at + beside }
}

fn moments() -> impl Strategy<Value = (u8, Duration, bool)> {
    let beside = prop_oneof![Just(Duration::ZERO), Just(Duration::from_nanos(1)), duration()];
    (0..5_u8, beside, any::<bool>())
}

/// How far a session has come: it is served, somebody has to be asked first, it is over.
fn stage(decision: Decision) -> u8 {
    match decision {
        Proceed => 0,
        Signal | SilentLogin | Wait(_) | Refuse => 1,
        End(_) => 2,
    }
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn p5_a_passive_request_asks_nobody(
        record in timed_record(), policy in policy(), (which, beside, before) in moments(), kind in kind(),
    ) {
        let now = now(&record, &policy, which, beside, before);
        let decision = decide(&record, &policy, now, kind);
        let asks = matches!(decision, Signal | SilentLogin | Wait(_));
        prop_assert!(kind != Passive || !asks, "{decision:?}");
        // A script cannot be sent elsewhere.
        prop_assert!(kind == Navigation || !matches!(decision, SilentLogin | Wait(_)), "{decision:?}");
    }

    #[test]
    fn p8_nothing_is_served_after_a_deadline(
        record in timed_record(), policy in policy(), (which, beside, before) in moments(), kind in kind(),
    ) {
        let now = now(&record, &policy, which, beside, before);
        let (deadline, reason) = record.absolute_deadline(&policy);
        match decide(&record, &policy, now, kind) {
            Proceed => prop_assert!(now < deadline && is_confirmed(&record, &policy, now)),
            // Whatever is asked first, the session may still be confirmed.
            Signal | SilentLogin | Refuse | Wait(_) => prop_assert!(now < deadline),
            End(why) if now >= deadline => prop_assert_eq!(why, reason),
            // P4: silence ends nothing that the provider can be asked about.
            End(why) => {
                prop_assert!(!record.can_signal() && !is_confirmed(&record, &policy, now));
                prop_assert_eq!(why, EndReason::IdleTimeout);
            }
        }
        let served = decide(&record, &policy, now, Passive) == Proceed;
        prop_assert_eq!(served, now < next_deadline(&record, &policy), "streams are looked at again in time");
    }

    #[test]
    fn time_makes_no_session_younger(
        record in timed_record(), policy in policy(), (which, beside, before) in moments(), later in duration(), kind in kind(),
    ) {
        // A clock that was ahead has dated what is in the future.
        let dated = record.last_signal.max(record.silent_login_at.unwrap_or(record.last_signal));
        let earlier = now(&record, &policy, which, beside, before).max(dated);
        let first = decide(&record, &policy, earlier, kind);
        let second = decide(&record, &policy, earlier + later, kind);
        prop_assert!(stage(first) <= stage(second), "{first:?}, then {second:?}");
        if let Wait(left) = first {
            prop_assert!(!left.is_zero() && left <= SILENT_LOGIN_PAUSE);
            let after = decide(&record, &policy, earlier + left, kind);
            prop_assert!(matches!(after, SilentLogin | End(_)), "{after:?}");
        }
    }

    #[test]
    fn who_does_less_is_asked_for_no_more(
        record in timed_record(), policy in policy(), (which, beside, before) in moments(),
    ) {
        let now = now(&record, &policy, which, beside, before);
        let [navigation, activity, passive] =
            [Navigation, UserActivity, Passive].map(|kind| decide(&record, &policy, now, kind));
        prop_assert!(navigation != Proceed || activity == Proceed);
        prop_assert!(activity != Proceed || passive == Proceed);
        let ends = [navigation, activity, passive].map(|decision| stage(decision) == 2);
        prop_assert!(ends == [true; 3] || ends == [false; 3], "an end is nobody's own");
    }

    #[test]
    fn p13_a_store_that_keeps_a_record_until_it_expires_keeps_it_long_enough(
        record in timed_record(), policy in policy(), (which, beside, before) in moments(), kind in kind(),
    ) {
        let record = record.with_expiry(&policy);
        let now = now(&record, &policy, which, beside, before);
        let decision = decide(&record, &policy, now, kind);
        prop_assert_eq!(stage(decision) == 2, now >= record.expires_at());
        let confirmed_until = record.expires_at() - record.unconfirmed_for();
        prop_assert_eq!(decide(&record, &policy, now, Passive) == Proceed, now < confirmed_until);
    }
}
