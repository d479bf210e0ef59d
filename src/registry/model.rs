//! A model of the protocol between replicas, their store and a provider with rotating refresh tokens that revokes on reuse.
//!
//! The model checker goes through every order of steps, with crashes, lost answers and replicas that stand still for
//! longer than their lease. The decisions are those of [`rules`](super::rules), which the registry in memory uses too; the
//! registries in stores are held to the same by the contract suite. With a safeguard taken out the checker has to find how
//! things go wrong: those are tests as well.

use stateright::{Checker, Model, Property};

use super::rules::{self, ClaimRule, CommitRule, Cover, CreateRule, Key};
use crate::session::record::Version;

/// The refresh tokens of a session, by number.
type Token = u8;
type Replica = usize;

/// The last token that the provider gives out.
const LAST_TOKEN: Token = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Safeguard {
    Lease,
    Tombstone,
    Version,
}

struct Protocol {
    replicas: usize,
    without: Option<Safeguard>,
    budget: Budget,
}

/// How often the world may be unkind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Budget {
    crashes: u8,
    lost_answers: u8,
    /// A replica stands still until its lease is over.
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Store {
    Nothing,
    Live { version: u64, token: Token, lease: Option<Replica> },
    Ended,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Worker {
    Idle,
    Loaded { version: u64, token: Token },
    Claimed { version: u64, token: Token },
    Sent { version: u64, token: Token, attempt: u8 },
    Granted { version: u64, token: Token },
    Refused { version: u64 },
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Answer(Replica),
    Claim(Replica),
    Commit(Replica),
    Crash(Replica),
    DeliverLogoutToken,
    EndAtProvider,
    GiveUp(Replica),
    Load(Replica),
    LoseAnswer(Replica),
    LoseLease,
    Send(Replica),
    StoreLogin,
}

impl Protocol {
    fn has(&self, safeguard: Safeguard) -> bool {
        self.without != Some(safeguard)
    }
}

impl Provider {
    /// What a token request does.
    fn take(&mut self, token: Token) -> Option<Token> {
        if !self.has_session || self.revoked_for_reuse {
            return None;
        }
        if token != self.current {
            self.revoked_for_reuse = true;
            return None;
        }
        self.current += 1;
        Some(self.current)
    }
}

impl World {
    fn stored(&self) -> Option<(Version, Option<Replica>)> {
        match self.store {
            Store::Live { version, lease, .. } => Some((Version::from_number(version), lease)),
            Store::Nothing | Store::Ended => None,
        }
    }

    /// Whether nobody was killed, no answer was lost and nobody stood still.
    fn is_kind(&self, budget: Budget) -> bool {
        self.left == budget
    }

    fn is_waiting_for(&self, token: Token) -> bool {
        self.replicas.iter().any(|worker| matches!(worker, Worker::Sent { token: sent, .. } if *sent == token))
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
        if let Store::Live { lease: Some(holder), .. } = world.store
            && (world.replicas.get(holder) == Some(&Worker::Dead) || world.left.standstills > 0)
        {
            steps.push(Step::LoseLease);
        }
        for (replica, worker) in world.replicas.iter().enumerate() {
            match worker {
                Worker::Idle => steps.push(Step::Load(replica)),
                Worker::Loaded { .. } => steps.push(Step::Claim(replica)),
                Worker::Claimed { .. } => steps.push(Step::Send(replica)),
                Worker::Sent { .. } => {
                    steps.push(Step::Answer(replica));
                    if world.left.lost_answers > 0 {
                        steps.push(Step::LoseAnswer(replica));
                    }
                }
                Worker::Granted { .. } => steps.push(Step::Commit(replica)),
                Worker::Refused { .. } => steps.push(Step::GiveUp(replica)),
                Worker::Dead => {}
            }
            if world.left.crashes > 0 && *worker != Worker::Dead && *worker != Worker::Idle {
                steps.push(Step::Crash(replica));
            }
        }
    }

    #[expect(clippy::too_many_lines, reason = "a list of steps")]
    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        let mut world = before.clone();
        match step {
            Step::StoreLogin => {
                let cover =
                    if world.tombstone && self.has(Safeguard::Tombstone) { Cover::Covered } else { Cover::Open };
                world.login = match rules::create(Key::Free, cover) {
                    CreateRule::Create => {
                        world.store = Store::Live { version: 0, token: 0, lease: None };
                        Login::Stored
                    }
                    CreateRule::Covered | CreateRule::Exists => Login::Refused,
                };
            }
            Step::EndAtProvider => {
                world.provider.has_session = false;
                world.logout = Logout::Sent;
            }
            Step::DeliverLogoutToken => {
                world.tombstone = true;
                if world.stored().is_some() {
                    world.store = Store::Ended;
                }
                world.logout = Logout::Answered;
            }
            Step::LoseLease => {
                let Store::Live { version, token, lease: Some(holder) } = world.store else { return None };
                if world.replicas.get(holder) != Some(&Worker::Dead) {
                    world.left.standstills -= 1;
                }
                world.store = Store::Live { version, token, lease: None };
            }
            Step::Load(replica) => {
                let Store::Live { version, token, .. } = world.store else { return None };
                // The provider's tokens have run out, and with them this model.
                if token >= LAST_TOKEN {
                    return None;
                }
                world.replicas[replica] = Worker::Loaded { version, token };
            }
            Step::Claim(replica) => {
                let Worker::Loaded { version, token } = world.replicas[replica] else { return None };
                let stored = world.stored().map(|(v, lease)| (v, lease.filter(|_| self.has(Safeguard::Lease))));
                world.replicas[replica] = match rules::claim(stored, Version::from_number(version), &replica) {
                    ClaimRule::Grant => {
                        if let Store::Live { lease, .. } = &mut world.store {
                            *lease = Some(replica);
                        }
                        Worker::Claimed { version, token }
                    }
                    ClaimRule::Held => return None,
                    ClaimRule::Changed | ClaimRule::Gone => Worker::Idle,
                };
            }
            Step::Send(replica) => {
                let Worker::Claimed { version, token } = world.replicas[replica] else { return None };
                world.sent_twice |= world.is_waiting_for(token);
                world.replicas[replica] = Worker::Sent { version, token, attempt: 1 };
            }
            Step::Answer(replica) => {
                let Worker::Sent { version, token, .. } = world.replicas[replica] else { return None };
                world.replicas[replica] = match world.provider.take(token) {
                    Some(token) => Worker::Granted { version, token },
                    None => Worker::Refused { version },
                };
            }
            Step::LoseAnswer(replica) => {
                let Worker::Sent { version, token, attempt } = world.replicas[replica] else { return None };
                world.left.lost_answers -= 1;
                let _ = world.provider.take(token);
                let is_overtaken = world.stored().map(|(v, _)| v) != Some(Version::from_number(version));
                world.replicas[replica] = if is_overtaken || attempt == 2 {
                    Worker::Idle
                } else {
                    Worker::Sent { version, token, attempt: 2 }
                };
            }
            Step::Commit(replica) => {
                let Worker::Granted { version, token } = world.replicas[replica] else { return None };
                let made_from = Version::from_number(version);
                let rule = if self.has(Safeguard::Version) {
                    rules::commit(world.stored().map(|(v, _)| v), made_from)
                } else {
                    CommitRule::Commit
                };
                if rule == CommitRule::Commit {
                    world.store = Store::Live { version: made_from.next().number(), token, lease: None };
                }
                world.replicas[replica] = Worker::Idle;
            }
            Step::GiveUp(replica) => {
                let Worker::Refused { version } = world.replicas[replica] else { return None };
                // Somebody else may have refreshed meanwhile: then their tokens are used.
                if world.stored().map(|(v, _)| v) == Some(Version::from_number(version)) {
                    world.store = Store::Ended;
                }
                world.replicas[replica] = Worker::Idle;
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
            Property::always("P1: nothing lives after the logout token was answered", |_, world: &World| {
                world.logout != Logout::Answered || world.stored().is_none()
            }),
            Property::always("P2: no token is sent while its answer is pending", |model: &Self, world: &World| {
                !world.sent_twice || world.left.standstills < model.budget.standstills
            }),
            Property::always("P3: nobody is logged out for the reuse of a token", |model: &Self, world: &World| {
                !world.provider.revoked_for_reuse || !world.is_kind(model.budget)
            }),
            Property::always("P3: the store has the token that works", |model: &Self, world: &World| {
                let Store::Live { token, .. } = world.store else { return true };
                let is_at_rest = world.replicas.iter().all(|w| matches!(w, Worker::Idle | Worker::Loaded { .. }));
                !is_at_rest || !world.is_kind(model.budget) || token == world.provider.current
            }),
            Property::sometimes("a session is refreshed twice", |_, world: &World| {
                matches!(world.store, Store::Live { token: LAST_TOKEN, .. })
            }),
            Property::sometimes("a logout token overtakes a login", |_, world: &World| world.login == Login::Refused),
            Property::sometimes("a refused refresh ends the session", |_, world: &World| {
                world.logout == Logout::Sent && world.store == Store::Ended
            }),
        ]
    }
}

const KIND: Budget = Budget { crashes: 0, lost_answers: 0, standstills: 0 };
const UNKIND: Budget = Budget { crashes: 1, lost_answers: 1, standstills: 1 };
const HOSTILE: Budget = Budget { crashes: 2, lost_answers: 2, standstills: 2 };

fn explore(replicas: usize, budget: Budget, without: Option<Safeguard>) -> impl Checker<Protocol> {
    Protocol { replicas, without, budget }.checker().threads(2).spawn_bfs().join()
}

#[test]
fn p1_p2_p3_hold_in_every_order_of_steps() {
    for (replicas, budget) in [(2, KIND), (3, KIND), (2, UNKIND), (3, HOSTILE)] {
        let checker = explore(replicas, budget, None);
        checker.assert_properties();
        assert!(checker.unique_state_count() > 100, "there is something to explore");
    }
}

#[track_caller]
fn assert_found(without: Safeguard, budget: Budget, property: &'static str) {
    let checker = explore(2, budget, Some(without));
    assert!(checker.discovery(property).is_some(), "{without:?} is not needed for {property}");
}

#[test]
fn p1_needs_the_tombstone() {
    assert_found(Safeguard::Tombstone, KIND, "P1: nothing lives after the logout token was answered");
}

#[test]
fn p1_needs_the_version_check() {
    assert_found(Safeguard::Version, KIND, "P1: nothing lives after the logout token was answered");
}

#[test]
fn p2_and_p3_need_the_lease() {
    assert_found(Safeguard::Lease, KIND, "P2: no token is sent while its answer is pending");
    assert_found(Safeguard::Lease, KIND, "P3: nobody is logged out for the reuse of a token");
}
