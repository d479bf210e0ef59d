//! What an API's answer leads to. Pure.
//!
//! | the answer | step |
//! |---|---|
//! | to a request without token | pass it back: it says nothing about the session |
//! | accepted | pass it back |
//! | a nonce is wanted in the proof | send it again with that, once; then pass it back |
//! | the user has to authenticate (RFC 9470) | step up |
//! | unexplained, and listed as [`PassedBack`](Unexplained::PassedBack) | pass it back |
//! | unexplained again, after the provider has granted a new token | pass it back: the session stands |
//! | the token was rejected, as those of many sessions were | blame the API: the provider is spared what changes nothing |
//! | the token was rejected | look the session up; then, once each: go on with a token that came meanwhile, renew it; then reject |
//! | the token was rejected, the session would end for it, and the token is younger than 3 s | send it once more when it is that old: the API's clock may be behind |
//! | unexplained, and no refresh token to ask with | look the session up, ask userinfo, pass it back |

use std::time::{Duration, SystemTime};

use super::api::Unexplained;
use super::fault::Fault;
use crate::protocol::authorization::Authentication;
use crate::protocol::challenge::ApiVerdict;
use crate::provider::dpop::Nonce;
use crate::session::record::ActivitySignal;

/// How far a call has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CallState {
    renewal: Tried,
    nonce: Tried,
    switch: Tried,
    wait: Tried,
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

/// How old the token is that was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenAge {
    Old,
    /// An API whose clock is behind may take it for one of the future for so long.
    Young(Duration),
}

impl TokenAge {
    /// Clocks of APIs may be behind by so much.
    const OLD: Duration = Duration::from_secs(3);

    pub(super) fn of(obtained_at: Option<SystemTime>, now: SystemTime) -> Self {
        // One that another replica got in our future is not old at all.
        let age = obtained_at.map(|obtained_at| now.duration_since(obtained_at).unwrap_or_default());
        match age.map(|age| Self::OLD.saturating_sub(age)) {
            None | Some(Duration::ZERO) => Self::Old,
            Some(left) => Self::Young(left),
        }
    }
}

/// An answer, and what it is judged by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) verdict: ApiVerdict,
    pub(super) sent: Sent,
    pub(super) nonce: Nonce,
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
    /// With the nonce that came with the answer.
    SendAgain,
    StepUp(Authentication),
}

impl CallState {
    /// After a request was sent again with another nonce.
    pub(super) fn with_nonce(self) -> Self {
        Self { nonce: Tried::Once, ..self }
    }
}

pub(super) fn judge_call(state: CallState, seen: Seen) -> AnswerStep {
    match (seen.verdict, seen.sent) {
        (_, Sent::WithoutToken) | (ApiVerdict::Accepted, _) => AnswerStep::PassBack,
        (ApiVerdict::NonceWanted, _) => match (state.nonce, seen.nonce) {
            (Tried::NotYet, Nonce::Given) => AnswerStep::SendAgain,
            (Tried::Once, _) | (_, Nonce::NotGiven) => AnswerStep::PassBack,
        },
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
    /// The token that was rejected is not the session's any more: it says nothing about that one.
    PassBack,
    Reject,
    Renew,
    SendAgain,
    /// After so long.
    SendWhenOlder(Duration),
}

pub(super) fn after_rejection(
    state: CallState,
    rejection: Rejection,
    replaced: Replaced,
    signal: ActivitySignal,
    age: TokenAge,
) -> (CallState, RejectionStep) {
    let mut next = state;
    let step = match (replaced, state.switch, state.renewal) {
        // Another request has replaced the token already; once is enough to go by that.
        (Replaced::Yes, Tried::NotYet, _) => {
            next.switch = Tried::Once;
            RejectionStep::SendAgain
        }
        (_, _, Tried::NotYet) if rejection == Rejection::Unexplained && signal == ActivitySignal::UserInfo => {
            RejectionStep::AskUserInfo
        }
        (_, _, Tried::NotYet) => {
            next.renewal = Tried::Once;
            RejectionStep::Renew
        }
        (Replaced::Yes, Tried::Once, Tried::Once) => RejectionStep::PassBack,
        (Replaced::No, _, Tried::Once) => RejectionStep::Reject,
    };
    let can_renew = signal == ActivitySignal::Refresh;
    match (step, age, state.wait) {
        (RejectionStep::Reject, TokenAge::Young(left), Tried::NotYet) => {
            (CallState { wait: Tried::Once, ..state }, RejectionStep::SendWhenOlder(left))
        }
        (RejectionStep::Renew, TokenAge::Young(left), Tried::NotYet) if !can_renew => {
            (CallState { wait: Tried::Once, ..state }, RejectionStep::SendWhenOlder(left))
        }
        _ => (next, step),
    }
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
            let seen = Seen { verdict, sent, nonce: Nonce::NotGiven, unexplained, fault };
            assert_eq!(judge_call(CallState::default(), seen.clone()), first, "{seen:?}");
            let renewed = CallState { renewal: Tried::Once, ..CallState::default() };
            assert_eq!(judge_call(renewed, seen.clone()), later, "{seen:?}, after the renewal");
        }
    }

    #[test]
    fn a_nonce_is_answered_once_and_ends_nothing() {
        let seen = |nonce| Seen {
            verdict: ApiVerdict::NonceWanted,
            sent: Sent::WithToken,
            nonce,
            unexplained: Unexplained::AskProvider,
            fault: Fault::Session,
        };
        let first = CallState::default();
        assert_eq!(judge_call(first, seen(Nonce::Given)), AnswerStep::SendAgain);
        assert_eq!(judge_call(first, seen(Nonce::NotGiven)), AnswerStep::PassBack, "it would be sent as it was");
        assert_eq!(judge_call(first.with_nonce(), seen(Nonce::Given)), AnswerStep::PassBack);
    }

    #[test]
    fn rejections_end_after_one_switch_one_renewal_and_one_wait() {
        use RejectionStep::{AskUserInfo, PassBack, Reject, Renew, SendAgain, SendWhenOlder};
        use Replaced::{No, Yes};
        use TokenAge::{Old, Young};
        let left = Duration::from_secs(2);
        let (refresh, user_info, none) = (ActivitySignal::Refresh, ActivitySignal::UserInfo, ActivitySignal::None);
        let older = SendWhenOlder(left);
        for (rejection, signal, seen, expected) in [
            (Rejection::OfTheToken, refresh, &[(No, Old), (No, Old)][..], &[Renew, Reject][..]),
            (Rejection::OfTheToken, refresh, &[(Yes, Old), (No, Old), (No, Old)], &[SendAgain, Renew, Reject]),
            (Rejection::OfTheToken, refresh, &[(Yes, Old), (Yes, Old), (Yes, Old)], &[SendAgain, Renew, PassBack]),
            (Rejection::OfTheToken, refresh, &[(No, Old), (Yes, Old), (No, Old)], &[Renew, SendAgain, Reject]),
            (Rejection::OfTheToken, user_info, &[(No, Old), (No, Old)], &[Renew, Reject]),
            (Rejection::Unexplained, refresh, &[(No, Old)], &[Renew]),
            (Rejection::Unexplained, user_info, &[(No, Old)], &[AskUserInfo]),
            (Rejection::Unexplained, user_info, &[(Yes, Old), (No, Old)], &[SendAgain, AskUserInfo]),
            (Rejection::Unexplained, none, &[(No, Old)], &[Renew]),
            // The last word is about a token that is no longer new, whatever this one was when it was first sent.
            (
                Rejection::OfTheToken,
                refresh,
                &[(No, Young(left)), (No, Young(left)), (No, Old)],
                &[Renew, older, Reject],
            ),
            (
                Rejection::OfTheToken,
                refresh,
                &[(No, Old), (No, Young(left)), (No, Young(left))],
                &[Renew, older, Reject],
            ),
            (Rejection::OfTheToken, refresh, &[(Yes, Young(left)), (No, Old)], &[SendAgain, Renew]),
            (Rejection::OfTheToken, none, &[(No, Young(left)), (No, Old)], &[older, Renew]),
            (Rejection::OfTheToken, user_info, &[(No, Young(left)), (No, Old)], &[older, Renew]),
            (Rejection::Unexplained, user_info, &[(No, Young(left))], &[AskUserInfo]),
            (Rejection::Unexplained, none, &[(No, Young(left)), (No, Old)], &[older, Renew]),
        ] {
            let mut state = CallState::default();
            for ((replaced, age), expected) in seen.iter().zip(expected) {
                let step;
                (state, step) = after_rejection(state, rejection, *replaced, signal, *age);
                assert_eq!(step, *expected, "{rejection:?} {signal:?} {seen:?}");
            }
        }
    }

    #[test]
    fn tokens_are_young_for_three_seconds() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        for (obtained_at, now, expected) in [
            (Some(at(10)), at(10), TokenAge::Young(Duration::from_secs(3))),
            (Some(at(10)), at(12), TokenAge::Young(Duration::from_secs(1))),
            (Some(at(10)), at(13), TokenAge::Old),
            // The clock of the replica that got it is ahead.
            (Some(at(10)), at(9), TokenAge::Young(Duration::from_secs(3))),
            (None, at(10), TokenAge::Old),
        ] {
            assert_eq!(TokenAge::of(obtained_at, now), expected, "{obtained_at:?} {now:?}");
        }
    }
}
