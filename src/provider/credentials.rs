//! What the application proves itself to the provider with.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use serde_json::Value;

use super::certificate::ClientCertificate;
use super::http::Answer;
use super::signing_key::SigningKey;
use crate::protocol::names::{ClientId, ClientSecret};

/// How the application proves to the provider who it is.
#[derive(Clone, Debug)]
pub struct ClientCredentials {
    pub(crate) id: ClientId,
    /// At least one.
    pub(crate) all: Vec<ClientAuthentication>,
}

/// How a client authenticates at the provider
/// ([Core §9](https://openid.net/specs/openid-connect-core-1_0.html#ClientAuthentication),
/// [RFC 7523](https://www.rfc-editor.org/rfc/rfc7523), [RFC 8705](https://www.rfc-editor.org/rfc/rfc8705)).
#[derive(Clone)]
#[non_exhaustive]
pub enum ClientAuthentication {
    /// With a secret: `client_secret_basic`, or `client_secret_post` where the provider offers nothing else.
    ClientSecret(ClientSecret),
    /// `client_secret_basic`, whatever the provider offers.
    ClientSecretBasic(ClientSecret),
    /// `client_secret_post`, whatever the provider offers.
    ClientSecretPost(ClientSecret),
    /// `private_key_jwt`: an assertion that the key signs anew for each request, good for a minute, with the issuer as its `aud`. The
    /// public key is at `/auth/jwks.json`, for a provider that fetches it.
    PrivateKeyJwt(SigningKey),
    /// `self_signed_tls_client_auth`: a certificate that the provider knows by itself.
    SelfSignedTlsClientAuth(ClientCertificate),
    /// `tls_client_auth`: a certificate of an authority that the provider trusts.
    TlsClientAuth(ClientCertificate),
}

impl ClientAuthentication {
    /// The certificate that it stands on, if it is one.
    pub(crate) fn certificate(&self) -> Option<&ClientCertificate> {
        match self {
            Self::SelfSignedTlsClientAuth(certificate) | Self::TlsClientAuth(certificate) => Some(certificate),
            _ => None,
        }
    }

    pub(crate) fn key(&self) -> Option<&SigningKey> {
        match self {
            Self::PrivateKeyJwt(key) => Some(key),
            _ => None,
        }
    }

    pub(crate) fn secret(&self) -> Option<&ClientSecret> {
        match self {
            Self::ClientSecret(secret) | Self::ClientSecretBasic(secret) | Self::ClientSecretPost(secret) => {
                Some(secret)
            }
            _ => None,
        }
    }
}

/// Which kind it is: none of what it is made of.
impl fmt::Debug for ClientAuthentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClientSecret(_) => "client_secret",
            Self::ClientSecretBasic(_) => "client_secret_basic",
            Self::ClientSecretPost(_) => "client_secret_post",
            Self::PrivateKeyJwt(_) => "private_key_jwt",
            Self::SelfSignedTlsClientAuth(_) => "self_signed_tls_client_auth",
            Self::TlsClientAuth(_) => "tls_client_auth",
        })
    }
}

impl ClientCredentials {
    /// A confidential client that authenticates like this.
    #[must_use]
    pub fn new(client_id: impl Into<String>, authentication: ClientAuthentication) -> Self {
        Self { id: ClientId::new(client_id), all: vec![authentication] }
    }

    /// A confidential client with a secret: `client_secret_basic`, or `client_secret_post` where the provider offers
    /// nothing else.
    #[must_use]
    pub fn secret(client_id: impl Into<String>, client_secret: impl Into<String>) -> Self {
        Self::new(client_id, ClientAuthentication::ClientSecret(ClientSecret::new(client_secret)))
    }

    /// Another way to authenticate, which is tried where the provider answers `invalid_client`: while one is replaced by the other,
    /// also a secret by a key. So no login fails and no refresh: tell every replica both, the new one last; replace it at the provider;
    /// then drop the old one. Of certificates there can be one only: where it is read from files, those may change.
    #[must_use]
    pub fn or(mut self, authentication: ClientAuthentication) -> Self {
        self.all.push(authentication);
        self
    }

    /// The same with another secret.
    #[must_use]
    pub fn or_secret(self, client_secret: impl Into<String>) -> Self {
        self.or(ClientAuthentication::ClientSecret(ClientSecret::new(client_secret)))
    }
}

/// The ways to authenticate, in use: while one is replaced by another at the provider, there are two.
#[derive(Debug)]
pub(crate) struct Credentials {
    /// At least one.
    all: Vec<ClientAuthentication>,
    /// The one that the provider took last.
    current: AtomicUsize,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tried<'a> {
    number: usize,
    pub(crate) authentication: &'a ClientAuthentication,
}

impl Credentials {
    pub(crate) fn new(all: Vec<ClientAuthentication>) -> Self {
        Self { all, current: AtomicUsize::new(0) }
    }

    pub(crate) fn all(&self) -> &[ClientAuthentication] {
        &self.all
    }

    /// Whether the application shows a certificate.
    pub(crate) fn show_certificate(&self) -> bool {
        self.all.iter().any(|way| way.certificate().is_some())
    }

    fn get(&self, number: usize) -> Option<Tried<'_>> {
        self.all.get(number).map(|authentication| Tried { number, authentication })
    }

    /// The one to use.
    pub(crate) fn current(&self) -> Tried<'_> {
        let current = self.get(self.current.load(Ordering::Relaxed));
        // There is a first.
        #[expect(clippy::indexing_slicing, reason = "made with one at least")]
        current.unwrap_or(Tried { number: 0, authentication: &self.all[0] })
    }

    /// The one to try next, where the provider does not know the client by the one that was tried: it has looked at nothing else of
    /// the request then, and no token is spent.
    pub(crate) fn after(&self, tried: Tried<'_>, answer: &Answer) -> Option<Tried<'_>> {
        let next = (tried.number + 1) % self.all.len();
        self.get(next).filter(|next| next.number != tried.number && refuses_client(answer))
    }

    /// Notes that the provider takes this one.
    pub(crate) fn settle(&self, taken: Tried<'_>, answer: &Answer) {
        if !refuses_client(answer) && self.current.swap(taken.number, Ordering::Relaxed) != taken.number {
            tracing::info!(number = taken.number, "the provider takes another of the client's credentials");
        }
    }
}

fn refuses_client(answer: &Answer) -> bool {
    let statuses = [StatusCode::BAD_REQUEST, StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
    statuses.contains(&answer.status) && error_of(answer).as_deref() == Some("invalid_client")
}

/// The `error` of an answer (RFC 6749 §5.2), as it stands there.
pub(crate) fn error_of(answer: &Answer) -> Option<String> {
    let json: Value = serde_json::from_slice(&answer.body).ok()?;
    json.get("error")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn answer(status: u16, error: &str) -> Answer {
        let body = format!(r#"{{"error":"{error}"}}"#).into();
        Answer { status: StatusCode::from_u16(status).unwrap(), headers: HeaderMap::new(), body }
    }

    #[test]
    fn another_secret_is_tried_where_the_client_is_not_known_by_the_first() {
        let secret = |text| ClientAuthentication::ClientSecret(ClientSecret::new(text));
        let credentials = Credentials::new(vec![secret("new"), secret("old")]);
        let name = |tried: Tried<'_>| tried.authentication.secret().unwrap().secret().to_owned();
        let (refused, taken) = (answer(401, "invalid_client"), answer(400, "invalid_grant"));
        let tried = credentials.current();
        assert_eq!(name(tried), "new");
        for other in [answer(401, "unauthorized_client"), answer(502, "invalid_client"), answer(200, ""), taken.clone()]
        {
            assert!(credentials.after(tried, &other).is_none(), "{other:?}");
        }
        let next = credentials.after(tried, &refused).unwrap();
        assert_eq!(name(next), "old");
        credentials.settle(next, &refused);
        assert_eq!(name(credentials.current()), "new", "neither is taken");
        credentials.settle(next, &taken);
        assert_eq!(name(credentials.current()), "old", "the client is known by it");
        let back = credentials.after(credentials.current(), &refused).unwrap();
        assert_eq!(name(back), "new", "once the provider has it");

        let one = Credentials::new(vec![secret("one")]);
        assert!(one.after(one.current(), &refused).is_none());
    }
}
