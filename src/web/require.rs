//! The layers for routes: one lets only signed-in users through, one marks requests as passive.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::CACHE_CONTROL;
use http::{HeaderValue, Request};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::manager::Refusal;
use crate::web::cross_site::{can_do_harm, is_cross_site};
use crate::web::keep_form::keep;
use crate::web::navigation::Asker;
use crate::web::reject::SessionRejection;
use crate::web::request::RequestSession;

/// Lets only requests of signed-in users through; made by
/// [`RelyingParty::require_session`](crate::RelyingParty::require_session).
///
/// 1. An unsafe method or a WebSocket handshake from another site gets 403.
/// 2. A request without a good session gets 401, a browser navigation a redirect to the login.
/// 3. Where nobody can tell, 503 with `Retry-After`.
/// 4. The response gets `Cache-Control: no-store` unless it has a `Cache-Control` of its own: the back button must not
///    show it after the end.
#[derive(Clone, Debug)]
pub struct RequireSessionLayer {
    origin: Arc<str>,
}

impl RequireSessionLayer {
    pub(crate) fn new(origin: Arc<str>) -> Self {
        Self { origin }
    }
}

impl<S> Layer<S> for RequireSessionLayer {
    type Service = RequireSession<S>;

    fn layer(&self, inner: S) -> RequireSession<S> {
        RequireSession { inner, origin: self.origin.clone() }
    }
}

/// The service of [`RequireSessionLayer`].
#[derive(Clone, Debug)]
pub struct RequireSession<S> {
    inner: S,
    origin: Arc<str>,
}

impl<S, B> Service<Request<B>> for RequireSession<S>
where
    S: Service<Request<B>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = RequireSessionFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let state = match first_look(&request, &self.origin) {
            Look::Serve => State::Serving { inner: self.inner.call(request) },
            Look::Reject(rejection) => State::Rejected { response: Some(rejection.into_response()) },
            Look::Keep(session, refusal) => State::Waiting { response: kept(session, refusal, request).boxed() },
            Look::Wait(session) => {
                // The clone takes the place of the service that was made ready.
                let clone = self.inner.clone();
                let mut inner = std::mem::replace(&mut self.inner, clone);
                let response = async move {
                    match session.admit().await {
                        Ok(_) => {}
                        Err(refusal) if is_kept(&session, *refusal) => {
                            return kept(session.clone(), *refusal, request).await;
                        }
                        Err(refusal) => return session.rejection(*refusal).into_response(),
                    }
                    inner.call(request).await.map_or_else(|never| match never {}, not_stored)
                };
                State::Waiting { response: response.boxed() }
            }
        };
        RequireSessionFuture { state }
    }
}

pin_project! {
    /// The future of [`RequireSession`].
    pub struct RequireSessionFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Rejected { response: Option<Response> },
        Serving { #[pin] inner: F },
        Waiting { response: BoxFuture<'static, Response> },
    }
}

impl<F> fmt::Debug for RequireSessionFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequireSessionFuture").finish_non_exhaustive()
    }
}

impl<F: Future<Output = Result<Response, Infallible>>> Future for RequireSessionFuture<F> {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Rejected { response } => match response.take() {
                Some(response) => Poll::Ready(Ok(response)),
                // Whoever polls what has completed gets nothing more.
                None => Poll::Pending,
            },
            StateProjection::Serving { inner } => inner.poll(cx).map_ok(not_stored),
            StateProjection::Waiting { response } => response.as_mut().poll(cx).map(Ok),
        }
    }
}

/// Whether a person has sent a form after the end.
fn is_kept(session: &RequestSession, refusal: Refusal) -> bool {
    session.asker() == Asker::Form && (refusal.is_over() || refusal == Refusal::Unconfirmed)
}

async fn kept<B>(session: RequestSession, refusal: Refusal, request: Request<B>) -> Response
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    let (parts, body) = request.into_parts();
    keep(&session, refusal, &parts, body).await
}

fn not_stored(mut response: Response) -> Response {
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// What is to be done with a request.
enum Look {
    Serve,
    Reject(SessionRejection),
    /// What was entered may be kept until its user has signed in again.
    Keep(RequestSession, Refusal),
    /// Nobody can tell before the registry, or the provider, has answered.
    Wait(RequestSession),
}

fn first_look<B>(request: &Request<B>, origin: &str) -> Look {
    if can_do_harm(request.method(), request.headers()) && is_cross_site(request.headers(), origin) {
        return Look::Reject(SessionRejection::cross_site(Asker::of(request.method(), request.headers())));
    }
    let Some(session) = request.extensions().get::<RequestSession>() else {
        return Look::Reject(SessionRejection::no_layer());
    };
    match session.admit_at_once() {
        Some(Ok(_)) => Look::Serve,
        Some(Err(refusal)) if is_kept(session, *refusal) => Look::Keep(session.clone(), *refusal),
        Some(Err(refusal)) => Look::Reject(session.rejection(*refusal)),
        None => Look::Wait(session.clone()),
    }
}
