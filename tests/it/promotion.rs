//! P13: a PostgreSQL that is promoted, moved, misconfigured, slow to confirm or behind a pooler is the authority, or there
//! is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Client;
use tower_oidc_session::test_provider::check_registry;
use tower_oidc_session::{EndReason, PostgresRegistry};

use crate::browser::Browser;
use crate::registry::{Registry, over_postgres};
use crate::secrets::Log;
use crate::servers::Store;
use crate::stores::within;
use crate::world::{G, Options, World};

/// After this a store that is back, or elsewhere, is used again.
const RECOVERY: Duration = Duration::from_secs(5);

async fn admin(store: &Store) -> Client {
    let (client, connection) = tokio_postgres::connect(store.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A name that can be moved: connections that are open stay where they are, as with a virtual address, a name in DNS or
/// a service of Kubernetes.
struct Name {
    port: u16,
    leads_to: Arc<AtomicU16>,
    forget: watch::Sender<()>,
}

impl Name {
    async fn of(store: &Store) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let leads_to = Arc::new(AtomicU16::new(store.port()));
        let forget = watch::Sender::new(());
        tokio::spawn(pass_on(listener, leads_to.clone(), forget.clone()));
        Self { port, leads_to, forget }
    }

    fn leads_to(&self, store: &Store) {
        self.leads_to.store(store.port(), Ordering::SeqCst);
    }

    /// Nothing more comes through the connections that are open, and nobody is told: so do firewalls.
    fn forget(&self) {
        self.forget.send_replace(());
    }

    fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }
}

async fn pass_on(listener: tokio::net::TcpListener, leads_to: Arc<AtomicU16>, forget: watch::Sender<()>) {
    while let Ok((mut from, _)) = listener.accept().await {
        let port = leads_to.load(Ordering::SeqCst);
        let mut forgotten = forget.subscribe();
        tokio::spawn(async move {
            let Ok(mut to) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await else { return };
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut from, &mut to) => return,
                changed = forgotten.changed() => changed.unwrap(),
            }
            std::future::pending::<()>().await;
        });
    }
}

/// Awaits that the standbys of `primary` have all that is there.
async fn until_replayed(primary: &Store) {
    let admin = admin(primary).await;
    let replayed = "SELECT count(*) > 0 AND bool_and(replay_lsn >= pg_current_wal_lsn()) FROM pg_stat_replication";
    within(RECOVERY, "the standby has it", async || {
        admin.query_one(replayed, &[]).await.unwrap().get::<_, Option<bool>>(0) == Some(true)
    })
    .await;
}

/// A user at an application whose store has a standby, and is found by a name.
struct Site {
    primary: Store,
    standby: Store,
    name: Name,
    world: World,
    sid: String,
}

async fn with_standby(parameters: &str) -> Site {
    let primary = Store::postgres();
    let name = Name::of(&primary).await;
    let registry = Registry::over(over_postgres(&format!("{}{parameters}", name.url()), "shop", []).await);
    let world = World::over(registry, Options::silent()).await;
    let sid = sign_in(&world).await;
    let standby = primary.standby();
    until_replayed(&primary).await;
    // Many connections that are open lead to the old place.
    for status in many(&world, 40).await {
        assert_eq!(status, StatusCode::OK);
    }
    Site { primary, standby, name, world, sid }
}

async fn sign_in(world: &World) -> String {
    world.sign_in().await.json()["sid"].as_str().unwrap().to_owned()
}

async fn many(world: &World, count: usize) -> Vec<StatusCode> {
    let requests = (0..count).map(|_| world.poll());
    futures_util::future::join_all(requests).await
}

/// Serves or is unavailable, and nothing else.
async fn serves(world: &World) -> bool {
    match world.me().await {
        StatusCode::OK => true,
        StatusCode::SERVICE_UNAVAILABLE => false,
        other => panic!("{other}"),
    }
}

async fn assert_unavailable(world: &World, sid: &str) {
    for path in ["/me", "/poll", "/", "/auth/session"] {
        let page = world.browser.get(&world.app.at(path)).await;
        assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "{path}: {page:?}");
        assert!(!page.is_removal(), "{path}");
    }
    assert_eq!(log_out(world, sid).await, 503, "so that the provider tries again");
}

async fn log_out(world: &World, sid: &str) -> u16 {
    let token = world.provider.logout_token("shop", None, Some(sid));
    world.provider.post_logout_token(&world.app.at("/auth/backchannel-logout"), &token).await.unwrap()
}

#[tokio::test]
async fn p13_a_promoted_standby_is_found_while_old_connections_hang() {
    let Site { primary, standby, name, world, sid } = with_standby("").await;
    let mut events = world.browser.send(world.browser.request(Method::GET, &world.app.at("/events"))).await.unwrap();
    events.chunk().await.unwrap().unwrap();
    primary.pause();
    standby.promote();
    name.leads_to(&standby);
    within(RECOVERY, "the new primary is found", async || serves(&world).await).await;
    assert_eq!(Browser::new().go(&world.app.at("/me")).await.status, StatusCode::OK, "logins work as well");
    // Notices come from the new primary too: another replica is there from the beginning.
    sleep(RECOVERY).await;
    let replica = world.replica(Registry::over(over_postgres(&name.url(), "shop", []).await)).await;
    primary.go_on();
    let token = world.provider.logout_token("shop", None, Some(&sid));
    let answer = world.provider.post_logout_token(&replica.at("/auth/backchannel-logout"), &token).await;
    assert_eq!(answer, Ok(200));
    let end = timeout(RECOVERY, async { while let Some(_more) = events.chunk().await.unwrap() {} }).await;
    end.expect("the stream is cut");
    for status in many(&world, 40).await {
        assert_eq!(status, StatusCode::UNAUTHORIZED, "nobody asks the old primary");
    }
}

#[tokio::test]
async fn p13_connections_that_were_forgotten_on_the_way_cost_one_time_out() {
    let store = Store::postgres();
    let name = Name::of(&store).await;
    let world = World::over(Registry::over(over_postgres(&name.url(), "shop", []).await), Options::silent()).await;
    world.sign_in().await;
    // So slow that each needs a connection of its own.
    let mut other = admin(&store).await;
    let locked = other.transaction().await.unwrap();
    locked.batch_execute("LOCK TABLE shop.session").await.unwrap();
    let ((), statuses) = tokio::join!(
        async {
            sleep(Duration::from_millis(300)).await;
            locked.rollback().await.unwrap();
        },
        many(&world, 40)
    );
    assert!(statuses.iter().all(|status| *status == StatusCode::OK), "{statuses:?}");
    sleep(Duration::from_millis(1200)).await;
    name.forget();
    assert_eq!(world.me().await, StatusCode::SERVICE_UNAVAILABLE);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(world.me().await, StatusCode::OK);
}

#[tokio::test]
async fn p13_a_promoted_standby_is_found_after_a_crash() {
    let Site { mut primary, standby, name, world, sid } = with_standby("").await;
    primary.crash();
    assert_unavailable(&world, &sid).await;
    standby.promote();
    name.leads_to(&standby);
    within(RECOVERY, "the new primary is found", async || serves(&world).await).await;
    assert_eq!(log_out(&world, &sid).await, 200);
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn p13_a_name_that_moved_is_followed_though_the_old_primary_lives() {
    let Site { primary, standby, name, world, sid } = with_standby("").await;
    let mut events = world.browser.send(world.browser.request(Method::GET, &world.app.at("/events"))).await.unwrap();
    events.chunk().await.unwrap().unwrap();
    standby.promote();
    name.leads_to(&standby);
    let sessions = "SELECT count(*) FROM shop.session";
    let (old, new) = (admin(&primary).await, admin(&standby).await);
    within(RECOVERY, "logins go to the new primary", async || {
        assert_eq!(Browser::new().go(&world.app.at("/me")).await.status, StatusCode::OK);
        new.query_one(sessions, &[]).await.unwrap().get::<_, i64>(0) > 1
    })
    .await;
    let there: i64 = old.query_one(sessions, &[]).await.unwrap().get(0);
    for status in many(&world, 40).await {
        assert_eq!(status, StatusCode::OK);
    }
    for _ in 0..20 {
        assert_eq!(Browser::new().go(&world.app.at("/me")).await.status, StatusCode::OK);
    }
    assert_eq!(old.query_one(sessions, &[]).await.unwrap().get::<_, i64>(0), there, "none goes to the old one");
    // Notices come from there as well.
    sleep(RECOVERY / 2).await;
    let replica = world.replica(Registry::over(over_postgres(&name.url(), "shop", []).await)).await;
    let token = world.provider.logout_token("shop", None, Some(&sid));
    let answer = world.provider.post_logout_token(&replica.at("/auth/backchannel-logout"), &token).await;
    assert_eq!(answer, Ok(200));
    let end = timeout(RECOVERY, async { while let Some(_more) = events.chunk().await.unwrap() {} }).await;
    end.expect("the stream is cut");
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
}

/// The old connections are closed, the name leads to the standby, which knows the session.
async fn a_standby_is_never_read(parameters: &str) {
    let Site { primary, standby, name, world, sid } = with_standby(parameters).await;
    name.leads_to(&standby);
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tower-oidc-session'";
    assert!(!admin(&primary).await.query(cut, &[]).await.unwrap().is_empty());
    let known = "SELECT count(*) FROM shop.session";
    assert_eq!(admin(&standby).await.query_one(known, &[]).await.unwrap().get::<_, i64>(0), 1);
    sleep(Duration::from_millis(100)).await;
    assert_unavailable(&world, &sid).await;
    // What it does not know would not be refused by it either.
    assert_eq!(Browser::new().go(&world.app.at("/me")).await.status, StatusCode::SERVICE_UNAVAILABLE);
    // No connection to it was kept.
    name.leads_to(&primary);
    assert_eq!(world.me().await, StatusCode::OK);
    name.leads_to(&standby);
    // Where the name leads may have been noticed already, and nothing be left to cut.
    admin(&primary).await.query(cut, &[]).await.unwrap();
    standby.promote();
    within(RECOVERY, "it may be used now", async || serves(&world).await).await;
    assert_eq!(log_out(&world, &sid).await, 200);
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn p13_a_standby_is_never_read() {
    a_standby_is_never_read("").await;
}

#[tokio::test]
async fn p13_a_standby_is_never_read_even_if_any_server_will_do() {
    a_standby_is_never_read("?target_session_attrs=any").await;
}

#[tokio::test]
async fn p13_the_primary_is_found_among_several_hosts() {
    let mut primary = Store::postgres();
    let standby = primary.standby();
    let ports = format!("127.0.0.1:{},127.0.0.1:{}", standby.port(), primary.port());
    let url = format!("postgres://postgres@{ports}/postgres");
    let world = World::over(Registry::over(over_postgres(&url, "shop", []).await), Options::silent()).await;
    let sid = sign_in(&world).await;
    until_replayed(&primary).await;
    primary.crash();
    assert_unavailable(&world, &sid).await;
    standby.promote();
    within(RECOVERY, "the new primary is found", async || serves(&world).await).await;
}

/// A login whose logout is being written: it waits, and then has to see what was written. Returns the answers to its
/// callback and to the request after it.
async fn login_beside_a_logout(store: &Store, url: &str) -> (StatusCode, StatusCode) {
    let world = World::over(Registry::over(over_postgres(url, "shop", []).await), Options::silent()).await;
    let page = world.browser.step(&world.app.at("/auth/login?return_to=/me")).await;
    let back = world.browser.step(page.location().as_str()).await.location();
    let logout = admin(store).await;
    logout.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED").await.unwrap();
    let (issuer, sid) = (world.provider.issuer(), world.sid());
    let statement = format!(
        "SELECT word FROM shop.end_matching(
            sha256('sid'::bytea || '\\x00'::bytea || '{issuer}'::bytea || '\\x00'::bytea || 'shop'::bytea
                || '\\x00'::bytea || '{sid}'::bytea || '\\x00'::bytea),
            NULL, 1800000030000, 1800000001000, 'back_channel_logout', 600000, 1800000000000, 1800000000000, '\\x01', 720000)"
    );
    logout.batch_execute(&statement).await.unwrap();
    let callback = tokio::spawn({
        let browser = world.browser.clone();
        async move { browser.step(back.as_str()).await.status }
    });
    // A moment less than the bound of an operation.
    sleep(Duration::from_millis(400)).await;
    logout.batch_execute("COMMIT").await.unwrap();
    (callback.await.unwrap(), world.me().await)
}

#[tokio::test]
async fn p13_a_covered_login_is_refused_whatever_isolation_the_database_has() {
    let store = Store::postgres();
    let expected = login_beside_a_logout(&store, store.url()).await;
    assert_eq!(expected.1, StatusCode::UNAUTHORIZED);
    for isolation in ["repeatable read", "serializable"] {
        for whose in ["DATABASE", "ROLE"] {
            let store = Store::postgres();
            let setting = format!("ALTER {whose} postgres SET default_transaction_isolation = '{isolation}'");
            admin(&store).await.batch_execute(&setting).await.unwrap();
            let found = login_beside_a_logout(&store, store.url()).await;
            assert_eq!(found, expected, "{isolation} of the {whose}");
        }
    }
}

#[tokio::test]
async fn p13_isolation_that_cannot_be_set_is_an_error() {
    let store = Store::postgres();
    let bouncer = store.bouncer(&["ignore_startup_parameters = options"]);
    let setting = "ALTER DATABASE postgres SET default_transaction_isolation = 'repeatable read'";
    admin(&store).await.batch_execute(setting).await.unwrap();
    let (callback, me) = login_beside_a_logout(&store, bouncer.url()).await;
    assert_eq!((callback, me), (StatusCode::SERVICE_UNAVAILABLE, StatusCode::UNAUTHORIZED));
}

#[tokio::test]
async fn p13_writes_that_wait_for_a_standby_leave_reads_alone() {
    let Site { primary, standby, name: _name, world, sid } = with_standby("").await;
    let browsers: Vec<Browser> = (0..20).map(|_| Browser::new()).collect();
    for browser in &browsers {
        assert_eq!(browser.go(&world.app.at("/me")).await.status, StatusCode::OK);
    }
    let setup = admin(&primary).await;
    setup.batch_execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await.unwrap();
    setup.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    within(RECOVERY, "writes wait for the standby", async || {
        let state = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        setup.query_one(state, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    standby.pause();
    assert_eq!(log_out(&world, &sid).await, 503, "an end that the standby has not confirmed is none");
    world.clock.advance(G);
    // All of them want to write at once, and again and again.
    let writers: Vec<_> = browsers
        .iter()
        .map(|browser| {
            let (browser, url) = (browser.clone(), world.app.at("/me"));
            tokio::spawn(async move {
                for _ in 0..3 {
                    assert_eq!(browser.get(&url).await.status, StatusCode::OK);
                }
            })
        })
        .collect();
    let reader = &browsers[0];
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(3) {
        let asked = Instant::now();
        let page = reader.get(&world.app.at("/poll")).await;
        assert_eq!(page.status, StatusCode::OK, "reads go on");
        assert!(asked.elapsed() < Duration::from_millis(500), "at once: {:?}", asked.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    within(RECOVERY, "nothing is left waiting at the server", async || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        setup.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    standby.go_on();
    within(RECOVERY, "writes go on", async || log_out(&world, &sid).await == 200).await;
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
    assert_eq!(Browser::new().go(&world.app.at("/me")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn p13_nobody_gets_a_connection_that_is_busy_with_anothers_statement() {
    let store = Store::postgres();
    // A pooler passes no statement_timeout on, and is sent no cancellation: as the documentation asks for, the role has one.
    let setting = "ALTER ROLE postgres SET statement_timeout = '2s'";
    admin(&store).await.batch_execute(setting).await.unwrap();
    let bouncer = store.bouncer(&["ignore_startup_parameters = options"]);
    for url in [store.url(), bouncer.url()] {
        let world = World::over(Registry::over(over_postgres(url, "shop", []).await), Options::silent()).await;
        world.sign_in().await;
        let (looks, mut other) = (admin(&store).await, admin(&store).await);
        let locked = other.transaction().await.unwrap();
        locked.batch_execute("LOCK TABLE shop.session").await.unwrap();
        for status in many(&world, 20).await {
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        }
        // Requests whose browser went away do the same.
        let gone = timeout(Duration::from_millis(100), many(&world, 20)).await;
        assert!(gone.is_err());
        within(RECOVERY, "nothing of ours waits at the server", async || {
            let ours = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%shop.load%' \
           AND pid <> pg_backend_pid()";
            looks.query_one(ours, &[]).await.unwrap().get::<_, i64>(0) == 0
        })
        .await;
        locked.rollback().await.unwrap();
        within(RECOVERY, "it goes on", async || serves(&world).await).await;
        for status in many(&world, 40).await {
            assert_eq!(status, StatusCode::OK);
        }
        looks.batch_execute("DROP SCHEMA shop CASCADE").await.unwrap();
    }
}

#[tokio::test]
async fn p13_an_older_schema_is_migrated_and_a_newer_one_is_refused() {
    let store = Store::postgres();
    let admin = admin(&store).await;
    let first = include_str!("schema/version_1.sql").replace("{schema}", "shop");
    admin.batch_execute(&first).await.unwrap();
    let registries = futures_util::future::join_all((0..4).map(|_| over_postgres(store.url(), "shop", []))).await;
    let version = "SELECT max(version), count(*) FROM shop.schema_version";
    let row = admin.query_one(version, &[]).await.unwrap();
    let found: (i64, i64) = (row.get(0), row.get(1));
    assert_eq!(found, (3, 2), "once, by one of them");
    let world = World::over(Registry::over(registries[0].clone()), Options::silent()).await;
    let sid = sign_in(&world).await;
    assert_eq!(log_out(&world, &sid).await, 200);
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);

    admin.batch_execute("INSERT INTO shop.schema_version VALUES (1000)").await.unwrap();
    let error = registries[0].migrate().await.unwrap_err().to_string();
    assert!(error.contains("newer version") && error.contains("1000"), "{error}");
    admin.batch_execute("DELETE FROM shop.schema_version").await.unwrap();
    assert!(registries[0].migrate().await.is_err(), "a schema without version is left alone");
}

#[tokio::test]
async fn p13_replicas_of_the_version_before_and_of_this_one_end_each_others_logins() {
    let store = Store::postgres();
    let admin = admin(&store).await;
    let before = include_str!("schema/version_2.sql").replace("{schema}", "shop");
    admin.batch_execute(&before).await.unwrap();
    admin.batch_execute("INSERT INTO shop.schema_version VALUES (2)").await.unwrap();
    let registry = over_postgres(store.url(), "shop", []).await;
    let world = World::over(Registry::over(registry), Options::silent()).await;
    sign_in(&world).await;
    // What a replica of version 2 says when a logout token comes to it.
    let end = "SELECT word FROM shop.session, shop.end_by_sid(sid, NULL, issued_at, 1000, 'back_channel_logout', 0)";
    assert_eq!(admin.query(end, &[]).await.unwrap().len(), 1);
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
    let covers = "SELECT count(*) FROM shop.tombstone, shop.ended
                  WHERE arrived > shop.here() - 10000 AND tombstone.until > shop.here() AND subject IS NOT NULL";
    assert_eq!(admin.query_one(covers, &[]).await.unwrap().get::<_, i64>(0), 1);
    // And when somebody signs in there.
    let begin = "SELECT word FROM shop.tombstone, shop.create_session('\\x01', 1, name, '\\x02', 0, 0, '', 0, 1000)";
    assert_eq!(admin.query_one(begin, &[]).await.unwrap().get::<_, String>(0), "covered");
}

fn name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("promotion_{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Over a PgBouncer that refuses settings of the connection, and over one that takes and ignores them.
#[tokio::test]
async fn p13_the_contract_holds_through_pgbouncer_in_transaction_mode() {
    let store = Store::postgres();
    for settings in [&[][..], &["ignore_startup_parameters = options,extra_float_digits"]] {
        let bouncer = store.bouncer(settings);
        check_registry(async || over_postgres(bouncer.url(), &name(), []).await.listen_at(store.url()).unwrap()).await;
        let registry = over_postgres(bouncer.url(), &name(), []).await;
        let world = World::over(Registry::over(registry), Options::silent()).await;
        let sid = sign_in(&world).await;
        for status in many(&world, 100).await {
            assert_eq!(status, StatusCode::OK);
        }
        world.clock.advance(G);
        assert_eq!(world.me().await, StatusCode::OK);
        assert_eq!(log_out(&world, &sid).await, 200);
        world.app.assert_ended(EndReason::BackChannelLogout);
    }
}

#[tokio::test]
async fn p13_a_pooler_that_passes_no_notices_on_is_told_of_at_the_start() {
    let store = Store::postgres();
    let bouncer = store.bouncer(&[]);
    let start = async |url: &str, listen: Option<&str>| {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let _here = tracing::subscriber::set_default(subscriber);
        let registry: PostgresRegistry = over_postgres(url, &name(), []).await;
        let registry = match listen {
            Some(listen) => registry.listen_at(listen).unwrap(),
            None => registry,
        };
        sleep(RECOVERY / 2).await;
        drop(registry);
        log.text().contains("listen_at")
    };
    assert!(start(bouncer.url(), None).await, "a warning");
    assert!(!start(bouncer.url(), Some(store.url())).await);
    assert!(!start(store.url(), None).await);
}
