//! Real stores that are counted on the wire, paused, restarted, cut off and filled up.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{Method, StatusCode};
use redis::AsyncCommands;
use tokio::time::{Instant, sleep, timeout};
use tower_oidc_session::test_provider::{Endpoint, GateAt};
use tower_oidc_session::{EndReason, StorageKey};

use crate::browser::Browser;
use crate::leaks;
use crate::registry::{Registry, over_postgres, over_redis};
use crate::servers::Store;
use crate::until::until;
use crate::world::{G, Options, SECOND, World};

/// No request hangs longer because of a store that does not answer: one operation takes at most a second.
const BOUND: Duration = Duration::from_secs(2);
/// After this a store that is back is used again.
pub(crate) const RECOVERY: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Postgres,
    Redis,
}

impl Kind {
    fn start(self) -> Store {
        match self {
            Self::Postgres => Store::postgres(),
            Self::Redis => Store::redis(),
        }
    }

    async fn registry(self, store: &Store) -> Registry {
        match self {
            Self::Postgres => Registry::over(over_postgres(store.url(), "shop", []).await),
            Self::Redis => Registry::over(over_redis(store.url(), "shop", []).await),
        }
    }

    async fn world(self, store: &Store) -> World {
        let world = World::over(self.registry(store).await, Options::default()).await;
        world.sign_in().await;
        world
    }
}

pub(crate) async fn redis_admin(store: &Store) -> redis::aio::MultiplexedConnection {
    redis::Client::open(store.url()).unwrap().get_multiplexed_async_connection().await.unwrap()
}

async fn postgres_admin(store: &Store) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(store.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// What a store was asked since it was last asked this: names of commands or functions, and how often.
async fn counts(kind: Kind, store: &Store) -> Vec<(String, u64)> {
    let mut counts = match kind {
        Kind::Redis => {
            let mut admin = redis_admin(store).await;
            // At once, or what comes in between is counted by nobody.
            let mut pipe = redis::pipe();
            pipe.atomic().cmd("INFO").arg("commandstats").cmd("CONFIG").arg("RESETSTAT").ignore();
            let (info,): (String,) = pipe.query_async(&mut admin).await.unwrap();
            info.lines()
                .filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="))
                .map(|(name, rest)| (name.to_owned(), rest.split(',').next().unwrap().parse().unwrap()))
                .filter(|(name, _)| {
                    matches!(name.as_str(), "get" | "getex" | "evalsha" | "eval" | "script|load" | "ping")
                })
                .collect::<Vec<_>>()
        }
        Kind::Postgres => {
            let admin = postgres_admin(store).await;
            admin.batch_execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements").await.unwrap();
            let query = "SELECT query, calls FROM pg_stat_statements";
            let rows = admin.query(query, &[]).await.unwrap();
            admin.batch_execute("SELECT pg_stat_statements_reset()").await.unwrap();
            rows.iter()
                .map(|row| (row.get::<_, String>(0), u64::try_from(row.get::<_, i64>(1)).unwrap()))
                // A new connection asks where it leads, and there is one every few seconds that asks only that.
                .filter(|(query, _)| {
                    !["pg_stat_statements", "SHOW ", "current_setting", "pg_postmaster"]
                        .iter()
                        .any(|own| query.contains(own))
                })
                .map(|(query, calls)| match query.split_once("FROM shop.").and_then(|(_, rest)| rest.split_once('(')) {
                    Some((function, _)) => (function.to_owned(), calls),
                    None => (query, calls),
                })
                .collect()
        }
    };
    counts.sort();
    counts
}

/// How many connections wait for notices of ends.
async fn listeners(kind: Kind, store: &Store) -> i64 {
    match kind {
        Kind::Redis => {
            let mut admin = redis_admin(store).await;
            let mut command = redis::cmd("PUBSUB");
            let (_, count): (String, i64) =
                command.arg("NUMSUB").arg("{shop}:ends").query_async(&mut admin).await.unwrap();
            count
        }
        Kind::Postgres => {
            // Idle again, so the command has been carried out.
            let query = "SELECT count(*) FROM pg_stat_activity WHERE (query LIKE 'LISTEN shop;%' OR query = '')\
                         AND state = 'idle' AND pid <> pg_backend_pid()";
            postgres_admin(store).await.query_one(query, &[]).await.unwrap().get(0)
        }
    }
}

/// Everything in a schema, and the rows that name its version.
async fn definitions(admin: &tokio_postgres::Client, schema: &str) -> Vec<String> {
    let query = format!(
        "SELECT format('%s.%s %s %s', table_name, column_name, data_type, is_nullable) FROM information_schema.columns
             WHERE table_schema = '{schema}'
         UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = '{schema}'
         UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = '{schema}'::regnamespace
         UNION ALL SELECT format('%s is a %s', typname, typtype) FROM pg_type
             WHERE typnamespace = '{schema}'::regnamespace
         UNION ALL SELECT format('version %s', version) FROM {schema}.schema_version"
    );
    let rows = admin.query(&query, &[]).await.unwrap();
    // The schema's name stands in the definitions too.
    let mut definitions: Vec<_> = rows.iter().map(|row| row.get::<_, String>(0).replace(schema, "shop")).collect();
    definitions.sort();
    definitions
}

fn named(counts: &[(&str, u64)]) -> Vec<(String, u64)> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

async fn p10_each_operation_is_one_round_trip(kind: Kind) {
    let store = kind.start();
    let world = kind.world(&store).await;
    // Scripts are loaded, statements prepared.
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
    let token = world.provider.logout_token("shop", None, Some("unknown"));
    let receiver = world.app.at("/auth/backchannel-logout");
    assert_eq!(world.provider.post_logout_token(&receiver, &token).await, Ok(200));
    counts(kind, &store).await;

    for _ in 0..10 {
        assert_eq!(world.me().await, StatusCode::OK);
    }
    assert_eq!(world.poll().await, StatusCode::OK);
    // Nor does a response whose length nobody knows.
    let mut events = world.browser.send(world.browser.request(Method::GET, &world.app.at("/events"))).await.unwrap();
    events.chunk().await.unwrap().unwrap();
    drop(events);
    // What scripts do is counted by Redis as well, so requests without a signal come first.
    let expected = match kind {
        Kind::Postgres => named(&[("load", 12)]),
        Kind::Redis => named(&[("getex", 12)]),
    };
    assert_eq!(counts(kind, &store).await, expected, "requests that need no signal");

    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
    let found = counts(kind, &store).await;
    match kind {
        Kind::Postgres => {
            let what = "a request with a signal, and the minute's cleaning and counting";
            let mut calls = BTreeMap::new();
            let mut add = |found: Vec<(String, u64)>| {
                for (name, count) in found {
                    // The one that asks a table.
                    let name = if name.starts_with("session ") { "count".to_owned() } else { name };
                    *calls.entry(name).or_default() += count;
                }
                calls.contains_key("count")
            };
            // The cleaner is not waited for by the request.
            if !add(found) {
                within(RECOVERY, what, async || add(counts(kind, &store).await)).await;
            }
            let expected =
                [("claim_refresh", 1), ("count", 1), ("end_expired", 1), ("load", 1), ("replace_session", 1)];
            assert_eq!(calls.into_iter().collect::<Vec<_>>(), named(&expected), "{what}");
        }
        Kind::Redis => {
            let what = "claim, commit, and the minute's cleaning and counting, in 64 partitions";
            let scripts = |found: &[(String, u64)]| {
                found.iter().filter(|(name, _)| name == "evalsha").map(|(_, calls)| calls).sum::<u64>()
            };
            // The cleaner is not waited for by the request.
            let mut run = scripts(&found);
            within(RECOVERY, what, async || {
                run += scripts(&counts(kind, &store).await);
                run >= 2 + 2 * 64
            })
            .await;
            assert_eq!(run, 2 + 2 * 64, "{what}");
        }
    }

    world.provider.end_sessions_of("alice").await;
    world.clock.advance(SECOND * 3);
    until(|| world.provider.requests(Endpoint::Revocation) > 0).await;
    let found = counts(kind, &store).await;
    let what = "a logout token, and before the revocation a look for others who would be harmed";
    match kind {
        Kind::Postgres => assert_eq!(found, named(&[("end_matching", 1), ("has_sibling", 1)]), "{what}"),
        // The latter's script was not loaded yet.
        Kind::Redis => assert!(found.contains(&("evalsha".to_owned(), 3)), "{what}: {found:?}"),
    }
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
}

pub(crate) async fn within(bound: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !holds().await {
        // What is expected on a machine that does nothing else; this one may be busy, and speed is not what is tested.
        assert!(begin.elapsed() < bound * 4, "{what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for the end of a stream. The application's clock goes three times as fast as ours, so less than the 20 s pass after
/// which it would look by itself.
pub(crate) async fn assert_cut(world: &World, mut events: reqwest::Response) {
    let time = async {
        loop {
            sleep(Duration::from_millis(50)).await;
            world.clock.advance(Duration::from_millis(150));
        }
    };
    tokio::select! {
        rest = rest_of(&mut events) => assert_last(&rest),
        () = time => {}
        () = sleep(RECOVERY) => panic!("the stream is not cut"),
    }
}

/// What comes of a stream until it ends.
pub(crate) async fn rest_of(events: &mut reqwest::Response) -> String {
    let mut rest = Vec::new();
    while let Some(more) = events.chunk().await.unwrap() {
        rest.extend(more);
    }
    String::from_utf8(rest).unwrap()
}

/// The last event says that the session is over, or nothing is said.
pub(crate) fn assert_last(rest: &str) {
    assert!(rest.is_empty() || rest.starts_with("event: session-ended\n"), "{rest}");
}

/// Asks for everything that needs the store: nothing is served, nothing hangs.
async fn assert_unavailable(world: &World) {
    for path in ["/me", "/poll", "/", "/auth/session"] {
        let answer = timeout(BOUND, world.browser.get(&world.app.at(path))).await;
        let answer = answer.unwrap_or_else(|_| panic!("{path} hangs"));
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(answer.headers.contains_key("retry-after"), "{path}");
        assert!(!answer.body.contains("alice"), "{path}");
    }
    assert_eq!(world.browser.get(&world.app.at("/healthz")).await.status, StatusCode::OK);
    let token = world.provider.logout_token("shop", None, Some("unknown"));
    let receiver = world.app.at("/auth/backchannel-logout");
    let post = world.provider.post_logout_token(&receiver, &token);
    assert_eq!(timeout(BOUND, post).await.expect("it answers"), Ok(503), "so that the provider tries again");
}

async fn p8_a_paused_store_is_503_within_a_bound(kind: Kind) {
    let store = kind.start();
    let world = kind.world(&store).await;
    store.pause();
    assert_unavailable(&world).await;
    store.go_on();
    within(RECOVERY, "it goes on by itself", async || world.me().await == StatusCode::OK).await;
    assert!(world.app.ends().is_empty());
    assert_eq!(world.provider.requests(Endpoint::Token), 1, "the provider was left alone");
}

async fn p8_a_store_that_was_restarted_is_used_again(kind: Kind) {
    let mut store = kind.start();
    let world = kind.world(&store).await;
    let mut events = world.browser.send(world.browser.request(Method::GET, &world.app.at("/events"))).await.unwrap();
    events.chunk().await.unwrap().unwrap();
    store.crash();
    assert_unavailable(&world).await;
    store.restart();
    match kind {
        Kind::Postgres => {
            within(RECOVERY, "the session is still there", async || world.me().await == StatusCode::OK).await;
            world.provider.end_sessions_of("alice").await;
        }
        // As after a failover to an empty store.
        Kind::Redis => {
            within(RECOVERY, "the session is unknown", async || world.me().await == StatusCode::UNAUTHORIZED).await;
        }
    }
    // Whether the notice came or was lost, the stream is cut: the new connection for notices makes everybody look.
    assert_cut(&world, events).await;
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
    world.sign_in().await;
}

async fn p8_connections_that_are_cut_are_opened_again(kind: Kind) {
    let store = kind.start();
    let world = kind.world(&store).await;
    match kind {
        Kind::Postgres => {
            let admin = postgres_admin(&store).await;
            let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                       WHERE application_name = 'tower-oidc-session'";
            assert!(!admin.query(cut, &[]).await.unwrap().is_empty());
        }
        Kind::Redis => {
            let mut admin = redis_admin(&store).await;
            for kind in ["normal", "pubsub"] {
                let command = redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg(kind).to_owned();
                let killed: u64 = command.query_async(&mut admin).await.unwrap();
                assert!(killed > 0);
            }
        }
    }
    within(RECOVERY, "the session goes on", async || match world.me().await {
        StatusCode::OK => true,
        StatusCode::SERVICE_UNAVAILABLE => false,
        other => panic!("{other}"),
    })
    .await;
    // Notices come again too.
    let mut events = world.browser.send(world.browser.request(Method::GET, &world.app.at("/events"))).await.unwrap();
    events.chunk().await.unwrap().unwrap();
    let another = kind.registry(&store).await;
    let replica = world.replica(another).await;
    world
        .provider
        .post_logout_token(
            &replica.at("/auth/backchannel-logout"),
            &world.provider.logout_token("shop", None, Some(&world.sid())),
        )
        .await
        .unwrap();
    assert_cut(&world, events).await;
}

async fn p11_streams_on_other_replicas_are_cut_within_a_second(kind: Kind) {
    let store = kind.start();
    let world = kind.world(&store).await;
    let replica = world.replica(kind.registry(&store).await).await;
    within(RECOVERY, "both replicas hear of notices", async || listeners(kind, &store).await >= 2).await;
    let mut events = world.browser.send(world.browser.request(Method::GET, &world.app.at("/events"))).await.unwrap();
    events.chunk().await.unwrap().unwrap();
    let token = world.provider.logout_token("shop", None, Some(&world.sid()));
    let begin = Instant::now();
    let answer = world.provider.post_logout_token(&replica.at("/auth/backchannel-logout"), &token).await;
    assert_eq!(answer, Ok(200));
    let rest = timeout(Duration::from_secs(1), rest_of(&mut events)).await.expect("within a second");
    assert_last(&rest);
    assert!(begin.elapsed() < Duration::from_secs(1));
    assert_eq!(replica.ends(), [format!("ended: {}", EndReason::BackChannelLogout)]);
    assert!(world.app.ends().is_empty(), "one replica reports an end");
}

async fn p8_a_store_that_takes_no_writes_brings_nobody_in_and_out(kind: Kind) {
    let store = kind.start();
    let registry = match kind {
        // As it is, a server that takes no writes is taken for a standby.
        Kind::Postgres => {
            let url = format!("{}?target_session_attrs=any", store.url());
            Registry::over(over_postgres(&url, "shop", []).await)
        }
        Kind::Redis => kind.registry(&store).await,
    };
    let world = World::over(registry, Options::default()).await;
    world.sign_in().await;
    let refuse = async |refuse: bool| match kind {
        Kind::Postgres => {
            let setting = if refuse { "on" } else { "off" };
            let admin = postgres_admin(&store).await;
            let command = format!(
                "ALTER ROLE postgres SET default_transaction_read_only = {setting};
                 SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tower-oidc-session'"
            );
            admin.batch_execute("SET default_transaction_read_only = off").await.unwrap();
            admin.batch_execute(&command).await.unwrap();
        }
        Kind::Redis => {
            let mut admin = redis_admin(&store).await;
            let limit = if refuse { "1" } else { "0" };
            let () = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(limit).query_async(&mut admin).await.unwrap();
        }
    };
    refuse(true).await;
    within(RECOVERY, "reading goes on", async || world.me().await == StatusCode::OK).await;
    let sid = world.sid();
    let token = world.provider.logout_token("shop", None, Some(&sid));
    let receiver = world.app.at("/auth/backchannel-logout");
    assert_eq!(world.provider.post_logout_token(&receiver, &token).await, Ok(503));
    let tokens = world.provider.requests(Endpoint::Token);
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK, "a signal that cannot be recorded is not sent; the session stands");
    assert_eq!(world.provider.requests(Endpoint::Token), tokens);
    let stranger = Browser::new();
    let page = stranger.go(&world.app.at("/me")).await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "{page:?}");

    refuse(false).await;
    world.clock.advance(SECOND * 2);
    let token = world.provider.logout_token("shop", None, Some(&sid));
    within(RECOVERY, "writing goes on", async || world.provider.post_logout_token(&receiver, &token).await == Ok(200))
        .await;
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn postgres_p8_a_statement_timeout_is_503() {
    let store = Store::postgres();
    let world = Kind::Postgres.world(&store).await;
    let mut admin = postgres_admin(&store).await;
    let setting = "ALTER ROLE postgres SET statement_timeout = '100ms';
                   SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE application_name = 'tower-oidc-session'";
    admin.batch_execute(setting).await.unwrap();
    within(RECOVERY, "the session goes on", async || world.me().await == StatusCode::OK).await;
    let locked = admin.transaction().await.unwrap();
    locked.batch_execute("LOCK TABLE shop.session, shop.tombstone").await.unwrap();
    assert_unavailable(&world).await;
    locked.rollback().await.unwrap();
    assert_eq!(world.me().await, StatusCode::OK);
}

#[tokio::test]
async fn postgres_replicas_make_the_schema_together() {
    let store = Store::postgres();
    futures_util::future::join_all((0..8).map(|_| over_postgres(store.url(), "shop", []))).await;
    over_postgres(store.url(), "made_by_one", []).await;
    let admin = postgres_admin(&store).await;
    let together = definitions(&admin, "shop").await;
    for part in ["version 3", "session.key bytea NO", "answer is a c"] {
        assert!(together.iter().any(|definition| definition == part), "{part} is not in {together:#?}");
    }
    assert_eq!(together, definitions(&admin, "made_by_one").await);
    // An account that may not change the schema can start when there is nothing to do.
    admin
        .batch_execute(
            "CREATE ROLE app LOGIN; GRANT USAGE ON SCHEMA shop TO app;
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shop TO app",
        )
        .await
        .unwrap();
    let world = World::over(
        Registry::over(over_postgres(&store.url().replace("postgres@", "app@"), "shop", []).await),
        Options::default(),
    )
    .await;
    world.sign_in().await;
}

#[tokio::test]
async fn redis_keys_are_gone_when_their_sessions_are() {
    let store = Store::redis();
    let world = Kind::Redis.world(&store).await;
    world.browser.post(&world.app.at("/remember")).await;
    world.provider.end_sessions_of("alice").await;
    let mut admin = redis_admin(&store).await;
    let mut keys: Vec<String> = Vec::new();
    within(RECOVERY, "application data is removed", async || {
        keys = admin.keys("*").await.unwrap();
        keys.len() <= 3
    })
    .await;
    for key in &keys {
        let left: i64 = admin.pttl(key).await.unwrap();
        assert!((1..=720_000).contains(&left), "{key} stays for {left} ms");
    }
    // Why it ended, the tombstone of its sid, and the attempt that was spent.
}

/// All that lies in a store.
async fn all_bytes(kind: Kind, store: &Store) -> Vec<u8> {
    let mut all = Vec::new();
    match kind {
        Kind::Redis => {
            let mut admin = redis_admin(store).await;
            // As it is: a dump is compressed else.
            redis::cmd("CONFIG").arg("SET").arg("rdbcompression").arg("no").exec_async(&mut admin).await.unwrap();
            let keys: Vec<Vec<u8>> = admin.keys("*").await.unwrap();
            for key in keys {
                let dump: Option<Vec<u8>> = redis::cmd("DUMP").arg(&key).query_async(&mut admin).await.unwrap();
                all.extend(key);
                all.extend(dump.unwrap_or_default());
            }
        }
        Kind::Postgres => {
            let admin = postgres_admin(store).await;
            let query = "SELECT table_name::text, column_name::text, data_type::text FROM information_schema.columns \
                WHERE table_schema = 'shop'";
            for row in admin.query(query, &[]).await.unwrap() {
                let (table, column, kind): (String, String, String) = (row.get(0), row.get(1), row.get(2));
                let bytes = if kind == "bytea" { column } else { format!("convert_to({column}::text, 'UTF8')") };
                let query = format!("SELECT {bytes} FROM shop.{table}");
                for row in admin.query(&query, &[]).await.unwrap() {
                    all.extend(row.get::<_, Option<Vec<u8>>>(0).unwrap_or_default());
                }
            }
        }
    }
    all
}

async fn p9_a_store_with_keys_holds_no_secret_that_can_be_read(kind: Kind) {
    let key = || StorageKey::from_base64("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=").unwrap();
    for keys in [vec![], vec![key()]] {
        let store = kind.start();
        let are_sealed = !keys.is_empty();
        let registry = match kind {
            Kind::Postgres => Registry::over(over_postgres(store.url(), "shop", keys).await),
            Kind::Redis => Registry::over(over_redis(store.url(), "shop", keys).await),
        };
        let world = World::over(registry, Options::default()).await;
        world.sign_in().await;
        world.browser.post(&world.app.at("/remember")).await;
        let other = Browser::new();
        other.go(&world.app.at("/me")).await;
        // After a login, a refresh, with a lease that is held, and after ends by each door.
        let mut bytes = all_bytes(kind, &store).await;
        world.clock.advance(G);
        assert_eq!(world.me().await, StatusCode::OK);
        bytes.extend(all_bytes(kind, &store).await);
        let mut gate = world.provider.gate(Endpoint::Token, GateAt::Request);
        world.clock.advance(G);
        let refresh = tokio::spawn({
            let (browser, me) = (world.browser.clone(), world.app.at("/me"));
            async move { browser.get(&me).await.status }
        });
        gate.arrived().await;
        bytes.extend(all_bytes(kind, &store).await);
        gate.open();
        assert_eq!(refresh.await.unwrap(), StatusCode::OK);
        other.post(&world.app.at("/auth/logout")).await;
        world.provider.end_sessions_of("alice").await;
        bytes.extend(all_bytes(kind, &store).await);
        assert!(bytes.len() > 2000, "{}", bytes.len());
        assert_eq!(leaks::has_a_secret(&bytes), !are_sealed);
    }
}

macro_rules! over_each_store {
    ($($test:ident)*) => {
        mod redis_store {
            $(#[tokio::test] async fn $test() { super::$test(super::Kind::Redis).await })*
        }
        mod postgres_store {
            $(#[tokio::test] async fn $test() { super::$test(super::Kind::Postgres).await })*
        }
    };
}

over_each_store! {
    p10_each_operation_is_one_round_trip
    p9_a_store_with_keys_holds_no_secret_that_can_be_read
    p11_streams_on_other_replicas_are_cut_within_a_second
    p8_a_paused_store_is_503_within_a_bound
    p8_a_store_that_takes_no_writes_brings_nobody_in_and_out
    p8_a_store_that_was_restarted_is_used_again
    p8_connections_that_are_cut_are_opened_again
}
