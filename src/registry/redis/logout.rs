//! Logouts, whose sessions may lie in several partitions.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;

use super::names::Index;
use super::{Answer, RedisRegistry, in_millis, unexpected, word};
use crate::registry::codec::millis;
use crate::registry::{END_MARK_RETENTION, LogoutTarget, RegistryError, TOMBSTONE_RETENTION, TokenMark, rules};
use crate::session::end_reason::EndReason;
use crate::session::id::SessionKey;
use crate::session::partition::Partition;
use crate::session::record::SessionRecord;

/// A pointer is kept longer than the session, as its record is.
const POINTER_SLACK: Duration = Duration::from_secs(60 * 60);

/// Whom a visit ends of those it finds.
#[derive(Clone, Copy)]
enum Whom {
    All,
    WithoutSid,
}

/// One logout, as scripts are told of it.
struct Logout {
    arguments: [String; 6],
}

impl Logout {
    fn new(token: Option<&TokenMark>, reason: EndReason, now: SystemTime, here: SystemTime) -> Self {
        // A token that is older than the retention overtakes nobody; by the replica's clock and by the store's, one of which
        // may be ahead.
        let leaves_tombstone = rules::leaves_tombstone(token, now.min(here));
        let arguments = [
            number(token.map(TokenMark::issued_at)),
            token.map(|token| format!("{:032x}", token.id())).unwrap_or_default(),
            number(leaves_tombstone.then_some(here)),
            in_millis(TOMBSTONE_RETENTION),
            in_millis(END_MARK_RETENTION),
            reason.as_str().to_owned(),
        ];
        Self { arguments }
    }
}

fn number(time: Option<SystemTime>) -> String {
    time.map(|time| millis(time).to_string()).unwrap_or_default()
}

/// What a logout has found in one partition.
struct Visited {
    ended: Vec<Arc<SessionRecord>>,
    /// Others are spared.
    has_others: bool,
    /// Where there may be more.
    elsewhere: Vec<Partition>,
}

/// The partitions of sessions that lie elsewhere, each once.
fn partitions(names: &[u8]) -> Vec<Partition> {
    let keys = names.split(|byte| *byte == b' ').filter_map(|hex| SessionKey::from_hex(std::str::from_utf8(hex).ok()?));
    let mut partitions: Vec<_> = keys.map(|key| key.partition()).collect();
    partitions.sort_unstable();
    partitions.dedup();
    partitions
}

impl RedisRegistry {
    /// Ends whom a logout reaches. Each visit leaves the tombstone before it ends anybody, so what is not there yet when it
    /// comes finds that: a login where its session would lie, a session on its way to another `sid` where that begins.
    pub(super) async fn log_out(
        &self,
        target: &LogoutTarget,
        reason: EndReason,
        now: SystemTime,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        // Attempts are dated by one clock, so logouts are too, whichever node of a cluster has them.
        let here =
            self.shared.clock.time(self).await.ok_or_else(|| RegistryError::new("Redis does not tell the time"))?;
        let logout = Logout::new(target.token(), reason, now, here);
        let reach = rules::reach(target);
        let index = Index::of_target(target);
        let LogoutTarget::Sid { registration, subject, .. } = target else {
            let visits =
                Partition::all().map(|partition| self.visit(partition, &index, Whom::All, reach.by_subject, &logout));
            return all_of(join_all(visits).await);
        };
        let first = self.visit(index.home, &index, Whom::All, reach.by_sid, &logout).await?;
        let (mut ended, mut has_others) = (first.ended, first.has_others);
        let visits = first.elsewhere.iter().map(|there| self.visit(*there, &index, Whom::All, reach.by_sid, &logout));
        for visited in join_all(visits).await {
            let visited = visited?;
            has_others |= visited.has_others;
            ended.extend(visited.ended);
        }
        // No later logout token could reach the sessions that have no sid, nor the logins on their way to be such.
        if let Some(subject) = subject
            && ended.is_empty()
            && !has_others
        {
            let index = Index::of_subject(registration, subject);
            let visited = self.visit(index.home, &index, Whom::WithoutSid, reach.by_subject, &logout).await?;
            ended = visited.ended;
        }
        Ok(ended)
    }

    async fn visit(
        &self,
        partition: Partition,
        index: &Index,
        whom: Whom,
        latest: Option<SystemTime>,
        logout: &Logout,
    ) -> Result<Visited, RegistryError> {
        let whom = match whom {
            Whom::All => "all",
            Whom::WithoutSid => "without sid",
        };
        let mut arguments = vec![partition.number().to_string(), whom.to_owned(), number(latest)];
        arguments.extend_from_slice(&logout.arguments);
        let key = self.key(partition, index);
        let answer = self.run_for_good(&self.shared.scripts.end_matching, key, &arguments).await?;
        let [others, elsewhere, ended @ ..] = answer.as_slice() else { return Err(unexpected()) };
        Ok(Visited {
            ended: self.conclude(ended).await,
            has_others: others == b"some",
            elsewhere: partitions(elsewhere),
        })
    }

    /// Sees to it that a session is found by its `sid` where that begins, before it has it. False if that was logged out.
    pub(super) async fn point(&self, record: &SessionRecord, now: SystemTime) -> Result<bool, RegistryError> {
        let Some(sid) = record.sid() else { return Ok(true) };
        let index = Index::of_sid(record.registration(), sid);
        if index.home == record.key().partition() {
            return Ok(true);
        }
        let arguments = [record.key().to_string(), in_millis(record.time_left(now) + POINTER_SLACK)];
        let answer = self.run_for_good(&self.shared.scripts.point, self.key(index.home, &index), &arguments).await?;
        match word(&answer) {
            b"pointed" => Ok(true),
            b"logged out" => Ok(false),
            _ => Err(unexpected()),
        }
    }

    pub(super) async fn find_sibling(&self, record: &SessionRecord) -> Result<bool, RegistryError> {
        let registration = record.registration();
        let Some(sid) = record.sid() else {
            let index = Index::of_subject(registration, record.subject());
            let answers =
                join_all(Partition::all().map(|partition| self.ask_for_sibling(partition, &index, record))).await;
            return answers.into_iter().try_fold(false, |found, answer| Ok(found | (word(&answer?) == b"yes")));
        };
        let index = Index::of_sid(registration, sid);
        let answer = self.ask_for_sibling(index.home, &index, record).await?;
        if word(&answer) == b"yes" {
            return Ok(true);
        }
        for there in partitions(answer.get(1).ok_or_else(unexpected)?) {
            if word(&self.ask_for_sibling(there, &index, record).await?) == b"yes" {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn ask_for_sibling(
        &self,
        partition: Partition,
        index: &Index,
        record: &SessionRecord,
    ) -> Result<Answer, RegistryError> {
        let arguments = [record.key().to_string(), partition.number().to_string()];
        self.run(&self.shared.scripts.has_sibling, self.key(partition, index), &arguments).await
    }
}

/// Those of all partitions, if all were reached.
fn all_of(visits: Vec<Result<Visited, RegistryError>>) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
    let mut ended = Vec::new();
    for visited in visits {
        ended.extend(visited?.ended);
    }
    Ok(ended)
}
