//! Logins: from an authorization code to a session.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use super::Manager;
use super::login_outcome::{Load, LoggedIn, LoginError, LoginOutcome};
use crate::protocol::id_token::{AuthenticationRequest, IdToken};
use crate::protocol::jwt;
use crate::protocol::token_response::{TokenResponse, TokenVerdict};
use crate::provider::keys::{Bearer, VerifyError};
use crate::provider::user_info::UserInfoVerdict;
use crate::provider::{Sent, Unavailable};
use crate::registry::{Committed, Created, Spent};
use crate::session::browser::Browser;
use crate::session::end_reason::EndReason;
use crate::session::event::{EventKind, SessionEvent};
use crate::session::id::{AttemptKey, SessionId, SessionKey};
use crate::session::login_attempt::LoginTransaction;
use crate::session::new_login::{self, LoginRefused};
use crate::session::policy::{ClaimsFrom, KeptTokens};
use crate::session::record::{NewLogin, SessionRecord, UserInfoEndpoint};
use crate::session::silent_login::{self, Found, Step};

/// A person waits for what the application has to say of a login.
const LONGEST_HOOK: Duration = Duration::from_secs(5);

/// What an ID token says of itself, its session and its login. Userinfo, which nobody signs, cannot say it instead, nor
/// add it.
const PROTOCOL_CLAIMS: [&str; 17] = [
    "acr",
    "amr",
    "at_hash",
    "aud",
    "auth_time",
    "azp",
    "c_hash",
    "events",
    "exp",
    "iat",
    "iss",
    "jti",
    "nbf",
    "nonce",
    "session_expiry",
    "sid",
    "sub",
];

impl Manager {
    /// Exchanges the code, validates the ID token and stores the session under a new id; a silent login confirms the
    /// session that it was begun for instead, if that is still `previous`, the browser's.
    ///
    /// An attempt is redeemed once: who brings it again meanwhile, or soon after, gets what the first one gets.
    ///
    /// # Cancel safety
    /// Once the code is on its way, the login is finished without the caller.
    pub(crate) async fn log_in(
        self: &Arc<Self>,
        code: String,
        transaction: LoginTransaction,
        claims_from: ClaimsFrom,
        previous: Option<SessionKey>,
        browser: Browser,
    ) -> (LoginOutcome, Load) {
        // A silent login that the browser comes back from with another session, or none, confirms nothing any more.
        if transaction.session.is_some() && previous != transaction.session {
            let outcome = if previous.is_some() { Ok(LoggedIn::Confirmed) } else { Err(LoginError::LoggedOut.into()) };
            return (outcome, Load::First);
        }
        let attempt = AttemptKey::of(&transaction.state, &self.provider.client().registration);
        let mut load = Load::Again;
        let flight = self.logins.join_or_lead(
            attempt,
            self.now(),
            |work| self.spawn(work),
            || {
                if let Some(outcome) = self.landed_logins.of(&attempt, self.now()) {
                    return Err(outcome);
                }
                load = Load::First;
                Ok(self.clone().redeem(attempt, code, transaction, claims_from, browser))
            },
        );
        let outcome = match flight {
            Ok(flight) => flight.landing.await.unwrap_or(Err(LoginError::Nonsense("the login panicked").into())),
            Err(outcome) => outcome,
        };
        (outcome, load)
    }

    async fn redeem(
        self: Arc<Self>,
        attempt: AttemptKey,
        code: String,
        transaction: LoginTransaction,
        claims_from: ClaimsFrom,
        browser: Browser,
    ) -> LoginOutcome {
        let outcome = match self.registry.spend(&attempt).await {
            Ok(Spent::Now) => {
                let sent_at = self.now();
                // The tokens of a login that fails are dropped, not revoked: at some providers (Keycloak) that would end
                // the client's part of a session that another login stands on.
                match self.redeem_code(code, &transaction).await {
                    Ok(response) => self.open_session(response, &transaction, sent_at, (claims_from, browser)).await,
                    Err(error) => Err(error),
                }
            }
            Ok(Spent::Before) => Ok(LoggedIn::Elsewhere),
            Err(error) => Err(error.into()),
        };
        let outcome = outcome.map_err(Arc::new);
        self.landed_logins.keep(attempt, outcome.clone(), self.now());
        outcome
    }

    async fn redeem_code(&self, code: String, transaction: &LoginTransaction) -> Result<TokenResponse, LoginError> {
        match self.provider.exchange_code(code, transaction).await? {
            TokenVerdict::Granted(response) => Ok(response),
            TokenVerdict::Refused(error) | TokenVerdict::Ambiguous(error) | TokenVerdict::NotForThis(error) => {
                Err(LoginError::CodeRefused(error))
            }
            TokenVerdict::Misconfigured(error) => Err(LoginError::Misconfigured(error)),
            TokenVerdict::OtherType(_) => {
                Err(LoginError::Nonsense("the token_type is not what was asked for: with DPoP it has to be DPoP"))
            }
            TokenVerdict::Unavailable { status, retry_after } if status.is_server_error() || retry_after.is_some() => {
                let reason = format!("its token endpoint answered {status}");
                Err(Unavailable { reason, retry_after, sent: Sent::Maybe }.into())
            }
            TokenVerdict::Unavailable { .. } | TokenVerdict::Unreadable => {
                Err(LoginError::Nonsense("the token response cannot be read"))
            }
        }
    }

    async fn open_session(
        self: &Arc<Self>,
        response: TokenResponse,
        transaction: &LoginTransaction,
        sent_at: SystemTime,
        (claims_from, browser): (ClaimsFrom, Browser),
    ) -> Result<LoggedIn, LoginError> {
        let raw = response.id_token.clone().ok_or(LoginError::Nonsense("the token response has no ID token"))?;
        let verified = self.provider.verify(raw.secret(), Bearer::Provider).await?;
        let request = AuthenticationRequest { nonce: &transaction.nonce, max_age: transaction.authentication.max_age };
        let id_token = IdToken::of_login(verified, &self.provider.expected(), request)?;
        id_token.check_access_token(&response.access_token, self.provider.client().signing_alg)?;
        self.report_lifetime(&response);
        let mut claims = id_token.claims.clone();
        if claims_from == ClaimsFrom::UserInfo {
            let more = self.user_info_claims(&response, &id_token).await?;
            claims.extend(more.into_iter().filter(|(name, _)| !PROTOCOL_CLAIMS.contains(&name.as_str())));
        }
        if let Some(session) = transaction.session
            && let Some(confirmed) = self.confirm_silently(&session, &response, &id_token, sent_at).await?
        {
            return Ok(confirmed);
        }
        self.ask_application(&id_token, &claims, &response).await?;
        let client = self.provider.client();
        let registration = client.at(id_token.issuer.clone());
        let id = SessionId::random_for(&registration, id_token.sid.as_ref(), &id_token.subject);
        let login = NewLogin {
            key: SessionKey::of(&id, client.tag),
            registration,
            id_token,
            claims,
            transaction,
            requested_scopes: &client.scopes,
            user_info: match self.provider.known_metadata() {
                Some(metadata) if metadata.userinfo_endpoint.is_some() => UserInfoEndpoint::There,
                _ => UserInfoEndpoint::Missing,
            },
            browser: browser.clone(),
        };
        let record = Arc::new(SessionRecord::of_login(login, response, raw, sent_at, &self.policy));
        let attempt = transaction.attempt(self.registry.time().await?);
        match self.registry.create(SessionRecord::clone(&record), attempt, self.now()).await? {
            Created::Created => {}
            Created::Covered(arrived) => return Ok(LoggedIn::Overtaken(arrived)),
            // So many random bits are never the same twice.
            Created::Exists => return Err(LoginError::Nonsense("the session id is taken")),
        }
        tracing::info!(session = ?record.key(), "session started");
        metrics::counter!("oidc_sessions_started_total").increment(1);
        self.emit(&SessionEvent::of(EventKind::Started, self.now(), &record).by(browser));
        Ok(LoggedIn::Anew(id, record))
    }

    /// Ends the oldest sessions of a user who has more than are allowed, once the one is gone that the browser had before. Nobody is
    /// kept out by a store that does not list them.
    pub(crate) async fn end_surplus(self: &Arc<Self>, record: &SessionRecord) {
        let Some(allowed) = self.policy.sessions_per_user else { return };
        match self.records_of(record.registration(), record.subject()).await {
            Ok(sessions) => {
                let surplus = sessions.len().saturating_sub(allowed.get());
                // By the clocks of replicas, which may differ: never the one that has just begun.
                for session in sessions.into_iter().take(surplus).filter(|session| session.key() != record.key()) {
                    if let Err(error) = self.end(session.key(), EndReason::TooManySessions).await {
                        tracing::warn!(%error, session = ?session.key(), "one of too many sessions could not be ended");
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "it is not known how many sessions a user has"),
        }
    }

    /// Asks the application whether it lets the user in.
    async fn ask_application(
        &self,
        id_token: &IdToken,
        claims: &Map<String, Value>,
        response: &TokenResponse,
    ) -> Result<(), LoginError> {
        let Some(hook) = &self.on_login else { return Ok(()) };
        let keeps_tokens = self.policy.tokens == KeptTokens::All;
        let login = new_login::NewLogin {
            issuer: id_token.issuer.clone(),
            subject: id_token.subject.clone(),
            sid: id_token.sid.clone(),
            claims: claims.clone(),
            access_token: keeps_tokens.then(|| response.access_token.clone()),
        };
        let answer = self.within(LONGEST_HOOK, hook(login)).await;
        answer.unwrap_or_else(|| Err(LoginRefused::unavailable("on_login took too long"))).map_err(LoginError::Refused)
    }

    /// Takes a silent login as the confirmation of the session that asked for it, if it is of the same user.
    async fn confirm_silently(
        self: &Arc<Self>,
        key: &SessionKey,
        response: &TokenResponse,
        id_token: &IdToken,
        sent_at: SystemTime,
    ) -> Result<Option<LoggedIn>, LoginError> {
        let mut found = Found::Loaded(self.registry.load(key).await?);
        loop {
            match silent_login::judge(found, id_token, sent_at) {
                Step::Confirmed => return Ok(Some(LoggedIn::Confirmed)),
                Step::NewSession => return Ok(None),
                Step::LoggedOut(None) => return Err(LoginError::LoggedOut),
                Step::LoggedOut(Some(reason)) => {
                    self.end(key, reason).await?;
                    return Err(LoginError::LoggedOut);
                }
                Step::Commit(record) => {
                    let next = record.confirmed_by_silent_login(response, id_token, sent_at, &self.policy);
                    let committed = self.registry.commit(next, self.now()).await?;
                    if let Committed::Committed(record) = &committed {
                        self.emit(&SessionEvent::of(EventKind::Refreshed, self.now(), record));
                    }
                    found = Found::Committed(committed);
                }
            }
        }
    }

    async fn user_info_claims(
        &self,
        response: &TokenResponse,
        id_token: &IdToken,
    ) -> Result<Map<String, Value>, LoginError> {
        match self.provider.user_info(&response.access_token, &id_token.subject).await? {
            UserInfoVerdict::Confirmed(claims) => Ok(claims),
            // Core §5.3.2: whose sub this is has been compared; whether it is the provider's word has not.
            UserInfoVerdict::Signed(raw) => {
                let verified = match self.provider.verify(raw.secret(), Bearer::Provider).await {
                    Ok(verified) => verified,
                    Err(VerifyError::OtherIssuer(error) | VerifyError::Token(error)) => {
                        return Err(LoginError::UserInfo(error));
                    }
                    Err(VerifyError::Unavailable(unavailable)) => return Err(unavailable.into()),
                };
                let claims = verified.into_claims();
                jwt::check_audience_if_any(&claims, self.provider.client().registration.client_id())
                    .map_err(LoginError::UserInfo)?;
                Ok(claims)
            }
            UserInfoVerdict::Unusable(error) => Err(LoginError::UserInfo(error)),
            UserInfoVerdict::Forbidden => Err(LoginError::Nonsense("the access token is none for userinfo")),
            UserInfoVerdict::Refused => Err(LoginError::Nonsense("the userinfo answer is not about this user")),
            UserInfoVerdict::Unavailable(unavailable) => Err(unavailable.into()),
        }
    }

    /// Says once that the provider's access tokens outlive its sessions.
    fn report_lifetime(&self, response: &TokenResponse) {
        if let Some((refresh_expires_in, configured)) =
            response.refresh_expires_in.zip(self.policy.refresh_token_lifetime)
            && refresh_expires_in < configured
            && !self.reported_refresh_expires_in.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                ?refresh_expires_in,
                refresh_token_lifetime = ?configured,
                "the provider takes refresh tokens for less time than is configured: users who pause for longer are signed out"
            );
        }
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
