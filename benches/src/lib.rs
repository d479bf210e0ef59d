//! The contestants: one small application, bare and with the sessions of this crate and of its peers around it.

pub mod clock;
pub mod contestants;
pub mod figure;
#[cfg(feature = "all")]
pub mod peers;
pub mod random;
#[cfg(feature = "all")]
pub mod stores;
pub mod user;
