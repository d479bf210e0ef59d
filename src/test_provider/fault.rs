//! Outages and gates: what goes wrong between the provider's work and its answer, and when.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::watch;

use super::Shared;

/// The endpoints of the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// The authorization endpoint.
    Authorize,
    /// The discovery document.
    Discovery,
    /// The logout endpoint for browsers.
    EndSession,
    /// The introspection endpoint, for APIs.
    Introspection,
    /// The key set.
    Jwks,
    /// The pushed authorization request endpoint.
    PushedAuthorization,
    /// The revocation endpoint.
    Revocation,
    /// The token endpoint.
    Token,
    /// The userinfo endpoint.
    UserInfo,
}

/// What goes wrong at an endpoint.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// It answers this instead of doing its work.
    Body {
        /// The status.
        status: u16,
        /// The content type.
        content_type: &'static str,
        /// The body.
        body: String,
    },
    /// It does its work, and the answer is lost: a refresh token has been rotated and nobody knows.
    DropAfterWork,
    /// It takes the request and never answers.
    Hang,
    /// It does its work, and answers so much later by its clock: a refresh token has been rotated, and everybody waits.
    Late(Duration),
    /// It closes the connection without an answer.
    Refuse,
    /// It answers with this status.
    Status {
        /// The status.
        code: u16,
        /// The `Retry-After` header.
        retry_after: Option<Duration>,
    },
    /// It does its work, and half of the answer is lost.
    Truncate,
}

/// Where a [`Gate`] stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GateAt {
    /// Before the work.
    Request,
    /// Between the work and the answer.
    Response,
}

/// Holds the requests at an endpoint until it is opened or dropped.
#[derive(Debug)]
pub struct Gate {
    waiting: watch::Receiver<usize>,
    open: watch::Sender<bool>,
}

impl Gate {
    /// Completes when a request waits at the gate.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn arrived(&mut self) {
        // An error means that the provider is gone, and with it every request.
        let _ = self.waiting.wait_for(|waiting| *waiting > 0).await;
    }

    /// How many requests wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        *self.waiting.borrow()
    }

    /// Lets all requests through, now and from now on.
    pub fn open(self) {
        drop(self);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open.send_replace(true);
    }
}

#[derive(Clone, Debug)]
pub(super) struct GateKeeper {
    endpoint: Endpoint,
    at: GateAt,
    waiting: Arc<watch::Sender<usize>>,
    open: watch::Receiver<bool>,
}

impl GateKeeper {
    pub(super) fn new(endpoint: Endpoint, at: GateAt) -> (Gate, Self) {
        let (waiting, waiting_seen) = watch::channel(0);
        let (open, open_seen) = watch::channel(false);
        let keeper = Self { endpoint, at, waiting: Arc::new(waiting), open: open_seen };
        (Gate { waiting: waiting_seen, open }, keeper)
    }

    pub(super) fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    async fn pass(mut self) {
        self.waiting.send_modify(|waiting| *waiting += 1);
        let _ = self.open.wait_for(|open| *open).await;
        self.waiting.send_modify(|waiting| *waiting = waiting.saturating_sub(1));
    }
}

/// Marks a response that must not be sent: the connection is closed instead.
#[derive(Clone, Copy, Debug)]
pub(super) struct CloseConnection;

pub(super) async fn interfere(
    State((shared, endpoint)): State<(Arc<Shared>, Endpoint)>,
    request: Request,
    next: Next,
) -> Response {
    let fault = {
        let mut state = shared.state();
        *state.requests.entry(endpoint).or_default() += 1;
        state.fault_at(endpoint)
    };
    wait(&shared, endpoint, GateAt::Request).await;
    let response = match fault {
        None => next.run(request).await,
        Some(Fault::Body { status, content_type, body }) => {
            (status_of(status), [(CONTENT_TYPE, content_type)], body).into_response()
        }
        Some(Fault::DropAfterWork) => {
            drop(next.run(request).await);
            close()
        }
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Late(by)) => {
            let response = next.run(request).await;
            shared.clock.sleep(by).await;
            response
        }
        Some(Fault::Refuse) => close(),
        Some(Fault::Status { code, retry_after }) => {
            let mut response = status_of(code).into_response();
            if let Some(retry_after) = retry_after {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_after.as_secs()));
            }
            response
        }
        Some(Fault::Truncate) => truncated(next.run(request).await).await,
    };
    wait(&shared, endpoint, GateAt::Response).await;
    response
}

async fn wait(shared: &Shared, endpoint: Endpoint, at: GateAt) {
    let gates: Vec<GateKeeper> = {
        let mut state = shared.state();
        state.gates.retain(|gate| !gate.is_open());
        state.gates.iter().filter(|gate| gate.endpoint == endpoint && gate.at == at).cloned().collect()
    };
    for gate in gates {
        gate.pass().await;
    }
}

fn status_of(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn close() -> Response {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(CloseConnection);
    response
}

async fn truncated(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let whole = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(whole.len()));
    let half = whole.slice(..whole.len() / 2);
    let chunks = [Ok(half), Err(io::Error::other("cut"))];
    Response::from_parts(parts, Body::from_stream(futures_util::stream::iter(chunks)))
}
