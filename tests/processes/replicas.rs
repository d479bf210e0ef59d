//! Three replicas of `web_app` on one store, behind a round-robin balancer, against the embedded provider.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use http::{Method, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};
use tower_oidc_session::test_provider::{Endpoint, ExpiredSessions, GateAt, SignIn, TestClient, TestProvider};

use crate::process::{COOKIE_KEY, Process, address, web_app};
use crate::servers::Store;
use crate::until;
use crate::visitor::Visitor;

/// A replica that was killed holds up the others for no longer than its lease, and a look.
const LEASE: Duration = Duration::from_secs(6);

struct World {
    provider: TestProvider,
    replicas: Vec<Process>,
    settings: Vec<(&'static str, String)>,
    visitor: Visitor,
    /// Of the balancer.
    url: String,
    _store: Store,
}

/// Passes each connection to the next replica that lives.
async fn balance(listener: TcpListener, replicas: Vec<String>) {
    for next in 0.. {
        let Ok((mut visitor, _)) = listener.accept().await else { return };
        let mut replicas = replicas.clone();
        let first = next % replicas.len();
        replicas.rotate_left(first);
        tokio::spawn(async move {
            for replica in replicas {
                if let Ok(mut replica) = TcpStream::connect(replica).await {
                    return tokio::io::copy_bidirectional(&mut visitor, &mut replica).await.map(drop);
                }
            }
            Ok(())
        });
    }
}

impl World {
    async fn start(store: Store, lifetime: Duration, signal_interval: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let provider = TestProvider::builder()
            .sign_in(SignIn::Automatic("alice".to_owned()))
            .session_lifetime(lifetime)
            .access_token_lifetime(lifetime)
            .client(TestClient::at("shop", "secret", &url))
            .start()
            .await
            .unwrap();
        let settings = [
            ("PUBLIC_URL", url.clone()),
            ("OIDC_ISSUER", provider.issuer()),
            ("OIDC_CLIENT_ID", "shop".to_owned()),
            ("OIDC_CLIENT_SECRET", "secret".to_owned()),
            ("STORE_URL", store.url().to_owned()),
            ("COOKIE_KEY", COOKIE_KEY.to_owned()),
            ("OP_SESSION_LIFETIME", format!("{}s", lifetime.as_secs())),
            ("ACCESS_TOKEN_LIFETIME", format!("{}s", signal_interval.as_secs())),
        ];
        let replicas: Vec<_> = (0..3).map(|_| Process::start(web_app().envs(settings.clone()))).collect();
        let addresses = replicas.iter().map(|replica| address(replica).replace("http://", "")).collect();
        tokio::spawn(balance(listener, addresses));
        let settings = settings.into();
        let world = Self { provider, replicas, settings, visitor: Visitor::new(), url, _store: store };
        for number in 0..3 {
            let stranger = Visitor::new();
            until("a replica is ready", async || stranger.get(&world.at(number, "/me")).await.status == 401).await;
        }
        world
    }

    /// Starts a replica that has stopped where it was.
    fn restart(&mut self, replica: usize) {
        let listen = address(&self.replicas[replica]).replace("http://", "");
        self.replicas[replica] = Process::start(web_app().envs(self.settings.clone()).env("LISTEN", listen));
    }

    /// The address of a path at one of the replicas.
    fn at(&self, replica: usize, path: &str) -> String {
        format!("{}{path}", address(&self.replicas[replica]))
    }

    async fn get(&self, path: &str) -> StatusCode {
        self.visitor.get(&format!("{}{path}", self.url)).await.status
    }

    /// A request to one replica, with the cookies that the balanced application has set.
    async fn get_at(&self, replica: usize, path: &str) -> StatusCode {
        self.visitor.try_get_as(&self.url, &self.at(replica, path)).await.unwrap()
    }

    async fn sign_in(&self) {
        let page = self.visitor.go(Method::GET, &format!("{}/me", self.url)).await;
        assert_eq!((page.status, page.url.path()), (StatusCode::OK, "/me"), "{page:?}");
    }

    fn tokens(&self) -> u64 {
        self.provider.requests(Endpoint::Token)
    }
}

/// The demonstration's story.
async fn p1_to_p5_sessions_live_as_long_as_the_providers(store: Store) {
    const T: Duration = Duration::from_secs(6);
    const G: Duration = Duration::from_secs(2);
    let world = World::start(store, T, G).await;
    world.sign_in().await;
    let before = world.tokens();
    let begin = Instant::now();
    while begin.elapsed() < T * 2 {
        assert_eq!(world.get("/me").await, StatusCode::OK);
        sleep(G / 10).await;
    }
    let refreshes = world.tokens() - before;
    assert!((4..=6).contains(&refreshes), "{refreshes} refreshes for {:?}", T * 2);
    assert_eq!(world.provider.sessions().len(), 1);

    // Nothing but polling: the provider's session runs out, and its logout token reaches all replicas.
    let quiet = Instant::now();
    while world.get("/poll").await == StatusCode::OK {
        assert!(quiet.elapsed() < T * 2, "polling keeps nobody signed in");
        sleep(G / 10).await;
    }
    assert!(quiet.elapsed() + G + Duration::from_secs(1) > T, "after {:?}", quiet.elapsed());
    until("the provider tells the application", async || !world.provider.logouts().is_empty()).await;
    for replica in 0..3 {
        assert_eq!(world.get_at(replica, "/me").await, StatusCode::UNAUTHORIZED);
    }
    // The same without a logout token: the next click is refused by the refresh.
    world.provider.set_expired_sessions(ExpiredSessions::StaySilent);
    world.sign_in().await;
    until("the session runs out", async || world.provider.sessions().is_empty()).await;
    for replica in 0..3 {
        assert_eq!(world.get_at(replica, "/me").await, StatusCode::UNAUTHORIZED);
    }
}

async fn p2_p3_replicas_share_one_refresh_though_one_is_killed(store: Store) {
    const T: Duration = Duration::from_secs(120);
    const G: Duration = Duration::from_secs(2);
    let mut world = World::start(store, T, G).await;
    world.sign_in().await;

    // 3 × 200 requests on one session whose signal is due: one token request, nobody logged out.
    sleep(G).await;
    let before = world.tokens();
    let answers = join_all((0..600).map(|number| world.get_at(number % 3, "/me"))).await;
    assert!(answers.iter().all(|status| *status == StatusCode::OK), "{answers:?}");
    assert_eq!(world.tokens(), before + 1);

    // The holder dies before the provider has seen the request: another one refreshes.
    sleep(G).await;
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Request);
    let (visitor, url, replica) = (world.visitor.clone(), world.url.clone(), world.at(0, "/me"));
    let dying = tokio::spawn(async move { visitor.try_get_as(&url, &replica).await });
    gate.arrived().await;
    world.replicas[0].kill();
    assert!(dying.await.unwrap().is_err());
    gate.open();
    let begin = Instant::now();
    let before = world.tokens();
    assert_eq!(world.get_at(1, "/me").await, StatusCode::OK);
    assert!(begin.elapsed() < LEASE, "after {:?}", begin.elapsed());
    // The request may be served before that refresh has landed: its patience is as long as the lease of the dead.
    until("another one has refreshed", async || world.tokens() == before + 1).await;

    // The holder dies after its tokens were stored: the others use them.
    // A little more than G: the replicas go by another clock than this sleep.
    sleep(G + Duration::from_millis(100)).await;
    assert_eq!(world.get_at(1, "/me").await, StatusCode::OK);
    assert_eq!(world.tokens(), before + 2);
    world.replicas[1].kill();
    let before = world.tokens();
    assert_eq!(world.get_at(2, "/me").await, StatusCode::OK);
    assert_eq!(world.tokens(), before, "the session was fresh");
}

async fn p2_a_holder_killed_with_the_answer_in_its_hands_costs_one_login(store: Store) {
    const T: Duration = Duration::from_secs(120);
    const G: Duration = Duration::from_secs(2);
    let mut world = World::start(store, T, G).await;
    world.sign_in().await;
    sleep(G).await;
    // The provider has rotated the token, and nobody alive knows the new one.
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Response);
    let (visitor, url, replica) = (world.visitor.clone(), world.url.clone(), world.at(0, "/me"));
    let dying = tokio::spawn(async move { visitor.try_get_as(&url, &replica).await });
    gate.arrived().await;
    world.replicas[0].kill();
    assert!(dying.await.unwrap().is_err());
    gate.open();
    let begin = Instant::now();
    // Until the lease is over the session stands; then the reuse of a refresh token ends it.
    until("the provider takes it for theft", async || world.get_at(1, "/me").await == StatusCode::UNAUTHORIZED).await;
    assert!(begin.elapsed() < LEASE * 2, "after {:?}", begin.elapsed());
    // One login, then all is well.
    world.sign_in().await;
    for replica in [1, 2] {
        assert_eq!(world.get_at(replica, "/me").await, StatusCode::OK);
    }
}

async fn p14_a_process_that_is_told_to_stop_stores_the_rotated_token_first(store: Store) {
    const T: Duration = Duration::from_secs(120);
    const G: Duration = Duration::from_secs(2);
    let mut world = World::start(store, T, G).await;
    world.sign_in().await;
    let mut events = world.visitor.stream_as(&world.url, &world.at(0, "/events")).await;
    events.chunk().await.unwrap().expect("the stream has begun");
    sleep(G).await;
    // The provider has rotated the token, the browser is gone, and the process is told to stop.
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Response);
    let (visitor, url, replica) = (world.visitor.clone(), world.url.clone(), world.at(0, "/me"));
    let click = tokio::spawn(async move { visitor.try_get_as(&url, &replica).await });
    gate.arrived().await;
    click.abort();
    world.replicas[0].terminate();
    let end = tokio::time::timeout(Duration::from_secs(5), events.chunk()).await.expect("streams end");
    assert!(matches!(end, Ok(None)), "{end:?}");
    assert_eq!(world.replicas[0].exit_code(), None, "it waits for the answer");
    gate.open();
    let mut code = None;
    while code.is_none() {
        code = world.replicas[0].exit_code();
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(code, Some(0));
    let before = world.tokens();
    assert_eq!(world.get_at(1, "/me").await, StatusCode::OK);
    assert_eq!(world.tokens(), before, "the new tokens were stored");
    sleep(G).await;
    assert_eq!(world.get_at(2, "/me").await, StatusCode::OK, "and they work");
    assert_eq!(world.tokens(), before + 1);
}

/// Whether the connection was closed before a byte of an answer: a balancer asks the next replica.
fn is_unanswered(error: &reqwest::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let reset = |io: &std::io::Error| io.kind() == std::io::ErrorKind::ConnectionReset;
        let closed = |http: &hyper::Error| http.is_incomplete_message() || http.is_canceled();
        if inner.downcast_ref().is_some_and(reset) || inner.downcast_ref().is_some_and(closed) {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// A strictly rotating provider, sessions that refresh every second, and replicas that are restarted one after the other.
async fn p14_a_rolling_restart_signs_nobody_out(store: Store) {
    const T: Duration = Duration::from_secs(120);
    const G: Duration = Duration::from_secs(1);
    const USERS: usize = 20;
    let mut world = World::start(store, T, G).await;
    let url = world.url.clone();
    let addresses: Vec<String> = world.replicas.iter().map(address).collect();
    let mut users = Vec::new();
    for _ in 0..USERS {
        let user = Visitor::new();
        assert_eq!(user.go(Method::GET, &format!("{url}/me")).await.status, StatusCode::OK);
        users.push(user);
    }
    let before = world.tokens();
    let (restarted, starting) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let clicking: Vec<_> = users
        .into_iter()
        .enumerate()
        .map(|(number, user)| {
            let (url, addresses) = (url.clone(), addresses.clone());
            let (restarted, starting) = (restarted.clone(), starting.clone());
            tokio::spawn(async move {
                let mut clicks = 0;
                while !restarted.load(Ordering::Relaxed) {
                    // As a balancer does: what refuses the connection is passed over.
                    let mut answer = None;
                    for replica in 0..addresses.len() {
                        let address = &addresses[(number + clicks + replica) % addresses.len()];
                        match user.try_get_as(&url, &format!("{address}/me")).await {
                            // One that has just started and does not know the provider yet is not ready.
                            Ok(StatusCode::SERVICE_UNAVAILABLE) if starting.load(Ordering::Relaxed) => {}
                            Ok(status) => answer = Some(status),
                            // Refused, or never read from: the port, or the connection, closed first.
                            Err(error) => assert!(error.is_connect() || is_unanswered(&error), "{error:?}"),
                        }
                        if answer.is_some() {
                            break;
                        }
                    }
                    assert_eq!(answer, Some(StatusCode::OK), "click {clicks} of user {number}");
                    clicks += 1;
                    sleep(Duration::from_millis(100)).await;
                }
                clicks
            })
        })
        .collect();
    for replica in 0..3 {
        sleep(G * 2).await;
        world.replicas[replica].terminate();
        until("the replica stops in good order", async || world.replicas[replica].exit_code() == Some(0)).await;
        starting.store(true, Ordering::Relaxed);
        world.restart(replica);
        let stranger = Visitor::new();
        until("the replica is back", async || stranger.get(&world.at(replica, "/me")).await.status == 401).await;
        starting.store(false, Ordering::Relaxed);
    }
    sleep(G * 2).await;
    restarted.store(true, Ordering::Relaxed);
    let mut clicks = 0;
    for user in join_all(clicking).await {
        clicks += user.unwrap();
    }
    let refreshes = world.tokens() - before;
    assert!(clicks > 500 && refreshes > 40, "{clicks} clicks, {refreshes} refreshes");
    assert_eq!(world.provider.sessions().len(), USERS);
}

macro_rules! over_each_store {
    ($($test:ident)*) => {
        mod redis {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() { super::$test(super::Store::redis()).await })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() { super::$test(super::Store::postgres()).await })*
        }
    };
}

over_each_store! {
    p14_a_rolling_restart_signs_nobody_out
    p14_a_process_that_is_told_to_stop_stores_the_rotated_token_first
    p1_to_p5_sessions_live_as_long_as_the_providers
    p2_a_holder_killed_with_the_answer_in_its_hands_costs_one_login
    p2_p3_replicas_share_one_refresh_though_one_is_killed
}
