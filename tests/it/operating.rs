//! What administrators do: sessions are listed, limited in number and ended; metrics and traces say how it goes.

use std::num::NonZeroUsize;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::header::{COOKIE, SET_COOKIE, USER_AGENT};
use http::{Method, Request, StatusCode};
use tower::ServiceExt;
use tower_oidc_session::test_provider::{Endpoint, Fault};
use tower_oidc_session::{NotReady, OidcSession, SessionInfo, Sid, Subject};
use tracing::subscriber::NoSubscriber;
use tracing::{Dispatch, Instrument};
use tracing_subscriber::fmt::format::FmtSpan;

use crate::browser::Browser;
use crate::secrets::Log;
use crate::world::{ABSOLUTE, G, Options, SECOND, World, policy};

async fn sign_in_with(world: &World, agent: &str) -> Browser {
    let browser = Browser::new();
    let to_provider = browser.step(&world.app.at("/auth/login?return_to=/me")).await;
    let answer = browser.step(to_provider.location().as_str()).await;
    let callback = browser.request(Method::GET, answer.location().as_str()).header(USER_AGENT, agent);
    assert_eq!(browser.page(callback).await.status, StatusCode::SEE_OTHER);
    browser
}

async fn status(world: &World, browser: &Browser) -> StatusCode {
    browser.get(&world.app.at("/me")).await.status
}

#[tokio::test]
async fn sessions_of_a_user_are_listed_with_their_browsers_and_times() {
    let world = World::new().await;
    let alice = Subject::new("alice");
    assert_eq!(world.app.rp.sessions_of(&alice).await.unwrap(), []);
    let one = sign_in_with(&world, "One/1.0").await;
    world.clock.advance(SECOND * 10);
    let two = sign_in_with(&world, "Two/2.0").await;
    world.clock.advance(G);
    assert_eq!(status(&world, &one).await, StatusCode::OK);

    let listed = world.app.rp.sessions_of(&alice).await.unwrap();
    let agents: Vec<_> = listed.iter().map(|session| session.browser().user_agent().unwrap()).collect();
    assert_eq!(agents, ["One/1.0", "Two/2.0"], "the oldest first");
    assert_eq!(listed[1].started_at().duration_since(listed[0].started_at()).unwrap(), SECOND * 10);
    assert!(listed[0].last_signal() > listed[1].last_signal(), "only the first was active since");
    assert_eq!(world.app.rp.sessions_of(&Subject::new("bob")).await.unwrap(), []);

    world.app.rp.end_session(listed[0].key()).await.unwrap();
    assert_eq!(status(&world, &one).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&world, &two).await, StatusCode::OK);
    let keys = |sessions: Vec<SessionInfo>| sessions.iter().map(|session| *session.key()).collect::<Vec<_>>();
    assert_eq!(keys(world.app.rp.sessions_of(&alice).await.unwrap()), [*listed[1].key()]);
}

#[tokio::test]
async fn p1_sessions_of_one_sid_are_ended_from_outside() {
    let world = World::new().await;
    let one = sign_in_with(&world, "One").await;
    world.clock.advance(SECOND);
    let two = sign_in_with(&world, "Two").await;
    let listed = world.app.rp.sessions_of(&Subject::new("alice")).await.unwrap();
    let sid = listed[0].sid().unwrap();
    assert_ne!(listed[1].sid(), Some(sid));
    assert_eq!(world.app.rp.end_sessions_with_sid(&Sid::new("nobody's")).await.unwrap(), 0);
    assert_eq!(world.app.rp.end_sessions_with_sid(sid).await.unwrap(), 1);
    assert_eq!(status(&world, &one).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&world, &two).await, StatusCode::OK);
    assert_eq!(world.app.ends(), ["ended: ended_by_application"]);
    // A logout token for it still finds nothing to do, and is a success.
    let token = world.provider.logout_token("shop", None, Some(sid.as_str()));
    let answer = world.provider.post_logout_token(&world.app.at("/auth/backchannel-logout"), &token).await;
    assert_eq!(answer, Ok(200));
}

#[tokio::test]
async fn of_too_many_sessions_the_oldest_goes() {
    let most = NonZeroUsize::new(2).unwrap();
    let world = World::with(Options { policy: policy().sessions_per_user(most), ..Options::default() }).await;
    let mut browsers = Vec::new();
    for number in 0..4 {
        browsers.push(sign_in_with(&world, &format!("Browser {number}")).await);
        world.clock.advance(SECOND);
    }
    let mut served = Vec::new();
    for browser in &browsers {
        served.push(status(&world, browser).await == StatusCode::OK);
    }
    assert_eq!(served, [false, false, true, true]);
    assert_eq!(world.app.ends(), ["ended: too_many_sessions", "ended: too_many_sessions"]);
    // A login anew in one's own browser is no further device.
    world.clock.advance(SECOND);
    browsers[3].go(&world.app.at("/auth/login?return_to=/me&prompt=login")).await;
    for browser in &browsers[2..] {
        assert_eq!(status(&world, browser).await, StatusCode::OK);
    }
    assert_eq!(world.app.ends()[2..], ["ended: superseded_by_login"]);
    let session = browsers[0].get(&world.app.at("/auth/session")).await.json();
    assert_eq!((&session["state"], &session["reason"]), (&"ended".into(), &"too_many_sessions".into()));
}

#[tokio::test]
async fn a_cookie_that_is_to_be_kept_is_kept_as_long_as_the_session_may_last() {
    let max_age = async |world: &World| {
        let browser = Browser::new();
        let to_provider = browser.step(&world.app.at("/auth/login")).await;
        let answer = browser.step(to_provider.location().as_str()).await;
        let landed = browser.step(answer.location().as_str()).await;
        let cookies = landed.headers.get_all(SET_COOKIE).iter().map(|cookie| cookie.to_str().unwrap());
        let session = cookies.into_iter().find(|cookie| cookie.starts_with("__Host-session-")).unwrap();
        session.split("; ").find_map(|part| part.strip_prefix("Max-Age=")).map(|age| age.parse::<u64>().unwrap())
    };
    assert_eq!(max_age(&World::new().await).await, None);
    let world = World::with(Options { policy: policy().persistent_cookie(), ..Options::default() }).await;
    let age = max_age(&world).await.unwrap();
    assert!(age <= ABSOLUTE.as_secs() && age > ABSOLUTE.as_secs() - 60, "{age}");
}

/// One trace: the call to the provider is below the signal, and that below the request that began it.
#[tokio::test]
async fn a_refresh_belongs_to_the_trace_of_its_request() {
    let world = World::signed_in().await;
    world.clock.advance(G);
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("info")
        .with_ansi(false)
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(move || writer.clone())
        .finish();
    let another = Dispatch::new(NoSubscriber::new());
    let guard = tracing::subscriber::set_default(subscriber);
    let app = Router::new()
        .route("/me", get(async |session: OidcSession| session.subject().to_string()))
        .layer(world.app.rp.layer());
    let me = world.app.at("/me");
    let request = Request::get("/me").header(COOKIE, world.browser.cookie_header(&me)).body(Body::empty()).unwrap();
    let answer = app.oneshot(request).instrument(tracing::info_span!("request")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(world.provider.requests(Endpoint::Token), 2);
    drop((guard, another));
    let text = log.text();
    let closed = |name: &str| text.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name}: {text}"));
    let call = closed(":oidc_provider_call{");
    assert!(call.contains("request:oidc_signal{session=SessionKey("), "{call}");
    for field in
        ["otel.kind=\"client\"", "http.request.method=POST", "url.path=\"/token\"", "http.response.status_code=200"]
    {
        assert!(call.contains(field), "{field}: {call}");
    }
}

#[tokio::test]
async fn an_application_is_ready_once_store_provider_and_keys_are_there() {
    let world = World::new().await;
    let app = world.another_app("probe").await;
    for (endpoint, expected) in [(Endpoint::Discovery, NotReady::Provider), (Endpoint::Jwks, NotReady::Keys)] {
        world.provider.set_fault(endpoint, Fault::Status { code: 503, retry_after: None });
        let app = world.another_app(&format!("without-{expected:?}")).await;
        assert_eq!(app.rp.check_ready().await, Err(expected));
        world.provider.clear_faults();
        world.clock.advance(SECOND * 5);
        assert_eq!(app.rp.check_ready().await, Ok(()));
    }
    assert_eq!(app.rp.check_ready().await, Ok(()));
    // What fails later is nobody's reason to go to another replica, which could not do better.
    world.provider.set_fault(Endpoint::Discovery, Fault::Status { code: 503, retry_after: None });
    world.provider.set_fault(Endpoint::Jwks, Fault::Status { code: 503, retry_after: None });
    assert_eq!(app.rp.check_ready().await, Ok(()));
}
