//! Request bodies that can be sent twice, if they are short.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};

/// Longer bodies are streamed and not sent again.
const REPLAYABLE: usize = 64 * 1024;

pub(super) enum Outgoing {
    Short(Bytes),
    /// Taken by the first attempt.
    Streamed(Option<reqwest::Body>),
}

impl Outgoing {
    /// Reads up to 64 KiB ahead.
    pub(super) async fn read(body: Body) -> Result<Self, axum::Error> {
        let mut chunks = body.into_data_stream();
        let mut start = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            if start.len() + chunk.len() > REPLAYABLE {
                let start = [start.freeze(), chunk].map(Ok::<_, axum::Error>);
                let body = reqwest::Body::wrap_stream(stream::iter(start).chain(chunks));
                return Ok(Self::Streamed(Some(body)));
            }
            start.extend_from_slice(&chunk);
        }
        Ok(Self::Short(start.freeze()))
    }

    /// The body for one attempt; `None` if it was sent before and is gone.
    pub(super) fn take(&mut self) -> Option<reqwest::Body> {
        match self {
            Self::Short(bytes) => Some(bytes.clone().into()),
            Self::Streamed(body) => body.take(),
        }
    }
}
