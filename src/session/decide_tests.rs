use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Decision::{End, Proceed, Refuse, Signal, SilentLogin, Wait};
use super::*;
use crate::session::policy::RequestKind::{Navigation, Passive, UserActivity};
use crate::session::record::{Login, samples};

const T: u64 = 900;
const G: u64 = 300;
const ABSOLUTE: u64 = 3600;
const START: SystemTime = SystemTime::UNIX_EPOCH;

fn policy() -> SessionPolicy {
    SessionPolicy::new()
        .op_session_lifetime(Duration::from_secs(T))
        .access_token_lifetime(Duration::from_secs(G))
        .absolute_lifetime(Duration::from_secs(ABSOLUTE))
}

fn record(signal: ActivitySignal) -> SessionRecord {
    let mut record = samples::record();
    let mut login = Login::clone(&record.login);
    login.signal = signal;
    record.login = Arc::new(login);
    record
}

/// `at` is in seconds after the start, the time of the last signal.
#[track_caller]
fn check(record: &SessionRecord, kind: RequestKind, table: &[(f64, Decision)]) {
    for (at, expected) in table {
        let decision = decide(record, &policy(), START + Duration::from_secs_f64(*at), kind);
        assert_eq!(decision, *expected, "{:?}, {kind:?} at {at} s", record.login.signal);
    }
}

#[test]
fn boundaries_of_g_and_t() {
    for signal in [ActivitySignal::Refresh, ActivitySignal::UserInfo] {
        let record = record(signal);
        check(&record, UserActivity, &[(0., Proceed), (299., Proceed), (300., Signal), (301., Signal)]);
        check(&record, UserActivity, &[(899., Signal), (900., Signal), (901., Signal)]);
        check(&record, Navigation, &[(0., Proceed), (299., Proceed), (300., Signal), (899., Signal), (900., Signal)]);
        check(&record, Passive, &[(0., Proceed), (299., Proceed), (300., Proceed), (899., Proceed)]);
        check(&record, Passive, &[(900., Refuse), (901., Refuse)]);
    }
    let record = record(ActivitySignal::None);
    let idle = End(EndReason::IdleTimeout);
    check(&record, UserActivity, &[(299., Proceed), (300., Signal), (899., Signal), (900., idle), (901., idle)]);
    check(&record, Passive, &[(300., Proceed), (899., Proceed), (900., idle), (901., idle)]);
}

#[test]
fn silent_logins_are_for_navigations_and_one_at_a_time() {
    let never_tried = record(ActivitySignal::SilentLogin);
    check(&never_tried, Navigation, &[(0., Proceed), (299., Proceed), (300., SilentLogin), (899., SilentLogin)]);
    check(&never_tried, Navigation, &[(900., SilentLogin), (3599., SilentLogin)]);
    for kind in [UserActivity, Passive] {
        check(&never_tried, kind, &[(0., Proceed), (300., Proceed), (899., Proceed), (900., Refuse), (901., Refuse)]);
    }
    let tried = |at: u64| {
        let mut record = record(ActivitySignal::SilentLogin);
        record.silent_login_at = Some(START + Duration::from_secs(at));
        record
    };
    check(&tried(300), Navigation, &[(300., Proceed), (329., Proceed), (330., SilentLogin)]);
    let wait = |seconds| Wait(Duration::from_secs(seconds));
    check(&tried(890), Navigation, &[(899., Proceed), (900., wait(20)), (919., wait(1)), (920., SilentLogin)]);
    check(&tried(890), UserActivity, &[(899., Proceed), (900., Refuse)]);
    check(&tried(290), Navigation, &[(299., Proceed)]);
    let over = End(EndReason::AbsoluteLifetime);
    check(&tried(3590), Navigation, &[(3599., wait(21)), (3600., over)]);
}

#[test]
fn boundary_of_the_absolute_lifetime() {
    for kind in [UserActivity, Passive] {
        let mut record = record(ActivitySignal::Refresh);
        record.last_signal = START + Duration::from_secs(3500);
        let over = End(EndReason::AbsoluteLifetime);
        check(&record, kind, &[(3599., Proceed), (3600., over), (3601., over), (9999., over)]);
        record.session_expiry = Some(START + Duration::from_secs(3550));
        let over = End(EndReason::SessionExpiry);
        check(&record, kind, &[(3549., Proceed), (3550., over), (3551., over), (9999., over)]);
    }
}

#[test]
fn expires_in_shortens_the_interval_and_never_lengthens_it() {
    let until = |record: &SessionRecord| record.access_token(None, &policy()).map(|(_, until)| until);
    let mut record = record(ActivitySignal::Refresh);
    record.tokens.expires_in = Some(Duration::from_secs(10_000));
    check(&record, UserActivity, &[(299., Proceed), (300., Signal)]);
    assert_eq!(until(&record), Some(START + Duration::from_secs(300)));
    // A tenth, at most ten seconds, before it expires.
    record.tokens.expires_in = Some(Duration::from_secs(60));
    check(&record, UserActivity, &[(53., Proceed), (54., Signal), (60., Signal)]);
    assert_eq!(until(&record), Some(START + Duration::from_secs(60)));
    record.tokens.expires_in = Some(Duration::from_secs(200));
    check(&record, UserActivity, &[(189., Proceed), (190., Signal)]);
    record.tokens.expires_in = Some(Duration::ZERO);
    check(&record, UserActivity, &[(0., Signal)]);
}

#[test]
fn a_clock_that_goes_back_ends_nothing_and_stops_no_signal() {
    for signal in [ActivitySignal::None, ActivitySignal::Refresh, ActivitySignal::UserInfo] {
        let mut record = record(signal);
        record.last_signal = START + Duration::from_secs(100);
        check(&record, UserActivity, &[(0., Signal), (69., Signal), (70., Proceed), (100., Proceed), (400., Signal)]);
        check(&record, Passive, &[(0., Proceed)]);
    }
}

#[test]
fn a_record_expires_at_the_latest_of_its_own_deadlines() {
    let after = |seconds| START + Duration::from_secs(seconds);
    assert_eq!(record(ActivitySignal::Refresh).with_expiry(&policy()).expires_at(), after(ABSOLUTE));
    assert_eq!(record(ActivitySignal::None).with_expiry(&policy()).expires_at(), after(T));
    let mut record = record(ActivitySignal::UserInfo);
    record.session_expiry = Some(after(50));
    assert_eq!(record.with_expiry(&policy()).expires_at(), after(50));
}

#[test]
fn what_a_signal_confirmed_a_moment_ago_needs_no_other() {
    let mut record = record(ActivitySignal::Refresh);
    record.last_signal = START + Duration::from_secs(100);
    let just = |record: &SessionRecord, g: u64, at: f64| {
        let policy = policy().access_token_lifetime(Duration::from_secs(g));
        was_just_confirmed(record, &policy, START + Duration::from_secs_f64(at))
    };
    assert!(!just(&record, G, 100.), "the login is no signal");
    record.version = record.version.next();
    for (g, at, expected) in [
        (G, 100., true),
        (G, 104.9, true),
        (G, 105., false),
        (G, 99., false),
        // A quarter of G, where that is less.
        (8, 101.9, true),
        (8, 102., false),
    ] {
        assert_eq!(just(&record, g, at), expected, "{g} {at}");
    }
}
