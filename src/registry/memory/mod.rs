//! The registry in memory: for one process, for tests and examples.

mod app_data;
mod tower_sessions;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Instant, SystemTime};

use async_trait::async_trait;

use self::app_data::AppData;
use super::listeners::Listeners;
use super::rules::{self, ClaimRule, CommitRule, Cover, CreateRule, Key};
use super::{
    Claimed, Committed, Created, EndListener, EndNotice, Lease, LeaseHolder, Loaded, LogoutTarget, RegistryError,
    SessionRegistry, TOMBSTONE_RETENTION, TOMBSTONE_TOLERANCE,
};
use crate::clock::of_the_store_in_memory;
use crate::protocol::names::{Registration, Sid, Subject};
use crate::session::event::EndReason;
use crate::session::id::SessionKey;
use crate::session::record::{SessionRecord, Version};

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

#[derive(Default)]
struct Shared {
    state: RwLock<State>,
    listeners: Listeners,
}

#[derive(Default)]
struct State {
    sessions: HashMap<SessionKey, Entry>,
    by_sid: HashMap<(Registration, Sid), HashSet<SessionKey>>,
    by_subject: HashMap<(Registration, Subject), HashSet<SessionKey>>,
    by_expiry: BTreeSet<(SystemTime, SessionKey)>,
    ended: HashMap<SessionKey, EndReason>,
    logged_out_sids: HashMap<(Registration, Sid), SystemTime>,
    logged_out_subjects: HashMap<(Registration, Subject), LoggedOutSubject>,
    /// All are kept equally long, so the oldest comes first.
    tombstones: VecDeque<(SystemTime, Tombstone)>,
    app_data: AppData,
}

struct Entry {
    record: Arc<SessionRecord>,
    lease: Option<(LeaseHolder, Instant)>,
}

struct LoggedOutSubject {
    issued_at: SystemTime,
    until: SystemTime,
}

enum Tombstone {
    Session(SessionKey),
    Sid((Registration, Sid)),
    Subject((Registration, Subject)),
}

impl MemoryRegistry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self { shared: Arc::default() }
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
        self.sessions.contains_key(key)
    }

    fn reason(&self, key: &SessionKey) -> Option<EndReason> {
        self.ended.get(key).copied()
    }

    fn cover(&self, record: &SessionRecord, now: SystemTime) -> Cover {
        let registration = record.registration().clone();
        let by_sid = record.sid().and_then(|sid| self.logged_out_sids.get(&(registration.clone(), sid.clone())));
        let by_subject = self.logged_out_subjects.get(&(registration, record.subject().clone()));
        rules::cover(record.issued_at(), by_sid.copied(), by_subject.map(|tomb| (tomb.until, tomb.issued_at)), now)
    }

    fn insert(&mut self, record: Arc<SessionRecord>) {
        let (key, registration) = (*record.key(), record.registration().clone());
        if let Some(sid) = record.sid() {
            self.by_sid.entry((registration.clone(), sid.clone())).or_default().insert(key);
        }
        self.by_subject.entry((registration, record.subject().clone())).or_default().insert(key);
        self.by_expiry.insert((record.expires_at(), key));
        self.sessions.insert(key, Entry { record, lease: None });
    }

    fn remove(&mut self, key: &SessionKey) -> Option<Arc<SessionRecord>> {
        let record = self.sessions.remove(key)?.record;
        let registration = record.registration().clone();
        if let Some(sid) = record.sid() {
            remove_from(&mut self.by_sid, (registration.clone(), sid.clone()), key);
        }
        remove_from(&mut self.by_subject, (registration, record.subject().clone()), key);
        self.by_expiry.remove(&(record.expires_at(), *key));
        Some(record)
    }

    /// Removes a session for good.
    fn end(&mut self, key: &SessionKey, reason: EndReason, now: SystemTime) -> Option<Arc<SessionRecord>> {
        let record = self.remove(key)?;
        self.app_data.delete_bound(key);
        self.ended.insert(*key, reason);
        self.bury(now, Tombstone::Session(*key));
        Some(record)
    }

    fn bury(&mut self, now: SystemTime, tombstone: Tombstone) {
        self.tombstones.push_back((now + TOMBSTONE_RETENTION, tombstone));
    }

    /// Forgets the tombstones whose time is over.
    fn forget(&mut self, now: SystemTime) {
        while self.tombstones.front().is_some_and(|(until, _)| *until <= now) {
            match self.tombstones.pop_front() {
                Some((_, Tombstone::Session(key))) => {
                    self.ended.remove(&key);
                }
                // The entry may have been renewed by a later logout token, which has a tombstone of its own.
                Some((_, Tombstone::Sid(key))) if self.logged_out_sids.get(&key).is_some_and(|t| *t <= now) => {
                    self.logged_out_sids.remove(&key);
                }
                Some((_, Tombstone::Subject(key)))
                    if self.logged_out_subjects.get(&key).is_some_and(|tomb| tomb.until <= now) =>
                {
                    self.logged_out_subjects.remove(&key);
                }
                _ => {}
            }
        }
    }

    fn keys_of(&self, target: &LogoutTarget) -> Vec<SessionKey> {
        let of_subject = |registration: &Registration, subject: &Subject, issued_at: SystemTime| {
            let keys = self.by_subject.get(&(registration.clone(), subject.clone())).into_iter().flatten();
            keys.filter_map(|key| Some(&self.sessions.get(key)?.record))
                .filter(move |record| record.issued_at() <= issued_at + TOMBSTONE_TOLERANCE)
                .collect::<Vec<_>>()
        };
        match target {
            LogoutTarget::Sid { registration, sid, subject, issued_at } => {
                match (self.by_sid.get(&(registration.clone(), sid.clone())), subject) {
                    (Some(keys), _) => keys.iter().copied().collect(),
                    (None, Some(subject)) => {
                        let records = of_subject(registration, subject, *issued_at).into_iter();
                        records.filter(|record| record.sid().is_none()).map(|record| *record.key()).collect()
                    }
                    (None, None) => Vec::new(),
                }
            }
            LogoutTarget::Subject { registration, subject, issued_at } => {
                of_subject(registration, subject, *issued_at).into_iter().map(|record| *record.key()).collect()
            }
        }
    }

    fn bury_target(&mut self, target: &LogoutTarget, now: SystemTime) {
        let until = now + TOMBSTONE_RETENTION;
        match target {
            LogoutTarget::Sid { registration, sid, .. } => {
                let key = (registration.clone(), sid.clone());
                self.logged_out_sids.insert(key.clone(), until);
                self.bury(now, Tombstone::Sid(key));
            }
            LogoutTarget::Subject { registration, subject, issued_at } => {
                let key = (registration.clone(), subject.clone());
                let tomb = self
                    .logged_out_subjects
                    .entry(key.clone())
                    .or_insert(LoggedOutSubject { issued_at: *issued_at, until });
                // A replayed, older token must not reopen the door.
                tomb.issued_at = tomb.issued_at.max(*issued_at);
                tomb.until = until;
                self.bury(now, Tombstone::Subject(key));
            }
        }
    }
}

fn remove_from<K: std::hash::Hash + Eq>(index: &mut HashMap<K, HashSet<SessionKey>>, at: K, key: &SessionKey) {
    if let std::collections::hash_map::Entry::Occupied(mut keys) = index.entry(at) {
        keys.get_mut().remove(key);
        if keys.get().is_empty() {
            keys.remove();
        }
    }
}

#[async_trait]
impl SessionRegistry for MemoryRegistry {
    async fn create(&self, record: SessionRecord, now: SystemTime) -> Result<Created, RegistryError> {
        let mut state = self.write();
        state.forget(now);
        let is_taken = state.is_live(record.key()) || state.ended.contains_key(record.key());
        let key = if is_taken { Key::Taken } else { Key::Free };
        Ok(match rules::create(key, state.cover(&record, now)) {
            CreateRule::Covered => Created::Covered,
            CreateRule::Create => {
                state.insert(Arc::new(record));
                Created::Created
            }
            CreateRule::Exists => Created::Exists,
        })
    }

    async fn load(&self, key: &SessionKey) -> Result<Loaded, RegistryError> {
        let state = self.read();
        Ok(match state.sessions.get(key) {
            Some(entry) => Loaded::Live(entry.record.clone()),
            None => state.reason(key).map_or(Loaded::Unknown, Loaded::Ended),
        })
    }

    async fn claim_refresh(&self, key: &SessionKey, version: Version, lease: Lease) -> Result<Claimed, RegistryError> {
        let mut state = self.write();
        let reason = state.reason(key);
        let now = of_the_store_in_memory();
        let mut entry = state.sessions.get_mut(key);
        let stored = entry.as_ref().map(|entry| {
            let lease = entry.lease.filter(|(_, until)| now < *until);
            (entry.record.version(), lease.map(|(holder, _)| holder))
        });
        match (rules::claim(stored, version, &lease.holder), &mut entry) {
            (ClaimRule::Grant, Some(entry)) => {
                entry.lease = Some((lease.holder, now + lease.duration));
                Ok(Claimed::Granted)
            }
            (ClaimRule::Changed, Some(entry)) => Ok(Claimed::Changed(entry.record.clone())),
            (ClaimRule::Held, Some(_)) => Ok(Claimed::Held),
            (_, None) | (ClaimRule::Gone, Some(_)) => Ok(Claimed::Gone(reason)),
        }
    }

    async fn release_refresh(&self, key: &SessionKey, holder: LeaseHolder) -> Result<(), RegistryError> {
        if let Some(entry) = self.write().sessions.get_mut(key) {
            entry.lease = entry.lease.filter(|(current, _)| *current != holder);
        }
        Ok(())
    }

    async fn commit(&self, mut record: SessionRecord, now: SystemTime) -> Result<Committed, RegistryError> {
        let mut state = self.write();
        state.forget(now);
        let key = *record.key();
        let stored = state.sessions.get(&key).map(|entry| entry.record.clone());
        let stored = match (rules::commit(stored.as_ref().map(|stored| stored.version()), record.version()), stored) {
            (CommitRule::Commit, Some(stored)) => stored,
            (CommitRule::Stale, Some(stored)) => return Ok(Committed::Stale(stored)),
            (_, None) | (CommitRule::Gone, Some(_)) => return Ok(Committed::Gone(state.reason(&key))),
        };
        let moved = stored.sid() != record.sid();
        if moved && state.cover(&record, now) == Cover::Covered {
            // Not ended here: the caller does, and says so.
            return Ok(Committed::Gone(Some(EndReason::BackChannelLogout)));
        }
        record.version = record.version.next();
        let record = Arc::new(record);
        state.remove(&key);
        state.insert(record.clone());
        Ok(Committed::Committed(record))
    }

    async fn end(
        &self,
        key: &SessionKey,
        reason: EndReason,
        now: SystemTime,
    ) -> Result<Option<Arc<SessionRecord>>, RegistryError> {
        let ended = {
            let mut state = self.write();
            state.forget(now);
            state.end(key, reason, now)
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
            let mut state = self.write();
            state.forget(now);
            state.bury_target(target, now);
            let keys = state.keys_of(target);
            keys.iter().filter_map(|key| state.end(key, reason, now)).collect()
        };
        self.publish(&ended, reason);
        Ok(ended)
    }

    async fn remove_expired(&self, now: SystemTime) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        let mut state = self.write();
        state.forget(now);
        state.app_data.remove_expired();
        let mut removed = Vec::new();
        while let Some((expires_at, key)) = state.by_expiry.first().copied() {
            if expires_at > now {
                break;
            }
            state.app_data.delete_bound(&key);
            removed.extend(state.remove(&key));
        }
        Ok(removed)
    }

    fn subscribe(&self, listener: EndListener) {
        self.shared.listeners.add(listener);
    }
}
