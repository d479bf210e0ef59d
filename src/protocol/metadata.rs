//! The provider's metadata.
//!
//! [Discovery 1.0 §3 and §4.3](https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderMetadata).

use serde::Deserialize;
use url::Url;

use super::names::Issuer;
use super::url::is_secure;

/// What the provider says of itself, as far as a relying party needs it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ProviderMetadata {
    pub(crate) issuer: Issuer,
    pub(crate) authorization_endpoint: Url,
    pub(crate) token_endpoint: Url,
    pub(crate) jwks_uri: Url,
    pub(crate) userinfo_endpoint: Option<Url>,
    pub(crate) end_session_endpoint: Option<Url>,
    pub(crate) revocation_endpoint: Option<Url>,
    #[serde(default)]
    pub(crate) authorization_response_iss_parameter_supported: bool,
    #[serde(default)]
    pub(crate) backchannel_logout_supported: bool,
    #[serde(default)]
    pub(crate) backchannel_logout_session_supported: bool,
    pub(crate) code_challenge_methods_supported: Option<Vec<String>>,
    pub(crate) id_token_signing_alg_values_supported: Option<Vec<String>>,
    pub(crate) token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

/// Why a discovery document cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MetadataError {
    #[error("the discovery document cannot be read: {0}")]
    Malformed(String),
    #[error("the discovery document is that of another issuer")]
    OtherIssuer,
    #[error("the discovery document's {0} is not an https URL")]
    Insecure(&'static str),
}

/// How the client proves itself at the token endpoint (Core §9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientAuthentication {
    Basic,
    Post,
}

impl ProviderMetadata {
    /// Where the discovery document of `issuer` is (Discovery §4: a terminating slash goes first).
    pub(crate) fn location(issuer: &Issuer) -> String {
        format!("{}/.well-known/openid-configuration", issuer.as_str().trim_end_matches('/'))
    }

    /// Reads the discovery document; nothing of another issuer's is used (§4.3).
    pub(crate) fn parse(json: &[u8], issuer: &Issuer) -> Result<Self, MetadataError> {
        let metadata: Self = serde_json::from_slice(json).map_err(|e| MetadataError::Malformed(e.to_string()))?;
        if metadata.issuer != *issuer {
            return Err(MetadataError::OtherIssuer);
        }
        let endpoints = [
            ("authorization_endpoint", Some(&metadata.authorization_endpoint)),
            ("token_endpoint", Some(&metadata.token_endpoint)),
            ("jwks_uri", Some(&metadata.jwks_uri)),
            ("userinfo_endpoint", metadata.userinfo_endpoint.as_ref()),
            ("end_session_endpoint", metadata.end_session_endpoint.as_ref()),
            ("revocation_endpoint", metadata.revocation_endpoint.as_ref()),
        ];
        for (name, url) in endpoints {
            if url.is_some_and(|url| !is_secure(url)) {
                return Err(MetadataError::Insecure(name));
            }
        }
        Ok(metadata)
    }

    /// `client_secret_basic` (the default where nothing is said) unless only `client_secret_post` is offered.
    pub(crate) fn client_authentication(&self) -> ClientAuthentication {
        match &self.token_endpoint_auth_methods_supported {
            Some(methods)
                if methods.iter().any(|m| m == "client_secret_post")
                    && !methods.iter().any(|m| m == "client_secret_basic") =>
            {
                ClientAuthentication::Post
            }
            _ => ClientAuthentication::Basic,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
        let mut json = serde_json::json!({
            "issuer": "https://op.example",
            "authorization_endpoint": "https://op.example/auth",
            "token_endpoint": "https://op.example/token",
            "jwks_uri": "https://op.example/jwks",
        });
        change(&mut json);
        json.to_string().into_bytes()
    }

    #[test]
    fn discovery_issuer_mismatch_is_refused() {
        let issuer = Issuer::new("https://op.example/");
        assert_eq!(ProviderMetadata::parse(&document(|_| {}), &issuer).unwrap_err(), MetadataError::OtherIssuer);
        assert_eq!(ProviderMetadata::location(&issuer), "https://op.example/.well-known/openid-configuration");
    }

    #[test]
    fn endpoints_have_to_be_https() {
        let issuer = Issuer::new("https://op.example");
        let json = document(|json| json["token_endpoint"] = "http://op.example/token".into());
        assert_eq!(ProviderMetadata::parse(&json, &issuer).unwrap_err(), MetadataError::Insecure("token_endpoint"));
        let json = document(|json| json["token_endpoint"] = "http://127.0.0.1:1/token".into());
        assert!(ProviderMetadata::parse(&json, &issuer).is_ok());
    }

    #[test]
    fn post_only_where_basic_is_not_offered() {
        let issuer = Issuer::new("https://op.example");
        for (offered, expected) in [
            (serde_json::json!(null), ClientAuthentication::Basic),
            (serde_json::json!(["client_secret_post"]), ClientAuthentication::Post),
            (serde_json::json!(["client_secret_post", "client_secret_basic"]), ClientAuthentication::Basic),
            (serde_json::json!(["private_key_jwt"]), ClientAuthentication::Basic),
        ] {
            let json = document(|json| json["token_endpoint_auth_methods_supported"] = offered);
            assert_eq!(ProviderMetadata::parse(&json, &issuer).unwrap().client_authentication(), expected);
        }
    }
}
