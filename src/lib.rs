//! Tower layers and axum routes for applications that sign users in with OpenID Connect. The local session lives
//! exactly as long as the user's session at the OpenID provider, on every replica, whatever fails.
//!
//! While a user is active, the application refreshes its tokens, which the provider takes as a sign of life. A refused
//! refresh, a 401 from an API or a back-channel logout token ends the local session. So a whole system has one
//! inactivity timeout, the provider's.
//!
//! Begin with [`RelyingParty`], which has an example. Handlers take [`OidcSession`] and [`SessionClient`]; durations and
//! what counts as activity are a [`SessionPolicy`]; why a session ended is an [`EndReason`].
//!
//! ```text
//! request ─ layer ─ admit ─ load record ─ decide(record, policy, now, kind) ─┬ Proceed ──────────────┬─ handler ─ response
//!                                                                           ├ Signal ─ refresh ─────┤
//!                                                                           └ End ─ 401 or login, cookie gone
//! API answers 401 ─ SessionClient ─ refresh once, send once more ─ End(AccessTokenRejected)
//! logout token ─ receiver ─ validate ─ registry.end_matching ─ 200 | 400 | 503
//! ```
//!
//! # Routes
//!
//! | route | what it does |
//! |---|---|
//! | `GET /auth/login?return_to=/path` | sends the browser to the provider |
//! | `GET /auth/callback` | takes its answer and starts the session |
//! | `POST /auth/logout` | ends the session, then goes on to the provider's logout |
//! | `POST /auth/backchannel-logout` | takes the provider's logout tokens |
//! | `GET /auth/session` | `{"authenticated": true, "state": "confirmed", "sub": …, "idle_expires_in": seconds, "absolute_expires_in": seconds}`, or `false` with the state `none`, `ended` (and why) or `unconfirmed` (a click will ask the provider); no activity |
//! | `POST /auth/session` | "stay signed in": signals the provider now |
//!
//! # What is checked, and what is not
//!
//! ID tokens and logout tokens are checked by signature and claim. Access tokens are not looked into: they are the
//! API's to judge. A session that the provider ended without a word is noticed at the next signal, at most
//! [`access_token_lifetime`](SessionPolicy::access_token_lifetime) of activity later. Responses that are under way when
//! their session ends are cut if they stream; a short one is finished.
//!
//! # Features
//!
//! Features only add; `tower-sessions` is on by default.
//!
//! | feature | what there is with it |
//! |---|---|
//! | `redis` | `RedisRegistry`: sessions in Redis or Valkey, shared by replicas |
//! | `postgres` | `PostgresRegistry`: sessions in PostgreSQL, shared by replicas |
//! | `openidconnect` | `OidcSession::id_token_claims`: claims as the types of that crate |
//! | `test-provider` | `test_provider`: a provider for tests and demonstrations, a clock set by hand, and the contract of [`SessionRegistry`] as checks |
//! | `tower-sessions` | data of your own in [tower-sessions](https://docs.rs/tower-sessions) 0.15: the registries are its stores, and it goes when the login goes |
//!
//! # Metrics
//!
//! Through the `metrics` facade; described at [`build`](RelyingPartyBuilder::build) to the recorder that is installed by then.
//!
//! | metric | labels | counts |
//! |---|---|---|
//! | `oidc_sessions_started_total` | | sessions that began |
//! | `oidc_sessions_ended_total` | `reason` | sessions that ended |
//! | `oidc_login_failures_total` | | logins that came to nothing |
//! | `oidc_refreshes_total` | `outcome` | refreshes |
//! | `oidc_logout_tokens_total` | `outcome` | logout tokens |
//! | `oidc_security_events_total` | `outcome` | pushed security events: accepted, refused, unavailable |
//! | `oidc_provider_fetches_total` | `what` | fetches of the provider's metadata and keys |
//! | `oidc_provider_call_seconds` | `outcome` | a histogram: how long calls to the provider took |
//! | `oidc_api_at_fault_total` | | APIs that rejected everybody |
//! | `oidc_store_call_seconds` | `store` | a histogram: how long calls to Redis or PostgreSQL took |
//! | `oidc_sessions` | | a gauge: about how many sessions the store has, of all who share it; counted once a minute |
//! | `oidc_refreshes_under_way` | | a gauge: signals to the provider that are under way in this process |
//! | `oidc_provider_circuit_open` | `issuer` | a gauge: 1 while a provider that fails is left in peace |
//!
//! # Traces
//!
//! Spans of `tracing`, with the fields that `tracing-opentelemetry` reads: `oidc_signal` for a signal to the provider, with its
//! `session`, and `oidc_provider_call` below it, of the kind `client`, named by the semantic conventions of HTTP. They
//! belong to the request that began them, if that has a span.

#![cfg_attr(docsrs, feature(doc_cfg))]

/// What the README shows compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod api;
mod builder;
mod calls;
mod clock;
mod error;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod manager;
/// What the crate decides for you: every constant, and why it is what it is; and what others have taught it.
pub mod manual {
    #![doc = include_str!("../docs/constants.md")]

    /// FAPI 2.0, clause by clause.
    pub mod fapi {
        #![doc = include_str!("../docs/fapi.md")]
    }

    /// What went wrong elsewhere, and what is done here.
    pub mod lessons {
        #![doc = include_str!("../docs/lessons.md")]
    }
}
mod profile;
mod protocol;
mod provider;
pub mod registry;
mod relying_parties;
mod relying_party;
mod session;
#[cfg(feature = "test-provider")]
pub mod test_provider;
mod web;

pub use api::client::SessionClient;
pub use api::error::{ApiError, ApiErrorKind};
pub use api::layer::{SessionClientLayer, SessionClientService};
pub use api::request::SessionRequest;
pub use api::response::ApiResponse;
pub use builder::{Dangerous, RelyingPartyBuilder};
pub use calls::api::{Api, Unexplained};
pub use clock::{Clock, Sleep, SystemClock};
pub use error::ConfigError;
pub use protocol::issuers::IssuerTenants;
pub use protocol::jwt::SigningAlg;
pub use protocol::logout_token::{LogoutTokenPolicy, LogoutTokenTyp, MissingExpiry};
pub use protocol::names::{AccessToken, ClientId, ClientSecret, Issuer, Registration, Sid, Subject};
pub use provider::PushedAuthorization;
pub use provider::certificate::ClientCertificate;
pub use provider::credentials::{ClientAuthentication, ClientCredentials};
pub use provider::signing_key::{Signer, SigningKey};
pub use provider::transmitter::EventTransmitter;
pub use registry::memory::MemoryRegistry;
#[cfg(feature = "postgres")]
pub use registry::postgres::PostgresRegistry;
#[cfg(feature = "redis")]
pub use registry::redis::RedisRegistry;
pub use registry::{LogoutTarget, RegistryError, SessionRegistry, StorageKey};
pub use relying_parties::{RelyingParties, RelyingPartiesBuilder, TenantUnknown};
pub use relying_party::{NotReady, RelyingParty};
pub use session::browser::Browser;
pub use session::end_reason::{EndReason, UnknownEndReason};
pub use session::event::{EventKind, SessionEvent, SessionInfo};
pub use session::id::{SessionKey, UnknownSessionKey};
pub use session::new_login::{LoginRefused, NewLogin};
pub use session::policy::{ClaimsFrom, SessionPolicy};
pub use session::record::ActivitySignal;
pub use web::cookie::CookieKey;
pub use web::extract::{OidcSession, SessionOver};
pub use web::layer::{SessionFuture, SessionLayer, SessionService};
pub use web::pages::{Page, PageKind};
pub use web::passive::{Passive, PassiveLayer};
pub use web::reject::{RejectionKind, SessionRejection};
pub use web::require::{RequireSession, RequireSessionFuture, RequireSessionLayer};
pub use web::wiring::WiringError;
