//! The client's secrets: while one is replaced by another at the provider, there are two.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::protocol::names::ClientSecret;
use crate::protocol::token_response::TokenVerdict;

#[derive(Debug)]
pub(crate) struct Secrets {
    /// At least one.
    all: Vec<ClientSecret>,
    /// The one that the provider took last.
    current: AtomicUsize,
}

/// One of the secrets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tried<'a> {
    number: usize,
    pub(crate) secret: &'a ClientSecret,
}

impl Secrets {
    pub(crate) fn new(first: ClientSecret, others: impl IntoIterator<Item = ClientSecret>) -> Self {
        Self { all: std::iter::once(first).chain(others).collect(), current: AtomicUsize::new(0) }
    }

    fn get(&self, number: usize) -> Option<Tried<'_>> {
        self.all.get(number).map(|secret| Tried { number, secret })
    }

    /// The one to use.
    pub(crate) fn current(&self) -> Tried<'_> {
        let current = self.get(self.current.load(Ordering::Relaxed));
        // There is a first.
        #[expect(clippy::indexing_slicing, reason = "made with one at least")]
        current.unwrap_or(Tried { number: 0, secret: &self.all[0] })
    }

    /// The one to try next, where the provider does not know the client by the one that was tried: it has looked at nothing else of
    /// the request then, and no token is spent.
    pub(crate) fn after(&self, tried: Tried<'_>, verdict: &TokenVerdict) -> Option<Tried<'_>> {
        let is_refused = matches!(verdict, TokenVerdict::Misconfigured(error) if error.as_str() == "invalid_client");
        let next = (tried.number + 1) % self.all.len();
        self.get(next).filter(|next| is_refused && next.number != tried.number)
    }

    /// Notes that the provider takes this one.
    pub(crate) fn settle(&self, taken: Tried<'_>, verdict: &TokenVerdict) {
        if self.after(taken, verdict).is_none() && self.current.swap(taken.number, Ordering::Relaxed) != taken.number {
            tracing::info!(number = taken.number, "the provider takes another of the client's secrets");
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::protocol::token_response::ErrorCode;

    #[test]
    fn another_secret_is_tried_where_the_client_is_not_known_by_the_first() {
        let secrets = Secrets::new(ClientSecret::new("new"), [ClientSecret::new("old")]);
        let refused = TokenVerdict::Misconfigured(ErrorCode::new("invalid_client"));
        let tried = secrets.current();
        assert_eq!(tried.secret.secret(), "new");
        for other in [
            TokenVerdict::Misconfigured(ErrorCode::new("unauthorized_client")),
            TokenVerdict::Refused(ErrorCode::new("invalid_grant")),
            TokenVerdict::Unavailable { status: StatusCode::BAD_GATEWAY, retry_after: None },
        ] {
            assert!(secrets.after(tried, &other).is_none(), "{other:?}");
        }
        let next = secrets.after(tried, &refused).unwrap();
        assert_eq!(next.secret.secret(), "old");
        secrets.settle(next, &refused);
        assert_eq!(secrets.current().secret.secret(), "new", "neither is taken");
        secrets.settle(next, &TokenVerdict::Refused(ErrorCode::new("invalid_grant")));
        assert_eq!(secrets.current().secret.secret(), "old", "the client is known by it");
        let back = secrets.after(secrets.current(), &refused).unwrap();
        assert_eq!(back.secret.secret(), "new", "once the provider has it");

        let one = Secrets::new(ClientSecret::new("one"), []);
        assert!(one.after(one.current(), &refused).is_none());
    }
}
