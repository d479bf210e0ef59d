//! What an application says about itself, checked when it is said.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::BoxError;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{Extensions, HeaderMap, Request};
use tower_service::Service;
use url::Url;

use crate::calls::api::Api;
use crate::calls::listed::Apis;
use crate::clock::{Clock, SystemClock};
use crate::error::{ConfigError, check_url};
use crate::manager::describe::describe;
use crate::manager::family::Family;
use crate::manager::{Listener, LoginHook, Manager, upkeep};
use crate::profile::{Profile, Strength};
use crate::protocol::issuers::{IssuerTenants, Issuers, TENANT};
use crate::protocol::jwt::SigningAlg;
use crate::protocol::logout_token::LogoutTokenPolicy;
use crate::protocol::names::{Issuer, Registration};
use crate::protocol::url::PlainHttp;
use crate::provider::certificate::ClientCertificate;
use crate::provider::credentials::{ClientAuthentication, ClientCredentials, Credentials};
use crate::provider::dpop::Dpop;
use crate::provider::given::GivenClient;
use crate::provider::http::Http;
use crate::provider::signing_key::SigningKey;
use crate::provider::transmitter::{EventTransmitter, Transmitter};
use crate::provider::{ClientConfig, Provider, PushedAuthorization};
use crate::registry::SessionRegistry;
use crate::registry::memory::MemoryRegistry;
use crate::relying_party::RelyingParty;
use crate::session::authorization_parameters::AuthorizationParameters;
use crate::session::event::SessionEvent;
use crate::session::id::ClientTag;
use crate::session::new_login::{LoginRefused, NewLogin};
use crate::session::policy::{ClaimsFrom, SessionPolicy};
use crate::web::context::{AddressOf, Context, Ends, FrontChannel, JunkOf, Pages, Parts};
use crate::web::cookie::{CookieKey, CookieKind, Cookies};
use crate::web::pages::Page;
use crate::web::paths::{AUTH, Paths, is_route_path};

impl RelyingParty {
    /// Begins the configuration: `issuer` is the provider's, as in its discovery document, character for character;
    /// `public_url` where browsers see the application, as `https://shop.example`, or `https://example.org/shop` where a proxy
    /// serves it below a path, whether it cuts that or not.
    ///
    /// Register at the provider: `redirect_uri` = that origin + `/auth/callback`, `post_logout_redirect_uri` = it + `/`,
    /// `backchannel_logout_uri` = it + `/auth/backchannel-logout` (with `sid` required).
    pub fn builder(
        issuer: impl Into<String>,
        credentials: ClientCredentials,
        public_url: impl Into<String>,
    ) -> RelyingPartyBuilder {
        RelyingPartyBuilder::new(issuer.into(), credentials, public_url.into())
    }
}

/// Configures a [`RelyingParty`].
#[must_use]
pub struct RelyingPartyBuilder {
    issuer: String,
    credentials: ClientCredentials,
    public_url: String,
    policy: SessionPolicy,
    common: Common,
    scopes: Vec<String>,
    signing_alg: Option<SigningAlg>,
    dpop: Option<SigningKey>,
    further_dpop_keys: Vec<SigningKey>,
    pushed_authorization: PushedAuthorization,
    profile: Profile,
    provider_timeout: Duration,
    listeners: Vec<Listener>,
    claims_from: ClaimsFrom,
    logout_tokens: LogoutTokenPolicy,
    apis: Vec<Api>,
    pages: Pages,
    front_channel: FrontChannel,
    transmitter: Option<EventTransmitter>,
    ends: Ends,
    parameters: AuthorizationParameters,
    post_logout_path: String,
    on_login: Option<Box<LoginHook>>,
    client_address: AddressOf,
    trusted_origins: Vec<String>,
    internal_provider_url: Option<String>,
    dangerous: Dangerous,
    auth_path: String,
    issuer_template: Option<(String, IssuerTenants)>,
    http_client: Option<GivenClient>,
}

/// What no application does in production: for development on other machines than one's own. See
/// [`RelyingPartyBuilder::dangerous`].
///
/// ```
/// # use tower_oidc_session::{Dangerous, RelyingPartyBuilder};
/// # fn develop(builder: RelyingPartyBuilder) -> RelyingPartyBuilder {
/// builder.dangerous(Dangerous::new().plain_http("192.168.178.20").development_cookies())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Dangerous {
    plain_http: PlainHttp,
    cookies: CookieKind,
}

impl Dangerous {
    /// Nothing dangerous so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Speaks plain http with this host, a name or an address: whoever is on the way reads passwords, codes and tokens.
    /// Loopback hosts need no permission.
    pub fn plain_http(mut self, host: impl Into<String>) -> Self {
        self.plain_http.0.push(host.into().to_ascii_lowercase());
        self
    }

    /// Sets cookies that browsers send over plain http too, and that neighbour hosts can set: without `Secure` and the prefix
    /// `__Host-`.
    pub fn development_cookies(mut self) -> Self {
        self.cookies = CookieKind::Development;
        self
    }

    fn is_used(&self) -> bool {
        self.plain_http != PlainHttp::default() || self.cookies == CookieKind::Development
    }
}

/// What all providers of an application have in common.
#[derive(Default)]
pub(crate) struct Common {
    pub(crate) registry: Option<Arc<dyn SessionRegistry>>,
    pub(crate) cookie_key: Option<CookieKey>,
    pub(crate) further_cookie_keys: Vec<CookieKey>,
    pub(crate) clock: Option<Arc<dyn Clock>>,
}

impl Common {
    /// A setting that was made.
    fn first_set(&self) -> Option<&'static str> {
        let is_set = [
            ("registry", self.registry.is_some()),
            ("cookie_key", self.cookie_key.is_some()),
            ("further_cookie_keys", !self.further_cookie_keys.is_empty()),
            ("clock", self.clock.is_some()),
        ];
        is_set.into_iter().find(|(_, is_set)| *is_set).map(|(setting, _)| setting)
    }

    pub(crate) fn begin(self) -> Shared {
        let registry = self.registry.unwrap_or_else(|| Arc::new(MemoryRegistry::new()));
        if self.cookie_key.is_none() && registry.is_shared() {
            tracing::warn!(
                "the sessions are shared, and there is no cookie_key: a login that one replica began cannot be finished by \
                 another, nor after a restart. Give all replicas the same .cookie_key(CookieKey::from_base64(…)?)"
            );
        }
        Shared {
            family: Family::new(registry, self.clock.unwrap_or_else(|| Arc::new(SystemClock))),
            cookie_key: self.cookie_key.unwrap_or_else(CookieKey::generate),
            further_cookie_keys: self.further_cookie_keys,
        }
    }
}

/// What a relying party is in its application.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    Alone,
    /// One of several providers, by its name.
    Provider(&'a str),
    /// One of several tenants, by its name; tenants may have an issuer and a client id in common.
    Tenant(&'a str),
}

impl<'a> Place<'a> {
    fn provider(self) -> Option<&'a str> {
        match self {
            Self::Provider(name) => Some(name),
            Self::Alone | Self::Tenant(_) => None,
        }
    }

    fn tenant(self) -> &'a str {
        match self {
            Self::Tenant(name) => name,
            Self::Alone | Self::Provider(_) => "",
        }
    }
}

/// The same, in use.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) family: Arc<Family>,
    cookie_key: CookieKey,
    further_cookie_keys: Vec<CookieKey>,
}

impl Shared {
    /// Begins the upkeep of the registry.
    pub(crate) fn keep_clean(&self) {
        upkeep::begin_cleaning(&self.family);
    }

    fn cookies(&self, registration: &Registration, kind: CookieKind, tenant: &str) -> Result<Cookies, ConfigError> {
        Cookies::new(registration, &self.cookie_key, &self.further_cookie_keys, kind, tenant)
    }
}

impl RelyingPartyBuilder {
    fn new(issuer: String, credentials: ClientCredentials, public_url: String) -> Self {
        Self {
            issuer,
            credentials,
            public_url,
            policy: SessionPolicy::new(),
            common: Common::default(),
            scopes: vec!["openid".to_owned(), "profile".to_owned()],
            signing_alg: None,
            dpop: None,
            further_dpop_keys: Vec::new(),
            pushed_authorization: PushedAuthorization::default(),
            profile: Profile::default(),
            provider_timeout: Duration::from_secs(5),
            listeners: Vec::new(),
            claims_from: ClaimsFrom::default(),
            logout_tokens: LogoutTokenPolicy::new(),
            apis: Vec::new(),
            pages: Pages::default(),
            front_channel: FrontChannel::default(),
            transmitter: None,
            ends: Ends::Passed,
            parameters: AuthorizationParameters::default(),
            post_logout_path: "/".to_owned(),
            on_login: None,
            client_address: AddressOf::default(),
            trusted_origins: Vec::new(),
            internal_provider_url: None,
            dangerous: Dangerous::new(),
            auth_path: AUTH.to_owned(),
            issuer_template: None,
            http_client: None,
        }
    }

    /// How long sessions go on and what counts as activity.
    pub fn policy(mut self, policy: SessionPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Where sessions live; default: in the memory of this process.
    pub fn registry(mut self, registry: impl SessionRegistry) -> Self {
        self.common.registry = Some(Arc::new(registry));
        self
    }

    /// The scopes to ask for; default `openid profile`. Some providers issue refresh tokens only with
    /// `offline_access`; where they do without, leave it out: its tokens are made to outlive the session.
    pub fn scopes<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// The one algorithm of ID tokens and logout tokens; default RS256, with [`fapi2`](Self::fapi2) PS256.
    pub fn signing_alg(mut self, alg: SigningAlg) -> Self {
        self.signing_alg = Some(alg);
        self
    }

    /// Binds access tokens to this key ([DPoP, RFC 9449](https://www.rfc-editor.org/rfc/rfc9449)): who steals one without it can do
    /// nothing with it. Default: they are bound to nothing. Each request to the provider and to APIs carries a proof then, which costs a
    /// signature; a provider that issues tokens of the type `Bearer` all the same is refused at the login. Replicas need the same key.
    /// Sessions that are there already go on: each access token remembers what it is bound to.
    pub fn dpop(mut self, key: SigningKey) -> Self {
        self.dpop = Some(key);
        self
    }

    /// A key that tokens may be bound to besides [`dpop`](Self::dpop), which alone gets new ones. So the key is replaced while
    /// replicas run, and no session ends: tell every replica the new key here; then make it the `dpop` key of every replica, with the
    /// old one here; drop that after *G*, when no token is bound to it any more. Access tokens of sessions without refresh token stay bound to the old one: keep it
    /// for the absolute lifetime where there are such.
    pub fn further_dpop_key(mut self, key: SigningKey) -> Self {
        self.further_dpop_keys.push(key);
        self
    }

    /// Whether authorization requests are pushed to the provider ([RFC 9126](https://www.rfc-editor.org/rfc/rfc9126)); default: where it
    /// offers that.
    pub fn pushed_authorization(mut self, pushed_authorization: PushedAuthorization) -> Self {
        self.pushed_authorization = pushed_authorization;
        self
    }

    /// A client as [FAPI 2.0](https://openid.net/specs/fapi-security-profile-2_0-final.html) has it, §5.3.3: pushed authorization
    /// requests, and `iss` in every authorization response, are required, and ID tokens are signed with PS256 unless
    /// [`signing_alg`](Self::signing_alg) says ES256 or EdDSA. What is weaker is refused at the start: shared secrets, access tokens that are bound
    /// to no key and no certificate, other algorithms, plain http but on this machine. A link of another site to the login leads to a page that
    /// asks first. `docs/fapi.md` goes through the clauses.
    pub fn fapi2(mut self) -> Self {
        self.profile = Profile::Fapi2;
        self
    }

    /// How long a request waits for the provider; default 5 s. The session stands within *T* of its last signal, so the
    /// request is served then; a refresh that is under way goes on without it, as long as its connection stands.
    pub fn provider_timeout(mut self, timeout: Duration) -> Self {
        self.provider_timeout = timeout;
        self
    }

    /// A parameter that every authorization request has, as `audience` or `kc_idp_hint`; may be given several times. A link
    /// may set another value, if [`linked_parameters`](Self::linked_parameters) says so. `prompt=consent` is for providers that give the
    /// scope `offline_access` to those only who ask so ([Core §11](https://openid.net/specs/openid-connect-core-1_0.html#OfflineAccess)); a
    /// silent login goes without.
    pub fn authorization_parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.parameters.fixed.push((name.into(), value.into()));
        self
    }

    /// Parameters that a link to the login may set, `/auth/login?login_hint=alice@shop.example`, and that are passed on to the
    /// provider; default: `login_hint` and `ui_locales`. Anybody can make such a link, so only what any user may choose
    /// belongs here. `prompt`, `acr_values` and `max_age` may be set in any case.
    pub fn linked_parameters<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.parameters.linked = names.into_iter().map(Into::into).collect();
        self
    }

    /// Where the crate's routes are in the router; default `/auth`. The redirect URI and the back-channel logout URI at the provider
    /// follow it.
    pub fn auth_path(mut self, path: impl Into<String>) -> Self {
        self.auth_path = path.into();
        self
    }

    /// Where the browser comes back to after a sign-out: a path of this application; default `/`. The whole URL has to be
    /// registered at the provider as a `post_logout_redirect_uri`.
    pub fn post_logout_path(mut self, path: impl Into<String>) -> Self {
        self.post_logout_path = path.into();
        self
    }

    /// Asks the application at every login, after the provider has granted it and before the session begins: to refuse it, or
    /// to write down who has come. It may be asked twice of one sign-in, and of a login that comes to nothing in the end, where a
    /// logout overtakes it. It has 5 s; after that the login fails with 503. A login that is refused leaves the session
    /// at the provider as it is, and drops its tokens.
    ///
    /// ```
    /// # use tower_oidc_session::{LoginRefused, NewLogin, RelyingPartyBuilder};
    /// # async fn upsert(_: &NewLogin) -> Result<(), std::io::Error> { Ok(()) }
    /// # fn hooked(builder: RelyingPartyBuilder) -> RelyingPartyBuilder {
    /// builder.on_login(async |login: NewLogin| {
    ///     if login.claims().get("email_verified") != Some(&true.into()) {
    ///         return Err(LoginRefused::not_allowed("the address is not verified"));
    ///     }
    ///     upsert(&login).await.map_err(|error| LoginRefused::unavailable(error.to_string()))
    /// })
    /// # }
    /// ```
    pub fn on_login<F>(mut self, hook: impl Fn(NewLogin) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), LoginRefused>> + Send + 'static,
    {
        self.on_login = Some(Box::new(move |login| Box::pin(hook(login))));
        self
    }

    /// Another origin whose pages may send requests, as `https://app.shop.example`: a front end on a sibling host. May be given
    /// several times. Cookies are sent by pages of the same site only, and CORS is the application's to answer.
    pub fn trusted_origin(mut self, origin: impl Into<String>) -> Self {
        self.trusted_origins.push(origin.into());
        self
    }

    /// Where the application itself finds the provider, where that is not where browsers do, as `http://keycloak:8080` in a compose
    /// network: discovery, tokens, keys, userinfo and revocation are asked there, at the same paths. The issuer stays what it is.
    pub fn internal_provider_url(mut self, origin: impl Into<String>) -> Self {
        self.internal_provider_url = Some(origin.into());
        self
    }

    /// For a provider of many tenants, which has one discovery document for all of them, and for each an issuer of this form:
    /// `https://login.microsoftonline.com/{tenantid}/v2.0`, with the issuer given at first where the document is:
    /// `https://login.microsoftonline.com/common/v2.0`. `tenants` says who may sign in. A session has the issuer that its ID token names
    /// ([`OidcSession::issuer`](crate::OidcSession::issuer)), and a logout token reaches sessions of its own issuer alone. To list or end a
    /// user's sessions say whose user: [`RelyingParty::at_issuer`].
    ///
    /// ```
    /// # use tower_oidc_session::{IssuerTenants, RelyingPartyBuilder};
    /// # fn entra(builder: RelyingPartyBuilder) -> RelyingPartyBuilder {
    /// builder.issuer_template(
    ///     "https://login.microsoftonline.com/{tenantid}/v2.0",
    ///     IssuerTenants::only(["11111111-2222-3333-4444-555555555555"]),
    /// )
    /// # }
    /// ```
    pub fn issuer_template(mut self, template: impl Into<String>, tenants: IssuerTenants) -> Self {
        self.issuer_template = Some((template.into(), tenants));
        self
    }

    /// An HTTP client of one's own for all calls to the provider and to APIs: with authorities, a proxy, or a certificate that the
    /// application knows, and limits of its own. Any Tower service that sends requests will do. It must follow no redirects, keep no
    /// cookies, and send nothing twice: a refresh token counts once. [`provider_timeout`](Self::provider_timeout) and the bounds on the size of answers hold for it too. Where it cannot say
    /// by its error that a connection was refused, a refresh that failed may have reached the provider, and is treated so.
    ///
    /// ```
    /// # use tower_oidc_session::RelyingPartyBuilder;
    /// # fn with_client(builder: RelyingPartyBuilder, pem: &[u8]) -> Result<RelyingPartyBuilder, reqwest::Error> {
    /// use axum::body::Body;
    ///
    /// let client = reqwest::Client::builder()
    ///     .redirect(reqwest::redirect::Policy::none())
    ///     .tls_certs_merge([reqwest::Certificate::from_pem(pem)?])
    ///     .build()?;
    /// let service = tower::service_fn(move |request: http::Request<Body>| {
    ///     let client = client.clone();
    ///     async move {
    ///         let (parts, body) = request.into_parts();
    ///         let body = axum::body::to_bytes(body, usize::MAX).await?;
    ///         let request = http::Request::from_parts(parts, body).try_into()?;
    ///         Ok::<_, axum::BoxError>(http::Response::from(client.execute(request).await?))
    ///     }
    /// });
    /// # Ok(
    /// builder.http_client(service)
    /// # )
    /// # }
    /// ```
    pub fn http_client<S, B>(mut self, client: S) -> Self
    where
        S: Service<Request<Body>, Response = http::Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.http_client = Some(GivenClient::new(client));
        self
    }

    /// Switches protections off, for development; a warning in the log says so at the start.
    pub fn dangerous(mut self, dangerous: Dangerous) -> Self {
        self.dangerous = dangerous;
        self
    }

    /// The key that protects the cookies of login attempts; default: a random one. Replicas need the same.
    pub fn cookie_key(mut self, key: CookieKey) -> Self {
        self.common.cookie_key = Some(key);
        self
    }

    /// Keys that open the cookies of login attempts besides [`cookie_key`](Self::cookie_key), which alone seals them;
    /// default: none. So a key is replaced while replicas run, without a login that fails: tell every replica the new key
    /// here; then make it the `cookie_key` of every replica, with the old one here; drop that after ten minutes.
    pub fn further_cookie_keys(mut self, keys: impl IntoIterator<Item = CookieKey>) -> Self {
        self.common.further_cookie_keys = keys.into_iter().collect();
        self
    }

    /// Where the time comes from; default: the system's clock.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.common.clock = Some(Arc::new(clock));
        self
    }

    /// Is told what happens to sessions and logins on this replica, for an audit log. Must return at once. Of refused logout
    /// tokens and failed logins, which anybody may cause, it is told of sixty in a minute each.
    ///
    /// ```
    /// # use tower_oidc_session::{EventKind, RelyingPartyBuilder};
    /// # fn audited(builder: RelyingPartyBuilder) -> RelyingPartyBuilder {
    /// builder.on_event(|event| {
    ///     let who = event.session().map(|session| session.subject().as_str());
    ///     match event.kind() {
    ///         EventKind::Started => println!("{who:?} signed in from {:?}", event.browser().address()),
    ///         EventKind::Ended { reason, .. } => println!("{who:?}: {reason}"),
    ///         EventKind::LoginFailed { reason, .. } => println!("a login failed: {reason}"),
    ///         _ => {}
    ///     }
    /// })
    /// # }
    /// ```
    pub fn on_event(mut self, listener: impl Fn(&SessionEvent) + Send + Sync + 'static) -> Self {
        self.listeners.push(Arc::new(listener));
        self
    }

    /// Says where a request comes from, for [`SessionEvent::browser`]; default: it is not said. No header is believed by default:
    /// which one is true is for the proxy in front to say. Without a proxy it is axum's `ConnectInfo`:
    ///
    /// ```
    /// # use std::net::SocketAddr;
    /// # use axum::extract::ConnectInfo;
    /// # use tower_oidc_session::RelyingPartyBuilder;
    /// # fn addressed(builder: RelyingPartyBuilder) -> RelyingPartyBuilder {
    /// builder.client_address(|_headers, extensions| {
    ///     extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip())
    /// })
    /// # }
    /// ```
    pub fn client_address(
        mut self,
        address: impl Fn(&HeaderMap, &Extensions) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.client_address = AddressOf(Some(Arc::new(address)));
        self
    }

    /// Where sessions' claims come from; default: the ID token alone.
    pub fn claims_from(mut self, claims_from: ClaimsFrom) -> Self {
        self.claims_from = claims_from;
        self
    }

    /// Takes front-channel logouts, at `/auth/frontchannel-logout`
    /// ([Front-Channel Logout 1.0](https://openid.net/specs/openid-connect-frontchannel-1_0.html)); default: there is no such route. Register
    /// that URL as `frontchannel_logout_uri`, with `frontchannel_logout_session_required`. For providers that have nothing better: nobody
    /// signs such a request, so whoever learns a session's `sid`, from a log or an ID token, can end that session, and nothing
    /// else. A `sid` that is the user's `sub` or `preferred_username` counts for nothing, as everybody knows those. And it takes a browser that is
    /// open: a user who is signed out elsewhere, or by an administrator, is not.
    pub fn frontchannel_logout(mut self) -> Self {
        self.front_channel = FrontChannel::On;
        self
    }

    /// Takes the events of a transmitter, at `/auth/security-events` (pushed, [RFC 8935](https://www.rfc-editor.org/rfc/rfc8935)); default:
    /// there is no such route. `session-revoked` of
    /// [CAEP](https://openid.net/specs/openid-caep-1_0-final.html) ends the sessions that it names; others are told to
    /// [`on_event`](Self::on_event). Its users are those of the provider: a subject is `iss_sub` of its issuer, `opaque` for a `sid` (not with
    /// [`issuer_template`](Self::issuer_template), where nobody says whose that is), or complex with both, which have to fit each other.
    pub fn security_events(mut self, transmitter: impl Into<EventTransmitter>) -> Self {
        self.transmitter = Some(transmitter.into());
        self
    }

    /// How strict the back-channel logout receiver is where providers differ.
    pub fn logout_tokens(mut self, policy: LogoutTokenPolicy) -> Self {
        self.logout_tokens = policy;
        self
    }

    /// An API that is called with the sessions' access tokens, by its base URL or with more to say as [`Api`]. Others
    /// never see a token and cannot end a session. May be given several times.
    pub fn api(mut self, api: impl Into<Api>) -> Self {
        self.apis.push(api.into());
        self
    }

    /// Tells people on a page why their session ended before they go to the login, where it was not by their own sign-out;
    /// default: a navigation goes straight to the login.
    pub fn explain_ends(mut self) -> Self {
        self.ends = Ends::Explained;
        self
    }

    /// Makes the pages that people see of the crate: a login that failed, "signed out", "try again". `make` gets everything
    /// that the built-in page is made of; status and the headers that matter are the crate's in any case.
    ///
    /// ```
    /// use axum::response::{Html, IntoResponse};
    /// # fn with_pages(builder: tower_oidc_session::RelyingPartyBuilder) -> tower_oidc_session::RelyingPartyBuilder {
    /// builder.pages(|page| {
    ///     let script = page.script().map(|path| format!(r#"<script type="module" src="{path}"></script>"#));
    ///     Html(format!(
    ///         r#"<!doctype html><html lang="{}"><title>{}</title>{}<main>{}</main></html>"#,
    ///         page.language(), page.title(), script.unwrap_or_default(), page.main(),
    ///     ))
    ///     .into_response()
    /// })
    /// # }
    /// ```
    pub fn pages(mut self, make: impl Fn(Page) -> Response + Send + Sync + 'static) -> Self {
        self.pages = Pages(Some(Arc::new(make)));
        self
    }

    /// Checks the settings and starts. The provider and the registry's store need not be up; until they are, requests
    /// that need them get 503.
    ///
    /// # Errors
    /// If a setting cannot work; the error names it.
    ///
    /// # Panics
    /// Outside of a tokio runtime, which does the work in the background.
    pub fn build(mut self) -> Result<RelyingParty, ConfigError> {
        let shared = std::mem::take(&mut self.common).begin();
        let context = self.build_in(&shared, Place::Alone)?;
        shared.keep_clean();
        Ok(RelyingParty::new(context))
    }

    /// The same beside others of the application.
    pub(crate) fn build_beside(self, shared: &Shared, place: Place<'_>) -> Result<Context, ConfigError> {
        if let Some(setting) = self.common.first_set() {
            return Err(ConfigError::new(
                setting,
                "set for one provider",
                "to be set for all of them together, at RelyingParties",
            ));
        }
        if matches!(place, Place::Tenant(_)) && self.auth_path != AUTH {
            return Err(ConfigError::new(
                "auth_path",
                self.auth_path,
                "/auth, for tenants: their routes are in one router",
            ));
        }
        self.build_in(shared, place)
    }

    fn build_in(self, shared: &Shared, place: Place<'_>) -> Result<Context, ConfigError> {
        let plain_http = &self.dangerous.plain_http;
        let origin = self.check()?;
        let paths = Arc::new(Paths::new(origin.path(), &self.auth_path, place.provider()));
        let certificate = self.certificate()?;
        let signing_alg = self.agreed_alg();
        let post_logout_redirect_uri = origin.join(&paths.of_application(&self.post_logout_path)).ok().filter(|url| {
            self.post_logout_path.starts_with('/') && url.origin() == origin.origin() && url.fragment().is_none()
        });
        let post_logout_redirect_uri = post_logout_redirect_uri.ok_or_else(|| {
            ConfigError::new(
                "post_logout_path",
                self.post_logout_path.clone(),
                "a path of this application, as /goodbye",
            )
        })?;
        let inside = self.internal_provider_url.as_deref();
        let inside = inside.map(|url| check_url("internal_provider_url", url, plain_http)).transpose()?;
        if let Some(url) = inside.as_ref().filter(|url| url.path() != "/" || url.query().is_some()) {
            return Err(ConfigError::new(
                "internal_provider_url",
                url.as_str(),
                "an origin alone, as http://keycloak:8080",
            ));
        }
        let apis = Apis::new(&self.apis, plain_http, self.http_client.clone(), certificate.clone())?;
        let http = Http::new(self.provider_timeout, self.http_client.as_ref(), certificate.as_ref())
            .map_err(|error| ConfigError::new("provider_timeout", error, "a working TLS set-up"))?;
        let issuers = match self.issuer_template {
            None => Issuers::one(Issuer::new(self.issuer)),
            Some((template, _)) if template.matches(TENANT).count() != 1 => {
                return Err(ConfigError::new(
                    "issuer_template",
                    template,
                    "an issuer with {tenantid} in the place of the tenant, as https://login.microsoftonline.com/{tenantid}/v2.0",
                ));
            }
            Some((template, tenants)) => Issuers::tenants(Issuer::new(self.issuer), template, tenants),
        };
        let registration = Registration::new(issuers.configured().clone(), self.credentials.id);
        let cookies = shared.cookies(&registration, self.dangerous.cookies, place.tenant())?;
        let transmitter = self.transmitter.map(|transmitter| {
            let client_id = registration.client_id().as_str();
            let clock = shared.family.clock.clone();
            Arc::new(Transmitter::new(transmitter, client_id, http.clone(), plain_http.clone(), clock))
        });
        let client = ClientConfig {
            tag: ClientTag::of(&registration, place.tenant()),
            registration,
            issuers,
            credentials: Credentials::new(self.credentials.all),
            dpop: self.dpop.map(|key| Dpop::new(key, self.further_dpop_keys)),
            pushed_authorization: self.profile.pushed_authorization(self.pushed_authorization),
            issuer_parameter: self.profile.issuer_parameter(),
            initiation: self.profile.initiation(),
            redirect_uri: join(&origin, &paths.of_party("callback")),
            post_logout_redirect_uri,
            scopes: self.scopes,
            signing_alg,
            parameters: self.parameters,
            inside,
            plain_http: self.dangerous.plain_http.clone(),
            resources: self.apis.iter().filter_map(|api| api.audience()?.resource.clone()).collect(),
        };
        let provider = Provider::new(client, http, shared.family.clock.clone());
        let manager = Manager::new(&shared.family, provider, self.policy, self.listeners, self.on_login);
        upkeep::begin(&manager);
        describe();
        Ok(Context::new(Parts {
            manager,
            cookies,
            public_url: origin,
            claims_from: self.claims_from,
            logout_tokens: self.logout_tokens,
            apis: Arc::new(apis),
            pages: self.pages,
            ends: self.ends,
            client_address: self.client_address,
            junk: JunkOf::default(),
            trusted_origins: self.trusted_origins,
            paths,
            front_channel: self.front_channel,
            transmitter,
        }))
    }

    /// Refuses what is wrong by itself; the public URL, read.
    fn check(&self) -> Result<Url, ConfigError> {
        let plain_http = &self.dangerous.plain_http;
        if self.dangerous.is_used() {
            tracing::warn!(settings = ?self.dangerous, "protections are off: this is for development");
        }
        self.check_without_query("issuer", &self.issuer)?;
        let origin = self.check_without_query("public_url", &self.public_url)?;
        if !is_route_path(&self.auth_path) {
            let takes = "a path, as /auth: letters, digits, and -._~/";
            return Err(ConfigError::new("auth_path", &self.auth_path, takes));
        }
        check_policy(&self.policy)?;
        if self.provider_timeout.is_zero() {
            return Err(zero("provider_timeout"));
        }
        self.check_client()?;
        self.profile.check(&Strength {
            credentials: &self.credentials.all,
            dpop: self.dpop.as_ref(),
            signing_alg: self.agreed_alg(),
            pushed_authorization: self.pushed_authorization,
            has_dangers: self.dangerous.is_used(),
        })?;
        for trusted in &self.trusted_origins {
            let url = check_url("trusted_origin", trusted, plain_http)?;
            if url.origin().ascii_serialization() != *trusted {
                return Err(ConfigError::new(
                    "trusted_origin",
                    trusted,
                    "an origin alone, as https://app.shop.example",
                ));
            }
        }
        if let Some(name) = self.parameters.wrong_name() {
            let takes =
                "a parameter that is not the crate's own: for those there are settings, as require_session().acr(…)";
            return Err(ConfigError::new("authorization_parameter", name, takes));
        }
        if let Some(transmitter) = &self.transmitter {
            check_url("security_events", &transmitter.issuer, plain_http)?;
        }
        Ok(origin)
    }

    fn check_without_query(&self, setting: &'static str, url: &str) -> Result<Url, ConfigError> {
        let checked = check_url(setting, url, &self.dangerous.plain_http)?;
        match checked.query() {
            None => Ok(checked),
            Some(_) => Err(ConfigError::new(setting, url, "a URL without query")),
        }
    }

    fn agreed_alg(&self) -> SigningAlg {
        self.signing_alg.unwrap_or(self.profile.signing_alg())
    }

    fn check_client(&self) -> Result<(), ConfigError> {
        if !self.scopes.iter().any(|scope| scope == "openid") {
            return Err(ConfigError::new("scopes", format!("{:?}", self.scopes.join(" ")), "openid among them"));
        }
        if self.credentials.id.as_str().is_empty() {
            return Err(ConfigError::new("client_id", "empty", "the id that the provider gave this application"));
        }
        let mut secrets = self.credentials.all.iter().filter_map(ClientAuthentication::secret);
        if secrets.any(|secret| secret.secret().is_empty()) {
            return Err(ConfigError::new(
                "client_secret",
                "empty",
                "the secret that the provider gave this application",
            ));
        }
        if self.dpop.is_none() && !self.further_dpop_keys.is_empty() {
            return Err(ConfigError::new("further_dpop_key", "set, and dpop is not", "a key besides that of dpop"));
        }
        Ok(())
    }

    /// The certificate that the client shows, if it does: there is one connection for all of its credentials.
    fn certificate(&self) -> Result<Option<ClientCertificate>, ConfigError> {
        let mut all = self.credentials.all.iter().filter_map(ClientAuthentication::certificate);
        let first = all.next();
        if first.is_some_and(|first| all.any(|other| !other.is(first))) {
            return Err(ConfigError::new("client_certificate", "more than one", "one: its files may change"));
        }
        if first.is_some() && self.http_client.is_some() {
            let takes = "no certificate where there is an http_client, which cannot be given it: the crate's own client shows it";
            return Err(ConfigError::new("client_certificate", "set, as is http_client", takes));
        }
        Ok(first.cloned())
    }
}

impl fmt::Debug for RelyingPartyBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelyingPartyBuilder")
            .field("issuer", &self.issuer)
            .field("credentials", &self.credentials)
            .field("public_url", &self.public_url)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

fn check_policy(policy: &SessionPolicy) -> Result<(), ConfigError> {
    for (setting, duration) in [
        ("op_session_lifetime", policy.op_session_lifetime),
        ("access_token_lifetime", policy.longest_silence()),
        ("absolute_lifetime", policy.absolute_lifetime),
    ] {
        if duration.is_zero() {
            return Err(zero(setting));
        }
        // Sums with the time of day must not overflow.
        if duration > Duration::from_secs(10 * 366 * 24 * 60 * 60) {
            return Err(ConfigError::new(setting, format!("{duration:?}"), "at most ten years"));
        }
    }
    if let Some(lifetime) = policy.refresh_token_lifetime.filter(|lifetime| *lifetime <= policy.longest_silence()) {
        return Err(ConfigError::new(
            "refresh_token_lifetime",
            format!("{lifetime:?}"),
            format!(
                "more than access_token_lifetime ({:?}): the application refreshes once in that time, and would come too late",
                policy.longest_silence()
            ),
        ));
    }
    if policy.longest_silence() >= policy.op_session_lifetime {
        return Err(ConfigError::new(
            "access_token_lifetime",
            format!("{:?}", policy.longest_silence()),
            format!(
                "less than op_session_lifetime ({:?}): the application signals activity to the provider once in \
                 that time, and the provider would end the sessions of active users before it hears of them",
                policy.op_session_lifetime
            ),
        ));
    }
    Ok(())
}

fn zero(setting: &'static str) -> ConfigError {
    ConfigError::new(setting, "zero", "a duration greater than zero")
}

fn join(origin: &Url, path: &str) -> Url {
    let mut url = origin.clone();
    url.set_path(path);
    url
}
