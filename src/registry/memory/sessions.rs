//! The sessions of the registry in memory, by key, by `sid`, by subject and by expiry.
//!
//! Each has a place with a number. The indices hold numbers and hashes, no names: a session that ends is found and taken out
//! of all of them with a few looks at memory that is far away, and a million more sessions are a million small entries.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::SystemTime;

use hashbrown::HashTable;
use slab::Slab;

use super::lease::Leased;
use crate::protocol::names::{Registration, Sid, Subject};
use crate::registry::EndMark;
use crate::session::end_reason::EndReason;
use crate::session::id::SessionKey;
use crate::session::record::SessionRecord;

/// The number of a place. Four billion sessions do not fit into any memory.
pub(super) type Number = u32;
/// No place.
const NOWHERE: Number = Number::MAX;

#[derive(Default)]
pub(super) struct Sessions {
    /// Those that ended stay in their place until their mark is forgotten.
    places: Slab<Slot>,
    by_key: HashTable<Indexed>,
    /// The first of each list; see [`Name::list`].
    by_name: [HashTable<Indexed>; 2],
    by_expiry: BTreeSet<(SystemTime, Number)>,
    hasher: RandomState,
}

/// What an index holds: with its hash, so that one that grows looks at nothing else.
struct Indexed {
    hash: u32,
    number: Number,
}

struct Slot {
    key: SessionKey,
    place: Place,
}

pub(super) enum Place {
    Live(Entry),
    Ended(EndMark),
}

pub(super) struct Entry {
    pub(super) record: Arc<SessionRecord>,
    /// By the clock of the store.
    pub(super) expires_at: SystemTime,
    pub(super) lease: Option<Box<Leased>>,
    /// Its neighbours among those of the same `sid` and of the same subject.
    links: [Links; 2],
}

#[derive(Clone, Copy)]
struct Links {
    before: Number,
    after: Number,
}

impl Links {
    const NONE: Self = Self { before: NOWHERE, after: NOWHERE };
}

/// By what sessions are found besides their keys.
#[derive(Clone, Copy, Hash)]
pub(super) enum Name<'a> {
    Sid(&'a Registration, &'a Sid),
    Subject(&'a Registration, &'a Subject),
}

impl<'a> Name<'a> {
    fn of(record: &'a SessionRecord) -> impl Iterator<Item = Self> {
        let sid = record.sid().map(|sid| Self::Sid(record.registration(), sid));
        sid.into_iter().chain([Self::Subject(record.registration(), record.subject())])
    }

    fn list(self) -> usize {
        match self {
            Self::Sid(..) => 0,
            Self::Subject(..) => 1,
        }
    }

    fn is_of(self, record: &SessionRecord) -> bool {
        match self {
            Self::Sid(registration, sid) => record.sid() == Some(sid) && record.registration() == registration,
            Self::Subject(registration, subject) => {
                record.subject() == subject && record.registration() == registration
            }
        }
    }
}

/// A hash of 64 bits, as the tables want it.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn hash_of(key: &SessionKey) -> u32 {
    // It is a hash itself.
    let [.., a, b, c, d] = *key.as_bytes();
    u32::from_le_bytes([a, b, c, d])
}

impl Sessions {
    /// The number of live ones.
    pub(super) fn len(&self) -> usize {
        // Each has an expiry.
        self.by_expiry.len()
    }

    pub(super) fn number(&self, key: &SessionKey) -> Option<Number> {
        let hash = hash_of(key);
        let is_it = |at: &Indexed| at.hash == hash && self.slot(at.number).is_some_and(|slot| slot.key == *key);
        self.by_key.find(spread(hash), is_it).map(|at| at.number)
    }

    fn slot(&self, number: Number) -> Option<&Slot> {
        self.places.get(number as usize)
    }

    fn entry(&self, number: Number) -> Option<&Entry> {
        match &self.slot(number)?.place {
            Place::Live(entry) => Some(entry),
            Place::Ended(_) => None,
        }
    }

    fn entry_mut(&mut self, number: Number) -> Option<&mut Entry> {
        match &mut self.places.get_mut(number as usize)?.place {
            Place::Live(entry) => Some(entry),
            Place::Ended(_) => None,
        }
    }

    pub(super) fn get(&self, key: &SessionKey) -> Option<&Place> {
        self.number(key).and_then(|number| self.slot(number)).map(|slot| &slot.place)
    }

    pub(super) fn live(&self, key: &SessionKey) -> Option<&Entry> {
        self.entry(self.number(key)?)
    }

    pub(super) fn live_mut(&mut self, key: &SessionKey) -> Option<&mut Entry> {
        self.entry_mut(self.number(key)?)
    }

    /// The live ones of a name, with their numbers, the newest first.
    pub(super) fn of(&self, name: Name<'_>) -> impl Iterator<Item = (Number, &Arc<SessionRecord>)> {
        let mut next = self.first(name).unwrap_or(NOWHERE);
        std::iter::from_fn(move || {
            let number = next;
            let entry = self.entry(number)?;
            next = entry.links.get(name.list())?.after;
            Some((number, &entry.record))
        })
    }

    fn first(&self, name: Name<'_>) -> Option<Number> {
        let hash = self.hash(name);
        let is_it =
            |at: &Indexed| at.hash == hash && self.entry(at.number).is_some_and(|entry| name.is_of(&entry.record));
        self.by_name.get(name.list())?.find(spread(hash), is_it).map(|at| at.number)
    }

    /// The part of a hash that is kept.
    #[expect(clippy::cast_possible_truncation, reason = "any half of it will do")]
    fn hash(&self, name: Name<'_>) -> u32 {
        self.hasher.hash_one(name) as u32
    }

    /// Puts a new one to where it is found.
    pub(super) fn insert(&mut self, record: &Arc<SessionRecord>, expires_at: SystemTime) {
        let key = *record.key();
        let entry = Entry { record: record.clone(), expires_at, lease: None, links: [Links::NONE; 2] };
        let place = Place::Live(entry);
        let number = Number::try_from(self.places.insert(Slot { key, place })).unwrap_or(NOWHERE);
        let hash = hash_of(&key);
        self.by_key.insert_unique(spread(hash), Indexed { hash, number }, |at| spread(at.hash));
        self.attach(number, record, expires_at);
    }

    /// Puts another record in the place of a live one.
    pub(super) fn replace(&mut self, record: &Arc<SessionRecord>, expires_at: SystemTime) {
        let Some(number) = self.number(record.key()) else { return };
        let Some(before) = self.detach(number) else { return };
        if let Some(entry) = self.entry_mut(number) {
            *entry = Entry { record: record.clone(), expires_at, lease: None, links: [Links::NONE; 2] };
        }
        drop(before);
        self.attach(number, record, expires_at);
    }

    /// Ends one for good: its place keeps the mark.
    pub(super) fn end(&mut self, number: Number, reason: EndReason) -> Option<Arc<SessionRecord>> {
        let record = self.detach(number)?;
        if let Some(slot) = self.places.get_mut(number as usize) {
            slot.place = Place::Ended(EndMark { reason, subject: Some(record.subject_hash()) });
        }
        Some(record)
    }

    /// Forgets one that has ended.
    pub(super) fn forget(&mut self, key: &SessionKey) {
        let Some(number) = self.number(key).filter(|number| self.entry(*number).is_none()) else { return };
        let hash = hash_of(key);
        if let Ok(at) = self.by_key.find_entry(spread(hash), |at| at.number == number) {
            at.remove();
        }
        self.places.try_remove(number as usize);
    }

    /// The one that expires first, if its time has come.
    pub(super) fn first_expired(&self, here: SystemTime) -> Option<(Number, &Arc<SessionRecord>)> {
        let (_, number) = *self.by_expiry.first().filter(|(until, _)| *until <= here)?;
        self.entry(number).map(|entry| (number, &entry.record))
    }

    fn attach(&mut self, number: Number, record: &SessionRecord, expires_at: SystemTime) {
        self.by_expiry.insert((expires_at, number));
        for name in Name::of(record) {
            self.link(number, name);
        }
    }

    /// Takes a live one out of everything but its place.
    fn detach(&mut self, number: Number) -> Option<Arc<SessionRecord>> {
        let entry = self.entry(number)?;
        let (record, expires_at) = (entry.record.clone(), entry.expires_at);
        for name in Name::of(&record) {
            self.unlink(number, name);
        }
        self.by_expiry.remove(&(expires_at, number));
        Some(record)
    }

    fn links_mut(&mut self, number: Number, list: usize) -> Option<&mut Links> {
        self.entry_mut(number)?.links.get_mut(list)
    }

    /// Makes it the first of those of the name.
    fn link(&mut self, number: Number, name: Name<'_>) {
        let (list, hash) = (name.list(), self.hash(name));
        let Self { places, by_name, .. } = self;
        let Some(index) = by_name.get_mut(list) else { return };
        let is_it = |at: &Indexed| {
            let place = places.get(at.number as usize).map(|slot| &slot.place);
            at.hash == hash && matches!(place, Some(Place::Live(entry)) if name.is_of(&entry.record))
        };
        let Some(first) = index.find_mut(spread(hash), is_it) else {
            index.insert_unique(spread(hash), Indexed { hash, number }, |at| spread(at.hash));
            return;
        };
        let after = std::mem::replace(&mut first.number, number);
        if let Some(links) = self.links_mut(number, list) {
            links.after = after;
        }
        if let Some(links) = self.links_mut(after, list) {
            links.before = number;
        }
    }

    fn unlink(&mut self, number: Number, name: Name<'_>) {
        let (list, hash) = (name.list(), self.hash(name));
        let Some(links) = self.links_mut(number, list) else { return };
        let Links { before, after } = std::mem::replace(links, Links::NONE);
        if let Some(links) = self.links_mut(after, list) {
            links.before = before;
        }
        if let Some(links) = self.links_mut(before, list) {
            links.after = after;
        } else if let Some(index) = self.by_name.get_mut(list)
            && let Ok(mut first) = index.find_entry(spread(hash), |at| at.number == number)
        {
            if after == NOWHERE {
                first.remove();
            } else {
                first.get_mut().number = after;
            }
        }
    }
}

#[cfg(test)]
#[cfg(feature = "test-provider")]
mod tests {
    use std::collections::{HashMap, HashSet};
    use std::time::Duration;

    use super::*;
    use crate::protocol::names::{ClientId, Issuer};

    /// Whatever is done, what is found is what a plain map would find.
    #[test]
    fn sessions_are_found_by_all_their_names() {
        let registration = Registration::new(Issuer::new("https://op"), ClientId::new("shop"));
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let mut sessions = Sessions::default();
        let mut live: HashMap<SessionKey, (Arc<SessionRecord>, SystemTime)> = HashMap::new();
        let mut ended: Vec<SessionKey> = Vec::new();
        // Numbers without a pattern, the same in each run.
        let mut seed = 1_u64;
        let mut next = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..3000 {
            let (user, sid) = (format!("user-{}", next(7)), format!("sid-{}", next(20)));
            let sid = (next(4) > 0).then_some(sid);
            let record = crate::test_provider::sample_record(&registration, &user, sid.as_deref(), start, 10);
            let until = start + Duration::from_secs(next(100));
            let some = live.keys().copied().nth(usize::try_from(next(10)).unwrap());
            match (next(4), some) {
                (0, Some(key)) => {
                    let number = sessions.number(&key).unwrap();
                    assert!(sessions.end(number, EndReason::IdleTimeout).is_some());
                    assert!(sessions.end(number, EndReason::IdleTimeout).is_none());
                    live.remove(&key);
                    ended.push(key);
                }
                (1, Some(key)) => {
                    let record = Arc::new(SessionRecord { key, ..record });
                    sessions.replace(&record, until);
                    live.insert(key, (record, until));
                }
                (2, _) if next(3) == 0 => {
                    if let Some(key) = ended.pop() {
                        assert!(matches!(sessions.get(&key), Some(Place::Ended(_))));
                        sessions.forget(&key);
                        assert!(sessions.get(&key).is_none());
                    }
                }
                _ => {
                    let record = Arc::new(record);
                    sessions.insert(&record, until);
                    live.insert(*record.key(), (record, until));
                }
            }
            assert_eq!(sessions.len(), live.len());
            let found = |name: Name<'_>| sessions.of(name).map(|(_, record)| *record.key()).collect::<HashSet<_>>();
            let subject = Subject::new(&user);
            let of_user = live.values().filter(|(record, _)| record.subject().as_str() == user);
            let expected: HashSet<_> = of_user.map(|(record, _)| *record.key()).collect();
            assert_eq!(found(Name::Subject(&registration, &subject)), expected);
            if let Some(sid) = sid.map(Sid::new) {
                let of_sid = live.values().filter(|(record, _)| record.sid() == Some(&sid));
                let expected: HashSet<_> = of_sid.map(|(record, _)| *record.key()).collect();
                assert_eq!(found(Name::Sid(&registration, &sid)), expected);
            }
            let first = sessions.first_expired(start + Duration::from_secs(1000));
            assert_eq!(first.map(|(_, first)| live[first.key()].1), live.values().map(|(_, until)| *until).min());
        }
        assert!(live.len() > 100 && ended.len() > 100, "{} {}", live.len(), ended.len());
    }
}
