//! The layers for routes: one lets only signed-in users through, one marks requests as passive.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use http::header::CACHE_CONTROL;
use http::{HeaderValue, Request};
use tower_layer::Layer;
use tower_service::Service;

use crate::web::cross_site::{can_do_harm, is_cross_site};
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
    B: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The clone takes the place of the service that was made ready.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let origin = self.origin.clone();
        Box::pin(async move {
            if let Some(rejection) = reject(&request, &origin).await {
                return Ok(rejection.into_response());
            }
            let mut response = inner.call(request).await?;
            response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
            Ok(response)
        })
    }
}

/// Why the request may not go on, if it may not.
fn reject<B>(request: &Request<B>, origin: &str) -> impl Future<Output = Option<SessionRejection>> + Send + 'static {
    let session = request.extensions().get::<RequestSession>().cloned();
    let cross_site = can_do_harm(request.method(), request.headers()) && is_cross_site(request.headers(), origin);
    async move {
        if cross_site {
            return Some(SessionRejection::cross_site());
        }
        let Some(session) = session else { return Some(SessionRejection::no_layer()) };
        session.admit().await.as_ref().err().map(|refusal| session.rejection(*refusal))
    }
}
