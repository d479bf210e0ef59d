//! The session cookie and the cookies of login attempts.
//!
//! All are `__Host-` cookies: `Secure`, `Path=/`, no `Domain`, so that no neighbour host can set them. They are
//! `SameSite=Lax`, since the way back from the provider is a cross-site navigation. Their names are derived from issuer
//! and client id: applications on one host do not overwrite each other's.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cookie::{Cookie, CookieJar, Key, SameSite};
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

use super::form::{KeptForm, RETENTION};
use serde::{Deserialize, Serialize};

use crate::error::{ConfigError, secret_from_base64};
use crate::protocol::names::Registration;
use crate::session::end_reason::EndMark;
use crate::session::id::{SessionId, SessionKey, fill_random, is_random_text};
use crate::session::login_attempt::{LOGIN_TIMEOUT, LoginTransaction};

/// What the `state` of a second attempt ends with: unreserved in URLs, and in no `state` of ours besides.
pub(crate) const SECOND_ATTEMPT: char = '~';
/// A browser that follows redirects has done so in this time.
const LED_ON: Duration = Duration::from_secs(10);
/// More attempts at once than this throw out the oldest.
const MAX_LOGINS: usize = 20;
/// Nor are their cookies longer than this together: servers refuse long headers.
const MOST_LOGIN_BYTES: usize = 4000;

/// A key that protects the cookies of login attempts. Replicas share it.
#[derive(Clone)]
pub struct CookieKey(Vec<u8>);

impl CookieKey {
    const LENGTH: usize = 64;
    const TAKES: &str = "64 random bytes in base64, as of `openssl rand -base64 64`";

    /// A random key: a login that one replica began cannot be finished by another, nor after a restart.
    #[must_use]
    pub fn generate() -> Self {
        let mut bytes = vec![0; Self::LENGTH];
        fill_random(&mut bytes);
        Self(bytes)
    }

    /// 64 random bytes in base64, as of `openssl rand -base64 64`; line ends are no matter.
    ///
    /// # Errors
    /// If it is not base64, or not of 64 bytes.
    pub fn from_base64(text: &str) -> Result<Self, ConfigError> {
        secret_from_base64("cookie_key", text, Self::LENGTH, Self::TAKES).map(Self)
    }

    fn to_key(&self) -> Result<Key, ConfigError> {
        Key::try_from(self.0.as_slice()).map_err(|_| ConfigError::new("cookie_key", "not a key", Self::TAKES))
    }
}

impl fmt::Debug for CookieKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CookieKey(…)")
    }
}

/// How cookies are kept from others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CookieKind {
    /// `__Host-` and `Secure`.
    #[default]
    Host,
    /// Neither, for plain http to another machine.
    Development,
}

pub(crate) struct Cookies {
    kind: CookieKind,
    session: String,
    login: String,
    led_on: String,
    ended: String,
    form: String,
    /// Seals, and opens.
    key: Key,
    /// Open only.
    further_keys: Vec<Key>,
}

impl fmt::Debug for Cookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cookies").field("session", &self.session).finish_non_exhaustive()
    }
}

/// What the browser keeps of a session that ended, until the login that follows.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Noted {
    pub(crate) key: SessionKey,
    pub(crate) mark: EndMark,
}

/// What a request brought as its session cookie.
#[derive(Debug)]
pub(crate) enum Presented {
    Id(SessionId),
    /// Something that never was a session id.
    Malformed,
    Nothing,
}

impl Cookies {
    pub(crate) fn new(
        registration: &Registration,
        key: &CookieKey,
        further_keys: &[CookieKey],
        kind: CookieKind,
        tenant: &str,
    ) -> Result<Self, ConfigError> {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(registration.issuer().as_str().as_bytes());
        context.update(&[0]);
        context.update(registration.client_id().as_str().as_bytes());
        if !tenant.is_empty() {
            context.update(&[0]);
            context.update(tenant.as_bytes());
        }
        let tag: String = URL_SAFE_NO_PAD.encode(context.finish()).chars().take(8).collect();
        let prefix = match kind {
            CookieKind::Host => "__Host-",
            CookieKind::Development => "dev-",
        };
        Ok(Self {
            kind,
            session: format!("{prefix}session-{tag}"),
            login: format!("{prefix}login-{tag}-"),
            led_on: format!("{prefix}led-on-{tag}"),
            ended: format!("{prefix}ended-{tag}"),
            form: format!("{prefix}form-{tag}"),
            key: key.to_key()?,
            further_keys: further_keys.iter().map(CookieKey::to_key).collect::<Result<_, _>>()?,
        })
    }

    /// The session cookie in a `Cookie` header.
    pub(crate) fn session(&self, header: &HeaderValue) -> Presented {
        match find(header.as_bytes(), self.session.as_bytes()) {
            Some(found) => SessionId::parse(found).map_or(Presented::Malformed, Presented::Id),
            None => Presented::Nothing,
        }
    }

    /// Whether a pair of a `Cookie` header is the session's.
    pub(crate) fn is_session(&self, pair: &[u8]) -> bool {
        find(pair, self.session.as_bytes()).is_some()
    }

    /// Sets the session cookie. It goes with the browser, unless it is to be kept; the session's end is the server's to know.
    pub(crate) fn set_session(&self, id: &SessionId, kept_for: Option<Duration>) -> HeaderValue {
        let mut cookie = Cookie::new(self.session.clone(), id.to_cookie());
        if let Some(kept_for) = kept_for {
            cookie.set_max_age(cookie::time::Duration::try_from(kept_for).ok());
        }
        header(cookie, self.kind)
    }

    pub(crate) fn remove_session(&self) -> HeaderValue {
        removal(&self.session, self.kind)
    }

    /// Whether a link to the login has led the browser on a moment ago, without a login.
    pub(crate) fn was_led_on(&self, headers: &HeaderMap) -> bool {
        pairs(headers).any(|(name, _)| name == self.led_on)
    }

    /// Notes that, for as long as the redirects after it may take.
    pub(crate) fn set_led_on(&self) -> HeaderValue {
        let mut cookie = Cookie::new(self.led_on.clone(), "1");
        cookie.set_max_age(LED_ON.try_into().ok());
        header(cookie, self.kind)
    }

    /// Notes for the login that follows why the session ended that the browser had, and whose it was.
    pub(crate) fn set_ended(&self, noted: &Noted) -> Option<HeaderValue> {
        let mut cookie = self.seal(&self.ended, serde_json::to_string(noted).ok()?)?;
        cookie.set_max_age(LOGIN_TIMEOUT.try_into().ok());
        Some(header(cookie, self.kind))
    }

    /// What was noted of the session that the browser had.
    pub(crate) fn ended(&self, headers: &HeaderMap) -> Option<Noted> {
        let (_, value) = pairs(headers).find(|(name, _)| *name == self.ended)?;
        serde_json::from_str(self.open_cookie(&self.ended, value)?.value()).ok()
    }

    /// Whether something was, as far as the names of cookies say.
    pub(crate) fn has_ended(&self, headers: &HeaderMap) -> bool {
        pairs(headers).any(|(name, _)| name == self.ended)
    }

    pub(crate) fn remove_ended(&self) -> HeaderValue {
        removal(&self.ended, self.kind)
    }

    /// The cookie that binds kept forms to this browser, new if it has none.
    pub(crate) fn form(&self, headers: &HeaderMap) -> Option<String> {
        let (_, value) = pairs(headers).find(|(name, _)| *name == self.form)?;
        is_random_text(value).then(|| value.to_owned())
    }

    pub(crate) fn set_form(&self, browser: &str) -> HeaderValue {
        let mut cookie = Cookie::new(self.form.clone(), browser.to_owned());
        cookie.set_max_age(RETENTION.try_into().ok());
        header(cookie, self.kind)
    }

    /// What nobody but this application can read.
    pub(crate) fn seal_form(&self, form: &KeptForm) -> Option<String> {
        self.seal(&self.form, serde_json::to_string(form).ok()?).map(|sealed| sealed.value().to_owned())
    }

    pub(crate) fn open_form(&self, seal: &str) -> Option<KeptForm> {
        serde_json::from_str(self.open_cookie(&self.form, seal)?.value()).ok()
    }

    fn seal(&self, name: &str, value: String) -> Option<Cookie<'static>> {
        let mut jar = CookieJar::new();
        jar.private_mut(&self.key).add(Cookie::new(name.to_owned(), value));
        jar.get(name).cloned()
    }

    fn open_cookie(&self, name: &str, value: &str) -> Option<Cookie<'static>> {
        let open_with = |key| CookieJar::new().private(key).decrypt(Cookie::new(name.to_owned(), value.to_owned()));
        std::iter::once(&self.key).chain(&self.further_keys).find_map(open_with)
    }

    fn login_name(&self, state: &str) -> Option<String> {
        // Our own states are base64url, with a mark at most; the query's may be anything.
        let may_be_ours = is_random_text(state.strip_suffix(SECOND_ATTEMPT).unwrap_or(state));
        let beginning = state.get(..12).filter(|_| may_be_ours)?;
        Some(format!("{}{beginning}", self.login))
    }

    /// Remembers a login attempt and forgets the oldest if there are too many.
    pub(crate) fn set_login(&self, headers: &HeaderMap, transaction: &LoginTransaction) -> Vec<HeaderValue> {
        let Some(name) = self.login_name(&transaction.state) else { return Vec::new() };
        let Ok(json) = serde_json::to_string(transaction) else { return Vec::new() };
        let Some(mut cookie) = self.seal(&name, json) else { return Vec::new() };
        cookie.set_max_age(LOGIN_TIMEOUT.try_into().ok());
        let mut attempts: Vec<(SystemTime, String, usize)> = pairs(headers)
            .filter(|(name, _)| name.starts_with(&self.login))
            .map(|(name, value)| {
                let started = self.open(name, value).map_or(SystemTime::UNIX_EPOCH, |login| login.started_at);
                (started, name.to_owned(), name.len() + value.len())
            })
            .collect();
        // The newest stay, as many as there is room for.
        attempts.sort();
        let mut room = MOST_LOGIN_BYTES.saturating_sub(name.len() + cookie.value().len());
        let stay = attempts.iter().rev().take(MAX_LOGINS - 1).take_while(|(_, _, size)| {
            let fits = *size <= room;
            room = room.saturating_sub(*size);
            fits
        });
        let too_many = attempts.len() - stay.count();
        let removals = attempts.iter().take(too_many).map(|(_, name, _)| removal(name, self.kind));
        removals.chain([header(cookie, self.kind)]).collect()
    }

    /// The login attempt that an answer with this `state` belongs to.
    pub(crate) fn login(&self, headers: &HeaderMap, state: &str, now: SystemTime) -> Option<LoginTransaction> {
        let name = self.login_name(state)?;
        let (_, value) = pairs(headers).find(|(n, _)| *n == name)?;
        let transaction = self.open(&name, value)?;
        let is_ours = aws_lc_rs::constant_time::verify_slices_are_equal(transaction.state.as_bytes(), state.as_bytes());
        let age = now.duration_since(transaction.started_at).unwrap_or_default();
        (is_ours.is_ok() && age < LOGIN_TIMEOUT).then_some(transaction)
    }

    pub(crate) fn remove_login(&self, state: &str) -> Option<HeaderValue> {
        self.login_name(state).map(|name| removal(&name, self.kind))
    }

    fn open(&self, name: &str, value: &str) -> Option<LoginTransaction> {
        serde_json::from_str(self.open_cookie(name, value)?.value()).ok()
    }
}

/// The value of the first cookie of that name, without a look at the others.
fn find<'a>(cookies: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut rest = cookies;
    loop {
        let end = memchr::memchr(b';', rest);
        let (pair, others) = end.and_then(|end| rest.split_at_checked(end)).unwrap_or((rest, &[]));
        if let Some(value) = pair.trim_ascii_start().strip_prefix(name).and_then(|value| value.strip_prefix(b"=")) {
            return Some(value.trim_ascii_end());
        }
        rest = others.strip_prefix(b";")?;
    }
}

/// The names and values of a request's cookies. What cannot be read is somebody else's: scripts and neighbour hosts set
/// cookies of any bytes, and browsers send them along with ours.
fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
        .filter_map(|pair| std::str::from_utf8(pair).ok()?.trim().split_once('='))
}

fn header(mut cookie: Cookie<'_>, kind: CookieKind) -> HeaderValue {
    cookie.set_secure(kind == CookieKind::Host);
    cookie.set_http_only(true);
    cookie.set_same_site(SameSite::Lax);
    cookie.set_path("/");
    // Names and values are base64url, hexadecimal or base64 throughout.
    let mut value = HeaderValue::from_str(&cookie.to_string()).unwrap_or_else(|_| HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// A removal with all attributes: browsers ignore one for a `__Host-` name that lacks `Secure`.
fn removal(name: &str, kind: CookieKind) -> HeaderValue {
    let mut cookie = Cookie::new(name.to_owned(), "");
    cookie.set_max_age(cookie::time::Duration::ZERO);
    header(cookie, kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::names::{ClientId, Issuer};
    use crate::session::id::random_text;
    use crate::session::login_attempt::ReturnTo;

    fn cookies(key: &CookieKey) -> Cookies {
        cookies_with(key, &[])
    }

    fn cookies_with(key: &CookieKey, further_keys: &[CookieKey]) -> Cookies {
        let registration = Registration::new(Issuer::new("https://op"), ClientId::new("shop"));
        Cookies::new(&registration, key, further_keys, CookieKind::Host, "").unwrap()
    }

    fn transaction(started_at: SystemTime) -> LoginTransaction {
        LoginTransaction {
            authentication: crate::protocol::authorization::Authentication::default(),
            state: random_text(),
            nonce: random_text(),
            pkce_verifier: random_text(),
            return_to: ReturnTo::own("/".to_owned()),
            started_at,
            session: None,
            began_at: Some(started_at),
            seen: None,
            follows: None,
            linked: Vec::new(),
            dpop_jkt: None,
        }
    }

    fn store(headers: &mut HeaderMap, set: &[HeaderValue]) {
        for value in set {
            let text = value.to_str().unwrap();
            assert!(text.starts_with("__Host-") && text.contains("; Secure") && text.contains("; HttpOnly"));
            assert!(text.contains("; SameSite=Lax") && text.contains("; Path=/") && !text.contains("Domain"));
            headers.append(COOKIE, HeaderValue::from_str(text.split(';').next().unwrap()).unwrap());
        }
    }

    #[test]
    fn login_cookies_open_with_the_key_the_state_and_in_time() {
        let key = CookieKey::generate();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let login = transaction(now);
        let mut headers = HeaderMap::new();
        let set = cookies(&key).set_login(&headers, &login);
        store(&mut headers, &set);
        let open = |cookies: &Cookies, state: &str, at| cookies.login(&headers, state, at).map(|login| login.nonce);
        assert_eq!(open(&cookies(&key), &login.state, now), Some(login.nonce.clone()));
        assert_eq!(open(&cookies(&key), &random_text(), now), None);
        assert_eq!(open(&cookies(&key), "", now), None);
        assert_eq!(open(&cookies(&key), &"é".repeat(30), now), None);
        assert_eq!(open(&cookies(&key), &login.state, now + LOGIN_TIMEOUT), None);
        assert_eq!(open(&cookies(&CookieKey::generate()), &login.state, now), None);
        assert!(!format!("{login:?}").contains(&login.nonce));
    }

    #[test]
    fn p13_a_key_is_replaced_in_two_steps_and_no_attempt_is_lost() {
        let (old, new) = (CookieKey::generate(), CookieKey::generate());
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let before = || cookies(&old);
        let told = || cookies_with(&old, std::slice::from_ref(&new));
        let sealing = || cookies_with(&new, std::slice::from_ref(&old));
        let after = || cookies(&new);
        // Replicas of two neighbouring steps run side by side; the last column says whether one reads the other's.
        for (case, writes, reads, opens) in [
            ("before and told", before(), told(), true),
            ("told and before", told(), before(), true),
            ("told and sealing", told(), sealing(), true),
            ("sealing and told", sealing(), told(), true),
            ("sealing and after", sealing(), after(), true),
            ("a step was left out", sealing(), before(), false),
            ("the old key is gone", told(), after(), false),
        ] {
            let login = transaction(now);
            let mut headers = HeaderMap::new();
            let set = writes.set_login(&headers, &login);
            store(&mut headers, &set);
            assert_eq!(reads.login(&headers, &login.state, now).is_some(), opens, "{case}");
        }
    }

    #[test]
    fn p13_attempts_in_the_format_of_earlier_versions_are_read() {
        for json in [
            include_str!("../../tests/golden/login_attempt_1.json"),
            // A new format gets a new file beside the old.
            include_str!("../../tests/golden/login_attempt_2.json"),
        ] {
            let attempt: LoginTransaction = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&attempt).unwrap(), json.trim());
        }
    }

    #[test]
    fn p13_a_note_of_an_end_in_the_format_of_earlier_versions_is_read() {
        let golden = include_str!("../../tests/golden/noted_1.json");
        let noted: Noted = serde_json::from_str(golden).unwrap();
        assert_eq!(serde_json::to_string(&noted).unwrap(), golden.trim());
    }

    #[test]
    fn attempts_are_bounded_and_the_oldest_goes() {
        let cookies = cookies(&CookieKey::generate());
        let mut kept: Vec<(String, String)> = Vec::new();
        for second in 0..30 {
            let mut headers = HeaderMap::new();
            for (name, value) in &kept {
                headers.append(COOKIE, HeaderValue::from_str(&format!("{name}={value}")).unwrap());
            }
            let login = transaction(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
            for set in cookies.set_login(&headers, &login) {
                let text = set.to_str().unwrap().to_owned();
                let (name, value) = text.split(';').next().unwrap().split_once('=').unwrap();
                if text.contains("Max-Age=0") {
                    assert_eq!(kept.remove(0).0, name, "the oldest goes first");
                } else {
                    kept.push((name.to_owned(), value.to_owned()));
                }
            }
            let bytes: usize = kept.iter().map(|(name, value)| name.len() + value.len()).sum();
            assert!(bytes <= MOST_LOGIN_BYTES && kept.len() <= MAX_LOGINS, "{bytes} bytes");
            assert_eq!(kept.last().unwrap().0, cookies.login_name(&login.state).unwrap());
        }
        assert!(kept.len() > 5, "{}", kept.len());
    }

    #[test]
    fn session_cookies() {
        let cookies = cookies(&CookieKey::generate());
        let id = SessionId::random();
        let own = cookies.set_session(&id, None);
        let own = own.to_str().unwrap().split(';').next().unwrap();
        let odd = format!("{}=x", cookies.session);
        let found = |text: &str| cookies.session(&HeaderValue::from_str(text).unwrap());
        assert!(matches!(found("a=b; c"), Presented::Nothing));
        assert!(matches!(found(&format!("a=b; c; {own}")), Presented::Id(presented) if presented == id));
        assert!(matches!(found(&odd), Presented::Malformed));
    }

    #[test]
    fn cookies_that_cannot_be_read_are_skipped_one_by_one() {
        let cookies = cookies(&CookieKey::generate());
        let id = SessionId::random();
        let set = cookies.set_session(&id, None);
        assert!(set.is_sensitive());
        let ours = set.as_bytes().split(|byte| *byte == b';').next().unwrap();
        for others in ["ort=Köln".as_bytes(), b"ort=K\xf6ln", b"\xff=\xfe", b"\xff", b"a", b"=", b"", b"; ;\t", b"a=\t"]
        {
            for order in [[others, b"; ", ours], [ours, b";", others]] {
                let found = cookies.session(&HeaderValue::from_bytes(&order.concat()).unwrap());
                let case = String::from_utf8_lossy(others);
                assert!(matches!(found, Presented::Id(presented) if presented == id), "{case}");
            }
        }
        // What stands in the place of the id and cannot be one.
        let odd = [cookies.session.as_bytes(), "=Köln".as_bytes()].concat();
        assert!(matches!(cookies.session(&HeaderValue::from_bytes(&odd).unwrap()), Presented::Malformed));
    }
}

#[cfg(test)]
#[path = "cookie_properties.rs"]
mod properties;
