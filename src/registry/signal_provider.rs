//! The provider of the worlds in [`signal_properties`](super).

use std::time::SystemTime;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::json;

use crate::protocol::names::{AccessToken, IdTokenHint, RefreshToken};
use crate::protocol::token_response::{ErrorCode, TokenResponse, TokenVerdict};
use crate::session::end_reason::EndReason;
use crate::session::record::samples;
use crate::session::signal::Present;

/// What the provider is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manners {
    pub(super) rotates: bool,
    /// A spent token costs the whole grant.
    pub(super) revokes_for_reuse: bool,
    pub(super) id_tokens: bool,
    /// What it says of an audience that it does not know.
    pub(super) of_audiences: u8,
}

#[derive(Debug)]
pub(super) struct Provider {
    pub(super) manners: Manners,
    pub(super) has_session: bool,
    pub(super) is_revoked: bool,
    /// The refresh token that works.
    pub(super) current: u32,
    /// When the requests went out that it granted.
    pub(super) granted: Vec<SystemTime>,
    /// What it has said that ends a session.
    pub(super) words: Vec<EndReason>,
    /// Refusals in a row that were unclear.
    pub(super) unclear: u32,
}

fn id_token(subject: &str) -> IdTokenHint {
    let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let claims = json!({
        "iss": "https://op.example", "aud": "shop", "sub": subject, "iat": 0, "exp": 1_000_000, "nonce": "nonce",
    });
    IdTokenHint::new(format!("{}.{}.AA", part(json!({"alg": "RS256"})), part(claims)))
}

impl Provider {
    pub(super) fn new(manners: Manners) -> Self {
        Self {
            manners,
            has_session: true,
            is_revoked: false,
            current: 0,
            granted: vec![samples::LOGIN],
            words: Vec::new(),
            unclear: 0,
        }
    }

    pub(super) fn works(&self, token: u32) -> bool {
        self.has_session && !self.is_revoked && token == self.current
    }

    /// What a token request comes to; `dice` is what nobody can foresee.
    pub(super) fn answer(&mut self, present: &Present, sent_at: SystemTime, dice: u8) -> TokenVerdict {
        let code = |code: &str| ErrorCode::new(code);
        let token: u32 = present.token().secret().parse().unwrap();
        if !self.has_session || self.is_revoked {
            return TokenVerdict::Refused(code("invalid_grant"));
        }
        if token != self.current {
            self.is_revoked = self.manners.revokes_for_reuse;
            return TokenVerdict::Refused(code("invalid_grant"));
        }
        match (present.audience(), self.manners.of_audiences) {
            (Some(_), 0) => return TokenVerdict::NotForThis(code("invalid_target")),
            (Some(_), 1) => return TokenVerdict::Refused(code("invalid_grant")),
            (Some(_), 2) => return TokenVerdict::Ambiguous(code("invalid_scope")),
            _ => {}
        }
        if self.manners.rotates {
            self.current += 1;
        }
        let is_of_another = self.manners.id_tokens && dice == 0;
        if is_of_another {
            self.words.push(EndReason::ProviderMisbehaved);
        } else {
            self.granted.push(sent_at);
            self.unclear = 0;
        }
        TokenVerdict::Granted(TokenResponse {
            access_token: AccessToken::new("access"),
            expires_in: None,
            refresh_expires_in: None,
            refresh_token: self.manners.rotates.then(|| RefreshToken::new(self.current.to_string())),
            id_token: self.manners.id_tokens.then(|| id_token(if is_of_another { "bob" } else { "alice" })),
            scope: None,
        })
    }
}

pub(super) fn manners() -> impl Strategy<Value = Manners> {
    (any::<bool>(), any::<bool>(), any::<bool>(), 0..4_u8).prop_map(
        |(rotates, revokes_for_reuse, id_tokens, of_audiences)| Manners {
            rotates,
            revokes_for_reuse,
            id_tokens,
            of_audiences,
        },
    )
}
