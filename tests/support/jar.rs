//! Cookies as a browser keeps them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use cookie::Cookie;
use cookie::time::Duration;
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};
use url::Url;

/// Clones are the same jar.
#[derive(Clone, Default)]
pub(crate) struct Jar {
    /// By origin: unlike real browsers, so that applications on several ports keep apart whatever they do.
    cookies: Arc<Mutex<HashMap<String, BTreeMap<String, String>>>>,
}

impl Jar {
    /// Another jar with the same cookies.
    pub(crate) fn copy(&self) -> Self {
        let cookies = self.cookies.lock().unwrap().clone();
        Self { cookies: Arc::new(Mutex::new(cookies)) }
    }

    /// The cookies of the origin of `url`.
    pub(crate) fn cookies(&self, url: &Url) -> BTreeMap<String, String> {
        self.cookies.lock().unwrap().get(&origin(url)).cloned().unwrap_or_default()
    }

    /// The same as a request's header has them, if there are any.
    pub(crate) fn header(&self, url: &Url) -> Option<HeaderValue> {
        let pairs: Vec<_> = self.cookies(url).iter().map(|(name, value)| format!("{name}={value}")).collect();
        (!pairs.is_empty()).then(|| pairs.join("; ").parse().unwrap())
    }

    /// Does what the headers of an answer from `url` say.
    pub(crate) fn keep(&self, url: &Url, headers: &HeaderMap) {
        for value in headers.get_all(SET_COOKIE) {
            let cookie = Cookie::parse(value.to_str().unwrap()).unwrap();
            if is_removal(&cookie) {
                self.cookies.lock().unwrap().entry(origin(url)).or_default().remove(cookie.name());
            } else {
                self.set(url, cookie.name(), cookie.value());
            }
        }
    }

    pub(crate) fn set(&self, url: &Url, name: &str, value: &str) {
        let mut cookies = self.cookies.lock().unwrap();
        cookies.entry(origin(url)).or_default().insert(name.to_owned(), value.to_owned());
    }
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// The two ways to say it. No date is compared with the time, which is virtual in some tests.
fn is_removal(cookie: &Cookie<'_>) -> bool {
    cookie.max_age() == Some(Duration::ZERO) || cookie.expires_datetime().is_some_and(|date| date.year() == 1970)
}
