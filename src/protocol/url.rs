//! Which URLs a secret may be sent to.

use url::{Host, Url};

/// Hosts that plain `http` is spoken with although they are other machines: in development.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PlainHttp(pub(crate) Vec<String>);

impl PlainHttp {
    /// Whether plain `http` may be spoken with the URL's host: this very machine, or one that is listed.
    pub(crate) fn allows(&self, url: &Url) -> bool {
        url.scheme() == "http" && (is_loopback(url) || self.lists(url))
    }

    fn lists(&self, url: &Url) -> bool {
        url.host_str().is_some_and(|host| self.0.iter().any(|listed| listed == host))
    }

    /// Whether an endpoint of that issuer's is where a secret may go. What listens on this machine is a provider's business only
    /// if the provider is on it too.
    pub(crate) fn allows_endpoint(&self, url: &Url, issuer: &Url) -> bool {
        url.scheme() == "https"
            || (url.scheme() == "http" && (self.lists(url) || (is_loopback(issuer) && is_loopback(url))))
    }
}

/// Whether the URL's host is this very machine: a literal loopback address or a name under `localhost`
/// ([Secure Contexts §3.1](https://www.w3.org/TR/secure-contexts/#is-origin-trustworthy)).
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_and_those_that_are_listed() {
        let development = PlainHttp(vec!["op".to_owned()]);
        for (url, usually, in_development) in [
            ("http://127.0.0.1:1/x", true, true),
            ("http://[::1]/x", true, true),
            ("http://op.localhost/x", true, true),
            ("http://op:8080/x", false, true),
            ("http://op.example/x", false, false),
            ("http://notlocalhost/x", false, false),
            // That is another question.
            ("https://op.example/x", false, false),
            ("https://op/x", false, false),
            ("ftp://op/x", false, false),
        ] {
            let parsed = Url::parse(url).unwrap();
            assert_eq!(PlainHttp::default().allows(&parsed), usually, "{url}");
            assert_eq!(development.allows(&parsed), in_development, "{url}");
        }
    }
}
