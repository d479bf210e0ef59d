//! Sessions in a file: a registry on `SQLite`, for an application on one machine whose users stay signed in over its restarts.
//! Written with the public items of the crate alone; copy it, or read it to write one for a store of your own.
//!
//!     STORAGE_KEY=$(openssl rand -base64 32) COOKIE_KEY=$(openssl rand -base64 64) \
//!     OIDC_ISSUER=… OIDC_CLIENT_ID=… OIDC_CLIENT_SECRET=… cargo run --example sqlite_registry
//!
//! Processes of one machine may share the file, once one has made it: each sees ends of others at its next look.

#![allow(clippy::missing_errors_doc, clippy::print_stdout, clippy::wildcard_imports, reason = "an example")]

use std::env;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::routing::get;
use rusqlite::{Connection, OptionalExtension, Params, Row, Transaction, TransactionBehavior, params};
use tokio::sync::Mutex;
use tower_oidc_session::registry::rules::{self, ClaimRule, CommitRule, CreateRule, Held, Key, Tombstone};
use tower_oidc_session::registry::*;
use tower_oidc_session::{ClientCredentials, Clock, CookieKey, EndReason, OidcSession, RelyingParty, SystemClock};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = ClientCredentials::secret(env::var("OIDC_CLIENT_ID")?, env::var("OIDC_CLIENT_SECRET")?);
    let rp = RelyingParty::builder(env::var("OIDC_ISSUER")?, client, "http://127.0.0.1:3000")
        .registry(SqliteRegistry::open("sessions.db", [StorageKey::from_base64(&env::var("STORAGE_KEY")?)?])?)
        .cookie_key(CookieKey::from_base64(&env::var("COOKIE_KEY")?)?)
        .build()?;
    let app = Router::new()
        .route("/", get(async |session: OidcSession| format!("You are {}.", session.subject())))
        .route_layer(rp.require_session())
        .merge(rp.routes())
        .layer(rp.layer());
    println!("http://127.0.0.1:3000");
    Ok(axum::serve(tokio::net::TcpListener::bind("127.0.0.1:3000").await?, app).await?)
}

/// Times are in milliseconds, names are hashes: who reads the file learns nobody's.
const SCHEMA: &str = "
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS session (
        key BLOB PRIMARY KEY, version INTEGER NOT NULL, sid BLOB, subject BLOB NOT NULL, issued_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL, record BLOB NOT NULL, lease_holder BLOB, lease_until INTEGER, lease_contested INTEGER);
    CREATE INDEX IF NOT EXISTS session_sid ON session (sid);
    CREATE INDEX IF NOT EXISTS session_subject ON session (subject);
    CREATE INDEX IF NOT EXISTS session_expires_at ON session (expires_at);
    CREATE TABLE IF NOT EXISTS ended (key BLOB PRIMARY KEY, mark TEXT NOT NULL, until INTEGER NOT NULL);
    CREATE INDEX IF NOT EXISTS ended_until ON ended (until);
    CREATE TABLE IF NOT EXISTS tombstone (name BLOB PRIMARY KEY, tombstone TEXT NOT NULL, until INTEGER NOT NULL);
    CREATE INDEX IF NOT EXISTS tombstone_until ON tombstone (until);
    CREATE TABLE IF NOT EXISTS spent (attempt BLOB PRIMARY KEY, until INTEGER NOT NULL);
    CREATE INDEX IF NOT EXISTS spent_until ON spent (until);";
const BATCH: usize = 200;

/// Sessions in an `SQLite` database. Clones share the connection.
#[derive(Clone, Debug)]
pub struct SqliteRegistry {
    connection: Arc<Mutex<Connection>>,
    codec: Arc<Codec>,
    listeners: Arc<Listeners>,
}

type Result<T, E = RegistryError> = std::result::Result<T, E>;
type Ended = Vec<Arc<SessionRecord>>;

fn failed(error: rusqlite::Error) -> RegistryError {
    RegistryError::with_source("SQLite", error)
}

fn unreadable(error: serde_json::Error) -> RegistryError {
    RegistryError::with_source("SQLite has what cannot be read", error)
}

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(i64::MAX)
}

fn time(millis: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis.unsigned_abs())
}

type Name = [u8; 32];

fn name_of_sid(record: &SessionRecord) -> Option<Name> {
    record.sid().map(|sid| hash_of_sid(record.registration(), sid))
}

/// The tombstone of those sessions of a subject that have no `sid`.
fn without_sid(subject: Name) -> Name {
    subject.map(|byte| !byte)
}

impl SqliteRegistry {
    /// Opens the database, which is made if it is not there. With keys, records are encrypted.
    pub fn open(path: impl AsRef<std::path::Path>, keys: impl IntoIterator<Item = StorageKey>) -> Result<Self> {
        let connection = Connection::open(path).map_err(failed)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        connection.execute_batch(SCHEMA).map_err(failed)?;
        let codec = Arc::new(Codec::new(keys));
        Ok(Self { connection: Arc::new(Mutex::new(connection)), codec, listeners: Arc::default() })
    }

    /// Does something in a transaction, which is on the disk when this returns, and finished without the caller once it has
    /// begun. Ends are told of then.
    async fn run<T: Send + 'static>(
        &self,
        behavior: TransactionBehavior,
        work: impl FnOnce(&Store<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (codec, listeners) = (self.codec.clone(), self.listeners.clone());
        let mut connection = self.connection.clone().lock_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let transaction = connection.transaction_with_behavior(behavior).map_err(failed)?;
            let store = Store { transaction, codec: &codec, here: SystemClock.now(), notices: Vec::new().into() };
            let result = work(&store)?;
            store.transaction.commit().map_err(failed)?;
            store.notices.into_inner().into_iter().for_each(|notice| listeners.tell(notice));
            Ok(result)
        });
        done.await.map_err(|error| RegistryError::with_source("the task of SQLite", error))?
    }

    async fn read<T: Send + 'static>(&self, work: impl FnOnce(&Store<'_>) -> Result<T> + Send + 'static) -> Result<T> {
        self.run(TransactionBehavior::Deferred, work).await
    }

    /// The live sessions among those whose keys are found by a hash.
    async fn list(&self, sql: &'static str, hash: [u8; 32]) -> Result<Ended> {
        let list = move |store: &Store<'_>| {
            let keys = store.keys(sql, [hash])?;
            keys.iter().filter_map(|key| store.live(key).map(|found| found.map(Arc::new)).transpose()).collect()
        };
        self.read(list).await
    }

    async fn write<T: Send + 'static>(&self, work: impl FnOnce(&Store<'_>) -> Result<T> + Send + 'static) -> Result<T> {
        self.run(TransactionBehavior::Immediate, work).await
    }
}

/// The database within a transaction.
struct Store<'a> {
    transaction: Transaction<'a>,
    codec: &'a Codec,
    here: SystemTime,
    notices: std::cell::RefCell<Vec<EndNotice>>,
}

impl Store<'_> {
    fn change(&self, sql: &str, values: impl Params) -> Result<usize> {
        self.transaction.prepare_cached(sql).and_then(|mut statement| statement.execute(values)).map_err(failed)
    }

    fn one<T>(&self, sql: &str, values: impl Params, read: fn(&Row<'_>) -> rusqlite::Result<T>) -> Result<Option<T>> {
        let mut statement = self.transaction.prepare_cached(sql).map_err(failed)?;
        statement.query_row(values, read).optional().map_err(failed)
    }

    fn keys(&self, sql: &str, values: impl Params) -> Result<Vec<SessionKey>> {
        let mut statement = self.transaction.prepare_cached(sql).map_err(failed)?;
        let keys = statement.query_map(values, |row| row.get(0).map(SessionKey::from_bytes)).map_err(failed)?;
        keys.collect::<rusqlite::Result<_>>().map_err(failed)
    }

    /// A live session, and the state of its lease.
    fn find(&self, key: &SessionKey) -> Result<Option<(SessionRecord, Option<Held<u128>>)>> {
        let sql = "SELECT version, record, lease_holder, lease_until, lease_contested FROM session WHERE key = ?";
        let found = self.one(sql, [key.as_bytes()], |row| {
            let lease: (Option<[u8; 16]>, Option<i64>, Option<i64>) = (row.get(2)?, row.get(3)?, row.get(4)?);
            Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?, lease))
        })?;
        let Some((version, bytes, (holder, until, contested))) = found else { return Ok(None) };
        let record = self.codec.decode(key, Version::from_number(version.unsigned_abs()), &bytes)?;
        let lease = holder.map(u128::from_be_bytes).zip(until.map(time));
        Ok(Some((record, lease.and_then(|(holder, until)| Held::at(self.here, holder, until, contested.map(time))))))
    }

    fn live(&self, key: &SessionKey) -> Result<Option<SessionRecord>> {
        Ok(self.find(key)?.map(|(record, _)| record))
    }

    fn mark(&self, key: &SessionKey) -> Result<Option<EndMark>> {
        let sql = "SELECT mark FROM ended WHERE key = ? AND until > ?";
        let mark = self.one(sql, params![key.as_bytes(), millis(self.here)], |row| row.get::<_, String>(0))?;
        mark.map(|mark| serde_json::from_str(&mark).map_err(unreadable)).transpose()
    }

    fn store(&self, record: &SessionRecord, expires_at: SystemTime) -> Result<()> {
        let sql = "REPLACE INTO session VALUES (?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL)";
        let (sid, subject) = (name_of_sid(record), record.subject_hash());
        let version = i64::try_from(record.version().number()).unwrap_or(i64::MAX);
        let (issued_at, expires_at) = (millis(record.issued_at()), millis(expires_at));
        let bytes = self.codec.encode(record)?;
        let values = params![record.key().as_bytes(), version, sid, subject.as_bytes(), issued_at, expires_at, bytes];
        self.change(sql, values).map(drop)
    }

    /// Ends a session, for the reason of its record if none is given. One that cannot be read is gone all the same.
    fn end(&self, key: &SessionKey, reason: Option<EndReason>) -> Result<Option<Arc<SessionRecord>>> {
        let sql = "SELECT subject FROM session WHERE key = ?";
        let Some(subject) = self.one(sql, [key.as_bytes()], |row| row.get(0))? else { return Ok(None) };
        let record = self.live(key).ok().flatten();
        let reason = reason.or(record.as_ref().map(SessionRecord::expires_for)).unwrap_or(EndReason::AbsoluteLifetime);
        self.change("DELETE FROM session WHERE key = ?", [key.as_bytes()])?;
        let mark = EndMark { reason, subject: Some(SubjectHash::from_bytes(subject)) };
        let mark = serde_json::to_string(&mark).map_err(unreadable)?;
        let values = params![key.as_bytes(), mark, millis(self.here + END_MARK_RETENTION)];
        self.change("REPLACE INTO ended VALUES (?, ?, ?)", values)?;
        self.notices.borrow_mut().push(EndNotice::Ended(*key, reason));
        Ok(record.map(Arc::new))
    }

    fn tombstone(&self, name: &Name) -> Result<Option<Tombstone>> {
        let sql = "SELECT tombstone FROM tombstone WHERE name = ? AND until > ?";
        let found = self.one(sql, params![name, millis(self.here)], |row| row.get::<_, String>(0))?;
        found.map(|json| serde_json::from_str(&json).map_err(unreadable)).transpose()
    }

    fn bury(&self, name: &Name, token: Option<&TokenMark>) -> Result<()> {
        let tombstone = Tombstone::after(self.tombstone(name)?, token, self.here);
        let json = serde_json::to_string(&tombstone).map_err(unreadable)?;
        let values = params![name, json, millis(tombstone.until())];
        self.change("REPLACE INTO tombstone VALUES (?, ?, ?)", values).map(drop)
    }

    /// When the logouts arrived that name the session.
    fn arrivals(&self, record: &SessionRecord) -> Result<Vec<SystemTime>> {
        let subject = *record.subject_hash().as_bytes();
        let names = [subject, name_of_sid(record).unwrap_or(without_sid(subject))];
        let found = names.iter().map(|name| self.tombstone(name)).collect::<Result<Vec<_>>>()?;
        Ok(found.iter().flatten().map(Tombstone::arrived).collect())
    }

    fn end_matching(&self, target: &LogoutTarget, reason: EndReason, now: SystemTime) -> Result<Ended> {
        let latest = |latest: Option<SystemTime>| latest.map_or(i64::MAX, millis);
        let reach = rules::reach(target);
        let sid = target.sid().map(|sid| hash_of_sid(target.registration(), sid));
        let subject = target.subject().map(|subject| *SubjectHash::of(target.registration(), subject).as_bytes());
        let known = sid.map(|sid| self.one("SELECT 1 FROM session WHERE sid = ?", [sid], |_| Ok(()))).transpose()?;
        let (names, of, values) = match (sid, subject) {
            // No later logout token could reach those without a sid.
            (Some(sid), Some(subject)) if known.flatten().is_none() => {
                (vec![sid, without_sid(subject)], "sid IS NULL AND subject", (subject, latest(reach.by_subject)))
            }
            (Some(sid), _) => (vec![sid], "sid", (sid, latest(reach.by_sid))),
            (None, Some(subject)) => (vec![subject], "subject", (subject, latest(reach.by_subject))),
            (None, None) => return Err(RegistryError::new("a logout of a kind that is not known here")),
        };
        if rules::leaves_tombstone(target.token(), now, self.here) {
            names.iter().try_for_each(|name| self.bury(name, target.token()))?;
        }
        let keys = self.keys(&format!("SELECT key FROM session WHERE {of} = ? AND issued_at <= ?"), values)?;
        keys.iter().filter_map(|key| self.end(key, Some(reason)).transpose()).collect()
    }

    fn claim(&self, key: &SessionKey, version: Version, lease: Lease) -> Result<Claimed> {
        let found = self.find(key)?;
        let holder = lease.holder.number();
        let stored = found.as_ref().map(|(record, held)| (record.version(), *held));
        Ok(match rules::claim(stored, version, &holder) {
            ClaimRule::Grant => {
                let sql = "UPDATE session SET lease_holder = ?, lease_until = ?, lease_contested = NULL WHERE key = ?";
                self.change(sql, params![holder.to_be_bytes(), millis(self.here + lease.duration), key.as_bytes()])?;
                Claimed::Granted
            }
            ClaimRule::Contest => {
                let sql = "UPDATE session SET lease_contested = ? WHERE key = ?";
                self.change(sql, params![millis(self.here), key.as_bytes()])?;
                Claimed::Held
            }
            ClaimRule::Held => Claimed::Held,
            ClaimRule::Changed => found.map_or(Claimed::Gone(None), |(record, _)| Claimed::Changed(Arc::new(record))),
            ClaimRule::Gone => Claimed::Gone(self.mark(key)?.map(|mark| mark.reason)),
        })
    }

    fn commit(&self, record: SessionRecord, now: SystemTime) -> Result<Committed> {
        let stored = self.live(record.key())?;
        let rule = rules::commit(stored.as_ref().map(SessionRecord::version), record.version());
        let stored = match (rule, stored) {
            (CommitRule::Commit, Some(stored)) => stored,
            (CommitRule::Stale, Some(stored)) => return Ok(Committed::Stale(Arc::new(stored))),
            _ => return Ok(Committed::Gone(self.mark(record.key())?.map(|mark| mark.reason))),
        };
        if let Some(sid) = name_of_sid(&record).filter(|_| stored.sid() != record.sid())
            && self.tombstone(&sid)?.is_some()
        {
            return Ok(Committed::Gone(Some(EndReason::BackChannelLogout)));
        }
        let next = record.version().next();
        let record = record.with_version(next);
        self.store(&record, self.here + record.time_left(now))?;
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
        let spend = move |store: &Store<'_>| {
            let values = params![attempt.as_bytes(), millis(store.here + SPENT_RETENTION)];
            let new = store.change("INSERT OR IGNORE INTO spent VALUES (?, ?)", values)? == 1;
            Ok(if new { Spent::Now } else { Spent::Before })
        };
        self.write(spend).await
    }

    async fn create(&self, record: SessionRecord, attempt: LoginAttempt, now: SystemTime) -> Result<Created> {
        let create = move |store: &Store<'_>| {
            let is_taken = store.live(record.key())?.is_some() || store.mark(record.key())?.is_some();
            let key = if is_taken { Key::Taken } else { Key::Free };
            Ok(match rules::create(key, attempt, store.arrivals(&record)?) {
                CreateRule::Covered(arrived) => Created::Covered(arrived),
                CreateRule::Exists => Created::Exists,
                CreateRule::Create => {
                    store.store(&record, store.here + record.time_left(now))?;
                    Created::Created
                }
            })
        };
        self.write(create).await
    }

    async fn load(&self, key: &SessionKey) -> Result<Loaded> {
        let key = *key;
        let load = move |store: &Store<'_>| match store.live(&key)? {
            Some(record) => Ok(Loaded::Live(Arc::new(record))),
            None => Ok(store.mark(&key)?.map_or(Loaded::Unknown, Loaded::Ended)),
        };
        self.read(load).await
    }

    async fn has_sibling(&self, record: &SessionRecord) -> Result<bool> {
        let (key, sid, subject) = (*record.key(), name_of_sid(record), record.subject_hash());
        let look = move |store: &Store<'_>| {
            let sql = "SELECT 1 FROM session WHERE key <> ?1 AND (sid = ?2 OR (?2 IS NULL AND subject = ?3)) LIMIT 1";
            Ok(store.one(sql, params![key.as_bytes(), sid, subject.as_bytes()], |_| Ok(()))?.is_some())
        };
        self.read(look).await
    }

    async fn sessions_of(&self, registration: &Registration, subject: &Subject) -> Result<Ended> {
        let subject = SubjectHash::of(registration, subject);
        self.list("SELECT key FROM session WHERE subject = ?", *subject.as_bytes()).await
    }

    async fn sessions_with_sid(&self, registration: &Registration, sid: &Sid) -> Result<Ended> {
        self.list("SELECT key FROM session WHERE sid = ?", hash_of_sid(registration, sid)).await
    }

    async fn claim_refresh(&self, key: &SessionKey, version: Version, lease: Lease) -> Result<Claimed> {
        let key = *key;
        self.write(move |store| store.claim(&key, version, lease)).await
    }

    async fn release_refresh(&self, key: &SessionKey, holder: LeaseHolder) -> Result<()> {
        let (key, sql) = (*key, "UPDATE session SET lease_holder = NULL WHERE key = ? AND lease_holder = ?");
        let holder = holder.number().to_be_bytes();
        self.write(move |store| store.change(sql, params![key.as_bytes(), holder]).map(drop)).await
    }

    async fn commit(&self, record: SessionRecord, now: SystemTime) -> Result<Committed> {
        self.write(move |store| store.commit(record, now)).await
    }

    async fn end(&self, key: &SessionKey, reason: EndReason) -> Result<Option<Arc<SessionRecord>>> {
        let key = *key;
        self.write(move |store| store.end(&key, Some(reason))).await
    }

    async fn end_matching(&self, target: &LogoutTarget, reason: EndReason, now: SystemTime) -> Result<Ended> {
        let target = target.clone();
        self.write(move |store| store.end_matching(&target, reason, now)).await
    }

    async fn remove_expired(&self) -> Result<Ended> {
        let mut removed = Vec::new();
        loop {
            let remove = |store: &Store<'_>| {
                for table in ["ended", "tombstone", "spent"] {
                    store.change(&format!("DELETE FROM {table} WHERE until <= ?"), [millis(store.here)])?;
                }
                let sql = format!("SELECT key FROM session WHERE expires_at <= ? ORDER BY expires_at LIMIT {BATCH}");
                let keys = store.keys(&sql, [millis(store.here)])?;
                let ended = keys.iter().filter_map(|key| store.end(key, None).transpose()).collect::<Result<Ended>>();
                Ok((keys.len(), ended?))
            };
            let removed_now = self.write(remove).await;
            let (count, ended) = removed_now.map_err(|error| error.after_ending(removed.clone()))?;
            removed.extend(ended);
            if count < BATCH {
                return Ok(removed);
            }
        }
    }

    fn subscribe(&self, listener: EndListener) {
        self.listeners.add(listener);
    }
}
