//! Application data of tower-sessions is bound to a login by an entry of its own.

use serde_json::Value;
use tower_sessions::session::Record;

/// The entry of a tower-sessions record that names the login it is bound to.
pub(crate) const LOGIN_ENTRY: &str = "tower-oidc-session.login";

/// The mark of the login that a record is bound to.
pub(super) fn login_of(record: &Record) -> Option<&str> {
    record.data.get(LOGIN_ENTRY).and_then(Value::as_str)
}

/// The name of application data in a store, from which nobody learns the id that a browser would have to present.
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(super) fn data_name(id: &tower_sessions::session::Id) -> String {
    use aws_lc_rs::digest::{SHA256, digest};

    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, &id.0.to_be_bytes()).as_ref());
    crate::session::id::SessionKey::from_bytes(bytes).to_string()
}
