//! Whether the provider signed a token, by its keys.
//!
//! Not to have a key is not to know that a token is wrong: where newer keys could tell and cannot be had, the answer is
//! [`VerifyError::Unavailable`].

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::task::{JoinError, JoinHandle};

use super::cached::{Arrived, Fetched, Held, Newer};
use super::{Provider, Unavailable};
use crate::protocol::jwt::{KeySet, TokenError, UnverifiedJwt, VerifiedJwt};

/// Older keys verify nothing any more: one that was withdrawn must not live on.
pub(super) const OLDEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a token could not be verified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VerifyError {
    /// It says itself that another has issued it.
    #[error(transparent)]
    OtherIssuer(TokenError),
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
    ///
    /// # Cancel safety
    /// A fetch of keys goes on without the caller: the next token finds them.
    pub(crate) async fn verify(self: &Arc<Self>, token: &str, bearer: Bearer) -> Result<VerifiedJwt, VerifyError> {
        let arrived = self.keys.arrived();
        let jwt = UnverifiedJwt::parse(token)?;
        // A token of somebody else's must not cause any traffic.
        match jwt.unverified_claims().get("iss").and_then(Value::as_str) {
            None => return Err(TokenError::Claim("iss", "is missing").into()),
            Some(iss) if !self.client.issuers.have(iss) => {
                return Err(VerifyError::OtherIssuer(TokenError::Claim("iss", "is not the configured issuer")));
            }
            Some(_) => {}
        }
        jwt.check_alg(self.client.signing_alg)?;
        let keys = match self.keys.held(self.clock.now()) {
            Held::Good(keys) => keys,
            Held::Due(keys) if !keys.is_older_than(OLDEST, self.clock.now()) => {
                drop(self.renew_keys());
                keys
            }
            Held::Due(_) | Held::Nothing => {
                return self.verify_by(jwt, self.renew_keys().await, arrived);
            }
        };
        let (jwt, error) = match self.try_by(jwt, &keys) {
            Ok(verified) => return Ok(verified),
            Err(unverified) => *unverified,
        };
        if !jwt.may_need_newer_keys(&error) {
            return Err(error.into());
        }
        let provider = self.clone();
        let newer = tokio::spawn(async move {
            let fetch = || provider.fetch_keys();
            provider.keys.force(&keys, bearer.interval(), &*provider.clock, fetch).await
        });
        self.verify_by(jwt, newer.await, arrived)
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

    fn verify_by(
        &self,
        jwt: UnverifiedJwt<'_>,
        newer: Result<Newer<KeySet>, JoinError>,
        arrived: Arrived,
    ) -> Result<VerifiedJwt, VerifyError> {
        by_newer(newer, arrived, no_keys, |keys| self.try_by(jwt, keys))
    }

    /// Sees to it that there are keys to verify with.
    pub(crate) async fn have_keys(self: &Arc<Self>) -> Result<(), Unavailable> {
        match self.keys.peek() {
            Some(_) => Ok(()),
            None => found(self.renew_keys().await).map(drop).ok_or_else(no_keys),
        }
    }

    /// Fetches keys that are newer than those there are, without the caller.
    fn renew_keys(self: &Arc<Self>) -> JoinHandle<Newer<KeySet>> {
        let (provider, old) = (self.clone(), self.keys.peek());
        tokio::spawn(async move { provider.keys.renew(old.as_ref(), &*provider.clock, || provider.fetch_keys()).await })
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

/// What a fetch came to that went on without its caller.
fn found(newer: Result<Newer<KeySet>, JoinError>) -> Option<Fetched<KeySet>> {
    match newer {
        Ok(Newer::Found(keys)) => Some(keys),
        Ok(Newer::TooSoon | Newer::Unavailable) | Err(_) => None,
    }
}

/// Verifies by newer keys. What a set lacks that was fetched after the token had come is no key of its issuer's; one whose fetch was
/// under way by then may be older than the token.
pub(super) fn by_newer<'a>(
    newer: Result<Newer<KeySet>, JoinError>,
    arrived: Arrived,
    no_keys: impl Fn() -> Unavailable,
    verify: impl FnOnce(&Fetched<KeySet>) -> Result<VerifiedJwt, Box<(UnverifiedJwt<'a>, TokenError)>>,
) -> Result<VerifiedJwt, VerifyError> {
    let keys = found(newer).ok_or_else(&no_keys)?;
    verify(&keys).map_err(|unverified| {
        let (jwt, error) = *unverified;
        let is_final = keys.is_asked_for_after(arrived) || !jwt.may_need_newer_keys(&error);
        if is_final { error.into() } else { no_keys().into() }
    })
}

fn no_keys() -> Unavailable {
    Unavailable::not_sent("a key of its could not be fetched")
}
