//! The end of sessions: local and at once; everybody is told after.

use std::sync::Arc;

use super::Manager;
use crate::protocol::names::RefreshToken;
use crate::registry::{Loaded, LogoutTarget, RegistryError};
use crate::session::end_reason::EndReason;
use crate::session::event::{SessionEvent, SessionInfo};
use crate::session::id::SessionKey;
use crate::session::record::SessionRecord;

impl Manager {
    /// Ends one session. Ending it again is no error.
    ///
    /// # Cancel safety
    /// The end is finished without the caller.
    pub(crate) async fn end(self: &Arc<Self>, key: &SessionKey, reason: EndReason) -> Result<(), RegistryError> {
        let (manager, key) = (self.clone(), *key);
        self.detached(async move {
            let ended = manager.registry.end(&key, reason).await?;
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
        self.detached(async move {
            let ended = manager.registry.end_matching(&target, reason, manager.now()).await?;
            for record in &ended {
                manager.conclude(record, reason);
            }
            Ok(ended.len())
        })
        .await
    }

    /// Says that a session is over, to everyone who has to know. The session is gone already; nothing here can fail it.
    pub(super) fn conclude(self: &Arc<Self>, record: &Arc<SessionRecord>, reason: EndReason) {
        self.ends.ended(record.key(), reason);
        // Another client may share the registry; its sessions are its own business.
        if record.registration() != &self.provider.client().registration {
            return;
        }
        tracing::info!(session = ?record.key(), %reason, "session ended");
        metrics::counter!("oidc_sessions_ended_total", "reason" => reason.as_str()).increment(1);
        self.emit(&SessionEvent::Ended(SessionInfo::of(record), reason));
        let logout = match self.provider.end_session_url(Some(&record.tokens.id_token)) {
            Some(_) => ProviderLogout::Follows,
            None => ProviderLogout::Missing,
        };
        if revokes_after(reason, record.login.offline_access, logout)
            && let Some(token) = &record.tokens.refresh_token
        {
            self.revoke(token.clone());
        }
    }

    /// Revokes a refresh token that no session holds.
    pub(super) fn revoke(self: &Arc<Self>, token: RefreshToken) {
        let manager = self.clone();
        self.tasks.spawn_courtesy(async move { manager.provider.revoke(token).await });
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

/// Whether a sign-out here goes on to the provider's logout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProviderLogout {
    Follows,
    Missing,
}

/// Whether the refresh token of a session that ended is to be revoked. A revocation must harm no session that lives.
fn revokes_after(reason: EndReason, offline_access: bool, logout: ProviderLogout) -> bool {
    match reason {
        // It is dead.
        EndReason::RefreshTokenRejected => false,
        // The provider's own logout ends it.
        EndReason::RpInitiatedLogout => logout == ProviderLogout::Missing,
        // The new login may stand on the same grant.
        EndReason::SupersededByLogin => false,
        // Somebody else's answer: whose tokens these are is not known.
        EndReason::ProviderMisbehaved => false,
        // Back-Channel Logout §2.7: tokens with offline_access normally outlive a logout at the provider.
        EndReason::BackChannelLogout => !offline_access,
        EndReason::AbsoluteLifetime
        | EndReason::AccessTokenRejected
        | EndReason::EndedByApplication
        | EndReason::IdleTimeout
        | EndReason::LoginRequired
        | EndReason::SessionExpiry => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p7_revocation_harms_no_session_that_lives() {
        use ProviderLogout::{Follows, Missing};
        for (reason, offline_access, logout, expected) in [
            (EndReason::AbsoluteLifetime, false, Follows, true),
            (EndReason::AccessTokenRejected, false, Follows, true),
            (EndReason::BackChannelLogout, false, Follows, true),
            (EndReason::BackChannelLogout, true, Follows, false),
            (EndReason::EndedByApplication, false, Follows, true),
            (EndReason::EndedByApplication, true, Follows, true),
            (EndReason::IdleTimeout, false, Follows, true),
            (EndReason::LoginRequired, false, Follows, true),
            (EndReason::ProviderMisbehaved, false, Missing, false),
            (EndReason::RefreshTokenRejected, false, Missing, false),
            (EndReason::RpInitiatedLogout, false, Follows, false),
            (EndReason::RpInitiatedLogout, true, Follows, false),
            (EndReason::RpInitiatedLogout, false, Missing, true),
            (EndReason::SessionExpiry, false, Follows, true),
            (EndReason::SupersededByLogin, false, Missing, false),
        ] {
            assert_eq!(revokes_after(reason, offline_access, logout), expected, "{reason} {offline_access} {logout:?}");
        }
    }
}
