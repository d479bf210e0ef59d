//! A registry that is shared, or chosen at run time, is one too.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::{
    AttemptKey, Claimed, Committed, Created, EndListener, Lease, LeaseHolder, Loaded, LoginAttempt, LogoutTarget,
    Registration, RegistryError, SessionKey, SessionRecord, SessionRegistry, Sid, Spent, Subject, Version,
};
use crate::clock::Clock;
use crate::session::end_reason::EndReason;

#[async_trait]
impl<R: SessionRegistry + ?Sized> SessionRegistry for Arc<R> {
    async fn time(&self) -> Result<SystemTime, RegistryError> {
        (**self).time().await
    }

    async fn spend(&self, attempt: &AttemptKey) -> Result<Spent, RegistryError> {
        (**self).spend(attempt).await
    }

    async fn create(
        &self,
        record: SessionRecord,
        attempt: LoginAttempt,
        now: SystemTime,
    ) -> Result<Created, RegistryError> {
        (**self).create(record, attempt, now).await
    }

    async fn load(&self, key: &SessionKey) -> Result<Loaded, RegistryError> {
        (**self).load(key).await
    }

    fn load_at_once(&self, key: &SessionKey) -> Option<Loaded> {
        (**self).load_at_once(key)
    }

    async fn has_sibling(&self, record: &SessionRecord) -> Result<bool, RegistryError> {
        (**self).has_sibling(record).await
    }

    async fn sessions_of(
        &self,
        registration: &Registration,
        subject: &Subject,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        (**self).sessions_of(registration, subject).await
    }

    async fn sessions_with_sid(
        &self,
        registration: &Registration,
        sid: &Sid,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        (**self).sessions_with_sid(registration, sid).await
    }

    async fn count(&self) -> Result<Option<u64>, RegistryError> {
        (**self).count().await
    }

    async fn claim_refresh(&self, key: &SessionKey, version: Version, lease: Lease) -> Result<Claimed, RegistryError> {
        (**self).claim_refresh(key, version, lease).await
    }

    async fn release_refresh(&self, key: &SessionKey, holder: LeaseHolder) -> Result<(), RegistryError> {
        (**self).release_refresh(key, holder).await
    }

    async fn commit(&self, record: SessionRecord, now: SystemTime) -> Result<Committed, RegistryError> {
        (**self).commit(record, now).await
    }

    async fn end(&self, key: &SessionKey, reason: EndReason) -> Result<Option<Arc<SessionRecord>>, RegistryError> {
        (**self).end(key, reason).await
    }

    async fn end_matching(
        &self,
        target: &LogoutTarget,
        reason: EndReason,
        now: SystemTime,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        (**self).end_matching(target, reason, now).await
    }

    async fn remove_expired(&self) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        (**self).remove_expired().await
    }

    fn trust(&self) -> Duration {
        (**self).trust()
    }

    fn is_shared(&self) -> bool {
        (**self).is_shared()
    }

    fn adopt_clock(&self, clock: &Arc<dyn Clock>) {
        (**self).adopt_clock(clock);
    }

    fn subscribe(&self, listener: EndListener) {
        (**self).subscribe(listener);
    }
}
