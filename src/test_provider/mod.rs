//! wip

mod clock;

pub use clock::ManualClock;
