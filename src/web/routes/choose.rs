//! `GET /auth/login` of an application with several providers: the page where a person chooses one.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::Uri;

use crate::web::page::redirect;
use crate::web::pages::Page;
use crate::web::parties::Several;

/// Each provider's login gets what the link to this page says.
pub(super) async fn choose(State(several): State<Arc<Several>>, uri: Uri) -> Response {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let login = |paths: &crate::web::paths::Paths| format!("{}{query}", paths.of_party("login"));
    if let [only] = several.members.as_slice() {
        return redirect(&login(only.context.paths()));
    }
    let choices = several.members.iter().map(|member| (member.label.clone(), login(member.context.paths())));
    Page::choose(choices.collect()).into_response()
}
