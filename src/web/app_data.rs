//! Binds the application's data in tower-sessions to the login: a new id at login, gone at the end.

use http::Extensions;
pub(crate) use tower_sessions::Session as AppData;
pub(crate) use tower_sessions::session::Error;

use crate::registry::binding::{LOGIN_ENTRY, taking_over};
use crate::session::id::SessionKey;

/// The tower-sessions session of a request, if the application uses any.
pub(crate) fn of(extensions: &Extensions) -> Option<AppData> {
    extensions.get::<AppData>().cloned()
}

/// Gives the data a new id (session fixation) and binds it to the login. Data of an earlier login is taken over only from
/// `kept_from`.
///
/// An error means that somebody else may know the id: the login must not go on with it.
pub(crate) async fn bind(session: &AppData, login: &SessionKey, kept_from: Option<&SessionKey>) -> Result<(), Error> {
    let bound_to = taking_over(session.get::<String>(LOGIN_ENTRY)).await?;
    match bound_to {
        Some(bound_to) if bound_to == login.to_string() => return Ok(()),
        Some(bound_to) if kept_from.is_some_and(|key| bound_to == key.to_string()) => session.cycle_id().await?,
        Some(_) => {
            session.flush().await?;
            // What was flushed is written anew under the id that it had, unless it gets another.
            session.cycle_id().await?;
        }
        None => session.cycle_id().await?,
    }
    session.insert(LOGIN_ENTRY, login.to_string()).await
}

/// Deletes the data.
pub(crate) async fn flush(session: Option<AppData>) {
    let Some(session) = session else { return };
    if let Err(error) = session.flush().await {
        tracing::error!(%error, "application data could not be deleted");
    }
}
