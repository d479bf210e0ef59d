//! Another library's judgement on ID tokens: that of the crate `openidconnect`, which nobody here wrote.

use std::error::Error;
use std::sync::{Arc, Mutex};

use openidconnect::core::{CoreIdToken, CoreIdTokenVerifier, CoreJsonWebKeySet, CoreJwsSigningAlgorithm};
use openidconnect::{AccessToken, AccessTokenHash, ClientId, ClientSecret, IssuerUrl, Nonce};
use serde_json::Value;
use tower_oidc_session::{Clock, SigningAlg};

use crate::world::World;

/// Rows of the conformance tests at which the two do not agree, and what each says of the token. `docs/proof.md` says who is
/// right, and why.
const DIFFERENCES: [(&str, Judgement); 9] = [
    ("a_logout_token", Judgement::Accepts),
    ("aud_with_others_in_a_token_for_this_client", Judgement::Refuses),
    ("azp_of_another_client", Judgement::Accepts),
    ("further_audiences", Judgement::Refuses),
    ("iat_in_the_future", Judgement::Accepts),
    ("oidcc_client_test_refresh_token_invalid_azp", Judgement::Accepts),
    ("oidcc_client_test_refresh_token_invalid_sub", Judgement::Accepts),
    ("refreshed_aud_with_others_in_a_token_for_this_client", Judgement::Refuses),
    ("sub_of_more_than_255_characters", Judgement::Accepts),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    Accepts,
    Refuses,
}

/// What an ID token came of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// It has the login's `nonce`.
    Login,
    /// It should have none, and the login's if it has (Core §12.2).
    Refresh,
}

/// Sees the tokens that a provider issues, as they are when they leave.
pub(crate) struct Oracle {
    nonce: Arc<Mutex<Option<String>>>,
    issued: Arc<Mutex<Value>>,
}

impl Oracle {
    /// Watches a provider that does this to its ID tokens.
    pub(crate) fn watch(world: &World, change: impl Fn(&mut Value, &mut Value) + Send + Sync + 'static) -> Self {
        let oracle = Self { nonce: Arc::default(), issued: Arc::default() };
        let (nonce, issued) = (oracle.nonce.clone(), oracle.issued.clone());
        world.provider.tamper_id_token(move |header, claims| {
            // Refreshed ID tokens have none: it is the login's.
            if let Some(of_login) = claims["nonce"].as_str() {
                *nonce.lock().unwrap() = Some(of_login.to_owned());
            }
            change(header, claims);
        });
        world.provider.tamper_token_response(move |response| *issued.lock().unwrap() = response.clone());
        oracle
    }

    /// What the other library says of the last ID token.
    pub(crate) async fn judge(&self, world: &World, of: Of, alg: SigningAlg) -> (Judgement, String) {
        let keys = world.browser.get(&format!("{}/jwks", world.provider.issuer())).await.body;
        match self.verify(world, &keys, of, alg) {
            Ok(()) => (Judgement::Accepts, String::new()),
            Err(why) => (Judgement::Refuses, why.to_string()),
        }
    }

    fn verify(&self, world: &World, keys: &str, of: Of, alg: SigningAlg) -> Result<(), Box<dyn Error>> {
        let response = self.issued.lock().unwrap().clone();
        let text = |name: &str| response[name].as_str().expect("it was issued").to_owned();
        let keys: CoreJsonWebKeySet = serde_json::from_str(keys)?;
        let alg: CoreJwsSigningAlgorithm = serde_json::from_value(alg.as_str().into()).unwrap();
        let clock = world.clock.clone();
        let issuer = IssuerUrl::new(world.provider.issuer()).unwrap();
        let (client, secret) = (ClientId::new("shop".to_owned()), ClientSecret::new("secret".to_owned()));
        let verifier = CoreIdTokenVerifier::new_confidential_client(client, secret, issuer, keys)
            .set_allowed_algs([alg])
            .set_time_fn(move || clock.now().into());
        let token: CoreIdToken = text("id_token").parse()?;
        let nonce = self.nonce.lock().unwrap().clone().expect("there was a login");
        let nonce = |found: Option<&Nonce>| match (of, found) {
            (Of::Refresh, None) => Ok(()),
            _ => found.is_some_and(|found| *found.secret() == nonce).then_some(()).ok_or("nonce".to_owned()),
        };
        let claims = token.claims(&verifier, nonce)?;
        // As its documentation tells its users to.
        let Some(expected) = claims.access_token_hash() else { return Ok(()) };
        let (alg, key) = (token.signing_alg()?, token.signing_key(&verifier)?);
        let found = AccessTokenHash::from_token(&AccessToken::new(text("access_token")), alg, key)?;
        if found == *expected { Ok(()) } else { Err("at_hash".into()) }
    }

    /// It says the same as we do, or the row is a known difference.
    pub(crate) async fn agrees(&self, world: &World, of: Of, ours: Judgement, row: &str) {
        let (theirs, why) = self.judge(world, of, SigningAlg::RS256).await;
        let known = DIFFERENCES.iter().find(|(name, _)| *name == row).map(|(_, theirs)| *theirs);
        assert_eq!(theirs, known.unwrap_or(ours), "{row}: {why}");
        assert!(known.is_none_or(|known| known != ours), "{row} is a difference no more");
    }
}

#[test]
fn differences_are_explained() {
    let page = include_str!("../../docs/proof.md");
    for (row, _) in DIFFERENCES {
        assert!(page.contains(&format!("| `{row}` |")), "{row}");
    }
}
