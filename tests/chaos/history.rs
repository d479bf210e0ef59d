//! What happened, by one monotonic clock: the harness's.

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Since the run began.
pub(crate) type At = Duration;

/// A session of the application as its browser knows it: a value of the session cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Local(pub(crate) u64);

/// A replica from its start to its death.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Life {
    pub(crate) replica: usize,
    pub(crate) number: u32,
}

/// How a browser asks for what is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// A script that the user has set off.
    Click,
    /// A script by itself, which is no activity.
    Poll,
    /// A navigation.
    Page,
}

/// What a replica answered a browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// What is protected was served.
    Served { sub: String, sid: String },
    /// 401: the session has ended, or there is none. A page view that is sent to the login is not told why.
    Over { reason: Option<String> },
    /// 401 for a passive request that nobody is asked for.
    Unconfirmed,
    /// 503.
    Unavailable,
    /// The connection broke, or the browser did not wait any longer.
    Nothing,
    /// What there should not be.
    Other(String),
}

/// What a replica presented at the token endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Presented {
    Code(String),
    RefreshToken(String),
}

/// What the token endpoint said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Granted {
        refresh_token: Option<String>,
        sid: Option<String>,
    },
    Refused {
        error: String,
    },
    Unavailable,
    /// It was not asked: the connection was cut before.
    NotAsked,
}

/// What the answer came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Delivered,
    /// The nemesis cut the connection.
    Cut,
    /// The replica went away, or gave up.
    Abandoned,
}

#[derive(Clone, Debug)]
pub(crate) struct TokenRequest {
    pub(crate) life: Life,
    pub(crate) presented: Presented,
    pub(crate) arrived: At,
    pub(crate) ended: At,
    pub(crate) said: Said,
    pub(crate) fate: Fate,
}

/// Whom a logout token is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Sid(String),
    Sub(String),
}

/// What the nemesis does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// SIGKILL, and a new start.
    Kill,
    /// SIGSTOP, and SIGCONT.
    Stop,
    /// SIGTERM, and a new start.
    Restart,
    /// A replica's clock jumps, and jumps back.
    Clock,
    /// The provider cannot be reached by a replica, or its answers cannot.
    ProviderCut,
    /// The provider is slow.
    ProviderSlow,
    /// The provider answers 503.
    ProviderDown,
    /// The provider signs with a new key.
    Keys,
    /// The store's connections of a replica are cut, and no new ones made.
    StoreCut,
    /// Nothing passes between a replica and the store, and nobody is told.
    StoreSilent,
    /// The store stands still: a slow disk, a paused machine.
    StorePaused,
    /// The store takes no writes.
    StoreFull,
    /// A replica of the store takes over, in good order.
    Failover,
    /// The store's primary dies, and a replica takes over or it starts again.
    StoreCrash,
    /// The store took no write in time, whatever kept it.
    StoreSlow,
    /// The machine did nothing for a while.
    Still,
}

impl Kind {
    /// Whether the fault keeps writes from the store.
    pub(crate) fn is_of_store(self) -> bool {
        use Kind::{Failover, StoreCrash, StoreCut, StoreFull, StorePaused, StoreSilent, StoreSlow};
        matches!(self, StoreCut | StoreSilent | StorePaused | StoreFull | Failover | StoreCrash | StoreSlow)
    }
}

/// What went wrong, where it was one replica's at which, and when.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) replica: Option<usize>,
    pub(crate) from: At,
    pub(crate) to: At,
}

impl Fault {
    pub(crate) fn overlaps(&self, from: At, to: At) -> bool {
        self.from <= to && self.to >= from
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A browser got a session cookie.
    Login {
        local: Local,
        sub: String,
        code: String,
        began: At,
        done: At,
        /// The session that the browser had before.
        had: Option<Local>,
    },
    /// A browser that had a session came back from the provider: a login, if it comes to one, ends what it had.
    Callback {
        had: Local,
        sent: At,
    },
    /// A request to what is protected.
    Request {
        local: Local,
        how: How,
        /// Who answered.
        replica: Option<usize>,
        sent: At,
        got: At,
        answer: Answer,
    },
    /// The user signed out. It is acknowledged if the answer said so.
    SignOut {
        local: Local,
        sent: At,
        acknowledged: Option<At>,
    },
    /// A logout token was posted; acknowledged by a 200.
    LogoutToken {
        target: Target,
        issued: At,
        sent: At,
        acknowledged: Option<At>,
    },
    /// The provider's session is not there any more.
    ProviderEnd {
        sid: String,
        at: At,
    },
    Token(TokenRequest),
    Fault(Fault),
    /// After all was well again a user could not get on.
    Stuck {
        sub: String,
        why: String,
    },
}

/// Clones write the same history.
#[derive(Clone)]
pub(crate) struct History {
    began: Instant,
    events: Arc<Mutex<Vec<Event>>>,
}

impl History {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), events: Arc::default() }
    }

    pub(crate) fn now(&self) -> At {
        self.began.elapsed()
    }

    pub(crate) fn push(&self, event: Event) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A line for each.
pub(crate) fn as_text(events: &[Event]) -> String {
    events.iter().fold(String::new(), |mut text, event| {
        let _ = writeln!(text, "{event:?}");
        text
    })
}
