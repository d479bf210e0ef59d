//! The application's own keys: they sign client assertions and DPoP proofs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::BoxError;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use serde_json::{Map, Value, json};

use crate::error::ConfigError;
use crate::protocol::jwt::SigningAlg;
use crate::protocol::key_pair::KeyPair;
use crate::protocol::names::KeyThumbprint;

/// FAPI 2.0 Security Profile §5.4.1.
const MIN_RSA_BITS: usize = 2048;

/// A signer that has not signed after this time does not: nothing is sent.
const SIGN_TIMEOUT: Duration = Duration::from_secs(5);

const TAKES: &str =
    "a private key as PEM or JWK: P-256 (signs with ES256), Ed25519 (EdDSA) or RSA of at least 2048 bits (PS256)";

/// A key of the application's own, for [`private_key_jwt`](crate::ClientAuthentication::PrivateKeyJwt) and
/// [DPoP](crate::RelyingPartyBuilder::dpop). Clones share it.
///
/// ```
/// # fn main() -> Result<(), tower_oidc_session::ConfigError> {
/// use tower_oidc_session::{ClientAuthentication, ClientCredentials, SigningKey};
///
/// // As made by: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256
/// # let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
/// let key = SigningKey::from_pem(&pem)?;
/// let credentials = ClientCredentials::new("shop", ClientAuthentication::PrivateKeyJwt(key));
/// # drop(credentials);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SigningKey {
    alg: SigningAlg,
    id: Arc<str>,
    /// Without `kid`, `use` and `alg`.
    public: Arc<Value>,
    thumbprint: KeyThumbprint,
    signer: Arc<dyn Signer>,
}

/// What signs for the application where the private key is not in its memory: a KMS or an HSM. The trait is made with the crate
/// `async_trait`, as it has to be object safe.
#[async_trait]
pub trait Signer: fmt::Debug + Send + Sync + 'static {
    /// The signature of `message` as in a JWS ([RFC 7518 §3](https://www.rfc-editor.org/rfc/rfc7518#section-3)): of ECDSA the two
    /// numbers of 32 bytes one after the other, not their ASN.1.
    ///
    /// # Errors
    /// If it cannot sign now, nor after five seconds. Nothing is sent then, so no token is spent and no session ends.
    ///
    /// # Cancel safety
    /// The future is dropped when the five seconds are over.
    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, BoxError>;
}

#[async_trait]
impl Signer for KeyPair {
    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, BoxError> {
        Self::sign(self, message).map_err(|_| "the key cannot sign".into())
    }
}

impl SigningKey {
    /// Reads a private key in PEM: PKCS#8, PKCS#1 or SEC 1, not encrypted. P-256 signs with ES256, Ed25519 with EdDSA, RSA with PS256.
    ///
    /// # Errors
    /// If there is no such key in it.
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        // Not repeated: it is a secret.
        let pair = KeyPair::from_pem(pem.as_ref());
        Self::of_pair(pair.ok_or_else(|| ConfigError::new("signing_key", "no such key", TAKES))?, None)
    }

    /// Reads a private key as a JWK, whose `kid` is its name if it has one.
    ///
    /// # Errors
    /// If it is no private key of such a kind.
    pub fn from_jwk(json: &str) -> Result<Self, ConfigError> {
        let jwk: Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
        let id = jwk.get("kid").and_then(Value::as_str);
        let pair = KeyPair::from_jwk(&jwk);
        Self::of_pair(pair.ok_or_else(|| ConfigError::new("signing_key", "no such key", TAKES))?, id)
    }

    /// A key that `signer` signs with, by its public JWK; `alg` says with what, where the kind of key leaves that open.
    ///
    /// # Errors
    /// If it is no public key of a kind that is supported.
    pub fn from_signer(public_jwk: &str, signer: impl Signer) -> Result<Self, ConfigError> {
        let jwk: Map<String, Value> = serde_json::from_str(public_jwk).unwrap_or_default();
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let (alg, members): (_, &[&str]) = match (text("kty"), text("crv")) {
            (Some("EC"), Some("P-256")) => (SigningAlg::ES256, &["crv", "kty", "x", "y"]),
            (Some("OKP"), Some("Ed25519")) => (SigningAlg::EdDSA, &["crv", "kty", "x"]),
            (Some("RSA"), _) => (SigningAlg::PS256, &["e", "kty", "n"]),
            _ => return Err(ConfigError::new("signing_key", "no such key", TAKES)),
        };
        let public: Map<String, Value> =
            members.iter().filter_map(|name| Some(((*name).to_owned(), text(name)?.into()))).collect();
        if public.len() < members.len() || text("alg").is_some_and(|named| named != alg.as_str()) {
            return Err(ConfigError::new("signing_key", "a public key that lacks a member, or of another alg", TAKES));
        }
        Self::new(alg, Value::Object(public), text("kid"), Arc::new(signer))
    }

    /// The same key under another name, the `kid`; default: its thumbprint ([RFC 7638](https://www.rfc-editor.org/rfc/rfc7638)), or
    /// what its JWK says. For a provider that names keys itself.
    #[must_use]
    pub fn with_key_id(self, id: impl Into<String>) -> Self {
        Self { id: id.into().into(), ..self }
    }

    fn of_pair(pair: KeyPair, id: Option<&str>) -> Result<Self, ConfigError> {
        Self::new(pair.alg(), pair.public_jwk(), id, Arc::new(pair))
    }

    fn new(alg: SigningAlg, public: Value, id: Option<&str>, signer: Arc<dyn Signer>) -> Result<Self, ConfigError> {
        let modulus = public.get("n").and_then(Value::as_str).and_then(|n| URL_SAFE_NO_PAD.decode(n).ok());
        if modulus.is_some_and(|modulus| modulus.len() * 8 < MIN_RSA_BITS) {
            return Err(ConfigError::new("signing_key", "an RSA key of less than 2048 bits", TAKES));
        }
        let jwk: Option<Jwk> = serde_json::from_value(public.clone()).ok();
        let thumbprint = jwk.and_then(|jwk| jwk.thumbprint(ThumbprintHash::SHA256).ok());
        let thumbprint = thumbprint.map(KeyThumbprint::new);
        let thumbprint = thumbprint.ok_or_else(|| ConfigError::new("signing_key", "no public key", TAKES))?;
        let id = id.unwrap_or(thumbprint.as_str()).into();
        Ok(Self { alg, id, public: Arc::new(public), thumbprint, signer })
    }

    /// What it signs with, by its kind.
    #[must_use]
    pub fn alg(&self) -> SigningAlg {
        self.alg
    }

    pub(crate) fn thumbprint(&self) -> &KeyThumbprint {
        &self.thumbprint
    }

    /// The public key, without more than it is made of.
    pub(crate) fn public_jwk(&self) -> &Value {
        &self.public
    }

    /// The public key for the provider.
    pub(crate) fn published_jwk(&self) -> Value {
        let mut jwk = self.public.as_object().cloned().unwrap_or_default();
        for (name, value) in [("kid", &*self.id), ("use", "sig"), ("alg", self.alg.as_str())] {
            jwk.insert(name.to_owned(), value.into());
        }
        Value::Object(jwk)
    }

    /// A JWT that names the key by its `kid`.
    pub(crate) async fn sign_as_itself(&self, claims: &Value) -> Result<String, BoxError> {
        self.sign(&json!({"alg": self.alg.as_str(), "typ": "JWT", "kid": &*self.id}), claims).await
    }

    /// A JWT with this header.
    pub(crate) async fn sign(&self, header: &Value, claims: &Value) -> Result<String, BoxError> {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = tokio::time::timeout(SIGN_TIMEOUT, self.signer.sign(message.as_bytes())).await;
        let signature = signature.map_err(|_| "its signer did not answer in time")??;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("alg", &self.alg).field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::jwt::{KeySet, UnverifiedJwt};

    /// The key of RFC 9449 §4.2's example, and its thumbprint in §6.1.
    const EC: &str = r#"{"kty":"EC","x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
        "y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA","crv":"P-256"}"#;
    /// That of RFC 7638 §3.1.
    const RSA: &str = r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"PS256","kid":"2011-04-29"}"#;
    /// With its private part: RFC 8037, appendix A.
    const ED: &str = r#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    #[derive(Debug)]
    struct Nobody;

    #[async_trait]
    impl Signer for Nobody {
        async fn sign(&self, _: &[u8]) -> Result<Vec<u8>, BoxError> {
            Err("nobody signs".into())
        }
    }

    #[test]
    fn thumbprints_are_those_of_the_rfcs() {
        let of = |jwk: &str| SigningKey::from_signer(jwk, Nobody).unwrap();
        assert_eq!(of(EC).thumbprint().as_str(), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
        let rsa = of(RSA);
        assert_eq!(rsa.thumbprint().as_str(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        assert_eq!(rsa.published_jwk()["kid"], "2011-04-29");
        assert_eq!(rsa.clone().with_key_id("mine").published_jwk()["kid"], "mine");
        assert_eq!(of(ED).alg(), SigningAlg::EdDSA);
        let ed = SigningKey::from_jwk(ED).unwrap();
        assert_eq!(ed.thumbprint().as_str(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert!(ed.published_jwk().get("d").is_none());
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        for wrong in [
            "",
            "{}",
            r#"{"kty":"oct","k":"c2VjcmV0"}"#,
            &EC.replace("P-256", "P-384"),
            &EC.replace("\"x\"", "\"z\""),
            &RSA.replace("PS256", "RS256"),
            r#"{"kty":"RSA","n":"c2VjcmV0","e":"AQAB"}"#,
        ] {
            let error = SigningKey::from_signer(wrong, Nobody).unwrap_err().to_string();
            assert!(error.starts_with("signing_key is ") && !error.contains("c2VjcmV0"), "{wrong}: {error}");
        }
        let lacking = SigningKey::from_signer(&EC.replace("\"x\"", "\"z\""), Nobody).unwrap_err().to_string();
        assert!(lacking.contains("lacks a member"), "{lacking}");
        assert!(SigningKey::from_jwk(EC).is_err(), "there is no private part");
    }

    #[derive(Debug)]
    struct Silent;

    #[async_trait]
    impl Signer for Silent {
        async fn sign(&self, _: &[u8]) -> Result<Vec<u8>, BoxError> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_signer_that_hangs() {
        let key = SigningKey::from_signer(EC, Silent).unwrap();
        let error = key.sign_as_itself(&json!({})).await.unwrap_err().to_string();
        assert_eq!(error, "its signer did not answer in time");
    }

    /// With its private part: RFC 7517, appendix A.2.
    const PRIVATE_EC: &str = r#"{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","d":"870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE"}"#;

    /// A new RSA key as PKCS#8 and as PKCS#1 have it, in PEM, and as a JWK.
    fn rsa() -> [String; 3] {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let pkcs8 = pair.serialize_der();
        // The content of a DER value, and what comes after it.
        let read = |der: &[u8]| {
            let (size, start) = match der[1] {
                0x81 => (usize::from(der[2]), 3),
                0x82 => (usize::from(der[2]) << 8 | usize::from(der[3]), 4),
                short => (usize::from(short), 2),
            };
            (der[start..start + size].to_vec(), der[start + size..].to_vec())
        };
        let (_version, rest) = read(&read(&pkcs8).0);
        let (_alg, rest) = read(&rest);
        let pkcs1 = read(&rest).0;
        let (_version, mut rest) = read(&read(&pkcs1).0);
        let mut jwk = Map::from_iter([("kty".to_owned(), json!("RSA"))]);
        for name in ["n", "e", "d", "p", "q", "dp", "dq", "qi"] {
            let (number, after) = read(&rest);
            let zeros = number.iter().take_while(|byte| **byte == 0).count();
            jwk.insert(name.to_owned(), URL_SAFE_NO_PAD.encode(&number[zeros..]).into());
            rest = after;
        }
        let pkcs1 = base64::engine::general_purpose::STANDARD.encode(pkcs1);
        let pkcs1 = format!("-----BEGIN RSA PRIVATE KEY-----\n{pkcs1}\n-----END RSA PRIVATE KEY-----\n");
        [pair.serialize_pem(), pkcs1, Value::Object(jwk).to_string()]
    }

    #[test]
    fn a_key_is_the_same_however_it_is_written() {
        let public = |key: &SigningKey| {
            SigningKey::from_signer(&key.published_jwk().to_string(), Nobody).unwrap().thumbprint().as_str().to_owned()
        };
        let ec = SigningKey::from_jwk(PRIVATE_EC).unwrap();
        let parts: Value = serde_json::from_str(PRIVATE_EC).unwrap();
        let published = ec.published_jwk();
        assert_eq!((&published["x"], &published["y"]), (&parts["x"], &parts["y"]));
        assert_eq!((ec.alg(), public(&ec).as_str()), (SigningAlg::ES256, ec.thumbprint().as_str()));
        let [pkcs8, pkcs1, jwk] = rsa();
        let keys = [SigningKey::from_pem(&pkcs8), SigningKey::from_pem(&pkcs1), SigningKey::from_jwk(&jwk)];
        let [pkcs8, pkcs1, jwk] = keys.map(Result::unwrap);
        for key in [&pkcs1, &jwk] {
            assert_eq!((key.alg(), key.thumbprint()), (SigningAlg::PS256, pkcs8.thumbprint()));
            assert_eq!(public(key), pkcs8.thumbprint().as_str());
        }
    }

    #[tokio::test]
    async fn what_is_signed_verifies_by_what_is_published() {
        let pem = |alg: &'static rcgen::SignatureAlgorithm| {
            SigningKey::from_pem(rcgen::KeyPair::generate_for(alg).unwrap().serialize_pem()).unwrap()
        };
        let of_jwk = |jwk: &str| SigningKey::from_jwk(jwk).unwrap();
        for key in [
            pem(&rcgen::PKCS_ECDSA_P256_SHA256),
            pem(&rcgen::PKCS_ED25519),
            of_jwk(ED),
            of_jwk(PRIVATE_EC),
            of_jwk(&rsa()[2]),
        ] {
            let token = key.sign_as_itself(&json!({"iss": "shop"})).await.unwrap();
            let keys = json!({"keys": [key.published_jwk()]}).to_string();
            let keys = KeySet::parse(keys.as_bytes(), key.alg()).unwrap();
            assert!(UnverifiedJwt::parse(&token).unwrap().verify(&keys, key.alg()).is_ok(), "{key:?}");
        }
    }
}
