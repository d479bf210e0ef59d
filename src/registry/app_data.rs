//! Application data of tower-sessions beside the login it belongs to.
//!
//! tower-sessions can only save, so a request that was under way when its login ended would bring the data back, under
//! the old id or, after `cycle_id`, under a new one. Here data bound to a login lives as long as that login: it is
//! deleted when the login ends, and a late write of it is dropped without an error.

use std::collections::{BTreeSet, HashMap, HashSet};

use async_trait::async_trait;
use serde_json::Value;
use tower_sessions::cookie::time::OffsetDateTime;
use tower_sessions::session::{Id, Record};
use tower_sessions::{SessionStore, session_store};

use super::memory::{MemoryRegistry, State};
use crate::clock::{Clock, SystemClock};
use crate::session::id::SessionKey;

/// The entry of a tower-sessions record that names the login it is bound to.
pub(crate) const LOGIN_ENTRY: &str = "tower-oidc-session.login";

/// The mark of the login that a record is bound to.
pub(super) fn login_of(record: &Record) -> Option<&str> {
    record.data.get(LOGIN_ENTRY).and_then(Value::as_str)
}

#[derive(Default)]
pub(super) struct AppData {
    records: HashMap<Id, Record>,
    by_login: HashMap<String, HashSet<Id>>,
    by_expiry: BTreeSet<(OffsetDateTime, i128)>,
}

impl AppData {
    fn insert(&mut self, record: Record) {
        self.remove(&record.id);
        if let Some(login) = login_of(&record) {
            self.by_login.entry(login.to_owned()).or_default().insert(record.id);
        }
        self.by_expiry.insert((record.expiry_date, record.id.0));
        self.records.insert(record.id, record);
    }

    fn remove(&mut self, id: &Id) {
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
        for id in self.by_login.remove(&key.to_string()).into_iter().flatten() {
            self.remove(&id);
        }
    }

    pub(super) fn remove_expired(&mut self) {
        let now = wall_clock();
        while let Some((expires_at, id)) = self.by_expiry.first().copied() {
            if expires_at > now {
                break;
            }
            self.remove(&Id(id));
        }
    }
}

impl State {
    /// Whether the record may be written: not if the login it is bound to is over.
    fn takes(&self, record: &Record) -> bool {
        login_of(record).is_none_or(|login| SessionKey::from_hex(login).is_some_and(|key| self.is_live(&key)))
    }
}

/// tower-sessions dates its records by the wall clock, whatever clock the sessions go by.
fn wall_clock() -> OffsetDateTime {
    SystemClock.now().into()
}

#[async_trait]
impl SessionStore for MemoryRegistry {
    async fn create(&self, record: &mut Record) -> session_store::Result<()> {
        let mut state = self.write();
        if state.takes(record) {
            while state.app_data.records.contains_key(&record.id) {
                record.id = Id::default();
            }
            state.app_data.insert(record.clone());
        }
        Ok(())
    }

    async fn save(&self, record: &Record) -> session_store::Result<()> {
        let mut state = self.write();
        // A record that is gone stays gone.
        if state.app_data.records.contains_key(&record.id) && state.takes(record) {
            state.app_data.insert(record.clone());
        }
        Ok(())
    }

    async fn load(&self, id: &Id) -> session_store::Result<Option<Record>> {
        let now = wall_clock();
        Ok(self.read().app_data.records.get(id).filter(|record| record.expiry_date > now).cloned())
    }

    async fn delete(&self, id: &Id) -> session_store::Result<()> {
        self.write().app_data.remove(id);
        Ok(())
    }
}
