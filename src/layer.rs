//! The outer layer: gives each request its session and sees to what has to happen to the response.

use std::convert::Infallible;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::Request;
use http::header::SET_COOKIE;
use tower_layer::Layer;
use tower_service::Service;

use crate::app_data;
use crate::cookie::Presented;
use crate::relying_party::RelyingParty;
use crate::request_session::{CookieState, RequestSession};
use crate::respond::is_navigation;
use crate::session::id::SessionKey;
use crate::session::policy::RequestKind;
use crate::stream::cut_when_over;
use crate::upgrade::Bridge;

/// Gives each request its session; made by [`RelyingParty::layer`].
#[derive(Clone, Debug)]
pub struct SessionLayer {
    rp: RelyingParty,
}

impl SessionLayer {
    pub(crate) fn new(rp: RelyingParty) -> Self {
        Self { rp }
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> SessionService<S> {
        SessionService { inner, rp: self.rp.clone() }
    }
}

/// The service of [`SessionLayer`].
#[derive(Clone, Debug)]
pub struct SessionService<S> {
    inner: S,
    rp: RelyingParty,
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

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        // The clone takes the place of the service that was made ready.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let rp = self.rp.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let session = request_session(&rp, &parts);
            let app_data = app_data::of(&parts.extensions);
            let bridge = match session.key() {
                Some(_) => Bridge::build(&mut parts).await,
                None => None,
            };
            parts.extensions.insert(session.clone());
            parts.extensions.insert(rp.clone());

            let response = inner.call(Request::from_parts(parts, body)).await?;

            session.count().await;
            let mut response = response.map(Body::new);
            if session.cookie_is_dead() {
                response.headers_mut().append(SET_COOKIE, rp.cookies().remove_session());
                app_data::flush(app_data).await;
            }
            let Some(record) = session.used() else { return Ok(response) };
            let key = *record.key();
            let over = || session.manager().clone().until_over(key).boxed();
            if let Some(bridge) = bridge {
                bridge.pass_until(&response, over);
            }
            Ok(cut_when_over(response, over))
        })
    }
}

fn request_session(rp: &RelyingParty, parts: &http::request::Parts) -> RequestSession {
    let (key, cookie) = match rp.cookies().session(&parts.headers) {
        Presented::Id(id) => (Some(SessionKey::of(&id, rp.registration())), CookieState::Present),
        Presented::Malformed => (None, CookieState::Present),
        Presented::Nothing => (None, CookieState::Absent),
    };
    let kind = match rp.manager().policy().classify(parts) {
        // Makes a difference to sessions only.
        RequestKind::UserActivity if key.is_some() && is_navigation(&parts.method, &parts.headers) => {
            RequestKind::Navigation
        }
        kind => kind,
    };
    RequestSession::new(rp.manager().clone(), key, cookie, parts.uri.path_and_query().cloned(), kind)
}
