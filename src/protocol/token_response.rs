//! What an answer of the token endpoint means.
//!
//! [RFC 6749 §5](https://www.rfc-editor.org/rfc/rfc6749#section-5), and what providers make of it. Refused is not
//! unreachable: only a definite refusal says something about the user's session.
//!
//! | observed | verdict |
//! |---|---|
//! | 2xx with an access token | [`TokenVerdict::Granted`] |
//! | any other 2xx | [`TokenVerdict::Unreadable`]: the token may have rotated |
//! | 5xx, 408, 3xx, or a body without an `error` | [`TokenVerdict::Unavailable`] |
//! | `invalid_grant` with any 4xx, `token_inactive`, `login_required` and the like | [`TokenVerdict::Refused`] |
//! | 429, `temporarily_unavailable`, `server_error`, `slow_down` | [`TokenVerdict::Unavailable`] |
//! | `invalid_client`, `unauthorized_client`, `unsupported_grant_type`, `DPoP` errors | [`TokenVerdict::Misconfigured`] |
//! | `invalid_request`, `invalid_scope` and every other code | [`TokenVerdict::Ambiguous`] |

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

use super::names::{AccessToken, IdTokenHint, RefreshToken};

/// The tokens of a successful answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TokenResponse {
    pub(crate) access_token: AccessToken,
    pub(crate) expires_in: Option<Duration>,
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
pub(crate) fn judge(status: StatusCode, headers: &HeaderMap, body: &[u8], now: SystemTime) -> TokenVerdict {
    let json: Option<Map<String, Value>> = serde_json::from_slice(body).ok();
    if status.is_success() {
        return json.as_ref().and_then(granted).map_or(TokenVerdict::Unreadable, TokenVerdict::Granted);
    }
    let unavailable = TokenVerdict::Unavailable { status, retry_after: retry_after(headers, now) };
    let code = json.as_ref().and_then(|json| json.get("error")).and_then(Value::as_str);
    let Some(code) = code.filter(|_| status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT) else {
        return unavailable;
    };
    let error = ErrorCode::new(code);
    match code {
        "invalid_grant" | "token_inactive" => TokenVerdict::Refused(error),
        _ if status == StatusCode::TOO_MANY_REQUESTS => unavailable,
        "consent_required" | "interaction_required" | "login_required" | "account_selection_required" => {
            TokenVerdict::Refused(error)
        }
        "temporarily_unavailable" | "server_error" | "slow_down" => unavailable,
        "invalid_client"
        | "unauthorized_client"
        | "unsupported_grant_type"
        | "use_dpop_nonce"
        | "invalid_dpop_proof" => TokenVerdict::Misconfigured(error),
        _ => TokenVerdict::Ambiguous(error),
    }
}

fn granted(json: &Map<String, Value>) -> Option<TokenResponse> {
    let text = |name| json.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    // The wire says seconds as a number; some providers write a string. An absurd value counts as none.
    let seconds = match json.get("expires_in") {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(number)) => number.parse().ok(),
        _ => None,
    };
    let token_type_fits = text("token_type").is_none_or(|kind| kind.eq_ignore_ascii_case("Bearer"));
    token_type_fits.then_some(())?;
    Some(TokenResponse {
        access_token: AccessToken::new(text("access_token")?),
        expires_in: seconds.filter(|s| (0.0..=1e9).contains(s)).map(Duration::from_secs_f64),
        refresh_token: text("refresh_token").map(RefreshToken::new),
        id_token: text("id_token").map(IdTokenHint::new),
        scope: text("scope").map(str::to_owned),
    })
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

    #[track_caller]
    fn check(status: u16, body: &str, expected: &str) {
        let verdict = judge(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes(), NOW);
        let name = match verdict {
            TokenVerdict::Ambiguous(_) => "ambiguous",
            TokenVerdict::Granted(_) => "granted",
            TokenVerdict::Misconfigured(_) => "misconfigured",
            TokenVerdict::Refused(_) => "refused",
            TokenVerdict::Unavailable { .. } => "unavailable",
            TokenVerdict::Unreadable => "unreadable",
        };
        assert_eq!(name, expected, "{status} {body}");
    }

    #[test]
    fn p4_refused_is_not_unreachable() {
        for status in [400, 401, 403, 404, 429] {
            check(status, r#"{"error":"invalid_grant"}"#, "refused");
        }
        check(400, r#"{"error":"invalid_grant","error_description":"Session not active"}"#, "refused");
        check(401, r#"{"error":"token_inactive"}"#, "refused");
        for code in ["interaction_required", "login_required", "consent_required"] {
            check(400, &format!(r#"{{"error":"{code}"}}"#), "refused");
        }
        for code in ["invalid_request", "invalid_scope", "something_new"] {
            check(400, &format!(r#"{{"error":"{code}"}}"#), "ambiguous");
        }
        for code in ["invalid_client", "unauthorized_client", "unsupported_grant_type", "use_dpop_nonce"] {
            check(401, &format!(r#"{{"error":"{code}"}}"#), "misconfigured");
        }
        for code in ["temporarily_unavailable", "server_error", "slow_down"] {
            check(400, &format!(r#"{{"error":"{code}"}}"#), "unavailable");
        }
        check(429, r#"{"error":"whatever"}"#, "unavailable");
        for status in [500, 502, 503, 504] {
            check(status, "", "unavailable");
            check(status, r#"{"error":"invalid_grant"}"#, "unavailable");
        }
        check(408, r#"{"error":"invalid_grant"}"#, "unavailable");
        check(302, "", "unavailable");
        check(400, "", "unavailable");
        check(403, "<html>blocked</html>", "unavailable");
        check(400, r#"{"error":7}"#, "unavailable");
        check(400, r#"["invalid_grant"]"#, "unavailable");
        check(200, "", "unreadable");
        check(200, "<html>maintenance</html>", "unreadable");
        check(200, r#"{"access_token":"a","#, "unreadable");
        check(200, r#"{"token_type":"Bearer"}"#, "unreadable");
        check(200, r#"{"access_token":"a","token_type":"MAC"}"#, "unreadable");
        check(200, r#"{"access_token":"a","token_type":"bearer"}"#, "granted");
        check(200, r#"{"access_token":"a"}"#, "granted");
    }

    #[test]
    fn expires_in_is_read_leniently() {
        for (written, expected) in
            [("60", Some(60)), ("\"60\"", Some(60)), ("-1", None), ("null", None), ("1e300", None), ("\"x\"", None)]
        {
            let body = format!(r#"{{"access_token":"a","expires_in":{written}}}"#);
            let TokenVerdict::Granted(tokens) = judge(StatusCode::OK, &HeaderMap::new(), body.as_bytes(), NOW) else {
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
        let TokenVerdict::Unavailable { retry_after, .. } = judge(StatusCode::SERVICE_UNAVAILABLE, &headers, b"", now)
        else {
            panic!("not unavailable");
        };
        assert_eq!(retry_after, Some(Duration::from_secs(30)));
    }

    #[test]
    fn error_codes_are_safe_to_log() {
        assert_eq!(ErrorCode::new("a\nb\u{1b}[31m c").as_str(), "ab[31mc");
        assert_eq!(ErrorCode::new(&"x".repeat(1000)).as_str().len(), 64);
    }
}
