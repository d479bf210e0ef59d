//! Signals in this process: one at a time for a session, finished whoever goes away. What to do is decided by
//! [`session::signal`](crate::session::signal); here it is done.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::{Either, select};
use tokio::sync::Notify;

use tracing::Instrument;

use super::{Landed, Manager, REGISTRY_RETRY_AFTER, Refusal, RetryAfter};
use crate::protocol::authorization::Audience;
use crate::protocol::names::{AccessToken, IdTokenHint, RefreshToken};
use crate::protocol::token_response::TokenVerdict;
use crate::provider::keys::{Bearer, VerifyError};
use crate::provider::user_info::UserInfoVerdict;
use crate::provider::{CLOCK_TOLERANCE, Sent, Unavailable};
use crate::registry::{Claimed, Lease, LeaseHolder, RegistryError};
use crate::session::decide::is_confirmed;
use crate::session::end_reason::EndReason;
use crate::session::event::{EventKind, SessionEvent};
use crate::session::id::{SessionKey, random_fraction};
use crate::session::record::{SessionRecord, Version};
use crate::session::signal::{
    self, Do, Outcome, Pause, Present, Presented, Remark, StoreFailed, Terms, UserInfoAnswer, Verification,
};

/// How long a replica that died while it refreshed holds up the others; renewed while the refresh runs.
const LEASE: Duration = Duration::from_secs(5);
/// The answer to a refresh is waited for at least this long.
const SHORTEST_WAIT: Duration = Duration::from_secs(60);
/// A request waits for so many flights that it does not need, or finds overtaken, before its own.
const MOST_FLIGHTS: usize = 16;

/// Why there is no new access token.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NoToken {
    /// The provider gives none for this audience.
    Denied,
    Refused(Refusal),
}

/// What a flight means to somebody who takes part in it.
enum Arrival<T> {
    Here(T),
    /// It was not what was wanted: another flight from this record, if it brought a newer one.
    GoOn(Option<Arc<SessionRecord>>),
}

/// Counts a signal as long as it is under way, whatever becomes of it.
struct UnderWay;

impl UnderWay {
    fn begin() -> Self {
        metrics::gauge!("oidc_refreshes_under_way").increment(1.0);
        Self
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        metrics::gauge!("oidc_refreshes_under_way").decrement(1.0);
    }
}

impl Manager {
    /// Tells the provider of the user's activity, or joins those who are doing so.
    ///
    /// # Cancel safety
    /// The signal is finished, and rotated tokens are stored, without the caller.
    pub(crate) async fn signal(self: &Arc<Self>, record: &Arc<SessionRecord>) -> Result<Arc<SessionRecord>, Refusal> {
        let arrived = self.take_part(record, None, |landed| match landed.outcome {
            // Where the store was in trouble, it may be written down when it does not count any more.
            Outcome::Confirmed(record) | Outcome::Overtaken(record)
                if !is_confirmed(&record, &self.policy, self.now()) =>
            {
                Arrival::GoOn(Some(record))
            }
            Outcome::Confirmed(record) | Outcome::Overtaken(record) => Arrival::Here(Ok(record)),
            Outcome::Ended(reason) => Arrival::Here(Err(Refusal::over(reason))),
            Outcome::Unavailable(retry_after) => Arrival::Here(Err(self.no_answer(retry_after))),
            // What one API is denied says nothing.
            Outcome::Denied(_) => Arrival::GoOn(None),
        });
        arrived.await.unwrap_or_else(Err)
    }

    /// The same, for a new access token to `audience`; the record that comes back has it.
    ///
    /// # Cancel safety
    /// As [`signal`](Self::signal).
    pub(crate) async fn get_token(
        self: &Arc<Self>,
        record: &Arc<SessionRecord>,
        audience: Option<&Audience>,
    ) -> Result<Arc<SessionRecord>, NoToken> {
        if audience.is_some_and(|audience| self.pauses.is_denied(record.key(), audience, self.now())) {
            return Err(NoToken::Denied);
        }
        // A token that came later is another one, though some providers give the same text again.
        let token = |record: &SessionRecord| {
            record.access_token(audience, &self.policy).map(|(token, until)| (token.clone(), until))
        };
        let before = token(record);
        let arrived = self.take_part(record, audience, |landed| match landed.outcome {
            // A flight for this audience that leaves the token as it was is a provider that gives the same again.
            Outcome::Confirmed(newer) if landed.audience.as_ref() == audience || token(&newer) != before => {
                Arrival::Here(Ok(newer))
            }
            Outcome::Overtaken(newer) if token(&newer) != before => Arrival::Here(Ok(newer)),
            Outcome::Confirmed(newer) | Outcome::Overtaken(newer) => Arrival::GoOn(Some(newer)),
            Outcome::Denied(denied) if audience == Some(&denied) => Arrival::Here(Err(NoToken::Denied)),
            Outcome::Denied(_) => Arrival::GoOn(None),
            Outcome::Ended(reason) => Arrival::Here(Err(NoToken::Refused(Refusal::over(reason)))),
            Outcome::Unavailable(retry_after) => Arrival::Here(Err(NoToken::Refused(self.no_answer(retry_after)))),
        });
        arrived.await.unwrap_or_else(|refusal| Err(NoToken::Refused(refusal)))
    }

    /// Takes part in flights until one brings what is wanted.
    async fn take_part<T>(
        self: &Arc<Self>,
        record: &Arc<SessionRecord>,
        audience: Option<&Audience>,
        arrival: impl Fn(Landed) -> Arrival<T>,
    ) -> Result<T, Refusal> {
        let mut record = record.clone();
        let patience = self.provider.timeout();
        let asked_at = self.now();
        for _ in 0..MOST_FLIGHTS {
            let (key, now) = (*record.key(), self.now());
            let flight = self.flights.join_or_lead(
                key,
                now,
                |work| self.spawn(work),
                || match self.pauses.of(&key, now) {
                    // Nothing begins that might not be finished.
                    _ if self.tasks.is_closing() => Err(Refusal::Unavailable(REGISTRY_RETRY_AFTER)),
                    Some(retry_after) => Err(Refusal::Unavailable(retry_after)),
                    None => {
                        // Of the request that leads it.
                        let span = tracing::info_span!("oidc_signal", session = ?key);
                        Ok(self.clone().fly(record.clone(), audience.cloned()).instrument(span))
                    }
                },
            )?;
            // One patience for a flight, however many wait for it, and one for a request. The flight itself goes on.
            let waited = |since: SystemTime| now.duration_since(since).unwrap_or_default();
            let left = patience.saturating_sub(waited(flight.began_at).max(waited(asked_at)));
            match self.within(left, flight.landing).await.flatten().map(&arrival) {
                Some(Arrival::Here(arrived)) => return Ok(arrived),
                Some(Arrival::GoOn(newer)) => record = newer.unwrap_or(record),
                None => break,
            }
        }
        Err(Refusal::Unavailable(REGISTRY_RETRY_AFTER))
    }

    fn no_answer(&self, retry_after: Option<Duration>) -> Refusal {
        Refusal::Unavailable(self.retry_after(retry_after))
    }

    fn retry_after(&self, asked: Option<Duration>) -> RetryAfter {
        asked.map_or(REGISTRY_RETRY_AFTER, |asked| RetryAfter(asked.min(self.policy.op_session_lifetime)))
    }

    async fn fly(self: Arc<Self>, record: Arc<SessionRecord>, audience: Option<Audience>) -> Landed {
        let key = *record.key();
        let _under_way = UnderWay::begin();
        let lease = Lease { holder: LeaseHolder::random(), duration: LEASE };
        let granted = Notify::new();
        let renewals = std::pin::pin!(self.renew_lease(&key, record.version(), lease, &granted));
        let work = std::pin::pin!(self.drive(record.clone(), audience.clone(), lease, &granted));
        let outcome = match select(work, renewals).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right((never, _)) => match never {},
        };
        match &outcome {
            Outcome::Unavailable(asked) => self.pauses.failed(&key, self.retry_after(*asked).0, self.now()),
            Outcome::Denied(audience) => {
                tracing::error!(?audience, "the provider gives no token for an API");
                self.pauses.denied(&key, audience, self.now());
            }
            _ => self.pauses.succeeded(&key),
        }
        Landed { audience, outcome }
    }

    /// Does what the machine says until it is done.
    async fn drive(
        self: &Arc<Self>,
        record: Arc<SessionRecord>,
        audience: Option<Audience>,
        lease: Lease,
        granted: &Notify,
    ) -> Outcome {
        let mut next = signal::start(record, audience, &self.terms());
        loop {
            next = match next {
                Do::AskUserInfo(ask) => {
                    let sent_at = self.now();
                    let answer = self.ask_user_info(ask.token(), ask.record()).await;
                    ask.next(answer, sent_at, &self.terms())
                }
                Do::Claim(claim) => {
                    let answer = self.claim(claim.record(), lease, granted).await;
                    claim.next(answer)
                }
                Do::Commit(commit) => {
                    self.remark(commit.remark.as_ref());
                    let answer = self.registry.commit(commit.record().clone(), self.now()).await;
                    commit.next(answer.map_err(failed))
                }
                Do::Done(outcome) => {
                    self.report(&outcome);
                    return outcome;
                }
                Do::End(end) => {
                    let answer = self.end_and_discard(end.record(), end.reason, end.discard.as_ref()).await;
                    end.next(answer)
                }
                Do::Load(load) => {
                    let answer = self.registry.load(load.record().key()).await;
                    load.next(answer.map_err(failed))
                }
                Do::Present(present) => {
                    let sent_at = self.now();
                    let presented = self.present(&present).await;
                    present.next(presented, sent_at, &self.terms())
                }
                Do::Release(release) => {
                    let _ = self.registry.release_refresh(release.record().key(), lease.holder).await.map_err(failed);
                    release.next()
                }
                Do::Verify(verify) => {
                    let verification = self.verify(verify.token()).await;
                    verify.next(verification, &self.terms())
                }
                Do::Wait(wait) => {
                    self.pause(wait.pause).await;
                    wait.next()
                }
            };
        }
    }

    async fn claim(&self, record: &SessionRecord, lease: Lease, granted: &Notify) -> Result<Claimed, StoreFailed> {
        let claimed = self.registry.claim_refresh(record.key(), record.version(), lease).await.map_err(failed);
        if claimed == Ok(Claimed::Granted) {
            granted.notify_one();
        }
        claimed
    }

    async fn end_and_discard(
        self: &Arc<Self>,
        record: &SessionRecord,
        reason: EndReason,
        discard: Option<&RefreshToken>,
    ) -> Result<(), StoreFailed> {
        self.end(record.key(), reason).await.map_err(failed)?;
        self.revoke_after(reason, record, discard);
        Ok(())
    }

    async fn verify(&self, token: &IdTokenHint) -> Verification {
        match self.provider.verify(token.secret(), Bearer::Provider).await {
            Ok(verified) => Verification::Signed(verified),
            Err(VerifyError::OtherIssuer(error)) => Verification::OtherIssuer(error),
            Err(VerifyError::Token(error)) => Verification::Wrong(error),
            Err(VerifyError::Unavailable(_)) => Verification::NoKeys,
        }
    }

    async fn pause(&self, pause: Pause) {
        match pause {
            Pause::None => {}
            Pause::Jitter => self.sleep(jitter()).await,
            Pause::Of(pause) => self.sleep(pause).await,
        }
    }

    fn terms(&self) -> Terms<'_> {
        let now = self.now();
        Terms {
            policy: &self.policy,
            signing_alg: self.provider.client().signing_alg,
            clock_tolerance: CLOCK_TOLERANCE,
            ambiguity: self.doubts.ambiguity(now),
            claim_patience: LEASE + self.provider.timeout() * 2,
            now,
        }
    }

    async fn renew_lease(
        &self,
        key: &SessionKey,
        version: Version,
        lease: Lease,
        granted: &Notify,
    ) -> std::convert::Infallible {
        granted.notified().await;
        loop {
            self.sleep(LEASE / 3).await;
            // A lease that is lost is no reason to stop: the version decides whose tokens are stored.
            if let Err(error) = self.registry.claim_refresh(key, version, lease).await {
                tracing::warn!(%error, "the lease of a refresh could not be renewed");
            }
        }
    }

    async fn present(&self, present: &Present) -> Presented {
        let subject = present.record().subject();
        let refresh = std::pin::pin!(self.provider.refresh(present.token(), present.audience(), subject));
        let Some(answer) = self.wait_for_answer(present.record(), refresh).await else {
            tracing::error!(session = ?present.record().key(), "the provider has not answered a refresh, nobody waits longer");
            return Presented::NoAnswer;
        };
        report_answer(&answer);
        match &answer {
            Ok(TokenVerdict::Ambiguous(_)) => self.doubts.note(subject, self.now()),
            Ok(TokenVerdict::Granted(_)) => self.doubts.forget(),
            _ => {}
        }
        match answer {
            Ok(verdict) => Presented::Answered(verdict),
            Err(Unavailable { sent: Sent::Maybe, .. }) => Presented::Lost,
            Err(Unavailable { sent: Sent::No, retry_after, .. }) => Presented::NotSent(retry_after),
        }
    }

    /// Waits until the session is unconfirmed, or for a minute if that is longer: a token is not presented again while an
    /// answer may still come. Where the requests' patience is over, others are not made to wait.
    async fn wait_for_answer<A>(&self, record: &SessionRecord, mut call: impl Future<Output = A> + Unpin) -> Option<A> {
        let confirmed_for = record.idle_deadline(&self.policy).duration_since(self.now()).unwrap_or_default();
        // Told once: the clock may be set meanwhile.
        let longest = confirmed_for.min(self.policy.op_session_lifetime).max(SHORTEST_WAIT);
        let patience = self.provider.timeout();
        if let Some(answer) = self.within(patience, &mut call).await {
            return Some(answer);
        }
        self.provider.is_slow();
        self.within(longest.saturating_sub(patience), call).await
    }

    /// Says what is odd about an answer, once a minute.
    fn remark(&self, remark: Option<&Remark>) {
        let Some(remark) = remark else { return };
        let now = self.now();
        if !self.remarks.is_due(now) {
            return;
        }
        let our_clock = crate::protocol::jwt::seconds(now);
        match remark {
            Remark::OtherType => tracing::error!(
                "the token_type of refreshes is not what was asked for: sessions are not confirmed until this is mended"
            ),
            Remark::Times(error) => tracing::error!(
                %error, our_clock,
                "the clocks of the provider and of this machine are apart: its tokens are used all the same"
            ),
            Remark::Unusable(error) => tracing::error!(
                %error, our_clock,
                "the ID tokens of refreshes cannot be believed: sessions are not confirmed until this is mended"
            ),
        }
    }

    async fn ask_user_info(&self, token: &AccessToken, record: &SessionRecord) -> UserInfoAnswer {
        match self.provider.user_info(token, record.subject()).await {
            Ok(UserInfoVerdict::Confirmed(_) | UserInfoVerdict::Signed(_)) => UserInfoAnswer::Confirmed,
            Ok(UserInfoVerdict::Forbidden) => UserInfoAnswer::Forbidden,
            Ok(UserInfoVerdict::Refused) => UserInfoAnswer::Refused,
            Ok(UserInfoVerdict::Unusable(error)) => {
                tracing::error!(%error, "userinfo answers cannot be used: sessions are not confirmed until this is mended");
                UserInfoAnswer::Unavailable(None)
            }
            Ok(UserInfoVerdict::Unavailable(unavailable)) | Err(unavailable) => {
                tracing::warn!(error = %unavailable, "the provider cannot be asked for userinfo at the moment");
                UserInfoAnswer::Unavailable(unavailable.retry_after)
            }
        }
    }

    fn report(&self, outcome: &Outcome) {
        if let Outcome::Confirmed(record) = outcome
            && record.can_signal()
        {
            tracing::debug!(session = ?record.key(), "session confirmed by the provider");
            self.emit(&SessionEvent::of(EventKind::Refreshed, self.now(), record));
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "goes into map_err")]
fn failed(error: RegistryError) -> StoreFailed {
    tracing::error!(%error, "a signal is held up by the registry");
    StoreFailed
}

/// Logs and counts what the token endpoint said.
fn report_answer(answer: &Result<TokenVerdict, Unavailable>) {
    let outcome = match answer {
        Ok(TokenVerdict::Ambiguous(error)) => {
            tracing::info!(error = error.as_str(), "the provider's refusal of a refresh is unclear");
            "ambiguous"
        }
        Ok(TokenVerdict::Granted(_)) => "granted",
        Ok(TokenVerdict::Misconfigured(error)) => {
            tracing::error!(
                error = error.as_str(),
                "the provider refuses this client: sessions cannot be refreshed until its configuration is mended"
            );
            "misconfigured"
        }
        Ok(TokenVerdict::NotForThis(error)) => {
            tracing::info!(error = error.as_str(), "the provider refused what a refresh asked for");
            "not_for_this"
        }
        Ok(TokenVerdict::OtherType(_)) => "other_type",
        Ok(TokenVerdict::Refused(error)) => {
            tracing::info!(error = error.as_str(), "the provider refused a refresh");
            "refused"
        }
        Ok(TokenVerdict::Unreadable) => {
            tracing::warn!("the provider's token response cannot be read");
            "unreadable"
        }
        Ok(TokenVerdict::Unavailable { status, .. }) => {
            tracing::warn!(%status, "the provider cannot refresh at the moment");
            "unavailable"
        }
        Err(unavailable) => {
            tracing::warn!(error = %unavailable, "the provider cannot refresh at the moment");
            "unavailable"
        }
    };
    metrics::counter!("oidc_refreshes_total", "outcome" => outcome).increment(1);
}

/// 50 to 305 ms.
fn jitter() -> Duration {
    Duration::from_millis(50) + Duration::from_millis(255).mul_f64(random_fraction())
}
