//! The end of sessions: local and at once; everybody is told after.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;

use super::Manager;
use super::family::Member;
use crate::protocol::names::{RefreshToken, Registration, Sid, Subject};
use crate::registry::{Loaded, LogoutTarget, RegistryError};
use crate::session::browser::Browser;
use crate::session::end_reason::EndReason;
use crate::session::event::{EventKind, SessionEvent};
use crate::session::id::SessionKey;
use crate::session::record::SessionRecord;
use crate::session::revocation::{Siblings, delay, revokes};

impl Member for Manager {
    fn has(&self, registration: &Registration) -> bool {
        self.provider.client().is(registration)
    }

    fn conclude(self: Arc<Self>, record: &Arc<SessionRecord>, reason: EndReason) {
        self.conclude_by(record, reason, Browser::default());
    }

    fn drain(self: Arc<Self>, bound: Duration) -> BoxFuture<'static, usize> {
        async move { Self::drain(&self, bound).await }.boxed()
    }
}

impl Manager {
    /// Ends one session. Ending it again is no error.
    ///
    /// # Cancel safety
    /// The end is finished without the caller.
    pub(crate) async fn end(self: &Arc<Self>, key: &SessionKey, reason: EndReason) -> Result<(), RegistryError> {
        self.end_by(key, reason, Browser::default()).await
    }

    /// The same, as a browser asks for it.
    ///
    /// # Cancel safety
    /// As [`end`](Self::end).
    pub(crate) async fn end_by(
        self: &Arc<Self>,
        key: &SessionKey,
        reason: EndReason,
        browser: Browser,
    ) -> Result<(), RegistryError> {
        let (manager, key) = (self.clone(), *key);
        self.detached(async move {
            let ended = manager.registry.end(&key, reason).await?;
            if let Some(record) = ended {
                manager.conclude_by(&record, reason, browser);
            }
            Ok(())
        })
        .await
    }

    /// The same where the key comes from elsewhere: a session of another client's is left alone.
    ///
    /// # Cancel safety
    /// As [`end`](Self::end).
    pub(crate) async fn end_own(self: &Arc<Self>, key: &SessionKey, reason: EndReason) -> Result<(), RegistryError> {
        match self.registry.load(key).await? {
            Loaded::Live(record) if self.has(record.registration()) => self.end(key, reason).await,
            _ => Ok(()),
        }
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

    /// Ends the sessions of a `sid` that somebody's browser was told to end, without the caller: whether there are any is nobody's
    /// business. Leaves nothing where there are none. `None` where too many do that at once: they are strangers.
    pub(crate) fn end_by_front_channel(
        self: &Arc<Self>,
        registration: Registration,
        sid: Sid,
    ) -> Option<JoinHandle<()>> {
        let turn = self.frames.clone().try_acquire_owned().ok()?;
        let manager = self.clone();
        Some(self.spawn(async move {
            let _turn = turn;
            let found = manager.registry.sessions_with_sid(&registration, &sid).await;
            for record in found.inspect_err(not_followed).unwrap_or_default() {
                // Some providers give for a `sid` what others know.
                let claims = &record.login.claims;
                let name = claims.get("preferred_username").and_then(|name| name.as_str());
                if record.subject().as_str() == sid.as_str() || name == Some(sid.as_str()) {
                    tracing::warn!(session = ?record.key(), "a front-channel logout was not followed: its sid is the user's name");
                    continue;
                }
                let _ = manager.end(record.key(), EndReason::FrontChannelLogout).await.inspect_err(not_followed);
            }
        }))
    }

    /// Ends the user's sessions of a `sid`, begun by then, that others have sessions of, too, and returns how many there were; `None` where there are
    /// no others', or the store does not say.
    pub(crate) async fn end_among_others(
        self: &Arc<Self>,
        registration: &Registration,
        (sid, subject, at): (&Sid, &Subject, SystemTime),
        reason: EndReason,
    ) -> Result<Option<usize>, RegistryError> {
        let found = self.registry.sessions_with_sid(registration, sid).await.unwrap_or_default();
        if found.iter().all(|record| record.subject() == subject) {
            return Ok(None);
        }
        let mut ended = 0;
        let is_meant = |record: &&Arc<SessionRecord>| record.subject() == subject && record.issued_at() <= at;
        for record in found.iter().filter(is_meant) {
            self.end(record.key(), reason).await?;
            ended += 1;
        }
        Ok(Some(ended))
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
        self.detached(async move {
            let answer = manager.registry.end_matching(&target, reason, manager.now()).await;
            for record in answer.as_ref().map_or_else(RegistryError::ended, Vec::as_slice) {
                manager.conclude_by(record, reason, Browser::default());
            }
            answer.map(|ended| ended.len())
        })
        .await
    }

    /// Says that a session is over, to everyone who has to know. The session is gone already; nothing here can fail it.
    fn conclude_by(self: &Arc<Self>, record: &Arc<SessionRecord>, reason: EndReason, browser: Browser) {
        self.ends.ended(record.key(), reason);
        tracing::info!(session = ?record.key(), %reason, "session ended");
        metrics::counter!("oidc_sessions_ended_total", "reason" => reason.as_str()).increment(1);
        self.emit(&SessionEvent::of(EventKind::Ended { reason }, self.now(), record).by(browser));
        self.revoke_after(reason, record, record.tokens.refresh_token.as_ref());
    }

    /// Revokes a refresh token that no session holds any more, when its turn comes, if that harms nobody then.
    pub(super) fn revoke_after(
        self: &Arc<Self>,
        reason: EndReason,
        record: &SessionRecord,
        token: Option<&RefreshToken>,
    ) {
        let offline_access = record.login.offline_access;
        // What would not be revoked in any case needs no look for siblings.
        let Some(token) = token.filter(|_| revokes(reason, offline_access, Siblings::None)).cloned() else { return };
        let (manager, record) = (self.clone(), record.clone());
        let due = self.clock.sleep(delay(reason));
        self.tasks.spawn_courtesy(due, async move {
            let siblings = match manager.registry.has_sibling(&record).await {
                Ok(false) => Siblings::None,
                Ok(true) | Err(_) => Siblings::Alive,
            };
            if revokes(reason, offline_access, siblings) {
                manager.provider.revoke(token).await;
            }
        });
    }

    /// Runs `work` to its end even if the caller goes away.
    async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, RegistryError>> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let panicked = |panic| Err(RegistryError::with_source("an operation panicked", panic));
        self.spawn(work).await.unwrap_or_else(panicked)
    }
}

fn not_followed(error: &RegistryError) {
    tracing::error!(%error, "a front-channel logout could not be followed");
}
