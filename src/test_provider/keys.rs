//! Signing keys and JWTs.

use std::sync::{LazyLock, Mutex, PoisonError};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::random;

/// How the provider signs ID tokens and logout tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SigningAlg {
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[default]
    RS256,
}

enum Pair {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    /// An index into the keys that all providers of the process share: making one takes a while.
    Rsa(usize),
}

pub(super) struct SigningKey {
    kid: String,
    pair: Pair,
}

static RSA_KEYS: LazyLock<Mutex<Vec<RsaKeyPair>>> = LazyLock::new(|| Mutex::new(Vec::new()));

fn with_rsa<T>(index: usize, work: impl FnOnce(&RsaKeyPair) -> T) -> Option<T> {
    let mut keys = RSA_KEYS.lock().unwrap_or_else(PoisonError::into_inner);
    while keys.len() <= index {
        keys.push(RsaKeyPair::generate(KeySize::Rsa2048).ok()?);
    }
    keys.get(index).map(work)
}

impl SigningKey {
    /// The key number `index` of a provider.
    pub(super) fn generate(alg: SigningAlg, index: usize) -> Option<Self> {
        let pair = match alg {
            SigningAlg::ES256 => Pair::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?),
            SigningAlg::EdDSA => Pair::Ed(Ed25519KeyPair::generate().ok()?),
            SigningAlg::RS256 => Pair::Rsa(index),
        };
        Some(Self { kid: random(), pair })
    }

    /// Another key under the same name, as a forger would make it.
    pub(super) fn forged(&self, alg: SigningAlg) -> Option<Self> {
        // Beyond the rotations of any test.
        const FORGERS: usize = 4;
        Some(Self { kid: self.kid.clone(), ..Self::generate(alg, FORGERS)? })
    }

    fn alg(&self) -> &'static str {
        match self.pair {
            Pair::Ec(_) => "ES256",
            Pair::Ed(_) => "EdDSA",
            Pair::Rsa(_) => "RS256",
        }
    }

    /// The public half, as in the JWK Set.
    pub(super) fn jwk(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match &self.pair {
            Pair::Ec(pair) => {
                // The uncompressed point: 4, x, y.
                let (x, y) = pair.public_key().as_ref().split_at(33);
                json!({"kty": "EC", "crv": "P-256", "x": encode(x.get(1..).unwrap_or_default()), "y": encode(y)})
            }
            Pair::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref())}),
            Pair::Rsa(index) => with_rsa(*index, |pair| {
                let parts: PublicKeyComponents<Vec<u8>> = pair.public_key().into();
                json!({"kty": "RSA", "n": encode(&parts.n), "e": encode(&parts.e)})
            })
            .unwrap_or_default(),
        };
        for (name, value) in [("kid", self.kid.as_str()), ("use", "sig"), ("alg", self.alg())] {
            jwk[name] = value.into();
        }
        jwk
    }

    /// A JWT with these header parameters; `alg` and `kid` are filled in where they are missing.
    pub(super) fn sign(&self, header: &Value, claims: &Value) -> String {
        let mut full = Map::new();
        full.insert("alg".to_owned(), self.alg().into());
        full.insert("kid".to_owned(), self.kid.clone().into());
        full.extend(header.as_object().cloned().unwrap_or_default());
        // A null takes a parameter away.
        full.retain(|_, value| !value.is_null());
        let unsigned = full.get("alg").is_some_and(|alg| alg == "none");
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(&Value::Object(full)), encode(claims));
        let signature = if unsigned { Vec::new() } else { self.signature(message.as_bytes()) };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        let rng = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Ec(pair) => pair.sign(&rng, message).ok().map(|signature| signature.as_ref().to_vec()),
            Pair::Ed(pair) => Some(pair.sign(message).as_ref().to_vec()),
            Pair::Rsa(index) => with_rsa(*index, |pair| {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &rng, message, &mut signature).ok().map(|()| signature)
            })
            .flatten(),
        };
        signature.unwrap_or_default()
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).field("alg", &self.alg()).finish_non_exhaustive()
    }
}
