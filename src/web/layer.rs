//! The outer layer: gives each request its session and sees to what has to happen to the response.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use axum::body::Body;
use axum::extract::OriginalUri;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{
    ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    SET_COOKIE, TRANSFER_ENCODING, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::manager::{Over, REGISTRY_RETRY_AFTER};
use crate::session::policy::RequestKind;
use crate::web::app_data::{self, AppData};
use crate::web::context::Context;
use crate::web::cookie::{Noted, Presented};
use crate::web::form;
use crate::web::keep_form::{Copied, StepUpNeeded, Why, keep_copied};
use crate::web::navigation::Asker;
use crate::web::page::{error, with_retry_after};
use crate::web::pages::{ForPeople, FormRefused, Page, PageKind, SentToLogin};
use crate::web::parties::Parties;
use crate::web::reject::OfNobody;
use crate::web::request::{Admitted, Claim, CookieState, RequestSession};
use crate::web::said::Said;
use crate::web::send_again::unseal;
use crate::web::stream::{can_take_long, cut_when_over};
use crate::web::tenants::{Party, Unresolved};
use crate::web::texts::Language;
use crate::web::upgrade::Bridge;

/// Gives each request its session; made by [`RelyingParty::layer`](crate::RelyingParty::layer).
#[derive(Clone, Debug)]
pub struct SessionLayer {
    parties: Parties,
}

impl SessionLayer {
    pub(crate) fn new(parties: Parties) -> Self {
        Self { parties }
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> SessionService<S> {
        SessionService { inner, parties: self.parties.clone() }
    }
}

/// The service of [`SessionLayer`].
#[derive(Clone, Debug)]
pub struct SessionService<S> {
    inner: S,
    parties: Parties,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for SessionService<S>
where
    S: Service<Request<Body>, Response = http::Response<ResBody>> + Clone + Send + 'static,
    S::Error: Send + 'static,
    S::Future: Send,
    ReqBody: http_body::Body<Data = Bytes> + Send + 'static,
    ReqBody::Error: Into<axum::BoxError>,
    ResBody: http_body::Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<axum::BoxError>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = SessionFuture<S::Future, S::Error>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let body = Body::new(body);
        let many = match &self.parties {
            Parties::One(context) => return serve(&mut self.inner, context, parts, body),
            Parties::Many(many) => many,
        };
        match many.of(&mut parts) {
            Party::Known(context) => serve(&mut self.inner, &context, parts, body),
            Party::Nobody => serve_nobody(&mut self.inner, parts, body),
            Party::Wanted(wanted) => {
                let mut inner = taken(&mut self.inner);
                SessionFuture::later(async move {
                    match wanted.await {
                        Ok(Some(context)) => serve(&mut inner, &context, parts, body).await,
                        Ok(None) => Ok(of_no_party(&parts, PageKind::NotFound)),
                        Err(Unresolved) => Ok(of_no_party(&parts, PageKind::Unavailable)),
                    }
                })
            }
        }
    }
}

/// The service that was made ready; a clone takes its place.
fn taken<S: Clone>(inner: &mut S) -> S {
    let clone = inner.clone();
    std::mem::replace(inner, clone)
}

/// A request that is for no tenant, where there are some.
fn serve_nobody<S, ResBody>(
    inner: &mut S,
    mut parts: http::request::Parts,
    body: Body,
) -> SessionFuture<S::Future, S::Error>
where
    S: Service<Request<Body>, Response = http::Response<ResBody>>,
{
    parts.extensions.insert(OfNobody);
    SessionFuture { state: State::Outside { inner: inner.call(Request::from_parts(parts, body)) } }
}

/// The answer where nobody knows which relying party a request is for.
fn of_no_party(parts: &http::request::Parts, kind: PageKind) -> Response {
    if Asker::of(&parts.method, &parts.headers).is_person() {
        let page = Page::new(kind);
        page.log();
        return page.in_language(Language::preferred(parts.headers.get(ACCEPT_LANGUAGE))).answer(None);
    }
    match kind {
        PageKind::NotFound => error(StatusCode::NOT_FOUND, "not_found"),
        _ => with_retry_after(error(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"), REGISTRY_RETRY_AFTER),
    }
}

/// A request of that relying party.
#[inline]
fn serve<S, ResBody>(
    inner: &mut S,
    context: &Context,
    mut parts: http::request::Parts,
    body: Body,
) -> SessionFuture<S::Future, S::Error>
where
    S: Service<Request<Body>, Response = http::Response<ResBody>> + Clone + Send + 'static,
    S::Error: Send + 'static,
    S::Future: Send,
    ResBody: http_body::Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<axum::BoxError>,
{
    if parts.extensions.get::<RequestSession>().is_some_and(|session| session.context().is(context)) {
        context.junk(
            |junk| &junk.wiring,
            |_| {
                tracing::error!(
                    "rp.layer() stands around rp.layer(): only the outer one counts. Put it around everything, once"
                );
            },
        );
        let inner = inner.call(Request::from_parts(parts, body));
        return SessionFuture { state: State::Outside { inner } };
    }
    let is_again = parts.method == Method::POST && form::take_mark(&mut parts);
    let said = Said::by(&parts.method, &mut parts.headers, context.cookies());
    let is_prefetch = said.is_prefetch;
    let session = request_session(context, &mut parts, said);
    let visit = Visit::begin(session, &mut parts, is_prefetch);
    if is_again {
        let mut inner = taken(inner);
        return SessionFuture::later(async move {
            let session = visit.session.clone();
            // Once it is spent it is delivered, whoever waits for the answer.
            let delivered = session.manager().spawn({
                let (session, copied) = (session.clone(), visit.copied.clone());
                async move {
                    match unseal(&session, parts, body).await {
                        Ok(request) => {
                            let (parts, body) = request.into_parts();
                            let body = copy_of(copied.as_ref(), &parts, body);
                            let request = Request::from_parts(parts, body);
                            inner.call(request).await.map(|response| response.map(Body::new))
                        }
                        Err(told) => Ok(told),
                    }
                }
            });
            let response = match delivered.await {
                Ok(response) => response?,
                Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            };
            Ok(visit.finish(response).wait().await)
        });
    }
    let body = copy_of(visit.copied.as_ref(), &parts, body);
    if visit.session.key().is_some() && Bridge::is_needed(&parts) {
        let mut inner = taken(inner);
        return SessionFuture::later(async move {
            let bridge = Bridge::build(&mut parts).await;
            let response = inner.call(Request::from_parts(parts, body)).await?;
            if let Some(bridge) = bridge {
                bridge.pass_until(&response, visit.over());
            }
            Ok(visit.finish(response).wait().await)
        });
    }
    let inner = inner.call(Request::from_parts(parts, body));
    SessionFuture { state: State::Serving { inner, visit: Some(visit) } }
}

pin_project! {
    /// The future of [`SessionService`].
    pub struct SessionFuture<F, E> {
        #[pin]
        state: State<F, E>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, E> {
        Serving { #[pin] inner: F, visit: Option<Visit> },
        /// A layer of the same kind has it.
        Outside { #[pin] inner: F },
        Later { response: BoxFuture<'static, Result<Response, E>> },
        Done,
    }
}

impl<F, E> SessionFuture<F, E> {
    fn later(response: impl Future<Output = Result<Response, E>> + Send + 'static) -> Self {
        Self { state: State::Later { response: response.boxed() } }
    }
}

impl<F, E> fmt::Debug for SessionFuture<F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionFuture").finish_non_exhaustive()
    }
}

impl<F, ResBody, E> Future for SessionFuture<F, E>
where
    F: Future<Output = Result<http::Response<ResBody>, E>>,
    E: Send + 'static,
    ResBody: http_body::Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<axum::BoxError>,
{
    type Output = Result<Response, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        loop {
            let mut state = self.as_mut().project().state;
            let response = match state.as_mut().project() {
                StateProjection::Serving { inner, visit } => {
                    let response = ready!(inner.poll(cx))?;
                    let Some(visit) = visit.take() else { return Poll::Pending };
                    match visit.finish(response) {
                        Finished::Now(response) => {
                            state.set(State::Done);
                            return Poll::Ready(Ok(response));
                        }
                        Finished::Later(response) => response,
                    }
                }
                StateProjection::Outside { inner } => {
                    return Poll::Ready(ready!(inner.poll(cx)).map(|response| response.map(Body::new)));
                }
                StateProjection::Later { response } => return response.as_mut().poll(cx),
                // Whoever polls what has completed gets nothing more.
                StateProjection::Done => return Poll::Pending,
            };
            state.set(State::Later { response: response.map(Ok).boxed() });
        }
    }
}

/// What was said with a response holds for the one in its place: cookies, challenges, methods. What was said of its bytes does not.
fn carry_over(said: &HeaderMap, made: &mut Response) {
    let of_its_bytes =
        [CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, TRANSFER_ENCODING];
    for (name, value) in said.iter().filter(|(name, _)| !of_its_bytes.contains(name)) {
        if [SET_COOKIE, VARY].contains(name) || !made.headers().contains_key(name) {
            made.headers_mut().append(name, value.clone());
        }
    }
}

/// The body of a request, which is noted as it is read if it may have to be kept.
#[inline]
fn copy_of(copied: Option<&Copied>, parts: &http::request::Parts, body: Body) -> Body {
    match copied {
        Some(copied) => copied.around(&parts.headers, body),
        None => body,
    }
}

/// A request with its session, from when it comes until it is answered.
struct Visit {
    session: RequestSession,
    app_data: Option<AppData>,
    /// What a person has entered, as far as it was read.
    copied: Option<Copied>,
    /// Nobody is sent anywhere by it.
    is_prefetch: bool,
}

/// What a response of the crate's says of itself.
enum Told {
    Nothing,
    SentToLogin,
    /// What was entered is kept.
    Kept(Box<Why>),
}

/// What is sent, at once or after the store was asked.
enum Finished {
    Now(Response),
    Later(BoxFuture<'static, Response>),
}

impl Finished {
    async fn wait(self) -> Response {
        match self {
            Self::Now(response) => response,
            Self::Later(response) => response.await,
        }
    }
}

impl Visit {
    /// Gives the session to those who serve the request.
    fn begin(session: RequestSession, parts: &mut http::request::Parts, is_prefetch: bool) -> Self {
        let app_data = session.has_cookie().then(|| app_data::of(&parts.extensions)).flatten();
        let copied = Copied::of(&session, parts);
        parts.extensions.insert(session.clone());
        Self { session, app_data, copied, is_prefetch }
    }

    /// Completes when nothing more may be sent, if the response was made with the session.
    fn over(&self) -> Option<impl FnOnce() -> BoxFuture<'static, Over> + use<>> {
        let Admitted { record, looked } = self.session.used()?.clone();
        let manager = self.session.manager().clone();
        Some(move || manager.until_over(record, looked).boxed())
    }

    fn finish<B>(self, response: http::Response<B>) -> Finished
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let mut response = response.map(Body::new);
        let told = if response.extensions().is_empty() { Told::Nothing } else { self.tell(&mut response) };
        if let Told::Kept(why) = told {
            return Finished::Later(self.keep(*why, response).boxed());
        }
        if !self.session.has_cookie() && !self.session.was_asked_for() {
            return Finished::Now(response);
        }
        self.session.count_in_background();
        // Where nobody is sent away the cookie stays, so that a page can still learn why its session is over; unless it
        // never was a session's.
        let tells_nothing = self.session.key().is_none() && self.session.asker() == Asker::Page;
        let is_dead = self.session.has_cookie()
            && (self.session.was_ended_here()
                || (matches!(told, Told::SentToLogin) && !self.is_prefetch || tells_nothing)
                    && self.session.found_over());
        if is_dead {
            response.headers_mut().append(SET_COOKIE, self.session.context().cookies().remove_session());
        }
        if is_dead || self.session.was_asked_for() {
            // One browser's: no cache may show it to another.
            response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("private"));
        }
        if can_take_long(&response)
            && let Some(over) = self.over()
        {
            response = cut_when_over(response, over());
        }
        if is_dead || self.session.found_over() {
            Finished::Later(self.finish_later(response, is_dead).boxed())
        } else {
            Finished::Now(response)
        }
    }

    /// Reads what a response of the crate's says of itself. One that people read gets the browser's language, and the
    /// application's look.
    #[cold]
    fn tell(&self, response: &mut Response) -> Told {
        let extensions = response.extensions_mut();
        let is_sent_to_login = extensions.remove::<SentToLogin>().is_some();
        let for_people = extensions.remove().map(|ForPeople(page)| page);
        let wanted = extensions.remove::<StepUpNeeded>().map(|StepUpNeeded(wanted)| Why::StepUp(wanted));
        let refused = extensions.remove().map(|FormRefused(refusal)| Why::Refused(refusal));
        let page = extensions.remove::<Page>();
        let page = page.or_else(|| for_people.filter(|_| self.session.asker().is_person()).inspect(Page::log));
        if self.session.asker() == Asker::Form {
            // What the gate has kept, or could not, is kept by nobody else.
            let has_copy = self.copied.as_ref().is_some_and(Copied::is_whole);
            let why = wanted.or(refused.filter(|_| has_copy));
            if let Some(why) = why {
                return Told::Kept(Box::new(why));
            }
        }
        if let Some(page) = page {
            *response = self.in_its_words(page, response.headers());
        }
        if is_sent_to_login { Told::SentToLogin } else { Told::Nothing }
    }

    fn in_its_words(&self, page: Page, said: &HeaderMap) -> Response {
        // What a script of ours shows has its words already.
        let page = if self.session.asker().is_person() { page.in_language(self.session.language()) } else { page };
        let page = page.at(self.session.context().paths());
        let mut made = page.answer(self.session.context().pages());
        carry_over(said, &mut made);
        made
    }

    /// The page that keeps what was entered.
    async fn keep(self, why: Why, instead: Response) -> Response {
        let mut response = keep_copied(&self.session, self.copied.as_ref(), why).await;
        carry_over(instead.headers(), &mut response);
        self.finish(response).wait().await
    }

    async fn finish_later(self, mut response: Response, is_dead: bool) -> Response {
        // What the cookie could tell goes on with the login.
        if is_dead
            && let Some(key) = self.session.key().filter(|_| self.session.asker() == Asker::Page)
            && let Ok(Some(mark)) = self.session.manager().end_mark(key).await
        {
            let noted = self.session.context().cookies().set_ended(&Noted { key: *key, mark });
            response.headers_mut().extend(noted.map(|noted| (SET_COOKIE, noted)));
        }
        if self.session.found_over() {
            app_data::flush(self.app_data).await;
        }
        response
    }
}

fn request_session(context: &Context, parts: &mut http::request::Parts, said: Said) -> RequestSession {
    let (key, cookie) = match said.presented {
        Presented::Id(id) => (Some(context.key_of(&id)), CookieState::Present),
        Presented::Malformed => (None, CookieState::Present),
        Presented::Nothing => (None, CookieState::Absent),
    };
    let asker = said.asker;
    let kind = match asker {
        // Without a session it is nobody's.
        _ if key.is_none() || said.is_prefetch || !context.policy().is_activity(parts) => RequestKind::Passive,
        Asker::Page => RequestKind::Navigation,
        Asker::Form | Asker::Script => RequestKind::UserActivity,
    };
    // Only a person is sent away and comes back, or reads a page; only a script says whom it takes for its user.
    let path = asker.is_person().then(|| {
        // As the browser sees it: a router outside may have cut what it matched.
        let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0);
        uri.path_and_query().map(|path| context.paths().seen(path))
    });
    let path = path.flatten();
    let claim = match asker {
        Asker::Script => said.subject.filter(|_| key.is_some()).map(Claim::Subject),
        Asker::Form | Asker::Page => said.languages.map(Claim::Languages),
    };
    RequestSession::new(context.clone(), key, cookie, asker, path, kind, claim.map(Box::new))
}
