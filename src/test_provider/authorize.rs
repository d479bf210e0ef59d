//! The authorization endpoint and the page that users sign in with.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use http::header::{CACHE_CONTROL, COOKIE, SET_COOKIE};
use http::{HeaderMap, Method, StatusCode};
use url::{Url, form_urlencoded};

use super::clients::Parameters;
use super::state::{Code, Grant, Interaction, IssuerInResponse, ProviderSession, SignIn};
use super::{Shared, escape, random};

pub(super) async fn authorize(
    State(shared): State<Arc<Shared>>,
    method: Method,
    headers: HeaderMap,
    Query(brought): Query<Parameters>,
    body: String,
) -> Response {
    let query = match shared.requested(brought.clone()) {
        Ok(query) => query,
        Err(why) => return (StatusCode::BAD_REQUEST, why).into_response(),
    };
    let form: Option<Parameters> =
        (method == Method::POST).then(|| form_urlencoded::parse(body.as_bytes()).into_owned().collect());
    let get = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let redirect_uri = {
        let state = shared.state();
        let client = state.clients.get(get("client_id"));
        client.and_then(|client| client.redirect_uris.iter().find(|uri| *uri == get("redirect_uri")).cloned())
    };
    ["state", "nonce", "code_challenge"].map(get).into_iter().for_each(|secret| (shared.on_secret)(secret));
    // Nobody is sent to an address that the client has not registered.
    let Some(redirect_uri) = redirect_uri.and_then(|uri| Url::parse(&uri).ok()) else {
        return (StatusCode::BAD_REQUEST, "unknown client_id or redirect_uri").into_response();
    };
    if get("response_type") != "code" {
        return shared.back(&redirect_uri, get("state"), &[("error", "unsupported_response_type")]);
    }
    let scope = get("scope");
    if !scope.split(' ').any(|scope| scope == "openid") {
        return shared.back(&redirect_uri, get("state"), &[("error", "invalid_scope")]);
    }
    if get("code_challenge_method") != "S256" || get("code_challenge").is_empty() {
        return shared.back(&redirect_uri, get("state"), &[("error", "invalid_request")]);
    }
    if form.as_ref().is_some_and(|form| form.contains_key("cancel")) {
        return shared.back(&redirect_uri, get("state"), &[("error", "access_denied")]);
    }
    let (session, cookie) = match shared.who(&method, &headers, &query, form.as_ref()) {
        Who::Known(session) => (session, None),
        Who::JustNow(session) => {
            let cookie = format!("{}={}; Path=/; HttpOnly; SameSite=Lax", shared.cookie_name(), session.cookie);
            (session, Some(cookie))
        }
        Who::Busy => return shared.back(&redirect_uri, get("state"), &[("error", "interaction_required")]),
        Who::Nobody if get("prompt") == "none" => {
            return shared.back(&redirect_uri, get("state"), &[("error", "login_required")]);
        }
        Who::Nobody => return page(get("client_id"), get("login_hint"), form.is_some()),
    };
    let code = random();
    shared.is_answered(&brought);
    (shared.on_secret)(&code);
    // The rest is the `sid`, which many may know.
    (shared.on_secret)(session.cookie.split('.').next().unwrap_or_default());
    {
        let now = shared.clock.now();
        let mut state = shared.state();
        if let Some(known) = state.sessions.get_mut(&session.sid) {
            known.clients.insert(get("client_id").to_owned());
        }
        let grant = Grant {
            client_id: get("client_id").to_owned(),
            sid: session.sid,
            sub: session.sub,
            scope: scope.to_owned(),
            nonce: query.get("nonce").cloned(),
            auth_time: session.auth_time,
            acr: session.acr,
            family: random(),
        };
        let code_for = Code {
            grant,
            dpop_jkt: query.get("dpop_jkt").cloned(),
            redirect_uri: redirect_uri.as_str().to_owned(),
            challenge: get("code_challenge").to_owned(),
            expires_at: now + Duration::from_secs(60),
        };
        state.codes.insert(code.clone(), code_for);
    }
    let mut response = shared.back(&redirect_uri, get("state"), &[("code", &code)]);
    if let Some(value) = cookie.and_then(|cookie| cookie.parse().ok()) {
        response.headers_mut().insert(SET_COOKIE, value);
    }
    response
}

enum Who {
    /// Somebody known, who has to do something first.
    Busy,
    JustNow(ProviderSession),
    Known(ProviderSession),
    Nobody,
}

impl Shared {
    pub(super) fn cookie_name(&self) -> String {
        // Browsers share cookies between the ports of a host.
        let port = self.issuer.rsplit(':').next().unwrap_or_default();
        format!("op_session_{port}")
    }

    /// The browser's cookie of the provider's own session.
    pub(super) fn cookie<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        let name = self.cookie_name();
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    fn who(&self, method: &Method, headers: &HeaderMap, query: &Parameters, form: Option<&Parameters>) -> Who {
        let now = self.clock.now();
        let mut state = self.state();
        let known = self.cookie(headers).and_then(|cookie| state.session_of(cookie, now)).cloned();
        let prompt = query.get("prompt").map(String::as_str);
        let max_age = query.get("max_age").and_then(|age| age.parse().ok()).map(Duration::from_secs);
        let acr_values: Vec<String> = query
            .get("acr_values")
            .map(|values| values.split(' ').filter(|acr| !acr.is_empty()).map(str::to_owned).collect())
            .unwrap_or_default();
        if let Some(known) = known {
            let age = now.duration_since(known.auth_time).unwrap_or_default();
            let is_fresh = max_age.is_none_or(|max_age| age <= max_age);
            // RFC 9470: one of several is good enough.
            let is_strong = acr_values.is_empty() || known.acr.as_ref().is_some_and(|acr| acr_values.contains(acr));
            if prompt != Some("login") && is_fresh && is_strong && *method == Method::GET {
                return match (prompt, state.settings.interaction) {
                    (Some("none"), Interaction::Required) => Who::Busy,
                    _ => Who::Known(known),
                };
            }
        }
        if prompt == Some("none") {
            return Who::Nobody;
        }
        let user = match (&state.settings.sign_in, form) {
            (SignIn::Automatic(user), _) => Some(query.get("login_hint").unwrap_or(user).clone()),
            (SignIn::Page, Some(form)) => form.get("user").filter(|user| form.get("password") == Some(user)).cloned(),
            (SignIn::Page, None) => None,
        };
        match user.filter(|user| state.users.contains_key(user)) {
            Some(user) => {
                let acr = acr_values.into_iter().next();
                Who::JustNow(state.begin_session(&user, acr, self.cookie(headers), now))
            }
            None => Who::Nobody,
        }
    }

    /// Sends the browser back to the client.
    fn back(&self, redirect_uri: &Url, state: &str, parameters: &[(&str, &str)]) -> Response {
        let mut url = redirect_uri.clone();
        {
            let mut query = url.query_pairs_mut();
            query.extend_pairs(parameters);
            if !state.is_empty() {
                query.append_pair("state", state);
            }
            if self.state().settings.issuer_in_response == IssuerInResponse::Present {
                query.append_pair("iss", &self.issuer);
            }
        }
        Redirect::to(url.as_str()).into_response()
    }
}

fn page(client_id: &str, hint: &str, was_wrong: bool) -> Response {
    let wrong = if was_wrong { "<p role=alert>That user and password do not fit.</p>" } else { "" };
    let html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>Sign in</title>{STYLE}<main><h1>Sign in</h1><p>to continue to <b>{}</b></p>{wrong}\
         <form method=post><label>User <input name=user value=\"{}\" autofocus required></label>\
         <label>Password <input name=password type=password required></label>\
         <button>Sign in</button> <button name=cancel value=1 formnovalidate class=plain>Cancel</button></form><p><small>A provider for tests: the password is the user’s name.</small></main>",
        escape(client_id),
        escape(hint),
    );
    ([(CACHE_CONTROL, "no-store")], Html(html)).into_response()
}

pub(super) const STYLE: &str = "<style>:root{color-scheme:light dark}body{font:1rem/1.5 system-ui,sans-serif;background:#eef1f5;color:#1c2733}\
    main{max-width:22rem;margin:12vh auto;background:#fff;padding:2rem;border-radius:.75rem;box-shadow:0 1px 6px #0002}\
    h1{margin:0}label{display:block;margin:.75rem 0}input{display:block;width:100%;box-sizing:border-box;padding:.5rem;\
    font:inherit;border:1px solid #9aa7b5;border-radius:.4rem}button{padding:.5rem 1.25rem;font:inherit;border:0;\
    border-radius:.4rem;background:#1f5fbf;color:#fff}[role=alert]{color:#a3201d}small{color:#5a6775}button.plain{background:none;color:inherit;border:1px solid #9aa7b5}\
    @media(prefers-color-scheme:dark){body{background:#14181d;color:#e8edf2}main{background:#1e242b}\
    [role=alert]{color:#ff9b97}small{color:#a9b5c1}}</style>";
