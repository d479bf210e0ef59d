//! How long a session goes on, and what counts as activity.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::protocol::fetch_metadata::{PURPOSE, SEC_FETCH_USER, SEC_PURPOSE};

/// What a request says about the user's presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestKind {
    /// User activity that a browser shows as a page, so that it can be sent elsewhere first.
    Navigation,
    UserActivity,
    Passive,
}

type Predicate = Arc<dyn Fn(&Parts) -> bool + Send + Sync>;

#[derive(Clone)]
enum ActivityRule {
    EveryRequest,
    UserGestures(HeaderName),
}

/// All durations of a session, and which requests count as user activity.
///
/// | setting | default | counted from |
/// |---|---|---|
/// | [`op_session_lifetime`](Self::op_session_lifetime) *T* | 15 min (PCI DSS 4, 8.2.8) | the last confirmed signal |
/// | [`access_token_lifetime`](Self::access_token_lifetime) *G* | *T* / 5 | the last confirmed signal |
/// | [`absolute_lifetime`](Self::absolute_lifetime) | 12 h (NIST SP 800-63B AAL3) | the login |
///
/// A duration is over when exactly that much time has passed.
///
/// ```
/// use std::time::Duration;
/// use tower_oidc_session::SessionPolicy;
///
/// let policy = SessionPolicy::new()
///     .op_session_lifetime(Duration::from_secs(15 * 60))
///     .access_token_lifetime(Duration::from_secs(5 * 60))
///     .passive_if(|request| request.uri.path().starts_with("/notifications"));
/// ```
#[derive(Clone)]
#[must_use]
pub struct SessionPolicy {
    pub(crate) op_session_lifetime: Duration,
    access_token_lifetime: Option<Duration>,
    pub(crate) absolute_lifetime: Duration,
    pub(crate) refresh_token_lifetime: Option<Duration>,
    pub(crate) tokens: KeptTokens,
    pub(crate) silent_login: SilentLogin,
    pub(crate) sessions_per_user: Option<NonZeroUsize>,
    pub(crate) cookie: CookieLifetime,
    activity: ActivityRule,
    passive: Vec<Predicate>,
}

/// Where a session's claims come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClaimsFrom {
    /// The login's ID token. Userinfo is asked only as the activity signal of sessions without refresh token.
    #[default]
    IdToken,
    /// The ID token and the userinfo endpoint, which is asked at login too and whose claims are added.
    UserInfo,
}

/// Whether sessions keep the tokens that came with the login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeptTokens {
    All,
    IdTokenOnly,
}

/// How long a browser keeps the session's cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CookieLifetime {
    /// Until it is closed.
    Browser,
    /// As long as the session may last.
    Session,
}

/// Whether sessions that have no token to signal with send navigations through the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SilentLogin {
    Never,
    WhenDue,
}

impl SessionPolicy {
    /// The defaults above; every request is activity, but for prefetches and the crate's status route.
    pub fn new() -> Self {
        Self {
            op_session_lifetime: Duration::from_secs(15 * 60),
            access_token_lifetime: None,
            absolute_lifetime: Duration::from_secs(12 * 60 * 60),
            refresh_token_lifetime: None,
            tokens: KeptTokens::All,
            silent_login: SilentLogin::Never,
            sessions_per_user: None,
            cookie: CookieLifetime::Browser,
            activity: ActivityRule::EveryRequest,
            passive: Vec::new(),
        }
    }

    /// *T*: the provider's inactivity timeout (Duende: server-side session lifetime, Keycloak: SSO Session Idle).
    ///
    /// This long after the last signal nothing is served any more unless the provider confirms the session.
    pub fn op_session_lifetime(mut self, lifetime: Duration) -> Self {
        self.op_session_lifetime = lifetime;
        self
    }

    /// *G*: how long the application goes on with one access token before user activity makes it refresh.
    ///
    /// A longer `expires_in` of the provider is cut to it, a shorter one makes refreshes more frequent. It has to be
    /// less than [`op_session_lifetime`](Self::op_session_lifetime): a user who pauses for anything up to
    /// *T − G* never loses the session, one who pauses longer than *T* always does. In between it depends on when the
    /// last signal was sent, so *G* is to be small against *T*: with the default, a fifth,
    /// nobody who was active within 0.8 *T* is signed out. `docs/scale.md` says what a smaller one costs.
    pub fn access_token_lifetime(mut self, lifetime: Duration) -> Self {
        self.access_token_lifetime = Some(lifetime);
        self
    }

    /// How long the provider takes a refresh token after it was issued, if that is less than *T*; default: it is not said.
    ///
    /// A session whose user comes back later can signal no more, and ends. So it has to be more than
    /// [`access_token_lifetime`](Self::access_token_lifetime), or even an active user's next signal comes too late; and a
    /// provider that says less in `refresh_expires_in` (Keycloak) is reported in the log.
    pub fn refresh_token_lifetime(mut self, lifetime: Duration) -> Self {
        self.refresh_token_lifetime = Some(lifetime);
        self
    }

    /// The session ends this long after the login, active or not.
    pub fn absolute_lifetime(mut self, lifetime: Duration) -> Self {
        self.absolute_lifetime = lifetime;
        self
    }

    /// How many sessions of one user there may be in this application; default: any number. A login beyond it ends the oldest
    /// ([`TooManySessions`](crate::EndReason::TooManySessions)), on whichever replica and in whichever browser.
    pub fn sessions_per_user(mut self, most: NonZeroUsize) -> Self {
        self.sessions_per_user = Some(most);
        self
    }

    /// Lets browsers keep the session's cookie when they are closed: "remember me". Until the end of
    /// [`absolute_lifetime`](Self::absolute_lifetime); the session ends when it would end anyway, so that is of use only where *T* is
    /// long. Default: the cookie goes with the browser.
    ///
    /// On shared machines the next person has the session then.
    pub fn persistent_cookie(mut self) -> Self {
        self.cookie = CookieLifetime::Session;
        self
    }

    /// Keeps no access and refresh tokens: the application signs users in and calls no API for them.
    ///
    /// Such a session cannot tell the provider that its user is active. It ends by a logout token, or after *T* without
    /// activity here; see [`signal_by_silent_login`](Self::signal_by_silent_login) for the third way.
    pub fn discard_tokens(mut self) -> Self {
        self.tokens = KeptTokens::IdTokenOnly;
        self
    }

    /// Lets sessions without tokens signal by silent logins: a navigation that comes *G* or longer after the last one is
    /// sent through the provider with `prompt=none`
    /// ([Core §3.1.2.1](https://openid.net/specs/openid-connect-core-1_0.html#AuthRequest)) and comes back to the same
    /// page. The provider takes it as activity, and says `login_required` if its session is over, which ends the session
    /// here ([`LoginRequired`](crate::EndReason::LoginRequired)). For providers that send no logout token when a session
    /// idles out, as Keycloak.
    ///
    /// Only user activity that the browser shows as a page is sent away, never scripts' requests: those go on until *T*
    /// after the last silent login, then they get 401 with the `login` to navigate to. At most one silent login is tried
    /// in 30 s, so that a provider that does not answer makes no loop. The provider's cookie has to be sent along:
    /// navigations do.
    pub fn signal_by_silent_login(mut self) -> Self {
        self.silent_login = SilentLogin::WhenDue;
        self
    }

    /// Requests for which `predicate` holds are passive: they extend nothing and never cause a call to the provider.
    ///
    /// May be given several times. For whole routes see [`RelyingParty::passive`](crate::RelyingParty::passive).
    pub fn passive_if(mut self, predicate: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.passive.push(Arc::new(predicate));
        self
    }

    /// Counts only what a person does: navigations that a user started (`Sec-Fetch-User: ?1`) and requests that carry
    /// `header`, which the page's script sets when it has seen input. Everything else is passive.
    ///
    /// For applications whose pages poll so much that marking the polling routes is hopeless.
    pub fn only_user_gestures(mut self, header: HeaderName) -> Self {
        self.activity = ActivityRule::UserGestures(header);
        self
    }

    /// *G*.
    pub(crate) fn longest_silence(&self) -> Duration {
        self.access_token_lifetime.unwrap_or(self.op_session_lifetime / 5)
    }

    /// Whether a request that is no prefetch is user activity.
    pub(crate) fn is_activity(&self, request: &Parts) -> bool {
        if self.passive.iter().any(|is_passive| is_passive(request)) {
            return false;
        }
        match &self.activity {
            ActivityRule::EveryRequest => true,
            ActivityRule::UserGestures(name) => {
                let by_hand = request.headers.get(&SEC_FETCH_USER).is_some_and(|value| value.as_bytes() == b"?1");
                by_hand || request.headers.contains_key(name)
            }
        }
    }
}

impl Default for SessionPolicy {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SessionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionPolicy")
            .field("op_session_lifetime", &self.op_session_lifetime)
            .field("access_token_lifetime", &self.longest_silence())
            .field("absolute_lifetime", &self.absolute_lifetime)
            .finish_non_exhaustive()
    }
}

/// Whether the browser only guesses that its user will want this.
pub(crate) fn is_prefetch(headers: &HeaderMap) -> bool {
    [&SEC_PURPOSE, &PURPOSE].into_iter().filter_map(|name| headers.get(name)).any(says_prefetch)
}

/// Whether a purpose is to fetch ahead. The value is a list: "prefetch", "prefetch;prerender", …
pub(crate) fn says_prefetch(purpose: &HeaderValue) -> bool {
    purpose.as_bytes().starts_with(b"prefetch")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(policy: &SessionPolicy, headers: &[(&str, &str)], expected: bool) {
        let mut request = http::Request::get("/poll");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        assert_eq!(policy.is_activity(&parts), expected, "{headers:?}");
    }

    #[test]
    fn g_is_a_fifth_of_t_unless_it_is_set() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        assert_eq!(SessionPolicy::new().longest_silence(), minutes(3));
        assert_eq!(SessionPolicy::new().op_session_lifetime(minutes(60)).longest_silence(), minutes(12));
        let set = SessionPolicy::new().access_token_lifetime(minutes(5)).op_session_lifetime(minutes(60));
        assert_eq!(set.longest_silence(), minutes(5));
    }

    #[test]
    fn p5_what_a_browser_fetches_ahead_is_a_prefetch() {
        for (name, value, expected) in [
            ("sec-purpose", "prefetch", true),
            ("sec-purpose", "prefetch;prerender", true),
            ("purpose", "prefetch", true),
            ("sec-purpose", "something", false),
            ("x-purpose", "prefetch", false),
        ] {
            let headers = HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))]);
            assert_eq!(is_prefetch(&headers), expected, "{name}: {value}");
        }
    }

    #[test]
    fn p5_what_is_activity() {
        let policy = SessionPolicy::new();
        check(&policy, &[], true);
        check(&policy.passive_if(|r| r.uri.path() == "/poll"), &[], false);

        let strict = SessionPolicy::new().only_user_gestures(HeaderName::from_static("x-activity"));
        check(&strict, &[], false);
        check(&strict, &[("sec-fetch-user", "?1")], true);
        check(&strict, &[("x-activity", "1")], true);
    }
}
