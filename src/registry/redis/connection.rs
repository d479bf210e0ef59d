//! The way to the primary that has the keys: found again when it has moved, in a cluster too.
//!
//! Everybody shares one connection; writes that wait for replicas have others, one each, as `WAIT` concerns the writes of
//! its own connection and holds up whatever comes after it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Client, ConnectionAddr, ErrorKind, FromRedisValue, RedisError, RedisResult, Value, from_redis_value};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::peer::{Ask, Failure, Next, Peer, TIMEOUT, Terms};
use crate::registry::RegistryError;

/// What is left of it for the answer of replicas to come back.
const WAY_BACK: Duration = Duration::from_millis(100);
/// The pause before a connection is opened again.
pub(super) const RECONNECT_PAUSE: Duration = Duration::from_millis(500);
/// For so long nobody tries to connect after somebody has failed to.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);
/// A cluster that sends us about more often than this is being moved around.
const REDIRECTS: usize = 3;
/// So many writes wait for replicas at a time.
const CONFIRMING: usize = 16;

pub(super) struct Connection {
    home: Client,
    /// A key in the slot of all others.
    probe: String,
    node: Mutex<Node>,
    /// The connection that all share.
    shared: Mutex<Option<Peer>>,
    /// Connections whose last write was answered.
    idle: Mutex<Vec<Peer>>,
    confirming: Semaphore,
    /// Held by the one who connects; when and how that failed last.
    opening: tokio::sync::Mutex<Option<(Instant, Failure)>>,
    /// The node that keys are on their way to.
    arriving: Mutex<Option<(String, Peer)>>,
    terms: Arc<Terms>,
    dropped: Arc<Notify>,
}

/// Where the keys are.
struct Node {
    client: Client,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Where the URL points.
    Home,
    /// At another node of the cluster.
    Away,
}

/// Which connection an operation takes.
#[derive(Clone, Copy)]
enum Line {
    /// The one that all share.
    Shared,
    /// One of its own.
    Own,
}

impl Connection {
    pub(super) fn new(home: Client, probe: String) -> Self {
        Self {
            node: Mutex::new(Node { client: home.clone(), place: Place::Home }),
            home,
            probe,
            shared: Mutex::default(),
            idle: Mutex::default(),
            confirming: Semaphore::new(CONFIRMING),
            opening: tokio::sync::Mutex::default(),
            arriving: Mutex::default(),
            terms: Arc::default(),
            dropped: Arc::default(),
        }
    }

    pub(super) fn home(&self) -> &Client {
        &self.home
    }

    /// Is notified whenever a connection was dropped: others may lead to the same wrong place.
    pub(super) fn dropped(&self) -> Arc<Notify> {
        self.dropped.clone()
    }

    pub(super) fn confirm_by(&self, replicas: u32) {
        self.terms.set_confirmations(replicas);
    }

    /// Asks the primary, wherever in a cluster it is: all keys of a registry are in one slot, so at one node.
    pub(super) async fn ask<T: FromRedisValue>(&self, ask: Ask<'_>) -> Result<T, RegistryError> {
        let asked = timeout_at(Instant::now() + TIMEOUT, self.ask_around(&ask, Line::Shared)).await;
        answer(asked.unwrap_or_else(|_| Err(self.too_late())).map(|(value, _)| value))
    }

    /// The same for a write that has to outlive this primary: it is answered when replicas have it.
    pub(super) async fn ask_for_good<T: FromRedisValue>(&self, ask: Ask<'_>) -> Result<T, RegistryError> {
        match self.terms.confirmations() {
            0 => self.ask(ask).await,
            replicas => {
                let deadline = Instant::now() + TIMEOUT;
                let asked = timeout_at(deadline, self.ask_and_confirm(&ask, replicas, deadline)).await;
                answer(asked.unwrap_or_else(|_| Err(self.too_late())))
            }
        }
    }

    /// Leaves a server that answers nobody, and the connections that nobody has used since.
    fn too_late(&self) -> Failure {
        let shared = lock(&self.shared).clone();
        match shared {
            Some(peer) if peer.is_silent() => self.drop_peer(&peer),
            _ => lock(&self.idle).clear(),
        }
        Failure::TooLate
    }

    async fn ask_and_confirm(&self, ask: &Ask<'_>, replicas: u32, deadline: Instant) -> Result<Value, Failure> {
        let _turn = self.confirming.acquire().await.map_err(|_| Failure::TooLate)?;
        let (value, peer) = self.ask_around(ask, Line::Own).await?;
        let left = deadline.saturating_duration_since(Instant::now()).saturating_sub(WAY_BACK);
        let confirmed = peer.confirm(replicas, left).await;
        match &confirmed {
            Err(failure) if failure.next() == Next::Drop => self.drop_peer(&peer),
            _ => lock(&self.idle).push(peer),
        }
        confirmed.map(|()| value)
    }

    async fn ask_around(&self, ask: &Ask<'_>, line: Line) -> Result<(Value, Peer), Failure> {
        let mut redirects = 0;
        loop {
            let peer = match line {
                Line::Shared => self.shared().await?,
                Line::Own => self.own().await?,
            };
            let failure = match peer.ask(ask).await {
                Ok(value) => return Ok((value, peer)),
                Err(failure) => failure,
            };
            match (failure.next(), ask) {
                (Next::Moved(address), _) if redirects < REDIRECTS => self.go_to(address)?,
                // Scripts touch several keys, of which some may not have arrived: they would see half of the truth.
                (Next::Asked(address), Ask::Read(key)) => {
                    return self.read_arriving(address, key).await.map(|value| (value, peer));
                }
                (Next::Asked(_), _) => return Err(Failure::OnTheirWay),
                (Next::Drop, _) => {
                    self.drop_peer(&peer);
                    return Err(failure);
                }
                _ => return Err(failure),
            }
            redirects += 1;
        }
    }

    async fn shared(&self) -> Result<Peer, Failure> {
        let current = lock(&self.shared).clone();
        if let Some(peer) = current {
            return Ok(peer);
        }
        let mut last_failure = self.opening.lock().await;
        // Somebody else may have connected meanwhile.
        let current = lock(&self.shared).clone();
        if let Some(peer) = current {
            return Ok(peer);
        }
        let peer = self.open(&mut last_failure).await?;
        *lock(&self.shared) = Some(peer.clone());
        Ok(peer)
    }

    async fn own(&self) -> Result<Peer, Failure> {
        loop {
            let idle = lock(&self.idle).pop();
            let Some(peer) = idle else { break };
            // The server may have closed it long ago.
            if peer.is_still_good().await {
                return Ok(peer);
            }
            self.drop_peer(&peer);
        }
        let mut last_failure = self.opening.lock().await;
        self.open(&mut last_failure).await
    }

    async fn open(&self, last_failure: &mut Option<(Instant, Failure)>) -> Result<Peer, Failure> {
        if let Some((at, failure)) = last_failure
            && at.elapsed() < FAILURE_PAUSE
        {
            return Err(failure.clone());
        }
        let opened = self.open_where_the_keys_are().await;
        if let Err(failure) = &opened {
            *last_failure = Some((Instant::now(), failure.clone()));
            // The node may have left the cluster: ask for the way again next time.
            self.go_home();
        }
        opened
    }

    async fn open_where_the_keys_are(&self) -> Result<Peer, Failure> {
        let mut redirects = 0;
        loop {
            let client = lock(&self.node).client.clone();
            let failure = match Peer::open(&client, &self.probe, &self.terms).await {
                Ok(peer) => return Ok(peer),
                Err(failure) => failure,
            };
            match failure.next() {
                Next::Moved(address) if redirects < REDIRECTS => self.go_to(address)?,
                _ => return Err(failure),
            }
            redirects += 1;
        }
    }

    async fn read_arriving(&self, address: &str, key: &str) -> Result<Value, Failure> {
        let known = lock(&self.arriving).clone().filter(|(known, _)| known == address);
        let peer = match known {
            Some((_, peer)) => peer,
            None => Peer::connect(&self.client_at(address)?, &self.terms).await?,
        };
        let answer = peer.read_arriving(key).await;
        *lock(&self.arriving) = answer.is_ok().then(|| (address.to_owned(), peer));
        answer
    }

    fn drop_peer(&self, peer: &Peer) {
        lock(&self.shared).take_if(|shared| shared.is(peer));
        // They lead where this one led.
        lock(&self.idle).clear();
        self.go_home();
        self.dropped.notify_waiters();
    }

    fn go_home(&self) {
        let mut node = lock(&self.node);
        if node.place == Place::Away {
            *node = Node { client: self.home.clone(), place: Place::Home };
        }
    }

    fn go_to(&self, address: &str) -> RedisResult<()> {
        let client = self.client_at(address)?;
        tracing::debug!(address, "the keys are at another node of the cluster");
        *lock(&self.node) = Node { client, place: Place::Away };
        *lock(&self.shared) = None;
        lock(&self.idle).clear();
        Ok(())
    }

    fn client_at(&self, address: &str) -> RedisResult<Client> {
        let unreadable = || RedisError::from((ErrorKind::Parse, "a node's address cannot be read"));
        let (host, port) = address.rsplit_once(':').ok_or_else(unreadable)?;
        let port = port.parse().map_err(|_| unreadable())?;
        let info = self.home.get_connection_info().clone();
        let address = match info.addr() {
            // A node that does not know its own name sends the port only.
            ConnectionAddr::Tcp(home, _) => {
                ConnectionAddr::Tcp(if host.is_empty() { home } else { host }.to_owned(), port)
            }
            ConnectionAddr::TcpTls { host: home, insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host: if host.is_empty() { home } else { host }.to_owned(),
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => return Err(unreadable()),
        };
        Client::open(info.set_addr(address))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer<T: FromRedisValue>(asked: Result<Value, Failure>) -> Result<T, RegistryError> {
    let value = asked.map_err(failed)?;
    from_redis_value(value).map_err(|error| failed(RedisError::from(error).into()))
}

fn failed(failure: Failure) -> RegistryError {
    match failure {
        // An error of Redis says what, and quotes no values.
        Failure::Redis(ref error) => RegistryError::with_source(failure.to_string(), error.clone()),
        failure => RegistryError::new(failure.to_string()),
    }
}
