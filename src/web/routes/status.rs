//! `/auth/session`: how long the session stands, and "stay signed in".

use std::time::{Duration, SystemTime};

use axum::response::{IntoResponse, Response};
use http::{Extensions, HeaderMap, StatusCode};

use super::own_session::{OwnContext, OwnSession};
use crate::manager::Refusal;
use crate::session::decide::{Decision, decide};
use crate::session::end_reason::EndReason;
use crate::session::id::SessionKey;
use crate::session::policy::{RequestKind, SessionPolicy};
use crate::session::record::SessionRecord;
use crate::web::cross_site::is_cross_site;
use crate::web::navigation::Asker;
use crate::web::page::{json, no_store};
use crate::web::parties::are_several;
use crate::web::reject::SessionRejection;

/// Says whether the session stands, and how long. No activity: a page may ask as often as it likes.
pub(super) async fn status(
    OwnContext(context): OwnContext,
    OwnSession(claimed): OwnSession,
    extensions: Extensions,
) -> Response {
    let found = match claimed.key() {
        Some(key) => context.manager().look(key).await,
        None => Err(Refusal::Unknown),
    };
    let answer = match found {
        Ok(record) => {
            let mut answer = describe(&record, context.policy(), context.now());
            // With several providers, or tenants, a `sub` alone tells nobody apart.
            if (are_several(&extensions) || context.provider().client().issuers.are_many())
                && let Some(answer) = answer.as_object_mut()
            {
                answer.insert("iss".to_owned(), record.registration().issuer().as_str().into());
            }
            answer
        }
        Err(Refusal::Ended(reason)) => ended(reason),
        Err(Refusal::Unknown) => serde_json::json!({"authenticated": false, "state": "none"}),
        Err(refusal) => return SessionRejection::of(refusal, Asker::Script, None, context.paths()).into_response(),
    };
    json(StatusCode::OK, &answer)
}

fn describe(record: &SessionRecord, policy: &SessionPolicy, now: SystemTime) -> serde_json::Value {
    let seconds_until = |deadline: SystemTime| seconds(deadline.duration_since(now).unwrap_or_default());
    match decide(record, policy, now, RequestKind::Passive) {
        Decision::End(reason) => ended(reason),
        // It may stand: a click asks the provider.
        Decision::Refuse | Decision::Wait(_) => serde_json::json!({"authenticated": false, "state": "unconfirmed"}),
        Decision::Proceed | Decision::Signal | Decision::SilentLogin => serde_json::json!({
            "authenticated": true,
            "state": "confirmed",
            "sub": record.subject(),
            "idle_expires_in": seconds_until(record.idle_deadline(policy)),
            "absolute_expires_in": seconds_until(record.absolute_deadline(policy).0),
            "session": name(record.key()),
            "idle_timeout": seconds(policy.op_session_lifetime),
            "signal_interval": seconds(policy.longest_silence()),
        }),
    }
}

fn ended(reason: EndReason) -> serde_json::Value {
    serde_json::json!({"authenticated": false, "state": "ended", "reason": reason.as_str()})
}

/// Tells the session from others of this browser, and nothing else.
fn name(key: &SessionKey) -> String {
    key.to_string().chars().take(16).collect()
}

/// In milliseconds, rounded down; a whole number where it is one.
fn seconds(duration: Duration) -> serde_json::Value {
    let millis = u32::try_from(duration.as_millis() % 1000).unwrap_or_default();
    match millis {
        0 => duration.as_secs().into(),
        _ => Duration::new(duration.as_secs(), millis * 1_000_000).as_secs_f64().into(),
    }
}

/// Signals the provider now, unless it has confirmed the session a moment ago.
pub(super) async fn stay(
    OwnContext(context): OwnContext,
    OwnSession(claimed): OwnSession,
    headers: HeaderMap,
) -> Response {
    if is_cross_site(&headers, context.origins()) {
        return SessionRejection::cross_site(Asker::Script).into_response();
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
    SessionRejection::of(refusal, Asker::Script, None, context.paths()).into_response()
}
