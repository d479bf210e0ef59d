//! What an API's answer leads to. Pure.
//!
//! | the answer | step |
//! |---|---|
//! | to a request without token | pass it back: it says nothing about the session |
//! | accepted | pass it back |
//! | the user has to authenticate (RFC 9470) | step up |
//! | unexplained, and listed as [`PassedBack`](Unexplained::PassedBack) | pass it back |
//! | the token was rejected, as those of many sessions were | blame the API: the provider is spared what changes nothing |
//! | the token was rejected | look the session up; then, once each: go on with a token that came meanwhile, renew it; then reject |

use super::api::Unexplained;
use super::fault::Fault;
use crate::protocol::authorization::Authentication;
use crate::protocol::challenge::ApiVerdict;

/// How far a call has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CallState {
    renewal: Tried,
    switch: Tried,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Tried {
    #[default]
    NotYet,
    Once,
}

/// Whether a request carried a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    WithToken,
    WithoutToken,
}

/// Whether another request has replaced a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replaced {
    No,
    Yes,
}

/// An answer, and what it is judged by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) verdict: ApiVerdict,
    pub(super) sent: Sent,
    pub(super) unexplained: Unexplained,
    pub(super) fault: Fault,
}

/// What an answer leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AnswerStep {
    BlameApi,
    LookUp,
    PassBack,
    StepUp(Authentication),
}

pub(super) fn judge_call(seen: Seen) -> AnswerStep {
    match (seen.verdict, seen.sent) {
        (_, Sent::WithoutToken) | (ApiVerdict::Accepted, _) => AnswerStep::PassBack,
        (ApiVerdict::StepUp(authentication), _) => AnswerStep::StepUp(authentication),
        (ApiVerdict::Unexplained, _) if seen.unexplained == Unexplained::PassedBack => AnswerStep::PassBack,
        (ApiVerdict::TokenRejected | ApiVerdict::Unexplained, _) => match seen.fault {
            Fault::Api => AnswerStep::BlameApi,
            Fault::Session => AnswerStep::LookUp,
        },
    }
}

/// What a rejection leads to, once the session has been looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RejectionStep {
    Reject,
    Renew,
    SendAgain,
}

pub(super) fn after_rejection(mut state: CallState, replaced: Replaced) -> (CallState, RejectionStep) {
    let step = match (replaced, state.switch, state.renewal) {
        // Another request has replaced the token already; once is enough to go by that.
        (Replaced::Yes, Tried::NotYet, _) => {
            state.switch = Tried::Once;
            RejectionStep::SendAgain
        }
        (_, _, Tried::NotYet) => {
            state.renewal = Tried::Once;
            RejectionStep::Renew
        }
        (_, _, Tried::Once) => RejectionStep::Reject,
    };
    (state, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        use ApiVerdict::{Accepted, TokenRejected, Unexplained as Bare};
        use Sent::{WithToken, WithoutToken};
        use Unexplained::{PassedBack, TokenRejected as AsRejected};
        let gold = Authentication { acr_values: Some("gold".to_owned()), ..Authentication::default() };
        for (verdict, sent, unexplained, fault, expected) in [
            (Accepted, WithToken, AsRejected, Fault::Session, AnswerStep::PassBack),
            (Accepted, WithToken, AsRejected, Fault::Api, AnswerStep::PassBack),
            (TokenRejected, WithoutToken, AsRejected, Fault::Session, AnswerStep::PassBack),
            (TokenRejected, WithToken, AsRejected, Fault::Session, AnswerStep::LookUp),
            (TokenRejected, WithToken, PassedBack, Fault::Session, AnswerStep::LookUp),
            (TokenRejected, WithToken, AsRejected, Fault::Api, AnswerStep::BlameApi),
            (Bare, WithToken, AsRejected, Fault::Session, AnswerStep::LookUp),
            (Bare, WithToken, AsRejected, Fault::Api, AnswerStep::BlameApi),
            (Bare, WithToken, PassedBack, Fault::Session, AnswerStep::PassBack),
            (Bare, WithToken, PassedBack, Fault::Api, AnswerStep::PassBack),
            (ApiVerdict::StepUp(gold.clone()), WithToken, AsRejected, Fault::Session, AnswerStep::StepUp(gold.clone())),
            (ApiVerdict::StepUp(gold.clone()), WithoutToken, AsRejected, Fault::Session, AnswerStep::PassBack),
        ] {
            let seen = Seen { verdict, sent, unexplained, fault };
            assert_eq!(judge_call(seen.clone()), expected, "{seen:?}");
        }
    }

    #[test]
    fn rejections_end_after_one_switch_and_one_renewal() {
        use Replaced::{No, Yes};
        for (replaced, expected) in [
            (&[No, No][..], &[RejectionStep::Renew, RejectionStep::Reject][..]),
            (&[Yes, No, No], &[RejectionStep::SendAgain, RejectionStep::Renew, RejectionStep::Reject]),
            (&[Yes, Yes, Yes], &[RejectionStep::SendAgain, RejectionStep::Renew, RejectionStep::Reject]),
            (&[No, Yes, No], &[RejectionStep::Renew, RejectionStep::SendAgain, RejectionStep::Reject]),
        ] {
            let mut state = CallState::default();
            for (replaced, expected) in replaced.iter().zip(expected) {
                let step;
                (state, step) = after_rejection(state, *replaced);
                assert_eq!(step, *expected, "{replaced:?}");
            }
        }
    }
}
