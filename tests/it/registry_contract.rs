//! The contract of a registry, over each of them.

use tower_oidc_session::MemoryRegistry;
use tower_oidc_session::test_provider::check_registry;

#[tokio::test]
async fn memory() {
    check_registry(async || MemoryRegistry::new()).await;
}
