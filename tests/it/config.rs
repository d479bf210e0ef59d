//! Settings that cannot work are refused by name.

use std::time::Duration;

use tower_oidc_session::{ClientCredentials, CookieKey, RelyingParty, RelyingPartyBuilder, SessionPolicy};

fn refused(configure: impl FnOnce(RelyingPartyBuilder) -> RelyingPartyBuilder) -> String {
    let credentials = ClientCredentials::secret("shop", "hidden");
    let builder = RelyingParty::builder("https://op.example", credentials, "https://shop.example");
    let error = configure(builder).build().expect_err("refused");
    assert!(error.to_string().starts_with(error.setting()));
    error.to_string()
}

fn refused_urls(issuer: &str, public_url: &str) -> String {
    let builder = RelyingParty::builder(issuer, ClientCredentials::secret("shop", "hidden"), public_url);
    builder.build().expect_err("refused").to_string()
}

fn refused_issuer(issuer: &str) -> String {
    refused_urls(issuer, "https://shop.example")
}

fn policy(t: u64, g: u64) -> SessionPolicy {
    SessionPolicy::new().op_session_lifetime(Duration::from_secs(t)).access_token_lifetime(Duration::from_secs(g))
}

#[tokio::test]
async fn errors_name_the_setting_what_it_got_and_what_it_takes() {
    for (t, g) in [(900, 900), (900, 901)] {
        let error = refused(|b| b.policy(policy(t, g)));
        assert!(
            error.starts_with(&format!("access_token_lifetime is {g}s: it takes less than op_session_lifetime (900s)")),
            "{error}"
        );
    }
    for url in
        ["", "shop.example", "http://shop.example", "https://shop.example?a", "https://shop.example#f", "ftp://x"]
    {
        let error = refused_urls("https://op.example", url);
        assert!(error.starts_with("public_url is ") && error.contains(": it takes "), "{error}");
    }
    for url in ["http://op.example", "https://op.example?x", "https://op.example#f", "op"] {
        let error = refused_issuer(url);
        assert!(error.starts_with(&format!("issuer is {url}: it takes ")), "{error}");
    }
    assert!(!refused_issuer("https://user:pass@op.example").contains("pass@"));
    assert!(refused(|b| b.scopes(["profile"])).contains("openid"));
    assert!(refused(|b| b.provider_timeout(Duration::ZERO)).starts_with("provider_timeout is zero"));
    assert!(refused(|b| b.policy(policy(0, 0))).starts_with("op_session_lifetime is zero"));
    assert!(refused(|b| b.policy(policy(u64::MAX, 1))).contains("ten years"));
    assert!(refused(|b| b.api("http://api.example")).starts_with("api is http://api.example"));
    for key in ["", "abc", "é", &"A".repeat(88)] {
        let error = CookieKey::from_base64(key).expect_err("refused").to_string();
        assert!(error.starts_with("cookie_key is not a key: it takes 64 random bytes in base64"), "{error}");
    }
}

#[tokio::test]
async fn loopback_hosts_may_be_plain_http_and_one_second_is_enough() {
    for host in ["127.0.0.1:3000", "localhost", "shop.localhost:8080", "[::1]"] {
        let url = format!("http://{host}");
        let builder = RelyingParty::builder(&url, ClientCredentials::secret("shop", "s"), &url);
        let policy = SessionPolicy::new()
            .op_session_lifetime(Duration::from_secs(1))
            .access_token_lifetime(Duration::from_millis(1));
        builder.policy(policy).build().unwrap();
    }
}

#[tokio::test]
async fn paths_are_refused_that_cannot_be() {
    for path in ["", "/", "auth", "/auth/", "/{auth}", "/a?b"] {
        let error = refused(|b| b.auth_path(path));
        assert!(error.starts_with(&format!("auth_path is {path}: it takes a path, as /auth")), "{error}");
    }
    for path in ["goodbye", "//evil.example", "/a#b", "https://evil.example/"] {
        let error = refused(|b| b.post_logout_path(path));
        assert!(error.starts_with(&format!("post_logout_path is {path}: it takes a path")), "{error}");
    }
    for name in ["redirect_uri", "acr_values", "prompt", ""] {
        let error = refused(|b| b.authorization_parameter(name, "x"));
        assert!(error.contains("not the crate's own"), "{error}");
    }
    let lifetime = |seconds| policy(900, 300).refresh_token_lifetime(Duration::from_secs(seconds));
    let error = refused(|b| b.policy(lifetime(300)));
    assert!(error.starts_with("refresh_token_lifetime is 300s: it takes more than access_token_lifetime"), "{error}");
    for url in ["http://keycloak:8080", "http://127.0.0.1:8080/path"] {
        let error = refused(|b| b.internal_provider_url(url));
        assert!(error.starts_with("internal_provider_url is"), "{error}");
    }
}
