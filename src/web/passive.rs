//! The layer that marks requests as passive.

use std::task::{Context, Poll};

use http::Request;
use tower_layer::Layer;
use tower_service::Service;

use super::reject::is_of_nobody;
use super::request::RequestSession;

/// Marks the requests of a route as passive; made by [`RelyingParty::passive`](crate::RelyingParty::passive).
#[derive(Clone, Copy, Debug)]
pub struct PassiveLayer {
    _private: (),
}

impl PassiveLayer {
    pub(crate) fn new() -> Self {
        Self { _private: () }
    }
}

impl<S> Layer<S> for PassiveLayer {
    type Service = Passive<S>;

    fn layer(&self, inner: S) -> Passive<S> {
        Passive { inner }
    }
}

/// The service of [`PassiveLayer`].
#[derive(Clone, Copy, Debug)]
pub struct Passive<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for Passive<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        if let Some(session) = request.extensions().get::<RequestSession>() {
            session.mark_passive();
        } else if !is_of_nobody(request.extensions()) {
            tracing::error!(
                "passive() stands outside of rp.layer() and has no effect: put it on routes inside of that"
            );
        }
        self.inner.call(request)
    }
}
