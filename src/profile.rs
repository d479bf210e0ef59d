//! What a profile demands of the settings. Pure.

use crate::error::ConfigError;
use crate::protocol::authorization::{Initiation, IssuerParameter};
use crate::protocol::jwt::SigningAlg;
use crate::provider::PushedAuthorization;
use crate::provider::credentials::ClientAuthentication;
use crate::provider::signing_key::SigningKey;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Profile {
    /// FAPI 2.0 Security Profile, for clients (§5.3.3) and their cryptography (§5.4).
    Fapi2,
    /// OpenID Connect, and what RFC 9700 asks of everybody.
    #[default]
    Plain,
}

/// The settings that a profile looks at.
#[derive(Debug)]
pub(crate) struct Strength<'a> {
    pub(crate) credentials: &'a [ClientAuthentication],
    pub(crate) dpop: Option<&'a SigningKey>,
    pub(crate) signing_alg: SigningAlg,
    pub(crate) pushed_authorization: PushedAuthorization,
    pub(crate) has_dangers: bool,
}

impl Profile {
    /// How ID tokens are signed where nothing else is said.
    pub(crate) fn signing_alg(self) -> SigningAlg {
        match self {
            Self::Fapi2 => SigningAlg::PS256,
            Self::Plain => SigningAlg::RS256,
        }
    }

    pub(crate) fn pushed_authorization(self, wanted: PushedAuthorization) -> PushedAuthorization {
        match self {
            Self::Fapi2 => PushedAuthorization::Required,
            Self::Plain => wanted,
        }
    }

    pub(crate) fn issuer_parameter(self) -> IssuerParameter {
        match self {
            Self::Fapi2 => IssuerParameter::Required,
            Self::Plain => IssuerParameter::WherePromised,
        }
    }

    pub(crate) fn initiation(self) -> Initiation {
        match self {
            Self::Fapi2 => Initiation::OwnPages,
            Self::Plain => Initiation::Anywhere,
        }
    }

    /// Refuses what is weaker than the profile.
    pub(crate) fn check(self, settings: &Strength<'_>) -> Result<(), ConfigError> {
        if self == Self::Plain {
            return Ok(());
        }
        let shares_secret = settings.credentials.iter().any(|way| way.secret().is_some());
        let is_bound = settings.dpop.is_some() || settings.credentials.iter().any(|way| way.certificate().is_some());
        let is_strong = matches!(settings.signing_alg, SigningAlg::ES256 | SigningAlg::EdDSA | SigningAlg::PS256);
        let wrong = if shares_secret {
            ("client_authentication", "a shared secret", "private_key_jwt or a certificate (mutual TLS)")
        } else if !is_bound {
            (
                "dpop",
                "not set",
                "a key, unless the client shows a certificate: access tokens have to be bound to one of them",
            )
        } else if !is_strong {
            ("signing_alg", settings.signing_alg.as_str(), "PS256, ES256 or EdDSA")
        } else if settings.pushed_authorization == PushedAuthorization::Off {
            ("pushed_authorization", "off", "no Off: authorization requests have to be pushed")
        } else if settings.has_dangers {
            ("dangerous", "set", "nothing: no plain http, and no cookies but secure ones")
        } else {
            return Ok(());
        };
        let (setting, got, takes) = wrong;
        Err(ConfigError::new(setting, got, format!("{takes}, with fapi2()")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::names::ClientSecret;

    #[test]
    fn fapi2_refuses_what_is_weaker() {
        let key = || SigningKey::from_pem(rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let (key, dpop) = ([ClientAuthentication::PrivateKeyJwt(key())], key());
        let secret = [ClientAuthentication::ClientSecretBasic(ClientSecret::new("secret"))];
        let both = [key[0].clone(), secret[0].clone()];
        let good = || Strength {
            credentials: &key,
            dpop: Some(&dpop),
            signing_alg: SigningAlg::PS256,
            pushed_authorization: PushedAuthorization::WhereOffered,
            has_dangers: false,
        };
        for (settings, expected) in [
            (good(), None),
            (Strength { signing_alg: SigningAlg::ES256, ..good() }, None),
            (Strength { signing_alg: SigningAlg::EdDSA, ..good() }, None),
            (Strength { pushed_authorization: PushedAuthorization::Required, ..good() }, None),
            (Strength { credentials: &secret, ..good() }, Some("client_authentication")),
            (Strength { credentials: &both, ..good() }, Some("client_authentication")),
            (Strength { dpop: None, ..good() }, Some("dpop")),
            (Strength { signing_alg: SigningAlg::RS256, ..good() }, Some("signing_alg")),
            (Strength { signing_alg: SigningAlg::PS512, ..good() }, Some("signing_alg")),
            (Strength { pushed_authorization: PushedAuthorization::Off, ..good() }, Some("pushed_authorization")),
            (Strength { has_dangers: true, ..good() }, Some("dangerous")),
        ] {
            let found = Profile::Fapi2.check(&settings).err();
            assert_eq!(found.as_ref().map(ConfigError::setting), expected, "{settings:?}");
            assert!(Profile::Plain.check(&settings).is_ok(), "{settings:?}");
        }
    }
}
