//! Signing keys and JWTs.

use std::sync::{LazyLock, Mutex, PoisonError};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::random;
use crate::protocol::jwt::SigningAlg;

enum Pair {
    Ec {
        curve: &'static str,
        pair: EcdsaKeyPair,
    },
    Ed(Ed25519KeyPair),
    Rsa {
        /// Into the keys that all providers of the process share: making one takes a while.
        index: usize,
        encoding: &'static dyn RsaEncoding,
    },
}

pub(super) struct SigningKey {
    kid: String,
    alg: SigningAlg,
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
            SigningAlg::ES256 => {
                Pair::Ec { curve: "P-256", pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()? }
            }
            SigningAlg::ES384 => {
                Pair::Ec { curve: "P-384", pair: EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).ok()? }
            }
            SigningAlg::EdDSA => Pair::Ed(Ed25519KeyPair::generate().ok()?),
            SigningAlg::PS256 => Pair::Rsa { index, encoding: &RSA_PSS_SHA256 },
            SigningAlg::PS384 => Pair::Rsa { index, encoding: &RSA_PSS_SHA384 },
            SigningAlg::PS512 => Pair::Rsa { index, encoding: &RSA_PSS_SHA512 },
            SigningAlg::RS256 => Pair::Rsa { index, encoding: &RSA_PKCS1_SHA256 },
            SigningAlg::RS384 => Pair::Rsa { index, encoding: &RSA_PKCS1_SHA384 },
            SigningAlg::RS512 => Pair::Rsa { index, encoding: &RSA_PKCS1_SHA512 },
        };
        Some(Self { kid: random(), alg, pair })
    }

    /// Another key under the same name, as a forger would make it.
    pub(super) fn forged(&self) -> Option<Self> {
        // Beyond the rotations of any test.
        const FORGERS: usize = 4;
        Some(Self { kid: self.kid.clone(), ..Self::generate(self.alg, FORGERS)? })
    }

    /// The public half, as in the JWK Set.
    pub(super) fn jwk(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match &self.pair {
            Pair::Ec { curve, pair } => {
                // The uncompressed point: 4, x, y.
                let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)})
            }
            Pair::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref())}),
            Pair::Rsa { index, .. } => with_rsa(*index, |pair| {
                let parts: PublicKeyComponents<Vec<u8>> = pair.public_key().into();
                json!({"kty": "RSA", "n": encode(&parts.n), "e": encode(&parts.e)})
            })
            .unwrap_or_default(),
        };
        for (name, value) in [("kid", self.kid.as_str()), ("use", "sig"), ("alg", self.alg.as_str())] {
            jwk[name] = value.into();
        }
        jwk
    }

    /// A JWT with these header parameters; `alg` and `kid` are filled in where they are missing.
    pub(super) fn sign(&self, header: &Value, claims: &Value) -> String {
        let mut full = Map::new();
        full.insert("alg".to_owned(), self.alg.as_str().into());
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
            Pair::Ec { pair, .. } => pair.sign(&rng, message).ok().map(|signature| signature.as_ref().to_vec()),
            Pair::Ed(pair) => Some(pair.sign(message).as_ref().to_vec()),
            Pair::Rsa { index, encoding } => with_rsa(*index, |pair| {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &rng, message, &mut signature).ok().map(|()| signature)
            })
            .flatten(),
        };
        signature.unwrap_or_default()
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).field("alg", &self.alg).finish_non_exhaustive()
    }
}
