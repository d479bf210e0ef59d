//! How much memory a session takes in memory, and how long the process stands still when all of them expire at once.
//! `memory COUNT`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tower_oidc_session::registry::{Loaded, LoginAttempt};
use tower_oidc_session::test_provider::{ManualClock, sample_record};
use tower_oidc_session::{Clock, MemoryRegistry, SessionRegistry};
use tower_oidc_session_benches::figure::{self, micros, quantile, resident};
use tower_oidc_session_benches::stores::registration;

const TOKEN_BYTES: usize = 2560;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let count: usize = std::env::args().nth(1).expect("COUNT").parse().expect("a number");
    let clock = ManualClock::new();
    let registry = MemoryRegistry::new();
    registry.adopt_clock(&(Arc::new(clock.clone()) as Arc<dyn Clock>));
    let now = clock.now();
    let attempt = LoginAttempt { began_at: now, seen: None };
    let registration = registration();
    let before = resident();
    let mut last = None;
    for number in 0..count {
        let (sub, sid) = (format!("user-{number}"), format!("sid-{number}"));
        // Over one minute.
        let began = now + Duration::from_secs(60) * u32::try_from(number).unwrap_or_default() / count as u32;
        let record = sample_record(&registration, &sub, Some(&sid), began, TOKEN_BYTES);
        last = Some(*record.key());
        registry.create(record, attempt, now).await.expect("it is in memory");
    }
    figure::print("memory per session, tokens of 2560 B", (resident() - before) as f64 / count as f64, "B");

    // Requests go on while they expire.
    let key = last.expect("there is one");
    let stop = Arc::new(AtomicBool::new(false));
    let requests = tokio::task::spawn_blocking({
        let (registry, stop) = (registry.clone(), stop.clone());
        move || {
            let mut pauses = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let started = Instant::now();
                assert!(matches!(registry.load_at_once(&key), Some(Loaded::Live(_) | Loaded::Ended(_))));
                pauses.push(micros(started.elapsed()));
            }
            pauses
        }
    });
    let started = Instant::now();
    let mut removed = 0;
    for second in 0..=60 {
        // The cleaner comes once a minute at most; here all of a second at once.
        clock.advance(if second == 0 { Duration::from_secs(9_999) } else { Duration::from_secs(1) });
        removed += registry.remove_expired().await.expect("it is in memory").len();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // And one that has everything left to do at once, as after a long pause.
    clock.advance(Duration::from_secs(3600));
    removed += registry.remove_expired().await.expect("it is in memory").len();
    stop.store(true, Ordering::Relaxed);
    let mut pauses = requests.await.expect("nobody panics");
    assert_eq!(removed, count);
    figure::print("a million sessions expire: time", started.elapsed().as_secs_f64(), "s");
    figure::print("a million sessions expire: longest pause", quantile(&mut pauses, 1.0) / 1e3, "ms");
}
