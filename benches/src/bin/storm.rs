//! `storm`: many requests of one user meet an access token that has expired, at once. Over the store of `TEST_STORE_URL` also
//! at three processes, which this program starts as `storm replica …`.

use std::io::{BufRead, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tower::Layer;
use tower_oidc_session::test_provider::{Endpoint, SignIn, TestClient, TestProvider};
use tower_oidc_session::{ClientCredentials, CookieKey, RelyingParty, SessionPolicy};
use tower_oidc_session_benches::clock::Ahead;
use tower_oidc_session_benches::contestants::{App, Look, PUBLIC_URL, page_of};
use tower_oidc_session_benches::figure::{self, quantile};
use tower_oidc_session_benches::stores::{self, Kind};
use tower_oidc_session_benches::user::{request, sign_in};

const T: Duration = Duration::from_secs(900);
const G: Duration = Duration::from_secs(300);
const ROUNDS: usize = 15;
/// 64 bytes in base64.
const COOKIE_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==";

async fn relying_party(issuer: String, clock: Ahead, kind: Kind) -> RelyingParty {
    let builder = RelyingParty::builder(issuer, ClientCredentials::secret("shop", "secret"), PUBLIC_URL)
        .cookie_key(CookieKey::from_base64(COOKIE_KEY).expect("a key"))
        .policy(SessionPolicy::new().op_session_lifetime(T).access_token_lifetime(G))
        .clock(clock);
    let url = stores::url().unwrap_or_default();
    let builder = match kind {
        Kind::Memory => builder,
        Kind::Redis => builder.registry(stores::redis(&url).await),
        Kind::Postgres => builder.registry(stores::postgres(&url).await),
    };
    builder.build().expect("the configuration is good")
}

/// Milliseconds until so many requests are answered, all sent at once.
async fn storm(app: &impl App, cookies: &str, requests: usize) -> f64 {
    let started = Instant::now();
    let tasks: Vec<_> = (0..requests)
        .map(|_| {
            let (mut app, request) = (app.clone(), request("/page", cookies));
            tokio::spawn(async move { app.call(request).await.expect("routers do not fail").status() })
        })
        .collect();
    for task in tasks {
        assert!(task.await.expect("nobody panics").is_success());
    }
    started.elapsed().as_secs_f64() * 1e3
}

/// Three processes, each told over its standard input how much time has passed and how many requests to send.
struct Replicas(Vec<(std::process::ChildStdin, std::io::Lines<std::io::BufReader<std::process::ChildStdout>>)>);

impl Replicas {
    fn start(issuer: &str, cookies: &str) -> Self {
        let start = |_| {
            let program = std::env::current_exe().expect("this program");
            let mut child = Command::new(program)
                .args(["replica", issuer, cookies])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("it starts");
            let (input, output) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
            let mut lines = std::io::BufReader::new(output).lines();
            assert_eq!(lines.next().expect("a line").expect("a line"), "ready");
            (input, lines)
        };
        Self((0..3).map(start).collect())
    }

    /// Milliseconds until all are answered.
    fn storm(&mut self, advance: Duration, requests: usize) -> f64 {
        let started = Instant::now();
        for (input, _) in &mut self.0 {
            writeln!(input, "{} {}", advance.as_secs(), requests / 3 + 1).expect("it reads");
        }
        for (_, output) in &mut self.0 {
            output.next().expect("a line").expect("a line");
        }
        started.elapsed().as_secs_f64() * 1e3
    }
}

async fn replica(issuer: String, cookies: String) {
    let clock = Ahead::default();
    let rp = relying_party(issuer, clock.clone(), Kind::of_environment()).await;
    let app = rp.layer().layer(page_of(&rp, Look::Required));
    println!("ready");
    for line in std::io::stdin().lines() {
        let line = line.expect("a line");
        let (advance, requests) = line.split_once(' ').expect("two numbers");
        clock.advance(Duration::from_secs(advance.parse().expect("a number")));
        let took = storm(&app, &cookies, requests.parse().expect("a number")).await;
        println!("{took}");
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [_, issuer, cookies] = arguments.as_slice() {
        return replica(issuer.clone(), cookies.clone()).await;
    }
    let kind = Kind::of_environment();
    let clock = Ahead::default();
    let provider = TestProvider::builder()
        .clock(clock.clone())
        .sign_in(SignIn::Automatic("alice".to_owned()))
        .session_lifetime(T)
        .access_token_lifetime(T)
        .start()
        .await
        .expect("the provider starts");
    provider.register(TestClient::at("shop", "secret", PUBLIC_URL));
    let rp = relying_party(provider.issuer(), clock.clone(), kind).await;
    let app = rp.layer().layer(page_of(&rp, Look::Required));
    let cookies = sign_in(&app, &provider).await.header();
    for _ in 0..3 {
        clock.advance(G);
        storm(&app, &cookies, 1).await;
    }
    let mut alone = Vec::new();
    for requests in [1, 50, 1000] {
        let mut more = Vec::new();
        for _ in 0..ROUNDS {
            // What a request by itself takes, in the same round.
            clock.advance(G);
            let one = storm(&app, &cookies, 1).await;
            clock.advance(G);
            let before = provider.requests(Endpoint::Token);
            more.push(storm(&app, &cookies, requests).await - one);
            assert_eq!(provider.requests(Endpoint::Token), before + 1, "one token request");
            alone.push(one);
        }
        figure::print(
            &format!("storm of {requests}, {}: above one request", kind.name()),
            quantile(&mut more, 0.5),
            "ms",
        );
    }
    figure::print(&format!("one request that refreshes, {}", kind.name()), quantile(&mut alone, 0.5), "ms");
    if kind == Kind::Memory {
        return;
    }
    let mut replicas = {
        let (issuer, cookies) = (provider.issuer(), cookies.clone());
        tokio::task::spawn_blocking(move || Replicas::start(&issuer, &cookies)).await.expect("they start")
    };
    // Their clocks begin where ours began.
    let mut behind = clock.by();
    for requests in [50, 1000] {
        let mut more = Vec::new();
        for _ in 0..ROUNDS {
            clock.advance(G);
            let before = provider.requests(Endpoint::Token);
            let advance = behind + G;
            behind = Duration::ZERO;
            let (took, back) = tokio::task::spawn_blocking(move || (replicas.storm(advance, requests), replicas))
                .await
                .expect("nobody panics");
            replicas = back;
            more.push(took - quantile(&mut alone, 0.5));
            assert_eq!(provider.requests(Endpoint::Token), before + 1, "one token request");
        }
        let name = format!("storm of {requests} at three processes, {}: above one request", kind.name());
        figure::print(&name, quantile(&mut more, 0.5), "ms");
    }
    std::process::exit(0);
}
