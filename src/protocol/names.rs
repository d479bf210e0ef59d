//! One type for each kind of string on the wire, so that a swap does not compile. Clones share the string.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! text {
    ($(#[$doc:meta])* $vis:vis $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        $vis struct $name(Arc<str>);

        impl $name {
            /// Takes the value as it is on the wire; values are compared byte for byte.
            #[must_use]
            $vis fn new(value: impl Into<String>) -> Self {
                Self(value.into().into())
            }

            /// The value as it is on the wire.
            #[must_use]
            $vis fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

macro_rules! secret {
    ($(#[$doc:meta])* $vis:vis $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        $vis struct $name(Arc<str>);

        impl $name {
            /// Wraps the secret.
            #[must_use]
            $vis fn new(value: impl Into<String>) -> Self {
                Self(value.into().into())
            }

            /// The secret itself: for the wire, never for a log.
            #[must_use]
            $vis fn secret(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    };
}

text! {
    /// The provider's issuer identifier, the `iss` claim.
    pub Issuer
}
text! {
    /// The client identifier that the provider knows this application by.
    pub ClientId
}
text! {
    /// The user's identifier at the provider, the `sub` claim; unique within its issuer only.
    pub Subject
}
text! {
    /// The identifier of the user's session at the provider, the `sid` claim; unique within its issuer only.
    ///
    /// Not to be confused with the cookie's value, which is never shown to the application.
    pub Sid
}
text! {
    /// The thumbprint of a key ([RFC 7638](https://www.rfc-editor.org/rfc/rfc7638)), which DPoP calls `jkt`.
    pub(crate) KeyThumbprint
}
secret! {
    /// A refresh token.
    pub(crate) RefreshToken
}
secret! {
    /// An ID token as it was received, kept as the `id_token_hint` of a later logout.
    pub(crate) IdTokenHint
}
secret! {
    /// A client secret.
    pub ClientSecret
}

/// An access token: of the type `Bearer`, or one that is bound to a key
/// ([DPoP](https://www.rfc-editor.org/rfc/rfc9449)) and of no use without proofs by it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "WrittenToken", into = "WrittenToken")]
pub struct AccessToken {
    secret: Arc<str>,
    bound_to: Option<KeyThumbprint>,
}

/// As it is stored. A token that is bound to no key is a string, as it was before there were others.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WrittenToken {
    Bearer(Arc<str>),
    Bound { token: Arc<str>, jkt: KeyThumbprint },
}

impl From<WrittenToken> for AccessToken {
    fn from(written: WrittenToken) -> Self {
        match written {
            WrittenToken::Bearer(secret) => Self { secret, bound_to: None },
            WrittenToken::Bound { token, jkt } => Self { secret: token, bound_to: Some(jkt) },
        }
    }
}

impl From<AccessToken> for WrittenToken {
    fn from(token: AccessToken) -> Self {
        match token.bound_to {
            None => Self::Bearer(token.secret),
            Some(jkt) => Self::Bound { token: token.secret, jkt },
        }
    }
}

impl AccessToken {
    /// Wraps a token of the type `Bearer`.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self { secret: value.into().into(), bound_to: None }
    }

    /// The same, bound to the key of this thumbprint.
    pub(crate) fn bound_to(self, key: KeyThumbprint) -> Self {
        Self { bound_to: Some(key), ..self }
    }

    /// The secret itself: for the wire, never for a log.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The key that it is bound to, if it is.
    pub(crate) fn key(&self) -> Option<&KeyThumbprint> {
        self.bound_to.as_ref()
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(…)")
    }
}
secret! {
    /// What an ID token has to repeat of the request that it answers.
    pub(crate) Nonce
}

/// One client at one provider. Registries keep the sessions of different registrations apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Registration {
    issuer: Issuer,
    client_id: ClientId,
}

impl Registration {
    /// The client `client_id` at `issuer`.
    #[must_use]
    pub fn new(issuer: Issuer, client_id: ClientId) -> Self {
        Self { issuer, client_id }
    }

    /// Whether it is the same, which clones are at a glance.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let are_clones =
            Arc::ptr_eq(&self.issuer.0, &other.issuer.0) && Arc::ptr_eq(&self.client_id.0, &other.client_id.0);
        are_clones || self == other
    }

    /// The provider.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// The client.
    #[must_use]
    pub fn client_id(&self) -> &ClientId {
        &self.client_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show() {
        assert_eq!(format!("{:?}", AccessToken::new("abc")), "AccessToken(…)");
        assert_eq!(format!("{:?}", ClientSecret::new("abc")), "ClientSecret(…)");
    }

    #[test]
    fn a_registration_is_an_issuer_and_a_client_whether_it_is_a_clone_or_not() {
        let registration = |issuer: &Issuer, client: &str| Registration::new(issuer.clone(), ClientId::new(client));
        let (issuer, other) = (Issuer::new("https://op.example"), Issuer::new("https://other.example"));
        let shop = registration(&issuer, "shop");
        assert!(shop.is(&shop.clone()));
        assert!(shop.is(&registration(&Issuer::new("https://op.example"), "shop")));
        assert!(!shop.is(&registration(&issuer, "desk")));
        assert!(!shop.is(&registration(&other, "shop")));
        let same_client = Registration::new(other, shop.client_id().clone());
        assert!(!shop.is(&same_client));
    }
}
