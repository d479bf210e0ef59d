//! Several replicas on one store. Here they share the registry in memory; the promises are the same.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::future::join;
use http::{Method, StatusCode};
use reqwest::RequestBuilder;
use serde_json::json;
use tower_oidc_session::registry::{
    AttemptKey, Claimed, Committed, Created, EndListener, Lease, LeaseHolder, Loaded, LoginAttempt, Registration,
    SessionRecord, Sid, Spent, Subject, Version,
};
use tower_oidc_session::test_provider::{Endpoint, GateAt};
use tower_oidc_session::{Clock, EndReason, LogoutTarget, NotReady, RegistryError, SessionKey, SessionRegistry};

use crate::api_server::{Answer, Api};
use crate::browser::Browser;
use crate::registry::Registry;
use crate::stores::{assert_last, rest_of};
use crate::trouble::begin;
use crate::until::until;
use crate::world::{App, G, Options, SECOND, T, World};

/// A request to a replica with the cookies of the application.
fn to_replica(world: &World, replica: &App, method: Method, path: &str) -> RequestBuilder {
    let request = world.browser.request(method, &replica.at(path));
    request.header("cookie", world.browser.cookie_header(&world.app.url))
}

async fn at_replica(world: &World, replica: &App, path: &str) -> StatusCode {
    let request = to_replica(world, replica, Method::GET, path);
    RequestBuilder::from_parts(reqwest::Client::new(), request.build().unwrap()).send().await.unwrap().status()
}

#[tokio::test]
async fn p1_an_end_on_one_replica_is_one_on_all() {
    let world = World::signed_in().await;
    let replica = world.replica(world.app.registry.clone()).await;
    assert_eq!(at_replica(&world, &replica, "/me").await, StatusCode::OK);
    let mut events = to_replica(&world, &replica, Method::GET, "/events").send().await.unwrap();
    events.chunk().await.unwrap().unwrap();
    world.provider.end_sessions_of("alice").await;
    assert_eq!(at_replica(&world, &replica, "/me").await, StatusCode::UNAUTHORIZED);
    let rest = tokio::time::timeout(Duration::from_secs(1), rest_of(&mut events)).await.expect("within a second");
    assert_last(&rest);
}

#[tokio::test]
async fn p2_replicas_share_one_refresh() {
    let world = World::signed_in().await;
    let registry = Failing::new(world.app.registry.clone());
    let replica = world.replica(registry.clone()).await;
    world.clock.advance(G);
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Response);
    let first = begin(&world, &world.browser, "/me");
    gate.arrived().await;
    // The second waits for the first, which has the lease.
    let refused = async {
        until(|| registry.claims.load(Ordering::Relaxed) > 0).await;
        assert_eq!(gate.waiting(), 1);
        gate.open();
        world.clock.run(first).await.unwrap()
    };
    let (second, first) = world.clock.run(join(at_replica(&world, &replica, "/me"), refused)).await;
    assert_eq!((first, second), (StatusCode::OK, StatusCode::OK));
    assert_eq!(world.provider.requests(Endpoint::Token), 2);
    assert!(world.app.ends().is_empty() && replica.ends().is_empty());
}

#[tokio::test]
async fn p2_a_lease_is_held_for_as_long_as_its_holder_waits_for_the_answer() {
    let world = World::signed_in_with(Options::silent()).await;
    let registry = Failing::new(world.app.registry.clone());
    let replica = world.replica(registry.clone()).await;
    let key = world.app.registry.last();
    let Loaded::Live(record) = SessionRegistry::load(&world.app.registry, &key).await.unwrap() else { panic!() };
    world.clock.advance(G);
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Response);
    let waits = async {
        gate.arrived().await;
        for _ in 0..6 {
            let claims = registry.claims.load(Ordering::Relaxed);
            world.clock.advance(SECOND * 2);
            until(|| registry.claims.load(Ordering::Relaxed) > claims).await;
            let mut other = registry.lease.lock().unwrap().unwrap();
            other.holder = LeaseHolder::from_number(7);
            let claimed = world.app.registry.claim_refresh(&key, record.version(), other).await.unwrap();
            assert_eq!(claimed, Claimed::Held);
        }
        gate.open();
    };
    let (status, ()) = join(at_replica(&world, &replica, "/me"), waits).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn p3_a_process_that_stops_begins_no_refresh_and_says_how_many_it_has_left() {
    let world = World::signed_in_with(Options::silent()).await;
    let other = Browser::new();
    assert_eq!(other.go(&world.app.at("/me")).await.status, StatusCode::OK);
    let idle = world.replica(world.app.registry.clone()).await;
    assert_eq!(world.clock.run(idle.rp.drain(SECOND)).await, 0);
    world.clock.advance(G);
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Response);
    let request = begin(&world, &world.browser, "/me");
    gate.arrived().await;
    assert_eq!(world.clock.run(world.app.rp.drain(SECOND)).await, 1);
    let before = world.provider.requests(Endpoint::Token);
    assert_eq!(other.get(&world.app.at("/me")).await.status, StatusCode::OK, "within T");
    assert_eq!(world.provider.requests(Endpoint::Token), before);
    gate.open();
    assert_eq!(world.clock.run(request).await.unwrap(), StatusCode::OK);
}

/// A registry whose store fails when it is told to.
#[derive(Clone, Debug)]
struct Failing {
    inner: Registry,
    fails: Arc<AtomicBool>,
    /// Whether its notices of ends get lost.
    is_mute: bool,
    claims: Arc<AtomicUsize>,
    loads: Arc<AtomicUsize>,
    /// The last that was claimed.
    lease: Arc<Mutex<Option<Lease>>>,
    /// How often it was asked while it failed.
    failures: Arc<AtomicUsize>,
    /// What it says when it is asked for a session next: an answer that was long on its way.
    late: Arc<Mutex<Option<Loaded>>>,
    /// Whoever wants it written keeps listings of sessions waiting.
    listing: Arc<tokio::sync::RwLock<()>>,
}

impl Failing {
    fn new(inner: Registry) -> Self {
        Self {
            inner,
            fails: Arc::default(),
            is_mute: false,
            claims: Arc::default(),
            loads: Arc::default(),
            lease: Arc::default(),
            failures: Arc::default(),
            late: Arc::default(),
            listing: Arc::default(),
        }
    }

    fn mute(inner: Registry) -> Self {
        Self { is_mute: true, ..Self::new(inner) }
    }

    fn check(&self) -> Result<(), RegistryError> {
        if self.fails.load(Ordering::Relaxed) {
            self.failures.fetch_add(1, Ordering::Relaxed);
            return Err(RegistryError::new("the store is down"));
        }
        Ok(())
    }
}

#[async_trait]
impl SessionRegistry for Failing {
    async fn time(&self) -> Result<SystemTime, RegistryError> {
        self.check()?;
        self.inner.time().await
    }

    async fn spend(&self, attempt: &AttemptKey) -> Result<Spent, RegistryError> {
        self.check()?;
        self.inner.spend(attempt).await
    }

    async fn create(
        &self,
        record: SessionRecord,
        attempt: LoginAttempt,
        now: SystemTime,
    ) -> Result<Created, RegistryError> {
        self.check()?;
        SessionRegistry::create(&self.inner, record, attempt, now).await
    }

    async fn load(&self, key: &SessionKey) -> Result<Loaded, RegistryError> {
        self.check()?;
        self.loads.fetch_add(1, Ordering::Relaxed);
        if let Some(late) = self.late.lock().unwrap().take() {
            return Ok(late);
        }
        SessionRegistry::load(&self.inner, key).await
    }

    async fn has_sibling(&self, record: &SessionRecord) -> Result<bool, RegistryError> {
        self.check()?;
        self.inner.has_sibling(record).await
    }

    async fn sessions_of(
        &self,
        registration: &Registration,
        subject: &Subject,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        self.check()?;
        self.inner.sessions_of(registration, subject).await
    }

    async fn sessions_with_sid(
        &self,
        registration: &Registration,
        sid: &Sid,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        let _go_on = self.listing.read().await;
        self.check()?;
        self.inner.sessions_with_sid(registration, sid).await
    }

    async fn claim_refresh(&self, key: &SessionKey, version: Version, lease: Lease) -> Result<Claimed, RegistryError> {
        self.check()?;
        *self.lease.lock().unwrap() = Some(lease);
        let claimed = self.inner.claim_refresh(key, version, lease).await;
        self.claims.fetch_add(1, Ordering::Relaxed);
        claimed
    }

    async fn release_refresh(&self, key: &SessionKey, holder: LeaseHolder) -> Result<(), RegistryError> {
        self.check()?;
        self.inner.release_refresh(key, holder).await
    }

    async fn commit(&self, record: SessionRecord, now: SystemTime) -> Result<Committed, RegistryError> {
        self.check()?;
        self.inner.commit(record, now).await
    }

    async fn end(&self, key: &SessionKey, reason: EndReason) -> Result<Option<Arc<SessionRecord>>, RegistryError> {
        self.check()?;
        self.inner.end(key, reason).await
    }

    async fn end_matching(
        &self,
        target: &LogoutTarget,
        reason: EndReason,
        now: SystemTime,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        self.check()?;
        self.inner.end_matching(target, reason, now).await
    }

    async fn remove_expired(&self) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        self.check()?;
        self.inner.remove_expired().await
    }

    fn adopt_clock(&self, clock: &Arc<dyn Clock>) {
        self.inner.adopt_clock(clock);
    }

    fn subscribe(&self, listener: EndListener) {
        if !self.is_mute {
            self.inner.subscribe(listener);
        }
    }
}

#[tokio::test]
async fn p8_a_store_that_is_down_is_503_and_never_anonymous() {
    let world = World::signed_in().await;
    let registry = Failing::new(world.app.registry.clone());
    let replica = world.replica(registry.clone()).await;
    assert_eq!(at_replica(&world, &replica, "/me").await, StatusCode::OK);
    registry.fails.store(true, Ordering::Relaxed);
    for path in ["/me", "/poll", "/", "/auth/session"] {
        assert_eq!(at_replica(&world, &replica, path).await, StatusCode::SERVICE_UNAVAILABLE, "{path}");
    }
    assert_eq!(at_replica(&world, &replica, "/healthz").await, StatusCode::OK);
    assert_eq!(replica.rp.check_ready().await, Err(NotReady::Store));
    let sign_out = to_replica(&world, &replica, Method::POST, "/auth/logout").send().await.unwrap();
    assert_eq!(sign_out.status(), StatusCode::SERVICE_UNAVAILABLE, "nor is a sign-out");
    let form = to_replica(&world, &replica, Method::POST, "/me").header("accept", "text/html").body("a=b");
    let form = form.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap();
    assert_eq!(form.status(), StatusCode::SERVICE_UNAVAILABLE, "a form is sent again, not kept for a login");
    let old_answer = at_replica(&world, &replica, "/auth/callback?code=c&state=of-long-ago").await;
    assert_eq!(old_answer, StatusCode::SERVICE_UNAVAILABLE, "whether its user is signed in is not known");
    let token = world.provider.logout_token("shop", None, Some(&world.sid()));
    let answer = world.provider.post_logout_token(&replica.at("/auth/backchannel-logout"), &token).await;
    assert_eq!(answer, Ok(503), "a logout that was not written is no success");
    registry.fails.store(false, Ordering::Relaxed);
    assert_eq!(at_replica(&world, &replica, "/me").await, StatusCode::OK);
    let answer = world.provider.post_logout_token(&replica.at("/auth/backchannel-logout"), &token).await;
    assert_eq!(answer, Ok(200), "the provider's second attempt, with the same jti");
    assert_eq!(at_replica(&world, &replica, "/me").await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn p3_rotated_tokens_outlast_a_store_that_is_down_for_a_moment() {
    let world = World::signed_in().await;
    let registry = Failing::new(world.app.registry.clone());
    let replica = world.replica(registry.clone()).await;
    world.clock.advance(G);
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Response);
    let request = at_replica(&world, &replica, "/me");
    let break_down = async {
        gate.arrived().await;
        registry.fails.store(true, Ordering::Relaxed);
        gate.open();
        until(|| registry.failures.load(Ordering::Relaxed) > 0).await;
        registry.fails.store(false, Ordering::Relaxed);
    };
    let (status, ()) = world.clock.run(join(request, break_down)).await;
    assert_eq!(status, StatusCode::OK);
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK, "the rotated token is the one in the store");
    world.clock.advance(SECOND);
    assert!(world.app.ends().is_empty());
}

#[tokio::test]
async fn p4_what_another_replica_was_told_longer_ago_than_t_serves_nobody() {
    let world = World::signed_in_with(Options::silent()).await;
    let registry = Failing::new(world.app.registry.clone());
    let replica = world.replica(registry.clone()).await;
    let before = SessionRegistry::load(&world.app.registry, &world.app.registry.last()).await.unwrap();
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
    world.clock.advance(T);
    // It finds that the other was faster, and that its word does not count any more.
    *registry.late.lock().unwrap() = Some(before);
    assert_eq!(at_replica(&world, &replica, "/me").await, StatusCode::UNAUTHORIZED, "the provider has to be asked");
    assert_eq!(world.provider.requests(Endpoint::Token), 3);
}

#[tokio::test]
async fn p4_one_replica_begins_a_silent_login_and_another_serves_nobody_longer_for_it() {
    let options = Options::silent();
    let policy = options.policy.discard_tokens().signal_by_silent_login();
    let world = World::signed_in_with(Options { policy, ..Options::silent() }).await;
    let registry = Failing::new(world.app.registry.clone());
    let replica = world.replica(registry.clone()).await;
    // Whoever comes second finds that the other was faster: before T that is no reason to wait, after T it is.
    for (silence, expected) in [(G, StatusCode::OK), (T, StatusCode::SERVICE_UNAVAILABLE)] {
        let before = SessionRegistry::load(&world.app.registry, &world.app.registry.last()).await.unwrap();
        world.clock.advance(silence);
        let sent = world.browser.step(&world.app.at("/me")).await;
        assert_eq!(sent.location().as_str(), world.app.at("/auth/login?return_to=/me&prompt=none"));
        *registry.late.lock().unwrap() = Some(before);
        let page = to_replica(&world, &replica, Method::GET, "/me").header("accept", "text/html").send().await.unwrap();
        assert_eq!(page.status(), expected, "{silence:?}");
    }
}

#[tokio::test]
async fn p2_a_replica_takes_the_token_that_another_has_got_meanwhile() {
    let api = Api::start().await;
    let world = crate::api::world(&api, |options| options).await;
    let registry = Failing::new(world.app.registry.clone());
    let listed = [tower_oidc_session::Api::at(&api.url)];
    let replica = world.replica_calling(registry.clone(), &listed, Some(api.url.clone())).await;
    let before = SessionRegistry::load(&world.app.registry, &world.app.registry.last()).await.unwrap();
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
    *registry.late.lock().unwrap() = Some(before);
    assert_eq!(at_replica(&world, &replica, "/passive-orders").await, StatusCode::OK);
    let token = world.browser.get(&world.app.at("/me")).await.json()["token"].clone();
    assert_eq!((api.calls(), json!(api.tokens()[0])), (1, token));
    assert_eq!(world.provider.requests(Endpoint::Token), 2);
}

#[tokio::test]
async fn p2_a_replica_that_waits_for_the_token_of_another_asks_for_none_itself() {
    let api = Api::start().await;
    let world = crate::api::world(&api, |options| options).await;
    let registry = Failing::new(world.app.registry.clone());
    let listed = [tower_oidc_session::Api::at(&api.url)];
    let replica = world.replica_calling(registry.clone(), &listed, Some(api.url.clone())).await;
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Response);
    // Both are told that the login's token is no good.
    api.answers_next(Answer::rejected());
    let first = begin(&world, &world.browser, "/api/x");
    gate.arrived().await;
    api.answers_next(Answer::rejected());
    let opened = async {
        until(|| registry.claims.load(Ordering::Relaxed) > 0).await;
        gate.open();
        world.clock.run(first).await.unwrap()
    };
    let (second, first) = world.clock.run(join(at_replica(&world, &replica, "/api/x"), opened)).await;
    assert_eq!((first, second), (StatusCode::OK, StatusCode::OK));
    assert_eq!(world.provider.requests(Endpoint::Token), 2, "the login, and one for both");
}

#[tokio::test]
async fn p1_a_frame_ends_its_session_also_where_the_store_is_slow_and_tells_nobody_where_it_is_not_there() {
    let world = World::signed_in().await;
    let registry = Failing::new(world.app.registry.clone());
    let builder = crate::clients::relying_party(world.provider.issuer(), "shop", &world.app.url)
        .cookie_key(crate::world::key())
        .policy(crate::world::policy())
        .clock(world.clock.clone())
        .registry(registry.clone())
        .frontchannel_logout();
    let replica = world.serve(builder, None).await;
    let frame = async |sid: &str| {
        let path = format!("/auth/frontchannel-logout?iss={}&sid={sid}", world.provider.issuer());
        Browser::new().get(&replica.at(&path)).await.status
    };
    let held = registry.listing.write().await;
    assert_eq!([frame(&world.sid()).await, frame("made-up").await], [StatusCode::OK; 2]);
    assert!(replica.ends().is_empty());
    drop(held);
    until(|| !replica.ends().is_empty()).await;
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
    registry.fails.store(true, Ordering::Relaxed);
    assert_eq!(frame("made-up").await, StatusCode::OK);
}

#[tokio::test]
async fn p7_a_replica_that_has_just_started_sends_a_sign_out_to_the_provider_too() {
    let world = World::signed_in().await;
    let mut gate = world.provider.gate(Endpoint::Discovery, GateAt::Request);
    let replica = world.replica(world.app.registry.clone()).await;
    gate.arrived().await;
    let signed_out = tokio::spawn(to_replica(&world, &replica, Method::POST, "/auth/logout").send());
    until(|| !replica.ends().is_empty()).await;
    gate.open();
    let answer = signed_out.await.unwrap().unwrap();
    let location = answer.headers()["location"].to_str().unwrap();
    assert!(location.starts_with(&world.provider.issuer()), "{location}");
    // It waits no longer than people do.
    let world = World::signed_in().await;
    let _held = world.provider.gate(Endpoint::Discovery, GateAt::Request);
    let replica = world.replica(world.app.registry.clone()).await;
    let signed_out = to_replica(&world, &replica, Method::POST, "/auth/logout").send();
    let answer = world.clock.run(signed_out).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_session_is_looked_up_once_for_a_request_its_calls_and_its_stream() {
    let api = Api::start().await;
    let world = crate::api::world(&api, |options| options).await;
    let registry = Failing::new(world.app.registry.clone());
    let listed = [tower_oidc_session::Api::at(&api.url)];
    let replica = world.replica_calling(registry.clone(), &listed, Some(api.url.clone())).await;
    let asked = [Endpoint::Token, Endpoint::UserInfo, Endpoint::Introspection];
    let before = asked.map(|endpoint| world.provider.requests(endpoint));
    for (path, calls) in [("/api/x", 1), ("/passive-orders", 2)] {
        registry.loads.store(0, Ordering::Relaxed);
        assert_eq!(at_replica(&world, &replica, path).await, StatusCode::OK);
        assert_eq!((registry.loads.load(Ordering::Relaxed), api.calls()), (1, calls), "{path}");
    }
    // Also where the token is bound to a key: a proof is made here.
    assert_eq!(asked.map(|endpoint| world.provider.requests(endpoint)), before);
    registry.loads.store(0, Ordering::Relaxed);
    let mut events = to_replica(&world, &replica, Method::GET, "/events").send().await.unwrap();
    events.chunk().await.unwrap().unwrap();
    // Time enough for whoever would look again at once.
    assert_eq!(at_replica(&world, &replica, "/healthz").await, StatusCode::OK);
    assert_eq!(registry.loads.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn p11_streams_of_the_replica_that_ends_a_session_are_cut_without_any_notice() {
    let world = World::signed_in().await;
    let registry = Failing::mute(world.app.registry.clone());
    let replica = world.replica(registry).await;
    let mut events = to_replica(&world, &replica, Method::GET, "/events").send().await.unwrap();
    events.chunk().await.unwrap().unwrap();
    let token = world.provider.logout_token("shop", None, Some(&world.sid()));
    let answer = world.provider.post_logout_token(&replica.at("/auth/backchannel-logout"), &token).await;
    assert_eq!(answer, Ok(200));
    let rest = tokio::time::timeout(Duration::from_secs(1), rest_of(&mut events)).await.expect("within a second");
    assert_last(&rest);
}

#[tokio::test]
async fn p11_a_lost_notice_is_made_up_for() {
    let world = World::signed_in().await;
    let registry = Failing::mute(world.app.registry.clone());
    let replica = world.replica(registry).await;
    let mut events = to_replica(&world, &replica, Method::GET, "/events").send().await.unwrap();
    events.chunk().await.unwrap().unwrap();
    world.provider.end_sessions_of("alice").await;
    // The other replica heard nothing; it looks every 30 s.
    world.clock.advance(SECOND * 30);
    let rest = tokio::time::timeout(Duration::from_secs(1), rest_of(&mut events)).await.expect("within a second");
    assert_last(&rest);
}
