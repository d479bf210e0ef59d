//! What else an authorization request says: fixed by the application, or by the link to the login.

use url::form_urlencoded;

/// The crate's own: what is said by them is not the application's to say.
const OWN: [&str; 19] = [
    "acr_values",
    "claims",
    "client_id",
    "client_secret",
    "code_challenge",
    "code_challenge_method",
    "dpop_jkt",
    "id_token_hint",
    "max_age",
    "nonce",
    // Depends on the login before it, and is checked in its answer.
    "prompt",
    "redirect_uri",
    "request",
    "request_uri",
    "resource",
    "response_mode",
    "response_type",
    "scope",
    "state",
];
/// More than that in a link is not passed on: it has to fit into a cookie, with all that escapes it.
const MOST: usize = 512;

/// Parameters besides the crate's own.
#[derive(Clone, Debug)]
pub(crate) struct AuthorizationParameters {
    /// In every request, unless the link says another value.
    pub(crate) fixed: Vec<(String, String)>,
    /// What a link to the login may set.
    pub(crate) linked: Vec<String>,
}

impl Default for AuthorizationParameters {
    /// Who may be asked to sign in, and in which language, is nobody's secret and harms nobody.
    fn default() -> Self {
        Self { fixed: Vec::new(), linked: vec!["login_hint".to_owned(), "ui_locales".to_owned()] }
    }
}

/// `prompt=consent`, without which some providers give no `offline_access` (Core §11). Its answer is as any other's.
fn is_consent((name, value): &(String, String)) -> bool {
    name == "prompt" && value == "consent"
}

impl AuthorizationParameters {
    /// A name that is none, or is the crate's own.
    pub(crate) fn wrong_name(&self) -> Option<&str> {
        let fixed = self.fixed.iter().filter(|parameter| !is_consent(parameter)).map(|(name, _)| name.as_str());
        let linked = self.linked.iter().map(String::as_str);
        fixed.chain(linked).find(|name| name.is_empty() || OWN.contains(name))
    }

    /// Whether each login is to ask for the user's consent.
    pub(crate) fn want_consent(&self) -> bool {
        self.fixed.iter().any(is_consent)
    }

    /// What a link sets, of what it may.
    pub(crate) fn of_link(&self, query: &str) -> Vec<(String, String)> {
        let pairs = form_urlencoded::parse(query.as_bytes());
        let mut found: Vec<(String, String)> = Vec::new();
        let mut room = MOST;
        for (name, value) in pairs {
            let is_first = !found.iter().any(|(before, _)| *before == name);
            if is_first && !value.is_empty() && self.linked.iter().any(|may| *may == name) {
                let size = |c: char| if c.is_control() { 6 } else { 2 * c.len_utf8() };
                let Some(rest) = room.checked_sub(name.len() + value.chars().map(size).sum::<usize>()) else {
                    continue;
                };
                room = rest;
                found.push((name.into_owned(), value.into_owned()));
            }
        }
        found
    }

    /// The fixed ones that a link does not set otherwise, and what it sets.
    pub(crate) fn with<'a>(&'a self, link: &'a [(String, String)]) -> impl Iterator<Item = (&'a str, &'a str)> {
        let fixed = self.fixed.iter().filter(|(name, _)| !link.iter().any(|(set, _)| set == name));
        fixed.chain(link).map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(fixed: &[(&str, &str)], linked: &[&str]) -> AuthorizationParameters {
        let own = |text: &&str| (*text).to_owned();
        AuthorizationParameters {
            fixed: fixed.iter().map(|(name, value)| (own(name), own(value))).collect(),
            linked: linked.iter().map(own).collect(),
        }
    }

    #[test]
    fn what_a_link_may_set_is_passed_on_once() {
        let these = parameters(&[("kc_idp_hint", "corporate"), ("audience", "api")], &["login_hint", "kc_idp_hint"]);
        let hint = |text: &str, count: usize| format!("login_hint={}", text.repeat(count));
        let (long, too_long) = (hint("a", 251), hint("a", 252));
        let (wide, too_wide) = (hint("é", 125), hint("é", 126));
        let passed_on = |hint: &str| format!("kc_idp_hint=corporate audience=api {hint}");
        for (query, expected) in [
            ("", "kc_idp_hint=corporate audience=api"),
            ("login_hint=alice%40x&login_hint=bob", "kc_idp_hint=corporate audience=api login_hint=alice@x"),
            ("kc_idp_hint=partner", "audience=api kc_idp_hint=partner"),
            ("scope=admin&client_id=x&audience=other&login_hint=", "kc_idp_hint=corporate audience=api"),
            (&long, &passed_on(&long)),
            (&too_long, "kc_idp_hint=corporate audience=api"),
            (&wide, &passed_on(&wide)),
            (&too_wide, "kc_idp_hint=corporate audience=api"),
            // What escapes a control character in a cookie is long.
            (&hint("%01", 83), &passed_on(&hint("\u{1}", 83))),
            (&hint("%01", 84), "kc_idp_hint=corporate audience=api"),
        ] {
            let link = these.of_link(query);
            let sent: Vec<_> = these.with(&link).map(|(name, value)| format!("{name}={value}")).collect();
            assert_eq!(sent.join(" "), expected, "{query}");
        }
    }

    #[test]
    fn the_crates_own_parameters_are_its_own() {
        for (fixed, linked, expected) in [
            (&[("kc_idp_hint", "x")][..], &["login_hint"][..], None),
            (&[("acr_values", "gold")], &[], Some("acr_values")),
            (&[], &["claims"], Some("claims")),
            (&[("redirect_uri", "x")], &[], Some("redirect_uri")),
            (&[("prompt", "login")], &[], Some("prompt")),
            (&[("prompt", "consent")], &[], None),
            (&[("", "x")], &[], Some("")),
            (&[], &["scope"], Some("scope")),
            (&[], &["prompt"], Some("prompt")),
            (&[], &["acr_values"], Some("acr_values")),
        ] {
            assert_eq!(parameters(fixed, linked).wrong_name(), expected, "{fixed:?} {linked:?}");
        }
    }
}
