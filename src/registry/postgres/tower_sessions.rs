//! Application data of tower-sessions in the same database.

use async_trait::async_trait;
use tokio_postgres::types::ToSql;
use tower_sessions::cookie::time::OffsetDateTime;
use tower_sessions::session::{Id, Record};
use tower_sessions::{SessionStore, session_store};

use super::PostgresRegistry;
use super::link::Answer;
use crate::registry::RegistryError;
use crate::registry::binding::{Needed, data_name, login_of, needed};
use crate::session::id::SessionKey;

impl PostgresRegistry {
    async fn write_data(&self, record: &Record, how: How) -> session_store::Result<Answer> {
        let data = serde_json::to_vec(&record.data).map_err(|error| session_store::Error::Encode(error.to_string()))?;
        let login = login_of(record).and_then(SessionKey::from_hex).map(|key| key.as_bytes().to_vec());
        let parameters: &[&(dyn ToSql + Sync)] =
            &[&data_name(&record.id), &login, &data, &record.expiry_date.unix_timestamp(), &matches!(how, How::Create)];
        self.call_for_one(&self.shared.calls.save_data, parameters).await.map_err(failed)
    }
}

#[derive(Clone, Copy)]
enum How {
    Create,
    Save,
}

#[expect(clippy::needless_pass_by_value, reason = "goes into map_err")]
fn failed(error: RegistryError) -> session_store::Error {
    session_store::Error::Backend(error.to_string())
}

#[async_trait]
impl SessionStore for PostgresRegistry {
    async fn create(&self, record: &mut Record) -> session_store::Result<()> {
        while self.write_data(record, How::Create).await?.word == "exists" {
            record.id = Id::default();
        }
        Ok(())
    }

    async fn save(&self, record: &Record) -> session_store::Result<()> {
        self.write_data(record, How::Save).await.map(drop)
    }

    async fn load(&self, id: &Id) -> session_store::Result<Option<Record>> {
        let parameters: &[&(dyn ToSql + Sync)] = &[&data_name(id), &(needed() == Needed::Confirmed)];
        let answers = self.call(&self.shared.calls.find_data, parameters).await.map_err(failed)?;
        let Some(Answer { version: Some(expiry), record: Some(data), .. }) = answers.into_iter().next() else {
            return Ok(None);
        };
        let unreadable = |error: &dyn std::fmt::Display| session_store::Error::Decode(error.to_string());
        let data = serde_json::from_slice(&data).map_err(|error| unreadable(&error))?;
        let expiry_date = OffsetDateTime::from_unix_timestamp(expiry).map_err(|error| unreadable(&error))?;
        Ok(Some(Record { id: *id, data, expiry_date }))
    }

    async fn delete(&self, id: &Id) -> session_store::Result<()> {
        self.call(&self.shared.calls.delete_data, &[&data_name(id)]).await.map(drop).map_err(failed)
    }
}
