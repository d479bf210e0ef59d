//! Stores outside this process, thrown away after: `ci/with-store` names one in `TEST_STORE_URL`.

use std::sync::Arc;
use std::time::SystemTime;

use tower_oidc_session::registry::LoginAttempt;
use tower_oidc_session::test_provider::sample_record;
use tower_oidc_session::{
    ClientId, Issuer, MemoryRegistry, PostgresRegistry, RedisRegistry, Registration, SessionRegistry,
};

/// Where a registry lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Memory,
    Redis,
    Postgres,
}

impl Kind {
    /// As `TEST_STORE_URL` has it.
    pub fn of_environment() -> Self {
        match url() {
            Some(url) if url.starts_with("redis") => Self::Redis,
            Some(_) => Self::Postgres,
            None => Self::Memory,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Redis => "Redis",
            Self::Postgres => "PostgreSQL",
        }
    }

    /// The programs that a store consists of.
    pub fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Memory => &[],
            Self::Redis => &["redis-server"],
            Self::Postgres => &["postgres"],
        }
    }

    pub async fn registry(self) -> Arc<dyn SessionRegistry> {
        let url = url().unwrap_or_default();
        match self {
            Self::Memory => Arc::new(MemoryRegistry::new()),
            Self::Redis => Arc::new(redis(&url).await),
            Self::Postgres => Arc::new(postgres(&url).await),
        }
    }
}

pub fn url() -> Option<String> {
    std::env::var("TEST_STORE_URL").ok()
}

pub async fn redis(url: &str) -> RedisRegistry {
    RedisRegistry::connect(url).expect("a URL")
}

pub async fn postgres(url: &str) -> PostgresRegistry {
    let registry = PostgresRegistry::connect(url).expect("a URL");
    registry.migrate().await.expect("the database takes the schema");
    registry
}

pub fn registration() -> Registration {
    Registration::new(Issuer::new("https://op.example"), ClientId::new("shop"))
}

/// Creates the sessions `sid-<batch>-<n>` of users `user-<batch>-<n>`.
pub async fn fill(registry: &dyn SessionRegistry, batch: usize, numbers: std::ops::Range<usize>, token_bytes: usize) {
    use futures_util::StreamExt;

    let now = SystemTime::now();
    let registration = registration();
    let attempt = LoginAttempt { began_at: now, seen: None };
    let create = async |number| {
        let (sub, sid) = (format!("user-{batch}-{number}"), format!("sid-{batch}-{number}"));
        let record = sample_record(&registration, &sub, Some(&sid), now, token_bytes);
        registry.create(record, attempt, now).await.expect("the store takes it");
    };
    futures_util::stream::iter(numbers).for_each_concurrent(64, create).await;
}
