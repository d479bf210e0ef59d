//! Cuts long responses when their session is over.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http_body::{Body as _, Frame, SizeHint};

use crate::manager::Over;
use crate::session::end_reason::EndReason;

/// A response of at most this many bytes, all there when it starts, is not worth watching over.
const SHORT: u64 = 64 * 1024;

/// Whether a response may go on for longer than its session.
pub(crate) fn can_take_long(response: &Response) -> bool {
    let body = response.body();
    !body.is_end_stream() && body.size_hint().exact().is_none_or(|size| size > SHORT)
}

/// Wraps the body of such a response.
pub(crate) fn cut_when_over(response: Response, over: BoxFuture<'static, Over>) -> Response {
    // A stream of events is whole at any point; anything else must not look complete when it is not.
    let is_event_stream =
        response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    let cut = if is_event_stream { Cut::End } else { Cut::Abort };
    response.map(|inner| Body::new(SessionBody { inner, over: Some(over), cut, last: *b"\n\n" }))
}

/// Tells a page that its session is over, before the stream ends.
fn last_event(reason: EndReason) -> Bytes {
    let reason = serde_json::json!({ "reason": reason.as_str() });
    Bytes::from(format!("event: session-ended\ndata: {reason}\n\n"))
}

#[derive(Clone, Copy, Debug)]
enum Cut {
    Abort,
    End,
}

struct SessionBody {
    inner: Body,
    /// `None` once it has come.
    over: Option<BoxFuture<'static, Over>>,
    cut: Cut,
    /// The last bytes that were sent: two line breaks end an event.
    last: [u8; 2],
}

#[derive(Debug, thiserror::Error)]
#[error("the session is over")]
struct SessionIsOver;

impl http_body::Body for SessionBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(over) = &mut self.over else { return Poll::Ready(None) };
        match (over.as_mut().poll(cx), self.cut) {
            (Poll::Pending, _) => {}
            // A page or download that is under way ends by itself, or with the server's patience.
            (Poll::Ready(Over::Process), Cut::Abort) => self.over = Some(std::future::pending().boxed()),
            (Poll::Ready(over), cut) => {
                self.over = None;
                self.inner = Body::empty();
                return Poll::Ready(match (cut, over) {
                    (Cut::Abort, _) => Some(Err(axum::Error::new(SessionIsOver))),
                    // In the middle of an event it would be taken for a part of that.
                    (Cut::End, Over::Session(Some(reason))) if self.last == *b"\n\n" => {
                        Some(Ok(Frame::data(last_event(reason))))
                    }
                    (Cut::End, _) => None,
                });
            }
        }
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let (Cut::End, Poll::Ready(Some(Ok(frame)))) = (self.cut, &polled)
            && let Some(data) = frame.data_ref()
        {
            self.last = match *data.as_ref() {
                [] => self.last,
                [one] => [self.last[1], one],
                [.., before, last] => [before, last],
            };
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.over.is_none() || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
