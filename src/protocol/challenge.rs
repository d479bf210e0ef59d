//! `WWW-Authenticate` and what an API's refusal means for the session.
//!
//! [RFC 9110 §11.6.1](https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1),
//! [RFC 6750 §3](https://www.rfc-editor.org/rfc/rfc6750#section-3),
//! [RFC 9470 §3](https://www.rfc-editor.org/rfc/rfc9470#section-3).

use std::time::Duration;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, StatusCode};

use super::authorization::Authentication;
use super::names::AccessToken;

/// The `error` of an API that wants the user to authenticate again (RFC 9470 §3).
pub(crate) const STEP_UP: &str = "insufficient_user_authentication";

/// How an access token was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Bearer,
    Dpop,
}

impl Scheme {
    /// By which a token is shown: one that is bound to a key, with a proof.
    pub(crate) fn of(token: &AccessToken) -> Self {
        if token.key().is_some() { Self::Dpop } else { Self::Bearer }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Dpop => "dpop",
        }
    }
}

/// One challenge of a `WWW-Authenticate` header. Schemes and parameter names are in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Challenge {
    /// Absent where a provider left it out (authentik does).
    scheme: Option<String>,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Whether the challenge speaks of an OAuth access token.
    fn is_about_the_token(&self) -> bool {
        match self.scheme.as_deref() {
            Some("bearer" | "dpop") => true,
            Some(_) => false,
            None => self.parameter("error").is_some(),
        }
    }

    /// First come those that say what is wrong, of them that of the scheme that was used.
    fn is_less_telling(&self, used: Scheme) -> (bool, bool) {
        (self.parameter("error").is_none(), self.scheme.as_deref() != Some(used.name()))
    }
}

/// What an API's answer says about the access token that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ApiVerdict {
    /// Nothing: the answer goes to the caller as it is.
    Accepted,
    /// The proof of possession has to have the nonce that came with the answer (RFC 9449 §9).
    NonceWanted,
    /// The token is not good (any more).
    TokenRejected,
    /// The token is good, but the user has to authenticate like this (RFC 9470).
    StepUp(Authentication),
    /// A 401 that does not say why.
    Unexplained,
}

/// Judges an API's answer to a token that was shown by `scheme`, by its status and challenges. Of several about tokens the one of that
/// scheme counts if it says what is wrong, else any that does: servers that take both kinds of tokens name both schemes, and the
/// error with the one that was used (RFC 9449 §7.2).
///
/// | observed | verdict |
/// |---|---|
/// | any status but 401 | accepted |
/// | 401 with `error="insufficient_user_authentication"` | step-up |
/// | 401 with `error="use_dpop_nonce"` | a nonce is wanted |
/// | 401 with `error="invalid_dpop_proof"` | accepted: the proof was refused, which says nothing about the token |
/// | 401 with challenges of foreign schemes only (Basic, Negotiate) | accepted |
/// | 401 with `error="insufficient_scope"` | accepted: privileges, not the session |
/// | any other 401 with a challenge about tokens and an `error` | token rejected |
/// | 401 without a challenge, or without an `error` | unexplained: as the API is listed |
pub(crate) fn judge(status: StatusCode, headers: &HeaderMap, scheme: Scheme) -> ApiVerdict {
    if status != StatusCode::UNAUTHORIZED {
        return ApiVerdict::Accepted;
    }
    // Realms and descriptions may be of any bytes; what counts is ASCII.
    let values = headers.get_all(WWW_AUTHENTICATE).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let challenges: Vec<Challenge> = values.flat_map(|value| parse(&value)).collect();
    if challenges.is_empty() {
        return ApiVerdict::Unexplained;
    }
    let about_tokens = challenges.iter().filter(|challenge| challenge.is_about_the_token());
    let Some(challenge) = about_tokens.min_by_key(|challenge| challenge.is_less_telling(scheme)) else {
        return ApiVerdict::Accepted;
    };
    match challenge.parameter("error") {
        Some(STEP_UP) => ApiVerdict::StepUp(Authentication {
            acr_values: challenge.parameter("acr_values").map(str::to_owned),
            max_age: challenge
                .parameter("max_age")
                .and_then(|age| age.parse().ok())
                .map(|age: u64| Duration::from_secs(age.min(u32::MAX.into()))),
            ..Authentication::default()
        }),
        Some("use_dpop_nonce") => ApiVerdict::NonceWanted,
        Some("invalid_dpop_proof" | "insufficient_scope") => ApiVerdict::Accepted,
        Some(_) => ApiVerdict::TokenRejected,
        None => ApiVerdict::Unexplained,
    }
}

/// Reads one header value, which may hold several challenges.
fn parse(value: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = value;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = split_token(rest);
        if word.is_empty() {
            // Neither a scheme nor a parameter: skip one character, so that the loop always ends.
            let mut characters = rest.chars();
            if characters.next().is_none() {
                return challenges;
            }
            rest = characters.as_str();
            continue;
        }
        let word = word.to_ascii_lowercase();
        if let Some(value) = after.trim_start_matches([' ', '\t']).strip_prefix('=') {
            let (value, after) = split_value(value.trim_start_matches([' ', '\t']));
            if challenges.is_empty() {
                challenges.push(Challenge::default());
            }
            if let Some(challenge) = challenges.last_mut() {
                challenge.parameters.push((word, value));
            }
            rest = after;
        } else {
            challenges.push(Challenge { scheme: Some(word), parameters: Vec::new() });
            rest = after;
        }
    }
}

fn split_token(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)));
    text.split_at(end.unwrap_or(text.len()))
}

fn split_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return (value, characters.as_str()),
            '\\' => value.extend(characters.next()),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[track_caller]
    fn check(status: u16, headers: &[&str], expected: &ApiVerdict) {
        for scheme in [Scheme::Bearer, Scheme::Dpop] {
            check_shown(scheme, status, headers, expected);
        }
    }

    #[track_caller]
    fn check_shown(scheme: Scheme, status: u16, headers: &[&str], expected: &ApiVerdict) {
        let mut map = HeaderMap::new();
        for header in headers {
            map.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(header.as_bytes()).unwrap());
        }
        assert_eq!(
            judge(StatusCode::from_u16(status).unwrap(), &map, scheme),
            *expected,
            "{scheme:?} {status} {headers:?}"
        );
    }

    #[test]
    fn api_answers() {
        use ApiVerdict::{Accepted, NonceWanted, StepUp, TokenRejected, Unexplained};
        let gold = StepUp(Authentication {
            acr_values: Some("gold".to_owned()),
            max_age: Some(Duration::from_secs(5)),
            ..Authentication::default()
        });
        check(401, &[], &Unexplained);
        check(401, &["Bearer"], &Unexplained);
        check(401, &[r#"Bearer realm="x""#], &Unexplained);
        check(401, &[r#"Bearer error="invalid_token""#], &TokenRejected);
        check(401, &[r#"bEaReR realm="a, b=\"c\"", ERROR=invalid_token"#], &TokenRejected);
        check(401, &[r#"DPoP error="invalid_token", algs="ES256""#], &TokenRejected);
        check(401, &[r#"error="invalid_token", error_description="expired""#], &TokenRejected);
        check(401, &[r#"Basic realm="x", Bearer error="invalid_token""#], &TokenRejected);
        check(401, &["Negotiate abc==", r#"Bearer error="invalid_token""#], &TokenRejected);
        check(401, &[r#"Bearer error="insufficient_user_authentication", acr_values="gold", max_age="5""#], &gold);
        check(401, &[r#"DPoP error="use_dpop_nonce""#], &NonceWanted);
        check(401, &[r#"DPoP algs="ES256", error="invalid_dpop_proof""#], &Accepted);
        check(400, &[r#"DPoP error="use_dpop_nonce""#], &Accepted);
        check(401, &[r#"Bearer error="insufficient_scope""#], &Accepted);
        check(401, &[r#"Basic realm="x""#], &Accepted);
        check(401, &["Negotiate"], &Accepted);
        check(401, &[r#"Basic realm="Büro""#], &Accepted);
        check(401, &[r#"Bearer realm="Büro", error="invalid_token""#], &TokenRejected);
        check(401, &[r#"Basic realm="Bearer error=\"invalid_token\"""#], &Accepted);
        for status in [200, 302, 400, 403, 404, 429, 500, 503] {
            check(status, &[r#"Bearer error="invalid_token""#], &Accepted);
        }
        check(403, &[r#"Bearer error="insufficient_scope""#], &Accepted);
    }

    #[test]
    fn of_several_schemes_the_one_that_was_used_counts_if_it_says_what_is_wrong() {
        use ApiVerdict::{Accepted, NonceWanted, TokenRejected, Unexplained};
        for both in [
            &[r#"Bearer, DPoP error="use_dpop_nonce""#][..],
            &[r#"Bearer realm="x""#, r#"DPoP algs="ES256", error="use_dpop_nonce""#],
            &[r#"DPoP error="use_dpop_nonce", Bearer"#],
        ] {
            check(401, both, &NonceWanted);
        }
        check(401, &[r#"Bearer, DPoP error="invalid_dpop_proof""#], &Accepted);
        check(401, &[r#"Bearer error="invalid_token", DPoP algs="ES256""#], &TokenRejected);
        check(401, &[r#"Bearer realm="x", DPoP algs="ES256""#], &Unexplained);
        for both in [
            [r#"Bearer error="invalid_token""#, r#"DPoP error="use_dpop_nonce""#],
            [r#"DPoP error="use_dpop_nonce""#, r#"Bearer error="invalid_token""#],
        ] {
            check_shown(Scheme::Bearer, 401, &both, &TokenRejected);
            check_shown(Scheme::Dpop, 401, &both, &NonceWanted);
        }
    }

    #[test]
    fn odd_headers_are_read_as_far_as_they_go() {
        use ApiVerdict::{Accepted, TokenRejected, Unexplained};
        for nothing in ["", ",", "=", "\"", "\\", "é"] {
            check(401, &[nothing], &Unexplained);
        }
        // A value of no end is one, and an error of no name is one too.
        for error in [r#"Bearer error=""#, r#"Bearer error="\"#, "Bearer error="] {
            check(401, &[error], &TokenRejected);
        }
        // Parameters of no scheme that name no error are not about a token.
        for foreign in ["a=b=c", "Bearer ="] {
            check(401, &[foreign], &Accepted);
        }
    }
}
