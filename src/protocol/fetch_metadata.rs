//! The headers by which browsers say what a request is for
//! ([Fetch Metadata](https://www.w3.org/TR/fetch-metadata/)).

use http::HeaderName;

pub(crate) static SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
pub(crate) static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
pub(crate) static SEC_FETCH_USER: HeaderName = HeaderName::from_static("sec-fetch-user");
pub(crate) static SEC_PURPOSE: HeaderName = HeaderName::from_static("sec-purpose");
/// What older browsers call [`SEC_PURPOSE`].
pub(crate) static PURPOSE: HeaderName = HeaderName::from_static("purpose");
