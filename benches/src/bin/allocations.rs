//! How many heap allocations a request makes.

use tower_oidc_session_benches::contestants::{self, App, Contestant, Look};
use tower_oidc_session_benches::figure;
use tower_oidc_session_benches::peers;
use tower_oidc_session_benches::user::request;

const REQUESTS: u32 = 100;

async fn count(name: &str, mut contestant: Contestant<impl App>) {
    let mut allocations = 0;
    for number in 0..2 * REQUESTS {
        let request = request("/page", &contestant.cookies);
        let counted = allocation_counter::measure(|| {
            let answered = contestant.app.call(request);
            let response = futures_util::FutureExt::now_or_never(answered).expect("it is answered at once");
            assert!(response.is_ok_and(|response| response.status().is_success()));
        });
        tokio::task::yield_now().await;
        if number >= REQUESTS {
            allocations += counted.count_total;
        }
    }
    figure::print(&format!("allocations: {name}"), allocations as f64 / f64::from(REQUESTS), "");
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    count("bare", contestants::bare()).await;
    count("layered", contestants::layered()).await;
    count("tower-sessions", contestants::tower_sessions_memory().await).await;
    count("axum-login", peers::axum_login_memory().await).await;
    let no_cookie = Contestant { cookies: String::new(), ..contestants::ours_in_memory(Look::Public).await };
    count("no cookie", no_cookie).await;
    count("unknown cookie", contestants::ours_unknown().await).await;
    count("public page", contestants::ours_in_memory(Look::Public).await).await;
    count("extractor", contestants::ours_in_memory(Look::Extractor).await).await;
    count("require_session", contestants::ours_in_memory(Look::Required).await).await;
}
