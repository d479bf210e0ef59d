//! Keeping a form whose sender has to sign in first: because the session is over, or because what it asks for needs a
//! login of a certain kind.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::SET_COOKIE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;

use super::form::{self, Entered, KeptForm, Kind, MOST_SEALED};
use super::multipart::{self, MOST_BYTES};
use super::navigation::{Asker, own_path};
use super::pages::{Page, PageKind};
use super::paths::Paths;
use super::request::RequestSession;
use crate::manager::{REGISTRY_RETRY_AFTER, Refusal};
use crate::protocol::authorization::Authentication;
use crate::session::id::{SubjectHash, random_text};

/// Whoever sends a form has so long.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// And so long where it may have files.
const FILES_TIMEOUT: Duration = Duration::from_secs(60);
/// How much of a form with files is read for its fields.
const MOST_WITH_FILES: usize = 32 * 1024 * 1024;

/// Reads a body of at most so many bytes, in time.
pub(crate) async fn read<B>(body: B, most: usize) -> Option<Bytes>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<axum::BoxError>,
{
    let body = timeout(BODY_TIMEOUT, Limited::new(body, most).collect()).await;
    Some(body.ok()?.ok()?.to_bytes())
}

/// Why a form is kept.
#[derive(Clone, Debug)]
pub(crate) enum Why {
    /// The session is over, or may be.
    Refused(Refusal),
    /// It needs a login of this kind.
    StepUp(Authentication),
}

impl Why {
    fn page(&self) -> Page {
        match self {
            Self::StepUp(_) => Page::new(PageKind::StepUp),
            Self::Refused(Refusal::Unconfirmed) => Page::new(PageKind::Unconfirmed),
            Self::Refused(Refusal::Ended(reason)) => Page::sign_in_needed(Some(*reason)),
            Self::Refused(_) => Page::sign_in_needed(None),
        }
    }
}

/// The answer to a form that nobody has read: a page that keeps what was entered, if its user is still known.
pub(crate) async fn keep<B>(session: &RequestSession, why: Why, parts: &Parts, body: B) -> Response
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    let on = Onward::after(&why);
    let not_kept = || match why {
        Why::Refused(refusal) => session.rejection(refusal).into_response(),
        Why::StepUp(_) => on.not_kept_of(session, why.page()),
    };
    let subject = match why {
        Why::Refused(refusal) => whose(session, refusal, &parts.headers).await,
        Why::StepUp(_) => Ok(subject_of(session)),
    };
    let subject = match subject {
        Ok(subject) => subject.filter(|_| form::is_own(&parts.headers, session.context().origin())),
        Err(refusal) => return session.rejection(refusal).into_response(),
    };
    let Some(subject) = subject else { return not_kept() };
    match enter(&parts.headers, body).await {
        Some(entered) => on.keep(session, why.page(), subject, entered, &parts.headers),
        None => not_kept(),
    }
}

/// Whose session a request was made with.
fn subject_of(session: &RequestSession) -> Option<SubjectHash> {
    session.used().map(|admitted| admitted.record.subject_hash())
}

/// Reads a form, if it is one, and not too long.
async fn enter<B>(headers: &HeaderMap, body: B) -> Option<Entered>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    match Kind::of(headers) {
        Kind::Plain(content_type) => {
            let body = read(body, MOST_BYTES).await;
            body.map(|body| Entered::Plain { content_type, body: body.into() })
        }
        Kind::Multipart(content_type) => {
            let fields = multipart::fields(&content_type, Limited::new(body, MOST_WITH_FILES));
            timeout(FILES_TIMEOUT, fields).await.ok().flatten().map(Entered::Multipart)
        }
        Kind::Other => None,
    }
}

/// Whose session it was, if that is known.
async fn whose(
    session: &RequestSession,
    refusal: Refusal,
    headers: &HeaderMap,
) -> Result<Option<SubjectHash>, Refusal> {
    let context = session.context();
    let mark = match (refusal, session.key()) {
        (Refusal::Ended(_), Some(key)) => context.manager().end_mark(key).await,
        // It may stand: its user comes back to it without signing in.
        (Refusal::Unconfirmed, Some(key)) => {
            return Ok(context.manager().look(key).await.ok().map(|record| record.subject_hash()));
        }
        // Another tab was sent to the login, and the browser knows no more of the session than that.
        (Refusal::Unknown, None) => match context.cookies().ended(headers) {
            Some(noted) => context.manager().end_mark(&noted.key).await,
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    match mark {
        Ok(mark) => Ok(mark.and_then(|mark| mark.subject)),
        Err(error) => {
            tracing::warn!(%error, "whose a form was cannot be told at the moment");
            Err(Refusal::Unavailable(REGISTRY_RETRY_AFTER))
        }
    }
}

/// The way on from the page that keeps a form.
#[derive(Clone, Debug)]
struct Onward {
    label: &'static str,
    /// What the login has to be like; none where there is nothing but a question to the provider.
    authentication: Option<Authentication>,
}

impl Onward {
    fn after(why: &Why) -> Self {
        match why {
            Why::Refused(Refusal::Unconfirmed) => Self { label: "continue", authentication: None },
            Why::Refused(_) => Self { label: "do_sign_in", authentication: Some(Authentication::default()) },
            Why::StepUp(wanted) => Self { label: "do_sign_in", authentication: Some(wanted.clone()) },
        }
    }

    /// Where it leads if nothing is kept.
    fn without(&self, paths: &Paths, path: &str) -> String {
        paths.login(path.parse().ok().as_ref(), &self.authentication.clone().unwrap_or_default())
    }

    fn keep(
        &self,
        session: &RequestSession,
        page: Page,
        subject: SubjectHash,
        entered: Entered,
        headers: &HeaderMap,
    ) -> Response {
        let context = session.context();
        let page = if entered.had_files() { page.text("files") } else { page };
        let Some(path) = session.path().filter(|path| own_path(path) == path.as_str()) else {
            return self.not_kept(context.paths(), page, &context.paths().front());
        };
        let browser = context.cookies().form(headers).unwrap_or_else(random_text);
        let form = KeptForm::new(path.as_str().to_owned(), entered, subject, browser.clone(), context.now());
        let seal = context.cookies().seal_form(&form).filter(|seal| seal.len() <= MOST_SEALED / 3);
        let Some(seal) = seal else { return self.not_kept(context.paths(), page, path.as_str()) };
        let mut response = self.kept(context.paths(), page, seal, path.as_str());
        response.headers_mut().append(SET_COOKIE, context.cookies().set_form(&browser));
        response
    }

    /// The page that has the browser keep a form, or says that it is not kept where no script runs.
    fn kept(&self, paths: &Paths, page: Page, seal: String, path: &str) -> Response {
        let shown = paths.own("form");
        let on = match self.authentication {
            Some(_) => self.without(paths, &shown),
            None => shown,
        };
        page.keep(seal, on).link(self.label, self.without(paths, path)).into_response()
    }

    fn not_kept(&self, paths: &Paths, page: Page, path: &str) -> Response {
        page.text("not_kept").link(self.label, self.without(paths, path)).into_response()
    }

    /// The same, with the way on to what the request asked for.
    fn not_kept_of(&self, session: &RequestSession, page: Page) -> Response {
        self.not_kept(session.context().paths(), page, session.path().map_or("/", own_path))
    }
}

/// What has been kept goes on being kept.
pub(crate) fn still_kept(paths: &Paths, refusal: Refusal, seal: String, path: &str) -> Response {
    let why = Why::Refused(refusal);
    Onward::after(&why).kept(paths, why.page(), seal, path)
}

/// In a response: what it answers needs a login of this kind.
#[derive(Clone, Debug)]
pub(crate) struct StepUpNeeded(pub(crate) Authentication);

/// The page for a person whose form came to nothing. What was entered is kept, if all of it was read.
pub(crate) async fn keep_copied(session: &RequestSession, copy: Option<&Copied>, why: Why) -> Response {
    let (on, page) = (Onward::after(&why), why.page());
    let entered = match copy.and_then(Copied::take) {
        Some((Kind::Plain(content_type), body)) => Some(Entered::Plain { content_type, body }),
        Some((Kind::Multipart(content_type), body)) => {
            multipart::fields_of(&content_type, body.into()).await.map(Entered::Multipart)
        }
        _ => None,
    };
    if let (Some(entered), Some(subject), Some(copy)) = (entered, subject_of(session), copy) {
        return on.keep(session, page, subject, entered, &copy.0.known_by);
    }
    on.not_kept_of(session, page)
}

/// What a handler reads of a form, in case that it turns out to need a step-up.
#[derive(Clone, Debug)]
pub(crate) struct Copied(Arc<CopiedForm>);

#[derive(Debug)]
struct CopiedForm {
    /// The cookies of the request.
    known_by: HeaderMap,
    state: Mutex<Copy>,
}

#[derive(Debug)]
enum Copy {
    Nothing,
    Reading(Kind, Vec<u8>),
    Whole(Kind, Vec<u8>),
}

impl Copied {
    /// For a form that a person has sent from a page of this application.
    pub(crate) fn of(session: &RequestSession, parts: &Parts) -> Option<Self> {
        if session.asker() == Asker::Form && session.key().is_some() { Self::of_form(session, parts) } else { None }
    }

    #[cold]
    fn of_form(session: &RequestSession, parts: &Parts) -> Option<Self> {
        if !form::is_own(&parts.headers, session.context().origin()) {
            return None;
        }
        let cookies = parts.headers.get_all(http::header::COOKIE);
        let known_by = cookies.iter().map(|value: &HeaderValue| (http::header::COOKIE, value.clone())).collect();
        Some(Self(Arc::new(CopiedForm { known_by, state: Mutex::new(Copy::Nothing) })))
    }

    fn state(&self) -> MutexGuard<'_, Copy> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body of the request, which is noted as it is read.
    pub(crate) fn around(&self, headers: &HeaderMap, body: Body) -> Body {
        match Kind::of(headers) {
            Kind::Other => body,
            kind => {
                let all_there = body.is_end_stream();
                *self.state() = if all_there { Copy::Whole(kind, Vec::new()) } else { Copy::Reading(kind, Vec::new()) };
                Body::new(CopiedBody { inner: body, copy: self.clone() })
            }
        }
    }

    fn note(&self, data: &[u8]) {
        let mut state = self.state();
        if let Copy::Reading(_, bytes) = &mut *state {
            if bytes.len() + data.len() > MOST_BYTES {
                *state = Copy::Nothing;
            } else {
                bytes.extend_from_slice(data);
            }
        }
    }

    fn complete(&self) {
        let mut state = self.state();
        *state = match std::mem::replace(&mut *state, Copy::Nothing) {
            Copy::Reading(kind, bytes) => Copy::Whole(kind, bytes),
            other => other,
        };
    }

    /// Whether all of it was read.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(*self.state(), Copy::Whole(..))
    }

    fn take(&self) -> Option<(Kind, Vec<u8>)> {
        match std::mem::replace(&mut *self.state(), Copy::Nothing) {
            Copy::Whole(kind, bytes) => Some((kind, bytes)),
            Copy::Nothing | Copy::Reading(..) => None,
        }
    }
}

struct CopiedBody {
    inner: Body,
    copy: Copied,
}

impl http_body::Body for CopiedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.copy.note(data);
                }
                // A reader that knows the length asks no further.
                if self.inner.is_end_stream() {
                    self.copy.complete();
                }
            }
            Some(Err(_)) => {}
            None => self.copy.complete(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
