//! The lease by which one replica refreshes for all.

use std::time::Instant;

use crate::registry::rules::Held;
use crate::registry::{LAPSE_GRACE, LeaseHolder};

/// A lease, which goes by real time as those in other stores do.
pub(super) struct Leased {
    pub(super) holder: LeaseHolder,
    pub(super) until: Instant,
    pub(super) contested: Option<Instant>,
}

impl Leased {
    /// What it is worth now; nothing when its time is over for good.
    pub(super) fn held(&self, now: Instant) -> Option<Held<LeaseHolder>> {
        match self.contested {
            _ if now < self.until => Some(Held::Running(self.holder)),
            None => Some(Held::Lapsed(self.holder)),
            Some(since) if now < since + LAPSE_GRACE => Some(Held::Contested(self.holder)),
            Some(_) => None,
        }
    }
}
