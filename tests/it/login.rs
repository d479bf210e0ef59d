//! Logging in, and what can be wrong with it.

use http::header::{ACCEPT, COOKIE, SET_COOKIE};
use http::{HeaderValue, Method, StatusCode};
use serde_json::json;
use tower_oidc_session::test_provider::{Endpoint, Fault, GateAt, IssuerInResponse, SignIn};
use tower_oidc_session::{ClaimsFrom, EndReason, RelyingPartyBuilder};
use url::Url;

use crate::browser::{Browser, Page};
use crate::secrets::collect_log;
use crate::until::until;
use crate::world::{Options, SECOND, T, World};

#[tokio::test]
async fn a_navigation_ends_where_it_wanted_to_go() {
    let world = World::new().await;
    let page = world.browser.go(&world.app.at("/me?a=1&b=2")).await;
    assert_eq!(page.status, StatusCode::OK);
    assert_eq!(page.url.as_str(), world.app.at("/me?a=1&b=2"));
    let me = page.json();
    assert_eq!(me["sub"], "alice");
    assert_eq!(me["iss"], world.provider.issuer());
    assert_eq!(me["sid"], world.sid());
    assert_eq!(world.app.events(), ["started"]);
    assert_eq!(world.browser.get(&world.app.at("/")).await.body, "hello alice");
}

#[tokio::test]
async fn only_navigations_are_sent_to_the_provider() {
    let world = World::new().await;
    let page = world.browser.get(&world.app.at("/me")).await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    assert_eq!(page.json()["error"], "not_authenticated");
    let page = world.browser.step(&world.app.at("/me")).await;
    assert_eq!(page.location().as_str(), world.app.at("/auth/login?return_to=/me"));
    assert_eq!(world.browser.get(&world.app.at("/")).await.body, "hello stranger");
    assert_eq!(world.provider.requests(Endpoint::Authorize), 0);
}

#[tokio::test]
async fn the_authorization_request_has_all_it_needs() {
    let world = World::new().await;
    let page = world.browser.step(&world.app.at("/auth/login")).await;
    let url = page.location();
    let query: std::collections::HashMap<_, _> = url.query_pairs().into_owned().collect();
    assert_eq!(query["response_type"], "code");
    assert_eq!(query["client_id"], "shop");
    assert_eq!(query["redirect_uri"], world.app.at("/auth/callback"));
    assert_eq!(query["scope"], "openid profile");
    assert_eq!(query["code_challenge_method"], "S256");
    assert_eq!(query["code_challenge"].len(), 43);
    assert_eq!(query["state"].len(), 43);
    assert_eq!(query["nonce"].len(), 43);
    let cookie = page.headers[SET_COOKIE].to_str().unwrap();
    assert!(cookie.starts_with("__Host-login-"), "{cookie}");
    for secret in [&query["state"], &query["nonce"]] {
        assert!(!cookie.contains(&secret[12..]), "{cookie}");
    }
}

#[tokio::test]
async fn consent_is_asked_for_at_each_login_where_the_application_says_so() {
    let prompts_of = async |world: &World, link: &str| {
        let url = world.browser.step(&world.app.at(&format!("/auth/login{link}"))).await.location();
        let prompts = url.query_pairs().filter(|(name, _)| name == "prompt").map(|(_, value)| value.into_owned());
        prompts.collect::<Vec<_>>()
    };
    let unasked = World::new().await;
    assert_eq!(prompts_of(&unasked, "?prompt=login").await, ["login"], "and nowhere else");
    let configure = |builder: RelyingPartyBuilder| builder.authorization_parameter("prompt", "consent");
    let world = World::with(Options { configure: Box::new(configure), ..Options::default() }).await;
    for (link, expected) in [
        ("", "consent"),
        ("?prompt=consent", "consent"),
        ("?prompt=login", "login consent"),
        ("?prompt=select_account&max_age=60", "select_account consent"),
        ("?acr_values=gold", "consent"),
        ("?prompt=none", "none"),
    ] {
        assert_eq!(prompts_of(&world, link).await, [expected], "{link}");
    }
}

/// Takes a login to the point where the browser is about to bring the provider's answer.
async fn answer(world: &World, browser: &Browser) -> Url {
    let page = browser.step(&world.app.at("/auth/login?return_to=/me")).await;
    browser.step(page.location().as_str()).await.location()
}

#[track_caller]
fn assert_refused(page: &Page, status: StatusCode) {
    assert_eq!(page.status, status, "{page:?}");
    assert!(page.headers["content-type"].to_str().unwrap().starts_with("text/html"));
    assert_eq!(page.headers["cache-control"], "no-store");
    assert!(!page.headers.get_all(SET_COOKIE).iter().any(|c| c.to_str().unwrap().starts_with("__Host-session")));
}

#[tokio::test]
async fn p12_an_attempt_is_redeemed_once_however_often_it_is_brought() {
    let world = World::new().await;
    let url = answer(&world, &world.browser).await;
    let (loads_ahead, late) = (world.browser.copy(), world.browser.copy());
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Response);
    let load = |browser: &Browser, url: &str| {
        let (browser, url) = (browser.clone(), url.to_owned());
        tokio::spawn(async move { browser.step(&url).await })
    };
    let first = load(&world.browser, url.as_str());
    gate.arrived().await;
    let second = load(&loads_ahead, url.as_str());
    // The attempt's own cookie, and codes that somebody made up.
    let mut junk = url.clone();
    junk.query_pairs_mut().clear().extend_pairs(
        url.query_pairs().map(|(name, value)| if name == "code" { (name, "junk".into()) } else { (name, value) }),
    );
    let many: Vec<_> = (0..50).map(|_| load(&late.copy(), junk.as_str())).collect();
    // Without it: nothing of the answer is used.
    let stranger = Browser::new().step(url.as_str()).await;
    assert_eq!((stranger.status, stranger.location().path()), (StatusCode::SEE_OTHER, "/authorize"));
    gate.open();
    for page in [first.await.unwrap(), second.await.unwrap()] {
        assert_eq!((page.status, page.location().as_str()), (StatusCode::SEE_OTHER, world.app.at("/me").as_str()));
    }
    for page in many {
        assert_eq!(page.await.unwrap().status, StatusCode::SEE_OTHER);
    }
    assert_eq!(world.provider.requests(Endpoint::Token), 1);
    assert!(world.app.registry.has(1));
    let id = world.browser.session_cookie(&world.app.url);
    assert_eq!(loads_ahead.session_cookie(&world.app.url), id, "both loads get the one outcome");
    // The browser loads it again: with its session, and with what it had before its answer came.
    let back = world.browser.step(url.as_str()).await;
    assert_eq!((back.status, back.location().as_str()), (StatusCode::SEE_OTHER, world.app.at("/").as_str()));
    assert_eq!(late.step(url.as_str()).await.location().as_str(), world.app.at("/me"));
    assert_eq!(late.session_cookie(&world.app.url), id, "which is the session that there is");
    assert_eq!((world.me().await, world.app.events()), (StatusCode::OK, vec!["started".to_owned()]));
    // Much later it is spent all the same.
    world.clock.advance(SECOND * 60);
    let page = loads_ahead.copy().step(url.as_str()).await;
    assert_eq!(page.location().as_str(), world.app.at("/"), "the attempt's cookie is gone");
    assert_eq!(world.provider.requests(Endpoint::Token), 1);
}

#[tokio::test]
async fn p12_a_replica_that_comes_second_sends_no_code() {
    let world = World::new().await;
    let replica = world.replica(world.app.registry.clone()).await;
    let url = answer(&world, &world.browser).await;
    let other = world.browser.copy();
    world.browser.step(url.as_str()).await;
    let mut there = Url::parse(&replica.at("/auth/callback")).unwrap();
    there.set_query(url.query());
    let cookies = other.cookie_header(&world.app.url);
    let request = Browser::new().request(Method::GET, there.as_str()).header("cookie", cookies);
    let answer = request.send().await.unwrap();
    assert_eq!(
        (answer.status(), &answer.headers()["location"]),
        (StatusCode::SEE_OTHER, &HeaderValue::from_static("/me"))
    );
    assert_eq!(world.provider.requests(Endpoint::Token), 1);
    assert_eq!(world.me().await, StatusCode::OK);
}

#[tokio::test]
async fn p15_an_answer_to_no_attempt_of_this_browser_leads_to_one_more() {
    let world = World::new().await;
    let url = answer(&world, &world.browser).await;
    let other = Browser::new();
    let page = other.step(url.as_str()).await;
    assert_eq!((page.status, page.location().path()), (StatusCode::SEE_OTHER, "/authorize"));
    assert_eq!(world.provider.requests(Endpoint::Token), 0, "its code is not sent");
    assert_eq!(other.session_cookie(&world.app.url), None);
    let back = other.step(page.location().as_str()).await.location();
    // A browser that keeps no cookies is not sent round in circles.
    let again = Browser::new().step(back.as_str()).await;
    assert_refused(&again, StatusCode::BAD_REQUEST);
    assert!(again.body.contains("href=\"/auth/login\""), "{again:?}");
    // One that does arrives.
    assert_eq!(other.go(back.as_str()).await.url.path(), "/");
    assert_eq!(other.get(&world.app.at("/me")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn p15_restored_tabs_all_arrive() {
    let world = World::new().await;
    let mut answers = Vec::new();
    for _ in 0..8 {
        answers.push(answer(&world, &world.browser).await);
    }
    for url in &answers {
        let page = world.browser.go(url.as_str()).await;
        assert_eq!(page.status, StatusCode::OK, "{page:?}");
    }
    // Reloaded, each of them.
    for url in &answers {
        let page = world.browser.go(url.as_str()).await;
        assert_eq!((page.status, page.url.path()), (StatusCode::OK, "/"), "{page:?}");
    }
    assert_eq!(world.me().await, StatusCode::OK);
}

#[tokio::test]
async fn p15_a_login_that_takes_too_long_is_begun_anew() {
    let world = World::new().await;
    let url = answer(&world, &world.browser).await;
    world.clock.advance(SECOND * 600);
    let page = world.browser.step(url.as_str()).await;
    assert_eq!((page.status, page.location().path()), (StatusCode::SEE_OTHER, "/authorize"));
    assert_eq!(world.provider.requests(Endpoint::Token), 0, "its code is not sent");
    assert_eq!(world.browser.go(page.location().as_str()).await.status, StatusCode::OK);
    assert_eq!(world.me().await, StatusCode::OK);
}

#[tokio::test]
async fn damaged_answers_are_refused_and_nothing_is_echoed() {
    for (name, value) in [
        ("state", None),
        ("code", None),
        ("iss", Some("https://evil.example")),
        ("iss", None),
        ("error", Some("<script>alert(1)</script>")),
    ] {
        let world = World::new().await;
        let mut url = answer(&world, &world.browser).await;
        let pairs: Vec<_> = url.query_pairs().into_owned().filter(|(n, _)| n != name).collect();
        url.query_pairs_mut().clear().extend_pairs(pairs);
        if let Some(value) = value {
            url.query_pairs_mut().append_pair(name, value);
        }
        let page = world.browser.step(url.as_str()).await;
        assert_refused(&page, StatusCode::BAD_REQUEST);
        assert!(!page.body.contains("script>alert") && !page.body.contains("evil"), "{page:?}");
        assert_eq!(world.provider.requests(Endpoint::Token), 0, "{name} {value:?}");
    }
}

#[tokio::test]
async fn duplicate_parameters_are_refused() {
    let world = World::new().await;
    for name in ["state", "code", "iss"] {
        let mut url = answer(&world, &world.browser).await;
        let (_, value) = url.query_pairs().into_owned().find(|(n, _)| n == name).unwrap();
        url.query_pairs_mut().append_pair(name, &value);
        assert_refused(&world.browser.step(url.as_str()).await, StatusCode::BAD_REQUEST);
    }
    assert_eq!(world.provider.requests(Endpoint::Token), 0);
}

#[tokio::test]
async fn a_provider_without_iss_in_its_answers_is_fine() {
    let mut options = Options::default();
    options.provider = options.provider.issuer_in_response(IssuerInResponse::Absent);
    World::signed_in_with(options).await;
}

#[tokio::test]
async fn two_tabs_can_log_in_at_once() {
    let world = World::new().await;
    let first = answer(&world, &world.browser).await;
    let second = answer(&world, &world.browser).await;
    assert_eq!(world.browser.step(second.as_str()).await.status, StatusCode::SEE_OTHER);
    assert_eq!(world.browser.step(first.as_str()).await.status, StatusCode::SEE_OTHER);
    assert_eq!(world.me().await, StatusCode::OK);
    // The later one replaced the earlier one's session.
    assert!(world.app.registry.has(1));
    assert_eq!(world.app.ends(), [format!("ended: {}", EndReason::SupersededByLogin)]);
}

#[tokio::test]
async fn attempts_do_not_pile_up() {
    let world = World::new().await;
    for length in (0..30).map(|number| number * 50) {
        let page =
            world.browser.step(&world.app.at(&format!("/auth/login?return_to=/me?{}", "x".repeat(length)))).await;
        assert_eq!(page.status, StatusCode::SEE_OTHER);
        let cookies = world.browser.cookies(&world.app.url).into_iter();
        let sizes: Vec<_> =
            cookies.filter(|(n, _)| n.starts_with("__Host-login-")).map(|(n, v)| n.len() + v.len()).collect();
        assert!((1..=20).contains(&sizes.len()) && sizes.iter().sum::<usize>() <= 4000, "{sizes:?}");
    }
}

#[tokio::test]
async fn p15_a_deep_link_that_is_too_long_leads_to_the_front_page() {
    let world = World::new().await;
    let page = world.browser.go(&world.app.at(&format!("/me?q={}", "x".repeat(2900)))).await;
    assert_eq!((page.status, page.url.path()), (StatusCode::OK, "/"));
    assert_eq!(world.me().await, StatusCode::OK);
}

#[tokio::test]
async fn p15_a_link_of_another_site_to_the_login_leads_a_signed_in_user_on() {
    let world = World::signed_in().await;
    let follow_by = async |browser: &Browser, query: &str, site: &str| {
        let url = world.app.at(&format!("/auth/login?return_to=/me{query}"));
        let request = browser.request(Method::GET, &url).header(ACCEPT, "text/html");
        browser.page(request.header("sec-fetch-site", site)).await.location()
    };
    // What is noted for the time that redirects take is over by the next one.
    let follow = async |query: &str, site: &str| follow_by(&world.browser.copy(), query, site).await;
    assert_eq!(follow("", "cross-site").await.path(), "/me");
    assert_eq!(world.provider.requests(Endpoint::Token), 2, "the provider was asked now");
    for _ in 0..5 {
        assert_eq!(follow("", "cross-site").await.path(), "/me");
    }
    assert_eq!(world.provider.requests(Endpoint::Token), 2, "and not by each link");
    for (query, site) in [
        ("", "same-origin"),
        ("", "none"),
        ("&acr_values=gold", "cross-site"),
        ("&max_age=60", "cross-site"),
        ("&prompt=none", "cross-site"),
        ("&login_hint=bob", "cross-site"),
    ] {
        assert_eq!(follow(query, site).await.path(), "/authorize", "{query} {site}");
    }
    // A page that sends the browser back to the login means it.
    let sent_back = world.browser.copy();
    assert_eq!(follow_by(&sent_back, "", "cross-site").await.path(), "/me");
    assert_eq!(follow_by(&sent_back, "", "cross-site").await.path(), "/authorize");
    // Over at the provider: no link leads past it.
    world.clock.advance(SECOND * 6);
    world.provider.forget_session(&world.sid());
    assert_eq!(follow("", "cross-site").await.path(), "/authorize");
    world.app.assert_ended(EndReason::RefreshTokenRejected);
}

#[tokio::test]
async fn p15_the_login_after_an_end_knows_why_it_ended_and_whose_it_was() {
    for (user, is_same_user) in [("alice", "is_same_user=true"), ("bob", "is_same_user=false")] {
        let (log, _guard) = collect_log("info");
        let world = World::signed_in().await;
        world.provider.end_sessions_of("alice").await;
        world.provider.set_sign_in(SignIn::Automatic(user.to_owned()));
        assert_eq!(world.me().await, StatusCode::UNAUTHORIZED);
        assert!(world.browser.session_cookie(&world.app.url).is_some(), "a script's answer leaves it");
        let page = world.browser.step(&world.app.at("/me")).await;
        assert!(page.is_removal());
        let has_note = || world.browser.cookies(&world.app.url).keys().any(|name| name.starts_with("__Host-ended-"));
        assert!(has_note());
        let page = world.browser.go(page.location().as_str()).await;
        assert_eq!(page.json()["sub"], user);
        assert!(!has_note(), "it is in the attempt");
        let text = log.text();
        let line = text.lines().find(|line| line.contains("it follows one that ended")).expect("it is told");
        assert!(line.contains("after=back_channel_logout") && line.contains(is_same_user), "{line}");
    }
}

#[tokio::test]
async fn p15_a_prefetch_of_the_login_begins_nothing() {
    let world = World::new().await;
    let request = world.browser.request(Method::GET, &world.app.at("/auth/login")).header(ACCEPT, "text/html");
    let page = world.browser.page(request.header("sec-purpose", "prefetch")).await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!page.headers.contains_key(SET_COOKIE));
}

#[tokio::test]
async fn p15_a_session_that_cannot_ask_is_not_taken_for_good_by_a_link() {
    let policy = crate::world::policy().discard_tokens();
    let world = World::signed_in_with(Options { policy, ..Options::default() }).await;
    let request =
        world.browser.request(Method::GET, &world.app.at("/auth/login?return_to=/me")).header(ACCEPT, "text/html");
    let page = world.browser.page(request.header("sec-fetch-site", "cross-site")).await;
    assert_eq!(page.location().path(), "/authorize");
}

#[tokio::test]
async fn each_login_has_a_session_id_of_its_own() {
    let world = World::new().await;
    world.sign_in().await;
    let first = world.browser.session_cookie(&world.app.url).unwrap();
    let old = world.browser.copy();
    let page = world.browser.go(&world.app.at("/auth/login?return_to=/me")).await;
    assert_eq!(page.status, StatusCode::OK);
    assert_ne!(world.browser.session_cookie(&world.app.url).unwrap(), first);
    assert_eq!(old.get(&world.app.at("/me")).await.status, StatusCode::UNAUTHORIZED);
    // The provider's grant lives on: the new login may stand on it.
    assert_eq!(world.provider.requests(Endpoint::Revocation), 0);
}

#[tokio::test]
async fn return_to_never_leaves_the_application() {
    let world = World::new().await;
    for evil in
        ["https://evil.example", "//evil.example", "/\\evil.example", "/%09/evil.example", "me", "/a&return_to=/b"]
    {
        let page = world.browser.step(&world.app.at(&format!("/auth/login?return_to={evil}"))).await;
        assert_refused(&page, StatusCode::BAD_REQUEST);
    }
}

#[tokio::test]
async fn an_unreachable_provider_is_503_and_nonsense_is_502() {
    let refused =
        |status| Fault::Body { status, content_type: "application/json", body: r#"{"error":"invalid_grant"}"#.into() };
    let html = || Fault::Body { status: 200, content_type: "text/html", body: "<html>".into() };
    for (endpoint, fault, status) in [
        (Endpoint::Token, Fault::Status { code: 503, retry_after: Some(SECOND * 7) }, StatusCode::SERVICE_UNAVAILABLE),
        (Endpoint::Token, Fault::Status { code: 503, retry_after: None }, StatusCode::SERVICE_UNAVAILABLE),
        (Endpoint::Token, Fault::Status { code: 404, retry_after: None }, StatusCode::BAD_GATEWAY),
        (Endpoint::Token, Fault::Refuse, StatusCode::SERVICE_UNAVAILABLE),
        (Endpoint::Token, Fault::Truncate, StatusCode::SERVICE_UNAVAILABLE),
        (Endpoint::Token, html(), StatusCode::BAD_GATEWAY),
        (Endpoint::Token, refused(400), StatusCode::BAD_REQUEST),
        (Endpoint::Jwks, Fault::Refuse, StatusCode::SERVICE_UNAVAILABLE),
        (Endpoint::Jwks, html(), StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let world = World::new().await;
        let url = answer(&world, &world.browser).await;
        world.provider.set_fault(endpoint, fault.clone());
        let page = world.browser.step(url.as_str()).await;
        assert_refused(&page, status);
        assert_eq!(page.headers.contains_key("retry-after"), status == StatusCode::SERVICE_UNAVAILABLE);
        assert!(world.app.registry.has(0));
        // The attempt is spent; the next one works.
        world.provider.clear_faults();
        world.clock.advance(SECOND);
        world.sign_in().await;
    }
}

#[tokio::test]
async fn userinfo_claims_are_added_and_those_of_another_user_fail_the_login() {
    let options = || Options { configure: Box::new(|b| b.claims_from(ClaimsFrom::UserInfo)), ..Options::default() };
    let world = World::with(options()).await;
    assert_eq!(world.sign_in().await.json()["claims"]["email"], "alice@example.test");

    let world = World::with(options()).await;
    world.provider.tamper_user_info(|claims| claims["sub"] = "mallory".into());
    let page = world.browser.go(&world.app.at("/me")).await;
    assert_refused(&page, StatusCode::BAD_GATEWAY);
    assert!(world.app.registry.has(0));
}

#[tokio::test]
async fn userinfo_cannot_say_what_is_the_id_tokens_to_say() {
    const THE_TOKENS: [&str; 14] = [
        "acr",
        "amr",
        "at_hash",
        "aud",
        "auth_time",
        "azp",
        "events",
        "exp",
        "iat",
        "iss",
        "jti",
        "nbf",
        "nonce",
        "sid",
    ];
    let options = Options { configure: Box::new(|b| b.claims_from(ClaimsFrom::UserInfo)), ..Options::default() };
    let world = World::with(options).await;
    world.provider.tamper_user_info(|claims| {
        for name in THE_TOKENS {
            claims[name] = "forged".into();
        }
        claims["groups"] = json!(["staff"]);
    });
    let claims = world.sign_in().await.json()["claims"].clone();
    for name in THE_TOKENS {
        assert_ne!(claims[name], "forged", "{name}");
    }
    assert_eq!((&claims["iss"], &claims["sid"]), (&json!(world.provider.issuer()), &json!(world.sid())));
    assert_eq!(claims["groups"], json!(["staff"]));
}

#[tokio::test]
async fn cookies_that_cannot_be_read_are_the_others_only() {
    for other in ["ort=Köln".as_bytes(), b"ort=K\xf6ln", b"\xff", b"\xff=\xfe", b"=", b"ort=\"a b\"\tc"] {
        let world = World::signed_in().await;
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let status = async |url: &str| {
            let ours = world.browser.cookie_header(&world.app.url);
            let cookies = [other, b"; ", ours.as_bytes(), b";", other].concat();
            let request = http.get(url).header(COOKIE, HeaderValue::from_bytes(&cookies).unwrap());
            request.send().await.unwrap().status()
        };
        let case = String::from_utf8_lossy(other);
        assert_eq!(status(&world.app.at("/me")).await, StatusCode::OK, "{case}");
        let back = answer(&world, &world.browser).await;
        assert_eq!(status(back.as_str()).await, StatusCode::SEE_OTHER, "a login with {case}");
    }
}

#[tokio::test]
async fn p9_answers_of_a_login_tell_nobody_their_address() {
    let world = World::new().await;
    let begun = world.browser.step(&world.app.at("/auth/login?return_to=/me")).await;
    let back = world.browser.step(begun.location().as_str()).await.location();
    let path = |path: &str| world.app.at(path);
    for (url, expected) in [
        (path("/auth/login"), StatusCode::SEE_OTHER),
        (path("/auth/login?return_to=//evil.example"), StatusCode::BAD_REQUEST),
        (path("/auth/callback?code=c&state=s"), StatusCode::SEE_OTHER),
        (path("/auth/callback?code=c"), StatusCode::BAD_REQUEST),
        (back.into(), StatusCode::SEE_OTHER),
    ] {
        let page = world.browser.step(&url).await;
        let policy = page.headers.get("referrer-policy").map(HeaderValue::as_bytes);
        assert_eq!((page.status, policy), (expected, Some(&b"no-referrer"[..])), "{url}");
    }
}

#[tokio::test]
async fn discovery_documents_with_odd_members_serve() {
    let world = World::new().await;
    world.provider.tamper_metadata(|metadata| {
        metadata["backchannel_logout_supported"] = "true".into();
        metadata["code_challenge_methods_supported"] = "S256".into();
        metadata["token_endpoint_auth_methods_supported"] = json!({});
        metadata["userinfo_endpoint"] = "".into();
        metadata["revocation_endpoint"] = 7.into();
    });
    let app = world.another_app("odd").await;
    assert_eq!(Browser::new().go(&app.at("/me")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_page_of_the_provider_signs_in() {
    let mut options = Options::default();
    options.provider = options.provider.sign_in(SignIn::Page);
    let world = World::with(options).await;
    let page = world.browser.go(&world.app.at("/me")).await;
    assert!(page.body.contains("<b>shop</b>"), "{page:?}");
    let form = world.browser.request(Method::POST, page.url.as_str()).header(ACCEPT, "text/html");
    let wrong = form.try_clone().unwrap().body("user=bob&password=x");
    assert!(world.browser.page(wrong).await.body.contains("do not fit"));
    let page = world.browser.page(form.body("user=bob&password=bob")).await;
    let page = world.browser.go(page.location().as_str()).await;
    assert_eq!(page.json()["sub"], "bob");
}

#[tokio::test]
async fn p3_a_login_is_finished_though_the_browser_went_away() {
    let world = World::new().await;
    let url = answer(&world, &world.browser).await;
    let mut gate = world.provider.gate(Endpoint::Token, GateAt::Response);
    let browser = world.browser.clone();
    let request = tokio::spawn(async move { browser.step(url.as_str()).await });
    gate.arrived().await;
    request.abort();
    gate.open();
    until(|| !world.app.events().is_empty()).await;
    assert_eq!(world.app.events(), ["started"]);
}

#[tokio::test]
async fn p15_who_comes_by_another_name_of_this_machine_arrives() {
    let world = World::new().await;
    let by_name = world.app.at("/me?x=1").replace("127.0.0.1", "localhost");
    let page = world.browser.go(&by_name).await;
    assert_eq!((page.status, page.url.as_str()), (StatusCode::OK, world.app.at("/me?x=1").as_str()));
}

#[tokio::test]
async fn lifetimes_of_tokens_that_do_not_fit_the_policy_are_warned_of_once() {
    let outlives = "access tokens live as long as its sessions";
    let too_short = "takes refresh tokens for less time";
    for (expires_in, refresh_expires_in, expected) in
        [(T - SECOND, T, [0, 0]), (T, T, [1, 0]), (T - SECOND, T - SECOND, [0, 1])]
    {
        let (log, _guard) = collect_log("warn");
        let policy = crate::world::policy().refresh_token_lifetime(T);
        let world = World::with(Options { policy, ..Options::default() }).await;
        world.provider.tamper_token_response(move |json| {
            json["expires_in"] = expires_in.as_secs().into();
            json["refresh_expires_in"] = refresh_expires_in.as_secs().into();
        });
        for _ in 0..3 {
            assert_eq!(Browser::new().go(&world.app.at("/me")).await.status, StatusCode::OK);
        }
        let counts = [outlives, too_short].map(|warning| log.text().matches(warning).count());
        assert_eq!(counts, expected, "{expires_in:?} {refresh_expires_in:?} {}", log.text());
    }
}
