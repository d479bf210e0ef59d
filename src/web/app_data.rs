//! Binds the application's data in tower-sessions to the login: a new id at login, gone at the end.

use http::Extensions;
use tower_sessions::{Session, session};

use crate::registry::binding::LOGIN_ENTRY;
use crate::session::id::SessionKey;

/// The tower-sessions session of a request, if the application uses any.
pub(crate) fn of(extensions: &Extensions) -> Option<Session> {
    extensions.get::<Session>().cloned()
}

/// Gives the data a new id (session fixation) and binds it to the login. Data of an earlier login is not taken over.
///
/// An error means that somebody else may know the id: the login must not go on with it.
pub(crate) async fn bind(session: Option<Session>, login: &SessionKey) -> Result<(), session::Error> {
    let Some(session) = session else { return Ok(()) };
    match session.get_value(LOGIN_ENTRY).await? {
        Some(_) => session.flush().await?,
        None => session.cycle_id().await?,
    }
    session.insert(LOGIN_ENTRY, login.to_string()).await
}

/// Deletes the data.
pub(crate) async fn flush(session: Option<Session>) {
    let Some(session) = session else { return };
    if let Err(error) = session.flush().await {
        tracing::error!(%error, "application data could not be deleted");
    }
}
