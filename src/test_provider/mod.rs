//! An OpenID provider for tests and demonstrations, in this process.
//!
//! A test of an application, over HTTP, with a browser that keeps cookies (reqwest with its feature `cookies`), and whose hours
//! pass in no time:
//!
//! ```
//! use std::time::Duration;
//! use axum::{Router, routing::get};
//! use tower_oidc_session::test_provider::{Endpoint, Fault, ManualClock, SignIn, TestClient, TestProvider};
//! use tower_oidc_session::{ClientCredentials, OidcSession, RelyingParty};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // One clock for both; and an address before anything else, as the provider has to know it.
//! let clock = ManualClock::new();
//! let provider = TestProvider::builder().clock(clock.clone()).sign_in(SignIn::Automatic("alice".into())).start().await?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let url = format!("http://{}", listener.local_addr()?);
//! provider.register(TestClient::at("shop", "secret", &url));
//! let rp = RelyingParty::builder(provider.issuer(), ClientCredentials::secret("shop", "secret"), &url)
//!     .clock(clock.clone())
//!     .build()?;
//! let app = Router::new()
//!     .route("/me", get(async |session: OidcSession| session.subject().to_string()))
//!     .route_layer(rp.require_session())
//!     .merge(rp.routes())
//!     .layer(rp.layer());
//! tokio::spawn(async move { axum::serve(listener, app).await });
//!
//! // A page view: what a script asks for gets 401 instead of the way to the login.
//! let browser = reqwest::Client::builder().cookie_store(true).build()?;
//! let me = async || browser.get(format!("{url}/me")).header("sec-fetch-mode", "navigate").send().await?.text().await;
//! assert_eq!(me().await?, "alice");
//!
//! // Logged out elsewhere: the logout tokens have been posted and answered when this returns.
//! assert_eq!(provider.end_sessions_of("alice").await, 1);
//! let script = browser.get(format!("{url}/me")).send().await?;
//! assert_eq!(script.status(), 401);
//!
//! // An outage while a signal is due ends nothing; after T nothing is served unchecked.
//! assert_eq!(me().await?, "alice");
//! provider.set_fault(Endpoint::Token, Fault::Status { code: 503, retry_after: None });
//! clock.advance(Duration::from_secs(5 * 60));
//! assert_eq!(me().await?, "alice");
//! # Ok(()) }
//! ```
//!
//! The three switches that make a whole system time out together, as Duende IdentityServer names them:
//!
//! | switch | here |
//! |---|---|
//! | server-side sessions with an inactivity timeout | always; [`TestProviderBuilder::session_lifetime`] |
//! | client lifetimes coordinated with the user's session | [`Coordination`]: refreshes, userinfo requests and introspections extend the session, and tokens die with it |
//! | expired sessions trigger back-channel logout | [`ExpiredSessions`] |
//!
//! Hours of inactivity pass in no time with a [`ManualClock`] that provider and application share; races are forced
//! with [`TestProvider::gate`], outages with [`TestProvider::set_fault`].

mod authorize;
mod builder;
mod clients;
mod clock;
#[expect(clippy::expect_used, clippy::panic, reason = "checks fail by panicking")]
mod contract;
mod fault;
#[expect(clippy::indexing_slicing, reason = "members are set on JSON objects made on the spot")]
mod keys;
#[expect(clippy::indexing_slicing, reason = "members are set on JSON objects made on the spot")]
mod logout;
#[expect(clippy::indexing_slicing, reason = "members are set on JSON objects made on the spot")]
mod metadata;
mod sample;
mod signed;
mod state;
mod tls;
#[expect(clippy::indexing_slicing, reason = "members are set on JSON objects made on the spot")]
mod token;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

pub use self::builder::TestProviderBuilder;
pub use self::clock::ManualClock;
pub use self::contract::check_registry;
use self::fault::GateKeeper;
pub use self::fault::{Endpoint, Fault, Gate, GateAt};
use self::keys::SigningKey;
pub use self::sample::sample_record;
pub use self::signed::DpopError;
use self::state::State;
pub use self::state::{
    AccessTokens, Coordination, DpopNonces, ExpiredSessions, InlineLogout, Interaction, IssuerInResponse,
    LogoutDelivery, OldKeys, ProviderSession, PushedRequests, RefreshTokens, Sids, SignIn, TestClient,
};
use crate::clock::Clock;
use crate::protocol::jwt::SigningAlg;

struct Shared {
    issuer: String,
    clock: Arc<dyn Clock>,
    alg: SigningAlg,
    http: reqwest::Client,
    on_secret: OnSecret,
    state: Mutex<State>,
}

/// Who is shown secrets.
type OnSecret = Arc<dyn Fn(&str) + Send + Sync>;

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A JWT, which is a secret from then on.
    fn signed(&self, key: &SigningKey, header: &Value, claims: &Value) -> String {
        let token = key.sign(header, claims);
        (self.on_secret)(&token);
        token
    }
}

struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// A running provider. Clones are the same provider; it stops when the last one is dropped.
#[derive(Clone)]
pub struct TestProvider {
    shared: Arc<Shared>,
    _tasks: Arc<Tasks>,
}

impl TestProvider {
    /// Sets up a provider.
    pub fn builder() -> TestProviderBuilder {
        TestProviderBuilder::new()
    }

    fn new(shared: Arc<Shared>, tasks: Vec<JoinHandle<()>>) -> Self {
        Self { shared, _tasks: Arc::new(Tasks(tasks)) }
    }

    /// The issuer, an origin on this machine.
    #[must_use]
    pub fn issuer(&self) -> String {
        self.shared.issuer.clone()
    }

    /// Adds or replaces a client.
    pub fn register(&self, client: TestClient) {
        self.shared.state().clients.insert(client.id.clone(), client);
    }

    /// The sessions that have not been ended; those that are over but not swept yet are among them.
    #[must_use]
    pub fn sessions(&self) -> Vec<ProviderSession> {
        self.shared.state().sessions.values().cloned().collect()
    }

    /// Ends a session as an administrator does: its tokens die, its clients are told, their answers awaited. Returns
    /// how many sessions there were.
    ///
    /// # Cancel safety
    /// The session is gone, and clients may not have been told.
    pub async fn end_session(&self, sid: &str) -> usize {
        self.shared.end_and_tell(sid).await
    }

    /// Ends all sessions of a user as an administrator does.
    ///
    /// # Cancel safety
    /// As [`end_session`](Self::end_session).
    pub async fn end_sessions_of(&self, sub: &str) -> usize {
        let sids: Vec<String> =
            self.sessions().into_iter().filter(|session| session.sub == sub).map(|session| session.sid).collect();
        let mut ended = 0;
        for sid in sids {
            ended += self.end_session(&sid).await;
        }
        ended
    }

    /// Ends a session and tells nobody.
    pub fn forget_session(&self, sid: &str) {
        self.shared.state().end(sid);
    }

    /// Ends the sessions that are idle by now, as happens every 100 ms anyway; awaits the answers of their clients.
    ///
    /// # Cancel safety
    /// As [`end_session`](Self::end_session).
    pub async fn sweep(&self) {
        self.shared.sweep().await;
    }

    /// Whose requests keep sessions alive from now on.
    pub fn set_coordination(&self, coordination: Coordination) {
        self.shared.state().settings.coordination = coordination;
    }

    /// What happens to idle sessions from now on.
    pub fn set_expired_sessions(&self, expired_sessions: ExpiredSessions) {
        self.shared.state().settings.expired_sessions = expired_sessions;
    }

    /// `expires_in` of the next access tokens.
    pub fn set_access_token_lifetime(&self, lifetime: Duration) {
        self.shared.state().settings.access_token_lifetime = lifetime;
    }

    /// How refresh tokens are issued from now on.
    pub fn set_refresh_tokens(&self, refresh_tokens: RefreshTokens) {
        self.shared.state().settings.refresh_tokens = refresh_tokens;
    }

    /// Whether DPoP proofs need a nonce from now on.
    pub fn set_dpop_nonces(&self, dpop_nonces: DpopNonces) {
        self.shared.state().settings.dpop_nonces = dpop_nonces;
    }

    /// The nonce that proofs had so far is not taken any more.
    pub fn change_dpop_nonce(&self) {
        self.shared.state().dpop_nonce = None;
    }

    /// Whether authorization requests may be pushed from now on.
    pub fn set_pushed_requests(&self, pushed_requests: PushedRequests) {
        self.shared.state().settings.pushed_requests = pushed_requests;
    }

    /// The thumbprint of the key that a request to an API proves to have, for an access token, by the rules of RFC 9449 §4.3; `None`
    /// if it has no proof. Introspection says which key a token is bound to.
    ///
    /// # Errors
    /// If the proof is wrong, or lacks the nonce of the day.
    pub fn check_proof(
        &self,
        (method, url): (&str, &str),
        headers: &http::HeaderMap,
        access_token: &str,
    ) -> Result<Option<String>, DpopError> {
        self.shared.check_proof((method, url), headers, Some(access_token))
    }

    /// How users sign in from now on.
    pub fn set_sign_in(&self, sign_in: SignIn) {
        self.shared.state().settings.sign_in = sign_in;
    }

    /// Whether a refused refresh sends the logout tokens first, from now on.
    pub fn set_inline_logout(&self, inline_logout: InlineLogout) {
        self.shared.state().settings.inline_logout = inline_logout;
    }

    /// Whether silent logins of known users are refused from now on.
    pub fn set_interaction(&self, interaction: Interaction) {
        self.shared.state().settings.interaction = interaction;
    }

    /// Signs with a new key from now on.
    pub fn rotate_keys(&self, old: OldKeys) {
        let mut state = self.shared.state();
        let Some(key) = SigningKey::generate(self.shared.alg, state.keys_made) else { return };
        state.keys_made += 1;
        if old == OldKeys::Drop {
            state.keys.clear();
        }
        state.keys.insert(0, Arc::new(key));
    }

    /// Any JWT, signed with the current key. `alg` and `kid` are filled in unless the header has them; a header
    /// parameter of null is left out; with `"alg": "none"` the signature is empty.
    #[must_use]
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let key = self.shared.state().keys.first().cloned();
        key.map(|key| self.shared.signed(&key, header, claims)).unwrap_or_default()
    }

    /// A JWT as a forger makes it: the right `kid`, another key.
    #[must_use]
    pub fn sign_with_foreign_key(&self, header: &Value, claims: &Value) -> String {
        let key = self.shared.state().keys.first().cloned();
        let forged = key.and_then(|key| key.forged());
        forged.map(|key| self.shared.signed(&key, header, claims)).unwrap_or_default()
    }

    /// The claims of a valid logout token, to be signed as they are or after some damage.
    #[must_use]
    pub fn logout_claims(&self, client_id: &str, sub: Option<&str>, sid: Option<&str>) -> Value {
        self.shared.logout_claims(client_id, sub, sid)
    }

    /// A valid logout token.
    #[must_use]
    pub fn logout_token(&self, client_id: &str, sub: Option<&str>, sid: Option<&str>) -> String {
        self.sign(&json!({"typ": "logout+jwt"}), &self.logout_claims(client_id, sub, sid))
    }

    /// Posts a logout token and returns the status of the answer.
    ///
    /// # Errors
    /// If there is no answer; the text says why.
    ///
    /// # Cancel safety
    /// The token may have arrived.
    pub async fn post_logout_token(&self, uri: &str, token: &str) -> Result<u16, String> {
        self.shared.post(uri, token).await
    }

    /// How many requests have arrived at an endpoint.
    #[must_use]
    pub fn requests(&self, endpoint: Endpoint) -> u64 {
        self.shared.state().requests.get(&endpoint).copied().unwrap_or_default()
    }

    /// How many live tokens have been revoked.
    #[must_use]
    pub fn revoked(&self) -> u64 {
        self.shared.state().revoked
    }

    /// The logout tokens that were sent, and what came back.
    #[must_use]
    pub fn logouts(&self) -> Vec<LogoutDelivery> {
        self.shared.state().logouts.clone()
    }

    /// Makes an endpoint fail until [`clear_faults`](Self::clear_faults).
    pub fn set_fault(&self, endpoint: Endpoint, fault: Fault) {
        self.shared.state().faults.insert(endpoint, (fault, None));
    }

    /// Makes the next `times` requests at an endpoint fail.
    pub fn set_fault_times(&self, endpoint: Endpoint, fault: Fault, times: u64) {
        self.shared.state().faults.insert(endpoint, (fault, Some(times)));
    }

    /// Ends all faults. Applications that have met one pause for some seconds before they ask again: move the clock on.
    pub fn clear_faults(&self) {
        self.shared.state().faults.clear();
    }

    /// Holds the requests at an endpoint.
    #[must_use]
    pub fn gate(&self, endpoint: Endpoint, at: GateAt) -> Gate {
        let (gate, keeper) = GateKeeper::new(endpoint, at);
        self.shared.state().gates.push(keeper);
        gate
    }

    /// Changes header and claims of the next ID tokens before they are signed.
    pub fn tamper_id_token(&self, tamper: impl Fn(&mut Value, &mut Value) + Send + Sync + 'static) {
        self.shared.state().tampering.id_token = Some(Arc::new(tamper));
    }

    /// Changes the next token responses.
    pub fn tamper_token_response(&self, tamper: impl Fn(&mut Value) + Send + Sync + 'static) {
        self.shared.state().tampering.token_response = Some(Arc::new(tamper));
    }

    /// Changes the discovery document.
    pub fn tamper_metadata(&self, tamper: impl Fn(&mut Value) + Send + Sync + 'static) {
        self.shared.state().tampering.metadata = Some(Arc::new(tamper));
    }

    /// Changes the key set.
    pub fn tamper_jwks(&self, tamper: impl Fn(&mut Value) + Send + Sync + 'static) {
        self.shared.state().tampering.jwks = Some(Arc::new(tamper));
    }

    /// Changes the userinfo answers.
    pub fn tamper_user_info(&self, tamper: impl Fn(&mut Value) + Send + Sync + 'static) {
        self.shared.state().tampering.user_info = Some(Arc::new(tamper));
    }

    /// Ends all tampering.
    pub fn clear_tampering(&self) {
        self.shared.state().tampering = state::Tampering::default();
    }
}

impl fmt::Debug for TestProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestProvider").field("issuer", &self.shared.issuer).finish_non_exhaustive()
    }
}

/// 256 random bits as text.
fn random() -> String {
    let mut bytes = [0; 32];
    // A test provider without randomness is one whose tokens are all alike: its tests fail.
    let _ = rand::fill(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A `NumericDate`.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
