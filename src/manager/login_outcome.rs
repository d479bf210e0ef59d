//! What a login comes to.

use std::sync::Arc;
use std::time::SystemTime;

use crate::protocol::jwt::TokenError;
use crate::protocol::token_response::ErrorCode;
use crate::provider::Unavailable;
use crate::provider::keys::VerifyError;
use crate::registry::RegistryError;
use crate::session::id::SessionId;
use crate::session::new_login::LoginRefused;
use crate::session::record::SessionRecord;

/// What came of a login.
#[derive(Clone, Debug)]
pub(crate) enum LoggedIn {
    /// A new session.
    Anew(SessionId, Arc<SessionRecord>),
    /// The session that there is goes on.
    Confirmed,
    /// Another replica has spent the attempt: what it came to is in the browser, or will be.
    Elsewhere,
    /// A logout, which arrived then, has overtaken it. Its tokens are dropped; one that is begun now is not covered.
    Overtaken(SystemTime),
}

/// Whether a browser brings an attempt for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    Again,
    First,
}

/// All who bring one attempt get the same.
pub(crate) type LoginOutcome = Result<LoggedIn, Arc<LoginError>>;

/// Why a login came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginError {
    #[error("the provider refused the authorization code: {}", .0.as_str())]
    CodeRefused(ErrorCode),
    #[error("the provider refused this client: {}", .0.as_str())]
    Misconfigured(ErrorCode),
    #[error("the session that a silent login was to confirm has ended")]
    LoggedOut,
    #[error("the provider's answer cannot be used: {0}")]
    Nonsense(&'static str),
    #[error("the ID token is not valid: {0}")]
    IdToken(#[from] TokenError),
    #[error("the userinfo answer is not valid: {0}")]
    UserInfo(TokenError),
    #[error("the application does not let the user in: {0}")]
    Refused(LoginRefused),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl From<VerifyError> for LoginError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::OtherIssuer(error) | VerifyError::Token(error) => Self::IdToken(error),
            VerifyError::Unavailable(error) => Self::Unavailable(error),
        }
    }
}
