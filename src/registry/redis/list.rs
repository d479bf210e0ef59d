//! Looks at many sessions at once, over all partitions.

use std::sync::Arc;

use futures_util::future::join_all;

use super::names::Index;
use super::{RedisRegistry, unexpected, word};
use crate::protocol::names::{Registration, Subject};
use crate::registry::RegistryError;
use crate::session::id::SessionKey;
use crate::session::partition::Partition;
use crate::session::record::SessionRecord;

impl RedisRegistry {
    pub(super) async fn list(
        &self,
        registration: &Registration,
        subject: &Subject,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        let index = Index::of_subject(registration, subject);
        let script = &self.shared.scripts.sessions_of;
        let ask = async |partition: Partition| {
            let arguments = [partition.number().to_string()];
            self.run(script, self.key(partition, &index), &arguments).await
        };
        let mut found = Vec::new();
        for answer in join_all(Partition::all().map(ask)).await {
            for part in answer?.chunks_exact(2) {
                let [hex, value] = part else { continue };
                let key = std::str::from_utf8(hex).ok().and_then(SessionKey::from_hex).ok_or_else(unexpected)?;
                found.push(self.read(&key, value)?);
            }
        }
        Ok(found)
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
