//! Application data of tower-sessions is bound to a login by an entry of its own.

use serde_json::Value;
use tower_sessions::session::Record;

/// The entry of a tower-sessions record that names the login it is bound to.
pub(crate) const LOGIN_ENTRY: &str = "tower-oidc-session.login";

tokio::task_local! {
    static TAKING_OVER: ();
}

/// What a login has to be for its data to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needed {
    /// It stands by its own deadlines.
    Confirmed,
    /// It has not ended: the provider has confirmed its user just now.
    Live,
}

/// Runs what binds data to the next login: it sees those of the one before, however long ago its last signal was.
pub(crate) async fn taking_over<T>(work: impl Future<Output = T>) -> T {
    TAKING_OVER.scope((), work).await
}

pub(super) fn needed() -> Needed {
    if TAKING_OVER.try_with(|()| ()).is_ok() { Needed::Live } else { Needed::Confirmed }
}

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
