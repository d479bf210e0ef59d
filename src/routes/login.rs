//! `GET /auth/login`: sends the browser to the provider.

use axum::extract::State;
use axum::response::Response;
use http::header::SET_COOKIE;
use http::{HeaderMap, StatusCode, Uri};
use url::form_urlencoded;

use super::Claimed;
use crate::manager::RetryAfter;
use crate::protocol::authorization::{Authentication, LoginTransaction, Prompt, ReturnTo};
use crate::relying_party::RelyingParty;
use crate::respond::{page, redirect, with_retry_after};
use crate::session::id::random_text;

pub(super) async fn login(
    State(rp): State<RelyingParty>,
    Claimed(session): Claimed,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let mut wanted =
        form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).filter(|(name, _)| name == "return_to");
    let return_to = match (wanted.next(), wanted.next()) {
        (None, _) => Some(ReturnTo::front_page()),
        (Some((_, path)), None) => ReturnTo::parse(&path, rp.public_url()),
        (Some(_), Some(_)) => None,
    };
    let authentication = Authentication::parse(uri.query().unwrap_or_default());
    let (Some(return_to), Some(authentication)) = (return_to, authentication) else {
        tracing::info!("a login was refused: return_to is not one path of this application, or a parameter is wrong");
        return page(StatusCode::BAD_REQUEST, "Cannot sign in", "The link that brought you here is not valid.");
    };
    let transaction = LoginTransaction {
        state: random_text(),
        nonce: random_text(),
        pkce_verifier: random_text(),
        return_to,
        started_at: rp.manager().clock().now(),
        session: session.key().copied().filter(|_| authentication.prompt == Prompt::None),
        authentication,
    };
    match rp.manager().provider().authorization_url(&transaction).await {
        Ok(url) => {
            let mut response = redirect(url.as_str());
            for cookie in rp.cookies().set_login(&headers, &transaction) {
                response.headers_mut().append(SET_COOKIE, cookie);
            }
            response
        }
        Err(error) => {
            tracing::warn!(%error, "a login could not begin");
            unavailable(error.retry_after)
        }
    }
}

/// The page for a provider or registry that is out of reach.
pub(super) fn unavailable(retry_after: Option<std::time::Duration>) -> Response {
    let text = "Signing in is not possible at the moment. Please try again shortly.";
    let page = page(StatusCode::SERVICE_UNAVAILABLE, "Please try again", text);
    with_retry_after(page, RetryAfter(retry_after.unwrap_or_default()))
}
