//! Who hears of ends in this process; the same for every store.

use std::sync::{PoisonError, RwLock};

use super::{EndListener, EndNotice};

#[derive(Default)]
pub(crate) struct Listeners(RwLock<Vec<EndListener>>);

impl Listeners {
    pub(crate) fn add(&self, listener: EndListener) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    pub(crate) fn tell(&self, notice: EndNotice) {
        let listeners = self.0.read().unwrap_or_else(PoisonError::into_inner);
        for listener in listeners.iter() {
            listener(notice);
        }
    }
}
