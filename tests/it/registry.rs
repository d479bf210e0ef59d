//! The registry that the tests run over: in memory, or the one that `TEST_STORE_URL` names.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use tower_oidc_session::registry::{
    AttemptKey, Claimed, Committed, Created, EndListener, Lease, LeaseHolder, Loaded, LoginAttempt, Registration,
    SessionRecord, Sid, Spent, Subject, Version,
};
use tower_oidc_session::{
    Clock, EndReason, LogoutTarget, MemoryRegistry, PostgresRegistry, RedisRegistry, RegistryError, SessionKey,
    SessionRegistry, StorageKey,
};
use tower_sessions::session::{Id, Record};
use tower_sessions::{SessionStore, session_store};

use crate::leaks;

#[derive(Clone, Debug)]
pub(crate) struct Registry {
    sessions: Arc<dyn SessionRegistry>,
    data: Arc<dyn SessionStore>,
    /// Only here sessions can be counted.
    memory: Option<MemoryRegistry>,
    /// The session that was stored last.
    last: Arc<Mutex<Option<SessionKey>>>,
}

/// What is told of a result leaves with logs and answers.
fn told<T: Debug>(result: Result<T, RegistryError>) -> Result<T, RegistryError> {
    match &result {
        Ok(answer) => leaks::left(format!("{answer:?}").as_bytes()),
        Err(error) => leaks::left(format!("{error:?} {error}").as_bytes()),
    }
    result
}

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A registry of its own in a Redis.
pub(crate) async fn over_redis(url: &str, name: &str, keys: impl IntoIterator<Item = StorageKey>) -> RedisRegistry {
    RedisRegistry::connect_with(url, name, keys).unwrap()
}

/// A registry of its own in a PostgreSQL.
pub(crate) async fn over_postgres(
    url: &str,
    name: &str,
    keys: impl IntoIterator<Item = StorageKey>,
) -> PostgresRegistry {
    let registry = PostgresRegistry::connect_with(url, name, keys).unwrap();
    registry.migrate().await.unwrap();
    registry
}

impl Registry {
    pub(crate) async fn new() -> Self {
        let name = format!("it_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        match std::env::var("TEST_STORE_URL") {
            Err(_) => {
                let memory = MemoryRegistry::new();
                Self { memory: Some(memory.clone()), ..Self::over(memory) }
            }
            Ok(url) if url.starts_with("redis:") => Self::over(over_redis(&url, &name, []).await),
            Ok(url) if url.starts_with("postgres:") => Self::over(over_postgres(&url, &name, []).await),
            Ok(url) => panic!("TEST_STORE_URL is {url}: it takes redis://… or postgres://…"),
        }
    }

    pub(crate) fn over(registry: impl SessionRegistry + SessionStore + Clone) -> Self {
        Self { sessions: Arc::new(registry.clone()), data: Arc::new(registry), memory: None, last: Arc::default() }
    }

    /// The session that was stored last.
    pub(crate) fn last(&self) -> SessionKey {
        self.last.lock().unwrap().expect("a session was stored")
    }

    /// Whether it has so many sessions, as far as that can be told.
    pub(crate) fn has(&self, count: usize) -> bool {
        self.memory.as_ref().is_none_or(|memory| memory.len() == count)
    }
}

#[async_trait]
impl SessionRegistry for Registry {
    async fn time(&self) -> Result<SystemTime, RegistryError> {
        self.sessions.time().await
    }

    async fn spend(&self, attempt: &AttemptKey) -> Result<Spent, RegistryError> {
        self.sessions.spend(attempt).await
    }

    async fn create(
        &self,
        record: SessionRecord,
        attempt: LoginAttempt,
        now: SystemTime,
    ) -> Result<Created, RegistryError> {
        *self.last.lock().unwrap() = Some(*record.key());
        leaks::left(format!("{record:?} {attempt:?}").as_bytes());
        told(self.sessions.create(record, attempt, now).await)
    }

    async fn load(&self, key: &SessionKey) -> Result<Loaded, RegistryError> {
        told(self.sessions.load(key).await)
    }

    fn load_at_once(&self, key: &SessionKey) -> Option<Loaded> {
        self.sessions.load_at_once(key)
    }

    async fn has_sibling(&self, record: &SessionRecord) -> Result<bool, RegistryError> {
        self.sessions.has_sibling(record).await
    }

    async fn sessions_of(
        &self,
        registration: &Registration,
        subject: &Subject,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        self.sessions.sessions_of(registration, subject).await
    }

    async fn sessions_with_sid(
        &self,
        registration: &Registration,
        sid: &Sid,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        self.sessions.sessions_with_sid(registration, sid).await
    }

    async fn count(&self) -> Result<Option<u64>, RegistryError> {
        self.sessions.count().await
    }

    async fn claim_refresh(&self, key: &SessionKey, version: Version, lease: Lease) -> Result<Claimed, RegistryError> {
        told(self.sessions.claim_refresh(key, version, lease).await)
    }

    async fn release_refresh(&self, key: &SessionKey, holder: LeaseHolder) -> Result<(), RegistryError> {
        self.sessions.release_refresh(key, holder).await
    }

    async fn commit(&self, record: SessionRecord, now: SystemTime) -> Result<Committed, RegistryError> {
        told(self.sessions.commit(record, now).await)
    }

    async fn end(&self, key: &SessionKey, reason: EndReason) -> Result<Option<Arc<SessionRecord>>, RegistryError> {
        told(self.sessions.end(key, reason).await)
    }

    async fn end_matching(
        &self,
        target: &LogoutTarget,
        reason: EndReason,
        now: SystemTime,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        told(self.sessions.end_matching(target, reason, now).await)
    }

    async fn remove_expired(&self) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        self.sessions.remove_expired().await
    }

    fn adopt_clock(&self, clock: &Arc<dyn Clock>) {
        self.sessions.adopt_clock(clock);
    }

    fn subscribe(&self, listener: EndListener) {
        self.sessions.subscribe(listener);
    }
}

#[async_trait]
impl SessionStore for Registry {
    async fn create(&self, record: &mut Record) -> session_store::Result<()> {
        self.data.create(record).await
    }

    async fn save(&self, record: &Record) -> session_store::Result<()> {
        self.data.save(record).await
    }

    async fn load(&self, id: &Id) -> session_store::Result<Option<Record>> {
        self.data.load(id).await
    }

    async fn delete(&self, id: &Id) -> session_store::Result<()> {
        self.data.delete(id).await
    }
}
