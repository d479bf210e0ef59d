//! Errors: a setting that cannot work, and a cause with its causes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use url::Url;

use crate::protocol::url::PlainHttp;

/// A setting that cannot work. Says which, what it got and what it takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} is {got}: it takes {takes}")]
pub struct ConfigError {
    setting: &'static str,
    got: String,
    takes: String,
}

impl ConfigError {
    pub(crate) fn new(setting: &'static str, got: impl Into<String>, takes: impl Into<String>) -> Self {
        Self { setting, got: got.into(), takes: takes.into() }
    }

    /// The name of the setting, as the builder's method is called.
    #[must_use]
    pub fn setting(&self) -> &'static str {
        self.setting
    }

    /// What the setting takes, and why.
    #[must_use]
    pub fn takes(&self) -> &str {
        &self.takes
    }
}

/// An absolute `https` URL, or `http` to this machine and those that are listed, without fragment and user.
pub(crate) fn check_url(setting: &'static str, value: &str, plain_http: &PlainHttp) -> Result<Url, ConfigError> {
    let error = |takes: &str| {
        let got = match value {
            "" => "empty",
            // What stands before it may be a password.
            value if value.contains('@') => "a URL with a user, or with an @ elsewhere",
            value => value,
        };
        ConfigError::new(setting, got, takes)
    };
    let url = Url::parse(value).map_err(|_| error("an absolute URL, as https://host.example"))?;
    if url.scheme() != "https" && !plain_http.allows(&url) {
        return Err(error(
            "an https URL; plain http only to a loopback host (127.0.0.1, [::1], localhost), or for development to one that \
             dangerous() names",
        ));
    }
    if url.fragment().is_some() {
        return Err(error("a URL without fragment"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // Not repeated: it may be a password.
        return Err(ConfigError::new(setting, "a URL with a user", "a URL without user and password"));
    }
    Ok(url)
}

/// An error with all its causes, in one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// The bytes of a secret setting; the value is not repeated where it is wrong.
pub(crate) fn secret_from_base64(
    setting: &'static str,
    text: &str,
    length: usize,
    takes: &'static str,
) -> Result<Vec<u8>, ConfigError> {
    // openssl breaks what is longer than 48 bytes over lines.
    let text: String = text.split_ascii_whitespace().collect();
    let bytes = STANDARD.decode(text).ok().filter(|bytes| bytes.len() == length);
    bytes.ok_or_else(|| ConfigError::new(setting, "not a key", takes))
}
