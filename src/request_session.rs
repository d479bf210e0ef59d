//! The session of one request, admitted when somebody first asks for it.
//!
//! The outer layer puts it into the request's extensions. It is lazy because a route may be marked passive by a layer
//! that runs later, and because routes that look at no session should not wait for the provider.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use http::uri::PathAndQuery;
use tokio::sync::OnceCell;

use crate::manager::{Admission, Manager};
use crate::session::id::SessionKey;
use crate::session::policy::RequestKind;
use crate::session::record::SessionRecord;

const ACTIVITY: u8 = 0;
const PASSIVE: u8 = 1;
/// One of the crate's own routes, which deal with the session themselves.
const OWN_ROUTE: u8 = 2;
/// Activity that a browser shows as a page.
const NAVIGATION: u8 = 3;

#[derive(Clone, Debug)]
pub(crate) struct RequestSession {
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    manager: Arc<Manager>,
    key: Option<SessionKey>,
    /// Whether the request brought anything by the name of the session cookie.
    cookie: CookieState,
    /// As the browser sees it: routers inside cut what they matched.
    path: Option<PathAndQuery>,
    mode: AtomicU8,
    admission: OnceCell<Admission>,
    used: OnceCell<()>,
    over: OnceCell<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CookieState {
    Absent,
    Present,
}

impl RequestSession {
    pub(crate) fn new(
        manager: Arc<Manager>,
        key: Option<SessionKey>,
        cookie: CookieState,
        path: Option<PathAndQuery>,
        kind: RequestKind,
    ) -> Self {
        let mode = match kind {
            RequestKind::Navigation => NAVIGATION,
            RequestKind::UserActivity => ACTIVITY,
            RequestKind::Passive => PASSIVE,
        };
        let state = State {
            manager,
            key,
            cookie,
            path,
            mode: AtomicU8::new(mode),
            admission: OnceCell::new(),
            used: OnceCell::new(),
            over: OnceCell::new(),
        };
        Self { state: Arc::new(state) }
    }

    pub(crate) fn manager(&self) -> &Arc<Manager> {
        &self.state.manager
    }

    /// The key of the session that the request claims.
    pub(crate) fn key(&self) -> Option<&SessionKey> {
        self.state.key.as_ref()
    }

    /// The path that the browser asked for.
    pub(crate) fn path(&self) -> Option<&PathAndQuery> {
        self.state.path.as_ref()
    }

    /// Marks the request passive; too late if the session was admitted already.
    pub(crate) fn mark_passive(&self) {
        if matches!(self.state.mode.swap(PASSIVE, Ordering::Relaxed), ACTIVITY | NAVIGATION)
            && self.state.admission.initialized()
        {
            tracing::error!(
                "passive() stands inside require_session(): the request has counted as activity. \
                 Put .layer(rp.passive()) after .route_layer(rp.require_session())"
            );
        }
    }

    pub(crate) fn mark_own_route(&self) {
        self.state.mode.store(OWN_ROUTE, Ordering::Relaxed);
    }

    pub(crate) fn kind(&self) -> RequestKind {
        match self.state.mode.load(Ordering::Relaxed) {
            ACTIVITY => RequestKind::UserActivity,
            NAVIGATION => RequestKind::Navigation,
            _ => RequestKind::Passive,
        }
    }

    /// Admits the request, once. For those who serve it.
    pub(crate) async fn admit(&self) -> &Admission {
        let _ = self.state.used.set(());
        self.admit_unused().await
    }

    async fn admit_unused(&self) -> &Admission {
        self.state
            .admission
            .get_or_init(async || match &self.state.key {
                Some(key) => self.state.manager.admit(key, self.kind()).await,
                None => Admission::Unknown,
            })
            .await
    }

    /// Lets the request count as activity although nobody asked for its session.
    pub(crate) async fn count(&self) {
        match self.state.mode.load(Ordering::Relaxed) {
            // Its response is there: it cannot be sent elsewhere any more.
            NAVIGATION => self.state.mode.store(ACTIVITY, Ordering::Relaxed),
            ACTIVITY => {}
            _ => return,
        }
        if self.state.key.is_some() {
            self.admit_unused().await;
        }
    }

    /// Notes that the session ended while the request was served.
    pub(crate) fn mark_over(&self) {
        let _ = self.state.over.set(());
    }

    /// Whether the browser had better forget its cookie.
    pub(crate) fn cookie_is_dead(&self) -> bool {
        self.state.cookie == CookieState::Present
            && self.state.mode.load(Ordering::Relaxed) != OWN_ROUTE
            && (self.state.over.initialized()
                || self.state.key.is_none()
                || matches!(self.state.admission.get(), Some(Admission::Ended(_) | Admission::Unknown)))
    }

    /// The session that the response was made with, if it was.
    pub(crate) fn used(&self) -> Option<&Arc<SessionRecord>> {
        match (self.state.used.get(), self.state.admission.get()) {
            (Some(()), Some(Admission::Admitted(record))) => Some(record),
            _ => None,
        }
    }
}
