//! An application with several providers, or tenants.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::{BoxError, Router};
use bytes::Bytes;
use futures_util::FutureExt;
use http::Request;
use http::request::Parts;
use tower_service::Service;

use crate::builder::{Common, Place, RelyingPartyBuilder};
use crate::clock::Clock;
use crate::error::ConfigError;
use crate::manager::family::Family;
use crate::registry::SessionRegistry;
use crate::relying_party::{NotReady, RelyingParty};
use crate::web::context::Context;
use crate::web::cookie::CookieKey;
use crate::web::layer::SessionLayer;
use crate::web::parties::{Many, Member, Parties, Several};
use crate::web::passive::PassiveLayer;
use crate::web::require::RequireSessionLayer;
use crate::web::routes;
use crate::web::tenants::{Party, Tenants, Unresolved};
use crate::web::wiring::{self, WiringError};

/// An application whose users sign in at one of several providers, or whose tenants have a provider each. One layer, one
/// extractor; what is signed in where follows from the request. Clones share everything.
///
/// # Several providers
///
/// Each has routes of its own, `/auth/{name}/login`, `/auth/{name}/callback` and `/auth/{name}/backchannel-logout`, which are
/// registered there; `/auth/login` is a page where a person chooses. A browser has one session: a login at another provider takes the
/// place of the one before, whose tokens are left as they are.
///
/// ```no_run
/// use axum::{Router, routing::get};
/// use tower_oidc_session::{ClientCredentials, OidcSession, RelyingParties, RelyingParty};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let at = |issuer: &str, secret: &str| {
///     RelyingParty::builder(issuer, ClientCredentials::secret("shop", secret), "https://shop.example")
/// };
/// let parties = RelyingParties::builder().providers([
///     ("staff", "Staff", at("https://login.shop.example", "one")),
///     ("customers", "Customers", at("https://id.example", "two")),
/// ])?;
///
/// let app = Router::new()
///     .route("/me", get(async |session: OidcSession| format!("{} of {}", session.subject(), session.issuer())))
///     .route_layer(parties.require_session())
///     .merge(parties.routes())
///     .layer(parties.layer());
/// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// axum::serve(listener, app).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Tenants
///
/// A function says which tenant a request is for, by its host or path, and another makes that tenant's relying party, once. All
/// addresses come from that, never from the request's `Host`; who signed in at one tenant is nobody at another.
///
/// ```no_run
/// use tower_oidc_session::{ClientCredentials, RelyingParties, RelyingParty};
///
/// # struct Row { realm: String, secret: String }
/// # async fn find_in_database(_: &str) -> Result<Option<Row>, std::io::Error> { Ok(None) }
/// # fn build() -> RelyingParties {
/// RelyingParties::builder().tenants(
///     // acme.app.example: hosts have no case, and one tenant has one name.
///     |request| {
///         let host = request.uri.host().or_else(|| request.headers.get("host")?.to_str().ok())?;
///         host.to_ascii_lowercase().strip_suffix(".app.example").map(str::to_owned)
///     },
///     async |name: String| {
///         let Some(row) = find_in_database(&name).await? else { return Ok::<_, std::io::Error>(None) };
///         let issuer = format!("https://login.app.example/realms/{}", row.realm);
///         let credentials = ClientCredentials::secret("app", row.secret);
///         Ok(Some(RelyingParty::builder(issuer, credentials, format!("https://{name}.app.example"))))
///     },
/// )
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RelyingParties {
    many: Many,
    family: Arc<Family>,
}

impl RelyingParties {
    /// Begins the configuration.
    pub fn builder() -> RelyingPartiesBuilder {
        RelyingPartiesBuilder { common: Common::default() }
    }

    /// The layer that goes around the whole router, last of all, as [`RelyingParty::layer`].
    #[must_use]
    pub fn layer(&self) -> SessionLayer {
        SessionLayer::new(Parties::Many(self.many.clone()))
    }

    /// The routes. Merge them inside of [`layer`](Self::layer).
    pub fn routes<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        match &self.many {
            Many::Several(several) => routes::of_several(several),
            Many::Tenants(_) => routes::of_tenants(),
        }
    }

    /// The layer for routes that need a login, as [`RelyingParty::require_session`].
    #[must_use]
    pub fn require_session(&self) -> RequireSessionLayer {
        RequireSessionLayer::new()
    }

    /// The layer for routes whose requests are no user activity, as [`RelyingParty::passive`].
    #[must_use]
    pub fn passive(&self) -> PassiveLayer {
        PassiveLayer::new()
    }

    /// As [`RelyingParty::session_script`]; of tenants only where no path stands before their applications.
    #[must_use]
    pub fn session_script(&self) -> String {
        let paths = match &self.many {
            Many::Several(several) => several.nobody.paths().clone(),
            Many::Tenants(_) => Arc::default(),
        };
        paths.own(&routes::script::lasting_name())
    }

    /// As [`RelyingParty::check_wiring`]. Of an application with tenants there is nothing to ask before one is there, and nothing is
    /// said.
    ///
    /// # Errors
    /// If it is put together wrongly; the error says what to write instead.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn check_wiring<S, B>(&self, app: S) -> Result<(), WiringError>
    where
        S: Service<Request<Body>, Response = http::Response<B>>,
        S::Error: std::fmt::Debug,
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        match &self.many {
            Many::Several(several) => wiring::check(app, &several.nobody.paths().route("session")).await,
            Many::Tenants(_) => Ok(()),
        }
    }

    /// The relying party of that name: to end sessions there, say. A tenant that is not known yet is looked up.
    ///
    /// # Errors
    /// If it cannot be told whether there is such a tenant.
    ///
    /// # Cancel safety
    /// The look-up is finished without the caller.
    pub async fn get(&self, name: &str) -> Result<Option<RelyingParty>, TenantUnknown> {
        let found = match &self.many {
            Many::Several(several) => {
                several.members.iter().find(|member| member.name == name).map(|member| member.context.clone())
            }
            Many::Tenants(tenants) => match tenants.named(name.to_owned()) {
                Party::Known(context) => Some(context),
                Party::Nobody => None,
                Party::Wanted(wanted) => wanted.await.map_err(|Unresolved| TenantUnknown)?,
            },
        };
        Ok(found.map(RelyingParty::new))
    }

    /// Has a tenant looked up anew when it is asked for next: its provider or secret has changed, or it is gone. Each replica has to be
    /// told. What is under way goes on; sessions stand as long as the issuer and the client id are the same.
    pub fn forget(&self, tenant: &str) {
        if let Many::Tenants(tenants) = &self.many {
            tenants.forget(tenant);
        }
    }

    /// As [`RelyingParty::drain`], of all together.
    ///
    /// # Cancel safety
    /// What is under way goes on as long as the runtime does.
    pub async fn drain(&self, bound: Duration) -> usize {
        if let Many::Tenants(tenants) = &self.many {
            tenants.close();
        }
        self.family.drain(bound).await
    }

    /// The relying parties that are known by now, with their names: all providers, or the tenants that were asked for.
    #[must_use]
    pub fn known(&self) -> Vec<(String, RelyingParty)> {
        self.many.known().into_iter().map(|(name, context)| (name, RelyingParty::new(context))).collect()
    }

    /// As [`RelyingParty::check_ready`]: of the providers one is enough, as nobody waits for another's; where no tenant is known yet
    /// nothing is asked.
    ///
    /// # Errors
    /// What is not there yet, of the first provider.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn check_ready(&self) -> Result<(), NotReady> {
        let mut answer = Ok(());
        for (_, party) in self.known() {
            match party.check_ready().await {
                Ok(()) => return Ok(()),
                Err(error) => answer = answer.and(Err(error)),
            }
        }
        answer
    }

    /// Whether one of the providers has been reached since the start, or none is known yet: nobody waits for another's.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let known = self.many.known();
        known.is_empty() || known.iter().any(|(_, context)| context.provider().is_known())
    }
}

/// Whether there is such a tenant cannot be told; the log says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tenant could not be looked up")]
#[non_exhaustive]
pub struct TenantUnknown;

/// Configures [`RelyingParties`]: what all of them have in common is set here, the rest at each.
#[must_use]
pub struct RelyingPartiesBuilder {
    common: Common,
}

impl std::fmt::Debug for RelyingPartiesBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelyingPartiesBuilder").finish_non_exhaustive()
    }
}

impl RelyingPartiesBuilder {
    /// As [`RelyingPartyBuilder::registry`].
    pub fn registry(mut self, registry: impl SessionRegistry) -> Self {
        self.common.registry = Some(Arc::new(registry));
        self
    }

    /// As [`RelyingPartyBuilder::cookie_key`].
    pub fn cookie_key(mut self, key: CookieKey) -> Self {
        self.common.cookie_key = Some(key);
        self
    }

    /// As [`RelyingPartyBuilder::further_cookie_keys`].
    pub fn further_cookie_keys(mut self, keys: impl IntoIterator<Item = CookieKey>) -> Self {
        self.common.further_cookie_keys = keys.into_iter().collect();
        self
    }

    /// As [`RelyingPartyBuilder::clock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.common.clock = Some(Arc::new(clock));
        self
    }

    /// Checks the settings and starts, with these providers. Each has a name, which stands in its routes, and a label, which
    /// people read where they choose.
    ///
    /// # Errors
    /// If a setting cannot work; the error names it.
    ///
    /// # Panics
    /// Outside of a tokio runtime, which does the work in the background.
    pub fn providers<N: Into<String>, L: Into<String>>(
        self,
        providers: impl IntoIterator<Item = (N, L, RelyingPartyBuilder)>,
    ) -> Result<RelyingParties, ConfigError> {
        let shared = self.common.begin();
        let mut members: Vec<Member> = Vec::new();
        for (name, label, builder) in providers {
            let (name, label) = (name.into(), label.into());
            check_name(&name, &members)?;
            let context = builder.build_beside(&shared, Place::Provider(&name))?;
            for member in &members {
                check_beside(&member.context, &context)?;
            }
            members.push(Member { name, label, context });
        }
        let first = members.first().ok_or_else(|| ConfigError::new("providers", "none", "at least one"))?;
        let nobody = first.context.of_nobody();
        shared.keep_clean();
        Ok(RelyingParties { many: Many::Several(Arc::new(Several { members, nobody })), family: shared.family })
    }

    /// Starts, with tenants that are found as they are asked for.
    ///
    /// `name_of` says which tenant a request is for; where it is for none, it is served as of nobody, and routes that need a login
    /// answer 404. `find` makes the tenant's relying party; `None` where there is no such tenant (404), an error where that cannot be
    /// told, or a setting cannot work (503). What it found is kept until it is [forgotten](RelyingParties::forget), and what it did not
    /// find for a minute; it has ten seconds, and is asked for a name once at a time, and for sixteen names. A name that is written in
    /// several ways is several tenants: `name_of` says which way counts. Sessions that expire before their tenant is asked for in this process
    /// are removed without an event: nobody here knows whose they were. Tenants that have issuer and client in common share no session, but what
    /// is kept about their users: lists, ends and `sessions_per_user` reach all of them. Give those a client each that must not know of each
    /// other.
    ///
    /// # Panics
    /// Outside of a tokio runtime, which does the work in the background.
    pub fn tenants<F, E>(
        self,
        name_of: impl Fn(&Parts) -> Option<String> + Send + Sync + 'static,
        find: impl Fn(String) -> F + Send + Sync + 'static,
    ) -> RelyingParties
    where
        F: Future<Output = Result<Option<RelyingPartyBuilder>, E>> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        let shared = Arc::new(self.common.begin());
        shared.keep_clean();
        let family = shared.family.clone();
        let find = move |name: String| {
            let (shared, found) = (shared.clone(), find(name.clone()));
            async move {
                let build = |builder: RelyingPartyBuilder| builder.build_beside(&shared, Place::Tenant(&name));
                let found = found.await.map_err(Into::into);
                let found = found.and_then(|found| found.map(build).transpose().map_err(BoxError::from));
                found.map_err(|error| {
                    tracing::error!(tenant = name, %error, "a tenant could not be looked up");
                    Unresolved
                })
            }
            .boxed()
        };
        RelyingParties { many: Many::Tenants(Tenants::new(Box::new(name_of), Arc::new(find))), family }
    }
}

/// Whether two providers can be those of one application.
fn check_beside(first: &Context, other: &Context) -> Result<(), ConfigError> {
    if first.public_url() != other.public_url() {
        let takes = format!("the same for all providers of an application ({})", first.public_url());
        return Err(ConfigError::new("public_url", other.public_url().as_str(), takes));
    }
    if first.registration() == other.registration() {
        let takes =
            "an issuer and client id of its own for each: by them cookies, logout tokens and sessions are told apart";
        return Err(ConfigError::new("providers", format!("{} twice", first.registration().issuer()), takes));
    }
    if first.paths().own("") != other.paths().own("") {
        let takes = format!("the same for all providers of an application ({})", first.paths().own(""));
        return Err(ConfigError::new("auth_path", other.paths().own(""), takes));
    }
    Ok(())
}

/// What the names of providers must not be: routes that all of them share.
const TAKEN: [&str; 7] = ["backchannel-logout", "callback", "form", "login", "logout", "session", ""];

fn check_name(name: &str, members: &[Member]) -> Result<(), ConfigError> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if TAKEN.contains(&name) || !name.bytes().all(is_plain) {
        let takes = "a name for its routes: lower-case letters, digits and -, and none of the crate's own routes'";
        return Err(ConfigError::new("providers", format!("named {name:?}"), takes));
    }
    if members.iter().any(|member| member.name == name) {
        return Err(ConfigError::new("providers", format!("named {name:?} twice"), "a name of its own for each"));
    }
    Ok(())
}
