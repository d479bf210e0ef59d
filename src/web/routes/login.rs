//! `GET /auth/login`: sends the browser to the provider; with a good session and by a link of another site, to where the
//! link leads.

use std::time::{Duration, SystemTime};

use axum::response::{IntoResponse, Response};
use http::header::{HOST, SET_COOKIE};
use http::uri::PathAndQuery;
use http::{Extensions, HeaderMap, StatusCode, Uri};
use url::{Url, form_urlencoded};

use super::own_session::{OwnContext, OwnSession};
use crate::protocol::authorization::{Authentication, Initiation, Prompt};
use crate::protocol::fetch_metadata::{SEC_FETCH_MODE, SEC_FETCH_SITE};
use crate::protocol::url::is_loopback;
use crate::provider::requests::NotPushed;
use crate::session::end_reason::EndMark;
use crate::session::id::{SessionKey, random_text};
use crate::session::login_attempt::{LoginTransaction, ReturnTo};
use crate::session::policy::is_prefetch;
use crate::session::record::ActivitySignal;
use crate::web::context::Context;
use crate::web::cookie::SECOND_ATTEMPT;
use crate::web::page::redirect;
use crate::web::pages::{Page, PageKind};
use crate::web::parties::{Elsewhere, elsewhere};

/// The way back to a longer page is not remembered.
const LONGEST_RETURN_TO: usize = 1536;

pub(super) async fn login(
    OwnContext(context): OwnContext,
    OwnSession(session): OwnSession,
    uri: Uri,
    headers: HeaderMap,
    extensions: Extensions,
) -> Response {
    if is_prefetch(&headers) {
        // Nothing begins, and browsers keep no answer of this status for the click.
        return unavailable(&context, None, &front_page(&context));
    }
    if let Some(location) = by_its_public_name(&headers, context.public_url(), &context.paths().of_party("login"), &uri)
    {
        return redirect(&location);
    }
    let mut wanted =
        form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).filter(|(name, _)| name == "return_to");
    let return_to = match (wanted.next(), wanted.next()) {
        (None, _) => Some(front_page(&context)),
        // Longer ones make cookies that browsers drop, as they are encoded.
        (Some((_, path)), None) => ReturnTo::parse(&path, context.public_url())
            .map(|path| if path.as_str().len() > LONGEST_RETURN_TO { front_page(&context) } else { path }),
        (Some(_), Some(_)) => None,
    };
    let authentication = Authentication::parse(uri.query().unwrap_or_default());
    let (Some(return_to), Some(authentication)) = (return_to, authentication) else {
        context.junk(
            |junk| &junk.links,
            |unwritten| {
                tracing::info!(
                    unwritten,
                    "a login was refused: return_to is not one path of this application, or a parameter is wrong"
                );
            },
        );
        return cannot_sign_in(&context, StatusCode::BAD_REQUEST, "link", &front_page(&context));
    };
    if asks_for_nothing(&authentication, &uri)
        && came_by_link(&headers)
        && !context.cookies().was_led_on(&headers)
        && is_confirmed_anywhere(&context, session.key(), &headers, &extensions).await
    {
        // A new login would only cost the user the data of the old one. Should the page send the browser back here, it means
        // what it says: the whole chain of redirects came by that link.
        let mut response = redirect(return_to.as_str());
        response.headers_mut().append(SET_COOKIE, context.cookies().set_led_on());
        return response;
    }
    let own_key = session.key().copied();
    let session = own_key.filter(|_| authentication.prompt == Prompt::None);
    let here = uri.query().map_or_else(String::new, |query| format!("?{query}"));
    if let Some(page) = asked_first(&context, &headers, context.paths().of_party("login") + &here)
        && !is_its_own_silent_login(&context, session.as_ref()).await
    {
        return page.into_response();
    }
    let follows = match (context.cookies().ended(&headers), own_key) {
        (Some(noted), _) => Some(noted.mark),
        // Who comes here straight from a page has the cookie still.
        (None, Some(key)) => context.manager().end_mark(&key).await.unwrap_or_default(),
        (None, None) => None,
    };
    let linked = context.provider().client().parameters.of_link(uri.query().unwrap_or_default());
    let wanted = Wanted { return_to, authentication, session, seen: None, follows, linked };
    begin(&context, &headers, Attempt::First, wanted).await
}

/// Whether the link wants no more than a signed-in user.
fn asks_for_nothing(authentication: &Authentication, uri: &Uri) -> bool {
    let mut parameters = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    *authentication == Authentication::default() && !parameters.any(|(name, _)| name == "login_hint")
}

/// Whether another site has sent the browser here. The application's own links mean what they say, and so does who types
/// the address.
fn came_by_link(headers: &HeaderMap) -> bool {
    headers.get(&SEC_FETCH_SITE).is_some_and(|site| site.as_bytes() == b"cross-site")
}

/// The page that a person gets instead of a login, where a page of another site would begin it: as an image or a script, which nobody
/// has meant, or by a link where the profile wants people to be asked. `login` is what its button leads to.
fn asked_first(context: &Context, headers: &HeaderMap, login: String) -> Option<Page> {
    if is_part_of_another_page(headers) {
        return Some(Page::new(PageKind::Forbidden));
    }
    let asks = context.provider().client().initiation == Initiation::OwnPages && began_elsewhere(headers);
    asks.then(|| Page::new(PageKind::SignInNeeded).link("do_sign_in", login))
}

/// Whether the session has begun a silent login that has not come back yet: the way to it may lead over other sites.
async fn is_its_own_silent_login(context: &Context, session: Option<&SessionKey>) -> bool {
    let Some(key) = session else { return false };
    context.manager().look(key).await.is_ok_and(|record| record.silent_login_at.is_some())
}

/// Whether a page of another site, or of another origin of this one, has sent the browser here.
fn began_elsewhere(headers: &HeaderMap) -> bool {
    headers.get_all(&SEC_FETCH_SITE).iter().any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"))
}

/// Whether another site has a browser load this as an image, a script or the like: nobody has meant to sign in.
pub(super) fn is_part_of_another_page(headers: &HeaderMap) -> bool {
    came_by_link(headers) && headers.get(&SEC_FETCH_MODE).is_some_and(|mode| mode.as_bytes() != b"navigate")
}

/// Whether the session stands that the browser has, here or at another provider of the application.
async fn is_confirmed_anywhere(
    context: &Context,
    key: Option<&SessionKey>,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> bool {
    if let Some(key) = key
        && is_confirmed(context, key).await
    {
        return true;
    }
    for Elsewhere { context: other, key } in elsewhere(context, headers, extensions) {
        if let Some(key) = key
            && is_confirmed(&other, &key).await
        {
            return true;
        }
    }
    false
}

/// Whether the provider says now that the session stands. One that cannot ask, or can only by a login, does not know: at the
/// provider somebody else may be signed in.
async fn is_confirmed(context: &Context, key: &SessionKey) -> bool {
    let manager = context.manager();
    match manager.look(key).await {
        Ok(record) if matches!(record.login.signal, ActivitySignal::Refresh | ActivitySignal::UserInfo) => {
            manager.confirm_record(record).await.is_ok()
        }
        _ => false,
    }
}

/// Where a login leads that says nothing else.
pub(super) fn front_page(context: &Context) -> ReturnTo {
    ReturnTo::own(context.paths().front())
}

/// The page for a login that came to nothing, with the words of that name.
pub(super) fn cannot_sign_in(
    context: &Context,
    status: StatusCode,
    text: &'static str,
    return_to: &ReturnTo,
) -> Response {
    Page::sign_in_failed(status, text, login_again(context, return_to)).into_response()
}

/// The page for a provider or registry that is out of reach. The login begins again by itself.
pub(super) fn unavailable(context: &Context, retry_after: Option<Duration>, return_to: &ReturnTo) -> Response {
    let again = login_again(context, return_to);
    let page = Page::unavailable(retry_after.unwrap_or_default(), Some(again.clone()));
    page.link("again", again).into_response()
}

/// The login that leads where this one would have led.
fn login_again(context: &Context, return_to: &ReturnTo) -> String {
    login_by(context, return_to, &Authentication::default())
}

/// The same with a certain way to authenticate.
pub(super) fn login_by(context: &Context, return_to: &ReturnTo, authentication: &Authentication) -> String {
    let paths = context.paths();
    let path = PathAndQuery::try_from(return_to.as_str()).ok().filter(|path| *path != *paths.front());
    paths.login(path.as_ref(), authentication)
}

/// Marks a login that was sent to the application's public name, so that it is sent there once.
const RENAMED: &str = "renamed";

/// Where a browser that came by another name of this machine begins the login: the provider will send it back to the
/// public one, `127.0.0.1` say, and the attempt's cookie would be `localhost`'s. Elsewhere than on loopback `Host` is often a
/// proxy's, and says nothing.
fn by_its_public_name(headers: &HeaderMap, public_url: &Url, path: &str, uri: &Uri) -> Option<String> {
    let host = headers.get(HOST)?.to_str().ok()?;
    let here = Url::parse(&format!("{}://{host}", public_url.scheme())).ok()?;
    let is_other_name = is_loopback(&here)
        && is_loopback(public_url)
        && here.port_or_known_default() == public_url.port_or_known_default()
        && here.host() != public_url.host();
    let query = uri.query().unwrap_or_default();
    let was_sent = form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == RENAMED);
    if !is_other_name || was_sent {
        return None;
    }
    let mut url = public_url.clone();
    url.set_path(path);
    url.set_query(Some(query).filter(|query| !query.is_empty()));
    url.query_pairs_mut().append_pair(RENAMED, "1");
    Some(url.into())
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

/// What a login is to come to.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) return_to: ReturnTo,
    pub(super) authentication: Authentication,
    /// The session that a silent login is to confirm.
    pub(super) session: Option<SessionKey>,
    /// When the logout arrived because of which it begins once more.
    pub(super) seen: Option<SystemTime>,
    /// The session that the browser had before, if that has ended.
    pub(super) follows: Option<EndMark>,
    /// What else the link says to the provider.
    pub(super) linked: Vec<(String, String)>,
}

/// Begins a login attempt and sends the browser to the provider.
pub(super) async fn begin(context: &Context, headers: &HeaderMap, attempt: Attempt, wanted: Wanted) -> Response {
    let transaction = LoginTransaction {
        state: attempt.state(),
        nonce: random_text(),
        pkce_verifier: random_text(),
        return_to: wanted.return_to,
        started_at: context.now(),
        session: wanted.session,
        authentication: wanted.authentication,
        began_at: Some(context.manager().store_time().await),
        seen: wanted.seen,
        follows: wanted.follows,
        linked: wanted.linked,
        dpop_jkt: context.provider().key_for_logins(),
    };
    match context.provider().authorization_url(&transaction).await {
        Ok(url) => {
            let mut response = redirect(url.as_str());
            for cookie in context.cookies().set_login(headers, &transaction) {
                response.headers_mut().append(SET_COOKIE, cookie);
            }
            response
        }
        Err(NotPushed::Refused(error)) => {
            tracing::error!(
                error = error.as_str(),
                "the provider refuses a pushed authorization request: a login could not begin"
            );
            cannot_sign_in(context, StatusCode::BAD_GATEWAY, "unusable", &transaction.return_to)
        }
        Err(NotPushed::Unavailable(error)) => {
            tracing::warn!(%error, "a login could not begin");
            unavailable(context, error.retry_after, &transaction.return_to)
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn p15_names_of_this_machine_lead_to_the_public_one() {
        for (public, host, path, expected) in [
            (
                "http://127.0.0.1:3000",
                "localhost:3000",
                "/auth/login?return_to=/me",
                Some("http://127.0.0.1:3000/auth/login?return_to=/me&renamed=1"),
            ),
            (
                "http://localhost:3000",
                "127.0.0.1:3000",
                "/auth/login",
                Some("http://localhost:3000/auth/login?renamed=1"),
            ),
            ("http://localhost:3000", "[::1]:3000", "/auth/login", Some("http://localhost:3000/auth/login?renamed=1")),
            ("http://127.0.0.1:3000", "127.0.0.1:3000", "/auth/login", None),
            ("http://127.0.0.1:3000", "localhost:3000", "/auth/login?renamed=1", None),
            ("http://127.0.0.1:3000", "localhost:4000", "/auth/login", None),
            ("https://shop.example", "localhost:3000", "/auth/login", None),
            ("https://shop.example", "upstream.internal", "/auth/login", None),
            ("http://127.0.0.1:3000", "evil.example:3000", "/auth/login", None),
            ("http://127.0.0.1:3000", "localhost.evil.example:3000", "/auth/login", None),
            ("http://127.0.0.1:3000", "a b", "/auth/login", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static(host));
            let found =
                by_its_public_name(&headers, &Url::parse(public).unwrap(), "/auth/login", &path.parse().unwrap());
            assert_eq!(found.as_deref(), expected, "{public} {host} {path}");
        }
    }
}
