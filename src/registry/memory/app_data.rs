//! The records of application data, by id, by login and by expiry.

use std::collections::{BTreeSet, HashMap, HashSet};

use tower_sessions::cookie::time::OffsetDateTime;
use tower_sessions::session::{Id, Record};

use crate::clock::{Clock, SystemClock};
use crate::registry::binding::login_of;
use crate::session::id::SessionKey;

#[derive(Default)]
pub(super) struct AppData {
    pub(super) records: HashMap<Id, Record>,
    by_login: HashMap<String, HashSet<Id>>,
    by_expiry: BTreeSet<(OffsetDateTime, i128)>,
}

impl AppData {
    pub(super) fn insert(&mut self, record: Record) {
        self.remove(&record.id);
        if let Some(login) = login_of(&record) {
            self.by_login.entry(login.to_owned()).or_default().insert(record.id);
        }
        self.by_expiry.insert((record.expiry_date, record.id.0));
        self.records.insert(record.id, record);
    }

    pub(super) fn remove(&mut self, id: &Id) {
        let Some(record) = self.records.remove(id) else { return };
        self.by_expiry.remove(&(record.expiry_date, id.0));
        let Some(login) = login_of(&record) else { return };
        if let Some(ids) = self.by_login.get_mut(login) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_login.remove(login);
            }
        }
    }

    pub(super) fn delete_bound(&mut self, key: &SessionKey) {
        if self.by_login.is_empty() {
            return;
        }
        for id in self.by_login.remove(&key.to_string()).into_iter().flatten() {
            self.remove(&id);
        }
    }

    /// Removes so many at most, and says how many.
    pub(super) fn remove_expired(&mut self, most: usize) -> usize {
        let now = wall_clock();
        let mut removed = 0;
        while removed < most
            && let Some((_, id)) = self.by_expiry.first().copied().filter(|(expires_at, _)| *expires_at <= now)
        {
            self.remove(&Id(id));
            removed += 1;
        }
        removed
    }
}

/// tower-sessions dates its records by the wall clock, whatever clock the sessions go by.
pub(super) fn wall_clock() -> OffsetDateTime {
    SystemClock.now().into()
}
