//! The same for any HTTP client that is a Tower service: reverse proxies, hyper, a mock in a test.

use std::task::{Context, Poll};

use axum::BoxError;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Request;
use http::request::Parts;
use tower_layer::Layer;
use tower_service::Service;

use super::error::ApiError;
use super::sender::Sender;
use crate::calls::body::Attempt;
use crate::calls::transport::{NoAnswer, Transport};

/// Lets an HTTP client call APIs on behalf of a session, as [`SessionClient`](crate::SessionClient) does: it attaches the access token, refreshes
/// it, judges the answers. Made by [`SessionClient::layer`](crate::SessionClient::layer).
#[derive(Clone, Debug)]
pub struct SessionClientLayer {
    sender: Sender,
}

impl SessionClientLayer {
    pub(super) fn new(sender: Sender) -> Self {
        Self { sender }
    }
}

impl<S> Layer<S> for SessionClientLayer {
    type Service = SessionClientService<S>;

    fn layer(&self, inner: S) -> SessionClientService<S> {
        SessionClientService { inner, sender: self.sender.clone() }
    }
}

/// The service of [`SessionClientLayer`].
#[derive(Clone, Debug)]
pub struct SessionClientService<S> {
    inner: S,
    sender: Sender,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for SessionClientService<S>
where
    S: Service<Request<Body>, Response = http::Response<ResBody>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    ReqBody: http_body::Body<Data = Bytes> + Send + 'static,
    ReqBody::Error: Into<BoxError>,
    ResBody: http_body::Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = ApiError;
    type Future = BoxFuture<'static, Result<Response, ApiError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ApiError>> {
        // A call may be two, so each waits for the service itself.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let (sender, mut transport) = (self.sender.clone(), TowerTransport(self.inner.clone()));
        Box::pin(async move { sender.send_by(&mut transport, request.map(Body::new)).await })
    }
}

struct TowerTransport<S>(S);

impl<S, ResBody> Transport for TowerTransport<S>
where
    S: Service<Request<Body>, Response = http::Response<ResBody>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    ResBody: http_body::Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    fn call(&mut self, parts: Parts, body: Attempt) -> BoxFuture<'static, Result<Response, NoAnswer>> {
        let mut inner = self.0.clone();
        Box::pin(async move {
            let unreachable = |error: S::Error| NoAnswer::Unreachable(error.into().into());
            std::future::poll_fn(|cx| inner.poll_ready(cx)).await.map_err(unreachable)?;
            let answer = inner.call(Request::from_parts(parts, body.into())).await.map_err(unreachable)?;
            Ok(answer.map(Body::new))
        })
    }
}
