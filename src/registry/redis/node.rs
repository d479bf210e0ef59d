//! One server: how it is reached, and the connections to it.
//!
//! Everybody shares one connection; writes that wait for replicas have others, one each, as `WAIT` concerns the writes of
//! its own connection and holds up whatever comes after it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::select_ok;
use redis::sentinel::{Sentinel, SentinelNodeConnectionInfo};
use redis::{
    Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisConnectionInfo, RedisError,
    RedisResult, TlsMode, Value,
};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::peer::{Failure, Kind, Peer, Terms};
use crate::error::ConfigError;

/// For so long nobody tries to connect after somebody has failed to.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);
/// So many writes wait for replicas at a time.
const CONFIRMING: usize = 16;
/// So many of them for sessions that ended before: who brings old cookies keeps no refresh from being confirmed.
const CONFIRMING_ENDS: usize = 4;

pub(super) struct Node {
    way: Way,
    kind: Kind,
    /// The connection that all share.
    shared: Mutex<Option<Peer>>,
    /// Connections whose last write was answered.
    idle: Mutex<Vec<Peer>>,
    pub(super) confirming: Semaphore,
    pub(super) confirming_ends: Semaphore,
    /// Held by the one who connects for all.
    opening: tokio::sync::Mutex<()>,
    /// When and how connecting failed last.
    last_failure: Mutex<Option<(Instant, Failure)>>,
    /// A connection for keys that are on their way here.
    arriving: Mutex<Option<Peer>>,
    terms: Arc<Terms>,
}

/// How a server is reached.
pub(super) enum Way {
    At(Client),
    /// Where the sentinels say.
    Told(Told),
}

pub(super) struct Told {
    /// One for each address, so that those who answer need not wait for those who do not.
    sentinels: Vec<tokio::sync::Mutex<Sentinel>>,
    name: String,
    servers: SentinelNodeConnectionInfo,
}

impl Way {
    async fn client(&self) -> RedisResult<Client> {
        match self {
            Self::At(client) => Ok(client.clone()),
            Self::Told(told) => {
                let asked = told.sentinels.iter().map(|sentinel| told.ask(sentinel).boxed());
                select_ok(asked).await.map(|(client, _)| client)
            }
        }
    }
}

impl Told {
    async fn ask(&self, sentinel: &tokio::sync::Mutex<Sentinel>) -> RedisResult<Client> {
        sentinel.lock().await.async_master_for(&self.name, Some(&self.servers)).await
    }
}

/// The ways that somebody has configured, at least one.
pub(super) struct Ways(pub(super) Vec<Way>);

impl Ways {
    /// # Errors
    /// If the URL cannot be read.
    pub(super) fn read(url: &str) -> Result<Self, ConfigError> {
        if url.contains("rediss") {
            // For those who have not chosen one: rustls panics where it finds several.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        // The URL may hold a password, so it is not repeated.
        let takes = "redis://host:port/0, rediss://…, several of a cluster separated by commas, or \
                     redis-sentinel://host:port,host:port/0#name";
        let error = |_| ConfigError::new("store_url", "not a URL of Redis", takes);
        let told = [("redis-sentinel://", None), ("rediss-sentinel://", Some(TlsMode::Secure))];
        for (scheme, tls) in told {
            if let Some(rest) = url.strip_prefix(scheme) {
                return told_by(rest, tls).map(|told| Self(vec![Way::Told(told)])).map_err(error);
            }
        }
        let urls = url.replace(",redis://", "\nredis://").replace(",rediss://", "\nrediss://");
        urls.split('\n').map(|url| Client::open(url).map(Way::At)).collect::<RedisResult<_>>().map(Self).map_err(error)
    }
}

/// Reads `[user:password@]host[:port][,host[:port]…][/database]#name`.
fn told_by(text: &str, tls: Option<TlsMode>) -> RedisResult<Told> {
    let unreadable = || RedisError::from((ErrorKind::InvalidClientConfig, "not a URL of sentinels"));
    let (rest, name) = text.rsplit_once('#').filter(|(_, name)| !name.is_empty()).ok_or_else(unreadable)?;
    let (user, rest) = rest.rsplit_once('@').map_or(("", rest), |(user, rest)| (user, rest));
    let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
    let scheme = if tls.is_some() { "rediss" } else { "redis" };
    // The library reads users, passwords and databases as everywhere.
    let servers = format!("{scheme}://{user}{}localhost/{database}", if user.is_empty() { "" } else { "@" });
    let servers: RedisConnectionInfo = servers.into_connection_info()?.redis_settings().clone();
    let sentinel = |host: &str| {
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        format!("{scheme}://{host}{}", if has_port { "" } else { ":26379" }).into_connection_info()
    };
    let sentinels: Vec<ConnectionInfo> = hosts.split(',').map(sentinel).collect::<RedisResult<_>>()?;
    let info = SentinelNodeConnectionInfo::default().set_redis_connection_info(servers);
    let sentinels = sentinels.into_iter().map(|address| Sentinel::build(vec![address]).map(tokio::sync::Mutex::new));
    Ok(Told {
        sentinels: sentinels.collect::<RedisResult<_>>()?,
        name: name.to_owned(),
        servers: match tls {
            Some(mode) => info.set_tls_mode(mode),
            None => info,
        },
    })
}

impl Node {
    pub(super) fn new(way: Way, kind: Kind, terms: Arc<Terms>) -> Self {
        Self {
            way,
            kind,
            shared: Mutex::default(),
            idle: Mutex::default(),
            confirming: Semaphore::new(CONFIRMING),
            confirming_ends: Semaphore::new(CONFIRMING_ENDS),
            opening: tokio::sync::Mutex::default(),
            last_failure: Mutex::default(),
            arriving: Mutex::default(),
            terms,
        }
    }

    /// A client for another connection to it.
    pub(super) async fn client(&self) -> RedisResult<Client> {
        self.way.client().await
    }

    /// How another node of the same cluster is reached.
    pub(super) fn neighbour(&self, address: &str) -> RedisResult<Self> {
        let unreadable = || RedisError::from((ErrorKind::Parse, "a node's address cannot be read"));
        let Way::At(client) = &self.way else { return Err(unreadable()) };
        let (host, port) = address.rsplit_once(':').ok_or_else(unreadable)?;
        let port = port.parse().map_err(|_| unreadable())?;
        let info = client.get_connection_info().clone();
        let address = match info.addr() {
            // A node that does not know its own name sends the port only.
            ConnectionAddr::Tcp(this, _) => {
                ConnectionAddr::Tcp(if host.is_empty() { this } else { host }.to_owned(), port)
            }
            ConnectionAddr::TcpTls { host: this, insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host: if host.is_empty() { this } else { host }.to_owned(),
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => return Err(unreadable()),
        };
        Ok(Self::new(Way::At(Client::open(info.set_addr(address))?), Kind::OfACluster, self.terms.clone()))
    }

    /// The connection that all share, if there is one.
    pub(super) fn current(&self) -> Option<Peer> {
        lock(&self.shared).clone()
    }

    /// The connection that all share. Where there is none, it is one to a primary that has the key `probe`.
    pub(super) async fn shared(&self, probe: &str) -> Result<Peer, Failure> {
        let _turn = self.opening.lock().await;
        // Somebody else may have connected meanwhile.
        if let Some(peer) = self.current() {
            return Ok(peer);
        }
        let peer = self.open(probe).await?;
        *lock(&self.shared) = Some(peer.clone());
        Ok(peer)
    }

    /// A connection that nobody else has until it is [given back](Self::give_back).
    pub(super) async fn own(&self, probe: &str) -> Result<Peer, Failure> {
        loop {
            let idle = lock(&self.idle).pop();
            let Some(peer) = idle else { break };
            // The server may have closed it long ago.
            if peer.is_still_good().await {
                return Ok(peer);
            }
            self.forget(&peer);
        }
        self.open(probe).await
    }

    pub(super) fn give_back(&self, peer: Peer) {
        lock(&self.idle).push(peer);
    }

    async fn open(&self, probe: &str) -> Result<Peer, Failure> {
        if let Some((at, failure)) = lock(&self.last_failure).as_ref()
            && at.elapsed() < FAILURE_PAUSE
        {
            return Err(failure.clone());
        }
        let opened = match self.client().await {
            Ok(client) => Peer::open(&client, probe, self.kind, &self.terms).await,
            Err(error) => Err(error.into()),
        };
        // What it says of one partition says nothing of others.
        if let Err(failure) = &opened
            && !failure.is_of_one_partition()
        {
            *lock(&self.last_failure) = Some((Instant::now(), failure.clone()));
        }
        opened
    }

    /// Reads a key that is on its way to this server, which has not taken over yet.
    pub(super) async fn read_arriving(&self, key: &str) -> Result<Value, Failure> {
        let known = lock(&self.arriving).clone();
        let peer = match known {
            Some(peer) => peer,
            None => Peer::connect(&self.client().await?, &self.terms).await?,
        };
        let answer = peer.read_arriving(key).await;
        *lock(&self.arriving) = answer.is_ok().then_some(peer);
        answer
    }

    /// Forgets a connection, and those that nobody uses: they lead where that one led.
    pub(super) fn forget(&self, peer: &Peer) {
        lock(&self.shared).take_if(|shared| shared.is(peer));
        lock(&self.idle).clear();
    }

    /// The connection that all share, if that has answered nobody for as long as an operation may take.
    pub(super) fn silent(&self) -> Option<Peer> {
        self.current().filter(Peer::is_silent)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_one_server_or_several_or_those_who_know() {
        for (url, ways) in [
            ("redis://one", 1),
            ("redis://app:a,redis@one:6380/3", 1),
            ("redis://one,redis://two:7000,rediss://three", 3),
            ("redis-sentinel://one/0#main", 1),
            ("rediss-sentinel://app:secret@one:26380,two#main", 1),
        ] {
            assert_eq!(Ways::read(url).map(|ways| ways.0.len()).ok(), Some(ways), "{url}");
        }
        for url in ["", "one:6379", "redis://", "redis-sentinel://one", "redis-sentinel://#main", "http://one"] {
            let error = Ways::read(url).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains("store_url"), "{url}: {error}");
        }
    }
}
