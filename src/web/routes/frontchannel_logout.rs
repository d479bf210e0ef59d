//! `GET /auth/frontchannel-logout?iss=…&sid=…`: a page of the provider has the browser load this in a frame.
//!
//! [Front-Channel Logout 1.0](https://openid.net/specs/openid-connect-frontchannel-1_0.html). Nothing proves that it was the provider's page:
//! who knows a `sid` can end its session, and that is all. So it leaves no tombstone, revokes nothing, and says of no `sid`
//! whether there is one: the answer is the same, whatever becomes of it, and comes after the same time. Cookies are not needed, as browsers send none to
//! frames of other sites.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{StatusCode, Uri};
use url::Url;

use super::own_session::OwnContext;
use crate::protocol::authorization::single;
use crate::protocol::names::{Issuer, Sid};
use crate::web::context::{Context, FrontChannel};

/// Every answer takes so long. Where the store needs longer, sessions are found and ended after it.
const ANSWER_TIME: Duration = Duration::from_millis(150);

pub(super) async fn frontchannel_logout(OwnContext(context): OwnContext, uri: Uri) -> Response {
    if context.front_channel() == FrontChannel::Off {
        return StatusCode::NOT_FOUND.into_response();
    }
    let (iss, sid) = match parameters(uri.query().unwrap_or_default()) {
        Some((iss, sid)) if context.provider().client().issuers.have(iss.as_str()) => (iss, sid),
        _ => return answer(&context, StatusCode::BAD_REQUEST),
    };
    let registration = context.provider().client().at(iss);
    // It goes on, however long it takes.
    if context.manager().end_by_front_channel(registration, sid).is_none() {
        context.junk(
            |junk| &junk.links,
            |unwritten| tracing::warn!(unwritten, "a front-channel logout was not followed: there are too many"),
        );
    }
    tokio::time::sleep(ANSWER_TIME).await;
    answer(&context, StatusCode::OK)
}

/// `iss` and `sid`, once each.
fn parameters(query: &str) -> Option<(Issuer, Sid)> {
    let one = |name| single(query, name).ok().flatten();
    Some((Issuer::new(one("iss")?), Sid::new(one("sid")?)))
}

/// A page for a frame of the provider's, and of nobody else.
fn answer(context: &Context, status: StatusCode) -> Response {
    let issuer = Url::parse(context.registration().issuer().as_str());
    let may_frame = issuer.map_or_else(|_| "'none'".to_owned(), |url| url.origin().ascii_serialization());
    let headers = [
        (CACHE_CONTROL, "no-store".to_owned()),
        (CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (CONTENT_SECURITY_POLICY, format!("default-src 'none'; frame-ancestors {may_frame}")),
    ];
    (status, headers, "<!doctype html><html lang=\"en\"><title>Sign-out</title></html>").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_parameters_have_to_be_there_once() {
        for (query, expected) in [
            ("iss=https://op.example&sid=a%2Fb", Some(("https://op.example", "a/b"))),
            ("sid=s&other=x&iss=i", Some(("i", "s"))),
            ("iss=i", None),
            ("sid=s", None),
            ("iss=i&sid=", None),
            ("iss=&sid=s", None),
            ("iss=i&sid=s&sid=t", None),
            ("iss=i&iss=i&sid=s", None),
            ("", None),
        ] {
            let found = parameters(query);
            let found = found.as_ref().map(|(iss, sid)| (iss.as_str(), sid.as_str()));
            assert_eq!(found, expected, "{query}");
        }
    }
}
