//! Whether anything grows: users come, click, leave and sign out, the provider sends logout tokens and forgets sessions, streams
//! are opened and left, strangers bring junk. What is there is counted again and again, and it fails if it grows.
//!
//! - `leaks memory USERS HOURS`: over the registry in memory, by a clock set by hand.
//! - `leaks store USERS SECONDS`: over the store that `TEST_STORE_URL` names, with short lives and in real time.
//!
//! The provider is a process of its own (`leaks provider …`), so that what it remembers is not counted.

use std::alloc::System;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::process::{Command as Program, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Sse;
use axum::response::sse::Event;
use axum::routing::get;
use cap::Cap;
use futures_util::StreamExt;
use http::header::LOCATION;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tower::ServiceExt;
use tower_oidc_session::test_provider::{ManualClock, SignIn, TestClient, TestProvider};
use tower_oidc_session::{
    ClientCredentials, MemoryRegistry, OidcSession, RelyingParty, SessionPolicy, SessionRegistry, SigningAlg,
    SystemClock,
};
use tower_oidc_session_benches::figure;
use tower_oidc_session_benches::random::Random;
use tower_oidc_session_benches::stores::{self, Kind};
use tower_oidc_session_benches::user::{Cookies, request};

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// More is growth: what is there at a time depends on who happens to be there.
const SLACK: f64 = 1.05;

/// Connections to the provider that nobody uses, each of which is a task with its buffers: they are looked through every 90 s, and
/// closed when they have been idle for as long. By the system's clock.
const CONNECTIONS_ARE_KEPT: Duration = Duration::from_secs(200);

/// What ended is remembered for so long, in seconds.
const REMEMBERED: u64 = 720;

/// How long things take, in seconds.
#[derive(Clone, Copy)]
struct Pace {
    /// The provider's inactivity timeout.
    t: f64,
    g: f64,
    absolute: f64,
    /// Everything that is due in it is done at once.
    tick: f64,
    click: f64,
    stay: f64,
    away: f64,
}

const A_DAY: Pace =
    Pace { t: 900.0, g: 180.0, absolute: 43_200.0, tick: 10.0, click: 60.0, stay: 1_200.0, away: 10_000.0 };
const SHORT_LIVES: Pace = Pace { t: 10.0, g: 2.0, absolute: 120.0, tick: 1.0, click: 1.0, stay: 10.0, away: 20.0 };

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// The provider's process.
struct Provider {
    issuer: String,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl Provider {
    async fn start(url: &str, users: usize, pace: &str) -> Self {
        let program = std::env::current_exe().expect("this program");
        let users = users.to_string();
        let mut process = Command::new(program)
            .args(["provider", url, &users, pace])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the provider starts");
        let commands = process.stdin.take().expect("it is piped");
        let mut answers = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let issuer = answers.next_line().await.expect("it answers").expect("its issuer");
        Self { issuer, commands, answers, _process: process }
    }

    async fn tell(&mut self, command: &str) {
        self.commands.write_all(format!("{command}\n").as_bytes()).await.expect("it listens");
        self.answers.next_line().await.expect("it answers").expect("it lives");
    }
}

/// Does what its standard input says.
async fn serve_provider(url: &str, users: usize, pace: Pace, clock: Option<ManualClock>) {
    let builder = TestProvider::builder();
    let builder = match &clock {
        Some(clock) => builder.clock(clock.clone()),
        None => builder.clock(SystemClock),
    };
    let builder = (0..users).fold(builder, |builder, user| builder.user(format!("user-{user}")));
    let provider = builder
        .sign_in(SignIn::Automatic("alice".to_owned()))
        .signing_alg(SigningAlg::ES256)
        .session_lifetime(seconds(pace.t))
        .access_token_lifetime(seconds(pace.t))
        .client(TestClient::at("shop", "secret", url))
        .start()
        .await
        .expect("the provider starts");
    println!("{}", provider.issuer());
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    while let Some(command) = commands.next_line().await.expect("a pipe") {
        match (command.split_once(' '), &clock) {
            (Some(("advance", by)), Some(clock)) => clock.advance(seconds(by.parse().expect("seconds"))),
            (Some(("end", user)), _) => _ = provider.end_sessions_of(user).await,
            _ => {}
        }
        provider.sweep().await;
        println!("done");
    }
}

async fn events(_session: OidcSession) -> Sse<futures_util::stream::Pending<Result<Event, Infallible>>> {
    Sse::new(futures_util::stream::pending())
}

/// What all users share.
#[derive(Clone)]
struct Site {
    app: Router,
    http: reqwest::Client,
}

#[derive(Default)]
struct User {
    cookies: Cookies,
    /// When they will have left, while they are there.
    leaves: Option<f64>,
    stream: Option<JoinHandle<()>>,
}

fn location<B>(response: &Response<B>) -> String {
    response.headers().get(LOCATION).expect("a redirect").to_str().expect("a URL").to_owned()
}

impl Site {
    async fn call(&self, request: Request<Body>, cookies: &mut Cookies) -> Response<Body> {
        let response = self.app.clone().oneshot(request).await.expect("routers do not fail");
        cookies.keep(&response);
        response
    }

    async fn sign_in(&self, name: usize, cookies: &mut Cookies) {
        let begun = self.call(request("/auth/login", &cookies.header()), cookies).await;
        let there = format!("{}&login_hint=user-{name}", location(&begun));
        let back = location(&http::Response::from(self.http.get(there).send().await.expect("the provider answers")));
        let path = &back[back.find("/auth/callback").expect("it leads back")..];
        let landed = self.call(request(path, &cookies.header()), cookies).await;
        assert!(landed.status().is_redirection(), "{landed:?}");
    }

    async fn sign_out(&self, cookies: &mut Cookies) {
        let request = Request::post("/auth/logout").header("sec-fetch-site", "same-origin");
        let request = request.header("cookie", cookies.header()).body(Body::empty()).expect("a request");
        let answer = self.call(request, cookies).await;
        let to = location(&answer);
        if to.contains("/logout?") {
            self.http.get(to).send().await.expect("the provider answers");
        }
    }

    /// One thing that a user does; returns the user, and when the next will be.
    async fn act(self, name: usize, mut user: User, mut random: Random, now: f64, pace: Pace) -> (User, Random, f64) {
        let exponential = |random: &mut Random, mean: f64| -mean * (1.0 - random.next()).ln();
        let Some(leaves) = user.leaves else {
            let page = self.call(request("/page", &user.cookies.header()), &mut user.cookies).await;
            if !page.status().is_success() {
                self.sign_in(name, &mut user.cookies).await;
            }
            if random.next() < 0.1 {
                let stream = self.call(request("/events", &user.cookies.header()), &mut user.cookies).await;
                let mut body = stream.into_body();
                user.stream = Some(tokio::spawn(async move { while body.frame().await.is_some() {} }));
            }
            user.leaves = Some(now + exponential(&mut random, pace.stay));
            return (user, random, now + pace.tick);
        };
        if now < leaves {
            let page = self.call(request("/page", &user.cookies.header()), &mut user.cookies).await;
            match page.status() {
                StatusCode::OK => {}
                // Ended by the provider's administrator.
                StatusCode::UNAUTHORIZED => self.sign_in(name, &mut user.cookies).await,
                other => panic!("{other}"),
            }
            let next = now + exponential(&mut random, pace.click);
            return (user, random, next);
        }
        if random.next() < 0.3 {
            self.sign_out(&mut user.cookies).await;
        }
        user.stream.take().inspect(JoinHandle::abort);
        user.leaves = None;
        let next = now + exponential(&mut random, pace.away);
        (user, random, next)
    }

    /// Who has no session, and will get none.
    async fn junk(&self, number: usize) {
        let mut cookies = Cookies::default();
        self.call(request("/auth/login?return_to=/page", ""), &mut cookies).await;
        self.call(request(&format!("/auth/callback?code=x&state={number}"), ""), &mut cookies).await;
        let form =
            Request::post("/auth/backchannel-logout").header("content-type", "application/x-www-form-urlencoded");
        let form = form.body(Body::from(format!("logout_token=a.b.{number}"))).expect("a request");
        self.call(form, &mut cookies).await;
    }
}

/// What is there.
#[derive(Clone, Copy, Debug)]
struct Count {
    heap: f64,
    tasks: f64,
    entries: f64,
}

async fn count(entries: impl AsyncFn() -> usize) -> Count {
    // What was begun comes to its end: in real time, as it goes over sockets.
    let mut tasks = usize::MAX;
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let alive = Handle::current().metrics().num_alive_tasks();
        if alive >= tasks {
            break;
        }
        tasks = alive;
    }
    let tasks = Handle::current().metrics().num_alive_tasks();
    Count { heap: HEAP.allocated() as f64, tasks: tasks as f64, entries: entries().await as f64 }
}

fn print(when: &str, count: Count) {
    figure::print(&format!("leaks, {when}: live heap"), (count.heap / 1e4).round() / 1e2, "MB");
    figure::print(&format!("leaks, {when}: tasks"), count.tasks, "");
    figure::print(&format!("leaks, {when}: entries of the store"), count.entries, "");
}

/// Fails where the last third of the counts is above the third before it.
fn assert_flat(counts: &[Count], with_entries: bool) {
    let third = counts.len() / 3;
    let (earlier, later) = (&counts[third..2 * third], &counts[counts.len() - third..]);
    let mean = |of: fn(&Count) -> f64, counts: &[Count]| counts.iter().map(of).sum::<f64>() / counts.len() as f64;
    let of: [(&str, fn(&Count) -> f64); 3] =
        [("live heap", |c| c.heap), ("tasks", |c| c.tasks), ("entries", |c| c.entries)];
    for (what, of) in of.into_iter().take(if with_entries { 3 } else { 2 }) {
        let (before, after) = (mean(of, earlier), mean(of, later));
        assert!(after <= before * SLACK, "{what} grows: {before:.0}, later {after:.0}");
        figure::print(
            &format!("leaks: {what}, last third to the one before"),
            (after / before * 1e4).round() / 1e2,
            "%",
        );
    }
}

struct World {
    site: Site,
    provider: Provider,
    clock: Option<ManualClock>,
    pace: Pace,
    users: BTreeMap<usize, (User, Random)>,
    due: BTreeMap<u64, Vec<usize>>,
    tick: u64,
}

impl World {
    async fn start(users: usize, name: &str, registry: Arc<dyn SessionRegistry>) -> Self {
        let (pace, clock) = pace_of(name);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let provider = Provider::start(&url, users, name).await;
        let builder = RelyingParty::builder(&provider.issuer, ClientCredentials::secret("shop", "secret"), &url)
            .signing_alg(SigningAlg::ES256)
            .registry(registry)
            .policy(
                SessionPolicy::new()
                    .op_session_lifetime(seconds(pace.t))
                    .access_token_lifetime(seconds(pace.g))
                    .absolute_lifetime(seconds(pace.absolute)),
            );
        let builder = match &clock {
            Some(clock) => builder.clock(clock.clone()),
            None => builder,
        };
        let rp = builder.build().expect("the configuration is good");
        let app = Router::new()
            .route("/page", get(async || "hello"))
            .route("/events", get(events))
            .route_layer(rp.require_session())
            .merge(rp.routes())
            .layer(rp.layer());
        // The provider's logout tokens come here; all else is called in the process.
        tokio::spawn(axum::serve(listener, app.clone()).into_future());
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
        let mut world = Self {
            site: Site { app, http },
            provider,
            clock,
            pace,
            users: BTreeMap::new(),
            due: BTreeMap::new(),
            tick: 0,
        };
        for name in 0..users {
            let mut random = Random::of(name as u64 + 1);
            let comes = random.next() * (pace.away + pace.stay);
            world.users.insert(name, (User::default(), random));
            world.plan(name, comes);
        }
        world
    }

    fn plan(&mut self, name: usize, at: f64) {
        let tick = ((at / self.pace.tick).ceil() as u64).max(self.tick + 1);
        self.due.entry(tick).or_default().push(name);
    }

    /// All that happens until the next tick.
    async fn go_on(&mut self, comes_anybody: bool) {
        self.tick += 1;
        let now = self.tick as f64 * self.pace.tick;
        match &self.clock {
            Some(clock) => clock.advance(seconds(self.pace.tick)),
            None => tokio::time::sleep(seconds(self.pace.tick)).await,
        }
        self.provider.tell(&format!("advance {}", self.pace.tick)).await;
        if !comes_anybody {
            return;
        }
        let due = self.due.remove(&self.tick).unwrap_or_default();
        let acts: Vec<_> = due
            .into_iter()
            .filter_map(|name| {
                let (user, random) = self.users.remove(&name)?;
                let (site, pace) = (self.site.clone(), self.pace);
                Some(async move { (name, site.act(name, user, random, now, pace).await) })
            })
            .collect();
        let done: Vec<_> = futures_util::stream::iter(acts).buffer_unordered(32).collect().await;
        for (name, (user, random, next)) in done {
            self.users.insert(name, (user, random));
            self.plan(name, next);
        }
        self.site.junk(self.tick as usize).await;
        // An administrator ends somebody's sessions.
        if self.tick.is_multiple_of(7) {
            let user = self.tick as usize % self.users.len();
            self.provider.tell(&format!("end user-{user}")).await;
        }
    }

    /// Nobody comes any more, until the last session is over and long forgotten.
    async fn fade_out(&mut self, for_so_long: f64) {
        for (user, _) in self.users.values_mut() {
            user.stream.take().inspect(JoinHandle::abort);
        }
        for _ in 0..(for_so_long / self.pace.tick) as u64 {
            self.go_on(false).await;
        }
    }
}

fn pace_of(name: &str) -> (Pace, Option<ManualClock>) {
    match name {
        "day" => (A_DAY, Some(ManualClock::new())),
        _ => (SHORT_LIVES, None),
    }
}

async fn memory(users: usize, hours: usize) {
    let registry = MemoryRegistry::new();
    let mut world = World::start(users, "day", Arc::new(registry.clone())).await;
    let entries = async || registry.len();
    let before = count(entries).await;
    print("at the beginning", before);
    let mut counts = Vec::new();
    for hour in 1..=hours {
        for _ in 0..(3_600.0 / world.pace.tick) as u64 {
            world.go_on(true).await;
        }
        let count = count(entries).await;
        print(&format!("hour {hour}"), count);
        counts.push(count);
    }
    assert_flat(&counts, true);
    world.fade_out(14.0 * 3_600.0).await;
    tokio::time::sleep(CONNECTIONS_ARE_KEPT).await;
    let after = count(entries).await;
    print("14 hours after the last request", after);
    assert_eq!(after.entries, 0.0, "sessions are left");
    assert!(after.tasks <= before.tasks + 4.0, "tasks are left: {before:?}, {after:?}");
}

/// Keys, or rows, that are left in a store.
fn entries_of(kind: Kind, url: &str) -> usize {
    let mut program = match kind {
        Kind::Redis => Program::new("redis-cli"),
        _ => Program::new("psql"),
    };
    match kind {
        Kind::Redis => program.args(["-u", url, "DBSIZE"]),
        _ => program.args([
            url,
            "-tAc",
            "SELECT (SELECT count(*) FROM oidc_session.session) + (SELECT count(*) FROM oidc_session.ended) \
             + (SELECT count(*) FROM oidc_session.tombstone) + (SELECT count(*) FROM oidc_session.spent)",
        ]),
    };
    let output = program.output().expect("the store's client is there");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.trim().parse().unwrap_or_else(|_| panic!("{text} {output:?}"))
}

async fn store(users: usize, for_so_long: u64) {
    let kind = Kind::of_environment();
    let url = stores::url().expect("TEST_STORE_URL");
    let mut world = World::start(users, "short", kind.registry().await).await;
    let entries = async || entries_of(kind, &url);
    let before = count(entries).await;
    print("at the beginning", before);
    let mut counts = Vec::new();
    for second in 1..=for_so_long {
        world.go_on(true).await;
        if second.is_multiple_of(30) {
            let count = count(entries).await;
            print(&format!("{}, second {second}", kind.name()), count);
            counts.push(count);
        }
    }
    // Forgotten once a minute.
    for minute in 1..=16 {
        world.fade_out(60.0).await;
        print(&format!("{}, {minute} min after the last request", kind.name()), count(entries).await);
    }
    // Until the first marks are forgotten they can only become more.
    assert_flat(&counts, for_so_long >= 3 * REMEMBERED);
    let after = count(entries).await;
    assert!(after.entries <= before.entries, "entries are left: {before:?}, {after:?}");
    // A pool keeps its connections, each of which is a task.
    assert!(after.tasks <= before.tasks + 16.0, "tasks are left: {before:?}, {after:?}");
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| -> usize { text.parse().expect("a number") };
    match arguments[..] {
        ["memory", users, hours] => memory(number(users), number(hours)).await,
        ["store", users, seconds] => store(number(users), number(seconds) as u64).await,
        ["provider", url, users, pace] => {
            let (pace, clock) = pace_of(pace);
            serve_provider(url, number(users), pace, clock).await;
        }
        _ => panic!("memory USERS HOURS, or store USERS SECONDS"),
    }
}
