//! `GET /auth/callback`: takes the provider's answer and starts the session.
//!
//! 1. `state` belongs to a login attempt of this browser, which is spent by it. Where it does not, whoever is signed in goes
//!    on, and anybody else is sent to the provider once more.
//! 2. `iss` is right (RFC 9207), and the answer is no error.
//! 3. The code is exchanged, the ID token validated, the session stored under a new id; once, however often the browser
//!    loads this.
//! 4. A login that a logout has overtaken goes through the provider once more.
//! 5. A session that the browser had before ends; application data moves to a new id.

use axum::response::{IntoResponse, Response};
use http::header::SET_COOKIE;
use http::uri::PathAndQuery;
use http::{Extensions, HeaderMap, StatusCode, Uri};

use super::login::{
    Attempt, Wanted, begin, cannot_sign_in, front_page, is_part_of_another_page, login_by, unavailable,
};
use super::own_session::{OwnContext, OwnSession};
use crate::manager::login_outcome::{Load, LoggedIn, LoginError};
use crate::protocol::authorization::{
    self, Authentication, AuthorizationResponse, Initiation, IssuerParameter, Prompt,
};
use crate::protocol::token_response::ErrorCode;
use crate::session::browser::Browser;
use crate::session::decide::{Decision, decide};
use crate::session::end_reason::EndReason;
use crate::session::id::{SessionId, SessionKey};
use crate::session::login_attempt::{LoginTransaction, ReturnTo};
use crate::session::new_login::Blame;
use crate::session::policy::{CookieLifetime, RequestKind};
use crate::session::record::SessionRecord;
use crate::web::app_data::{self, AppData};
use crate::web::context::Context;
use crate::web::page::redirect;
use crate::web::pages::{Page, PageKind};
use crate::web::parties::{Elsewhere, elsewhere};

pub(super) async fn callback(
    OwnContext(context): OwnContext,
    OwnSession(previous): OwnSession,
    uri: Uri,
    headers: HeaderMap,
    extensions: Extensions,
) -> Response {
    let query = uri.query().unwrap_or_default();
    let state = match authorization::state(query) {
        Ok(state) => state,
        Err(error) => {
            context.junk(|junk| &junk.callbacks, |unwritten| tracing::info!(%error, unwritten, "a login was refused"));
            return bad_request(&context, "incomplete", &front_page(&context));
        }
    };
    let Some(transaction) = context.cookies().login(&headers, &state, context.now()) else {
        return of_no_attempt(&context, (&headers, &extensions), &state, previous.key()).await;
    };
    let return_to = transaction.return_to.clone();
    let (authentication, follows) = (transaction.authentication.clone(), transaction.follows);
    let linked = transaction.linked.clone();
    let browser = context.browser(&headers, &extensions);
    let (outcome, load) = finish(&context, query, transaction, previous.key().copied(), browser.clone()).await;
    let mut response = match outcome {
        Ok(LoggedIn::Confirmed | LoggedIn::Elsewhere) => redirect(return_to.as_str()),
        Ok(LoggedIn::Anew(id, record)) => {
            if let Some(ended) = follows {
                let is_same_user = ended.subject == Some(record.subject_hash());
                tracing::info!(session = ?record.key(), after = %ended.reason, is_same_user, "it follows one that ended");
            }
            let mut response =
                begin_session(&context, (&headers, &extensions), (&id, &record), previous.key(), load, &return_to)
                    .await;
            if context.cookies().ended(&headers).is_some() {
                response.headers_mut().append(SET_COOKIE, context.cookies().remove_ended());
            }
            response
        }
        Ok(LoggedIn::Overtaken(arrived)) => {
            tracing::info!("a logout has overtaken a login: it goes through the provider once more");
            let wanted = Wanted { return_to, authentication, session: None, seen: Some(arrived), follows, linked };
            begin(&context, &headers, Attempt::of(&state), wanted).await
        }
        Err(NotLoggedIn { response, reason }) => {
            if let Some(reason) = reason {
                context.login_failed(reason, browser);
            }
            *response
        }
    };
    response.headers_mut().extend(context.cookies().remove_login(&state).map(|cookie| (SET_COOKIE, cookie)));
    response
}

/// An answer to an attempt that is unknown here: spent, evicted, expired, begun under another name, or forged. Nothing of
/// it is used. Whoever is signed in goes on; anybody else is sent to the provider once more, and then told.
async fn of_no_attempt(
    context: &Context,
    (headers, extensions): (&HeaderMap, &Extensions),
    state: &str,
    session: Option<&SessionKey>,
) -> Response {
    context.junk(
        |junk| &junk.callbacks,
        |unwritten| tracing::info!(unwritten, "the answer to a login belongs to no attempt of this browser"),
    );
    let front_page = front_page(context);
    if let Some(key) = session {
        match context.manager().look(key).await {
            Ok(record) if is_served(&record, context) => return redirect(front_page.as_str()),
            Ok(_) => {}
            Err(refusal) if refusal.is_over() => {}
            Err(_) => return unavailable(context, None, &front_page),
        }
    }
    for Elsewhere { context: other, key } in elsewhere(context, headers, extensions) {
        if let Some(key) = key
            && let Ok(record) = other.manager().look(&key).await
            && is_served(&record, &other)
        {
            return redirect(front_page.as_str());
        }
    }
    match Attempt::of(state) {
        Attempt::First => {
            // What comes by way of the provider looks like another site's there: it is told, and asked, at once.
            if context.provider().client().initiation == Initiation::OwnPages {
                return bad_request(context, "late", &front_page);
            }
            if is_part_of_another_page(headers) {
                return Page::new(PageKind::Forbidden).into_response();
            }
            let authentication = Authentication::default();
            let return_to = front_page;
            let linked = Vec::new();
            let wanted = Wanted { return_to, authentication, session: None, seen: None, follows: None, linked };
            begin(context, headers, Attempt::Second, wanted).await
        }
        Attempt::Second => bad_request(context, "late", &front_page),
    }
}

fn is_served(record: &SessionRecord, context: &Context) -> bool {
    decide(record, context.policy(), context.now(), RequestKind::Passive) == Decision::Proceed
}

/// Binds application data to the new session, ends the one before it, and gives the browser its cookie.
async fn begin_session(
    context: &Context,
    (headers, extensions): (&HeaderMap, &Extensions),
    (id, record): (&SessionId, &SessionRecord),
    previous: Option<&SessionKey>,
    load: Load,
    return_to: &ReturnTo,
) -> Response {
    let data = app_data::of(extensions);
    let (manager, key) = (context.manager(), record.key());
    let previous = previous.filter(|previous| *previous != key);
    if let Err(error) = bind(context, data, record, previous).await {
        tracing::error!(%error, "application data could not be bound to the login");
        if load == Load::First {
            // Without its cookie the session is of no use to anyone; its tokens are dropped, as of any login that fails.
            let _ = manager.end(key, EndReason::SupersededByLogin).await;
        }
        return unavailable(context, None, return_to);
    }
    if let Some(previous) = previous {
        // Where the registry fails, nobody has its cookie any more.
        if let Err(error) = manager.end(previous, EndReason::SupersededByLogin).await {
            tracing::warn!(%error, "the session before this login could not be ended");
        }
    }
    manager.end_surplus(record).await;
    let mut response = redirect(return_to.as_str());
    let deadline = record.absolute_deadline(context.policy()).0;
    let kept_for = match context.policy().cookie {
        CookieLifetime::Browser => None,
        CookieLifetime::Session => deadline.duration_since(context.now()).ok(),
    };
    response.headers_mut().append(SET_COOKIE, context.cookies().set_session(id, kept_for));
    end_elsewhere(context, headers, extensions, &mut response).await;
    response
}

/// Ends the sessions that the browser has at other providers of the application: it has one. They keep their tokens.
async fn end_elsewhere(context: &Context, headers: &HeaderMap, extensions: &Extensions, response: &mut Response) {
    for Elsewhere { context: other, key } in elsewhere(context, headers, extensions) {
        if let Some(key) = key
            && let Err(error) = other.manager().end(&key, EndReason::SupersededByLogin).await
        {
            tracing::warn!(%error, "the session at another provider could not be ended");
        }
        response.headers_mut().append(SET_COOKIE, other.cookies().remove_session());
    }
}

/// Binds application data. What belonged to the session before goes on with a login of the same user.
async fn bind(
    context: &Context,
    data: Option<AppData>,
    record: &SessionRecord,
    previous: Option<&SessionKey>,
) -> Result<(), app_data::Error> {
    let Some(data) = data else { return Ok(()) };
    let kept_from = match previous {
        Some(previous) => match context.manager().look(previous).await {
            Ok(before) if before.subject_hash() == record.subject_hash() => Some(previous),
            _ => None,
        },
        None => None,
    };
    app_data::bind(&data, record.key(), kept_from).await
}

/// What the browser gets instead, and why; a silent login that comes to nothing is no failure.
struct NotLoggedIn {
    response: Box<Response>,
    reason: Option<String>,
}

impl NotLoggedIn {
    fn because(reason: String, response: Response) -> Self {
        Self { response: Box::new(response), reason: Some(reason) }
    }
}

async fn finish(
    context: &Context,
    query: &str,
    transaction: LoginTransaction,
    previous: Option<SessionKey>,
    browser: Browser,
) -> (Result<LoggedIn, NotLoggedIn>, Load) {
    let return_to = transaction.return_to.clone();
    let code = match code_of(context, query, &transaction, previous).await {
        Ok(code) => code,
        Err(refused) => return (Err(refused), Load::First),
    };
    let (outcome, load) = context.manager().log_in(code, transaction, context.claims_from(), previous, browser).await;
    let outcome = outcome.map_err(|error| {
        let reason = Some(error.to_string()).filter(|_| load == Load::First);
        NotLoggedIn { response: Box::new(failed(context, &error, &return_to)), reason }
    });
    (outcome, load)
}

/// The code of an answer that is valid by itself.
async fn code_of(
    context: &Context,
    query: &str,
    transaction: &LoginTransaction,
    previous: Option<SessionKey>,
) -> Result<String, NotLoggedIn> {
    let manager = context.manager();
    let metadata = match manager.provider().metadata().await {
        Ok(metadata) => metadata,
        Err(error) => {
            let response = unavailable(context, error.retry_after, &transaction.return_to);
            return Err(NotLoggedIn::because(error.to_string(), response));
        }
    };
    let client = context.provider().client();
    let sends_issuer =
        metadata.authorization_response_iss_parameter_supported || client.issuer_parameter == IssuerParameter::Required;
    match AuthorizationResponse::parse(query, &client.issuers, sends_issuer) {
        Ok(AuthorizationResponse::Code(code)) => Ok(code),
        Ok(AuthorizationResponse::Error(error)) if transaction.authentication.prompt == Prompt::None => {
            let session = transaction.session.filter(|session| previous == Some(*session));
            let response = silently_refused(context, &error, &transaction.return_to, session).await;
            Err(NotLoggedIn { response: Box::new(response), reason: None })
        }
        Ok(AuthorizationResponse::Error(error)) => {
            context.junk(
                |junk| &junk.callbacks,
                |unwritten| tracing::info!(error = error.as_str(), unwritten, "the provider refused a login"),
            );
            let reason = format!("the provider refused it: {}", error.as_str());
            Err(NotLoggedIn::because(reason, bad_request(context, "refused", &transaction.return_to)))
        }
        Err(error) => {
            context.junk(|junk| &junk.callbacks, |unwritten| tracing::warn!(%error, unwritten, "a login was refused"));
            Err(NotLoggedIn::because(error.to_string(), bad_request(context, "invalid", &transaction.return_to)))
        }
    }
}

/// A silent login that the provider did not grant.
async fn silently_refused(
    context: &Context,
    error: &ErrorCode,
    return_to: &ReturnTo,
    session: Option<SessionKey>,
) -> Response {
    tracing::info!(error = error.as_str(), "the provider refused a silent login");
    let path = PathAndQuery::try_from(return_to.as_str()).ok();
    let visibly = || redirect(&context.paths().login(path.as_ref(), &Authentication::default()));
    match (error.as_str(), session) {
        ("login_required", Some(key)) => match context.manager().end_silently_refused(&key).await {
            Ok(()) => visibly(),
            Err(error) => {
                tracing::error!(%error, "a session that is over at the provider could not be ended");
                unavailable(context, None, return_to)
            }
        },
        // Core §3.1.2.6: the user has to do something.
        ("login_required" | "interaction_required" | "consent_required" | "account_selection_required", _) => visibly(),
        // Says nothing about the user: where the session stands, it goes on; the pause between attempts ends any loop.
        _ => redirect(return_to.as_str()),
    }
}

fn failed(context: &Context, error: &LoginError, return_to: &ReturnTo) -> Response {
    // Attempts are to be had for nothing.
    context.junk(|junk| &junk.callbacks, |unwritten| tracing::warn!(%error, unwritten, "a login failed"));
    match error {
        LoginError::CodeRefused(_) => bad_request(context, "not_accepted", return_to),
        LoginError::LoggedOut => bad_request(context, "overtaken", return_to),
        LoginError::Misconfigured(_) | LoginError::Nonsense(_) | LoginError::IdToken(_) | LoginError::UserInfo(_) => {
            cannot_sign_in(context, StatusCode::BAD_GATEWAY, "unusable", return_to)
        }
        LoginError::Refused(refused) => match refused.blame {
            // The provider would sign the same user in again without asking.
            Blame::NotAllowed => {
                let authentication = Authentication { prompt: Prompt::Login, ..Authentication::default() };
                let again = login_by(context, return_to, &authentication);
                let page = Page::sign_in_failed(StatusCode::FORBIDDEN, "not_allowed", again);
                let sign_out = context.paths().own("logout");
                // Of several providers it would not be known which one.
                let is_known = sign_out == context.paths().of_party("logout");
                if is_known { page.link("do_sign_out", sign_out).into_response() } else { page.into_response() }
            }
            Blame::Unavailable => unavailable(context, None, return_to),
        },
        LoginError::Unavailable(error) => unavailable(context, error.retry_after, return_to),
        LoginError::Registry(_) => unavailable(context, None, return_to),
    }
}

fn bad_request(context: &Context, text: &'static str, return_to: &ReturnTo) -> Response {
    cannot_sign_in(context, StatusCode::BAD_REQUEST, text, return_to)
}
