//! What the application is told of a login before its session begins, and what it may say.

use std::borrow::Cow;
use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::protocol::names::{AccessToken, Issuer, Sid, Subject};

/// A login that the provider has granted, before its session begins. For
/// [`RelyingPartyBuilder::on_login`](crate::RelyingPartyBuilder::on_login).
#[derive(Clone)]
pub struct NewLogin {
    pub(crate) issuer: Issuer,
    pub(crate) subject: Subject,
    pub(crate) sid: Option<Sid>,
    pub(crate) claims: Map<String, Value>,
    pub(crate) access_token: Option<AccessToken>,
}

impl NewLogin {
    /// The provider.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// The user. Unique with [`issuer`](Self::issuer) only.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The session at the provider, if the provider names it.
    #[must_use]
    pub fn sid(&self) -> Option<&Sid> {
        self.sid.as_ref()
    }

    /// The claims that the session will have.
    #[must_use]
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// The same as a type of the application's.
    ///
    /// # Errors
    /// If a claim is missing or of another type.
    pub fn claims_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.claims)
    }

    /// The access token, where the session keeps it.
    #[must_use]
    pub fn access_token(&self) -> Option<&AccessToken> {
        self.access_token.as_ref()
    }
}

/// Whose login it is; claims and tokens are left out.
impl fmt::Debug for NewLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("NewLogin");
        debug.field("issuer", &self.issuer).field("subject", &self.subject).field("sid", &self.sid);
        debug.finish_non_exhaustive()
    }
}

/// Why the application does not let somebody in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct LoginRefused {
    reason: Cow<'static, str>,
    pub(crate) blame: Blame,
}

/// Whether it is the user's or ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    NotAllowed,
    Unavailable,
}

impl LoginRefused {
    /// The user may not use this application: a page with 403 says so. `reason` is for the log, and holds no secret.
    #[must_use]
    pub fn not_allowed(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: reason.into(), blame: Blame::NotAllowed }
    }

    /// Nobody can tell at the moment, as when a database is down: a page with 503 tries again by itself. `reason` is for
    /// the log, and holds no secret.
    #[must_use]
    pub fn unavailable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: reason.into(), blame: Blame::Unavailable }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_application_is_told_whose_login_it_is_and_what_the_provider_says_of_the_user() {
        let claims = json!({"groups": ["staff"]});
        let login = NewLogin {
            issuer: Issuer::new("https://op.example"),
            subject: Subject::new("alice"),
            sid: Some(Sid::new("s")),
            claims: claims.as_object().cloned().unwrap(),
            access_token: None,
        };
        assert_eq!(login.sid(), Some(&Sid::new("s")));
        assert_eq!(Value::Object(login.claims().clone()), claims);
        assert_eq!(format!("{login:?}").matches("staff").count(), 0);
    }
}
