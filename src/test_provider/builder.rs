//! How a test provider is set up and started.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::handler::Handler;
use axum::middleware;
use axum::routing::{any, get, post};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

use super::clients::PeerCertificate;
use super::fault::{CloseConnection, Endpoint, interfere};
use super::keys::SigningKey;
use super::state::{
    AccessTokens, Coordination, DpopNonces, ExpiredSessions, InlineLogout, Interaction, IssuerInResponse,
    PushedRequests, RefreshTokens, Settings, Sids, SignIn, State, Tampering, TestClient,
};
use super::{OnSecret, Shared, TestProvider, authorize, clients, logout, metadata, tls, token};
use crate::clock::{Clock, SystemClock};
use crate::protocol::jwt::SigningAlg;

/// How often the sweeper looks for idle sessions, in real time.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);
/// How long the provider waits for the answer to a logout token.
const LOGOUT_TIMEOUT: Duration = Duration::from_millis(2500);

/// Sets up a [`TestProvider`].
#[must_use]
pub struct TestProviderBuilder {
    clock: Arc<dyn Clock>,
    alg: SigningAlg,
    address: SocketAddr,
    users: BTreeMap<String, Map<String, Value>>,
    clients: HashMap<String, TestClient>,
    settings: Settings,
    tls: Option<(String, String)>,
    on_secret: OnSecret,
}

impl TestProviderBuilder {
    pub(super) fn new() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            alg: SigningAlg::default(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            users: ["alice", "bob"].map(|user| (user.to_owned(), Map::new())).into(),
            clients: HashMap::new(),
            tls: None,
            settings: Settings {
                session_lifetime: Duration::from_secs(15 * 60),
                access_token_lifetime: Duration::from_secs(5 * 60),
                refresh_tokens: RefreshTokens::default(),
                access_tokens: AccessTokens::default(),
                coordination: Coordination::default(),
                expired_sessions: ExpiredSessions::default(),
                inline_logout: InlineLogout::default(),
                interaction: Interaction::default(),
                sids: Sids::default(),
                sign_in: SignIn::default(),
                issuer_in_response: IssuerInResponse::default(),
                dpop_nonces: DpopNonces::default(),
                pushed_requests: PushedRequests::default(),
            },
            on_secret: Arc::new(|_| {}),
        }
    }

    /// Where the time comes from; default: the system's clock.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The inactivity timeout of users' sessions; default 15 minutes.
    pub fn session_lifetime(mut self, lifetime: Duration) -> Self {
        self.settings.session_lifetime = lifetime;
        self
    }

    /// `expires_in` of access tokens; default 5 minutes.
    pub fn access_token_lifetime(mut self, lifetime: Duration) -> Self {
        self.settings.access_token_lifetime = lifetime;
        self
    }

    /// How refresh tokens are issued; default [`RefreshTokens::Rotate`].
    pub fn refresh_tokens(mut self, refresh_tokens: RefreshTokens) -> Self {
        self.settings.refresh_tokens = refresh_tokens;
        self
    }

    /// What access tokens are; default [`AccessTokens::Reference`].
    pub fn access_tokens(mut self, access_tokens: AccessTokens) -> Self {
        self.settings.access_tokens = access_tokens;
        self
    }

    /// Whose requests keep sessions alive; default [`Coordination::AllClients`].
    pub fn coordination(mut self, coordination: Coordination) -> Self {
        self.settings.coordination = coordination;
        self
    }

    /// What happens to idle sessions; default [`ExpiredSessions::TriggerBackchannelLogout`].
    pub fn expired_sessions(mut self, expired_sessions: ExpiredSessions) -> Self {
        self.settings.expired_sessions = expired_sessions;
        self
    }

    /// Whether a refused refresh sends the logout tokens first; default [`InlineLogout::Off`].
    pub fn inline_logout(mut self, inline_logout: InlineLogout) -> Self {
        self.settings.inline_logout = inline_logout;
        self
    }

    /// How ID tokens and logout tokens are signed; default: RS256.
    pub fn signing_alg(mut self, alg: SigningAlg) -> Self {
        self.alg = alg;
        self
    }

    /// How users sign in; default [`SignIn::Page`].
    pub fn sign_in(mut self, sign_in: SignIn) -> Self {
        self.settings.sign_in = sign_in;
        self
    }

    /// What the `sid` of a browser's next session is; default [`Sids::Anew`].
    pub fn sids(mut self, sids: Sids) -> Self {
        self.settings.sids = sids;
        self
    }

    /// Whether authorization responses have `iss`; default [`IssuerInResponse::Present`].
    pub fn issuer_in_response(mut self, issuer_in_response: IssuerInResponse) -> Self {
        self.settings.issuer_in_response = issuer_in_response;
        self
    }

    /// Whether DPoP proofs need a nonce; default [`DpopNonces::NotNeeded`]. Clients that send proofs get bound tokens in any case.
    pub fn dpop_nonces(mut self, dpop_nonces: DpopNonces) -> Self {
        self.settings.dpop_nonces = dpop_nonces;
        self
    }

    /// Whether authorization requests may be pushed; default [`PushedRequests::NotTaken`].
    pub fn pushed_requests(mut self, pushed_requests: PushedRequests) -> Self {
        self.settings.pushed_requests = pushed_requests;
        self
    }

    /// Speaks TLS, with this certificate and its key (PEM), and asks clients for theirs. The issuer begins with `https` then.
    pub fn tls(mut self, certificate: impl Into<String>, key: impl Into<String>) -> Self {
        self.tls = Some((certificate.into(), key.into()));
        self
    }

    /// Adds a user beside alice and bob, whose password is the name; tests sign in by [`SignIn::Automatic`] or with a `login_hint`.
    pub fn user(mut self, sub: impl Into<String>) -> Self {
        self.users.entry(sub.into()).or_default();
        self
    }

    /// Gives a user claims, in ID tokens and userinfo, and adds the user if there is none yet.
    ///
    /// ```
    /// # use serde_json::json;
    /// # use tower_oidc_session::test_provider::TestProvider;
    /// let provider = TestProvider::builder()
    ///     .user_claims("carol", [("email", json!("carol@shop.example")), ("groups", json!(["staff", "admin"]))]);
    /// ```
    pub fn user_claims<N: Into<String>>(
        mut self,
        sub: impl Into<String>,
        claims: impl IntoIterator<Item = (N, Value)>,
    ) -> Self {
        let user = self.users.entry(sub.into()).or_default();
        user.extend(claims.into_iter().map(|(name, value)| (name.into(), value)));
        self
    }

    /// Shows every secret that the provider issues or is sent: codes, tokens, cookies of its own, client secrets, `state`,
    /// `nonce`, PKCE verifiers. So a test can search logs and answers for them.
    pub fn on_secret(mut self, show: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.on_secret = Arc::new(show);
        self
    }

    /// Adds a client.
    pub fn client(mut self, client: TestClient) -> Self {
        self.clients.insert(client.id.clone(), client);
        self
    }

    /// Where to listen; default: a free port of 127.0.0.1.
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// Starts the provider.
    ///
    /// # Errors
    /// If the address cannot be bound or no key can be made.
    ///
    /// # Cancel safety
    /// A dropped future leaves nothing behind.
    pub async fn start(self) -> io::Result<TestProvider> {
        let listener = TcpListener::bind(self.address).await?;
        let tls = self.tls.map(|(certificate, key)| tls::acceptor(&certificate, &key)).transpose()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let issuer = format!("{scheme}://{}", listener.local_addr()?);
        let key = SigningKey::generate(self.alg, 0).ok_or_else(|| io::Error::other("no key could be made"))?;
        let http = reqwest::Client::builder()
            .timeout(LOGOUT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(io::Error::other)?;
        let state = State {
            settings: self.settings,
            users: self.users,
            clients: self.clients,
            sessions: HashMap::new(),
            codes: HashMap::new(),
            pushed: HashMap::new(),
            used_jtis: HashSet::new(),
            dpop_nonce: None,
            access: HashMap::new(),
            refresh: HashMap::new(),
            keys: vec![Arc::new(key)],
            keys_made: 1,
            requests: HashMap::new(),
            faults: HashMap::new(),
            gates: Vec::new(),
            tampering: Tampering::default(),
            revoked: 0,
            logouts: Vec::new(),
        };
        let (clock, alg, on_secret) = (self.clock, self.alg, self.on_secret);
        let shared = Arc::new(Shared { issuer, clock, alg, http, on_secret, state: Mutex::new(state) });
        let sweeper = tokio::spawn({
            let shared = shared.clone();
            async move {
                loop {
                    tokio::time::sleep(SWEEP_INTERVAL).await;
                    shared.sweep().await;
                }
            }
        });
        let server = tokio::spawn(serve(listener, tls, router(&shared)));
        Ok(TestProvider::new(shared, vec![sweeper, server]))
    }
}

impl fmt::Debug for TestProviderBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestProviderBuilder").field("address", &self.address).finish_non_exhaustive()
    }
}

fn router(shared: &Arc<Shared>) -> Router {
    let interfering = |endpoint: Endpoint| middleware::from_fn_with_state((shared.clone(), endpoint), interfere);
    Router::new()
        .route("/authorize", any(authorize::authorize.layer(interfering(Endpoint::Authorize))))
        .route("/par", post(clients::push.layer(interfering(Endpoint::PushedAuthorization))))
        .route("/token", post(token::token.layer(interfering(Endpoint::Token))))
        .route("/userinfo", any(token::user_info.layer(interfering(Endpoint::UserInfo))))
        .route("/introspect", post(token::introspection.layer(interfering(Endpoint::Introspection))))
        .route("/revoke", post(token::revocation.layer(interfering(Endpoint::Revocation))))
        .route("/logout", any(logout::end_session.layer(interfering(Endpoint::EndSession))))
        .route("/jwks", get(metadata::jwks.layer(interfering(Endpoint::Jwks))))
        .route("/.well-known/openid-configuration", get(metadata::discovery.layer(interfering(Endpoint::Discovery))))
        .with_state(shared.clone())
}

/// Serves by hand, because a fault may close a connection without an answer.
async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, router: Router) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (router, tls) = (router.clone(), tls.clone());
        connections.spawn(async move {
            match tls {
                None => converse(stream, None, router).await,
                Some(tls) => {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let certificate = tls::peer_certificate(&stream);
                    converse(stream, certificate, router).await;
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn converse<S>(stream: S, certificate: Option<PeerCertificate>, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let mut router = router.clone();
        let mut request = request.map(axum::body::Body::new);
        if let Some(certificate) = &certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        async move {
            let Ok(response) = router.call(request).await;
            match response.extensions().get::<CloseConnection>() {
                Some(CloseConnection) => Err(io::Error::other("closed")),
                None => Ok(response),
            }
        }
    });
    // An error is a connection that was closed, by us or the peer.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
