//! Private keys that sign JWTs ([RFC 7518 §3](https://www.rfc-editor.org/rfc/rfc7518#section-3)).

use std::sync::Arc;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Map, Value, json};

use super::jwt::SigningAlg;

/// A private key, and what it signs with.
pub(crate) struct KeyPair {
    alg: SigningAlg,
    secret: Secret,
}

pub(crate) enum Secret {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(Arc<RsaKeyPair>),
}

impl KeyPair {
    /// A key that fits the algorithm.
    #[cfg(feature = "test-provider")]
    pub(crate) fn new(alg: SigningAlg, secret: Secret) -> Self {
        Self { alg, secret }
    }

    /// The first key of a PEM text: PKCS#8, PKCS#1 or SEC 1. RSA of 2048 bits or more signs with PS256, P-256 with ES256.
    pub(crate) fn from_pem(pem: &[u8]) -> Option<Self> {
        let key = PrivateKeyDer::from_pem_slice(pem).ok()?;
        let der = key.secret_der();
        let rsa = || match &key {
            PrivateKeyDer::Pkcs1(_) => RsaKeyPair::from_der(der).ok(),
            _ => RsaKeyPair::from_pkcs8(der).ok(),
        };
        let ec = || EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der).ok();
        let ec_of_pkcs8 = || EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).ok();
        if let Some(pair) = ec_of_pkcs8().or_else(ec) {
            return Some(Self { alg: SigningAlg::ES256, secret: Secret::Ec(pair) });
        }
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return Some(Self { alg: SigningAlg::EdDSA, secret: Secret::Ed(pair) });
        }
        Some(Self { alg: SigningAlg::PS256, secret: Secret::Rsa(Arc::new(rsa()?)) })
    }

    /// The private key of a JWK ([RFC 7517](https://www.rfc-editor.org/rfc/rfc7517)), for the same algorithms.
    pub(crate) fn from_jwk(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        match (text("kty")?, text("crv")) {
            ("EC", Some("P-256")) => {
                let point = [vec![4], bytes("x")?, bytes("y")?].concat();
                let alg = &ECDSA_P256_SHA256_FIXED_SIGNING;
                let pair = EcdsaKeyPair::from_private_key_and_public_key(alg, &bytes("d")?, &point).ok()?;
                Some(Self { alg: SigningAlg::ES256, secret: Secret::Ec(pair) })
            }
            ("OKP", Some("Ed25519")) => {
                let pair = Ed25519KeyPair::from_seed_and_public_key(&bytes("d")?, &bytes("x")?).ok()?;
                Some(Self { alg: SigningAlg::EdDSA, secret: Secret::Ed(pair) })
            }
            ("RSA", _) => {
                let components = KeyPairComponents {
                    public_key: PublicKeyComponents { n: bytes("n")?, e: bytes("e")? },
                    d: bytes("d")?,
                    p: bytes("p")?,
                    q: bytes("q")?,
                    dP: bytes("dp")?,
                    dQ: bytes("dq")?,
                    qInv: bytes("qi")?,
                };
                let pair = RsaKeyPair::from_components(&components).ok()?;
                Some(Self { alg: SigningAlg::PS256, secret: Secret::Rsa(Arc::new(pair)) })
            }
            _ => None,
        }
    }

    pub(crate) fn alg(&self) -> SigningAlg {
        self.alg
    }

    /// The public half as a JWK, with the members that every such key has
    /// ([RFC 7638 §3.2](https://www.rfc-editor.org/rfc/rfc7638#section-3.2)).
    pub(crate) fn public_jwk(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match &self.secret {
            Secret::Ec(pair) => {
                // The uncompressed point: 4, x, y.
                let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
                let (x, y) = point.split_at(point.len() / 2);
                let curve = if self.alg == SigningAlg::ES384 { "P-384" } else { "P-256" };
                json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)})
            }
            Secret::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref())}),
            Secret::Rsa(pair) => {
                let parts: PublicKeyComponents<Vec<u8>> = pair.public_key().into();
                json!({"kty": "RSA", "n": encode(&parts.n), "e": encode(&parts.e)})
            }
        }
    }

    /// The signature of a JWS.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let rng = SystemRandom::new();
        match &self.secret {
            Secret::Ec(pair) => Ok(pair.sign(&rng, message)?.as_ref().to_vec()),
            Secret::Ed(pair) => Ok(pair.try_sign(message)?.as_ref().to_vec()),
            Secret::Rsa(pair) => {
                let encoding: &'static dyn RsaEncoding = match self.alg {
                    SigningAlg::RS256 => &RSA_PKCS1_SHA256,
                    SigningAlg::RS384 => &RSA_PKCS1_SHA384,
                    SigningAlg::RS512 => &RSA_PKCS1_SHA512,
                    SigningAlg::PS384 => &RSA_PSS_SHA384,
                    SigningAlg::PS512 => &RSA_PSS_SHA512,
                    _ => &RSA_PSS_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &rng, message, &mut signature)?;
                Ok(signature)
            }
        }
    }
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPair").field("alg", &self.alg).finish_non_exhaustive()
    }
}
