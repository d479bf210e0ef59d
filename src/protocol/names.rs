//! One type for each kind of string on the wire, so that a swap does not compile. Clones share the string.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the value as it is on the wire; values are compared byte for byte.
            #[must_use]
            pub fn new(value: impl Into<String>) -> Self {
                Self(value.into().into())
            }

            /// The value as it is on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
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
    Issuer
}
text! {
    /// The client identifier that the provider knows this application by.
    ClientId
}
text! {
    /// The user's identifier at the provider, the `sub` claim; unique within its issuer only.
    Subject
}
text! {
    /// The identifier of the user's session at the provider, the `sid` claim; unique within its issuer only.
    ///
    /// Not to be confused with the cookie's value, which is never shown to the application.
    Sid
}
secret! {
    /// An access token.
    pub AccessToken
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
    pub(crate) ClientSecret
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
}
