//! What is known of a browser.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What is known of a browser.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Browser {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user_agent: Option<String>,
}

impl Browser {
    /// Its address, if [`RelyingPartyBuilder::client_address`](crate::RelyingPartyBuilder::client_address) is set and says so.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// What it calls itself, cut to 256 characters that can be shown.
    #[must_use]
    pub fn user_agent(&self) -> Option<&str> {
        self.user_agent.as_deref()
    }

    /// Whether nothing is.
    pub(crate) fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}
