//! `/auth/form`: what was entered before the end of a session, shown to the same user after the next login.

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT_LANGUAGE, CACHE_CONTROL};

use super::own_session::{OwnContext, OwnSession};
use super::script::{ASK, javascript};
use crate::manager::Refusal;
use crate::session::policy::RequestKind;
use crate::session::record::SessionRecord;
use crate::web::cross_site::is_cross_site;
use crate::web::pages::{Page, PageKind};
use crate::web::reject::SessionRejection;
use crate::web::send_again::{Unsealed, read_seal};
use crate::web::texts::Language;

/// What the page with a kept form runs.
pub(super) async fn script() -> Response {
    let mut response = javascript(include_str!("../guard/form.js"));
    response.headers_mut().insert(CACHE_CONTROL, ASK);
    response
}

/// Asks the browser for what it has kept.
pub(super) async fn fetch(OwnContext(context): OwnContext, OwnSession(claimed): OwnSession) -> Response {
    let admitted = match claimed.key() {
        Some(key) => context.manager().admit(key, RequestKind::Navigation).await,
        None => Err(Refusal::Unknown),
    };
    match admitted {
        Ok(_) => Page::fetch_kept().into_response(),
        Err(refusal) => claimed.rejection(refusal).into_response(),
    }
}

/// Shows what is sealed, and as whom it would be sent.
pub(super) async fn show(
    OwnContext(context): OwnContext,
    OwnSession(claimed): OwnSession,
    request: Request,
) -> Response {
    if is_cross_site(request.headers(), context.origins()) {
        return SessionRejection::cross_site(claimed.asker()).into_response();
    }
    let admitted = match claimed.key() {
        Some(key) => context.manager().admit(key, RequestKind::UserActivity).await,
        None => Err(Refusal::Unknown),
    };
    let record = match admitted {
        Ok(record) => record,
        Err(refusal) => return claimed.rejection(refusal).into_response(),
    };
    let (parts, body) = request.into_parts();
    let form = read_seal(body).await.and_then(|seal| Some((context.cookies().open_form(&seal)?, seal)));
    let page = match form {
        Some((form, seal)) => match Unsealed::of(&context, &parts.headers, form, &record) {
            Unsealed::Form(form) => {
                let page = Page::send(seal, form.action(), name_of(&record), form.entered.fields());
                if form.entered.had_files() { page.text("files") } else { page }
            }
            Unsealed::OfAnother => Page::new(PageKind::OtherUser),
            Unsealed::Nothing => Page::new(PageKind::Gone),
        },
        None => Page::new(PageKind::Gone),
    };
    page.in_language(Language::preferred(parts.headers.get(ACCEPT_LANGUAGE))).into_response()
}

/// What a person is called.
fn name_of(record: &SessionRecord) -> String {
    let claim = |name: &str| record.login.claims.get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
    let named = claim("name").or_else(|| claim("preferred_username")).or_else(|| claim("email"));
    named.unwrap_or_else(|| record.subject().as_str().to_owned())
}
