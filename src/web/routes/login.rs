//! `GET /auth/login`: sends the browser to the provider.

use axum::extract::State;
use axum::response::Response;
use http::header::SET_COOKIE;
use http::{HeaderMap, StatusCode, Uri};
use url::form_urlencoded;

use super::own_session::OwnSession;
use crate::protocol::authorization::{Authentication, Prompt};
use crate::session::id::random_text;
use crate::session::login_attempt::{LoginTransaction, ReturnTo};
use crate::web::context::Context;
use crate::web::page::{page, redirect, unavailable};

pub(super) async fn login(
    State(context): State<Context>,
    OwnSession(session): OwnSession,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let mut wanted =
        form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).filter(|(name, _)| name == "return_to");
    let return_to = match (wanted.next(), wanted.next()) {
        (None, _) => Some(ReturnTo::front_page()),
        (Some((_, path)), None) => ReturnTo::parse(&path, context.public_url()),
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
        started_at: context.now(),
        session: session.key().copied().filter(|_| authentication.prompt == Prompt::None),
        authentication,
    };
    match context.provider().authorization_url(&transaction).await {
        Ok(url) => {
            let mut response = redirect(url.as_str());
            for cookie in context.cookies().set_login(&headers, &transaction) {
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
