//! How evenly the primaries of a cluster share requests, and what a request costs them together. `TEST_STORE_URL` names all of
//! them; with one it says what the same costs there.

use std::process::Command;
use std::time::SystemTime;

use futures_util::StreamExt;
use tower_oidc_session::test_provider::sample_record;
use tower_oidc_session::{Loaded, LoginAttempt, SessionRegistry};
use tower_oidc_session_benches::figure;
use tower_oidc_session_benches::stores::{self, registration};

const SESSIONS: usize = 12_000;
const ROUNDS: usize = 10;
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
    let before: Vec<_> = urls.iter().map(|url| (requests(url), cpu(url))).collect();
    for _ in 0..ROUNDS {
        futures_util::stream::iter(&keys)
            .for_each_concurrent(REQUESTS * urls.len(), async |key| {
                assert!(matches!(registry.load(key).await, Ok(Loaded::Live(_))));
            })
            .await;
    }
    let after: Vec<_> = urls.iter().map(|url| (requests(url), cpu(url))).collect();
    let spent = before.iter().zip(&after).map(|(before, after)| (after.0 - before.0, after.1 - before.1));
    let (shares, cpus): (Vec<f64>, Vec<f64>) = spent.unzip();
    let (least, most) = (shares.iter().copied().fold(f64::MAX, f64::min), shares.iter().copied().fold(0.0, f64::max));
    let named = format!("Redis, {} primar{}", urls.len(), if urls.len() == 1 { "y" } else { "ies" });
    if urls.len() > 1 {
        figure::print(&format!("{named}: most requests at one, of the least"), most / least, "×");
    }
    let total: f64 = shares.iter().sum();
    figure::print(&format!("{named}: CPU of all for a request"), cpus.iter().sum::<f64>() / total * 1e6, "µs");
}
