//! Users, logouts and faults by chance over three replicas and a real store; and whether what happened keeps the promises.
//!
//! `ci/chaos MINUTES SEED` runs it. The seed decides who does what and what goes wrong; the machine decides what meets what.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, and print what they have counted"
)]

mod admin;
mod again;
mod checker;
mod checker_tests;
mod history;
#[allow(dead_code, reason = "each binary of tests uses its part")]
#[path = "../support/jar.rs"]
mod jar;
mod nemesis;
#[allow(dead_code, reason = "each binary of tests uses its part")]
#[path = "../processes/process.rs"]
mod process;
mod proxy;
mod replicas;
#[allow(dead_code, reason = "each binary of tests uses its part")]
#[path = "../support/servers.rs"]
mod servers;
mod site;
mod users;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures_util::future::join_all;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::sleep;
use tower_oidc_session::test_provider::{ExpiredSessions, SignIn, TestClient, TestProvider};
use url::Url;

use crate::history::History;
use crate::proxy::OnTheirWay;
use crate::replicas::{Replica, Settings};
use crate::site::{Cluster, Pair, Postgres, Site};
use crate::users::{User, World};

/// The provider's inactivity timeout.
pub(crate) const T: Duration = Duration::from_secs(10);
/// The longest that one access token is used.
pub(crate) const G: Duration = Duration::from_secs(2);
/// All users are well again so long after the last fault.
const RECOVERY: Duration = Duration::from_secs(40);

fn variable(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} takes a number")))
}

async fn run(name: &str, site: Site, confirmed_by: &str) {
    let (time, seed, users) = (variable("CHAOS_SECONDS", 10), variable("CHAOS_SEED", 1), variable("CHAOS_USERS", 60));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos/{name}-{seed}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let history = History::new();
    let public_url = format!("http://127.0.0.1:{}", servers::free_port());
    let mut provider = TestProvider::builder()
        .sign_in(SignIn::Automatic("user0".to_owned()))
        .session_lifetime(T)
        .access_token_lifetime(T)
        .expired_sessions(ExpiredSessions::StaySilent)
        .client(TestClient::at("shop", "secret", &public_url));
    for number in 0..users {
        provider = provider.user(format!("user{number}"));
    }
    let provider = provider.start().await.unwrap();
    let (store_url, store_port) = site.url();
    let seconds = |time: Duration| format!("{}s", time.as_secs());
    let others = vec![
        ("OP_SESSION_LIFETIME", seconds(T)),
        ("ACCESS_TOKEN_LIFETIME", seconds(G)),
        ("PROVIDER_TIMEOUT", "3s".to_owned()),
        ("CONFIRMED_BY", confirmed_by.to_owned()),
    ];
    let issuer = provider.issuer();
    let settings = Settings { public_url: public_url.clone(), issuer: issuer.clone(), store_url, store_port, others };
    let (on_their_way, answered) = OnTheirWay::new();
    let mut replicas = Vec::new();
    for number in 0..3 {
        replicas.push(Replica::start(number, &settings, &folder, &history, &on_their_way).await);
    }
    let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let world = Arc::new(World {
        public_url: Url::parse(&public_url).unwrap(),
        issuer: Url::parse(&issuer).unwrap(),
        replicas,
        history,
        http,
        goes_on: tokio::sync::watch::Sender::new(true),
        store_urls: tokio::sync::watch::Sender::new(site.urls()),
        locals: AtomicU64::new(0),
    });
    let rng = |number: u64| SmallRng::seed_from_u64(u64::from(seed) * 31 + number);
    let watching = tokio::spawn(admin::watch_sessions(world.clone(), provider.clone()));
    let living: Vec<_> = (0..users).map(|n| tokio::spawn(User::new(n, seed, world.clone()).live())).collect();
    let trouble = [
        tokio::spawn(nemesis::of_replicas(world.clone(), rng(2))),
        tokio::spawn(nemesis::of_provider(world.clone(), provider.clone(), rng(3))),
        tokio::spawn(admin::end_sessions(world.clone(), provider.clone(), users, rng(4))),
        tokio::spawn(admin::end_those_on_their_way(world.clone(), provider.clone(), answered, rng(5))),
        tokio::spawn(watch::watch_machine(world.clone())),
        tokio::spawn(watch::watch_store(world.clone())),
    ];
    let is_over = async {
        sleep(Duration::from_secs(time.into())).await;
        world.goes_on.send_replace(false);
    };
    let (_site, ()) = tokio::join!(nemesis::of_store(&world, site, rng(1)), is_over);
    join_all(trouble).await.into_iter().for_each(|ended| ended.unwrap());
    let living = join_all(living).await.into_iter().map(Result::unwrap);
    join_all(living.map(async |mut user| user.arrive(RECOVERY).await)).await;
    watching.abort();

    let events = world.history.events();
    std::fs::write(folder.join("history"), history::as_text(&events)).unwrap();
    let (figures, violations) = checker::check(&events);
    println!("{name}, seed {seed}, {users} users, {time} s: {figures:#?}");
    let place = folder.display();
    assert!(violations.is_empty(), "{} violations, the history is in {place}: {violations:#?}", violations.len());
    assert!(figures.served > 0 && figures.refreshes > 0 && figures.logout_tokens > 0, "nothing was tried");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis() {
    run("redis", Site::Redis(Pair::start().await), "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_cluster() {
    run("redis-cluster", Site::Cluster(Cluster::start().await), "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres() {
    run("postgres", Site::Postgres(Postgres::start()), "0").await;
}
