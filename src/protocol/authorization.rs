//! The authorization request and its answer.
//!
//! [Core §3.1.2](https://openid.net/specs/openid-connect-core-1_0.html#AuthorizationEndpoint),
//! [RFC 7636](https://www.rfc-editor.org/rfc/rfc7636) (PKCE),
//! [RFC 9207](https://www.rfc-editor.org/rfc/rfc9207) (`iss`).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::form_urlencoded;

use super::issuers::Issuers;
use super::token_response::ErrorCode;

/// What an authorization request asks of the authentication
/// ([Core §3.1.2.1](https://openid.net/specs/openid-connect-core-1_0.html#AuthRequest)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Authentication {
    pub(crate) prompt: Prompt,
    pub(crate) acr_values: Option<String>,
    pub(crate) max_age: Option<Duration>,
}

/// From where a login may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Initiation {
    /// By a link on any page.
    Anywhere,
    /// Other sites' links lead to a page that asks first (FAPI 2.0 Security Profile §5.3.3).
    OwnPages,
}

/// Whether the provider may show something to the user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Prompt {
    #[default]
    AsNeeded,
    None,
    /// It asks for what the session at the provider would spare the user.
    Login,
    Consent,
    SelectAccount,
    /// [Initiating User Registration 1.0](https://openid.net/specs/openid-connect-prompt-create-1_0.html).
    Create,
}

impl Prompt {
    const ALL: [(Self, &'static str); 5] = [
        (Self::None, "none"),
        (Self::Login, "login"),
        (Self::Consent, "consent"),
        (Self::SelectAccount, "select_account"),
        (Self::Create, "create"),
    ];
}

impl Authentication {
    /// A login without the user's doing, which only a session at the provider makes possible.
    pub(crate) fn silent() -> Self {
        Self { prompt: Prompt::None, ..Self::default() }
    }

    /// Reads `prompt`, `acr_values` and `max_age` of a query; `None` if one of them is not right.
    pub(crate) fn parse(query: &str) -> Option<Self> {
        let one = |name| single(query, name).ok();
        let prompt = match one("prompt")?.as_deref() {
            None => Prompt::AsNeeded,
            Some(text) => Prompt::ALL.iter().find(|(_, name)| *name == text)?.0,
        };
        let acr_values = one("acr_values")?;
        if acr_values.as_deref().is_some_and(|text| !can_be_asked_for(text)) {
            return None;
        }
        let max_age = match one("max_age")? {
            Some(text) => Some(Duration::from_secs(text.parse::<u32>().ok()?.into())),
            None => None,
        };
        // A login that has to be silent and better than the one there is can only fail.
        let is_possible = prompt != Prompt::None || (acr_values.is_none() && max_age.is_none());
        is_possible.then_some(Self { prompt, acr_values, max_age })
    }

    /// The parameters, for the authorization request and for links to the login.
    pub(crate) fn parameters(&self) -> Vec<(&'static str, String)> {
        let prompt = Prompt::ALL.iter().find(|(prompt, _)| *prompt == self.prompt);
        let prompt = prompt.map(|(_, name)| ("prompt", (*name).to_owned()));
        let acr_values = self.acr_values.clone().map(|text| ("acr_values", text));
        let max_age = self.max_age.map(|age| ("max_age", age.as_secs().to_string()));
        [prompt, acr_values, max_age].into_iter().flatten().collect()
    }
}

/// Whether `acr_values` are such as a link to the login may name.
pub(crate) fn can_be_asked_for(acr_values: &str) -> bool {
    acr_values.len() <= 500 && acr_values.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}

/// Whom an access token is for, where it is not the one of the login.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Audience {
    /// `resource`, RFC 8707.
    pub(crate) resource: Option<String>,
    /// `audience`, as Auth0 and others have it.
    pub(crate) parameter: Option<String>,
    pub(crate) scopes: Vec<String>,
}

impl Audience {
    pub(crate) fn parameters(&self) -> impl Iterator<Item = (&'static str, String)> {
        let resource = self.resource.clone().map(|value| ("resource", value));
        let parameter = self.parameter.clone().map(|value| ("audience", value));
        resource.into_iter().chain(parameter)
    }

    /// The name under which its token is kept.
    pub(crate) fn name(&self) -> String {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        format!("{} {} {}", part(&self.resource), part(&self.parameter), self.scopes.join(" "))
    }
}

/// Whether `iss` has to be in the answer (RFC 9207 §2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IssuerParameter {
    Required,
    /// Where the provider's metadata promise it.
    WherePromised,
}

/// The answer to an authorization request, as the browser brings it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AuthorizationResponse {
    Code(String),
    Error(ErrorCode),
}

/// What is wrong with an answer to an authorization request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthorizationError {
    #[error("the parameter {0} is there more than once")]
    Duplicate(&'static str),
    #[error("the parameter {0} is missing")]
    Missing(&'static str),
    #[error("the answer comes from another issuer")]
    OtherIssuer,
}

/// The `state` of an answer, without which nothing else of it is looked at.
pub(crate) fn state(query: &str) -> Result<String, AuthorizationError> {
    single(query, "state")?.ok_or(AuthorizationError::Missing("state"))
}

impl AuthorizationResponse {
    /// Reads the answer's query.
    ///
    /// [_RFC 9207 § 2.4:_](https://www.rfc-editor.org/rfc/rfc9207#section-2.4) a client compares `iss` with the issuer
    /// it sent the user to, and rejects an answer without `iss` where the provider says that it sends it.
    pub(crate) fn parse(query: &str, issuers: &Issuers, sends_issuer: bool) -> Result<Self, AuthorizationError> {
        match single(query, "iss")? {
            Some(iss) if iss != issuers.configured().as_str() && !issuers.have(&iss) => {
                return Err(AuthorizationError::OtherIssuer);
            }
            None if sends_issuer => return Err(AuthorizationError::Missing("iss")),
            _ => {}
        }
        if let Some(error) = single(query, "error")? {
            return Ok(Self::Error(ErrorCode::new(&error)));
        }
        single(query, "code")?.map(Self::Code).ok_or(AuthorizationError::Missing("code"))
    }
}

/// A parameter that may come once; an empty one is taken as absent (RFC 6749 §3.1).
pub(crate) fn single(query: &str, name: &'static str) -> Result<Option<String>, AuthorizationError> {
    let mut values = form_urlencoded::parse(query.as_bytes()).filter(|(n, _)| n == name).map(|(_, value)| value);
    let first = values.next().filter(|value| !value.is_empty());
    if values.next().is_some() {
        return Err(AuthorizationError::Duplicate(name));
    }
    Ok(first.map(std::borrow::Cow::into_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::issuers::IssuerTenants;
    use crate::protocol::names::Issuer;

    #[test]
    fn authorization_responses() {
        let issuers = Issuers::one(Issuer::new("https://op.example"));
        let parse = |query, sends| AuthorizationResponse::parse(query, &issuers, sends);
        assert_eq!(parse("code=c&state=s", false), Ok(AuthorizationResponse::Code("c".into())));
        assert_eq!(parse("code=c&iss=https://op.example", true), Ok(AuthorizationResponse::Code("c".into())));
        assert_eq!(parse("code=c&iss=https://other", false), Err(AuthorizationError::OtherIssuer));
        assert_eq!(parse("error=access_denied&iss=https://other", false), Err(AuthorizationError::OtherIssuer));
        assert_eq!(parse("code=c", true), Err(AuthorizationError::Missing("iss")));
        assert_eq!(parse("code=", false), Err(AuthorizationError::Missing("code")));
        assert_eq!(parse("code=c&code=d", false), Err(AuthorizationError::Duplicate("code")));
        assert_eq!(
            parse("error=access_denied&code=c", false),
            Ok(AuthorizationResponse::Error(ErrorCode::new("access_denied")))
        );
        assert_eq!(state("state=a&state=b"), Err(AuthorizationError::Duplicate("state")));
    }

    #[test]
    fn an_answer_may_come_from_a_tenant() {
        let template = "https://op.example/{tenantid}".to_owned();
        let issuers =
            Issuers::tenants(Issuer::new("https://op.example/common"), template, IssuerTenants::only(["acme"]));
        for (iss, expected) in [("acme", true), ("common", true), ("other", false)] {
            let query = format!("code=c&iss=https://op.example/{iss}");
            assert_eq!(AuthorizationResponse::parse(&query, &issuers, true).is_ok(), expected, "{iss}");
        }
    }

    #[test]
    fn what_a_link_asks_of_the_authentication_is_what_the_provider_is_asked() {
        let plain = Authentication::default;
        let gold = || Authentication { acr_values: Some("gold silver".to_owned()), ..plain() };
        for (query, expected) in [
            ("", Some(plain())),
            ("prompt=login", Some(Authentication { prompt: Prompt::Login, ..plain() })),
            ("prompt=none", Some(Authentication::silent())),
            ("acr_values=gold+silver", Some(gold())),
            ("prompt=login&acr_values=gold+silver", Some(Authentication { prompt: Prompt::Login, ..gold() })),
            ("max_age=5", Some(Authentication { max_age: Some(Duration::from_secs(5)), ..plain() })),
            // A login that has to be silent and better than the one there is can only fail.
            ("prompt=none&acr_values=gold", None),
            ("prompt=none&max_age=5", None),
            ("prompt=never", None),
            ("prompt=login&prompt=none", None),
            ("acr_values=%C3%A9", None),
            ("max_age=-1", None),
        ] {
            let found = Authentication::parse(query);
            assert_eq!(found, expected, "{query}");
            if let Some(found) = found {
                let sent = form_urlencoded::Serializer::new(String::new()).extend_pairs(found.parameters()).finish();
                assert_eq!(sent, query);
            }
        }
        assert_eq!(Authentication::silent().prompt, Prompt::None);
    }

    #[test]
    fn an_audience_is_asked_for_by_its_parameters_and_kept_under_its_name() {
        let audience = Audience {
            resource: Some("https://api".to_owned()),
            parameter: Some("api".to_owned()),
            scopes: vec!["read".to_owned(), "write".to_owned()],
        };
        let asked: Vec<_> = audience.parameters().collect();
        assert_eq!(asked, [("resource", "https://api".to_owned()), ("audience", "api".to_owned())]);
        assert_eq!(Audience::default().parameters().count(), 0);
        // Stores have tokens under it.
        assert_eq!(audience.name(), "https://api api read write");
    }
}
