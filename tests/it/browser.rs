//! A client that keeps cookies and follows redirects, as a browser does.

use std::collections::BTreeMap;

use http::header::{ACCEPT, COOKIE, LOCATION, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use url::Url;

use crate::jar::Jar;
use crate::leaks;

#[derive(Clone, Default)]
pub(crate) struct Browser {
    http: reqwest::Client,
    jar: Jar,
}

#[derive(Debug)]
pub(crate) struct Page {
    pub url: Url,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Page {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub(crate) fn location(&self) -> Url {
        let location = self.headers[LOCATION].to_str().unwrap();
        self.url.join(location).unwrap()
    }

    pub(crate) fn is_removal(&self) -> bool {
        self.headers.get_all(SET_COOKIE).iter().any(|value| {
            let value = value.to_str().unwrap();
            value.starts_with("__Host-session-") && value.contains("Max-Age=0") && value.contains("Secure")
        })
    }
}

impl Browser {
    pub(crate) fn new() -> Self {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { http, jar: Jar::default() }
    }

    /// Another browser with a copy of the cookies, as a thief has.
    pub(crate) fn copy(&self) -> Self {
        Self { http: self.http.clone(), jar: self.jar.copy() }
    }

    pub(crate) fn cookies(&self, origin: &str) -> BTreeMap<String, String> {
        self.jar.cookies(&Url::parse(origin).unwrap())
    }

    pub(crate) fn session_cookie(&self, origin: &str) -> Option<String> {
        self.cookies(origin).into_iter().find(|(name, _)| name.starts_with("__Host-session-")).map(|(_, value)| value)
    }

    pub(crate) fn set_cookie(&self, origin: &str, name: &str, value: &str) {
        self.jar.set(&Url::parse(origin).unwrap(), name, value);
    }

    pub(crate) fn cookie_header(&self, url: &str) -> HeaderValue {
        self.jar.header(&Url::parse(url).unwrap()).expect("there are cookies")
    }

    /// Sends a request with the cookies of its origin; the answer's body is not read yet.
    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> reqwest::Result<reqwest::Response> {
        let (client, request) = request.build_split();
        let mut request = request?;
        let url = request.url().clone();
        if let Some(cookies) = self.jar.header(&url) {
            request.headers_mut().insert(COOKIE, cookies);
        }
        let response = client.execute(request).await?;
        self.jar.keep(&url, response.headers());
        leaks::headers(&url, response.headers());
        Ok(response)
    }

    pub(crate) fn request(&self, method: Method, url: &str) -> reqwest::RequestBuilder {
        self.http.request(method, url)
    }

    pub(crate) async fn page(&self, request: reqwest::RequestBuilder) -> Page {
        let response = self.send(request).await.unwrap();
        let (url, status, headers) = (response.url().clone(), response.status(), response.headers().clone());
        let page = Page { url, status, headers, body: response.text().await.unwrap() };
        leaks::page(&page);
        page
    }

    /// What a script's `fetch` gets.
    pub(crate) async fn get(&self, url: &str) -> Page {
        self.page(self.request(Method::GET, url).header(ACCEPT, "application/json")).await
    }

    pub(crate) async fn post(&self, url: &str) -> Page {
        self.page(self.request(Method::POST, url).header("sec-fetch-site", "same-origin")).await
    }

    /// One step of a navigation.
    pub(crate) async fn step(&self, url: &str) -> Page {
        self.page(self.request(Method::GET, url).header(ACCEPT, "text/html,*/*;q=0.8")).await
    }

    /// A navigation to its end.
    pub(crate) async fn go(&self, url: &str) -> Page {
        let mut page = self.step(url).await;
        for _ in 0..10 {
            if !page.status.is_redirection() {
                return page;
            }
            page = self.step(page.location().as_str()).await;
        }
        panic!("a redirect loop: {page:?}");
    }
}
