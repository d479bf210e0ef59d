//! `POST /auth/logout`: ends the session, then sends the browser to the provider's logout.
//!
//! Local first: whatever the provider does, the session here is over before the browser leaves. A logout token that the
//! provider then sends finds nothing and is answered with 200.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::SET_COOKIE;
use http::{Extensions, HeaderMap};

use super::Claimed;
use crate::app_data;
use crate::cross_site::is_cross_site;
use crate::manager::RetryAfter;
use crate::registry::{Loaded, RegistryError};
use crate::relying_party::RelyingParty;
use crate::respond::{SessionRejection, redirect};
use crate::session::event::EndReason;

pub(super) async fn logout(
    State(rp): State<RelyingParty>,
    Claimed(claimed): Claimed,
    headers: HeaderMap,
    extensions: Extensions,
) -> Response {
    if is_cross_site(&headers, rp.origin()) {
        return SessionRejection::cross_site().into_response();
    }
    let location = match end(&rp, claimed.key()).await {
        Ok(location) => location,
        Err(error) => {
            tracing::error!(%error, "a logout failed");
            return SessionRejection::unavailable(RetryAfter(std::time::Duration::from_secs(1))).into_response();
        }
    };
    app_data::flush(app_data::of(&extensions)).await;
    let mut response = redirect(&location);
    response.headers_mut().append(SET_COOKIE, rp.cookies().remove_session());
    response
}

async fn end(rp: &RelyingParty, key: Option<&crate::SessionKey>) -> Result<String, RegistryError> {
    let front_page = rp.public_url().to_string();
    let Some(key) = key else { return Ok(front_page) };
    let Loaded::Live(record) = rp.manager().look(key).await? else { return Ok(front_page) };
    rp.manager().end(key, EndReason::RpInitiatedLogout).await?;
    let location = rp.manager().provider().end_session_url(&record.tokens.id_token);
    Ok(location.map_or(front_page, String::from))
}
