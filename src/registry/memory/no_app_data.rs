//! In the place of `app_data.rs` without the feature `tower-sessions`: there is no data.

#![expect(clippy::unused_self, reason = "in the place of one that holds something")]

use crate::session::id::SessionKey;

#[derive(Default)]
pub(super) struct AppData;

impl AppData {
    pub(super) fn delete_bound(&mut self, _: &SessionKey) {}

    pub(super) fn remove_expired(&mut self, _: usize) -> usize {
        0
    }
}
