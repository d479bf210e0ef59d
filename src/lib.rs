//! Sessions of web applications that live exactly as long as the user's session at the OpenID provider.

mod api;
mod app_data;
mod clock;
mod config;
mod cookie;
mod cross_site;
mod ends;
mod extract;
mod layer;
mod manager;
mod protocol;
mod provider;
mod registry;
mod relying_party;
mod request_session;
mod require;
mod respond;
mod routes;
mod session;
mod stream;
#[cfg(feature = "test-provider")]
pub mod test_provider;
mod upgrade;

pub use api::client::{ApiError, SessionClient};
pub use clock::{Clock, Sleep, SystemClock};
pub use config::{ClientCredentials, ConfigError, CookieKey, RelyingPartyBuilder};
pub use extract::{OidcSession, SessionOver};
pub use layer::{SessionLayer, SessionService};
pub use manager::start::UserInfo;
pub use protocol::jwt::SigningAlg;
pub use protocol::logout_token::{LogoutTokenPolicy, LogoutTokenTyp, MissingExpiry};
pub use protocol::names::{AccessToken, ClientId, Issuer, Sid, Subject};
pub use registry::memory::MemoryRegistry;
pub use registry::{
    Claimed, Committed, Created, EndListener, EndNotice, Lease, LeaseHolder, Loaded, LogoutTarget, RegistryError,
    SessionRegistry, TOMBSTONE_RETENTION, TOMBSTONE_TOLERANCE,
};
pub use relying_party::RelyingParty;
pub use require::{Passive, PassiveLayer, RequireSession, RequireSessionLayer};
pub use respond::SessionRejection;
pub use session::event::{EndReason, SessionEvent, SessionInfo};
pub use session::id::SessionKey;
pub use session::policy::SessionPolicy;
pub use session::record::{ActivitySignal, Registration, SessionRecord, Version};
