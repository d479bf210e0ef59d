//! From an authorization code to a session.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use serde_json::{Map, Value};

use super::Manager;
use crate::protocol::authorization::LoginTransaction;
use crate::protocol::id_token::{AuthenticationRequest, IdToken};
use crate::protocol::jwt::TokenError;
use crate::protocol::names::IdTokenHint;
use crate::protocol::token_response::{ErrorCode, TokenResponse, TokenVerdict};
use crate::provider::{Unavailable, UserInfoVerdict, VerifyError};
use crate::registry::{Committed, Created, Loaded, RegistryError};
use crate::session::event::{EndReason, SessionEvent, SessionInfo};
use crate::session::id::{SessionId, SessionKey};
use crate::session::policy::{KeptTokens, SilentLogin};
use crate::session::record::{ActivitySignal, Login, SessionRecord, Tokens, Version};

/// What the userinfo endpoint is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserInfo {
    /// It is asked at login too, and its claims are added to those of the ID token.
    Claims,
    /// It is asked only as the activity signal of sessions without refresh token.
    #[default]
    Signal,
}

/// What came of a login.
#[derive(Debug)]
pub(crate) enum LoggedIn {
    /// A new session.
    Anew(SessionId, Arc<SessionRecord>),
    /// The session that there is goes on.
    Confirmed,
}

/// Why a login came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginError {
    #[error("the provider refused the authorization code: {}", .0.as_str())]
    CodeRefused(ErrorCode),
    #[error("the provider refused this client: {}", .0.as_str())]
    Misconfigured(ErrorCode),
    #[error("a logout overtook the login")]
    LoggedOut,
    #[error("the provider's answer cannot be used: {0}")]
    Nonsense(&'static str),
    #[error("the ID token is not valid: {0}")]
    IdToken(#[from] TokenError),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl From<VerifyError> for LoginError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Token(error) => Self::IdToken(error),
            VerifyError::Unavailable(error) => Self::Unavailable(error),
        }
    }
}

impl Manager {
    /// Exchanges the code, validates the ID token and stores the session under a new id; a silent login confirms the
    /// session that it was begun for instead, if that is still `previous`, the browser's.
    ///
    /// # Cancel safety
    /// Once the code is on its way, the login is finished without the caller.
    pub(crate) async fn start(
        self: &Arc<Self>,
        code: String,
        transaction: LoginTransaction,
        user_info: UserInfo,
        previous: Option<SessionKey>,
    ) -> Result<LoggedIn, LoginError> {
        let manager = self.clone();
        let login = tokio::spawn(async move { manager.log_in(code, transaction, user_info, previous).await });
        login.await.unwrap_or(Err(LoginError::Nonsense("the login panicked")))
    }

    async fn log_in(
        self: Arc<Self>,
        code: String,
        mut transaction: LoginTransaction,
        user_info: UserInfo,
        previous: Option<SessionKey>,
    ) -> Result<LoggedIn, LoginError> {
        // A silent login that the browser comes back from with another session, or none, confirms nothing any more.
        if transaction.session.is_some() && previous != transaction.session {
            return if previous.is_some() { Ok(LoggedIn::Confirmed) } else { Err(LoginError::LoggedOut) };
        }
        let verifier = std::mem::take(&mut transaction.pkce_verifier);
        let sent_at = self.clock.now();
        let response = match self.provider.exchange_code(code, verifier).await? {
            TokenVerdict::Granted(response) => response,
            TokenVerdict::Refused(error) | TokenVerdict::Ambiguous(error) => {
                return Err(LoginError::CodeRefused(error));
            }
            TokenVerdict::Misconfigured(error) => return Err(LoginError::Misconfigured(error)),
            TokenVerdict::Unavailable { status, retry_after } if status.is_server_error() || retry_after.is_some() => {
                let reason = format!("its token endpoint answered {status}");
                return Err(Unavailable { reason, retry_after, sent: crate::provider::Sent::Maybe }.into());
            }
            TokenVerdict::Unavailable { .. } | TokenVerdict::Unreadable => {
                return Err(LoginError::Nonsense("the token response cannot be read"));
            }
        };
        let refresh_token = response.refresh_token.clone();
        let started = self.store_login(response, &transaction, sent_at, user_info).await;
        // Tokens of a login that failed are good for nothing but theft. Those that a session does without are dropped: to
        // revoke them ends the client's part of the session at some providers (Keycloak).
        if let (Err(_), Some(token)) = (&started, refresh_token) {
            let manager = self.clone();
            tokio::spawn(async move { manager.provider.revoke(token).await });
        }
        started
    }

    async fn store_login(
        self: &Arc<Self>,
        response: TokenResponse,
        transaction: &LoginTransaction,
        sent_at: SystemTime,
        user_info: UserInfo,
    ) -> Result<LoggedIn, LoginError> {
        let raw = response.id_token.clone().ok_or(LoginError::Nonsense("the token response has no ID token"))?;
        let verified = self.provider.verify(raw.secret()).await?;
        let request = AuthenticationRequest { nonce: &transaction.nonce, max_age: transaction.authentication.max_age };
        let id_token = IdToken::of_login(verified, &self.provider.expected(), request)?;
        id_token.check_access_token(&response.access_token, self.provider.client().signing_alg)?;
        self.report_lifetime(&response);
        let mut claims = id_token.claims.clone();
        if user_info == UserInfo::Claims {
            claims.extend(self.user_info_claims(&response, &id_token).await?);
        }
        if let Some(session) = transaction.session
            && let Some(confirmed) = self.confirm_silently(&session, &response, &id_token, sent_at).await?
        {
            return Ok(confirmed);
        }
        let id = SessionId::random();
        let record = Arc::new(self.new_record(&id, response, raw, id_token, claims, transaction, sent_at));
        match self.registry.create(SessionRecord::clone(&record), self.clock.now()).await? {
            Created::Created => {}
            Created::Covered => return Err(LoginError::LoggedOut),
            // 256 random bits are never the same twice.
            Created::Exists => return Err(LoginError::Nonsense("the session id is taken")),
        }
        tracing::info!(session = ?record.key(), "session started");
        metrics::counter!("oidc_sessions_started_total").increment(1);
        self.emit(&SessionEvent::Started(SessionInfo::of(&record)));
        Ok(LoggedIn::Anew(id, record))
    }

    /// Takes a silent login as the confirmation of the session that asked for it, if it is of the same user.
    async fn confirm_silently(
        self: &Arc<Self>,
        key: &SessionKey,
        response: &TokenResponse,
        id_token: &IdToken,
        sent_at: SystemTime,
    ) -> Result<Option<LoggedIn>, LoginError> {
        let mut record = match self.registry.load(key).await? {
            Loaded::Live(record) => record,
            // The browser has a newer one.
            Loaded::Ended(EndReason::SupersededByLogin) => return Ok(Some(LoggedIn::Confirmed)),
            Loaded::Ended(_) => return Err(LoginError::LoggedOut),
            Loaded::Unknown => return Ok(None),
        };
        if record.login.signal != ActivitySignal::SilentLogin || *record.subject() != id_token.subject {
            return Ok(None);
        }
        loop {
            let mut next = SessionRecord::clone(&record);
            next.last_signal = sent_at;
            next.silent_login_at = None;
            next.sid = id_token.sid.clone().or(next.sid);
            next.session_expiry = id_token.session_expiry.or(next.session_expiry);
            if let Some(raw) = &response.id_token {
                next.tokens.id_token = raw.clone();
            }
            if next.tokens.access_token.is_some() {
                next.tokens.access_token = Some(response.access_token.clone());
                next.tokens.expires_in = response.expires_in;
                next.tokens.obtained_at = sent_at;
            }
            match self.registry.commit(next.with_expiry(&self.policy), self.clock.now()).await? {
                Committed::Committed(record) => {
                    self.emit(&SessionEvent::Refreshed(SessionInfo::of(&record)));
                    return Ok(Some(LoggedIn::Confirmed));
                }
                // Another attempt began meanwhile; that is not an answer yet.
                Committed::Stale(newer) if newer.last_signal < sent_at => record = newer,
                Committed::Stale(_) => return Ok(Some(LoggedIn::Confirmed)),
                Committed::Gone(Some(EndReason::SupersededByLogin)) => return Ok(Some(LoggedIn::Confirmed)),
                Committed::Gone(reason) => {
                    // It may only be hidden by a tombstone for its new sid.
                    self.end(key, reason.unwrap_or(EndReason::BackChannelLogout)).await?;
                    return Err(LoginError::LoggedOut);
                }
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a record, used once")]
    fn new_record(
        &self,
        id: &SessionId,
        response: TokenResponse,
        raw: IdTokenHint,
        id_token: IdToken,
        claims: Map<String, Value>,
        transaction: &LoginTransaction,
        sent_at: SystemTime,
    ) -> SessionRecord {
        let client = self.provider.client();
        let has_user_info = self.provider.known_metadata().is_some_and(|m| m.userinfo_endpoint.is_some());
        let keeps_tokens = self.policy.tokens == KeptTokens::All;
        let signal = match (&response.refresh_token, has_user_info) {
            (Some(_), _) if keeps_tokens => ActivitySignal::Refresh,
            (None, true) if keeps_tokens => ActivitySignal::UserInfo,
            _ if self.policy.silent_login == SilentLogin::WhenDue => ActivitySignal::SilentLogin,
            _ => ActivitySignal::None,
        };
        // RFC 6749 §5.1: without scope in the answer what was asked for was granted.
        let has_offline = |scopes: &str| scopes.split(' ').any(|scope| scope == "offline_access");
        let offline_access = match &response.scope {
            Some(scope) => has_offline(scope),
            None => client.scopes.iter().any(|scope| scope == "offline_access"),
        };
        let login = Login {
            registration: client.registration.clone(),
            subject: id_token.subject,
            nonce: transaction.nonce.clone(),
            issued_at: id_token.issued_at,
            auth_time: id_token.auth_time,
            started_at: sent_at,
            signal,
            claims,
            offline_access,
            authentication: transaction.authentication.clone(),
        };
        let record = SessionRecord {
            key: SessionKey::of(id, &client.registration),
            version: Version::FIRST,
            login: Arc::new(login),
            sid: id_token.sid,
            session_expiry: id_token.session_expiry,
            tokens: Tokens {
                access_token: Some(response.access_token).filter(|_| keeps_tokens),
                refresh_token: response.refresh_token.filter(|_| keeps_tokens),
                id_token: raw,
                expires_in: response.expires_in,
                obtained_at: sent_at,
                others: BTreeMap::new(),
            },
            last_signal: sent_at,
            silent_login_at: None,
            expires_at: sent_at,
        };
        record.with_expiry(&self.policy)
    }

    async fn user_info_claims(
        &self,
        response: &TokenResponse,
        id_token: &IdToken,
    ) -> Result<Map<String, Value>, LoginError> {
        match self.provider.user_info(&response.access_token, id_token.subject.as_str()).await? {
            UserInfoVerdict::Confirmed(claims) => Ok(claims),
            UserInfoVerdict::Refused => Err(LoginError::Nonsense("the userinfo answer is not about this user")),
            UserInfoVerdict::Unavailable(unavailable) => Err(unavailable.into()),
        }
    }

    /// Says once that the provider's access tokens outlive its sessions.
    fn report_lifetime(&self, response: &TokenResponse) {
        let lifetime = self.policy.op_session_lifetime;
        let Some(expires_in) = response.expires_in.filter(|expires_in| *expires_in >= lifetime) else { return };
        if !self.reported_expires_in.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                ?expires_in,
                op_session_lifetime = ?lifetime,
                "the provider's access tokens live as long as its sessions or longer: they are used for \
                 access_token_lifetime here, but APIs accept them after the session's end"
            );
        }
    }
}
