//! All traffic to the provider: discovery, keys, tokens, userinfo, revocation.
//!
//! Requests of the token and revocation endpoints are built by `oauth2`; the answers are judged by
//! [`token_response`](crate::protocol::token_response), since that crate drops their status.

pub(crate) mod cached;
pub(crate) mod circuit;
pub(crate) mod http;

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oauth2::basic::BasicClient;
use oauth2::{
    AuthType, AuthUrl, AuthorizationCode, CsrfToken, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl,
    RequestTokenError, Scope, TokenUrl,
};
use serde_json::{Map, Value};
use url::Url;

use self::cached::{Cached, Copy, Newer};
use self::circuit::{Circuit, Open, PROVIDER_THRESHOLD};
use self::http::{Answer, Http, NoAnswer};
use crate::clock::Clock;
use crate::protocol::authorization::LoginTransaction;
use crate::protocol::challenge::{self, ApiVerdict};
use crate::protocol::jwt::{Expected, KeySet, SigningAlg, TokenError, UnverifiedJwt, VerifiedJwt};
use crate::protocol::metadata::{ClientAuthentication, ProviderMetadata};
use crate::protocol::names::{AccessToken, ClientSecret, IdTokenHint, RefreshToken};
use crate::protocol::token_response::{self, TokenVerdict};
use crate::session::record::{Audience, Registration};

/// How far the clocks of provider and application may be apart.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(30);

/// What the provider knows this application by.
#[derive(Debug)]
pub(crate) struct ClientConfig {
    pub(crate) registration: Registration,
    pub(crate) secret: ClientSecret,
    pub(crate) redirect_uri: Url,
    pub(crate) post_logout_redirect_uri: Url,
    pub(crate) scopes: Vec<String>,
    pub(crate) signing_alg: SigningAlg,
    /// What access tokens are asked for besides the first (RFC 8707).
    pub(crate) resources: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Provider {
    client: ClientConfig,
    http: Http,
    clock: Arc<dyn Clock>,
    metadata: Cached<ProviderMetadata>,
    keys: Cached<KeySet>,
    circuit: Mutex<Circuit>,
    reported_metadata: AtomicBool,
}

/// The provider did not answer, or is being spared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the provider is unavailable: {reason}")]
pub(crate) struct Unavailable {
    pub(crate) reason: String,
    pub(crate) retry_after: Option<Duration>,
    /// Whether the provider may have acted on the request all the same.
    pub(crate) sent: Sent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Maybe,
    No,
}

impl Unavailable {
    fn not_sent(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), retry_after: None, sent: Sent::No }
    }
}

impl From<NoAnswer> for Unavailable {
    fn from(no_answer: NoAnswer) -> Self {
        let sent = match &no_answer {
            NoAnswer::NotSent(_) => Sent::No,
            NoAnswer::Lost(_) => Sent::Maybe,
        };
        Self { reason: no_answer.to_string(), retry_after: None, sent }
    }
}

impl From<Open> for Unavailable {
    fn from(open: Open) -> Self {
        Self { retry_after: Some(open.retry_after), ..Self::not_sent("it failed a moment ago and is left in peace") }
    }
}

/// Why a token could not be verified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VerifyError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// What a userinfo answer says about the session.
#[derive(Clone, Debug)]
pub(crate) enum UserInfoVerdict {
    Confirmed(Map<String, Value>),
    /// A definite no to the access token.
    Refused,
    /// An answer that neither confirms nor refuses.
    Unavailable(Unavailable),
}

impl Provider {
    pub(crate) fn new(client: ClientConfig, http: Http, clock: Arc<dyn Clock>, longest_pause: Duration) -> Self {
        Self {
            client,
            http,
            clock,
            metadata: Cached::new(),
            keys: Cached::new(),
            circuit: Mutex::new(Circuit::new(PROVIDER_THRESHOLD, longest_pause)),
            reported_metadata: AtomicBool::new(false),
        }
    }

    pub(crate) fn client(&self) -> &ClientConfig {
        &self.client
    }

    /// The bound on one call.
    pub(crate) fn timeout(&self) -> Duration {
        self.http.timeout()
    }

    /// Whether the metadata have been fetched.
    pub(crate) fn is_known(&self) -> bool {
        self.metadata.peek().is_some()
    }

    /// The metadata, if they have been fetched before.
    pub(crate) fn known_metadata(&self) -> Option<Arc<ProviderMetadata>> {
        self.metadata.peek().map(|copy| copy.value)
    }

    /// The metadata, fetched now if need be.
    pub(crate) async fn metadata(&self) -> Result<Arc<ProviderMetadata>, Unavailable> {
        let copy = self.metadata.get(self.clock.now(), || self.fetch_metadata()).await;
        copy.map(|copy| copy.value).ok_or_else(|| Unavailable::not_sent("its metadata could not be fetched"))
    }

    async fn fetch_metadata(&self) -> Option<ProviderMetadata> {
        let issuer = self.client.registration.issuer();
        let location = ProviderMetadata::location(issuer);
        let answer = self.fetch("discovery", &location).await?;
        match ProviderMetadata::parse(&answer.body, issuer) {
            Ok(metadata) => {
                self.report(&metadata);
                Some(metadata)
            }
            Err(error) => {
                tracing::error!(%issuer, %error, "the provider's metadata cannot be used");
                None
            }
        }
    }

    async fn fetch(&self, what: &'static str, url: &str) -> Option<Answer> {
        metrics::counter!("oidc_provider_fetches_total", "what" => what).increment(1);
        match self.http.get(url, None).await {
            Ok(answer) if answer.status == ::http::StatusCode::OK => Some(answer),
            Ok(answer) => {
                tracing::warn!(url, status = %answer.status, "the provider did not answer with its {what}");
                None
            }
            Err(error) => {
                tracing::warn!(url, %error, "the provider could not be asked for its {what}");
                None
            }
        }
    }

    /// Says once where the provider's metadata contradict what sessions rely on.
    fn report(&self, metadata: &ProviderMetadata) {
        if self.reported_metadata.swap(true, Ordering::Relaxed) {
            return;
        }
        let issuer = self.client.registration.issuer();
        if !metadata.backchannel_logout_supported {
            tracing::warn!(%issuer, "the provider does not declare backchannel_logout_supported: \
                sessions end when a refresh is refused, which takes up to access_token_lifetime of activity");
        } else if !metadata.backchannel_logout_session_supported {
            tracing::warn!(%issuer, "the provider does not declare backchannel_logout_session_supported: \
                a logout may end all sessions of the user");
        }
        if !metadata.code_challenge_methods_supported.iter().flatten().any(|method| method == "S256") {
            tracing::warn!(%issuer, "the provider does not declare S256 in code_challenge_methods_supported: \
                PKCE may not protect its logins");
        }
        let alg = self.client.signing_alg.as_str();
        if metadata.id_token_signing_alg_values_supported.as_ref().is_some_and(|algs| !algs.iter().any(|a| a == alg)) {
            tracing::warn!(%issuer, alg, "the provider does not declare the signing algorithm in \
                id_token_signing_alg_values_supported: its ID tokens may be refused");
        }
        if metadata.end_session_endpoint.is_none() {
            tracing::warn!(%issuer, "the provider declares no end_session_endpoint: \
                a logout here leaves the user logged in there");
        }
    }

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
        let keys: Copy<KeySet> = self.keys.get(now, || self.fetch_keys()).await.ok_or_else(no_keys)?;
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

    /// What the claims of the provider's tokens are compared with.
    pub(crate) fn expected(&self) -> Expected<'_> {
        Expected {
            issuer: self.client.registration.issuer(),
            client_id: self.client.registration.client_id(),
            now: self.clock.now(),
            tolerance: CLOCK_TOLERANCE,
        }
    }

    /// The URL that a browser is sent to for a login.
    pub(crate) async fn authorization_url(&self, transaction: &LoginTransaction) -> Result<Url, Unavailable> {
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
        url.query_pairs_mut()
            .extend_pairs(transaction.authentication.parameters())
            .extend_pairs(self.client.resources.iter().map(|resource| ("resource", resource)));
        Ok(url)
    }

    fn client_id(&self) -> String {
        self.client.registration.client_id().as_str().to_owned()
    }

    fn token_client(&self, metadata: &ProviderMetadata) -> TokenClient {
        BasicClient::new(oauth2::ClientId::new(self.client_id()))
            .set_client_secret(oauth2::ClientSecret::new(self.client.secret.secret().to_owned()))
            .set_auth_type(match metadata.client_authentication() {
                ClientAuthentication::Basic => AuthType::BasicAuth,
                ClientAuthentication::Post => AuthType::RequestBody,
            })
            .set_redirect_uri(RedirectUrl::from_url(self.client.redirect_uri.clone()))
            .set_token_uri(TokenUrl::from_url(metadata.token_endpoint.clone()))
    }

    /// Exchanges an authorization code for tokens.
    pub(crate) async fn exchange_code(&self, code: String, verifier: String) -> Result<TokenVerdict, Unavailable> {
        let metadata = self.metadata().await?;
        let client = self.token_client(&metadata);
        let request =
            client.exchange_code(AuthorizationCode::new(code)).set_pkce_verifier(PkceCodeVerifier::new(verifier));
        let sender = self.sender();
        let answer = answer_of(request.request_async(&sender).await)?;
        Ok(token_response::judge(answer.status, &answer.headers, &answer.body))
    }

    /// Presents a refresh token, once; for an access token to `audience`, if one is given.
    pub(crate) async fn refresh(
        &self,
        token: &RefreshToken,
        audience: Option<&Audience>,
    ) -> Result<TokenVerdict, Unavailable> {
        let metadata = self.metadata().await?;
        self.enter()?;
        let client = self.token_client(&metadata);
        let token = oauth2::RefreshToken::new(token.secret().to_owned());
        let mut request = client.exchange_refresh_token(&token);
        if let Some(audience) = audience {
            request = request.add_scopes(audience.scopes.iter().cloned().map(Scope::new));
            for (name, value) in audience.parameters() {
                request = request.add_extra_param(name, value);
            }
        }
        let sender = self.sender();
        let verdict = answer_of(request.request_async(&sender).await)
            .map(|answer| token_response::judge(answer.status, &answer.headers, &answer.body));
        let outcome = match &verdict {
            Ok(TokenVerdict::Unavailable { retry_after, .. }) => Err(*retry_after),
            Ok(TokenVerdict::Unreadable) | Err(_) => Err(None),
            Ok(_) => Ok(()),
        };
        self.leave(outcome);
        verdict
    }

    /// Asks for the user's claims, which the provider takes as a sign of life.
    pub(crate) async fn user_info(&self, token: &AccessToken, subject: &str) -> Result<UserInfoVerdict, Unavailable> {
        let metadata = self.metadata().await?;
        let Some(endpoint) = &metadata.userinfo_endpoint else {
            return Err(Unavailable::not_sent("it has no userinfo endpoint"));
        };
        self.enter()?;
        let answer = match self.http.get(endpoint.as_str(), Some(token.secret())).await {
            Ok(answer) => answer,
            Err(error) => {
                self.leave(Err(None));
                return Err(error.into());
            }
        };
        let verdict = judge_user_info(&answer, subject);
        self.leave(match &verdict {
            UserInfoVerdict::Unavailable(unavailable) => Err(unavailable.retry_after),
            _ => Ok(()),
        });
        Ok(verdict)
    }

    /// Revokes a refresh token (RFC 7009). Courtesy: the outcome is logged and changes nothing.
    pub(crate) async fn revoke(&self, token: RefreshToken) {
        let Ok(metadata) = self.metadata().await else { return };
        let Some(endpoint) = &metadata.revocation_endpoint else { return };
        // By hand: oauth2 insists on https, which plain http to a provider on this machine is not.
        let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let mut body = format!("token={}&token_type_hint=refresh_token", encode(token.secret()));
        let (id, secret) = (encode(&self.client_id()), encode(self.client.secret.secret()));
        let mut request = ::http::Request::post(endpoint.as_str())
            .header(::http::header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        match metadata.client_authentication() {
            ClientAuthentication::Basic => {
                use base64::Engine;
                let credentials = base64::engine::general_purpose::STANDARD.encode(format!("{id}:{secret}"));
                request = request.header(::http::header::AUTHORIZATION, format!("Basic {credentials}"));
            }
            ClientAuthentication::Post => body = format!("{body}&client_id={id}&client_secret={secret}"),
        }
        let outcome = match request.body(body.into_bytes()) {
            Ok(request) => self.http.send(request).await.map_err(|error| error.to_string()),
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
    pub(crate) fn end_session_url(&self, hint: &IdTokenHint) -> Option<Url> {
        let mut url = self.known_metadata()?.end_session_endpoint.clone()?;
        url.query_pairs_mut()
            .append_pair("id_token_hint", hint.secret())
            .append_pair("client_id", self.client.registration.client_id().as_str())
            .append_pair("post_logout_redirect_uri", self.client.post_logout_redirect_uri.as_str());
        Some(url)
    }

    fn sender(&self) -> impl Fn(oauth2::HttpRequest) -> SendFuture + '_ {
        move |request| {
            let http = self.http.clone();
            Box::pin(async move {
                match http.send(request).await {
                    Ok(answer) => Err(Sending::Answered(answer)),
                    Err(error) => Err(Sending::Failed(error)),
                }
            })
        }
    }

    fn enter(&self) -> Result<(), Open> {
        // A probe makes at most two calls.
        let probe = self.timeout() * 2;
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner).enter(self.clock.now(), probe)
    }

    fn leave(&self, outcome: Result<(), Option<Duration>>) {
        let mut circuit = self.circuit.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(()) => circuit.succeeded(),
            Err(retry_after) => circuit.failed(self.clock.now(), retry_after),
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

fn judge_user_info(answer: &Answer, subject: &str) -> UserInfoVerdict {
    if answer.status.is_success() {
        // A signed answer (application/jwt) is a sign of life too; its claims are not used.
        let json = serde_json::from_slice::<Map<String, Value>>(&answer.body);
        let is_jwt = answer
            .headers
            .get(::http::header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/jwt"));
        return match json {
            // Core §5.3.2: claims about somebody else must not be used.
            Ok(claims) if claims.get("sub").and_then(Value::as_str) == Some(subject) => {
                UserInfoVerdict::Confirmed(claims)
            }
            Ok(_) => UserInfoVerdict::Refused,
            Err(_) if is_jwt => UserInfoVerdict::Confirmed(Map::new()),
            Err(_) => UserInfoVerdict::Unavailable(Unavailable::not_sent("its userinfo answer cannot be read")),
        };
    }
    let verdict = challenge::judge(answer.status, &answer.headers);
    if matches!(verdict, ApiVerdict::TokenRejected | ApiVerdict::Unexplained) {
        return UserInfoVerdict::Refused;
    }
    UserInfoVerdict::Unavailable(Unavailable {
        retry_after: token_response::retry_after(&answer.headers),
        ..Unavailable::not_sent(format!("its userinfo endpoint answered {}", answer.status))
    })
}
