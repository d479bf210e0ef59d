//! The crate's own routes.
//!
//! | route | file | what it does |
//! |---|---|---|
//! | `GET /auth/login` | `login` | sends the browser to the provider |
//! | `GET /auth/callback` | `callback` | takes the provider's answer and starts the session |
//! | `POST /auth/logout` | `logout` | ends the session, then sends the browser to the provider's logout |
//! | `POST /auth/backchannel-logout` | `backchannel_logout` | takes the provider's logout tokens |
//! | `GET /auth/session` | `status` | says how long the session stands; no activity |
//! | `POST /auth/session` | `status` | "stay signed in": signals the provider now |

pub(crate) mod backchannel_logout;
mod callback;
mod login;
mod logout;
mod own_session;
mod status;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use http::HeaderValue;
use http::header::REFERRER_POLICY;

use crate::web::context::Context;
use crate::web::request::RequestSession;

pub(crate) fn all(context: &Context) -> Router {
    Router::new()
        .route("/auth/login", get(login::login))
        .route("/auth/callback", get(callback::callback))
        .layer(middleware::map_response(no_referrer))
        .route("/auth/logout", post(logout::logout))
        .route("/auth/session", get(status::status).post(status::stay))
        .layer(middleware::from_fn(own_route))
        .with_state(context.clone())
        .merge(backchannel_logout::route(context))
}

/// The address of such an answer may hold a code, which nobody who is linked from there has to know.
async fn no_referrer(mut response: Response) -> Response {
    response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// Keeps the outer layer from dealing with the session: these routes do it themselves.
async fn own_route(request: Request, next: Next) -> Response {
    if let Some(session) = request.extensions().get::<RequestSession>() {
        session.mark_own_route();
    }
    next.run(request).await
}
