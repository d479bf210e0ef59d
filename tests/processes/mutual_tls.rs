//! Mutual TLS: the client shows a certificate to the provider, its tokens are bound to that, and it is read again when it changes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::StatusCode;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tower_oidc_session::test_provider::{Endpoint, SignIn, TestClient, TestProvider};

use crate::process::{Process, address, web_app};
use crate::until;
use crate::visitor::Visitor;

/// The provider's certificate, by an authority of its own.
struct Authority {
    root: String,
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
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
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn new() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mutual-tls-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self { certificate: folder.join("client.pem"), key: folder.join("client-key.pem") }
    }

    /// Writes a new one, and says which.
    fn renew(&self) -> String {
        let made = rcgen::generate_simple_self_signed(["web-app".to_owned()]).unwrap();
        std::fs::write(&self.key, made.signing_key.serialize_pem()).unwrap();
        std::fs::write(&self.certificate, made.cert.pem()).unwrap();
        made.cert.pem()
    }
}

#[tokio::test]
async fn a_certificate_signs_the_client_in_and_binds_its_tokens() {
    let (authority, files) = (Authority::new(), Files::new());
    let root = files.certificate.with_file_name("root.pem");
    std::fs::write(&root, &authority.root).unwrap();
    let provider = TestProvider::builder()
        .tls(authority.certificate, authority.key)
        .sign_in(SignIn::Automatic("alice".to_owned()))
        .start()
        .await
        .unwrap();
    assert!(provider.issuer().starts_with("https://"));
    let certificate = files.renew();
    let web_app = Process::start(
        web_app()
            .env("SSL_CERT_FILE", &root)
            .env("OIDC_ISSUER", provider.issuer())
            .env("OIDC_CLIENT_ID", "web-app")
            .env("OIDC_USERINFO", "claims")
            .env("CLIENT_AUTH", "self_signed_tls_client_auth")
            .env("CLIENT_CERT", &files.certificate)
            .env("CLIENT_KEY", &files.key)
            .env("ACCESS_TOKEN_LIFETIME", "1s"),
    );
    let app = address(&web_app);
    let register = |certificate: &str| {
        provider.register(TestClient::at("web-app", "unused", &app).certificate(certificate));
    };
    register(&certificate);
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
    register(&files.renew());
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(get("/me").await.status, StatusCode::OK);
    let page = Visitor::trusting(&authority.root).go(http::Method::GET, &format!("{app}/me")).await;
    assert_eq!(page.status, StatusCode::OK, "a login with the new one: {page:?}");
}
