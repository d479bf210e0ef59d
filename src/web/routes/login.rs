//! `GET /auth/login`: sends the browser to the provider.

use axum::extract::State;
use axum::response::Response;
use http::header::SET_COOKIE;
use http::{HeaderMap, StatusCode, Uri};
use url::form_urlencoded;

use super::own_session::OwnSession;
use crate::protocol::authorization::{Authentication, Prompt};
use crate::session::id::{SessionKey, random_text};
use crate::session::login_attempt::{LoginTransaction, ReturnTo};
use crate::web::context::Context;
use crate::web::cookie::SECOND_ATTEMPT;
use crate::web::page::{page, redirect, unavailable};

/// The way back to a longer page is not remembered.
const LONGEST_RETURN_TO: usize = 1536;

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
        // Longer ones make cookies that browsers drop.
        (Some((_, path)), None) if path.len() > LONGEST_RETURN_TO => Some(ReturnTo::front_page()),
        (Some((_, path)), None) => ReturnTo::parse(&path, context.public_url()),
        (Some(_), Some(_)) => None,
    };
    let authentication = Authentication::parse(uri.query().unwrap_or_default());
    let (Some(return_to), Some(authentication)) = (return_to, authentication) else {
        tracing::info!("a login was refused: return_to is not one path of this application, or a parameter is wrong");
        return page(
            StatusCode::BAD_REQUEST,
            "Cannot sign in",
            "The link that brought you here is not valid.",
            "/auth/login",
        );
    };
    let session = session.key().copied().filter(|_| authentication.prompt == Prompt::None);
    begin(&context, &headers, Attempt::First, return_to, authentication, session).await
}

/// Which attempt in a row this is. The mark is in `state`, which comes back whatever becomes of the cookies, so that no
/// browser is sent round in circles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    First,
    /// After an answer that belonged to no attempt of this browser.
    Second,
}

impl Attempt {
    pub(super) fn of(state: &str) -> Self {
        if state.ends_with(SECOND_ATTEMPT) { Self::Second } else { Self::First }
    }

    fn state(self) -> String {
        let mut state = random_text();
        if self == Self::Second {
            state.push(SECOND_ATTEMPT);
        }
        state
    }
}

/// Begins a login attempt and sends the browser to the provider.
pub(super) async fn begin(
    context: &Context,
    headers: &HeaderMap,
    attempt: Attempt,
    return_to: ReturnTo,
    authentication: Authentication,
    session: Option<SessionKey>,
) -> Response {
    let transaction = LoginTransaction {
        state: attempt.state(),
        nonce: random_text(),
        pkce_verifier: random_text(),
        return_to,
        started_at: context.now(),
        session,
        authentication,
    };
    match context.provider().authorization_url(&transaction).await {
        Ok(url) => {
            let mut response = redirect(url.as_str());
            for cookie in context.cookies().set_login(headers, &transaction) {
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
