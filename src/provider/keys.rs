//! Whether the provider signed a token, by its keys.

use serde_json::Value;

use super::cached::{Fetched, Newer};
use super::{Provider, Unavailable};
use crate::protocol::jwt::{KeySet, TokenError, UnverifiedJwt, VerifiedJwt};

/// Why a token could not be verified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VerifyError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl Provider {
    /// Parses a token and verifies that the provider signed it. Makes at most one request for keys.
    pub(crate) async fn verify(&self, token: &str) -> Result<VerifiedJwt, VerifyError> {
        let jwt = UnverifiedJwt::parse(token)?;
        // A token of somebody else's must not cause any traffic.
        if jwt.unverified_claims().get("iss").and_then(Value::as_str)
            != Some(self.client.registration.issuer().as_str())
        {
            return Err(TokenError::Claim("iss", "is not the configured issuer").into());
        }
        let no_keys = || Unavailable::not_sent("its keys could not be fetched");
        let now = self.clock.now();
        let keys: Fetched<KeySet> = self.keys.get(now, || self.fetch_keys()).await.ok_or_else(no_keys)?;
        let (jwt, error) = match jwt.verify(&keys.value, self.client.signing_alg) {
            Ok(verified) => return Ok(verified),
            Err(unverified) => *unverified,
        };
        if !jwt.may_need_newer_keys(&error) {
            return Err(error.into());
        }
        match self.keys.newer(&keys, now, || self.fetch_keys()).await {
            Newer::Found(keys) => {
                Ok(jwt.verify(&keys.value, self.client.signing_alg).map_err(|unverified| unverified.1)?)
            }
            Newer::TooSoon => Err(error.into()),
            Newer::Unavailable => Err(no_keys().into()),
        }
    }

    async fn fetch_keys(&self) -> Option<KeySet> {
        let metadata = self.metadata().await.ok()?;
        let answer = self.fetch("keys", metadata.jwks_uri.as_str()).await?;
        let keys = KeySet::parse(&answer.body, self.client.signing_alg);
        if keys.is_none() {
            tracing::error!(url = %metadata.jwks_uri, "the provider's JWK Set cannot be read");
        }
        keys
    }
}
