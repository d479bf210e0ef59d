//! What people see: pages, why a session ended, and forms that were sent too late.

use axum::response::{Html, IntoResponse};
use http::header::{ACCEPT, ACCEPT_LANGUAGE, CONTENT_TYPE};
use http::{Method, StatusCode};
use tower_oidc_session::{EndReason, PageKind, RelyingPartyBuilder};

use crate::api_server::{Answer, Api};
use crate::browser::{Browser, Page};
use crate::world::{Options, SECOND, World};

/// What a page's form sends.
fn form(browser: &Browser, url: &str, body: &str) -> reqwest::RequestBuilder {
    browser
        .request(Method::POST, url)
        .header(ACCEPT, "text/html,*/*;q=0.8")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header("sec-fetch-mode", "navigate")
        .header("sec-fetch-site", "same-origin")
        .body(body.to_owned())
}

const MULTIPART: &str = "multipart/form-data; boundary=b";

/// The same of another content type.
fn with_type(form: reqwest::RequestBuilder, content_type: &'static str) -> reqwest::RequestBuilder {
    let (client, request) = form.build_split();
    let mut request = request.unwrap();
    request.headers_mut().insert(CONTENT_TYPE, content_type.parse().unwrap());
    reqwest::RequestBuilder::from_parts(client, request)
}

/// The seal in a page that has the browser keep a form.
fn kept(page: &Page) -> Option<String> {
    let (_, rest) = page.body.split_once("id=\"kept\" value=\"")?;
    Some(rest.split_once('"').unwrap().0.to_owned())
}

fn sealed(seal: &str) -> String {
    url::form_urlencoded::Serializer::new(String::new()).append_pair("seal", seal).finish()
}

/// A world in which alice's session has ended, and the seal of what she sent to `/note` after.
async fn ended_with_note() -> (World, String) {
    let world = World::signed_in().await;
    world.provider.end_sessions_of("alice").await;
    let page = world.browser.page(form(&world.browser, &world.app.at("/note?a=b"), "note=one%20%26+two")).await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    let seal = kept(&page).expect("it is kept");
    (world, seal)
}

async fn send_again(world: &World, browser: &Browser, seal: &str) -> Page {
    browser.page(form(browser, &world.app.at("/note?a=b&oidc-session-form"), &sealed(seal))).await
}

#[tokio::test]
async fn a_form_arrives_once_after_the_login_of_its_user() {
    let (world, seal) = ended_with_note().await;
    let early = send_again(&world, &world.browser, &seal).await;
    assert_eq!(early.status, StatusCode::UNAUTHORIZED);
    assert!(kept(&early).is_some(), "it is still there to be sent");
    world.sign_in().await;
    let shown = world.browser.page(form(&world.browser, &world.app.at("/auth/form"), &sealed(&seal))).await;
    assert!(shown.body.contains("<dd>one &amp; two</dd>") && shown.body.contains("as alice"), "{}", shown.body);
    assert!(shown.body.contains("action=\"/note?a=b&amp;oidc-session-form\""), "{}", shown.body);
    let sent = send_again(&world, &world.browser, &seal).await;
    assert_eq!(sent.body, "/note?a=b application/x-www-form-urlencoded note=one%20%26+two", "byte by byte");
    assert_eq!(send_again(&world, &world.browser, &seal).await.status, StatusCode::CONFLICT, "once");
}

#[tokio::test]
async fn the_fields_of_a_form_with_files_are_kept_and_its_files_are_not() {
    let world = World::signed_in().await;
    world.provider.end_sessions_of("alice").await;
    let part = |disposition: &str, value: &str| {
        format!("--b\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{value}\r\n")
    };
    let body = [
        part("name=\"note\"", "one & two\r\nthree"),
        part("name=\"scan\"; filename=\"scan.pdf\"", &"%PDF".repeat(32 * 1024)),
        "--b--\r\n".to_owned(),
    ];
    let sent = with_type(form(&world.browser, &world.app.at("/note?a=b"), &body.concat()), MULTIPART);
    let page = world.browser.page(sent).await;
    assert!(page.body.contains("Files are not kept"), "{}", page.body);
    let seal = kept(&page).expect("it is kept");
    world.sign_in().await;
    let shown = world.browser.page(form(&world.browser, &world.app.at("/auth/form"), &sealed(&seal))).await;
    assert!(shown.body.contains("<dd>one &amp; two\r\nthree</dd>"), "{}", shown.body);
    assert!(shown.body.contains("Files are not kept") && !shown.body.contains("%PDF"), "{}", shown.body);
    let sent = send_again(&world, &world.browser, &seal).await;
    let (head, body) = sent.body.split_once("--").unwrap();
    let boundary = head.split_once("/note?a=b multipart/form-data; boundary=--").map_or("", |(_, rest)| rest);
    assert!(boundary.is_empty() && body.contains("\r\n\r\none & two\r\nthree\r\n"), "{}", sent.body);
    assert!(body.contains("name=\"scan\"; filename=\"\"") && !body.contains("PDF"), "as if none was chosen: {body}");
}

#[tokio::test]
async fn a_form_is_kept_after_another_tab_was_sent_to_the_login() {
    let world = World::signed_in().await;
    world.provider.end_sessions_of("alice").await;
    let other_tab = world.browser.step(&world.app.at("/me")).await;
    assert!(other_tab.is_removal());
    let page = world.browser.page(form(&world.browser, &world.app.at("/note"), "note=x")).await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    assert!(kept(&page).is_some(), "{}", page.body);
    world.sign_in().await;
    let notes = world.browser.cookies(&world.app.url);
    assert!(!notes.keys().any(|name| name.starts_with("__Host-ended-")), "nobody's any more: {notes:?}");
}

#[tokio::test]
async fn only_who_is_sent_to_the_login_loses_the_cookie() {
    let world = World::signed_in().await;
    world.provider.end_sessions_of("alice").await;
    let public = world.browser.step(&world.app.at("/")).await;
    assert!(public.status == StatusCode::OK && !public.is_removal(), "{public:?}");
    assert!(world.browser.step(&world.app.at("/me")).await.is_removal());
}

/// A world whose API wants gold of who posts to it, and what alice gets for a form.
async fn step_up_by_form(content_type: &'static str, body: &str) -> (World, Page) {
    let api = Api::start().await;
    let world = crate::api::world(&api, |options| options).await;
    api.answers(Answer::AskForAcr(world.provider.issuer(), "gold"));
    let page =
        world.browser.page(with_type(form(&world.browser, &world.app.at("/api/x?a=b"), body), content_type)).await;
    (world, page)
}

#[tokio::test]
async fn a_form_that_needs_a_step_up_is_kept_for_after_it() {
    let (world, page) = step_up_by_form("application/x-www-form-urlencoded", "note=one%20%26+two").await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    assert!(page.body.contains("sign in once more"), "{}", page.body);
    let seal = kept(&page).expect("it is kept");
    let (_, login) = page.body.split_once("data-href=\"").unwrap();
    let login = login.split_once('"').unwrap().0.replace("&amp;", "&");
    assert_eq!(login, "/auth/login?return_to=/auth/form&acr_values=gold&max_age=60");
    let back = world.browser.go(&world.app.at(&login)).await;
    assert_eq!(back.url.path(), "/auth/form");
    let again = form(&world.browser, &world.app.at("/api/x?a=b&oidc-session-form"), &sealed(&seal));
    let sent = world.browser.page(again).await;
    assert_eq!((sent.status, sent.body.as_str()), (StatusCode::OK, "note=one%20%26+two"));
}

#[tokio::test]
async fn a_form_that_needs_a_step_up_and_is_none_of_ours_or_too_long_is_not_kept() {
    let long = "x".repeat(64 * 1024 + 1);
    for (content_type, body) in [("application/json", "{}"), ("text/plain", long.as_str())] {
        let (_world, page) = step_up_by_form(content_type, body).await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED);
        assert!(kept(&page).is_none() && page.body.contains("not kept here"), "{}", page.body);
    }
}

#[tokio::test]
async fn a_form_is_kept_where_its_handler_finds_the_session_over() {
    let api = Api::start().await;
    let world = crate::api::world(&api, |options| options).await;
    world.provider.forget_session(&world.sid());
    api.answers(Answer::rejected());
    let page = world.browser.page(form(&world.browser, &world.app.at("/api/x"), "note=late")).await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED, "{}", page.body);
    let seal = kept(&page).expect("it is kept");
    assert!(page.body.contains("Your session has ended"), "{}", page.body);
    world.sign_in().await;
    api.answers(Answer::Fixed(StatusCode::OK, None));
    let again = form(&world.browser, &world.app.at("/api/x?oidc-session-form"), &sealed(&seal));
    assert_eq!(world.browser.page(again).await.body, "note=late");
}

#[tokio::test]
async fn people_get_pages_where_an_api_fails_and_programs_json() {
    let api = Api::start().await;
    let world = crate::api::world(&api, |options| options).await;
    let url = world.app.at("/elsewhere");
    let page = world.browser.page(world.browser.request(Method::GET, &url).header(ACCEPT, "text/html")).await;
    assert_eq!(page.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(page.body.contains("<h1>Not available</h1>"), "{}", page.body);
    assert_eq!(world.browser.get(&url).await.json()["error"], "api_call_invalid");
}

#[tokio::test]
async fn a_form_is_sent_by_nobody_else_and_nowhere_else() {
    let (world, seal) = ended_with_note().await;
    world.sign_in().await;
    // Another browser of the same user, a copy without the form's cookie, another address, another site, too late.
    let other = Browser::new();
    assert_eq!(other.go(&world.app.at("/me")).await.status, StatusCode::OK);
    assert_eq!(send_again(&world, &other, &seal).await.status, StatusCode::NOT_FOUND);
    let elsewhere = world.app.at("/remember?oidc-session-form");
    let page = world.browser.page(form(&world.browser, &elsewhere, &sealed(&seal))).await;
    assert_eq!(page.status, StatusCode::NOT_FOUND);
    let foreign = form(&world.browser, &world.app.at("/note?a=b&oidc-session-form"), &sealed(&seal));
    let (client, request) = foreign.build_split();
    let mut request = request.unwrap();
    request.headers_mut().insert("sec-fetch-site", "cross-site".parse().unwrap());
    let foreign = world.browser.page(reqwest::RequestBuilder::from_parts(client, request)).await;
    assert_eq!(foreign.status, StatusCode::FORBIDDEN);
    world.clock.advance(SECOND * 601);
    assert_eq!(send_again(&world, &world.browser, &seal).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_address_with_the_mark_and_nothing_sealed_is_an_ordinary_one() {
    let world = World::signed_in().await;
    for body in ["note=three", "seal=forged"] {
        let page = world.browser.page(form(&world.browser, &world.app.at("/note?oidc-session-form"), body)).await;
        assert_eq!(page.body, format!("/note application/x-www-form-urlencoded {body}"));
    }
}

#[tokio::test]
async fn a_form_is_kept_only_where_it_is_known_whose_it_is() {
    let world = World::signed_in().await;
    world.provider.end_sessions_of("alice").await;
    let url = world.app.at("/note");
    let with = |name: &'static str, value: &'static str| {
        let (client, request) = form(&world.browser, &url, "note=x").build_split();
        let mut request = request.unwrap();
        request.headers_mut().remove("sec-fetch-site");
        if !name.is_empty() {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        reqwest::RequestBuilder::from_parts(client, request)
    };
    let is_kept = async |request| {
        let page = world.browser.page(request).await;
        (page.status, kept(&page).is_some())
    };
    let unauthorized = StatusCode::UNAUTHORIZED;
    assert_eq!(is_kept(with("", "")).await, (unauthorized, false), "neither header");
    assert_eq!(is_kept(with("sec-fetch-site", "none")).await, (unauthorized, false));
    assert_eq!(is_kept(with("origin", "https://evil.example")).await, (StatusCode::FORBIDDEN, false));
    assert_eq!(is_kept(with("sec-fetch-site", "same-origin")).await, (unauthorized, true));
    let large = format!("note={}", "x".repeat(64 * 1024));
    assert_eq!(is_kept(form(&world.browser, &url, &large)).await, (unauthorized, false), "too large");
    let broken = with_type(form(&world.browser, &url, "--b\r\nx"), MULTIPART);
    assert_eq!(is_kept(broken).await, (unauthorized, false), "no form at all");
    assert_eq!(
        is_kept(form(&Browser::new(), &url, "note=x")).await,
        (unauthorized, true),
        "the browser has the cookie"
    );
    world.clock.advance(SECOND * 601);
    let stranger = Browser::new();
    let page = stranger.page(form(&stranger, &url, "note=x")).await;
    assert_eq!((page.status, kept(&page)), (unauthorized, None), "nobody's");
}

#[tokio::test]
async fn a_request_for_another_user_is_refused() {
    let world = World::signed_in().await;
    for (sub, expected) in [("alice", StatusCode::OK), ("bob", StatusCode::CONFLICT), ("%61lice", StatusCode::OK)] {
        let request = world.browser.request(Method::GET, &world.app.at("/me")).header("oidc-session-sub", sub);
        let page = world.browser.page(request).await;
        assert_eq!(page.status, expected, "{sub}");
        if expected == StatusCode::CONFLICT {
            assert_eq!(page.json()["error"], "other_user");
            assert!(page.headers["www-authenticate"].to_str().unwrap().starts_with("OidcSession "));
        }
    }
}

#[tokio::test]
async fn pages_speak_the_browsers_language_and_have_the_applications_look() {
    let make = |page: tower_oidc_session::Page| {
        let is_known = page.kind() == PageKind::NotFound;
        Html(format!("{is_known} {} {} {}", page.language(), page.title(), page.main())).into_response()
    };
    let options = Options { configure: Box::new(move |builder| builder.pages(make)), ..Options::default() };
    let world = World::with(options).await;
    let request = world.browser.request(Method::GET, &world.app.at("/auth/nothing"));
    let page = world.browser.page(request.header(ACCEPT, "text/html").header(ACCEPT_LANGUAGE, "fi, de;q=0.8")).await;
    assert_eq!(page.status, StatusCode::NOT_FOUND);
    assert!(page.body.starts_with("true de Seite nicht gefunden <h1>Seite nicht gefunden</h1>"), "{}", page.body);
    assert_eq!(page.headers["content-security-policy"], "frame-ancestors 'none'", "of any page");
    assert_eq!(page.headers["cache-control"], "no-store");
    let script = world.browser.get(&world.app.at("/auth/nothing")).await;
    assert_eq!((script.status, &script.json()["error"]), (StatusCode::NOT_FOUND, &"not_found".into()));
    let script = world.browser.get(&world.app.at("/auth/logout")).await;
    assert_eq!((script.status, script.headers["allow"].to_str().unwrap()), (StatusCode::METHOD_NOT_ALLOWED, "POST"));
}

#[tokio::test]
async fn people_are_told_why_before_the_login_and_after() {
    let options = Options { configure: Box::new(RelyingPartyBuilder::explain_ends), ..Options::default() };
    let world = World::signed_in_with(options).await;
    world.provider.end_sessions_of("alice").await;
    let told = world.browser.step(&world.app.at("/me")).await;
    assert_eq!(told.status, StatusCode::UNAUTHORIZED);
    assert!(told.body.contains("Your session has ended.") && told.body.contains("/auth/login?return_to=/me"));
    assert_eq!(world.browser.step(&world.app.at("/me")).await.status, StatusCode::SEE_OTHER, "once");
}

#[tokio::test]
async fn the_next_session_of_a_user_knows_how_the_one_before_ended() {
    let world = World::signed_in().await;
    world.provider.end_sessions_of("alice").await;
    world.sign_in().await;
    assert_eq!(world.browser.get(&world.app.at("/previous-end")).await.body, EndReason::BackChannelLogout.as_str());
    world.browser.post(&world.app.at("/auth/logout")).await;
    world.sign_in().await;
    assert_eq!(world.browser.get(&world.app.at("/previous-end")).await.body, "", "a sign-out of one's own");
}

#[tokio::test]
async fn the_script_is_small_and_kept_by_browsers() {
    let world = World::new().await;
    let script = world.browser.get(&world.app.at("/auth/session.js")).await;
    assert_eq!((script.status, script.headers["cache-control"].to_str().unwrap()), (StatusCode::OK, "no-cache"));
    assert!(script.headers["content-type"].to_str().unwrap().starts_with("text/javascript"));
    let etag = script.headers["etag"].clone();
    let again = world.browser.request(Method::GET, &world.app.at("/auth/session.js")).header("if-none-match", &etag);
    assert_eq!(world.browser.page(again).await.status, StatusCode::NOT_MODIFIED);
    let hash = etag.to_str().unwrap().trim_matches('"').to_owned();
    let lasting = world.browser.get(&world.app.at(&format!("/auth/session/{hash}.js"))).await;
    assert!(lasting.headers["cache-control"].to_str().unwrap().contains("immutable"));
    assert_eq!(lasting.body, script.body);
    let other = world.browser.get(&world.app.at("/auth/session/0000000000000000.js")).await;
    assert_eq!((other.body, other.headers["cache-control"].to_str().unwrap()), (script.body, "no-cache"));
}
