//! What the provider and APIs send, and whoever poses as one of them.

use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Map, Value};
use url::{Url, form_urlencoded};

use super::{ISSUER, line, now, registration};
use crate::protocol::authorization::Authentication;
use crate::protocol::challenge::{self, ApiVerdict, Scheme};
use crate::protocol::id_token::{AuthenticationRequest, IdToken, OriginalLogin};
use crate::protocol::issuers::Issuers;
use crate::protocol::jwt::{Expected, KeySet, Moment, SigningAlg, UnverifiedJwt, VerifiedJwt};
use crate::protocol::logout_token::{LogoutToken, LogoutTokenPolicy, MissingExpiry, Whom};
use crate::protocol::metadata::ProviderMetadata;
use crate::protocol::names::{AccessToken, Issuer, Subject};
use crate::protocol::security_event::{ExpectedEvent, SecurityEvent, SecurityEventToken};
use crate::protocol::token_response::{self, TokenType, TokenVerdict};
use crate::protocol::url::PlainHttp;
use crate::session::step_up;
use crate::web::paths::Paths;
use crate::web::routes::backchannel_logout::token_of_body;

const TOLERANCE: Duration = Duration::from_secs(60);

/// The provider's key, which is nobody's secret, and its JWK Set.
static KEY: LazyLock<(Ed25519KeyPair, KeySet)> = LazyLock::new(|| {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    let set = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"a","x":"{x}"}}]}}"#);
    let keys = KeySet::parse(set.as_bytes(), SigningAlg::EdDSA).unwrap();
    (pair, keys)
});

fn sign(message: &str) -> String {
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(KEY.0.sign(message.as_bytes())))
}

fn verify(token: &str) -> Option<VerifiedJwt> {
    UnverifiedJwt::parse(token).ok()?.verify(&KEY.1, SigningAlg::EdDSA).ok()
}

/// A token: the text itself, which nobody has signed; and one whose header is the first line and whose claims are the
/// others, which the provider has.
pub fn jwt(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    assert!(verify(text).is_none(), "nobody has signed it");
    if let Ok(parsed) = UnverifiedJwt::parse(text) {
        assert!(text.len() <= 64 * 1024);
        claims(|| Some(UnverifiedJwt::parse(text).ok()?.trust_channel()), parsed.unverified_claims());
    }
    let (header, body) = line(bytes);
    let token = sign(&format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(body)));
    let Ok(parsed) = UnverifiedJwt::parse(&token) else { return };
    let written = parsed.unverified_claims().clone();
    if verify(&token).is_none() {
        return;
    }
    claims(|| verify(&token), &written);
    // Whatever is changed, the signature is of something else.
    let at = token.len() / 2;
    let changed = if token.as_bytes().get(at) == Some(&b'A') { "B" } else { "A" };
    assert!(verify(&format!("{}{changed}{}", token.split_at(at).0, token.split_at(at + 1).1)).is_none());
}

/// What the claims of a token are taken for.
fn claims(token: impl Fn() -> Option<VerifiedJwt>, written: &Map<String, Value>) {
    let token = || token().expect("it was read before");
    let registration = registration();
    let (issuers, client_id) = (Issuers::one(registration.issuer().clone()), registration.client_id());
    let at = Moment { now: now(), tolerance: TOLERANCE };
    let expected = Expected { issuers: &issuers, client_id, at };
    let text = |name: &str| written.get(name).and_then(Value::as_str);
    let login = IdToken::of_login(token(), &expected, AuthenticationRequest { nonce: "nonce", max_age: None });
    let fresh = AuthenticationRequest { nonce: "nonce", max_age: Some(Duration::from_secs(60)) };
    let fresh = IdToken::of_login(token(), &expected, fresh);
    assert!(fresh.is_err() || login.is_ok());
    let subject = Subject::new("alice");
    let refreshed = IdToken::of_refresh(
        token(),
        at,
        OriginalLogin { registration: &registration, subject: &subject, nonce: "nonce" },
    );
    let strict = LogoutToken::validate(token(), &expected, LogoutTokenPolicy::new());
    let lenient = LogoutTokenPolicy::new().missing_expiry(MissingExpiry::AcceptYoungerThan(Duration::MAX));
    let logout = LogoutToken::validate(token(), &expected, lenient);
    assert!(strict.is_err() || strict == logout);
    // RFC 8725 §3.12: no token of one kind passes for one of another.
    assert!(logout.is_err() || (login.is_err() && refreshed.is_err()));
    let issued_at = [login.as_ref().ok().map(|id| id.issued_at), logout.as_ref().ok().map(|token| token.issued_at)];
    assert!(issued_at.into_iter().flatten().all(|at| at <= now() + TOLERANCE));
    if let Ok(id) = &login {
        assert_eq!((text("iss"), text("nonce"), text("sub")), (Some(ISSUER), Some("nonce"), Some(id.subject.as_str())));
        assert!(id.subject.as_str().chars().count() <= 255);
        for alg in [SigningAlg::EdDSA, SigningAlg::RS256, SigningAlg::ES384] {
            let access_token = AccessToken::new("access");
            assert!(id.check_access_token(&access_token, alg).is_ok() || written.contains_key("at_hash"));
        }
    }
    if let Ok(refreshed) = refreshed {
        assert_eq!(refreshed.id_token.subject, subject);
        assert!(text("iss").is_none_or(|iss| iss == ISSUER) && text("nonce").is_none_or(|nonce| nonce == "nonce"));
    }
    if let Ok(logout) = logout {
        assert_eq!((text("iss"), text("jti")), (Some(ISSUER), Some(logout.jti.as_str())));
    }
}

/// A JWK Set.
pub fn jwk_set(bytes: &[u8]) {
    let written: Option<Map<String, Value>> = serde_json::from_slice(bytes).ok();
    let written = written.as_ref().and_then(|set| set.get("keys")?.as_array());
    let kids = written.into_iter().flatten().filter_map(|key| key.get("kid"));
    let mut kids: Vec<Option<&Value>> = kids.map(Some).collect();
    kids.push(None);
    for alg in SigningAlg::ALL {
        let Some(keys) = KeySet::parse(bytes, alg) else {
            continue;
        };
        // A key that was taken is one to verify with, and no signature of anything.
        for kid in &kids {
            let mut header = serde_json::json!({"alg": alg.as_str()});
            if let (Some(kid), Some(header)) = (kid, header.as_object_mut()) {
                header.insert("kid".to_owned(), Value::clone(kid));
            }
            let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
            for signature in [vec![], vec![0; 64], vec![1; 256]] {
                let signature = URL_SAFE_NO_PAD.encode(signature);
                let token = format!("{}.{}.{signature}", part(&header.to_string()), part("{}"));
                let parsed = UnverifiedJwt::parse(&token).expect("a token");
                assert!(parsed.verify(&keys, alg).is_err(), "nobody has signed it");
            }
        }
    }
}

/// The body of a logout request.
pub fn logout_body(bytes: &[u8]) {
    let tokens: Vec<_> = form_urlencoded::parse(bytes).filter(|(name, _)| name == "logout_token").collect();
    let Some(token) = token_of_body(bytes) else { return };
    assert!(!token.is_empty());
    assert_eq!(tokens.iter().map(|(_, token)| token.as_ref()).collect::<Vec<_>>(), [token.as_str()]);
    let again = form_urlencoded::Serializer::new(String::new()).append_pair("logout_token", &token).finish();
    assert_eq!(token_of_body(again.as_bytes()).as_deref(), Some(token.as_str()));
    assert!(token_of_body(format!("{again}&{again}").as_bytes()).is_none(), "twice is not once");
    jwt(token.as_bytes());
}

/// A discovery document.
pub fn discovery_document(bytes: &[u8]) {
    let written: Option<Map<String, Value>> = serde_json::from_slice(bytes).ok();
    let named = written.as_ref().and_then(|document| document.get("issuer")?.as_str()).unwrap_or(ISSUER);
    let plain = PlainHttp::default();
    let other = Issuers::one(Issuer::new(format!("{named}/")));
    assert!(ProviderMetadata::parse(bytes, &other, &plain).is_err(), "it is that of another issuer");
    let issuer = Issuer::new(named);
    let Ok(metadata) = ProviderMetadata::parse(bytes, &Issuers::one(issuer.clone()), &plain) else { return };
    let is_local = Url::parse(named).is_ok_and(|issuer| crate::protocol::url::is_loopback(&issuer));
    let inside = Url::parse("http://op.internal:8080").expect("a URL");
    let moved = metadata.clone().seen_from_inside(&issuer, &inside);
    let endpoints = |metadata: &ProviderMetadata| {
        let needed = [&metadata.authorization_endpoint, &metadata.token_endpoint, &metadata.jwks_uri];
        let others = [&metadata.userinfo_endpoint, &metadata.end_session_endpoint, &metadata.revocation_endpoint];
        let others = others.into_iter().flatten();
        needed.into_iter().chain(others).cloned().collect::<Vec<Url>>()
    };
    for (endpoint, moved) in endpoints(&metadata).iter().zip(endpoints(&moved)) {
        assert!(endpoint.scheme() == "https" || (is_local && crate::protocol::url::is_loopback(endpoint)));
        assert!(moved == *endpoint || moved.origin() == inside.origin());
        assert_eq!((moved.path(), moved.query()), (endpoint.path(), endpoint.query()));
    }
    assert_eq!(moved.authorization_endpoint, metadata.authorization_endpoint, "browsers are outside");
    assert!(metadata.unreadable.len() <= 9);
    metadata.secret_method();
}

/// An answer of the token endpoint: its status and `Retry-After` in the first line, then its body.
pub fn token_response(bytes: &[u8]) {
    let (first, body) = line(bytes);
    let (status, retry_after) = first.split_at(first.len().min(3));
    let Ok(status) = StatusCode::from_bytes(status) else { return };
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(retry_after) {
        headers.insert(RETRY_AFTER, value);
    }
    let json: Option<Map<String, Value>> = serde_json::from_slice(body).ok();
    let code = json.as_ref().and_then(|json| json.get("error")?.as_str()).unwrap_or_default();
    let verdict = token_response::judge(status, &headers, body, &TokenType::Bearer, now());
    let is_of_the_client = matches!(status.as_u16(), 400 | 401 | 403);
    match &verdict {
        TokenVerdict::Granted(response) | TokenVerdict::OtherType(response) => {
            assert!(status.is_success() && !response.access_token.secret().is_empty());
            let times = [response.expires_in, response.refresh_expires_in];
            assert!(times.into_iter().flatten().all(|time| time <= Duration::from_secs(1_000_000_000)));
            assert!(response.refresh_token.as_ref().is_none_or(|token| !token.secret().is_empty()));
            assert!(response.id_token.as_ref().is_none_or(|token| !token.secret().is_empty()));
        }
        // P4: only a registered word about the grant ends anything, and none of a gateway's.
        TokenVerdict::Refused(error) => {
            let about_the_grant = [
                "account_selection_required",
                "consent_required",
                "interaction_required",
                "invalid_grant",
                "login_required",
                "token_inactive",
            ];
            assert!((status.is_success() || is_of_the_client) && about_the_grant.contains(&code));
            assert_eq!(error.as_str(), code);
        }
        TokenVerdict::Ambiguous(error) | TokenVerdict::Misconfigured(error) | TokenVerdict::NotForThis(error) => {
            assert!(is_of_the_client && error.as_str() == code);
        }
        TokenVerdict::Unavailable { status: said, retry_after } => {
            assert!(*said == status && !status.is_success());
            assert_eq!(*retry_after, token_response::retry_after(&headers, now()));
            // No later than the year 9999, so that sums with it do not overflow.
            assert!(retry_after.is_none_or(|pause| pause <= Duration::from_secs(253_402_300_799)));
        }
        TokenVerdict::Unreadable => assert!(status.is_success()),
    }
}

/// The `WWW-Authenticate` headers of an API's answer, one in a line.
pub fn www_authenticate(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for value in bytes.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()).take(20) {
        headers.append(WWW_AUTHENTICATE, value);
    }
    for status in [StatusCode::OK, StatusCode::FORBIDDEN, StatusCode::SERVICE_UNAVAILABLE] {
        assert_eq!(challenge::judge(status, &headers, Scheme::Dpop), ApiVerdict::Accepted);
    }
    let says = |text: &[u8]| bytes.windows(text.len()).any(|part| part.eq_ignore_ascii_case(text));
    match challenge::judge(StatusCode::UNAUTHORIZED, &headers, Scheme::Dpop) {
        ApiVerdict::NonceWanted | ApiVerdict::TokenRejected => assert!(says(b"error")),
        ApiVerdict::Accepted | ApiVerdict::Unexplained => {}
        ApiVerdict::StepUp(wanted) => {
            assert!(says(b"error"));
            assert!(wanted.max_age.is_none_or(|age| age <= Duration::from_secs(u32::MAX.into())));
            // P15: the login that contents the API is one that can be begun.
            let wanted = step_up::wanted(&Authentication::default(), wanted.acr_values.as_deref(), wanted.max_age);
            let link = Paths::default().login(Some(&PathAndQuery::from_static("/me")), &wanted);
            let query = link.split_once('?').expect("a query").1;
            assert_eq!(Authentication::parse(query), Some(wanted), "{query}");
        }
    }
}

/// The claims of a security event token, which its transmitter has signed.
pub fn security_event(bytes: &[u8]) {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","typ":"secevent+jwt"}"#);
    let Some(jwt) = verify(&sign(&format!("{header}.{}", URL_SAFE_NO_PAD.encode(bytes)))) else { return };
    let (transmitter, issuers) = (Issuer::new("https://events.example"), Issuers::one(Issuer::new(ISSUER)));
    let at = Moment { now: now(), tolerance: TOLERANCE };
    let expected = ExpectedEvent { transmitter: &transmitter, audience: "shop", issuers: &issuers, at };
    let Ok(token) = SecurityEventToken::validate(jwt, &expected) else { return };
    assert!(!token.jti.is_empty() && !token.events.is_empty());
    for event in token.events {
        if let SecurityEvent::SessionRevoked(revocation) = event {
            // P13: nobody who signs in later is reached by it.
            assert!(revocation.at <= now() + TOLERANCE);
            assert!(revocation.issuer.is_none_or(|issuer| issuer.as_str() == ISSUER));
            assert!(match revocation.whom {
                Whom::Sid { sid, .. } => !sid.as_str().is_empty(),
                Whom::Subject(subject) => !subject.as_str().is_empty(),
            });
        }
    }
}
