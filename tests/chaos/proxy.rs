//! What stands between the replicas and the rest of the world, and can be told to fail.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::history::{At, Event, Fate, History, Life, Presented, Said, TokenRequest};

/// How a replica reaches the provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Way {
    #[default]
    Open,
    /// The connection breaks before the provider has seen the request.
    CutBefore,
    /// The provider does its work, and the connection breaks.
    CutAfter,
    /// Each half of the way takes so long.
    Slow(Duration),
}

/// A forward proxy to the provider for one replica, which writes down what is presented at the token endpoint.
pub(crate) struct ToProvider {
    pub(crate) url: String,
    state: Arc<ProxyState>,
}

/// Some of the logins and refreshes whose answer is on its way, for who wants to log these sessions out meanwhile. Clones tell the same.
#[derive(Clone)]
pub(crate) struct OnTheirWay {
    logins: Arc<AtomicU32>,
    refreshes: Arc<AtomicU32>,
    sids: mpsc::UnboundedSender<String>,
}

impl OnTheirWay {
    /// One of so many logins is told of.
    const LOGINS: u32 = 4;
    /// One of so many refreshes.
    const REFRESHES: u32 = 15;
    /// They take so long.
    const DETOUR: Duration = Duration::from_millis(200);

    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<String>) {
        let (sids, receiver) = mpsc::unbounded_channel();
        (Self { logins: Arc::default(), refreshes: Arc::default(), sids }, receiver)
    }

    async fn pass(&self, noted: &Noted) {
        let Said::Granted { sid: Some(sid), .. } = &noted.said else { return };
        let (count, each) = match &noted.what {
            Some((_, Presented::Code(_))) => (&self.logins, Self::LOGINS),
            _ => (&self.refreshes, Self::REFRESHES),
        };
        if count.fetch_add(1, Ordering::SeqCst).is_multiple_of(each) && self.sids.send(sid.clone()).is_ok() {
            sleep(Self::DETOUR).await;
        }
    }
}

struct ProxyState {
    replica: usize,
    life: AtomicU32,
    way: Mutex<Way>,
    http: reqwest::Client,
    history: History,
    on_their_way: OnTheirWay,
}

impl ToProvider {
    pub(crate) async fn start(replica: usize, history: History, on_their_way: OnTheirWay) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let state = ProxyState { replica, life: AtomicU32::new(0), way: Mutex::default(), http, history, on_their_way };
        let state = Arc::new(state);
        tokio::spawn(serve(listener, state.clone()));
        Self { url, state }
    }

    pub(crate) fn set(&self, way: Way) {
        *self.state.way.lock().unwrap() = way;
    }

    /// What comes from now on is of this life of the replica.
    pub(crate) fn begin_life(&self, number: u32) {
        self.state.life.store(number, Ordering::SeqCst);
    }
}

async fn serve(listener: TcpListener, state: Arc<ProxyState>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = state.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| pass(state.clone(), request));
            // An error of the service closes the connection without an answer.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// The connection is to break.
#[derive(Debug, thiserror::Error)]
#[error("cut")]
struct Cut;

impl From<Infallible> for Cut {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

async fn pass(state: Arc<ProxyState>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Cut> {
    let way = *state.way.lock().unwrap();
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    let mut noted = Noted::of(&state, &parts, &body);
    match way {
        Way::CutBefore => {
            noted.fate = Fate::Cut;
            return Err(Cut);
        }
        Way::Slow(pause) => sleep(pause).await,
        Way::Open | Way::CutAfter => {}
    }
    let mut headers = parts.headers;
    headers.remove(http::header::CONTENT_LENGTH);
    let asked = state.http.request(parts.method, parts.uri.to_string()).headers(headers).body(body).send();
    // The provider finishes what it has begun, whoever goes away.
    let asked = tokio::spawn(async move {
        let answer = asked.await?;
        Ok::<_, reqwest::Error>((answer.status(), answer.headers().clone(), answer.bytes().await?))
    });
    let Ok(Ok((status, headers, body))) = asked.await else {
        noted.said = Said::Unavailable;
        noted.fate = Fate::Cut;
        return Err(Cut);
    };
    noted.said = said(status, &body);
    state.on_their_way.pass(&noted).await;
    match way {
        Way::CutAfter => {
            noted.fate = Fate::Cut;
            return Err(Cut);
        }
        Way::Slow(pause) => sleep(pause).await,
        Way::Open | Way::CutBefore => {}
    }
    noted.fate = Fate::Delivered;
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    for (name, value) in &headers {
        if *name != http::header::TRANSFER_ENCODING && *name != http::header::CONTENT_LENGTH {
            response.headers_mut().append(name, value.clone());
        }
    }
    Ok(response)
}

fn said(status: http::StatusCode, body: &[u8]) -> Said {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| json.get(name).and_then(Value::as_str).map(str::to_owned);
    if status.is_success() {
        Said::Granted { refresh_token: text("refresh_token"), sid: text("id_token").as_deref().and_then(sid_in) }
    } else if status.is_client_error() {
        Said::Refused { error: text("error").unwrap_or_default() }
    } else {
        Said::Unavailable
    }
}

/// The `sid` that an ID token says.
fn sid_in(id_token: &str) -> Option<String> {
    let claims = URL_SAFE_NO_PAD.decode(id_token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    Some(claims.get("sid")?.as_str()?.to_owned())
}

/// What is written down of a request when it is over, however that comes.
struct Noted {
    history: History,
    what: Option<(Life, Presented)>,
    arrived: At,
    said: Said,
    fate: Fate,
}

impl Noted {
    fn of(state: &ProxyState, parts: &http::request::Parts, body: &[u8]) -> Self {
        let life = Life { replica: state.replica, number: state.life.load(Ordering::SeqCst) };
        let form: Vec<(String, String)> = url::form_urlencoded::parse(body).into_owned().collect();
        let value = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let presented = (parts.uri.path() == "/token")
            .then(|| value("code").map(Presented::Code).or(value("refresh_token").map(Presented::RefreshToken)))
            .flatten();
        let arrived = state.history.now();
        let what = presented.map(|presented| (life, presented));
        Self { history: state.history.clone(), what, arrived, said: Said::NotAsked, fate: Fate::Abandoned }
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        if let Some((life, presented)) = self.what.take() {
            self.history.push(Event::Token(TokenRequest {
                life,
                presented,
                arrived: self.arrived,
                ended: self.history.now(),
                said: self.said.clone(),
                fate: self.fate,
            }));
        }
    }
}

/// The state of a [`Link`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Passage {
    #[default]
    Open,
    /// Connections are closed, and no new ones made.
    Closed,
    /// Nothing passes, and nobody is told; what came meanwhile arrives later.
    Silent,
}

/// How one replica reaches the store: an address that leads elsewhere after a failover.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) port: u16,
    target: Arc<AtomicU16>,
    passage: watch::Sender<Passage>,
}

impl Link {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let link = Self { port: own, target: Arc::new(AtomicU16::new(port)), passage: watch::Sender::default() };
        tokio::spawn(link.clone().lead(listener));
        link
    }

    /// Connections that are open stay where they are.
    pub(crate) fn lead_to(&self, port: u16) {
        self.target.store(port, Ordering::SeqCst);
    }

    pub(crate) fn set(&self, passage: Passage) {
        self.passage.send_replace(passage);
    }

    async fn lead(self, listener: TcpListener) {
        while let Ok((from, _)) = listener.accept().await {
            let (port, passage) = (self.target.load(Ordering::SeqCst), self.passage.subscribe());
            if *passage.borrow() == Passage::Closed {
                continue;
            }
            tokio::spawn(async move {
                let Ok(to) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                let _ = (from.set_nodelay(true), to.set_nodelay(true));
                let mut closed = passage.clone();
                let (from, to) = (from.into_split(), to.into_split());
                let both = async {
                    tokio::join!(copy(from.0, to.1, passage.clone()), copy(to.0, from.1, passage.clone()));
                };
                tokio::select! {
                    () = both => {}
                    _ = closed.wait_for(|passage| *passage == Passage::Closed) => {}
                }
            });
        }
    }
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut passage: watch::Receiver<Passage>,
) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(count) = from.read(&mut buffer).await else { return };
        if passage.wait_for(|passage| *passage != Passage::Silent).await.is_err() || count == 0 {
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
