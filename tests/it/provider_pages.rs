//! The snippets of `docs/providers` compile, and the settings they make are accepted.

#![allow(clippy::unused_async, reason = "the snippets await what they build")]

use std::path::Path;
use std::time::Duration;

use tower_oidc_session::{
    ClientCredentials, ConfigError, LogoutTokenPolicy, MissingExpiry, RelyingParty, SessionPolicy,
};

#[rustfmt::skip]
async fn auth0(secret: &str) -> Result<RelyingParty, ConfigError> {
    // The slash at the end belongs to Auth0's issuer.
    let rp = RelyingParty::builder("https://shop.eu.auth0.com/", ClientCredentials::secret("client-id", secret), "https://shop.example")
        .scopes(["openid", "profile", "offline_access"])
        .policy(SessionPolicy::new()
            .op_session_lifetime(Duration::from_secs(15 * 60))
            .access_token_lifetime(Duration::from_secs(5 * 60)))
        .build()?;
    Ok(rp)
}

#[rustfmt::skip]
async fn authentik(secret: &str) -> Result<RelyingParty, ConfigError> {
    // The slash at the end belongs to the issuer, which is one per application.
    let issuer = "https://authentik.example/application/o/shop/";
    let rp = RelyingParty::builder(issuer, ClientCredentials::secret("client-id", secret), "https://shop.example")
        .scopes(["openid", "profile", "offline_access"])
        .policy(SessionPolicy::new()
            .op_session_lifetime(Duration::from_secs(15 * 60))
            .access_token_lifetime(Duration::from_secs(5 * 60)))
        .build()?;
    Ok(rp)
}

#[rustfmt::skip]
async fn cognito(secret: &str) -> Result<RelyingParty, ConfigError> {
    let issuer = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_EXAMPLE";
    let rp = RelyingParty::builder(issuer, ClientCredentials::secret("client-id", secret), "https://shop.example")
        .policy(SessionPolicy::new()
            .discard_tokens()                                     // the timeout is the application's own
            .op_session_lifetime(Duration::from_secs(15 * 60))
            .access_token_lifetime(Duration::from_secs(5 * 60))
            .absolute_lifetime(Duration::from_secs(8 * 60 * 60)))
        .build()?;
    Ok(rp)
}

#[rustfmt::skip]
async fn duende_identityserver(secret: &str) -> Result<RelyingParty, ConfigError> {
    let rp = RelyingParty::builder("https://op.example", ClientCredentials::secret("shop", secret), "https://shop.example")
        .scopes(["openid", "profile", "offline_access"])
        .policy(SessionPolicy::new()
            .op_session_lifetime(Duration::from_secs(15 * 60))
            .access_token_lifetime(Duration::from_secs(5 * 60)))
        .build()?;
    Ok(rp)
}

#[rustfmt::skip]
async fn entra_id(secret: &str) -> Result<RelyingParty, ConfigError> {
    let issuer = "https://login.microsoftonline.com/00000000-0000-0000-0000-000000000000/v2.0";
    let rp = RelyingParty::builder(issuer, ClientCredentials::secret("client-id", secret), "https://shop.example")
        .policy(SessionPolicy::new()
            .discard_tokens()                                     // the timeout is the application's own
            .op_session_lifetime(Duration::from_secs(15 * 60))
            .access_token_lifetime(Duration::from_secs(5 * 60))
            .absolute_lifetime(Duration::from_secs(8 * 60 * 60)))
        .build()?;
    Ok(rp)
}

#[rustfmt::skip]
async fn glewlwyd(secret: &str) -> Result<RelyingParty, ConfigError> {
    let lenient = MissingExpiry::AcceptYoungerThan(Duration::from_secs(2 * 60));
    let rp = RelyingParty::builder("https://login.example/api/oidc", ClientCredentials::secret("client-id", secret), "https://shop.example")
        .scopes(["openid"])
        .logout_tokens(LogoutTokenPolicy::new().missing_expiry(lenient))
        .policy(SessionPolicy::new()
            .op_session_lifetime(Duration::from_secs(15 * 60))
            .access_token_lifetime(Duration::from_secs(5 * 60)))
        .build()?;
    Ok(rp)
}

#[rustfmt::skip]
async fn idpyoidc(secret: &str) -> Result<RelyingParty, ConfigError> {
    let rp = RelyingParty::builder("https://login.example", ClientCredentials::secret("client-id", secret), "https://shop.example")
        .scopes(["openid", "profile", "offline_access"])
        .authorization_parameter("prompt", "consent")
        .policy(SessionPolicy::new()
            .op_session_lifetime(Duration::from_secs(15 * 60))
            .access_token_lifetime(Duration::from_secs(5 * 60)))
        .build()?;
    Ok(rp)
}

#[rustfmt::skip]
async fn keycloak(secret: &str) -> Result<RelyingParty, ConfigError> {
    let rp = RelyingParty::builder("https://sso.example/realms/shop", ClientCredentials::secret("shop", secret), "https://shop.example")
        .policy(SessionPolicy::new()
            .op_session_lifetime(Duration::from_secs(30 * 60))
            .access_token_lifetime(Duration::from_secs(5 * 60)))
        .build()?;
    Ok(rp)
}

#[rustfmt::skip]
async fn okta(secret: &str) -> Result<RelyingParty, ConfigError> {
    let rp = RelyingParty::builder("https://shop.okta.com/oauth2/default", ClientCredentials::secret("client-id", secret), "https://shop.example")
        .scopes(["openid", "profile", "offline_access"])
        .policy(SessionPolicy::new()
            .op_session_lifetime(Duration::from_secs(15 * 60))
            .access_token_lifetime(Duration::from_secs(5 * 60)))
        .build()?;
    Ok(rp)
}

#[rustfmt::skip]
async fn ory_hydra(secret: &str) -> Result<RelyingParty, ConfigError> {
    let lenient = MissingExpiry::AcceptYoungerThan(Duration::from_secs(2 * 60));
    let rp = RelyingParty::builder("https://hydra.example", ClientCredentials::secret("client-id", secret), "https://shop.example")
        .scopes(["openid", "profile", "offline_access"])
        .logout_tokens(LogoutTokenPolicy::new().missing_expiry(lenient))
        .policy(SessionPolicy::new()
            .op_session_lifetime(Duration::from_secs(15 * 60))
            .access_token_lifetime(Duration::from_secs(5 * 60)))
        .build()?;
    Ok(rp)
}

#[rustfmt::skip]
async fn zitadel(secret: &str) -> Result<RelyingParty, ConfigError> {
    let rp = RelyingParty::builder("https://shop.zitadel.cloud", ClientCredentials::secret("client-id", secret), "https://shop.example")
        .scopes(["openid", "profile", "offline_access"])
        .policy(SessionPolicy::new()
            .op_session_lifetime(Duration::from_secs(15 * 60))
            .access_token_lifetime(Duration::from_secs(5 * 60)))
        .build()?;
    Ok(rp)
}

#[tokio::test]
async fn the_pages_say_what_is_tried_here() {
    let without_space = |text: &str| text.split_whitespace().collect::<String>();
    let tried = without_space(include_str!("provider_pages.rs"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/providers");
    let mut snippets = 0;
    for page in std::fs::read_dir(folder).unwrap() {
        let path = page.unwrap().path();
        for block in std::fs::read_to_string(&path).unwrap().split("```rust\n").skip(1) {
            let block = block.split("```").next().unwrap();
            let code: String = block.lines().filter(|line| !line.starts_with("use ")).collect();
            assert!(tried.contains(&without_space(&code)), "{path:?}: copy the snippet to tests/it/provider_pages.rs");
            snippets += 1;
        }
    }
    assert_eq!(snippets, 11);
    auth0("secret").await.unwrap();
    authentik("secret").await.unwrap();
    cognito("secret").await.unwrap();
    duende_identityserver("secret").await.unwrap();
    entra_id("secret").await.unwrap();
    glewlwyd("secret").await.unwrap();
    idpyoidc("secret").await.unwrap();
    keycloak("secret").await.unwrap();
    okta("secret").await.unwrap();
    ory_hydra("secret").await.unwrap();
    zitadel("secret").await.unwrap();
}
