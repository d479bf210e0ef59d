//! The session of one request, admitted when somebody first asks for it.
//!
//! The outer layer puts it into the request's extensions. It is lazy because a route may be marked passive by a layer
//! that runs later, and because routes that look at no session should not wait for the provider.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderValue;
use http::uri::PathAndQuery;
use percent_encoding::percent_decode;
use tokio::sync::OnceCell;

use super::context::Context;
use super::navigation::Asker;
use super::reject::SessionRejection;
use super::texts::Language;
use crate::manager::watch::Looked;
use crate::manager::{Manager, Refusal};
use crate::session::end_reason::EndReason;
use crate::session::id::SessionKey;
use crate::session::policy::RequestKind;
use crate::session::record::SessionRecord;

/// Whether percent-encoded names are those of the session's user: the `sub`, and after a space perhaps the issuer.
fn names(named: &[u8], record: &SessionRecord) -> bool {
    let is = |named: &[u8], name: &str| percent_decode(named).eq(name.bytes());
    let (subject, issuer) = (record.subject().as_str(), record.registration().issuer().as_str());
    let space = named.iter().position(|byte| *byte == b' ');
    let both = space.and_then(|space| named.split_at_checked(space));
    let are_both = |(first, rest): (&[u8], &[u8])| is(first, subject) && is(rest.trim_ascii_start(), issuer);
    is(named, subject) || both.is_some_and(are_both)
}

#[derive(Clone, Debug)]
pub(crate) struct RequestSession {
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    context: Context,
    asker: Asker,
    key: Option<SessionKey>,
    /// Whether the request brought anything by the name of the session cookie.
    cookie: CookieState,
    /// As the browser sees it: routers inside cut what they matched. For people only.
    path: Option<PathAndQuery>,
    claim: Option<Box<Claim>>,
    mode: Mutex<Mode>,
    admission: OnceCell<Result<Admitted, Refusal>>,
    /// Whether somebody has served the request with its session.
    used: AtomicBool,
    /// Whether the session ended while the request was served.
    over: AtomicBool,
    /// Whether the application ended it while the request was served.
    ended_here: AtomicBool,
}

/// A session that a request is served with.
#[derive(Clone, Debug)]
pub(crate) struct Admitted {
    pub(crate) record: Arc<SessionRecord>,
    /// Noted before it was looked up.
    pub(crate) looked: Looked,
}

/// What few requests say besides, of their user or their browser.
#[derive(Clone, Debug)]
pub(crate) enum Claim {
    /// The `sub` it was made for, percent-encoded.
    Subject(HeaderValue),
    /// `Accept-Language`, where a person looks at the answer.
    Languages(HeaderValue),
}

/// How the session of a request is dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Admit(RequestKind),
    /// One of the crate's own routes, which deal with the session themselves.
    OwnRoute,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CookieState {
    Absent,
    Present,
}

impl RequestSession {
    pub(crate) fn new(
        context: Context,
        key: Option<SessionKey>,
        cookie: CookieState,
        asker: Asker,
        path: Option<PathAndQuery>,
        kind: RequestKind,
        claim: Option<Box<Claim>>,
    ) -> Self {
        let state = State {
            context,
            asker,
            key,
            cookie,
            path,
            claim,
            mode: Mutex::new(Mode::Admit(kind)),
            admission: OnceCell::new(),
            used: AtomicBool::new(false),
            over: AtomicBool::new(false),
            ended_here: AtomicBool::new(false),
        };
        Self { state: Arc::new(state) }
    }

    pub(crate) fn context(&self) -> &Context {
        &self.state.context
    }

    pub(crate) fn manager(&self) -> &Arc<Manager> {
        self.state.context.manager()
    }

    /// The key of the session that the request claims.
    pub(crate) fn key(&self) -> Option<&SessionKey> {
        self.state.key.as_ref()
    }

    /// Whether the request brought anything by the name of the session cookie.
    pub(crate) fn has_cookie(&self) -> bool {
        self.state.cookie == CookieState::Present
    }

    /// The path that the browser asked for, where it shows the answer as a page.
    pub(crate) fn path(&self) -> Option<&PathAndQuery> {
        self.state.path.as_ref()
    }

    /// Who waits for the answer.
    pub(crate) fn asker(&self) -> Asker {
        self.state.asker
    }

    /// The language of the pages that it gets.
    pub(crate) fn language(&self) -> Language {
        match self.state.claim.as_deref() {
            Some(Claim::Languages(accepted)) => Language::preferred(Some(accepted)),
            _ => Language::ENGLISH,
        }
    }

    /// Whether the session is that of the user whom the request was made for, if it says.
    fn of_its_user(&self, admitted: Admitted) -> Result<Admitted, Refusal> {
        match self.state.claim.as_deref() {
            Some(Claim::Subject(named)) if !names(named.as_bytes(), &admitted.record) => Err(Refusal::OtherUser),
            _ => Ok(admitted),
        }
    }

    /// What the request is answered where its session does not admit it.
    pub(crate) fn rejection(&self, refusal: Refusal) -> SessionRejection {
        match refusal {
            Refusal::Ended(reason) if self.asker() == Asker::Page && self.context().explains(reason) => {
                SessionRejection::explained(reason, self.path(), self.context().paths())
            }
            _ => SessionRejection::of(refusal, self.asker(), self.path(), self.context().paths()),
        }
    }

    fn mode(&self) -> MutexGuard<'_, Mode> {
        self.state.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks the request passive; too late if the session was admitted already.
    pub(crate) fn mark_passive(&self) {
        let mut mode = self.mode();
        let has_counted = *mode != Mode::Admit(RequestKind::Passive) && self.state.admission.initialized();
        *mode = Mode::Admit(RequestKind::Passive);
        if has_counted {
            tracing::error!(
                "passive() stands inside require_session(): the request has counted as activity. \
                 Put .layer(rp.passive()) after .route_layer(rp.require_session())"
            );
        }
    }

    pub(crate) fn mark_own_route(&self) {
        *self.mode() = Mode::OwnRoute;
    }

    pub(crate) fn kind(&self) -> RequestKind {
        match *self.mode() {
            Mode::Admit(kind) => kind,
            Mode::OwnRoute => RequestKind::Passive,
        }
    }

    /// Admits the request, once. For those who serve it.
    pub(crate) async fn admit(&self) -> &Result<Admitted, Refusal> {
        if let Some(admission) = self.admit_at_once() {
            return admission;
        }
        let kind = self.kind();
        let admit = async || match self.key() {
            Some(key) => {
                let looked = self.manager().before_look();
                let admitted = self.manager().admit(key, kind).await.map(|record| Admitted { record, looked });
                admitted.and_then(|admitted| self.of_its_user(admitted))
            }
            None => Err(Refusal::Unknown),
        };
        self.state.admission.get_or_init(admit).await
    }

    /// The same where nothing has to be waited for.
    pub(crate) fn admit_at_once(&self) -> Option<&Result<Admitted, Refusal>> {
        self.state.used.store(true, Ordering::Relaxed);
        if !self.state.admission.initialized() {
            let admission = match self.key() {
                Some(key) => {
                    let looked = self.manager().before_look();
                    let admitted = self.manager().admit_at_once(key, self.kind())?;
                    let admitted = admitted.map(|record| Admitted { record, looked });
                    if self.state.claim.is_some() {
                        admitted.and_then(|admitted| self.of_its_user(admitted))
                    } else {
                        admitted
                    }
                }
                None => Err(Refusal::Unknown),
            };
            // Not taken where somebody else is about to admit it: then theirs counts.
            let _ = self.state.admission.set(admission);
        }
        self.state.admission.get()
    }

    /// Lets the request count as activity although nobody asked for its session. The browser does not wait for what
    /// nobody asked for.
    pub(crate) fn count_in_background(&self) {
        let is_activity = matches!(*self.mode(), Mode::Admit(RequestKind::Navigation | RequestKind::UserActivity));
        let Some(&key) = self.key().filter(|_| is_activity && !self.state.admission.initialized()) else { return };
        // Its response is there: it cannot be sent elsewhere any more.
        let kind = RequestKind::UserActivity;
        if self.manager().admit_at_once(&key, kind).is_none() {
            let manager = self.manager().clone();
            self.manager().spawn(async move { drop(manager.admit(&key, kind).await) });
        }
    }

    /// Whether it is known that the session ended while the request was served.
    pub(crate) fn is_over(&self) -> bool {
        self.state.over.load(Ordering::Relaxed)
    }

    /// Notes that the application ended the session while the request was served.
    pub(crate) fn mark_ended_here(&self) {
        self.state.ended_here.store(true, Ordering::Relaxed);
        self.mark_over();
    }

    /// Notes that the session ended while the request was served.
    pub(crate) fn mark_over(&self) {
        self.state.over.store(true, Ordering::Relaxed);
    }

    /// Whether the session that the request claims is over. One that a new login has replaced does not count: what belongs
    /// to the browser is the new one's.
    pub(crate) fn found_over(&self) -> bool {
        let is_refused = match self.state.admission.get() {
            Some(Err(Refusal::Ended(EndReason::SupersededByLogin))) => false,
            Some(Err(refusal)) => refusal.is_over(),
            Some(Ok(_)) | None => false,
        };
        self.state.cookie == CookieState::Present
            && *self.mode() != Mode::OwnRoute
            && (self.is_over() || self.state.key.is_none() || is_refused)
    }

    /// Whether the application has ended the session.
    pub(crate) fn was_ended_here(&self) -> bool {
        self.state.ended_here.load(Ordering::Relaxed)
    }

    /// Whether the response depends on who is signed in, be it nobody.
    pub(crate) fn was_asked_for(&self) -> bool {
        self.state.used.load(Ordering::Relaxed)
    }

    /// The session that the response was made with, if it was.
    pub(crate) fn used(&self) -> Option<&Admitted> {
        let admitted = self.state.admission.get()?.as_ref().ok()?;
        self.state.used.load(Ordering::Relaxed).then_some(admitted)
    }
}
