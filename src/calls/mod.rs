//! HTTP out: calls to APIs on behalf of a session. [`api`](crate::api) is the face, this the engine.

pub(crate) mod api;
pub(crate) mod body;
pub(crate) mod call;
mod fault;
mod judge;
pub(crate) mod listed;
pub(crate) mod transport;
