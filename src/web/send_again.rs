//! Keeping a form that came after the end of its session, and sending it again: once, as the same user, from the same browser.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt, Limited};
use url::form_urlencoded;

use super::context::Context;
use super::cross_site::is_cross_site;
use super::form::{self, KeptForm, Kind, MOST_BYTES, MOST_SEALED};
use super::pages::{Page, PageKind};
use super::reject::{SessionRejection, with_challenge};
use super::request::RequestSession;
use crate::manager::{REGISTRY_RETRY_AFTER, Refusal};
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
    pub(crate) fn of(context: &Context, headers: &HeaderMap, seal: &str, record: &SessionRecord) -> Self {
        let form = context.cookies().open_form(seal);
        let browser = context.cookies().form(headers);
        match form.zip(browser) {
            Some((form, browser)) if form.is_of(&browser, context.now()) => {
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

/// The seal of a form that is sent again, or shown.
pub(crate) async fn read_seal(body: Body) -> Option<String> {
    let body = Limited::new(body, MOST_SEALED).collect().await.ok()?.to_bytes();
    let mut seals = form_urlencoded::parse(&body).filter(|(name, _)| name == "seal");
    seals.next().map(|(_, seal)| seal.into_owned()).filter(|seal| !seal.is_empty())
}

/// The answer to a form without a session: a page that keeps what was entered, if its user is still known.
pub(crate) async fn keep<B>(session: &RequestSession, refusal: Refusal, parts: &Parts, body: B) -> Response
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<axum::BoxError>,
{
    let (context, reason) = match refusal {
        Refusal::Ended(reason) => (session.context(), Some(reason)),
        Refusal::Unknown => (session.context(), None),
        _ => return session.rejection(refusal).into_response(),
    };
    let mark = match session.key() {
        Some(key) if reason.is_some() => context.manager().end_mark(key).await,
        _ => None,
    };
    let subject = mark.and_then(|mark| mark.subject).filter(|_| form::is_own(&parts.headers, context.origin()));
    let (Some(subject), Some(path)) = (subject, session.path()) else {
        return session.rejection(refusal).into_response();
    };
    let content_type = match Kind::of(&parts.headers) {
        Kind::Plain(content_type) => content_type,
        Kind::Multipart => {
            let page = Page::sign_in_needed(reason).text("not_kept").text("files");
            return with_challenge(page.link("do_sign_in", login_to(path.as_str())).into_response());
        }
        Kind::Other => return session.rejection(refusal).into_response(),
    };
    let Ok(body) = Limited::new(body, MOST_BYTES).collect().await else {
        return session.rejection(refusal).into_response();
    };
    let known = context.cookies().form(&parts.headers);
    let browser = known.unwrap_or_else(random_text);
    let form = KeptForm::new(
        path.as_str().to_owned(),
        content_type,
        body.to_bytes().into(),
        subject,
        browser.clone(),
        context.now(),
    );
    let Some(seal) = context.cookies().seal_form(&form) else { return session.rejection(refusal).into_response() };
    let page = Page::sign_in_needed(reason).text("kept").keep(seal).link("do_sign_in", login_to("/auth/form"));
    let mut response = with_challenge(page.into_response());
    response.headers_mut().append(SET_COOKIE, context.cookies().set_form(&browser));
    response
}

fn login_to(path: &str) -> String {
    let encoded: String = form_urlencoded::byte_serialize(path.as_bytes()).collect();
    format!("/auth/login?return_to={encoded}")
}

/// The request that a kept form was, or what its sender is told instead.
///
/// It is handed on at the address that it was sent to first: a layer stands behind the router, which has chosen by address.
pub(crate) async fn unseal(
    session: &RequestSession,
    path: &str,
    mut parts: Parts,
    body: Body,
) -> Result<Request<Body>, Response> {
    let context = session.context();
    if is_cross_site(&parts.headers, context.origin()) {
        return Err(SessionRejection::cross_site(session.asker()).into_response());
    }
    let record = match session.admit().await {
        Ok(admitted) => admitted.record.clone(),
        Err(refusal) => return Err(session.rejection(*refusal).into_response()),
    };
    let gone = || Page::new(PageKind::Gone).into_response();
    let seal = read_seal(body).await.ok_or_else(gone)?;
    let form = match Unsealed::of(context, &parts.headers, &seal, &record) {
        Unsealed::Form(form) if form.path == path => form,
        Unsealed::Form(_) | Unsealed::Nothing => return Err(gone()),
        Unsealed::OfAnother => return Err(with_challenge(Page::new(PageKind::OtherUser).into_response())),
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
    let (Ok(uri), Ok(content_type)) = (path.parse(), HeaderValue::try_from(&form.content_type)) else {
        return Err(gone());
    };
    parts.uri = uri;
    parts.headers.insert(CONTENT_TYPE, content_type);
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(form.body.len()));
    Ok(Request::from_parts(parts, Body::from(form.body)))
}
