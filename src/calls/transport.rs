//! What carries a request to an API.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use futures_util::future::BoxFuture;
use http::Request;
use http::request::Parts;

use super::body::Attempt;
use crate::error::ConfigError;
use crate::provider::http::client_builder;

/// An API that has not begun to answer after this time gets no more.
pub(crate) const API_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a request brought no answer.
#[derive(Clone, Debug)]
pub(crate) enum NoAnswer {
    Invalid(String),
    Timeout,
    Unreachable(Cause),
}

/// Why a connection came to nothing: refused, or its certificate expired, …
pub(crate) type Cause = Arc<dyn std::error::Error + Send + Sync>;

pub(crate) trait Transport: Send {
    fn call(&mut self, parts: Parts, body: Attempt) -> BoxFuture<'static, Result<Response, NoAnswer>>;
}

/// The crate's own client.
#[derive(Clone, Debug)]
pub(crate) struct OwnClient(reqwest::Client);

impl OwnClient {
    pub(crate) fn new() -> Result<Self, ConfigError> {
        let client = client_builder(API_TIMEOUT).read_timeout(API_TIMEOUT).build();
        client.map(Self).map_err(|error| ConfigError::new("api", error.to_string(), "a working TLS set-up"))
    }
}

impl Transport for OwnClient {
    fn call(&mut self, parts: Parts, body: Attempt) -> BoxFuture<'static, Result<Response, NoAnswer>> {
        let client = self.0.clone();
        Box::pin(async move {
            let request = reqwest::Request::try_from(Request::from_parts(parts, reqwest::Body::from(body)));
            let request = request.map_err(|error| NoAnswer::Invalid(error.without_url().to_string()))?;
            match client.execute(request).await {
                Ok(answer) => Ok(http::Response::from(answer).map(Body::new)),
                Err(error) if error.is_timeout() => Err(NoAnswer::Timeout),
                Err(error) => Err(NoAnswer::Unreachable(Arc::new(error.without_url()))),
            }
        })
    }
}
