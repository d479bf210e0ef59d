//! Whether the refresh token of a session that ended is revoked at the provider. Pure.
//!
//! It is a courtesy, and at some providers (Keycloak) the end of all that the client has of the user's session there. So it
//! harms no session that lives: nothing is revoked while another one stands on the same session at the provider, nor where
//! the end was our guess.

use std::time::Duration;

use super::end_reason::EndReason;

/// Whether another session stands on the same session at the provider: of the same `sid`, or where there is none of the same
/// user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Siblings {
    Alive,
    None,
}

/// Whether a revocation is in order after an end, as far as the end itself goes.
fn is_in_order(reason: EndReason, offline_access: bool) -> bool {
    match reason {
        // It is dead.
        EndReason::RefreshTokenRejected => false,
        // The new login may stand on the same grant.
        EndReason::SupersededByLogin => false,
        // Somebody else's answer, or an API's: what the provider thinks is not known.
        EndReason::AccessTokenRejected | EndReason::ProviderMisbehaved => false,
        // Anybody who knows the `sid` can say so.
        EndReason::FrontChannelLogout => false,
        // Back-Channel Logout §2.7: tokens with offline_access normally outlive a logout at the provider.
        EndReason::BackChannelLogout
        | EndReason::ProviderSessionExpired
        | EndReason::ProviderTerminated
        | EndReason::ProviderUserLogout
        | EndReason::SessionRevoked => !offline_access,
        EndReason::AbsoluteLifetime
        | EndReason::EndedByApplication
        | EndReason::IdleTimeout
        | EndReason::LoginRequired
        | EndReason::RpInitiatedLogout
        | EndReason::SessionExpiry
        | EndReason::TooManySessions => true,
    }
}

/// How long the provider's own logout may take. At Keycloak a revocation that comes while it is under way brings the session
/// back that it is about to remove.
const LOGOUT_UNDER_WAY: Duration = Duration::from_secs(3);

/// How long a revocation waits.
pub(crate) fn delay(reason: EndReason) -> Duration {
    match reason {
        EndReason::BackChannelLogout
        | EndReason::ProviderSessionExpired
        | EndReason::ProviderTerminated
        | EndReason::ProviderUserLogout
        | EndReason::RpInitiatedLogout
        | EndReason::SessionRevoked => LOGOUT_UNDER_WAY,
        _ => Duration::ZERO,
    }
}

pub(crate) fn revokes(reason: EndReason, offline_access: bool, siblings: Siblings) -> bool {
    siblings == Siblings::None && is_in_order(reason, offline_access)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p7_revocation_harms_no_session_that_lives() {
        for (reason, online, offline) in [
            (EndReason::AbsoluteLifetime, true, true),
            (EndReason::AccessTokenRejected, false, false),
            (EndReason::FrontChannelLogout, false, false),
            (EndReason::SessionRevoked, true, false),
            (EndReason::BackChannelLogout, true, false),
            (EndReason::EndedByApplication, true, true),
            (EndReason::IdleTimeout, true, true),
            (EndReason::LoginRequired, true, true),
            (EndReason::ProviderMisbehaved, false, false),
            (EndReason::ProviderSessionExpired, true, false),
            (EndReason::ProviderTerminated, true, false),
            (EndReason::ProviderUserLogout, true, false),
            (EndReason::RefreshTokenRejected, false, false),
            (EndReason::RpInitiatedLogout, true, true),
            (EndReason::SessionExpiry, true, true),
            (EndReason::SupersededByLogin, false, false),
            (EndReason::TooManySessions, true, true),
        ] {
            for (offline_access, expected) in [(false, online), (true, offline)] {
                assert_eq!(revokes(reason, offline_access, Siblings::None), expected, "{reason} {offline_access}");
                assert!(!revokes(reason, offline_access, Siblings::Alive), "{reason} {offline_access}");
            }
        }
        assert_eq!(EndReason::ALL.len(), 17, "a row for each");
    }

    #[test]
    fn p7_a_revocation_waits_for_the_providers_own_logout() {
        for (reason, expected) in [
            (EndReason::BackChannelLogout, LOGOUT_UNDER_WAY),
            (EndReason::RpInitiatedLogout, LOGOUT_UNDER_WAY),
            (EndReason::IdleTimeout, Duration::ZERO),
            (EndReason::TooManySessions, Duration::ZERO),
        ] {
            assert_eq!(delay(reason), expected, "{reason}");
        }
    }
}
