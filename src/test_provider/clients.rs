//! Who a request is from, and the requests for a login that clients push.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use axum::{Form, Json};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CACHE_CONTROL};
use http::request::Parts;
use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::json;
use url::form_urlencoded;

use super::state::{DpopNonces, Pushed, PushedRequests};
use super::token::failure;
use super::{Shared, random};

pub(super) type Parameters = HashMap<String, String>;

/// A pushed request waits so long for its browser.
const PUSHED_LIFETIME: Duration = Duration::from_secs(60);

/// What the names of pushed requests begin with.
const NAME: &str = "urn:ietf:params:oauth:request_uri:";

/// The hash of the certificate that the other end of a connection has shown.
#[derive(Clone, Debug)]
pub(super) struct PeerCertificate(pub(super) Arc<str>);

/// What the other end of a request's connection has shown, if anything.
pub(super) struct Shown(pub(super) Option<PeerCertificate>);

impl<S: Sync> FromRequestParts<S> for Shown {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get().cloned()))
    }
}

impl Shared {
    /// The URL of an endpoint.
    pub(super) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.issuer)
    }

    /// The client that a request proves to come from: by the means that it is registered with, and no others.
    pub(super) async fn authenticate(
        &self,
        headers: &HeaderMap,
        form: &Parameters,
        certificate: Option<&PeerCertificate>,
    ) -> Option<String> {
        let basic = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Basic "));
        let basic = basic.map(|basic| {
            let decoded = String::from_utf8(STANDARD.decode(basic).ok()?).ok()?;
            let (id, secret) = decoded.split_once(':')?;
            // RFC 6749 §2.3.1: both are form-encoded first.
            let decode = |text: &str| form_urlencoded::parse(text.as_bytes()).next().map(|(t, _)| t.into_owned());
            Some((decode(id)?, decode(secret)?))
        });
        let assertion = form.get("client_assertion");
        let secrets = [basic.as_ref().and_then(|basic| Some(&basic.as_ref()?.1)), form.get("client_secret"), assertion];
        secrets.into_iter().flatten().for_each(|secret| (self.on_secret)(secret));
        let id = match (&basic, assertion) {
            (Some(basic), _) => basic.as_ref()?.0.clone(),
            (None, Some(assertion)) => by_assertion(assertion)?,
            (None, None) => form.get("client_id")?.clone(),
        };
        let client = self.state().clients.get(&id)?.clone();
        let is_proven = match (&client.jwks_uri, &client.certificate) {
            (Some(jwks_uri), _) => {
                let keys = self.keys_of(jwks_uri).await?;
                self.check_assertion(assertion?, &id, &keys)
            }
            (None, Some(hash)) => certificate.is_some_and(|PeerCertificate(shown)| **shown == **hash),
            (None, None) => match basic.flatten() {
                Some((_, secret)) => client.secret == secret,
                None => form.get("client_secret") == Some(&client.secret),
            },
        };
        is_proven.then_some(id)
    }

    /// Says which nonce the next proof has to have.
    pub(super) fn add_nonce(&self, response: &mut Response) {
        let mut state = self.state();
        if state.settings.dpop_nonces == DpopNonces::Required {
            let nonce = state.dpop_nonce().parse().ok();
            response.headers_mut().extend(nonce.map(|nonce| (HeaderName::from_static("dpop-nonce"), nonce)));
        }
    }

    /// What a browser brings to the authorization endpoint, or the request that was pushed under the name that it brings, once.
    pub(super) fn requested(&self, query: Parameters) -> Result<Parameters, &'static str> {
        let state = self.state();
        let Some(name) = query.get("request_uri") else {
            let required = state.settings.pushed_requests == PushedRequests::Required;
            return if required { Err("the request has to be pushed") } else { Ok(query) };
        };
        // The page to sign in posts to the same address.
        let pushed = state.pushed.get(name).filter(|pushed| self.clock.now() < pushed.expires_at);
        let pushed = pushed.ok_or("the request_uri is not known any more")?;
        if pushed.parameters.get("client_id") != query.get("client_id") {
            return Err("the request_uri is another client's");
        }
        if query.len() > 2 {
            return Err("there is more than client_id and request_uri");
        }
        Ok(pushed.parameters.clone())
    }

    /// A pushed request has led to an answer.
    pub(super) fn is_answered(&self, query: &Parameters) {
        if let Some(name) = query.get("request_uri") {
            self.state().pushed.remove(name);
        }
    }
}

/// The client that an assertion names, which nobody has checked.
fn by_assertion(assertion: &str) -> Option<String> {
    let claims = super::logout::claims(assertion)?;
    Some(claims.get("sub")?.as_str()?.to_owned())
}

/// The pushed authorization request endpoint (RFC 9126).
pub(super) async fn push(
    State(shared): State<Arc<Shared>>,
    Shown(certificate): Shown,
    headers: HeaderMap,
    Form(form): Form<Parameters>,
) -> Response {
    let client_id = shared.authenticate(&headers, &form, certificate.as_ref()).await;
    let Some(client_id) = client_id.filter(|id| form.get("client_id") == Some(id)) else {
        return failure(StatusCode::UNAUTHORIZED, "invalid_client");
    };
    let mut state = shared.state();
    let redirect_uri = form.get("redirect_uri");
    let is_registered = state
        .clients
        .get(&client_id)
        .is_some_and(|client| redirect_uri.is_some_and(|uri| client.redirect_uris.contains(uri)));
    if !is_registered || form.contains_key("request_uri") {
        return failure(StatusCode::BAD_REQUEST, "invalid_request");
    }
    let own = ["client_secret", "client_assertion", "client_assertion_type"];
    let parameters = form.into_iter().filter(|(name, _)| !own.contains(&name.as_str())).collect();
    let name = format!("{NAME}{}", random());
    let expires_at = shared.clock.now() + PUSHED_LIFETIME;
    state.pushed.insert(name.clone(), Pushed { parameters, expires_at });
    let body = json!({"request_uri": name, "expires_in": PUSHED_LIFETIME.as_secs()});
    (StatusCode::CREATED, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}
