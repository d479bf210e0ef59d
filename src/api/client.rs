//! A client for APIs that carries the session's access token and judges the answers.

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::Response;
use futures_util::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request};
use url::Url;

use super::body::{Attempt, Outgoing};
use super::error::{ApiError, Caller, Kind};
use super::guard::{Fault, Outcome};
use super::layer::SessionClientLayer;
use super::request::SessionRequest;
use super::{API_TIMEOUT, Listed, Unexplained};
use crate::extract::OidcSession;
use crate::manager::signal::Signalled;
use crate::manager::{Admission, REGISTRY_RETRY_AFTER, RetryAfter};
use crate::protocol::authorization::Authentication;
use crate::protocol::challenge::{self, ApiVerdict};
use crate::registry::Loaded;
use crate::relying_party::RelyingParty;
use crate::respond::{SessionRejection, Visitor, is_navigation, login_url};
use crate::session::event::EndReason;
use crate::session::policy::{RequestKind, SessionPolicy};
use crate::session::record::{ActivitySignal, SessionRecord};
use crate::session::step_up;

/// Calls APIs on behalf of the session of a request.
///
/// 1. Only APIs that were listed with [`api`](crate::RelyingPartyBuilder::api) are called.
/// 2. The access token is refreshed first if its time is over, through the session's single flight.
/// 3. A 401 that is about the token makes it refresh once and send again once, if the body is at most 64 KiB.
/// 4. A second 401, or one with no refresh token to use, ends the session
///    ([`AccessTokenRejected`](EndReason::AccessTokenRejected)). Other answers never do, whatever they are; and where an
///    API rejects tokens less than a minute old of five or more sessions within a minute, and of more than it accepts,
///    the fault is taken to be its own: that is reported, answered with 502, and ends nothing.
/// 5. An API that wants the user to authenticate again ([RFC 9470](https://www.rfc-editor.org/rfc/rfc9470)) causes a
///    login with the `acr_values` and `max_age` it asks for, from which the browser comes back to the same page.
/// 6. A passive request does not refresh: it gets 401 where that would be needed, and the session stands. So does a
///    client that a handler goes on using for longer than *G*, on a stream or a WebSocket: what a program does by itself
///    is no activity. [`OidcSession::record_activity`] tells of the user's.
///
/// ```
/// use tower_oidc_session::{ApiError, SessionClient};
///
/// async fn orders(api: SessionClient) -> Result<String, ApiError> {
///     api.get("https://api.example/orders").query([("state", "open")]).send().await?.text().await
/// }
/// ```
#[derive(Clone, Debug)]
pub struct SessionClient {
    session: OidcSession,
    rp: RelyingParty,
    asker: Asker,
}

/// Whom a failure is answered to. Of the request's headers only those that this depends on: the others are nobody's
/// business, least of all a log's.
#[derive(Clone, Debug)]
struct Asker {
    method: Method,
    headers: HeaderMap,
    /// What is done long after the request was admitted is no activity of its user's.
    active_until: SystemTime,
}

/// What carries a request to an API.
pub(super) trait Transport: Send {
    fn call(&mut self, parts: Parts, body: Attempt) -> BoxFuture<'static, Result<Response, Kind>>;
}

/// The crate's own client.
pub(super) struct Reqwest(reqwest::Client);

impl Transport for Reqwest {
    fn call(&mut self, parts: Parts, body: Attempt) -> BoxFuture<'static, Result<Response, Kind>> {
        let client = self.0.clone();
        Box::pin(async move {
            let request = reqwest::Request::try_from(Request::from_parts(parts, reqwest::Body::from(body)));
            let request = request.map_err(|error| Kind::Invalid(error.without_url().to_string()))?;
            match client.execute(request).await {
                Ok(answer) => Ok(http::Response::from(answer).map(Body::new)),
                Err(error) if error.is_timeout() => Err(Kind::Timeout),
                Err(error) => Err(Kind::Unreachable(error.without_url().to_string())),
            }
        })
    }
}

/// Whether another request has replaced a token.
enum Replaced {
    No,
    Yes,
}

/// How far a call has come.
pub(super) enum Judged {
    Answered(Response),
    StepUp(Response, Authentication),
}

impl SessionClient {
    /// The session that the calls are made for.
    #[must_use]
    pub fn session(&self) -> &OidcSession {
        &self.session
    }

    /// Begins a `GET` request.
    pub fn get(&self, url: impl AsRef<str>) -> SessionRequest {
        self.request(Method::GET, url)
    }

    /// Begins a `POST` request.
    pub fn post(&self, url: impl AsRef<str>) -> SessionRequest {
        self.request(Method::POST, url)
    }

    /// Begins a `PUT` request.
    pub fn put(&self, url: impl AsRef<str>) -> SessionRequest {
        self.request(Method::PUT, url)
    }

    /// Begins a `PATCH` request.
    pub fn patch(&self, url: impl AsRef<str>) -> SessionRequest {
        self.request(Method::PATCH, url)
    }

    /// Begins a `DELETE` request.
    pub fn delete(&self, url: impl AsRef<str>) -> SessionRequest {
        self.request(Method::DELETE, url)
    }

    /// Begins a request.
    pub fn request(&self, method: Method, url: impl AsRef<str>) -> SessionRequest {
        SessionRequest::new(self.clone(), method, url.as_ref())
    }

    /// The same for another HTTP client: put the layer around any service that sends requests.
    ///
    /// ```
    /// use axum::body::Body;
    /// use http::{Request, Response};
    /// use tower::{Layer, ServiceExt, service_fn};
    /// use tower_oidc_session::{ApiError, SessionClient};
    ///
    /// async fn orders(client: SessionClient) -> Result<Response<Body>, ApiError> {
    ///     let http = service_fn(async |_: Request<Body>| Ok::<_, std::io::Error>(Response::new(Body::empty())));
    ///     let request = Request::get("https://api.example/orders").body(Body::empty())?;
    ///     client.layer().layer(http).oneshot(request).await
    /// }
    /// ```
    #[must_use]
    pub fn layer(&self) -> SessionClientLayer {
        SessionClientLayer::new(self.clone())
    }

    /// Sends a request with the session's access token. The answer's body is streamed.
    ///
    /// # Errors
    /// If the API is not listed or out of reach, or wants the user to authenticate again, or the session is over or
    /// cannot be confirmed.
    ///
    /// # Cancel safety
    /// The call is dropped; a refresh that it caused is finished.
    pub async fn send(&self, request: Request<Body>) -> Result<Response, ApiError> {
        self.send_by(&mut self.own_transport(), request).await
    }

    pub(super) fn own_transport(&self) -> Reqwest {
        Reqwest(self.rp.apis().http().clone())
    }

    /// Whether a browser shows the answer as a page.
    pub(super) fn is_for_navigation(&self) -> bool {
        is_navigation(&self.asker.method, &self.asker.headers)
    }

    pub(super) async fn send_by(
        &self,
        transport: &mut impl Transport,
        request: Request<Body>,
    ) -> Result<Response, ApiError> {
        match self.judged(transport, request).await? {
            Judged::Answered(answer) => Ok(answer),
            Judged::StepUp(_, authentication) => Err(self.step_up(&authentication)),
        }
    }

    pub(super) async fn judged(
        &self,
        transport: &mut impl Transport,
        request: Request<Body>,
    ) -> Result<Judged, ApiError> {
        let (parts, body) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string()).map_err(|error| Kind::Invalid(error.to_string()))?;
        let Some(api) = self.rp.apis().of(&url).cloned() else {
            return Err(Kind::NotListed(url.origin().ascii_serialization()).into());
        };
        let mut body = Outgoing::read(body).await.map_err(|error| Kind::Invalid(error.to_string()))?;
        let mut record = self.record_with_good_token(&api).await?;
        let (mut refreshed, mut switched) = (false, false);
        loop {
            let Some(body) = body.take() else { return Err(Kind::NotReplayed.into()) };
            let answer = transport.call(with_token(&parts, &api, &record, self.policy())?, body);
            let answer = tokio::time::timeout(API_TIMEOUT, answer).await.map_err(|_| Kind::Timeout)??;
            if record.access_token(api.audience(), self.policy()).is_none() {
                // An API that was given no token says nothing about the session.
                return Ok(Judged::Answered(answer));
            }
            let verdict = match challenge::judge(answer.status(), answer.headers()) {
                ApiVerdict::Unexplained if api.unexplained() == Unexplained::PassedBack => {
                    return Ok(Judged::Answered(answer));
                }
                verdict => verdict,
            };
            match verdict {
                ApiVerdict::Accepted => {
                    if answer.status().is_success() || answer.status().is_redirection() {
                        self.rp.apis().note(&api, &record, Outcome::Accepted);
                    }
                    return Ok(Judged::Answered(answer));
                }
                ApiVerdict::StepUp(authentication) => return Ok(Judged::StepUp(answer, authentication)),
                ApiVerdict::TokenRejected | ApiVerdict::Unexplained => {
                    // The provider is spared what would change nothing.
                    if self.rp.apis().fault(&api, &record) == Fault::Api {
                        return Err(self.token_rejected(&api, &record).await);
                    }
                    match self.newer(&api, &record).await? {
                        // Another request has replaced the token already; once is enough to go by that.
                        (newer, Replaced::Yes) if !switched => (record, switched) = (newer, true),
                        _ if refreshed => return Err(self.token_rejected(&api, &record).await),
                        (current, _) => (record, refreshed) = (self.anew(&api, &current).await?, true),
                    }
                }
            }
        }
    }

    /// The login that an API asks for, unless the user has just done what it asks for.
    pub(super) fn step_up(&self, authentication: &Authentication) -> ApiError {
        let record = self.session.record();
        let now = self.rp.manager().clock().now();
        if step_up::is_hopeless(&record.login.authentication, record.login.started_at, authentication, now) {
            return Kind::StepUpFailed.into();
        }
        let (caller, return_to) = if self.is_for_navigation() {
            (Caller::Navigation, self.session.request().path())
        } else {
            (Caller::Script, None)
        };
        Kind::StepUp { login: login_url(return_to, authentication), caller }.into()
    }

    fn is_passive(&self) -> bool {
        let now = self.rp.manager().clock().now();
        self.session.request().kind() == RequestKind::Passive || now >= self.asker.active_until
    }

    fn policy(&self) -> &SessionPolicy {
        self.rp.manager().policy()
    }

    /// The record, with a token whose time is not over.
    async fn record_with_good_token(&self, api: &Listed) -> Result<Arc<SessionRecord>, ApiError> {
        let record = self.session.record();
        let now = self.rp.manager().clock().now();
        let is_good = match (record.access_token(api.audience(), self.policy()), record.login.signal) {
            (Some((_, until)), ActivitySignal::Refresh) => now < until,
            (None, ActivitySignal::Refresh) => false,
            (None, _) if api.audience().is_some() => return Err(Kind::NoToken.into()),
            // What cannot be had anew is used for as long as it works; an API that needs none gets none.
            _ => true,
        };
        match is_good {
            true => Ok(record.clone()),
            false if self.is_passive() => self.refreshed_by_others(api, record).await,
            false => self.refreshed(api, record).await,
        }
    }

    /// The record with a good token that somebody's activity has brought meanwhile.
    async fn refreshed_by_others(
        &self,
        api: &Listed,
        record: &Arc<SessionRecord>,
    ) -> Result<Arc<SessionRecord>, ApiError> {
        let (newer, _) = self.newer(api, record).await?;
        if self.is_out_of_time(api, &newer) { Err(self.rejected(&Admission::Refused)) } else { Ok(newer) }
    }

    async fn refreshed(&self, api: &Listed, record: &Arc<SessionRecord>) -> Result<Arc<SessionRecord>, ApiError> {
        if self.is_passive() {
            return Err(self.rejected(&Admission::Refused));
        }
        match self.rp.manager().get_token(record, api.audience()).await {
            Signalled::Confirmed(record) | Signalled::Overtaken(record) => Ok(record),
            Signalled::Denied => Err(Kind::NoToken.into()),
            Signalled::Ended(reason) => Err(self.over(reason)),
            Signalled::Unavailable(retry_after) => Err(self.rejected(&Admission::Unavailable(retry_after))),
        }
    }

    /// A record with a new token, after an API refused the one there was.
    async fn anew(&self, api: &Listed, record: &Arc<SessionRecord>) -> Result<Arc<SessionRecord>, ApiError> {
        match record.login.signal {
            ActivitySignal::Refresh => self.refreshed(api, record).await,
            // The next page view brings another.
            ActivitySignal::SilentLogin if self.is_out_of_time(api, record) => Err(self.rejected(&Admission::Refused)),
            _ => Err(self.token_rejected(api, record).await),
        }
    }

    fn is_out_of_time(&self, api: &Listed, record: &SessionRecord) -> bool {
        let now = self.rp.manager().clock().now();
        record.access_token(api.audience(), self.policy()).is_none_or(|(_, until)| now >= until)
    }

    /// The record as it is now, and whether its token is another one.
    async fn newer(
        &self,
        api: &Listed,
        record: &Arc<SessionRecord>,
    ) -> Result<(Arc<SessionRecord>, Replaced), ApiError> {
        let manager = self.rp.manager();
        let token = |record: &SessionRecord| {
            record.access_token(api.audience(), self.policy()).map(|(token, _)| token.secret().to_owned())
        };
        match manager.look(record.key()).await {
            Ok(Loaded::Live(newer)) if token(&newer) != token(record) => Ok((newer, Replaced::Yes)),
            Ok(Loaded::Live(current)) => Ok((current, Replaced::No)),
            Ok(Loaded::Ended(reason)) => Err(self.over(Some(reason))),
            Ok(Loaded::Unknown) => Err(self.over(None)),
            Err(error) => {
                tracing::error!(%error, "a rejected access token could not be looked up");
                Err(self.rejected(&Admission::Unavailable(RetryAfter(REGISTRY_RETRY_AFTER))))
            }
        }
    }

    async fn token_rejected(&self, api: &Listed, record: &SessionRecord) -> ApiError {
        let apis = self.rp.apis();
        apis.note(api, record, Outcome::Rejected);
        if apis.fault(api, record) == Fault::Api {
            let api = api.base_url();
            tracing::error!(api, "an API rejects the fresh tokens of many sessions: none is ended for it");
            metrics::counter!("oidc_api_at_fault_total").increment(1);
            return Kind::AtFault.into();
        }
        let reason = EndReason::AccessTokenRejected;
        match self.rp.manager().end(record.key(), reason).await {
            Ok(()) => self.over(Some(reason)),
            Err(error) => {
                tracing::error!(%error, "a session whose access token was rejected could not be ended");
                self.rejected(&Admission::Unavailable(RetryAfter(REGISTRY_RETRY_AFTER)))
            }
        }
    }

    /// The session turned out to be over while the request was served.
    fn over(&self, reason: Option<EndReason>) -> ApiError {
        self.session.request().mark_over();
        self.rejected(&reason.map_or(Admission::Unknown, Admission::Ended))
    }

    fn rejected(&self, admission: &Admission) -> ApiError {
        let visitor =
            Visitor { method: &self.asker.method, headers: &self.asker.headers, path: self.session.request().path() };
        let rejection = SessionRejection::of(admission, visitor);
        Kind::Rejected(rejection.unwrap_or_else(|| SessionRejection::sign_in(visitor, None))).into()
    }
}

/// The head of a request with the session's token for an API.
fn with_token(parts: &Parts, api: &Listed, record: &SessionRecord, policy: &SessionPolicy) -> Result<Parts, Kind> {
    let mut parts = parts.clone();
    if let Some((token, _)) = record.access_token(api.audience(), policy) {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.secret()))
            .map_err(|_| Kind::Invalid("the access token is no header value".to_owned()))?;
        value.set_sensitive(true);
        parts.headers.insert(AUTHORIZATION, value);
    }
    Ok(parts)
}

impl<S: Send + Sync> FromRequestParts<S> for SessionClient {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, SessionRejection> {
        let rp = parts.extensions.get::<RelyingParty>().cloned().ok_or_else(SessionRejection::no_layer)?;
        let session = <OidcSession as FromRequestParts<S>>::from_request_parts(parts, state).await?;
        let kept = parts.headers.iter().filter(|(name, _)| matches!(name.as_str(), "accept" | "sec-fetch-mode"));
        let mut headers = HeaderMap::new();
        for (name, value) in kept {
            headers.append(name, value.clone());
        }
        let manager = rp.manager();
        let active_until = manager.clock().now() + manager.policy().access_token_lifetime;
        let asker = Asker { method: parts.method.clone(), headers, active_until };
        Ok(Self { session, rp, asker })
    }
}
