//! The token endpoint, and the endpoints that tokens are used at.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Form, Json};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, CACHE_CONTROL, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use serde_json::{Value, json};

use super::clients::{Parameters, PeerCertificate, Shown};
use super::signed::{Binding, DpopError};
use super::state::{
    AccessTokens, Extent, Grant, InlineLogout, IssuedAccess, IssuedRefresh, RefreshTokens, State as Known,
};
use super::{Shared, random, seconds};

pub(super) fn failure(status: StatusCode, error: &str) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], Json(json!({ "error": error }))).into_response()
}

fn invalid_grant() -> Response {
    failure(StatusCode::BAD_REQUEST, "invalid_grant")
}

pub(super) async fn token(
    State(shared): State<Arc<Shared>>,
    Shown(certificate): Shown,
    headers: HeaderMap,
    Form(form): Form<Parameters>,
) -> Response {
    let Some(client_id) = shared.authenticate(&headers, &form, certificate.as_ref()).await else {
        return failure(StatusCode::UNAUTHORIZED, "invalid_client");
    };
    let secrets = ["code", "code_verifier", "refresh_token"].into_iter().filter_map(|name| form.get(name));
    secrets.for_each(|secret| (shared.on_secret)(secret));
    let bound_to = match shared.check_proof(("POST", &shared.at("/token")), &headers, None) {
        Ok(Some(key)) => Binding::Key(key),
        Ok(None) => {
            let state = shared.state();
            let client = state.clients.get(&client_id);
            if client.is_some_and(|client| client.binds_access_tokens) {
                return failure(StatusCode::BAD_REQUEST, "invalid_dpop_proof");
            }
            let certificate = certificate.filter(|_| client.is_some_and(|client| client.certificate.is_some()));
            certificate.map_or(Binding::Nothing, |PeerCertificate(hash)| Binding::Certificate(hash))
        }
        Err(error) => return not_proven(StatusCode::BAD_REQUEST, error),
    };
    let mut response = match form.get("grant_type").map(String::as_str) {
        Some("authorization_code") => by_code(&shared, &client_id, &form, bound_to),
        Some("refresh_token") => by_refresh_token(&shared, &client_id, &form, bound_to).await,
        _ => failure(StatusCode::BAD_REQUEST, "unsupported_grant_type"),
    };
    shared.add_nonce(&mut response);
    response
}

/// The answer to a request whose proof is not good.
fn not_proven(status: StatusCode, error: DpopError) -> Response {
    let (code, nonce) = match error {
        DpopError::UseNonce(nonce) => ("use_dpop_nonce", Some(nonce)),
        DpopError::Invalid(why) => {
            tracing::debug!(why, "a DPoP proof was refused");
            ("invalid_dpop_proof", None)
        }
    };
    let mut response = failure(status, code);
    let headers = response.headers_mut();
    headers.extend(nonce.and_then(|nonce| Some((HeaderName::from_static("dpop-nonce"), nonce.parse().ok()?))));
    if status == StatusCode::UNAUTHORIZED {
        let challenge = format!(r#"DPoP algs="ES256 EdDSA PS256", error="{code}""#);
        headers.extend(challenge.parse().ok().map(|challenge| (WWW_AUTHENTICATE, challenge)));
    }
    response
}

fn by_code(shared: &Shared, client_id: &str, form: &Parameters, bound_to: Binding) -> Response {
    let get = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let now = shared.clock.now();
    let mut state = shared.state();
    let Some(code) = state.codes.remove(get("code")) else { return invalid_grant() };
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, get("code_verifier").as_bytes()));
    let is_good = code.grant.client_id == client_id
        && code.redirect_uri == get("redirect_uri")
        && code.challenge == challenge
        && now < code.expires_at
        && code.dpop_jkt.is_none_or(|key| bound_to == Binding::Key(key))
        && state.grant_stands(&code.grant, now);
    if !is_good {
        return invalid_grant();
    }
    state.signal(&code.grant, now);
    let grant = code.grant;
    let gets_refresh_token = state.settings.refresh_tokens != RefreshTokens::None
        && state.clients.get(client_id).is_some_and(|client| client.gets_refresh_token);
    let refresh_token = gets_refresh_token.then(|| issue_refresh(&mut state, &grant));
    let nonce = grant.nonce.clone();
    let extent = Extent { resource: None, scope: grant.scope.clone() };
    answer(shared, &mut state, &grant, (extent, bound_to), refresh_token, nonce, now)
}

async fn by_refresh_token(shared: &Arc<Shared>, client_id: &str, form: &Parameters, bound_to: Binding) -> Response {
    let now = shared.clock.now();
    let presented = form.get("refresh_token").map(String::as_str).unwrap_or_default();
    let expired = {
        let mut state = shared.state();
        let rotates = state.settings.refresh_tokens == RefreshTokens::Rotate;
        let Some(token) = state.refresh.get(presented).filter(|token| token.grant.client_id == client_id) else {
            return invalid_grant();
        };
        let grant = token.grant.clone();
        if token.is_used {
            state.revoke_family(&grant.family);
            return invalid_grant();
        }
        let extent = match extent(&state, &grant, form) {
            Ok(extent) => extent,
            Err(error) => return failure(StatusCode::BAD_REQUEST, error),
        };
        if let Some(token) = state.refresh.get_mut(presented) {
            token.is_used = rotates;
        }
        if state.grant_stands(&grant, now) {
            state.signal(&grant, now);
            let refresh_token = rotates.then(|| issue_refresh(&mut state, &grant));
            return answer(shared, &mut state, &grant, (extent, bound_to), refresh_token, None, now);
        }
        (state.settings.inline_logout == InlineLogout::On).then_some(grant.sid)
    };
    if let Some(sid) = expired {
        shared.end_and_tell(&sid).await;
    }
    invalid_grant()
}

/// What a refresh asks for: a resource of the client's (RFC 8707), no more scopes than were granted (RFC 6749 §6).
fn extent(state: &Known, grant: &Grant, form: &Parameters) -> Result<Extent, &'static str> {
    let resource = form.get("resource").or(form.get("audience")).cloned();
    let resources = state.clients.get(&grant.client_id).map(|client| client.resources.as_slice()).unwrap_or_default();
    if resource.as_ref().is_some_and(|resource| !resources.contains(resource)) {
        return Err("invalid_target");
    }
    let scope = form.get("scope").cloned().unwrap_or_else(|| grant.scope.clone());
    let granted: Vec<&str> = grant.scope.split(' ').collect();
    if !scope.split(' ').all(|scope| granted.contains(&scope)) {
        return Err("invalid_scope");
    }
    Ok(Extent { resource, scope })
}

fn issue_refresh(state: &mut Known, grant: &Grant) -> String {
    let token = random();
    state.refresh.insert(token.clone(), IssuedRefresh { grant: grant.clone(), is_used: false });
    token
}

fn answer(
    shared: &Shared,
    state: &mut Known,
    grant: &Grant,
    (extent, bound_to): (Extent, Binding),
    refresh_token: Option<String>,
    nonce: Option<String>,
    now: SystemTime,
) -> Response {
    let client = state.clients.get(&grant.client_id);
    let lifetime = client.and_then(|client| client.access_token_lifetime);
    let lifetime = lifetime.unwrap_or(state.settings.access_token_lifetime);
    let Some(key) = state.keys.first().cloned() else {
        return failure(StatusCode::INTERNAL_SERVER_ERROR, "server_error");
    };
    let access_token = match state.settings.access_tokens {
        AccessTokens::Reference => random(),
        AccessTokens::Jwt => key.sign(
            &json!({"typ": "at+jwt"}),
            &json!({"iss": shared.issuer, "sub": grant.sub, "client_id": grant.client_id, "sid": grant.sid,
                "aud": extent.resource, "scope": extent.scope,
                "iat": seconds(now), "exp": seconds(now + lifetime), "jti": random(),
                "cnf": bound_to.confirmation()}),
        ),
    };
    let scope = extent.scope.clone();
    let token_type = if matches!(bound_to, Binding::Key(_)) { "DPoP" } else { "Bearer" };
    let issued = IssuedAccess { grant: grant.clone(), bound_to, extent, expires_at: now + lifetime };
    state.access.insert(access_token.clone(), issued);
    let auth_time = state.auth_time(grant);
    let gets_sid = state.clients.get(&grant.client_id).is_some_and(|client| client.gets_sid);
    let at_hash = digest(shared.alg.digest(), access_token.as_bytes());
    let (at_hash, _) = at_hash.as_ref().split_at(at_hash.as_ref().len() / 2);
    let mut claims = json!({
        "iss": shared.issuer, "sub": grant.sub, "aud": grant.client_id,
        "iat": seconds(now), "exp": seconds(now + Duration::from_secs(300)),
        "auth_time": seconds(auth_time), "name": grant.sub,
        "at_hash": URL_SAFE_NO_PAD.encode(at_hash),
    });
    if let (Some(claims), Some(more)) = (claims.as_object_mut(), state.users.get(&grant.sub)) {
        claims.extend(more.clone());
    }
    if gets_sid {
        claims["sid"] = grant.sid.clone().into();
    }
    if let Some(acr) = &grant.acr {
        claims["acr"] = acr.clone().into();
    }
    if let Some(nonce) = nonce {
        claims["nonce"] = nonce.into();
    }
    let mut header = json!({"typ": "JWT"});
    if let Some(tamper) = state.tampering.id_token.clone() {
        tamper(&mut header, &mut claims);
    }
    let mut response = json!({
        "access_token": access_token, "token_type": token_type, "expires_in": lifetime.as_secs(),
        "scope": scope, "id_token": key.sign(&header, &claims),
    });
    if let Some(refresh_token) = refresh_token {
        response["refresh_token"] = refresh_token.into();
    }
    if let Some(tamper) = state.tampering.token_response.clone() {
        tamper(&mut response);
    }
    let tokens = ["access_token", "refresh_token", "id_token"].into_iter().filter_map(|name| response[name].as_str());
    tokens.for_each(|token| (shared.on_secret)(token));
    ([(CACHE_CONTROL, "no-store")], Json(response)).into_response()
}

pub(super) async fn user_info(
    State(shared): State<Arc<Shared>>,
    Shown(certificate): Shown,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.split_once(' '));
    let Some((scheme @ ("Bearer" | "DPoP"), token)) = authorization else {
        return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")]).into_response();
    };
    let url = shared.at("/userinfo");
    let proven = match shared.check_proof((method.as_str(), &url), &headers, Some(token)) {
        Ok(proven) => proven.filter(|_| scheme == "DPoP"),
        Err(error) => return not_proven(StatusCode::UNAUTHORIZED, error),
    };
    let mut state = shared.state();
    let is_bound_to = |bound_to: &Binding| match bound_to {
        Binding::Nothing => scheme == "Bearer",
        Binding::Key(key) => proven.as_ref() == Some(key),
        Binding::Certificate(hash) => certificate.as_ref().is_some_and(|PeerCertificate(of)| of == hash),
    };
    let is_good = state.access.get(token).is_some_and(|issued| is_bound_to(&issued.bound_to));
    let grant = live_access(&mut state, token, shared.clock.now()).filter(|_| is_good);
    let Some(grant) = grant else {
        let challenge = format!(r#"{scheme} error="invalid_token", error_description="expired or revoked""#);
        return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)]).into_response();
    };
    let mut claims = json!({"sub": grant.sub, "name": grant.sub, "email": format!("{}@example.test", grant.sub)});
    if let (Some(claims), Some(more)) = (claims.as_object_mut(), state.users.get(&grant.sub)) {
        claims.extend(more.clone());
    }
    if let Some(tamper) = state.tampering.user_info.clone() {
        tamper(&mut claims);
    }
    drop(state);
    let mut response = Json(claims).into_response();
    shared.add_nonce(&mut response);
    response
}

/// The grant behind a good access token, whose use is a sign of life.
fn live_access(state: &mut Known, token: &str, now: SystemTime) -> Option<Grant> {
    let issued = state.access.get(token).filter(|token| now < token.expires_at)?;
    let grant = issued.grant.clone();
    if !state.grant_stands(&grant, now) {
        return None;
    }
    state.signal(&grant, now);
    Some(grant)
}

pub(super) async fn introspection(
    State(shared): State<Arc<Shared>>,
    Shown(certificate): Shown,
    headers: HeaderMap,
    Form(form): Form<Parameters>,
) -> Response {
    if shared.authenticate(&headers, &form, certificate.as_ref()).await.is_none() {
        return failure(StatusCode::UNAUTHORIZED, "invalid_client");
    }
    let token = form.get("token").map(String::as_str).unwrap_or_default();
    let mut state = shared.state();
    let issued =
        state.access.get(token).map(|token| (token.extent.clone(), token.expires_at, token.bound_to.confirmation()));
    let body: Value = match (live_access(&mut state, token, shared.clock.now()), issued) {
        (Some(grant), Some((extent, expires_at, cnf))) => json!({"active": true, "sub": grant.sub,
            "client_id": grant.client_id, "sid": grant.sid, "aud": extent.resource, "scope": extent.scope,
            "acr": grant.acr, "auth_time": seconds(grant.auth_time), "exp": seconds(expires_at), "cnf": cnf}),
        _ => json!({"active": false}),
    };
    Json(body).into_response()
}

pub(super) async fn revocation(
    State(shared): State<Arc<Shared>>,
    Shown(certificate): Shown,
    headers: HeaderMap,
    Form(form): Form<Parameters>,
) -> Response {
    let Some(client_id) = shared.authenticate(&headers, &form, certificate.as_ref()).await else {
        return failure(StatusCode::UNAUTHORIZED, "invalid_client");
    };
    // As at the token endpoint: a client that has to prove its key does so here.
    match shared.check_proof(("POST", &shared.at("/revoke")), &headers, None) {
        Ok(Some(_)) => {}
        Ok(None) => {
            if shared.state().clients.get(&client_id).is_some_and(|client| client.binds_access_tokens) {
                return failure(StatusCode::BAD_REQUEST, "invalid_dpop_proof");
            }
        }
        Err(error) => return not_proven(StatusCode::BAD_REQUEST, error),
    }
    let token = form.get("token").map(String::as_str).unwrap_or_default();
    let mut state = shared.state();
    let family = state.refresh.get(token).map(|token| &token.grant).filter(|grant| grant.client_id == client_id);
    if let Some(family) = family.map(|grant| grant.family.clone()) {
        state.revoke_family(&family);
        state.revoked += 1;
    } else if state.access.get(token).is_some_and(|token| token.grant.client_id == client_id) {
        state.access.remove(token);
        state.revoked += 1;
    }
    // RFC 7009 §2.2: an unknown token is none that could still be used.
    StatusCode::OK.into_response()
}
