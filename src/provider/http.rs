//! One HTTP client for all calls to peers: bounded in time and size, without redirects and cookies.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Limited};
use tracing::Instrument;
use tracing::field::Empty;

use super::certificate::{ClientCertificate, OwnClient};
use super::given::{GivenClient, is_not_sent};
use crate::clock::monotonic;
use crate::error::with_causes;

/// No answer of a provider is longer: a JWK Set with a hundred keys and certificates stays below.
const MAX_BODY: usize = 1024 * 1024;

/// Where the caller says how long it waits, this is the end all the same.
const LONGEST_CALL: Duration = Duration::from_secs(24 * 60 * 60);

/// How long an answer is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// As long as the caller does. The connection has to be there within ours.
    Callers,
    /// The bound on one call.
    Ours,
}

#[derive(Clone, Debug)]
pub(crate) struct Http {
    client: Client,
    timeout: Duration,
}

#[derive(Clone, Debug)]
enum Client {
    Own(OwnClient),
    Given(GivenClient),
}

/// A complete answer of a peer.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

// The body may hold tokens.
impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// The peer has not seen the request.
    #[error("the connection failed: {0}")]
    NotSent(String),
    /// The peer may have seen the request and acted on it.
    #[error("the answer was lost: {0}")]
    Lost(String),
}

impl Http {
    pub(crate) fn new(
        timeout: Duration,
        given: Option<&GivenClient>,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Self, String> {
        let client = match given {
            Some(given) => Client::Given(given.clone()),
            None => {
                Client::Own(OwnClient::new(certificate.cloned(), move || client_builder(timeout).timeout(timeout))?)
            }
        };
        Ok(Self { client, timeout })
    }

    /// The bound on one call.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) async fn get(&self, url: &str, headers: HeaderMap) -> Result<Answer, NoAnswer> {
        let request = http::Request::get(url).header(http::header::ACCEPT, "application/json").body(Vec::new());
        let mut request = request.map_err(|e| NoAnswer::NotSent(e.to_string()))?;
        request.headers_mut().extend(headers);
        self.send(request, Patience::Ours).await
    }

    pub(crate) async fn send(&self, request: http::Request<Vec<u8>>, patience: Patience) -> Result<Answer, NoAnswer> {
        let began = monotonic();
        // By the semantic conventions for HTTP clients. A query may hold secrets, and is left out.
        let span = tracing::info_span!(
            "oidc_provider_call",
            otel.kind = "client",
            http.request.method = %request.method(),
            server.address = request.uri().host(),
            server.port = request.uri().port_u16(),
            url.path = request.uri().path(),
            http.response.status_code = Empty,
            otel.status_code = Empty,
        );
        let answer = self.call(request, patience).instrument(span.clone()).await;
        match &answer {
            Ok(answer) => _ = span.record("http.response.status_code", answer.status.as_u16()),
            Err(_) => _ = span.record("otel.status_code", "ERROR"),
        }
        let outcome = match &answer {
            Ok(answer) if answer.status.is_success() => "success",
            Ok(_) => "refused",
            Err(_) => "no_answer",
        };
        let took = monotonic().saturating_duration_since(began);
        metrics::histogram!("oidc_provider_call_seconds", "outcome" => outcome).record(took.as_secs_f64());
        answer
    }

    async fn call(&self, request: http::Request<Vec<u8>>, patience: Patience) -> Result<Answer, NoAnswer> {
        let client = match &self.client {
            Client::Own(client) => client.get(),
            Client::Given(client) => {
                let bound = if patience == Patience::Callers { LONGEST_CALL } else { self.timeout };
                let answer = tokio::time::timeout(bound, call_given(client, request)).await;
                return answer.unwrap_or_else(|_| Err(NoAnswer::Lost("it took too long".to_owned())));
            }
        };
        let mut request = reqwest::Request::try_from(request).map_err(describe)?;
        if patience == Patience::Callers {
            *request.timeout_mut() = Some(LONGEST_CALL);
        }
        let response = client.execute(request).await.map_err(describe)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut chunks = response.bytes_stream();
        let mut body = Vec::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(describe)?;
            if body.len() + chunk.len() > MAX_BODY {
                return Err(NoAnswer::Lost("it is too long".to_owned()));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, headers, body: body.into() })
    }
}

async fn call_given(client: &GivenClient, request: http::Request<Vec<u8>>) -> Result<Answer, NoAnswer> {
    let answer = client.send(request.map(Body::from)).await;
    let (parts, body) = answer.map_err(|error| describe_given(&*error))?.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|error| NoAnswer::Lost(with_causes(&*error)))?;
    Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
}

fn describe_given(error: &(dyn std::error::Error + 'static)) -> NoAnswer {
    let text = with_causes(error);
    if is_not_sent(error) { NoAnswer::NotSent(text) } else { NoAnswer::Lost(text) }
}

/// What all clients of this crate have in common: no redirects, no cookies.
pub(crate) fn client_builder(connect_timeout: Duration) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(connect_timeout)
        .user_agent(concat!("tower-oidc-session/", env!("CARGO_PKG_VERSION")))
}

fn describe(error: reqwest::Error) -> NoAnswer {
    let not_sent = error.is_connect() || error.is_builder();
    // The URL may carry parameters; the causes name addresses and system errors only.
    let text = with_causes(&error.without_url());
    if not_sent { NoAnswer::NotSent(text) } else { NoAnswer::Lost(text) }
}
