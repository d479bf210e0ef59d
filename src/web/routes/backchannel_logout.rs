//! `POST /auth/backchannel-logout`: takes the provider's logout tokens.
//!
//! [Back-Channel Logout 1.0, errata 1, §2.5–§2.8](https://openid.net/specs/openid-connect-backchannel-1_0.html#BCRequest).
//! The caller is the provider, which has no cookies; authenticity comes from the token's signature alone. It never
//! waits for a refresh: some providers send the logout token from inside the token request that they are about to refuse.
//!
//! | | |
//! |---|---|
//! | 200 | the sessions are gone, or were before |
//! | 400 | anything wrong with request or token |
//! | 405, 408, 413, 415 | wrong method; body too late, too long, of another type |
//! | 503 | the registry or a needed key is out of reach: providers that retry shall |
//!
//! A token that comes twice is answered with 200 twice: it can only end sessions that began before it was issued, and
//! renews no tombstone, so nothing is refused for a `jti`, and nothing can be burnt by an attempt that failed.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use url::form_urlencoded;

use super::own_session::OwnContext;
use super::receiver::{KEY_TIMEOUT, NoBody, read};
use crate::manager::RetryAfter;
use crate::protocol::jwt::TokenError;
use crate::protocol::logout_token::{LogoutReason, LogoutToken};
use crate::provider::keys::{Bearer, VerifyError};
use crate::registry::{LogoutTarget, RegistryError, TokenMark};
use crate::session::end_reason::EndReason;
use crate::session::event::{EventKind, SessionEvent};
use crate::web::context::Context;
use crate::web::form::is_urlencoded;
use crate::web::navigation::Asker;
use crate::web::page::{json, no_store, with_retry_after};
use crate::web::pages::{Page, PageKind};
use crate::web::paths::Paths;

/// Why a logout request was not followed. The texts are ours and go into the answer.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Body(#[from] NoBody),
    #[error("the body is not application/x-www-form-urlencoded, without content encoding")]
    MediaType,
    #[error("the method is not POST")]
    Method,
    #[error("{0}")]
    Parameters(&'static str),
    #[error("the logout token is not valid: {0}")]
    Token(#[from] TokenError),
    #[error("the provider's keys are out of reach")]
    KeysUnavailable,
    #[error("the session registry is out of reach")]
    Registry(#[from] RegistryError),
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Body(error) => error.status(),
            Self::Parameters(_) | Self::Token(_) => StatusCode::BAD_REQUEST,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::KeysUnavailable | Self::Registry(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl From<VerifyError> for Refusal {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::OtherIssuer(error) | VerifyError::Token(error) => Self::Token(error),
            VerifyError::Unavailable(_) => Self::KeysUnavailable,
        }
    }
}

pub(crate) fn route<S: Clone + Send + Sync + 'static>(context: &Context) -> Router<S> {
    Router::new()
        .route(&context.paths().route_of_party("backchannel-logout"), any(backchannel_logout))
        .with_state(context.clone())
}

/// The same for tenants, of whom the layer knows which is meant.
pub(crate) fn route_of_tenants<S: Clone + Send + Sync + 'static>(paths: &Paths) -> Router<S> {
    let receive = async |OwnContext(context): OwnContext, request| backchannel_logout(State(context), request).await;
    Router::new().route(&paths.route_of_party("backchannel-logout"), any(receive))
}

async fn backchannel_logout(State(context): State<Context>, request: Request<Body>) -> Response {
    if Asker::of(request.method(), request.headers()) == Asker::Page {
        let mut response = Page::new(PageKind::MethodNotAllowed).into_response();
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let outcome = receive(&context, request).await;
    let label = match &outcome {
        Ok(_) => "accepted",
        Err(refusal) if refusal.status().is_server_error() => "unavailable",
        Err(_) => "refused",
    };
    metrics::counter!("oidc_logout_tokens_total", "outcome" => label).increment(1);
    match outcome {
        Ok(ended) => {
            tracing::info!(ended, "logout token accepted");
            no_store(Response::default())
        }
        Err(refusal) => {
            context.junk(
                |junk| &junk.logout_tokens,
                |unwritten| {
                    tracing::warn!(reason = %refusal, unwritten, "logout token refused");
                    let kind = EventKind::LogoutTokenRefused { reason: refusal.to_string() };
                    context.manager().emit(&SessionEvent::of_nobody(kind, context.now()));
                },
            );
            answer(&refusal)
        }
    }
}

fn answer(refusal: &Refusal) -> Response {
    let status = refusal.status();
    let error = if status.is_server_error() { "temporarily_unavailable" } else { "invalid_request" };
    let body = serde_json::json!({"error": error, "error_description": refusal.to_string()});
    let mut response = json(status, &body);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    }
    if status.is_server_error() {
        return with_retry_after(response, RetryAfter(Duration::from_secs(1)));
    }
    response
}

/// Follows a logout request and returns how many sessions it ended.
async fn receive(context: &Context, request: Request<Body>) -> Result<usize, Refusal> {
    if request.method() != Method::POST {
        return Err(Refusal::Method);
    }
    if !is_form(request.headers()) {
        return Err(Refusal::MediaType);
    }
    let token = logout_token(&read(request.into_body()).await?)?;
    let provider = context.provider();
    let verified = tokio::time::timeout(KEY_TIMEOUT, provider.verify(&token, Bearer::Anybody));
    let verified = verified.await.map_err(|_| Refusal::KeysUnavailable)??;
    let token = LogoutToken::validate(verified, &provider.expected(), context.logout_tokens())?;
    let reason = match token.reason {
        LogoutReason::SessionExpiration => EndReason::ProviderSessionExpired,
        LogoutReason::Terminated => EndReason::ProviderTerminated,
        LogoutReason::UserLogout => EndReason::ProviderUserLogout,
        LogoutReason::Unknown => EndReason::BackChannelLogout,
    };
    Ok(context.manager().end_matching(target(context, token), reason).await?)
}

fn target(context: &Context, token: LogoutToken) -> LogoutTarget {
    let registration = context.provider().client().at(token.issuer);
    LogoutTarget::of(token.whom, registration, TokenMark::new(token.issued_at, &token.jti))
}

fn is_form(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(kind), None) = (types.next().and_then(|kind| kind.to_str().ok()), types.next()) else { return false };
    // Some senders append a charset.
    is_urlencoded(kind) && !headers.contains_key(CONTENT_ENCODING)
}

/// The one `logout_token` parameter. Others are ignored (§2.5), but none may come twice (RFC 6749 §3.2).
fn logout_token(body: &[u8]) -> Result<String, Refusal> {
    let mut names = std::collections::HashSet::new();
    let mut token = None;
    for (name, value) in form_urlencoded::parse(body) {
        if name == "logout_token" {
            token = Some(value.into_owned());
        }
        if !names.insert(name) {
            return Err(Refusal::Parameters("a parameter is there more than once"));
        }
    }
    token.filter(|token| !token.is_empty()).ok_or(Refusal::Parameters("the parameter logout_token is missing"))
}

/// The same for fuzzers.
#[cfg(any(fuzzing, test))]
pub(crate) fn token_of_body(body: &[u8]) -> Option<String> {
    logout_token(body).ok()
}
