//! All traffic to the provider: `requests` to its endpoints, `user_info`, its `keys`, and here what it says of itself.

pub(crate) mod cached;
pub(crate) mod certificate;
pub(crate) mod circuit;
pub(crate) mod credentials;
pub(crate) mod dpop;
pub(crate) mod given;
pub(crate) mod http;
pub(crate) mod keys;
mod post;
pub(crate) mod requests;
mod shown;
pub(crate) mod signing_key;
pub(crate) mod transmitter;
pub(crate) mod user_info;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use url::Url;

use self::cached::{Cached, Fetched, Held, Newer};
use self::circuit::{Circuit, Failure, Open};
use self::credentials::Credentials;
use self::dpop::Dpop;
use self::http::{Answer, Http, NoAnswer};
use crate::clock::Clock;
use crate::protocol::authorization::{Initiation, IssuerParameter};
use crate::protocol::issuers::Issuers;
use crate::protocol::jwt::{Expected, KeySet, Moment, SigningAlg};
use crate::protocol::metadata::{ProviderMetadata, at_origin};
use crate::protocol::names::{Issuer, Registration};
use crate::protocol::url::PlainHttp;
use crate::session::authorization_parameters::AuthorizationParameters;
use crate::session::id::ClientTag;

/// How far the clocks of provider and application may be apart.
pub(crate) const CLOCK_TOLERANCE: Duration = Duration::from_secs(30);

/// Endpoints that are gone make the metadata be fetched at most once in this time.
const FORCED_METADATA_INTERVAL: Duration = Duration::from_secs(30);

/// Whether authorization requests are pushed to the provider, so that browsers bring no more than their name
/// ([RFC 9126](https://www.rfc-editor.org/rfc/rfc9126)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PushedAuthorization {
    /// Never.
    Off,
    /// Always: with a provider that does not take them nobody signs in.
    Required,
    /// Where the provider's metadata name an endpoint for them.
    #[default]
    WhereOffered,
}

/// What the provider knows this application by.
#[derive(Debug)]
pub(crate) struct ClientConfig {
    pub(crate) registration: Registration,
    /// Whose tokens are taken: the registration's issuer's, or its tenants'.
    pub(crate) issuers: Issuers,
    /// A short name of the registration.
    pub(crate) tag: ClientTag,
    pub(crate) credentials: Credentials,
    /// The keys that access tokens are bound to, if they are.
    pub(crate) dpop: Option<Dpop>,
    pub(crate) pushed_authorization: PushedAuthorization,
    pub(crate) issuer_parameter: IssuerParameter,
    pub(crate) initiation: Initiation,
    pub(crate) redirect_uri: Url,
    pub(crate) post_logout_redirect_uri: Url,
    pub(crate) scopes: Vec<String>,
    pub(crate) signing_alg: SigningAlg,
    /// What access tokens are asked for besides the first (RFC 8707).
    pub(crate) resources: Vec<String>,
    pub(crate) parameters: AuthorizationParameters,
    /// Where the application itself finds the provider, if not where browsers do.
    pub(crate) inside: Option<Url>,
    pub(crate) plain_http: PlainHttp,
}

impl ClientConfig {
    /// Whether sessions of that registration are this client's.
    pub(crate) fn is(&self, registration: &Registration) -> bool {
        registration.is(&self.registration)
            || registration.client_id() == self.registration.client_id()
                && self.issuers.have(registration.issuer().as_str())
    }

    /// The client as that issuer knows it, which is one of its own.
    pub(crate) fn at(&self, issuer: Issuer) -> Registration {
        if issuer == *self.registration.issuer() {
            // The same strings: to be compared by their addresses, at each request.
            return self.registration.clone();
        }
        Registration::new(issuer, self.registration.client_id().clone())
    }
}

#[derive(Debug)]
pub(crate) struct Provider {
    client: ClientConfig,
    http: Http,
    clock: Arc<dyn Clock>,
    metadata: Cached<ProviderMetadata>,
    keys: Cached<KeySet>,
    circuit: Mutex<Circuit>,
    reported_metadata: AtomicBool,
}

/// The provider did not answer, or is being spared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the provider is unavailable: {reason}")]
pub(crate) struct Unavailable {
    pub(crate) reason: String,
    pub(crate) retry_after: Option<Duration>,
    /// Whether the provider may have acted on the request all the same.
    pub(crate) sent: Sent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Maybe,
    No,
}

impl Unavailable {
    fn not_sent(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), retry_after: None, sent: Sent::No }
    }
}

impl From<NoAnswer> for Unavailable {
    fn from(no_answer: NoAnswer) -> Self {
        let sent = match &no_answer {
            NoAnswer::NotSent(_) => Sent::No,
            NoAnswer::Lost(_) => Sent::Maybe,
        };
        Self { reason: no_answer.to_string(), retry_after: None, sent }
    }
}

impl From<Open> for Unavailable {
    fn from(open: Open) -> Self {
        Self { retry_after: Some(open.retry_after), ..Self::not_sent("it failed a moment ago and is left in peace") }
    }
}

impl Provider {
    pub(crate) fn new(client: ClientConfig, http: Http, clock: Arc<dyn Clock>) -> Self {
        Self {
            client,
            http,
            clock,
            metadata: Cached::new(),
            keys: Cached::new(),
            circuit: Mutex::new(Circuit::new()),
            reported_metadata: AtomicBool::new(false),
        }
    }

    pub(crate) fn client(&self) -> &ClientConfig {
        &self.client
    }

    /// The bound on one call.
    pub(crate) fn timeout(&self) -> Duration {
        self.http.timeout()
    }

    /// Whether the metadata have been fetched.
    pub(crate) fn is_known(&self) -> bool {
        self.metadata.peek().is_some()
    }

    /// The metadata, if they have been fetched before.
    pub(crate) fn known_metadata(&self) -> Option<Arc<ProviderMetadata>> {
        self.metadata.peek().map(|copy| copy.value)
    }

    /// The metadata: a copy at once if there is one, fetched now if there is none.
    pub(crate) async fn metadata(self: &Arc<Self>) -> Result<Arc<ProviderMetadata>, Unavailable> {
        let copy = match self.metadata.held(self.clock.now()) {
            Held::Good(copy) => copy,
            Held::Due(copy) => {
                self.renew_metadata_in_background(copy.clone());
                copy
            }
            Held::Nothing => match self.metadata.renew(None, &*self.clock, || self.fetch_metadata()).await {
                Newer::Found(copy) => copy,
                Newer::TooSoon | Newer::Unavailable => {
                    return Err(Unavailable::not_sent("its metadata could not be fetched"));
                }
            },
        };
        Ok(copy.value)
    }

    /// An endpoint is not where the metadata say: they may have changed.
    fn endpoint_is_gone(self: &Arc<Self>) {
        let Some(old) = self.metadata.peek() else { return };
        let provider = self.clone();
        tokio::spawn(async move {
            let fetch = || provider.fetch_metadata();
            provider.metadata.force(&old, FORCED_METADATA_INTERVAL, &*provider.clock, fetch).await;
        });
    }

    fn renew_metadata_in_background(self: &Arc<Self>, old: Fetched<ProviderMetadata>) {
        let provider = self.clone();
        tokio::spawn(async move {
            provider.metadata.renew(Some(&old), &*provider.clock, || provider.fetch_metadata()).await;
        });
    }

    async fn fetch_metadata(&self) -> Option<ProviderMetadata> {
        let issuer = self.client.registration.issuer();
        let location = ProviderMetadata::location(issuer);
        let inside = self.client.inside.as_ref();
        let location = match (inside, Url::parse(&location)) {
            (Some(inside), Ok(outside)) => at_origin(&outside, inside).into(),
            _ => location,
        };
        let answer = self.fetch("discovery", &location).await?;
        match ProviderMetadata::parse(&answer.body, &self.client.issuers, &self.client.plain_http) {
            Ok(metadata) => {
                let metadata =
                    if self.client.credentials.show_certificate() { metadata.for_mutual_tls() } else { metadata };
                let metadata = match inside {
                    Some(inside) => metadata.seen_from_inside(issuer, inside),
                    None => metadata,
                };
                self.report(&metadata);
                Some(metadata)
            }
            Err(error) => {
                tracing::error!(%issuer, %error, "the provider's metadata cannot be used");
                None
            }
        }
    }

    async fn fetch(&self, what: &'static str, url: &str) -> Option<Answer> {
        metrics::counter!("oidc_provider_fetches_total", "what" => what).increment(1);
        match self.http.get(url, ::http::HeaderMap::new()).await {
            Ok(answer) if answer.status == ::http::StatusCode::OK => Some(answer),
            Ok(answer) => {
                tracing::warn!(url, status = %answer.status, "the provider did not answer with its {what}");
                None
            }
            Err(error) => {
                tracing::warn!(url, %error, "the provider could not be asked for its {what}");
                None
            }
        }
    }

    /// Says once where the provider's metadata contradict what sessions rely on.
    fn report(&self, metadata: &ProviderMetadata) {
        if self.reported_metadata.swap(true, Ordering::Relaxed) {
            return;
        }
        let issuer = self.client.registration.issuer();
        if !metadata.unreadable.is_empty() {
            tracing::warn!(%issuer, members = ?metadata.unreadable, "members of the provider's metadata cannot be read: \
                they are taken as absent");
        }
        if !metadata.backchannel_logout_supported {
            tracing::warn!(%issuer, "the provider does not declare backchannel_logout_supported: \
                sessions end when a refresh is refused, which takes up to access_token_lifetime of activity");
        } else if !metadata.backchannel_logout_session_supported {
            tracing::warn!(%issuer, "the provider does not declare backchannel_logout_session_supported: \
                a logout may end all sessions of the user");
        }
        if !metadata.code_challenge_methods_supported.iter().flatten().any(|method| method == "S256") {
            tracing::warn!(%issuer, "the provider does not declare S256 in code_challenge_methods_supported: \
                PKCE may not protect its logins");
        }
        let alg = self.client.signing_alg.as_str();
        if metadata.id_token_signing_alg_values_supported.as_ref().is_some_and(|algs| !algs.iter().any(|a| a == alg)) {
            tracing::warn!(%issuer, alg, "the provider does not declare the signing algorithm in \
                id_token_signing_alg_values_supported: its ID tokens may be refused");
        }
        let algs = metadata.dpop_signing_alg_values_supported.as_deref().unwrap_or_default();
        if let Some(key) = self.current_key()
            && !algs.iter().any(|alg| alg == key.alg().as_str())
        {
            tracing::warn!(%issuer, alg = key.alg().as_str(), "the provider does not declare the algorithm of the DPoP key \
                in dpop_signing_alg_values_supported: its logins may fail");
        }
        if self.client.credentials.show_certificate()
            && self.client.dpop.is_none()
            && !metadata.tls_client_certificate_bound_access_tokens
        {
            tracing::warn!(%issuer, "the provider does not declare tls_client_certificate_bound_access_tokens: \
                its access tokens may be bound to nothing");
        }
        if self.client.issuer_parameter == IssuerParameter::Required
            && !metadata.authorization_response_iss_parameter_supported
        {
            tracing::error!(%issuer, "the provider does not declare authorization_response_iss_parameter_supported, \
                which fapi2 needs: nobody can sign in if it sends no iss");
        }
        match (self.client.pushed_authorization, &metadata.pushed_authorization_request_endpoint) {
            (PushedAuthorization::Off, _) if metadata.require_pushed_authorization_requests => {
                tracing::error!(%issuer, "the provider requires pushed authorization requests, which are off: nobody can sign in");
            }
            (PushedAuthorization::Required, None) => {
                tracing::error!(%issuer, "the provider takes no pushed authorization requests, which are required: \
                    nobody can sign in");
            }
            _ => {}
        }
        if metadata.end_session_endpoint.is_none() {
            tracing::warn!(%issuer, "the provider declares no end_session_endpoint: \
                a logout here leaves the user logged in there");
        }
    }

    /// What the claims of the provider's tokens are compared with.
    pub(crate) fn expected(&self) -> Expected<'_> {
        Expected {
            issuers: &self.client.issuers,
            client_id: self.client.registration.client_id(),
            at: Moment { now: self.clock.now(), tolerance: CLOCK_TOLERANCE },
        }
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) -> Result<(), Open> {
        self.circuit().enter(self.clock.now(), self.timeout())
    }

    fn leave(&self, outcome: Result<(), Failure>) {
        let now = self.clock.now();
        let mut circuit = self.circuit();
        let was_open = circuit.has_opened();
        match outcome {
            Ok(()) => circuit.succeeded(),
            Err(failure) => circuit.failed(failure, now),
        }
        let is_open = circuit.has_opened();
        drop(circuit);
        if is_open != was_open {
            let issuer = self.client.registration.issuer().as_str().to_owned();
            metrics::gauge!("oidc_provider_circuit_open", "issuer" => issuer).set(f64::from(u8::from(is_open)));
        }
    }

    /// An answer is longer in coming than a request has patience: whoever comes next is served without it.
    pub(crate) fn is_slow(&self) {
        self.leave(Err(Failure::Transport));
    }
}
