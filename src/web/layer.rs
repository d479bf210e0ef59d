//! The outer layer: gives each request its session and sees to what has to happen to the response.

use std::convert::Infallible;
use std::task::{self, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{CACHE_CONTROL, SET_COOKIE};
use http::{HeaderValue, Request};
use tower_layer::Layer;
use tower_service::Service;

use crate::session::id::SessionKey;
use crate::session::policy::RequestKind;
use crate::web::app_data;
use crate::web::context::Context;
use crate::web::cookie::{Cookies, Presented};
use crate::web::navigation::Asker;
use crate::web::request::{CookieState, RequestSession};
use crate::web::stream::cut_when_over;
use crate::web::upgrade::Bridge;

/// Gives each request its session; made by [`RelyingParty::layer`](crate::RelyingParty::layer).
#[derive(Clone, Debug)]
pub struct SessionLayer {
    context: Context,
}

impl SessionLayer {
    pub(crate) fn new(context: Context) -> Self {
        Self { context }
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> SessionService<S> {
        SessionService { inner, context: self.context.clone() }
    }
}

/// The service of [`SessionLayer`].
#[derive(Clone, Debug)]
pub struct SessionService<S> {
    inner: S,
    context: Context,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for SessionService<S>
where
    S: Service<Request<ReqBody>, Response = http::Response<ResBody>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    ReqBody: Send + 'static,
    ResBody: http_body::Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<axum::BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        // The clone takes the place of the service that was made ready.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let context = self.context.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            Cookies::mark_sensitive(&mut parts.headers);
            let session = request_session(&context, &parts);
            let app_data = app_data::of(&parts.extensions);
            let bridge = match session.key() {
                Some(_) => Bridge::build(&mut parts).await,
                None => None,
            };
            parts.extensions.insert(session.clone());

            let response = inner.call(Request::from_parts(parts, body)).await?;

            session.count_in_background();
            let mut response = response.map(Body::new);
            let is_dead = session.cookie_is_dead();
            if is_dead {
                response.headers_mut().append(SET_COOKIE, context.cookies().remove_session());
                // What the cookie could tell goes on with the login.
                if let Some(key) = session.key().filter(|_| session.asker() == Asker::Page)
                    && let Some(mark) = session.manager().end_mark(key).await
                {
                    response.headers_mut().extend(context.cookies().set_ended(&mark).map(|mark| (SET_COOKIE, mark)));
                }
            }
            if session.found_over() {
                app_data::flush(app_data).await;
            }
            if is_dead || session.was_asked_for() {
                // One browser's: no cache may show it to another.
                response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("private"));
            }
            let over = session.used().cloned().map(|record| {
                let (manager, looked) = (session.manager().clone(), session.looked());
                move || manager.until_over(record, looked).boxed()
            });
            if let Some(bridge) = bridge {
                bridge.pass_until(&response, over.clone());
            }
            Ok(match over {
                Some(over) => cut_when_over(response, over),
                None => response,
            })
        })
    }
}

fn request_session(context: &Context, parts: &http::request::Parts) -> RequestSession {
    let (key, cookie) = match context.cookies().session(&parts.headers) {
        Presented::Id(id) => (Some(SessionKey::of(&id, context.registration())), CookieState::Present),
        Presented::Malformed => (None, CookieState::Present),
        Presented::Nothing => (None, CookieState::Absent),
    };
    let asker = Asker::of(&parts.method, &parts.headers);
    let kind = match (context.policy().is_activity(parts), asker) {
        (true, Asker::Page) => RequestKind::Navigation,
        (true, Asker::Script) => RequestKind::UserActivity,
        (false, _) => RequestKind::Passive,
    };
    RequestSession::new(context.clone(), key, cookie, asker, parts.uri.path_and_query().cloned(), kind)
}
