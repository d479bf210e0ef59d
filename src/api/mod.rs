//! Calls to APIs on behalf of a session.

mod body;
pub(crate) mod client;

use std::time::Duration;

use url::{Origin, Url};

use crate::config::{ConfigError, check_url};

/// An API that has not begun to answer after this time gets no more.
pub(crate) const API_TIMEOUT: Duration = Duration::from_secs(30);

/// The APIs that receive the sessions' access tokens, and the client that calls them.
#[derive(Debug)]
pub(crate) struct Apis {
    origins: Vec<Origin>,
    http: reqwest::Client,
}

impl Apis {
    pub(crate) fn new(base_urls: &[String]) -> Result<Self, ConfigError> {
        let origins = base_urls.iter().map(|url| Ok(check_url("api", url)?.origin())).collect::<Result<_, _>>()?;
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(API_TIMEOUT)
            .read_timeout(API_TIMEOUT)
            .build()
            .map_err(|error| ConfigError::new("api", error.to_string(), "a working TLS set-up"))?;
        Ok(Self { origins, http })
    }

    pub(crate) fn is_listed(&self, url: &Url) -> bool {
        self.origins.contains(&url.origin())
    }

    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }
}
