//! What the applications of the tests authenticate with: a secret; or, where `TEST_CLIENT` is `bound`, a key, with pushed authorization
//! requests, and access tokens that are bound to another key by DPoP.

use std::sync::LazyLock;

use tower_oidc_session::test_provider::{PushedRequests, TestClient, TestProviderBuilder};
use tower_oidc_session::{ClientAuthentication, ClientCredentials, RelyingParty, RelyingPartyBuilder, SigningKey};

use crate::world::CLIENT_SECRET;

/// The keys of this application: of its assertions, and of its proofs.
static KEYS: LazyLock<[SigningKey; 2]> = LazyLock::new(|| [new_key(), new_key()]);

pub(crate) fn new_key() -> SigningKey {
    SigningKey::from_pem(rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap()
}

fn is_bound() -> bool {
    match std::env::var("TEST_CLIENT").as_deref() {
        Ok("bound") => true,
        Err(_) | Ok("secret") => false,
        Ok(other) => panic!("TEST_CLIENT is {other}: it takes secret or bound"),
    }
}

/// A relying party with such a client.
pub(crate) fn relying_party(issuer: String, client_id: &str, url: &str) -> RelyingPartyBuilder {
    if !is_bound() {
        return RelyingParty::builder(issuer, ClientCredentials::secret(client_id, CLIENT_SECRET), url);
    }
    let [key, dpop] = &*KEYS;
    let credentials = ClientCredentials::new(client_id, ClientAuthentication::PrivateKeyJwt(key.clone()));
    RelyingParty::builder(issuer, credentials, url).dpop(dpop.clone())
}

/// Such a client, as its provider knows it.
pub(crate) fn registered(client: TestClient, url: &str) -> TestClient {
    if is_bound() { client.jwks_uri(format!("{url}/auth/jwks.json")).dpop_bound() } else { client }
}

/// A provider that asks for as much.
pub(crate) fn provider(provider: TestProviderBuilder) -> TestProviderBuilder {
    if !is_bound() {
        return provider;
    }
    // Without nonces: what a provider is asked is counted by these tests.
    provider.pushed_requests(PushedRequests::Required)
}
