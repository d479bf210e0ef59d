//! A request to an API, put together piece by piece.

use axum::body::Body;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request};
use serde::Serialize;
use url::Url;

use super::error::{ApiError, Problem};
use super::response::ApiResponse;
use super::sender::Sender;

/// A request to an API on behalf of a session; made by [`SessionClient::get`](crate::SessionClient::get) and its like. What is wrong with it is said
/// by [`send`](Self::send).
#[derive(Debug)]
#[must_use = "a request does nothing before it is sent"]
pub struct SessionRequest {
    sender: Sender,
    request: Result<Request<Body>, Problem>,
}

impl SessionRequest {
    pub(super) fn new(sender: Sender, method: Method, url: &str) -> Self {
        let request = Request::builder().method(method).uri(url).body(Body::empty());
        Self { sender, request: request.map_err(|error| Problem::Invalid(error.to_string())) }
    }

    fn change(mut self, change: impl FnOnce(&mut Request<Body>) -> Result<(), Problem>) -> Self {
        self.request = self.request.and_then(|mut request| change(&mut request).map(|()| request));
        self
    }

    /// Adds a header.
    pub fn header(self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.change(|request| {
            let invalid = |error: &dyn std::fmt::Display| Problem::Invalid(error.to_string());
            let name: HeaderName = name.as_ref().parse().map_err(|error| invalid(&error))?;
            let value: HeaderValue = value.as_ref().parse().map_err(|error| invalid(&error))?;
            request.headers_mut().append(name, value);
            Ok(())
        })
    }

    /// Adds parameters to the query.
    pub fn query<N: AsRef<str>, V: AsRef<str>>(self, parameters: impl IntoIterator<Item = (N, V)>) -> Self {
        self.change(|request| {
            let mut url =
                Url::parse(&request.uri().to_string()).map_err(|error| Problem::Invalid(error.to_string()))?;
            url.query_pairs_mut().extend_pairs(parameters);
            *request.uri_mut() =
                url.as_str().parse().map_err(|_| Problem::Invalid("the query is too long".to_owned()))?;
            Ok(())
        })
    }

    /// Sends `value` as JSON.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Self {
        self.change(|request| {
            let json = serde_json::to_vec(value).map_err(|error| Problem::Invalid(error.to_string()))?;
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Body::from(json);
            Ok(())
        })
    }

    /// Sends the fields of a form.
    pub fn form<N: AsRef<str>, V: AsRef<str>>(self, fields: impl IntoIterator<Item = (N, V)>) -> Self {
        self.change(|request| {
            let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            request.headers_mut().insert(CONTENT_TYPE, kind);
            *request.body_mut() = Body::from(form);
            Ok(())
        })
    }

    /// Sends a body as it is. One of more than 64 KiB is streamed, and not sent again after a refresh.
    pub fn body(self, body: impl Into<Body>) -> Self {
        self.change(|request| {
            *request.body_mut() = body.into();
            Ok(())
        })
    }

    /// Sends it with the session's access token.
    ///
    /// # Errors
    /// As [`SessionClient::send`](crate::SessionClient::send).
    ///
    /// # Cancel safety
    /// As [`SessionClient::send`](crate::SessionClient::send).
    pub async fn send(self) -> Result<ApiResponse, ApiError> {
        self.sender.send(self.request?).await.map(ApiResponse::new)
    }
}
