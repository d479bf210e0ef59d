//! Mutual TLS: the client shows a certificate to the provider, its tokens are bound to that, and it is read again when it changes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::StatusCode;
use rcgen::{BasicConstraints, CertificateParams, CertifiedKey, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tower_oidc_session::test_provider::{Endpoint, SignIn, TestClient, TestProvider};

use crate::process::{Process, address, web_app};
use crate::until;
use crate::visitor::Visitor;

/// The provider's certificate, by an authority of its own.
pub(crate) struct Authority {
    pub(crate) root: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let own = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&own, &issuer).unwrap();
        Self { root: root.pem(), certificate: leaf.pem(), key: own.serialize_pem() }
    }
}

/// A client's certificate in files, as a renewal writes them.
pub(crate) struct Certificate {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
    signed: CertifiedKey<KeyPair>,
}

impl Certificate {
    pub(crate) fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mutual-tls-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (chain, key) = (folder.join("client.pem"), folder.join("client-key.pem"));
        let mut made = Self { chain, key, signed: self_signed() };
        made.renew();
        made
    }

    /// Writes a new one.
    fn renew(&mut self) {
        self.signed = self_signed();
        std::fs::write(&self.key, self.signed.signing_key.serialize_pem()).unwrap();
        std::fs::write(&self.chain, self.pem()).unwrap();
    }

    fn pem(&self) -> String {
        self.signed.cert.pem()
    }

    /// Another file in the same folder.
    pub(crate) fn write_beside(&self, name: &str, pem: &str) -> PathBuf {
        let file = self.chain.with_file_name(name);
        std::fs::write(&file, pem).unwrap();
        file
    }

    /// Its public key with the certificate, as a client is registered by.
    pub(crate) fn jwk(&self) -> Value {
        let point = self.signed.signing_key.public_key_raw();
        let (x, y) = point[1..].split_at(32);
        json!({
            "kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
            "x5c": [STANDARD.encode(self.signed.cert.der())],
        })
    }
}

fn self_signed() -> CertifiedKey<KeyPair> {
    rcgen::generate_simple_self_signed(["web-app".to_owned()]).unwrap()
}

#[tokio::test]
async fn a_certificate_signs_the_client_in_and_binds_its_tokens() {
    let (authority, mut own) = (Authority::new(), Certificate::new("embedded"));
    let root = own.write_beside("root.pem", &authority.root);
    let provider = TestProvider::builder()
        .tls(authority.certificate, authority.key)
        .sign_in(SignIn::Automatic("alice".to_owned()))
        .start()
        .await
        .unwrap();
    assert!(provider.issuer().starts_with("https://"));
    let web_app = Process::start(
        web_app()
            .env("SSL_CERT_FILE", &root)
            .env("OIDC_ISSUER", provider.issuer())
            .env("OIDC_CLIENT_ID", "web-app")
            .env("OIDC_USERINFO", "claims")
            .env("CLIENT_AUTH", "self_signed_tls_client_auth")
            .env("CLIENT_CERT", &own.chain)
            .env("CLIENT_KEY", &own.key)
            .env("ACCESS_TOKEN_LIFETIME", "1s"),
    );
    let app = address(&web_app);
    let register = |certificate: &str| {
        provider.register(TestClient::at("web-app", "unused", &app).certificate(certificate));
    };
    register(&own.pem());
    let visitor = Visitor::trusting(&authority.root);
    let get = async |path: &str| visitor.get(&format!("{app}{path}")).await;
    until("web_app reaches the provider", async || get("/").await.status == StatusCode::OK).await;
    // Userinfo is asked with a token that is bound to the certificate.
    let page = visitor.go(http::Method::GET, &format!("{app}/me")).await;
    assert_eq!((page.status, &page.json()["email"]), (StatusCode::OK, &"alice@example.test".into()), "{page:?}");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(get("/me").await.status, StatusCode::OK);
    assert_eq!(provider.requests(Endpoint::Token), 2, "a login, and a refresh");

    // It is renewed: the old one is not taken any more, and the program was not restarted.
    own.renew();
    register(&own.pem());
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(get("/me").await.status, StatusCode::OK);
    let page = Visitor::trusting(&authority.root).go(http::Method::GET, &format!("{app}/me")).await;
    assert_eq!(page.status, StatusCode::OK, "a login with the new one: {page:?}");
}
