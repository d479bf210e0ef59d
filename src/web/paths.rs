//! Where the crate's routes are, and the application, as browsers see them.

use http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::protocol::authorization::Authentication;

/// What a query value must not hold as it is; slashes may stay, which keeps `return_to` readable.
const QUERY_VALUE: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'&').add(b'+').add(b'<').add(b'=').add(b'>').add(b'?');

/// The crate's routes, if nothing else is said.
pub(crate) const AUTH: &str = "/auth";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Paths {
    /// What stands before every path where browsers see it: `/shop`, or nothing.
    prefix: String,
    /// Where the router has the crate's routes.
    auth: String,
    /// Where it has those of this provider: there too, unless there are several.
    party: String,
}

impl Default for Paths {
    fn default() -> Self {
        Self::new("", AUTH, None)
    }
}

impl Paths {
    /// `party` names the provider, where there are several.
    pub(crate) fn new(prefix: &str, auth: &str, party: Option<&str>) -> Self {
        let party = party.map_or_else(|| auth.to_owned(), |name| format!("{auth}/{name}"));
        Self { prefix: prefix.trim_end_matches('/').to_owned(), auth: auth.to_owned(), party }
    }

    /// The same of an application with several providers, of whom none is chosen.
    pub(crate) fn of_nobody(&self) -> Self {
        Self { party: self.auth.clone(), ..self.clone() }
    }

    /// Whether a request for this path, which a proxy may have cut, is for one of this provider's own routes.
    pub(crate) fn is_of_party(&self, path: &str) -> bool {
        let below = |path: &str| path.strip_prefix(&*self.party).is_some_and(|rest| rest.starts_with('/'));
        below(path) || path.strip_prefix(&*self.prefix).is_some_and(below)
    }

    /// One of this provider's routes for the router.
    pub(crate) fn route_of_party(&self, name: &str) -> String {
        format!("{}/{name}", self.party)
    }

    /// One of this provider's routes for browsers.
    pub(crate) fn of_party(&self, name: &str) -> String {
        format!("{}{}/{name}", self.prefix, self.party)
    }

    /// One of the crate's routes for the router.
    pub(crate) fn route(&self, name: &str) -> String {
        format!("{}/{name}", self.auth)
    }

    /// One of the crate's routes for browsers.
    pub(crate) fn own(&self, name: &str) -> String {
        format!("{}{}/{name}", self.prefix, self.auth)
    }

    /// The front page, for browsers.
    pub(crate) fn front(&self) -> String {
        format!("{}/", self.prefix)
    }

    /// A path of the application for browsers.
    pub(crate) fn of_application(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// The login, from which the browser comes back to `return_to`.
    pub(crate) fn login(&self, return_to: Option<&PathAndQuery>, authentication: &Authentication) -> String {
        let mut url = self.of_party("login");
        let return_to = return_to.map(|path| ("return_to", path.as_str().to_owned()));
        for (number, (name, value)) in return_to.into_iter().chain(authentication.parameters()).enumerate() {
            url.push(if number == 0 { '?' } else { '&' });
            url.push_str(name);
            url.push('=');
            url.extend(utf8_percent_encode(&value, QUERY_VALUE));
        }
        url
    }

    /// The path of a request as the browser sees it: a proxy may have cut the prefix, or left it to the application.
    pub(crate) fn seen(&self, path: &PathAndQuery) -> PathAndQuery {
        let rest = path.path().strip_prefix(self.prefix.as_str());
        if self.prefix.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            return path.clone();
        }
        format!("{}{path}", self.prefix).parse().unwrap_or_else(|_| path.clone())
    }
}

/// Whether the routes can be there.
pub(crate) fn is_route_path(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    path.len() > 1
        && path.starts_with('/')
        && !path.ends_with('/')
        && !path.contains("//")
        && path.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_see_the_prefix() {
        let paths = Paths::new("/shop/", "/sign", None);
        assert_eq!(paths.route("session"), "/sign/session");
        assert_eq!((paths.own("session").as_str(), paths.front().as_str()), ("/shop/sign/session", "/shop/"));
        let seen = |path: &str| paths.seen(&path.parse().unwrap()).to_string();
        for (path, expected) in [
            ("/me?a=b", "/shop/me?a=b"),
            ("/shop/me?a=b", "/shop/me?a=b"),
            ("/shop", "/shop"),
            ("/shopping", "/shop/shopping"),
            ("/", "/shop/"),
        ] {
            assert_eq!(seen(path), expected, "{path}");
        }
        let login = paths.login(Some(&"/shop/me?a=b&c".parse().unwrap()), &Authentication::default());
        assert_eq!(login, "/shop/sign/login?return_to=/shop/me%3Fa%3Db%26c");
        let usual = Paths::default();
        assert_eq!(usual.login(None, &Authentication::default()), "/auth/login");
        assert_eq!(usual.seen(&"//evil.example/x".parse().unwrap()).as_str(), "//evil.example/x");
    }

    #[test]
    fn providers_have_routes_of_their_own() {
        let staff = Paths::new("/shop/", "/auth", Some("staff"));
        assert_eq!(
            (staff.own("session").as_str(), staff.route("session").as_str()),
            ("/shop/auth/session", "/auth/session")
        );
        assert_eq!(staff.of_party("callback"), "/shop/auth/staff/callback");
        assert_eq!(staff.route_of_party("callback"), "/auth/staff/callback");
        assert_eq!(staff.login(None, &Authentication::default()), "/shop/auth/staff/login");
        assert_eq!(staff.of_nobody().login(None, &Authentication::default()), "/shop/auth/login");
        for (path, expected) in [
            ("/auth/staff/login", true),
            ("/shop/auth/staff/login", true),
            ("/auth/staff", false),
            ("/auth/staffing/login", false),
            ("/auth/login", false),
            ("/shop", false),
            ("/", false),
        ] {
            assert_eq!(staff.is_of_party(path), expected, "{path}");
        }
    }

    #[test]
    fn routes_can_be_at_plain_paths() {
        for (path, expected) in [
            ("/auth", true),
            ("/my/sign-in", true),
            ("", false),
            ("/", false),
            ("auth", false),
            ("/auth/", false),
            ("//auth", false),
            ("/{auth}", false),
            ("/auth?x", false),
            ("/a b", false),
        ] {
            assert_eq!(is_route_path(path), expected, "{path}");
        }
    }
}
