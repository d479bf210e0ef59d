//! Whether an application is put together as it has to be, found out before its first user does.

use std::fmt::Debug;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;
use tower_service::Service;

/// An application that is put together wrongly; says what to write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct WiringError {
    message: &'static str,
}

/// Answers are short.
const LONGEST: usize = 64 * 1024;

const MISSING: &str = "the route of the session's state is not there: .merge(rp.routes()) is missing, or the application is nested below a \
                       path. Merge rp.routes() into the outermost router";
const OUTSIDE: &str = "rp.routes(), or a require_session() over them, stand outside of rp.layer(): .layer(rp.layer()) comes last, after \
                       .merge(rp.routes()) and everything else";
const GUARDED: &str = "require_session() stands over rp.routes(), so that nobody can sign in: put \
                       .route_layer(rp.require_session()) after the routes that need a login and before .merge(rp.routes())";
const ELSE: &str = "the route of the session's state is not answered by rp.routes(): another route or layer has it";

/// Asks the application for the state of a session that there is not.
pub(crate) async fn check<S, B>(mut app: S, path: &str) -> Result<(), WiringError>
where
    S: Service<Request<Body>, Response = http::Response<B>>,
    S::Error: Debug,
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<axum::BoxError>,
{
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = path.parse().unwrap_or_default();
    let is_ready = std::future::poll_fn(|cx| app.poll_ready(cx)).await.is_ok();
    let response = if is_ready { app.call(request).await.ok() } else { None };
    let Some(response) = response else { return Err(WiringError { message: ELSE }) };
    let status = response.status();
    let body = Limited::new(response.into_body(), LONGEST).collect().await.map(http_body_util::Collected::to_bytes);
    let json: Value = body.ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default();
    let says = |name: &str| json.get(name).is_some();
    Err(WiringError {
        message: match status {
            StatusCode::OK if says("authenticated") => return Ok(()),
            StatusCode::NOT_FOUND => MISSING,
            StatusCode::INTERNAL_SERVER_ERROR if says("error") => OUTSIDE,
            StatusCode::UNAUTHORIZED if says("error") => GUARDED,
            _ => ELSE,
        },
    })
}
