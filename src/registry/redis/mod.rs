//! The registry in Redis or Valkey.
//!
//! Every operation is one Lua script, so it is atomic and one round trip; loading is a `GETEX`, and every script that could
//! be content with reading begins with a write: only a primary does either.
//!
//! Keys lie in partitions, 64 hash tags `{prefix:0}` to `{prefix:63}`, which are spread over the nodes of a cluster; a script
//! sees one of them. A session is in one for good, by its key: that of the `sid` it began with, or of its subject if it had none.
//!
//! | key | what |
//! |---|---|
//! | `…:s:<session>` | a session, or for ten minutes why it ended and whose it was |
//! | `…:l:<session>` | the lease of a refresh |
//! | `…:a:<hash>` | a login attempt that is spent |
//! | `…:i:<hash>`, `…:u:<hash>` | sessions by `sid` and by subject; with `:t` their tombstones |
//! | `…:x` | sessions by expiry |
//! | `…:d:<id>`, `…:b:<session>` | application data, and which of it is bound to a login |
//! | `…:none` | never there: asked for, to see whether a server is the one to ask |
//!
//! What a logout has to find beyond one partition (ADR 15): a session that gets another `sid` is in that one's index too, where
//! the sessions of that `sid` begin, before it has it; the logout visits the partitions of those it finds there, each with a
//! tombstone. A logout by subject visits all.

mod connection;
mod data;
mod list;
mod logout;
#[cfg(test)]
mod model;
mod names;
mod node;
mod peer;
#[cfg(feature = "tower-sessions")]
mod tower_sessions;

use std::collections::HashSet;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::future::{Either, select};
use futures_util::{StreamExt, stream};
use redis::Script;
use redis::aio::PubSub;
use serde_json::{Value, json};
use tokio::sync::Notify;

use self::connection::{Connection, RECONNECT_PAUSE};
use self::names::{Index, Names};
use self::node::Ways;
use self::peer::Ask;
use super::codec::{Codec, StorageKey, unreadable};
use super::listeners::Listeners;
use super::recent::Recent;
use super::store_clock::StoreClock;
use super::words::{from_millis, millis, reason_from};
use super::{
    Claimed, Committed, Created, END_MARK_RETENTION, EndListener, EndMark, EndNotice, LAPSE_GRACE, Lease, LeaseHolder,
    Loaded, LogoutTarget, RegistryError, SPENT_RETENTION, SessionRegistry, Spent,
};
use crate::error::ConfigError;
use crate::protocol::names::{Registration, Sid, Subject};
use crate::session::end_reason::EndReason;
use crate::session::id::{AttemptKey, SessionKey, SubjectHash};
use crate::session::login_attempt::LoginAttempt;
use crate::session::partition::Partition;
use crate::session::record::{SessionRecord, Version};

/// So many expired sessions are removed at a time.
const BATCH: usize = 100;
/// In so many partitions.
const PARTITIONS_AT_ONCE: usize = 8;

/// So many confirmed ends are remembered, some 200 kB; then all are forgotten.
const MOST_CONFIRMED_ENDS: usize = 4096;

const COMMON: &str = include_str!("common.lua");

/// Sessions, and application data of tower-sessions, in Redis (6.2 or later) or Valkey, shared by replicas.
///
/// A session takes about 1 kB plus its tokens and claims. Use a store that does not evict (`maxmemory-policy noeviction`):
/// an evicted session is one whose user has to log in again. A store that loses data in a failover loses sessions the same
/// way, and with them the memory of logout tokens of the last ten minutes.
///
/// Only a primary is asked: whatever a replica says is an error. Replication is asynchronous, so a failover may lose the last
/// writes; [`confirmed_by`](Self::confirmed_by) makes those that matter wait for replicas.
#[derive(Clone)]
pub struct RedisRegistry {
    shared: Arc<Shared>,
}

struct Shared {
    connection: Connection,
    names: Arc<Names>,
    clock: StoreClock,
    codec: Codec,
    recent: Recent,
    confirmed_ends: ConfirmedEnds,
    scripts: Scripts,
    listeners: Listeners,
}

/// Ends that replicas have confirmed to this process, so that requests with the cookie of an old session ask them once. Forgetting costs
/// no more than asking again.
#[derive(Default)]
struct ConfirmedEnds {
    keys: Mutex<HashSet<SessionKey>>,
}

impl ConfirmedEnds {
    fn have(&self, key: &SessionKey) -> bool {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).contains(key)
    }

    fn add(&self, key: SessionKey) {
        let mut ends = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if ends.len() >= MOST_CONFIRMED_ENDS {
            ends.clear();
        }
        ends.insert(key);
    }
}

#[cfg_attr(not(feature = "tower-sessions"), expect(dead_code, reason = "nobody runs those for application data"))]
struct Scripts {
    bind: Script,
    claim: Script,
    commit: Script,
    count: Script,
    create: Script,
    end: Script,
    end_matching: Script,
    has_sibling: Script,
    point: Script,
    release: Script,
    remove_expired: Script,
    sessions_of: Script,
    spend: Script,
    stands: Script,
    time: Script,
}

impl Scripts {
    fn new() -> Self {
        let script = |code: &str| Script::new(&format!("{COMMON}\n{code}"));
        Self {
            bind: script(include_str!("bind.lua")),
            claim: script(include_str!("claim.lua")),
            commit: script(include_str!("commit.lua")),
            count: script(include_str!("count.lua")),
            create: script(include_str!("create.lua")),
            end: script(include_str!("end.lua")),
            end_matching: script(include_str!("end_matching.lua")),
            has_sibling: script(include_str!("has_sibling.lua")),
            point: script(include_str!("point.lua")),
            release: script(include_str!("release.lua")),
            remove_expired: script(include_str!("remove_expired.lua")),
            sessions_of: script(include_str!("sessions_of.lua")),
            spend: script(include_str!("spend.lua")),
            stands: script(include_str!("stands.lua")),
            time: script(include_str!("time.lua")),
        }
    }
}

/// What a script or command answered: a list of byte strings.
type Answer = Vec<Vec<u8>>;

impl RedisRegistry {
    /// The registry at `url`: `redis://[user:password@]host[:port][/database]`, or `rediss://…` for TLS, with the
    /// server's certificate verified by the system's roots.
    ///
    /// Of a cluster any node will do, and several, separated by commas, do also while one of them is away:
    /// `redis://one:6379,redis://two:6379`. Sessions are spread over all primaries.
    ///
    /// Where Sentinel decides who is the primary, name those who know, and what they call it:
    /// `redis-sentinel://[user:password@]host[:port][,host[:port]…][/database]#name`, with `rediss-sentinel://` where the
    /// servers speak TLS, and the sentinels too. User and password are for the servers.
    ///
    /// The store need not be up: operations fail until it is, and requests that need it get 503.
    ///
    /// # Errors
    /// If the URL cannot be read.
    ///
    /// # Panics
    /// Outside of a tokio runtime, which watches the store in the background.
    pub fn connect(url: &str) -> Result<Self, ConfigError> {
        Self::connect_with(url, "oidc-session", [])
    }

    /// As [`connect`](Self::connect), with keys named by `prefix`, and records encrypted with the first of `keys`; the
    /// others are for records that were written before. Without keys records are not encrypted.
    ///
    /// # Errors
    /// If the URL cannot be read, or the prefix has a brace.
    ///
    /// # Panics
    /// Outside of a tokio runtime, which watches the store in the background.
    pub fn connect_with(
        url: &str,
        prefix: &str,
        keys: impl IntoIterator<Item = StorageKey>,
    ) -> Result<Self, ConfigError> {
        if prefix.contains(['{', '}']) {
            let takes = "a name without braces: they say which keys a cluster keeps together";
            return Err(ConfigError::new("store_prefix", "it has a brace", takes));
        }
        let ways = Ways::read(url)?;
        let names = Arc::new(Names::new(prefix));
        let shared = Arc::new(Shared {
            connection: Connection::new(ways, names.clone()),
            names,
            clock: StoreClock::default(),
            codec: Codec::new(keys),
            recent: Recent::new(),
            confirmed_ends: ConfirmedEnds::default(),
            scripts: Scripts::new(),
            listeners: Listeners::default(),
        });
        tokio::spawn(listen(Arc::downgrade(&shared)));
        Ok(Self { shared })
    }

    /// Answers logins, ends, tombstones, leases of refreshes and new tokens only when so many replicas of Redis have them
    /// (`WAIT`), so that a failover to one of these loses none of them. Without it, one that comes within moments of such a
    /// write may bring back a session that ended, or present a refresh token or a code twice. To be set before the registry is
    /// used; it holds for all clones.
    ///
    /// Each such write costs a second round trip and waits for the replicas. With fewer than `replicas` of them in reach,
    /// or if they are not in time, it fails: users get 503 while they sign in, sign out or refresh, and the write may have
    /// happened nonetheless. So does the first request to a process with the cookie of a session that has ended: nobody is told of an end
    /// that whoever takes over may not know. With 0, the default, nothing waits.
    #[must_use]
    pub fn confirmed_by(self, replicas: u32) -> Self {
        self.shared.connection.confirm_by(replicas);
        self
    }

    fn names(&self) -> &Names {
        &self.shared.names
    }

    /// Runs a script over a key of a partition, with the arguments that all have, and `arguments`.
    async fn run<A: AsRef<[u8]>>(
        &self,
        script: &Script,
        (partition, key): (Partition, String),
        arguments: &[A],
    ) -> Result<Answer, RegistryError> {
        self.shared.connection.ask(partition, self.invocation(script, partition, &key, arguments)).await
    }

    /// The same for what has to outlive the primary.
    async fn run_for_good<A: AsRef<[u8]>>(
        &self,
        script: &Script,
        (partition, key): (Partition, String),
        arguments: &[A],
    ) -> Result<Answer, RegistryError> {
        self.shared.connection.ask_for_good(partition, self.invocation(script, partition, &key, arguments)).await
    }

    fn invocation<'a, A: AsRef<[u8]>>(
        &self,
        script: &'a Script,
        partition: Partition,
        key: &str,
        arguments: &[A],
    ) -> Ask<'a> {
        let mut command = redis::cmd("EVALSHA");
        let names = self.names();
        command.arg(script.get_hash()).arg(1).arg(key).arg(names.tag(partition)).arg(names.channel());
        for argument in arguments {
            command.arg(argument.as_ref());
        }
        Ask::Script(script, command)
    }

    fn session(&self, key: &SessionKey) -> (Partition, String) {
        (key.partition(), self.names().session(key))
    }

    fn key(&self, partition: Partition, name: impl fmt::Display) -> (Partition, String) {
        (partition, self.names().key(partition, name))
    }

    /// Runs one of the two scripts that write a record; `last` is what only this one takes.
    async fn write_record<const N: usize>(
        &self,
        script: &Script,
        record: &SessionRecord,
        now: SystemTime,
        last: [String; N],
    ) -> Result<Answer, RegistryError> {
        let registration = record.registration();
        let index = |index: Index| self.names().key(record.key().partition(), index);
        let header: Value = json!({
            "v": record.version().number(),
            "i": record.sid().map(|sid| index(Index::of_sid(registration, sid))).unwrap_or_default(),
            "u": index(Index::of_subject(registration, record.subject())),
            "t": millis(record.issued_at()),
            "r": record.expires_for().as_str(),
            "c": u64::try_from(record.unconfirmed_for().as_millis()).unwrap_or(u64::MAX),
        });
        let mut value = format!("L{header}\n").into_bytes();
        value.append(&mut self.shared.codec.encode(record)?);
        let mut arguments: Vec<Vec<u8>> = vec![
            record.key().to_string().into(),
            header.to_string().into(),
            value,
            in_millis(record.time_left(now)).into(),
        ];
        arguments.extend(last.map(Into::into));
        self.run_for_good(script, self.session(record.key()), &arguments).await
    }

    fn read(&self, key: &SessionKey, value: &[u8]) -> Result<Arc<SessionRecord>, RegistryError> {
        self.decode(key, value).map(Arc::new)
    }

    fn decode(&self, key: &SessionKey, value: &[u8]) -> Result<SessionRecord, RegistryError> {
        let (version, record) = split(value).ok_or_else(|| unreadable("its header is not known here"))?;
        self.shared.codec.decode(key, version, record)
    }

    async fn remove_expired_in(&self, partition: Partition) -> (Vec<Arc<SessionRecord>>, Result<(), RegistryError>) {
        let mut removed = Vec::new();
        loop {
            let arguments = [BATCH.to_string(), in_millis(END_MARK_RETENTION)];
            let script = &self.shared.scripts.remove_expired;
            let answer = match self.run(script, self.key(partition, "x"), &arguments).await {
                Ok(answer) => answer,
                Err(error) => return (removed, Err(error)),
            };
            let Some((seen, ended)) = answer.split_first() else { return (removed, Err(unexpected())) };
            removed.extend(self.conclude(ended));
            let seen = std::str::from_utf8(seen).ok().and_then(|seen| seen.parse().ok());
            if seen.is_none_or(|seen: usize| seen < BATCH) {
                return (removed, Ok(()));
            }
        }
    }

    /// Nobody is told of an end that whoever takes over may not know: its session would come back. An end on which somebody else waits for
    /// the replicas is not confirmed by being there.
    async fn confirm_end(&self, key: &SessionKey, reason: EndReason) -> Result<(), RegistryError> {
        let ends = &self.shared.confirmed_ends;
        if !self.shared.connection.is_confirmed() || ends.have(key) {
            return Ok(());
        }
        // By node: one without replicas, where each waits in vain, keeps nobody waiting at another.
        let too_late = || RegistryError::new("Redis does not confirm in time that a session has ended");
        let node = self.shared.connection.node_of(self.session(key).0).ok_or_else(too_late)?;
        let turn = tokio::time::timeout(peer::TIMEOUT, node.confirming_ends.acquire()).await;
        let _turn = turn.map_err(|_| too_late())?;
        // Somebody else with the same cookie may have asked.
        if ends.have(key) { Ok(()) } else { SessionRegistry::end(self, key, reason).await.map(drop) }
    }

    /// The sessions of an answer that lists keys, values and the names of application data, which goes with them. All of
    /// them have ended, also those that cannot be read.
    fn conclude(&self, answer: &[Vec<u8>]) -> Vec<Arc<SessionRecord>> {
        let mut ended = Vec::new();
        for part in answer.chunks_exact(3) {
            let [hex, value, data] = part else { continue };
            let key = std::str::from_utf8(hex).ok().and_then(SessionKey::from_hex).ok_or_else(unexpected);
            let record = key.and_then(|key| {
                self.shared.recent.forget(&key);
                self.read(&key, value)
            });
            match record {
                Ok(record) => ended.push(record),
                Err(error) => tracing::warn!(%error, "a session that ended"),
            }
            self.remove_data(data);
        }
        ended
    }
}

/// The version and the record of a live session.
pub(crate) fn split(value: &[u8]) -> Option<(Version, &[u8])> {
    let rest = value.strip_prefix(b"L")?;
    let line_end = rest.iter().position(|byte| *byte == b'\n')?;
    let (header, record) = rest.split_at_checked(line_end)?;
    let header: Value = serde_json::from_slice(header).ok()?;
    Some((Version::from_number(header.get("v")?.as_u64()?), record.get(1..)?))
}

fn unexpected() -> RegistryError {
    RegistryError::new("Redis gave an unexpected answer")
}

fn in_millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// What is left of a session that ended: `<reason>`, and since a hash of the subject is kept `<reason> <hash>`.
pub(crate) fn end_mark(text: &[u8]) -> Result<EndMark, RegistryError> {
    let mut parts = text.splitn(2, |byte| *byte == b' ');
    let reason = reason_from(parts.next().unwrap_or_default())?;
    let subject = |hex: &[u8]| {
        let hash = std::str::from_utf8(hex).ok().and_then(SessionKey::from_hex);
        hash.map(|hash| SubjectHash::from_bytes(*hash.as_bytes())).ok_or_else(|| unreadable("whose it was"))
    };
    Ok(EndMark { reason, subject: parts.next().map(subject).transpose()? })
}

/// Why a session is gone, where the store still knows.
fn reason(answer: Option<&Vec<u8>>) -> Result<Option<EndReason>, RegistryError> {
    answer.map(|text| reason_from(text)).transpose()
}

fn time_from(answer: Option<&Vec<u8>>) -> Result<SystemTime, RegistryError> {
    let millis = answer.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
    from_millis(millis.ok_or_else(unexpected)?)
}

fn word(answer: &Answer) -> &[u8] {
    answer.first().map(Vec::as_slice).unwrap_or_default()
}

#[async_trait]
impl SessionRegistry for RedisRegistry {
    async fn time(&self) -> Result<SystemTime, RegistryError> {
        let key = self.key(Partition::FIRST, "none");
        let answer = self.run::<&[u8]>(&self.shared.scripts.time, key, &[]).await?;
        time_from(answer.first())
    }

    async fn spend(&self, attempt: &AttemptKey) -> Result<Spent, RegistryError> {
        let retention = in_millis(SPENT_RETENTION);
        let hash = attempt.as_bytes();
        let key = self.key(Partition::of_hash(hash), format_args!("a:{}", SessionKey::from_bytes(*hash)));
        let answer = self.run_for_good(&self.shared.scripts.spend, key, &[retention]).await?;
        match word(&answer) {
            b"now" => Ok(Spent::Now),
            b"before" => Ok(Spent::Before),
            _ => Err(unexpected()),
        }
    }

    async fn create(
        &self,
        record: SessionRecord,
        attempt: LoginAttempt,
        now: SystemTime,
    ) -> Result<Created, RegistryError> {
        let attempt =
            [attempt.began_at, attempt.seen.unwrap_or(SystemTime::UNIX_EPOCH)].map(|at| millis(at).to_string());
        let answer = self.write_record(&self.shared.scripts.create, &record, now, attempt).await?;
        match word(&answer) {
            b"covered" => time_from(answer.get(1)).map(Created::Covered),
            b"created" => Ok(Created::Created),
            b"exists" => Ok(Created::Exists),
            _ => Err(unexpected()),
        }
    }

    async fn load(&self, key: &SessionKey) -> Result<Loaded, RegistryError> {
        let (partition, name) = self.session(key);
        let value: Option<Vec<u8>> = self.shared.connection.ask(partition, Ask::Read(&name)).await?;
        let Some(value) = value else {
            self.shared.recent.forget(key);
            return Ok(Loaded::Unknown);
        };
        if let Some(mark) = value.strip_prefix(b"E") {
            self.shared.recent.forget(key);
            let mark = end_mark(mark)?;
            self.confirm_end(key, mark.reason).await?;
            return Ok(Loaded::Ended(mark));
        }
        self.shared.recent.read(key, value, |value| self.decode(key, value)).map(Loaded::Live)
    }

    async fn has_sibling(&self, record: &SessionRecord) -> Result<bool, RegistryError> {
        self.find_sibling(record).await
    }

    async fn sessions_of(
        &self,
        registration: &Registration,
        subject: &Subject,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        self.list(registration, subject).await
    }

    async fn sessions_with_sid(
        &self,
        registration: &Registration,
        sid: &Sid,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        self.list_with_sid(registration, sid).await
    }

    async fn count(&self) -> Result<Option<u64>, RegistryError> {
        self.count_all().await.map(Some)
    }

    async fn claim_refresh(&self, key: &SessionKey, version: Version, lease: Lease) -> Result<Claimed, RegistryError> {
        let arguments = [
            key.to_string(),
            version.number().to_string(),
            lease.holder.number().to_string(),
            in_millis(lease.duration),
            in_millis(LAPSE_GRACE),
        ];
        let (script, session) = (&self.shared.scripts.claim, self.session(key));
        let mut answer = self.run(script, session.clone(), &arguments).await?;
        // Who takes over has to know who waits for the provider's answer, and of an end that is told. Those that only ask whether it is
        // their turn, every few milliseconds, wait for no replica.
        if matches!(word(&answer), b"granted" | b"gone") && self.shared.connection.is_confirmed() {
            answer = self.run_for_good(script, session, &arguments).await?;
        }
        match (word(&answer), answer.get(1)) {
            (b"granted", _) => Ok(Claimed::Granted),
            (b"held", _) => Ok(Claimed::Held),
            (b"gone", why) => reason(why).map(Claimed::Gone),
            (b"changed", Some(value)) => self.read(key, value).map(Claimed::Changed),
            _ => Err(unexpected()),
        }
    }

    async fn release_refresh(&self, key: &SessionKey, holder: LeaseHolder) -> Result<(), RegistryError> {
        let holder = holder.number().to_string();
        let lease = self.key(key.partition(), format_args!("l:{key}"));
        self.run(&self.shared.scripts.release, lease, &[holder.as_bytes()]).await.map(drop)
    }

    async fn commit(&self, mut record: SessionRecord, now: SystemTime) -> Result<Committed, RegistryError> {
        let (key, old) = (*record.key(), record.version());
        record.version = old.next();
        let ([pointed, reach], failure) = self.point(&record, now).await;
        let arguments = [old.number().to_string(), pointed, reach];
        let answer = self.write_record(&self.shared.scripts.commit, &record, now, arguments).await?;
        match (word(&answer), answer.get(1)) {
            (b"unknown", _) => Err(failure.unwrap_or_else(unexpected)),
            (b"committed", _) => Ok(Committed::Committed(Arc::new(record))),
            (b"gone", why) => reason(why).map(Committed::Gone),
            (b"stale", Some(value)) => self.read(&key, value).map(Committed::Stale),
            _ => Err(unexpected()),
        }
    }

    async fn end(&self, key: &SessionKey, reason: EndReason) -> Result<Option<Arc<SessionRecord>>, RegistryError> {
        let arguments = [key.to_string(), reason.as_str().to_owned(), in_millis(END_MARK_RETENTION)];
        let answer = self.run_for_good(&self.shared.scripts.end, self.session(key), &arguments).await?;
        self.shared.confirmed_ends.add(*key);
        Ok(self.conclude(&answer).pop())
    }

    async fn end_matching(
        &self,
        target: &LogoutTarget,
        reason: EndReason,
        now: SystemTime,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        self.log_out(target, reason, now).await
    }

    async fn remove_expired(&self) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        let mut removed = Vec::new();
        let mut failure = None;
        let mut partitions = stream::iter(Partition::all())
            .map(|partition| self.remove_expired_in(partition))
            .buffer_unordered(PARTITIONS_AT_ONCE);
        while let Some((ended, outcome)) = partitions.next().await {
            removed.extend(ended);
            failure = failure.or(outcome.err());
        }
        match failure {
            // Those that have ended are told of, whatever became of others.
            Some(error) if removed.is_empty() => Err(error),
            Some(error) => {
                tracing::warn!(%error, "not all expired sessions could be removed");
                Ok(removed)
            }
            None => Ok(removed),
        }
    }

    fn subscribe(&self, listener: EndListener) {
        self.shared.listeners.add(listener);
    }
}

/// Hears of ends on other replicas for as long as the registry is in use.
async fn listen(shared: Weak<Shared>) {
    while let Some(listening) = shared.upgrade().map(Shared::begin_to_hear) {
        if let Err(error) = hear(&shared, listening).await {
            tracing::warn!(%error, "no notices of ends from other replicas at the moment");
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

impl Shared {
    /// Connects to where ends are published, if it is not told before that another place may be the one.
    fn begin_to_hear(self: Arc<Self>) -> (Arc<Notify>, impl Future<Output = Result<PubSub, RegistryError>>) {
        (self.connection.dropped(), async move {
            let mut connection = self.connection.subscriber(Partition::FIRST).await?;
            connection.subscribe(self.names.channel()).await.map_err(|error| connection::failed(error.into()))?;
            // What was published while nobody listened is lost.
            self.listeners.tell(EndNotice::Missed);
            Ok(connection)
        })
    }
}

/// Hears until the connection breaks, or may lead to a server that is not the primary any more.
async fn hear(
    shared: &Weak<Shared>,
    (dropped, connecting): (Arc<Notify>, impl Future<Output = Result<PubSub, RegistryError>>),
) -> Result<(), RegistryError> {
    let mut dropped = pin!(dropped.notified());
    dropped.as_mut().enable();
    let mut connection = connecting.await?;
    let mut messages = connection.on_message();
    while let Either::Left((Some(message), _)) = select(messages.next(), dropped.as_mut()).await {
        let Some(shared) = shared.upgrade() else { return Ok(()) };
        shared.listeners.tell(notice(&message.get_payload::<String>().unwrap_or_default()));
    }
    Ok(())
}

fn notice(payload: &str) -> EndNotice {
    let ended = payload
        .split_once(' ')
        .and_then(|(key, reason)| Some(EndNotice::Ended(SessionKey::from_hex(key)?, reason.parse().ok()?)));
    ended.unwrap_or(EndNotice::Missed)
}

impl fmt::Debug for RedisRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisRegistry").field("prefix", &self.names().prefix()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p13_values_in_the_format_of_earlier_versions_are_read() {
        let hash = "07".repeat(32);
        for (mark, subject) in [
            ("idle_timeout".to_owned(), None),
            (format!("idle_timeout {hash}"), Some(SubjectHash::from_bytes([7; 32]))),
        ] {
            let read = end_mark(mark.as_bytes()).unwrap();
            assert_eq!(read, EndMark { reason: EndReason::IdleTimeout, subject });
        }
        for (header, version) in [
            ("{\"v\":3,\"i\":\"\",\"u\":\"p:u\",\"t\":1700000000000}", 3),
            ("{\"v\":4,\"i\":\"p:i\",\"u\":\"p:u\",\"t\":1,\"r\":\"idle_timeout\",\"c\":900000}", 4),
        ] {
            let value = format!("L{header}\n\0record\n");
            assert_eq!(split(value.as_bytes()), Some((Version::from_number(version), &b"\0record\n"[..])));
        }
        for unknown in ["", "L", "M{\"v\":3}\nrecord", "L{}\nrecord", "{\"v\":3}\nrecord"] {
            assert_eq!(split(unknown.as_bytes()), None, "{unknown}");
        }
    }

    /// Those that are missing write whatever they find, or say nothing that anybody relies on.
    #[test]
    fn p13_scripts_that_may_only_read_begin_with_a_write() {
        for (name, code) in [
            ("claim", include_str!("claim.lua")),
            ("commit", include_str!("commit.lua")),
            ("count", include_str!("count.lua")),
            ("create", include_str!("create.lua")),
            ("end", include_str!("end.lua")),
            ("end_matching", include_str!("end_matching.lua")),
            ("has_sibling", include_str!("has_sibling.lua")),
            ("bind", include_str!("bind.lua")),
            ("point", include_str!("point.lua")),
            ("sessions_of", include_str!("sessions_of.lua")),
            ("stands", include_str!("stands.lua")),
            ("time", include_str!("time.lua")),
        ] {
            let first = code.lines().find(|line| !line.starts_with("--"));
            assert_eq!(first, Some("only_here()"), "{name}");
        }
    }
}
