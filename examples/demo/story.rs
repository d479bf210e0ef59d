//! The story, told without a browser: every step is checked.

use std::collections::HashMap;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE};
use http::{Method, StatusCode};
use tokio::time::{Instant, sleep};
use tower_oidc_session::EndReason;
use tower_oidc_session::test_provider::ExpiredSessions;
use url::Url;

use crate::apps::{App, Demo, Happening};

/// Plays the story; an error is the step that did not hold.
pub(crate) async fn tell(lifetime: Duration, interval: Duration) -> Result<(), String> {
    let demo = Demo::start(lifetime, interval).await?;
    let start = Instant::now();
    let say = |text: &str| println!("{:5.1} s  {text}", start.elapsed().as_secs_f64());
    say(&format!("the provider ends sessions after {lifetime:?} idle; applications signal every {interval:?}"));
    for (notice, expected) in [
        (ExpiredSessions::TriggerBackchannelLogout, EndReason::BackChannelLogout),
        (ExpiredSessions::StaySilent, EndReason::RefreshTokenRejected),
    ] {
        demo.provider.set_expired_sessions(notice);
        say(match notice {
            ExpiredSessions::TriggerBackchannelLogout => "-- expired sessions trigger back-channel logout",
            ExpiredSessions::StaySilent => "-- now with back-channel logout off",
        });
        play(&demo, lifetime, interval, expected, &say).await?;
    }
    say("every step held");
    Ok(())
}

async fn play(
    demo: &Demo,
    lifetime: Duration,
    interval: Duration,
    expected: EndReason,
    say: &impl Fn(&str),
) -> Result<(), String> {
    let mut browser = Browser::default();
    let [active, idle] = demo.apps.as_slice() else { return Err("two applications run".to_owned()) };
    for app in [active, idle] {
        check(browser.sign_in(app).await? == StatusCode::OK, "the sign-in works")?;
        say(&format!("{}: signed in", app.name));
    }
    check(demo.provider.sessions().len() == 1, "both share one session at the provider")?;
    check(browser.get(active, "/api/hello").await? == StatusCode::OK, "the API accepts the session's token")?;
    say(&format!("{}: the API accepts the session's token", active.name));

    let begin = Instant::now();
    let signals = signals(active);
    while begin.elapsed() < lifetime * 3 {
        check(browser.get(active, "/me").await? == StatusCode::OK, "the active application serves its user")?;
        sleep(interval / 4).await;
    }
    let sent = self::signals(active) - signals;
    say(&format!("{}: active for three times T, {sent} signals sent; {} was left alone", active.name, idle.name));
    check(demo.provider.sessions().len() == 1, "the provider's session is alive")?;
    check(browser.get(idle, "/me").await? == StatusCode::OK, "the other application is alive too")?;
    say(&format!("{}: alive too", idle.name));

    say("from now on only background polling");
    let quiet = Instant::now();
    let before = self::signals(active) + self::signals(idle);
    while !demo.provider.sessions().is_empty() {
        check(quiet.elapsed() < lifetime * 2, "polling does not keep the provider's session alive")?;
        for app in [active, idle] {
            browser.get(app, "/poll").await?;
        }
        sleep(interval / 4).await;
    }
    check(self::signals(active) + self::signals(idle) == before, "polling signals nothing")?;
    say(&format!("the provider's session ran out {:.1} s after the last click", quiet.elapsed().as_secs_f64()));

    for app in [active, idle] {
        if expected == EndReason::BackChannelLogout {
            wait_for_end(app, lifetime).await?;
        } else {
            check(ending(app).is_none(), "nobody told the application")?;
        }
        let status = browser.get(app, "/me").await?;
        check(status == StatusCode::UNAUTHORIZED, "the next click is refused")?;
        check(ending(app) == Some(expected), &format!("{} ended with {expected:?}", app.name))?;
        say(&format!("{}: ended, {expected:?}", app.name));
    }
    Ok(())
}

fn check(holds: bool, step: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("this did not hold: {step}")) }
}

fn signals(app: &App) -> usize {
    app.happenings().iter().filter(|(_, happening)| *happening == Happening::Signalled).count()
}

/// Why the last session ended, if it did.
fn ending(app: &App) -> Option<EndReason> {
    match app.happenings().last() {
        Some((_, Happening::Ended(reason))) => Some(*reason),
        _ => None,
    }
}

async fn wait_for_end(app: &App, patience: Duration) -> Result<(), String> {
    let begin = Instant::now();
    while ending(app).is_none() {
        check(begin.elapsed() < patience, "the logout token arrives")?;
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Keeps cookies by origin and follows redirects.
#[derive(Default)]
struct Browser {
    cookies: HashMap<String, HashMap<String, String>>,
}

impl Browser {
    async fn get(&mut self, app: &App, path: &str) -> Result<StatusCode, String> {
        let url = Url::parse(&format!("{}{path}", app.url)).map_err(|error| error.to_string())?;
        Ok(self.send(Method::GET, &url, "application/json", None).await?.0)
    }

    async fn sign_in(&mut self, app: &App) -> Result<StatusCode, String> {
        let mut url = Url::parse(&format!("{}/me", app.url)).map_err(|error| error.to_string())?;
        for _ in 0..10 {
            let (status, location) = self.send(Method::GET, &url, "text/html", None).await?;
            let (status, location) = match location {
                // The provider's page asks who it is.
                None if url.path() == "/authorize" => {
                    self.send(Method::POST, &url, "text/html", Some("user=alice&password=alice")).await?
                }
                location => (status, location),
            };
            match location {
                Some(location) => url = location,
                None => return Ok(status),
            }
        }
        Err("the sign-in goes round in circles".to_owned())
    }

    async fn send(
        &mut self,
        method: Method,
        url: &Url,
        accept: &str,
        form: Option<&'static str>,
    ) -> Result<(StatusCode, Option<Url>), String> {
        let origin = url.origin().ascii_serialization();
        let jar = self.cookies.entry(origin).or_default();
        let cookies: Vec<String> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build();
        let mut request = client.map_err(|error| error.to_string())?.request(method, url.clone());
        request = request.header(ACCEPT, accept).header(COOKIE, cookies.join("; "));
        if let Some(form) = form {
            request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form);
        }
        let response = request.send().await.map_err(|error| error.to_string())?;
        for value in response.headers().get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok()) {
            let Some((name, rest)) = value.split_once('=') else { continue };
            if value.contains("Max-Age=0") {
                jar.remove(name);
            } else {
                jar.insert(name.to_owned(), rest.split(';').next().unwrap_or_default().to_owned());
            }
        }
        let location = response.headers().get(LOCATION).and_then(|value| url.join(value.to_str().ok()?).ok());
        Ok((response.status(), location))
    }
}
