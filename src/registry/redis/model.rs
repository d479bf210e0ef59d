//! A model of what partitions add to the protocol: a session gets a `sid` that begins in another partition than its own
//! while that `sid` is logged out, and while its user is. One step is what one script does in one partition.
//!
//! The model checker goes through every order of steps, with a writer that crashes half-way and logouts that find a
//! partition out of reach and come again. With a safeguard taken out it has to find how a session survives.

use stateright::{Checker, Model, Property};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Safeguard {
    /// The pointer is there before the session has the `sid`.
    PointerFirst,
    /// No pointer is taken for a `sid` that was logged out.
    TombstoneWhereItBegins,
    /// A logout that follows a pointer leaves a tombstone there too.
    TombstoneWhereItLeads,
    /// A logout by subject visits all partitions.
    AllPartitions,
}

struct Partitions {
    without: Option<Safeguard>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Session {
    /// With the `sid` it was opened with.
    Old,
    New,
    Ended,
}

/// Who gives the session its new `sid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Writer {
    ToPoint,
    ToCommit,
    /// The `sid` was found logged out where it begins.
    ToRefuse,
    Done,
}

/// A logout, step by step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Logout {
    NotYet,
    /// It has been where the `sid` begins, and found a pointer.
    Following,
    /// It has been everywhere it had to, and is acknowledged.
    Answered,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    session: Session,
    pointer: bool,
    /// Of the new `sid`, where that begins.
    tombstone: bool,
    /// Of the new `sid`, where the session lies.
    tombstone_at_home: bool,
    writer: Writer,
    by_sid: Logout,
    by_subject: Logout,
    /// So often a logout may find a partition out of reach, and come again from the start.
    failures: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Write,
    Crash,
    LogOutSid,
    FailSid,
    LogOutSubject,
}

impl Partitions {
    fn has(&self, safeguard: Safeguard) -> bool {
        self.without != Some(safeguard)
    }

    fn write(&self, world: &mut World) {
        world.writer = match world.writer {
            Writer::ToPoint if world.tombstone && self.has(Safeguard::TombstoneWhereItBegins) => Writer::ToRefuse,
            Writer::ToPoint if self.has(Safeguard::PointerFirst) => {
                world.pointer = true;
                Writer::ToCommit
            }
            Writer::ToPoint => Writer::ToCommit,
            Writer::ToCommit => {
                if world.session == Session::Old && !world.tombstone_at_home {
                    world.session = Session::New;
                    world.pointer = true;
                }
                Writer::Done
            }
            // The commit says that the session is gone, and the caller ends it.
            Writer::ToRefuse => {
                world.session = Session::Ended;
                Writer::Done
            }
            Writer::Done => Writer::Done,
        };
    }

    fn log_out_sid(&self, world: &mut World) {
        world.by_sid = match world.by_sid {
            Logout::NotYet => {
                world.tombstone = true;
                if world.pointer { Logout::Following } else { Logout::Answered }
            }
            Logout::Following => {
                world.tombstone_at_home = self.has(Safeguard::TombstoneWhereItLeads);
                if world.session == Session::New {
                    world.session = Session::Ended;
                }
                Logout::Answered
            }
            Logout::Answered => Logout::Answered,
        };
    }
}

impl Model for Partitions {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            session: Session::Old,
            pointer: false,
            tombstone: false,
            tombstone_at_home: false,
            writer: Writer::ToPoint,
            by_sid: Logout::NotYet,
            by_subject: Logout::NotYet,
            failures: 2,
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.writer != Writer::Done {
            steps.extend([Step::Write, Step::Crash]);
        }
        if world.by_sid != Logout::Answered {
            steps.push(Step::LogOutSid);
        }
        if world.by_sid == Logout::Following && world.failures > 0 {
            steps.push(Step::FailSid);
        }
        if world.by_subject != Logout::Answered {
            steps.push(Step::LogOutSubject);
        }
    }

    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        let mut world = before.clone();
        match step {
            Step::Write => self.write(&mut world),
            Step::Crash => world.writer = Writer::Done,
            Step::LogOutSid => self.log_out_sid(&mut world),
            Step::FailSid => {
                world.failures -= 1;
                world.by_sid = Logout::NotYet;
            }
            // Its partitions are independent of each other: in each it finds the session or it does not, by the subject, which
            // never changes.
            Step::LogOutSubject => {
                if self.has(Safeguard::AllPartitions) {
                    world.session = Session::Ended;
                }
                world.by_subject = Logout::Answered;
            }
        }
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("P1: nobody has a sid whose logout was acknowledged", |_, world: &World| {
                world.by_sid != Logout::Answered || world.session != Session::New
            }),
            Property::always("P1: nobody of a subject whose logout was acknowledged is there", |_, world: &World| {
                world.by_subject != Logout::Answered || world.session == Session::Ended
            }),
            Property::sometimes("a session gets its sid", |_, world: &World| world.session == Session::New),
            Property::sometimes("a sid is refused", |_, world: &World| world.writer == Writer::ToRefuse),
            Property::sometimes("a pointer is followed before the session has the sid", |_, world: &World| {
                world.by_sid == Logout::Following && world.session == Session::Old
            }),
        ]
    }
}

#[test]
fn p1_holds_in_every_order_of_steps_in_several_partitions() {
    Partitions { without: None }.checker().spawn_bfs().join().assert_properties();
}

#[test]
fn p1_is_broken_without_any_of_what_keeps_it_in_several_partitions() {
    for safeguard in [
        Safeguard::PointerFirst,
        Safeguard::TombstoneWhereItBegins,
        Safeguard::TombstoneWhereItLeads,
        Safeguard::AllPartitions,
    ] {
        let checked = Partitions { without: Some(safeguard) }.checker().spawn_bfs().join();
        let broken = checked.discoveries().into_keys().any(|name| name.starts_with("P1"));
        assert!(broken, "{safeguard:?} keeps nothing");
    }
}
