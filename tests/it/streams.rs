//! P11: long responses and WebSockets end with their session.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::{Method, StatusCode};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tower_oidc_session::test_provider::Endpoint;
use tower_oidc_session::{Clock, EndReason};

use crate::world::{ABSOLUTE, G, Options, SECOND, T, World, policy};

async fn open(world: &World, path: &str) -> reqwest::Response {
    let response = world.browser.send(world.browser.request(Method::GET, &world.app.at(path))).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response
}

/// Within this much real time a stream has to end.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(5), future).await.expect("it comes to its end")
}

#[tokio::test]
async fn p11_event_streams_end_with_the_session() {
    let world = World::signed_in().await;
    let mut events = open(&world, "/events").await;
    assert_eq!(events.chunk().await.unwrap().unwrap(), "data: hello\n\n");
    world.provider.end_sessions_of("alice").await;
    let last = soon(events.chunk()).await.unwrap().unwrap();
    assert_eq!(last, "event: session-ended\ndata: {\"reason\":\"back_channel_logout\"}\n\n");
    assert_eq!(soon(events.chunk()).await.unwrap(), None);
}

#[tokio::test]
async fn p11_downloads_break_off_rather_than_look_complete() {
    let world = World::signed_in().await;
    let mut download = open(&world, "/download").await;
    assert_eq!(download.chunk().await.unwrap().unwrap(), "first half");
    world.browser.post(&world.app.at("/leave")).await;
    assert!(soon(download.chunk()).await.is_err());
}

#[tokio::test]
async fn p11_streams_end_at_the_idle_deadline_and_nobody_is_called() {
    let world = World::signed_in_with(Options::silent()).await;
    let mut events = open(&world, "/events").await;
    events.chunk().await.unwrap().unwrap();
    // Other activity moves the deadline on.
    world.clock.advance(G);
    assert_eq!(world.me().await, StatusCode::OK);
    let deadline = world.clock.now() + T;
    world.clock.advance(T - SECOND);
    let requests = world.provider.requests(Endpoint::Token);
    // Time passes while the stream is read, so it shows when the stream ended.
    assert_eq!(soon(world.clock.run(events.chunk())).await.unwrap(), None);
    let end = world.clock.now();
    assert!((deadline..deadline + SECOND * 10).contains(&end), "{end:?} instead of {deadline:?}");
    assert_eq!(world.provider.requests(Endpoint::Token), requests);
    assert!(world.app.ends().is_empty(), "the session is not ended: the provider may know better");
}

#[tokio::test]
async fn p11_streams_end_at_the_absolute_lifetime() {
    let policy = policy().op_session_lifetime(ABSOLUTE * 2).access_token_lifetime(ABSOLUTE + SECOND);
    let world = World::signed_in_with(Options { policy, ..Options::default() }).await;
    let mut events = open(&world, "/events").await;
    events.chunk().await.unwrap().unwrap();
    world.clock.advance(ABSOLUTE);
    assert!(soon(events.text()).await.unwrap().contains("absolute_lifetime"));
    world.app.until_ended(EndReason::AbsoluteLifetime).await;
}

#[tokio::test]
async fn p11_web_sockets_are_cut() {
    let world = World::signed_in().await;
    let url = world.app.at("/socket").replace("http://", "ws://");
    let request = |origin: Option<&str>| {
        let mut request = url.as_str().into_client_request().unwrap();
        request.headers_mut().insert("cookie", world.browser.cookie_header(&world.app.url));
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        request
    };
    assert!(connect_async(request(Some("https://evil.example"))).await.is_err(), "another site's page");
    let (mut socket, _) = connect_async(request(Some(&world.app.url))).await.unwrap();
    for text in ["one", "two"] {
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(text));
    }
    let big = "x".repeat(200_000);
    socket.send(Message::text(big.as_str())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(big));
    world.provider.end_sessions_of("alice").await;
    let Some(Ok(Message::Close(Some(close)))) = soon(socket.next()).await else { panic!("it says why") };
    assert_eq!((u16::from(close.code), close.reason.as_str()), (4401, "back_channel_logout"));
    assert!(connect_async(request(None)).await.is_err());
}

#[tokio::test]
async fn p11_web_sockets_of_nobody_in_particular_are_left_alone() {
    let world = World::signed_in().await;
    let url = world.app.at("/public-socket").replace("http://", "ws://");
    let mut sockets = Vec::new();
    for cookies in [String::new(), world.browser.cookie_header(&world.app.url).to_str().unwrap().to_owned()] {
        let mut request = url.as_str().into_client_request().unwrap();
        request.headers_mut().insert("cookie", cookies.parse().unwrap());
        sockets.push(soon(connect_async(request)).await.unwrap().0);
    }
    for text in ["while the session lives", "after its end"] {
        for socket in &mut sockets {
            socket.send(Message::text(text)).await.unwrap();
            assert_eq!(soon(socket.next()).await.unwrap().unwrap(), Message::text(text));
        }
        world.provider.end_sessions_of("alice").await;
    }
    world.app.assert_ended(EndReason::BackChannelLogout);
}

#[tokio::test]
async fn p11_a_stream_that_begins_as_the_session_ends_is_cut_too() {
    // The end comes between admission and the first byte: no notice of it will follow.
    let world = World::signed_in().await;
    let (browser, url) = (world.browser.clone(), world.app.at("/slow"));
    let request = tokio::spawn(async move { browser.get(&url).await });
    world.app.slow.arrived().await;
    let mut events = open(&world, "/events").await;
    world.provider.end_sessions_of("alice").await;
    world.app.slow.go_on();
    request.await.unwrap();
    while soon(events.chunk()).await.unwrap().is_some() {}
}
