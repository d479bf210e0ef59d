//! `POST /auth/security-events`: takes security events that a transmitter pushes
//! ([RFC 8935](https://www.rfc-editor.org/rfc/rfc8935)).
//!
//! | | |
//! |---|---|
//! | 202 | taken: sessions that it revokes are gone, other events are told to the listeners |
//! | 400, 408, 413 with `err` and `description` | anything wrong with request or token |
//! | 405 | another method |
//! | 503 | the registry or a needed key is out of reach: transmitters try again |
//!
//! An event reaches sessions that began before it happened, as a logout token does those before it was issued, and one that comes
//! twice does nothing more.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, StatusCode};

use super::own_session::OwnContext;
use super::receiver::{KEY_TIMEOUT, NoBody, read};
use crate::manager::RetryAfter;
use crate::protocol::jwt::TokenError;
use crate::protocol::logout_token::Whom;
use crate::protocol::security_event::{Initiator, Revocation, SecurityEvent};
use crate::provider::keys::VerifyError;
use crate::registry::{LogoutTarget, RegistryError, TokenMark};
use crate::session::end_reason::EndReason;
use crate::session::event::{EventKind, SessionEvent};
use crate::web::context::Context;
use crate::web::form::media_type;
use crate::web::page::{json, no_store, with_retry_after};

/// Why an event was not taken. The texts are ours and go into the answer.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Body(#[from] NoBody),
    #[error("the keys of the transmitter are out of reach")]
    KeysUnavailable,
    #[error("the body is not application/secevent+jwt")]
    MediaType,
    #[error("there is no receiver of security events here")]
    None,
    #[error("the session registry is out of reach")]
    Registry(#[from] RegistryError),
    #[error("the security event token is not valid: {0}")]
    Token(#[from] TokenError),
}

impl Refusal {
    /// The status, and the code by which RFC 8935 §2.4 calls it.
    fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Body(error) => (error.status(), "invalid_request"),
            Self::KeysUnavailable | Self::Registry(_) => (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"),
            Self::MediaType => (StatusCode::BAD_REQUEST, "invalid_request"),
            Self::None => (StatusCode::NOT_FOUND, "not_found"),
            Self::Token(error) => {
                let code = match error {
                    TokenError::Claim("iss", _) => "invalid_issuer",
                    TokenError::Claim("aud", _) => "invalid_audience",
                    TokenError::Key(_) => "invalid_key",
                    TokenError::Signature => "authentication_failed",
                    TokenError::Claim(..) | TokenError::Header(..) | TokenError::Malformed(_) => "invalid_request",
                };
                (StatusCode::BAD_REQUEST, code)
            }
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

pub(super) async fn security_events(OwnContext(context): OwnContext, request: Request<Body>) -> Response {
    let outcome = receive(&context, request).await;
    let label = match &outcome {
        Ok(()) => "accepted",
        Err(refusal) if refusal.status().0.is_server_error() => "unavailable",
        Err(_) => "refused",
    };
    metrics::counter!("oidc_security_events_total", "outcome" => label).increment(1);
    match outcome {
        Ok(()) => no_store(StatusCode::ACCEPTED.into_response()),
        Err(refusal) => {
            context.junk(
                |junk| &junk.security_events,
                |unwritten| {
                    tracing::warn!(reason = %refusal, unwritten, "security event refused");
                    let kind = EventKind::SecurityEventRefused { reason: refusal.to_string() };
                    context.manager().emit(&SessionEvent::of_nobody(kind, context.now()));
                },
            );
            answer(&refusal)
        }
    }
}

fn answer(refusal: &Refusal) -> Response {
    let (status, code) = refusal.status();
    let response = json(status, &serde_json::json!({"err": code, "description": refusal.to_string()}));
    if status.is_server_error() { with_retry_after(response, RetryAfter(Duration::from_secs(1))) } else { response }
}

async fn receive(context: &Context, request: Request<Body>) -> Result<(), Refusal> {
    let transmitter = context.transmitter().ok_or(Refusal::None)?;
    if !is_event(request.headers()) {
        return Err(Refusal::MediaType);
    }
    let body = read(request.into_body()).await?;
    let token = String::from_utf8_lossy(&body);
    let client = context.provider().client();
    let received = tokio::time::timeout(KEY_TIMEOUT, transmitter.receive(token.trim(), &client.issuers));
    let received = received.await.map_err(|_| Refusal::KeysUnavailable)??;
    for event in received.events {
        match event {
            SecurityEvent::SessionRevoked(revocation) => revoke(context, revocation, &received.jti).await?,
            SecurityEvent::Verification => {
                tracing::info!("the transmitter of security events has verified that it is heard");
            }
            SecurityEvent::Other(event) => {
                tracing::info!(event, "a security event that ends no session here");
                let kind = EventKind::SecurityEvent { event };
                context.manager().emit(&SessionEvent::of_nobody(kind, context.now()));
            }
        }
    }
    Ok(())
}

async fn revoke(context: &Context, revocation: Revocation, jti: &str) -> Result<(), RegistryError> {
    let client = context.provider().client();
    let registration = revocation.issuer.map_or_else(|| client.registration.clone(), |issuer| client.at(issuer));
    let token = TokenMark::new(revocation.at, jti);
    let reason = match revocation.by {
        Initiator::Admin => EndReason::ProviderTerminated,
        Initiator::Other => EndReason::SessionRevoked,
        Initiator::User => EndReason::ProviderUserLogout,
    };
    let (subject, sid) = match &revocation.whom {
        Whom::Sid { sid, subject } => (subject.clone(), Some(sid.clone())),
        Whom::Subject(subject) => (Some(subject.clone()), None),
    };
    // Both parts of a subject have to fit (RFC 9493 §3.2.8).
    let among_others = match (&sid, &subject) {
        (Some(sid), Some(subject)) => {
            context.manager().end_among_others(&registration, (sid, subject, revocation.at), reason).await?
        }
        _ => None,
    };
    let ended = if let Some(ended) = among_others {
        tracing::warn!("a security event names a session that others have, too: theirs do not end");
        ended
    } else {
        let target = LogoutTarget::of(revocation.whom, registration, token);
        context.manager().end_matching(target, reason).await?
    };
    tracing::info!(ended, "a security event has revoked sessions");
    let kind = EventKind::SessionsRevoked { subject, sid, ended, reason_user: revocation.reason_user };
    context.manager().emit(&SessionEvent::of_nobody(kind, context.now()));
    Ok(())
}

fn is_event(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    media_type(kind).eq_ignore_ascii_case("application/secevent+jwt")
}
