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
use crate::provider::certificate::{ClientCertificate, OwnClient};
use crate::provider::given::GivenClient;
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

/// What carries requests to APIs where the application says nothing else.
#[derive(Clone, Debug)]
pub(crate) enum Client {
    Own(OwnClient),
    /// The application's.
    Given(GivenClient),
}

impl Client {
    pub(crate) fn new(given: Option<GivenClient>, certificate: Option<ClientCertificate>) -> Result<Self, ConfigError> {
        if let Some(given) = given {
            return Ok(Self::Given(given));
        }
        let client = OwnClient::new(certificate, || client_builder(API_TIMEOUT).read_timeout(API_TIMEOUT));
        client.map(Self::Own).map_err(|error| ConfigError::new("api", error, "a working TLS set-up"))
    }
}

impl Transport for Client {
    fn call(&mut self, parts: Parts, body: Attempt) -> BoxFuture<'static, Result<Response, NoAnswer>> {
        let client = match self {
            Self::Own(client) => client.get(),
            Self::Given(client) => {
                let client = client.clone();
                return Box::pin(async move {
                    let request = Request::from_parts(parts, Body::from(body));
                    match tokio::time::timeout(API_TIMEOUT, client.send(request)).await {
                        Ok(answer) => answer.map_err(|error| NoAnswer::Unreachable(error.into())),
                        Err(_) => Err(NoAnswer::Timeout),
                    }
                });
            }
        };
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
