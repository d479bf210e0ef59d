//! A connection to one server, and whether what that says may be believed: a replica, or a primary that has lost its
//! replicas or its memory, is no authority on who is signed in.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::future::{join, join3};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, RedisError, RedisResult, Role, Script, ServerErrorKind, Value,
};
use tokio::time::Instant;

/// The bound on one operation.
pub(super) const TIMEOUT: Duration = Duration::from_secs(1);
/// The bound on connecting: less than that, so that those who come together learn of one failure.
const CONNECTION_TIMEOUT: Duration = Duration::from_millis(750);
/// How often a connection in use is asked for the role of its server.
const ROLE_INTERVAL: Duration = Duration::from_secs(1);

/// What a server says that cannot tell who is signed in, by itself or from inside a script.
const NO_AUTHORITY: [&str; 5] = ["READONLY", "MASTERDOWN", "LOADING", "NOREPLICAS", "UNBLOCKED"];

/// What a store is asked for.
pub(super) enum Ask<'a> {
    /// The value of a key.
    Read(&'a str),
    Command(Cmd),
    /// A script, and the command that runs it by its hash.
    Script(&'a Script, Cmd),
}

/// Why an operation failed.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("Redis failed: {}", .0.code().unwrap_or_else(|| .0.category()))]
    Redis(#[from] RedisError),
    #[error("the Redis that is connected is not a primary")]
    NotPrimary,
    #[error("the Redis that is connected is of no cluster any more")]
    NotOfACluster,
    #[error("only {got} of {wanted} replicas of Redis confirmed the write in time")]
    Unconfirmed { got: u32, wanted: u32 },
    #[error("the keys are on their way to another node of the cluster")]
    OnTheirWay,
    #[error("Redis did not answer in time")]
    TooLate,
}

/// What a server has to be besides a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It was configured.
    Any,
    /// A cluster has led to it.
    OfACluster,
}

/// What a failure says about its connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// The operation failed, the connection did not.
    Keep,
    /// The node does not know who has these keys; others may.
    Ask,
    /// The connection leads nowhere, or to no authority.
    Drop,
    /// The keys are at that node from now on.
    Moved(&'a str),
    /// This key is at that node by now, others may not be.
    Asked(&'a str),
}

impl Failure {
    pub(super) fn next(&self) -> Next<'_> {
        let Self::Redis(error) = self else {
            return if matches!(self, Self::NotPrimary | Self::NotOfACluster) { Next::Drop } else { Next::Keep };
        };
        match (error.kind(), error.redirect_node()) {
            (ErrorKind::Server(ServerErrorKind::Ask), Some((address, _))) => Next::Asked(address),
            (_, Some((address, _))) => Next::Moved(address),
            _ if error.code() == Some("CLUSTERDOWN") => Next::Ask,
            _ if is_no_authority(error) || error.is_io_error() || error.is_unrecoverable_error() => Next::Drop,
            _ => Next::Keep,
        }
    }

    fn is_redirect(&self) -> bool {
        matches!(self.next(), Next::Moved(_) | Next::Asked(_))
    }

    /// Whether it says something of the partition that was asked for, and nothing of the server.
    pub(super) fn is_of_one_partition(&self) -> bool {
        self.is_redirect() || self.next() == Next::Ask
    }
}

fn is_no_authority(error: &RedisError) -> bool {
    let detail = error.detail().unwrap_or_default();
    // Redis 6.2 quotes an error inside a script in one of its own.
    NO_AUTHORITY.iter().any(|code| error.code() == Some(code) || detail.contains(&format!("-{code} ")))
        || detail.contains("WAIT cannot be used with replica")
}

/// What holds for all connections of a registry.
#[derive(Default)]
pub(super) struct Terms {
    confirmations: AtomicU32,
    unconfirmed: OnceLock<()>,
    role_unknown: OnceLock<()>,
}

impl Terms {
    pub(super) fn confirmations(&self) -> u32 {
        self.confirmations.load(Ordering::Relaxed)
    }

    pub(super) fn set_confirmations(&self, replicas: u32) {
        self.confirmations.store(replicas, Ordering::Relaxed);
    }

    /// Replicas are there to take over, and may do so without the last writes.
    fn replicas_seen(&self) {
        if self.confirmations() == 0 {
            self.unconfirmed.get_or_init(|| {
                tracing::warn!(
                    "Redis has replicas: set confirmed_by, or a failover may bring back sessions that ended"
                );
            });
        }
    }

    fn role_not_told(&self, error: &RedisError) {
        self.role_unknown.get_or_init(|| {
            tracing::warn!(%error, "Redis does not tell its role: a replica that takes writes would not be noticed");
        });
    }
}

/// A connection to one server. Clones share it.
#[derive(Clone)]
pub(super) struct Peer {
    connection: MultiplexedConnection,
    times: Arc<Mutex<Times>>,
    terms: Arc<Terms>,
}

struct Times {
    /// When it was asked for its role.
    role: Instant,
    /// When it answered anybody.
    answer: Instant,
}

impl Peer {
    /// Connects to a primary that has the key `probe`, or is told where that is.
    pub(super) async fn open(client: &Client, probe: &str, kind: Kind, terms: &Arc<Terms>) -> Result<Self, Failure> {
        let peer = Self::connect(client, terms).await?;
        let (probed, role, kind) = join3(peer.send(&Ask::Read(probe)), peer.check_role(), peer.check_kind(kind)).await;
        let probed = probed.map_err(Failure::from);
        match &probed {
            // A replica of a cluster too tells the way.
            Err(failure) if matches!(failure.next(), Next::Moved(_)) => probed.map(|_| peer),
            // The key is not there, so another node would make it: the slot is on its way, and what has not left is here.
            Err(failure) if matches!(failure.next(), Next::Asked(_)) => role.map(|()| peer),
            _ => role.and(kind).and(probed).map(|_| peer),
        }
    }

    /// Whether a server at an address that a cluster gave once still is of a cluster: addresses are given again.
    async fn check_kind(&self, kind: Kind) -> Result<(), Failure> {
        if kind == Kind::Any {
            return Ok(());
        }
        let mut command = redis::cmd("CLUSTER");
        match command.arg("MYID").query_async::<Value>(&mut self.connection.clone()).await {
            Err(error) if error.to_string().contains("cluster support disabled") => Err(Failure::NotOfACluster),
            // An account that may not ask has to do without.
            _ => Ok(()),
        }
    }

    /// Connects to whatever is there.
    pub(super) async fn connect(client: &Client, terms: &Arc<Terms>) -> Result<Self, Failure> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECTION_TIMEOUT))
            // Operations have a bound of their own.
            .set_response_timeout(None);
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let now = Instant::now();
        Ok(Self { connection, times: Arc::new(Mutex::new(Times { role: now, answer: now })), terms: terms.clone() })
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.times, &other.times)
    }

    /// Asks the server, and beside it for its role where that was a second ago: still one round trip.
    pub(super) async fn ask(&self, ask: &Ask<'_>) -> Result<Value, Failure> {
        if !self.is_role_due() {
            let answer = self.send(ask).await;
            self.times().answer = Instant::now();
            return Ok(answer?);
        }
        let (answer, role) = join(self.send(ask), self.check_role()).await;
        self.times().answer = Instant::now();
        match answer.map_err(Failure::from) {
            Err(failure) if failure.is_redirect() => Err(failure),
            answer => role.and(answer),
        }
    }

    /// Reads a key that is on its way to this server, which has not taken over yet.
    pub(super) async fn read_arriving(&self, key: &str) -> Result<Value, Failure> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("ASKING").ignore().add_command(getex(key));
        let (value,) = pipeline.query_async(&mut self.connection.clone()).await?;
        Ok(value)
    }

    /// Waits until so many replicas have what was written over this connection.
    pub(super) async fn confirm(&self, wanted: u32, within: Duration) -> Result<(), Failure> {
        let mut wait = redis::cmd("WAIT");
        // 0 would be forever.
        wait.arg(wanted).arg(within.as_millis().max(1).to_string());
        let got: u32 = wait.query_async(&mut self.connection.clone()).await?;
        if got < wanted { Err(Failure::Unconfirmed { got, wanted }) } else { Ok(()) }
    }

    /// Whether a connection that nobody used meanwhile still leads to a primary.
    pub(super) async fn is_still_good(&self) -> bool {
        !self.is_role_due() || self.check_role().await.is_ok()
    }

    /// Whether nobody has had an answer for as long as an operation may take: it may lead to a machine that is gone.
    pub(super) fn is_silent(&self) -> bool {
        self.times().answer.elapsed() >= TIMEOUT
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True once a second, so that one of those who come together asks.
    fn is_role_due(&self) -> bool {
        let mut times = self.times();
        let is_due = times.role.elapsed() >= ROLE_INTERVAL;
        if is_due {
            times.role = Instant::now();
        }
        is_due
    }

    async fn check_role(&self) -> Result<(), Failure> {
        match redis::cmd("ROLE").query_async(&mut self.connection.clone()).await {
            Ok(Role::Primary { replicas, .. }) => {
                if !replicas.is_empty() {
                    self.terms.replicas_seen();
                }
                Ok(())
            }
            Ok(_) => Err(Failure::NotPrimary),
            // Not for this account, or not there: what Redis refuses by itself at a replica has to do.
            Err(error) if is_refusal(&error) => {
                self.terms.role_not_told(&error);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn send(&self, ask: &Ask<'_>) -> RedisResult<Value> {
        let mut connection = self.connection.clone();
        match ask {
            Ask::Read(key) => self.read(key).await,
            Ask::Command(command) => command.query_async(&mut connection).await,
            Ask::Script(script, command) => match command.query_async(&mut connection).await {
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    script.load_async(&mut connection).await?;
                    command.query_async(&mut connection).await
                }
                answer => answer,
            },
        }
    }

    async fn read(&self, key: &str) -> RedisResult<Value> {
        let mut connection = self.connection.clone();
        match getex(key).query_async(&mut connection).await {
            // A primary whose disk is full takes no writes, and still has everything.
            Err(error) if error.code() == Some("MISCONF") => {
                redis::cmd("GET").arg(key).query_async(&mut connection).await
            }
            answer => answer,
        }
    }
}

/// Reads a key. Redis counts this among the writes, so that a replica refuses it at once, whenever it became one.
fn getex(key: &str) -> Cmd {
    let mut command = redis::cmd("GETEX");
    command.arg(key);
    command
}

fn is_refusal(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(ServerErrorKind::NoPerm | ServerErrorKind::ResponseError))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(line: &str) -> Failure {
        let answer = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        Failure::Redis(answer.extract_error().unwrap_err())
    }

    #[test]
    fn p13_who_is_no_authority_loses_the_connection() {
        for (line, next) in [
            ("READONLY You can't write against a read only replica.", Next::Drop),
            ("READONLY You can't write against a read only replica. script: ab, on @user_script:1.", Next::Drop),
            ("ERR Error running script (call to f_ab): @user_script:1: -READONLY You can't write", Next::Drop),
            ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", Next::Drop),
            ("LOADING Redis is loading the dataset in memory", Next::Drop),
            ("NOREPLICAS Not enough good replicas to write.", Next::Drop),
            (
                "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
                Next::Drop,
            ),
            ("ERR WAIT cannot be used with replica instances.", Next::Drop),
            ("MOVED 5 127.0.0.1:7001", Next::Moved("127.0.0.1:7001")),
            // Only what was asked for is there by now: it is not moved to.
            ("ASK 5 127.0.0.1:7001", Next::Asked("127.0.0.1:7001")),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Next::Keep),
            ("CLUSTERDOWN Hash slot not served", Next::Ask),
            ("OOM command not allowed when used memory > 'maxmemory'.", Next::Keep),
            ("ERR Script attempted to access a non local key in a cluster node", Next::Keep),
            ("ERR something else", Next::Keep),
        ] {
            assert_eq!(failure(line).next(), next, "{line}");
        }
        assert_eq!(Failure::NotPrimary.next(), Next::Drop);
        assert_eq!(Failure::Unconfirmed { got: 0, wanted: 1 }.next(), Next::Keep);
        let broken = RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        assert_eq!(Failure::Redis(broken).next(), Next::Drop, "it may lead to a machine that is gone");
    }

    #[test]
    fn failures_say_what() {
        assert_eq!(failure("NOREPLICAS Not enough").to_string(), "Redis failed: NOREPLICAS");
    }
}
