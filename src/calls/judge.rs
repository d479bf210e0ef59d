//! What an API's answer leads to. Pure.
//!
//! | the answer | step |
//! |---|---|
//! | to a request without token | pass it back: it says nothing about the session |
//! | accepted | pass it back |
//! | the user has to authenticate (RFC 9470) | step up |
//! | unexplained, and listed as [`PassedBack`](Unexplained::PassedBack) | pass it back |
//! | unexplained again, after the provider has granted a new token | pass it back: the session stands |
//! | the token was rejected, as those of many sessions were | blame the API: the provider is spared what changes nothing |
//! | the token was rejected | look the session up; then, once each: go on with a token that came meanwhile, renew it; then reject |
//! | unexplained, and no refresh token to ask with | look the session up, ask userinfo, pass it back |

use super::api::Unexplained;
use super::fault::Fault;
use crate::protocol::authorization::Authentication;
use crate::protocol::challenge::ApiVerdict;
use crate::session::record::ActivitySignal;

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

/// Why a session is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    OfTheToken,
    Unexplained,
}

/// What an answer leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AnswerStep {
    BlameApi,
    LookUp(Rejection),
    PassBack,
    StepUp(Authentication),
}

pub(super) fn judge_call(state: CallState, seen: Seen) -> AnswerStep {
    match (seen.verdict, seen.sent) {
        (_, Sent::WithoutToken) | (ApiVerdict::Accepted, _) => AnswerStep::PassBack,
        (ApiVerdict::StepUp(authentication), _) => AnswerStep::StepUp(authentication),
        (ApiVerdict::Unexplained, _) => match (seen.unexplained, state.renewal) {
            (Unexplained::PassedBack, _) | (Unexplained::AskProvider, Tried::Once) => AnswerStep::PassBack,
            (Unexplained::AskProvider, Tried::NotYet) => AnswerStep::LookUp(Rejection::Unexplained),
            (Unexplained::TokenRejected, _) => rejected(seen.fault),
        },
        (ApiVerdict::TokenRejected, _) => rejected(seen.fault),
    }
}

fn rejected(fault: Fault) -> AnswerStep {
    match fault {
        Fault::Api => AnswerStep::BlameApi,
        Fault::Session => AnswerStep::LookUp(Rejection::OfTheToken),
    }
}

/// What a rejection leads to, once the session has been looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RejectionStep {
    /// Ask the provider by userinfo; then pass the answer back.
    AskUserInfo,
    Reject,
    Renew,
    SendAgain,
}

pub(super) fn after_rejection(
    mut state: CallState,
    rejection: Rejection,
    replaced: Replaced,
    signal: ActivitySignal,
) -> (CallState, RejectionStep) {
    let step = match (replaced, state.switch, state.renewal) {
        // Another request has replaced the token already; once is enough to go by that.
        (Replaced::Yes, Tried::NotYet, _) => {
            state.switch = Tried::Once;
            RejectionStep::SendAgain
        }
        (_, _, Tried::NotYet) if rejection == Rejection::Unexplained && signal == ActivitySignal::UserInfo => {
            RejectionStep::AskUserInfo
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
        use Unexplained::{AskProvider, PassedBack, TokenRejected as AsRejected};
        let gold = || Authentication { acr_values: Some("gold".to_owned()), ..Authentication::default() };
        let of_token = AnswerStep::LookUp(Rejection::OfTheToken);
        let bare = AnswerStep::LookUp(Rejection::Unexplained);
        // The last but one is what follows at first, the last what follows after the token was renewed.
        for (verdict, sent, unexplained, fault, first, later) in [
            (Accepted, WithToken, AskProvider, Fault::Session, AnswerStep::PassBack, AnswerStep::PassBack),
            (Accepted, WithToken, AskProvider, Fault::Api, AnswerStep::PassBack, AnswerStep::PassBack),
            (TokenRejected, WithoutToken, AskProvider, Fault::Session, AnswerStep::PassBack, AnswerStep::PassBack),
            (TokenRejected, WithToken, AskProvider, Fault::Session, of_token.clone(), of_token.clone()),
            (TokenRejected, WithToken, PassedBack, Fault::Session, of_token.clone(), of_token.clone()),
            (TokenRejected, WithToken, AskProvider, Fault::Api, AnswerStep::BlameApi, AnswerStep::BlameApi),
            (Bare, WithToken, AskProvider, Fault::Session, bare.clone(), AnswerStep::PassBack),
            // An API that explains nothing to anybody is asked about at the provider, session by session.
            (Bare, WithToken, AskProvider, Fault::Api, bare, AnswerStep::PassBack),
            (Bare, WithToken, AsRejected, Fault::Session, of_token.clone(), of_token),
            (Bare, WithToken, AsRejected, Fault::Api, AnswerStep::BlameApi, AnswerStep::BlameApi),
            (Bare, WithToken, PassedBack, Fault::Session, AnswerStep::PassBack, AnswerStep::PassBack),
            (
                ApiVerdict::StepUp(gold()),
                WithToken,
                AskProvider,
                Fault::Session,
                AnswerStep::StepUp(gold()),
                AnswerStep::StepUp(gold()),
            ),
            (
                ApiVerdict::StepUp(gold()),
                WithoutToken,
                AskProvider,
                Fault::Session,
                AnswerStep::PassBack,
                AnswerStep::PassBack,
            ),
        ] {
            let seen = Seen { verdict, sent, unexplained, fault };
            assert_eq!(judge_call(CallState::default(), seen.clone()), first, "{seen:?}");
            let renewed = CallState { renewal: Tried::Once, ..CallState::default() };
            assert_eq!(judge_call(renewed, seen.clone()), later, "{seen:?}, after the renewal");
        }
    }

    #[test]
    fn rejections_end_after_one_switch_and_one_renewal() {
        use RejectionStep::{AskUserInfo, Reject, Renew, SendAgain};
        use Replaced::{No, Yes};
        for (rejection, signal, replaced, expected) in [
            (Rejection::OfTheToken, ActivitySignal::Refresh, &[No, No][..], &[Renew, Reject][..]),
            (Rejection::OfTheToken, ActivitySignal::Refresh, &[Yes, No, No], &[SendAgain, Renew, Reject]),
            (Rejection::OfTheToken, ActivitySignal::Refresh, &[Yes, Yes, Yes], &[SendAgain, Renew, Reject]),
            (Rejection::OfTheToken, ActivitySignal::Refresh, &[No, Yes, No], &[Renew, SendAgain, Reject]),
            (Rejection::OfTheToken, ActivitySignal::UserInfo, &[No, No], &[Renew, Reject]),
            (Rejection::Unexplained, ActivitySignal::Refresh, &[No], &[Renew]),
            (Rejection::Unexplained, ActivitySignal::UserInfo, &[No], &[AskUserInfo]),
            (Rejection::Unexplained, ActivitySignal::UserInfo, &[Yes, No], &[SendAgain, AskUserInfo]),
            (Rejection::Unexplained, ActivitySignal::None, &[No], &[Renew]),
        ] {
            let mut state = CallState::default();
            for (replaced, expected) in replaced.iter().zip(expected) {
                let step;
                (state, step) = after_rejection(state, rejection, *replaced, signal);
                assert_eq!(step, *expected, "{rejection:?} {signal:?} {replaced:?}");
            }
        }
    }
}
