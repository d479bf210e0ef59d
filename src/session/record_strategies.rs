//! Records of every kind, for tests of properties.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

use super::{ActivitySignal, Login, OtherToken, SessionRecord, Tokens, Version, samples};
use crate::protocol::authorization::{Authentication, Prompt};
use crate::protocol::names::{AccessToken, IdTokenHint, Nonce, RefreshToken, Sid, Subject};
use crate::session::browser::Browser;
use crate::session::end_reason::EndReason;
use crate::session::policy::SessionPolicy;

/// Seconds within which everything happens.
const DAYS: Range<u64> = 0..200_000;

/// So many cases of each property, the same at every run: what is found is found again, and nothing is written down.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(1),
        ..ProptestConfig::default()
    }
}

/// A moment, with a fraction of a second where `fine`.
pub(crate) fn moment() -> impl Strategy<Value = SystemTime> {
    (DAYS, prop_oneof![Just(0_u32), 0..1_000_000_000_u32])
        .prop_map(|(seconds, nanos)| SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos))
}

pub(crate) fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![0..120_000_u64, 0..100_000_000_u64].prop_map(Duration::from_millis)
}

/// Every policy that an application can be built with.
pub(crate) fn policy() -> impl Strategy<Value = SessionPolicy> {
    (2..40_000_u64, 1..60_000_u64, any::<prop::sample::Index>()).prop_map(|(idle, absolute, silence)| {
        let silence = 1 + silence.index(usize::try_from(idle - 1).unwrap()) as u64;
        SessionPolicy::new()
            .op_session_lifetime(Duration::from_secs(idle))
            .access_token_lifetime(Duration::from_secs(silence))
            .absolute_lifetime(Duration::from_secs(absolute))
    })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{1,8}", "\\PC{0,12}", any::<String>()]
}

fn authentication() -> impl Strategy<Value = Authentication> {
    let prompt = select(vec![Prompt::AsNeeded, Prompt::None, Prompt::Login, Prompt::Create]);
    (prompt, option::of(text()), option::of(duration())).prop_map(|(prompt, acr_values, max_age)| Authentication {
        prompt,
        acr_values,
        max_age,
    })
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("a number", |number| number.is_finite()).prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(text(), inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn tokens() -> impl Strategy<Value = Tokens> {
    let other = (text(), option::of(duration()), moment()).prop_map(|(token, expires_in, obtained_at)| OtherToken {
        access_token: AccessToken::new(token),
        expires_in,
        obtained_at,
    });
    let others = prop::collection::btree_map(text(), other, 0..3);
    (option::of(text()), option::of(text()), text(), option::of(duration()), moment(), others).prop_map(
        |(access, refresh, id, expires_in, obtained_at, others): (_, _, _, _, _, BTreeMap<_, _>)| Tokens {
            access_token: access.map(AccessToken::new),
            refresh_token: refresh.map(RefreshToken::new),
            id_token: IdTokenHint::new(id),
            expires_in,
            obtained_at,
            others,
        },
    )
}

fn browser() -> impl Strategy<Value = Option<Box<Browser>>> {
    let address = option::of(any::<std::net::IpAddr>());
    let browser = (address, option::of(text())).prop_map(|(address, user_agent)| Browser { address, user_agent });
    option::of(browser.prop_map(Box::new))
}

fn login() -> impl Strategy<Value = Login> {
    let signal = select(vec![
        ActivitySignal::None,
        ActivitySignal::Refresh,
        ActivitySignal::SilentLogin,
        ActivitySignal::UserInfo,
    ]);
    let times = (moment(), option::of(moment()), moment());
    let claims = prop::collection::btree_map(text(), json(), 0..3);
    let previous_end = option::of(select(EndReason::ALL.to_vec()));
    (text(), text(), times, signal, claims, any::<bool>(), authentication(), previous_end, browser()).prop_map(
        |(subject, nonce, times, signal, claims, offline_access, authentication, previous_end, browser)| Login {
            registration: samples::record().login.registration.clone(),
            subject: Subject::new(subject),
            nonce: Nonce::new(nonce),
            issued_at: times.0,
            auth_time: times.1,
            started_at: times.2,
            signal,
            claims: claims.into_iter().collect(),
            offline_access,
            authentication,
            previous_end,
            browser,
        },
    )
}

/// A record as it may lie in a store.
pub(crate) fn record() -> impl Strategy<Value = SessionRecord> {
    let times = (option::of(moment()), moment(), option::of(moment()), moment(), option::of(moment()));
    (login(), tokens(), option::of(text()), 1..1_000_000_u64, times, select(EndReason::ALL.to_vec())).prop_map(
        |(login, tokens, sid, version, times, expires_for)| SessionRecord {
            version: Version::from_number(version),
            login: Arc::new(login),
            sid: sid.map(Sid::new),
            session_expiry: times.0,
            tokens,
            last_signal: times.1,
            silent_login_at: times.2,
            expires_at: times.3,
            expires_for,
            confirmed_until: times.4,
            ..samples::record()
        },
    )
}

/// A record of which only the times and the signal are told.
pub(crate) fn timed_record() -> impl Strategy<Value = SessionRecord> {
    let signal = select(vec![
        ActivitySignal::None,
        ActivitySignal::Refresh,
        ActivitySignal::SilentLogin,
        ActivitySignal::UserInfo,
    ]);
    let times = (moment(), option::of(moment()), moment(), option::of(moment()), moment());
    (signal, times, option::of(duration())).prop_map(|(signal, times, expires_in)| {
        let mut record = samples::record();
        record.login = Arc::new(Login { signal, started_at: times.0, ..Login::clone(&record.login) });
        record.session_expiry = times.1;
        record.last_signal = times.2;
        record.silent_login_at = times.3;
        record.tokens.obtained_at = times.4;
        record.tokens.expires_in = expires_in;
        record
    })
}
