//! Request bodies that can be sent twice, if they are short.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};

/// Longer bodies are streamed and not sent again.
const REPLAYABLE: usize = 64 * 1024;

pub(crate) enum Outgoing {
    Short(Bytes),
    /// Taken by the first attempt.
    Streamed(Option<Body>),
}

/// The body of one attempt.
pub(crate) enum Attempt {
    Short(Bytes),
    Streamed(Body),
}

impl Outgoing {
    /// Reads up to 64 KiB ahead.
    pub(crate) async fn read(body: Body) -> Result<Self, axum::Error> {
        let mut chunks = body.into_data_stream();
        let mut start = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            if start.len() + chunk.len() > REPLAYABLE {
                let start = [start.freeze(), chunk].map(Ok::<_, axum::Error>);
                return Ok(Self::Streamed(Some(Body::from_stream(stream::iter(start).chain(chunks)))));
            }
            start.extend_from_slice(&chunk);
        }
        Ok(Self::Short(start.freeze()))
    }

    /// The body for one attempt; `None` if it was sent before and is gone.
    pub(crate) fn take(&mut self) -> Option<Attempt> {
        match self {
            Self::Short(bytes) => Some(Attempt::Short(bytes.clone())),
            Self::Streamed(body) => body.take().map(Attempt::Streamed),
        }
    }
}

impl From<Attempt> for Body {
    fn from(attempt: Attempt) -> Self {
        match attempt {
            Attempt::Short(bytes) => Self::from(bytes),
            Attempt::Streamed(body) => body,
        }
    }
}

impl From<Attempt> for reqwest::Body {
    fn from(attempt: Attempt) -> Self {
        match attempt {
            Attempt::Short(bytes) => Self::from(bytes),
            Attempt::Streamed(body) => Self::wrap_stream(body.into_data_stream()),
        }
    }
}
