//! Redis that is not what it was: demoted, cut off, on its way to another node, written by others.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use http::StatusCode;
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};
use tower_oidc_session::registry::{Loaded, LoginAttempt, SessionRecord};
use tower_oidc_session::test_provider::Endpoint;
use tower_oidc_session::{Clock, EndReason, RedisRegistry, SessionKey, SessionRegistry, StorageKey};
use tower_sessions::SessionStore;
use tower_sessions::cookie::time::OffsetDateTime;
use tower_sessions::session::{Id, Record};

use crate::browser::Browser;
use crate::registry::{Registry, over_redis};
use crate::secrets::Log;
use crate::servers::Store;
use crate::stores::{RECOVERY, assert_cut, redis_admin, within};
use crate::world::{App, G, Options, SECOND, World};

/// An address that leads elsewhere after a failover, while connections that are open stay where they are: a virtual IP
/// address, a DNS name, a service of Kubernetes.
#[derive(Clone)]
struct Address {
    port: u16,
    target: Arc<AtomicU16>,
}

impl Address {
    async fn of(store: &Store) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address =
            Self { port: listener.local_addr().unwrap().port(), target: Arc::new(AtomicU16::new(store.port())) };
        tokio::spawn(address.clone().lead(listener));
        address
    }

    async fn lead(self, listener: TcpListener) {
        while let Ok((mut from, _)) = listener.accept().await {
            let port = self.target.load(Ordering::SeqCst);
            tokio::spawn(async move {
                if let Ok(mut to) = TcpStream::connect(("127.0.0.1", port)).await {
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                }
            });
        }
    }

    fn move_to(&self, store: &Store) {
        self.target.store(store.port(), Ordering::SeqCst);
    }

    async fn registry(&self) -> RedisRegistry {
        over_redis(&format!("redis://127.0.0.1:{}/0", self.port), "shop", []).await
    }
}

pub(crate) async fn ask<T: redis::FromRedisValue>(admin: &mut MultiplexedConnection, command: &str) -> T {
    let mut words = command.split_whitespace();
    let mut command = redis::cmd(words.next().unwrap());
    command.arg(words.collect::<Vec<_>>()).query_async(admin).await.unwrap()
}

pub(crate) async fn tell(store: &Store, command: &str) {
    let _: redis::Value = ask(&mut redis_admin(store).await, command).await;
}

/// Whether the replica of a primary has acknowledged anything yet. It is counted among those that confirm from then on, up
/// to a second after it is there; `WAIT` says so only to who has written something.
pub(crate) async fn is_confirmed(admin: &mut MultiplexedConnection) -> bool {
    let info: String = ask(admin, "INFO replication").await;
    let acknowledged = |line: &str| line.split(',').any(|part| part.starts_with("offset=") && part != "offset=0");
    info.lines().any(|line| line.starts_with("slave0:") && acknowledged(line))
}

/// A primary and its replica.
struct Pair {
    one: Store,
    two: Store,
    address: Address,
}

impl Pair {
    async fn start() -> Self {
        let (one, two) = (Store::redis(), Store::redis());
        tell(&one, "CONFIG SET repl-diskless-sync-delay 0").await;
        tell(&two, &format!("REPLICAOF 127.0.0.1 {}", one.port())).await;
        let mut admin = redis_admin(&two).await;
        within(RECOVERY * 4, "the replica follows", async || {
            ask::<String>(&mut admin, "INFO replication").await.contains("master_link_status:up")
        })
        .await;
        let address = Address::of(&one).await;
        let pair = Self { one, two, address };
        // The primary counts a replica among those that confirm from its first acknowledgement on, up to a second later.
        pair.settle().await;
        pair
    }

    /// Waits until the replica has everything.
    async fn settle(&self) {
        let mut admin = redis_admin(&self.one).await;
        let () = admin.set("settled", 1).await.unwrap();
        within(RECOVERY, "the replica has it", async || ask::<u32>(&mut admin, "WAIT 1 200").await == 1).await;
    }

    /// The replica takes over. The demoted primary answers on, and hears nothing of what comes.
    async fn fail_over(&self) {
        self.settle().await;
        tell(&self.two, "REPLICAOF NO ONE").await;
        self.address.move_to(&self.two);
        tell(&self.one, "REPLICAOF 127.0.0.1 9").await;
    }

    /// The replica takes over after the primary has been lost.
    async fn lose_the_primary(&mut self) {
        self.one.crash();
        tell(&self.two, "REPLICAOF NO ONE").await;
        self.address.move_to(&self.two);
    }
}

pub(crate) async fn world_over(registry: RedisRegistry) -> World {
    let world = World::over(Registry::over(registry), Options::default()).await;
    world.sign_in().await;
    world
}

/// What a provider hears that tells `app` of a logout.
pub(crate) async fn log_out_at(world: &World, app: &App) -> Result<u16, String> {
    log_out(world, app, &world.sid()).await
}

pub(crate) async fn log_out(world: &World, app: &App, sid: &str) -> Result<u16, String> {
    let token = world.provider.logout_token("shop", None, Some(sid));
    world.provider.post_logout_token(&app.at("/auth/backchannel-logout"), &token).await.map_err(|e| format!("{e:?}"))
}

pub(crate) async fn login(world: &World) -> StatusCode {
    Browser::new().go(&world.app.at("/me")).await.status
}

/// Waits until the session has ended; meanwhile nothing is served.
async fn ends_without_being_served(world: &World) {
    within(RECOVERY, "the end is seen", async || match world.me().await {
        StatusCode::UNAUTHORIZED => true,
        StatusCode::SERVICE_UNAVAILABLE => false,
        other => panic!("{other}"),
    })
    .await;
}

#[tokio::test]
async fn redis_p13_an_end_after_a_failover_is_seen_through_the_old_connection() {
    let pair = Pair::start().await;
    let world = world_over(pair.address.registry().await).await;
    pair.fail_over().await;
    // A replica of the application that was started later is at the new primary. The logout token goes there.
    let later = world.replica(pair.address.registry().await).await;
    assert_eq!(log_out_at(&world, &later).await, Ok(200));
    ends_without_being_served(&world).await;
}

#[tokio::test]
async fn redis_p13_a_failover_ends_nothing_and_writes_work_again() {
    let pair = Pair::start().await;
    let world = world_over(pair.address.registry().await).await;
    pair.fail_over().await;
    let begin = Instant::now();
    // The first to come may be a write.
    within(RECOVERY, "logins work again", async || match login(&world).await {
        StatusCode::OK => true,
        StatusCode::SERVICE_UNAVAILABLE => false,
        other => panic!("{other}"),
    })
    .await;
    within(RECOVERY, "the session goes on", async || match world.me().await {
        StatusCode::OK => true,
        StatusCode::SERVICE_UNAVAILABLE => false,
        other => panic!("{other}"),
    })
    .await;
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK, "with a signal");
    assert!(begin.elapsed() < RECOVERY);
    assert!(world.app.ends().is_empty());
}

#[tokio::test]
async fn redis_p13_streams_are_cut_after_a_failover() {
    let pair = Pair::start().await;
    let world = world_over(pair.address.registry().await).await;
    let request = world.browser.request(http::Method::GET, &world.app.at("/events"));
    let mut events = world.browser.send(request).await.unwrap();
    events.chunk().await.unwrap().unwrap();
    pair.fail_over().await;
    let later = world.replica(pair.address.registry().await).await;
    assert_eq!(log_out_at(&world, &later).await, Ok(200));
    // Somebody's request finds that the primary has moved; notices then come from the new one.
    login(&world).await;
    assert_cut(&world, events).await;
}

/// Replicas that take writes are found out by their role.
#[tokio::test]
async fn redis_p13_a_replica_is_never_read() {
    for setting in ["replica-read-only yes", "replica-read-only no", "replica-serve-stale-data no"] {
        let pair = Pair::start().await;
        let world = world_over(over_redis(pair.one.url(), "shop", []).await).await;
        pair.settle().await;
        tell(&pair.two, &format!("CONFIG SET {setting}")).await;
        let reads_two = world.replica(over_redis(pair.two.url(), "shop", []).await).await;
        let me = async || {
            let cookie = world.browser.cookie_header(&world.app.url);
            reqwest::Client::new().get(reads_two.at("/me")).header("cookie", cookie).send().await.unwrap().status()
        };
        assert_eq!(me().await, StatusCode::SERVICE_UNAVAILABLE, "{setting}: connected to a replica");
        assert_eq!(log_out_at(&world, &reads_two).await, Ok(503), "{setting}");

        tell(&pair.two, "REPLICAOF NO ONE").await;
        within(RECOVERY, "the promoted one is used", async || me().await == StatusCode::OK).await;
        tell(&pair.two, &format!("REPLICAOF 127.0.0.1 {}", pair.one.port())).await;
        sleep(SECOND).await;
        assert_eq!(me().await, StatusCode::SERVICE_UNAVAILABLE, "{setting}: demoted");
        assert_eq!(world.me().await, StatusCode::OK);
    }
}

#[tokio::test]
async fn redis_p13_a_primary_that_has_lost_its_replicas_is_none_where_it_says_so() {
    let store = Store::redis();
    let world = world_over(over_redis(store.url(), "shop", []).await).await;
    tell(&store, "CONFIG SET min-replicas-to-write 1").await;
    assert_eq!(world.me().await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(log_out_at(&world, &world.app).await, Ok(503));
    tell(&store, "CONFIG SET min-replicas-to-write 0").await;
    within(RECOVERY, "it is one again", async || world.me().await == StatusCode::OK).await;
}

#[tokio::test]
async fn redis_p13_a_disk_that_is_full_stops_writes_only() {
    let store = Store::redis();
    let world = world_over(over_redis(store.url(), "shop", []).await).await;
    let mut admin = redis_admin(&store).await;
    store.lose_disk();
    let () = redis::cmd("CONFIG").arg(&["SET", "save", "3600 1"]).query_async(&mut admin).await.unwrap();
    tell(&store, "BGSAVE").await;
    within(RECOVERY * 4, "it takes no writes", async || {
        let written: redis::RedisResult<()> = admin.set("key", "value").await;
        written.is_err_and(|error| error.code() == Some("MISCONF"))
    })
    .await;
    assert_eq!(world.me().await, StatusCode::OK, "reading goes on");
    assert_eq!(log_out_at(&world, &world.app).await, Ok(503));
    let _: redis::Value = ask(&mut admin, "CONFIG SET stop-writes-on-bgsave-error no").await;
    assert_eq!(log_out_at(&world, &world.app).await, Ok(200));
}

#[tokio::test]
async fn redis_p10_the_role_is_asked_once_a_second_at_most() {
    let store = Store::redis();
    let world = world_over(over_redis(store.url(), "shop", []).await).await;
    let mut admin = redis_admin(&store).await;
    sleep(SECOND).await;
    let _: redis::Value = ask(&mut admin, "CONFIG RESETSTAT").await;
    let begin = Instant::now();
    for _ in 0..200 {
        assert_eq!(world.me().await, StatusCode::OK);
    }
    let stats: String = ask(&mut admin, "INFO commandstats").await;
    let calls = |name: &str| -> u64 {
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")));
        line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    };
    assert_eq!(calls("getex") + calls("get"), 200, "{stats}");
    assert!((1..=begin.elapsed().as_secs() + 1).contains(&calls("role")), "{stats}");
}

/// What a script that writes nothing says of a session is refused as well, from the first moment on: not once a second.
#[tokio::test]
async fn redis_p13_a_demoted_primary_says_nothing_by_scripts() {
    let store = Store::redis();
    let world = world_over(over_redis(store.url(), "shop", []).await).await;
    let key = session_keys(&store).await[0];
    world.clock.advance(G);
    let stale = match SessionRegistry::load(&world.app.registry, &key).await.unwrap() {
        Loaded::Live(record) => SessionRecord::clone(&record),
        other => panic!("{other:?}"),
    };
    assert_eq!(world.me().await, StatusCode::OK, "the version counts up");
    let unknown = SessionKey::from_bytes([7; 32]);
    let unknown_data = Record { id: Id::default(), data: HashMap::default(), expiry_date: OffsetDateTime::UNIX_EPOCH };
    for operation in ["load", "commit", "create", "end", "save", "time"] {
        let registry = over_redis(store.url(), "shop", []).await;
        assert_eq!(SessionRegistry::load(&registry, &unknown).await.unwrap(), Loaded::Unknown);
        tell(&store, "REPLICAOF 127.0.0.1 9").await;
        let now = world.clock.now();
        let is_refused = match operation {
            "load" => SessionRegistry::load(&registry, &unknown).await.is_err(),
            "commit" => registry.commit(stale.clone(), now).await.is_err(),
            "create" => {
                let attempt = LoginAttempt { began_at: now, seen: None };
                SessionRegistry::create(&registry, stale.clone(), attempt, now).await.is_err()
            }
            "end" => registry.end(&unknown, EndReason::IdleTimeout).await.is_err(),
            "time" => registry.time().await.is_err(),
            _ => SessionStore::save(&registry, &unknown_data).await.is_err(),
        };
        assert!(is_refused, "{operation}");
        tell(&store, "REPLICAOF NO ONE").await;
    }
}

/// An account that may not ask for the role has what Redis refuses by itself.
#[tokio::test]
async fn redis_p13_an_account_without_role_reads_no_replica_either() {
    let pair = Pair::start().await;
    for store in [&pair.one, &pair.two] {
        tell(store, "ACL SETUSER app on >secret ~* &* +@all -role").await;
    }
    let url = |store: &Store| store.url().replace("redis://", "redis://app:secret@");
    let world = world_over(over_redis(&url(&pair.one), "shop", []).await).await;
    assert_eq!(world.me().await, StatusCode::OK);
    let reads_two = world.replica(over_redis(&url(&pair.two), "shop", []).await).await;
    assert_eq!(log_out_at(&world, &reads_two).await, Ok(503));
    tell(&pair.one, "REPLICAOF 127.0.0.1 9").await;
    assert_eq!(world.me().await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(log_out_at(&world, &world.app).await, Ok(503));
}

/// A connection that is cut without a word is not waited for until the network gives it up.
#[tokio::test]
async fn redis_p8_a_primary_that_vanished_is_replaced() {
    let pair = Pair::start().await;
    let world = world_over(pair.address.registry().await).await;
    pair.settle().await;
    pair.one.pause();
    tell(&pair.two, "REPLICAOF NO ONE").await;
    pair.address.move_to(&pair.two);
    within(RECOVERY, "the other one is used", async || world.me().await == StatusCode::OK).await;
    assert_eq!(login(&world).await, StatusCode::OK);
}

#[tokio::test]
async fn redis_p1_confirmed_by_one_an_end_survives_the_loss_of_the_primary() {
    let mut pair = Pair::start().await;
    let world = world_over(pair.address.registry().await.confirmed_by(1)).await;
    pair.two.pause();
    assert_eq!(log_out_at(&world, &world.app).await, Ok(503), "the replica does not have it");
    // It has ended here by now; that is no confirmation.
    assert_eq!(log_out_at(&world, &world.app).await, Ok(503));
    pair.two.go_on();
    within(RECOVERY, "the replica has it", async || log_out_at(&world, &world.app).await == Ok(200)).await;
    pair.lose_the_primary().await;
    assert_ne!(world.me().await, StatusCode::OK);
    // Nobody is told as long as this one might be lost, too.
    pair.one.restart();
    tell(&pair.one, &format!("REPLICAOF 127.0.0.1 {}", pair.two.port())).await;
    ends_without_being_served(&world).await;
}

#[tokio::test]
async fn redis_p1_nobody_is_told_to_be_signed_out_before_the_replica_knows() {
    let pair = Pair::start().await;
    let world = world_over(pair.address.registry().await.confirmed_by(1)).await;
    // The browser keeps its cookie, as it gets no answer but 503.
    let sign_out = async || world.browser.post(&world.app.at("/auth/logout")).await.status;
    pair.two.pause();
    for attempt in 1..=3 {
        assert_eq!(sign_out().await, StatusCode::SERVICE_UNAVAILABLE, "attempt {attempt}");
    }
    pair.two.go_on();
    within(RECOVERY, "the replica has it", async || sign_out().await == StatusCode::SEE_OTHER).await;
}

#[tokio::test]
async fn redis_p2_nothing_is_presented_before_the_replica_knows_who_waits_for_the_answer() {
    let pair = Pair::start().await;
    let world = world_over(pair.address.registry().await.confirmed_by(1)).await;
    let presented = || world.provider.requests(Endpoint::Token);
    let before = presented();
    pair.two.pause();
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK, "the session stands");
    assert_ne!(login(&world).await, StatusCode::OK);
    assert_eq!(presented(), before, "neither a refresh token nor a code");
    pair.two.go_on();
    within(RECOVERY, "it is presented", async || {
        // The next attempt comes after a pause.
        world.clock.advance(SECOND);
        world.me().await == StatusCode::OK && presented() > before
    })
    .await;
    within(RECOVERY, "somebody signs in", async || login(&world).await == StatusCode::OK).await;
}

/// The keys of all sessions in a store.
async fn session_keys(store: &Store) -> Vec<SessionKey> {
    let names: Vec<String> = redis_admin(store).await.keys("{shop:*}:s:*").await.unwrap();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let key = |name: &String| {
        let hex = name.rsplit(':').next().unwrap().as_bytes();
        SessionKey::from_bytes(hex.chunks(2).map(byte).collect::<Vec<_>>().try_into().unwrap())
    };
    names.iter().map(key).collect()
}

#[tokio::test]
async fn redis_p1_an_end_that_was_not_confirmed_is_not_by_asking_again() {
    let pair = Pair::start().await;
    world_over(pair.address.registry().await.confirmed_by(1)).await;
    let keys = session_keys(&pair.one).await;
    let end = async || {
        // By connections that have written nothing yet.
        let registry = pair.address.registry().await.confirmed_by(1);
        SessionRegistry::end(&registry, &keys[0], EndReason::IdleTimeout).await
    };
    pair.two.pause();
    for _ in 0..3 {
        let error = end().await.unwrap_err().to_string();
        let is_so = error.contains("only 0 of 1 replicas") || error.contains("in time");
        assert!(is_so, "{error}");
    }
    pair.two.go_on();
    // It was gone already, and the replica has it as soon as it hears again.
    within(RECOVERY, "the end is confirmed", async || matches!(end().await, Ok(None))).await;
    assert_eq!(session_keys(&pair.two).await, keys);
    let over_two = over_redis(pair.two.url(), "shop", []).await;
    tell(&pair.two, "REPLICAOF NO ONE").await;
    let loaded = SessionRegistry::load(&over_two, &keys[0]).await.unwrap();
    assert!(matches!(loaded, Loaded::Ended(mark) if mark.reason == EndReason::IdleTimeout), "{loaded:?}");
}

#[tokio::test]
async fn redis_p1_nobody_is_told_of_an_end_that_the_replica_does_not_know() {
    let mut pair = Pair::start().await;
    let world = world_over(pair.address.registry().await.confirmed_by(1)).await;
    // The replica hears nothing any more.
    tell(&pair.two, "REPLICAOF 127.0.0.1 9").await;
    assert_eq!(log_out_at(&world, &world.app).await, Ok(503), "it has ended, and nothing confirms that");
    for attempt in 1..=2 {
        assert_eq!(world.me().await, StatusCode::SERVICE_UNAVAILABLE, "attempt {attempt}");
    }
    // The end is lost with the primary: nobody was told, and the provider says it once more.
    pair.lose_the_primary().await;
    within(RECOVERY, "the session stands", async || world.me().await == StatusCode::OK).await;
}

/// What `confirmed_by` is for.
#[tokio::test]
async fn redis_an_end_that_nobody_confirmed_may_be_lost_with_the_primary() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut pair = Pair::start().await;
    let world = world_over(pair.address.registry().await).await;
    pair.settle().await;
    pair.two.pause();
    // What the network still holds goes down with the machine: here with the connection to the replica.
    tell(&pair.one, "CLIENT KILL TYPE replica").await;
    assert_eq!(log_out_at(&world, &world.app).await, Ok(200));
    pair.one.crash();
    pair.two.go_on();
    pair.lose_the_primary().await;
    within(RECOVERY, "it lives again", async || world.me().await == StatusCode::OK).await;
    let log = log.text();
    assert_eq!(log.matches("confirmed_by").count(), 1, "one warning said so: {log}");
}

#[tokio::test]
async fn redis_p13_confirmed_by_one_without_replicas_brings_nobody_in() {
    let store = Store::redis();
    let registry = over_redis(store.url(), "shop", []).await.confirmed_by(1);
    let world = World::over(Registry::over(registry), Options::default()).await;
    assert_eq!(login(&world).await, StatusCode::SERVICE_UNAVAILABLE);
    assert!(world.app.events().is_empty(), "{:?}", world.app.events());
}

#[tokio::test]
async fn redis_p10_reads_do_not_queue_behind_confirmations() {
    let pair = Pair::start().await;
    let world = world_over(pair.address.registry().await.confirmed_by(1)).await;
    pair.two.pause();
    let waiting = futures_util::future::join_all((0..4).map(|_| login(&world)));
    let reading = async {
        sleep(Duration::from_millis(100)).await;
        let begin = Instant::now();
        for _ in 0..20 {
            assert_eq!(world.me().await, StatusCode::OK);
        }
        assert!(begin.elapsed() < SECOND / 2, "{:?}", begin.elapsed());
    };
    let (logins, ()) = tokio::join!(waiting, reading);
    assert_eq!(logins, [StatusCode::SERVICE_UNAVAILABLE; 4]);
    pair.two.go_on();
    within(RECOVERY, "logins work again", async || login(&world).await == StatusCode::OK).await;
}

#[tokio::test]
async fn redis_p13_what_cannot_be_read_is_503_and_keeps_the_cookie() {
    let store = Store::redis();
    let key = |letter: &str| StorageKey::from_base64(&format!("{}A=", letter.repeat(42))).unwrap();
    let world = world_over(over_redis(store.url(), "shop", [key("A")]).await).await;
    let mut admin = redis_admin(&store).await;
    let keys: Vec<String> = admin.keys("{shop:*}:s:*").await.unwrap();
    let good: Vec<u8> = admin.get(&keys[0]).await.unwrap();
    let line_end = good.iter().position(|byte| *byte == b'\n').unwrap();
    let newer = [&good[..=line_end], b"\x09 of tomorrow"].concat();
    let values = [&b"Ea_reason_of_tomorrow"[..], b"M of tomorrow", b"L no header", b"L{}\n\x01{}", b"", &newer];
    for value in values {
        let shown = String::from_utf8_lossy(value);
        let () = admin.set(&keys[0], value).await.unwrap();
        for path in ["/me", "/poll", "/auth/session"] {
            let page = world.browser.get(&world.app.at(path)).await;
            assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "{path} {shown}");
            assert!(!page.is_removal(), "{path} {shown}");
        }
    }
    let () = admin.set(&keys[0], &good).await.unwrap();
    assert_eq!(world.me().await, StatusCode::OK);

    // A replica of the application whose keys are not those that wrote.
    let other = world.replica(over_redis(store.url(), "shop", [key("B")]).await).await;
    let cookie = world.browser.cookie_header(&world.app.url);
    let answer = reqwest::Client::new().get(other.at("/me")).header("cookie", cookie).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(!answer.headers().contains_key("set-cookie"));
}

#[tokio::test]
async fn redis_p1_a_session_that_cannot_be_read_stops_no_other_end() {
    let store = Store::redis();
    let world = world_over(over_redis(store.url(), "shop", []).await).await;
    let mut admin = redis_admin(&store).await;
    let keys: Vec<String> = admin.keys("{shop:*}:s:*").await.unwrap();
    let good: Vec<u8> = admin.get(&keys[0]).await.unwrap();
    let another = Browser::new();
    another.go(&world.app.at("/me")).await;
    let () = admin.set(&keys[0], "M of tomorrow").await.unwrap();
    let token = world.provider.logout_token("shop", Some("alice"), None);
    let receiver = world.app.at("/auth/backchannel-logout");
    assert_eq!(world.provider.post_logout_token(&receiver, &token).await, Ok(503), "not all is done");
    assert_eq!(another.get(&world.app.at("/me")).await.status, StatusCode::UNAUTHORIZED);
    let () = admin.set(&keys[0], &good).await.unwrap();
    let token = world.provider.logout_token("shop", Some("alice"), None);
    assert_eq!(world.provider.post_logout_token(&receiver, &token).await, Ok(200));
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn redis_p12_a_session_that_cannot_be_read_ends_for_its_sid_and_nobody_instead() {
    let store = Store::redis();
    let world = world_over(over_redis(store.url(), "shop", []).await).await;
    let sid = world.sid();
    let mut admin = redis_admin(&store).await;
    let keys: Vec<String> = admin.keys("{shop:*}:s:*").await.unwrap();
    let good: Vec<u8> = admin.get(&keys[0]).await.unwrap();
    let line_end = good.iter().position(|byte| *byte == b'\n').unwrap();
    let () = admin.set(&keys[0], [&good[..=line_end], b"\x09 of tomorrow"].concat()).await.unwrap();
    // Another of the user's, without a sid: whom a logout reaches where there is none with the one that it names.
    world.provider.tamper_id_token(|_, claims| drop(claims.as_object_mut().unwrap().remove("sid")));
    let another = Browser::new();
    another.go(&world.app.at("/me")).await;
    let token = world.provider.logout_token("shop", Some("alice"), Some(&sid));
    let receiver = world.app.at("/auth/backchannel-logout");
    assert_eq!(world.provider.post_logout_token(&receiver, &token).await, Ok(200));
    assert_eq!(another.get(&world.app.at("/me")).await.status, StatusCode::OK);
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
}
