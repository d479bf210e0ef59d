//! What an API answered.

use std::fmt;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use super::error::{ApiError, Problem};
use super::hop::passed_on;
use crate::calls::transport::API_TIMEOUT;

/// Longer answers are read as streams only.
const LONGEST: usize = 16 * 1024 * 1024;

/// The answer of an API, whose body has not been read yet. As a response it is passed on
/// without its cookies, what belongs to the connection and what speaks for another origin.
#[must_use]
pub struct ApiResponse {
    response: Response,
}

impl ApiResponse {
    pub(super) fn new(response: Response) -> Self {
        Self { response }
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The body, of at most 16 MiB and within 30 s.
    ///
    /// # Errors
    /// If it is longer, takes longer, or breaks off.
    ///
    /// # Cancel safety
    /// What was read is dropped.
    pub async fn bytes(self) -> Result<Bytes, ApiError> {
        let read = axum::body::to_bytes(self.response.into_body(), LONGEST);
        let bytes = tokio::time::timeout(API_TIMEOUT, read).await.map_err(|_| Problem::Timeout)?;
        bytes.map_err(|error| Problem::Unreadable(error.to_string()).into())
    }

    /// The body as text.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes), and if it is not UTF-8.
    ///
    /// # Cancel safety
    /// As [`bytes`](Self::bytes).
    pub async fn text(self) -> Result<String, ApiError> {
        let bytes = self.bytes().await?;
        String::from_utf8(bytes.into()).map_err(|error| Problem::Unreadable(error.utf8_error().to_string()).into())
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes), and if it is not the JSON that is expected.
    ///
    /// # Cancel safety
    /// As [`bytes`](Self::bytes).
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        let bytes = self.bytes().await?;
        serde_json::from_slice(&bytes).map_err(|error| Problem::Unreadable(error.to_string()).into())
    }

    /// The response itself.
    #[must_use]
    pub fn into_inner(self) -> http::Response<Body> {
        self.response
    }
}

/// The status only: headers and body are the API's business with the application.
impl fmt::Debug for ApiResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiResponse").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl IntoResponse for ApiResponse {
    fn into_response(self) -> Response {
        passed_on(self.response)
    }
}
