//! Requests to the provider's endpoints.
//!
//! Those of the token endpoint are built by `oauth2`; the answers are judged by
//! [`token_response`](crate::protocol::token_response), since that crate drops their status. All its glue is in this file.

use std::pin::Pin;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Request, StatusCode};
use oauth2::basic::BasicClient;
use oauth2::{
    AuthType, AuthUrl, AuthorizationCode, CsrfToken, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl,
    RequestTokenError, Scope, TokenUrl,
};
use url::{Url, form_urlencoded};

use super::circuit::Failure;
use super::http::{Answer, NoAnswer, Patience};
use super::{Provider, Sent, Unavailable};
use crate::protocol::authorization::Audience;
use crate::protocol::metadata::{ClientAuthentication, ProviderMetadata};
use crate::protocol::names::{ClientSecret, IdTokenHint, RefreshToken, Subject};
use crate::protocol::token_response::{self, TokenVerdict};
use crate::session::login_attempt::LoginTransaction;

/// Longer ID tokens do not go into URLs.
const LONGEST_HINT: usize = 6 * 1024;

impl Provider {
    /// The URL that a browser is sent to for a login.
    pub(crate) async fn authorization_url(
        self: &Arc<Self>,
        transaction: &LoginTransaction,
    ) -> Result<Url, Unavailable> {
        let metadata = self.metadata().await?;
        let verifier = PkceCodeVerifier::new(transaction.pkce_verifier.clone());
        let state = transaction.state.clone();
        let (mut url, _) = BasicClient::new(oauth2::ClientId::new(self.client_id()))
            .set_auth_uri(AuthUrl::from_url(metadata.authorization_endpoint.clone()))
            .set_redirect_uri(RedirectUrl::from_url(self.client.redirect_uri.clone()))
            .authorize_url(|| CsrfToken::new(state))
            .add_scopes(self.client.scopes.iter().cloned().map(Scope::new))
            .add_extra_param("nonce", transaction.nonce.clone())
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier))
            .url();
        let authentication = transaction.authentication.parameters();
        // A step-up says better which authentication is wanted.
        let is_said = |name: &str| authentication.iter().any(|(said, _)| *said == name);
        let others = self.client.parameters.with(&transaction.linked).filter(|(name, _)| !is_said(name));
        url.query_pairs_mut()
            .extend_pairs(others)
            .extend_pairs(authentication.iter().map(|(name, value)| (*name, value.as_str())))
            .extend_pairs(self.client.resources.iter().map(|resource| ("resource", resource)));
        Ok(url)
    }

    fn client_id(&self) -> String {
        self.client.registration.client_id().as_str().to_owned()
    }

    fn token_client(&self, metadata: &ProviderMetadata, secret: &ClientSecret) -> TokenClient {
        BasicClient::new(oauth2::ClientId::new(self.client_id()))
            .set_client_secret(oauth2::ClientSecret::new(secret.secret().to_owned()))
            .set_auth_type(match metadata.client_authentication() {
                ClientAuthentication::Basic => AuthType::BasicAuth,
                ClientAuthentication::Post => AuthType::RequestBody,
            })
            .set_redirect_uri(RedirectUrl::from_url(self.client.redirect_uri.clone()))
            .set_token_uri(TokenUrl::from_url(metadata.token_endpoint.clone()))
    }

    /// Exchanges an authorization code for tokens.
    pub(crate) async fn exchange_code(
        self: &Arc<Self>,
        code: String,
        verifier: String,
    ) -> Result<TokenVerdict, Unavailable> {
        let metadata = self.metadata().await?;
        let tried = self.client.secrets.current();
        let verdict = self.exchange_code_by(&metadata, tried.secret, code.clone(), verifier.clone()).await?;
        let Some(next) = self.client.secrets.after(tried, &verdict) else { return Ok(verdict) };
        let verdict = self.exchange_code_by(&metadata, next.secret, code, verifier).await?;
        self.client.secrets.settle(next, &verdict);
        Ok(verdict)
    }

    async fn exchange_code_by(
        self: &Arc<Self>,
        metadata: &ProviderMetadata,
        secret: &ClientSecret,
        code: String,
        verifier: String,
    ) -> Result<TokenVerdict, Unavailable> {
        let client = self.token_client(metadata, secret);
        let request =
            client.exchange_code(AuthorizationCode::new(code)).set_pkce_verifier(PkceCodeVerifier::new(verifier));
        let sender = self.sender(Patience::Ours);
        let answer = answer_of(request.request_async(&sender).await);
        self.look_for_endpoint_after(&answer);
        let answer = answer?;
        Ok(token_response::judge(answer.status, &answer.headers, &answer.body, self.clock.now()))
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
        let tried = self.client.secrets.current();
        let mut verdict = self.refresh_by(&metadata, tried.secret, token, audience).await;
        if let Some(next) = verdict.as_ref().ok().and_then(|verdict| self.client.secrets.after(tried, verdict)) {
            verdict = self.refresh_by(&metadata, next.secret, token, audience).await;
            if let Ok(verdict) = &verdict {
                self.client.secrets.settle(next, verdict);
            }
        }
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

    async fn refresh_by(
        self: &Arc<Self>,
        metadata: &ProviderMetadata,
        secret: &ClientSecret,
        token: &RefreshToken,
        audience: Option<&Audience>,
    ) -> Result<TokenVerdict, Unavailable> {
        let client = self.token_client(metadata, secret);
        let token = oauth2::RefreshToken::new(token.secret().to_owned());
        let mut request = client.exchange_refresh_token(&token);
        if let Some(audience) = audience {
            request = request.add_scopes(audience.scopes.iter().cloned().map(Scope::new));
            for (name, value) in audience.parameters() {
                request = request.add_extra_param(name, value);
            }
        }
        let sender = self.sender(Patience::Callers);
        let answer = answer_of(request.request_async(&sender).await);
        self.look_for_endpoint_after(&answer);
        let now = self.clock.now();
        answer.map(|answer| token_response::judge(answer.status, &answer.headers, &answer.body, now))
    }

    /// Revokes a refresh token (RFC 7009). Courtesy: the outcome is logged and changes nothing.
    pub(crate) async fn revoke(self: &Arc<Self>, token: RefreshToken) {
        let Ok(metadata) = self.metadata().await else { return };
        let Some(endpoint) = &metadata.revocation_endpoint else { return };
        // By hand: oauth2 insists on https, which plain http to a provider on this machine is not.
        let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let mut body = format!("token={}&token_type_hint=refresh_token", encode(token.secret()));
        let (id, secret) = (encode(&self.client_id()), encode(self.client.secrets.current().secret.secret()));
        let mut request = Request::post(endpoint.as_str()).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        match metadata.client_authentication() {
            ClientAuthentication::Basic => {
                let credentials = STANDARD.encode(format!("{id}:{secret}"));
                request = request.header(AUTHORIZATION, format!("Basic {credentials}"));
            }
            ClientAuthentication::Post => body = format!("{body}&client_id={id}&client_secret={secret}"),
        }
        let outcome = match request.body(body.into_bytes()) {
            Ok(request) => self.http.send(request, Patience::Ours).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match outcome {
            Ok(answer) if answer.status.is_success() => tracing::debug!("refresh token revoked"),
            Ok(answer) => tracing::info!(status = %answer.status, "the provider did not revoke the refresh token"),
            Err(error) => tracing::info!(error, "the refresh token could not be revoked"),
        }
    }

    /// Where the browser goes to log out at the provider, if it can
    /// ([RP-Initiated Logout 1.0 §2](https://openid.net/specs/openid-connect-rpinitiated-1_0.html#RPLogout)).
    ///
    /// Without a hint, and instead of one that would make the URL too long for servers, `client_id` says who asks.
    pub(crate) fn end_session_url(&self, hint: Option<&IdTokenHint>) -> Option<Url> {
        let mut url = self.known_metadata()?.end_session_endpoint.clone()?;
        if let Some(hint) = hint.filter(|hint| hint.secret().len() <= LONGEST_HINT) {
            url.query_pairs_mut().append_pair("id_token_hint", hint.secret());
        }
        url.query_pairs_mut()
            .append_pair("client_id", self.client.registration.client_id().as_str())
            .append_pair("post_logout_redirect_uri", self.client.post_logout_redirect_uri.as_str());
        Some(url)
    }

    fn sender(&self, patience: Patience) -> impl Fn(oauth2::HttpRequest) -> SendFuture + '_ {
        move |request| {
            let http = self.http.clone();
            Box::pin(async move {
                match http.send(request, patience).await {
                    Ok(answer) => Err(Sending::Answered(answer)),
                    Err(error) => Err(Sending::Failed(error)),
                }
            })
        }
    }
}

type TokenClient = BasicClient<
    oauth2::EndpointNotSet,
    oauth2::EndpointNotSet,
    oauth2::EndpointNotSet,
    oauth2::EndpointNotSet,
    oauth2::EndpointSet,
>;

type SendFuture = Pin<Box<dyn Future<Output = Result<oauth2::HttpResponse, Sending>> + Send>>;

/// What came of sending a request that `oauth2` built. The answer takes the way of an error, so that it comes
/// back whole instead of being read there.
#[derive(Debug, thiserror::Error)]
enum Sending {
    #[error("answered")]
    Answered(Answer),
    #[error(transparent)]
    Failed(NoAnswer),
}

fn answer_of<T, E: oauth2::ErrorResponse>(
    result: Result<T, RequestTokenError<Sending, E>>,
) -> Result<Answer, Unavailable> {
    match result {
        Err(RequestTokenError::Request(Sending::Answered(answer))) => Ok(answer),
        Err(RequestTokenError::Request(Sending::Failed(error))) => Err(error.into()),
        // Not reached: the sender never gives oauth2 an answer to read.
        Ok(_) | Err(_) => Err(Unavailable::not_sent("the request could not be built")),
    }
}
