//! Whether the provider signed a token, by its keys.
//!
//! Not to have a key is not to know that a token is wrong: where newer keys could tell and cannot be had, the answer is
//! [`VerifyError::Unavailable`].

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::cached::{Fetched, Held, Newer};
use super::{Provider, Unavailable};
use crate::protocol::jwt::{KeySet, TokenError, UnverifiedJwt, VerifiedJwt};

/// Older keys verify nothing any more: one that was withdrawn must not live on.
pub(super) const OLDEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a token could not be verified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VerifyError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Who brought a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bearer {
    /// Anybody can post to the receiver of logout tokens: keys that nobody knows make no traffic at will.
    Anybody,
    /// An answer of the provider's own endpoint.
    Provider,
}

impl Bearer {
    /// How soon after one forced fetch of the keys there may be another.
    pub(super) fn interval(self) -> Duration {
        match self {
            Self::Anybody => Duration::from_secs(30),
            // Some providers rotate their keys every few seconds.
            Self::Provider => Duration::from_secs(2),
        }
    }
}

impl Provider {
    /// Parses a token and verifies that the provider signed it. Makes at most one request for keys.
    pub(crate) async fn verify(self: &Arc<Self>, token: &str, bearer: Bearer) -> Result<VerifiedJwt, VerifyError> {
        let jwt = UnverifiedJwt::parse(token)?;
        // A token of somebody else's must not cause any traffic.
        let issuers = &self.client.issuers;
        if !jwt.unverified_claims().get("iss").and_then(Value::as_str).is_some_and(|iss| issuers.have(iss)) {
            return Err(TokenError::Claim("iss", "is not the configured issuer").into());
        }
        jwt.check_alg(self.client.signing_alg)?;
        let keys = match self.keys.held(self.clock.now()) {
            Held::Good(keys) => keys,
            Held::Due(keys) if !keys.is_older_than(OLDEST, self.clock.now()) => {
                self.renew_keys_in_background(keys.clone());
                keys
            }
            Held::Due(_) | Held::Nothing => {
                let keys = self.fetch_newer_keys().await?;
                // The set was fetched after the token had come: what it lacks is no key of the provider's.
                return Ok(self.verify_by(jwt, &keys)?);
            }
        };
        let (jwt, error) = match self.try_by(jwt, &keys) {
            Ok(verified) => return Ok(verified),
            Err(unverified) => *unverified,
        };
        if !jwt.may_need_newer_keys(&error) {
            return Err(error.into());
        }
        match self.keys.force(&keys, bearer.interval(), &*self.clock, || self.fetch_keys()).await {
            Newer::Found(keys) => Ok(self.verify_by(jwt, &keys)?),
            Newer::TooSoon | Newer::Unavailable => Err(no_keys().into()),
        }
    }

    /// Verifies by those of the keys that vouch for such a token; gives it back if that fails.
    fn try_by<'a>(
        &self,
        jwt: UnverifiedJwt<'a>,
        keys: &Fetched<KeySet>,
    ) -> Result<VerifiedJwt, Box<(UnverifiedJwt<'a>, TokenError)>> {
        let keys = keys.value.vouching(&self.client.issuers, jwt.unverified_claims());
        jwt.verify(&keys, self.client.signing_alg)
    }

    fn verify_by(&self, jwt: UnverifiedJwt<'_>, keys: &Fetched<KeySet>) -> Result<VerifiedJwt, TokenError> {
        self.try_by(jwt, keys).map_err(|unverified| unverified.1)
    }

    /// Sees to it that there are keys to verify with.
    pub(crate) async fn have_keys(self: &Arc<Self>) -> Result<(), Unavailable> {
        match self.keys.peek() {
            Some(_) => Ok(()),
            None => self.fetch_newer_keys().await.map(drop),
        }
    }

    async fn fetch_newer_keys(self: &Arc<Self>) -> Result<Fetched<KeySet>, Unavailable> {
        let old = self.keys.peek();
        match self.keys.renew(old.as_ref(), &*self.clock, || self.fetch_keys()).await {
            Newer::Found(keys) => Ok(keys),
            Newer::TooSoon | Newer::Unavailable => Err(no_keys()),
        }
    }

    fn renew_keys_in_background(self: &Arc<Self>, old: Fetched<KeySet>) {
        let provider = self.clone();
        tokio::spawn(async move {
            provider.keys.renew(Some(&old), &*provider.clock, || provider.fetch_keys()).await;
        });
    }

    async fn fetch_keys(self: &Arc<Self>) -> Option<KeySet> {
        let metadata = self.metadata().await.ok()?;
        let answer = self.fetch("keys", metadata.jwks_uri.as_str()).await?;
        let keys = KeySet::parse(&answer.body, self.client.signing_alg);
        if keys.is_none() {
            tracing::error!(url = %metadata.jwks_uri, "the provider's JWK Set has no key that can be used");
        }
        keys
    }
}

fn no_keys() -> Unavailable {
    Unavailable::not_sent("a key of its could not be fetched")
}
