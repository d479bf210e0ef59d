//! Calls to APIs on behalf of a session.

mod body;
pub(crate) mod client;
pub(crate) mod error;
mod forward;
mod guard;
pub(crate) mod layer;
pub(crate) mod request;
pub(crate) mod response;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use url::{Origin, Url};

use self::guard::{Answers, FRESH, Fault, Outcome};
use crate::clock::Clock;
use crate::config::{ConfigError, check_url};
use crate::session::record::{Audience, SessionRecord};

/// An API that has not begun to answer after this time gets no more.
pub(crate) const API_TIMEOUT: Duration = Duration::from_secs(30);

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

/// What a 401 means that does not say why: without `WWW-Authenticate`, or without `error` in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unexplained {
    /// It is an answer like any other, and says nothing about the session.
    PassedBack,
    /// The token was rejected, as with `error="invalid_token"`. The default: an API that requires a token and does not
    /// take the one it got need not say more ([RFC 6750 §3](https://www.rfc-editor.org/rfc/rfc6750#section-3)).
    #[default]
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

/// An API that was listed.
#[derive(Debug)]
pub(crate) struct Listed {
    origin: Origin,
    /// Of the base URL, without a slash at its end.
    path: String,
    api: Api,
    answers: Mutex<Answers>,
}

impl Listed {
    pub(crate) fn audience(&self) -> Option<&Audience> {
        self.api.audience()
    }

    pub(crate) fn unexplained(&self) -> Unexplained {
        self.api.unexplained
    }

    pub(crate) fn base_url(&self) -> &str {
        &self.api.base_url
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The APIs that receive the sessions' access tokens, and the client that calls them.
#[derive(Debug)]
pub(crate) struct Apis {
    listed: Vec<Arc<Listed>>,
    clock: Arc<dyn Clock>,
    http: reqwest::Client,
}

impl Apis {
    pub(crate) fn new(apis: &[Api], clock: Arc<dyn Clock>) -> Result<Self, ConfigError> {
        let list = |api: &Api| {
            let url = check_url("api", &api.base_url)?;
            if url.query().is_some() {
                return Err(ConfigError::new("api", &api.base_url, "a base URL without query"));
            }
            let path = url.path().trim_end_matches('/').to_owned();
            Ok(Arc::new(Listed { origin: url.origin(), path, api: api.clone(), answers: Mutex::default() }))
        };
        let listed = apis.iter().map(list).collect::<Result<_, _>>()?;
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(API_TIMEOUT)
            .read_timeout(API_TIMEOUT)
            .build()
            .map_err(|error| ConfigError::new("api", error.to_string(), "a working TLS set-up"))?;
        Ok(Self { listed, clock, http })
    }

    /// The API that a URL belongs to: of those that it is below the one with the longest base path.
    pub(crate) fn of(&self, url: &Url) -> Option<&Arc<Listed>> {
        let origin = url.origin();
        let above = self.listed.iter().filter(|listed| {
            let below = url.path().strip_prefix(listed.path.as_str());
            listed.origin == origin && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        above.max_by_key(|listed| listed.path.len())
    }

    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Notes what an API made of a session's token.
    fn note(&self, listed: &Listed, record: &SessionRecord, outcome: Outcome) {
        let now = self.clock.now();
        if has_fresh_token(listed, record, now) {
            listed.answers().note(record.key(), outcome, now);
        }
    }

    /// Whose fault it is if an API rejects a session's token now.
    fn fault(&self, listed: &Listed, record: &SessionRecord) -> Fault {
        let now = self.clock.now();
        if has_fresh_token(listed, record, now) { listed.answers().fault(now) } else { Fault::Session }
    }
}

/// Whether the provider issued the session's token for an API only just now.
fn has_fresh_token(listed: &Listed, record: &SessionRecord, now: SystemTime) -> bool {
    let obtained_at = record.access_token_obtained_at(listed.audience());
    obtained_at.is_some_and(|at| !now.duration_since(at).is_ok_and(|age| age >= FRESH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn urls_belong_to_the_nearest_api_above_them() {
        let apis = ["https://a.example/v1", "https://a.example/v1/billing/", "https://b.example"].map(Api::at);
        let apis = Apis::new(&apis, Arc::new(SystemClock)).unwrap();
        for (url, expected) in [
            ("https://a.example/v1", Some("https://a.example/v1")),
            ("https://a.example/v1/orders", Some("https://a.example/v1")),
            ("https://a.example/v1/billing", Some("https://a.example/v1/billing/")),
            ("https://a.example/v1/billing/7", Some("https://a.example/v1/billing/")),
            ("https://a.example/v1/billings", Some("https://a.example/v1")),
            ("https://a.example/v1x", None),
            ("https://a.example/admin", None),
            ("https://a.example/", None),
            ("http://a.example/v1", None),
            ("https://a.example:444/v1", None),
            ("https://b.example/anything", Some("https://b.example")),
            ("https://b.example.evil.example/", None),
        ] {
            let found = apis.of(&Url::parse(url).unwrap()).map(|listed| listed.base_url());
            assert_eq!(found, expected, "{url}");
        }
    }
}
