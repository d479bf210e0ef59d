//! How evenly the primaries of a cluster share requests, and what a request costs them together. `TEST_STORE_URL` names all of
//! them; with one it says what the same costs there.

use std::process::Command;
use std::time::SystemTime;

use futures_util::StreamExt;
use tower_oidc_session::SessionRegistry;
use tower_oidc_session::registry::{Loaded, LoginAttempt};
use tower_oidc_session::test_provider::sample_record;
use tower_oidc_session_benches::figure::{self, quantile};
use tower_oidc_session_benches::stores::{self, registration};

const SESSIONS: usize = 12_000;
const ROUNDS: usize = 11;
/// So many requests are under way at a time for each primary: what comes together is answered together, for less.
const REQUESTS: usize = 64;

/// What a Redis says about itself.
fn info(url: &str, section: &str) -> String {
    let output = Command::new("redis-cli").args(["-u", url, "INFO", section]).output().expect("redis-cli is there");
    String::from_utf8(output.stdout).expect("it is text")
}

fn cpu(url: &str) -> f64 {
    let of = |line: &str| {
        let (name, value) = line.split_once(':')?;
        ["used_cpu_sys", "used_cpu_user"].contains(&name).then(|| value.trim().parse::<f64>().ok())?
    };
    info(url, "cpu").lines().filter_map(of).sum()
}

fn requests(url: &str) -> f64 {
    let calls = |line: &str| line.strip_prefix("cmdstat_getex:calls=")?.split(',').next()?.parse::<f64>().ok();
    info(url, "commandstats").lines().find_map(calls).unwrap_or_default()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let all = stores::url().expect("TEST_STORE_URL names the primaries");
    let urls: Vec<&str> = all.split(',').collect();
    let registry = stores::redis(&all).await;
    let now = SystemTime::now();
    let attempt = LoginAttempt { began_at: now, seen: None };
    let mut keys = Vec::new();
    for number in 0..SESSIONS {
        let record = sample_record(&registration(), "alice", Some(&format!("sid-{number}")), now, 2_560);
        keys.push(*record.key());
        registry.create(record, attempt, now).await.expect("the store takes it");
    }
    let mut costs = Vec::new();
    let mut shares = vec![0.0; urls.len()];
    for _ in 0..ROUNDS {
        let before: Vec<_> = urls.iter().map(|url| (requests(url), cpu(url))).collect();
        for _ in 0..2 {
            futures_util::stream::iter(&keys)
                .for_each_concurrent(REQUESTS * urls.len(), async |key| {
                    assert!(matches!(registry.load(key).await, Ok(Loaded::Live(_))));
                })
                .await;
        }
        let mut cost = 0.0;
        for ((url, before), share) in urls.iter().zip(before).zip(&mut shares) {
            *share += requests(url) - before.0;
            cost += cpu(url) - before.1;
        }
        costs.push(cost / (2 * SESSIONS) as f64 * 1e6);
    }
    let (least, most) = (shares.iter().copied().fold(f64::MAX, f64::min), shares.iter().copied().fold(0.0, f64::max));
    let named = match (info(urls.first().unwrap_or(&""), "cluster").contains("cluster_enabled:1"), urls.len()) {
        (false, 1) => "Redis".to_owned(),
        (_, 1) => "Redis, cluster of one primary".to_owned(),
        (_, primaries) => format!("Redis, cluster of {primaries} primaries"),
    };
    if urls.len() > 1 {
        figure::print(&format!("{named}: most requests at one, of the least"), most / least, "×");
    }
    figure::print(&format!("{named}: CPU of all for a request"), quantile(&mut costs, 0.5), "µs");
}
