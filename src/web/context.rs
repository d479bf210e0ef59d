//! What the layers, the routes and the calls to APIs hold.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use url::Url;

use super::cookie::Cookies;
use super::pages::PageMaker;
use crate::calls::listed::Apis;
use crate::manager::Manager;
use crate::protocol::logout_token::LogoutTokenPolicy;
use crate::protocol::names::Registration;
use crate::provider::Provider;
use crate::session::end_reason::EndReason;
use crate::session::policy::{ClaimsFrom, SessionPolicy};

/// Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    parts: Parts,
    origin: Arc<str>,
}

/// What a context is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) manager: Arc<Manager>,
    pub(crate) cookies: Cookies,
    pub(crate) public_url: Url,
    pub(crate) claims_from: ClaimsFrom,
    pub(crate) logout_tokens: LogoutTokenPolicy,
    pub(crate) apis: Arc<Apis>,
    pub(crate) pages: Pages,
    pub(crate) ends: Ends,
}

/// Whether people are told why their session ended, before the login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    Explained,
    /// They are led to the login.
    Passed,
}

/// What makes the pages that people see, if the application does.
#[derive(Clone, Default)]
pub(crate) struct Pages(pub(crate) Option<Arc<PageMaker>>);

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Pages(of the application)" } else { "Pages(built in)" })
    }
}

impl Context {
    pub(crate) fn new(parts: Parts) -> Self {
        let origin = parts.public_url.origin().ascii_serialization().into();
        Self { shared: Arc::new(Shared { parts, origin }) }
    }

    pub(crate) fn manager(&self) -> &Arc<Manager> {
        &self.shared.parts.manager
    }

    pub(crate) fn provider(&self) -> &Arc<Provider> {
        self.manager().provider()
    }

    pub(crate) fn registration(&self) -> &Registration {
        &self.provider().client().registration
    }

    pub(crate) fn policy(&self) -> &SessionPolicy {
        self.manager().policy()
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.manager().now()
    }

    pub(crate) fn cookies(&self) -> &Cookies {
        &self.shared.parts.cookies
    }

    pub(crate) fn public_url(&self) -> &Url {
        &self.shared.parts.public_url
    }

    pub(crate) fn claims_from(&self) -> ClaimsFrom {
        self.shared.parts.claims_from
    }

    pub(crate) fn logout_tokens(&self) -> LogoutTokenPolicy {
        self.shared.parts.logout_tokens
    }

    pub(crate) fn apis(&self) -> &Arc<Apis> {
        &self.shared.parts.apis
    }

    /// Whether people are told of an end before the login: not of their own doing.
    pub(crate) fn explains(&self, reason: EndReason) -> bool {
        self.shared.parts.ends == Ends::Explained
            && !matches!(reason, EndReason::RpInitiatedLogout | EndReason::SupersededByLogin)
    }

    pub(crate) fn pages(&self) -> Option<&PageMaker> {
        self.shared.parts.pages.0.as_deref()
    }

    /// The origin that browsers see, as they write it.
    pub(crate) fn origin(&self) -> &Arc<str> {
        &self.shared.origin
    }
}
