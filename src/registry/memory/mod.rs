//! The registry in memory: for one process, for tests and examples.

mod app_data;
mod tower_sessions;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;

use self::app_data::AppData;
use super::listeners::Listeners;
use super::rules::{self, ClaimRule, CommitRule, CreateRule, Held, Key, Tombstone};
use super::{
    Claimed, Committed, Created, END_MARK_RETENTION, EndListener, EndMark, EndNotice, LAPSE_GRACE, Lease, LeaseHolder,
    Loaded, LogoutTarget, RegistryError, SPENT_RETENTION, SessionRegistry, Spent, TokenMark,
};
use crate::clock::{Clock, SystemClock, monotonic};
use crate::protocol::names::{Registration, Sid, Subject};
use crate::session::end_reason::EndReason;
use crate::session::id::{AttemptKey, KeyMap, KeySet, SessionKey};
use crate::session::login_attempt::LoginAttempt;
use crate::session::record::{SessionRecord, Version};

/// So many expired sessions are removed, and so much forgotten, before requests get their turn.
const MOST_AT_ONCE: usize = 200;
/// In between.
const PAUSE: Duration = Duration::from_millis(1);

/// Sessions, and application data of tower-sessions, in the memory of one process. Clones share the sessions.
///
/// They are gone when the process ends, and users log in again, silently where the provider still knows them.
/// A session takes some 2 kB plus its tokens; expired ones are removed in the background.
///
/// It is a [`SessionStore`](::tower_sessions::SessionStore) as well: data that was bound to a login is deleted when the login ends,
/// and cannot be brought back by a request that was under way.
#[derive(Clone)]
pub struct MemoryRegistry {
    shared: Arc<Shared>,
}

struct Shared {
    state: RwLock<State>,
    listeners: Listeners,
    clock: OnceLock<Arc<dyn Clock>>,
}

#[derive(Default)]
struct State {
    /// Those that ended stay in their place: a map that grows would keep requests waiting when many end at once.
    sessions: KeyMap<Place>,
    by_sid: HashMap<Name, Keys>,
    by_subject: HashMap<Name, Keys>,
    by_expiry: BTreeSet<(SystemTime, SessionKey)>,
    spent: HashSet<AttemptKey>,
    tombstones: HashMap<Name, Tombstone>,
    /// What is to be forgotten, and when.
    by_retention: BTreeMap<SystemTime, Vec<Remembered>>,
    app_data: AppData,
}

/// Whom a logout names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Name {
    Sid(Registration, Sid),
    Subject(Registration, Subject),
    /// The sessions of a subject that have no `sid`, for the tombstone of a logout that reached them by an unknown `sid`.
    WithoutSid(Registration, Subject),
}

enum Place {
    Live(Entry),
    Ended(EndMark),
}

struct Entry {
    record: Arc<SessionRecord>,
    /// By the clock of the store.
    expires_at: SystemTime,
    lease: Option<Box<Leased>>,
}

/// A lease, which goes by real time as those in other stores do.
struct Leased {
    holder: LeaseHolder,
    until: Instant,
    contested: Option<Instant>,
}

impl Leased {
    /// What it is worth now; nothing when its time is over for good.
    fn held(&self, now: Instant) -> Option<Held<LeaseHolder>> {
        match self.contested {
            _ if now < self.until => Some(Held::Running(self.holder)),
            None => Some(Held::Lapsed(self.holder)),
            Some(since) if now < since + LAPSE_GRACE => Some(Held::Contested(self.holder)),
            Some(_) => None,
        }
    }
}

/// The sessions of a name: one in most cases, for which a set would be large.
#[derive(Default)]
enum Keys {
    #[default]
    None,
    One(SessionKey),
    Many(KeySet),
}

impl Keys {
    fn insert(&mut self, key: SessionKey) {
        match self {
            Self::None => *self = Self::One(key),
            Self::One(one) if *one == key => {}
            Self::One(one) => *self = Self::Many(KeySet::from_iter([*one, key])),
            Self::Many(keys) => {
                keys.insert(key);
            }
        }
    }

    fn remove(&mut self, key: &SessionKey) {
        match self {
            Self::One(one) if one == key => *self = Self::None,
            Self::Many(keys) => {
                keys.remove(key);
            }
            Self::None | Self::One(_) => {}
        }
    }

    fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    fn iter(&self) -> impl Iterator<Item = &SessionKey> {
        let (one, many) = match self {
            Self::None => (None, None),
            Self::One(one) => (Some(one), None),
            Self::Many(keys) => (None, Some(keys)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

enum Remembered {
    Ended(SessionKey),
    Spent(AttemptKey),
    Tombstone(Name),
}

impl MemoryRegistry {
    /// An empty registry. It removes and forgets by the clock of the first relying party that is built over it.
    #[must_use]
    pub fn new() -> Self {
        let shared = Shared { state: RwLock::default(), listeners: Listeners::default(), clock: OnceLock::new() };
        Self { shared: Arc::new(shared) }
    }

    /// The number of live sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        // Each has an expiry.
        self.read().by_expiry.len()
    }

    /// Whether there is no live session.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    // No operation leaves the state half changed, so a panic elsewhere does not make it unusable.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.shared.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.shared.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: &SessionKey) -> Loaded {
        let state = self.read();
        match state.sessions.get(key) {
            Some(Place::Live(entry)) => Loaded::Live(entry.record.clone()),
            Some(Place::Ended(mark)) => Loaded::Ended(*mark),
            None => Loaded::Unknown,
        }
    }

    fn time_here(&self) -> SystemTime {
        self.shared.clock.get().map_or_else(|| SystemClock.now(), |clock| clock.now())
    }

    /// The state to be changed, rid of what is forgotten by now.
    fn write_at(&self) -> (RwLockWriteGuard<'_, State>, SystemTime) {
        let now = self.time_here();
        let mut state = self.write();
        state.forget(now);
        (state, now)
    }

    fn publish(&self, ended: &[Arc<SessionRecord>], reason: EndReason) {
        for record in ended {
            self.shared.listeners.tell(EndNotice::Ended(*record.key(), reason));
        }
    }
}

impl Default for MemoryRegistry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRegistry").field("sessions", &self.len()).finish_non_exhaustive()
    }
}

impl State {
    fn is_live(&self, key: &SessionKey) -> bool {
        self.live(key).is_some()
    }

    fn live(&self, key: &SessionKey) -> Option<&Entry> {
        match self.sessions.get(key)? {
            Place::Live(entry) => Some(entry),
            Place::Ended(_) => None,
        }
    }

    fn live_mut(&mut self, key: &SessionKey) -> Option<&mut Entry> {
        match self.sessions.get_mut(key)? {
            Place::Live(entry) => Some(entry),
            Place::Ended(_) => None,
        }
    }

    fn reason(&self, key: &SessionKey) -> Option<EndReason> {
        match self.sessions.get(key)? {
            Place::Ended(mark) => Some(mark.reason),
            Place::Live(_) => None,
        }
    }

    /// When the logouts arrived whose tombstones name the session.
    fn arrivals(&self, record: &SessionRecord, here: SystemTime) -> impl Iterator<Item = SystemTime> {
        let without_sid = || Name::WithoutSid(record.registration().clone(), record.subject().clone());
        let names = names_of(record).chain(record.sid().is_none().then(without_sid));
        names.filter_map(move |name| self.tombstone(&name, here)).map(|tombstone| tombstone.arrived)
    }

    /// The tombstone of a name, if it is to be remembered still.
    fn tombstone(&self, name: &Name, here: SystemTime) -> Option<&Tombstone> {
        self.tombstones.get(name).filter(|tombstone| here < tombstone.until())
    }

    fn insert(&mut self, record: Arc<SessionRecord>, expires_at: SystemTime) {
        let key = *record.key();
        for name in names_of(&record) {
            self.index(&name).entry(name).or_default().insert(key);
        }
        self.by_expiry.insert((expires_at, key));
        self.sessions.insert(key, Place::Live(Entry { record, expires_at, lease: None }));
    }

    fn index(&mut self, name: &Name) -> &mut HashMap<Name, Keys> {
        match name {
            Name::Sid(..) => &mut self.by_sid,
            Name::Subject(..) | Name::WithoutSid(..) => &mut self.by_subject,
        }
    }

    /// Takes a session out of everything but its place.
    fn detach(&mut self, record: &SessionRecord, expires_at: SystemTime) {
        for name in names_of(record) {
            remove_from(self.index(&name), name, record.key());
        }
        self.by_expiry.remove(&(expires_at, *record.key()));
    }

    /// Ends a session for good.
    fn end(&mut self, key: &SessionKey, reason: EndReason, now: SystemTime) -> Option<Arc<SessionRecord>> {
        let entry = self.live(key)?;
        let (record, expires_at) = (entry.record.clone(), entry.expires_at);
        self.detach(&record, expires_at);
        self.app_data.delete_bound(key);
        let mark = EndMark { reason, subject: Some(record.subject_hash()) };
        self.sessions.insert(*key, Place::Ended(mark));
        self.remember(Remembered::Ended(*key), now + END_MARK_RETENTION);
        Some(record)
    }

    fn remember(&mut self, what: Remembered, until: SystemTime) {
        self.by_retention.entry(until).or_default().push(what);
    }

    /// Forgets a part of what is not needed any more, and says how much.
    fn forget(&mut self, now: SystemTime) -> usize {
        let mut forgotten = 0;
        while forgotten < MOST_AT_ONCE
            && let Some(mut entry) = self.by_retention.first_entry().filter(|entry| *entry.key() <= now)
        {
            let all = entry.get_mut();
            let some = all.split_off(all.len().saturating_sub(MOST_AT_ONCE));
            if all.is_empty() {
                entry.remove();
            }
            forgotten += some.len();
            for what in some {
                match what {
                    Remembered::Ended(key) => drop(self.sessions.remove(&key)),
                    Remembered::Spent(attempt) => drop(self.spent.remove(&attempt)),
                    // It may have been renewed since, and is remembered anew then.
                    Remembered::Tombstone(name) => {
                        if self.tombstones.get(&name).is_some_and(|tombstone| tombstone.until() <= now) {
                            self.tombstones.remove(&name);
                        }
                    }
                }
            }
        }
        forgotten
    }

    fn keys_of(&self, target: &LogoutTarget) -> Vec<SessionKey> {
        let issued_by = |keys: Option<&Keys>, latest: Option<SystemTime>| {
            let records = keys.into_iter().flat_map(Keys::iter).filter_map(|key| Some(&self.live(key)?.record));
            let fits = move |record: &&Arc<SessionRecord>| latest.is_none_or(|latest| record.issued_at() <= latest);
            records.filter(fits).collect::<Vec<_>>()
        };
        let reach = rules::reach(target);
        let records = match target {
            LogoutTarget::Sid { registration, sid, subject, .. } => {
                let keys = self.by_sid.get(&Name::Sid(registration.clone(), sid.clone()));
                match (keys, subject) {
                    (None, Some(subject)) => {
                        let keys = self.by_subject.get(&Name::Subject(registration.clone(), subject.clone()));
                        let records = issued_by(keys, reach.by_subject).into_iter();
                        records.filter(|record| record.sid().is_none()).collect()
                    }
                    (keys, _) => issued_by(keys, reach.by_sid),
                }
            }
            LogoutTarget::Subject { registration, subject, .. } => {
                let keys = self.by_subject.get(&Name::Subject(registration.clone(), subject.clone()));
                issued_by(keys, reach.by_subject)
            }
        };
        records.into_iter().map(|record| *record.key()).collect()
    }

    /// Remembers a logout, and whether it reached sessions without `sid` for want of one with it.
    fn bury(&mut self, target: &LogoutTarget, arrived: SystemTime) {
        let name = match target {
            LogoutTarget::Sid { registration, sid, subject, .. } => {
                let name = Name::Sid(registration.clone(), sid.clone());
                if let (false, Some(subject)) = (self.by_sid.contains_key(&name), subject) {
                    let widened = Name::WithoutSid(registration.clone(), subject.clone());
                    self.bury_name(widened, target.token(), arrived);
                }
                name
            }
            LogoutTarget::Subject { registration, subject, .. } => Name::Subject(registration.clone(), subject.clone()),
        };
        self.bury_name(name, target.token(), arrived);
    }

    fn bury_name(&mut self, name: Name, token: Option<&TokenMark>, arrived: SystemTime) {
        let before = self.tombstones.remove(&name).filter(|tombstone| arrived < tombstone.until());
        let tombstone = Tombstone::after(before, token, arrived);
        self.remember(Remembered::Tombstone(name.clone()), tombstone.until());
        self.tombstones.insert(name, tombstone);
    }
}

fn names_of(record: &SessionRecord) -> impl Iterator<Item = Name> {
    let sid = record.sid().map(|sid| Name::Sid(record.registration().clone(), sid.clone()));
    sid.into_iter().chain([Name::Subject(record.registration().clone(), record.subject().clone())])
}

fn remove_from(index: &mut HashMap<Name, Keys>, at: Name, key: &SessionKey) {
    if let std::collections::hash_map::Entry::Occupied(mut keys) = index.entry(at) {
        keys.get_mut().remove(key);
        if keys.get().is_empty() {
            keys.remove();
        }
    }
}

#[async_trait]
impl SessionRegistry for MemoryRegistry {
    async fn time(&self) -> Result<SystemTime, RegistryError> {
        Ok(self.time_here())
    }

    async fn spend(&self, attempt: &AttemptKey) -> Result<Spent, RegistryError> {
        let (mut state, here) = self.write_at();
        if !state.spent.insert(*attempt) {
            return Ok(Spent::Before);
        }
        state.remember(Remembered::Spent(*attempt), here + SPENT_RETENTION);
        Ok(Spent::Now)
    }

    async fn create(
        &self,
        record: SessionRecord,
        attempt: LoginAttempt,
        now: SystemTime,
    ) -> Result<Created, RegistryError> {
        let (mut state, here) = self.write_at();
        let is_taken = state.sessions.contains_key(record.key());
        let key = if is_taken { Key::Taken } else { Key::Free };
        Ok(match rules::create(key, attempt, state.arrivals(&record, here)) {
            CreateRule::Covered(arrived) => Created::Covered(arrived),
            CreateRule::Create => {
                let expires_at = here + record.time_left(now);
                state.insert(Arc::new(record), expires_at);
                Created::Created
            }
            CreateRule::Exists => Created::Exists,
        })
    }

    async fn load(&self, key: &SessionKey) -> Result<Loaded, RegistryError> {
        Ok(self.find(key))
    }

    fn load_at_once(&self, key: &SessionKey) -> Option<Loaded> {
        Some(self.find(key))
    }

    async fn has_sibling(&self, record: &SessionRecord) -> Result<bool, RegistryError> {
        let state = self.read();
        // The most telling name comes first.
        let keys = names_of(record).next().and_then(|name| match &name {
            Name::Sid(..) => state.by_sid.get(&name),
            Name::Subject(..) | Name::WithoutSid(..) => state.by_subject.get(&name),
        });
        Ok(keys.is_some_and(|keys| keys.iter().any(|key| key != record.key())))
    }

    async fn claim_refresh(&self, key: &SessionKey, version: Version, lease: Lease) -> Result<Claimed, RegistryError> {
        let mut state = self.write();
        let reason = state.reason(key);
        let Some(entry) = state.live_mut(key) else { return Ok(Claimed::Gone(reason)) };
        let now = monotonic();
        let held = entry.lease.as_ref().and_then(|lease| lease.held(now));
        Ok(match rules::claim(Some((entry.record.version(), held)), version, &lease.holder) {
            ClaimRule::Grant => {
                let until = now + lease.duration;
                entry.lease = Some(Box::new(Leased { holder: lease.holder, until, contested: None }));
                Claimed::Granted
            }
            ClaimRule::Changed => Claimed::Changed(entry.record.clone()),
            ClaimRule::Contest => {
                if let Some(lease) = &mut entry.lease {
                    lease.contested = Some(now);
                }
                Claimed::Held
            }
            ClaimRule::Held => Claimed::Held,
            ClaimRule::Gone => Claimed::Gone(reason),
        })
    }

    async fn release_refresh(&self, key: &SessionKey, holder: LeaseHolder) -> Result<(), RegistryError> {
        if let Some(entry) = self.write().live_mut(key) {
            entry.lease.take_if(|lease| lease.holder == holder);
        }
        Ok(())
    }

    async fn commit(&self, mut record: SessionRecord, now: SystemTime) -> Result<Committed, RegistryError> {
        let (mut state, here) = self.write_at();
        let key = *record.key();
        let stored = state.live(&key).map(|entry| (entry.record.clone(), entry.expires_at));
        let version = stored.as_ref().map(|(stored, _)| stored.version());
        let (stored, was_until) = match (rules::commit(version, record.version()), stored) {
            (CommitRule::Commit, Some(stored)) => stored,
            (CommitRule::Stale, Some((stored, _))) => return Ok(Committed::Stale(stored)),
            (_, None) | (CommitRule::Gone, Some(_)) => return Ok(Committed::Gone(state.reason(&key))),
        };
        let moved = stored.sid() != record.sid();
        let sid = record.sid().map(|sid| Name::Sid(record.registration().clone(), sid.clone()));
        if moved && sid.is_some_and(|sid| state.tombstone(&sid, here).is_some()) {
            // Not ended here: the caller does, and says so.
            return Ok(Committed::Gone(Some(EndReason::BackChannelLogout)));
        }
        record.version = record.version.next();
        let expires_at = here + record.time_left(now);
        let record = Arc::new(record);
        state.detach(&stored, was_until);
        state.insert(record.clone(), expires_at);
        Ok(Committed::Committed(record))
    }

    async fn end(&self, key: &SessionKey, reason: EndReason) -> Result<Option<Arc<SessionRecord>>, RegistryError> {
        let ended = {
            let (mut state, here) = self.write_at();
            state.end(key, reason, here)
        };
        self.publish(ended.as_slice(), reason);
        Ok(ended)
    }

    async fn end_matching(
        &self,
        target: &LogoutTarget,
        reason: EndReason,
        now: SystemTime,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        let ended: Vec<_> = {
            let (mut state, here) = self.write_at();
            // By the replica's clock and by ours, one of which may be ahead.
            if rules::leaves_tombstone(target.token(), now.min(here)) {
                state.bury(target, here);
            }
            let keys = state.keys_of(target);
            keys.iter().filter_map(|key| state.end(key, reason, here)).collect()
        };
        self.publish(&ended, reason);
        Ok(ended)
    }

    async fn remove_expired(&self) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        let mut removed = Vec::new();
        self.write().app_data.remove_expired();
        loop {
            let before = removed.len();
            let forgotten;
            {
                let here = self.time_here();
                let mut state = self.write();
                forgotten = state.forget(here);
                // A few at a time: requests wait for the lock.
                while removed.len() < before + MOST_AT_ONCE
                    && let Some(first @ (_, key)) = state.by_expiry.first().copied().filter(|(until, _)| *until <= here)
                {
                    state.by_expiry.remove(&first);
                    let reason = state.live(&key).map(|entry| entry.record.expires_for());
                    removed.extend(reason.and_then(|reason| state.end(&key, reason, here)));
                }
            }
            let now_removed = removed.get(before..).unwrap_or_default();
            for record in now_removed {
                self.publish(std::slice::from_ref(record), record.expires_for());
            }
            if now_removed.len() < MOST_AT_ONCE && forgotten == 0 {
                return Ok(removed);
            }
            // The lock is not fair: whoever waits for it gets it only now.
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn trust(&self) -> Duration {
        // No notice is lost within a process.
        Duration::from_secs(3600)
    }

    fn adopt_clock(&self, clock: &Arc<dyn Clock>) {
        self.shared.clock.get_or_init(|| clock.clone());
    }

    fn subscribe(&self, listener: EndListener) {
        self.shared.listeners.add(listener);
    }
}
