//! The stores, with what fails over.

use std::fmt::Display;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use crate::servers::Store;

/// After this a cluster takes a node for lost.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);
/// What a store takes to be whole again after a failover.
const RECOVERY: Duration = Duration::from_secs(60);

#[allow(clippy::large_enum_variant, reason = "there is one")]
pub(crate) enum Site {
    Redis(Pair),
    Cluster(Cluster),
    Postgres(Postgres),
}

impl Site {
    /// The URL for replicas, and its port where it is to be led elsewhere.
    pub(crate) fn url(&self) -> (String, Option<u16>) {
        match self {
            Self::Redis(pair) => (pair.primary.url().to_owned(), Some(pair.primary.port())),
            Self::Cluster(cluster) => (cluster.nodes[..3].iter().map(Store::url).collect::<Vec<_>>().join(","), None),
            Self::Postgres(site) => (site.primary.url().to_owned(), Some(site.primary.port())),
        }
    }

    /// Where those are that take writes, as far as it is known.
    pub(crate) fn urls(&self) -> Vec<String> {
        let nodes = match self {
            Self::Redis(pair) => std::slice::from_ref(&pair.primary),
            Self::Cluster(cluster) => &cluster.nodes[..],
            Self::Postgres(site) => std::slice::from_ref(&site.primary),
        };
        nodes.iter().map(|node| node.url().to_owned()).collect()
    }

    /// The store stands still for so long.
    pub(crate) async fn pause(&self, node: usize, time: Duration) {
        let (store, time) = match self {
            Self::Redis(pair) => (&pair.primary, time),
            // After longer than that another takes over by itself.
            Self::Cluster(cluster) => (&cluster.nodes[node % cluster.nodes.len()], time.min(NODE_TIMEOUT / 2)),
            Self::Postgres(site) => (&site.primary, time),
        };
        store.pause();
        sleep(time).await;
        store.go_on();
    }

    /// The store takes no writes for so long.
    pub(crate) async fn fill(&self, node: usize, time: Duration) {
        match self {
            Self::Redis(pair) => fill(&pair.primary, time).await,
            Self::Cluster(cluster) => fill(&cluster.nodes[node % cluster.nodes.len()], time).await,
            Self::Postgres(site) => {
                let admin = admin(&site.primary).await;
                configure(&admin, "SET default_transaction_read_only = on").await;
                sleep(time).await;
                configure(&admin, "RESET default_transaction_read_only").await;
            }
        }
    }

    /// A replica takes over; connections are led there. The one before answers on.
    pub(crate) async fn fail_over(&mut self, node: usize, lead: impl Fn(u16)) {
        match self {
            Self::Redis(pair) => pair.fail_over(lead).await,
            Self::Cluster(cluster) => cluster.fail_over(node % 3).await,
            Self::Postgres(site) => site.fail_over(lead).await,
        }
    }

    /// The primary dies. A replica takes over, or it starts again with what it had.
    pub(crate) async fn crash(&mut self, node: usize, lead: impl Fn(u16)) {
        match self {
            Self::Redis(pair) => pair.crash(lead).await,
            Self::Cluster(cluster) => cluster.crash(node % 3).await,
            Self::Postgres(site) => tokio::task::block_in_place(|| {
                site.primary.crash();
                site.primary.restart();
            }),
        }
    }
}

async fn connect(store: &Store) -> redis::RedisResult<MultiplexedConnection> {
    redis::Client::open(store.url()).unwrap().get_multiplexed_async_connection().await
}

async fn ask<T: redis::FromRedisValue>(store: &Store, command: &str) -> redis::RedisResult<T> {
    let mut words = command.split_whitespace();
    let mut command = redis::cmd(words.next().unwrap());
    command.arg(words.collect::<Vec<_>>()).query_async(&mut connect(store).await?).await
}

/// One that was just started, or follows another anew, may be loading.
async fn tell(store: &Store, command: &str) {
    told::<redis::Value>(store, command).await;
}

/// The same where the answer counts.
async fn told<T: redis::FromRedisValue>(store: &Store, command: &str) -> T {
    in_the_end(command, async || ask(store, command).await).await
}

/// Tries until it works.
async fn in_the_end<T, E: Display>(what: &str, mut attempt: impl AsyncFnMut() -> Result<T, E>) -> T {
    let begin = Instant::now();
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => assert!(begin.elapsed() < RECOVERY, "{what}: {error}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !holds().await {
        assert!(begin.elapsed() < RECOVERY, "{what}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn fill(store: &Store, time: Duration) {
    tell(store, "CONFIG SET maxmemory 1").await;
    sleep(time).await;
    tell(store, "CONFIG SET maxmemory 0").await;
}

async fn follows(replica: &Store) -> bool {
    ask::<String>(replica, "INFO replication").await.is_ok_and(|info| info.contains("master_link_status:up"))
}

/// A primary of Redis and its replica.
pub(crate) struct Pair {
    primary: Store,
    replica: Store,
}

impl Pair {
    pub(crate) async fn start() -> Self {
        let pair = Self { primary: Store::redis(), replica: Store::redis() };
        pair.join().await;
        pair
    }

    /// The replica follows the primary, and confirms what it has.
    async fn join(&self) {
        tell(&self.primary, "CONFIG SET repl-diskless-sync-delay 0").await;
        tell(&self.replica, &format!("REPLICAOF 127.0.0.1 {}", self.primary.port())).await;
        until("the replica follows", async || follows(&self.replica).await).await;
        until("the replica confirms", async || {
            let mut pipeline = redis::pipe();
            pipeline.cmd("SET").arg("settled").arg(1).ignore().cmd("WAIT").arg(1).arg(200);
            let Ok(mut connection) = connect(&self.primary).await else { return false };
            pipeline.query_async::<(u32,)>(&mut connection).await.is_ok_and(|(confirmed,)| confirmed == 1)
        })
        .await;
    }

    /// The replica hears nothing more of the primary, which goes on: what is written now it does not have.
    async fn part(&self) {
        tell(&self.replica, "REPLICAOF 127.0.0.1 9").await;
        sleep(Duration::from_millis(500)).await;
    }

    async fn fail_over(&mut self, lead: impl Fn(u16)) {
        self.part().await;
        tell(&self.replica, "REPLICAOF NO ONE").await;
        lead(self.replica.port());
        // For a moment there are two that call themselves primary.
        sleep(Duration::from_millis(300)).await;
        std::mem::swap(&mut self.primary, &mut self.replica);
        self.join().await;
    }

    async fn crash(&mut self, lead: impl Fn(u16)) {
        self.part().await;
        self.primary.crash();
        tell(&self.replica, "REPLICAOF NO ONE").await;
        lead(self.replica.port());
        std::mem::swap(&mut self.primary, &mut self.replica);
        tokio::task::block_in_place(|| self.replica.restart());
        self.join().await;
    }
}

/// Three primaries of Redis, and after them a replica of each.
pub(crate) struct Cluster {
    nodes: Vec<Store>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let (nodes, buses): (Vec<_>, Vec<_>) = (0..6).map(|_| Store::redis_node()).unzip();
        for (number, node) in nodes[..3].iter().enumerate() {
            let (first, last) = (number * 16_384 / 3, (number + 1) * 16_384 / 3 - 1);
            tell(node, &format!("CLUSTER ADDSLOTSRANGE {first} {last}")).await;
        }
        // Nodes that find that they have the same count on for a while, and what takes over meanwhile may be too old.
        for (number, node) in (1..).zip(&nodes) {
            tell(node, &format!("CLUSTER SET-CONFIG-EPOCH {number}")).await;
        }
        for (node, bus) in nodes.iter().zip(&buses).skip(1) {
            tell(&nodes[0], &format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port())).await;
        }
        for node in &nodes {
            tell(node, &format!("CONFIG SET cluster-node-timeout {}", NODE_TIMEOUT.as_millis())).await;
            tell(node, "CONFIG SET repl-diskless-sync-delay 0").await;
            until("the nodes meet", async || {
                let info: redis::RedisResult<String> = ask(node, "CLUSTER INFO").await;
                info.is_ok_and(|info| info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:6"))
            })
            .await;
        }
        for primary in 0..3 {
            let id: String = told(&nodes[primary], "CLUSTER MYID").await;
            tell(&nodes[3 + primary], &format!("CLUSTER REPLICATE {id}")).await;
        }
        let cluster = Self { nodes };
        cluster.settle().await;
        cluster
    }

    /// Each has a replica that confirms, and all know it.
    async fn settle(&self) {
        for place in 0..3 {
            let (one, other) = (&self.nodes[place], &self.nodes[3 + place]);
            until("one of two follows the other", async || {
                for node in [one, other] {
                    let Ok(info) = ask::<String>(node, "INFO replication").await else { return false };
                    if info.contains("role:slave") && info.contains("master_link_status:up") {
                        return true;
                    }
                }
                false
            })
            .await;
        }
        for node in &self.nodes {
            until("the cluster is whole", async || {
                ask::<String>(node, "CLUSTER INFO").await.is_ok_and(|info| info.contains("cluster_state:ok"))
            })
            .await;
        }
    }

    /// Those of a place: the primary, and its replica.
    async fn pair(&self, place: usize) -> (usize, usize) {
        let role: String = told(&self.nodes[place], "INFO replication").await;
        if role.contains("role:master") { (place, 3 + place) } else { (3 + place, place) }
    }

    async fn fail_over(&mut self, place: usize) {
        let (_, replica) = self.pair(place).await;
        until("the replica takes over", async || {
            // It may not get the votes, and gives up after five seconds.
            let _: redis::RedisResult<redis::Value> = ask(&self.nodes[replica], "CLUSTER FAILOVER").await;
            sleep(Duration::from_secs(1)).await;
            self.pair(place).await.0 == replica
        })
        .await;
        self.settle().await;
    }

    async fn crash(&mut self, place: usize) {
        let (primary, replica) = self.pair(place).await;
        self.nodes[primary].crash();
        sleep(Duration::from_millis(300)).await;
        until("the replica takes over", async || {
            let _: redis::RedisResult<redis::Value> = ask(&self.nodes[replica], "CLUSTER FAILOVER TAKEOVER").await;
            let role: redis::RedisResult<String> = ask(&self.nodes[replica], "INFO replication").await;
            role.is_ok_and(|role| role.contains("role:master"))
        })
        .await;
        // Those that are left agree first: the one that starts again is empty, and is not to lead.
        sleep(Duration::from_secs(1)).await;
        tokio::task::block_in_place(|| self.nodes[primary].restart());
        self.settle().await;
    }
}

/// A PostgreSQL, and a standby while one is to take over.
pub(crate) struct Postgres {
    primary: Store,
}

impl Postgres {
    pub(crate) fn start() -> Self {
        Self { primary: Store::postgres() }
    }

    /// With a standby that confirms each commit, which is promoted.
    async fn fail_over(&mut self, lead: impl Fn(u16)) {
        let standby = tokio::task::block_in_place(|| self.primary.standby());
        let primary = admin(&self.primary).await;
        configure(&primary, "SET synchronous_standby_names = '*'").await;
        until("the standby confirms", async || {
            let sync = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'";
            primary.query_one(sync, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == 1)
        })
        .await;
        sleep(Duration::from_millis(500)).await;
        tokio::task::block_in_place(|| {
            self.primary.crash();
            standby.promote();
        });
        lead(standby.port());
        self.primary = standby;
    }
}

/// One that was just started may not take connections yet.
async fn admin(store: &Store) -> Client {
    let connect = async || tokio_postgres::connect(store.url(), tokio_postgres::NoTls).await;
    let (client, connection) = in_the_end("PostgreSQL takes connections", connect).await;
    tokio::spawn(connection);
    client
}

async fn configure(admin: &Client, what: &str) {
    admin.batch_execute(&format!("ALTER SYSTEM {what}")).await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
}
