//! What came of login attempts lately: who brings one again, as browsers do that reload or load ahead, gets what the first
//! one got.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::login_outcome::LoginOutcome;
use crate::clock::is_within;
use crate::session::id::AttemptKey;

/// A browser that loads twice does so within moments.
const KEPT_FOR: Duration = Duration::from_secs(30);
/// More are not kept: the oldest go.
const MOST: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct LandedLogins {
    outcomes: Mutex<VecDeque<(SystemTime, AttemptKey, LoginOutcome)>>,
}

impl LandedLogins {
    fn outcomes(&self) -> MutexGuard<'_, VecDeque<(SystemTime, AttemptKey, LoginOutcome)>> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn keep(&self, attempt: AttemptKey, outcome: LoginOutcome, now: SystemTime) {
        let mut outcomes = self.outcomes();
        outcomes.retain(|(landed_at, ..)| is_within(*landed_at, KEPT_FOR, now));
        if outcomes.len() >= MOST {
            outcomes.pop_front();
        }
        outcomes.push_back((now, attempt, outcome));
    }

    pub(super) fn of(&self, attempt: &AttemptKey, now: SystemTime) -> Option<LoginOutcome> {
        let outcomes = self.outcomes();
        let is_it = |(landed_at, kept, _): &&(SystemTime, AttemptKey, LoginOutcome)| {
            kept == attempt && is_within(*landed_at, KEPT_FOR, now)
        };
        outcomes.iter().find(is_it).map(|(.., outcome)| outcome.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::login_outcome::LoggedIn;
    use crate::protocol::names::{ClientId, Issuer, Registration};

    #[test]
    fn the_latest_thousand_are_kept_for_half_a_minute() {
        let registration = Registration::new(Issuer::new("https://op.example"), ClientId::new("shop"));
        let attempt = |number: usize| AttemptKey::of(&number.to_string(), &registration);
        let landed = LandedLogins::default();
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for number in 0..=MOST {
            landed.keep(attempt(number), Ok(LoggedIn::Confirmed), at);
        }
        assert_eq!(landed.outcomes().len(), MOST);
        assert!(landed.of(&attempt(0), at).is_none(), "the oldest is gone");
        assert!(landed.of(&attempt(1), at).is_some() && landed.of(&attempt(MOST), at).is_some());
        let later = at + KEPT_FOR;
        assert!(landed.of(&attempt(1), later).is_none());
        landed.keep(attempt(0), Ok(LoggedIn::Confirmed), later);
        assert_eq!(landed.outcomes().len(), 1);
    }
}
