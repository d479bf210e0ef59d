//! Logouts, whose sessions may lie in several partitions.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;

use super::names::Index;
use super::{Answer, RedisRegistry, in_millis, time_from, unexpected, word};
use crate::registry::codec::unreadable;
use crate::registry::words::millis;
use crate::registry::{
    END_MARK_RETENTION, LogoutTarget, RegistryError, SID_TOLERANCE, TOMBSTONE_RETENTION, TokenMark, rules,
};
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
        let leaves_tombstone = rules::leaves_tombstone(token, now, here);
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

/// What a logout has found and done, in one partition or in several.
#[derive(Default)]
struct Visited {
    ended: Vec<Arc<SessionRecord>>,
    /// Also some that cannot be read.
    has_ended: bool,
    /// Others are spared.
    has_others: bool,
    /// Where there may be more.
    elsewhere: Vec<Partition>,
    failure: Option<RegistryError>,
}

impl Visited {
    fn has_found_nobody(&self) -> bool {
        !self.has_ended && !self.has_others && self.failure.is_none()
    }

    fn outcome(self) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        match self.failure {
            None => Ok(self.ended),
            Some(failure) => Err(failure.after_ending(self.ended)),
        }
    }
}

impl Extend<Self> for Visited {
    fn extend<I: IntoIterator<Item = Self>>(&mut self, others: I) {
        for other in others {
            self.ended.extend(other.ended);
            self.has_ended |= other.has_ended;
            self.has_others |= other.has_others;
            self.elsewhere.extend(other.elsewhere);
            self.failure = self.failure.take().or(other.failure);
        }
    }
}

impl FromIterator<Self> for Visited {
    fn from_iter<I: IntoIterator<Item = Self>>(parts: I) -> Self {
        let mut all = Self::default();
        all.extend(parts);
        all
    }
}

/// What is known of a `sid` where it begins.
enum Found {
    There,
    /// It was logged out, up to sessions whose ID token was issued then.
    LoggedOut(Option<SystemTime>),
}

/// The partitions of sessions that lie elsewhere, each once.
pub(super) fn partitions(names: &[u8]) -> Vec<Partition> {
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
            return join_all(visits).await.into_iter().collect::<Visited>().outcome();
        };
        let mut visited = self.visit(index.home, &index, Whom::All, reach.by_sid, &logout).await;
        let elsewhere = std::mem::take(&mut visited.elsewhere);
        let visits = elsewhere.iter().map(|there| self.visit(*there, &index, Whom::All, reach.by_sid, &logout));
        visited.extend(join_all(visits).await);
        // No later logout token could reach the sessions that have no sid, nor the logins on their way to be such.
        if let Some(subject) = subject
            && visited.has_found_nobody()
        {
            let index = Index::of_subject(registration, subject);
            visited.extend([self.visit(index.home, &index, Whom::WithoutSid, reach.by_subject, &logout).await]);
        }
        visited.outcome()
    }

    async fn visit(
        &self,
        partition: Partition,
        index: &Index,
        whom: Whom,
        latest: Option<SystemTime>,
        logout: &Logout,
    ) -> Visited {
        let whom = match whom {
            Whom::All => "all",
            Whom::WithoutSid => "without sid",
        };
        let mut arguments = vec![partition.number().to_string(), whom.to_owned(), number(latest)];
        arguments.extend_from_slice(&logout.arguments);
        let key = self.key(partition, index);
        let answer = match self.run_for_good(&self.shared.scripts.end_matching, key, &arguments).await {
            Ok(answer) => answer,
            Err(error) => return Visited { failure: Some(error), ..Visited::default() },
        };
        let [others, elsewhere, ended @ ..] = answer.as_slice() else {
            return Visited { failure: Some(unexpected()), ..Visited::default() };
        };
        Visited {
            has_ended: !ended.is_empty(),
            ended: self.conclude(ended),
            has_others: others == b"some",
            elsewhere: partitions(elsewhere),
            // This one may have to end.
            failure: (others == b"unreadable").then(|| unreadable("its header is not known here")),
        }
    }

    /// Sees to it that a session is found by its `sid` where that begins, before it has it. Answers what `commit.lua` has to
    /// know of that, and why it could not be done.
    pub(super) async fn point(&self, record: &SessionRecord, now: SystemTime) -> ([String; 2], Option<RegistryError>) {
        let answer = |what: &str, reach| [what.to_owned(), number(reach)];
        let Some(sid) = record.sid() else { return (answer("here", None), None) };
        let index = Index::of_sid(record.registration(), sid);
        if index.home == record.key().partition() {
            return (answer("here", None), None);
        }
        match self.point_in(&index, record, now).await {
            Ok(Found::There) => (answer("pointed", None), None),
            Ok(Found::LoggedOut(reach)) => (answer("logged out", reach), None),
            Err(error) => (answer("unknown", None), Some(error)),
        }
    }

    async fn point_in(&self, index: &Index, record: &SessionRecord, now: SystemTime) -> Result<Found, RegistryError> {
        let arguments = [record.key().to_string(), in_millis(record.time_left(now) + POINTER_SLACK)];
        let answer = self.run_for_good(&self.shared.scripts.point, self.key(index.home, index), &arguments).await?;
        match (word(&answer), answer.get(1)) {
            (b"pointed", _) => Ok(Found::There),
            (b"logged out", Some(issued_at)) if issued_at.is_empty() => Ok(Found::LoggedOut(None)),
            (b"logged out", issued_at) => Ok(Found::LoggedOut(Some(time_from(issued_at)? + SID_TOLERANCE))),
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
