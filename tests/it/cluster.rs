//! More than one Redis: a cluster of primaries, and servers whose primary sentinels name.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use http::StatusCode;
use redis::aio::MultiplexedConnection;
use tower_oidc_session::registry::{Created, Loaded, LoginAttempt};
use tower_oidc_session::test_provider::{check_registry, sample_record};
use tower_oidc_session::{
    ClientId, EndReason, Issuer, LogoutTarget, RedisRegistry, Registration, SessionRegistry, Subject,
};

use crate::browser::Browser;
use crate::failover::{ask, is_confirmed, log_out, log_out_at, login, tell, world_over};
use crate::registry::over_redis;
use crate::servers::Store;
use crate::stores::{RECOVERY, redis_admin, within};
use crate::world::{App, World};

/// What a cluster takes to agree on something.
const AGREEMENT: Duration = Duration::from_secs(30);

/// Primaries with equal ranges of slots, and after them a replica of each, or none.
struct Cluster {
    nodes: Vec<Store>,
    admins: Vec<MultiplexedConnection>,
    primaries: usize,
}

impl Cluster {
    async fn of(primaries: usize) -> Self {
        Self::start(primaries, primaries).await
    }

    async fn with_replicas(primaries: usize) -> Self {
        let mut cluster = Self::start(primaries, primaries * 2).await;
        for primary in 0..primaries {
            let id = cluster.id(primary).await;
            let _: redis::Value =
                ask(&mut cluster.admins[primaries + primary], &format!("CLUSTER REPLICATE {id}")).await;
        }
        for admin in &mut cluster.admins[primaries..] {
            within(AGREEMENT, "the replicas follow", async || {
                ask::<String>(admin, "INFO replication").await.contains("master_link_status:up")
            })
            .await;
        }
        for admin in &mut cluster.admins[..primaries] {
            within(AGREEMENT, "the replicas confirm", async || is_confirmed(admin).await).await;
        }
        cluster
    }

    async fn start(primaries: usize, count: usize) -> Self {
        let (nodes, buses): (Vec<_>, Vec<_>) = (0..count).map(|_| Store::redis_node()).unzip();
        let mut admins = join_all(nodes.iter().map(redis_admin)).await;
        for (number, admin) in admins[..primaries].iter_mut().enumerate() {
            let (first, last) = (number * 16_384 / primaries, (number + 1) * 16_384 / primaries - 1);
            let _: redis::Value = ask(admin, &format!("CLUSTER ADDSLOTSRANGE {first} {last}")).await;
        }
        // As `redis-cli --cluster create` does: nodes that find that they have the same count on for a while, and what takes over
        // meanwhile may be older than what it takes over from.
        for (number, admin) in (1..).zip(&mut admins) {
            let _: redis::Value = ask(admin, &format!("CLUSTER SET-CONFIG-EPOCH {number}")).await;
        }
        for (node, bus) in nodes.iter().zip(buses).skip(1) {
            let _: redis::Value = ask(&mut admins[0], &format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port())).await;
        }
        for admin in &mut admins {
            within(AGREEMENT, "the nodes meet", async || {
                let info: String = ask(admin, "CLUSTER INFO").await;
                info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{count}"))
            })
            .await;
        }
        Self { nodes, admins, primaries }
    }

    async fn id(&mut self, node: usize) -> String {
        ask(&mut self.admins[node], "CLUSTER MYID").await
    }

    /// The URL of those that begin as primaries.
    fn url(&self) -> String {
        let urls: Vec<_> = self.nodes[..self.primaries].iter().map(Store::url).collect();
        urls.join(",")
    }

    /// All commands of ours that a node has carried out.
    async fn commands(&mut self, node: usize) -> u64 {
        let info: String = ask(&mut self.admins[node], "INFO commandstats").await;
        let calls = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            ["getex", "evalsha"].contains(&name).then(|| rest.split(',').next()?.parse::<u64>().ok())?
        };
        info.lines().filter_map(calls).sum()
    }

    async fn keys(&mut self, node: usize, names: &str) -> Vec<String> {
        ask(&mut self.admins[node], &format!("KEYS {names}")).await
    }

    /// Begins to move the slot of a key from one node to another.
    async fn begin_to_move(&mut self, slot: u32, from: usize, to: usize) {
        let (here, there) = (self.id(from).await, self.id(to).await);
        let _: redis::Value = ask(&mut self.admins[to], &format!("CLUSTER SETSLOT {slot} IMPORTING {here}")).await;
        let _: redis::Value = ask(&mut self.admins[from], &format!("CLUSTER SETSLOT {slot} MIGRATING {there}")).await;
    }

    async fn migrate(&mut self, keys: &[String], from: usize, to: usize) {
        let mut command = redis::cmd("MIGRATE");
        command.arg("127.0.0.1").arg(self.nodes[to].port()).arg("").arg(0).arg(1000).arg("KEYS").arg(keys);
        let _: redis::Value = command.query_async(&mut self.admins[from]).await.unwrap();
    }

    async fn end_to_move(&mut self, slot: u32, to: usize) {
        let id = self.id(to).await;
        for admin in self.admins.iter_mut().rev() {
            let _: redis::Value = ask(admin, &format!("CLUSTER SETSLOT {slot} NODE {id}")).await;
        }
    }

    async fn slot_of(&mut self, key: &str) -> u32 {
        ask(&mut self.admins[0], &format!("CLUSTER KEYSLOT {key}")).await
    }

    /// A replica takes over from a primary that has been lost.
    async fn lose(&mut self, primary: usize) {
        self.nodes[primary].crash();
        let _: redis::Value = ask(&mut self.admins[self.primaries + primary], "CLUSTER FAILOVER TAKEOVER").await;
    }
}

#[tokio::test]
async fn redis_cluster_keeps_the_contract() {
    let cluster = Cluster::of(3).await;
    let number = AtomicU32::new(0);
    check_registry(async || {
        let number = number.fetch_add(1, Ordering::Relaxed);
        over_redis(&cluster.url(), &format!("shop{number}"), []).await
    })
    .await;
}

fn shop() -> Registration {
    Registration::new(Issuer::new("https://op.example"), ClientId::new("shop"))
}

/// A session of alice.
async fn create(registry: &RedisRegistry, sid: Option<&str>) -> tower_oidc_session::SessionKey {
    let record = sample_record(&shop(), "alice", sid, SystemTime::UNIX_EPOCH, 50);
    let attempt = LoginAttempt { began_at: registry.time().await.unwrap(), seen: None };
    let key = *record.key();
    assert_eq!(registry.create(record, attempt, SystemTime::UNIX_EPOCH).await.unwrap(), Created::Created);
    key
}

fn all_of_alice() -> LogoutTarget {
    LogoutTarget::Subject { registration: shop(), subject: Subject::new("alice"), token: None }
}

#[tokio::test]
async fn redis_cluster_primaries_share_sessions_and_commands() {
    const SESSIONS: usize = 6_000;
    let mut cluster = Cluster::of(3).await;
    let registry = over_redis(&cluster.url(), "shop", []).await;
    // Scripts are loaded at all of them.
    for number in 0..100 {
        create(&registry, Some(&format!("before{number}"))).await;
    }
    let mut before = Vec::new();
    for node in 0..3 {
        before.push(cluster.commands(node).await);
    }
    for chunk in (0..SESSIONS).collect::<Vec<_>>().chunks(500) {
        join_all(chunk.iter().map(async |number| {
            let key = create(&registry, Some(&format!("s{number}"))).await;
            assert!(matches!(registry.load(&key).await, Ok(Loaded::Live(_))));
        }))
        .await;
    }
    let (mut commands, mut sessions) = (Vec::new(), Vec::new());
    for (node, before) in before.into_iter().enumerate() {
        // What asks for the time, and for nothing of a session, is asked where the first partition is.
        let times = if node == 0 { SESSIONS as u64 } else { 0 };
        commands.push(cluster.commands(node).await - before - times);
        sessions.push(cluster.keys(node, "*:i:*").await.iter().filter(|name| !name.ends_with(":t")).count() as u64);
    }
    for shares in [&commands, &sessions] {
        let (least, most) = (*shares.iter().min().unwrap(), *shares.iter().max().unwrap());
        assert!(most * 100 <= least * 110, "not shared evenly: {shares:?}");
    }
    assert_eq!(sessions.iter().sum::<u64>(), SESSIONS as u64 + 100);
    let ended = registry.end_matching(&all_of_alice(), EndReason::BackChannelLogout, SystemTime::UNIX_EPOCH).await;
    assert_eq!(ended.unwrap().len(), SESSIONS + 100, "wherever they are");
}

/// While keys are at two nodes, a script cannot see all that it has to: who is signed in is served, nothing else is said.
#[tokio::test]
async fn redis_cluster_sessions_are_served_while_their_slot_is_moved() {
    let mut cluster = Cluster::of(1).await;
    let other = Cluster::join(&mut cluster).await;
    let world = world_over(over_redis(cluster.nodes[0].url(), "shop", []).await).await;
    let sid = world.sid();
    let sessions = cluster.keys(0, "{shop:*}:s:*").await;
    let tag = sessions[0].split_once(":s:").unwrap().0.to_owned();
    let slot = cluster.slot_of(&sessions[0]).await;
    cluster.begin_to_move(slot, 0, other).await;
    assert_eq!(world.me().await, StatusCode::OK, "before the first key has moved");
    cluster.migrate(&sessions, 0, other).await;
    for _ in 0..3 {
        assert_eq!(world.me().await, StatusCode::OK, "by ASKING");
    }
    assert_eq!(log_out(&world, &world.app, &sid).await, Ok(503), "and that is not all of it");
    let token = world.provider.logout_token("shop", Some("alice"), None);
    let receiver = world.app.at("/auth/backchannel-logout");
    assert_eq!(world.provider.post_logout_token(&receiver, &token).await, Ok(503), "nor are all partitions in reach");
    assert_eq!(world.me().await, StatusCode::OK, "so nothing was done by halves");
    let rest = cluster.keys(0, &format!("{tag}:*")).await;
    cluster.migrate(&rest, 0, other).await;
    cluster.end_to_move(slot, other).await;
    within(RECOVERY, "logouts work again", async || log_out(&world, &world.app, &sid).await == Ok(200)).await;
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
    assert_eq!(login(&world).await, StatusCode::OK);
}

impl Cluster {
    /// Adds a primary that has no slots yet.
    async fn join(&mut self) -> usize {
        let (node, bus) = Store::redis_node();
        let meet = format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port());
        let _: redis::Value = ask(&mut self.admins[0], &meet).await;
        self.admins.push(redis_admin(&node).await);
        self.nodes.push(node);
        let count = self.nodes.len();
        for admin in &mut self.admins {
            within(AGREEMENT, "the nodes meet", async || {
                let info: String = ask(admin, "CLUSTER INFO").await;
                info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{count}"))
            })
            .await;
        }
        count - 1
    }
}

/// Any node of a cluster will do to begin with, also a replica; that is not asked for anything but the way.
#[tokio::test]
async fn redis_cluster_a_replica_leads_to_its_primary() {
    let mut cluster = Cluster::with_replicas(1).await;
    let world = world_over(over_redis(cluster.nodes[1].url(), "shop", []).await.confirmed_by(1)).await;
    assert_eq!(world.me().await, StatusCode::OK);
    let _: redis::Value = ask(&mut cluster.admins[1], "CLUSTER FAILOVER").await;
    within(RECOVERY, "the new primary is used", async || world.me().await == StatusCode::OK).await;
    within(RECOVERY, "and written", async || log_out_at(&world, &world.app).await == Ok(200)).await;
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
}

fn count(answers: &[StatusCode], wanted: StatusCode) -> usize {
    answers.iter().filter(|status| **status == wanted).count()
}

/// Users who are signed in and click all the time. Nobody of them may ever be told that they are not.
struct Crowd {
    users: Vec<Browser>,
    goes_on: Arc<AtomicBool>,
    clicks: Arc<AtomicU32>,
    at_work: Vec<tokio::task::JoinHandle<()>>,
}

impl Crowd {
    async fn of(count: usize, world: &World) -> Self {
        let users: Vec<_> = (0..count).map(|_| Browser::new()).collect();
        for user in &users {
            assert_eq!(user.go(&world.app.at("/me")).await.status, StatusCode::OK);
        }
        Self { users, goes_on: Arc::new(AtomicBool::new(true)), clicks: Arc::default(), at_work: Vec::new() }
    }

    fn click(&mut self, world: &World) {
        let url = world.app.at("/me");
        self.at_work = self
            .users
            .iter()
            .map(|user| {
                let (user, url) = (user.clone(), url.clone());
                let (goes_on, clicks) = (self.goes_on.clone(), self.clicks.clone());
                tokio::spawn(async move {
                    while goes_on.load(Ordering::Relaxed) {
                        let status = user.get(&url).await.status;
                        assert!([StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE].contains(&status), "{status}");
                        if status == StatusCode::OK {
                            clicks.fetch_add(1, Ordering::Relaxed);
                        }
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                })
            })
            .collect();
    }

    /// Waits until users are served again: so many times more.
    async fn is_served(&self, clicks: u32) {
        let target = self.clicks.load(Ordering::Relaxed) + clicks;
        within(AGREEMENT, "users are served", async || self.clicks.load(Ordering::Relaxed) >= target).await;
    }

    async fn stop(&mut self) {
        self.goes_on.store(false, Ordering::Relaxed);
        for user in self.at_work.drain(..) {
            user.await.unwrap();
        }
    }

    /// What each gets.
    async fn answers(&self, app: &App) -> Vec<StatusCode> {
        let url = app.at("/me");
        join_all(self.users.iter().map(async |user| user.get(&url).await.status)).await
    }

    async fn count(&self, app: &App, wanted: StatusCode) -> usize {
        count(&self.answers(app).await, wanted)
    }
}

#[tokio::test]
async fn redis_cluster_a_failover_under_load_loses_nothing() {
    let mut cluster = Cluster::with_replicas(3).await;
    let world = world_over(over_redis(&cluster.url(), "shop", []).await.confirmed_by(1)).await;
    let mut crowd = Crowd::of(24, &world).await;
    crowd.click(&world);
    crowd.is_served(200).await;
    // The one that was asked first, too.
    for primary in [1, 0] {
        cluster.lose(primary).await;
        within(AGREEMENT, "all are served again", async || crowd.count(&world.app, StatusCode::OK).await == 24).await;
    }
    crowd.is_served(200).await;
    crowd.stop().await;
    // Nobody confirms what is written at those that have taken over; a replica of the application that asks for no
    // confirmation is led to them by the one node that is left.
    let token = || world.provider.logout_token("shop", Some("alice"), None);
    let out = async |app: &App| world.provider.post_logout_token(&app.at("/auth/backchannel-logout"), &token()).await;
    assert_eq!(out(&world.app).await, Ok(503));
    let other = world.replica(over_redis(cluster.nodes[2].url(), "shop", []).await).await;
    assert_eq!(out(&other).await, Ok(200));
    assert_eq!(crowd.count(&other, StatusCode::UNAUTHORIZED).await, 24);
    // Who asks for confirmation is told of an end by the primary only that still has a replica, however long others wait.
    let answers = crowd.answers(&world.app).await;
    let [told, unsure] =
        [StatusCode::UNAUTHORIZED, StatusCode::SERVICE_UNAVAILABLE].map(|status| count(&answers, status));
    assert!(told > 0 && unsure > 0 && told + unsure == 24, "{told} are told of their end, {unsure} have to wait");
}

#[tokio::test]
async fn redis_cluster_slots_are_moved_under_load_and_nothing_is_lost() {
    let mut cluster = Cluster::of(2).await;
    let world = world_over(over_redis(&cluster.url(), "shop", []).await).await;
    let mut crowd = Crowd::of(16, &world).await;
    crowd.click(&world);
    crowd.is_served(100).await;
    let names = cluster.keys(0, "{shop:*}:*").await;
    let mut tags: Vec<_> = names.iter().map(|name| name.split_inclusive('}').next().unwrap().to_owned()).collect();
    tags.sort();
    tags.dedup();
    for tag in &tags {
        let slot = cluster.slot_of(&format!("{tag}:none")).await;
        cluster.begin_to_move(slot, 0, 1).await;
        for key in cluster.keys(0, &format!("{tag}:*")).await {
            cluster.migrate(&[key], 0, 1).await;
        }
        cluster.end_to_move(slot, 1).await;
    }
    crowd.is_served(200).await;
    crowd.stop().await;
    within(RECOVERY, "all are served", async || crowd.count(&world.app, StatusCode::OK).await == 16).await;
    let token = world.provider.logout_token("shop", Some("alice"), None);
    assert_eq!(world.provider.post_logout_token(&world.app.at("/auth/backchannel-logout"), &token).await, Ok(200));
    assert_eq!(crowd.count(&world.app, StatusCode::UNAUTHORIZED).await, 16);
}

#[tokio::test]
async fn redis_cluster_p1_a_logout_of_a_user_is_503_while_a_partition_is_out_of_reach() {
    let mut cluster = Cluster::with_replicas(3).await;
    let registry = over_redis(&cluster.url(), "shop", []).await;
    let mut keys = Vec::new();
    for number in 0..60 {
        keys.push(create(&registry, Some(&format!("s{number}"))).await);
    }
    cluster.nodes[2].crash();
    let out =
        async || registry.end_matching(&all_of_alice(), EndReason::BackChannelLogout, SystemTime::UNIX_EPOCH).await;
    assert!(out().await.is_err(), "not all are known to have ended");
    let _: redis::Value = ask(&mut cluster.admins[5], "CLUSTER FAILOVER TAKEOVER").await;
    let begin = tokio::time::Instant::now();
    while let Err(error) = out().await {
        assert!(begin.elapsed() < AGREEMENT, "not all are ended: {error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for key in &keys {
        assert!(matches!(registry.load(key).await, Ok(Loaded::Ended(_))), "{key:?}");
    }
}

/// A primary, its replica, and a sentinel who watches them.
struct Watched {
    one: Store,
    two: Store,
    sentinel: Store,
}

impl Watched {
    async fn start() -> Self {
        let (one, two) = (Store::redis(), Store::redis());
        tell(&one, "CONFIG SET repl-diskless-sync-delay 0").await;
        tell(&two, &format!("REPLICAOF 127.0.0.1 {}", one.port())).await;
        let mut admin = redis_admin(&two).await;
        within(AGREEMENT, "the replica follows", async || {
            ask::<String>(&mut admin, "INFO replication").await.contains("master_link_status:up")
        })
        .await;
        let mut admin = redis_admin(&one).await;
        within(AGREEMENT, "the replica confirms", async || is_confirmed(&mut admin).await).await;
        let sentinel = Store::sentinel(&one);
        let mut admin = redis_admin(&sentinel).await;
        within(AGREEMENT, "the sentinel knows the replica", async || {
            ask::<String>(&mut admin, "INFO sentinel").await.contains("slaves=1")
        })
        .await;
        Self { one, two, sentinel }
    }
}

#[tokio::test]
async fn redis_sentinels_lead_to_the_primary_and_to_the_next_one() {
    let mut watched = Watched::start().await;
    // One of the sentinels answers nothing, and one is not there.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, port) = (silent.local_addr().unwrap(), watched.sentinel.port());
    let url = format!("redis-sentinel://{address},127.0.0.1:9,127.0.0.1:{port}/0#main");
    let world = world_over(over_redis(&url, "shop", []).await.confirmed_by(1)).await;
    assert_eq!(world.me().await, StatusCode::OK);
    watched.one.crash();
    within(AGREEMENT, "the next primary is used", async || match world.me().await {
        StatusCode::OK => true,
        StatusCode::SERVICE_UNAVAILABLE => false,
        other => panic!("{other}"),
    })
    .await;
    let mut admin = redis_admin(&watched.two).await;
    assert!(ask::<String>(&mut admin, "INFO replication").await.contains("role:master"));
    assert_eq!(log_out_at(&world, &world.app).await, Ok(503), "nobody confirms it");
}
