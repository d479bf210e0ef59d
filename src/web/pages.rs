//! The pages that a person sees of the crate: why something is not possible, and the way on.

use std::fmt::Write;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONTENT_LANGUAGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, REFRESH, RETRY_AFTER, VARY,
    X_FRAME_OPTIONS,
};
use http::{HeaderValue, StatusCode};

use super::page::{no_store, whole_seconds, with_challenge};
use super::paths::Paths;
use super::texts::Language;
use crate::manager::Refusal;
use crate::session::end_reason::EndReason;
use crate::session::id::random_reference;

/// A page tries again after this at the earliest.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// A login that is tried again goes through the provider, which may be what is ailing.
const SHORTEST_PAUSE_OF_LOGINS: Duration = Duration::from_secs(5);

/// In whole seconds, and at least one.
fn in_seconds(pause: Duration) -> Duration {
    Duration::from_secs(whole_seconds(pause))
}

/// What a page is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PageKind {
    /// Where a person chooses one of several providers to sign in at (200).
    Choose,
    /// A request from another site was not carried out, or the user may not do this (403).
    Forbidden,
    /// What was entered is there no more (404).
    Gone,
    /// The address does not take this method (405).
    MethodNotAllowed,
    /// There is nothing at the address, which is one of the crate's (404).
    NotFound,
    /// Somebody else is signed in than the one who entered what was to be sent (409).
    OtherUser,
    /// Shows what was entered before the session ended, to be sent again (200).
    SendAgain,
    /// It was sent before (409).
    Sent,
    /// A service that this application needs gave no answer, or none that can be used (502, 504).
    ServiceFailed,
    /// A login came to nothing (400, 502).
    SignInFailed,
    /// The session is over, or there was none, and something was sent that needs one (401).
    SignInNeeded,
    /// Asks whether to sign out (200).
    SignOut,
    /// What was sent needs that its sender signs in once more, in a certain way (401).
    StepUp,
    /// Too much was sent (413).
    TooLarge,
    /// Whether the session stands has not been asked for a while (401).
    Unconfirmed,
    /// The provider or the store cannot be reached, or gives no verdict (503). The page tries again by itself.
    Unavailable,
}

/// A page for a person, as [`RelyingPartyBuilder::pages`](crate::RelyingPartyBuilder::pages) gets it. As a response it is the
/// built-in page, in the browser's language where [`RelyingParty::layer`](crate::RelyingParty::layer) stands around.
#[derive(Clone, Debug)]
pub struct Page {
    kind: PageKind,
    status: StatusCode,
    language: Language,
    /// What is said, by the names of the texts.
    texts: Vec<&'static str>,
    /// Where "Try again" leads, or the sign-in.
    links: Vec<(&'static str, String)>,
    /// Where a person can sign in, by the application's own words.
    choices: Vec<(String, String)>,
    retry: Option<Retry>,
    reference: String,
    form: Option<Form>,
    paths: Arc<Paths>,
}

/// When, and where, a page is tried again.
#[derive(Clone, Debug)]
struct Retry {
    after: Duration,
    url: Option<String>,
    by_itself: bool,
}

/// The form of a page.
#[derive(Clone, Debug)]
enum Form {
    SignOut,
    /// A sealed form, kept by the browser until somebody has signed in.
    Keep {
        seal: String,
        on: String,
    },
    /// Asks the browser for what it has kept.
    Fetch,
    /// Shows what is sealed, and sends it.
    Send {
        seal: String,
        action: String,
        user: String,
        fields: Vec<(String, String)>,
    },
}

impl Page {
    /// A page of the application's own that says the same as the crate's: [`TooLarge`](PageKind::TooLarge),
    /// [`NotFound`](PageKind::NotFound), [`Forbidden`](PageKind::Forbidden) and the like.
    #[must_use]
    pub fn new(kind: PageKind) -> Self {
        let (status, text) = match kind {
            PageKind::Choose => (StatusCode::OK, "choose"),
            PageKind::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
            PageKind::Gone => (StatusCode::NOT_FOUND, "gone"),
            PageKind::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method"),
            PageKind::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            PageKind::OtherUser => (StatusCode::CONFLICT, "other_user"),
            PageKind::SendAgain => (StatusCode::OK, "send_again"),
            PageKind::Sent => (StatusCode::CONFLICT, "sent"),
            PageKind::ServiceFailed => (StatusCode::BAD_GATEWAY, "service"),
            PageKind::SignInFailed => (StatusCode::BAD_REQUEST, "refused"),
            PageKind::SignInNeeded => (StatusCode::UNAUTHORIZED, "sign_in"),
            PageKind::SignOut => (StatusCode::OK, "sign_out"),
            PageKind::StepUp => (StatusCode::UNAUTHORIZED, "step_up"),
            PageKind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            PageKind::Unconfirmed => (StatusCode::UNAUTHORIZED, "unconfirmed"),
            PageKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        let reference = random_reference();
        Self {
            kind,
            status,
            language: Language::ENGLISH,
            texts: vec![text],
            links: Vec::new(),
            choices: Vec::new(),
            retry: (kind == PageKind::Unavailable).then_some(Retry {
                after: SHORTEST_PAUSE,
                url: None,
                by_itself: true,
            }),
            reference,
            form: None,
            paths: Arc::default(),
        }
    }

    /// Where a person can sign in, each with its label.
    pub(crate) fn choose(choices: Vec<(String, String)>) -> Self {
        Self { choices, ..Self::new(PageKind::Choose) }
    }

    /// The user may not do this.
    pub(crate) fn not_allowed() -> Self {
        Self { texts: vec!["not_allowed"], ..Self::new(PageKind::Forbidden) }
    }

    /// A login that came to nothing.
    pub(crate) fn sign_in_failed(status: StatusCode, text: &'static str, again: String) -> Self {
        Self { status, texts: vec![text], ..Self::new(PageKind::SignInFailed) }.link("again", again)
    }

    /// Something cannot be told at the moment; it is tried again by itself, at `url` or where the browser is.
    pub(crate) fn unavailable(after: Duration, url: Option<String>) -> Self {
        // A login goes through the provider, which may be what is ailing.
        let shortest = if url.is_some() { SHORTEST_PAUSE_OF_LOGINS } else { SHORTEST_PAUSE };
        let after = in_seconds(after).max(shortest);
        Self { retry: Some(Retry { after, url, by_itself: true }), ..Self::new(PageKind::Unavailable) }
    }

    /// The same of something that a person has sent, which a reload sends again.
    pub(crate) fn unavailable_to_send(after: Duration) -> Self {
        let retry = Retry { after: in_seconds(after), url: None, by_itself: false };
        Self { retry: Some(retry), texts: vec!["unavailable_form"], ..Self::new(PageKind::Unavailable) }
    }

    /// Something was sent, and nobody is signed in.
    pub(crate) fn sign_in_needed(reason: Option<EndReason>) -> Self {
        let mut page = Self::new(PageKind::SignInNeeded);
        if let Some(reason) = reason {
            page.texts = vec![why(reason)];
        }
        page
    }

    pub(crate) fn link(mut self, label: &'static str, url: String) -> Self {
        self.links.push((label, url));
        self
    }

    pub(crate) fn text(mut self, name: &'static str) -> Self {
        self.texts.push(name);
        self
    }

    pub(crate) fn sign_out_form(mut self) -> Self {
        self.form = Some(Form::SignOut);
        self
    }

    /// Has the browser keep what is sealed, and come back to it by `on`; where no script runs it says that it does not.
    pub(crate) fn keep(mut self, seal: String, on: String) -> Self {
        self.form = Some(Form::Keep { seal, on });
        self
    }

    pub(crate) fn fetch_kept() -> Self {
        Self { status: StatusCode::OK, form: Some(Form::Fetch), ..Self::new(PageKind::Gone) }
    }

    pub(crate) fn send(seal: String, action: String, user: String, fields: Vec<(String, String)>) -> Self {
        Self { form: Some(Form::Send { seal, action, user, fields }), ..Self::new(PageKind::SendAgain) }
    }

    /// For an application with its routes there.
    pub(crate) fn at(mut self, paths: &Arc<Paths>) -> Self {
        self.paths = paths.clone();
        self
    }

    pub(crate) fn in_language(mut self, language: Language) -> Self {
        self.language = language;
        self
    }

    /// What it is about.
    #[must_use]
    pub fn kind(&self) -> PageKind {
        self.kind
    }

    /// The status of the response, whatever page is made of this.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The language of its words, for `<html lang>`.
    #[must_use]
    pub fn language(&self) -> &'static str {
        self.language.tag()
    }

    /// What stands in the log beside it.
    #[must_use]
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Its heading, in plain text.
    #[must_use]
    pub fn title(&self) -> &'static str {
        self.language.say(match self.kind {
            PageKind::Choose => "title.choose",
            PageKind::Forbidden => "title.forbidden",
            PageKind::Gone | PageKind::NotFound => "title.not_found",
            PageKind::MethodNotAllowed => "title.method",
            PageKind::OtherUser => "title.other_user",
            PageKind::SendAgain => "title.send_again",
            PageKind::Sent => "title.sent",
            PageKind::ServiceFailed => "title.service",
            PageKind::SignInFailed => "title.failed",
            PageKind::SignInNeeded if self.texts.first() == Some(&"sign_in") => "title.sign_in",
            PageKind::SignInNeeded => "title.ended",
            PageKind::SignOut => "title.sign_out",
            PageKind::StepUp => "title.step_up",
            PageKind::TooLarge => "title.too_large",
            PageKind::Unconfirmed => "title.unconfirmed",
            PageKind::Unavailable => "title.unavailable",
        })
    }

    /// Where a person can sign in, of [`Choose`](PageKind::Choose): labels and paths.
    #[must_use]
    pub fn choices(&self) -> &[(String, String)] {
        &self.choices
    }

    /// What stands in its `<main>`, as HTML: heading, text, and the ways on. A page that has to work needs all of it.
    #[must_use]
    pub fn main(&self) -> String {
        let say = |name: &str| escape(self.language.say(name));
        let mut html = format!("<h1>{}</h1>", escape(self.title()));
        for text in &self.texts {
            let words = match &self.form {
                Some(Form::Send { user, action, .. }) => {
                    say(text).replace("{0}", &escape(user)).replace("{1}", &escape(path_of(action)))
                }
                _ => say(text),
            };
            let _ = write!(html, "<p>{words}</p>");
        }
        match &self.form {
            None => {}
            Some(Form::SignOut) => {
                let _ = write!(
                    html,
                    "<form method=\"post\" action=\"{}\"><p><button>{}</button></p></form>",
                    escape(&self.paths.own("logout")),
                    say("do_sign_out")
                );
            }
            Some(Form::Keep { seal, on }) => {
                let _ = write!(
                    html,
                    "<p id=\"whether\">{}</p><input type=\"hidden\" id=\"kept\" value=\"{}\" data-text=\"{}\" \
                     data-href=\"{}\">",
                    say("not_kept"),
                    escape(seal),
                    say("kept"),
                    escape(on)
                );
            }
            Some(Form::Fetch) => html.push_str("<div id=\"fetch\"></div>"),
            Some(Form::Send { seal, action, fields, .. }) => {
                html.push_str("<dl>");
                for (name, value) in fields {
                    let _ = write!(html, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(value));
                }
                let _ = write!(
                    html,
                    "</dl><form method=\"post\" action=\"{}\"><input type=\"hidden\" name=\"seal\" value=\"{}\">\
                     <p><button>{}</button></p></form>",
                    escape(action),
                    escape(seal),
                    say("do_send")
                );
            }
        }
        for (label, url) in &self.choices {
            let _ = write!(html, "<p><a class=\"first\" href=\"{}\">{}</a></p>", escape(url), escape(label));
        }
        let id = if matches!(self.form, Some(Form::Keep { .. })) { " id=\"on\"" } else { "" };
        for (label, url) in &self.links {
            let _ = write!(html, "<p><a class=\"first\"{id} href=\"{}\">{}</a></p>", escape(url), say(label));
        }
        let _ = write!(html, "<p><a href=\"{}\">{}</a></p>", escape(&self.paths.front()), say("front"));
        let _ = write!(html, "<p class=\"small\">{}: {}</p>", say("reference"), escape(&self.reference));
        html
    }

    /// The script that a page with what was entered needs.
    #[must_use]
    pub fn script(&self) -> Option<String> {
        matches!(self.form, Some(Form::Keep { .. } | Form::Fetch)).then(|| self.paths.own("form.js"))
    }

    /// Says which page somebody was shown, so that its reference is found.
    pub(crate) fn log(&self) {
        tracing::info!(reference = %self.reference, kind = ?self.kind, status = self.status.as_u16(), "a page for a person");
    }

    /// The built-in page.
    fn html(&self) -> String {
        let script = self.script().map(|path| format!("<script type=\"module\" src=\"{path}\"></script>"));
        format!(
            "<!doctype html><html lang=\"{}\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{}</title>\
             <style>{STYLE}</style>{}</head><body><main>{}</main></body></html>",
            self.language(),
            escape(self.title()),
            script.unwrap_or_default(),
            self.main()
        )
    }

    /// The built-in response, without what holds for any.
    fn built_in(&self) -> Response {
        let mut response = Response::new(Body::from(self.html()));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.extend(content_security_policy().map(|policy| (CONTENT_SECURITY_POLICY, policy)));
        response
    }

    /// What is sent, made by `make` or built in.
    pub(crate) fn answer(self, make: Option<&PageMaker>) -> Response {
        let mut response = make.map_or_else(|| self.built_in(), |make| make(self.clone()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        // The address may hold a code; but a form has to say where it came from, or the origin takes it for another's.
        let referrer = if self.form.is_some() { "same-origin" } else { "no-referrer" };
        headers.insert(REFERRER_POLICY, HeaderValue::from_static(referrer));
        headers.insert(CONTENT_LANGUAGE, HeaderValue::from_static(self.language.tag()));
        headers.append(VARY, HeaderValue::from_static("accept-language"));
        if let Some(Retry { after, url, by_itself }) = &self.retry {
            let seconds = after.as_secs();
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
            let refresh = url.as_ref().map_or_else(|| seconds.to_string(), |url| format!("{seconds}; url={url}"));
            if *by_itself {
                headers.extend(HeaderValue::try_from(refresh).ok().map(|refresh| (REFRESH, refresh)));
            }
        }
        // Whatever page it is: nobody shows it as a part of another. Policies add up.
        headers.append(CONTENT_SECURITY_POLICY, HeaderValue::from_static("frame-ancestors 'none'"));
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        with_challenge(no_store(response))
    }
}

/// In a response that was made without knowing for whom: what it is to a person.
#[derive(Clone, Debug)]
pub(crate) struct ForPeople(pub(crate) Page);

/// An answer that is a page where a person looks at it.
pub(crate) fn for_people(mut answer: Response, page: Page) -> Response {
    let page = Page { status: answer.status(), ..page };
    answer.extensions_mut().insert(ForPeople(page));
    answer
}

/// In a response: the session did not stand any more when a form was dealt with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FormRefused(pub(crate) Refusal);

/// In a response: the browser is sent to the login, because its session is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SentToLogin;

/// Makes pages of an application's own look.
pub(crate) type PageMaker = dyn Fn(Page) -> Response + Send + Sync;

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        self.log();
        let mut response = self.clone().answer(None);
        // The layer knows the browser's language, and who makes pages.
        response.extensions_mut().insert(self);
        response
    }
}

/// Why a session is over, by the name of the words: no more than is known, and nothing about others.
pub(crate) fn why(reason: EndReason) -> &'static str {
    match reason {
        EndReason::IdleTimeout | EndReason::ProviderSessionExpired => "idle",
        EndReason::ProviderUserLogout => "elsewhere",
        EndReason::ProviderTerminated => "admin",
        EndReason::RpInitiatedLogout => "here",
        _ => "over",
    }
}

fn path_of(action: &str) -> &str {
    action.split(['?', '#']).next().unwrap_or_default()
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = "\
:root{color-scheme:light dark;--text:#1a1a1a;--back:#fff;--link:#1a4fa3;--on:#fff;--line:#767676}\
@media(prefers-color-scheme:dark){:root{--text:#f2f2f2;--back:#1c1c1e;--link:#9cc2ff;--on:#10131a;--line:#8e8e93}}\
body{font:1rem/1.5 system-ui,sans-serif;color:var(--text);background:var(--back);margin:0}\
main{max-width:34rem;margin:12vh auto;padding:0 1rem;overflow-wrap:anywhere}\
h1{font-size:1.5rem;line-height:1.25}a{color:var(--link)}\
button,.first{display:inline-block;font:inherit;padding:.5rem 1rem;border:1px solid var(--link);border-radius:.25rem;\
background:var(--link);color:var(--on);text-decoration:none;cursor:pointer}\
:focus-visible{outline:3px solid var(--link);outline-offset:2px}\
dl{border:1px solid var(--line);border-radius:.25rem;padding:.75rem 1rem}dt{font-weight:600}\
dd{margin:0 0 .5rem;white-space:pre-wrap}.small{font-size:.875rem}";

/// Its own style, our own script, nothing else; and nobody may frame it.
fn content_security_policy() -> Option<HeaderValue> {
    static POLICY: OnceLock<Option<HeaderValue>> = OnceLock::new();
    let policy = POLICY.get_or_init(|| {
        let hash = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
        let policy = format!(
            "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'sha256-{hash}'; base-uri 'none'"
        );
        HeaderValue::try_from(policy).ok()
    });
    policy.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_have_entered_is_shown_and_is_no_html() {
        let page = Page::send(
            "seal".to_owned(),
            "/desk?a=<b>&c".to_owned(),
            "<i>alice</i>".to_owned(),
            vec![("note".to_owned(), "</dd><script>alert(1)</script> \"é\"".to_owned())],
        );
        let html = page.main();
        assert!(
            html.contains("&lt;script&gt;alert(1)&lt;/script&gt; &quot;é&quot;") && !html.contains("<script"),
            "{html}"
        );
        assert!(html.contains("as &lt;i&gt;alice&lt;/i&gt;. This will be sent to /desk:"), "{html}");
        assert!(html.contains("action=\"/desk?a=&lt;b&gt;&amp;c\""), "{html}");
    }

    #[test]
    fn no_more_is_said_about_an_end_than_is_known() {
        for reason in EndReason::ALL {
            let expected = match reason.as_str() {
                "idle_timeout" | "provider_session_expired" => "idle",
                "provider_user_logout" => "elsewhere",
                "provider_terminated" => "admin",
                "rp_initiated_logout" => "here",
                _ => "over",
            };
            assert_eq!(why(*reason), expected, "{reason}");
        }
    }
}
