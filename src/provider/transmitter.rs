//! A transmitter of security events: where its keys are, and whether it signed a token.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};
use tokio::task::{JoinError, JoinHandle};
use url::Url;

use super::cached::{Arrived, Cached, Held, Newer};
use super::http::Http;
use super::keys::{Bearer, OLDEST, VerifyError, by_newer};
use super::{CLOCK_TOLERANCE, Unavailable};
use crate::clock::Clock;
use crate::protocol::issuers::Issuers;
use crate::protocol::jwt::{KeySet, Moment, SigningAlg, TokenError, UnverifiedJwt, VerifiedJwt};
use crate::protocol::names::Issuer;
use crate::protocol::security_event::{ExpectedEvent, SecurityEventToken};
use crate::protocol::url::PlainHttp;

/// Who may say by security events that sessions are revoked, for [`security_events`](crate::RelyingPartyBuilder::security_events).
#[derive(Clone, Debug)]
#[must_use]
pub struct EventTransmitter {
    pub(crate) issuer: String,
    pub(crate) audience: Option<String>,
    pub(crate) signing_alg: SigningAlg,
}

impl EventTransmitter {
    /// The transmitter with this issuer. Its keys are found by its metadata, at `/.well-known/ssf-configuration`, or else by those of an
    /// OpenID provider.
    pub fn at(issuer: impl Into<String>) -> Self {
        Self { issuer: issuer.into(), audience: None, signing_alg: SigningAlg::RS256 }
    }

    /// What it calls this receiver, the `aud` of its events; default: the client's id.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// The one algorithm that it signs with; default RS256, as the CAEP interoperability profile has it.
    pub fn signing_alg(mut self, alg: SigningAlg) -> Self {
        self.signing_alg = alg;
        self
    }
}

impl From<&str> for EventTransmitter {
    fn from(issuer: &str) -> Self {
        Self::at(issuer)
    }
}

impl From<String> for EventTransmitter {
    fn from(issuer: String) -> Self {
        Self::at(issuer)
    }
}

#[derive(Debug)]
pub(crate) struct Transmitter {
    issuer: Issuer,
    audience: String,
    signing_alg: SigningAlg,
    http: Http,
    plain_http: PlainHttp,
    clock: Arc<dyn Clock>,
    keys: Cached<KeySet>,
}

impl Transmitter {
    pub(crate) fn new(
        transmitter: EventTransmitter,
        client_id: &str,
        http: Http,
        plain_http: PlainHttp,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            issuer: Issuer::new(transmitter.issuer),
            audience: transmitter.audience.unwrap_or_else(|| client_id.to_owned()),
            signing_alg: transmitter.signing_alg,
            http,
            plain_http,
            clock,
            keys: Cached::new(),
        }
    }

    /// Takes a token that the transmitter signed, about users of these issuers. Anybody may bring one.
    ///
    /// # Cancel safety
    /// A fetch of keys goes on without the caller: the next token finds them.
    pub(crate) async fn receive(
        self: &Arc<Self>,
        token: &str,
        issuers: &Issuers,
    ) -> Result<SecurityEventToken, VerifyError> {
        let verified = self.verify(token).await?;
        let at = Moment { now: self.clock.now(), tolerance: CLOCK_TOLERANCE };
        let expected = ExpectedEvent { transmitter: &self.issuer, audience: &self.audience, issuers, at };
        Ok(SecurityEventToken::validate(verified, &expected)?)
    }

    async fn verify(self: &Arc<Self>, token: &str) -> Result<VerifiedJwt, VerifyError> {
        let arrived = self.keys.arrived();
        let jwt = UnverifiedJwt::parse(token)?;
        // A token of somebody else's must not cause any traffic.
        if jwt.unverified_claims().get("iss").and_then(Value::as_str) != Some(self.issuer.as_str()) {
            return Err(TokenError::Claim("iss", "is not the transmitter").into());
        }
        jwt.check_alg(self.signing_alg)?;
        let keys = match self.keys.held(self.clock.now()) {
            Held::Good(keys) => keys,
            Held::Due(keys) if !keys.is_older_than(OLDEST, self.clock.now()) => {
                drop(self.renew());
                keys
            }
            Held::Due(_) | Held::Nothing => return self.verify_by(jwt, self.renew().await, arrived),
        };
        let (jwt, error) = match jwt.verify(&keys.value, self.signing_alg) {
            Ok(verified) => return Ok(verified),
            Err(unverified) => *unverified,
        };
        if !jwt.may_need_newer_keys(&error) {
            return Err(error.into());
        }
        let transmitter = self.clone();
        let newer = tokio::spawn(async move {
            let fetch = || transmitter.fetch_keys();
            transmitter.keys.force(&keys, Bearer::Anybody.interval(), &*transmitter.clock, fetch).await
        });
        self.verify_by(jwt, newer.await, arrived)
    }

    fn verify_by(
        &self,
        jwt: UnverifiedJwt<'_>,
        newer: Result<Newer<KeySet>, JoinError>,
        arrived: Arrived,
    ) -> Result<VerifiedJwt, VerifyError> {
        by_newer(newer, arrived, no_keys, |keys| jwt.verify(&keys.value, self.signing_alg))
    }

    /// Fetches keys that are newer than those there are, without the caller.
    fn renew(self: &Arc<Self>) -> JoinHandle<Newer<KeySet>> {
        let (transmitter, old) = (self.clone(), self.keys.peek());
        tokio::spawn(async move {
            transmitter.keys.renew(old.as_ref(), &*transmitter.clock, || transmitter.fetch_keys()).await
        })
    }

    async fn fetch_keys(&self) -> Option<KeySet> {
        let issuer = Url::parse(self.issuer.as_str()).ok()?;
        let mut metadata = None;
        for location in locations(&issuer) {
            metadata = self.fetch(location.as_str()).await.filter(|json| {
                json.get("issuer").and_then(Value::as_str) == Some(self.issuer.as_str())
                    && json.contains_key("jwks_uri")
            });
            if metadata.is_some() {
                break;
            }
        }
        let jwks_uri = metadata?.get("jwks_uri").and_then(Value::as_str).and_then(|uri| Url::parse(uri).ok())?;
        if !self.plain_http.allows_endpoint(&jwks_uri, &issuer) {
            tracing::error!(%issuer, "the keys of the transmitter of security events are not at an https URL");
            return None;
        }
        let keys = serde_json::to_vec(&self.fetch(jwks_uri.as_str()).await?).ok()?;
        let keys = KeySet::parse(&keys, self.signing_alg);
        if keys.is_none() {
            tracing::error!(url = %jwks_uri, "the JWK Set of the transmitter of security events has no key that can be used");
        }
        keys
    }

    async fn fetch(&self, url: &str) -> Option<Map<String, Value>> {
        match self.http.get(url, HeaderMap::new()).await {
            Ok(answer) if answer.status == StatusCode::OK => serde_json::from_slice(&answer.body).ok(),
            Ok(answer) => {
                tracing::warn!(url, status = %answer.status, "the transmitter of security events did not answer");
                None
            }
            Err(error) => {
                tracing::warn!(url, %error, "the transmitter of security events could not be asked");
                None
            }
        }
    }
}

/// Where a transmitter's metadata may be: of shared signals, between host and path
/// ([SSF 1.0 §7](https://openid.net/specs/openid-sharedsignals-framework-1_0-final.html)), or an OpenID provider's.
fn locations(issuer: &Url) -> [Url; 2] {
    let path = issuer.path().trim_end_matches('/');
    [format!("/.well-known/ssf-configuration{path}"), format!("{path}/.well-known/openid-configuration")].map(|path| {
        let mut url = issuer.clone();
        url.set_path(&path);
        url
    })
}

fn no_keys() -> Unavailable {
    Unavailable::not_sent("the keys of the transmitter could not be fetched")
}
