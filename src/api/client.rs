//! A client for APIs that carries the session's access token and judges the answers.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, SET_COOKIE, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use url::Url;

use super::API_TIMEOUT;
use super::body::Outgoing;
use crate::extract::OidcSession;
use crate::manager::signal::Signalled;
use crate::manager::{Admission, RetryAfter};
use crate::protocol::challenge::{self, ApiVerdict};
use crate::registry::Loaded;
use crate::relying_party::RelyingParty;
use crate::respond::{SessionRejection, Visitor, error};
use crate::session::event::EndReason;
use crate::session::policy::RequestKind;
use crate::session::record::{ActivitySignal, SessionRecord};

/// Calls APIs on behalf of the session of a request.
///
/// 1. Only APIs that were listed with [`api`](crate::RelyingPartyBuilder::api) are called.
/// 2. The access token is refreshed first if its time is over, through the session's single flight.
/// 3. A 401 that is about the token makes it refresh once and send again once, if the body is at most 64 KiB.
/// 4. A second 401, or one with no refresh token to use, ends the session
///    ([`AccessTokenRejected`](EndReason::AccessTokenRejected)). Other answers never do, whatever they are.
/// 5. A passive request does not refresh: it gets 401 where that would be needed, and the session stands.
///
/// ```
/// use axum::body::Body;
/// use http::Request;
/// use tower_oidc_session::{ApiError, SessionClient};
///
/// async fn orders(api: SessionClient) -> Result<http::Response<Body>, ApiError> {
///     api.send(Request::get("https://api.example/orders").body(Body::empty()).map_err(ApiError::from)?).await
/// }
/// ```
#[derive(Clone, Debug)]
pub struct SessionClient {
    session: OidcSession,
    rp: RelyingParty,
    caller: Caller,
}

/// Whom a failure is answered to.
#[derive(Clone, Debug)]
struct Caller {
    method: Method,
    headers: HeaderMap,
}

/// Why an API could not be called. As a response it is what the contract of the layer says: 401 or a redirect to the
/// login where the session is over, 503 where it cannot be told, 502 and 504 for the API's own failures.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{kind}")]
pub struct ApiError {
    kind: Kind,
}

#[derive(Clone, Debug, thiserror::Error)]
enum Kind {
    #[error("the request is not valid: {0}")]
    Invalid(String),
    #[error("{0} is not listed as an API of the sessions")]
    NotListed(String),
    #[error("the body was too long to be sent again with a new token")]
    NotReplayed,
    #[error("the path leads out of the API's base URL")]
    Path,
    #[error("the session does not admit the call")]
    Rejected(SessionRejection),
    #[error("the API did not answer in time")]
    Timeout,
    #[error("the API could not be reached: {0}")]
    Unreachable(String),
}

impl From<Kind> for ApiError {
    fn from(kind: Kind) -> Self {
        Self { kind }
    }
}

impl From<http::Error> for ApiError {
    fn from(error: http::Error) -> Self {
        Kind::Invalid(error.to_string()).into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match self.kind {
            Kind::Rejected(rejection) => rejection.into_response(),
            Kind::NotReplayed => SessionRejection::unavailable(RetryAfter(std::time::Duration::ZERO)).into_response(),
            Kind::Path => error(StatusCode::BAD_REQUEST, "bad_path"),
            Kind::Timeout => error(StatusCode::GATEWAY_TIMEOUT, "api_timeout"),
            Kind::Unreachable(_) => {
                tracing::warn!(error = %self.kind, "an API call failed");
                error(StatusCode::BAD_GATEWAY, "api_unreachable")
            }
            Kind::Invalid(_) | Kind::NotListed(_) => {
                tracing::error!(error = %self.kind, "an API call is wrong");
                error(StatusCode::INTERNAL_SERVER_ERROR, "api_call_invalid")
            }
        }
    }
}

impl SessionClient {
    /// The session that the calls are made for.
    #[must_use]
    pub fn session(&self) -> &OidcSession {
        &self.session
    }

    /// Sends a request with the session's access token. The answer's body is streamed.
    ///
    /// # Errors
    /// If the API is not listed or out of reach, or the session is over or cannot be confirmed.
    ///
    /// # Cancel safety
    /// The call is dropped; a refresh that it caused is finished.
    pub async fn send(&self, request: Request<Body>) -> Result<Response, ApiError> {
        let (parts, body) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string()).map_err(|error| Kind::Invalid(error.to_string()))?;
        if !self.rp.apis().is_listed(&url) {
            return Err(Kind::NotListed(url.origin().ascii_serialization()).into());
        }
        let mut body = Outgoing::read(body).await.map_err(|error| Kind::Invalid(error.to_string()))?;
        let mut record = self.record_with_good_token().await?;
        let mut last_attempt = false;
        loop {
            let Some(body) = body.take() else { return Err(Kind::NotReplayed.into()) };
            let answer = self.call(&parts, &url, body, &record).await?;
            match challenge::judge(answer.status(), answer.headers()) {
                ApiVerdict::Accepted | ApiVerdict::StepUp => return Ok(answer),
                ApiVerdict::TokenRejected if last_attempt => return Err(self.token_rejected(&record).await),
                ApiVerdict::TokenRejected => {
                    record = self.after_rejection(&record).await?;
                    last_attempt = true;
                }
            }
        }
    }

    /// Passes a request of the browser on, as a reverse proxy: its path and query (what [`Router::nest`](axum::Router)
    /// left of it) below `base_url`, its method, headers and body, without cookies, credentials and what belongs to
    /// the connection. The answer comes back without its cookies.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn forward(&self, request: Request<Body>, base_url: &str) -> Result<Response, ApiError> {
        let (parts, body) = request.into_parts();
        let mut onward = Request::new(body);
        *onward.method_mut() = parts.method;
        *onward.uri_mut() = below(base_url, &parts.uri)?.as_str().parse().map_err(http::Error::from)?;
        *onward.headers_mut() = end_to_end(parts.headers, &[COOKIE, AUTHORIZATION, HOST, CONTENT_LENGTH]);
        let (mut parts, body) = self.send(onward).await?.into_parts();
        parts.headers = end_to_end(parts.headers, &[SET_COOKIE]);
        Ok(Response::from_parts(parts, body))
    }

    async fn call(
        &self,
        parts: &Parts,
        url: &Url,
        body: reqwest::Body,
        record: &SessionRecord,
    ) -> Result<Response, ApiError> {
        let mut request = reqwest::Request::new(parts.method.clone(), url.clone());
        *request.headers_mut() = parts.headers.clone();
        *request.body_mut() = Some(body);
        if let Some(token) = &record.tokens.access_token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.secret()))
                .map_err(|_| Kind::Invalid("the access token is no header value".to_owned()))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let answer = tokio::time::timeout(API_TIMEOUT, self.rp.apis().http().execute(request));
        match answer.await {
            Ok(Ok(answer)) => Ok(http::Response::from(answer).map(Body::new)),
            Ok(Err(error)) if error.is_timeout() => Err(Kind::Timeout.into()),
            Ok(Err(error)) => Err(Kind::Unreachable(error.without_url().to_string()).into()),
            Err(_) => Err(Kind::Timeout.into()),
        }
    }

    fn is_passive(&self) -> bool {
        self.session.request().kind() == RequestKind::Passive
    }

    /// The record, with a token whose time is not over.
    async fn record_with_good_token(&self) -> Result<Arc<SessionRecord>, ApiError> {
        let record = self.session.record();
        let (policy, now) = (self.rp.manager().policy(), self.rp.manager().clock().now());
        let is_over = record.login.signal == ActivitySignal::Refresh && now >= record.token_deadline(policy);
        if !is_over {
            return Ok(record.clone());
        }
        self.refreshed(record).await
    }

    async fn refreshed(&self, record: &Arc<SessionRecord>) -> Result<Arc<SessionRecord>, ApiError> {
        if self.is_passive() {
            return Err(self.rejected(&Admission::Refused));
        }
        match self.rp.manager().signal(record).await {
            Signalled::Confirmed(record) => Ok(record),
            Signalled::Ended(reason) => {
                self.session.request().mark_over();
                Err(self.rejected(&reason.map_or(Admission::Unknown, Admission::Ended)))
            }
            Signalled::Unavailable(retry_after) => Err(self.rejected(&Admission::Unavailable(retry_after))),
        }
    }

    /// A record with another token than the one that an API refused.
    async fn after_rejection(&self, record: &Arc<SessionRecord>) -> Result<Arc<SessionRecord>, ApiError> {
        let manager = self.rp.manager();
        match manager.look(record.key()).await {
            // Another request has replaced the token already.
            Ok(Loaded::Live(newer)) if newer.tokens.access_token != record.tokens.access_token => Ok(newer),
            Ok(Loaded::Live(current)) if current.login.signal == ActivitySignal::Refresh => {
                self.refreshed(&current).await
            }
            Ok(Loaded::Live(_)) => Err(self.token_rejected(record).await),
            Ok(Loaded::Ended(reason)) => {
                self.session.request().mark_over();
                Err(self.rejected(&Admission::Ended(reason)))
            }
            Ok(Loaded::Unknown) => {
                self.session.request().mark_over();
                Err(self.rejected(&Admission::Unknown))
            }
            Err(error) => {
                tracing::error!(%error, "a rejected access token could not be looked up");
                Err(self.rejected(&Admission::Unavailable(RetryAfter(std::time::Duration::from_secs(1)))))
            }
        }
    }

    async fn token_rejected(&self, record: &SessionRecord) -> ApiError {
        let reason = EndReason::AccessTokenRejected;
        match self.rp.manager().end(record.key(), reason).await {
            Ok(()) => {
                self.session.request().mark_over();
                self.rejected(&Admission::Ended(reason))
            }
            Err(error) => {
                tracing::error!(%error, "a session whose access token was rejected could not be ended");
                self.rejected(&Admission::Unavailable(RetryAfter(std::time::Duration::from_secs(1))))
            }
        }
    }

    fn rejected(&self, admission: &Admission) -> ApiError {
        let visitor =
            Visitor { method: &self.caller.method, headers: &self.caller.headers, path: self.session.request().path() };
        let rejection = SessionRejection::of(admission, visitor);
        Kind::Rejected(rejection.unwrap_or_else(|| SessionRejection::sign_in(visitor, None))).into()
    }
}

/// The URL of `uri`'s path and query below `base_url`, and nowhere else.
fn below(base_url: &str, uri: &http::Uri) -> Result<Url, Kind> {
    let base = Url::parse(base_url).map_err(|error| Kind::Invalid(error.to_string()))?;
    let prefix = format!("{}/", base.path().trim_end_matches('/'));
    let path = uri.path().trim_start_matches('/');
    let mut url = base.clone();
    url.set_path(&format!("{prefix}{path}"));
    url.set_query(uri.query());
    // Dot segments, written as they are or encoded, are resolved by now and may lead out of the base.
    if url.path().starts_with(&prefix) { Ok(url) } else { Err(Kind::Path) }
}

/// The headers that go further than the next hop (RFC 9110 §7.6.1), without `others`.
fn end_to_end(mut headers: HeaderMap, others: &[HeaderName]) -> HeaderMap {
    const HOP_BY_HOP: [HeaderName; 7] = [
        HeaderName::from_static("keep-alive"),
        http::header::PROXY_AUTHENTICATE,
        http::header::PROXY_AUTHORIZATION,
        http::header::TE,
        http::header::TRAILER,
        http::header::TRANSFER_ENCODING,
        UPGRADE,
    ];
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP).chain(&[CONNECTION]).chain(others) {
        headers.remove(name);
    }
    headers
}

impl<S: Send + Sync> FromRequestParts<S> for SessionClient {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, SessionRejection> {
        let rp = parts.extensions.get::<RelyingParty>().cloned().ok_or_else(SessionRejection::no_layer)?;
        let session = <OidcSession as FromRequestParts<S>>::from_request_parts(parts, state).await?;
        let caller = Caller { method: parts.method.clone(), headers: parts.headers.clone() };
        Ok(Self { session, rp, caller })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarded_paths_stay_below_the_base() {
        for (base, path, expected) in [
            ("http://api.example", "/orders?x=1", Some("http://api.example/orders?x=1")),
            ("http://api.example/v1/", "/orders", Some("http://api.example/v1/orders")),
            ("http://api.example/v1", "/a%2Fb", Some("http://api.example/v1/a%2Fb")),
            ("http://api.example/v1", "/../secret", None),
            ("http://api.example/v1", "/%2e%2e/secret", None),
            ("http://api.example/v1", "/a/../../v1x", None),
            ("http://api.example/v1", "//evil.example/x", Some("http://api.example/v1/evil.example/x")),
        ] {
            let url = below(base, &path.parse().unwrap()).ok();
            assert_eq!(url.as_ref().map(Url::as_str), expected, "{base} {path}");
        }
    }
}
