//! Whose tokens a client takes: those of one issuer, or of some tenants' at a provider that has one for each.
//!
//! A provider of many tenants, as Microsoft Entra ID, has one discovery document for all of them, with a template for the
//! issuer: `https://login.microsoftonline.com/{tenantid}/v2.0`. Each token names its tenant in `tid`, and an issuer of its own.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::names::Issuer;

/// What stands in a template for the tenant.
pub(crate) const TENANT: &str = "{tenantid}";

/// Which tenants of a provider may sign in, by their ids, the claim `tid`.
///
/// ```
/// use tower_oidc_session::IssuerTenants;
///
/// let partners = IssuerTenants::only(["11111111-2222-3333-4444-555555555555"]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerTenants(Option<BTreeSet<String>>);

impl IssuerTenants {
    /// These, and nobody else.
    #[must_use]
    pub fn only<T: Into<String>>(ids: impl IntoIterator<Item = T>) -> Self {
        Self(Some(ids.into_iter().map(Into::into).collect()))
    }

    /// Everybody who has an account at any tenant, which anybody can set up: what a user may do then has to go by the issuer.
    #[must_use]
    pub fn any() -> Self {
        Self(None)
    }

    fn has(&self, id: &str) -> bool {
        match &self.0 {
            Some(ids) => ids.contains(id),
            None => !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
        }
    }
}

/// Why a token is none that a client takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotOurs {
    Issuer,
    /// It names another tenant than its issuer is of.
    Tenant,
}

/// Whose tokens a client takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Issuers {
    configured: Issuer,
    template: Option<(String, IssuerTenants)>,
}

impl Issuers {
    pub(crate) fn one(issuer: Issuer) -> Self {
        Self { configured: issuer, template: None }
    }

    pub(crate) fn tenants(issuer: Issuer, template: String, tenants: IssuerTenants) -> Self {
        Self { configured: issuer, template: Some((template, tenants)) }
    }

    /// The one that was configured.
    pub(crate) fn configured(&self) -> &Issuer {
        &self.configured
    }

    /// Whether there may be several.
    pub(crate) fn are_many(&self) -> bool {
        self.template.is_some()
    }

    /// What the discovery document has for its issuer.
    pub(crate) fn in_metadata(&self) -> &str {
        self.template.as_ref().map_or_else(|| self.configured.as_str(), |(template, _)| template)
    }

    /// Whether tokens of that issuer may be taken.
    pub(crate) fn have(&self, issuer: &str) -> bool {
        match &self.template {
            None => issuer == self.configured.as_str(),
            // What stands in a tenant's place where the document is, as `common`, is none.
            Some((template, tenants)) => {
                issuer != self.configured.as_str()
                    && tenant_of(template, issuer).is_some_and(|tenant| tenants.has(tenant))
            }
        }
    }

    /// The issuer of a token, which has to be one of these; where the token names its tenant too, that has to be the same.
    pub(crate) fn of_token(&self, claims: &Map<String, Value>) -> Result<Issuer, NotOurs> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let issuer = text("iss").filter(|issuer| self.have(issuer)).ok_or(NotOurs::Issuer)?;
        match &self.template {
            Some((template, _)) if claims.contains_key("tid") && text("tid") != tenant_of(template, issuer) => {
                Err(NotOurs::Tenant)
            }
            _ => Ok(Issuer::new(issuer)),
        }
    }

    /// Whether a key that is published for `issuer`, perhaps a template, vouches for such a token. Only providers of many
    /// tenants say that of their keys.
    pub(crate) fn vouches(&self, issuer: Option<&str>, claims: &Map<String, Value>) -> bool {
        let (Some(of_key), Some(_)) = (issuer, &self.template) else { return true };
        let of_token = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
        of_key == of_token || tenant_of(of_key, of_token).is_some()
    }
}

/// The tenant whose issuer a template makes.
fn tenant_of<'a>(template: &str, issuer: &'a str) -> Option<&'a str> {
    let (before, after) = template.split_once(TENANT)?;
    let tenant = issuer.strip_prefix(before)?.strip_suffix(after)?;
    (!tenant.is_empty() && !tenant.contains('/')).then_some(tenant)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEMPLATE: &str = "https://op.example/{tenantid}/v2.0";

    fn issuers(tenants: IssuerTenants) -> Issuers {
        Issuers::tenants(Issuer::new("https://op.example/common/v2.0"), TEMPLATE.to_owned(), tenants)
    }

    #[test]
    fn tokens_of_tenants() {
        let (some, any) = (issuers(IssuerTenants::only(["acme"])), issuers(IssuerTenants::any()));
        let one = Issuers::one(Issuer::new("https://op.example"));
        for (iss, tid, by_some, by_any, by_one) in [
            (json!("https://op.example/acme/v2.0"), json!("acme"), true, true, false),
            (json!("https://op.example/other/v2.0"), json!("other"), false, true, false),
            (json!("https://op.example/acme/v2.0"), json!("other"), false, false, false),
            (json!("https://op.example/acme/v2.0"), json!(["acme"]), false, false, false),
            (json!("https://op.example/acme/v2.0"), json!(null), true, true, false),
            (json!("https://op.example/acme/v2.0/"), json!("acme"), false, false, false),
            (json!("https://op.example/a/b/v2.0"), json!("a/b"), false, false, false),
            (json!("https://op.example//v2.0"), json!(""), false, false, false),
            (json!("https://op.example/common/v2.0"), json!(null), false, false, false),
            (json!("https://op.example/{tenantid}/v2.0"), json!("{tenantid}"), false, false, false),
            (json!("https://op.example"), json!(null), false, false, true),
            (json!("https://evil.example/acme/v2.0"), json!("acme"), false, false, false),
            (json!(["https://op.example/acme/v2.0"]), json!("acme"), false, false, false),
        ] {
            let mut claims = json!({"iss": iss});
            if !tid.is_null() {
                claims["tid"] = tid;
            }
            let Value::Object(claims) = claims else { unreachable!() };
            for (issuers, expected) in [(&some, by_some), (&any, by_any), (&one, by_one)] {
                let found = issuers.of_token(&claims);
                assert_eq!(found.is_ok(), expected, "{claims:?} {issuers:?}");
                if let Ok(found) = found {
                    assert_eq!(Some(found.as_str()), claims["iss"].as_str());
                }
            }
        }
    }

    #[test]
    fn keys_of_one_tenant_vouch_for_its_tokens_alone() {
        let many = issuers(IssuerTenants::any());
        let one = Issuers::one(Issuer::new("https://op.example"));
        let Value::Object(claims) = json!({"iss": "https://op.example/acme/v2.0"}) else { unreachable!() };
        for (of_key, expected) in [
            (None, true),
            (Some(TEMPLATE), true),
            (Some("https://op.example/acme/v2.0"), true),
            (Some("https://op.example/other/v2.0"), false),
            (Some("https://evil.example/{tenantid}/v2.0"), false),
        ] {
            assert_eq!(many.vouches(of_key, &claims), expected, "{of_key:?}");
            assert!(one.vouches(of_key, &claims), "{of_key:?}");
        }
        let Value::Object(claims) = json!({"iss": "https://op.example/acme/b/v2.0"}) else { unreachable!() };
        assert!(!many.vouches(Some(TEMPLATE), &claims), "a tenant is one part of a path");
        assert_eq!((many.are_many(), one.are_many()), (true, false));
    }
}
