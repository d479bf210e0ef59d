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

/// Whether data has to be there.
#[derive(Clone, Copy)]
enum Write {
    Create,
    /// A record that is gone stays gone.
    Save,
}

/// What became of data to be written.
#[derive(PartialEq, Eq)]
enum Written {
    Done,
    /// It is there, or it is not.
    Not,
}

impl RedisRegistry {
    async fn write(&self, record: &Record, how: Write) -> session_store::Result<Written> {
        let expiry: SystemTime = record.expiry_date.into();
        let value = serde_json::to_vec(&(record.expiry_date.unix_timestamp(), &record.data))
            .map_err(|error| session_store::Error::Encode(error.to_string()))?;
        let left = expiry.duration_since(SystemClock.now()).unwrap_or_default().as_millis().max(1).to_string();
        let name = data_name(&record.id);
        let (partition, key) = self.data(&name);
        let mut command = redis::cmd("SET");
        command.arg(key).arg(value).arg("PX").arg(&left).arg(match how {
            Write::Create => "NX",
            Write::Save => "XX",
        });
        let answer = self.shared.connection.ask::<Option<String>>(partition, Ask::Command(command)).await;
        if answer.map_err(failed)?.is_none() {
            return Ok(Written::Not);
        }
        // After it was written: an end before that is noticed, one after it removes what is bound.
        if let Some(login) = login_of(record)
            && !self.bind(login, &name, &left).await.map_err(failed)?
        {
            self.remove_one(&name).await.map_err(failed)?;
        }
        Ok(Written::Done)
    }

    /// Has the data go with its login; says whether that is there.
    async fn bind(&self, login: &str, name: &str, left: &str) -> Result<bool, RegistryError> {
        let Some(key) = SessionKey::from_hex(login) else { return Ok(false) };
        let answer = self.run(&self.shared.scripts.bind, self.session(&key), &[login, name, left]).await?;
        Ok(word(&answer) == b"bound")
    }

    /// Whether there is a login that is what it has to be.
    async fn stands(&self, login: &SessionKey) -> Result<bool, RegistryError> {
        let script = &self.shared.scripts.stands;
        let needed = match needed() {
            Needed::Confirmed => "confirmed",
            Needed::Live => "live",
        };
        let answer = self.run(script, self.session(login), &[login.to_string().as_str(), needed]).await?;
        Ok(word(&answer) == b"stands")
    }
}

impl RedisRegistry {
    async fn read_data(&self, id: &Id) -> Result<Option<Vec<u8>>, RegistryError> {
        let (partition, key) = self.data(&data_name(id));
        self.shared.connection.ask(partition, Ask::Read(&key)).await
    }
}

#[expect(clippy::needless_pass_by_value, reason = "goes into map_err")]
fn failed(error: RegistryError) -> session_store::Error {
    session_store::Error::Backend(error.to_string())
}

#[async_trait]
impl SessionStore for RedisRegistry {
    async fn create(&self, record: &mut Record) -> session_store::Result<()> {
        while self.write(record, Write::Create).await? == Written::Not {
            record.id = Id::default();
        }
        Ok(())
    }

    async fn save(&self, record: &Record) -> session_store::Result<()> {
        self.write(record, Write::Save).await.map(drop)
    }

    async fn load(&self, id: &Id) -> session_store::Result<Option<Record>> {
        let Some(value) = self.read_data(id).await.map_err(failed)? else { return Ok(None) };
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
        self.remove_one(&data_name(id)).await.map_err(failed)
    }
}
