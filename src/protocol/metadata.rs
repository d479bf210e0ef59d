//! The provider's metadata.
//!
//! [Discovery 1.0 §3 and §4.3](https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderMetadata).

use serde_json::{Map, Value};
use url::Url;

use super::issuers::Issuers;
use super::names::Issuer;
use super::url::PlainHttp;

/// What the provider says of itself, as far as a relying party needs it.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "the document has them")]
pub(crate) struct ProviderMetadata {
    pub(crate) authorization_endpoint: Url,
    pub(crate) token_endpoint: Url,
    pub(crate) jwks_uri: Url,
    pub(crate) userinfo_endpoint: Option<Url>,
    pub(crate) end_session_endpoint: Option<Url>,
    pub(crate) revocation_endpoint: Option<Url>,
    pub(crate) pushed_authorization_request_endpoint: Option<Url>,
    pub(crate) require_pushed_authorization_requests: bool,
    pub(crate) dpop_signing_alg_values_supported: Option<Vec<String>>,
    /// Where a client goes that shows a certificate (RFC 8705 §5).
    mtls_endpoint_aliases: MtlsEndpointAliases,
    pub(crate) authorization_response_iss_parameter_supported: bool,
    pub(crate) tls_client_certificate_bound_access_tokens: bool,
    pub(crate) backchannel_logout_supported: bool,
    pub(crate) backchannel_logout_session_supported: bool,
    pub(crate) code_challenge_methods_supported: Option<Vec<String>>,
    pub(crate) id_token_signing_alg_values_supported: Option<Vec<String>>,
    pub(crate) token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// The members that are there and could not be read, or not wholly: taken as if they were absent.
    pub(crate) unreadable: Vec<&'static str>,
}

/// Endpoints that ask for the client's certificate.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_field_names, reason = "as the document has them")]
struct MtlsEndpointAliases {
    token_endpoint: Option<Url>,
    userinfo_endpoint: Option<Url>,
    revocation_endpoint: Option<Url>,
    pushed_authorization_request_endpoint: Option<Url>,
}

/// Why a discovery document cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MetadataError {
    #[error("the discovery document cannot be read: {0}")]
    Malformed(String),
    #[error("the discovery document's {0} is missing or cannot be read")]
    Missing(&'static str),
    #[error("the discovery document is that of the issuer {found:?}; configured is {expected:?}")]
    OtherIssuer { found: String, expected: String },
    #[error("the discovery document's {0} is not an https URL")]
    Insecure(&'static str),
}

/// The members of a discovery document, and which of those that were asked for could not be read.
struct Members {
    json: Map<String, Value>,
    unreadable: Vec<&'static str>,
}

impl Members {
    fn needed(&self, name: &'static str) -> Result<Url, MetadataError> {
        let text = self.json.get(name).and_then(Value::as_str);
        text.and_then(|text| Url::parse(text).ok()).ok_or(MetadataError::Missing(name))
    }

    fn url(&mut self, name: &'static str) -> Option<Url> {
        let value = self.json.get(name).filter(|value| !value.is_null())?;
        let url = value.as_str().and_then(|text| Url::parse(text).ok());
        if url.is_none() {
            self.unreadable.push(name);
        }
        url
    }

    fn flag(&mut self, name: &'static str) -> bool {
        match self.json.get(name) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(flag)) => *flag,
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => true,
            Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => false,
            Some(_) => {
                self.unreadable.push(name);
                false
            }
        }
    }

    fn mtls_endpoint_aliases(&mut self) -> MtlsEndpointAliases {
        let json = match self.json.get("mtls_endpoint_aliases") {
            Some(Value::Object(json)) => json.clone(),
            None | Some(Value::Null) => return MtlsEndpointAliases::default(),
            Some(_) => {
                self.unreadable.push("mtls_endpoint_aliases");
                return MtlsEndpointAliases::default();
            }
        };
        let mut inner = Self { json, unreadable: Vec::new() };
        let aliases = MtlsEndpointAliases {
            token_endpoint: inner.url("token_endpoint"),
            userinfo_endpoint: inner.url("userinfo_endpoint"),
            revocation_endpoint: inner.url("revocation_endpoint"),
            pushed_authorization_request_endpoint: inner.url("pushed_authorization_request_endpoint"),
        };
        if !inner.unreadable.is_empty() {
            self.unreadable.push("mtls_endpoint_aliases");
        }
        aliases
    }

    fn list(&mut self, name: &'static str) -> Option<Vec<String>> {
        let value = self.json.get(name).filter(|value| !value.is_null())?;
        let Some(written) = value.as_array() else {
            self.unreadable.push(name);
            return None;
        };
        let list: Vec<String> = written.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        if list.len() < written.len() {
            self.unreadable.push(name);
        }
        Some(list)
    }
}

/// How a client with a secret sends it (Core §9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SecretMethod {
    Basic,
    Post,
}

impl ProviderMetadata {
    /// Where the discovery document of `issuer` is (Discovery §4: a terminating slash goes first).
    pub(crate) fn location(issuer: &Issuer) -> String {
        format!("{}/.well-known/openid-configuration", issuer.as_str().trim_end_matches('/'))
    }

    /// Reads the discovery document; nothing of another issuer's is used (§4.3).
    ///
    /// Insists on what no login works without. Everything else is read leniently, since providers write strings for
    /// booleans and lists, `null` and `""`: that must not keep anybody from signing in.
    pub(crate) fn parse(json: &[u8], issuers: &Issuers, plain_http: &PlainHttp) -> Result<Self, MetadataError> {
        let json = serde_json::from_slice(json).map_err(|e| MetadataError::Malformed(e.to_string()))?;
        let mut members = Members { json, unreadable: Vec::new() };
        let found = members.json.get("issuer").and_then(Value::as_str).ok_or(MetadataError::Missing("issuer"))?;
        if found != issuers.in_metadata() {
            let (found, expected) = (found.to_owned(), issuers.in_metadata().to_owned());
            return Err(MetadataError::OtherIssuer { found, expected });
        }
        let metadata = Self {
            authorization_endpoint: members.needed("authorization_endpoint")?,
            token_endpoint: members.needed("token_endpoint")?,
            jwks_uri: members.needed("jwks_uri")?,
            userinfo_endpoint: members.url("userinfo_endpoint"),
            end_session_endpoint: members.url("end_session_endpoint"),
            revocation_endpoint: members.url("revocation_endpoint"),
            pushed_authorization_request_endpoint: members.url("pushed_authorization_request_endpoint"),
            require_pushed_authorization_requests: members.flag("require_pushed_authorization_requests"),
            dpop_signing_alg_values_supported: members.list("dpop_signing_alg_values_supported"),
            mtls_endpoint_aliases: members.mtls_endpoint_aliases(),
            authorization_response_iss_parameter_supported: members
                .flag("authorization_response_iss_parameter_supported"),
            tls_client_certificate_bound_access_tokens: members.flag("tls_client_certificate_bound_access_tokens"),
            backchannel_logout_supported: members.flag("backchannel_logout_supported"),
            backchannel_logout_session_supported: members.flag("backchannel_logout_session_supported"),
            code_challenge_methods_supported: members.list("code_challenge_methods_supported"),
            id_token_signing_alg_values_supported: members.list("id_token_signing_alg_values_supported"),
            token_endpoint_auth_methods_supported: members.list("token_endpoint_auth_methods_supported"),
            unreadable: members.unreadable,
        };
        metadata.check_endpoints(issuers.configured(), plain_http)?;
        Ok(metadata)
    }

    fn check_endpoints(&self, issuer: &Issuer, plain_http: &PlainHttp) -> Result<(), MetadataError> {
        let aliases = &self.mtls_endpoint_aliases;
        let endpoints = [
            ("authorization_endpoint", Some(&self.authorization_endpoint)),
            ("token_endpoint", Some(&self.token_endpoint)),
            ("jwks_uri", Some(&self.jwks_uri)),
            ("userinfo_endpoint", self.userinfo_endpoint.as_ref()),
            ("end_session_endpoint", self.end_session_endpoint.as_ref()),
            ("revocation_endpoint", self.revocation_endpoint.as_ref()),
            ("pushed_authorization_request_endpoint", self.pushed_authorization_request_endpoint.as_ref()),
            ("mtls_endpoint_aliases", aliases.token_endpoint.as_ref()),
            ("mtls_endpoint_aliases", aliases.userinfo_endpoint.as_ref()),
            ("mtls_endpoint_aliases", aliases.revocation_endpoint.as_ref()),
            ("mtls_endpoint_aliases", aliases.pushed_authorization_request_endpoint.as_ref()),
        ];
        let issuer = Url::parse(issuer.as_str()).map_err(|_| MetadataError::Missing("issuer"))?;
        let is_allowed = |url: &Url| plain_http.allows_endpoint(url, &issuer);
        for (name, url) in endpoints {
            if url.is_some_and(|url| !is_allowed(url)) {
                return Err(MetadataError::Insecure(name));
            }
        }
        Ok(())
    }

    /// The same for a client that shows a certificate.
    pub(crate) fn for_mutual_tls(mut self) -> Self {
        let aliases = std::mem::take(&mut self.mtls_endpoint_aliases);
        self.token_endpoint = aliases.token_endpoint.unwrap_or(self.token_endpoint);
        self.userinfo_endpoint = aliases.userinfo_endpoint.or(self.userinfo_endpoint);
        self.revocation_endpoint = aliases.revocation_endpoint.or(self.revocation_endpoint);
        self.pushed_authorization_request_endpoint =
            aliases.pushed_authorization_request_endpoint.or(self.pushed_authorization_request_endpoint);
        self
    }

    /// The same with the endpoints that the application itself calls at another origin, where they are at the issuer's:
    /// inside of a cluster the provider has another name than for browsers.
    pub(crate) fn seen_from_inside(mut self, issuer: &Issuer, inside: &Url) -> Self {
        let Ok(outside) = Url::parse(issuer.as_str()) else { return self };
        let endpoints = [
            Some(&mut self.token_endpoint),
            Some(&mut self.jwks_uri),
            self.userinfo_endpoint.as_mut(),
            self.revocation_endpoint.as_mut(),
            self.pushed_authorization_request_endpoint.as_mut(),
        ];
        for url in endpoints.into_iter().flatten().filter(|url| url.origin() == outside.origin()) {
            *url = at_origin(url, inside);
        }
        self
    }

    /// `client_secret_basic` (the default where nothing is said) unless only `client_secret_post` is offered.
    pub(crate) fn secret_method(&self) -> SecretMethod {
        match &self.token_endpoint_auth_methods_supported {
            Some(methods)
                if methods.iter().any(|m| m == "client_secret_post")
                    && !methods.iter().any(|m| m == "client_secret_basic") =>
            {
                SecretMethod::Post
            }
            _ => SecretMethod::Basic,
        }
    }
}

/// The same path and query at another origin.
pub(crate) fn at_origin(url: &Url, origin: &Url) -> Url {
    let mut moved = origin.clone();
    moved.set_path(url.path());
    moved.set_query(url.query());
    moved
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut json = json!({
            "issuer": "https://op.example",
            "authorization_endpoint": "https://op.example/auth",
            "token_endpoint": "https://op.example/token",
            "jwks_uri": "https://op.example/jwks",
        });
        change(&mut json);
        json.to_string().into_bytes()
    }

    #[test]
    fn discovery_issuer_mismatch_is_refused_and_both_are_named() {
        let issuer = Issuer::new("https://op.example/");
        let error = ProviderMetadata::parse(&document(|_| {}), &Issuers::one(issuer.clone()), &PlainHttp::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("\"https://op.example\"") && error.contains("\"https://op.example/\""), "{error}");
        assert_eq!(ProviderMetadata::location(&issuer), "https://op.example/.well-known/openid-configuration");
    }

    #[test]
    fn endpoints_have_to_be_https() {
        let here = "http://127.0.0.1:1";
        for (issuer, name, url, expected) in [
            ("https://op.example", "token_endpoint", "https://op.example/token", None),
            ("https://op.example", "token_endpoint", "http://op.example/token", Some("token_endpoint")),
            ("https://op.example", "jwks_uri", "http://op.example/jwks", Some("jwks_uri")),
            ("https://op.example", "userinfo_endpoint", "http://op.example/me", Some("userinfo_endpoint")),
            // What is on this machine is the provider's business only if the provider is.
            ("https://op.example", "token_endpoint", "http://127.0.0.1:1/token", Some("token_endpoint")),
            ("https://op.example", "userinfo_endpoint", "http://[::1]/me", Some("userinfo_endpoint")),
            ("https://op.example", "jwks_uri", "http://op.localhost/jwks", Some("jwks_uri")),
            ("https://op.example", "jwks_uri", "file:///etc/passwd", Some("jwks_uri")),
            (here, "token_endpoint", "http://127.0.0.1:1/token", None),
            (here, "token_endpoint", "http://op.example/token", Some("token_endpoint")),
        ] {
            let json = document(|json| {
                json["issuer"] = issuer.into();
                json[name] = url.into();
            });
            let found = ProviderMetadata::parse(&json, &Issuers::one(Issuer::new(issuer)), &PlainHttp::default()).err();
            assert_eq!(found, expected.map(MetadataError::Insecure), "{issuer} {name} {url}");
        }
    }

    #[test]
    fn what_nothing_works_without_has_to_be_there() {
        let issuer = Issuers::one(Issuer::new("https://op.example"));
        for name in ["issuer", "authorization_endpoint", "token_endpoint", "jwks_uri"] {
            for value in [json!(null), json!(""), json!("no url"), json!(["https://op.example"])] {
                let text = format!("{name} {value}");
                assert!(
                    ProviderMetadata::parse(&document(|json| json[name] = value), &issuer, &PlainHttp::default())
                        .is_err(),
                    "{text}"
                );
            }
            let json = document(|json| drop(json.as_object_mut().unwrap().remove(name)));
            assert!(ProviderMetadata::parse(&json, &issuer, &PlainHttp::default()).is_err(), "no {name}");
        }
        for json in ["", "[]", "null", "<html>"] {
            assert!(ProviderMetadata::parse(json.as_bytes(), &issuer, &PlainHttp::default()).is_err(), "{json}");
        }
    }

    #[test]
    fn who_shows_a_certificate_goes_where_certificates_are_asked_for() {
        let issuer = Issuers::one(Issuer::new("https://op.example"));
        let parse = |aliases: Value| {
            let json = document(|json| {
                json["userinfo_endpoint"] = "https://op.example/me".into();
                json["mtls_endpoint_aliases"] = aliases;
            });
            ProviderMetadata::parse(&json, &issuer, &PlainHttp::default())
        };
        let endpoints = |metadata: ProviderMetadata| {
            let metadata = metadata.for_mutual_tls();
            [Some(metadata.token_endpoint), metadata.userinfo_endpoint, metadata.revocation_endpoint]
                .map(|url| url.map(String::from).unwrap_or_default())
        };
        let (token, me) = ("https://op.example/token", "https://op.example/me");
        for (aliases, expected, unreadable) in [
            (json!(null), [token, me, ""], false),
            (json!({}), [token, me, ""], false),
            (
                json!({"token_endpoint": "https://mtls.example/t", "revocation_endpoint": "https://mtls.example/r"}),
                ["https://mtls.example/t", me, "https://mtls.example/r"],
                false,
            ),
            (
                json!({"token_endpoint": "https://mtls.example/t", "userinfo_endpoint": 7}),
                ["https://mtls.example/t", me, ""],
                true,
            ),
            (json!("https://mtls.example"), [token, me, ""], true),
        ] {
            let metadata = parse(aliases.clone()).unwrap();
            assert_eq!(metadata.unreadable.contains(&"mtls_endpoint_aliases"), unreadable, "{aliases}");
            assert_eq!(endpoints(metadata), expected, "{aliases}");
        }
        let insecure = parse(json!({"token_endpoint": "http://mtls.example/t"})).err();
        assert_eq!(insecure, Some(MetadataError::Insecure("mtls_endpoint_aliases")));
    }

    #[test]
    fn what_is_hardly_needed_is_read_leniently() {
        let issuer = Issuers::one(Issuer::new("https://op.example"));
        let (url, flag, list) =
            ("userinfo_endpoint", "backchannel_logout_supported", "code_challenge_methods_supported");
        for (name, written, read, unreadable) in [
            (url, json!("https://op.example/me"), json!("https://op.example/me"), false),
            (url, json!(""), json!(null), true),
            (url, json!(null), json!(null), false),
            (url, json!("/me"), json!(null), true),
            (url, json!(["https://op.example/me"]), json!(null), true),
            (flag, json!(true), json!(true), false),
            (flag, json!("true"), json!(true), false),
            (flag, json!("False"), json!(false), false),
            (flag, json!(null), json!(false), false),
            (flag, json!(""), json!(false), true),
            (flag, json!(1), json!(false), true),
            (list, json!(["S256"]), json!(["S256"]), false),
            (list, json!([]), json!([]), false),
            (list, json!(["S256", null]), json!(["S256"]), true),
            (list, json!("S256"), json!(null), true),
            (list, json!(null), json!(null), false),
            (list, json!({"S256": true}), json!(null), true),
        ] {
            let metadata =
                ProviderMetadata::parse(&document(|json| json[name] = written.clone()), &issuer, &PlainHttp::default())
                    .unwrap();
            let found = match name {
                "userinfo_endpoint" => json!(metadata.userinfo_endpoint.as_ref().map(Url::as_str)),
                "backchannel_logout_supported" => json!(metadata.backchannel_logout_supported),
                _ => json!(metadata.code_challenge_methods_supported),
            };
            assert_eq!(found, read, "{name} {written}");
            assert_eq!(!metadata.unreadable.is_empty(), unreadable, "{name} {written}");
        }
    }

    #[test]
    fn post_only_where_basic_is_not_offered() {
        let issuer = Issuers::one(Issuer::new("https://op.example"));
        for (offered, expected) in [
            (json!(null), SecretMethod::Basic),
            (json!(["client_secret_post"]), SecretMethod::Post),
            (json!(["client_secret_post", "client_secret_basic"]), SecretMethod::Basic),
            (json!(["private_key_jwt"]), SecretMethod::Basic),
        ] {
            let json = document(|json| json["token_endpoint_auth_methods_supported"] = offered);
            assert_eq!(
                ProviderMetadata::parse(&json, &issuer, &PlainHttp::default()).unwrap().secret_method(),
                expected
            );
        }
    }

    #[test]
    fn inside_of_a_cluster_only_what_the_application_calls_at_the_issuers_origin_is_elsewhere() {
        let issuer = Issuer::new("https://op.example");
        let json = document(|json| {
            json["token_endpoint"] = "https://op.example/token?a=b".into();
            json["userinfo_endpoint"] = "https://api.example/me".into();
            json["end_session_endpoint"] = "https://op.example/end".into();
        });
        let metadata = ProviderMetadata::parse(&json, &Issuers::one(issuer.clone()), &PlainHttp::default()).unwrap();
        let inside = metadata.seen_from_inside(&issuer, &Url::parse("http://op:8080").unwrap());
        assert_eq!(inside.token_endpoint.as_str(), "http://op:8080/token?a=b");
        assert_eq!(inside.jwks_uri.as_str(), "http://op:8080/jwks");
        assert_eq!(inside.userinfo_endpoint.as_ref().map(Url::as_str), Some("https://api.example/me"));
        // Where browsers go.
        assert_eq!(inside.authorization_endpoint.as_str(), "https://op.example/auth");
        assert_eq!(inside.end_session_endpoint.as_ref().map(Url::as_str), Some("https://op.example/end"));
    }
}
