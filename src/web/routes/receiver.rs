//! Bodies that providers and transmitters post, which may be anybody.

use std::time::Duration;

use axum::body::Body;
use http::StatusCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};

/// A token is some kilobytes, with many audiences and certificates too.
const MAX_BODY: usize = 64 * 1024;
/// The whole body has to be there in this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Some providers wait for an answer no longer than 2.5 s.
pub(super) const KEY_TIMEOUT: Duration = Duration::from_millis(1500);

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoBody {
    #[error("the body broke off")]
    Broken,
    #[error("the body did not come in time")]
    Timeout,
    #[error("the body is too long")]
    TooLong,
}

impl NoBody {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Broken => StatusCode::BAD_REQUEST,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }
}

pub(super) async fn read(body: Body) -> Result<Vec<u8>, NoBody> {
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect());
    match collected.await {
        Ok(Ok(body)) => Ok(body.to_bytes().into()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(NoBody::TooLong),
        Ok(Err(_)) => Err(NoBody::Broken),
        Err(_) => Err(NoBody::Timeout),
    }
}
