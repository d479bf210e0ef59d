//! JSON Web Tokens of the provider: parsing, key choice, signature and the claims that ID and logout tokens share.
//!
//! [RFC 7515](https://www.rfc-editor.org/rfc/rfc7515), [RFC 7517](https://www.rfc-editor.org/rfc/rfc7517),
//! [RFC 7519](https://www.rfc-editor.org/rfc/rfc7519), [RFC 8725](https://www.rfc-editor.org/rfc/rfc8725).
//!
//! 1. The compact form has three parts, header and claims are JSON objects, `crit` is absent.
//! 2. `alg` is the one algorithm that was agreed on with the provider.
//! 3. The key is one that `kid` names, or the only one there is, and fits that algorithm.
//! 4. The signature is right.
//! 5. The claims are right: [`check_common`].

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};

use super::issuers::{Issuers, NotOurs};
use super::names::{ClientId, Issuer};

/// Tokens longer than this are refused unread.
const MAX_TOKEN_LENGTH: usize = 64 * 1024;

/// The signature algorithm of ID tokens and logout tokens, agreed on with the provider
/// (`id_token_signed_response_alg`).
///
/// Exactly one is accepted, so that no token can choose its own ([RFC 8725 §3.1](https://www.rfc-editor.org/rfc/rfc8725#section-3.1)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SigningAlg {
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// RSASSA-PSS with SHA-384.
    PS384,
    /// RSASSA-PSS with SHA-512.
    PS512,
    /// RSASSA-PKCS1-v1_5 with SHA-256: what Core prescribes where nothing else was agreed on.
    #[default]
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RS512,
}

impl SigningAlg {
    /// Every algorithm that is supported.
    pub const ALL: [Self; 9] = [
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
    ];

    /// The name on the wire, the `alg` header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
        }
    }

    /// The algorithm of that name, if it is supported.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|alg| alg.as_str() == name)
    }

    fn algorithm(self) -> Algorithm {
        match self {
            Self::ES256 => Algorithm::ES256,
            Self::ES384 => Algorithm::ES384,
            Self::EdDSA => Algorithm::EdDSA,
            Self::PS256 => Algorithm::PS256,
            Self::PS384 => Algorithm::PS384,
            Self::PS512 => Algorithm::PS512,
            Self::RS256 => Algorithm::RS256,
            Self::RS384 => Algorithm::RS384,
            Self::RS512 => Algorithm::RS512,
        }
    }

    /// The digest that `at_hash` uses with this algorithm (Core §3.1.3.6).
    pub(crate) fn digest(self) -> &'static aws_lc_rs::digest::Algorithm {
        match self {
            Self::ES256 | Self::PS256 | Self::RS256 => &aws_lc_rs::digest::SHA256,
            Self::ES384 | Self::PS384 | Self::RS384 => &aws_lc_rs::digest::SHA384,
            Self::EdDSA | Self::PS512 | Self::RS512 => &aws_lc_rs::digest::SHA512,
        }
    }

    fn fits(self, jwk: &Jwk) -> bool {
        let kind = match (&jwk.algorithm, self) {
            (
                AlgorithmParameters::RSA(_),
                Self::PS256 | Self::PS384 | Self::PS512 | Self::RS256 | Self::RS384 | Self::RS512,
            ) => true,
            (AlgorithmParameters::EllipticCurve(key), Self::ES256) => key.curve == EllipticCurve::P256,
            (AlgorithmParameters::EllipticCurve(key), Self::ES384) => key.curve == EllipticCurve::P384,
            (AlgorithmParameters::OctetKeyPair(key), Self::EdDSA) => key.curve == EllipticCurve::Ed25519,
            _ => false,
        };
        let named = match &jwk.common.key_algorithm {
            None => true,
            Some(KeyAlgorithm::ES256) => self == Self::ES256,
            Some(KeyAlgorithm::ES384) => self == Self::ES384,
            Some(KeyAlgorithm::EdDSA) => self == Self::EdDSA,
            Some(KeyAlgorithm::PS256) => self == Self::PS256,
            Some(KeyAlgorithm::PS384) => self == Self::PS384,
            Some(KeyAlgorithm::PS512) => self == Self::PS512,
            Some(KeyAlgorithm::RS256) => self == Self::RS256,
            Some(KeyAlgorithm::RS384) => self == Self::RS384,
            Some(KeyAlgorithm::RS512) => self == Self::RS512,
            Some(_) => false,
        };
        let for_signatures = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
        let operations = jwk.common.key_operations.as_ref();
        let for_verifying = operations.is_none_or(|operations| operations.contains(&KeyOperations::Verify));
        kind && named && for_signatures && for_verifying
    }
}

/// What an operator is to do about a token that is encrypted.
const ENCRYPTED: &str = "it is encrypted, which is not supported: have the provider sign it only";

/// Why a token was refused. Names claims and rules, never values.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("not a signed JWT: {0}")]
    Malformed(&'static str),
    #[error("the header parameter {0} {1}")]
    Header(&'static str, &'static str),
    #[error("no key of the provider fits: {0}")]
    Key(&'static str),
    #[error("the signature is wrong")]
    Signature,
    #[error("the claim {0} {1}")]
    Claim(&'static str, &'static str),
}

/// A parsed token whose signature nobody has checked yet.
#[derive(Debug)]
pub(crate) struct UnverifiedJwt<'a> {
    header: Map<String, Value>,
    claims: Map<String, Value>,
    message: &'a str,
    signature: Vec<u8>,
}

/// A token that the provider has signed; its claims are still to be checked.
#[derive(Debug)]
pub(crate) struct VerifiedJwt {
    typ: Option<Value>,
    claims: Map<String, Value>,
}

/// The keys of a JWK Set that fit the agreed algorithm.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeySet {
    keys: Vec<PublishedKey>,
}

#[derive(Clone, Debug)]
struct PublishedKey {
    id: Option<String>,
    /// Whose tokens it vouches for, where a provider of many tenants says so.
    issuer: Option<String>,
    key: DecodingKey,
}

impl KeySet {
    /// Reads a JWK Set; keys that cannot be read or do not fit `alg` are left out
    /// ([RFC 7517 §5](https://www.rfc-editor.org/rfc/rfc7517#section-5)). Without any other it is none: it must not take the
    /// place of a good one.
    pub(crate) fn parse(json: &[u8], alg: SigningAlg) -> Option<Self> {
        let set: Map<String, Value> = serde_json::from_slice(json).ok()?;
        let keys = set.get("keys")?.as_array()?;
        let keys = keys.iter().filter_map(|key| {
            let issuer = key.get("issuer").and_then(Value::as_str).map(str::to_owned);
            let mut jwk: Jwk = serde_json::from_value(key.clone()).ok()?;
            strip_zeros(&mut jwk);
            let key = alg.fits(&jwk).then(|| DecodingKey::from_jwk(&jwk).ok())??;
            Some(PublishedKey { id: jwk.common.key_id, issuer, key })
        });
        Some(Self { keys: keys.collect() }).filter(|set| !set.keys.is_empty())
    }

    /// Those of the keys that vouch for a token.
    pub(crate) fn vouching<'a>(&'a self, issuers: &Issuers, claims: &Map<String, Value>) -> Cow<'a, Self> {
        let vouches = |key: &PublishedKey| issuers.vouches(key.issuer.as_deref(), claims);
        if self.keys.iter().all(vouches) {
            return Cow::Borrowed(self);
        }
        Cow::Owned(Self { keys: self.keys.iter().filter(|key| vouches(key)).cloned().collect() })
    }

    /// The keys that may have signed a token: several only where they share the `kid` that it names, as providers publish
    /// them that count a kid anew or list a key twice (RFC 7517 §4.5 only says SHOULD).
    fn fitting(&self, kid: Option<&str>) -> Result<Vec<&DecodingKey>, TokenError> {
        let keys = self.keys.iter().filter(|key| kid.is_none() || key.id.as_deref() == kid);
        let keys: Vec<&DecodingKey> = keys.map(|key| &key.key).collect();
        match (keys.len(), kid) {
            (0, _) => Err(TokenError::Key("none has the token's kid")),
            (1, _) | (_, Some(_)) => Ok(keys),
            // Core §10.1: with several keys in the set, kid has to tell which.
            (_, None) => Err(TokenError::Key("there are several, and the token has no kid")),
        }
    }
}

impl<'a> UnverifiedJwt<'a> {
    pub(crate) fn parse(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN_LENGTH {
            return Err(TokenError::Malformed("too long"));
        }
        // RFC 7516 §3.1: five parts.
        if token.bytes().filter(|byte| *byte == b'.').count() == 4 {
            return Err(TokenError::Malformed(ENCRYPTED));
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed("not three parts"))?;
        let (header, claims) = message.split_once('.').ok_or(TokenError::Malformed("not three parts"))?;
        if claims.contains('.') {
            return Err(TokenError::Malformed("not three parts"));
        }
        let header = object(header).ok_or(TokenError::Malformed("the header is no JSON object"))?;
        // An extension that must be understood and is not makes the whole token invalid (RFC 7515 §4.1.11).
        if header.contains_key("crit") {
            return Err(TokenError::Header("crit", "lists extensions that are not understood"));
        }
        let claims = object(claims).ok_or(TokenError::Malformed("the claims are no JSON object"))?;
        let signature =
            URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed("the signature is not base64url"))?;
        Ok(Self { header, claims, message, signature })
    }

    /// The claims before anybody vouched for them: good for a look at `iss`, never for a decision in favour.
    pub(crate) fn unverified_claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// Whether newer keys of the provider could turn this failure into a success.
    pub(crate) fn may_need_newer_keys(&self, error: &TokenError) -> bool {
        match error {
            TokenError::Key(_) => true,
            // Without a kid a wrong signature may just mean that the only key was changed.
            TokenError::Signature => !self.header.contains_key("kid"),
            _ => false,
        }
    }

    /// Checks that `alg` is the algorithm that was agreed on: no key is needed to know that another is not.
    pub(crate) fn check_alg(&self, alg: SigningAlg) -> Result<(), TokenError> {
        if self.header.get("alg").and_then(Value::as_str) == Some(alg.as_str()) {
            return Ok(());
        }
        Err(TokenError::Header("alg", "is not the algorithm agreed on with the provider"))
    }

    /// Checks algorithm, key and signature, in this order; gives the token back if that fails.
    pub(crate) fn verify(self, keys: &KeySet, alg: SigningAlg) -> Result<VerifiedJwt, Box<(Self, TokenError)>> {
        match self.check_signature(keys, alg) {
            Ok(()) => Ok(self.trust_channel()),
            Err(error) => Err(Box::new((self, error))),
        }
    }

    /// Takes a token's word without its signature, because it came straight from the provider's token endpoint
    /// over an authenticated channel (Core §3.1.3.7 (6)). Never for a token that anybody else could have sent.
    pub(crate) fn trust_channel(self) -> VerifiedJwt {
        VerifiedJwt { typ: self.header.get("typ").cloned(), claims: self.claims }
    }

    fn check_signature(&self, keys: &KeySet, alg: SigningAlg) -> Result<(), TokenError> {
        self.check_alg(alg)?;
        let kid = match self.header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.as_str()),
            Some(_) => return Err(TokenError::Header("kid", "is not a string")),
        };
        let mut failure = TokenError::Signature;
        for key in keys.fitting(kid)? {
            match self.check_signature_by(key, alg) {
                Ok(()) => return Ok(()),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn check_signature_by(&self, key: &DecodingKey, alg: SigningAlg) -> Result<(), TokenError> {
        // The provider's factory directly: the process-wide default panics when another crate in the
        // application enables a second implementation.
        let verifier = (jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.verifier_factory)(&alg.algorithm(), key)
            .map_err(|_| TokenError::Key("it does not fit the algorithm"))?;
        verifier.verify(self.message.as_bytes(), &self.signature).map_err(|_| TokenError::Signature)
    }
}

impl VerifiedJwt {
    /// The `typ` header, as written.
    pub(crate) fn typ(&self) -> Result<Option<&str>, TokenError> {
        match &self.typ {
            None => Ok(None),
            Some(Value::String(typ)) => Ok(Some(typ)),
            Some(_) => Err(TokenError::Header("typ", "is not a string")),
        }
    }

    pub(crate) fn into_claims(self) -> Map<String, Value> {
        self.claims
    }
}

/// Takes leading zeros from the numbers of an RSA key: not what RFC 7518 §6.3.1 asks for, but what big integers of some
/// languages are written as.
fn strip_zeros(jwk: &mut Jwk) {
    let AlgorithmParameters::RSA(numbers) = &mut jwk.algorithm else { return };
    for number in [&mut numbers.n, &mut numbers.e] {
        // What is not base64url is no key, which is found later.
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(number.as_bytes()) else { continue };
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        *number = URL_SAFE_NO_PAD.encode(bytes.split_at(zeros).1);
    }
}

fn object(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// What the common claims are compared with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    pub(crate) issuers: &'a Issuers,
    pub(crate) client_id: &'a ClientId,
    pub(crate) at: Moment,
}

/// When a token is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) now: SystemTime,
    /// How far the provider's clock may be from ours.
    pub(crate) tolerance: Duration,
}

/// Checks `iss`, `aud`, `azp`, `nbf` and `iat`; returns `iat`.
///
/// Further audiences are accepted if `azp` says that the token was issued to this client (Core §3.1.3.7 (3) to (5)): some
/// providers name a project or their own APIs besides. Where that is too much, see [`check_audience_alone`].
///
/// `exp` is left to the caller: logout tokens of some providers have none.
pub(crate) fn check_common(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<SystemTime, TokenError> {
    issuer(claims, expected)?;
    let party = text(claims, "azp")?;
    if party.is_some_and(|party| party != expected.client_id.as_str()) {
        return Err(TokenError::Claim("azp", "is not this client"));
    }
    match audience(claims, expected.client_id)? {
        Audience::Alone => {}
        Audience::AmongOthers if party.is_some() => {}
        Audience::AmongOthers => return Err(TokenError::Claim("aud", "has others, and azp does not name this client")),
    }
    check_not_before(claims, expected.at)
}

/// The issuer of a token, which has to be one of those that are expected.
pub(crate) fn issuer(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<Issuer, TokenError> {
    // That it is text, and not empty, is for all claims of this kind to be said in the same words.
    text(claims, "iss")?;
    expected.issuers.of_token(claims).map_err(|not_ours| match not_ours {
        NotOurs::Issuer => TokenError::Claim("iss", "is not the configured issuer"),
        NotOurs::Tenant => TokenError::Claim("tid", "is not the tenant of the issuer"),
    })
}

/// Checks `nbf` and `iat`; returns `iat`.
pub(crate) fn check_not_before(claims: &Map<String, Value>, at: Moment) -> Result<SystemTime, TokenError> {
    let latest = at.now + at.tolerance;
    if date(claims, "nbf")?.is_some_and(|not_before| not_before > latest) {
        return Err(TokenError::Claim("nbf", "is in the future"));
    }
    let issued_at = date(claims, "iat")?.ok_or(TokenError::Claim("iat", "is missing"))?;
    if issued_at > latest {
        return Err(TokenError::Claim("iat", "is in the future"));
    }
    Ok(issued_at)
}

/// Checks that nobody else is meant.
pub(crate) fn check_audience_alone(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<(), TokenError> {
    match audience(claims, expected.client_id)? {
        Audience::Alone => Ok(()),
        Audience::AmongOthers => Err(TokenError::Claim("aud", "is not this client alone")),
    }
}

/// Checks that this client is meant too, where the claims say who is: signed userinfo answers have to say so (Core §5.3.2), and
/// some do not.
pub(crate) fn check_audience_if_any(claims: &Map<String, Value>, client_id: &ClientId) -> Result<(), TokenError> {
    if claims.contains_key("aud") {
        audience(claims, client_id)?;
    }
    Ok(())
}

/// Who a token that is meant for this client is meant for besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audience {
    Alone,
    AmongOthers,
}

fn audience(claims: &Map<String, Value>, client_id: &ClientId) -> Result<Audience, TokenError> {
    let is_ours = |audience: &Value| audience.as_str() == Some(client_id.as_str());
    match claims.get("aud") {
        None => Err(TokenError::Claim("aud", "is missing")),
        Some(Value::Array(list)) if !list.iter().all(Value::is_string) => {
            Err(TokenError::Claim("aud", "is not a list of strings"))
        }
        Some(Value::Array(list)) if !list.is_empty() && list.iter().all(is_ours) => Ok(Audience::Alone),
        Some(Value::Array(list)) if list.iter().any(is_ours) => Ok(Audience::AmongOthers),
        Some(audience) if is_ours(audience) => Ok(Audience::Alone),
        Some(_) => Err(TokenError::Claim("aud", "is not this client")),
    }
}

/// Checks `exp`, which has to be there.
pub(crate) fn check_expiry(claims: &Map<String, Value>, at: Moment) -> Result<(), TokenError> {
    match date(claims, "exp")? {
        None => Err(TokenError::Claim("exp", "is missing")),
        Some(expires_at) if at.now >= expires_at + at.tolerance => Err(TokenError::Claim("exp", "is in the past")),
        Some(_) => Ok(()),
    }
}

/// A claim that has to be a non-empty string if it is there.
pub(crate) fn text<'c>(claims: &'c Map<String, Value>, name: &'static str) -> Result<Option<&'c str>, TokenError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
        Some(_) => Err(TokenError::Claim(name, "is not a non-empty string")),
    }
}

/// A point in time as tokens write it, for the log.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A claim that has to be a `NumericDate`, possibly with a fraction, if it is there.
pub(crate) fn date(claims: &Map<String, Value>, name: &'static str) -> Result<Option<SystemTime>, TokenError> {
    // The year 9999: later dates are mistakes, and sums with them could overflow.
    const LATEST: f64 = 253_402_300_799.0;
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| (0.0..=LATEST).contains(seconds));
    let seconds = seconds.ok_or(TokenError::Claim(name, "is not a NumericDate"))?;
    Ok(Some(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds)))
}

#[cfg(test)]
#[path = "jwt_samples.rs"]
pub(crate) mod samples;

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
