//! What an answer of the token endpoint means.
//!
//! [RFC 6749 §5](https://www.rfc-editor.org/rfc/rfc6749#section-5), and what providers make of it. Refused is not
//! unreachable: only a *registered* code that is about the grant says something about the user's session. Everything else,
//! from a framework's `{"error": "Not Found"}` to a code that nobody has heard of, is no answer.
//!
//! | observed | verdict |
//! |---|---|
//! | 2xx with an access token of the type that was asked for | [`TokenVerdict::Granted`] |
//! | 2xx with one of another type | [`TokenVerdict::OtherType`]: of no use, but the refresh token may have rotated |
//! | 2xx without one, but with a code about the grant (GitHub's kind) | [`TokenVerdict::Refused`] |
//! | any other 2xx | [`TokenVerdict::Unreadable`]: the token may have rotated |
//! | 400, 401, 403 with `invalid_grant`, `token_inactive`, `login_required` and the like | [`TokenVerdict::Refused`] |
//! | 400 with `invalid_request`, `invalid_scope` | [`TokenVerdict::Ambiguous`] |
//! | 400, 401, 403 with `access_denied`, `invalid_target` | [`TokenVerdict::NotForThis`]: about what was asked for |
//! | 400, 401, 403 with `invalid_client`, `unauthorized_client`, `unsupported_grant_type`, `DPoP` errors | [`TokenVerdict::Misconfigured`] |
//! | everything else | [`TokenVerdict::Unavailable`] |

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

use super::names::{AccessToken, IdTokenHint, KeyThumbprint, RefreshToken};

/// What kind of access token is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenType {
    Bearer,
    /// Bound to this key (RFC 9449 §5).
    Dpop(KeyThumbprint),
}

/// The tokens of a successful answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TokenResponse {
    pub(crate) access_token: AccessToken,
    pub(crate) expires_in: Option<Duration>,
    /// How long the refresh token is taken, as Keycloak says; 0 stands for ever there.
    pub(crate) refresh_expires_in: Option<Duration>,
    pub(crate) refresh_token: Option<RefreshToken>,
    pub(crate) id_token: Option<IdTokenHint>,
    pub(crate) scope: Option<String>,
}

/// What the token endpoint's answer says about the grant that was presented.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TokenVerdict {
    Ambiguous(ErrorCode),
    Granted(TokenResponse),
    Misconfigured(ErrorCode),
    NotForThis(ErrorCode),
    OtherType(TokenResponse),
    Refused(ErrorCode),
    Unavailable { status: StatusCode, retry_after: Option<Duration> },
    Unreadable,
}

/// An `error` code of the provider's, cut to what may stand in a log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ErrorCode(String);

impl ErrorCode {
    pub(crate) fn new(code: &str) -> Self {
        // The code is the peer's text: RFC 6749 allows printable ASCII only, and 64 characters hold every known one.
        Self(code.chars().filter(char::is_ascii_graphic).take(64).collect())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads the answer of a token request.
pub(crate) fn judge(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    asked: &TokenType,
    now: SystemTime,
) -> TokenVerdict {
    let json: Option<Map<String, Value>> = serde_json::from_slice(body).ok();
    let code = json.as_ref().and_then(|json| json.get("error")).and_then(Value::as_str).unwrap_or_default();
    let error = || ErrorCode::new(code);
    if status.is_success() {
        return match json.as_ref().and_then(|json| granted(json, asked)) {
            Some(verdict) => verdict,
            None if is_about_the_grant(code) => TokenVerdict::Refused(error()),
            None => TokenVerdict::Unreadable,
        };
    }
    let is_bad_request = status == StatusCode::BAD_REQUEST;
    if !is_bad_request && status != StatusCode::UNAUTHORIZED && status != StatusCode::FORBIDDEN {
        return TokenVerdict::Unavailable { status, retry_after: retry_after(headers, now) };
    }
    match code {
        code if is_about_the_grant(code) => TokenVerdict::Refused(error()),
        "invalid_request" | "invalid_scope" if is_bad_request => TokenVerdict::Ambiguous(error()),
        "access_denied" | "invalid_target" => TokenVerdict::NotForThis(error()),
        "invalid_client"
        | "unauthorized_client"
        | "unsupported_grant_type"
        | "use_dpop_nonce"
        | "invalid_dpop_proof" => TokenVerdict::Misconfigured(error()),
        _ => TokenVerdict::Unavailable { status, retry_after: retry_after(headers, now) },
    }
}

/// Whether an answer to a pushed authorization request ([RFC 9126 §2.3](https://www.rfc-editor.org/rfc/rfc9126#section-2.3)) says that
/// it will not be taken the next time either: with a status of the client's, and a registered code that is about client or request
/// (RFC 6749 §4.1.2.1, Core §3.1.2.6, RFC 8707, RFC 9101, RFC 9396, RFC 9449, RFC 9470). A gateway's page is no answer.
pub(crate) fn refuses_request(status: StatusCode, code: &str) -> bool {
    matches!(status, StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
        && matches!(
            code,
            "access_denied"
                | "account_selection_required"
                | "consent_required"
                | "interaction_required"
                | "invalid_authorization_details"
                | "invalid_client"
                | "invalid_dpop_proof"
                | "invalid_redirect_uri"
                | "invalid_request"
                | "invalid_request_object"
                | "invalid_request_uri"
                | "invalid_scope"
                | "invalid_target"
                | "login_required"
                | "registration_not_supported"
                | "request_not_supported"
                | "request_uri_not_supported"
                | "unauthorized_client"
                | "unmet_authentication_requirements"
                | "unsupported_response_type"
                | "use_dpop_nonce"
        )
}

/// The registered codes that say that the grant, and with it the session at the provider, is over: RFC 6749 §5.2, Core
/// §3.1.2.6, and fosite's `token_inactive`.
fn is_about_the_grant(code: &str) -> bool {
    matches!(
        code,
        "invalid_grant"
            | "token_inactive"
            | "interaction_required"
            | "login_required"
            | "consent_required"
            | "account_selection_required"
    )
}

fn granted(json: &Map<String, Value>, asked: &TokenType) -> Option<TokenVerdict> {
    let text = |name| json.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    // The wire says seconds as a number; some providers write a string. An absurd value counts as none.
    let seconds = |name: &str| match json.get(name) {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(number)) => number.parse().ok(),
        _ => None,
    };
    let duration = |name: &str| seconds(name).filter(|s| (0.0..=1e9).contains(s)).map(Duration::from_secs_f64);
    let token_type = text("token_type");
    let access_token = AccessToken::new(text("access_token")?);
    let (is_as_asked, access_token) = match asked {
        TokenType::Bearer => (token_type.is_none_or(|kind| kind.eq_ignore_ascii_case("Bearer")), access_token),
        TokenType::Dpop(key) => {
            (token_type.is_some_and(|kind| kind.eq_ignore_ascii_case("DPoP")), access_token.bound_to(key.clone()))
        }
    };
    let response = TokenResponse {
        access_token,
        expires_in: duration("expires_in"),
        refresh_expires_in: duration("refresh_expires_in").filter(|lifetime| !lifetime.is_zero()),
        refresh_token: text("refresh_token").map(RefreshToken::new),
        id_token: text("id_token").map(IdTokenHint::new),
        scope: text("scope").map(str::to_owned),
    };
    Some(if is_as_asked { TokenVerdict::Granted(response) } else { TokenVerdict::OtherType(response) })
}

/// `Retry-After`, in seconds or as a date (RFC 9110 §10.2.3); one that has passed asks for no pause.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let written = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = written.parse::<u32>().map(|seconds| Duration::from_secs(seconds.into()));
    let until = || httpdate::parse_http_date(written).ok();
    seconds.ok().or_else(|| Some(until()?.duration_since(now).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::RETRY_AFTER;

    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn pushed_requests_are_refused_by_registered_codes_alone() {
        for (status, code, expected) in [
            (400, "invalid_request", true),
            (401, "invalid_client", true),
            (403, "unauthorized_client", true),
            (400, "invalid_target", true),
            (400, "server_error", false),
            (400, "temporarily_unavailable", false),
            (400, "slow_down", false),
            (403, "Forbidden", false),
            (404, "invalid_request", false),
            (429, "invalid_request", false),
            (500, "invalid_request", false),
        ] {
            assert_eq!(refuses_request(StatusCode::from_u16(status).unwrap(), code), expected, "{status} {code}");
        }
    }

    #[track_caller]
    fn check(status: u16, body: &str, expected: &str) {
        let status = StatusCode::from_u16(status).unwrap();
        let verdict = judge(status, &HeaderMap::new(), body.as_bytes(), &TokenType::Bearer, NOW);
        let name = match verdict {
            TokenVerdict::Ambiguous(_) => "ambiguous",
            TokenVerdict::Granted(_) => "granted",
            TokenVerdict::Misconfigured(_) => "misconfigured",
            TokenVerdict::NotForThis(_) => "not for this",
            TokenVerdict::OtherType(_) => "other type",
            TokenVerdict::Refused(_) => "refused",
            TokenVerdict::Unavailable { .. } => "unavailable",
            TokenVerdict::Unreadable => "unreadable",
        };
        assert_eq!(name, expected, "{status} {body}");
    }

    #[test]
    fn p4_refused_is_not_unreachable() {
        let about_the_grant = [
            "invalid_grant",
            "token_inactive",
            "interaction_required",
            "login_required",
            "consent_required",
            "account_selection_required",
        ];
        for code in about_the_grant {
            let body = format!(r#"{{"error":"{code}","error_description":"Session not active"}}"#);
            for status in [200, 400, 401, 403] {
                check(status, &body, "refused");
            }
            for status in [302, 404, 405, 408, 409, 410, 421, 429, 451, 500, 502, 503, 504] {
                check(status, &body, "unavailable");
            }
        }
        for code in ["invalid_request", "invalid_scope"] {
            check(400, &format!(r#"{{"error":"{code}"}}"#), "ambiguous");
            check(401, &format!(r#"{{"error":"{code}"}}"#), "unavailable");
        }
        for code in ["invalid_client", "unauthorized_client", "unsupported_grant_type", "use_dpop_nonce"] {
            check(401, &format!(r#"{{"error":"{code}"}}"#), "misconfigured");
        }
        for code in ["access_denied", "invalid_target"] {
            check(400, &format!(r#"{{"error":"{code}"}}"#), "not for this");
        }
        for code in
            ["temporarily_unavailable", "server_error", "slow_down", "something_new", "Forbidden", "Bad Request"]
        {
            check(400, &format!(r#"{{"error":"{code}"}}"#), "unavailable");
        }
    }

    #[test]
    fn p4_what_frameworks_and_gateways_say_is_no_answer() {
        for (status, body) in [
            (404, r#"{"timestamp":"2026-01-01T00:00:00Z","status":404,"error":"Not Found","path":"/token"}"#),
            (404, r#"{"error":"Realm does not exist"}"#),
            (403, r#"{"error":"Forbidden"}"#),
            (405, r#"{"status":405,"error":"Method Not Allowed"}"#),
            (421, r#"{"error":"Misdirected Request"}"#),
            (429, r#"{"error":"whatever"}"#),
            (500, ""),
            (302, ""),
            (400, ""),
            (403, "<html>blocked</html>"),
            (400, r#"{"error":7}"#),
            (400, r#"{"error":null}"#),
            (400, r#"["invalid_grant"]"#),
        ] {
            check(status, body, "unavailable");
        }
        for body in [
            "",
            "<html>maintenance</html>",
            r#"{"access_token":"a","#,
            r#"{"token_type":"Bearer"}"#,
            r#"{"error":"Forbidden"}"#,
        ] {
            check(200, body, "unreadable");
        }
        for body in [r#"{"access_token":"a","token_type":"MAC"}"#, r#"{"access_token":"a","token_type":"DPoP"}"#] {
            check(200, body, "other type");
        }
        check(200, r#"{"access_token":"a","token_type":"bearer"}"#, "granted");
        check(200, r#"{"access_token":"a"}"#, "granted");
        check(200, r#"{"access_token":"a","error":"invalid_grant"}"#, "granted");
    }

    #[test]
    fn tokens_are_of_the_type_that_was_asked_for() {
        let dpop = TokenType::Dpop(KeyThumbprint::new("key"));
        for (token_type, asked, fits) in [
            (r#","token_type":"Bearer""#, &TokenType::Bearer, true),
            ("", &TokenType::Bearer, true),
            (r#","token_type":"DPoP""#, &TokenType::Bearer, false),
            (r#","token_type":"dpop""#, &dpop, true),
            (r#","token_type":"Bearer""#, &dpop, false),
            // Nobody knows whether it is bound.
            ("", &dpop, false),
        ] {
            let body = format!(r#"{{"access_token":"a"{token_type}}}"#);
            match judge(StatusCode::OK, &HeaderMap::new(), body.as_bytes(), asked, NOW) {
                TokenVerdict::Granted(tokens) => {
                    assert!(fits, "{asked:?} {body}");
                    let key = tokens.access_token.key().map(KeyThumbprint::as_str);
                    assert_eq!(key, (*asked == dpop).then_some("key"), "{asked:?} {body}");
                }
                TokenVerdict::OtherType(_) => assert!(!fits, "{asked:?} {body}"),
                other => panic!("{asked:?} {body}: {other:?}"),
            }
        }
    }

    #[test]
    fn expires_in_is_read_leniently() {
        for (written, expected) in
            [("60", Some(60)), ("\"60\"", Some(60)), ("-1", None), ("null", None), ("1e300", None), ("\"x\"", None)]
        {
            let body = format!(r#"{{"access_token":"a","expires_in":{written}}}"#);
            let verdict = judge(StatusCode::OK, &HeaderMap::new(), body.as_bytes(), &TokenType::Bearer, NOW);
            let TokenVerdict::Granted(tokens) = verdict else {
                panic!("not granted: {body}");
            };
            assert_eq!(tokens.expires_in, expected.map(Duration::from_secs), "{body}");
        }
    }

    #[test]
    fn p4_retry_after_is_a_number_of_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (written, expected) in [
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("0", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            // The forms before RFC 1123, which recipients have to read (RFC 9110 §5.6.7).
            ("Sunday, 06-Nov-94 08:50:07 GMT", Some(30)),
            ("Sun Nov  6 08:50:07 1994", Some(30)),
            ("Sat, 05 Nov 1994 08:50:07 GMT", Some(0)),
            ("-7", None),
            ("7.5", None),
            ("soon", None),
            ("", None),
            ("Sun, 06 Nov 1994", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(written))]);
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{written:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("Sun, 06 Nov 1994 08:50:07 GMT"))]);
        let verdict = judge(StatusCode::SERVICE_UNAVAILABLE, &headers, b"", &TokenType::Bearer, now);
        let TokenVerdict::Unavailable { retry_after, .. } = verdict else {
            panic!("not unavailable");
        };
        assert_eq!(retry_after, Some(Duration::from_secs(30)));
    }

    #[test]
    fn error_codes_are_safe_to_log() {
        assert_eq!(ErrorCode::new("a\nb\u{1b}[31m c").as_str(), "ab[31mc");
        assert_eq!(ErrorCode::new(&"x".repeat(1000)).as_str().len(), 64);
    }

    #[test]
    fn a_refresh_token_that_is_taken_for_0_seconds_is_taken_for_ever() {
        for (written, expected) in [("60", Some(60)), ("0", None), ("-1", None), ("null", None)] {
            let body = format!(r#"{{"access_token":"a","refresh_expires_in":{written}}}"#);
            let TokenVerdict::Granted(tokens) =
                judge(StatusCode::OK, &HeaderMap::new(), body.as_bytes(), &TokenType::Bearer, NOW)
            else {
                panic!("not granted: {body}");
            };
            assert_eq!(tokens.refresh_expires_in, expected.map(Duration::from_secs), "{body}");
        }
    }
}
