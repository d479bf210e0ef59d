//! Cuts WebSockets, and whatever else a connection was upgraded to, when their session is over.
//!
//! An upgraded connection goes past the layer: hyper hands it to whoever holds the request's `OnUpgrade`. So the
//! application gets another one, whose far end is in our hands, and the bytes are passed on while the session lives. A
//! WebSocket is closed with 4401 and the reason, unless it is cut in the middle of a frame.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either, select, try_join};
use http::header::{SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, split};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::websocket::{Frames, close};
use crate::manager::Over;

/// What is on its way through a WebSocket at a time, in each direction.
const BUFFER: usize = 16 * 1024;
/// How long a browser has to take the frame that closes a WebSocket.
const CLOSING: Duration = Duration::from_secs(1);

/// The two halves of a connection that waits to be upgraded.
pub(crate) struct Bridge {
    outside: OnUpgrade,
    inside: DuplexStream,
    asked: Asked,
}

/// How a request asks for an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Connect,
    /// HTTP/2 and later ([RFC 8441](https://www.rfc-editor.org/rfc/rfc8441)).
    ConnectForWebSocket,
    Upgrade,
}

impl Asked {
    fn of(method: &Method, headers: &HeaderMap) -> Self {
        match (*method == Method::CONNECT, headers.contains_key(SEC_WEBSOCKET_VERSION)) {
            (true, true) => Self::ConnectForWebSocket,
            (true, false) => Self::Connect,
            (false, _) => Self::Upgrade,
        }
    }

    /// What a response makes of the connection; `None`: it stays as it is.
    fn answered_by<B>(self, response: &Response<B>) -> Option<Speaks> {
        let is_websocket =
            || response.headers().get(UPGRADE).is_some_and(|kind| kind.as_bytes().eq_ignore_ascii_case(b"websocket"));
        match self {
            _ if response.status() == StatusCode::SWITCHING_PROTOCOLS && is_websocket() => Some(Speaks::WebSocket),
            _ if response.status() == StatusCode::SWITCHING_PROTOCOLS => Some(Speaks::Else),
            // There is no 101 there.
            Self::ConnectForWebSocket if response.status().is_success() => Some(Speaks::WebSocket),
            Self::Connect if response.status().is_success() => Some(Speaks::Else),
            _ => None,
        }
    }
}

/// What is spoken on an upgraded connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Else,
    WebSocket,
}

impl Bridge {
    /// Whether the connection of a request may be upgraded.
    pub(crate) fn is_needed(parts: &http::request::Parts) -> bool {
        parts.extensions.get::<OnUpgrade>().is_some()
    }

    /// Takes the `OnUpgrade` of a request and leaves another in its place; `None` if there is none.
    pub(crate) async fn build(parts: &mut http::request::Parts) -> Option<Self> {
        let outside = parts.extensions.remove::<OnUpgrade>()?;
        let Some((replacement, inside)) = mint().await else {
            // The request goes on without an upgrade, which its handler refuses: better than one that cannot be cut.
            tracing::error!("an upgrade could not be prepared");
            return None;
        };
        parts.extensions.insert(replacement);
        Some(Self { outside, inside, asked: Asked::of(&parts.method, &parts.headers) })
    }

    /// Passes bytes between the two halves if the response says that it upgrades: until the session is over, or to the
    /// end where `over` is `None`, since no session was asked for.
    pub(crate) fn pass_until<B>(self, response: &Response<B>, over: Option<impl FnOnce() -> BoxFuture<'static, Over>>) {
        let Some(speaks) = self.asked.answered_by(response) else { return };
        let over = over.map_or_else(|| std::future::pending().boxed(), |over| over());
        tokio::spawn(async move {
            let Ok(outside) = self.outside.await else { return };
            let (outside_reads, mut outside_writes) = split(TokioIo::new(outside));
            let (inside_reads, inside_writes) = split(self.inside);
            let mut frames = Frames::default();
            let passing = try_join(
                pass_in(outside_reads, inside_writes),
                pass_out(inside_reads, &mut outside_writes, &mut frames),
            );
            let over = match select(pin!(passing), over).await {
                Either::Left(_) => return,
                Either::Right((over, _)) => over,
            };
            tracing::debug!("an upgraded connection was cut: its session is over");
            if let Over::Session(reason) = over
                && speaks == Speaks::WebSocket
                && frames.is_between_two()
            {
                let close = async {
                    outside_writes.write_all(&close(reason)).await?;
                    outside_writes.shutdown().await
                };
                // Who does not take it is cut all the same.
                let _ = timeout(CLOSING, close).await;
            }
        });
    }
}

async fn pass_in(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> std::io::Result<()> {
    tokio::io::copy(&mut from, &mut to).await?;
    to.shutdown().await
}

/// Passes on what the application sends, and notes where its frames end.
async fn pass_out(
    mut from: impl AsyncRead + Unpin,
    to: &mut (impl AsyncWrite + Unpin),
    frames: &mut Frames,
) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        let mut rest = buffer.get(..read).unwrap_or_default();
        if rest.is_empty() {
            return to.shutdown().await;
        }
        while !rest.is_empty() {
            // Dropped half-way, this has written nothing.
            let written = to.write(rest).await?;
            if written == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            let (sent, left) = rest.split_at_checked(written).unwrap_or((rest, &[]));
            frames.note(sent);
            rest = left;
        }
        to.flush().await?;
    }
}

/// Makes an `OnUpgrade` by playing both sides of an upgrade in memory: hyper has no other way to make one.
async fn mint() -> Option<(OnUpgrade, DuplexStream)> {
    let (server, mut client) = tokio::io::duplex(BUFFER);
    let (sender, receiver) = oneshot::channel();
    let sender = std::sync::Mutex::new(Some(sender));
    let service = hyper::service::service_fn(move |mut request: Request<hyper::body::Incoming>| {
        let upgrade = hyper::upgrade::on(&mut request);
        if let Some(sender) = sender.lock().ok().and_then(|mut sender| sender.take()) {
            drop(sender.send(upgrade));
        }
        let mut response = Response::new(Empty::<bytes::Bytes>::new());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(http::header::CONNECTION, http::HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, http::HeaderValue::from_static("session"));
        std::future::ready(Ok::<_, Infallible>(response))
    });
    tokio::spawn(
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service).with_upgrades(),
    );
    client.write_all(b"GET / HTTP/1.1\r\nhost: s\r\nconnection: upgrade\r\nupgrade: session\r\n\r\n").await.ok()?;
    // The head of the answer, byte by byte: what follows it belongs to the application.
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.ok()?);
    }
    Some((receiver.await.ok()?, client))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_upgrade_speaks_is_known_in_each_version_of_http() {
        for (method, version, status, upgrade, expected) in [
            (Method::GET, Some("13"), 101, Some("websocket"), Some(Speaks::WebSocket)),
            (Method::GET, Some("13"), 101, Some("WebSocket"), Some(Speaks::WebSocket)),
            (Method::GET, None, 101, Some("tls"), Some(Speaks::Else)),
            (Method::GET, None, 101, None, Some(Speaks::Else)),
            (Method::GET, Some("13"), 200, Some("websocket"), None),
            (Method::GET, Some("13"), 400, None, None),
            // HTTP/2 names no protocol in the answer.
            (Method::CONNECT, Some("13"), 200, None, Some(Speaks::WebSocket)),
            (Method::CONNECT, Some("13"), 401, None, None),
            (Method::CONNECT, None, 200, None, Some(Speaks::Else)),
            (Method::CONNECT, None, 403, None, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.extend(version.map(|version| (SEC_WEBSOCKET_VERSION, version.parse().unwrap())));
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response.headers_mut().extend(upgrade.map(|upgrade| (UPGRADE, upgrade.parse().unwrap())));
            let found = Asked::of(&method, &headers).answered_by(&response);
            assert_eq!(found, expected, "{method} {version:?} {status} {upgrade:?}");
        }
    }
}
