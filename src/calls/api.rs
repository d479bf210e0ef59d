//! An API, as an application lists it.

use crate::protocol::authorization::Audience;

/// An API that is called with the sessions' access tokens.
///
/// ```
/// use tower_oidc_session::{Api, Unexplained};
///
/// // The access token of the login:
/// let orders = Api::at("https://orders.example");
/// // One of its own, got with the same refresh token (RFC 8707):
/// let billing = Api::at("https://billing.example").resource("https://billing.example").scopes(["invoices"]);
/// // Behind a proxy that strips `WWW-Authenticate` from what it refuses itself:
/// let reports = Api::at("https://reports.example").unexplained(Unexplained::PassedBack);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Api {
    base_url: String,
    audience: Audience,
    unexplained: Unexplained,
}

/// What a 401 means that does not say why: without `WWW-Authenticate`, or without `error` in it
/// ([RFC 6750 §3](https://www.rfc-editor.org/rfc/rfc6750#section-3) allows that).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unexplained {
    /// A question, which the provider answers. The token is refreshed and the request sent again, once: a refused refresh
    /// ends the session; where it is granted and the API says the same again, its answer is passed back and ends nothing.
    /// Without a refresh token userinfo is asked; where there is neither, the session ends.
    #[default]
    AskProvider,
    /// It is an answer like any other, and says nothing about the session.
    PassedBack,
    /// The token was rejected, as with `error="invalid_token"`.
    TokenRejected,
}

impl Api {
    /// The API at `base_url`, which gets the access token of the login.
    pub fn at(base_url: impl Into<String>) -> Self {
        Self { base_url: base_url.into(), audience: Audience::default(), unexplained: Unexplained::default() }
    }

    /// It gets an access token of its own, issued for this `resource`
    /// ([RFC 8707](https://www.rfc-editor.org/rfc/rfc8707)). Needs a refresh token.
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.audience.resource = Some(resource.into());
        self
    }

    /// The same with the parameter `audience`, as some providers have it.
    pub fn audience_parameter(mut self, audience: impl Into<String>) -> Self {
        self.audience.parameter = Some(audience.into());
        self
    }

    /// It gets an access token of its own, with these scopes.
    pub fn scopes<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.audience.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// What a 401 of it means that does not say why.
    pub fn unexplained(mut self, unexplained: Unexplained) -> Self {
        self.unexplained = unexplained;
        self
    }

    pub(super) fn base_url(&self) -> &str {
        &self.base_url
    }

    pub(super) fn unexplained_401(&self) -> Unexplained {
        self.unexplained
    }

    /// Whom its token is for, unless it is the one of the login.
    pub(crate) fn audience(&self) -> Option<&Audience> {
        (self.audience != Audience::default()).then_some(&self.audience)
    }
}

impl From<&str> for Api {
    fn from(base_url: &str) -> Self {
        Self::at(base_url)
    }
}

impl From<&String> for Api {
    fn from(base_url: &String) -> Self {
        Self::at(base_url)
    }
}

impl From<String> for Api {
    fn from(base_url: String) -> Self {
        Self::at(base_url)
    }
}
