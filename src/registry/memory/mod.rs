//! The registry in memory: for one process, for tests and examples.

#[cfg_attr(not(feature = "tower-sessions"), path = "no_app_data.rs")]
mod app_data;
mod lease;
mod sessions;
#[cfg(feature = "tower-sessions")]
mod tower_sessions;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use self::app_data::AppData;
use self::lease::Leased;
use self::sessions::{Name, Number, Place, Sessions};
use super::listeners::Listeners;
use super::rules::{self, ClaimRule, CommitRule, CreateRule, Key, Tombstone};
use super::{
    Claimed, Committed, Created, END_MARK_RETENTION, EndListener, EndNotice, Lease, LeaseHolder, Loaded, LogoutTarget,
    RegistryError, SPENT_RETENTION, SessionRegistry, Spent, TokenMark,
};
use crate::clock::{Clock, SystemClock, monotonic};
use crate::protocol::names::{Registration, Sid, Subject};
use crate::session::end_reason::EndReason;
use crate::session::id::{AttemptKey, SessionKey};
use crate::session::login_attempt::LoginAttempt;
use crate::session::record::{SessionRecord, Version};

/// So many expired sessions are removed, and so much forgotten, before requests get their turn.
const MOST_AT_ONCE: usize = 200;
/// In between.
const PAUSE: Duration = Duration::from_millis(1);

/// Sessions, and application data of tower-sessions, in the memory of one process. Clones share the sessions.
///
/// They are gone when the process ends, and users log in again, silently where the provider still knows them.
/// A session takes some 1 kB plus its tokens; expired ones are removed in the background.
///
/// With the feature `tower-sessions` it is one of its `SessionStore`s as well: data that was bound to a login is deleted when the login ends,
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
    sessions: Sessions,
    spent: HashSet<AttemptKey>,
    tombstones: HashMap<Buried, Tombstone>,
    /// What is to be forgotten, and when.
    by_retention: BTreeMap<SystemTime, Vec<Remembered>>,
    app_data: AppData,
}

/// Whom a logout names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Buried {
    Sid(Registration, Sid),
    Subject(Registration, Subject),
    /// The sessions of a subject that have no `sid`, for the tombstone of a logout that reached them by an unknown `sid`.
    WithoutSid(Registration, Subject),
}

enum Remembered {
    Ended(SessionKey),
    Spent(AttemptKey),
    Tombstone(Buried),
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
        self.read().sessions.len()
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

    fn records_of(&self, name: Name<'_>) -> Vec<Arc<SessionRecord>> {
        self.read().sessions.of(name).map(|(_, record)| record.clone()).collect()
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
    fn reason(&self, key: &SessionKey) -> Option<EndReason> {
        match self.sessions.get(key)? {
            Place::Ended(mark) => Some(mark.reason),
            Place::Live(_) => None,
        }
    }

    /// When the logouts arrived whose tombstones name the session.
    fn arrivals(&self, record: &SessionRecord, here: SystemTime) -> impl Iterator<Item = SystemTime> {
        let registration = || record.registration().clone();
        let subject = [Buried::Subject(registration(), record.subject().clone())];
        let other = match record.sid() {
            Some(sid) => Buried::Sid(registration(), sid.clone()),
            None => Buried::WithoutSid(registration(), record.subject().clone()),
        };
        let names = subject.into_iter().chain([other]);
        names.filter_map(move |name| self.tombstone(&name, here)).map(|tombstone| tombstone.arrived)
    }

    /// The tombstone of a name, if it is to be remembered still.
    fn tombstone(&self, name: &Buried, here: SystemTime) -> Option<&Tombstone> {
        self.tombstones.get(name).filter(|tombstone| here < tombstone.until())
    }

    /// Ends a session for good.
    fn end(&mut self, number: Number, reason: EndReason, now: SystemTime) -> Option<Arc<SessionRecord>> {
        let record = self.sessions.end(number, reason)?;
        self.app_data.delete_bound(record.key());
        self.remember(Remembered::Ended(*record.key()), now + END_MARK_RETENTION);
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
                    Remembered::Ended(key) => self.sessions.forget(&key),
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

    fn reached_by(&self, target: &LogoutTarget) -> Vec<Number> {
        let reach = rules::reach(target);
        let fits = |record: &SessionRecord, latest: Option<SystemTime>| {
            latest.is_none_or(|latest| record.issued_at() <= latest)
        };
        match target {
            LogoutTarget::Sid { registration, sid, subject, .. } => {
                let mut of_sid = self.sessions.of(Name::Sid(registration, sid)).peekable();
                match subject {
                    Some(subject) if of_sid.peek().is_none() => {
                        let of_subject = self.sessions.of(Name::Subject(registration, subject));
                        let fits = |record: &SessionRecord| record.sid().is_none() && fits(record, reach.by_subject);
                        of_subject.filter(|(_, record)| fits(record)).map(|(number, _)| number).collect()
                    }
                    _ => of_sid.filter(|(_, record)| fits(record, reach.by_sid)).map(|(number, _)| number).collect(),
                }
            }
            LogoutTarget::Subject { registration, subject, .. } => {
                let of_subject = self.sessions.of(Name::Subject(registration, subject));
                of_subject.filter(|(_, record)| fits(record, reach.by_subject)).map(|(number, _)| number).collect()
            }
        }
    }

    /// Remembers a logout, and whether it reached sessions without `sid` for want of one with it.
    fn bury(&mut self, target: &LogoutTarget, arrived: SystemTime) {
        let name = match target {
            LogoutTarget::Sid { registration, sid, subject, .. } => {
                if let Some(subject) = subject
                    && self.sessions.of(Name::Sid(registration, sid)).next().is_none()
                {
                    let widened = Buried::WithoutSid(registration.clone(), subject.clone());
                    self.bury_name(widened, target.token(), arrived);
                }
                Buried::Sid(registration.clone(), sid.clone())
            }
            LogoutTarget::Subject { registration, subject, .. } => {
                Buried::Subject(registration.clone(), subject.clone())
            }
        };
        self.bury_name(name, target.token(), arrived);
    }

    fn bury_name(&mut self, name: Buried, token: Option<&TokenMark>, arrived: SystemTime) {
        let before = self.tombstones.remove(&name).filter(|tombstone| arrived < tombstone.until());
        let was_until = before.as_ref().map(Tombstone::until);
        let tombstone = Tombstone::after(before, token, arrived);
        // One token sent again and again is remembered once.
        if was_until != Some(tombstone.until()) {
            self.remember(Remembered::Tombstone(name.clone()), tombstone.until());
        }
        self.tombstones.insert(name, tombstone);
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
        let is_taken = state.sessions.get(record.key()).is_some();
        let key = if is_taken { Key::Taken } else { Key::Free };
        Ok(match rules::create(key, attempt, state.arrivals(&record, here)) {
            CreateRule::Covered(arrived) => Created::Covered(arrived),
            CreateRule::Create => {
                let expires_at = here + record.time_left(now);
                state.sessions.insert(&Arc::new(record), expires_at);
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
        let registration = record.registration();
        // The more telling name.
        let name = match record.sid() {
            Some(sid) => Name::Sid(registration, sid),
            None => Name::Subject(registration, record.subject()),
        };
        Ok(state.sessions.of(name).any(|(_, other)| other.key() != record.key()))
    }

    async fn sessions_of(
        &self,
        registration: &Registration,
        subject: &Subject,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        Ok(self.records_of(Name::Subject(registration, subject)))
    }

    async fn sessions_with_sid(
        &self,
        registration: &Registration,
        sid: &Sid,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        Ok(self.records_of(Name::Sid(registration, sid)))
    }

    async fn count(&self) -> Result<Option<u64>, RegistryError> {
        Ok(Some(self.read().sessions.len() as u64))
    }

    async fn claim_refresh(&self, key: &SessionKey, version: Version, lease: Lease) -> Result<Claimed, RegistryError> {
        let mut state = self.write();
        let reason = state.reason(key);
        let Some(entry) = state.sessions.live_mut(key) else { return Ok(Claimed::Gone(reason)) };
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
        if let Some(entry) = self.write().sessions.live_mut(key) {
            entry.lease.take_if(|lease| lease.holder == holder);
        }
        Ok(())
    }

    async fn commit(&self, mut record: SessionRecord, now: SystemTime) -> Result<Committed, RegistryError> {
        let (mut state, here) = self.write_at();
        let key = *record.key();
        let stored = state.sessions.live(&key).map(|entry| entry.record.clone());
        let version = stored.as_ref().map(|stored| stored.version());
        let stored = match (rules::commit(version, record.version()), stored) {
            (CommitRule::Commit, Some(stored)) => stored,
            (CommitRule::Stale, Some(stored)) => return Ok(Committed::Stale(stored)),
            (_, None) | (CommitRule::Gone, Some(_)) => return Ok(Committed::Gone(state.reason(&key))),
        };
        let moved = stored.sid() != record.sid();
        let sid = record.sid().map(|sid| Buried::Sid(record.registration().clone(), sid.clone()));
        if moved && sid.is_some_and(|sid| state.tombstone(&sid, here).is_some()) {
            // Not ended here: the caller does, and says so.
            return Ok(Committed::Gone(Some(EndReason::BackChannelLogout)));
        }
        record.version = record.version.next();
        let expires_at = here + record.time_left(now);
        let record = Arc::new(record);
        state.sessions.replace(&record, expires_at);
        Ok(Committed::Committed(record))
    }

    async fn end(&self, key: &SessionKey, reason: EndReason) -> Result<Option<Arc<SessionRecord>>, RegistryError> {
        let ended = {
            let (mut state, here) = self.write_at();
            state.sessions.number(key).and_then(|number| state.end(number, reason, here))
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
            if rules::leaves_tombstone(target.token(), now, here) {
                state.bury(target, here);
            }
            let reached = state.reached_by(target);
            reached.into_iter().filter_map(|number| state.end(number, reason, here)).collect()
        };
        self.publish(&ended, reason);
        Ok(ended)
    }

    async fn remove_expired(&self) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        let mut removed = Vec::new();
        while self.write().app_data.remove_expired(MOST_AT_ONCE) == MOST_AT_ONCE {
            tokio::time::sleep(PAUSE).await;
        }
        loop {
            let before = removed.len();
            let forgotten;
            {
                let here = self.time_here();
                let mut state = self.write();
                forgotten = state.forget(here);
                // A few at a time: requests wait for the lock.
                while removed.len() < before + MOST_AT_ONCE
                    && let Some((number, first)) = state.sessions.first_expired(here)
                {
                    let reason = first.expires_for();
                    removed.extend(state.end(number, reason, here));
                }
            }
            let now_removed = removed.get(before..).unwrap_or_default();
            for record in now_removed {
                self.publish(std::slice::from_ref(record), record.expires_for());
            }
            if now_removed.len() < MOST_AT_ONCE && forgotten < MOST_AT_ONCE {
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

    fn is_shared(&self) -> bool {
        false
    }

    fn adopt_clock(&self, clock: &Arc<dyn Clock>) {
        self.shared.clock.get_or_init(|| clock.clone());
    }

    fn subscribe(&self, listener: EndListener) {
        self.shared.listeners.add(listener);
    }
}
