//! The story, told without a browser: every step is checked.

use std::collections::HashMap;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE};
use http::{Method, StatusCode};
use tokio::time::{Instant, sleep};
use tower_oidc_session::EndReason;
use tower_oidc_session::test_provider::ExpiredSessions;
use url::Url;

use crate::apps::{App, ClientKind, Demo, Happening};

/// Plays the story; an error is the step that did not hold.
pub(crate) async fn tell(lifetime: Duration, interval: Duration) -> Result<(), String> {
    let demo = Demo::start(lifetime, interval, 0).await?;
    let start = Instant::now();
    let say = |text: &str| println!("{:5.1} s  {text}", start.elapsed().as_secs_f64());
    say(&format!("the provider ends sessions after {lifetime:?} idle; applications signal every {interval:?}"));
    say("-- expired sessions trigger back-channel logout");
    demo.provider.set_expired_sessions(ExpiredSessions::TriggerBackchannelLogout);
    Act { demo: &demo, lifetime, interval, say: &say, browser: Browser::default() }.with_notice().await?;
    say("-- now with back-channel logout off");
    demo.provider.set_expired_sessions(ExpiredSessions::StaySilent);
    Act { demo: &demo, lifetime, interval, say: &say, browser: Browser::default() }.in_silence().await?;
    say("every step held");
    Ok(())
}

/// One act of the story, with a browser of its own.
struct Act<'a> {
    demo: &'a Demo,
    lifetime: Duration,
    interval: Duration,
    say: &'a dyn Fn(&str),
    browser: Browser,
}

impl<'a> Act<'a> {
    async fn with_notice(mut self) -> Result<(), String> {
        let [shop, bank, reports, wiki] = self.sign_in_everywhere().await?;
        self.be_active_in(shop, self.lifetime * 3).await?;
        self.all_are_alive().await?;
        // The other kinds of clients keep everybody alive just as well.
        self.be_active_in(reports, self.lifetime * 3 / 2).await?;
        self.be_active_in(wiki, self.lifetime * 3 / 2).await?;
        self.all_are_alive().await?;
        self.go_idle().await?;
        for app in [shop, bank, reports, wiki] {
            wait_for_end(app, self.lifetime).await?;
            let status = self.browser.get(app, "/me").await?;
            check(status == StatusCode::UNAUTHORIZED, "the next click is refused")?;
            self.ended(app, EndReason::BackChannelLogout)?;
        }
        Ok(())
    }

    async fn in_silence(mut self) -> Result<(), String> {
        let [shop, bank, reports, wiki] = self.sign_in_everywhere().await?;
        self.be_active_in(shop, self.lifetime * 3).await?;
        self.all_are_alive().await?;
        self.go_idle().await?;
        check([shop, bank, reports, wiki].iter().all(|app| ending(app).is_none()), "nobody told the applications")?;
        for (app, reason) in [
            (shop, EndReason::RefreshTokenRejected),
            (bank, EndReason::RefreshTokenRejected),
            (reports, EndReason::AccessTokenRejected),
        ] {
            let status = self.browser.get(app, "/me").await?;
            check(status == StatusCode::UNAUTHORIZED, "the next click is refused")?;
            self.ended(app, reason)?;
        }
        // A page view goes through the provider, which asks the user to sign in.
        let page = self.browser.navigate(wiki, "/me").await?;
        check(page.path() == "/authorize", "the next page view leads to the provider's page")?;
        self.ended(wiki, EndReason::LoginRequired)?;

        // Within the interval nobody signals: there the API is the first to know.
        check(self.browser.sign_in(reports).await? == StatusCode::OK, "the sign-in works")?;
        for session in self.demo.provider.sessions() {
            self.demo.provider.forget_session(session.sid());
        }
        let status = self.browser.get(reports, "/api/hello").await?;
        check(status == StatusCode::UNAUTHORIZED, "the API refuses the token")?;
        (self.say)("reports: signed in again; the provider forgot the session, and the API refused the token");
        self.ended(reports, EndReason::AccessTokenRejected)
    }

    async fn sign_in_everywhere(&mut self) -> Result<[&'a App; 4], String> {
        let demo: &'a Demo = self.demo;
        let [shop, bank, reports, wiki] = demo.apps.as_slice() else { return Err("four applications run".into()) };
        for app in [shop, bank, reports, wiki] {
            check(self.browser.sign_in(app).await? == StatusCode::OK, "the sign-in works")?;
            (self.say)(&format!("{}: signed in; it {}", app.name, app.kind.describe()));
        }
        check(self.demo.provider.sessions().len() == 1, "all share one session at the provider")?;
        for app in [shop, reports] {
            let status = self.browser.get(app, "/api/hello").await?;
            check(status == StatusCode::OK, "the API accepts the session's token")?;
            (self.say)(&format!("{}: the API accepts the session's token", app.name));
        }
        Ok([shop, bank, reports, wiki])
    }

    /// A user's request, as the application's kind has it.
    async fn click(&mut self, app: &App) -> Result<(), String> {
        match app.kind {
            ClientKind::Refreshing | ClientKind::Introspected => {
                check(self.browser.get(app, "/me").await? == StatusCode::OK, "the application serves its user")
            }
            ClientKind::Tokenless => {
                let page = self.browser.navigate(app, "/me").await?;
                check(page.as_str() == format!("{}/me", app.url), "the page view comes back from the provider")
            }
        }
    }

    async fn be_active_in(&mut self, app: &App, duration: Duration) -> Result<(), String> {
        let (begin, before) = (Instant::now(), signals(app));
        while begin.elapsed() < duration {
            self.click(app).await?;
            sleep(self.interval / 4).await;
        }
        let sent = signals(app) - before;
        (self.say)(&format!("{}: active for {duration:?}, {sent} signals sent; the others were left alone", app.name));
        check(self.demo.provider.sessions().len() == 1, "the provider's session is alive")
    }

    async fn all_are_alive(&mut self) -> Result<(), String> {
        for app in &self.demo.apps {
            self.click(app).await?;
        }
        (self.say)("all four are alive");
        Ok(())
    }

    async fn go_idle(&mut self) -> Result<(), String> {
        (self.say)("from now on only background polling");
        let all_signals = |demo: &Demo| demo.apps.iter().map(signals).sum::<usize>();
        let (quiet, before) = (Instant::now(), all_signals(self.demo));
        while !self.demo.provider.sessions().is_empty() {
            check(quiet.elapsed() < self.lifetime * 2, "polling does not keep the provider's session alive")?;
            for app in &self.demo.apps {
                self.browser.get(app, "/poll").await?;
            }
            sleep(self.interval / 4).await;
        }
        check(all_signals(self.demo) == before, "polling signals nothing")?;
        let after = quiet.elapsed().as_secs_f64();
        (self.say)(&format!("the provider's session ran out {after:.1} s after the last click"));
        Ok(())
    }

    fn ended(&self, app: &App, reason: EndReason) -> Result<(), String> {
        check(ending(app) == Some(reason), &format!("{} ended with {reason:?}", app.name))?;
        (self.say)(&format!("{}: ended, {reason:?}", app.name));
        Ok(())
    }
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
        Ok(self.go(app, "/me", Some("user=alice&password=alice")).await?.0)
    }

    /// Where a page view ends.
    async fn navigate(&mut self, app: &App, path: &str) -> Result<Url, String> {
        Ok(self.go(app, path, None).await?.1)
    }

    async fn go(
        &mut self,
        app: &App,
        path: &str,
        credentials: Option<&'static str>,
    ) -> Result<(StatusCode, Url), String> {
        let mut url = Url::parse(&format!("{}{path}", app.url)).map_err(|error| error.to_string())?;
        for _ in 0..10 {
            let (mut status, mut location) = self.send(Method::GET, &url, "text/html", None).await?;
            // The provider's page asks who it is.
            if let (None, "/authorize", Some(_)) = (&location, url.path(), credentials) {
                (status, location) = self.send(Method::POST, &url, "text/html", credentials).await?;
            }
            match location {
                Some(location) => url = location,
                None => return Ok((status, url)),
            }
        }
        Err("the browser goes round in circles".to_owned())
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
