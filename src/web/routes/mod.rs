//! The crate's own routes.
//!
//! | route | file | what it does |
//! |---|---|---|
//! | `GET /auth/login` | `login` | sends the browser to the provider |
//! | `GET /auth/login` | `choose` | where there are several providers: a page to choose one; each has the next two below its name |
//! | `GET /auth/callback` | `callback` | takes the provider's answer and starts the session |
//! | `POST /auth/logout` | `logout` | ends the session, then sends the browser to the provider's logout |
//! | `GET /auth/logout` | `logout` | a page that asks |
//! | `/auth/form` | `form` | what was entered before the end of a session |
//! | `POST /auth/backchannel-logout` | `backchannel_logout` | takes the provider's logout tokens |
//! | `GET /auth/frontchannel-logout` | `frontchannel_logout` | ends what a page of the provider names, if that is switched on |
//! | `GET /auth/jwks.json` | `jwks` | the public keys of a client that signs |
//! | `POST /auth/security-events` | `security_events` | takes a transmitter's events, if there is one |
//! | `GET /auth/session` | `status` | says how long the session stands; no activity |
//! | `GET /auth/session.js` | `script` | the guard of a page; also at a path that never changes |
//! | `POST /auth/session` | `status` | "stay signed in": signals the provider now |

pub(crate) mod backchannel_logout;
mod callback;
mod choose;
mod form;
mod frontchannel_logout;
mod jwks;
mod login;
mod logout;
mod own_session;
mod receiver;
pub(crate) mod script;
mod security_events;
mod status;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, REFERRER_POLICY};
use http::{HeaderValue, StatusCode};

use tower_http::set_header::SetResponseHeaderLayer;

use crate::web::context::Context;
use crate::web::navigation::Asker;
use crate::web::page::error;
use crate::web::pages::{Page, PageKind};
use crate::web::parties::Several;
use crate::web::paths::Paths;
use crate::web::request::RequestSession;

pub(crate) fn all<S: Clone + Send + Sync + 'static>(context: &Context) -> Router<S> {
    own(login(context.paths()).merge(shared(context.paths()))).merge(backchannel_logout::route(context))
}

/// Those of several providers, with a page where a person chooses one.
pub(crate) fn of_several<S: Clone + Send + Sync + 'static>(several: &Arc<Several>) -> Router<S> {
    let paths = several.nobody.paths();
    let choose = Router::new().route(&paths.route("login"), get(choose::choose)).with_state(several.clone());
    let mut own_routes = choose.merge(shared(paths));
    let mut logouts = Router::new();
    for member in &several.members {
        own_routes = own_routes.merge(login(member.context.paths()));
        logouts = logouts.merge(backchannel_logout::route(&member.context));
    }
    own(own_routes).merge(logouts)
}

/// Those of tenants, each of whom has them all.
pub(crate) fn of_tenants<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let paths = Paths::default();
    own(login(&paths).merge(shared(&paths))).merge(backchannel_logout::route_of_tenants(&paths))
}

/// A provider's own.
fn login<S: Clone + Send + Sync + 'static>(paths: &Paths) -> Router<S> {
    Router::new()
        .route(&paths.route_of_party("login"), get(login::login))
        .route(&paths.route_of_party("callback"), get(callback::callback))
        .route(&paths.route_of_party("jwks.json"), get(jwks::jwks))
        .route(&paths.route_of_party("frontchannel-logout"), get(frontchannel_logout::frontchannel_logout))
        .route(&paths.route_of_party("security-events"), post(security_events::security_events))
        // The address of such an answer may hold a code, which nobody who is linked from there has to know.
        .layer(SetResponseHeaderLayer::overriding(REFERRER_POLICY, HeaderValue::from_static("no-referrer")))
}

/// What is the same for all of them.
fn shared<S: Clone + Send + Sync + 'static>(paths: &Paths) -> Router<S> {
    let at = |name: &str| paths.route(name);
    Router::new()
        .route(&at("logout"), get(logout::ask).post(logout::logout))
        .route(&at("session"), get(status::status).post(status::stay))
        .route(&at("session.js"), get(script::current))
        .route(&at("session/{name}"), get(script::lasting))
        .route(&at("form"), get(form::fetch).post(form::show))
        .route(&at("form.js"), get(form::script))
        .route(&at("{*path}"), any(async || StatusCode::NOT_FOUND))
}

fn own<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    // Whatever a route forgets to say: what it answers is one browser's, at this moment.
    let no_store = SetResponseHeaderLayer::if_not_present(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    routes.layer(middleware::from_fn(own_route)).layer(no_store)
}

/// Keeps the outer layer from dealing with the session: these routes do it themselves.
async fn own_route(request: Request, next: Next) -> Response {
    if let Some(session) = request.extensions().get::<RequestSession>() {
        session.mark_own_route();
    }
    let is_person = Asker::of(request.method(), request.headers()).is_person();
    let response = next.run(request).await;
    let kind = match response.status() {
        StatusCode::NOT_FOUND => PageKind::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => PageKind::MethodNotAllowed,
        _ => return response,
    };
    // A page or JSON of ours has something to say; what axum answers has not.
    if response.headers().contains_key(CONTENT_TYPE) {
        return response;
    }
    let mut ours = match (is_person, kind) {
        (true, kind) => Page::new(kind).into_response(),
        (false, PageKind::NotFound) => error(StatusCode::NOT_FOUND, "not_found"),
        (false, _) => error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
    };
    ours.headers_mut().extend(response.headers().get(ALLOW).map(|methods| (ALLOW, methods.clone())));
    ours
}
