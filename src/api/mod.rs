//! Calls to APIs on behalf of a session, as an application makes them.

pub(crate) mod client;
pub(crate) mod error;
mod hop;
pub(crate) mod layer;
pub(crate) mod request;
pub(crate) mod response;
mod sender;
