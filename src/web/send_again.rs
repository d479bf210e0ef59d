//! Sending a kept form again: once, as the same user, from the same browser.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request};
use url::form_urlencoded;

use super::context::Context;
use super::cross_site::is_cross_site;
use super::form::{KeptForm, MOST_SEALED, is_urlencoded};
use super::keep_form::{read, still_kept};
use super::pages::{Page, PageKind};
use super::reject::SessionRejection;
use super::request::RequestSession;
use crate::manager::{REGISTRY_RETRY_AFTER, Refusal};
use crate::registry::Spent;
use crate::session::id::AttemptKey;
use crate::session::record::SessionRecord;

/// What a seal holds for who brings it.
pub(crate) enum Unsealed {
    Form(KeptForm),
    /// Somebody else has entered it.
    OfAnother,
    /// It is no seal of ours, of another browser, or too old.
    Nothing,
}

impl Unsealed {
    pub(crate) fn of(context: &Context, headers: &HeaderMap, form: KeptForm, record: &SessionRecord) -> Self {
        match context.cookies().form(headers) {
            Some(browser) if form.is_of(&browser, context.now()) => {
                if form.subject == record.subject_hash() {
                    Self::Form(form)
                } else {
                    Self::OfAnother
                }
            }
            _ => Self::Nothing,
        }
    }
}

fn seal_of(body: &[u8]) -> Option<String> {
    let mut seals = form_urlencoded::parse(body).filter(|(name, _)| name == "seal");
    seals.next().map(|(_, seal)| seal.into_owned()).filter(|seal| !seal.is_empty())
}

/// The seal of a form that is to be shown.
pub(crate) async fn read_seal(body: Body) -> Option<String> {
    seal_of(&read(body, MOST_SEALED).await?)
}

/// The request that a kept form was, or what its sender is told instead. Where the address alone says that it is one, and
/// nothing is sealed, it is handed on as it came: a page that answered a form sent again posts there.
///
/// It is handed on at the address that it was sent to first: a layer stands behind the router, which has chosen by address.
pub(crate) async fn unseal(session: &RequestSession, mut parts: Parts, body: Body) -> Result<Request<Body>, Response> {
    let context = session.context();
    let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !is_urlencoded(content_type) || is_longer(&parts.headers, MOST_SEALED) {
        return Ok(Request::from_parts(parts, body));
    }
    let Some(body) = read(body, MOST_SEALED).await else { return Err(Page::new(PageKind::TooLarge).into_response()) };
    let sealed = seal_of(&body).and_then(|seal| context.cookies().open_form(&seal).map(|form| (seal, form)));
    let Some((seal, form)) = sealed else { return Ok(Request::from_parts(parts, Body::from(body))) };
    if is_cross_site(&parts.headers, context.origins()) {
        return Err(SessionRejection::cross_site(session.asker()).into_response());
    }
    let record = match session.admit().await {
        Ok(admitted) => admitted.record.clone(),
        // It is still there to be sent.
        Err(refusal) if refusal.is_over() => return Err(still_kept(context.paths(), *refusal, seal, &form.path)),
        Err(refusal) => return Err(session.rejection(*refusal).into_response()),
    };
    let path = session.path().map_or("", |path| path.as_str());
    let form = match Unsealed::of(context, &parts.headers, form, &record) {
        Unsealed::Form(form) if form.path == path => form,
        Unsealed::Form(_) | Unsealed::Nothing => return Err(Page::new(PageKind::Gone).into_response()),
        Unsealed::OfAnother => return Err(Page::new(PageKind::OtherUser).into_response()),
    };
    let (content_type, body) = form.entered.into_body();
    let Ok(content_type) = HeaderValue::try_from(content_type) else {
        return Err(Page::new(PageKind::Gone).into_response());
    };
    let id = AttemptKey::of(&format!("form {}", form.id), context.registration());
    match context.manager().spend(&id).await {
        Ok(Spent::Now) => {}
        Ok(Spent::Before) => return Err(Page::new(PageKind::Sent).link("continue", form.path).into_response()),
        Err(error) => {
            tracing::error!(%error, "a form cannot be sent again at the moment");
            return Err(session.rejection(Refusal::Unavailable(REGISTRY_RETRY_AFTER)).into_response());
        }
    }
    for name in [CONTENT_ENCODING, TRANSFER_ENCODING] {
        parts.headers.remove(name);
    }
    parts.headers.insert(CONTENT_TYPE, content_type);
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    Ok(Request::from_parts(parts, Body::from(body)))
}

fn is_longer(headers: &HeaderMap, most: usize) -> bool {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    length.is_some_and(|length| length > most)
}
