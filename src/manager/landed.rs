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
