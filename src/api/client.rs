//! A client for APIs that carries the session's access token and judges the answers.

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::Response;
use http::request::Parts;
use http::{Method, Request};

use super::error::{ApiError, Problem};
use super::hop::{below, is_passed_on, passed_on, to_the_api};
use super::layer::SessionClientLayer;
use super::request::SessionRequest;
use super::sender::Sender;
use crate::calls::call::Called;
use crate::web::extract::OidcSession;
use crate::web::navigation::Asker;
use crate::web::reject::SessionRejection;

/// Calls APIs on behalf of the session of a request.
///
/// 1. Only APIs that were listed with [`api`](crate::RelyingPartyBuilder::api) are called.
/// 2. The access token is refreshed first if its time is over, through the session's single flight.
/// 3. A 401 that is about the token makes it refresh once and send again once, if the body is at most 64 KiB.
/// 4. A second 401, or one with no refresh token to use, ends the session
///    ([`AccessTokenRejected`](crate::EndReason::AccessTokenRejected)). Other answers never do, whatever they are; and where an
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
    sender: Sender,
}

impl SessionClient {
    /// The session that the calls are made for.
    #[must_use]
    pub fn session(&self) -> &OidcSession {
        self.sender.session()
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
        SessionRequest::new(self.sender.clone(), method, url.as_ref())
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
        SessionClientLayer::new(self.sender.clone())
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
        self.sender.send(request).await
    }

    /// Passes a request of the browser on, as a reverse proxy: its path and query (what [`Router::nest`](axum::Router)
    /// left of it) below `base_url`, its method, headers and body, without cookies, credentials, what belongs to the
    /// connection, and what only a proxy may say (`Forwarded`, `X-Forwarded-*`, `X-Remote-User` and their like). The
    /// answer comes back without its cookies and what speaks for another origin (`Access-Control-*`,
    /// `Strict-Transport-Security` and their like).
    ///
    /// # Errors
    /// As [`send`](Self::send), and for the methods `TRACE` and `CONNECT`, which are answered with 405.
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn forward(&self, request: Request<Body>, base_url: &str) -> Result<Response, ApiError> {
        let (parts, body) = request.into_parts();
        if !is_passed_on(&parts.method) {
            return Err(Problem::Method.into());
        }
        let mut onward = Request::new(body);
        *onward.method_mut() = parts.method;
        *onward.uri_mut() = below(base_url, &parts.uri)?.as_str().parse().map_err(http::Error::from)?;
        *onward.headers_mut() = to_the_api(parts.headers);
        let answer = match self.sender.call(&mut self.sender.own_client(), onward).await? {
            Called::Answered(answer) => answer,
            Called::StepUp(answer, authentication) => match self.session().request().asker() {
                Asker::Page | Asker::Form => return Err(self.sender.step_up(&authentication)),
                Asker::Script => answer,
            },
        };
        Ok(passed_on(answer))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for SessionClient {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, SessionRejection> {
        let session = <OidcSession as FromRequestParts<S>>::from_request_parts(parts, state).await?;
        Ok(Self { sender: Sender::of(session) })
    }
}
