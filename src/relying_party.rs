//! The application as a relying party: everything that is put around a router.

use std::sync::Arc;

use axum::Router;
use url::Url;

use crate::api::Apis;
use crate::config::{ClientCredentials, RelyingPartyBuilder};
use crate::cookie::Cookies;
use crate::layer::SessionLayer;
use crate::manager::Manager;
use crate::manager::start::UserInfo;
use crate::protocol::logout_token::LogoutTokenPolicy;
use crate::protocol::names::Subject;
use crate::registry::{LogoutTarget, RegistryError};
use crate::require::{PassiveLayer, RequireSessionLayer};
use crate::routes;
use crate::session::event::EndReason;
use crate::session::record::Registration;

/// An application whose users sign in at an OpenID provider. Clones share everything.
///
/// ```no_run
/// use std::time::Duration;
/// use axum::{Router, routing::get};
/// use tower_oidc_session::{ClientCredentials, OidcSession, RelyingParty, SessionPolicy};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let rp = RelyingParty::builder("https://op.example", ClientCredentials::secret("shop", "secret"))
///     .public_url("https://shop.example")
///     .policy(
///         SessionPolicy::new()
///             .op_session_lifetime(Duration::from_secs(15 * 60))
///             .access_token_lifetime(Duration::from_secs(5 * 60)),
///     )
///     .build()
///     .await?;
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
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    manager: Arc<Manager>,
    cookies: Cookies,
    origin: Arc<str>,
    public_url: Url,
    user_info: UserInfo,
    logout_tokens: LogoutTokenPolicy,
    apis: Apis,
}

impl RelyingParty {
    /// Begins the configuration: `issuer` is the provider's, as in its discovery document, character for character.
    pub fn builder(issuer: impl Into<String>, credentials: ClientCredentials) -> RelyingPartyBuilder {
        RelyingPartyBuilder::new(issuer.into(), credentials)
    }

    pub(crate) fn new(
        manager: Arc<Manager>,
        cookies: Cookies,
        public_url: Url,
        user_info: UserInfo,
        logout_tokens: LogoutTokenPolicy,
        apis: Apis,
    ) -> Self {
        let origin = public_url.origin().ascii_serialization().into();
        Self { inner: Arc::new(Inner { manager, cookies, origin, public_url, user_info, logout_tokens, apis }) }
    }

    /// The layer that goes around the whole router, last of all; a `SessionManagerLayer` of tower-sessions goes around
    /// it.
    #[must_use]
    pub fn layer(&self) -> SessionLayer {
        SessionLayer::new(self.clone())
    }

    /// The routes `/auth/login`, `/auth/callback`, `/auth/logout`, `/auth/session` and `/auth/backchannel-logout`.
    /// Merge them inside of [`layer`](Self::layer).
    pub fn routes(&self) -> Router {
        routes::all(self)
    }

    /// `/auth/backchannel-logout` alone, for an application that takes it on another address than its browsers.
    pub fn backchannel_logout_route(&self) -> Router {
        routes::backchannel_logout::route(self)
    }

    /// The layer for routes that need a login.
    #[must_use]
    pub fn require_session(&self) -> RequireSessionLayer {
        RequireSessionLayer::new(self.inner.origin.clone())
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
        PassiveLayer { _private: () }
    }

    /// Ends all sessions of a user in this application, on all replicas, and returns how many there were. Logins that
    /// are under way are refused.
    ///
    /// # Errors
    /// If the registry could not be reached: sessions may go on.
    ///
    /// # Cancel safety
    /// The end is finished without the caller.
    pub async fn end_sessions_of(&self, subject: &Subject) -> Result<usize, RegistryError> {
        let target = LogoutTarget::Subject {
            registration: self.registration().clone(),
            subject: subject.clone(),
            issued_at: self.manager().clock().now(),
        };
        self.manager().end_matching(target, EndReason::EndedByApplication).await
    }

    /// Whether the provider has been reached since the start. It is tried in the background until it has, and every
    /// request that needs it gets 503 before.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.manager().provider().is_known()
    }

    pub(crate) fn manager(&self) -> &Arc<Manager> {
        &self.inner.manager
    }

    pub(crate) fn registration(&self) -> &Registration {
        &self.manager().provider().client().registration
    }

    pub(crate) fn cookies(&self) -> &Cookies {
        &self.inner.cookies
    }

    pub(crate) fn origin(&self) -> &str {
        &self.inner.origin
    }

    pub(crate) fn public_url(&self) -> &Url {
        &self.inner.public_url
    }

    pub(crate) fn user_info(&self) -> UserInfo {
        self.inner.user_info
    }

    pub(crate) fn logout_tokens(&self) -> LogoutTokenPolicy {
        self.inner.logout_tokens
    }

    pub(crate) fn apis(&self) -> &Apis {
        &self.inner.apis
    }
}
