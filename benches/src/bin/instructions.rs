//! `instructions CONTESTANT COUNT`: sends so many requests to an application, in this process. To be run by callgrind, which
//! counts inside of `measured`; see `ci/bench`.

use std::hint::black_box;

use http_body_util::BodyExt;
use tokio::runtime::Runtime;
use tower_oidc_session_benches::contestants::{self, App, Contestant, Look};
use tower_oidc_session_benches::user::request;

async fn send(contestant: &mut Contestant<impl App>) {
    let response = contestant.app.call(request("/page", &contestant.cookies)).await.expect("routers do not fail");
    assert!(response.status().is_success(), "{response:?}");
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(body, "hello");
    // What was left to the background is done here, too.
    tokio::task::yield_now().await;
}

#[inline(never)]
fn measured(runtime: &Runtime, contestant: &mut Contestant<impl App>, count: u32) {
    runtime.block_on(async {
        for _ in 0..count {
            send(contestant).await;
        }
    });
}

fn run(runtime: &Runtime, mut contestant: Contestant<impl App>, count: u32) {
    // Everything is in place, and what was begun is done.
    runtime.block_on(async {
        // The relying party has timers; so has everybody.
        tokio::spawn(tokio::time::sleep(std::time::Duration::from_secs(3600)));
        for _ in 0..100 {
            send(&mut contestant).await;
        }
    });
    measured(runtime, black_box(&mut contestant), count);
}

/// Peers, and over the store of `TEST_STORE_URL`.
#[cfg(feature = "all")]
fn more(runtime: &Runtime, name: &str, count: u32) {
    use tower_oidc_session_benches::{peers, stores};

    let url = || stores::url().expect("TEST_STORE_URL names a store");
    match name {
        "axum-login" => run(runtime, runtime.block_on(peers::axum_login_memory()), count),
        "redis" => {
            let ours = async { contestants::ours(stores::redis(&url()).await, Look::Required).await };
            run(runtime, runtime.block_on(ours), count);
        }
        "tower-sessions-redis" => run(runtime, runtime.block_on(peers::tower_sessions_redis(&url())), count),
        "postgres" => {
            let ours = async { contestants::ours(stores::postgres(&url()).await, Look::Required).await };
            run(runtime, runtime.block_on(ours), count);
        }
        "tower-sessions-postgres" => run(runtime, runtime.block_on(peers::tower_sessions_postgres(&url())), count),
        other => panic!("no contestant is named {other}"),
    }
}

#[cfg(not(feature = "all"))]
fn more(_: &Runtime, name: &str, _: u32) {
    panic!("no contestant is named {name}, without the feature `all`");
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, name, count] = arguments.as_slice() else { panic!("CONTESTANT COUNT") };
    let count = count.parse().expect("a number");
    let runtime = &tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ours = |look| runtime.block_on(contestants::ours_in_memory(look));
    match name.as_str() {
        "bare" => run(runtime, contestants::bare(), count),
        "bare-no-cookie" => run(runtime, Contestant { cookies: String::new(), ..contestants::bare() }, count),
        "by-hand" => run(runtime, contestants::by_hand(), count),
        "tower-sessions" => run(runtime, runtime.block_on(contestants::tower_sessions_memory()), count),
        "layered" => run(runtime, contestants::layered(), count),
        "no-cookie" => run(runtime, Contestant { cookies: String::new(), ..ours(Look::Public) }, count),
        "unknown" => run(runtime, runtime.block_on(contestants::ours_unknown()), count),
        "public" => run(runtime, ours(Look::Public), count),
        "extractor" => run(runtime, ours(Look::Extractor), count),
        "required" => run(runtime, ours(Look::Required), count),
        other => more(runtime, other, count),
    }
}
