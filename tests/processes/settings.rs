//! Wrong settings end the program with exit code 2 and one line that names the variable.

use super::process::web_app;

#[track_caller]
fn refused(variables: &[(&str, &str)]) -> String {
    let mut command = web_app();
    for (name, value) in
        [("OIDC_ISSUER", "http://127.0.0.1:9"), ("OIDC_CLIENT_ID", "shop"), ("OIDC_CLIENT_SECRET", "hidden")]
    {
        command.env(name, value);
    }
    for (name, value) in variables {
        if value.is_empty() {
            command.env_remove(name);
        } else {
            command.env(name, value);
        }
    }
    let output = command.output().expect("it runs");
    assert_eq!(output.status.code(), Some(2), "{variables:?}");
    let message = String::from_utf8(output.stderr).expect("it speaks UTF-8");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(!message.contains("hidden"), "{message}");
    message
}

#[test]
fn wrong_variables_are_named() {
    for (name, value) in [
        ("OIDC_ISSUER", ""),
        ("OIDC_ISSUER", "http://op.example"),
        ("OIDC_CLIENT_ID", ""),
        ("OIDC_CLIENT_SECRET", ""),
        ("OIDC_SCOPES", "profile"),
        ("OIDC_SIGNING_ALG", "none"),
        ("OIDC_USERINFO", "maybe"),
        ("LISTEN", "somewhere"),
        ("PUBLIC_URL", "http://shop.example"),
        ("STORE_URL", "mysql://x"),
        ("STORE_URL", "redis://:hidden@"),
        ("STORE_URL", "postgres://u:hidden@h:notaport/d"),
        ("STORE_KEYS", "c2hvcnQ="),
        ("CONFIRMED_BY", "one"),
        ("CONFIRMED_BY", "-1"),
        ("OP_SESSION_LIFETIME", "15"),
        ("OP_SESSION_LIFETIME", "0s"),
        ("ACCESS_TOKEN_LIFETIME", "15m"),
        ("ABSOLUTE_LIFETIME", "soon"),
        ("LOGOUT_TOKEN_MISSING_EXP", "accept"),
        ("PROVIDER_TIMEOUT", "-1s"),
        ("COOKIE_KEY", "short"),
        ("API_URL", "http://api.example"),
        ("CLIENT_AUTH", "password"),
        ("PAR", "sometimes"),
        ("DPOP", "/no/such/file"),
        ("FAPI2", "yes"),
        ("FRONTCHANNEL_LOGOUT", "1"),
        ("SECURITY_EVENTS", "http://events.example"),
        ("API_URL", "http://svc:hidden@api.internal"),
        ("API_URL", "https://svc:hidden@h:notaport/"),
    ] {
        let message = refused(&[(name, value)]);
        assert!(message.starts_with(name) && message.contains("it takes "), "{message}");
    }
    // What is missing, or too weak, besides.
    let of_another_kind = concat!(env!("CARGO_TARGET_TMPDIR"), "/ed25519.pem").to_owned();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    std::fs::write(&of_another_kind, key.serialize_pem()).unwrap();
    for (variables, name) in [
        (&[("CLIENT_AUTH", "private_key_jwt")][..], "CLIENT_KEY"),
        (&[("CLIENT_AUTH", "private_key_jwt"), ("CLIENT_KEY", "/no/such/file")], "CLIENT_KEY"),
        (&[("CLIENT_AUTH", "tls_client_auth"), ("CLIENT_KEY", "/dev/null")], "CLIENT_CERT"),
        (
            &[("CLIENT_AUTH", "tls_client_auth"), ("CLIENT_KEY", "/dev/null"), ("CLIENT_CERT", "/dev/null")],
            "CLIENT_CERT",
        ),
        (
            &[("CLIENT_AUTH", "tls_client_auth"), ("CLIENT_KEY", "/no/such/file"), ("CLIENT_CERT", "/dev/null")],
            "CLIENT_KEY",
        ),
        (&[("DPOP", "/dev/null")], "DPOP"),
        (&[("DPOP", &of_another_kind)], "DPOP"),
        (&[("FAPI2", "on"), ("OIDC_CLIENT_SECRET", "")], "CLIENT_AUTH"),
        (&[("CLIENT_AUTH", "client_secret_post"), ("OIDC_CLIENT_SECRET", "")], "OIDC_CLIENT_SECRET"),
        (&[("FAPI2", "on")], "CLIENT_AUTH"),
    ] {
        let message = refused(variables);
        assert!(message.starts_with(name) && message.contains("it takes "), "{message}");
    }
    let message = refused(&[("ACCESS_TOKEN_LIFETIME", "20s"), ("OP_SESSION_LIFETIME", "20s")]);
    assert!(message.contains("less than op_session_lifetime"), "{message}");
}
