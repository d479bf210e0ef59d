//! A user who has signed in, and the requests that their browser sends.

use std::collections::BTreeMap;

use axum::body::Body;
use http::header::{COOKIE, LOCATION, SET_COOKIE};
use http::{Request, Response};
use tower::ServiceExt;
use tower_oidc_session::test_provider::TestProvider;

use crate::contestants::App;

/// The cookies of a browser.
#[derive(Clone, Debug, Default)]
pub struct Cookies(BTreeMap<String, String>);

impl Cookies {
    pub fn keep<B>(&mut self, response: &Response<B>) {
        for set in response.headers().get_all(SET_COOKIE) {
            let text = set.to_str().expect("cookies are ASCII");
            let (name, value) = text.split(';').next().and_then(|pair| pair.split_once('=')).expect("a cookie");
            if value.is_empty() || text.contains("Max-Age=0") {
                self.0.remove(name);
            } else {
                self.0.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    /// The value of the header.
    pub fn header(&self) -> String {
        self.0.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }
}

pub fn request(path: &str, cookies: &str) -> Request<Body> {
    let request = Request::get(path);
    let request = if cookies.is_empty() { request } else { request.header(COOKIE, cookies) };
    request.body(Body::empty()).expect("a request")
}

async fn get(app: &impl App, path: &str, cookies: &mut Cookies) -> Response<Body> {
    let response = app.clone().oneshot(request(path, &cookies.header())).await.expect("routers do not fail");
    cookies.keep(&response);
    response
}

fn location<B>(response: &Response<B>) -> String {
    response.headers()[LOCATION].to_str().expect("a URL").to_owned()
}

/// Signs a user in, through the provider.
pub async fn sign_in(app: &impl App, provider: &TestProvider) -> Cookies {
    let mut cookies = Cookies::default();
    let to_provider = location(&get(app, "/auth/login", &mut cookies).await);
    assert!(to_provider.starts_with(&provider.issuer()), "{to_provider}");
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
    let back = http.get(to_provider).send().await.expect("the provider answers");
    let back = back.headers()[LOCATION].to_str().expect("a URL").to_owned();
    let path = &back[back.find("/auth/callback").expect("it leads back")..];
    let landed = get(app, path, &mut cookies).await;
    assert!(landed.status().is_redirection(), "{landed:?}");
    cookies
}
