//! Application data of tower-sessions in the same store.

use std::collections::HashMap;
use std::time::SystemTime;

use async_trait::async_trait;
use serde_json::Value;
use tower_sessions::cookie::time::OffsetDateTime;
use tower_sessions::session::{Id, Record};
use tower_sessions::{SessionStore, session_store};

use super::peer::Ask;
use super::{RedisRegistry, word};
use crate::clock::{Clock, SystemClock};
use crate::registry::RegistryError;
use crate::registry::binding::{Needed, data_name, login_of, needed};
use crate::session::id::SessionKey;

impl RedisRegistry {
    fn data(&self, id: &Id) -> String {
        format!("{}:d:{}", self.shared.prefix, data_name(id))
    }

    async fn write(&self, record: &Record, how: &str) -> session_store::Result<Vec<u8>> {
        let expiry: SystemTime = record.expiry_date.into();
        let value = serde_json::to_vec(&(record.expiry_date.unix_timestamp(), &record.data))
            .map_err(|error| session_store::Error::Encode(error.to_string()))?;
        let left = expiry.duration_since(SystemClock.now()).unwrap_or_default().as_millis().max(1).to_string();
        let id = data_name(&record.id);
        let login = login_of(record).unwrap_or_default();
        let arguments = [id.as_bytes(), login.as_bytes(), value.as_slice(), left.as_bytes(), how.as_bytes()];
        let answer = self.run(&self.shared.scripts.save_data, &self.data(&record.id), &arguments).await;
        Ok(word(&answer.map_err(failed)?).to_vec())
    }

    /// Whether there is a login that is what it has to be.
    async fn stands(&self, login: &SessionKey) -> Result<bool, RegistryError> {
        let script = &self.shared.scripts.stands;
        let needed = match needed() {
            Needed::Confirmed => "confirmed",
            Needed::Live => "live",
        };
        let answer = self.run(script, &self.session(login), &[&login.to_string(), needed]).await?;
        Ok(word(&answer) == b"stands")
    }
}

#[expect(clippy::needless_pass_by_value, reason = "goes into map_err")]
fn failed(error: RegistryError) -> session_store::Error {
    session_store::Error::Backend(error.to_string())
}

#[async_trait]
impl SessionStore for RedisRegistry {
    async fn create(&self, record: &mut Record) -> session_store::Result<()> {
        while self.write(record, "create").await? == b"exists" {
            record.id = Id::default();
        }
        Ok(())
    }

    async fn save(&self, record: &Record) -> session_store::Result<()> {
        self.write(record, "save").await.map(drop)
    }

    async fn load(&self, id: &Id) -> session_store::Result<Option<Record>> {
        let value = self.shared.connection.ask::<Option<Vec<u8>>>(Ask::Read(&self.data(id))).await;
        let Some(value) = value.map_err(failed)? else { return Ok(None) };
        let decoded: (i64, HashMap<String, Value>) =
            serde_json::from_slice(&value).map_err(|error| session_store::Error::Decode(error.to_string()))?;
        let expiry_date = OffsetDateTime::from_unix_timestamp(decoded.0)
            .map_err(|error| session_store::Error::Decode(error.to_string()))?;
        let record = Record { id: *id, data: decoded.1, expiry_date };
        // Bound to a login that has ended, it may be on its way out; to one whose time is over, nobody has been there yet.
        match login_of(&record).map(SessionKey::from_hex) {
            None => Ok(Some(record)),
            Some(Some(login)) if self.stands(&login).await.map_err(failed)? => Ok(Some(record)),
            Some(_) => Ok(None),
        }
    }

    async fn delete(&self, id: &Id) -> session_store::Result<()> {
        let mut command = redis::cmd("DEL");
        command.arg(self.data(id));
        self.shared.connection.ask::<u64>(Ask::Command(command)).await.map(drop).map_err(failed)
    }
}
