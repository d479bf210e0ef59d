//! Users who sign in, click, poll, walk away and sign out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use http::header::{ACCEPT, COOKIE, LOCATION};
use http::{Method, StatusCode};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use url::Url;

use crate::T;
use crate::history::{Answer, At, Event, History, How, Local};
use crate::jar::Jar;
use crate::replicas::Replica;

/// No browser waits longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// So many cookies of sessions before are kept.
const OLD_ONES: usize = 8;

/// What all users have in common.
pub(crate) struct World {
    pub(crate) public_url: Url,
    pub(crate) issuer: Url,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) history: History,
    pub(crate) http: reqwest::Client,
    /// Whether the run goes on.
    pub(crate) goes_on: watch::Sender<bool>,
    /// Where the store is now.
    pub(crate) store_urls: watch::Sender<Vec<String>>,
    pub(crate) locals: AtomicU64,
}

#[derive(Clone)]
struct Held {
    local: Local,
    cookie: String,
}

pub(crate) struct User {
    sub: String,
    world: Arc<World>,
    jar: Jar,
    rng: SmallRng,
    session: Option<Held>,
    /// Sessions before, and the one there is.
    old: VecDeque<Held>,
}

/// What came back, and from whom.
struct Page {
    replica: Option<usize>,
    status: StatusCode,
    location: Option<Url>,
    body: String,
}

impl User {
    pub(crate) fn new(number: u32, seed: u32, world: Arc<World>) -> Self {
        let sub = format!("user{number}");
        let rng = SmallRng::seed_from_u64(u64::from(seed) << 32 | u64::from(number));
        Self { sub, world, jar: Jar::default(), rng, session: None, old: VecDeque::new() }
    }

    /// Does this and that until the run is over.
    pub(crate) async fn live(mut self) -> Self {
        let mut goes_on = self.world.goes_on.subscribe();
        loop {
            let pause = match self.rng.random_range(0..100) {
                0..2 => T.mul_f64(1.3),
                2..40 => Duration::from_millis(self.rng.random_range(20..300)),
                _ => Duration::from_millis(self.rng.random_range(300..2_000)),
            };
            tokio::select! {
                () = sleep(pause) => {}
                _ = goes_on.wait_for(|goes_on| !goes_on) => return self,
            }
            self.act().await;
        }
    }

    async fn act(&mut self) {
        if self.rng.random_bool(0.15) {
            self.ask_an_old_one().await;
        }
        let Some(session) = self.session.clone() else { return self.sign_in().await };
        match self.rng.random_range(0..100) {
            0..50 => self.click(&session, How::Click, 1).await,
            50..60 => self.view().await,
            60..72 => {
                let tabs = self.rng.random_range(3..7);
                self.click(&session, How::Click, tabs).await;
            }
            72..90 => self.click(&session, How::Poll, 1).await,
            90..96 => {
                // The tab is closed before the answer is there.
                let patience = Duration::from_millis(self.rng.random_range(0..20));
                let replica = self.rng.random_range(0..self.world.replicas.len());
                let url = self.at(replica, "/me");
                let _ = timeout(patience, self.get(&url, &session.cookie).send()).await;
            }
            96..98 => self.sign_in().await,
            _ => self.sign_out(&session).await,
        }
    }

    fn at(&self, replica: usize, path: &str) -> Url {
        Url::parse(&self.world.replicas[replica].url).unwrap().join(path).unwrap()
    }

    /// With the cookie of a session before, which has ended as a rule: a tab that was forgotten, a thief.
    async fn ask_an_old_one(&mut self) {
        if self.old.is_empty() {
            return;
        }
        let old = self.old[self.rng.random_range(0..self.old.len())].clone();
        let how = if self.rng.random_bool(0.5) { How::Click } else { How::Poll };
        let replica = self.rng.random_range(0..self.world.replicas.len());
        self.ask(&old, how, replica).await;
    }

    /// A page view, and the login if it leads there.
    async fn view(&mut self) {
        let me = self.world.public_url.join("/me").unwrap();
        let _ = self.navigate(me).await;
    }

    /// A request of a script.
    fn get(&self, url: &Url, cookies: &str) -> reqwest::RequestBuilder {
        let request = self.world.http.get(url.clone()).timeout(PATIENCE);
        request.header(ACCEPT, "application/json").header(COOKIE, cookies)
    }

    /// So many requests at once, each to any replica, with the session as it is now.
    async fn click(&mut self, session: &Held, how: How, tabs: usize) {
        let first = self.rng.random_range(0..self.world.replicas.len());
        let answers = join_all((0..tabs).map(|tab| self.ask(session, how, first + tab))).await;
        if answers.iter().any(|answer| matches!(answer, Answer::Over { .. })) {
            self.session = None;
        }
    }

    async fn ask(&self, session: &Held, how: How, first: usize) -> Answer {
        let sent = self.world.history.now();
        let (replica, answer) = self.answer(session, how, first).await;
        self.note(session.local, how, sent, replica, answer.clone());
        answer
    }

    fn note(&self, local: Local, how: How, sent: At, replica: Option<usize>, answer: Answer) {
        let got = self.world.history.now();
        self.world.history.push(Event::Request { local, how, replica, sent, got, answer });
    }

    async fn answer(&self, session: &Held, how: How, first: usize) -> (Option<usize>, Answer) {
        let path = if how == How::Poll { "/poll" } else { "/me" };
        let request = |replica| self.get(&self.at(replica, path), &session.cookie);
        let Some((replica, response)) = self.by_any_replica(first, request).await else {
            return (None, Answer::Nothing);
        };
        let status = response.status();
        (Some(replica), response.text().await.map_or(Answer::Nothing, |body| said(status, &body)))
    }

    /// As a balancer does: who refuses the connection is passed over. None if there is no answer.
    async fn by_any_replica(
        &self,
        first: usize,
        request: impl Fn(usize) -> reqwest::RequestBuilder,
    ) -> Option<(usize, reqwest::Response)> {
        let count = self.world.replicas.len();
        for replica in (first..first + count).map(|replica| replica % count) {
            match request(replica).send().await {
                Ok(response) => return Some((replica, response)),
                Err(error) if error.is_connect() => {}
                Err(_) => return None,
            }
        }
        None
    }

    async fn sign_out(&mut self, session: &Held) {
        let world = self.world.clone();
        let sent = world.history.now();
        let page = self.send(&Method::POST, &world.public_url.join("/auth/logout").unwrap()).await;
        let is_done = page.as_ref().is_some_and(|page| page.status.is_redirection());
        let acknowledged = is_done.then(|| world.history.now());
        world.history.push(Event::SignOut { local: session.local, sent, acknowledged });
        // Some users do not wait for what comes after.
        if let Some(Page { location: Some(location), .. }) = page
            && self.rng.random_bool(0.7)
        {
            let _ = self.send(&Method::GET, &location).await;
        }
        if is_done && self.rng.random_bool(0.5) {
            self.session = None;
        }
    }

    /// A navigation, at the application by any replica. None if there is no answer.
    async fn send(&mut self, method: &Method, url: &Url) -> Option<Page> {
        let first = self.rng.random_range(0..self.world.replicas.len());
        let (replica, response) = if url.origin() == self.world.public_url.origin() {
            let at = |replica| {
                let mut to = url.clone();
                to.set_port(self.at(replica, "/").port()).unwrap();
                self.navigation(method, url, to)
            };
            let (replica, response) = self.by_any_replica(first, at).await?;
            (Some(replica), response)
        } else {
            (None, self.navigation(method, url, url.clone()).send().await.ok()?)
        };
        self.jar.keep(url, response.headers());
        let location = response.headers().get(LOCATION).and_then(|value| url.join(value.to_str().ok()?).ok());
        Some(Page { replica, status: response.status(), location, body: response.text().await.ok()? })
    }

    /// A request for a page at `url`, which is `to` in truth.
    fn navigation(&self, method: &Method, url: &Url, to: Url) -> reqwest::RequestBuilder {
        let request = self.world.http.request(method.clone(), to).timeout(PATIENCE).header(ACCEPT, "text/html");
        match self.jar.header(url) {
            Some(cookies) => request.header(COOKIE, cookies),
            None => request,
        }
    }

    fn cookie(&self) -> Option<String> {
        let cookies = self.jar.cookies(&self.world.public_url);
        let (name, value) = cookies.into_iter().find(|(name, _)| name.starts_with("__Host-session-"))?;
        Some(format!("{name}={value}"))
    }

    /// Goes to the login and as far as it leads.
    async fn sign_in(&mut self) {
        let url = self.world.public_url.join("/auth/login?return_to=/me").unwrap();
        let _ = self.navigate(url).await;
    }

    /// Follows redirects, and asks once more where no answer comes. Gives the last answer, or why there is none.
    async fn navigate(&mut self, mut url: Url) -> Result<(Url, Page), String> {
        let world = self.world.clone();
        let (mut began, mut unanswered) = (world.history.now(), 0);
        for _ in 0..20 {
            let is_callback = url.path() == "/auth/callback";
            let before = self.cookie();
            // A page view with a session is judged as any other request.
            let viewed = before.as_ref().filter(|_| url.path() == "/me").and_then(|cookie| {
                Some((self.old.iter().find(|held| held.cookie == *cookie)?.local, world.history.now()))
            });
            // What the browser has is a login's to end, whatever the user was told of it.
            let had = before.as_ref().and_then(|cookie| self.old.iter().find(|held| held.cookie == *cookie));
            if is_callback && let Some(Held { local, .. }) = had {
                world.history.push(Event::Callback { had: *local, sent: world.history.now() });
            }
            let page = if is_callback && self.rng.random_bool(0.1) {
                // The page is loaded twice. What comes first is what the browser shows.
                let (mut other, again) = (self.twin(), url.clone());
                let second = tokio::spawn(async move { other.send(&Method::GET, &again).await });
                let first = self.send(&Method::GET, &url).await;
                let second = second.await.unwrap();
                first.or(second)
            } else {
                self.send(&Method::GET, &url).await
            };
            if let Some((local, sent)) = viewed {
                let replica = page.as_ref().and_then(|page| page.replica);
                self.note(local, How::Page, sent, replica, page.as_ref().map_or(Answer::Nothing, Page::said));
            }
            let Some(page) = page else {
                unanswered += 1;
                if unanswered > 2 {
                    return Err(format!("no answer from {}", url.path()));
                }
                continue;
            };
            let after = self.cookie();
            if is_callback && let Some(cookie) = after.filter(|after| before.as_ref() != Some(after)) {
                self.begin_session(cookie, &url, began);
            }
            match page.location.clone() {
                Some(next) if page.status.is_redirection() => url = next,
                _ => return Ok((url, page)),
            }
            if url.origin() == world.issuer.origin() && url.path() == "/authorize" {
                began = world.history.now();
                url.query_pairs_mut().append_pair("login_hint", &self.sub);
            }
        }
        Err("a redirect loop".to_owned())
    }

    fn begin_session(&mut self, cookie: String, callback: &Url, began: Duration) {
        let world = &self.world;
        let local = Local(world.locals.fetch_add(1, Ordering::SeqCst));
        let code = callback.query_pairs().find(|(name, _)| name == "code").map(|(_, code)| code.into_owned());
        let (sub, code) = (self.sub.clone(), code.unwrap_or_default());
        let had = self.session.as_ref().map(|session| session.local);
        world.history.push(Event::Login { local, sub, code, began, done: world.history.now(), had });
        let held = Held { local, cookie };
        self.session = Some(held.clone());
        self.old.push_front(held);
        self.old.truncate(OLD_ONES);
    }

    /// Another tab of the same browser.
    fn twin(&mut self) -> Self {
        let rng = SmallRng::seed_from_u64(self.rng.random());
        Self {
            sub: self.sub.clone(),
            world: self.world.clone(),
            jar: self.jar.clone(),
            rng,
            session: None,
            old: VecDeque::new(),
        }
    }

    /// After all is well again: a page view leads to what is protected, and then every replica serves it.
    pub(crate) async fn arrive(&mut self, within: Duration) {
        let until = self.world.history.now() + within;
        let me = self.world.public_url.join("/me").unwrap();
        let mut why = String::new();
        while self.world.history.now() < until {
            match self.navigate(me.clone()).await {
                Ok((_, page)) if page.status == StatusCode::OK => {
                    let Some(session) = self.session.clone() else { break };
                    why = String::from("a page view was served, another request was not");
                    let mut answers = Vec::new();
                    for replica in 0..self.world.replicas.len() {
                        answers.push(self.ask(&session, How::Click, replica).await);
                    }
                    if answers.iter().all(|answer| matches!(answer, Answer::Served { .. })) {
                        return;
                    }
                }
                Ok((url, page)) => {
                    why = format!("{} at {} of {:?}: {}", page.status, url.path(), page.replica, page.body);
                }
                Err(error) => why = error,
            }
            sleep(Duration::from_millis(200)).await;
        }
        self.world.history.push(Event::Stuck { sub: self.sub.clone(), why });
    }
}

impl Page {
    /// What a page view came to. Who has no session any more is sent to the login.
    fn said(&self) -> Answer {
        match &self.location {
            Some(to) if self.status == StatusCode::SEE_OTHER && to.path() == "/auth/login" => {
                Answer::Over { reason: None }
            }
            _ => said(self.status, &self.body),
        }
    }
}

fn said(status: StatusCode, body: &str) -> Answer {
    let json: Value = serde_json::from_str(body).unwrap_or_default();
    let text = |name: &str| json.get(name).and_then(Value::as_str).map(str::to_owned);
    match status {
        StatusCode::OK => match (text("sub"), text("sid")) {
            (Some(sub), Some(sid)) => Answer::Served { sub, sid },
            _ => Answer::Other(format!("200: {body}")),
        },
        StatusCode::UNAUTHORIZED if text("error").as_deref() == Some("not_confirmed") => Answer::Unconfirmed,
        StatusCode::UNAUTHORIZED => Answer::Over { reason: text("reason") },
        StatusCode::SERVICE_UNAVAILABLE => Answer::Unavailable,
        _ => Answer::Other(format!("{status}: {body}")),
    }
}
