//! In the place of `app_data.rs` without the feature `tower-sessions`: no request has any data.

pub(crate) use std::convert::Infallible as Error;
use std::future::{Ready, ready};

use http::Extensions;

use crate::session::id::SessionKey;

/// There is none.
pub(crate) enum AppData {}

pub(crate) fn of(_: &Extensions) -> Option<AppData> {
    None
}

pub(crate) fn bind(data: &AppData, _: &SessionKey, _: Option<&SessionKey>) -> Ready<Result<(), Error>> {
    match *data {}
}

pub(crate) fn flush(_: Option<AppData>) -> Ready<()> {
    ready(())
}
