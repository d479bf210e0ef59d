//! The contract of a [`SessionRegistry`], as checks that run over any of them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_util::future::{join, join_all};

use super::sample::{sample_key, sample_record};
use crate::protocol::names::{ClientId, Issuer, RefreshToken, Registration, Sid, Subject};
use crate::registry::{
    Claimed, Committed, Created, EndMark, EndNotice, LAPSE_GRACE, Lease, LeaseHolder, Loaded, LogoutTarget,
    SID_TOLERANCE, SUBJECT_TOLERANCE, SessionRegistry, Spent, TOMBSTONE_RETENTION, TokenMark,
};
use crate::session::end_reason::EndReason;
use crate::session::id::{AttemptKey, SessionKey};
use crate::session::login_attempt::LoginAttempt;
use crate::session::record::SessionRecord;

const START: SystemTime = SystemTime::UNIX_EPOCH;
const REASON: EndReason = EndReason::BackChannelLogout;

fn at(seconds: u64) -> SystemTime {
    START + Duration::from_secs(1_800_000_000 + seconds)
}

fn registration(client: &str) -> Registration {
    Registration::new(Issuer::new("https://op.example"), ClientId::new(client))
}

/// A session of `client` and `sub`, whose ID token was issued at `issued_at`.
fn record(client: &str, sub: &str, sid: Option<&str>, issued_at: u64) -> SessionRecord {
    let record = sample_record(&registration(client), sub, sid, at(issued_at), 50);
    SessionRecord { expires_at: at(10_000), ..record }
}

fn by_sid(client: &str, sid: &str, sub: Option<&str>, issued_at: u64) -> LogoutTarget {
    LogoutTarget::Sid {
        registration: registration(client),
        sid: Sid::new(sid),
        subject: sub.map(Subject::new),
        token: token(issued_at, "1"),
    }
}

fn by_subject(client: &str, sub: &str, issued_at: u64) -> LogoutTarget {
    subject_by(client, sub, Some(token(issued_at, "1")))
}

fn subject_by(client: &str, sub: &str, token: Option<TokenMark>) -> LogoutTarget {
    LogoutTarget::Subject { registration: registration(client), subject: Subject::new(sub), token }
}

fn token(issued_at: u64, jti: &str) -> TokenMark {
    TokenMark::new(at(issued_at), jti)
}

fn mark(record: &SessionRecord, reason: EndReason) -> Loaded {
    Loaded::Ended(EndMark { reason, subject: Some(record.subject_hash()) })
}

struct Checked<R>(R);

impl<R: SessionRegistry> Checked<R> {
    /// The store's clock.
    async fn time(&self) -> SystemTime {
        self.0.time().await.expect("time works")
    }

    /// Stores the session of an attempt that began just now.
    async fn create(&self, record: &SessionRecord, now: u64) -> Created {
        let attempt = LoginAttempt { began_at: self.time().await, seen: None };
        self.create_of(record, attempt, now).await
    }

    async fn create_of(&self, record: &SessionRecord, attempt: LoginAttempt, now: u64) -> Created {
        self.0.create(record.clone(), attempt, at(now)).await.expect("create works")
    }

    async fn end(&self, record: &SessionRecord, reason: EndReason) -> Option<Arc<SessionRecord>> {
        self.0.end(record.key(), reason).await.expect("end works")
    }

    async fn load(&self, record: &SessionRecord) -> Loaded {
        self.0.load(record.key()).await.expect("load works")
    }

    async fn is_live(&self, record: &SessionRecord) -> bool {
        matches!(self.load(record).await, Loaded::Live(_))
    }

    async fn commit(&self, record: &SessionRecord, now: u64) -> Committed {
        self.0.commit(record.clone(), at(now)).await.expect("commit works")
    }

    async fn claim(&self, record: &SessionRecord, lease: Lease) -> Claimed {
        self.0.claim_refresh(record.key(), record.version(), lease).await.expect("claim works")
    }

    async fn end_matching(&self, target: &LogoutTarget, now: u64) -> Vec<SessionKey> {
        let ended = self.0.end_matching(target, REASON, at(now)).await.expect("end_matching works");
        let mut keys: Vec<_> = ended.iter().map(|record| *record.key()).collect();
        keys.sort();
        keys
    }
}

/// Checks the contract of [`SessionRegistry`] over a registry of your own; `make` gives an empty one each time.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use tower_oidc_session::{MemoryRegistry, test_provider::check_registry};
///
/// check_registry(async || MemoryRegistry::new()).await;
/// # }
/// ```
///
/// # Panics
/// If the registry breaks the contract; the message says where.
///
/// # Cancel safety
/// Checks are dropped half-way.
pub async fn check_registry<R: SessionRegistry>(make: impl AsyncFn() -> R) {
    records_are_created_once_and_found(&Checked(make().await)).await;
    of_many_at_once_one_is_first(&Checked(make().await)).await;
    an_end_is_final(&Checked(make().await)).await;
    commits_are_decided_by_the_version(&Checked(make().await)).await;
    a_changed_sid_is_followed(&Checked(make().await)).await;
    leases_have_one_holder(&Checked(make().await)).await;
    sids_end_exactly_their_sessions(&Checked(make().await)).await;
    the_next_session_of_a_sid_is_spared(&Checked(make().await)).await;
    an_unknown_sid_reaches_only_sessions_without_one(&Checked(make().await)).await;
    subjects_end_all_older_sessions(&Checked(make().await)).await;
    tombstones_cover_logins_under_way(&Checked(make().await)).await;
    tombstones_are_renewed_by_new_tokens_only(&Checked(make().await)).await;
    old_tokens_overtake_nobody(&Checked(make().await)).await;
    siblings_have_one_sid_or_one_user(&Checked(make().await)).await;
    sessions_are_found_by_their_user(&Checked(make().await)).await;
    attempts_are_spent_once(&Checked(make().await)).await;
    registrations_are_apart(&Checked(make().await)).await;
    ends_are_published(&Checked(make().await)).await;
    expired_records_go(&Checked(make().await)).await;
}

async fn records_are_created_once_and_found<R: SessionRegistry>(registry: &Checked<R>) {
    let alice = record("shop", "alice", Some("s1"), 0);
    assert_eq!(registry.load(&alice).await, Loaded::Unknown);
    assert_eq!(registry.create(&alice, 0).await, Created::Created);
    assert_eq!(registry.load(&alice).await, Loaded::Live(Arc::new(alice.clone())));
    assert_eq!(registry.create(&alice, 0).await, Created::Exists);
}

/// Each operation is atomic in the store.
async fn of_many_at_once_one_is_first<R: SessionRegistry>(registry: &Checked<R>) {
    const MANY: usize = 20;
    let count = |found: Vec<bool>| found.into_iter().filter(|is| *is).count();
    let attempt = AttemptKey::of("many", &registration("shop"));
    let spent = join_all((0..MANY).map(|_| registry.0.spend(&attempt))).await;
    assert_eq!(
        count(spent.into_iter().map(|spent| spent.is_ok_and(|spent| spent == Spent::Now)).collect()),
        1,
        "spend"
    );
    let first = record("shop", "many", Some("many"), 0);
    let created = join_all((0..MANY).map(|_| registry.create(&first, 0))).await;
    assert_eq!(count(created.into_iter().map(|created| created == Created::Created).collect()), 1, "create");
    let holders: Vec<_> = (1..=20).map(LeaseHolder::from_number).collect();
    let claims = holders.iter().map(|holder| {
        let lease = Lease { holder: *holder, duration: Duration::from_secs(20) };
        registry.0.claim_refresh(first.key(), first.version(), lease)
    });
    let claimed = join_all(claims).await;
    let granted = claimed.into_iter().map(|claimed| claimed.is_ok_and(|claimed| claimed == Claimed::Granted));
    assert_eq!(count(granted.collect()), 1, "claim_refresh");
    let committed = join_all((0..MANY).map(|_| registry.commit(&first, 0))).await;
    let is_one = |committed| matches!(committed, Committed::Committed(_));
    assert_eq!(count(committed.into_iter().map(is_one).collect()), 1, "commit");
    let changed = first.clone().with_version(first.version().next());
    let (_, ended) = join(registry.commit(&changed, 0), registry.end(&first, REASON)).await;
    assert!(ended.is_some(), "the end finds it, whatever is committed");
    assert_eq!(registry.load(&first).await, mark(&first, REASON), "and is final");
}

async fn an_end_is_final<R: SessionRegistry>(registry: &Checked<R>) {
    let alice = record("shop", "alice", Some("s1"), 0);
    registry.create(&alice, 0).await;
    let ended = registry.end(&alice, REASON).await;
    assert_eq!(ended.as_deref(), Some(&alice));
    assert_eq!(registry.end(&alice, EndReason::IdleTimeout).await, None);
    assert_eq!(registry.load(&alice).await, mark(&alice, REASON));
    assert_eq!(registry.commit(&alice, 1).await, Committed::Gone(Some(REASON)));
    let lease = Lease { holder: LeaseHolder::random(), duration: Duration::from_secs(5) };
    assert_eq!(registry.claim(&alice, lease).await, Claimed::Gone(Some(REASON)));
    assert_eq!(registry.create(&alice, 1).await, Created::Exists, "a key that ended is never live again");
    registry.0.release_refresh(alice.key(), lease.holder).await.expect("release works");
    assert_eq!(registry.load(&alice).await, mark(&alice, REASON));
}

async fn commits_are_decided_by_the_version<R: SessionRegistry>(registry: &Checked<R>) {
    let old = record("shop", "alice", Some("s1"), 0);
    registry.create(&old, 0).await;
    let mut new = old.clone();
    new.tokens.refresh_token = Some(RefreshToken::new("rotated"));
    let Committed::Committed(stored) = registry.commit(&new, 1).await else { panic!("the first commit is taken") };
    assert_eq!(stored.version(), old.version().next());
    assert_eq!(stored.tokens, new.tokens);
    assert_eq!(registry.load(&old).await, Loaded::Live(stored.clone()));
    assert_eq!(registry.commit(&old, 2).await, Committed::Stale(stored.clone()), "a late commit is not");
    assert_eq!(registry.load(&old).await, Loaded::Live(stored));
}

async fn a_changed_sid_is_followed<R: SessionRegistry>(registry: &Checked<R>) {
    let mut alice = record("shop", "alice", Some("s1"), 0);
    registry.create(&alice, 0).await;
    alice.sid = Some(Sid::new("s2"));
    assert!(matches!(registry.commit(&alice, 0).await, Committed::Committed(_)));
    assert_eq!(registry.end_matching(&by_sid("shop", "s1", Some("alice"), 0), 0).await, []);
    assert_eq!(registry.end_matching(&by_sid("shop", "s2", None, 0), 0).await, [*alice.key()]);

    let mut bob = record("shop", "bob", Some("s3"), 0);
    registry.create(&bob, 0).await;
    bob.sid = Some(Sid::new("s2"));
    assert!(matches!(registry.commit(&bob, 1).await, Committed::Gone(_)), "a sid that was logged out");
    // Of a version that is not there any more it says nothing.
    let late = bob.clone();
    bob.sid = Some(Sid::new("s3"));
    let Committed::Committed(stored) = registry.commit(&bob, 1).await else { panic!("the version is right") };
    assert_eq!(registry.commit(&late, 1).await, Committed::Stale(stored));

    // One that came to a sid is ended with those that began with it, and is one of its sessions for all else.
    let carol = record("shop", "carol", Some("s4"), 0);
    registry.create(&carol, 0).await;
    let without = record("shop", "carol", None, 0);
    registry.create(&without, 0).await;
    let mut came = Vec::new();
    for number in 0..4 {
        let mut record = record("shop", "carol", Some(&format!("s5.{number}")), 0);
        registry.create(&record, 0).await;
        record.sid = Some(Sid::new("s4"));
        assert!(matches!(registry.commit(&record, 1).await, Committed::Committed(_)));
        assert!(registry.0.has_sibling(&record).await.expect("has_sibling works"));
        came.push(record);
    }
    assert!(registry.0.has_sibling(&carol).await.expect("has_sibling works"));
    let with_sid = registry.0.sessions_with_sid(&registration("shop"), &Sid::new("s4")).await;
    let mut with_sid: Vec<_> = with_sid.expect("sessions_with_sid works").iter().map(|record| *record.key()).collect();
    with_sid.sort();
    let mut expected: Vec<_> = came.iter().chain([&carol]).map(|record| *record.key()).collect();
    expected.sort();
    assert_eq!(with_sid, expected);
    registry.end(&carol, REASON).await;
    assert!(registry.0.has_sibling(&carol).await.expect("has_sibling works"));
    // One of them goes on to another, and then none is there any more by that one's name.
    let Some(mut gone_on) = came.pop() else { panic!("there are four") };
    gone_on.version = gone_on.version.next();
    gone_on.sid = Some(Sid::new("s6"));
    assert!(matches!(registry.commit(&gone_on, 2).await, Committed::Committed(_)));
    let mut keys: Vec<_> = came.iter().map(|record| *record.key()).collect();
    keys.sort();
    assert_eq!(registry.end_matching(&by_sid("shop", "s4", Some("carol"), 2), 2).await, keys);
    assert!(registry.is_live(&without).await && registry.is_live(&gone_on).await);
    assert_eq!(registry.end_matching(&by_sid("shop", "s6", Some("carol"), 2), 2).await, [*gone_on.key()]);
    assert!(registry.is_live(&without).await);
}

async fn leases_have_one_holder<R: SessionRegistry>(registry: &Checked<R>) {
    let alice = record("shop", "alice", Some("s1"), 0);
    registry.create(&alice, 0).await;
    let lease = |millis| Lease { holder: LeaseHolder::random(), duration: Duration::from_millis(millis) };
    let (first, second) = (lease(60_000), lease(60_000));
    assert_eq!(registry.claim(&alice, first).await, Claimed::Granted);
    assert_eq!(registry.claim(&alice, second).await, Claimed::Held);
    assert_eq!(registry.claim(&alice, first).await, Claimed::Granted, "its holder renews it");
    let brief = Lease { duration: Duration::from_millis(50), ..first };
    assert_eq!(registry.claim(&alice, brief).await, Claimed::Granted);
    // The store's own clock decides when it has run out.
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(registry.claim(&alice, second).await, Claimed::Held, "its holder has some time left, from now on");
    assert_eq!(registry.claim(&alice, brief).await, Claimed::Granted, "and may renew it");
    tokio::time::sleep(Duration::from_millis(60)).await;
    let contested_at = tokio::time::Instant::now();
    while registry.claim(&alice, second).await == Claimed::Held {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(contested_at.elapsed() + Duration::from_millis(100) > LAPSE_GRACE, "{:?}", contested_at.elapsed());
    registry.0.release_refresh(alice.key(), first.holder).await.expect("release works");
    assert_eq!(registry.claim(&alice, first).await, Claimed::Held, "it was not the first's to release");
    registry.0.release_refresh(alice.key(), second.holder).await.expect("release works");
    assert_eq!(registry.claim(&alice, first).await, Claimed::Granted);
    let Committed::Committed(stored) = registry.commit(&alice, 10).await else { panic!("the version is right") };
    assert_eq!(registry.claim(&alice, second).await, Claimed::Changed(stored.clone()));
    assert_eq!(registry.claim(&stored, second).await, Claimed::Granted, "a commit gives the lease back");
}

async fn sids_end_exactly_their_sessions<R: SessionRegistry>(registry: &Checked<R>) {
    let one = record("shop", "alice", Some("s1"), 0);
    let same = record("shop", "alice", Some("s1"), 0);
    let other = record("shop", "alice", Some("s1 "), 0);
    let without = record("shop", "alice", None, 0);
    for record in [&one, &same, &other, &without] {
        assert_eq!(registry.create(record, 0).await, Created::Created);
    }
    let mut expected = [*one.key(), *same.key()];
    expected.sort();
    // Whatever subject the token names.
    assert_eq!(registry.end_matching(&by_sid("shop", "s1", Some("somebody"), 5), 5).await, expected);
    assert!(registry.is_live(&other).await && registry.is_live(&without).await);
    assert_eq!(registry.end_matching(&by_sid("shop", "s1", Some("somebody"), 5), 5).await, []);
    assert_eq!(registry.load(&one).await, mark(&one, REASON));
}

async fn the_next_session_of_a_sid_is_spared<R: SessionRegistry>(registry: &Checked<R>) {
    let tolerance = SID_TOLERANCE.as_secs();
    let late = record("shop", "alice", Some("s1"), 100 + tolerance);
    let next = record("shop", "alice", Some("s1"), 101 + tolerance);
    let without = record("shop", "alice", None, 0);
    for record in [&late, &next, &without] {
        assert_eq!(registry.create(record, 200).await, Created::Created);
    }
    let logout = by_sid("shop", "s1", Some("alice"), 100);
    assert_eq!(registry.end_matching(&logout, 200).await, [*late.key()]);
    assert_eq!(registry.end_matching(&logout, 200).await, [], "a sid that is known never widens");
    assert!(registry.is_live(&next).await && registry.is_live(&without).await);
}

async fn an_unknown_sid_reaches_only_sessions_without_one<R: SessionRegistry>(registry: &Checked<R>) {
    let with = record("shop", "alice", Some("s1"), 0);
    let without = record("shop", "alice", None, 0);
    let younger = record("shop", "alice", None, 50);
    let bob = record("shop", "bob", None, 0);
    for record in [&with, &without, &younger, &bob] {
        registry.create(record, 0).await;
    }
    assert_eq!(registry.end_matching(&by_sid("shop", "unknown", None, 9), 9).await, []);
    assert_eq!(registry.end_matching(&by_sid("shop", "unknown", Some("alice"), 9), 9).await, [*without.key()]);
    for record in [&with, &younger, &bob] {
        assert!(registry.is_live(record).await);
    }
    // The same for logins that are under way.
    let before = registry.time().await - Duration::from_secs(60);
    for (sub, sid, is_covered) in [("alice", None, true), ("alice", Some("s9"), false), ("bob", None, false)] {
        let attempt = LoginAttempt { began_at: before, seen: None };
        let created = registry.create_of(&record("shop", sub, sid, 9), attempt, 9).await;
        assert_eq!(matches!(created, Created::Covered(_)), is_covered, "{sub} {sid:?}: {created:?}");
    }
}

async fn subjects_end_all_older_sessions<R: SessionRegistry>(registry: &Checked<R>) {
    let tolerance = SUBJECT_TOLERANCE.as_secs();
    let first = record("shop", "alice", Some("s1"), 0);
    let second = record("shop", "alice", None, 100 + tolerance);
    let younger = record("shop", "alice", Some("s2"), 101 + tolerance);
    let bob = record("shop", "bob", Some("s3"), 0);
    for record in [&first, &second, &younger, &bob] {
        assert_eq!(registry.create(record, 200).await, Created::Created);
    }
    let mut expected = [*first.key(), *second.key()];
    expected.sort();
    assert_eq!(registry.end_matching(&by_subject("shop", "alice", 100), 200).await, expected);
    assert!(registry.is_live(&younger).await && registry.is_live(&bob).await);
    let asked_for = subject_by("shop", "alice", None);
    assert_eq!(
        registry.end_matching(&asked_for, 50).await,
        [*younger.key()],
        "the application's word is fenced by nothing"
    );
    assert!(registry.is_live(&bob).await);
}

async fn tombstones_cover_logins_under_way<R: SessionRegistry>(registry: &Checked<R>) {
    let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
    // What the provider's clock says decides nothing.
    let login = |sid| record("shop", "alice", sid, 9_000);
    let before = registry.time().await;
    let attempt = |began_at, seen| LoginAttempt { began_at, seen };
    for (logout, sid) in [
        (by_sid("shop", "s1", Some("alice"), 100), Some("s1")),
        (by_subject("shop", "alice", 100), None),
        (subject_by("shop", "alice", None), Some("s3")),
    ] {
        registry.end_matching(&logout, 100).await;
        let after = registry.time().await;
        let covered = registry.create_of(&login(sid), attempt(before - minute, None), 101).await;
        let Created::Covered(arrived) = covered else { panic!("{logout:?} does not cover a login: {covered:?}") };
        assert!(arrived + Duration::from_millis(1) >= before && arrived <= after, "it is dated by the store's clock");
        for (began_at, seen, is_covered) in [
            (after + Duration::from_secs(28), None, true),
            (after + Duration::from_secs(31), None, false),
            (after, Some(arrived), false),
            (after, Some(arrived - second), true),
        ] {
            let expected = if is_covered { Created::Covered(arrived) } else { Created::Created };
            let created = registry.create_of(&login(sid), attempt(began_at, seen), 101).await;
            assert_eq!(created, expected, "{logout:?} {:?} {seen:?}", began_at.duration_since(after));
        }
    }
    let other = record("shop", "bob", Some("s2"), 99);
    assert_eq!(registry.create(&other, 101).await, Created::Created, "another session of another user");
}

async fn tombstones_are_renewed_by_new_tokens_only<R: SessionRegistry>(registry: &Checked<R>) {
    let login = |sub, sid| record("shop", sub, sid, 0);
    let seen_by = |arrived| LoginAttempt { began_at: arrived, seen: Some(arrived) };
    for (sub, sid) in [("alice", Some("s1")), ("bob", None)] {
        let logout = |token| match sid {
            Some(sid) => LogoutTarget::Sid {
                registration: registration("shop"),
                sid: Sid::new(sid),
                subject: Some(Subject::new(sub)),
                token,
            },
            None => subject_by("shop", sub, Some(token)),
        };
        let mut seen = None;
        for (token, is_renewed) in [
            (token(100, "1"), true),
            (token(100, "1"), false),
            (token(99, "2"), false),
            (token(100, "2"), true),
            (token(100, "1"), false),
            (token(101, "1"), true),
            (token(100, "3"), false),
        ] {
            tokio::time::sleep(Duration::from_millis(2)).await;
            registry.end_matching(&logout(token), 101).await;
            let attempt = seen.map_or(LoginAttempt { began_at: START, seen: None }, seen_by);
            let created = registry.create_of(&login(sub, sid), attempt, 0).await;
            match created {
                Created::Covered(arrived) if is_renewed => seen = Some(arrived),
                Created::Created if !is_renewed => {}
                _ => panic!("{sub} {token:?}: {created:?}"),
            }
        }
    }
}

async fn old_tokens_overtake_nobody<R: SessionRegistry>(registry: &Checked<R>) {
    let (here, hour) = (registry.time().await, Duration::from_secs(3600));
    let past = here - TOMBSTONE_RETENTION - Duration::from_secs(2);
    for (sub, issued_at, now, is_covered) in [
        ("alice", past, here, false),
        ("bob", past + Duration::from_secs(30), here, true),
        // One of the two clocks is wrong: rather a redirect too many.
        ("carol", past, here - hour, true),
        ("dave", here, here + hour, true),
    ] {
        let logout = subject_by("shop", sub, Some(TokenMark::new(issued_at, "1")));
        registry.0.end_matching(&logout, REASON, now).await.expect("end_matching works");
        let created = registry.create(&record("shop", sub, None, 0), 0).await;
        assert_eq!(matches!(created, Created::Covered(_)), is_covered, "{sub}: {created:?}");
    }
}

async fn siblings_have_one_sid_or_one_user<R: SessionRegistry>(registry: &Checked<R>) {
    let one = record("shop", "alice", Some("s1"), 0);
    let other = record("shop", "alice", Some("s2"), 0);
    let without = record("shop", "alice", None, 0);
    let bank = record("bank", "alice", Some("s1"), 0);
    let has_sibling = async |record: &SessionRecord| registry.0.has_sibling(record).await.expect("has_sibling works");
    for record in [&one, &other, &bank] {
        registry.create(record, 0).await;
        assert!(!has_sibling(record).await);
    }
    // Whether it is there itself or not.
    assert!(has_sibling(&without).await, "of the same user");
    let same = record("shop", "alice", Some("s1"), 0);
    assert!(has_sibling(&same).await);
    registry.create(&same, 0).await;
    registry.end(&one, REASON).await;
    assert!(has_sibling(&one).await && !has_sibling(&same).await);
    registry.end(&same, REASON).await;
    assert!(!has_sibling(&one).await);
}

async fn sessions_are_found_by_their_user<R: SessionRegistry>(registry: &Checked<R>) {
    let (one, two) = (record("shop", "alice", Some("s1"), 0), record("shop", "alice", None, 0));
    let others = [record("shop", "bob", Some("s2"), 0), record("bank", "alice", Some("s1"), 0)];
    for record in [&one, &two, &others[0], &others[1]] {
        registry.create(record, 0).await;
    }
    let sessions_of_alice = async || {
        let found = registry.0.sessions_of(&registration("shop"), &Subject::new("alice")).await;
        let mut keys: Vec<_> = found.expect("sessions_of works").iter().map(|record| *record.key()).collect();
        keys.sort();
        keys
    };
    let mut expected = [*one.key(), *two.key()];
    expected.sort();
    assert_eq!(sessions_of_alice().await, expected);
    let with_sid = async |sid: &str| {
        let found = registry.0.sessions_with_sid(&registration("shop"), &Sid::new(sid)).await;
        found.expect("sessions_with_sid works").iter().map(|record| *record.key()).collect::<Vec<_>>()
    };
    assert_eq!(with_sid("s1").await, [*one.key()]);
    assert_eq!(with_sid("s3").await, []);
    if let Some(count) = registry.0.count().await.expect("count works") {
        assert_eq!(count, 4);
    }
    registry.end(&one, REASON).await;
    assert_eq!(sessions_of_alice().await, [*two.key()]);
    assert_eq!(with_sid("s1").await, []);
}

async fn attempts_are_spent_once<R: SessionRegistry>(registry: &Checked<R>) {
    let key = |state| AttemptKey::of(state, &registration("shop"));
    for (state, expected) in [("a", Spent::Now), ("a", Spent::Before), ("b", Spent::Now), ("a", Spent::Before)] {
        assert_eq!(registry.0.spend(&key(state)).await.expect("spend works"), expected, "{state}");
    }
}

async fn registrations_are_apart<R: SessionRegistry>(registry: &Checked<R>) {
    let shop = record("shop", "alice", Some("s1"), 0);
    let bank = record("bank", "alice", Some("s1"), 0);
    for record in [&shop, &bank] {
        registry.create(record, 0).await;
    }
    assert_eq!(registry.end_matching(&by_sid("shop", "s1", None, 5), 5).await, [*shop.key()]);
    assert_eq!(registry.end_matching(&by_subject("shop", "alice", 5), 5).await, []);
    assert!(registry.is_live(&bank).await);
    assert_eq!(registry.create(&record("bank", "alice", Some("s1"), 0), 6).await, Created::Created);
}

async fn ends_are_published<R: SessionRegistry>(registry: &Checked<R>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    registry.0.subscribe({
        let heard = heard.clone();
        Box::new(move |notice| heard.lock().expect("no listener panics").push(notice))
    });
    let heard_of = |record: &SessionRecord, reason| {
        let notice = EndNotice::Ended(*record.key(), reason);
        heard.lock().expect("no listener panics").contains(&notice)
    };
    // A registry over a network takes a moment before it listens, and another to hear.
    let mut is_heard = false;
    for attempt in 0..100 {
        let sid = format!("s{attempt}");
        let (one, two) = (record("shop", "alice", None, 0), record("shop", "alice", Some(&sid), 0));
        registry.create(&one, 0).await;
        registry.create(&two, 0).await;
        registry.end(&one, EndReason::IdleTimeout).await;
        registry.end_matching(&by_sid("shop", &sid, None, 1), 1).await;
        tokio::time::sleep(Duration::from_millis(10 + attempt)).await;
        is_heard = heard_of(&one, EndReason::IdleTimeout) && heard_of(&two, REASON);
        if is_heard {
            break;
        }
    }
    assert!(is_heard, "ends are not published");
}

async fn expired_records_go<R: SessionRegistry>(registry: &Checked<R>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    registry.0.subscribe({
        let heard = heard.clone();
        Box::new(move |notice| heard.lock().expect("no listener panics").push(notice))
    });
    // By a clock that has nothing to do with the store's.
    let mut short = record("shop", "alice", Some("s1"), 0);
    short.expires_at = at(0) + Duration::from_millis(200);
    let mut extended = short.clone();
    extended.key = sample_key(extended.registration(), extended.sid(), extended.subject());
    let long = record("shop", "alice", Some("s2"), 0);
    for record in [&short, &extended, &long] {
        registry.create(record, 0).await;
    }
    extended.expires_at = at(10_000);
    assert!(matches!(registry.commit(&extended, 0).await, Committed::Committed(_)));
    assert_eq!(registry.0.remove_expired().await.expect("remove_expired works"), []);
    let mut removed = Vec::new();
    for _ in 0..100 {
        removed = registry.0.remove_expired().await.expect("remove_expired works");
        if !removed.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(removed, [Arc::new(short.clone())]);
    assert_eq!(registry.load(&short).await, mark(&short, EndReason::SessionExpiry));
    assert!(registry.is_live(&long).await && registry.is_live(&extended).await);
    assert_eq!(registry.end_matching(&by_sid("shop", "s1", None, 5), 5).await, [*extended.key()]);
    let notice = EndNotice::Ended(*short.key(), EndReason::SessionExpiry);
    for _ in 0..100 {
        if heard.lock().expect("no listener panics").iter().any(|heard| [notice, EndNotice::Missed].contains(heard)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("an end by expiry is not published");
}
