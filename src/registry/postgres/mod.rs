//! The registry in PostgreSQL.
//!
//! Every operation is one call of a function in the database, so it is atomic and one round trip; `schema.sql` has them.

mod tower_sessions;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use deadpool_postgres::{Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime, Timeouts};
use futures_util::StreamExt;
use futures_util::stream;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Config, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::codec::{Codec, Kind, StorageKey, millis, name_of};
use super::{
    Claimed, Committed, Created, EndListener, EndNotice, Lease, LeaseHolder, Loaded, LogoutTarget, RegistryError,
    SessionRegistry, TOMBSTONE_RETENTION, TOMBSTONE_TOLERANCE,
};
use crate::error::ConfigError;
use crate::session::event::EndReason;
use crate::session::id::SessionKey;
use crate::session::record::{SessionRecord, Version};

/// The bound on one operation.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Creating the schema may wait for other replicas that do the same.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause before the connection for notices is opened again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);
/// A connection whose peer vanished is given up after this.
const PEER_TIMEOUT: Duration = Duration::from_secs(10);
/// No replica needs more: an operation takes about a millisecond.
const CONNECTIONS: usize = 16;
/// So many expired sessions are removed at a time.
const BATCH: usize = 500;
/// The version of `schema.sql`.
const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = include_str!("schema.sql");

/// Sessions, and application data of tower-sessions, in PostgreSQL (13 or later), shared by replicas.
///
/// The tables are in a schema of their own, `oidc_session` unless named otherwise; [`migrate`](Self::migrate) makes
/// them. A session takes about 1 kB plus its tokens and claims, and is removed a minute after its last deadline by one of
/// the replicas. Loading a session is one statement on its primary key.
///
/// A database that loses committed transactions in a failover (asynchronous replication) may lose sessions, whose users
/// then log in again, and ends, whose sessions are found out at the next signal.
#[derive(Clone)]
pub struct PostgresRegistry {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    tls: MakeRustlsConnect,
    pool: Pool,
    schema: String,
    codec: Codec,
    statements: Statements,
    listeners: RwLock<Vec<EndListener>>,
}

struct Statements {
    claim: String,
    commit: String,
    create: String,
    delete_data: String,
    end: String,
    end_by_sid: String,
    end_by_subject: String,
    load: String,
    load_data: String,
    release: String,
    remove_expired: String,
    save_data: String,
}

impl Statements {
    fn new(schema: &str) -> Self {
        let call = |function: &str, parameters: usize| {
            let parameters = (1..=parameters).map(|number| format!("${number}")).collect::<Vec<_>>().join(", ");
            format!("SELECT word, key, version, record FROM {schema}.{function}({parameters})")
        };
        Self {
            claim: call("claim", 4),
            commit: call("commit_session", 9),
            create: call("create_session", 9),
            delete_data: call("delete_data", 1),
            end: call("end_session", 3),
            end_by_sid: call("end_by_sid", 6),
            end_by_subject: call("end_by_subject", 5),
            load: call("load", 1),
            load_data: call("load_data", 1),
            release: call("release", 2),
            remove_expired: call("remove_expired", 2),
            save_data: call("save_data", 5),
        }
    }
}

/// One row of what a function answers.
struct Answer {
    word: String,
    key: Option<Vec<u8>>,
    version: Option<i64>,
    record: Option<Vec<u8>>,
}

impl Answer {
    fn of(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self { word: row.try_get(0)?, key: row.try_get(1)?, version: row.try_get(2)?, record: row.try_get(3)? })
    }
}

impl PostgresRegistry {
    /// The registry at `url`: `postgres://user:password@host[:port]/database[?sslmode=require]`.
    ///
    /// With `sslmode=require`, or `prefer` (the default) where the server offers TLS, its certificate is verified by the
    /// system's roots. The database need not be up: operations fail until it is, and requests that need it get 503.
    ///
    /// # Errors
    /// If the URL cannot be read.
    ///
    /// # Cancel safety
    /// A dropped future leaves nothing behind.
    pub async fn connect(url: &str) -> Result<Self, ConfigError> {
        Self::connect_with(url, "oidc_session", []).await
    }

    /// As [`connect`](Self::connect), with the tables in `schema`, and records encrypted with the first of `keys`; the
    /// others are for records that were written before. Without keys records are not encrypted.
    ///
    /// # Errors
    /// If the URL or the name of the schema cannot be used.
    ///
    /// # Cancel safety
    /// A dropped future leaves nothing behind.
    #[expect(clippy::unused_async, reason = "tells users that a tokio runtime is needed")]
    pub async fn connect_with(
        url: &str,
        schema: &str,
        keys: impl IntoIterator<Item = StorageKey>,
    ) -> Result<Self, ConfigError> {
        let is_name = |byte: u8| byte == b'_' || byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if schema.len() > 48 || !schema.bytes().all(is_name) || !schema.starts_with(|c: char| c.is_ascii_lowercase()) {
            let takes = "at most 48 letters a to z, digits and underscores, the first a letter";
            return Err(ConfigError::new("schema", schema, takes));
        }
        // The URL may hold a password, so it is not repeated.
        let takes = "postgres://user:password@host:port/database?sslmode=require";
        let mut config: Config =
            url.parse().map_err(|_| ConfigError::new("store_url", "not a URL of PostgreSQL", takes))?;
        config.connect_timeout(TIMEOUT).tcp_user_timeout(PEER_TIMEOUT).keepalives_idle(PEER_TIMEOUT);
        if config.get_application_name().is_none() {
            config.application_name(env!("CARGO_PKG_NAME"));
        }
        let tls = tls();
        // Whether a connection is closed is known without asking: its task reads all the time.
        let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config.clone(), tls.clone(), manager);
        let pool = Pool::builder(manager)
            .max_size(CONNECTIONS)
            .timeouts(Timeouts { wait: Some(TIMEOUT), create: Some(TIMEOUT), recycle: Some(TIMEOUT) })
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|_| ConfigError::new("store_url", "no pool", takes))?;
        let shared = Arc::new(Shared {
            config,
            tls,
            pool,
            schema: schema.to_owned(),
            codec: Codec::new(keys.into_iter().collect()),
            statements: Statements::new(schema),
            listeners: RwLock::default(),
        });
        tokio::spawn(listen(Arc::downgrade(&shared)));
        Ok(Self { shared })
    }

    /// Creates the tables and functions, or brings those of an earlier version of this crate up to date. Call it at every
    /// start: replicas may do so together, and where nothing is to be done the account needs no right to change the schema.
    ///
    /// # Errors
    /// If the database could not be reached, does not allow it, or holds a schema of a later version.
    ///
    /// # Cancel safety
    /// It is done or not.
    pub async fn migrate(&self) -> Result<(), RegistryError> {
        let migration = async {
            let mut client = self.shared.pool.get().await.map_err(no_connection)?;
            let transaction = client.transaction().await.map_err(failed)?;
            let schema = &self.shared.schema;
            let lock = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
            transaction.execute(lock, &[&format!("{schema} migrate")]).await.map_err(failed)?;
            let table = format!("{schema}.schema_version");
            let exists = "SELECT to_regclass($1) IS NOT NULL";
            let exists: bool = transaction.query_one(exists, &[&table]).await.map_err(failed)?.get(0);
            if exists {
                let version = format!("SELECT max(version) FROM {table}");
                let version: Option<i64> = transaction.query_one(&version, &[]).await.map_err(failed)?.get(0);
                if version != Some(SCHEMA_VERSION) {
                    return Err(RegistryError::new(format!(
                        "the schema {schema} is of version {version:?}, this is for version {SCHEMA_VERSION}"
                    )));
                }
            } else {
                transaction.batch_execute(&SCHEMA.replace("{schema}", schema)).await.map_err(failed)?;
            }
            transaction.commit().await.map_err(failed)
        };
        tokio::time::timeout(MIGRATION_TIMEOUT, migration).await.unwrap_or_else(|_| Err(too_late()))
    }

    async fn call(&self, statement: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Answer>, RegistryError> {
        let call = async {
            let client = self.shared.pool.get().await.map_err(no_connection)?;
            let statement = client.prepare_cached(statement).await.map_err(failed)?;
            let rows = client.query(&statement, parameters).await.map_err(failed)?;
            rows.iter().map(Answer::of).collect::<Result<Vec<_>, _>>().map_err(failed)
        };
        tokio::time::timeout(TIMEOUT, call).await.unwrap_or_else(|_| Err(too_late()))
    }

    async fn call_for_one(&self, statement: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Answer, RegistryError> {
        let mut answers = self.call(statement, parameters).await?;
        answers.pop().ok_or_else(|| unexpected("nothing"))
    }

    fn read(&self, answer: &Answer) -> Option<Arc<SessionRecord>> {
        let key = SessionKey::from_bytes(answer.key.as_deref()?.try_into().ok()?);
        let version = Version::from_number(answer.version?.try_into().ok()?);
        let record = self.shared.codec.decode(&key, version, answer.record.as_deref()?);
        record.inspect_err(|error| tracing::warn!(%error)).ok().map(Arc::new)
    }

    fn read_all(&self, answers: &[Answer]) -> Vec<Arc<SessionRecord>> {
        answers.iter().filter_map(|answer| self.read(answer)).collect()
    }

    /// Calls one of the two functions that write a record; `version` is the one that is there.
    async fn write(
        &self,
        statement: &str,
        record: &SessionRecord,
        version: Version,
        now: SystemTime,
    ) -> Result<Answer, RegistryError> {
        let registration = record.registration();
        let sid = record.sid().map(|sid| name_of(Kind::Sid, registration, sid.as_str()).to_vec());
        let subject = name_of(Kind::Subject, registration, record.subject().as_str());
        let bytes = self.shared.codec.encode(record)?;
        self.call_for_one(
            statement,
            &[
                &record.key().as_bytes().as_slice(),
                &bigint(version.number()),
                &sid,
                &subject.as_slice(),
                &bigint(millis(record.issued_at())),
                &bigint(millis(record.expires_at())),
                &bytes,
                &bigint(millis(now)),
                &tolerance(),
            ],
        )
        .await
    }
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

fn bigint(number: u64) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

fn in_millis(duration: Duration) -> i64 {
    duration.as_millis().try_into().unwrap_or(i64::MAX)
}

fn tolerance() -> i64 {
    in_millis(TOMBSTONE_TOLERANCE)
}

/// Until when an end that happens now is remembered.
fn remembered_until(now: SystemTime) -> i64 {
    bigint(millis(now + TOMBSTONE_RETENTION))
}

fn too_late() -> RegistryError {
    RegistryError::new("PostgreSQL did not answer in time")
}

fn unexpected(what: &str) -> RegistryError {
    RegistryError::new(format!("PostgreSQL gave an unexpected answer: {what}"))
}

fn no_connection(error: PoolError) -> RegistryError {
    match error {
        PoolError::Backend(error) => failed(error),
        error => RegistryError::with_source("no connection to PostgreSQL", error),
    }
}

fn failed(error: tokio_postgres::Error) -> RegistryError {
    // Of an error of the database only the message: details may quote values.
    match error.as_db_error() {
        Some(db) => RegistryError::new(format!("PostgreSQL failed: {} ({})", db.message(), db.code().code())),
        None => RegistryError::with_source("PostgreSQL failed", error),
    }
}

#[async_trait]
impl SessionRegistry for PostgresRegistry {
    async fn create(&self, record: SessionRecord, now: SystemTime) -> Result<Created, RegistryError> {
        let answer = self.write(&self.shared.statements.create, &record, record.version(), now).await?;
        match answer.word.as_str() {
            "covered" => Ok(Created::Covered),
            "created" => Ok(Created::Created),
            "exists" => Ok(Created::Exists),
            word => Err(unexpected(word)),
        }
    }

    async fn load(&self, key: &SessionKey) -> Result<Loaded, RegistryError> {
        let answers = self.call(&self.shared.statements.load, &[&key.as_bytes().as_slice()]).await?;
        let Some(answer) = answers.first() else { return Ok(Loaded::Unknown) };
        Ok(match answer.word.as_str() {
            "live" => self.read(answer).map_or(Loaded::Unknown, Loaded::Live),
            reason => reason.parse().map_or(Loaded::Unknown, Loaded::Ended),
        })
    }

    async fn claim_refresh(&self, key: &SessionKey, version: Version, lease: Lease) -> Result<Claimed, RegistryError> {
        let holder = lease.holder.number().to_string();
        let version = bigint(version.number());
        let parameters: &[&(dyn ToSql + Sync)] =
            &[&key.as_bytes().as_slice(), &version, &holder, &in_millis(lease.duration)];
        let answer = self.call_for_one(&self.shared.statements.claim, parameters).await?;
        Ok(match answer.word.as_str() {
            "granted" => Claimed::Granted,
            "held" => Claimed::Held,
            "changed" => self.read(&answer).map_or(Claimed::Gone(None), Claimed::Changed),
            reason => Claimed::Gone(reason.parse().ok()),
        })
    }

    async fn release_refresh(&self, key: &SessionKey, holder: LeaseHolder) -> Result<(), RegistryError> {
        let holder = holder.number().to_string();
        self.call(&self.shared.statements.release, &[&key.as_bytes().as_slice(), &holder]).await.map(drop)
    }

    async fn commit(&self, mut record: SessionRecord, now: SystemTime) -> Result<Committed, RegistryError> {
        let old = record.version();
        record.version = old.next();
        let answer = self.write(&self.shared.statements.commit, &record, old, now).await?;
        Ok(match answer.word.as_str() {
            "committed" => Committed::Committed(Arc::new(record)),
            "stale" => self.read(&answer).map_or(Committed::Gone(None), Committed::Stale),
            reason => Committed::Gone(reason.parse().ok()),
        })
    }

    async fn end(
        &self,
        key: &SessionKey,
        reason: EndReason,
        now: SystemTime,
    ) -> Result<Option<Arc<SessionRecord>>, RegistryError> {
        let parameters: &[&(dyn ToSql + Sync)] =
            &[&key.as_bytes().as_slice(), &reason.as_str(), &remembered_until(now)];
        let answers = self.call(&self.shared.statements.end, parameters).await?;
        Ok(self.read_all(&answers).pop())
    }

    async fn end_matching(
        &self,
        target: &LogoutTarget,
        reason: EndReason,
        now: SystemTime,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        let (reason, until) = (reason.as_str(), remembered_until(now));
        let answers = match target {
            LogoutTarget::Sid { registration, sid, subject, issued_at } => {
                let sid = name_of(Kind::Sid, registration, sid.as_str()).to_vec();
                let subject =
                    subject.as_ref().map(|subject| name_of(Kind::Subject, registration, subject.as_str()).to_vec());
                let issued_at = bigint(millis(*issued_at));
                let parameters: &[&(dyn ToSql + Sync)] = &[&sid, &subject, &issued_at, &tolerance(), &reason, &until];
                self.call(&self.shared.statements.end_by_sid, parameters).await?
            }
            LogoutTarget::Subject { registration, subject, issued_at } => {
                let subject = name_of(Kind::Subject, registration, subject.as_str()).to_vec();
                let issued_at = bigint(millis(*issued_at));
                let parameters: &[&(dyn ToSql + Sync)] = &[&subject, &issued_at, &tolerance(), &reason, &until];
                self.call(&self.shared.statements.end_by_subject, parameters).await?
            }
        };
        Ok(self.read_all(&answers))
    }

    async fn remove_expired(&self, now: SystemTime) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        let (now, batch) = (bigint(millis(now)), bigint(BATCH as u64));
        let mut removed = Vec::new();
        loop {
            let answers = self.call(&self.shared.statements.remove_expired, &[&now, &batch]).await?;
            removed.append(&mut self.read_all(&answers));
            if answers.len() < BATCH {
                return Ok(removed);
            }
        }
    }

    fn subscribe(&self, listener: EndListener) {
        self.shared.listeners.write().unwrap_or_else(PoisonError::into_inner).push(listener);
    }
}

impl Shared {
    fn notify(&self, notice: EndNotice) {
        let listeners = self.listeners.read().unwrap_or_else(PoisonError::into_inner);
        for listener in listeners.iter() {
            listener(notice);
        }
    }
}

/// Hears of ends on other replicas for as long as the registry is in use.
async fn listen(shared: Weak<Shared>) {
    loop {
        let Some((config, tls, schema)) =
            shared.upgrade().map(|shared| (shared.config.clone(), shared.tls.clone(), shared.schema.clone()))
        else {
            return;
        };
        if let Err(error) = hear(&shared, &config, tls, &schema).await {
            tracing::warn!(%error, "no notices of ends from other replicas at the moment");
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

async fn hear(
    shared: &Weak<Shared>,
    config: &Config,
    tls: MakeRustlsConnect,
    schema: &str,
) -> Result<(), tokio_postgres::Error> {
    let (client, mut connection) = config.connect(tls).await?;
    let mut messages = std::pin::pin!(stream::poll_fn(move |cx| connection.poll_message(cx)));
    let command = format!("LISTEN {schema}");
    let mut command = std::pin::pin!(client.batch_execute(&command));
    let mut is_listening = false;
    loop {
        // The answer to the command comes through the same stream, which has to be polled for it.
        let message = if is_listening {
            messages.next().await
        } else {
            match futures_util::future::select(command.as_mut(), messages.next()).await {
                futures_util::future::Either::Left((done, _)) => {
                    done?;
                    is_listening = true;
                    // What was published while nobody listened is lost.
                    match shared.upgrade() {
                        Some(shared) => shared.notify(EndNotice::Missed),
                        None => return Ok(()),
                    }
                    continue;
                }
                futures_util::future::Either::Right((message, _)) => message,
            }
        };
        let Some(message) = message else { return Ok(()) };
        let AsyncMessage::Notification(notification) = message? else { continue };
        let Some(shared) = shared.upgrade() else { return Ok(()) };
        let notice = notification
            .payload()
            .split_once(' ')
            .and_then(|(key, reason)| Some(EndNotice::Ended(SessionKey::from_hex(key)?, reason.parse().ok()?)));
        shared.notify(notice.unwrap_or(EndNotice::Missed));
    }
}

impl fmt::Debug for PostgresRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresRegistry").field("schema", &self.shared.schema).finish_non_exhaustive()
    }
}
