//! wip

mod clock;
mod ends;
mod manager;
mod protocol;
mod provider;
mod registry;
mod session;
#[cfg(feature = "test-provider")]
pub mod test_provider;

pub use clock::{Clock, Sleep, SystemClock};
pub use protocol::jwt::SigningAlg;
pub use protocol::logout_token::{LogoutTokenPolicy, LogoutTokenTyp, MissingExpiry};
pub use protocol::names::{AccessToken, ClientId, ClientSecret, Issuer, Sid, Subject};
pub use registry::memory::MemoryRegistry;
pub use registry::*;
pub use session::event::{EndReason, SessionEvent, SessionInfo};
pub use session::id::SessionKey;
pub use session::policy::SessionPolicy;
pub use session::record::{ActivitySignal, Registration, SessionRecord, Version};
