//! A registry that is written with public items alone: `examples/sqlite_registry.rs`.

use tower_oidc_session::test_provider::check_registry;

#[allow(dead_code, reason = "the example has a program of its own")]
#[path = "../../examples/sqlite_registry.rs"]
mod sqlite_registry;

use sqlite_registry::SqliteRegistry;

/// A path that goes with this.
struct File(std::path::PathBuf);

impl File {
    fn new(name: &str) -> Self {
        let file = Self(std::env::temp_dir().join(format!("{name}-{}.db", std::process::id())));
        file.remove();
        file
    }

    fn remove(&self) {
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", self.0.display()));
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.remove();
    }
}

#[tokio::test]
async fn sqlite_keeps_the_contract() {
    check_registry(async || SqliteRegistry::open(":memory:", []).unwrap()).await;
}

#[tokio::test]
async fn sqlite_keeps_sessions_over_a_restart_and_hides_their_tokens() {
    use tower_oidc_session::registry::{Loaded, LoginAttempt};
    use tower_oidc_session::test_provider::sample_record;
    use tower_oidc_session::{ClientId, Clock, Issuer, Registration, SessionRegistry, StorageKey, SystemClock};

    let file = File::new("sessions");
    let key = || StorageKey::from_base64("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
    let registration = Registration::new(Issuer::new("https://op"), ClientId::new("shop"));
    let now = SystemClock.now();
    let record = sample_record(&registration, "alice", Some("sid"), now, 1000);
    let attempt = LoginAttempt { began_at: now, seen: None };
    let registry = SqliteRegistry::open(&file.0, [key()]).unwrap();
    registry.create(record.clone(), attempt, now).await.unwrap();
    drop(registry);
    for end in ["", "-wal"] {
        let bytes = std::fs::read(format!("{}{end}", file.0.display())).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&bytes).contains(&"t".repeat(100)), "tokens in the file");
    }
    let registry = SqliteRegistry::open(&file.0, [key()]).unwrap();
    assert!(matches!(registry.load(record.key()).await.unwrap(), Loaded::Live(found) if *found == record));
    let without = SqliteRegistry::open(&file.0, []).unwrap();
    assert!(without.load(record.key()).await.is_err(), "without the key nothing is believed");
}
