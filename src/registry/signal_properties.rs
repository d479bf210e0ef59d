//! The machine of signals in worlds made at random: a provider that answers, refuses, breaks off and is silent, a store
//! that fails before or after it has done what it was asked for, replicas that die, time that passes.
//!
//! The model checker of [`model`](super::model) goes through every order of few steps; here are longer stories, with more
//! kinds of trouble, an activity signal of each kind, audiences and ID tokens.

#[path = "signal_provider.rs"]
mod provider;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use proptest::prelude::*;
use proptest::sample::select;

use provider::{Manners, Provider, manners};

use super::rules::{self, ClaimRule, CommitRule, Held};
use super::{Claimed, Committed, EndMark, Loaded};
use crate::protocol::authorization::Audience;
use crate::protocol::jwt::{SigningAlg, TokenError};
use crate::protocol::names::RefreshToken;
use crate::protocol::token_response::{ErrorCode, TokenVerdict};
use crate::session::end_reason::EndReason;
use crate::session::policy::SessionPolicy;
use crate::session::record::strategies::cases;
use crate::session::record::{ActivitySignal, Login, SessionRecord, Version, samples};
use crate::session::signal::{self, Ambiguity, Do, Outcome, Present, Presented, StoreFailed, Terms};
use crate::session::signal::{UserInfoAnswer, Verification};

/// A living holder renews its lease within this time.
const LEASE: Duration = Duration::from_secs(15);
/// So long at least tokens are held that the store does not take.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
enum Worker {
    Idle,
    At(Do),
    /// A request is on its way; the provider has made something of it, or not yet.
    Waiting {
        present: Present,
        sent_at: SystemTime,
        answer: Option<TokenVerdict>,
    },
}

#[derive(Debug)]
struct World {
    now: SystemTime,
    policy: SessionPolicy,
    record: Option<Arc<SessionRecord>>,
    ended: Option<EndReason>,
    /// By whom, until when, and since when somebody else has asked.
    lease: Option<(u32, SystemTime, Option<SystemTime>)>,
    provider: Provider,
    workers: Vec<(u32, Worker)>,
    next_holder: u32,
    /// Since when a replica has had tokens that are stored nowhere.
    unstored: BTreeMap<u32, SystemTime>,
    /// An answer was lost that the provider has acted on, or a replica that had one: nobody can make up for that.
    is_unkind: bool,
}

/// What goes wrong with a call of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    /// Nothing was done.
    Before,
    /// It was done, and nobody was told.
    After,
}

fn token_of(record: &SessionRecord) -> u32 {
    record.tokens.refresh_token.as_ref().map_or(0, |token| token.secret().parse().unwrap())
}

fn first_record(signal: ActivitySignal) -> SessionRecord {
    let mut record = samples::record();
    record.login = Arc::new(Login { signal, ..Login::clone(&record.login) });
    record.tokens.refresh_token = Some(RefreshToken::new("0"));
    record
}

impl World {
    fn new(signal: ActivitySignal, manners: Manners, replicas: usize) -> Self {
        let now = samples::LOGIN + Duration::from_secs(1000);
        Self {
            now,
            policy: SessionPolicy::new(),
            record: Some(Arc::new(first_record(signal))),
            ended: None,
            lease: None,
            provider: Provider::new(manners),
            workers: (0..replicas).map(|_| (0, Worker::Idle)).collect(),
            next_holder: 1,
            unstored: BTreeMap::new(),
            is_unkind: false,
        }
    }

    fn with_terms<T>(&self, work: impl FnOnce(&Terms<'_>) -> T) -> T {
        work(&Terms {
            policy: &self.policy,
            signing_alg: SigningAlg::RS256,
            clock_tolerance: Duration::from_secs(30),
            ambiguity: Ambiguity::Single,
            claim_patience: LEASE * 2,
            now: self.now,
        })
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let now = self.now;
        if let Some((holder, until, contested)) = &mut self.lease
            && self.workers.iter().any(|(name, worker)| name == holder && !matches!(worker, Worker::Idle))
        {
            (*until, *contested) = (now + LEASE, None);
        }
    }

    fn held(&self) -> Option<Held<u32>> {
        let (holder, until, contested) = self.lease?;
        Held::at(self.now, holder, until, contested)
    }

    fn end(&mut self, reason: EndReason) {
        if let Some(record) = self.record.take() {
            self.ended = Some(reason);
            self.lease = None;
            let is_refused = !self.provider.works(token_of(&record)) || self.provider.unclear >= 2;
            let word = match reason {
                EndReason::RefreshTokenRejected => is_refused,
                reason => self.provider.words.contains(&reason),
            };
            assert!(word, "P4: a confirmed session ended, for {reason}");
        }
    }

    /// One replica goes on by one step.
    fn step(&mut self, replica: usize, dice: u8) {
        let (holder, worker) = std::mem::replace(&mut self.workers[replica], (0, Worker::Idle));
        let has_waited = matches!(worker, Worker::At(Do::Wait(_)));
        self.workers[replica] = match worker {
            Worker::Idle => {
                let Some(record) = self.record.clone() else { return };
                let audience =
                    (dice % 4 == 3).then(|| Audience { resource: Some("billing".to_owned()), ..Audience::default() });
                let first = self.with_terms(|terms| signal::start(record, audience, terms));
                self.next_holder += 1;
                (self.next_holder, Worker::At(first))
            }
            // The process ends, and with it what it knew.
            Worker::At(_) | Worker::Waiting { .. } if dice >= 254 => {
                self.is_unkind = true;
                (0, Worker::Idle)
            }
            Worker::At(wanted) => (holder, self.go_on(holder, wanted, dice)),
            Worker::Waiting { present, sent_at, answer } => (holder, self.hear(present, sent_at, answer, dice)),
        };
        if let (holder, Worker::At(Do::Commit(_))) = self.workers[replica]
            && !has_waited
        {
            self.unstored.insert(holder, self.now);
        }
    }

    /// Something happens to a request that is on its way.
    fn hear(&mut self, present: Present, sent_at: SystemTime, answer: Option<TokenVerdict>, dice: u8) -> Worker {
        let code = ErrorCode::new("invalid_request");
        let unavailable = TokenVerdict::Unavailable { status: StatusCode::BAD_GATEWAY, retry_after: None };
        let presented = match (answer, dice) {
            (None, 0..=190) => {
                let answer = Some(self.provider.answer(&present, sent_at, dice));
                return Worker::Waiting { present, sent_at, answer };
            }
            (None, 191..=200) => Presented::NotSent(None),
            (None, 201..=210) => Presented::Lost,
            (None, 211..=220) => Presented::Answered(unavailable),
            (None, 221..=230) => Presented::Answered(TokenVerdict::Unreadable),
            (None, 231..=240) => {
                self.provider.unclear += 1;
                Presented::Answered(TokenVerdict::Ambiguous(code))
            }
            (None, _) => Presented::Answered(TokenVerdict::Misconfigured(code)),
            (Some(answer), 0..=245) => Presented::Answered(answer),
            (Some(_), dice) => {
                self.is_unkind = true;
                match dice % 4 {
                    0 => Presented::Lost,
                    1 => Presented::NoAnswer,
                    2 => Presented::Answered(TokenVerdict::Unreadable),
                    _ => Presented::Answered(unavailable),
                }
            }
        };
        Worker::At(self.with_terms(|terms| present.next(presented, sent_at, terms)))
    }

    /// Asks for the lease.
    fn claim(&mut self, holder: u32, version: Version, acts: bool) -> Claimed {
        let stored = self.record.as_ref().map(|record| (record.version(), self.held()));
        let rule = rules::claim(stored, version, &holder);
        match rule {
            ClaimRule::Grant if acts => self.lease = Some((holder, self.now + LEASE, None)),
            ClaimRule::Contest if acts => {
                self.lease = self.lease.map(|(other, until, _)| (other, until, Some(self.now)));
            }
            _ => {}
        }
        match (rule, &self.record) {
            (ClaimRule::Grant, _) => Claimed::Granted,
            (ClaimRule::Contest | ClaimRule::Held, _) => Claimed::Held,
            (ClaimRule::Changed, Some(record)) => Claimed::Changed(record.clone()),
            (ClaimRule::Changed | ClaimRule::Gone, _) => Claimed::Gone(self.ended),
        }
    }

    /// Does what the machine of a replica wants.
    fn go_on(&mut self, holder: u32, wanted: Do, dice: u8) -> Worker {
        let trouble = match dice {
            0..=215 => Trouble::None,
            216..=235 => Trouble::Before,
            _ => Trouble::After,
        };
        let told = |done: bool| if done && trouble == Trouble::None { Ok(()) } else { Err(StoreFailed) };
        let acts = trouble != Trouble::Before;
        Worker::At(match wanted {
            Do::Done(outcome) => {
                self.check_outcome(&outcome);
                return Worker::Idle;
            }
            Do::Claim(claim) => {
                let answer = self.claim(holder, claim.record().version(), acts);
                claim.next(told(true).map(|()| answer))
            }
            Do::Present(present) => {
                let is_under_way = |worker: &Worker| matches!(worker, Worker::Waiting { present: other, .. } if other.token() == present.token());
                assert!(
                    !self.workers.iter().any(|(_, worker)| is_under_way(worker)),
                    "P2: a token is presented while an answer to it may come"
                );
                return Worker::Waiting { present, sent_at: self.now, answer: None };
            }
            Do::AskUserInfo(ask) => {
                let answer = match dice {
                    _ if !self.provider.has_session => UserInfoAnswer::Refused,
                    0..=180 => UserInfoAnswer::Confirmed,
                    181..=190 => UserInfoAnswer::Forbidden,
                    191..=210 => UserInfoAnswer::Refused,
                    _ => UserInfoAnswer::Unavailable(None),
                };
                let is_refused = answer == UserInfoAnswer::Refused;
                self.provider.words.extend(is_refused.then_some(EndReason::AccessTokenRejected));
                self.provider.granted.extend((answer == UserInfoAnswer::Confirmed).then_some(self.now));
                self.with_terms(|terms| ask.next(answer, self.now, terms))
            }
            Do::Verify(verify) => {
                let verification = match dice {
                    0..=180 => Verification::NoKeys,
                    _ => Verification::Wrong(TokenError::Signature),
                };
                self.with_terms(|terms| verify.next(verification, terms))
            }
            Do::Commit(commit) => {
                let rule =
                    rules::commit(self.record.as_ref().map(|record| record.version()), commit.record().version());
                let mut answer = match (rule, &self.record) {
                    (CommitRule::Stale, Some(record)) => Committed::Stale(record.clone()),
                    _ => Committed::Gone(self.ended),
                };
                if rule == CommitRule::Commit && acts {
                    let stored = commit.record().clone();
                    let version = stored.version().next();
                    let stored = Arc::new(stored.with_version(version));
                    self.check_stored(&stored);
                    self.record = Some(stored.clone());
                    self.lease = None;
                    answer = Committed::Committed(stored);
                }
                let answer = told(true).map(|()| answer);
                // When the patience with the store is over, so are the tokens that are nowhere else.
                let is_late = answer.is_err() && self.now >= self.unstored[&holder] + PATIENCE;
                let next = commit.next(answer);
                self.is_unkind |= is_late && matches!(next, Do::Done(_));
                next
            }
            Do::Load(load) => {
                let answer = told(true).map(|()| match (&self.record, self.ended) {
                    (Some(record), _) => Loaded::Live(record.clone()),
                    (None, Some(reason)) => Loaded::Ended(EndMark { reason, subject: None }),
                    (None, None) => Loaded::Unknown,
                });
                load.next(answer)
            }
            Do::End(end) => {
                if acts {
                    self.end(end.reason);
                }
                end.next(told(true))
            }
            Do::Release(release) => {
                if acts && self.lease.is_some_and(|(other, ..)| other == holder) {
                    self.lease = None;
                }
                release.next()
            }
            Do::Wait(wait) => {
                if let signal::Pause::Of(pause) = wait.pause {
                    self.pass(pause);
                }
                wait.next()
            }
        })
    }

    /// Nothing but the provider's word moves a session's deadline, where it can signal.
    fn check_stored(&self, stored: &SessionRecord) {
        assert!(self.ended.is_none(), "P1: a session that ended is there again");
        if stored.can_signal() {
            assert!(self.provider.granted.contains(&stored.last_signal), "confirmed by nobody");
        }
        let before = self.record.as_ref().map(|record| record.last_signal);
        assert!(before.is_none_or(|before| before <= stored.last_signal), "a deadline went back");
    }

    fn check_outcome(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Ended(_) => assert!(self.record.is_none(), "P4: somebody is told of an end that was none"),
            Outcome::Confirmed(record) | Outcome::Overtaken(record) => {
                let version = self.record.as_ref().map(|stored| stored.version());
                assert!(version.is_none_or(|version| record.version() <= version), "it was never stored");
            }
            Outcome::Denied(_) | Outcome::Unavailable(_) => {}
        }
    }

    fn logout(&mut self) {
        if self.record.take().is_some() {
            self.ended = Some(EndReason::BackChannelLogout);
            self.lease = None;
        }
    }

    /// Everybody goes on, and nothing goes wrong any more.
    fn calm_down(&mut self) {
        for replica in 0..self.workers.len() {
            let mut steps = 0;
            while !matches!(self.workers[replica].1, Worker::Idle) {
                self.step(replica, 1);
                self.pass(Duration::from_millis(1));
                steps += 1;
                // Who waits for another's lease looks again twenty times a second.
                assert!(steps < 2000, "a signal has no end: {:?}", self.workers[replica].1);
            }
        }
    }

    fn check_rest(&mut self) {
        let provider = &self.provider;
        assert!(!provider.is_revoked || self.is_unkind, "P3: somebody is logged out for the reuse of a token");
        let Some(record) = self.record.clone() else { return };
        if !record.can_signal() || self.is_unkind || !self.provider.has_session {
            return;
        }
        assert!(self.provider.works(token_of(&record)), "P3: the token that works is not in the store");
        // It goes on, with whoever comes next.
        self.pass(LEASE * 2);
        self.step(0, 0);
        self.calm_down();
        let now = self.record.as_ref().map(|record| record.version());
        assert!(now.is_some_and(|now| now > record.version()), "P3: a session that stands cannot signal any more");
    }
}

proptest! {
    #![proptest_config(cases(6000))]

    #[test]
    fn p1_p2_p3_p4_hold_in_whatever_world(
        signal in prop_oneof![
            4 => Just(ActivitySignal::Refresh),
            1 => select(vec![ActivitySignal::None, ActivitySignal::UserInfo]),
        ],
        manners in manners(),
        // Up to 245 the world is only difficult.
        kindness in select(vec![150_u8, 245, 255]),
        steps in prop::collection::vec((0..4_usize, any::<u8>(), 0..3000_u64), 0..150),
    ) {
        let mut world = World::new(signal, manners, 3);
        for (replica, dice, millis) in steps {
            world.pass(Duration::from_millis(millis));
            match (replica, dice) {
                (0..3, _) => world.step(replica, dice.min(kindness)),
                (_, 0..=7) => world.provider.has_session = false,
                (_, 8..=15) if !world.provider.has_session => world.logout(),
                _ => world.pass(Duration::from_millis(millis * 10)),
            }
        }
        world.calm_down();
        world.check_rest();
    }
}
