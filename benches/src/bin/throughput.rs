//! `throughput`: requests per second over HTTP of each contestant, in turns, as parts of what the bare application does in
//! the same turn. With `TEST_STORE_URL` over that store, beside tower-sessions' own.
//!
//! The server has one thread, the driver another. A turn in which others used the processor counts for nothing.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::Layer;
use tower_oidc_session::MemoryRegistry;
use tower_oidc_session_benches::contestants::{self, App, Contestant, Look};
use tower_oidc_session_benches::figure::{self, CpuTime, quantile};
use tower_oidc_session_benches::peers;
use tower_oidc_session_benches::stores::{self, Kind};

const TURN: Duration = Duration::from_millis(250);
const TURNS: usize = 40;
const MOST_TRIES: usize = 120;
const CONNECTIONS: usize = 16;
/// Of the processor's time of a turn.
const MOST_OF_OTHERS: f64 = 0.05;

struct Served {
    name: &'static str,
    address: SocketAddr,
    request: Vec<u8>,
}

/// Serves a contestant on the server's thread.
async fn serve(server: &tokio::runtime::Handle, name: &'static str, contestant: Contestant<impl App>) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    // Taken over by the server's runtime, whose thread is to poll it.
    let listener = listener.into_std().expect("a listener");
    let Contestant { app, cookies } = contestant;
    server.spawn(async move {
        let listener = TcpListener::from_std(listener).expect("a listener");
        axum::serve(listener, Router::new().fallback_service(app)).await
    });
    let cookies = if cookies.is_empty() { String::new() } else { format!("cookie: {cookies}\r\n") };
    let request = format!("GET /page HTTP/1.1\r\nhost: localhost\r\naccept: */*\r\n{cookies}\r\n").into_bytes();
    Served { name, address, request }
}

/// Sends one request after the other, and counts the answers.
async fn drive(address: SocketAddr, request: &[u8], until: Instant) -> u64 {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("TCP");
    let mut buffer = vec![0; 4096];
    let mut answers = 0;
    while Instant::now() < until {
        stream.write_all(request).await.expect("it reads");
        let mut filled = 0;
        // All answers end with the same word.
        while !buffer[..filled].ends_with(b"hello") {
            let read = stream.read(&mut buffer[filled..]).await.expect("it answers");
            assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&buffer[..filled]));
            filled += read;
        }
        assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..filled]));
        answers += 1;
    }
    answers
}

async fn turn(served: &Served) -> f64 {
    let until = Instant::now() + TURN;
    let drivers = (0..CONNECTIONS).map(|_| drive(served.address, &served.request, until));
    let answers: u64 = futures_util::future::join_all(drivers).await.into_iter().sum();
    answers as f64 / TURN.as_secs_f64()
}

async fn peers(server: &tokio::runtime::Handle, kind: Kind) -> Vec<Served> {
    let url = stores::url().unwrap_or_default();
    match kind {
        Kind::Memory => vec![
            serve(server, "tower-sessions", contestants::tower_sessions_memory().await).await,
            serve(server, "axum-login", peers::axum_login_memory().await).await,
            serve(server, "extractor", contestants::ours_in_memory(Look::Extractor).await).await,
            serve(server, "require_session", contestants::ours_in_memory(Look::Required).await).await,
            serve(server, "tower-sessions and require_session", both(MemoryRegistry::new()).await).await,
        ],
        Kind::Redis => {
            let registry = stores::redis(&url).await;
            vec![
                serve(server, "tower-sessions, its Redis store", peers::tower_sessions_redis(&url).await).await,
                serve(server, "require_session", contestants::ours(registry, Look::Required).await).await,
            ]
        }
        Kind::Postgres => {
            let registry = stores::postgres(&url).await;
            vec![
                serve(server, "tower-sessions, its sqlx store", peers::tower_sessions_postgres(&url).await).await,
                serve(server, "require_session", contestants::ours(registry, Look::Required).await).await,
            ]
        }
    }
}

/// This crate with application data in tower-sessions, which the page does not look at.
async fn both(registry: MemoryRegistry) -> Contestant<impl App> {
    let data = tower_sessions::SessionManagerLayer::new(registry.clone());
    let Contestant { app, cookies } = contestants::ours(registry, Look::Required).await;
    Contestant { app: data.layer(app), cookies }
}

fn main() {
    let server = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let driver = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let kind = Kind::of_environment();
    let (bare, contestants) = driver.block_on(async {
        let handle = server.handle();
        let bare = serve(handle, "bare", contestants::bare()).await;
        // Pools and tasks belong to the server's runtime.
        let peers = {
            let handle = handle.clone();
            server.spawn(async move { peers(&handle, kind).await }).await.expect("they start")
        };
        (bare, peers)
    });
    driver.block_on(async {
        let mut bare_rate = Vec::new();
        let mut parts: Vec<Vec<f64>> = contestants.iter().map(|_| Vec::new()).collect();
        let mut rates: Vec<Vec<f64>> = parts.clone();
        let mut tries = 0;
        while parts.iter().any(|parts| parts.len() < TURNS) && tries < MOST_TRIES {
            tries += 1;
            for (index, contestant) in contestants.iter().enumerate() {
                let before = CpuTime::now(kind.programs());
                let base = turn(&bare).await;
                let rate = turn(contestant).await;
                let (_, others) = before.since(kind.programs());
                if tries > 2 && others / (2.0 * TURN.as_secs_f64()) < MOST_OF_OTHERS {
                    bare_rate.push(base);
                    rates[index].push(rate);
                    parts[index].push(rate / base);
                }
            }
        }
        let store = kind.name();
        assert!(!bare_rate.is_empty(), "others use the processor all the time");
        figure::print(&format!("throughput, {store}: bare"), quantile(&mut bare_rate, 0.5), "requests/s");
        for ((contestant, mut parts), mut rates) in contestants.iter().zip(parts).zip(rates) {
            let name = contestant.name;
            figure::print(&format!("throughput, {store}: {name}"), quantile(&mut rates, 0.5), "requests/s");
            figure::print(&format!("throughput, {store}: {name}, of bare"), quantile(&mut parts, 0.5), "×");
        }
    });
    std::process::exit(0);
}
