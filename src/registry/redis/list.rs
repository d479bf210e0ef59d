//! Looks at many sessions at once, over all partitions.

use std::sync::Arc;

use futures_util::future::join_all;

use super::logout::partitions;
use super::names::Index;
use super::{RedisRegistry, unexpected, word};
use crate::protocol::names::{Registration, Sid, Subject};
use crate::registry::RegistryError;
use crate::session::id::SessionKey;
use crate::session::partition::Partition;
use crate::session::record::SessionRecord;

/// What a partition has of an index.
struct Listed {
    sessions: Vec<Arc<SessionRecord>>,
    /// Where there are more.
    elsewhere: Vec<Partition>,
}

impl RedisRegistry {
    /// The sessions of a user, who may have some in each partition.
    pub(super) async fn list(
        &self,
        registration: &Registration,
        subject: &Subject,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        let index = Index::of_subject(registration, subject);
        let mut found = Vec::new();
        for here in join_all(Partition::all().map(|partition| self.list_in(partition, &index))).await {
            found.append(&mut here?.sessions);
        }
        Ok(found)
    }

    /// The sessions of a `sid`: where those begin, and where that points to.
    pub(super) async fn list_with_sid(
        &self,
        registration: &Registration,
        sid: &Sid,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        let index = Index::of_sid(registration, sid);
        let Listed { mut sessions, elsewhere } = self.list_in(index.home, &index).await?;
        for there in elsewhere {
            sessions.append(&mut self.list_in(there, &index).await?.sessions);
        }
        Ok(sessions)
    }

    async fn list_in(&self, partition: Partition, index: &Index) -> Result<Listed, RegistryError> {
        let arguments = [partition.number().to_string()];
        let answer = self.run(&self.shared.scripts.sessions_of, self.key(partition, index), &arguments).await?;
        let (elsewhere, here) = answer.split_first().ok_or_else(unexpected)?;
        let sessions = here.chunks_exact(2).map(|part| {
            let [hex, value] = part else { return Err(unexpected()) };
            let key = std::str::from_utf8(hex).ok().and_then(SessionKey::from_hex).ok_or_else(unexpected)?;
            self.read(&key, value)
        });
        Ok(Listed { sessions: sessions.collect::<Result<_, _>>()?, elsewhere: partitions(elsewhere) })
    }

    pub(super) async fn count_all(&self) -> Result<u64, RegistryError> {
        let script = &self.shared.scripts.count;
        let ask = async |partition: Partition| self.run::<&[u8]>(script, self.key(partition, "x"), &[]).await;
        let mut count = 0;
        for answer in join_all(Partition::all().map(ask)).await {
            let answer = answer?;
            let here = std::str::from_utf8(word(&answer)).ok().and_then(|here| here.parse::<u64>().ok());
            count += here.ok_or_else(unexpected)?;
        }
        Ok(count)
    }
}
