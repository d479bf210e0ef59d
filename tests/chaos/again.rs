//! Tokens that are presented again, and which faults explain it. An explanation says that the holder of the lease could not do
//! its part at the time at which it had to.

use std::time::Duration;

use crate::checker::{Figures, Indexed, Violation};
use crate::history::{At, Fate, Kind, Presented, Said, TokenRequest};

/// How long a replica has the right to refresh; it renews it each third of that.
const LEASE: Duration = Duration::from_secs(5);
/// A holder that cannot renew its lease for so long may lose it.
const LAPSE: Duration = Duration::from_millis(3_300);
/// What a replica has in its hands is stored within this time, and what failed is tried again.
const UNDER_WAY: Duration = Duration::from_secs(1);
/// The same where it asks the provider for its keys first.
const UNDER_WAY_WITH_KEYS: Duration = Duration::from_secs(4);
/// What a replica had sent when it was killed may be seen so much later, on a machine that is busy.
const ON_ITS_WAY: Duration = Duration::from_millis(500);
/// A replica that is told to stop does what it has begun, for so long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

impl Indexed<'_> {
    pub(crate) fn presentations(&self, figures: &mut Figures, violations: &mut Vec<Violation>) {
        for (token, requests) in &self.presentations {
            for pair in requests.windows(2) {
                let &[first, second] = pair else { continue };
                let (token, at) = ((*token).to_owned(), (first.arrived, second.arrived));
                if matches!(first.presented, Presented::Code(_)) {
                    violations.push(Violation::CodeTwice { code: token, first: at.0, second: at.1 });
                    continue;
                }
                match self.why_again(first, second) {
                    Some(why) => *figures.again.entry(why).or_default() += 1,
                    None if second.arrived < first.ended => {
                        violations.push(Violation::PresentedTwice { token, first: at.0, second: at.1 });
                    }
                    None => violations.push(Violation::LostToken { token, first: at.0, second: at.1 }),
                }
            }
        }
    }

    /// What explains that a refresh token was presented again.
    fn why_again(&self, first: &TokenRequest, second: &TokenRequest) -> Option<&'static str> {
        let waits = second.arrived < first.ended;
        if !waits {
            match (&first.said, first.fate) {
                (_, Fate::Cut) => return Some("connection cut"),
                (Said::Unavailable, _) => return Some("provider unavailable"),
                // It could not be noted that the session had ended; nothing is lost by another no.
                (Said::Refused { .. }, _) => return Some("refused before"),
                _ => {}
            }
        }
        let idle = self.idle(first.life.replica);
        let mut in_hand_until = first.ended + self.under_way(first);
        // The trouble that it is in when the answer comes, and what comes before it is out of it.
        let mut is_in_trouble = false;
        for (from, to) in idle.iter().filter(|(_, to)| *to >= first.ended) {
            if *from <= in_hand_until {
                (in_hand_until, is_in_trouble) = (in_hand_until.max(*to), true);
            }
        }
        let is_dead = self
            .deaths(first.life.replica)
            .any(|death| death + ON_ITS_WAY >= first.arrived && death <= in_hand_until && death <= second.arrived);
        if is_dead {
            return Some("holder killed");
        }
        let since = first.arrived.max(second.arrived.saturating_sub(LEASE * 2));
        let lost: Duration =
            idle.iter().filter_map(|(from, to)| (*to).min(second.arrived).checked_sub((*from).max(since))).sum();
        let is_in_hand = waits || (is_in_trouble && second.arrived <= in_hand_until + LEASE);
        (lost >= LAPSE && is_in_hand).then_some("holder stood still, or its store")
    }

    fn under_way(&self, request: &TokenRequest) -> Duration {
        let is_slow = self.faults.iter().any(|fault| {
            matches!(fault.kind, Kind::ProviderCut | Kind::ProviderSlow | Kind::ProviderDown)
                && fault.replica.is_none_or(|of| of == request.life.replica)
                && fault.overlaps(request.ended, request.ended + UNDER_WAY)
        });
        if is_slow { UNDER_WAY_WITH_KEYS } else { UNDER_WAY }
    }

    /// When a replica could neither renew a lease nor store anything: it stood still, or the store took nothing from it.
    fn idle(&self, replica: usize) -> Vec<(At, At)> {
        let of_it = self.faults.iter().filter(|fault| fault.replica.is_none_or(|of| of == replica));
        let mut spans: Vec<(At, At)> = of_it
            .filter(|fault| matches!(fault.kind, Kind::Stop | Kind::Still) || fault.kind.is_of_store())
            // It has to find that all is well, and try again.
            .map(|fault| (fault.from, fault.to + UNDER_WAY))
            .collect();
        spans.sort_unstable();
        let mut merged: Vec<(At, At)> = Vec::new();
        for (from, to) in spans {
            match merged.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        merged
    }

    /// When a replica forgot what it had in its hands.
    fn deaths(&self, replica: usize) -> impl Iterator<Item = At> {
        self.faults.iter().filter(move |fault| fault.replica == Some(replica)).filter_map(|fault| match fault.kind {
            Kind::Kill => Some(fault.from),
            // Whoever was done before has forgotten nothing.
            Kind::Restart => Some(fault.from + DRAIN_TIMEOUT).filter(|overdue| *overdue <= fault.to + ON_ITS_WAY),
            _ => None,
        })
    }
}
