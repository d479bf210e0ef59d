//! Proofs that the application holds the key which its tokens are bound to
//! ([RFC 9449](https://www.rfc-editor.org/rfc/rfc9449)).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use axum::BoxError;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::json;
use url::Url;

use super::signing_key::SigningKey;
use crate::protocol::jwt::seconds;
use crate::protocol::names::{AccessToken, KeyThumbprint};
use crate::session::id::random_text;

/// The header of a proof.
pub(crate) const DPOP: HeaderName = HeaderName::from_static("dpop");
/// What a server wants in the next proof (§8).
const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");
/// The error of a server that wants another nonce.
pub(crate) const USE_DPOP_NONCE: &str = "use_dpop_nonce";
/// The error of a server that does not take a proof: it may have come late.
pub(crate) const INVALID_DPOP_PROOF: &str = "invalid_dpop_proof";

/// The keys, and what each server said last.
#[derive(Debug)]
pub(crate) struct Dpop {
    /// New tokens are bound to it.
    current: SigningKey,
    /// Tokens that sessions have may be bound to these.
    others: Vec<SigningKey>,
    /// By origin: the provider's, and those of the APIs that are listed.
    nonces: Mutex<HashMap<String, HeaderValue>>,
}

/// Whether a server said which nonce the next proof has to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nonce {
    Given,
    NotGiven,
}

impl Dpop {
    pub(crate) fn new(current: SigningKey, others: Vec<SigningKey>) -> Self {
        Self { current, others, nonces: Mutex::default() }
    }

    /// The key that new tokens are bound to.
    pub(crate) fn current(&self) -> &SigningKey {
        &self.current
    }

    /// The key of this thumbprint.
    pub(crate) fn key(&self, thumbprint: &KeyThumbprint) -> Option<&SigningKey> {
        std::iter::once(&self.current).chain(&self.others).find(|key| key.thumbprint() == thumbprint)
    }

    /// A proof for one request (§4.2), with the nonce that its server gave last.
    pub(crate) async fn proof(
        &self,
        key: &SigningKey,
        (method, url): (&Method, &Url),
        token: Option<&AccessToken>,
        now: SystemTime,
    ) -> Result<HeaderValue, BoxError> {
        let nonce = self.nonces().get(&origin(url)).and_then(|nonce| nonce.to_str().ok().map(str::to_owned));
        let mut htu = url.clone();
        htu.set_query(None);
        htu.set_fragment(None);
        let mut claims =
            json!({"jti": random_text(), "htm": method.as_str(), "htu": htu.as_str(), "iat": seconds(now)});
        let token_hash = token.map(|token| URL_SAFE_NO_PAD.encode(digest(&SHA256, token.secret().as_bytes())));
        let optional = [("ath", token_hash), ("nonce", nonce)];
        if let Some(claims) = claims.as_object_mut() {
            claims.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))));
        }
        let header = json!({"typ": "dpop+jwt", "alg": key.alg().as_str(), "jwk": key.public_jwk()});
        let mut proof = HeaderValue::try_from(key.sign(&header, &claims).await?)?;
        proof.set_sensitive(true);
        Ok(proof)
    }

    /// Remembers the nonce that an answer of a server brings.
    pub(crate) fn note(&self, url: &Url, headers: &HeaderMap) -> Nonce {
        let Some(nonce) = headers.get(DPOP_NONCE) else { return Nonce::NotGiven };
        self.nonces().insert(origin(url), nonce.clone());
        Nonce::Given
    }

    fn nonces(&self) -> std::sync::MutexGuard<'_, HashMap<String, HeaderValue>> {
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn part(jwt: &str, number: usize) -> Value {
        let part = jwt.split('.').nth(number).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_proof_is_that_of_rfc_9449() {
        let key = SigningKey::from_pem(rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let dpop = Dpop::new(key.clone(), Vec::new());
        // The token and its hash of §7.1.
        let token = AccessToken::new("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU");
        let hash = "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo";
        let url = Url::parse("https://resource.example.org/protectedresource?a=b#c").unwrap();
        let (at, mut headers) =
            (SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_562_262_618), HeaderMap::new());
        let shown = dpop.proof(&key, (&Method::GET, &url), Some(&token), at).await.unwrap();
        let (header, claims) = (part(shown.to_str().unwrap(), 0), part(shown.to_str().unwrap(), 1));
        assert_eq!(header, json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": key.public_jwk()}));
        assert!(shown.is_sensitive() && claims["jti"].as_str().unwrap().len() >= 16 && claims.get("nonce").is_none());
        let said = [&claims["htm"], &claims["htu"], &claims["ath"]];
        assert_eq!(said, ["GET", "https://resource.example.org/protectedresource", hash]);
        assert_eq!(claims["iat"], 1_562_262_618);
        // At the token endpoint there is no token yet; a nonce is its server's.
        headers.insert(DPOP_NONCE, HeaderValue::from_static("n"));
        assert_eq!(dpop.note(&url, &headers), Nonce::Given);
        for (there, nonce) in [("https://resource.example.org/x", json!("n")), ("https://other.example/x", Value::Null)]
        {
            let shown = dpop.proof(&key, (&Method::POST, &Url::parse(there).unwrap()), None, at).await.unwrap();
            let claims = part(shown.to_str().unwrap(), 1);
            assert_eq!((claims["nonce"].clone(), claims.get("ath")), (nonce, None), "{there}");
        }
    }
}
