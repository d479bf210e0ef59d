//! The contract of a registry, over each of them.

use std::sync::atomic::{AtomicU32, Ordering};

use tower_oidc_session::test_provider::check_registry;
use tower_oidc_session::{MemoryRegistry, StorageKey};

use crate::registry::{over_postgres, over_redis};
use crate::servers::Store;

fn name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("contract_{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

fn key() -> [StorageKey; 1] {
    [StorageKey::from_base64("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=").unwrap()]
}

#[tokio::test]
async fn memory() {
    check_registry(async || MemoryRegistry::new()).await;
}

#[tokio::test]
async fn redis() {
    let store = Store::redis();
    check_registry(async || over_redis(store.url(), &name(), []).await).await;
    check_registry(async || over_redis(store.url(), &name(), key()).await).await;
}

#[tokio::test]
async fn postgres() {
    let store = Store::postgres();
    check_registry(async || over_postgres(store.url(), &name(), []).await).await;
    check_registry(async || over_postgres(store.url(), &name(), key()).await).await;
}
