//! The discovery document and the key set.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Shared;
use super::state::{IssuerInResponse, PushedRequests};

pub(super) async fn discovery(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let at = |path| shared.at(path);
    let state = shared.state();
    let mut metadata = json!({
        "issuer": shared.issuer,
        "authorization_endpoint": at("/authorize"),
        "token_endpoint": at("/token"),
        "userinfo_endpoint": at("/userinfo"),
        "jwks_uri": at("/jwks"),
        "introspection_endpoint": at("/introspect"),
        "revocation_endpoint": at("/revoke"),
        "end_session_endpoint": at("/logout"),
        "scopes_supported": ["openid", "profile", "offline_access"],
        "response_types_supported": ["code"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [shared.alg.as_str()],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "private_key_jwt",
            "self_signed_tls_client_auth"],
        "token_endpoint_auth_signing_alg_values_supported": ["ES256", "EdDSA", "PS256"],
        "dpop_signing_alg_values_supported": ["ES256", "EdDSA", "PS256"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported":
            state.settings.issuer_in_response == IssuerInResponse::Present,
        "backchannel_logout_supported": true,
        "backchannel_logout_session_supported": true,
    });
    if state.settings.pushed_requests != PushedRequests::NotTaken {
        metadata["pushed_authorization_request_endpoint"] = at("/par").into();
        metadata["require_pushed_authorization_requests"] =
            (state.settings.pushed_requests == PushedRequests::Required).into();
    }
    if let Some(tamper) = state.tampering.metadata.clone() {
        tamper(&mut metadata);
    }
    Json(metadata)
}

pub(super) async fn jwks(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let state = shared.state();
    let keys: Vec<Value> = state.keys.iter().map(|key| key.jwk()).collect();
    let mut jwks = json!({ "keys": keys });
    if let Some(tamper) = state.tampering.jwks.clone() {
        tamper(&mut jwks);
    }
    Json(jwks)
}
