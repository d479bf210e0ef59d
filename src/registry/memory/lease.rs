//! The lease by which one replica refreshes for all.

use std::time::Instant;

use crate::registry::LeaseHolder;
use crate::registry::rules::Held;

/// A lease, which goes by real time as those in other stores do.
pub(super) struct Leased {
    pub(super) holder: LeaseHolder,
    pub(super) until: Instant,
    pub(super) contested: Option<Instant>,
}

impl Leased {
    /// What it is worth now; nothing when its time is over for good.
    pub(super) fn held(&self, now: Instant) -> Option<Held<LeaseHolder>> {
        Held::at(now, self.holder, self.until, self.contested)
    }
}
