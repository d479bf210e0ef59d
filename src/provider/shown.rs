//! Access tokens, as they are shown to the provider and to APIs.

use axum::BoxError;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method};
use url::Url;

use super::Provider;
use super::dpop::{DPOP, Nonce};
use crate::protocol::names::AccessToken;

impl Provider {
    /// Whether an access token can be shown: one that is bound needs its key.
    pub(crate) fn can_show(&self, token: &AccessToken) -> bool {
        token.key().is_none_or(|key| self.client.dpop.as_ref().is_some_and(|dpop| dpop.key(key).is_some()))
    }

    /// The headers that show an access token to a server, for one request.
    pub(crate) async fn headers_with(
        &self,
        token: &AccessToken,
        (method, url): (&Method, &Url),
    ) -> Result<HeaderMap, BoxError> {
        let mut headers = HeaderMap::new();
        let scheme = match token.key() {
            None => "Bearer",
            Some(key) => {
                let bound = self.client.dpop.as_ref().and_then(|dpop| Some((dpop, dpop.key(key)?)));
                let (dpop, key) = bound.ok_or("the key that the access token is bound to is not there any more")?;
                headers.insert(DPOP, dpop.proof(key, (method, url), Some(token), self.clock.now()).await?);
                "DPoP"
            }
        };
        let mut value = HeaderValue::from_str(&format!("{scheme} {}", token.secret()))
            .map_err(|_| "the access token is no header value")?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
        Ok(headers)
    }

    /// Remembers the nonce that a server wants in the next proof.
    pub(crate) fn note_nonce(&self, url: &Url, headers: &HeaderMap) -> Nonce {
        self.client.dpop.as_ref().map_or(Nonce::NotGiven, |dpop| dpop.note(url, headers))
    }
}
