//! `/auth/session`: how long the session stands, and "stay signed in".

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::SET_COOKIE;
use http::{HeaderMap, StatusCode};

use super::own_session::OwnSession;
use crate::manager::Refusal;
use crate::session::decide::{Decision, decide};
use crate::session::policy::RequestKind;
use crate::web::context::Context;
use crate::web::cross_site::is_cross_site;
use crate::web::navigation::Asker;
use crate::web::page::{json, no_store};
use crate::web::reject::SessionRejection;

/// Says how long the session stands. No activity: a page may ask as often as it likes.
pub(super) async fn status(State(context): State<Context>, OwnSession(claimed): OwnSession) -> Response {
    let anonymous = || json(StatusCode::OK, &serde_json::json!({"authenticated": false}));
    let Some(key) = claimed.key() else { return anonymous() };
    let record = match context.manager().look(key).await {
        Ok(record) => record,
        Err(refusal) if refusal.is_over() => return anonymous(),
        Err(refusal) => return SessionRejection::of(refusal, Asker::Script, None).into_response(),
    };
    let (policy, now) = (context.policy(), context.now());
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
pub(super) async fn stay(
    State(context): State<Context>,
    OwnSession(claimed): OwnSession,
    headers: HeaderMap,
) -> Response {
    if is_cross_site(&headers, context.origin()) {
        return SessionRejection::cross_site().into_response();
    }
    let confirmed = match claimed.key() {
        Some(key) => context.manager().confirm(key).await,
        None => Err(Refusal::Unknown),
    };
    let Err(refusal) = confirmed else {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NO_CONTENT;
        return no_store(response);
    };
    // Whatever it accepts: this answers a script.
    let mut response = SessionRejection::of(refusal, Asker::Script, None).into_response();
    if refusal.is_over() {
        response.headers_mut().append(SET_COOKIE, context.cookies().remove_session());
    }
    response
}
