//! `/auth/session`: how long the session stands, and "stay signed in".

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::SET_COOKIE;
use http::{HeaderMap, Method, StatusCode};

use super::Claimed;
use crate::cross_site::is_cross_site;
use crate::manager::{Admission, RetryAfter};
use crate::registry::Loaded;
use crate::relying_party::RelyingParty;
use crate::respond::{SessionRejection, Visitor, json, no_store};
use crate::session::decide::{Decision, decide};
use crate::session::policy::RequestKind;

/// Says how long the session stands. No activity: a page may ask as often as it likes.
pub(super) async fn status(State(rp): State<RelyingParty>, Claimed(claimed): Claimed) -> Response {
    let anonymous = || json(StatusCode::OK, &serde_json::json!({"authenticated": false}));
    let Some(key) = claimed.key() else { return anonymous() };
    let manager = rp.manager();
    let record = match manager.look(key).await {
        Ok(Loaded::Live(record)) => record,
        Ok(Loaded::Ended(_) | Loaded::Unknown) => return anonymous(),
        Err(error) => {
            tracing::error!(%error, "the status of a session could not be read");
            return SessionRejection::unavailable(RetryAfter(std::time::Duration::from_secs(1))).into_response();
        }
    };
    let (policy, now) = (manager.policy(), manager.clock().now());
    if decide(&record, policy, now, RequestKind::Passive) != Decision::Proceed {
        return anonymous();
    }
    let seconds_until = |deadline: std::time::SystemTime| deadline.duration_since(now).unwrap_or_default().as_secs();
    json(
        StatusCode::OK,
        &serde_json::json!({
            "authenticated": true,
            "sub": record.subject(),
            "idle_expires_in": seconds_until(record.idle_deadline(policy)),
            "absolute_expires_in": seconds_until(record.absolute_deadline(policy)),
        }),
    )
}

/// Signals the provider now, however fresh the last signal is.
pub(super) async fn stay(State(rp): State<RelyingParty>, Claimed(claimed): Claimed, headers: HeaderMap) -> Response {
    if is_cross_site(&headers, rp.origin()) {
        return SessionRejection::cross_site().into_response();
    }
    let admission = match claimed.key() {
        Some(key) => rp.manager().confirm(key).await,
        None => Admission::Unknown,
    };
    // Whatever it accepts: this answers a script.
    let visitor = Visitor { method: &Method::POST, headers: &headers, path: None };
    let Some(rejection) = SessionRejection::of(&admission, visitor) else {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NO_CONTENT;
        return no_store(response);
    };
    let mut response = rejection.into_response();
    if matches!(admission, Admission::Ended(_) | Admission::Unknown) {
        response.headers_mut().append(SET_COOKIE, rp.cookies().remove_session());
    }
    response
}
