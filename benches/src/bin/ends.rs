//! How long it takes to end one session of many by a logout token's `sid`, and all of a user, in a registry of that store.
//! `ends FEW MANY`: the numbers of sessions.

use std::time::{Instant, SystemTime};

use tower_oidc_session::registry::TokenMark;
use tower_oidc_session::{EndReason, LogoutTarget, SessionRegistry, Sid, Subject};
use tower_oidc_session_benches::figure::{self, micros, quantile};
use tower_oidc_session_benches::stores::{Kind, fill, registration};

const ENDS: usize = 300;

async fn measure(kind: Kind, registry: &dyn SessionRegistry, there: usize, count: usize) {
    let now = SystemTime::now();
    let token = |name: String| TokenMark::new(now, &name);
    let mut by_sid = Vec::new();
    let mut by_sub = Vec::new();
    // Spread over all that there are.
    let filled = count - there;
    let step = (filled / (2 * ENDS)).max(1);
    for number in (0..filled).step_by(step).take(2 * ENDS) {
        let target = if number / step % 2 == 0 {
            LogoutTarget::Sid {
                registration: registration(),
                sid: Sid::new(format!("sid-{count}-{number}")),
                subject: None,
                token: token(format!("sid {count} {number}")),
            }
        } else {
            LogoutTarget::Subject {
                registration: registration(),
                subject: Subject::new(format!("user-{count}-{number}")),
                token: Some(token(format!("sub {count} {number}"))),
            }
        };
        let times = if matches!(target, LogoutTarget::Sid { .. }) { &mut by_sid } else { &mut by_sub };
        let started = Instant::now();
        let ended = registry.end_matching(&target, EndReason::BackChannelLogout, now).await;
        times.push(micros(started.elapsed()));
        assert_eq!(ended.expect("the store answers").len(), 1, "{target:?}");
    }
    for (times, how) in [(&mut by_sid, "sid"), (&mut by_sub, "sub")] {
        figure::print(&format!("end by {how} among {count}, {}", kind.name()), quantile(times, 0.5), "µs");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let kind = Kind::of_environment();
    let mut counts = std::env::args().skip(1).map(|count| count.parse::<usize>().expect("a number"));
    let registry = kind.registry().await;
    let mut there = 0;
    for count in counts.by_ref() {
        fill(&*registry, count, 0..count - there, 100).await;
        measure(kind, &*registry, there, count).await;
        there = count;
    }
}
