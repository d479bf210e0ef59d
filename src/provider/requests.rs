//! Requests to the provider's endpoints; the answers of the token endpoint are judged by
//! [`token_response`](crate::protocol::token_response).

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::{Value, json};
use url::Url;

use super::circuit::Failure;
use super::credentials::{ClientAuthentication, error_of};
use super::dpop::Dpop;
use super::http::{Answer, Patience};
use super::post::{Form, Post, form};
use super::signing_key::SigningKey;
use super::{Provider, PushedAuthorization, Sent, Unavailable};
use crate::protocol::authorization::Audience;
use crate::protocol::metadata::ProviderMetadata;
use crate::protocol::names::{IdTokenHint, KeyThumbprint, RefreshToken, Subject};
use crate::protocol::token_response::{self, ErrorCode, TokenType, TokenVerdict};
use crate::session::login_attempt::LoginTransaction;

/// Longer ID tokens do not go into URLs.
const LONGEST_HINT: usize = 6 * 1024;

/// Why a login cannot be sent to the provider.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum NotPushed {
    /// It does not take the request (RFC 9126 §2.3).
    #[error("the provider refuses the pushed authorization request: {}", .0.as_str())]
    Refused(ErrorCode),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl Provider {
    /// The URL that a browser is sent to for a login: with the whole request, or with the name that the provider gave it where it was
    /// pushed ([RFC 9126](https://www.rfc-editor.org/rfc/rfc9126)).
    pub(crate) async fn authorization_url(self: &Arc<Self>, transaction: &LoginTransaction) -> Result<Url, NotPushed> {
        let metadata = self.metadata().await?;
        let mut url = metadata.authorization_endpoint.clone();
        let request = self.authorization_request(transaction);
        match (self.client.pushed_authorization, &metadata.pushed_authorization_request_endpoint) {
            (PushedAuthorization::Off, _) | (PushedAuthorization::WhereOffered, None) => {
                url.query_pairs_mut().extend_pairs(request);
            }
            (PushedAuthorization::Required, None) => {
                return Err(Unavailable::not_sent(
                    "it does not take pushed authorization requests, which are required",
                )
                .into());
            }
            (PushedAuthorization::WhereOffered | PushedAuthorization::Required, Some(endpoint)) => {
                let name = self.push(endpoint, request).await?;
                url.query_pairs_mut().append_pair("client_id", self.client_id()).append_pair("request_uri", &name);
            }
        }
        Ok(url)
    }

    fn authorization_request(&self, transaction: &LoginTransaction) -> Form {
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, transaction.pkce_verifier.as_bytes()));
        let mut authentication = transaction.authentication.parameters();
        if self.client.parameters.want_consent()
            && let Some((_, prompt)) = authentication.iter_mut().find(|(name, _)| *name == "prompt")
            && prompt != "none"
            && prompt != "consent"
        {
            prompt.push_str(" consent");
        }
        let mut request = form([
            ("response_type", "code"),
            ("client_id", self.client_id()),
            ("state", &transaction.state),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("redirect_uri", self.client.redirect_uri.as_str()),
            ("scope", &self.client.scopes.join(" ")),
            ("nonce", &transaction.nonce),
        ]);
        // A step-up says better which authentication is wanted.
        let is_said = |name: &str| authentication.iter().any(|(said, _)| *said == name);
        let others = self.client.parameters.with(&transaction.linked).filter(|(name, _)| !is_said(name));
        request.extend(others.map(|(name, value)| (name.to_owned(), value.to_owned())));
        request.extend(authentication.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        request.extend(self.client.resources.iter().map(|resource| ("resource".to_owned(), resource.clone())));
        request.extend(transaction.dpop_jkt.iter().map(|key| ("dpop_jkt".to_owned(), key.as_str().to_owned())));
        request
    }

    /// Gives the provider a request for a login, and gets the name that the browser brings.
    async fn push(self: &Arc<Self>, endpoint: &Url, request: Form) -> Result<String, NotPushed> {
        let answer = self.post(Post { endpoint, form: &request, key: None, patience: Patience::Ours }).await;
        self.look_for_endpoint_after(&answer);
        let answer = answer?;
        let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let name = json.get("request_uri").and_then(Value::as_str).filter(|name| !name.is_empty());
        match (answer.status, name, error_of(&answer)) {
            (status, Some(name), _) if status.is_success() => Ok(name.to_owned()),
            (status, _, Some(error)) if token_response::refuses_request(status, &error) => {
                Err(NotPushed::Refused(ErrorCode::new(&error)))
            }
            (status, _, error) => Err(NotPushed::Unavailable(Unavailable {
                reason: format!(
                    "its endpoint for pushed authorization requests answered {status} {}",
                    ErrorCode::new(&error.unwrap_or_default()).as_str()
                ),
                retry_after: token_response::retry_after(&answer.headers, self.clock.now()),
                sent: Sent::Maybe,
            })),
        }
    }

    pub(super) fn client_id(&self) -> &str {
        self.client.registration.client_id().as_str()
    }

    /// The key that the tokens of a login which begins now are to be bound to.
    pub(crate) fn key_for_logins(&self) -> Option<KeyThumbprint> {
        self.current_key().map(|key| key.thumbprint().clone())
    }

    /// Exchanges an authorization code for tokens; they are bound to the key that the login began with.
    pub(crate) async fn exchange_code(
        self: &Arc<Self>,
        code: String,
        transaction: &LoginTransaction,
    ) -> Result<TokenVerdict, Unavailable> {
        let metadata = self.metadata().await?;
        let begun_with = self.client.dpop.as_ref().zip(transaction.dpop_jkt.as_ref());
        let key = begun_with.and_then(|(dpop, key)| dpop.key(key)).or(self.current_key());
        let form = form([
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", self.client.redirect_uri.as_str()),
            ("code_verifier", &transaction.pkce_verifier),
        ]);
        self.token_request(&metadata, &form, key, Patience::Ours).await
    }

    pub(super) fn current_key(&self) -> Option<&SigningKey> {
        self.client.dpop.as_ref().map(Dpop::current)
    }

    /// Presents a refresh token of `subject`'s, once; for an access token to `audience`, if one is given. Waits for the
    /// answer for as long as the connection stands: how long is the caller's to say.
    pub(crate) async fn refresh(
        self: &Arc<Self>,
        token: &RefreshToken,
        audience: Option<&Audience>,
        subject: &Subject,
    ) -> Result<TokenVerdict, Unavailable> {
        let metadata = self.metadata().await?;
        self.enter()?;
        let mut form = form([("grant_type", "refresh_token"), ("refresh_token", token.secret())]);
        if let Some(audience) = audience {
            form.extend(audience.parameters().map(|(name, value)| (name.to_owned(), value)));
            if !audience.scopes.is_empty() {
                form.push(("scope".to_owned(), audience.scopes.join(" ")));
            }
        }
        let verdict = self.token_request(&metadata, &form, self.current_key(), Patience::Callers).await;
        self.leave(match &verdict {
            Err(_) => Err(Failure::Transport),
            Ok(TokenVerdict::Unavailable { status, .. }) if status.is_server_error() => Err(Failure::of(subject)),
            Ok(TokenVerdict::Unreadable) => Err(Failure::of(subject)),
            // One user's limit, a gateway's refusal: nobody else's trouble.
            Ok(TokenVerdict::Unavailable { .. }) => return verdict,
            Ok(_) => Ok(()),
        });
        verdict
    }

    async fn token_request(
        self: &Arc<Self>,
        metadata: &ProviderMetadata,
        form: &Form,
        key: Option<&SigningKey>,
        patience: Patience,
    ) -> Result<TokenVerdict, Unavailable> {
        let answer = self.post(Post { endpoint: &metadata.token_endpoint, form, key, patience }).await;
        self.look_for_endpoint_after(&answer);
        let answer = answer?;
        let asked = key.map_or(TokenType::Bearer, |key| TokenType::Dpop(key.thumbprint().clone()));
        Ok(token_response::judge(answer.status, &answer.headers, &answer.body, &asked, self.clock.now()))
    }

    /// The metadata are fetched anew where an endpoint is not what they say.
    fn look_for_endpoint_after(self: &Arc<Self>, answer: &Result<Answer, Unavailable>) {
        let is_gone = match answer {
            Ok(answer) => {
                matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::GONE)
            }
            Err(unavailable) => unavailable.sent == Sent::No,
        };
        if is_gone {
            self.endpoint_is_gone();
        }
    }

    /// Revokes a refresh token (RFC 7009). Courtesy: the outcome is logged and changes nothing.
    pub(crate) async fn revoke(self: &Arc<Self>, token: RefreshToken) {
        let Ok(metadata) = self.metadata().await else { return };
        let Some(endpoint) = &metadata.revocation_endpoint else { return };
        let form = form([("token", token.secret()), ("token_type_hint", "refresh_token")]);
        let post = Post { endpoint, form: &form, key: self.current_key(), patience: Patience::Ours };
        match self.post(post).await {
            Ok(answer) if answer.status.is_success() => tracing::debug!("refresh token revoked"),
            Ok(answer) => tracing::info!(status = %answer.status, "the provider did not revoke the refresh token"),
            Err(error) => tracing::info!(%error, "the refresh token could not be revoked"),
        }
    }

    /// Where the browser goes to log out at the provider, if it can
    /// ([RP-Initiated Logout 1.0 §2](https://openid.net/specs/openid-connect-rpinitiated-1_0.html#RPLogout)).
    ///
    /// Without a hint, and instead of one that would make the URL too long for servers, `client_id` says who asks. A process that
    /// has just started may not know yet where it is.
    pub(crate) async fn end_session_url(self: &Arc<Self>, hint: Option<&IdTokenHint>) -> Option<Url> {
        let mut url = self.metadata().await.ok()?.end_session_endpoint.clone()?;
        if let Some(hint) = hint.filter(|hint| hint.secret().len() <= LONGEST_HINT) {
            url.query_pairs_mut().append_pair("id_token_hint", hint.secret());
        }
        url.query_pairs_mut()
            .append_pair("client_id", self.client_id())
            .append_pair("post_logout_redirect_uri", self.client.post_logout_redirect_uri.as_str());
        Some(url)
    }

    /// The client's public keys, for a provider that fetches them; `None` if it authenticates otherwise.
    pub(crate) fn published_keys(&self) -> Option<Value> {
        let keys = self.client.credentials.all().iter().filter_map(ClientAuthentication::key);
        let keys: Vec<Value> = keys.map(SigningKey::published_jwk).collect();
        (!keys.is_empty()).then(|| json!({"keys": keys}))
    }
}
