//! What clients sign: assertions and proofs, checked strictly.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value};

use super::state::State;
use super::{Shared, random, seconds};

/// Assertions and proofs are good for so long, and may come from a clock that is ahead by no more.
const LIFETIME: Duration = Duration::from_secs(60);
/// What clients may sign with (FAPI 2.0 Security Profile §5.4.1).
const ALGORITHMS: [Algorithm; 3] = [Algorithm::ES256, Algorithm::EdDSA, Algorithm::PS256];

/// Why a proof is not one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DpopError {
    /// It has no nonce, or one that is not taken any more; this is.
    UseNonce(String),
    /// It is wrong, and why.
    Invalid(&'static str),
}

fn verify(token: &str, key: &Jwk, algorithm: Algorithm) -> Option<Map<String, Value>> {
    let mut validation = Validation::new(algorithm);
    // Times go by the provider's clock.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims = HashSet::new();
    let key = DecodingKey::from_jwk(key).ok()?;
    jsonwebtoken::decode(token, &key, &validation).ok().map(|token| token.claims)
}

fn text<'c>(claims: &'c Map<String, Value>, name: &str) -> &'c str {
    claims.get(name).and_then(Value::as_str).unwrap_or_default()
}

impl State {
    /// Takes a `jti` that nobody has used before.
    fn use_once(&mut self, kind: &str, jti: &str) -> bool {
        !jti.is_empty() && self.used_jtis.insert(format!("{kind} {jti}"))
    }

    /// The nonce that proofs have to have now.
    pub(super) fn dpop_nonce(&mut self) -> String {
        self.dpop_nonce.get_or_insert_with(random).clone()
    }
}

impl Shared {
    /// The keys that a client publishes.
    pub(super) async fn keys_of(&self, jwks_uri: &str) -> Option<Vec<Jwk>> {
        let answer = self.http.get(jwks_uri).send().await.ok()?.bytes().await.ok()?;
        let set: Value = serde_json::from_slice(&answer).ok()?;
        let keys = set.get("keys")?.as_array()?.iter();
        Some(keys.filter_map(|key| serde_json::from_value(key.clone()).ok()).collect())
    }

    /// The client that an assertion is by, with one of these keys (RFC 7523 §3).
    pub(super) fn check_assertion(&self, assertion: &str, client_id: &str, keys: &[Jwk]) -> bool {
        let Ok(header) = jsonwebtoken::decode_header(assertion) else { return false };
        if !ALGORITHMS.contains(&header.alg) {
            return false;
        }
        let mut named = keys.iter().filter(|key| key.common.key_id == header.kid && header.kid.is_some());
        let Some(claims) = named.find_map(|key| verify(assertion, key, header.alg)) else { return false };
        let now = seconds(self.clock.now());
        let number = |name: &str| claims.get(name).and_then(Value::as_u64).unwrap_or_default();
        // Not longer than it has to be, by a clock that may be ahead.
        let is_timely = number("exp") > now
            && number("exp").saturating_sub(number("iat")) <= LIFETIME.as_secs()
            && number("iat") <= now + LIFETIME.as_secs();
        text(&claims, "iss") == client_id
            && text(&claims, "sub") == client_id
            && text(&claims, "aud") == self.issuer
            && is_timely
            && self.state().use_once("assertion", text(&claims, "jti"))
    }

    /// The thumbprint of the key that a request proves to have, if it has a proof; for an access token, if one goes with it
    /// (RFC 9449 §4.3).
    pub(super) fn check_proof(
        &self,
        (method, url): (&str, &str),
        headers: &HeaderMap,
        access_token: Option<&str>,
    ) -> Result<Option<String>, DpopError> {
        let mut proofs = headers.get_all("dpop").iter();
        let Some(proof) = proofs.next() else { return Ok(None) };
        let invalid = DpopError::Invalid;
        if proofs.next().is_some() {
            return Err(invalid("there are several"));
        }
        let proof = proof.to_str().map_err(|_| invalid("it is no JWT"))?;
        (self.on_secret)(proof);
        let header = jsonwebtoken::decode_header(proof).map_err(|_| invalid("it is no JWT"))?;
        if header.typ.as_deref() != Some("dpop+jwt") {
            return Err(invalid("its typ is wrong"));
        }
        if !ALGORITHMS.contains(&header.alg) {
            return Err(invalid("its alg is wrong"));
        }
        let raw = proof.split('.').next().and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        let raw: Map<String, Value> = raw.and_then(|raw| serde_json::from_slice(&raw).ok()).unwrap_or_default();
        if raw.get("jwk").is_some_and(|jwk| ["d", "p", "q", "k"].iter().any(|name| jwk.get(name).is_some())) {
            return Err(invalid("it shows a private key"));
        }
        let key = header.jwk.ok_or(invalid("it has no key"))?;
        let claims = verify(proof, &key, header.alg).ok_or(invalid("its signature is wrong"))?;
        if text(&claims, "htm") != method {
            return Err(invalid("its htm is wrong"));
        }
        if text(&claims, "htu") != url {
            return Err(invalid("its htu is wrong"));
        }
        let token_hash = access_token.map(|token| URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes())));
        if token_hash.as_deref() != claims.get("ath").and_then(Value::as_str) {
            return Err(invalid("its ath is wrong"));
        }
        let now = seconds(self.clock.now());
        let iat = claims.get("iat").and_then(Value::as_u64).ok_or(invalid("it has no iat"))?;
        if now.abs_diff(iat) > LIFETIME.as_secs() {
            return Err(invalid("its iat is wrong"));
        }
        let mut state = self.state();
        if state.settings.dpop_nonces == super::DpopNonces::Required {
            let nonce = state.dpop_nonce();
            if text(&claims, "nonce") != nonce {
                return Err(DpopError::UseNonce(nonce));
            }
        }
        if !state.use_once("proof", text(&claims, "jti")) {
            return Err(invalid("its jti was used before"));
        }
        key.thumbprint(ThumbprintHash::SHA256).map(Some).map_err(|_| invalid("its key is none"))
    }
}

/// What an access token is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    Nothing,
    /// The key of this thumbprint (RFC 9449 §6).
    Key(String),
    /// The certificate with this hash (RFC 8705 §3.1).
    Certificate(Arc<str>),
}

impl Binding {
    /// The claim `cnf`.
    pub(super) fn confirmation(&self) -> Value {
        match self {
            Self::Nothing => Value::Null,
            Self::Key(jkt) => serde_json::json!({ "jkt": jkt }),
            Self::Certificate(hash) => serde_json::json!({ "x5t#S256": &**hash }),
        }
    }
}
