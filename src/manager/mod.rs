//! The one writer of the registry: starts sessions, admits requests, signals activity, ends sessions.

pub(crate) mod signal;
pub(crate) mod start;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use self::signal::{Flights, Signalled};
use crate::clock::Clock;
use crate::ends::{Ends, Notice};
use crate::provider::Provider;
use crate::registry::{Committed, Loaded, LogoutTarget, RegistryError, SessionRegistry};
use crate::session::decide::{Decision, decide, is_confirmed, next_deadline};
use crate::session::event::{EndReason, SessionEvent, SessionInfo};
use crate::session::id::SessionKey;
use crate::session::policy::{RequestKind, SessionPolicy};
use crate::session::record::{ActivitySignal, SessionRecord};

/// How often expired records are removed.
const CLEANING_INTERVAL: Duration = Duration::from_secs(60);
/// How long a long response goes on without a look at the registry, should a notice be lost.
const LONGEST_TRUST: Duration = Duration::from_secs(30);
/// What a client waits before it asks again when the registry failed.
pub(crate) const REGISTRY_RETRY_AFTER: Duration = Duration::from_secs(1);

pub(crate) type Listener = Arc<dyn Fn(&SessionEvent) + Send + Sync>;

pub(crate) struct Manager {
    registry: Arc<dyn SessionRegistry>,
    provider: Provider,
    policy: SessionPolicy,
    clock: Arc<dyn Clock>,
    listeners: Vec<Listener>,
    flights: Flights,
    ends: Arc<Ends>,
    reported_expires_in: AtomicBool,
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager")
            .field("policy", &self.policy)
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}

/// What a request's session is worth.
#[derive(Clone, Debug)]
pub(crate) enum Admission {
    /// It is good.
    Admitted(Arc<SessionRecord>),
    /// It ended, just now or before.
    Ended(EndReason),
    /// It may still stand, but only user activity may ask the provider.
    Refused,
    /// The browser has to go through the provider first, without the user noticing.
    SilentLogin,
    /// Nobody can tell at the moment.
    Unavailable(RetryAfter),
    /// There is none, or it ended so long ago that nobody knows why.
    Unknown,
}

impl From<Signalled> for Admission {
    fn from(signalled: Signalled) -> Self {
        match signalled {
            Signalled::Confirmed(record) | Signalled::Overtaken(record) => Self::Admitted(record),
            Signalled::Denied => Self::Unavailable(RetryAfter(REGISTRY_RETRY_AFTER)),
            Signalled::Ended(reason) => reason.map_or(Self::Unknown, Self::Ended),
            Signalled::Unavailable(retry_after) => Self::Unavailable(retry_after),
        }
    }
}

/// How long a client had better wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetryAfter(pub(crate) Duration);

impl Manager {
    pub(crate) fn new(
        registry: Arc<dyn SessionRegistry>,
        provider: Provider,
        policy: SessionPolicy,
        clock: Arc<dyn Clock>,
        listeners: Vec<Listener>,
        longest_pause: Duration,
    ) -> Arc<Self> {
        let ends = Arc::new(Ends::default());
        registry.subscribe({
            let ends = ends.clone();
            Box::new(move |notice| ends.notice(notice))
        });
        let manager = Arc::new(Self {
            registry,
            provider,
            policy,
            clock,
            listeners,
            flights: Flights::new(longest_pause),
            ends,
            reported_expires_in: AtomicBool::new(false),
        });
        tokio::spawn(clean(Arc::downgrade(&manager)));
        tokio::spawn(get_ready(Arc::downgrade(&manager)));
        manager
    }

    pub(crate) fn provider(&self) -> &Provider {
        &self.provider
    }

    pub(crate) fn policy(&self) -> &SessionPolicy {
        &self.policy
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Decides whether a request may be served, after a signal to the provider if one is due.
    ///
    /// # Cancel safety
    /// A signal or an end that was begun is finished without the caller.
    pub(crate) async fn admit(self: &Arc<Self>, key: &SessionKey, kind: RequestKind) -> Admission {
        let record = match self.registry.load(key).await {
            Ok(Loaded::Live(record)) => record,
            Ok(Loaded::Ended(reason)) => return Admission::Ended(reason),
            Ok(Loaded::Unknown) => return Admission::Unknown,
            Err(error) => return unavailable(&error),
        };
        match decide(&record, &self.policy, self.clock.now(), kind) {
            Decision::Proceed => Admission::Admitted(record),
            Decision::Refuse => Admission::Refused,
            Decision::Signal => self.admit_after_signal(record).await,
            Decision::SilentLogin => self.begin_silent_login(record).await,
            Decision::Wait(left) => Admission::Unavailable(RetryAfter(left)),
            Decision::End(reason) => match self.end(key, reason).await {
                Ok(()) => Admission::Ended(reason),
                Err(error) => unavailable(&error),
            },
        }
    }

    /// Writes down that a silent login begins, so that there is one at a time.
    async fn begin_silent_login(self: &Arc<Self>, record: Arc<SessionRecord>) -> Admission {
        let now = self.clock.now();
        let mut begun = SessionRecord::clone(&record);
        begun.silent_login_at = Some(now);
        match self.registry.commit(begun, now).await {
            Ok(Committed::Committed(_)) => Admission::SilentLogin,
            // Another request was faster.
            Ok(Committed::Stale(record)) if is_confirmed(&record, &self.policy, now) => Admission::Admitted(record),
            Ok(Committed::Stale(_)) => Admission::Unavailable(RetryAfter(REGISTRY_RETRY_AFTER)),
            Ok(Committed::Gone(reason)) => reason.map_or(Admission::Unknown, Admission::Ended),
            Err(error) => unavailable(&error),
        }
    }

    async fn admit_after_signal(self: &Arc<Self>, record: Arc<SessionRecord>) -> Admission {
        match self.signal(&record).await {
            // The provider's silence is no refusal: within T the session stands.
            Signalled::Unavailable(_) if is_confirmed(&record, &self.policy, self.clock.now()) => {
                Admission::Admitted(record)
            }
            signalled => signalled.into(),
        }
    }

    /// Signals the provider now, however fresh the last signal is.
    ///
    /// # Cancel safety
    /// As [`admit`](Self::admit).
    pub(crate) async fn confirm(self: &Arc<Self>, key: &SessionKey) -> Admission {
        let Ok(Loaded::Live(record)) = self.registry.load(key).await else {
            return self.admit(key, RequestKind::UserActivity).await;
        };
        if let Decision::End(_) = decide(&record, &self.policy, self.clock.now(), RequestKind::UserActivity) {
            return self.admit(key, RequestKind::UserActivity).await;
        }
        if record.login.signal == ActivitySignal::SilentLogin {
            // A script cannot; it is told where to navigate to.
            return Admission::Refused;
        }
        self.signal(&record).await.into()
    }

    /// Looks at a session without any effect on it.
    pub(crate) async fn look(&self, key: &SessionKey) -> Result<Loaded, RegistryError> {
        self.registry.load(key).await
    }

    /// Ends one session. Ending it again is no error.
    ///
    /// # Cancel safety
    /// The end is finished without the caller.
    pub(crate) async fn end(self: &Arc<Self>, key: &SessionKey, reason: EndReason) -> Result<(), RegistryError> {
        let (manager, key) = (self.clone(), *key);
        detached(async move {
            let ended = manager.registry.end(&key, reason, manager.clock.now()).await?;
            if let Some(record) = ended {
                manager.conclude(&record, reason);
            }
            Ok(())
        })
        .await
    }

    /// Ends a session whose silent login the provider refused; others are left alone, whoever made the link.
    ///
    /// # Cancel safety
    /// As [`end`](Self::end).
    pub(crate) async fn end_silently_refused(self: &Arc<Self>, key: &SessionKey) -> Result<(), RegistryError> {
        match self.registry.load(key).await? {
            // Only the attempt that the session itself has begun, and that has not come back yet.
            Loaded::Live(record) if record.silent_login_at.is_some() => self.end(key, EndReason::LoginRequired).await,
            _ => Ok(()),
        }
    }

    /// Ends all sessions of a target and returns how many there were.
    ///
    /// # Cancel safety
    /// The end is finished without the caller.
    pub(crate) async fn end_matching(
        self: &Arc<Self>,
        target: LogoutTarget,
        reason: EndReason,
    ) -> Result<usize, RegistryError> {
        let manager = self.clone();
        detached(async move {
            let ended = manager.registry.end_matching(&target, reason, manager.clock.now()).await?;
            for record in &ended {
                manager.conclude(record, reason);
            }
            Ok(ended.len())
        })
        .await
    }

    /// Says that a session is over, to everyone who has to know. The session is gone already; nothing here can fail it.
    fn conclude(self: &Arc<Self>, record: &Arc<SessionRecord>, reason: EndReason) {
        self.ends.ended(record.key(), reason);
        // Another client may share the registry; its sessions are its own business.
        if record.registration() != &self.provider.client().registration {
            return;
        }
        tracing::info!(session = ?record.key(), %reason, "session ended");
        metrics::counter!("oidc_sessions_ended_total", "reason" => reason.as_str()).increment(1);
        self.emit(&SessionEvent::Ended(SessionInfo::of(record), reason));
        if self.revokes_after(record, reason) {
            self.revoke(record);
        }
    }

    /// Whether the refresh token of an ended session is to be revoked.
    fn revokes_after(&self, record: &SessionRecord, reason: EndReason) -> bool {
        match reason {
            // It is dead, or the provider's own logout follows and ends it.
            EndReason::RefreshTokenRejected => false,
            EndReason::RpInitiatedLogout => self.provider.end_session_url(&record.tokens.id_token).is_none(),
            // The new login may stand on the same grant.
            EndReason::SupersededByLogin => false,
            // Back-Channel Logout §2.7: tokens with offline_access normally outlive a logout at the provider.
            EndReason::BackChannelLogout => !record.login.offline_access,
            _ => true,
        }
    }

    fn revoke(self: &Arc<Self>, record: &SessionRecord) {
        if let Some(token) = record.tokens.refresh_token.clone() {
            let manager = self.clone();
            tokio::spawn(async move { manager.provider.revoke(token).await });
        }
    }

    fn emit(&self, event: &SessionEvent) {
        for listener in &self.listeners {
            listener(event);
        }
    }

    /// Completes when nothing more may be sent of a long response of this session.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn until_over(self: Arc<Self>, key: SessionKey) {
        let mut watch = self.ends.watch(key);
        // What to go by while the registry does not answer: nothing is trusted for longer than this.
        let mut trusted_until = self.clock.now() + LONGEST_TRUST;
        loop {
            let now = self.clock.now();
            match self.registry.load(&key).await {
                Ok(Loaded::Live(record)) => match decide(&record, &self.policy, now, RequestKind::Passive) {
                    Decision::Proceed | Decision::Signal | Decision::SilentLogin => {
                        trusted_until = next_deadline(&record, &self.policy).min(now + LONGEST_TRUST);
                    }
                    Decision::Refuse | Decision::Wait(_) => return,
                    Decision::End(reason) => {
                        // Where the registry fails, the next request ends it.
                        let _ = self.end(&key, reason).await;
                        return;
                    }
                },
                Ok(Loaded::Ended(_) | Loaded::Unknown) => return,
                Err(error) => {
                    tracing::warn!(%error, "a long response could not be checked");
                    if now >= trusted_until {
                        return;
                    }
                }
            }
            let notice = std::pin::pin!(watch.notice());
            let look = self.clock.sleep_until(trusted_until);
            if let futures_util::future::Either::Left((Notice::Ended(_), _)) =
                futures_util::future::select(notice, look).await
            {
                return;
            }
        }
    }
}

fn unavailable(error: &RegistryError) -> Admission {
    tracing::error!(%error, "a request could not be admitted");
    Admission::Unavailable(RetryAfter(REGISTRY_RETRY_AFTER))
}

/// Runs `work` to its end even if the caller goes away.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, RegistryError>> + Send + 'static,
) -> Result<T, RegistryError> {
    tokio::spawn(work).await.unwrap_or_else(|panic| Err(RegistryError::with_source("an operation panicked", panic)))
}

/// Removes expired records for as long as the manager is in use.
async fn clean(manager: std::sync::Weak<Manager>) {
    loop {
        let Some(clock) = manager.upgrade().map(|manager| manager.clock.clone()) else { return };
        clock.sleep_until(clock.now() + CLEANING_INTERVAL).await;
        let Some(manager) = manager.upgrade() else { return };
        let now = clock.now();
        match manager.registry.remove_expired(now).await {
            Ok(removed) => {
                for record in removed {
                    let reason = match decide(&record, &manager.policy, now, RequestKind::Passive) {
                        Decision::End(reason) => reason,
                        _ => EndReason::AbsoluteLifetime,
                    };
                    manager.conclude(&record, reason);
                }
            }
            Err(error) => tracing::warn!(%error, "expired sessions could not be removed"),
        }
    }
}

/// Asks the provider for its metadata until it answers: nothing of a user's is touched.
async fn get_ready(manager: std::sync::Weak<Manager>) {
    const PAUSE: Duration = Duration::from_secs(1);
    while let Some(manager) = manager.upgrade() {
        match manager.provider.metadata().await {
            Ok(_) => return,
            Err(error) => tracing::warn!(%error, "not ready yet"),
        }
        drop(manager);
        tokio::time::sleep(PAUSE).await;
    }
}
