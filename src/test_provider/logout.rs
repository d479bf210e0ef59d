//! The ends of sessions: logout by browser, by idleness, by an administrator; and the logout tokens that follow.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use super::authorize::STYLE;
use super::clients::Parameters;
use super::state::{ExpiredSessions, LogoutDelivery, ProviderSession};
use super::{Shared, random, seconds};

pub(super) const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

pub(super) async fn end_session(
    State(shared): State<Arc<Shared>>,
    method: Method,
    headers: HeaderMap,
    Query(query): Query<Parameters>,
    body: String,
) -> Response {
    let mut parameters = query;
    parameters.extend(form_urlencoded::parse(body.as_bytes()).into_owned());
    let hint = parameters.get("id_token_hint").and_then(|hint| claims(hint));
    let of_hint = |name: &str| hint.as_ref().and_then(|claims| claims.get(name)?.as_str().map(str::to_owned));
    let client_id = of_hint("aud").or_else(|| parameters.get("client_id").cloned());
    let (session, back_to) = {
        let state = shared.state();
        let by_cookie =
            shared.cookie(&headers).and_then(|cookie| state.session_of(cookie, shared.clock.now())).cloned();
        let by_hint = of_hint("sid").and_then(|sid| state.sessions.get(&sid)).cloned();
        let client = client_id.and_then(|id| state.clients.get(&id));
        let back_to = parameters
            .get("post_logout_redirect_uri")
            .filter(|uri| client.is_some_and(|client| client.post_logout_redirect_uris.contains(uri)));
        (by_hint.or(by_cookie), back_to.cloned())
    };
    // Without a hint anybody's page could log the user out, so the user is asked.
    if hint.is_none() && session.is_some() && !(method == Method::POST && parameters.contains_key("confirmed")) {
        let page = format!(
            "<!doctype html><html lang=en><meta charset=utf-8><title>Sign out</title>{STYLE}<main><h1>Sign out?</h1>\
             <form method=post><button name=confirmed value=yes>Sign out</button></form></main>"
        );
        return Html(page).into_response();
    }
    if let Some(session) = session {
        shared.end_and_tell(&session.sid).await;
    }
    match back_to.and_then(|uri| Url::parse(&uri).ok()) {
        Some(mut url) => {
            if let Some(state) = parameters.get("state") {
                url.query_pairs_mut().append_pair("state", state);
            }
            Redirect::to(url.as_str()).into_response()
        }
        None => (StatusCode::OK, Html("<!doctype html><title>Signed out</title><p>Signed out.")).into_response(),
    }
}

/// The claims of an ID token that was issued once, expired or not. Test code only: the signature is not looked at.
pub(super) fn claims(token: &str) -> Option<Value> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

impl Shared {
    /// Ends a session, tells its clients and awaits their answers.
    pub(super) async fn end_and_tell(&self, sid: &str) -> usize {
        let ended = self.state().end(sid);
        match ended {
            Some(session) => {
                self.tell(&session).await;
                1
            }
            None => 0,
        }
    }

    /// Ends the sessions that were idle for too long.
    pub(super) async fn sweep(&self) {
        let expired: Vec<ProviderSession> = {
            let now = self.clock.now();
            let mut state = self.state();
            let sids: Vec<String> = state
                .sessions
                .values()
                .filter(|session| now >= session.expires_at)
                .map(|session| session.sid.clone())
                .collect();
            let ended = sids.iter().filter_map(|sid| state.end(sid)).collect();
            match state.settings.expired_sessions {
                ExpiredSessions::TriggerBackchannelLogout => ended,
                ExpiredSessions::StaySilent => Vec::new(),
            }
        };
        join_all(expired.iter().map(|session| self.tell(session))).await;
    }

    async fn tell(&self, session: &ProviderSession) {
        let tokens: Vec<(String, String, String)> = {
            let state = self.state();
            let clients = session.clients.iter().filter_map(|id| state.clients.get(id));
            let told = clients.filter_map(|client| {
                let uri = client.backchannel_logout_uri.clone()?;
                let sid = client.gets_sid.then_some(session.sid.as_str());
                let claims = self.logout_claims(&client.id, Some(&session.sub), sid);
                let token = self.signed(state.keys.first()?, &json!({"typ": "logout+jwt"}), &claims);
                Some((client.id.clone(), uri, token))
            });
            told.collect()
        };
        let posts = tokens.into_iter().map(async |(client_id, uri, token)| {
            let status = self.post(&uri, &token).await;
            let delivery = LogoutDelivery { client_id, sid: session.sid.clone(), status };
            self.state().logouts.push(delivery);
        });
        join_all(posts).await;
    }

    pub(super) fn logout_claims(&self, client_id: &str, sub: Option<&str>, sid: Option<&str>) -> Value {
        let now = self.clock.now();
        let mut claims = json!({
            "iss": self.issuer, "aud": client_id, "jti": random(), "iat": seconds(now),
            "exp": seconds(now + Duration::from_secs(120)), "events": {LOGOUT_EVENT: {}},
        });
        for (name, value) in [("sub", sub), ("sid", sid)] {
            if let Some(value) = value {
                claims[name] = value.into();
            }
        }
        claims
    }

    pub(super) async fn post(&self, uri: &str, token: &str) -> Result<u16, String> {
        let body: String = form_urlencoded::Serializer::new(String::new()).append_pair("logout_token", token).finish();
        let request =
            self.http.post(uri).header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(body);
        let response = request.send().await.map_err(|error| error.to_string())?;
        Ok(response.status().as_u16())
    }
}
