//! Whether a request may be served.

use std::sync::Arc;

use futures_util::FutureExt;

use super::{Manager, REGISTRY_RETRY_AFTER, Refusal, RetryAfter, unavailable};
use crate::registry::Committed;
use crate::session::decide::{Decision, decide, is_confirmed, was_just_confirmed};
use crate::session::end_reason::EndReason;
use crate::session::id::SessionKey;
use crate::session::policy::RequestKind;
use crate::session::record::{ActivitySignal, SessionRecord};

impl Manager {
    /// Decides whether a request may be served, after a signal to the provider if one is due.
    ///
    /// # Cancel safety
    /// A signal or an end that was begun is finished without the caller.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        key: &SessionKey,
        kind: RequestKind,
    ) -> Result<Arc<SessionRecord>, Refusal> {
        let record = self.look(key).await?;
        match decide(&record, &self.policy, self.now(), kind) {
            Decision::Proceed => Ok(record),
            Decision::Refuse => Err(Refusal::Unconfirmed),
            Decision::Wait(left) => Err(Refusal::Unavailable(RetryAfter(left))),
            // Boxed: what is seldom needed would make the future of each request large.
            Decision::Signal => self.admit_after_signal(record).boxed().await,
            Decision::SilentLogin => self.begin_silent_login(record).boxed().await,
            Decision::End(reason) => self.refuse_for_good(key, reason).boxed().await,
        }
    }

    /// The same where the registry knows the session without waiting, and nobody else has to be asked or told.
    pub(crate) fn admit_at_once(
        &self,
        key: &SessionKey,
        kind: RequestKind,
    ) -> Option<Result<Arc<SessionRecord>, Refusal>> {
        let record = match self.found(self.registry.load_at_once(key)?) {
            Ok(record) => record,
            Err(refusal) => return Some(Err(refusal)),
        };
        match decide(&record, &self.policy, self.now(), kind) {
            Decision::Proceed => Some(Ok(record)),
            Decision::Refuse => Some(Err(Refusal::Unconfirmed)),
            Decision::Wait(left) => Some(Err(Refusal::Unavailable(RetryAfter(left)))),
            Decision::Signal | Decision::SilentLogin | Decision::End(_) => None,
        }
    }

    /// Signals the provider now, unless it has confirmed the session a moment ago.
    ///
    /// # Cancel safety
    /// As [`admit`](Self::admit).
    pub(crate) async fn confirm(self: &Arc<Self>, key: &SessionKey) -> Result<Arc<SessionRecord>, Refusal> {
        let record = self.look(key).await?;
        self.confirm_record(record).await
    }

    /// The same for a session that was looked up just now.
    ///
    /// # Cancel safety
    /// As [`admit`](Self::admit).
    pub(crate) async fn confirm_record(
        self: &Arc<Self>,
        record: Arc<SessionRecord>,
    ) -> Result<Arc<SessionRecord>, Refusal> {
        match decide(&record, &self.policy, self.now(), RequestKind::UserActivity) {
            Decision::End(reason) => self.refuse_for_good(record.key(), reason).await,
            // A script cannot; it is told where to navigate to.
            _ if record.login.signal == ActivitySignal::SilentLogin => Err(Refusal::Unconfirmed),
            _ if was_just_confirmed(&record, &self.policy, self.now()) => Ok(record),
            _ => self.signal_and_look(&record).await,
        }
    }

    async fn refuse_for_good(
        self: &Arc<Self>,
        key: &SessionKey,
        reason: EndReason,
    ) -> Result<Arc<SessionRecord>, Refusal> {
        Err(match self.end(key, reason).await {
            Ok(()) => Refusal::Ended(reason),
            Err(error) => unavailable(&error),
        })
    }

    async fn admit_after_signal(self: &Arc<Self>, record: Arc<SessionRecord>) -> Result<Arc<SessionRecord>, Refusal> {
        match self.signal_and_look(&record).await {
            // The provider's silence is no refusal: within T the session stands, unless it ended meanwhile.
            Err(Refusal::Unavailable(_)) if is_confirmed(&record, &self.policy, self.now()) => {
                self.look(record.key()).await
            }
            signalled => signalled,
        }
    }

    /// Signals, which takes its time: the session may have come to its end meanwhile.
    async fn signal_and_look(self: &Arc<Self>, record: &Arc<SessionRecord>) -> Result<Arc<SessionRecord>, Refusal> {
        let record = self.signal(record).await?;
        match decide(&record, &self.policy, self.now(), RequestKind::UserActivity) {
            Decision::End(reason) => self.refuse_for_good(record.key(), reason).await,
            _ => Ok(record),
        }
    }

    /// Writes down that a silent login begins, so that there is one at a time.
    async fn begin_silent_login(self: &Arc<Self>, record: Arc<SessionRecord>) -> Result<Arc<SessionRecord>, Refusal> {
        let now = self.now();
        let mut begun = SessionRecord::clone(&record);
        begun.silent_login_at = Some(now);
        match self.registry.commit(begun, now).await {
            Ok(Committed::Committed(_)) => Err(Refusal::SilentLogin),
            // Another request was faster.
            Ok(Committed::Stale(record)) if is_confirmed(&record, &self.policy, now) => Ok(record),
            Ok(Committed::Stale(_)) => Err(Refusal::Unavailable(REGISTRY_RETRY_AFTER)),
            Ok(Committed::Gone(reason)) => Err(Refusal::over(reason)),
            Err(error) => Err(unavailable(&error)),
        }
    }
}
