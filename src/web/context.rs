//! What the layers, the routes and the calls to APIs hold.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use http::{Extensions, HeaderMap};
use url::Url;

use super::browser::{ClientAddress, Junk, Line, browser};
use super::cookie::Cookies;
use super::cross_site::Origins;
use super::pages::PageMaker;
use super::paths::Paths;
use crate::calls::listed::Apis;
use crate::manager::Manager;
use crate::protocol::logout_token::LogoutTokenPolicy;
use crate::protocol::names::Registration;
use crate::provider::Provider;
use crate::provider::transmitter::Transmitter;
use crate::session::browser::Browser;
use crate::session::end_reason::EndReason;
use crate::session::event::{EventKind, SessionEvent};
use crate::session::id::{SessionId, SessionKey};
use crate::session::policy::{ClaimsFrom, SessionPolicy};

/// Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    parts: Arc<Parts>,
    origins: Arc<Origins>,
    paths: Arc<Paths>,
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
    pub(crate) client_address: AddressOf,
    pub(crate) junk: JunkOf,
    pub(crate) trusted_origins: Vec<String>,
    pub(crate) paths: Arc<Paths>,
    pub(crate) front_channel: FrontChannel,
    pub(crate) transmitter: Option<Arc<Transmitter>>,
}

/// What strangers may cause, each bounded by itself.
#[derive(Debug, Default)]
pub(crate) struct JunkOf {
    pub(crate) callbacks: Junk,
    pub(crate) links: Junk,
    pub(crate) logins: Junk,
    pub(crate) logout_tokens: Junk,
    pub(crate) security_events: Junk,
    pub(crate) wiring: Junk,
}

/// What says where a request comes from, if the application does.
#[derive(Clone, Default)]
pub(crate) struct AddressOf(pub(crate) Option<Arc<ClientAddress>>);

impl fmt::Debug for AddressOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "AddressOf(the application)" } else { "AddressOf(nobody)" })
    }
}

/// Whether a page of the provider may end sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FrontChannel {
    #[default]
    Off,
    On,
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
        let own = parts.public_url.origin().ascii_serialization();
        let origins = Arc::new(Origins { own, trusted: parts.trusted_origins.clone() });
        let paths = parts.paths.clone();
        Self { shared: Arc::new(Shared { parts: Arc::new(parts), origins, paths }) }
    }

    /// The same where none of several providers is chosen: its login is the page to choose.
    pub(crate) fn of_nobody(&self) -> Self {
        let Shared { parts, origins, paths, .. } = &*self.shared;
        let paths = Arc::new(paths.of_nobody());
        let shared = Shared { parts: parts.clone(), origins: origins.clone(), paths };
        Self { shared: Arc::new(shared) }
    }

    /// Whether it is that of the same relying party.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
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

    /// The name of the session whose cookie this is.
    pub(crate) fn key_of(&self, id: &SessionId) -> SessionKey {
        SessionKey::of(id, self.provider().client().tag)
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

    pub(crate) fn front_channel(&self) -> FrontChannel {
        self.shared.parts.front_channel
    }

    pub(crate) fn transmitter(&self) -> Option<&Arc<Transmitter>> {
        self.shared.parts.transmitter.as_ref()
    }

    pub(crate) fn pages(&self) -> Option<&PageMaker> {
        self.shared.parts.pages.0.as_deref()
    }

    /// Where the routes are, and the application.
    pub(crate) fn paths(&self) -> &Arc<Paths> {
        &self.shared.paths
    }

    /// What is known of the browser that sends a request.
    pub(crate) fn browser(&self, headers: &HeaderMap, extensions: &Extensions) -> Browser {
        browser(self.shared.parts.client_address.0.as_deref(), headers, extensions)
    }

    /// Tells those who listen of a login that came to nothing.
    pub(crate) fn login_failed(&self, reason: String, browser: Browser) {
        metrics::counter!("oidc_login_failures_total").increment(1);
        self.junk(
            |junk| &junk.logins,
            |_| {
                let event = SessionEvent::of_nobody(EventKind::LoginFailed { reason }, self.now());
                self.manager().emit(&event.by(browser));
            },
        );
    }

    /// Writes a line that anybody may cause, if there were not too many: `write` is told how many were not written before.
    pub(crate) fn junk(&self, of: impl FnOnce(&JunkOf) -> &Junk, write: impl FnOnce(u64)) {
        if let Line::Written { unwritten } = of(&self.shared.parts.junk).line(self.now()) {
            write(unwritten);
        }
    }

    /// The origin that browsers see, as they write it.
    pub(crate) fn origin(&self) -> &str {
        &self.shared.origins.own
    }

    /// Whose pages may send requests.
    pub(crate) fn origins(&self) -> &Arc<Origins> {
        &self.shared.origins
    }
}
