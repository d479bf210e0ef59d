//! Who hears of ends in this process; the same for every store.

use std::fmt;
use std::sync::{PoisonError, RwLock};

use super::{EndListener, EndNotice};

/// Who [subscribed](super::SessionRegistry::subscribe) to a registry's notices, for registries.
#[derive(Default)]
pub struct Listeners(RwLock<Vec<EndListener>>);

impl Listeners {
    /// Tells `listener` of every notice from now on.
    pub fn add(&self, listener: EndListener) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    /// Tells all of it.
    pub fn tell(&self, notice: EndNotice) {
        let listeners = self.0.read().unwrap_or_else(PoisonError::into_inner);
        for listener in listeners.iter() {
            listener(notice);
        }
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listeners").finish_non_exhaustive()
    }
}
