//! Keeping a form that came after the end of its session, and sending it again: once, as the same user, from the same browser.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, SET_COOKIE, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;
use url::form_urlencoded;

use super::context::Context;
use super::cross_site::is_cross_site;
use super::form::{self, KeptForm, Kind, MOST_BYTES, MOST_SEALED};
use super::navigation::{login_url, own_path};
use super::pages::{Page, PageKind};
use super::reject::SessionRejection;
use super::request::RequestSession;
use crate::manager::{REGISTRY_RETRY_AFTER, Refusal};
use crate::protocol::authorization::Authentication;
use crate::registry::Spent;
use crate::session::id::{AttemptKey, random_text};
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

/// Whoever sends it has so long.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

async fn read<B>(body: B, most: usize) -> Option<Bytes>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<axum::BoxError>,
{
    let body = timeout(BODY_TIMEOUT, Limited::new(body, most).collect()).await;
    Some(body.ok()?.ok()?.to_bytes())
}

fn seal_of(body: &[u8]) -> Option<String> {
    let mut seals = form_urlencoded::parse(body).filter(|(name, _)| name == "seal");
    seals.next().map(|(_, seal)| seal.into_owned()).filter(|seal| !seal.is_empty())
}

/// The seal of a form that is to be shown.
pub(crate) async fn read_seal(body: Body) -> Option<String> {
    seal_of(&read(body, MOST_SEALED).await?)
}

/// The answer to a form without a session: a page that keeps what was entered, if its user is still known.
pub(crate) async fn keep<B>(session: &RequestSession, refusal: Refusal, parts: &Parts, body: B) -> Response
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<axum::BoxError>,
{
    let context = session.context();
    let rejection = || session.rejection(refusal).into_response();
    let whose = match (refusal, session.key()) {
        (Refusal::Ended(_), Some(key)) => context.manager().end_mark(key).await.map(|mark| mark?.subject),
        // It may stand: its user comes back to it without signing in.
        (Refusal::Unconfirmed, Some(key)) => {
            Ok(context.manager().look(key).await.ok().map(|record| record.subject_hash()))
        }
        _ => return rejection(),
    };
    let subject = match whose {
        Ok(subject) => subject.filter(|_| form::is_own(&parts.headers, context.origin())),
        Err(error) => {
            tracing::warn!(%error, "whose a form was cannot be told at the moment");
            return session.rejection(Refusal::Unavailable(REGISTRY_RETRY_AFTER)).into_response();
        }
    };
    let Some((subject, path)) = subject.zip(session.path().filter(|path| own_path(path) == path.as_str())) else {
        return rejection();
    };
    let content_type = match Kind::of(&parts.headers) {
        Kind::Plain(content_type) => content_type,
        Kind::Multipart => {
            let page = needed(refusal).text("not_kept").text("files");
            return page.link("do_sign_in", login_to(path.as_str())).into_response();
        }
        Kind::Other => return rejection(),
    };
    let Some(body) = read(body, MOST_BYTES).await else { return rejection() };
    let known = context.cookies().form(&parts.headers);
    let browser = known.unwrap_or_else(random_text);
    let form =
        KeptForm::new(path.as_str().to_owned(), content_type, body.into(), subject, browser.clone(), context.now());
    let Some(seal) = context.cookies().seal_form(&form) else { return rejection() };
    let mut response = kept(refusal, seal, path.as_str());
    response.headers_mut().append(SET_COOKIE, context.cookies().set_form(&browser));
    response
}

fn needed(refusal: Refusal) -> Page {
    match refusal {
        Refusal::Ended(reason) => Page::sign_in_needed(Some(reason)),
        Refusal::Unconfirmed => Page::new(PageKind::Unconfirmed),
        _ => Page::sign_in_needed(None),
    }
}

/// The page that has the browser keep a form, or says that it is not kept where no script runs.
fn kept(refusal: Refusal, seal: String, path: &str) -> Response {
    let (label, on) = match refusal {
        Refusal::Unconfirmed => ("continue", "/auth/form".to_owned()),
        _ => ("do_sign_in", login_to("/auth/form")),
    };
    needed(refusal).keep(seal, on).link(label, login_to(path)).into_response()
}

fn login_to(path: &str) -> String {
    login_url(path.parse().ok().as_ref(), &Authentication::default())
}

/// The request that a kept form was, or what its sender is told instead. Where the address alone says that it is one, and
/// nothing is sealed, it is handed on as it came: a page that answered a form sent again posts there.
///
/// It is handed on at the address that it was sent to first: a layer stands behind the router, which has chosen by address.
pub(crate) async fn unseal(session: &RequestSession, mut parts: Parts, body: Body) -> Result<Request<Body>, Response> {
    let context = session.context();
    let content_type = parts.headers.get(CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    if !content_type.starts_with(b"application/x-www-form-urlencoded") || is_longer(&parts.headers, MOST_SEALED) {
        return Ok(Request::from_parts(parts, body));
    }
    let Some(body) = read(body, MOST_SEALED).await else { return Err(Page::new(PageKind::TooLarge).into_response()) };
    let sealed = seal_of(&body).and_then(|seal| context.cookies().open_form(&seal).map(|form| (seal, form)));
    let Some((seal, form)) = sealed else { return Ok(Request::from_parts(parts, Body::from(body))) };
    if is_cross_site(&parts.headers, context.origin()) {
        return Err(SessionRejection::cross_site(session.asker()).into_response());
    }
    let record = match session.admit().await {
        Ok(admitted) => admitted.record.clone(),
        // It is still there to be sent.
        Err(refusal) if refusal.is_over() => return Err(kept(*refusal, seal, &form.path)),
        Err(refusal) => return Err(session.rejection(*refusal).into_response()),
    };
    let path = session.path().map_or("", |path| path.as_str());
    let form = match Unsealed::of(context, &parts.headers, form, &record) {
        Unsealed::Form(form) if form.path == path => form,
        Unsealed::Form(_) | Unsealed::Nothing => return Err(Page::new(PageKind::Gone).into_response()),
        Unsealed::OfAnother => return Err(Page::new(PageKind::OtherUser).into_response()),
    };
    let Ok(content_type) = HeaderValue::try_from(&form.content_type) else {
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
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(form.body.len()));
    Ok(Request::from_parts(parts, Body::from(form.body)))
}

fn is_longer(headers: &HeaderMap, most: usize) -> bool {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    length.is_some_and(|length| length > most)
}
