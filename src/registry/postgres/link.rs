//! Connections to the database: where they lead, who may use them, and when they are not used again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use deadpool_postgres::{Connect, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, Timeouts};
use futures_util::future::{BoxFuture, Either, select};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, Connection, Row, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::ConfigError;
use crate::registry::RegistryError;
use crate::registry::call_time::record_call;

/// The bound on one operation.
pub(super) const TIMEOUT: Duration = Duration::from_secs(1);
/// The server gives up a statement a little earlier than the client does: an error that arrives leaves a connection that
/// can be used again.
const STATEMENT_TIMEOUT: Duration = Duration::from_millis(900);
/// A connection whose peer vanished is given up after this.
const PEER_TIMEOUT: Duration = Duration::from_secs(10);
/// No replica needs more: an operation takes about a millisecond.
const CONNECTIONS: usize = 16;
/// Writes that hang (a synchronous standby that is gone) leave the others to reads.
const WRITERS: usize = 12;
/// A setting that means nothing, but shows whether settings arrive.
const MARK: &str = "tower_oidc_session.is_direct";
/// What the URL of a store looks like.
const TAKES: &str = "postgres://user:password@host:port/database?sslmode=require";

pub(super) type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// Where a database is, and how it is to be talked to.
#[derive(Clone)]
pub(super) struct Address {
    config: Config,
    /// Without the settings of ours, for a pooler that does not pass them on.
    bare: Config,
    tls: MakeRustlsConnect,
    /// Whether settings arrive: a pooler refuses them or ignores them.
    is_direct: Arc<AtomicBool>,
}

impl Address {
    pub(super) fn parse(setting: &'static str, url: &str) -> Result<Self, ConfigError> {
        // The URL may hold a password, so it is not repeated.
        let mut bare: Config = url.parse().map_err(|_| ConfigError::new(setting, "not a URL of PostgreSQL", TAKES))?;
        // Where several are named, one that is switched off must not use up the time of all.
        let hosts = u32::try_from(bare.get_hosts().len().max(1)).unwrap_or(u32::MAX);
        bare.connect_timeout(TIMEOUT / hosts).tcp_user_timeout(PEER_TIMEOUT).keepalives_idle(PEER_TIMEOUT);
        if bare.get_application_name().is_none() {
            bare.application_name(env!("CARGO_PKG_NAME"));
        }
        // Of several hosts the primary is meant, and a standby alone is an outage.
        if !url.contains("target_session_attrs") {
            bare.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        let mut config = bare.clone();
        config.options(session_settings(bare.get_options()));
        Ok(Self { config, bare, tls: tls(), is_direct: Arc::default() })
    }

    /// Connects. Nothing else makes connections here.
    pub(super) async fn open(&self) -> Result<(Client, Connection<Socket, Stream>), tokio_postgres::Error> {
        match self.config.connect(self.tls.clone()).await {
            // The functions check what they rely on, so what could not be set is not taken for granted.
            Err(error) if refuses_settings(&error) => self.bare.connect(self.tls.clone()).await,
            opened => opened,
        }
    }

    /// Asks one thing by a connection of its own.
    pub(super) async fn ask_for_text(&self, question: &str) -> Result<String, tokio_postgres::Error> {
        let (client, connection) = self.open().await?;
        let answer = std::pin::pin!(client.query_typed_one(question, &[]));
        let connection = std::pin::pin!(drive(connection));
        match select(answer, connection).await {
            Either::Left((answer, _)) => answer?.try_get(0),
            // The connection broke, so the answer is an error by now.
            Either::Right(((), answer)) => answer.await?.try_get(0),
        }
    }
}

/// What is set for each connection, whatever the database or the role have as their defaults. A `SET` would do the same
/// to a connection that a pooler shares with others.
fn session_settings(given: Option<&str>) -> String {
    let timeout = STATEMENT_TIMEOUT.as_millis();
    let ours = format!(r"-c default_transaction_isolation=read\ committed -c statement_timeout={timeout} -c {MARK}=on");
    given.map_or(ours.clone(), |given| format!("{ours} {given}"))
}

/// A pooler says so before anything else: PgBouncer with the first code, Amazon's proxy with the second.
fn refuses_settings(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| [SqlState::PROTOCOL_VIOLATION, SqlState::FEATURE_NOT_SUPPORTED].contains(code))
}

/// Certificates are verified by the system's roots, whatever else the process does with rustls.
fn tls() -> MakeRustlsConnect {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = versions.unwrap_or_else(|_| unreachable!("the provider knows the default versions"));
    MakeRustlsConnect::new(config.with_root_certificates(roots).with_no_client_auth())
}

impl Connect for Address {
    fn connect(&self, _: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), tokio_postgres::Error>> {
        Box::pin(async {
            let (client, connection) = self.open().await?;
            let task = tokio::spawn(drive(connection));
            self.is_direct.store(is_marked(&client).await?, Ordering::Relaxed);
            Ok((client, task))
        })
    }
}

async fn drive(connection: Connection<Socket, Stream>) {
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection to PostgreSQL broke");
    }
}

async fn is_marked(client: &Client) -> Result<bool, tokio_postgres::Error> {
    let mark = "SELECT coalesce(current_setting($1, true), '') = 'on'";
    client.query_typed_one(mark, &[(&MARK, Type::TEXT)]).await?.try_get(0)
}

/// Whether a statement changes anything.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Reads,
    Writes,
}

/// A statement that answers as the functions of `schema.sql` do. It is sent without a name, in one message: a pooler
/// that hands connections on between transactions knows no statement that was prepared before.
pub(super) struct Call {
    pub(super) text: String,
    pub(super) types: Vec<Type>,
    pub(super) effect: Effect,
}

/// One row of what a function answers.
pub(super) struct Answer {
    pub(super) word: String,
    pub(super) key: Option<Vec<u8>>,
    pub(super) version: Option<i64>,
    pub(super) record: Option<Vec<u8>>,
}

impl Answer {
    fn of(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self { word: row.try_get(0)?, key: row.try_get(1)?, version: row.try_get(2)?, record: row.try_get(3)? })
    }
}

/// The connections of one registry.
pub(super) struct Link {
    address: Address,
    pool: Pool,
    writers: Semaphore,
    /// How often all connections were given up.
    generation: AtomicU64,
    moves: AtomicU64,
    /// Whether statements may be prepared where no pooler is known of.
    prepares: AtomicBool,
}

impl Link {
    pub(super) fn new(address: Address) -> Result<Arc<Self>, ConfigError> {
        // Whether a connection is closed is known without asking: its task reads all the time.
        let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_connect(address.config.clone(), address.clone(), manager);
        let pool = Pool::builder(manager)
            .max_size(CONNECTIONS)
            .timeouts(Timeouts { wait: Some(TIMEOUT), create: Some(TIMEOUT), recycle: Some(TIMEOUT) })
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|_| ConfigError::new("store_url", "no pool", TAKES))?;
        Ok(Arc::new(Self {
            address,
            pool,
            writers: Semaphore::new(WRITERS),
            generation: AtomicU64::default(),
            moves: AtomicU64::default(),
            prepares: AtomicBool::new(true),
        }))
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Calls a function, within the bound of an operation.
    pub(super) async fn call(
        self: &Arc<Self>,
        call: &Call,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Answer>, RegistryError> {
        let began = Instant::now();
        let until = began + TIMEOUT;
        let called = timeout_at(until, self.call_until(until, call, parameters)).await;
        record_call("postgres", began.elapsed());
        called.unwrap_or_else(|_| Err(too_late()))
    }

    async fn call_until(
        self: &Arc<Self>,
        until: Instant,
        call: &Call,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Answer>, RegistryError> {
        let _permit = match call.effect {
            Effect::Reads => None,
            Effect::Writes => Some(self.writers.acquire().await.map_err(|_| too_late())?),
        };
        let lent = self.lend(until).await?;
        let rows = self.ask(&lent, call, parameters).await;
        let rows = lent.give_back(rows)?;
        rows.iter().map(Answer::of).collect::<Result<Vec<_>, _>>().map_err(failed)
    }

    /// Asks over a connection. What only reads is prepared once for each, so that it is planned once; not behind a pooler,
    /// which may hand a connection on without what was prepared on it.
    async fn ask(
        &self,
        lent: &Lent,
        call: &Call,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        if call.effect == Effect::Reads
            && self.address.is_direct.load(Ordering::Relaxed)
            && self.prepares.load(Ordering::Relaxed)
        {
            let asked = async {
                let statement = lent.object().prepare_typed_cached(&call.text, &call.types).await?;
                lent.client().query(&statement, parameters).await
            };
            match asked.await {
                // A pooler that does not look like one. Nothing has happened but that.
                Err(error) if is_about_a_statement(&error) => self.prepares.store(false, Ordering::Relaxed),
                answer => return answer,
            }
        }
        let parameters: Vec<_> = parameters.iter().copied().zip(call.types.iter().cloned()).collect();
        lent.client().query_typed(&call.text, &parameters).await
    }

    /// A connection for somebody who is done with it at `until`.
    pub(super) async fn lend(self: &Arc<Self>, until: Instant) -> Result<Lent, RegistryError> {
        let generation = self.generation.load(Ordering::SeqCst);
        let object = self.pool.get().await.map_err(no_connection)?;
        Ok(Lent { object: Some(object), until, generation, link: self.clone() })
    }

    /// How often the database was found at another place.
    pub(super) fn moves(&self) -> u64 {
        self.moves.load(Ordering::SeqCst)
    }

    /// The database is at another place.
    pub(super) fn moved(&self) {
        self.moves.fetch_add(1, Ordering::SeqCst);
        self.distrust_all();
    }

    /// The server at the other end of one connection is not the primary, or is going: the others lead there too.
    fn distrust_all(&self) {
        // Those that are in use are dropped when they come back.
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.pool.retain(|_, _| false);
    }

    /// One connection was silent for the time of an operation: perhaps its server is gone without a word. Others that
    /// answered in that time are good, the rest is not worth another request's second.
    fn distrust_silent(&self) {
        self.pool.retain(|_, metrics| metrics.last_used() < TIMEOUT);
    }

    fn take_back(&self, object: Object, generation: u64) {
        if generation != self.generation.load(Ordering::SeqCst) {
            drop(Object::take(object));
        }
    }

    /// Waits for what a connection still works at, so that nobody gets it before; one that takes too long is cancelled,
    /// or it would hold its place at the server, and is not used again.
    async fn settle(self: Arc<Self>, object: Object, until: Instant, generation: u64) {
        if timeout_at(until, object.check_connection()).await.is_ok_and(|checked| checked.is_ok()) {
            self.take_back(object, generation);
            return;
        }
        // Its place is free for another.
        let client = Object::take(object);
        self.distrust_silent();
        // A pooler closes its own connection with this one. Some versions of PgBouncer fall over a cancellation whose sender
        // goes away (its issue 801), and none cancels what waits for its turn.
        if self.address.is_direct.load(Ordering::Relaxed) {
            // The name may lead elsewhere by now; nobody there knows this statement.
            let _ = timeout(TIMEOUT, client.cancel_token().cancel_query(self.address.tls.clone())).await;
        }
    }
}

/// A connection that is in use. Dropped in the middle, it goes back only when it is at rest.
pub(super) struct Lent {
    object: Option<Object>,
    until: Instant,
    generation: u64,
    link: Arc<Link>,
}

impl Lent {
    fn object(&self) -> &Object {
        self.object.as_ref().unwrap_or_else(|| unreachable!("it is there until it is given back"))
    }

    pub(super) fn client(&self) -> &Client {
        self.object()
    }

    pub(super) fn client_mut(&mut self) -> &mut Client {
        self.object.as_mut().unwrap_or_else(|| unreachable!("it is there until it is given back"))
    }

    /// Gives the connection back after its answer, unless that says that it leads to the wrong place.
    pub(super) fn give_back<T>(mut self, answer: Result<T, tokio_postgres::Error>) -> Result<T, RegistryError> {
        let Some(object) = self.object.take() else { unreachable!("it is given back once") };
        if answer.as_ref().is_err_and(is_about_the_server) {
            self.link.distrust_all();
        }
        self.link.take_back(object, self.generation);
        answer.map_err(failed)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(object) = self.object.take() else { return };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(self.link.clone().settle(object, self.until, self.generation))),
            Err(_) => drop(Object::take(object)),
        }
    }
}

/// Whether an error says that the server is no primary (any more), goes down, comes up, or cannot be talked to.
fn is_about_the_server(error: &tokio_postgres::Error) -> bool {
    let Some(code) = error.code() else { return true };
    let class = |prefix| code.code().starts_with(prefix);
    code == &SqlState::READ_ONLY_SQL_TRANSACTION || class("57P") || class("08")
}

/// Whether an error says that a prepared statement is not there, or that another of its name is, or that its plan is of
/// before a change of the schema.
fn is_about_a_statement(error: &tokio_postgres::Error) -> bool {
    let codes = [SqlState::INVALID_SQL_STATEMENT_NAME, SqlState::DUPLICATE_PSTATEMENT, SqlState::FEATURE_NOT_SUPPORTED];
    error.code().is_some_and(|code| codes.contains(code))
}

pub(super) fn too_late() -> RegistryError {
    RegistryError::new("PostgreSQL did not answer in time")
}

fn no_connection(error: PoolError) -> RegistryError {
    match error {
        PoolError::Backend(error) => failed(error),
        error => RegistryError::with_source("no connection to PostgreSQL", error),
    }
}

pub(super) fn failed(error: tokio_postgres::Error) -> RegistryError {
    // Of an error of the database only the message: details may quote values.
    match error.as_db_error() {
        Some(db) => RegistryError::new(format!("PostgreSQL failed: {} ({})", db.message(), db.code().code())),
        None => RegistryError::with_source("PostgreSQL failed", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_is_refused_and_settings_are_made_unless_the_url_says_otherwise() {
        let usual = Address::parse("store_url", "postgres://app@db.example/shop").unwrap();
        assert_eq!(usual.config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        assert_eq!(usual.bare.get_options(), None);
        let options = usual.config.get_options().unwrap();
        assert!(options.contains(r"default_transaction_isolation=read\ committed"), "{options}");
        let url = "postgres://app@one.example,two.example/shop?target_session_attrs=any&options=-c%20work_mem%3D8MB";
        let given = Address::parse("store_url", url).unwrap();
        assert_eq!(given.config.get_target_session_attrs(), TargetSessionAttrs::Any);
        assert!(given.config.get_options().unwrap().ends_with("-c work_mem=8MB"), "theirs are the last word");
        assert_eq!(given.config.get_connect_timeout(), Some(&(TIMEOUT / 2)));
    }
}
