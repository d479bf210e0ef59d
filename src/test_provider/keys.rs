//! Signing keys and JWTs.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::random;
use crate::protocol::jwt::SigningAlg;
use crate::protocol::key_pair::{KeyPair, Secret};

pub(super) struct SigningKey {
    kid: String,
    pair: KeyPair,
}

/// All providers of the process share them: making one takes a while.
static RSA_KEYS: LazyLock<Mutex<Vec<Arc<RsaKeyPair>>>> = LazyLock::new(|| Mutex::new(Vec::new()));

fn rsa(index: usize) -> Option<Arc<RsaKeyPair>> {
    let mut keys = RSA_KEYS.lock().unwrap_or_else(PoisonError::into_inner);
    while keys.len() <= index {
        keys.push(Arc::new(RsaKeyPair::generate(KeySize::Rsa2048).ok()?));
    }
    keys.get(index).cloned()
}

impl SigningKey {
    /// The key number `index` of a provider.
    pub(super) fn generate(alg: SigningAlg, index: usize) -> Option<Self> {
        let secret = match alg {
            SigningAlg::ES256 => Secret::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?),
            SigningAlg::ES384 => Secret::Ec(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).ok()?),
            SigningAlg::EdDSA => Secret::Ed(Ed25519KeyPair::generate().ok()?),
            SigningAlg::PS256
            | SigningAlg::PS384
            | SigningAlg::PS512
            | SigningAlg::RS256
            | SigningAlg::RS384
            | SigningAlg::RS512 => Secret::Rsa(rsa(index)?),
        };
        Some(Self { kid: random(), pair: KeyPair::new(alg, secret) })
    }

    /// Another key under the same name, as a forger would make it.
    pub(super) fn forged(&self) -> Option<Self> {
        // Beyond the rotations of any test.
        const FORGERS: usize = 4;
        Some(Self { kid: self.kid.clone(), ..Self::generate(self.pair.alg(), FORGERS)? })
    }

    /// The public half, as in the JWK Set.
    pub(super) fn jwk(&self) -> Value {
        let mut jwk = self.pair.public_jwk();
        for (name, value) in [("kid", self.kid.as_str()), ("use", "sig"), ("alg", self.pair.alg().as_str())] {
            jwk[name] = value.into();
        }
        jwk
    }

    /// A JWT with these header parameters; `alg` and `kid` are filled in where they are missing.
    pub(super) fn sign(&self, header: &Value, claims: &Value) -> String {
        let mut full = Map::new();
        full.insert("alg".to_owned(), self.pair.alg().as_str().into());
        full.insert("kid".to_owned(), self.kid.clone().into());
        full.extend(header.as_object().cloned().unwrap_or_default());
        // A null takes a parameter away.
        full.retain(|_, value| !value.is_null());
        let unsigned = full.get("alg").is_some_and(|alg| alg == "none");
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(&Value::Object(full)), encode(claims));
        let signature = if unsigned { Vec::new() } else { self.pair.sign(message.as_bytes()).unwrap_or_default() };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).field("pair", &self.pair).finish_non_exhaustive()
    }
}
