//! What the provider knows: users, clients, sessions, tokens.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Map, Value};

use super::fault::{Endpoint, Fault, GateKeeper};
use super::keys::SigningKey;
use super::random;
use super::signed::Binding;

/// Whether access tokens can be read by the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccessTokens {
    /// Signed JWTs.
    Jwt,
    /// Opaque; APIs ask the provider about them.
    #[default]
    Reference,
}

/// Which clients' token requests, userinfo requests and introspections keep the user's session alive, and whose tokens
/// die with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Coordination {
    /// All.
    #[default]
    AllClients,
    /// None: sessions and tokens know nothing of each other.
    Off,
    /// Those that are [coordinated](TestClient::coordinated).
    PerClient,
}

/// What happens when a session has been idle for too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExpiredSessions {
    /// Nobody is told.
    StaySilent,
    /// The clients of the session get a logout token.
    #[default]
    TriggerBackchannelLogout,
}

/// Whether a refresh that finds its session expired sends the logout tokens itself, and waits for the answers, before
/// it is refused, as Keycloak does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum InlineLogout {
    /// No: the sweeper does.
    #[default]
    Off,
    /// Yes.
    On,
}

/// Whether the provider has to show something before it lets a known user pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interaction {
    /// No.
    #[default]
    NotNeeded,
    /// Yes: a silent login of a known user is refused with `interaction_required`.
    Required,
}

/// Whether authorization responses have `iss` (RFC 9207).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum IssuerInResponse {
    /// No, and the metadata say nothing.
    Absent,
    /// Yes, and the metadata say so.
    #[default]
    Present,
}

/// What becomes of the key before a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OldKeys {
    /// It leaves the key set at once.
    Drop,
    /// It stays in the key set.
    Keep,
}

/// How refresh tokens are issued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefreshTokens {
    /// Not at all.
    None,
    /// The same one is used again and again.
    Reuse,
    /// Each is used once; one that is used again revokes all that came from the same login.
    #[default]
    Rotate,
}

/// Whether DPoP proofs need a nonce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DpopNonces {
    /// They do not.
    #[default]
    NotNeeded,
    /// They do: the one that answers bring.
    Required,
}

/// Whether authorization requests may be pushed (RFC 9126).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PushedRequests {
    /// They may not.
    #[default]
    NotTaken,
    /// They have to be, of every client.
    Required,
    /// They may.
    Taken,
}

/// What the `sid` of a browser's next session is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sids {
    /// Another one; who signs in again gets another session beside.
    #[default]
    Anew,
    /// The one that it had before, also after an end by an administrator; who signs in again goes on with the session, which
    /// has a later `auth_time` from then on, also in refreshed ID tokens. As Keycloak does.
    OfTheBrowser,
}

/// How users sign in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignIn {
    /// This user is signed in without a question; a `login_hint` overrides it.
    Automatic(String),
    /// By a page that asks for a user and takes the user's name as password.
    #[default]
    Page,
}

/// A client of the provider.
#[derive(Clone)]
#[must_use]
#[expect(clippy::struct_excessive_bools, reason = "what a client may is switched one by one")]
pub struct TestClient {
    pub(super) id: String,
    pub(super) secret: String,
    pub(super) redirect_uris: Vec<String>,
    pub(super) post_logout_redirect_uris: Vec<String>,
    pub(super) backchannel_logout_uri: Option<String>,
    pub(super) is_coordinated: bool,
    pub(super) gets_sid: bool,
    pub(super) gets_refresh_token: bool,
    pub(super) access_token_lifetime: Option<Duration>,
    pub(super) resources: Vec<String>,
    pub(super) jwks_uri: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) binds_access_tokens: bool,
}

impl TestClient {
    /// A confidential client.
    pub fn new(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            secret: secret.into(),
            redirect_uris: Vec::new(),
            post_logout_redirect_uris: Vec::new(),
            backchannel_logout_uri: None,
            is_coordinated: false,
            gets_sid: true,
            gets_refresh_token: true,
            access_token_lifetime: None,
            resources: Vec::new(),
            jwks_uri: None,
            certificate: None,
            binds_access_tokens: false,
        }
    }

    /// A client at `public_url` with the routes of [`RelyingParty::routes`](crate::RelyingParty::routes).
    pub fn at(id: impl Into<String>, secret: impl Into<String>, public_url: &str) -> Self {
        Self::new(id, secret)
            .redirect_uri(format!("{public_url}/auth/callback"))
            .post_logout_redirect_uri(format!("{public_url}/"))
            .backchannel_logout_uri(format!("{public_url}/auth/backchannel-logout"))
    }

    /// Authenticates by `private_key_jwt` with keys that are fetched there, and by nothing else.
    pub fn jwks_uri(mut self, uri: impl Into<String>) -> Self {
        self.jwks_uri = Some(uri.into());
        self
    }

    /// Authenticates by this certificate (PEM), and by nothing else: `self_signed_tls_client_auth`. The provider has to be started with
    /// [`tls`](super::TestProviderBuilder::tls). Access tokens are bound to it.
    pub fn certificate(mut self, pem: &str) -> Self {
        self.certificate = certificate_hash(pem);
        self
    }

    /// Gets access tokens that are bound to a key by DPoP, or none.
    pub fn dpop_bound(mut self) -> Self {
        self.binds_access_tokens = true;
        self
    }

    /// Where the user may come back after a login.
    pub fn redirect_uri(mut self, uri: impl Into<String>) -> Self {
        self.redirect_uris.push(uri.into());
        self
    }

    /// Where the user may come back after a logout.
    pub fn post_logout_redirect_uri(mut self, uri: impl Into<String>) -> Self {
        self.post_logout_redirect_uris.push(uri.into());
        self
    }

    /// Where logout tokens go.
    pub fn backchannel_logout_uri(mut self, uri: impl Into<String>) -> Self {
        self.backchannel_logout_uri = Some(uri.into());
        self
    }

    /// Takes part in [`Coordination::PerClient`].
    pub fn coordinated(mut self) -> Self {
        self.is_coordinated = true;
        self
    }

    /// May ask for access tokens to this `resource` (RFC 8707).
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.resources.push(resource.into());
        self
    }

    /// Gets no refresh token, whatever [`RefreshTokens`] says.
    pub fn without_refresh_token(mut self) -> Self {
        self.gets_refresh_token = false;
        self
    }

    /// `expires_in` of its access tokens; default: that of the provider.
    pub fn access_token_lifetime(mut self, lifetime: Duration) -> Self {
        self.access_token_lifetime = Some(lifetime);
        self
    }

    /// Gets no `sid`, neither in ID tokens nor in logout tokens.
    pub fn without_sid(mut self) -> Self {
        self.gets_sid = false;
        self
    }
}

impl fmt::Debug for TestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestClient").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A user's session at the provider.
#[derive(Clone, Debug)]
pub struct ProviderSession {
    pub(super) sid: String,
    pub(super) sub: String,
    pub(super) cookie: String,
    pub(super) auth_time: SystemTime,
    pub(super) acr: Option<String>,
    pub(super) last_signal: SystemTime,
    pub(super) last_signal_by: Option<String>,
    pub(super) expires_at: SystemTime,
    pub(super) clients: BTreeSet<String>,
}

impl ProviderSession {
    /// The user.
    #[must_use]
    pub fn sub(&self) -> &str {
        &self.sub
    }

    /// The session's name.
    #[must_use]
    pub fn sid(&self) -> &str {
        &self.sid
    }

    /// When it ends if no client signals activity.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// When activity was signalled last, and by which client, if not by the browser.
    #[must_use]
    pub fn last_signal(&self) -> (SystemTime, Option<&str>) {
        (self.last_signal, self.last_signal_by.as_deref())
    }

    /// The clients that the user signed in to.
    #[must_use]
    pub fn clients(&self) -> Vec<String> {
        self.clients.iter().cloned().collect()
    }
}

/// A logout token that the provider sent.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LogoutDelivery {
    /// To whom.
    pub client_id: String,
    /// About which session.
    pub sid: String,
    /// The status of the answer, or why there was none.
    pub status: Result<u16, String>,
}

/// The hash of a certificate in PEM.
fn certificate_hash(pem: &str) -> Option<String> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    Some(URL_SAFE_NO_PAD.encode(digest(&SHA256, &certificate)))
}

pub(super) struct Code {
    pub(super) grant: Grant,
    /// The key that the login began with.
    pub(super) dpop_jkt: Option<String>,
    pub(super) redirect_uri: String,
    pub(super) challenge: String,
    pub(super) expires_at: SystemTime,
}

/// A pushed authorization request.
pub(super) struct Pushed {
    pub(super) parameters: HashMap<String, String>,
    pub(super) expires_at: SystemTime,
}

/// What a login gave a client.
#[derive(Clone)]
pub(super) struct Grant {
    pub(super) client_id: String,
    pub(super) sid: String,
    pub(super) sub: String,
    pub(super) scope: String,
    pub(super) nonce: Option<String>,
    pub(super) auth_time: SystemTime,
    pub(super) acr: Option<String>,
    /// All tokens that came from one login.
    pub(super) family: String,
}

/// Whom an access token is for, and what for.
#[derive(Clone)]
pub(super) struct Extent {
    pub(super) resource: Option<String>,
    pub(super) scope: String,
}

pub(super) struct IssuedAccess {
    pub(super) grant: Grant,
    pub(super) bound_to: Binding,
    pub(super) extent: Extent,
    pub(super) expires_at: SystemTime,
}

pub(super) struct IssuedRefresh {
    pub(super) grant: Grant,
    pub(super) is_used: bool,
}

pub(super) struct Settings {
    pub(super) session_lifetime: Duration,
    pub(super) access_token_lifetime: Duration,
    pub(super) refresh_tokens: RefreshTokens,
    pub(super) access_tokens: AccessTokens,
    pub(super) coordination: Coordination,
    pub(super) expired_sessions: ExpiredSessions,
    pub(super) inline_logout: InlineLogout,
    pub(super) interaction: Interaction,
    pub(super) sids: Sids,
    pub(super) sign_in: SignIn,
    pub(super) issuer_in_response: IssuerInResponse,
    pub(super) dpop_nonces: DpopNonces,
    pub(super) pushed_requests: PushedRequests,
}

pub(super) type TamperToken = Arc<dyn Fn(&mut Value, &mut Value) + Send + Sync>;
pub(super) type TamperJson = Arc<dyn Fn(&mut Value) + Send + Sync>;

/// Changes to what the provider says.
#[derive(Clone, Default)]
pub(super) struct Tampering {
    pub(super) id_token: Option<TamperToken>,
    pub(super) token_response: Option<TamperJson>,
    pub(super) metadata: Option<TamperJson>,
    pub(super) jwks: Option<TamperJson>,
    pub(super) user_info: Option<TamperJson>,
}

pub(super) struct State {
    pub(super) settings: Settings,
    /// Each with what else ID tokens and userinfo say of them.
    pub(super) users: BTreeMap<String, Map<String, Value>>,
    pub(super) clients: HashMap<String, TestClient>,
    pub(super) sessions: HashMap<String, ProviderSession>,
    pub(super) codes: HashMap<String, Code>,
    pub(super) pushed: HashMap<String, Pushed>,
    /// What clients have signed is taken once.
    pub(super) used_jtis: HashSet<String>,
    pub(super) dpop_nonce: Option<String>,
    pub(super) access: HashMap<String, IssuedAccess>,
    pub(super) refresh: HashMap<String, IssuedRefresh>,
    /// The first signs.
    pub(super) keys: Vec<Arc<SigningKey>>,
    pub(super) keys_made: usize,
    pub(super) requests: HashMap<Endpoint, u64>,
    pub(super) faults: HashMap<Endpoint, (Fault, Option<u64>)>,
    pub(super) gates: Vec<GateKeeper>,
    pub(super) tampering: Tampering,
    pub(super) revoked: u64,
    pub(super) logouts: Vec<LogoutDelivery>,
}

impl State {
    pub(super) fn fault_at(&mut self, endpoint: Endpoint) -> Option<Fault> {
        let (fault, times) = self.faults.get_mut(&endpoint)?;
        match times {
            None => Some(fault.clone()),
            Some(0) => None,
            Some(left) => {
                *left -= 1;
                Some(fault.clone())
            }
        }
    }

    pub(super) fn coordinates(&self, client_id: &str) -> bool {
        match self.settings.coordination {
            Coordination::AllClients => true,
            Coordination::Off => false,
            Coordination::PerClient => self.clients.get(client_id).is_some_and(|client| client.is_coordinated),
        }
    }

    /// The session that a browser's cookie names, if it stands.
    pub(super) fn session_of(&self, cookie: &str, now: SystemTime) -> Option<&ProviderSession> {
        self.sessions.values().find(|session| session.cookie == cookie && now < session.expires_at)
    }

    /// `browser` is the cookie that the browser has already.
    pub(super) fn begin_session(
        &mut self,
        sub: &str,
        acr: Option<String>,
        browser: Option<&str>,
        now: SystemTime,
    ) -> ProviderSession {
        let sid = match (self.settings.sids, browser.and_then(|cookie| cookie.split_once('.'))) {
            (Sids::OfTheBrowser, Some((_, sid))) if self.sessions.get(sid).is_none_or(|known| known.sub == sub) => {
                sid.to_owned()
            }
            (Sids::Anew | Sids::OfTheBrowser, _) => random(),
        };
        let expires_at = now + self.settings.session_lifetime;
        if let Some(known) = self.sessions.get_mut(&sid) {
            *known = ProviderSession { auth_time: now, acr, last_signal: now, expires_at, ..known.clone() };
            return known.clone();
        }
        let session = ProviderSession {
            cookie: format!("{}.{sid}", random()),
            sid,
            sub: sub.to_owned(),
            auth_time: now,
            acr,
            last_signal: now,
            last_signal_by: None,
            expires_at,
            clients: BTreeSet::new(),
        };
        self.sessions.insert(session.sid.clone(), session.clone());
        session
    }

    /// The `auth_time` of an ID token for a grant.
    pub(super) fn auth_time(&self, grant: &Grant) -> SystemTime {
        match (self.settings.sids, self.sessions.get(&grant.sid)) {
            (Sids::OfTheBrowser, Some(session)) => session.auth_time,
            (Sids::Anew | Sids::OfTheBrowser, _) => grant.auth_time,
        }
    }

    /// Whether the session behind a token of a client stands, where that matters.
    pub(super) fn grant_stands(&self, grant: &Grant, now: SystemTime) -> bool {
        !self.coordinates(&grant.client_id)
            || self.sessions.get(&grant.sid).is_some_and(|session| now < session.expires_at)
    }

    /// Takes the use of a token as a sign of life.
    pub(super) fn signal(&mut self, grant: &Grant, now: SystemTime) {
        if !self.coordinates(&grant.client_id) {
            return;
        }
        let lifetime = self.settings.session_lifetime;
        if let Some(session) = self.sessions.get_mut(&grant.sid) {
            session.last_signal = now;
            session.last_signal_by = Some(grant.client_id.clone());
            session.expires_at = now + lifetime;
        }
    }

    pub(super) fn revoke_family(&mut self, family: &str) {
        self.access.retain(|_, token| token.grant.family != family);
        self.refresh.retain(|_, token| token.grant.family != family);
    }

    /// Ends a session and the tokens that die with it, and says who has to be told.
    pub(super) fn end(&mut self, sid: &str) -> Option<ProviderSession> {
        let session = self.sessions.remove(sid)?;
        let families: Vec<String> = self
            .refresh
            .values()
            .map(|token| &token.grant)
            .chain(self.access.values().map(|token| &token.grant))
            .filter(|grant| grant.sid == sid && self.coordinates(&grant.client_id))
            .map(|grant| grant.family.clone())
            .collect();
        for family in families {
            self.revoke_family(&family);
        }
        self.codes.retain(|_, code| code.grant.sid != sid);
        Some(session)
    }
}
