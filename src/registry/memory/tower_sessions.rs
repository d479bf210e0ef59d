//! Application data of tower-sessions beside the login it belongs to.
//!
//! tower-sessions can only save, so a request that was under way when its login ended would bring the data back, under
//! the old id or, after `cycle_id`, under a new one. Here data bound to a login lives as long as that login: it is
//! deleted when the login ends, not given any more once its time is over, and a late write of it is dropped without an
//! error.

use std::time::SystemTime;

use async_trait::async_trait;
use tower_sessions::session::{Id, Record};
use tower_sessions::{SessionStore, session_store};

use super::app_data::wall_clock;
use super::{MemoryRegistry, State};
use crate::registry::binding::{Needed, login_of, needed};
use crate::session::id::SessionKey;

impl State {
    /// Whether the record may be written: not if the login it is bound to is over.
    fn takes(&self, record: &Record) -> bool {
        login_of(record)
            .is_none_or(|login| SessionKey::from_hex(login).is_some_and(|key| self.sessions.live(&key).is_some()))
    }

    /// Whether the record is bound to no login, or to one that is what it has to be.
    fn stands(&self, record: &Record, here: SystemTime) -> bool {
        login_of(record).is_none_or(|login| {
            let entry = SessionKey::from_hex(login).and_then(|key| self.sessions.live(&key));
            entry.is_some_and(|entry| match needed() {
                Needed::Confirmed => here + entry.record.unconfirmed_for() < entry.expires_at,
                Needed::Live => here < entry.expires_at,
            })
        })
    }
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
        let (now, here) = (wall_clock(), self.time_here());
        let state = self.read();
        let record = state.app_data.records.get(id).filter(|record| record.expiry_date > now);
        Ok(record.filter(|record| state.stands(record, here)).cloned())
    }

    async fn delete(&self, id: &Id) -> session_store::Result<()> {
        self.write().app_data.remove(id);
        Ok(())
    }
}
