//! Logout tokens that end a session each, over HTTP on one core: how many in a second, beside the floor, which takes the
//! request and verifies a signature.

use std::time::{Instant, SystemTime};

use axum::Router;
use axum::routing::post;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower_oidc_session::registry::LoginAttempt;
use tower_oidc_session::test_provider::sample_record;
use tower_oidc_session::{ClientId, Issuer, MemoryRegistry, Registration, SessionRegistry};
use tower_oidc_session_benches::contestants::{Look, page_of, provider, relying_party};
use tower_oidc_session_benches::figure::{self, CpuTime};

const TOKENS: usize = 20_000;
const CONNECTIONS: usize = 8;

async fn drive(address: std::net::SocketAddr, requests: &[Vec<u8>]) {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("TCP");
    let mut buffer = vec![0; 4096];
    for request in requests {
        stream.write_all(request).await.expect("it reads");
        let mut filled = 0;
        // The answers have no body.
        while !buffer[..filled].ends_with(b"\r\n\r\n") {
            let read = stream.read(&mut buffer[filled..]).await.expect("it answers");
            assert!(read > 0, "closed");
            filled += read;
        }
        assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..filled]));
    }
}

/// Sends all to an application that has one thread; microseconds of its processor's time for each.
fn serve_and_drive(app: Router, requests: &[Vec<u8>]) -> (f64, f64) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("an address");
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let thread = std::fs::read_link("/proc/thread-self").expect("Linux");
        sender.send(thread).expect("it waits");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            axum::serve(TcpListener::from_std(listener).expect("a listener"), app).await.expect("it serves");
        });
    });
    let thread = receiver.recv().expect("it starts");
    let used = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/schedstat", thread.display())).expect("Linux");
        stat.split(' ').next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok()).expect("a number") / 1e3
    };
    let driver = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    driver.block_on(async {
        let before = used();
        let started = Instant::now();
        let parts = requests.chunks(requests.len().div_ceil(CONNECTIONS));
        futures_util::future::join_all(parts.map(|part| drive(address, part))).await;
        let took = started.elapsed().as_secs_f64();
        ((used() - before) / requests.len() as f64, requests.len() as f64 / took)
    })
}

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let registry = MemoryRegistry::new();
    let (app, provider) = runtime.block_on(async {
        let provider = provider().await;
        let rp = relying_party(&provider, registry.clone()).await;
        (page_of(&rp, Look::Public).layer(rp.layer()), provider)
    });
    let keys: serde_json::Value = runtime.block_on(async {
        reqwest::get(format!("{}/jwks", provider.issuer())).await.expect("keys").json().await.expect("JSON")
    });
    let n = keys["keys"][0]["n"].as_str().expect("RSA").to_owned();
    let e = keys["keys"][0]["e"].as_str().expect("RSA").to_owned();
    let now = SystemTime::now();
    let registration = Registration::new(Issuer::new(provider.issuer()), ClientId::new("shop"));
    let mut requests = Vec::new();
    let mut tokens = Vec::new();
    for number in 0..TOKENS {
        let sid = format!("sid-{number}");
        let record = sample_record(&registration, &format!("user-{number}"), Some(&sid), now, 2560);
        runtime
            .block_on(registry.create(record, LoginAttempt { began_at: now, seen: None }, now))
            .expect("it is in memory");
        let token = provider.logout_token("shop", None, Some(&sid));
        let body = format!("logout_token={token}");
        requests.push(
            format!(
                "POST /auth/backchannel-logout HTTP/1.1\r\nhost: localhost\r\n\
                 content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
            .into_bytes(),
        );
        tokens.push(token);
    }
    let key = DecodingKey::from_rsa_components(&n, &e).expect("a key");
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&["shop"]);
    validation.required_spec_claims.clear();
    let floor = Router::new().route(
        "/auth/backchannel-logout",
        post(move |axum::Form(form): axum::Form<std::collections::HashMap<String, String>>| async move {
            let token = form.get("logout_token").expect("a token");
            jsonwebtoken::decode::<serde_json::Value>(token, &key, &validation).expect("a good token");
        }),
    );
    let before = CpuTime::now(&[]);
    let (floor_time, floor_rate) = serve_and_drive(floor, &requests);
    let (time, rate) = serve_and_drive(app, &requests);
    let (_, others) = before.since(&[]);
    assert!(registry.is_empty(), "{} sessions are left", registry.len());
    figure::print("logout tokens: processor's time of the floor", floor_time, "µs");
    figure::print("logout tokens: processor's time", time, "µs");
    figure::print("logout tokens: of the floor", time / floor_time, "×");
    figure::print("logout tokens: one core could take", 1e6 / time, "/s");
    figure::print("logout tokens: floor, with a driver beside it", floor_rate, "/s");
    figure::print("logout tokens: with a driver beside it", rate, "/s");
    figure::print("logout tokens: others used meanwhile", others, "s");
    std::process::exit(0);
}
