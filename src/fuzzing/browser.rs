//! What browsers send, and whoever can make one send it.

use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::task::noop_waker;
use http::header::COOKIE;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue};
use url::{Url, form_urlencoded};

use super::{ISSUER, line, now, registration};
use crate::protocol::authorization::{self, Authentication, AuthorizationResponse};
use crate::protocol::issuers::Issuers;
use crate::protocol::names::{ClientId, Issuer, Registration};
use crate::session::authorization_parameters::AuthorizationParameters;
use crate::session::id::{ClientTag, SessionId, SessionKey, is_random_text};
use crate::session::login_attempt::{LoginTransaction, ReturnTo};
use crate::session::partition::Partition;
use crate::web::cookie::{CookieKey, CookieKind, Cookies, Presented};
use crate::web::form::{Entered, take_mark};
use crate::web::multipart::{self, Field};
use crate::web::paths::Paths;

/// Browsers keep, and servers take, no more than that of login attempts.
const MOST_OF_ATTEMPTS: (usize, usize) = (20, 4000);

static COOKIES: LazyLock<Cookies> = LazyLock::new(|| {
    let key = CookieKey::from_base64(&STANDARD.encode([7; 64])).unwrap();
    Cookies::new(&registration(), &key, &[], CookieKind::Host, "").unwrap()
});

fn attempt() -> LoginTransaction {
    LoginTransaction {
        state: "s".repeat(43),
        nonce: "n".repeat(43),
        pkce_verifier: "v".repeat(43),
        return_to: ReturnTo::own("/".to_owned()),
        started_at: now(),
        authentication: Authentication::default(),
        session: None,
        began_at: Some(now()),
        seen: None,
        follows: None,
        linked: Vec::new(),
        dpop_jkt: None,
    }
}

/// The name and the value of a `Set-Cookie` header.
fn name_and_value(set: &HeaderValue) -> (&[u8], &[u8]) {
    let pair = set.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    let end = pair.iter().position(|byte| *byte == b'=').expect("a cookie has a value");
    (pair.split_at(end).0, pair.split_at(end + 1).1)
}

/// The pairs of a `Cookie` header, read in the plainest way.
fn pairs(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    header.split(|byte| *byte == b';').map(<[u8]>::trim_ascii)
}

/// A `Cookie` header.
pub fn cookie_header(bytes: &[u8]) {
    let Ok(header) = HeaderValue::from_bytes(bytes) else { return };
    let id = SessionId::parse(&[b'x'; 43]).expect("of the right length");
    let ours = COOKIES.set_session(&id, None);
    let (name, value) = name_and_value(&ours);
    let mine = [name, b"=", value].concat();
    let brought = pairs(bytes).find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="));
    match (COOKIES.session(&header), brought) {
        (Presented::Nothing, None) => {}
        (Presented::Id(found), Some(brought)) => assert_eq!(Some(found), SessionId::parse(brought)),
        (Presented::Malformed, Some(brought)) => assert_eq!(SessionId::parse(brought), None),
        (found, _) => panic!("{found:?} is not what was brought"),
    }
    // Whatever others set, ours is found.
    let both = HeaderValue::from_bytes(&[bytes, b"; ", &mine].concat()).expect("both are header values");
    assert!(brought.is_some() || matches!(COOKIES.session(&both), Presented::Id(found) if found == id));

    let mut headers = HeaderMap::new();
    headers.append(COOKIE, header);
    assert!(COOKIES.ended(&headers).is_none(), "nobody else can seal");
    assert!(COOKIES.form(&headers).is_none_or(|browser| is_random_text(&browser)));
    let login = attempt();
    assert!(COOKIES.login(&headers, &login.state, now()).is_none(), "nobody else can seal");
    let set = COOKIES.set_login(&headers, &login);
    assert!(set.iter().all(|set| !set.is_empty()), "what it takes to remove a cookie can be written");
    let (added, removed) = set.split_last().expect("an attempt is remembered");
    let (name, value) = name_and_value(added);
    let removed: Vec<&[u8]> = removed.iter().map(|set| name_and_value(set).0).collect();
    // What the browser has of attempts, with the new one.
    let prefix = name.split_at(name.len() - 12).0;
    let kept: Vec<&[u8]> = pairs(bytes)
        .filter(|pair| std::str::from_utf8(pair).is_ok() && pair.starts_with(prefix) && pair.contains(&b'='))
        .filter(|pair| !removed.iter().any(|name| pair.strip_prefix(*name).is_some_and(|rest| rest.starts_with(b"="))))
        .collect();
    let size = kept.iter().map(|pair| pair.len() - 1).sum::<usize>() + name.len() + value.len();
    assert!(kept.len() < MOST_OF_ATTEMPTS.0 && size <= MOST_OF_ATTEMPTS.1, "{} attempts, {size} bytes", kept.len());
    // It comes back behind whatever else there is.
    let is_shadowed = pairs(bytes).any(|pair| pair.strip_prefix(name).is_some_and(|rest| rest.starts_with(b"=")));
    headers.append(COOKIE, HeaderValue::from_bytes(&[name, b"=", value].concat()).expect("a header value"));
    let found = COOKIES.login(&headers, &login.state, now());
    assert!(is_shadowed || found.is_some_and(|found| found.nonce == login.nonce));
}

/// The query of the provider's answer to a login.
pub fn callback_query(bytes: &[u8]) {
    let Ok(query) = std::str::from_utf8(bytes) else { return };
    let values = |name: &str| {
        let pairs = form_urlencoded::parse(bytes).filter(|(n, _)| n == name);
        pairs.map(|(_, value)| value.into_owned()).collect::<Vec<String>>()
    };
    if let Ok(state) = authorization::state(query) {
        assert_eq!(values("state"), [state.as_str()]);
        assert!(COOKIES.login(&HeaderMap::new(), &state, now()).is_none());
        assert!(COOKIES.remove_login(&state).is_none_or(|removal| removal.to_str().is_ok_and(|text| !text.is_empty())));
    }
    let issuers = Issuers::one(Issuer::new(ISSUER));
    let strict = AuthorizationResponse::parse(query, &issuers, true);
    let lenient = AuthorizationResponse::parse(query, &issuers, false);
    if strict.is_ok() {
        assert_eq!(values("iss"), [ISSUER]);
        assert_eq!(strict, lenient);
    }
    let issuers = values("iss");
    if issuers.len() > 1 || issuers.iter().any(|named| named != ISSUER && !named.is_empty()) {
        assert!(lenient.is_err(), "the answer of another issuer was taken");
    }
    match lenient {
        Ok(AuthorizationResponse::Code(code)) => {
            assert_eq!(values("code"), [code.as_str()]);
            assert!(values("error").concat().is_empty(), "an error goes first");
        }
        Ok(AuthorizationResponse::Error(error)) => {
            assert!(error.as_str().len() <= 64 && error.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
        }
        Err(_) => {}
    }
}

/// The query of a link to the login, or the path that such a link names.
pub fn login_query(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let origin = Url::parse("https://shop.example/shop/").expect("a URL");
    if let Some(path) = ReturnTo::parse(text, &origin) {
        let written = path.as_str();
        assert!(written.starts_with('/') && !written.starts_with("//") && written.is_ascii());
        assert!(!written.contains(|c: char| c.is_control() || c == '\\' || c == ' '));
        // Wherever the browser is when it reads this, it stays here.
        for base in ["https://shop.example/", "https://shop.example/auth/callback?code=x", "https://shop.example//a/b"]
        {
            let reached = Url::parse(base).expect("a URL").join(written).expect("a path");
            assert_eq!(reached.origin(), origin.origin(), "{written}");
        }
        assert_eq!(ReturnTo::parse(written, &origin).as_ref(), Some(&path));
        assert!(HeaderValue::from_str(written).is_ok());
    }
    let authentication = Authentication::parse(text);
    if let Some(authentication) = &authentication {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(authentication.parameters()).finish();
        assert_eq!(Authentication::parse(&query).as_ref(), Some(authentication));
    }
    // A link to the login leads back to where it was made, and asks for what it was made for.
    if let Ok(path) = PathAndQuery::try_from(text) {
        let authentication = authentication.unwrap_or_default();
        for paths in [Paths::default(), Paths::new("/shop", "/sign", None), Paths::new("/shop", "/sign", Some("staff"))]
        {
            let link = paths.login(Some(&path), &authentication);
            let query = link.split_once('?').expect("a query").1;
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            assert_eq!(pairs.next().expect("return_to").1, path.as_str());
            assert_eq!(Authentication::parse(query).as_ref(), Some(&authentication));
            assert!(paths.seen(&path).as_str().starts_with('/') || !path.as_str().starts_with('/'));
        }
    }
    let linked = AuthorizationParameters::default().of_link(text);
    assert!(linked.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= 512);
    assert!(linked.iter().all(|(name, _)| matches!(name.as_str(), "login_hint" | "ui_locales")));
}

/// A form, to be kept: its content type in the first line, then its body.
pub fn form_body(bytes: &[u8]) {
    let (content_type, body) = line(bytes);
    let Ok(content_type) = std::str::from_utf8(content_type) else { return };
    if let Ok(request) = http::Request::post(content_type).body(()) {
        let mut parts = request.into_parts().0;
        let before = parts.uri.clone();
        assert!(take_mark(&mut parts) == (parts.uri != before));
    }
    let plain = Entered::Plain { content_type: content_type.to_owned(), body: body.to_vec() };
    assert!(plain.fields().len() <= body.len() + 1);
    assert_eq!(plain.into_body(), (content_type.to_owned(), body.to_vec()));
    let Some(fields) = fields(content_type, body) else { return };
    let size: usize = fields.iter().map(|field| field.name.len()).sum();
    assert!(size <= multipart::MOST_BYTES && fields.len() <= multipart::MOST_BYTES / 64);
    // The parser takes a backslash for an escape, which it is not to browsers.
    if fields.iter().any(|field| field.name.contains('\\')) {
        return;
    }
    // What is written is read again: names as browsers write them, and files as none that were chosen.
    let (content_type, body) = multipart::write(&fields);
    let Some(again) = self::fields(&content_type, &body) else {
        // What it takes to write a name may be too much.
        assert!(fields.iter().any(|field| field.name.contains(['"', '\r', '\n'])) || size > multipart::MOST_BYTES / 4);
        return;
    };
    let (content_type, body) = multipart::write(&again);
    assert_eq!(self::fields(&content_type, &body), Some(again));
}

fn fields(content_type: &str, body: &[u8]) -> Option<Vec<Field>> {
    let mut work = pin!(multipart::fields_of(content_type, Bytes::copy_from_slice(body)));
    // All of it is there: it only asks to be called again.
    for _ in 0..1000 {
        if let Poll::Ready(fields) = work.as_mut().poll(&mut Context::from_waker(&noop_waker())) {
            return fields;
        }
    }
    panic!("a form has no end");
}

/// The value of a session cookie, which says in which part of a store its session lies; or the name of a session.
pub fn partition_id(bytes: &[u8]) {
    if let Some(key) = std::str::from_utf8(bytes).ok().and_then(SessionKey::from_hex) {
        assert!(key.to_string().as_bytes().eq_ignore_ascii_case(bytes), "{key} is another text");
    }
    let Some(id) = SessionId::parse(bytes) else {
        assert_ne!(bytes.len(), 43);
        return;
    };
    let key = SessionKey::of(&id, ClientTag::of(&registration(), ""));
    let (partition, hash) = key.as_bytes().split_first().expect("a key is no empty text");
    assert!(*partition < Partition::COUNT);
    assert_eq!(SessionKey::from_hex(&key.to_string()), Some(key));
    let neighbour = ClientTag::of(&Registration::new(Issuer::new(ISSUER), ClientId::new("shop2")), "");
    assert_ne!(SessionKey::of(&id, neighbour).as_bytes().split_first().expect("the same").1, hash);
    #[cfg(feature = "redis")]
    assert_eq!(key.partition().number(), *partition);
    if let Ok(text) = std::str::from_utf8(bytes)
        && is_random_text(text)
    {
        assert_eq!(id.to_cookie(), text);
        // Base64url says it: the first character holds the first six bits.
        let decoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(bytes.split_at(4).0);
        assert_eq!(decoded.expect("base64url").first().map(|byte| byte >> 2), Some(*partition));
    }
}
