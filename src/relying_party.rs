//! The application as a relying party: everything that is put around a router.

use std::fmt;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::Request;
use tower_service::Service;

use crate::protocol::names::{Issuer, Registration, Sid, Subject};
use crate::provider::CLOCK_TOLERANCE;
use crate::registry::{LogoutTarget, RegistryError, TokenMark};
use crate::session::end_reason::EndReason;
use crate::session::event::SessionInfo;
use crate::session::id::{SessionKey, random_text};
use crate::web::context::Context;
use crate::web::layer::SessionLayer;
use crate::web::parties::Parties;
use crate::web::passive::PassiveLayer;
use crate::web::require::RequireSessionLayer;
use crate::web::routes;
use crate::web::wiring::{self, WiringError};

/// An application whose users sign in at an OpenID provider. Clones share everything.
///
/// ```no_run
/// use std::time::Duration;
/// use axum::{Router, routing::get};
/// use tower_oidc_session::{ClientCredentials, OidcSession, RelyingParty, SessionPolicy};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let credentials = ClientCredentials::secret("shop", "secret");
/// let rp = RelyingParty::builder("https://op.example", credentials, "https://shop.example")
///     .policy(
///         SessionPolicy::new()
///             .op_session_lifetime(Duration::from_secs(15 * 60))
///             .access_token_lifetime(Duration::from_secs(5 * 60)),
///     )
///     .build()?;
///
/// let app = Router::new()
///     .route("/orders", get(async |session: OidcSession| format!("orders of {}", session.subject())))
///     .route_layer(rp.require_session()) // everything above needs a login
///     .route("/", get(async || "welcome"))
///     .merge(rp.routes()) // /auth/login, /auth/callback, /auth/logout, /auth/backchannel-logout, /auth/session
///     .layer(rp.layer()); // around everything: cookie, activity, end
/// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// axum::serve(listener, app).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RelyingParty {
    context: Context,
    /// Whose users are asked about, and signed out: the configured issuer's, or a tenant's of it.
    registration: Registration,
}

impl RelyingParty {
    pub(crate) fn new(context: Context) -> Self {
        let registration = context.registration().clone();
        Self { context, registration }
    }

    /// The same for the users of one issuer, where the provider has [many](crate::RelyingPartyBuilder::issuer_template): what
    /// [`sessions_of`](Self::sessions_of), [`end_sessions_of`](Self::end_sessions_of) and
    /// [`end_sessions_with_sid`](Self::end_sessions_with_sid) are about. `None` if its users cannot sign in here.
    #[must_use]
    pub fn at_issuer(&self, issuer: &Issuer) -> Option<Self> {
        let client = self.context.provider().client();
        let registration = client.at(issuer.clone());
        client.is(&registration).then(|| Self { context: self.context.clone(), registration })
    }

    /// The layer that goes around the whole router, last of all; a `SessionManagerLayer` of tower-sessions goes around
    /// it.
    #[must_use]
    pub fn layer(&self) -> SessionLayer {
        SessionLayer::new(Parties::One(self.context.clone()))
    }

    /// The routes `/auth/login`, `/auth/callback`, `/auth/logout`, `/auth/session` and `/auth/backchannel-logout`.
    /// Merge them inside of [`layer`](Self::layer).
    pub fn routes<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        routes::all(&self.context)
    }

    /// The path of the script for pages, `/auth/session.js`, that names its version: browsers keep it for ever.
    ///
    /// ```
    /// # fn page(rp: &tower_oidc_session::RelyingParty) -> String {
    /// format!(r#"<script type="module" src="{}"></script>"#, rp.session_script())
    /// # }
    /// ```
    #[must_use]
    pub fn session_script(&self) -> String {
        self.context.paths().own(&routes::script::lasting_name())
    }

    /// `/auth/backchannel-logout` alone, for an application that takes it on another address than its browsers.
    pub fn backchannel_logout_route<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        routes::backchannel_logout::route(&self.context)
    }

    /// The layer for routes that need a login.
    #[must_use]
    pub fn require_session(&self) -> RequireSessionLayer {
        RequireSessionLayer::new()
    }

    /// The layer for routes whose requests are no user activity: polling, notifications, streams. They are served
    /// while the session is known to stand, extend nothing and never cause a call to the provider.
    ///
    /// Goes outside of [`require_session`](Self::require_session), that is, after it:
    ///
    /// ```
    /// # use axum::{Router, routing::get};
    /// # fn routes(rp: &tower_oidc_session::RelyingParty) -> Router {
    /// Router::new()
    ///     .route("/poll", get(async || "nothing new"))
    ///     .route_layer(rp.require_session())
    ///     .route_layer(rp.passive())
    /// # }
    /// ```
    #[must_use]
    pub fn passive(&self) -> PassiveLayer {
        PassiveLayer::new()
    }

    /// Ends all sessions of a user in this application, on all replicas, and returns how many there were. Logins that
    /// are under way are sent through the provider once more.
    ///
    /// # Errors
    /// If the registry could not be reached: sessions may go on.
    ///
    /// # Cancel safety
    /// The end is finished without the caller.
    pub async fn end_sessions_of(&self, subject: &Subject) -> Result<usize, RegistryError> {
        let target =
            LogoutTarget::Subject { registration: self.registration.clone(), subject: subject.clone(), token: None };
        self.context.manager().end_matching(target, EndReason::EndedByApplication).await
    }

    /// All live sessions of a user in this application, the oldest first: since when, of which browser. Also those whose next request will
    /// have to ask the provider: one that nobody comes back to, and that the provider says nothing of, is there until its absolute
    /// lifetime is over.
    ///
    /// ```
    /// # use tower_oidc_session::{RegistryError, RelyingParty, Subject};
    /// # async fn devices(rp: RelyingParty, user: &Subject) -> Result<(), RegistryError> {
    /// for session in rp.sessions_of(user).await? {
    ///     println!("{} {:?} {:?}", session.key(), session.started_at(), session.browser().user_agent());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the registry could not be reached, or has one that cannot be read.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn sessions_of(&self, subject: &Subject) -> Result<Vec<SessionInfo>, RegistryError> {
        self.context.manager().sessions_of(&self.registration, subject).await
    }

    /// Ends the sessions in this application that stand on one session at the provider, on all replicas, and returns how many there were: what a
    /// logout token with that `sid` does. Logins of it that are under way are sent through the provider once more.
    ///
    /// # Errors
    /// If the registry could not be reached: sessions may go on.
    ///
    /// # Cancel safety
    /// The end is finished without the caller.
    pub async fn end_sessions_with_sid(&self, sid: &Sid) -> Result<usize, RegistryError> {
        // Dated so that sessions of a provider whose clock is ahead are not taken for younger ones.
        let token = TokenMark::new(self.context.now() + CLOCK_TOLERANCE, &random_text());
        let registration = self.registration.clone();
        let target = LogoutTarget::Sid { registration, sid: sid.clone(), subject: None, token };
        self.context.manager().end_matching(target, EndReason::EndedByApplication).await
    }

    /// Ends one session in this application, on all replicas, by its key, as [`SessionInfo::key`](crate::SessionInfo::key) tells it
    /// and log lines have its beginning. Ending it again is no error; that of another provider's, or of a
    /// tenant with another client, is left alone.
    ///
    /// # Errors
    /// If the registry could not be reached: the session may go on.
    ///
    /// # Cancel safety
    /// The end is finished without the caller.
    pub async fn end_session(&self, key: &SessionKey) -> Result<(), RegistryError> {
        self.context.manager().end_own(key, EndReason::EndedByApplication).await
    }

    /// Brings to an end what is under way, for the end of the process, and returns how many sessions' refreshes were not
    /// finished in time; each is in the log.
    ///
    /// From now on no refresh begins: a request whose signal is due is served as long as its session stands. Event streams
    /// and WebSockets of sessions end; downloads go on for as long as the server lets them. Refreshes under way, logins and writes are finished, and tokens that were
    /// rotated are stored, within `bound` (10 s are plenty); revocations get what is left of it.
    ///
    /// Call it when the server begins its graceful shutdown, beside it: streams that go on would hold that up.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn run(rp: tower_oidc_session::RelyingParty, app: axum::Router, listener: tokio::net::TcpListener)
    /// #     -> std::io::Result<()> {
    /// async fn stop() {
    ///     // And SIGTERM, which containers are sent: tokio::signal::unix.
    ///     let _ = tokio::signal::ctrl_c().await;
    /// }
    /// let server = axum::serve(listener, app).with_graceful_shutdown(stop());
    /// let drain = async {
    ///     stop().await;
    ///     rp.drain(Duration::from_secs(10)).await
    /// };
    /// let (served, _lost) = tokio::join!(server.into_future(), drain);
    /// # served
    /// # }
    /// # use std::future::IntoFuture;
    /// ```
    ///
    /// # Cancel safety
    /// What is under way goes on as long as the runtime does.
    pub async fn drain(&self, bound: Duration) -> usize {
        self.context.manager().drain(bound).await
    }

    /// Finds out whether an application is put together as it has to be: that the routes are there, inside of
    /// [`layer`](Self::layer), and not behind a login. Call it before the application is served, or in a test. What stands over the
    /// application's own routes it cannot see: the log says at the first request what is wrong there, as [`passive`](Self::passive) inside of
    /// `require_session`.
    ///
    /// ```
    /// # use axum::{Router, routing::get};
    /// # use tower_oidc_session::{RelyingParty, WiringError};
    /// # async fn start(rp: RelyingParty) -> Result<(), WiringError> {
    /// let app = Router::new().route("/", get(async || "welcome")).merge(rp.routes()).layer(rp.layer());
    /// rp.check_wiring(app.clone()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If it is not; the error says what to write instead.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn check_wiring<S, B>(&self, app: S) -> Result<(), WiringError>
    where
        S: Service<Request<Body>, Response = http::Response<B>>,
        S::Error: fmt::Debug,
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<axum::BoxError>,
    {
        wiring::check(app, &self.context.paths().route("session")).await
    }

    /// Whether the application can serve its users: the store answers, and the provider and its keys have been reached since the start. For a
    /// readiness probe. What cannot be reached later says nothing here: users go on then, and another replica could not do
    /// better.
    ///
    /// ```
    /// # use axum::{Router, routing::get};
    /// # use http::StatusCode;
    /// # fn probes(rp: tower_oidc_session::RelyingParty) -> Router {
    /// Router::new().route("/ready", get(async move || match rp.check_ready().await {
    ///     Ok(()) => (StatusCode::OK, String::new()),
    ///     Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    /// }))
    /// # }
    /// ```
    ///
    /// # Errors
    /// What is not there yet. Each is asked within the bounds on its calls.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn check_ready(&self) -> Result<(), NotReady> {
        self.context.manager().check_store().await.map_err(|_| NotReady::Store)?;
        let provider = self.context.provider();
        provider.metadata().await.map_err(|_| NotReady::Provider)?;
        provider.have_keys().await.map_err(|_| NotReady::Keys)
    }

    /// Whether the provider has been reached since the start. It is tried in the background until it has, and every
    /// request that needs it gets 503 before.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.context.provider().is_known()
    }
}

/// What keeps an application from serving its users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum NotReady {
    /// The provider's keys could not be fetched, so that no token can be verified.
    #[error("the provider's keys could not be fetched yet")]
    Keys,
    /// The provider has not been reached since the start.
    #[error("the provider has not been reached yet")]
    Provider,
    /// The store of the sessions does not answer.
    #[error("the store of the sessions does not answer")]
    Store,
}
