//! An API in a process of its own making: it asks the provider about tokens, or answers as it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;
use tokio::sync::watch;

use crate::world::CLIENT_SECRET;

/// What the API answers.
#[derive(Clone)]
pub(crate) enum Answer {
    /// By introspection at this issuer.
    Ask(String),
    /// The same, and it wants this `acr`.
    AskForAcr(String, &'static str),
    Fixed(StatusCode, Option<&'static str>),
    Long(usize),
}

impl Answer {
    pub(crate) fn rejected() -> Self {
        Self::Fixed(StatusCode::UNAUTHORIZED, Some(r#"Bearer error="invalid_token""#))
    }
}

#[derive(Clone)]
pub(crate) struct Api {
    pub url: String,
    answer: Arc<Mutex<Answer>>,
    /// What the next answers are instead.
    next: Arc<Mutex<VecDeque<Answer>>>,
    pub seen: Arc<Mutex<Vec<(Method, String, HeaderMap, Bytes)>>>,
    open: Arc<watch::Sender<bool>>,
}

impl Api {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = Self {
            url: format!("http://{}/v1", listener.local_addr().unwrap()),
            answer: Arc::new(Mutex::new(Answer::Fixed(StatusCode::OK, None))),
            next: Arc::default(),
            seen: Arc::default(),
            open: Arc::new(watch::channel(true).0),
        };
        let router = Router::new().fallback(serve).with_state(api.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        api
    }

    pub(crate) fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    pub(crate) fn answers_next(&self, answer: Answer) {
        self.next.lock().unwrap().push_back(answer);
    }

    /// Requests wait at a gate until it is opened.
    pub(crate) fn close(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }

    pub(crate) fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// The tokens that it was called with.
    pub(crate) fn tokens(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|(_, _, headers, _)| token(headers)).collect()
    }
}

fn token(headers: &HeaderMap) -> String {
    let value = headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap()).unwrap_or_default();
    let token = value.strip_prefix("Bearer ").or(value.strip_prefix("DPoP "));
    token.unwrap_or_default().to_owned()
}

/// What the provider says about a token.
pub(crate) async fn introspect(issuer: &str, token: &str) -> Value {
    let form = [("client_id", "api"), ("client_secret", CLIENT_SECRET), ("token", token)];
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let request = reqwest::Client::new()
        .post(format!("{issuer}/introspect"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body);
    serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap()
}

/// Headers by which the API speaks for its own origin.
pub(crate) const FOR_ITS_OWN_ORIGIN: [&str; 8] = [
    "access-control-allow-credentials",
    "access-control-allow-origin",
    "alt-svc",
    "clear-site-data",
    "public-key-pins",
    "public-key-pins-report-only",
    "service-worker-allowed",
    "strict-transport-security",
];

const REJECTED: (StatusCode, Option<&str>) = (StatusCode::UNAUTHORIZED, Some(r#"Bearer error="invalid_token""#));

async fn serve(State(api): State<Api>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let token = token(&parts.headers);
    api.seen.lock().unwrap().push((parts.method, parts.uri.to_string(), parts.headers, body.clone()));
    let next = api.next.lock().unwrap().pop_front();
    let answer = next.unwrap_or_else(|| api.answer.lock().unwrap().clone());
    api.open.subscribe().wait_for(|open| *open).await.unwrap();
    let (status, challenge) = match answer {
        Answer::Fixed(status, challenge) => (status, challenge),
        Answer::Long(length) => return vec![b'x'; length].into_response(),
        Answer::Ask(issuer) => match introspect(&issuer, &token).await {
            claims if claims["active"] == true => (StatusCode::OK, None),
            _ => REJECTED,
        },
        Answer::AskForAcr(issuer, acr) => match introspect(&issuer, &token).await {
            claims if claims["active"] == true && claims["acr"] == acr => (StatusCode::OK, None),
            claims if claims["active"] == true => (
                StatusCode::UNAUTHORIZED,
                Some(r#"Bearer error="insufficient_user_authentication", acr_values="gold", max_age=60"#),
            ),
            _ => REJECTED,
        },
    };
    let mut response = (status, body).into_response();
    if let Some(challenge) = challenge {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge.parse().unwrap());
    }
    response.headers_mut().insert("set-cookie", "evil=1".parse().unwrap());
    for name in FOR_ITS_OWN_ORIGIN {
        response.headers_mut().insert(name, "1".parse().unwrap());
    }
    response
}
