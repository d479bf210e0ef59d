//! `POST /auth/logout`: ends the session, then sends the browser to the provider's logout.
//!
//! Local first: whatever the provider does, the session here is over before the browser leaves. A logout token that the
//! provider then sends finds nothing and is answered with 200.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, SET_COOKIE};
use http::{Extensions, HeaderMap, HeaderValue, StatusCode};

use super::own_session::{OwnContext, OwnSession};
use crate::manager::{REGISTRY_RETRY_AFTER, Refusal};
use crate::protocol::names::IdTokenHint;
use crate::session::browser::Browser;
use crate::session::end_reason::EndReason;
use crate::session::id::SessionKey;
use crate::web::app_data;
use crate::web::context::Context;
use crate::web::cross_site::is_cross_site;
use crate::web::navigation::Asker;
use crate::web::page::{error, redirect};
use crate::web::pages::{Page, PageKind};
use crate::web::parties::{Elsewhere, elsewhere, is_nobodys};
use crate::web::reject::SessionRejection;

/// Who signs out waits no longer to be told where that is done at the provider; only a process that has just started has to ask.
const PATIENCE: Duration = Duration::from_secs(2);

/// A link to it, or a reload: a page asks, and its button does it.
pub(super) async fn ask(OwnSession(claimed): OwnSession) -> Response {
    if claimed.asker() == Asker::Page {
        return Page::new(PageKind::SignOut).sign_out_form().into_response();
    }
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    response
}

pub(super) async fn logout(
    OwnContext(context): OwnContext,
    OwnSession(claimed): OwnSession,
    headers: HeaderMap,
    extensions: Extensions,
) -> Response {
    if is_cross_site(&headers, context.origins()) {
        return SessionRejection::cross_site(claimed.asker()).into_response();
    }
    let browser = context.browser(&headers, &extensions);
    // A browser may have brought a second one, for a moment.
    let others = elsewhere(&context, &headers, &extensions);
    for Elsewhere { context: other, key } in &others {
        if key.is_some()
            && let Err(refusal) = end(other, key.as_ref(), browser.clone()).await
        {
            return claimed.rejection(refusal).into_response();
        }
    }
    let location = match end(&context, claimed.key(), browser).await {
        // Where nobody has chosen a provider, none is asked.
        Ok(_) if is_nobodys(&context, &extensions) => context.provider().client().post_logout_redirect_uri.to_string(),
        Ok(location) => location,
        Err(refusal) => return claimed.rejection(refusal).into_response(),
    };
    app_data::flush(app_data::of(&extensions)).await;
    let mut response = redirect(&location);
    response.headers_mut().append(SET_COOKIE, context.cookies().remove_session());
    for Elsewhere { context: other, .. } in others {
        response.headers_mut().append(SET_COOKIE, other.cookies().remove_session());
    }
    response
}

/// Ends the session, if there is one, and returns where the browser goes: to the provider in any case, whose session may be
/// alive though ours is gone.
async fn end(context: &Context, key: Option<&SessionKey>, browser: Browser) -> Result<String, Refusal> {
    let location = async |hint: Option<&IdTokenHint>| {
        let there = context.manager().within(PATIENCE, context.provider().end_session_url(hint)).await;
        there.flatten().map_or_else(|| context.provider().client().post_logout_redirect_uri.to_string(), String::from)
    };
    let Some(key) = key else { return Ok(location(None).await) };
    let record = match context.manager().look(key).await {
        Ok(record) => Some(record),
        Err(refusal) if refusal.is_over() => None,
        Err(refusal) => return Err(refusal),
    };
    // Also if it is over: an end may still be on its way to the store's replicas, and "signed out" is said when it is there.
    if let Err(error) = context.manager().end_by(key, EndReason::RpInitiatedLogout, browser).await {
        tracing::error!(%error, "a logout failed");
        return Err(Refusal::Unavailable(REGISTRY_RETRY_AFTER));
    }
    Ok(location(record.as_ref().map(|record| &record.tokens.id_token)).await)
}
