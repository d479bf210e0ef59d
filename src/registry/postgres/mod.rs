//! The registry in PostgreSQL.
//!
//! Every operation is one call of a function in the database, so it is atomic and one round trip; `schema.sql` has them.

mod link;
mod migration;
mod notices;
#[cfg(feature = "tower-sessions")]
mod tower_sessions;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio_postgres::types::{ToSql, Type};

use self::link::{Address, Answer, Call, Effect, Link};
use self::notices::Notices;
use super::codec::{Codec, StorageKey, unreadable};
use super::recent::Recent;
use super::words::{from_millis, millis, reason_from};
use super::{
    Claimed, Committed, Created, END_MARK_RETENTION, EndListener, EndMark, LAPSE_GRACE, Lease, LeaseHolder, Loaded,
    LogoutTarget, RegistryError, SPENT_RETENTION, SessionRegistry, Spent, TOMBSTONE_RETENTION, rules,
};
use crate::error::ConfigError;
use crate::protocol::names::{Registration, Sid, Subject};
use crate::session::end_reason::EndReason;
use crate::session::id::{AttemptKey, SessionKey, SubjectHash, hash_of_sid};
use crate::session::login_attempt::LoginAttempt;
use crate::session::record::{SessionRecord, Version};

/// So many expired sessions are removed at a time.
const BATCH: usize = 500;

/// Sessions, and application data of tower-sessions, in PostgreSQL (13 or later), shared by replicas.
///
/// The tables are in a schema of their own, `oidc_session` unless named otherwise; [`migrate`](Self::migrate) makes
/// them. A session takes about 1 kB plus its tokens and claims, and is removed a minute after its last deadline by one of
/// the replicas. Loading a session is one statement on its primary key.
///
/// Only a primary is asked: a standby is an outage, also behind a name that was moved, until it is promoted. A database
/// that loses committed transactions in a failover (asynchronous replication) may lose sessions, whose users then log in
/// again, and ends, whose sessions are found out at the next signal; `docs/stores.md` says what synchronous standbys
/// change, and what a pooler needs.
#[derive(Clone)]
pub struct PostgresRegistry {
    shared: Arc<Shared>,
}

struct Shared {
    link: Arc<Link>,
    notices: Arc<Notices>,
    schema: String,
    codec: Codec,
    recent: Recent,
    calls: Calls,
}

/// The functions of `schema.sql`.
#[cfg_attr(not(feature = "tower-sessions"), expect(dead_code, reason = "nobody calls those for application data"))]
struct Calls {
    begin: Call,
    claim: Call,
    count: Call,
    delete_data: Call,
    end: Call,
    end_expired: Call,
    end_matching: Call,
    has_sibling: Call,
    load: Call,
    find_data: Call,
    release: Call,
    replace: Call,
    save_data: Call,
    sessions_of: Call,
    sessions_with_sid: Call,
    spend: Call,
    time: Call,
}

/// What both functions that write a record take: key, version, sid, subject, issued at, time left, reason, last part of
/// that time, record.
const RECORD: [Type; 9] =
    [Type::BYTEA, Type::INT8, Type::BYTEA, Type::BYTEA, Type::INT8, Type::INT8, Type::TEXT, Type::INT8, Type::BYTEA];

impl Calls {
    fn new(schema: &str) -> Self {
        let call = |effect: Effect, function: &str, types: &[Type]| {
            let parameters = (1..=types.len()).map(|number| format!("${number}")).collect::<Vec<_>>().join(", ");
            let text = format!("SELECT word, key, version, record FROM {schema}.{function}({parameters})");
            Call { text, types: types.into(), effect }
        };
        // What no session depends on needs no function of its own.
        let asks = |select: &str, which: &str, types: &[Type]| {
            // A standby may not have heard of an end: it refuses, also where it has nothing to list.
            let refuse = format!("SELECT {schema}.refuse_standby()::text, NULL::bytea, NULL::bigint, NULL::bytea");
            let text = format!("{select} FROM {schema}.session{which} UNION ALL {refuse} WHERE pg_is_in_recovery()");
            Call { text, types: types.into(), effect: Effect::Reads }
        };
        let reads = |function, types: &[Type]| call(Effect::Reads, function, types);
        let writes = |function, types: &[Type]| call(Effect::Writes, function, types);
        let (bytes, number, text) = (Type::BYTEA, Type::INT8, Type::TEXT);
        let attempt = [number.clone(), number.clone()];
        let target = [&bytes, &bytes, &number, &number, &text, &number, &number, &number, &bytes, &number];
        Self {
            begin: writes("begin_session", &[&RECORD[..], &attempt].concat()),
            claim: writes("claim_refresh", &[Type::BYTEA, Type::INT8, Type::TEXT, Type::INT8, Type::INT8]),
            count: asks(
                "SELECT 'count' AS word, NULL::bytea AS key, count(*) AS version, NULL::bytea AS record",
                "",
                &[],
            ),
            delete_data: writes("delete_data", &[Type::TEXT]),
            end: writes("end_sessions", &[Type::BYTEA_ARRAY, Type::TEXT, Type::INT8]),
            end_expired: writes("end_expired", &[Type::INT8, Type::INT8]),
            end_matching: writes("end_matching", &target.map(Type::clone)),
            has_sibling: reads("has_sibling", &[Type::BYTEA, Type::BYTEA, Type::BYTEA]),
            load: reads("load", &[Type::BYTEA]),
            find_data: reads("find_data", &[Type::TEXT, Type::BOOL]),
            release: writes("release", &[Type::BYTEA, Type::TEXT]),
            replace: writes("replace_session", &RECORD),
            save_data: writes("save_data", &[Type::TEXT, Type::BYTEA, Type::BYTEA, Type::INT8, Type::BOOL]),
            sessions_of: asks("SELECT 'live' AS word, key, version, record", " WHERE subject = $1", &[Type::BYTEA]),
            sessions_with_sid: asks("SELECT 'live' AS word, key, version, record", " WHERE sid = $1", &[Type::BYTEA]),
            spend: writes("spend_attempt", &[Type::BYTEA, Type::INT8]),
            time: reads("store_time", &[]),
        }
    }
}

impl PostgresRegistry {
    /// The registry at `url`: `postgres://user:password@host[:port]/database[?sslmode=require]`.
    ///
    /// With `sslmode=require`, or `prefer` (the default) where the server offers TLS, its certificate is verified by the
    /// system's roots. The database need not be up: operations fail until it is, and requests that need it get 503.
    ///
    /// Several hosts may be named (`host1,host2`): the primary is found among them. A server that takes no writes is
    /// refused, unless the URL says `target_session_attrs=any`: then a primary that was made read-only is read, a standby
    /// still is not.
    ///
    /// # Errors
    /// If the URL cannot be read.
    ///
    /// # Panics
    /// Outside of a tokio runtime, which watches the store in the background.
    pub fn connect(url: &str) -> Result<Self, ConfigError> {
        Self::connect_with(url, "oidc_session", [])
    }

    /// As [`connect`](Self::connect), with the tables in `schema`, and records encrypted with the first of `keys`; the
    /// others are for records that were written before. Without keys records are not encrypted.
    ///
    /// # Errors
    /// If the URL or the name of the schema cannot be used.
    ///
    /// # Panics
    /// Outside of a tokio runtime, which watches the store in the background.
    pub fn connect_with(
        url: &str,
        schema: &str,
        keys: impl IntoIterator<Item = StorageKey>,
    ) -> Result<Self, ConfigError> {
        let is_name = |byte: u8| byte == b'_' || byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if schema.len() > 48 || !schema.bytes().all(is_name) || !schema.starts_with(|c: char| c.is_ascii_lowercase()) {
            let takes = "at most 48 letters a to z, digits and underscores, the first a letter";
            return Err(ConfigError::new("schema", schema, takes));
        }
        let link = Link::new(Address::parse("store_url", url)?)?;
        tokio::spawn(watch::watch(Arc::downgrade(&link)));
        let shared = Arc::new(Shared {
            notices: Notices::start(link.clone(), schema),
            link,
            schema: schema.to_owned(),
            codec: Codec::new(keys),
            recent: Recent::new(),
            calls: Calls::new(schema),
        });
        Ok(Self { shared })
    }

    /// Hears of ends on other replicas at `url` instead, which leads to the same database without a pooler: one that
    /// hands connections on between transactions (PgBouncer in transaction mode) passes no notice on. Where that is so
    /// and no such address is given, a warning says so at the start: streams on other replicas are then cut only when
    /// they look by themselves, every 30 s.
    ///
    /// # Errors
    /// If the URL cannot be read.
    pub fn listen_at(self, url: &str) -> Result<Self, ConfigError> {
        self.shared.notices.listen_at(Address::parse("listen_url", url)?);
        Ok(self)
    }

    /// Creates the tables and functions, or brings those of an earlier version of this crate up to date. Call it at every
    /// start: replicas may do so together, and where nothing is to be done the account needs no right to change the
    /// schema. Replicas of the earlier version that are running go on with the new schema; one that starts is refused.
    ///
    /// # Errors
    /// If the database could not be reached, is no primary, does not allow it, did not do it within 30 s, or holds a
    /// schema of a later version, which is left as it is.
    ///
    /// # Cancel safety
    /// It is done or not.
    pub async fn migrate(&self) -> Result<(), RegistryError> {
        migration::migrate(&self.shared.link, &self.shared.schema).await
    }

    async fn call(&self, call: &Call, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Answer>, RegistryError> {
        self.shared.link.call(call, parameters).await
    }

    async fn call_for_one(&self, call: &Call, parameters: &[&(dyn ToSql + Sync)]) -> Result<Answer, RegistryError> {
        let mut answers = self.call(call, parameters).await?;
        answers.pop().ok_or_else(|| unexpected("nothing"))
    }

    async fn list(&self, call: &Call, name: &[u8]) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        let answers = self.call(call, &[&name]).await?;
        answers.iter().map(|answer| self.read(answer)).collect()
    }

    /// What cannot be read is no word about the session: it is an error.
    fn read(&self, answer: &Answer) -> Result<Arc<SessionRecord>, RegistryError> {
        let version = answer.version.and_then(|version| version.try_into().ok()).map(Version::from_number);
        let (Some(key), Some(version), Some(record)) = (key_of(answer), version, &answer.record) else {
            return Err(unreadable("its row is not complete"));
        };
        self.shared.codec.decode(&key, version, record).map(Arc::new)
    }

    /// The records of sessions that are gone: one that cannot be read is gone all the same.
    fn read_all(&self, answers: &[Answer]) -> Vec<Arc<SessionRecord>> {
        let read = |answer: &Answer| {
            if let Some(key) = key_of(answer) {
                self.shared.recent.forget(&key);
            }
            self.read(answer).inspect_err(|error| tracing::warn!(%error, "a session that ended"))
        };
        answers.iter().filter_map(|answer| read(answer).ok()).collect()
    }

    /// Calls one of the two functions that write a record; `last` is what only this one takes.
    async fn write(
        &self,
        call: &Call,
        record: &SessionRecord,
        now: SystemTime,
        last: &[&(dyn ToSql + Sync)],
    ) -> Result<Answer, RegistryError> {
        let sid = record.sid().map(|sid| hash_of_sid(record.registration(), sid).to_vec());
        let subject = record.subject_hash();
        let record: [&(dyn ToSql + Sync); 9] = [
            &record.key().as_bytes().as_slice(),
            &bigint(record.version().number()),
            &sid,
            &subject.as_bytes().as_slice(),
            &bigint(millis(record.issued_at())),
            &in_millis(record.time_left(now)),
            &record.expires_for().as_str(),
            &in_millis(record.unconfirmed_for()),
            &self.shared.codec.encode(record)?,
        ];
        self.call_for_one(call, &[&record, last].concat()).await
    }
}

fn key_of(answer: &Answer) -> Option<SessionKey> {
    answer.key.as_deref()?.try_into().ok().map(SessionKey::from_bytes)
}

fn bigint(number: u64) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

fn in_millis(duration: Duration) -> i64 {
    duration.as_millis().try_into().unwrap_or(i64::MAX)
}

fn time(answer: &Answer) -> Result<SystemTime, RegistryError> {
    let millis = answer.version.and_then(|millis| millis.try_into().ok());
    from_millis(millis.ok_or_else(|| unexpected("no time"))?)
}

/// What is left of a session that ended; in versions before 3 nobody wrote down whose it was.
fn end_mark(answer: &Answer) -> Result<EndMark, RegistryError> {
    let hash = |bytes: &Vec<u8>| bytes.as_slice().try_into().map(SubjectHash::from_bytes);
    let subject = answer.record.as_ref().map(hash).transpose().map_err(|_| unreadable("whose it was"))?;
    Ok(EndMark { reason: reason_from(answer.word.as_bytes())?, subject })
}

fn unexpected(what: &str) -> RegistryError {
    RegistryError::new(format!("PostgreSQL gave an unexpected answer: {what}"))
}

#[async_trait]
impl SessionRegistry for PostgresRegistry {
    async fn time(&self) -> Result<SystemTime, RegistryError> {
        time(&self.call_for_one(&self.shared.calls.time, &[]).await?)
    }

    async fn spend(&self, attempt: &AttemptKey) -> Result<Spent, RegistryError> {
        let parameters: &[&(dyn ToSql + Sync)] = &[&attempt.as_bytes().as_slice(), &in_millis(SPENT_RETENTION)];
        match self.call_for_one(&self.shared.calls.spend, parameters).await?.word.as_str() {
            "now" => Ok(Spent::Now),
            "before" => Ok(Spent::Before),
            word => Err(unexpected(word)),
        }
    }

    async fn create(
        &self,
        record: SessionRecord,
        attempt: LoginAttempt,
        now: SystemTime,
    ) -> Result<Created, RegistryError> {
        let (began, seen) = (bigint(millis(attempt.began_at)), attempt.seen.map(|seen| bigint(millis(seen))));
        let answer = self.write(&self.shared.calls.begin, &record, now, &[&began, &seen]).await?;
        match answer.word.as_str() {
            "covered" => time(&answer).map(Created::Covered),
            "created" => Ok(Created::Created),
            "exists" => Ok(Created::Exists),
            word => Err(unexpected(word)),
        }
    }

    async fn load(&self, key: &SessionKey) -> Result<Loaded, RegistryError> {
        let answers = self.call(&self.shared.calls.load, &[&key.as_bytes().as_slice()]).await?;
        let answer = answers.into_iter().next();
        match answer {
            Some(Answer { word, version: Some(version), record: Some(mut stored), .. }) if word == "live" => {
                let codec = &self.shared.codec;
                // The store says the version beside the record.
                stored.extend(version.to_be_bytes());
                let read = |stored: &[u8]| {
                    let version = u64::try_from(version).map_err(|_| unreadable("its version is none"))?;
                    let record = stored.get(..stored.len().saturating_sub(size_of::<i64>())).unwrap_or_default();
                    codec.decode(key, Version::from_number(version), record)
                };
                self.shared.recent.read(key, stored, read).map(Loaded::Live)
            }
            Some(answer) if answer.word == "live" => Err(unreadable("its row is not complete")),
            Some(answer) => {
                self.shared.recent.forget(key);
                end_mark(&answer).map(Loaded::Ended)
            }
            None => {
                self.shared.recent.forget(key);
                Ok(Loaded::Unknown)
            }
        }
    }

    async fn has_sibling(&self, record: &SessionRecord) -> Result<bool, RegistryError> {
        let sid = record.sid().map(|sid| hash_of_sid(record.registration(), sid).to_vec());
        let subject = record.subject_hash();
        let parameters: &[&(dyn ToSql + Sync)] =
            &[&record.key().as_bytes().as_slice(), &sid, &subject.as_bytes().as_slice()];
        Ok(!self.call(&self.shared.calls.has_sibling, parameters).await?.is_empty())
    }

    async fn sessions_of(
        &self,
        registration: &Registration,
        subject: &Subject,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        let subject = SubjectHash::of(registration, subject);
        self.list(&self.shared.calls.sessions_of, subject.as_bytes()).await
    }

    async fn sessions_with_sid(
        &self,
        registration: &Registration,
        sid: &Sid,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        self.list(&self.shared.calls.sessions_with_sid, &hash_of_sid(registration, sid)).await
    }

    async fn count(&self) -> Result<Option<u64>, RegistryError> {
        let answer = self.call_for_one(&self.shared.calls.count, &[]).await?;
        Ok(answer.version.and_then(|count| count.try_into().ok()))
    }

    async fn claim_refresh(&self, key: &SessionKey, version: Version, lease: Lease) -> Result<Claimed, RegistryError> {
        let holder = lease.holder.number().to_string();
        let version = bigint(version.number());
        let parameters: &[&(dyn ToSql + Sync)] =
            &[&key.as_bytes().as_slice(), &version, &holder, &in_millis(lease.duration), &in_millis(LAPSE_GRACE)];
        let answer = self.call_for_one(&self.shared.calls.claim, parameters).await?;
        Ok(match answer.word.as_str() {
            "granted" => Claimed::Granted,
            "held" => Claimed::Held,
            "changed" => Claimed::Changed(self.read(&answer)?),
            "gone" => Claimed::Gone(None),
            reason => Claimed::Gone(Some(reason_from(reason.as_bytes())?)),
        })
    }

    async fn release_refresh(&self, key: &SessionKey, holder: LeaseHolder) -> Result<(), RegistryError> {
        let holder = holder.number().to_string();
        self.call(&self.shared.calls.release, &[&key.as_bytes().as_slice(), &holder]).await.map(drop)
    }

    async fn commit(&self, mut record: SessionRecord, now: SystemTime) -> Result<Committed, RegistryError> {
        record.version = record.version().next();
        let answer = self.write(&self.shared.calls.replace, &record, now, &[]).await?;
        Ok(match answer.word.as_str() {
            "committed" => Committed::Committed(Arc::new(record)),
            "stale" => Committed::Stale(self.read(&answer)?),
            "gone" => Committed::Gone(None),
            reason => Committed::Gone(Some(reason_from(reason.as_bytes())?)),
        })
    }

    async fn end(&self, key: &SessionKey, reason: EndReason) -> Result<Option<Arc<SessionRecord>>, RegistryError> {
        let keys = [key.as_bytes().as_slice()];
        let parameters: &[&(dyn ToSql + Sync)] = &[&keys.as_slice(), &reason.as_str(), &in_millis(END_MARK_RETENTION)];
        let answers = self.call(&self.shared.calls.end, parameters).await?;
        Ok(self.read_all(&answers).pop())
    }

    async fn end_matching(
        &self,
        target: &LogoutTarget,
        reason: EndReason,
        now: SystemTime,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        let hash = |registration, subject| SubjectHash::of(registration, subject).as_bytes().to_vec();
        let (sid, subject) = match target {
            LogoutTarget::Sid { registration, sid, subject, .. } => {
                let subject = subject.as_ref().map(|subject| hash(registration, subject));
                (Some(hash_of_sid(registration, sid).to_vec()), subject)
            }
            LogoutTarget::Subject { registration, subject, .. } => (None, Some(hash(registration, subject))),
        };
        let reach = rules::reach(target);
        let in_bigint = |time: SystemTime| bigint(millis(time));
        let token = target.token();
        let parameters: &[&(dyn ToSql + Sync)] = &[
            &sid,
            &subject,
            &reach.by_sid.map(in_bigint),
            &reach.by_subject.map(in_bigint),
            &reason.as_str(),
            &in_millis(END_MARK_RETENTION),
            &in_bigint(now),
            &token.map(|token| in_bigint(token.issued_at())),
            &token.map(|token| token.id().to_be_bytes().to_vec()),
            &in_millis(TOMBSTONE_RETENTION),
        ];
        let answers = self.call(&self.shared.calls.end_matching, parameters).await?;
        Ok(self.read_all(&answers))
    }

    async fn remove_expired(&self) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        let (batch, retention) = (bigint(BATCH as u64), in_millis(END_MARK_RETENTION));
        let mut removed = Vec::new();
        loop {
            let answers = match self.call(&self.shared.calls.end_expired, &[&batch, &retention]).await {
                Ok(answers) => answers,
                Err(error) => return Err(error.after_ending(removed)),
            };
            let (more, ended): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.word == "more");
            removed.append(&mut self.read_all(&ended));
            if more.is_empty() {
                return Ok(removed);
            }
        }
    }

    fn subscribe(&self, listener: EndListener) {
        self.shared.notices.subscribe(listener);
    }
}

impl fmt::Debug for PostgresRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresRegistry").field("schema", &self.shared.schema).finish_non_exhaustive()
    }
}
