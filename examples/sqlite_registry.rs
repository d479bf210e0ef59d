//! Sessions in a file: a registry on `SQLite`, for an application on one machine whose users stay signed in over its restarts.
//! Written with the public items of the crate alone; copy it, or read it to write one for a store of your own.
//!
//!     OIDC_ISSUER=… OIDC_CLIENT_ID=… OIDC_CLIENT_SECRET=… cargo run --example sqlite_registry
//!
//! Several processes of one machine may share the file: each sees the ends of the others at its next look, and streams
//! within [`trust`](SessionRegistry::trust).

#![allow(
    clippy::print_stdout,
    clippy::wildcard_imports,
    reason = "a program talks to its user; a store needs most of it"
)]

use std::env;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::routing::get;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use tower_oidc_session::registry::rules::{self, ClaimRule, CommitRule, CreateRule, Held, Key, Tombstone};
use tower_oidc_session::registry::*;
use tower_oidc_session::{ClientCredentials, Clock, EndReason, OidcSession, Registration, RelyingParty, SystemClock};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    let client = ClientCredentials::secret(env::var("OIDC_CLIENT_ID")?, env::var("OIDC_CLIENT_SECRET")?);
    let rp = RelyingParty::builder(env::var("OIDC_ISSUER")?, client, "http://127.0.0.1:3000")
        .registry(SqliteRegistry::open("sessions.db", [])?)
        .build()?;
    let app = Router::new()
        .route("/", get(async |session: OidcSession| format!("You are {}.", session.subject())))
        .route_layer(rp.require_session())
        .merge(rp.routes())
        .layer(rp.layer());
    println!("http://127.0.0.1:3000");
    Ok(axum::serve(listener, app).await?)
}

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000;
    CREATE TABLE IF NOT EXISTS session (
        key BLOB PRIMARY KEY, version INTEGER NOT NULL, sid TEXT, subject TEXT NOT NULL, issued_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL, record BLOB NOT NULL, lease_holder BLOB, lease_until INTEGER, lease_contested INTEGER);
    CREATE INDEX IF NOT EXISTS session_sid ON session (sid);
    CREATE INDEX IF NOT EXISTS session_subject ON session (subject);
    CREATE INDEX IF NOT EXISTS session_expires_at ON session (expires_at);
    CREATE TABLE IF NOT EXISTS ended (key BLOB PRIMARY KEY, reason TEXT NOT NULL, subject BLOB NOT NULL, until INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS tombstone (name TEXT PRIMARY KEY, tokens TEXT NOT NULL, arrived INTEGER NOT NULL, until INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS spent (attempt BLOB PRIMARY KEY, until INTEGER NOT NULL);";

/// Sessions in an `SQLite` database. Clones share the connection.
#[derive(Clone)]
pub struct SqliteRegistry {
    connection: Arc<Mutex<Connection>>,
    codec: Arc<Codec>,
    listeners: Arc<Mutex<Vec<EndListener>>>,
}

impl fmt::Debug for SqliteRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteRegistry").finish_non_exhaustive()
    }
}

type Result<T, E = RegistryError> = std::result::Result<T, E>;

fn failed(error: rusqlite::Error) -> RegistryError {
    RegistryError::with_source("SQLite", error)
}

/// Times are kept in milliseconds.
fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(i64::MAX)
}

fn time(millis: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis.unsigned_abs())
}

/// The name of a `sid` or subject of a registration, as an index has it.
fn name(kind: &str, registration: &Registration, name: &str) -> String {
    serde_json::json!([kind, registration.issuer().as_str(), registration.client_id().as_str(), name]).to_string()
}

fn name_of_sid(record: &SessionRecord) -> Option<String> {
    record.sid().map(|sid| name("sid", record.registration(), sid.as_str()))
}

fn name_of_subject(record: &SessionRecord) -> String {
    name("sub", record.registration(), record.subject().as_str())
}

impl SqliteRegistry {
    /// Opens the database, which is made if it is not there. With keys, records are encrypted.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: impl AsRef<Path>, keys: impl IntoIterator<Item = StorageKey>) -> Result<Self> {
        let connection = Connection::open(path).map_err(failed)?;
        connection.execute_batch(SCHEMA).map_err(failed)?;
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
            codec: Arc::new(Codec::new(keys)),
            listeners: Arc::default(),
        })
    }

    /// Does something in a transaction, which is on the disk when this returns. It is finished without the caller.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Store<'_>) -> Result<T> + Send + 'static) -> Result<T> {
        let (connection, codec) = (self.connection.clone(), self.codec.clone());
        let done = tokio::task::spawn_blocking(move || {
            // A transaction that failed was rolled back, so a panic leaves nothing half done.
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
            let store = Store { transaction, codec: &codec, here: SystemClock.now() };
            let result = work(&store)?;
            store.transaction.commit().map_err(failed)?;
            Ok(result)
        });
        done.await.map_err(|error| RegistryError::with_source("the task of SQLite", error))?
    }

    fn publish(&self, ended: &[Arc<SessionRecord>], reason: impl Fn(&SessionRecord) -> EndReason) {
        for record in ended {
            for listener in self.listeners.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                listener(EndNotice::Ended(*record.key(), reason(record)));
            }
        }
    }
}

/// The database within a transaction.
struct Store<'a> {
    transaction: Transaction<'a>,
    codec: &'a Codec,
    here: SystemTime,
}

impl Store<'_> {
    fn change(&self, sql: &str, values: impl rusqlite::Params) -> Result<usize> {
        self.transaction.prepare_cached(sql).and_then(|mut statement| statement.execute(values)).map_err(failed)
    }

    fn one<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        let mut statement = self.transaction.prepare_cached(sql).map_err(failed)?;
        statement.query_row(values, read).optional().map_err(failed)
    }

    fn keys(&self, sql: &str, values: impl rusqlite::Params) -> Result<Vec<SessionKey>> {
        let mut statement = self.transaction.prepare_cached(sql).map_err(failed)?;
        let keys = statement.query_map(values, |row| row.get(0).map(SessionKey::from_bytes)).map_err(failed)?;
        keys.collect::<rusqlite::Result<_>>().map_err(failed)
    }

    /// A live session, and the state of its lease.
    fn find(&self, key: &SessionKey) -> Result<Option<(SessionRecord, Option<Held<u128>>)>> {
        let sql = "SELECT version, record, lease_holder, lease_until, lease_contested FROM session WHERE key = ?";
        let read = |row: &rusqlite::Row<'_>| {
            let (version, bytes): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
            let lease: (Option<[u8; 16]>, Option<i64>, Option<i64>) = (row.get(2)?, row.get(3)?, row.get(4)?);
            Ok((Version::from_number(version.unsigned_abs()), bytes, lease))
        };
        let Some((version, bytes, (holder, until, contested))) = self.one(sql, [key.as_bytes()], read)? else {
            return Ok(None);
        };
        let held = holder.map(u128::from_be_bytes).zip(until).and_then(|(holder, until)| match contested {
            _ if self.here < time(until) => Some(Held::Running(holder)),
            None => Some(Held::Lapsed(holder)),
            Some(since) if self.here < time(since) + LAPSE_GRACE => Some(Held::Contested(holder)),
            Some(_) => None,
        });
        Ok(Some((self.codec.decode(key, version, &bytes)?, held)))
    }

    fn live(&self, key: &SessionKey) -> Result<Option<SessionRecord>> {
        Ok(self.find(key)?.map(|(record, _)| record))
    }

    fn mark(&self, key: &SessionKey) -> Result<Option<EndMark>> {
        let sql = "SELECT reason, subject FROM ended WHERE key = ? AND until > ?";
        let row = self
            .one(sql, params![key.as_bytes(), millis(self.here)], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
        row.map(|(reason, subject)| {
            let reason = reason.parse().map_err(|error| RegistryError::with_source("why a session ended", error))?;
            Ok(EndMark { reason, subject: Some(SubjectHash::from_bytes(subject)) })
        })
        .transpose()
    }

    fn reason(&self, key: &SessionKey) -> Result<Option<EndReason>> {
        Ok(self.mark(key)?.map(|mark| mark.reason))
    }

    fn write(&self, record: &SessionRecord, expires_at: SystemTime) -> Result<()> {
        let sql = "REPLACE INTO session VALUES (?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL)";
        let (sid, subject) = (name_of_sid(record), name_of_subject(record));
        let version = i64::try_from(record.version().number()).unwrap_or(i64::MAX);
        let (issued_at, expires_at) = (millis(record.issued_at()), millis(expires_at));
        let bytes = self.codec.encode(record)?;
        let values = params![record.key().as_bytes(), version, sid, subject, issued_at, expires_at, bytes];
        self.change(sql, values).map(drop)
    }

    fn end(&self, key: &SessionKey, reason: EndReason) -> Result<Option<Arc<SessionRecord>>> {
        let Some(record) = self.live(key)? else { return Ok(None) };
        self.change("DELETE FROM session WHERE key = ?", [key.as_bytes()])?;
        let (subject, until) = (record.subject_hash(), millis(self.here + END_MARK_RETENTION));
        let values = params![key.as_bytes(), reason.as_str(), subject.as_bytes(), until];
        self.change("REPLACE INTO ended VALUES (?, ?, ?, ?)", values)?;
        Ok(Some(Arc::new(record)))
    }

    fn tombstone(&self, name: &str) -> Result<Option<Tombstone>> {
        let sql = "SELECT tokens, arrived FROM tombstone WHERE name = ? AND until > ?";
        let row = self.one(sql, params![name, millis(self.here)], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
        row.map(|(tokens, arrived)| {
            let tokens: Option<(i64, Vec<String>)> =
                serde_json::from_str(&tokens).map_err(|error| RegistryError::with_source("a tombstone", error))?;
            let latest =
                tokens.map(|(issued_at, ids)| (time(issued_at), ids.iter().filter_map(|id| id.parse().ok()).collect()));
            Ok(Tombstone { arrived: time(arrived), latest })
        })
        .transpose()
    }

    fn bury(&self, name: &str, token: Option<&TokenMark>) -> Result<()> {
        // To the millisecond, as it is kept.
        let here = time(millis(self.here));
        let Tombstone { arrived, latest } = Tombstone::after(self.tombstone(name)?, token, here);
        let until = millis(Tombstone { arrived, latest: None }.until());
        let tokens =
            latest.map(|(issued_at, ids)| (millis(issued_at), ids.iter().map(u128::to_string).collect::<Vec<_>>()));
        let tokens = serde_json::json!(tokens).to_string();
        self.change("REPLACE INTO tombstone VALUES (?, ?, ?, ?)", params![name, tokens, millis(arrived), until])
            .map(drop)
    }

    /// When the logouts arrived that name the session.
    fn arrivals(&self, record: &SessionRecord) -> Result<Vec<SystemTime>> {
        let without_sid = || name("without sid", record.registration(), record.subject().as_str());
        let names = [name_of_subject(record), name_of_sid(record).unwrap_or_else(without_sid)];
        let found = names.iter().map(|name| self.tombstone(name)).collect::<Result<Vec<_>>>()?;
        Ok(found.into_iter().flatten().map(|tombstone| tombstone.arrived).collect())
    }

    fn end_matching(&self, target: &LogoutTarget, reason: EndReason, buries: bool) -> Result<Vec<Arc<SessionRecord>>> {
        let latest = |latest: Option<SystemTime>| latest.map_or(i64::MAX, millis);
        let reach = rules::reach(target);
        let (names, sql, until) = match target {
            LogoutTarget::Sid { registration, sid, subject, .. } => {
                let of_sid = name("sid", registration, sid.as_str());
                let is_known = self.one("SELECT 1 FROM session WHERE sid = ?", [&of_sid], |_| Ok(()))?.is_some();
                match subject {
                    // No later logout token could reach those.
                    Some(subject) if !is_known => {
                        let widened = name("without sid", registration, subject.as_str());
                        let of_subject = name("sub", registration, subject.as_str());
                        let sql = "SELECT key FROM session WHERE subject = ? AND sid IS NULL AND issued_at <= ?";
                        (vec![of_subject, of_sid, widened], sql, latest(reach.by_subject))
                    }
                    _ => {
                        let sql = "SELECT key FROM session WHERE sid = ? AND issued_at <= ?";
                        (vec![of_sid.clone(), of_sid], sql, latest(reach.by_sid))
                    }
                }
            }
            LogoutTarget::Subject { registration, subject, .. } => {
                let of_subject = name("sub", registration, subject.as_str());
                let sql = "SELECT key FROM session WHERE subject = ? AND issued_at <= ?";
                (vec![of_subject.clone(), of_subject], sql, latest(reach.by_subject))
            }
            _ => return Err(RegistryError::new("a logout of a kind that is not known here")),
        };
        let Some((searched, tombstones)) = names.split_first() else { return Ok(Vec::new()) };
        for name in tombstones.iter().filter(|_| buries) {
            self.bury(name, target.token())?;
        }
        let keys = self.keys(sql, params![searched, until])?;
        keys.iter().filter_map(|key| self.end(key, reason).transpose()).collect()
    }

    fn claim(&self, key: &SessionKey, version: Version, lease: Lease) -> Result<Claimed> {
        let found = self.find(key)?;
        let holder = lease.holder.number();
        let stored = found.as_ref().map(|(record, held)| (record.version(), *held));
        Ok(match rules::claim(stored, version, &holder) {
            ClaimRule::Grant => {
                let sql = "UPDATE session SET lease_holder = ?, lease_until = ?, lease_contested = NULL WHERE key = ?";
                let until = millis(self.here + lease.duration);
                self.change(sql, params![holder.to_be_bytes(), until, key.as_bytes()])?;
                Claimed::Granted
            }
            ClaimRule::Contest => {
                let sql = "UPDATE session SET lease_contested = ? WHERE key = ?";
                self.change(sql, params![millis(self.here), key.as_bytes()])?;
                Claimed::Held
            }
            ClaimRule::Held => Claimed::Held,
            ClaimRule::Changed => found.map_or(Claimed::Gone(None), |(record, _)| Claimed::Changed(Arc::new(record))),
            ClaimRule::Gone => Claimed::Gone(self.reason(key)?),
        })
    }

    fn commit(&self, record: SessionRecord, now: SystemTime) -> Result<Committed> {
        let stored = self.live(record.key())?;
        let rule = rules::commit(stored.as_ref().map(SessionRecord::version), record.version());
        let stored = match (rule, stored) {
            (CommitRule::Commit, Some(stored)) => stored,
            (CommitRule::Stale, Some(stored)) => return Ok(Committed::Stale(Arc::new(stored))),
            _ => return Ok(Committed::Gone(self.reason(record.key())?)),
        };
        if let Some(sid) = name_of_sid(&record).filter(|_| stored.sid() != record.sid())
            && self.tombstone(&sid)?.is_some()
        {
            return Ok(Committed::Gone(Some(EndReason::BackChannelLogout)));
        }
        let version = record.version().next();
        let record = record.with_version(version);
        self.write(&record, self.here + record.time_left(now))?;
        Ok(Committed::Committed(Arc::new(record)))
    }
}

#[async_trait]
impl SessionRegistry for SqliteRegistry {
    async fn time(&self) -> Result<SystemTime> {
        Ok(SystemClock.now())
    }

    async fn spend(&self, attempt: &AttemptKey) -> Result<Spent> {
        let attempt = *attempt;
        self.run(move |store| {
            let until = millis(store.here + SPENT_RETENTION);
            let new = store.change("INSERT OR IGNORE INTO spent VALUES (?, ?)", params![attempt.as_bytes(), until])?;
            Ok(if new == 1 { Spent::Now } else { Spent::Before })
        })
        .await
    }

    async fn create(&self, record: SessionRecord, attempt: LoginAttempt, now: SystemTime) -> Result<Created> {
        self.run(move |store| {
            let is_taken = store.live(record.key())?.is_some() || store.mark(record.key())?.is_some();
            let key = if is_taken { Key::Taken } else { Key::Free };
            Ok(match rules::create(key, attempt, store.arrivals(&record)?) {
                CreateRule::Covered(arrived) => Created::Covered(arrived),
                CreateRule::Exists => Created::Exists,
                CreateRule::Create => {
                    store.write(&record, store.here + record.time_left(now))?;
                    Created::Created
                }
            })
        })
        .await
    }

    async fn load(&self, key: &SessionKey) -> Result<Loaded> {
        let key = *key;
        self.run(move |store| {
            Ok(match (store.live(&key)?, store.mark(&key)?) {
                (Some(record), _) => Loaded::Live(Arc::new(record)),
                (None, Some(mark)) => Loaded::Ended(mark),
                (None, None) => Loaded::Unknown,
            })
        })
        .await
    }

    async fn has_sibling(&self, record: &SessionRecord) -> Result<bool> {
        let (key, sid, subject) = (*record.key(), name_of_sid(record), name_of_subject(record));
        self.run(move |store| {
            let sql = "SELECT 1 FROM session WHERE key <> ?1 AND (sid = ?2 OR (?2 IS NULL AND subject = ?3)) LIMIT 1";
            Ok(store.one(sql, params![key.as_bytes(), sid, subject], |_| Ok(()))?.is_some())
        })
        .await
    }

    async fn claim_refresh(&self, key: &SessionKey, version: Version, lease: Lease) -> Result<Claimed> {
        let key = *key;
        self.run(move |store| store.claim(&key, version, lease)).await
    }

    async fn release_refresh(&self, key: &SessionKey, holder: LeaseHolder) -> Result<()> {
        let key = *key;
        self.run(move |store| {
            let sql = "UPDATE session SET lease_holder = NULL WHERE key = ? AND lease_holder = ?";
            store.change(sql, params![key.as_bytes(), holder.number().to_be_bytes()]).map(drop)
        })
        .await
    }

    async fn commit(&self, record: SessionRecord, now: SystemTime) -> Result<Committed> {
        self.run(move |store| store.commit(record, now)).await
    }

    async fn end(&self, key: &SessionKey, reason: EndReason) -> Result<Option<Arc<SessionRecord>>> {
        let key = *key;
        let ended = self.run(move |store| store.end(&key, reason)).await?;
        self.publish(ended.as_slice(), |_| reason);
        Ok(ended)
    }

    async fn end_matching(
        &self,
        target: &LogoutTarget,
        reason: EndReason,
        now: SystemTime,
    ) -> Result<Vec<Arc<SessionRecord>>> {
        let target = target.clone();
        let end = move |store: &Store<'_>| {
            // By the process's clock and by ours, one of which may be ahead.
            let buries = rules::leaves_tombstone(target.token(), now.min(store.here));
            store.end_matching(&target, reason, buries)
        };
        let ended = self.run(end).await?;
        self.publish(&ended, |_| reason);
        Ok(ended)
    }

    async fn remove_expired(&self) -> Result<Vec<Arc<SessionRecord>>> {
        let remove = |store: &Store<'_>| {
            for table in ["ended", "tombstone", "spent"] {
                store.change(&format!("DELETE FROM {table} WHERE until <= ?"), [millis(store.here)])?;
            }
            let keys = store.keys("SELECT key FROM session WHERE expires_at <= ?", [millis(store.here)])?;
            let mut removed = Vec::new();
            for key in keys {
                let Some(record) = store.live(&key)? else { continue };
                removed.extend(store.end(&key, record.expires_for())?);
            }
            Ok(removed)
        };
        let removed = self.run(remove).await?;
        self.publish(&removed, SessionRecord::expires_for);
        Ok(removed)
    }

    fn subscribe(&self, listener: EndListener) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
    }
}
