//! The APIs that may be called, and what each made of the sessions' tokens lately.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use url::{Origin, Url};

use super::api::{Api, Unexplained};
use super::fault::{Answers, FRESH, Fault, Outcome};
use super::transport::Client;
use crate::error::{ConfigError, check_url};
use crate::protocol::authorization::Audience;
use crate::protocol::url::PlainHttp;
use crate::provider::certificate::ClientCertificate;
use crate::provider::given::GivenClient;
use crate::session::record::SessionRecord;

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
        self.api.unexplained_401()
    }

    pub(crate) fn base_url(&self) -> &str {
        self.api.base_url()
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what it made of a session's token.
    pub(super) fn note(&self, record: &SessionRecord, outcome: Outcome, now: SystemTime) {
        if has_fresh_token(self, record, now) {
            self.answers().note(record.key(), outcome, now);
        }
    }

    /// Whose fault it is if it rejects a session's token now.
    pub(super) fn fault(&self, record: &SessionRecord, now: SystemTime) -> Fault {
        if has_fresh_token(self, record, now) { self.answers().fault(now) } else { Fault::Session }
    }
}

/// The APIs that receive the sessions' access tokens, and the client that calls them.
#[derive(Debug)]
pub(crate) struct Apis {
    listed: Vec<Arc<Listed>>,
    own_client: Client,
}

impl Apis {
    pub(crate) fn new(
        apis: &[Api],
        plain_http: &PlainHttp,
        given: Option<GivenClient>,
        certificate: Option<ClientCertificate>,
    ) -> Result<Self, ConfigError> {
        let list = |api: &Api| {
            let url = check_url("api", api.base_url(), plain_http)?;
            if url.query().is_some() {
                return Err(ConfigError::new("api", api.base_url(), "a base URL without query"));
            }
            let path = url.path().trim_end_matches('/').to_owned();
            Ok(Arc::new(Listed { origin: url.origin(), path, api: api.clone(), answers: Mutex::default() }))
        };
        let listed = apis.iter().map(list).collect::<Result<_, _>>()?;
        Ok(Self { listed, own_client: Client::new(given, certificate)? })
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

    pub(crate) fn own_client(&self) -> &Client {
        &self.own_client
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

    #[test]
    fn urls_belong_to_the_nearest_api_above_them() {
        let apis = ["https://a.example/v1", "https://a.example/v1/billing/", "https://b.example"].map(Api::at);
        let apis = Apis::new(&apis, &PlainHttp::default(), None, None).unwrap();
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
