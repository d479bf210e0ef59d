//! The activity signal: one at a time for a session, over all replicas, finished whoever goes away.
//!
//! In this process the first request that needs a signal starts a task, and all that need one meanwhile await it. Over
//! replicas the registry's lease decides who goes; the others wait for the version to change and use what came of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either, Shared, select};

use super::{Manager, REGISTRY_RETRY_AFTER, RetryAfter};
use crate::protocol::id_token::{IdToken, OriginalLogin};
use crate::protocol::jwt::{TokenError, UnverifiedJwt};
use crate::protocol::names::{IdTokenHint, RefreshToken};
use crate::protocol::token_response::{ErrorCode, TokenResponse, TokenVerdict};
use crate::provider::circuit::Circuit;
use crate::provider::{Sent, Unavailable, UserInfoVerdict, VerifyError};
use crate::registry::{Claimed, Committed, Lease, LeaseHolder, Loaded, RegistryError};
use crate::session::event::{EndReason, SessionEvent, SessionInfo};
use crate::session::id::{SessionKey, fill_random};
use crate::session::record::{ActivitySignal, Audience, OtherToken, SessionRecord};

/// How long a replica that died while it refreshed holds up the others; renewed while the refresh runs.
const LEASE: Duration = Duration::from_secs(5);
/// How often a replica that waits for another looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How long rotated tokens are held while the registry does not take them.
const COMMIT_PATIENCE: Duration = Duration::from_secs(60);
/// How long the provider is spared after it has denied a token for an audience.
const DENIAL: Duration = Duration::from_secs(30);
/// Above this many sessions in a pause, those whose pause is over are forgotten.
const MANY_PAUSES: usize = 1024;

/// What came of a signal.
#[derive(Clone, Debug)]
pub(crate) enum Signalled {
    /// The provider confirmed the session; this is its record now.
    Confirmed(Arc<SessionRecord>),
    /// The provider gives no token for what was asked; that says nothing about the session.
    Denied,
    /// Another replica was faster; this is the session's record now, whatever that one asked for.
    Overtaken(Arc<SessionRecord>),
    Ended(Option<EndReason>),
    /// Nobody knows; the session is as it was.
    Unavailable(RetryAfter),
}

type Flight = Shared<BoxFuture<'static, Signalled>>;

/// A session has one flight at a time: its refresh token can be used once.
#[derive(Clone)]
struct UnderWay {
    audience: Option<Audience>,
    flight: Flight,
}

/// A request waits for so many flights that it does not need, or finds overtaken, before its own.
const MOST_FLIGHTS: usize = 16;

/// The signals that are under way in this process, and the sessions whose last one failed.
pub(super) struct Flights {
    under_way: Mutex<HashMap<SessionKey, UnderWay>>,
    pauses: Mutex<HashMap<SessionKey, Circuit>>,
    /// Until when the provider is not asked for tokens to audiences that it has just denied.
    denied: Mutex<HashMap<Audience, SystemTime>>,
    longest_pause: Duration,
}

impl Flights {
    pub(super) fn new(longest_pause: Duration) -> Self {
        Self { under_way: Mutex::default(), pauses: Mutex::default(), denied: Mutex::default(), longest_pause }
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<SessionKey, UnderWay>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pauses(&self) -> MutexGuard<'_, HashMap<SessionKey, Circuit>> {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pause(&self, key: &SessionKey, now: SystemTime) -> Option<RetryAfter> {
        self.pauses().get(key).and_then(|circuit| circuit.check(now).err()).map(|open| RetryAfter(open.retry_after))
    }

    fn is_denied(&self, audience: Option<&Audience>, now: SystemTime) -> bool {
        let denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        audience.and_then(|audience| denied.get(audience)).is_some_and(|until| now < *until)
    }

    fn deny(&self, audience: &Audience, now: SystemTime) {
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        denied.insert(audience.clone(), now + DENIAL);
    }

    fn landed(&self, key: &SessionKey, now: SystemTime, signalled: &Signalled) {
        let mut pauses = self.pauses();
        if let Signalled::Unavailable(RetryAfter(asked)) = signalled {
            if pauses.len() >= MANY_PAUSES {
                pauses.retain(|_, circuit| circuit.check(now).is_err());
            }
            let circuit = pauses.entry(*key).or_insert_with(|| Circuit::new(1, self.longest_pause));
            circuit.failed(now, Some(*asked));
        } else {
            pauses.remove(key);
        }
    }
}

/// Takes a flight off the list, even if it crashed.
struct OffTheList {
    manager: Arc<Manager>,
    key: SessionKey,
}

impl Drop for OffTheList {
    fn drop(&mut self) {
        self.manager.flights.under_way().remove(&self.key);
    }
}

impl Manager {
    /// Tells the provider of the user's activity, or joins those who are doing so.
    ///
    /// # Cancel safety
    /// The signal is finished, and rotated tokens are stored, without the caller.
    pub(crate) async fn signal(self: &Arc<Self>, record: &Arc<SessionRecord>) -> Signalled {
        self.await_flight(record, None, |_| true).await
    }

    /// The same, for a new access token to `audience`; the record that comes back has it.
    ///
    /// # Cancel safety
    /// As [`signal`](Self::signal).
    pub(crate) async fn get_token(
        self: &Arc<Self>,
        record: &Arc<SessionRecord>,
        audience: Option<&Audience>,
    ) -> Signalled {
        // A token that came later is another one, though some providers give the same text again.
        let token = |record: &SessionRecord| {
            record.access_token(audience, &self.policy).map(|(token, until)| (token.clone(), until))
        };
        let before = token(record);
        self.await_flight(record, audience, |newer| token(newer) != before).await
    }

    /// Takes part in flights until one brings a record that will do.
    async fn await_flight(
        self: &Arc<Self>,
        record: &Arc<SessionRecord>,
        audience: Option<&Audience>,
        will_do: impl Fn(&SessionRecord) -> bool,
    ) -> Signalled {
        let mut record = record.clone();
        for _ in 0..MOST_FLIGHTS {
            let flight = {
                let mut under_way = self.flights.under_way();
                if let Some(flight) = under_way.get(record.key()) {
                    flight.clone()
                } else {
                    if let Some(retry_after) = self.flights.pause(record.key(), self.clock.now()) {
                        return Signalled::Unavailable(retry_after);
                    }
                    if self.flights.is_denied(audience, self.clock.now()) {
                        return Signalled::Denied;
                    }
                    let flight = self.take_off(record.clone(), audience.cloned());
                    let flight = UnderWay { audience: audience.cloned(), flight };
                    under_way.insert(*record.key(), flight.clone());
                    flight
                }
            };
            // Longer than a lease and two calls takes only a registry that does not answer.
            let patience = LEASE + self.provider.timeout() * 3;
            let Ok(signalled) = tokio::time::timeout(patience, flight.flight).await else { break };
            match signalled {
                // A flight for another audience, or one that another replica overtook, may leave this token as it was. One
                // for this audience that does is a provider that gives the same token again.
                Signalled::Confirmed(newer) if flight.audience.as_ref() != audience && !will_do(&newer) => {
                    record = newer;
                }
                Signalled::Overtaken(newer) if !will_do(&newer) => record = newer,
                Signalled::Overtaken(newer) => return Signalled::Confirmed(newer),
                // What one API is denied, another may get.
                Signalled::Denied if flight.audience.as_ref() != audience => {}
                signalled => return signalled,
            }
        }
        Signalled::Unavailable(RetryAfter(REGISTRY_RETRY_AFTER))
    }

    fn take_off(self: &Arc<Self>, record: Arc<SessionRecord>, audience: Option<Audience>) -> Flight {
        let off_the_list = OffTheList { manager: self.clone(), key: *record.key() };
        let task = tokio::spawn(async move {
            let manager = off_the_list.manager.clone();
            let signalled = manager.fly(record.clone(), audience.as_ref()).await.unwrap_or_else(|error| {
                tracing::error!(%error, session = ?record.key(), "a signal could not be sent");
                Signalled::Unavailable(RetryAfter(REGISTRY_RETRY_AFTER))
            });
            manager.flights.landed(record.key(), manager.clock.now(), &signalled);
            drop(off_the_list);
            signalled
        });
        let crashed = |_| Signalled::Unavailable(RetryAfter(REGISTRY_RETRY_AFTER));
        async move { task.await.unwrap_or_else(crashed) }.boxed().shared()
    }

    async fn fly(
        self: &Arc<Self>,
        record: Arc<SessionRecord>,
        audience: Option<&Audience>,
    ) -> Result<Signalled, RegistryError> {
        if record.login.signal == ActivitySignal::SilentLogin {
            // Only a browser can.
            return Ok(self.no_answer(None));
        }
        if record.login.signal == ActivitySignal::None {
            let mut active = SessionRecord::clone(&record);
            active.last_signal = self.clock.now();
            return Ok(match self.registry.commit(active.with_expiry(&self.policy), self.clock.now()).await? {
                Committed::Committed(record) | Committed::Stale(record) => Signalled::Confirmed(record),
                Committed::Gone(reason) => Signalled::Ended(reason),
            });
        }
        let lease = Lease { holder: LeaseHolder::random(), duration: LEASE };
        let claim = tokio::time::timeout(LEASE + self.provider.timeout() * 2, self.claim(&record, lease));
        match claim.await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(signalled))) => return Ok(signalled),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(Signalled::Unavailable(RetryAfter(REGISTRY_RETRY_AFTER))),
        }
        let signalled = {
            let call = std::pin::pin!(async {
                match &record.tokens.refresh_token {
                    Some(token) if record.login.signal == ActivitySignal::Refresh => {
                        self.refresh(&record, token, audience).await
                    }
                    _ => self.ask_user_info(&record).await,
                }
            });
            let renewals = std::pin::pin!(self.keep(&record, lease));
            match select(call, renewals).await {
                Either::Left((signalled, _)) => signalled,
                Either::Right((never, _)) => match never {},
            }
        };
        if matches!(signalled, Ok(Signalled::Denied | Signalled::Unavailable(_))) {
            self.registry.release_refresh(record.key(), lease.holder).await?;
        }
        signalled
    }

    /// Gets the lease, or what came of somebody else's signal.
    async fn claim(&self, record: &SessionRecord, lease: Lease) -> Result<Option<Signalled>, RegistryError> {
        loop {
            match self.registry.claim_refresh(record.key(), record.version(), lease).await? {
                Claimed::Granted => return Ok(None),
                Claimed::Changed(record) => return Ok(Some(Signalled::Overtaken(record))),
                Claimed::Gone(reason) => return Ok(Some(Signalled::Ended(reason))),
                Claimed::Held => tokio::time::sleep(LOOK_INTERVAL).await,
            }
        }
    }

    async fn keep(&self, record: &SessionRecord, lease: Lease) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(LEASE / 3).await;
            // A lease that is lost is no reason to stop: the version decides whose tokens are stored.
            if let Err(error) = self.registry.claim_refresh(record.key(), record.version(), lease).await {
                tracing::warn!(%error, "the lease of a refresh could not be renewed");
            }
        }
    }

    /// Presents the refresh token; a second time only after an answer that left the outcome open.
    async fn refresh(
        self: &Arc<Self>,
        record: &Arc<SessionRecord>,
        token: &RefreshToken,
        audience: Option<&Audience>,
    ) -> Result<Signalled, RegistryError> {
        let mut last_attempt = false;
        loop {
            let sent_at = self.clock.now();
            let verdict = self.provider.refresh(token, audience).await;
            count(&verdict);
            match verdict {
                Ok(TokenVerdict::Granted(response)) => {
                    return self.store(record, response, audience, sent_at).await;
                }
                Ok(TokenVerdict::Refused(error) | TokenVerdict::Ambiguous(error))
                    if let Some(audience) = audience
                        && !matches!(error.as_str(), "invalid_grant" | "token_inactive") =>
                {
                    // RFC 8707 §2: about what was asked for, not about the session.
                    tracing::error!(error = error.as_str(), ?audience, "the provider gives no token for an API");
                    self.flights.deny(audience, self.clock.now());
                    return Ok(Signalled::Denied);
                }
                Ok(TokenVerdict::Refused(error)) => return self.refused(record, &error).await,
                Ok(TokenVerdict::Ambiguous(error)) if last_attempt => return self.refused(record, &error).await,
                Ok(TokenVerdict::Ambiguous(error)) => {
                    tracing::info!(error = error.as_str(), "the provider's refusal is unclear, trying again");
                    if let Some(signalled) = self.overtaken(record).await? {
                        return Ok(signalled);
                    }
                    tokio::time::sleep(jitter()).await;
                }
                Ok(TokenVerdict::Unreadable) if !last_attempt => {
                    tracing::warn!("the provider's token response cannot be read, trying again");
                    if let Some(signalled) = self.overtaken(record).await? {
                        return Ok(signalled);
                    }
                }
                Err(Unavailable { sent: Sent::Maybe, reason, .. }) if !last_attempt => {
                    tracing::warn!(reason, "the answer to a refresh was lost, trying again");
                    if let Some(signalled) = self.overtaken(record).await? {
                        return Ok(signalled);
                    }
                }
                Ok(TokenVerdict::Misconfigured(error)) => {
                    tracing::error!(
                        error = error.as_str(),
                        "the provider refuses this client: sessions cannot be \
                        refreshed until its configuration is mended"
                    );
                    return Ok(self.no_answer(None));
                }
                Ok(TokenVerdict::Unavailable { status, retry_after }) => {
                    tracing::warn!(%status, "the provider cannot refresh at the moment");
                    return Ok(self.no_answer(retry_after));
                }
                Ok(TokenVerdict::Unreadable) => {
                    tracing::warn!("the provider's token response cannot be read");
                    return Ok(self.no_answer(None));
                }
                Err(unavailable) => {
                    tracing::warn!(error = %unavailable, "the provider cannot refresh at the moment");
                    return Ok(self.no_answer(unavailable.retry_after));
                }
            }
            last_attempt = true;
        }
    }

    fn no_answer(&self, retry_after: Option<Duration>) -> Signalled {
        Signalled::Unavailable(RetryAfter(
            retry_after.unwrap_or(REGISTRY_RETRY_AFTER).min(self.policy.op_session_lifetime),
        ))
    }

    /// What another replica made of the session meanwhile, if it did.
    async fn overtaken(&self, record: &SessionRecord) -> Result<Option<Signalled>, RegistryError> {
        Ok(match self.registry.load(record.key()).await? {
            Loaded::Live(newer) if newer.tokens == record.tokens && newer.version == record.version => None,
            Loaded::Live(newer) => Some(Signalled::Overtaken(newer)),
            Loaded::Ended(reason) => Some(Signalled::Ended(Some(reason))),
            Loaded::Unknown => Some(Signalled::Ended(None)),
        })
    }

    async fn refused(
        self: &Arc<Self>,
        record: &Arc<SessionRecord>,
        error: &ErrorCode,
    ) -> Result<Signalled, RegistryError> {
        if let Some(signalled) = self.overtaken(record).await? {
            return Ok(signalled);
        }
        tracing::info!(session = ?record.key(), error = error.as_str(), "the provider refused the refresh");
        self.end(record.key(), EndReason::RefreshTokenRejected).await?;
        Ok(Signalled::Ended(Some(EndReason::RefreshTokenRejected)))
    }

    /// Stores the tokens of a refresh before anybody uses them.
    async fn store(
        self: &Arc<Self>,
        record: &Arc<SessionRecord>,
        response: TokenResponse,
        audience: Option<&Audience>,
        sent_at: SystemTime,
    ) -> Result<Signalled, RegistryError> {
        let mut next = SessionRecord::clone(record);
        let rotated = response.refresh_token.clone();
        if let Some(raw) = &response.id_token {
            match self.check_id_token(record, raw, &response).await {
                Ok(id_token) => {
                    next.sid = id_token.sid.or(next.sid);
                    next.session_expiry = id_token.session_expiry.or(next.session_expiry);
                }
                Err(error) => {
                    // Core §12.2: the whole answer is worthless.
                    tracing::error!(session = ?record.key(), %error, "the ID token of a refresh is not valid");
                    self.end(record.key(), EndReason::ProviderMisbehaved).await?;
                    self.drop_tokens(rotated);
                    return Ok(Signalled::Ended(Some(EndReason::ProviderMisbehaved)));
                }
            }
        }
        let (access_token, expires_in) = (response.access_token, response.expires_in);
        let tokens = &mut next.tokens;
        if let Some(audience) = audience {
            let token = OtherToken { access_token, expires_in, obtained_at: sent_at };
            tokens.others.insert(audience.name(), token);
        } else {
            tokens.access_token = Some(access_token);
            tokens.expires_in = expires_in;
            tokens.obtained_at = sent_at;
        }
        tokens.refresh_token = response.refresh_token.or(tokens.refresh_token.take());
        if let Some(id_token) = response.id_token {
            tokens.id_token = id_token;
        }
        next.last_signal = sent_at;
        self.commit(next.with_expiry(&self.policy), rotated).await
    }

    async fn check_id_token(
        &self,
        record: &SessionRecord,
        raw: &IdTokenHint,
        response: &TokenResponse,
    ) -> Result<IdToken, TokenError> {
        let verified = match self.provider.verify(raw.secret()).await {
            Ok(verified) => verified,
            Err(VerifyError::Token(error)) => return Err(error),
            // The rotated token is in our hands only: better to go by the channel than to lose the session.
            Err(VerifyError::Unavailable(_)) => UnverifiedJwt::parse(raw.secret())?.trust_channel(),
        };
        let login = &record.login;
        let original = OriginalLogin { subject: &login.subject, nonce: &login.nonce, auth_time: login.auth_time };
        let id_token = IdToken::of_refresh(verified, &self.provider.expected(), original)?;
        id_token.check_access_token(&response.access_token, self.provider.client().signing_alg)?;
        Ok(id_token)
    }

    /// Stores a confirmed record. A registry that fails is asked again, since `rotated` exists nowhere else.
    async fn commit(
        self: &Arc<Self>,
        record: SessionRecord,
        rotated: Option<RefreshToken>,
    ) -> Result<Signalled, RegistryError> {
        let key = *record.key();
        let mut pause = LOOK_INTERVAL;
        let mut waited = Duration::ZERO;
        let committed = loop {
            match self.registry.commit(record.clone(), self.clock.now()).await {
                Ok(committed) => break committed,
                Err(error) if waited >= COMMIT_PATIENCE => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "confirmed tokens could not be stored, trying again");
                    tokio::time::sleep(pause).await;
                    waited += pause;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
            }
        };
        Ok(match committed {
            Committed::Committed(record) => {
                tracing::debug!(session = ?key, "session confirmed by the provider");
                self.emit(&SessionEvent::Refreshed(SessionInfo::of(&record)));
                Signalled::Confirmed(record)
            }
            // The winner's tokens are of the same family: revoking ours could end the session.
            Committed::Stale(newer) => Signalled::Overtaken(newer),
            Committed::Gone(reason) => {
                // It may only be hidden by a tombstone for its new sid.
                self.end(&key, reason.unwrap_or(EndReason::BackChannelLogout)).await?;
                self.drop_tokens(rotated);
                Signalled::Ended(reason)
            }
        })
    }

    /// Revokes a refresh token that no session holds.
    fn drop_tokens(self: &Arc<Self>, token: Option<RefreshToken>) {
        if let Some(token) = token {
            let manager = self.clone();
            tokio::spawn(async move { manager.provider.revoke(token).await });
        }
    }

    async fn ask_user_info(self: &Arc<Self>, record: &Arc<SessionRecord>) -> Result<Signalled, RegistryError> {
        let Some(token) = &record.tokens.access_token else { return Ok(self.no_answer(None)) };
        let sent_at = self.clock.now();
        match self.provider.user_info(token, record.subject().as_str()).await {
            Ok(UserInfoVerdict::Confirmed(_)) => {
                let mut next = SessionRecord::clone(record);
                next.last_signal = sent_at;
                self.commit(next.with_expiry(&self.policy), None).await
            }
            Ok(UserInfoVerdict::Refused) => {
                if let Some(signalled) = self.overtaken(record).await? {
                    return Ok(signalled);
                }
                self.end(record.key(), EndReason::AccessTokenRejected).await?;
                Ok(Signalled::Ended(Some(EndReason::AccessTokenRejected)))
            }
            Ok(UserInfoVerdict::Unavailable(unavailable)) | Err(unavailable) => {
                tracing::warn!(error = %unavailable, "the provider cannot be asked for userinfo at the moment");
                Ok(self.no_answer(unavailable.retry_after))
            }
        }
    }
}

fn count(verdict: &Result<TokenVerdict, Unavailable>) {
    let outcome = match verdict {
        Ok(TokenVerdict::Ambiguous(_)) => "ambiguous",
        Ok(TokenVerdict::Granted(_)) => "granted",
        Ok(TokenVerdict::Misconfigured(_)) => "misconfigured",
        Ok(TokenVerdict::Refused(_)) => "refused",
        Ok(TokenVerdict::Unreadable) => "unreadable",
        Ok(TokenVerdict::Unavailable { .. }) | Err(_) => "unavailable",
    };
    metrics::counter!("oidc_refreshes_total", "outcome" => outcome).increment(1);
}

/// 50 to 305 ms, so that replicas that were refused together do not come back together.
fn jitter() -> Duration {
    let mut byte = [0];
    fill_random(&mut byte);
    let [byte] = byte;
    Duration::from_millis(50 + u64::from(byte))
}
