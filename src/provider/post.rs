//! Forms that are sent to the provider's endpoints as this client.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request};
use serde_json::json;
use url::{Url, form_urlencoded};

use super::credentials::{ClientAuthentication, error_of};
use super::dpop::{DPOP, INVALID_DPOP_PROOF, Nonce, USE_DPOP_NONCE};
use super::http::{Answer, Patience};
use super::signing_key::SigningKey;
use super::{Provider, Unavailable};
use crate::protocol::jwt::seconds;
use crate::protocol::metadata::SecretMethod;
use crate::session::id::random_text;

/// How long a client assertion is good.
const ASSERTION_LIFETIME: Duration = Duration::from_secs(60);

/// [RFC 7523 §2.2](https://www.rfc-editor.org/rfc/rfc7523#section-2.2).
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The parameters of a request.
pub(super) type Form = Vec<(String, String)>;

/// The parameters of these names.
pub(super) fn form<const N: usize>(parameters: [(&str, &str); N]) -> Form {
    parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// What is sent, by whichever credentials.
#[derive(Clone, Copy)]
pub(super) struct Post<'p> {
    pub(super) endpoint: &'p Url,
    pub(super) form: &'p Form,
    /// With a proof that the application has this key.
    pub(super) key: Option<&'p SigningKey>,
    pub(super) patience: Patience,
}

impl Provider {
    /// Posts a form as this client: with the next of its credentials where the provider does not know it by the first, and once more
    /// where it wants another nonce in the proof, or a proof that is fresher. Either answer says that nothing else of the request was
    /// looked at, so that no code and no token is spent by it.
    pub(super) async fn post(&self, post: Post<'_>) -> Result<Answer, Unavailable> {
        let credentials = &self.client.credentials;
        let tried = credentials.current();
        let answer = self.post_by(tried.authentication, post).await?;
        let Some(next) = credentials.after(tried, &answer) else { return Ok(answer) };
        let answer = self.post_by(next.authentication, post).await?;
        credentials.settle(next, &answer);
        Ok(answer)
    }

    async fn post_by(&self, authentication: &ClientAuthentication, post: Post<'_>) -> Result<Answer, Unavailable> {
        let answer = self.post_once(authentication, post).await?;
        if post.key.is_none() {
            return Ok(answer);
        }
        let nonce = self.note_nonce(post.endpoint, &answer.headers);
        let wants_another = answer.status.is_client_error()
            && match error_of(&answer).as_deref() {
                Some(INVALID_DPOP_PROOF) => true,
                Some(USE_DPOP_NONCE) => nonce == Nonce::Given,
                _ => false,
            };
        if wants_another {
            let answer = self.post_once(authentication, post).await?;
            self.note_nonce(post.endpoint, &answer.headers);
            return Ok(answer);
        }
        Ok(answer)
    }

    async fn post_once(
        &self,
        authentication: &ClientAuthentication,
        Post { endpoint, form, key, patience }: Post<'_>,
    ) -> Result<Answer, Unavailable> {
        let mut request = Request::post(endpoint.as_str())
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let client_id = self.client_id();
        // What says who asks.
        let mut own: Vec<(&str, String)> = Vec::new();
        match authentication {
            ClientAuthentication::PrivateKeyJwt(key) => {
                let assertion = self.assertion(key).await.map_err(cannot_sign)?;
                own.extend([("client_assertion_type", JWT_BEARER.to_owned()), ("client_assertion", assertion)]);
            }
            ClientAuthentication::SelfSignedTlsClientAuth(_) | ClientAuthentication::TlsClientAuth(_) => {
                own.push(("client_id", client_id.to_owned()));
            }
            ClientAuthentication::ClientSecret(secret)
            | ClientAuthentication::ClientSecretBasic(secret)
            | ClientAuthentication::ClientSecretPost(secret) => match self.secret_method(authentication) {
                SecretMethod::Basic => {
                    // RFC 6749 §2.3.1: both are form-encoded first.
                    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                    let pair = format!("{}:{}", encode(client_id), encode(secret.secret()));
                    request = request.header(AUTHORIZATION, format!("Basic {}", STANDARD.encode(pair)));
                }
                SecretMethod::Post => {
                    own.extend([("client_id", client_id.to_owned()), ("client_secret", secret.secret().to_owned())]);
                }
            },
        }
        if let (Some(dpop), Some(key)) = (&self.client.dpop, key) {
            let proof = dpop.proof(key, (&Method::POST, endpoint), None, self.clock.now()).await;
            request = request.header(DPOP, proof.map_err(cannot_sign)?);
        }
        // An authorization request names the client already.
        own.retain(|(name, _)| !form.iter().any(|(said, _)| said == name));
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).extend_pairs(own).finish();
        let request = request.body(body.into_bytes());
        let request = request.map_err(|error| Unavailable::not_sent(error.to_string()))?;
        Ok(self.http.send(request, patience).await?)
    }

    /// By what the metadata say, unless the application does.
    fn secret_method(&self, authentication: &ClientAuthentication) -> SecretMethod {
        match authentication {
            ClientAuthentication::ClientSecretBasic(_) => SecretMethod::Basic,
            ClientAuthentication::ClientSecretPost(_) => SecretMethod::Post,
            _ => self.known_metadata().map_or(SecretMethod::Basic, |metadata| metadata.secret_method()),
        }
    }

    /// A client assertion ([RFC 7523 §3](https://www.rfc-editor.org/rfc/rfc7523#section-3)). Its audience is the issuer, as a string
    /// (FAPI 2.0 Security Profile §5.3.3).
    async fn assertion(&self, key: &SigningKey) -> Result<String, axum::BoxError> {
        let (client_id, now) = (self.client_id(), self.clock.now());
        key.sign_as_itself(&json!({
            "iss": client_id, "sub": client_id, "aud": self.client.registration.issuer().as_str(),
            "jti": random_text(), "iat": seconds(now), "exp": seconds(now + ASSERTION_LIFETIME),
        }))
        .await
    }
}

#[expect(clippy::needless_pass_by_value, reason = "goes into map_err")]
fn cannot_sign(error: axum::BoxError) -> Unavailable {
    Unavailable::not_sent(format!("the client's key cannot sign: {error}"))
}
