//! A browser that keeps cookies by origin, in real time.

use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, COOKIE, LOCATION};
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, sleep};
use url::Url;

use crate::jar::Jar;

/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(crate) struct Visitor {
    pub(crate) http: reqwest::Client,
    jar: Jar,
    /// An origin, and who answers for it: a proxy that ends TLS.
    proxied: Option<(String, String)>,
}

#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: StatusCode,
    pub(crate) url: Url,
    pub(crate) location: Option<Url>,
    pub(crate) body: String,
}

impl Page {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }
}

impl Visitor {
    pub(crate) fn new() -> Self {
        Self::with(reqwest::Client::builder())
    }

    /// One that trusts this authority besides.
    pub(crate) fn trusting(root: &str) -> Self {
        let root = reqwest::Certificate::from_pem(root.as_bytes()).expect("it is a certificate");
        Self::with(reqwest::Client::builder().tls_certs_merge([root]))
    }

    fn with(builder: reqwest::ClientBuilder) -> Self {
        // A connection for each request, so that a balancer has its say.
        let http = builder
            .pool_max_idle_per_host(0)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .connect_timeout(PATIENCE)
            .build()
            .expect("a client can be made");
        Self { http, jar: Jar::default(), proxied: None }
    }

    /// What is at `origin` is asked of `inside`.
    pub(crate) fn proxied(mut self, origin: &str, inside: &str) -> Self {
        self.proxied = Some((origin.to_owned(), inside.to_owned()));
        self
    }

    fn request(&self, method: Method, url: &Url) -> reqwest::RequestBuilder {
        let inside = self.proxied.as_ref().and_then(|(origin, inside)| {
            (url.origin().ascii_serialization() == *origin)
                .then(|| format!("{inside}{}", url.as_str().strip_prefix(origin).unwrap_or_default()))
        });
        self.http.request(method, inside.unwrap_or_else(|| url.as_str().to_owned()))
    }

    /// One request.
    pub(crate) async fn send(&self, method: Method, url: &Url, accept: &str) -> Page {
        self.execute(self.request(method, url).header(ACCEPT, accept), url).await
    }

    async fn execute(&self, mut request: reqwest::RequestBuilder, url: &Url) -> Page {
        if let Some(cookies) = self.jar.header(url) {
            request = request.header(COOKIE, cookies);
        }
        let response = request.send().await.unwrap_or_else(|error| panic!("{url}: {error:?}"));
        self.jar.keep(url, response.headers());
        let location = response.headers().get(LOCATION).map(|value| url.join(value.to_str().unwrap()).unwrap());
        let status = response.status();
        let body = response.text().await.unwrap_or_else(|error| panic!("{url}: {error:?}"));
        Page { status, url: url.clone(), location, body }
    }

    /// A request of a script.
    pub(crate) async fn get(&self, url: &str) -> Page {
        self.send(Method::GET, &Url::parse(url).unwrap(), "application/json").await
    }

    /// The session in the application at `app` has ended, for this reason.
    pub(crate) async fn assert_ended(&self, app: &str, reason: &str) {
        let page = self.get(&format!("{app}/me")).await;
        assert_eq!((page.status, page.json()["reason"].as_str()), (StatusCode::UNAUTHORIZED, Some(reason)));
    }

    /// Goes on there for so long, as an active user who does something every `pause`.
    pub(crate) async fn stay_active(&self, app: &str, pause: Duration, duration: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < duration {
            assert_eq!(self.get(&format!("{app}/me")).await.status, StatusCode::OK);
            sleep(pause).await;
        }
    }

    /// A request of a script with JSON in it.
    pub(crate) async fn send_json(&self, method: Method, url: &str, body: &Value) -> Page {
        let url = Url::parse(url).unwrap();
        let request = self.request(method, &url).header(ACCEPT, "application/json");
        self.execute(request.header(CONTENT_TYPE, "application/json").body(body.to_string()), &url).await
    }

    /// A request of a script to another address of the application at `origin`.
    pub(crate) async fn try_get_as(&self, origin: &str, url: &str) -> reqwest::Result<StatusCode> {
        Ok(self.send_as(origin, url).await?.status())
    }

    /// The same with the answer's body still to come.
    pub(crate) async fn stream_as(&self, origin: &str, url: &str) -> reqwest::Response {
        self.send_as(origin, url).await.unwrap_or_else(|error| panic!("{url}: {error:?}"))
    }

    async fn send_as(&self, origin: &str, url: &str) -> reqwest::Result<reqwest::Response> {
        let mut request = self.http.get(url).header(ACCEPT, "application/json");
        // There may be none any more: an end takes them away.
        if let Some(cookies) = self.jar.header(&Url::parse(origin).unwrap()) {
            request = request.header(COOKIE, cookies);
        }
        request.send().await
    }

    /// A click, and the redirects that follow.
    pub(crate) async fn go(&self, method: Method, url: &str) -> Page {
        self.follow(self.send(method, &Url::parse(url).unwrap(), "text/html").await).await
    }

    /// A form that is sent, and the redirects that follow.
    pub(crate) async fn post_form(&self, url: &Url, fields: &[(&str, &str)]) -> Page {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = self.request(Method::POST, url).header(ACCEPT, "text/html");
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body);
        self.follow(self.execute(request, url).await).await
    }

    async fn follow(&self, mut page: Page) -> Page {
        for _ in 0..16 {
            let Some(location) = &page.location else { return page };
            page = self.send(Method::GET, location, "text/html").await;
        }
        panic!("a redirect loop at {}", page.url);
    }
}
