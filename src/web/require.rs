//! The layers for routes: one lets only signed-in users through, one marks requests as passive.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::CACHE_CONTROL;
use http::{HeaderValue, Request};
use pin_project_lite::pin_project;
use serde_json::Value;
use tower_layer::Layer;
use tower_service::Service;

use crate::manager::Refusal;
use crate::session::requirements::{Judged, Requirements, can_be_met};
use crate::web::cross_site::{can_do_harm, is_cross_site};
use crate::web::keep_form::{Why, keep};
use crate::web::navigation::Asker;
use crate::web::reject::SessionRejection;
use crate::web::request::{Admitted, RequestSession};

/// Lets only requests of signed-in users through; made by
/// [`RelyingParty::require_session`](crate::RelyingParty::require_session).
///
/// 1. An unsafe method or a WebSocket handshake from another site gets 403.
/// 2. A request without a good session gets 401, a browser navigation a redirect to the login.
/// 3. Where nobody can tell, 503 with `Retry-After`.
/// 4. A session that does not have what is wanted of it gets 403, or is sent to a login that may help.
/// 5. The response gets `Cache-Control: no-store` unless it has a `Cache-Control` of its own: the back button must not
///    show it after the end.
///
/// ```
/// # use std::time::Duration;
/// # use axum::{Router, routing::{get, post}};
/// # fn routes(rp: &tower_oidc_session::RelyingParty) -> Router {
/// let admin = Router::new()
///     .route("/admin", get(async || "for administrators"))
///     .route_layer(rp.require_session().with_claim("groups", "admin"));
/// let transfers = Router::new()
///     .route("/transfer", post(async || "done"))
///     .route_layer(rp.require_session().acr("urn:example:two-factors").max_age(Duration::from_secs(300)));
/// admin.merge(transfers)
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RequireSessionLayer {
    gate: Gate,
}

impl RequireSessionLayer {
    pub(crate) fn new() -> Self {
        Self { gate: Gate { requirements: None } }
    }

    fn requiring(mut self, change: impl FnOnce(&mut Requirements)) -> Self {
        change(Arc::make_mut(self.gate.requirements.get_or_insert_default()));
        self
    }

    /// Requires that a claim of the login is `value`, or a list with it; otherwise 403. May be given several times.
    #[must_use]
    pub fn with_claim(self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.requiring(|requirements| requirements.claims.push((name.into(), value.into())))
    }

    /// Requires that the user has authenticated in one of these ways, separated by spaces as in `acr_values`
    /// ([Core §3.1.2.1](https://openid.net/specs/openid-connect-core-1_0.html#AuthRequest)), the preferred one first.
    /// Others are sent to a login that asks for it; 403 where they come straight from one.
    ///
    /// Blank, or with values that no login can ask for, it lets nobody in, and the log says so: a setting that is empty by mistake
    /// guards as well.
    ///
    /// What counts is the `acr` of the login of this session. A login has one: of two such layers around a route, with different
    /// values, it can content only one, and browsers are sent from one to the other.
    #[must_use]
    pub fn acr(self, values: impl Into<String>) -> Self {
        let values = values.into();
        if !can_be_met(&values) {
            tracing::error!(acr = %values, "require_session().acr takes values that a login can ask for: nobody may use this route");
        }
        self.requiring(|requirements| requirements.acr = Some(values))
    }

    /// Requires that the user has authenticated at most so long ago, in whole seconds and at least one; clocks may differ by 30 s. Others are sent to a login that
    /// asks for it; 403 where they come straight from one.
    ///
    /// What counts is the `auth_time` of the login of this session, never that of a refresh.
    #[must_use]
    pub fn max_age(self, max_age: Duration) -> Self {
        let seconds = max_age.as_secs().clamp(1, u32::MAX.into());
        self.requiring(|requirements| requirements.max_age = Some(Duration::from_secs(seconds)))
    }
}

impl<S> Layer<S> for RequireSessionLayer {
    type Service = RequireSession<S>;

    fn layer(&self, inner: S) -> RequireSession<S> {
        RequireSession { inner, gate: self.gate.clone() }
    }
}

/// The service of [`RequireSessionLayer`].
#[derive(Clone, Debug)]
pub struct RequireSession<S> {
    inner: S,
    gate: Gate,
}

impl<S, B, ResBody> Service<Request<B>> for RequireSession<S>
where
    S: Service<Request<B>, Response = http::Response<ResBody>> + Clone + Send + 'static,
    S::Error: 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
    ResBody: http_body::Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<axum::BoxError>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = RequireSessionFuture<S::Future, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let gate = &self.gate;
        let state = match gate.first_look(&request) {
            Look::Serve => State::Serving { inner: self.inner.call(request) },
            Look::Reject(rejection) => State::Rejected { response: Some(rejection.into_response()) },
            Look::Keep(session, why) => State::Waiting { response: kept(session, why, request).map(Ok).boxed() },
            Look::Wait(session) => {
                let gate = gate.clone();
                // The clone takes the place of the service that was made ready.
                let clone = self.inner.clone();
                let mut inner = std::mem::replace(&mut self.inner, clone);
                let response = async move {
                    match gate.judge(&session, session.admit().await) {
                        Look::Reject(rejection) => Ok(rejection.into_response()),
                        Look::Keep(session, why) => Ok(kept(session, why, request).await),
                        Look::Serve | Look::Wait(_) => inner.call(request).await.map(not_stored),
                    }
                };
                State::Waiting { response: response.boxed() }
            }
        };
        RequireSessionFuture { state }
    }
}

pin_project! {
    /// The future of [`RequireSession`].
    pub struct RequireSessionFuture<F, E> {
        #[pin]
        state: State<F, E>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, E> {
        Rejected { response: Option<Response> },
        Serving { #[pin] inner: F },
        Waiting { response: BoxFuture<'static, Result<Response, E>> },
    }
}

impl<F, E> fmt::Debug for RequireSessionFuture<F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequireSessionFuture").finish_non_exhaustive()
    }
}

impl<F, ResBody, E> Future for RequireSessionFuture<F, E>
where
    F: Future<Output = Result<http::Response<ResBody>, E>>,
    ResBody: http_body::Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<axum::BoxError>,
{
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Rejected { response } => match response.take() {
                Some(response) => Poll::Ready(Ok(response)),
                // Whoever polls what has completed gets nothing more.
                None => Poll::Pending,
            },
            StateProjection::Serving { inner } => inner.poll(cx).map_ok(not_stored),
            StateProjection::Waiting { response } => response.as_mut().poll(cx),
        }
    }
}

async fn kept<B>(session: RequestSession, why: Why, request: Request<B>) -> Response
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    let (parts, body) = request.into_parts();
    keep(&session, why, &parts, body).await
}

fn not_stored<B>(response: http::Response<B>) -> Response
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    let mut response = response.map(Body::new);
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// What is to be done with a request.
enum Look {
    Serve,
    Reject(SessionRejection),
    /// What was entered may be kept until its user has signed in again.
    Keep(RequestSession, Why),
    /// Nobody can tell before the registry, or the provider, has answered.
    Wait(RequestSession),
}

/// What stands before the routes.
#[derive(Clone, Debug)]
struct Gate {
    requirements: Option<Arc<Requirements>>,
}

impl Gate {
    fn first_look<B>(&self, request: &Request<B>) -> Look {
        let Some(session) = request.extensions().get::<RequestSession>() else {
            return Look::Reject(SessionRejection::without_layer(
                request.extensions(),
                "require_session() stands outside of rp.layer(): put .layer(rp.layer()) last, around everything",
            ));
        };
        let origins = session.context().origins();
        if can_do_harm(request.method(), request.headers()) && is_cross_site(request.headers(), origins) {
            return Look::Reject(SessionRejection::cross_site(Asker::of(request.method(), request.headers())));
        }
        match session.admit_at_once() {
            Some(admission) => self.judge(session, admission),
            None => Look::Wait(session.clone()),
        }
    }

    fn judge(&self, session: &RequestSession, admission: &Result<Admitted, Refusal>) -> Look {
        let is_form = session.asker() == Asker::Form;
        match admission {
            Err(refusal) if is_form && (refusal.is_over() || *refusal == Refusal::Unconfirmed) => {
                Look::Keep(session.clone(), Why::Refused(*refusal))
            }
            Err(_) if session.path().is_some_and(|path| path.path() == session.context().paths().of_party("login")) => {
                Look::Reject(SessionRejection::miswired(
                    "require_session() stands over rp.routes(), so that nobody can sign in: put it before .merge(rp.routes())",
                ))
            }
            Err(refusal) => Look::Reject(session.rejection(*refusal)),
            Ok(admitted) => {
                let Some(requirements) = &self.requirements else { return Look::Serve };
                match requirements.judge(&admitted.record.login, session.context().now()) {
                    Judged::Good => Look::Serve,
                    Judged::Forbidden => Look::Reject(SessionRejection::forbidden(session.asker())),
                    Judged::StepUp(wanted) if is_form => Look::Keep(session.clone(), Why::StepUp(wanted)),
                    Judged::StepUp(wanted) => Look::Reject(SessionRejection::step_up(
                        wanted,
                        session.asker(),
                        session.path(),
                        session.context().paths(),
                    )),
                }
            }
        }
    }
}
