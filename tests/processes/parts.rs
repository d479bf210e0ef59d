//! Real providers that may not be installed: where one is missing its tests are skipped, loudly, and never in CI.

use std::path::{Path, PathBuf};

/// Where `ci/tools` puts what it builds or unpacks.
pub(crate) fn cache() -> PathBuf {
    let home = || Path::new(&std::env::var_os("HOME").expect("somebody has a home")).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("tower-oidc-session")
}

/// Whether what a suite needs is there.
///
/// # Panics
/// In CI, where nothing may be skipped.
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
pub(crate) fn is_there(provider: &str, part: &Path) -> bool {
    if part.exists() {
        return true;
    }
    let missing = format!("SKIPPED: {provider} is not installed (there is no {}): run ci/tools", part.display());
    assert!(std::env::var_os("CI").is_none(), "{missing}");
    // Past what the test harness catches.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("\n{missing}\n").as_bytes());
    false
}

/// A new key in a file of its own.
pub(crate) fn key_file(name: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.pem", std::process::id()));
    std::fs::write(&file, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    file
}
