//! A model of the protocol between replicas, their store and a provider with rotating refresh tokens.
//!
//! The model checker goes through every order of steps, with crashes, lost answers and replicas that stand still for
//! longer than their lease. What the replicas do is decided by the machine of [`session::signal`](crate::session::signal),
//! what the store does by [`rules`](super::rules): the same code that sessions run on; the registries in stores are held to
//! the rules by the contract suite. Here is only what drives them, and the world around. With a safeguard taken out the
//! checker has to find how things go wrong: those are tests as well.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use stateright::{Checker, Model, Property};

use super::rules::{self, ClaimRule, CommitRule, CreateRule, Held, Key};
use super::{Claimed, Committed, EndMark, Loaded};
use crate::protocol::jwt::SigningAlg;
use crate::protocol::names::{AccessToken, RefreshToken};
use crate::protocol::token_response::{ErrorCode, TokenResponse, TokenVerdict};
use crate::session::end_reason::EndReason;
use crate::session::login_attempt::LoginAttempt;
use crate::session::policy::SessionPolicy;
use crate::session::record::{SessionRecord, samples};
use crate::session::signal::{self, Do, Presented, Terms};

/// The refresh tokens of a session, by number.
type Token = u8;
type Replica = usize;

/// The last token that the provider gives out.
const LAST_TOKEN: Token = 2;
/// Time stands still: what time decides is a step.
const NOW: SystemTime = SystemTime::UNIX_EPOCH;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Safeguard {
    /// The store gives one lease at a time.
    Lease,
    /// A lease that ran out is its holder's for some time more.
    Grace,
    /// A refusal ends only a session that nobody has refreshed meanwhile.
    LookAfterRefusal,
    /// A logout leaves a tombstone.
    Tombstone,
    /// A record is replaced at the version that it was read at.
    Version,
}

struct Protocol {
    replicas: usize,
    reuse: Reuse,
    without: Option<Safeguard>,
    budget: Budget,
}

/// What the provider does about a refresh token that was spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reuse {
    Refused,
    RevokesAll,
}

/// How often the world may be unkind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Budget {
    crashes: u8,
    /// An answer, or the request itself, is lost on the way.
    losses: u8,
    /// A replica stands still until its lease is over, or until the time is over that it has left when somebody else has
    /// asked for it.
    standstills: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    store: Store,
    tombstone: bool,
    login: Login,
    logout: Logout,
    provider: Provider,
    replicas: Vec<Worker>,
    left: Budget,
    /// A token was sent while somebody else waited for the answer to it.
    sent_twice: bool,
    /// A replica ended the session though its token in the store was good.
    ended_alive: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Store {
    Nothing,
    Live { record: Arc<SessionRecord>, lease: Option<Held<Replica>> },
    Ended(EndReason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Provider {
    has_session: bool,
    current: Token,
    revoked_for_reuse: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Login {
    /// The token response is on its way.
    UnderWay,
    Stored,
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Logout {
    NotYet,
    /// The logout token is on its way.
    Sent,
    /// It was answered with 200.
    Answered,
}

/// One request on one replica that finds a signal due.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Worker {
    Idle,
    At(Do),
    /// Its request is under way to the provider, which has answered or not.
    Waiting(signal::Present),
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Answer(Replica),
    Begin(Replica),
    Crash(Replica),
    DeliverLogoutToken,
    EndAtProvider,
    GoOn(Replica),
    LoseAnswer(Replica),
    LoseLease,
    LoseRequest(Replica),
    StoreLogin,
}

fn token_of(record: &SessionRecord) -> Token {
    record.tokens.refresh_token.as_ref().unwrap().secret().parse().unwrap()
}

/// The record of a session with its first token.
fn first_record() -> SessionRecord {
    let mut record = samples::record();
    record.tokens.refresh_token = Some(RefreshToken::new("0"));
    record
}

impl Protocol {
    fn has(&self, safeguard: Safeguard) -> bool {
        self.without != Some(safeguard)
    }

    /// Whether the store minds that a lease is, or was, somebody's.
    fn is_heeded(&self, held: &Held<Replica>) -> bool {
        matches!(held, Held::Running(_)) || self.has(Safeguard::Grace)
    }

    /// What a token request does.
    fn answer(&self, provider: &mut Provider, token: Token) -> TokenVerdict {
        let refused = TokenVerdict::Refused(ErrorCode::new("invalid_grant"));
        if !provider.has_session || provider.revoked_for_reuse {
            return refused;
        }
        if token != provider.current {
            provider.revoked_for_reuse = self.reuse == Reuse::RevokesAll;
            return refused;
        }
        provider.current += 1;
        TokenVerdict::Granted(TokenResponse {
            access_token: AccessToken::new("access"),
            expires_in: None,
            refresh_expires_in: None,
            refresh_token: Some(RefreshToken::new(provider.current.to_string())),
            id_token: None,
            scope: None,
        })
    }

    /// Does what the machine of a replica wants of the store; `None` if that changes nothing.
    fn go_on(&self, world: &mut World, replica: Replica, wanted: Do) -> Option<Worker> {
        Some(Worker::At(match wanted {
            Do::Claim(claim) => {
                let stored = world.stored().map(|(record, lease)| (record.version(), lease));
                let stored = stored.map(|(version, lease)| (version, lease.filter(|_| self.has(Safeguard::Lease))));
                let stored = stored.map(|(version, lease)| (version, lease.filter(|held| self.is_heeded(held))));
                let answer = match (rules::claim(stored, claim.record().version(), &replica), &mut world.store) {
                    (ClaimRule::Grant, Store::Live { lease, .. }) => {
                        *lease = Some(Held::Running(replica));
                        Claimed::Granted
                    }
                    (ClaimRule::Changed, Store::Live { record, .. }) => Claimed::Changed(record.clone()),
                    (ClaimRule::Contest, Store::Live { lease, .. }) => {
                        *lease = lease.map(|held| Held::Contested(*holder(&held)));
                        return Some(Worker::At(claim.next(Ok(Claimed::Held))));
                    }
                    (ClaimRule::Held, _) => return None,
                    (_, store) => Claimed::Gone(store.reason()),
                };
                claim.next(Ok(answer))
            }
            Do::Commit(commit) => {
                let stored = world.stored().map(|(record, _)| record.version());
                let rule = if self.has(Safeguard::Version) {
                    rules::commit(stored, commit.record().version())
                } else {
                    CommitRule::Commit
                };
                let answer = match (rule, &world.store) {
                    (CommitRule::Commit, _) => {
                        let mut record = commit.record().clone();
                        record.version = record.version.next();
                        let record = Arc::new(record);
                        world.store = Store::Live { record: record.clone(), lease: None };
                        Committed::Committed(record)
                    }
                    (CommitRule::Stale, Store::Live { record, .. }) => Committed::Stale(record.clone()),
                    (_, store) => Committed::Gone(store.reason()),
                };
                commit.next(Ok(answer))
            }
            Do::Done(_) => return Some(Worker::Idle),
            Do::End(end) => {
                if let Some((record, _)) = world.stored() {
                    let provider = world.provider;
                    let works = provider.has_session && !provider.revoked_for_reuse;
                    world.ended_alive |= works && token_of(record) == provider.current;
                    world.store = Store::Ended(end.reason);
                }
                end.next(Ok(()))
            }
            Do::Load(load) => {
                let answer = match &world.store {
                    _ if !self.has(Safeguard::LookAfterRefusal) => Loaded::Live(Arc::new(load.record().clone())),
                    Store::Live { record, .. } => Loaded::Live(record.clone()),
                    Store::Ended(reason) => Loaded::Ended(EndMark { reason: *reason, subject: None }),
                    Store::Nothing => Loaded::Unknown,
                };
                match load.next(Ok(answer)) {
                    // In one step: what changes between the look and the end takes a holder that stood still until its
                    // lease and the time after it were over, and a moment of some hundred microseconds; it is not covered.
                    end @ Do::End(_) => return self.go_on(world, replica, end),
                    next => next,
                }
            }
            Do::Present(present) => {
                world.sent_twice |= world.is_waiting_for(present.token());
                return Some(Worker::Waiting(present));
            }
            Do::Release(release) => {
                if let Store::Live { lease, .. } = &mut world.store {
                    *lease = lease.filter(|held| *holder(held) != replica);
                }
                release.next()
            }
            Do::Wait(wait) => wait.next(),
            // This provider gives refresh tokens and no ID tokens.
            Do::AskUserInfo(_) | Do::Verify(_) => return None,
        }))
    }
}

fn holder(held: &Held<Replica>) -> &Replica {
    match held {
        Held::Running(holder) | Held::Lapsed(holder) | Held::Contested(holder) => holder,
    }
}

impl Store {
    fn reason(&self) -> Option<EndReason> {
        match self {
            Self::Ended(reason) => Some(*reason),
            Self::Live { .. } | Self::Nothing => None,
        }
    }
}

impl World {
    fn stored(&self) -> Option<(&Arc<SessionRecord>, Option<Held<Replica>>)> {
        match &self.store {
            Store::Live { record, lease } => Some((record, *lease)),
            Store::Nothing | Store::Ended(_) => None,
        }
    }

    fn is_waiting_for(&self, token: &RefreshToken) -> bool {
        self.replicas.iter().any(|worker| matches!(worker, Worker::Waiting(sent) if sent.token() == token))
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            store: Store::Nothing,
            tombstone: false,
            login: Login::UnderWay,
            logout: Logout::NotYet,
            provider: Provider { has_session: true, current: 0, revoked_for_reuse: false },
            replicas: vec![Worker::Idle; self.replicas],
            left: self.budget,
            sent_twice: false,
            ended_alive: false,
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.login == Login::UnderWay {
            steps.push(Step::StoreLogin);
        }
        match world.logout {
            Logout::NotYet => steps.push(Step::EndAtProvider),
            Logout::Sent => steps.push(Step::DeliverLogoutToken),
            Logout::Answered => {}
        }
        if let Store::Live { lease: Some(held @ (Held::Running(_) | Held::Contested(_))), .. } = world.store
            && (world.replicas.get(*holder(&held)) == Some(&Worker::Dead) || world.left.standstills > 0)
        {
            steps.push(Step::LoseLease);
        }
        for (replica, worker) in world.replicas.iter().enumerate() {
            match worker {
                Worker::Idle => steps.push(Step::Begin(replica)),
                Worker::At(_) => steps.push(Step::GoOn(replica)),
                Worker::Waiting(_) => {
                    steps.push(Step::Answer(replica));
                    if world.left.losses > 0 {
                        steps.extend([Step::LoseAnswer(replica), Step::LoseRequest(replica)]);
                    }
                }
                Worker::Dead => {}
            }
            if world.left.crashes > 0 && !matches!(worker, Worker::Dead | Worker::Idle) {
                steps.push(Step::Crash(replica));
            }
        }
    }

    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        let mut world = before.clone();
        let policy = SessionPolicy::new();
        let terms = Terms {
            policy: &policy,
            signing_alg: SigningAlg::RS256,
            clock_tolerance: Duration::ZERO,
            ambiguity: signal::Ambiguity::Single,
            claim_patience: Duration::from_secs(1),
            now: NOW,
        };
        match step {
            Step::StoreLogin => {
                let is_remembered = world.tombstone && self.has(Safeguard::Tombstone);
                let attempt = LoginAttempt { began_at: NOW, seen: None };
                world.login = match rules::create(Key::Free, attempt, is_remembered.then_some(NOW)) {
                    CreateRule::Create => {
                        world.store = Store::Live { record: Arc::new(first_record()), lease: None };
                        Login::Stored
                    }
                    CreateRule::Covered(_) | CreateRule::Exists => Login::Refused,
                };
            }
            Step::EndAtProvider => {
                world.provider.has_session = false;
                world.logout = Logout::Sent;
            }
            Step::DeliverLogoutToken => {
                world.tombstone = true;
                if world.stored().is_some() {
                    world.store = Store::Ended(EndReason::BackChannelLogout);
                }
                world.logout = Logout::Answered;
            }
            Step::LoseLease => {
                let Store::Live { lease, .. } = &mut world.store else { return None };
                let held = (*lease)?;
                *lease = match held {
                    Held::Running(holder) => Some(Held::Lapsed(holder)),
                    Held::Lapsed(_) | Held::Contested(_) => None,
                };
                if world.replicas.get(*holder(&held)) != Some(&Worker::Dead) {
                    world.left.standstills -= 1;
                }
            }
            Step::Begin(replica) => {
                let (record, _) = world.stored()?;
                // The provider's tokens have run out, and with them this model.
                if token_of(record) >= LAST_TOKEN {
                    return None;
                }
                world.replicas[replica] = Worker::At(signal::start(record.clone(), None, &terms));
            }
            Step::GoOn(replica) => {
                let Worker::At(wanted) = before.replicas[replica].clone() else { return None };
                world.replicas[replica] = self.go_on(&mut world, replica, wanted)?;
            }
            Step::Answer(replica) | Step::LoseAnswer(replica) | Step::LoseRequest(replica) => {
                let Worker::Waiting(present) = before.replicas[replica].clone() else { return None };
                let token = present.token().secret().parse().ok()?;
                let mut ask = || self.answer(&mut world.provider, token);
                let presented = match step {
                    Step::Answer(_) => Presented::Answered(ask()),
                    Step::LoseAnswer(_) => {
                        ask();
                        Presented::Lost
                    }
                    _ => Presented::Lost,
                };
                if presented == Presented::Lost {
                    world.left.losses -= 1;
                }
                world.replicas[replica] = Worker::At(present.next(presented, NOW, &terms));
            }
            Step::Crash(replica) => {
                world.left.crashes -= 1;
                world.replicas[replica] = Worker::Dead;
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(FINAL, |_, world: &World| world.logout != Logout::Answered || world.stored().is_none()),
            Property::always(SENT_ONCE, |model: &Self, world: &World| {
                // A replica stood still until its lease ran out, and then until the time was over that it had left.
                !world.sent_twice || world.left.standstills + 1 < model.budget.standstills
            }),
            Property::always(NO_REUSE, |model: &Self, world: &World| {
                // A replica whose lease ran out, or a lost answer, may make somebody present a spent token.
                !world.provider.revoked_for_reuse || world.left != model.budget
            }),
            Property::always(NEVER_FOR_A_RACE, |_, world: &World| !world.ended_alive),
            Property::always(WORKING_TOKEN, |model: &Self, world: &World| {
                let Store::Live { record, .. } = &world.store else { return true };
                let is_at_rest =
                    world.replicas.iter().all(|w| matches!(w, Worker::Idle | Worker::At(Do::Claim(_) | Do::Done(_))));
                !is_at_rest || world.left != model.budget || token_of(record) == world.provider.current
            }),
            Property::sometimes("a session is refreshed twice", |_, world: &World| {
                world.stored().is_some_and(|(record, _)| token_of(record) == LAST_TOKEN)
            }),
            Property::sometimes("a logout token overtakes a login", |_, world: &World| world.login == Login::Refused),
            Property::sometimes("a refused refresh ends the session", |_, world: &World| {
                world.store == Store::Ended(EndReason::RefreshTokenRejected)
            }),
        ]
    }
}

const FINAL: &str = "P1: nothing lives after the logout token was answered";
const SENT_ONCE: &str = "P2: no token is sent while its answer is pending";
const NO_REUSE: &str = "P3: nobody is logged out for the reuse of a token";
const NEVER_FOR_A_RACE: &str = "P4: no race between replicas ends a session whose stored token works";
const WORKING_TOKEN: &str = "P3: the store has the token that works";

const KIND: Budget = Budget { crashes: 0, losses: 0, standstills: 0 };
const SLOW: Budget = Budget { crashes: 0, losses: 0, standstills: 1 };
const SLOWER: Budget = Budget { crashes: 0, losses: 0, standstills: 2 };
const UNKIND: Budget = Budget { crashes: 1, losses: 1, standstills: 1 };
const HOSTILE: Budget = Budget { crashes: 2, losses: 2, standstills: 2 };

fn explore(replicas: usize, reuse: Reuse, budget: Budget, without: Option<Safeguard>) -> impl Checker<Protocol> {
    Protocol { replicas, reuse, without, budget }.checker().threads(2).spawn_bfs().join()
}

#[test]
fn p1_p2_p3_p4_hold_in_every_order_of_steps() {
    for (replicas, reuse, budget) in [
        (2, Reuse::RevokesAll, KIND),
        (3, Reuse::RevokesAll, KIND),
        (2, Reuse::Refused, SLOW),
        (2, Reuse::Refused, SLOWER),
        (3, Reuse::Refused, UNKIND),
        (2, Reuse::RevokesAll, UNKIND),
        (2, Reuse::RevokesAll, HOSTILE),
    ] {
        let checker = explore(replicas, reuse, budget, None);
        checker.assert_properties();
        assert!(checker.unique_state_count() > 100, "there is something to explore");
    }
}

#[track_caller]
fn assert_found(without: Safeguard, reuse: Reuse, budget: Budget, property: &'static str) {
    let checker = explore(2, reuse, budget, Some(without));
    assert!(checker.discovery(property).is_some(), "{without:?} is not needed for {property}");
}

#[test]
fn p1_needs_the_tombstone() {
    assert_found(Safeguard::Tombstone, Reuse::RevokesAll, KIND, FINAL);
}

#[test]
fn p1_needs_the_version_check() {
    assert_found(Safeguard::Version, Reuse::RevokesAll, KIND, FINAL);
}

#[test]
fn p2_and_p3_need_the_lease() {
    assert_found(Safeguard::Lease, Reuse::RevokesAll, KIND, SENT_ONCE);
    assert_found(Safeguard::Lease, Reuse::RevokesAll, KIND, NO_REUSE);
}

#[test]
fn p2_needs_the_time_that_a_holder_has_left() {
    assert_found(Safeguard::Grace, Reuse::Refused, SLOW, SENT_ONCE);
}

#[test]
fn p4_needs_the_look_after_a_refusal() {
    assert_found(Safeguard::LookAfterRefusal, Reuse::Refused, SLOWER, NEVER_FOR_A_RACE);
}
