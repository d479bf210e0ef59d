//! The activity signal as a machine: what each answer of the registry and of the provider leads to.
//!
//! There is no I/O here. [`start`] and every `next` say what to [`Do`]; whoever drives the machine does it and hands the
//! answer to the state's own `next`, which takes the state by value: an answer that does not belong to a state cannot be
//! given to it. [`Manager`](crate::manager) drives it for sessions, `registry/model.rs` for the model checker.
//!
//! ```text
//! Claim ─┬ held ── Wait ── Claim
//!        ├ changed, gone ─────────────────────────────────────────────────────────── Done
//!        ├ failed ── Release ─────────────────────────────────────────────────────── Done
//!        └ granted ─┬ Present ─┬ granted ─ Verify ─ Commit ─┬ stored, stale ───────── Done
//!                   │          │                            ├ gone ── End ─────────── Done
//!                   │          │                            └ failed ─ Wait ─ Commit
//!                   │          ├ refused ─ Load ─┬ as it was ── End ──────────────── Done
//!                   │          │                 └ overtaken, gone ───────────────── Done
//!                   │          ├ open, once ─ Load ─ Wait ─ Present
//!                   │          └ no answer ── Release ─────────────────────────────── Done
//!                   └ AskUserInfo ─ as Present
//! ```
//!
//! A session that cannot signal has only its activity written down: `Commit`, `Done`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::end_reason::EndReason;
use super::policy::SessionPolicy;
use super::record::{ActivitySignal, OtherToken, SessionRecord};
use super::stored::{Claimed, Committed, Loaded};
use crate::protocol::authorization::Audience;
use crate::protocol::id_token::{IdToken, OriginalLogin, Refreshed, RefreshedError};
use crate::protocol::jwt::{Moment, SigningAlg, TokenError, UnverifiedJwt, VerifiedJwt};
use crate::protocol::names::{AccessToken, IdTokenHint, RefreshToken};
use crate::protocol::token_response::{TokenResponse, TokenVerdict};

/// The first pause of a replica that waits for another before it looks again. Each is a quarter longer than the one before, so
/// that what it waits for is noticed a fifth of the time late that it took, and a provider that hangs costs the store little.
const FIRST_LOOK: Duration = Duration::from_millis(2);
/// Up to this.
const LONGEST_LOOK: Duration = Duration::from_millis(50);
/// The first pause before a failed commit is tried again.
const FIRST_COMMIT_PAUSE: Duration = Duration::from_millis(50);
/// The pause before a failed commit is tried again grows up to this.
const LONGEST_COMMIT_PAUSE: Duration = Duration::from_secs(1);
/// How long rotated tokens are held while the registry does not take them: so much is paused between attempts. What the
/// attempts take comes on top; no clock that is set takes anything away.
const COMMIT_PATIENCE: Duration = Duration::from_secs(60);

/// What an answer is judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms<'a> {
    pub(crate) policy: &'a SessionPolicy,
    pub(crate) signing_alg: SigningAlg,
    /// How far the provider's clock may be from ours.
    pub(crate) clock_tolerance: Duration,
    pub(crate) ambiguity: Ambiguity,
    /// How long another replica's signal is waited for, the time of the looks not counted.
    pub(crate) claim_patience: Duration,
    pub(crate) now: SystemTime,
}

/// Whom an unclear refusal came to lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ambiguity {
    Single,
    /// So many subjects, with no success between, that it is an upgrade of the provider's, or a gateway.
    Widespread,
}

/// What has to be done next; each but `Done` is the state that takes the answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Do {
    AskUserInfo(AskUserInfo),
    Claim(Claim),
    Commit(Commit),
    Done(Outcome),
    End(End),
    Load(Load),
    Present(Present),
    Release(Release),
    Verify(Verify),
    Wait(Wait),
}

/// What came of a signal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    /// The provider confirmed the session; this is its record now.
    Confirmed(Arc<SessionRecord>),
    /// The provider gives no token for this audience; that says nothing about the session.
    Denied(Audience),
    Ended(Option<EndReason>),
    /// Another replica was faster; this is the session's record now, whatever that one asked for.
    Overtaken(Arc<SessionRecord>),
    /// Nobody knows; the session is as it was.
    Unavailable(Option<Duration>),
}

/// The registry did not answer; why is for the log, where it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StoreFailed;

/// What came of presenting a refresh token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Presented {
    Answered(TokenVerdict),
    /// The provider may have acted on the request, and its answer is lost.
    Lost,
    /// It may still come, and nobody waits any longer.
    NoAnswer,
    /// The provider has not seen the request.
    NotSent(Option<Duration>),
}

/// What userinfo said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum UserInfoAnswer {
    Confirmed,
    /// The token is none for userinfo, and there is nothing else to signal with.
    Forbidden,
    Refused,
    Unavailable(Option<Duration>),
}

/// What came of looking whether the provider signed an ID token.
#[derive(Debug)]
pub(crate) enum Verification {
    Signed(VerifiedJwt),
    NoKeys,
    /// It says without a signature that another has issued it.
    OtherIssuer(TokenError),
    Wrong(TokenError),
}

/// What a signal is about, from its start to its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct About {
    record: Arc<SessionRecord>,
    /// Whom the access token is asked for; `None` stands for that of the login.
    audience: Option<Audience>,
    /// The audience for which the grant was refused, while a plain refresh finds out whether the session stands.
    in_doubt: Option<Audience>,
}

/// Begins the signal of a session's activity, with a new access token for `audience` if its signal is a refresh.
pub(crate) fn start(record: Arc<SessionRecord>, audience: Option<Audience>, terms: &Terms<'_>) -> Do {
    let about = About { record, audience, in_doubt: None };
    match about.record.login.signal {
        ActivitySignal::None => {
            let mut active = SessionRecord::clone(&about.record);
            active.last_signal = terms.now;
            Commit::begin(about, active, Purpose::NoteActivity, None, terms)
        }
        // Only a browser can.
        ActivitySignal::SilentLogin => Do::Done(Outcome::Unavailable(None)),
        ActivitySignal::Refresh | ActivitySignal::UserInfo => {
            Do::Claim(Claim { about, patience: Patience::new(terms.claim_patience, FIRST_LOOK) })
        }
    }
}

/// Ask for the right to signal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Claim {
    about: About,
    patience: Patience,
}

impl Claim {
    pub(crate) fn record(&self) -> &SessionRecord {
        &self.about.record
    }

    pub(crate) fn next(mut self, answer: Result<Claimed, StoreFailed>) -> Do {
        match answer {
            Ok(Claimed::Granted) => {
                let tokens = &self.about.record.tokens;
                match (self.about.record.login.signal, &tokens.refresh_token, &tokens.access_token) {
                    (ActivitySignal::Refresh, Some(token), _) => {
                        Do::Present(Present { token: token.clone(), about: self.about, attempt: Attempt::First })
                    }
                    (_, _, Some(token)) => Do::AskUserInfo(AskUserInfo { token: token.clone(), about: self.about }),
                    (_, _, None) => self.about.give_up(None),
                }
            }
            Ok(Claimed::Changed(newer)) => Do::Done(Outcome::Overtaken(newer)),
            Ok(Claimed::Gone(reason)) => Do::Done(Outcome::Ended(reason)),
            Ok(Claimed::Held) => match self.patience.pause(|pause| (pause * 5 / 4).min(LONGEST_LOOK)) {
                Some(pause) => Do::Wait(Wait { pause, then: AfterWait::Claim(Box::new(self)) }),
                None => Do::Done(Outcome::Unavailable(None)),
            },
            // It may have been granted all the same.
            Err(StoreFailed) => self.about.give_up(None),
        }
    }
}

/// How long something is tried again, told by the pauses alone: the machine's clock may be set meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Patience {
    left: Duration,
    pause: Duration,
}

impl Patience {
    fn new(left: Duration, first_pause: Duration) -> Self {
        Self { left, pause: first_pause }
    }

    /// The pause before the next attempt, if there is to be one.
    fn pause(&mut self, next: impl FnOnce(Duration) -> Duration) -> Option<Pause> {
        let pause = self.pause.min(self.left);
        self.left -= pause;
        self.pause = next(self.pause);
        (!pause.is_zero()).then_some(Pause::Of(pause))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Attempt {
    First,
    /// After an answer that left it open, and why the session ends if this one is another such: an answer that was lost
    /// says nothing of it.
    Last(Option<EndReason>),
}

/// Present the refresh token at the provider.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Present {
    about: About,
    token: RefreshToken,
    attempt: Attempt,
}

impl Present {
    pub(crate) fn token(&self) -> &RefreshToken {
        &self.token
    }

    pub(crate) fn record(&self) -> &SessionRecord {
        &self.about.record
    }

    pub(crate) fn audience(&self) -> Option<&Audience> {
        self.about.audience.as_ref()
    }

    /// `sent_at` is when the request went out: what it confirms is that the session stood then.
    pub(crate) fn next(mut self, presented: Presented, sent_at: SystemTime, terms: &Terms<'_>) -> Do {
        let verdict = match presented {
            Presented::Answered(verdict) => verdict,
            Presented::Lost => return self.once_more(Pause::None, None),
            Presented::NoAnswer => return self.about.give_up(None),
            Presented::NotSent(retry_after) => return self.about.give_up(retry_after),
        };
        // RFC 8707 §2: about what was asked for, not about the session.
        if let Some(audience) = &self.about.audience
            && matches!(verdict, TokenVerdict::NotForThis(_) | TokenVerdict::Ambiguous(_))
        {
            return Do::Release(Release { outcome: Outcome::Denied(audience.clone()), about: self.about });
        }
        // Some say that of the session which is about the audience: a plain refresh tells.
        if matches!(verdict, TokenVerdict::Refused(_))
            && let Some(audience) = self.about.audience.take()
        {
            self.about.in_doubt = Some(audience);
            return Do::Present(Self { attempt: Attempt::First, ..self });
        }
        match verdict {
            TokenVerdict::Granted(response) => match response.id_token.clone() {
                Some(raw) => Do::Verify(Verify { about: self.about, response, raw, sent_at }),
                None => self.about.confirmed_by(response, None, sent_at, terms),
            },
            TokenVerdict::Refused(_) => self.about.check(AfterLoad::End(EndReason::RefreshTokenRejected)),
            TokenVerdict::Ambiguous(_) => {
                let reason = match terms.ambiguity {
                    Ambiguity::Single => Some(EndReason::RefreshTokenRejected),
                    Ambiguity::Widespread => None,
                };
                self.once_more(Pause::Jitter, reason)
            }
            TokenVerdict::NotForThis(_) => self.about.give_up(None),
            TokenVerdict::OtherType(response) => {
                self.about.keep_refresh_token(response.refresh_token, Remark::OtherType, terms)
            }
            TokenVerdict::Unreadable => self.once_more(Pause::None, None),
            TokenVerdict::Misconfigured(_) => self.about.give_up(None),
            TokenVerdict::Unavailable { retry_after, .. } => self.about.give_up(retry_after),
        }
    }

    /// After an answer that leaves it open the token is presented once more; after two the session ends for `reason`, if
    /// both answers give one. Where the first was lost, the provider may still be at it, and say of the second that it is
    /// one too many: Ory Hydra does.
    fn once_more(self, pause: Pause, reason: Option<EndReason>) -> Do {
        match (self.attempt, reason) {
            (Attempt::First, _) => {
                let again = Self { attempt: Attempt::Last(reason), ..self };
                again.about.clone().check(AfterLoad::PresentAgain(pause, Box::new(again)))
            }
            (Attempt::Last(Some(_)), Some(reason)) => self.about.check(AfterLoad::End(reason)),
            (Attempt::Last(_), _) => self.about.give_up(None),
        }
    }
}

/// Ask for the user's claims with the access token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AskUserInfo {
    about: About,
    token: AccessToken,
}

impl AskUserInfo {
    pub(crate) fn token(&self) -> &AccessToken {
        &self.token
    }

    pub(crate) fn record(&self) -> &SessionRecord {
        &self.about.record
    }

    pub(crate) fn next(self, answer: UserInfoAnswer, sent_at: SystemTime, terms: &Terms<'_>) -> Do {
        match answer {
            UserInfoAnswer::Confirmed => {
                let mut next = SessionRecord::clone(&self.about.record);
                next.last_signal = sent_at;
                Commit::begin(self.about, next, Purpose::Confirm { rotated: None }, None, terms)
            }
            UserInfoAnswer::Forbidden => {
                let mut next = SessionRecord::clone(&self.about.record).without_signal();
                next.last_signal = terms.now;
                Commit::begin(self.about, next, Purpose::NoteActivity, None, terms)
            }
            UserInfoAnswer::Refused => self.about.check(AfterLoad::End(EndReason::AccessTokenRejected)),
            UserInfoAnswer::Unavailable(retry_after) => self.about.give_up(retry_after),
        }
    }
}

/// Look whether somebody else has changed the session meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Load {
    about: About,
    then: AfterLoad,
}

/// What follows if nobody has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum AfterLoad {
    End(EndReason),
    PresentAgain(Pause, Box<Present>),
}

impl Load {
    pub(crate) fn record(&self) -> &SessionRecord {
        &self.about.record
    }

    pub(crate) fn next(self, answer: Result<Loaded, StoreFailed>) -> Do {
        let record = &self.about.record;
        match answer {
            Ok(Loaded::Live(newer)) if newer.version != record.version || newer.tokens != record.tokens => {
                Do::Done(Outcome::Overtaken(newer))
            }
            Ok(Loaded::Live(_)) => match self.then {
                AfterLoad::End(reason) => {
                    Do::End(End { about: self.about, reason, discard: None, outcome: Outcome::Ended(Some(reason)) })
                }
                AfterLoad::PresentAgain(pause, again) => Do::Wait(Wait { pause, then: AfterWait::Present(again) }),
            },
            Ok(Loaded::Ended(mark)) => Do::Done(Outcome::Ended(Some(mark.reason))),
            Ok(Loaded::Unknown) => Do::Done(Outcome::Ended(None)),
            Err(StoreFailed) => self.about.give_up(None),
        }
    }
}

/// Look whether the provider signed the ID token of its answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Verify {
    about: About,
    response: TokenResponse,
    raw: IdTokenHint,
    sent_at: SystemTime,
}

impl Verify {
    pub(crate) fn token(&self) -> &IdTokenHint {
        &self.raw
    }

    pub(crate) fn next(self, verification: Verification, terms: &Terms<'_>) -> Do {
        match self.refreshed(verification, terms) {
            Ok(Refreshed { id_token, clock }) => {
                let remark = clock.map(Remark::Times);
                self.about.confirmed_by(self.response, Some((id_token, remark)), self.sent_at, terms)
            }
            // Core §12.2: the whole answer is worthless. Its tokens are dropped: they may be somebody's.
            Err(RefreshedError::OtherLogin(_)) => {
                let reason = EndReason::ProviderMisbehaved;
                Do::End(End { about: self.about, reason, discard: None, outcome: Outcome::Ended(Some(reason)) })
            }
            Err(RefreshedError::Unusable(error)) => {
                self.about.keep_refresh_token(self.response.refresh_token, Remark::Unusable(error), terms)
            }
        }
    }

    fn refreshed(&self, verification: Verification, terms: &Terms<'_>) -> Result<Refreshed, RefreshedError> {
        let verified = match verification {
            Verification::Signed(verified) => verified,
            // Not to have the key is not to know that the token is wrong. It came over an authenticated channel.
            Verification::NoKeys | Verification::Wrong(TokenError::Key(_)) => {
                UnverifiedJwt::parse(self.raw.secret())?.trust_channel()
            }
            Verification::OtherIssuer(error) => return Err(RefreshedError::OtherLogin(error)),
            Verification::Wrong(error) => return Err(RefreshedError::Unusable(error)),
        };
        let login = &self.about.record.login;
        let at = Moment { now: terms.now, tolerance: terms.clock_tolerance };
        let original =
            OriginalLogin { registration: &login.registration, subject: &login.subject, nonce: login.nonce.secret() };
        let refreshed = IdToken::of_refresh(verified, at, original)?;
        refreshed.id_token.check_access_token(&self.response.access_token, terms.signing_alg)?;
        Ok(refreshed)
    }
}

/// Store the changed record before anybody uses what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Commit {
    about: About,
    next: Arc<SessionRecord>,
    purpose: Purpose,
    /// While the registry fails.
    patience: Patience,
    /// What an operator has to hear of.
    pub(crate) remark: Option<Remark>,
}

/// What is odd about an answer that ends nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Remark {
    /// The access token is of another type than was asked for: it may be bound to nothing.
    OtherType,
    /// The ID token's times: somebody's clock is wrong.
    Times(TokenError),
    /// The ID token cannot be believed: the set-up has changed, or somebody is between.
    Unusable(TokenError),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Purpose {
    Confirm { rotated: Option<RefreshToken> },
    KeepRefreshToken,
    NoteActivity,
}

impl Commit {
    fn begin(about: About, next: SessionRecord, purpose: Purpose, remark: Option<Remark>, terms: &Terms<'_>) -> Do {
        let next = Arc::new(next.with_expiry(terms.policy));
        let patience = Patience::new(COMMIT_PATIENCE, FIRST_COMMIT_PAUSE);
        Do::Commit(Self { about, next, purpose, patience, remark })
    }

    pub(crate) fn record(&self) -> &SessionRecord {
        &self.next
    }

    pub(crate) fn next(mut self, answer: Result<Committed, StoreFailed>) -> Do {
        self.remark = None;
        match (answer, self.purpose) {
            (Ok(Committed::Committed(_)), Purpose::KeepRefreshToken) => Do::Done(Outcome::Unavailable(None)),
            (Ok(Committed::Committed(record)), _) => Do::Done(match self.about.in_doubt {
                Some(audience) => Outcome::Denied(audience),
                None => Outcome::Confirmed(record),
            }),
            // Somebody else's activity is activity too.
            (Ok(Committed::Stale(newer)), Purpose::NoteActivity) => Do::Done(Outcome::Confirmed(newer)),
            // The winner's tokens are of the same family: revoking ours could end the session.
            (Ok(Committed::Stale(newer)), _) => Do::Done(Outcome::Overtaken(newer)),
            (Ok(Committed::Gone(reason)), Purpose::NoteActivity) => Do::Done(Outcome::Ended(reason)),
            (Ok(Committed::Gone(reason)), purpose) => Do::End(End {
                about: self.about,
                // It may only be hidden by a tombstone for its new sid.
                reason: reason.unwrap_or(EndReason::BackChannelLogout),
                discard: match (purpose, reason) {
                    // The new login may stand on the same grant.
                    (Purpose::Confirm { rotated }, reason) if reason != Some(EndReason::SupersededByLogin) => rotated,
                    _ => None,
                },
                outcome: Outcome::Ended(reason),
            }),
            // Confirmed tokens exist nowhere else.
            (Err(StoreFailed), purpose @ (Purpose::Confirm { .. } | Purpose::KeepRefreshToken)) => {
                self.purpose = purpose;
                match self.patience.pause(|pause| (pause * 2).min(LONGEST_COMMIT_PAUSE)) {
                    Some(pause) => Do::Wait(Wait { pause, then: AfterWait::Commit(Box::new(self)) }),
                    None => Do::Done(Outcome::Unavailable(None)),
                }
            }
            (Err(StoreFailed), Purpose::NoteActivity) => Do::Done(Outcome::Unavailable(None)),
        }
    }
}

/// End the session, and revoke a refresh token that no session holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct End {
    about: About,
    pub(crate) reason: EndReason,
    pub(crate) discard: Option<RefreshToken>,
    outcome: Outcome,
}

impl End {
    pub(crate) fn record(&self) -> &SessionRecord {
        &self.about.record
    }

    pub(crate) fn next(self, answer: Result<(), StoreFailed>) -> Do {
        match answer {
            Ok(()) => Do::Done(self.outcome),
            Err(StoreFailed) => Do::Done(Outcome::Unavailable(None)),
        }
    }
}

/// Give the claim back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Release {
    about: About,
    outcome: Outcome,
}

impl Release {
    pub(crate) fn record(&self) -> &SessionRecord {
        &self.about.record
    }

    /// A claim that could not be given back runs out by itself.
    pub(crate) fn next(self) -> Do {
        Do::Done(self.outcome)
    }
}

/// Wait before going on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Wait {
    pub(crate) pause: Pause,
    then: AfterWait,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pause {
    /// A time by chance, so that replicas that were refused together do not come back together.
    Jitter,
    None,
    Of(Duration),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum AfterWait {
    Claim(Box<Claim>),
    Commit(Box<Commit>),
    Present(Box<Present>),
}

impl Wait {
    pub(crate) fn next(self) -> Do {
        match self.then {
            AfterWait::Claim(claim) => Do::Claim(*claim),
            AfterWait::Commit(commit) => Do::Commit(*commit),
            AfterWait::Present(present) => Do::Present(*present),
        }
    }
}

impl About {
    fn check(self, then: AfterLoad) -> Do {
        Do::Load(Load { about: self, then })
    }

    fn give_up(self, retry_after: Option<Duration>) -> Do {
        Do::Release(Release { about: self, outcome: Outcome::Unavailable(retry_after) })
    }

    /// Nothing of the answer is believed, and nothing is confirmed; but a refresh token that was rotated is stored, or the
    /// session would be lost at the next refresh.
    fn keep_refresh_token(self, rotated: Option<RefreshToken>, remark: Remark, terms: &Terms<'_>) -> Do {
        let Some(rotated) = rotated else { return self.give_up(None) };
        let mut next = SessionRecord::clone(&self.record);
        next.tokens.refresh_token = Some(rotated);
        Commit::begin(self, next, Purpose::KeepRefreshToken, Some(remark), terms)
    }

    /// The record with the tokens of a refresh.
    fn confirmed_by(
        self,
        response: TokenResponse,
        id_token: Option<(IdToken, Option<Remark>)>,
        sent_at: SystemTime,
        terms: &Terms<'_>,
    ) -> Do {
        let mut next = SessionRecord::clone(&self.record);
        let rotated = response.refresh_token.clone();
        let mut remark = None;
        if let Some((id_token, odd)) = id_token {
            remark = odd;
            next.sid = id_token.sid.or(next.sid);
            next.session_expiry = id_token.session_expiry.or(next.session_expiry);
        }
        let (access_token, expires_in) = (response.access_token, response.expires_in);
        let tokens = &mut next.tokens;
        if let Some(audience) = &self.audience {
            let token = OtherToken { access_token, expires_in, obtained_at: sent_at };
            tokens.others.insert(audience.name(), token);
        } else {
            tokens.access_token = Some(access_token);
            tokens.expires_in = expires_in;
            tokens.obtained_at = sent_at;
        }
        tokens.refresh_token = response.refresh_token.or(tokens.refresh_token.take());
        tokens.id_token = response.id_token.unwrap_or_else(|| tokens.id_token.clone());
        next.last_signal = sent_at;
        Commit::begin(self, next, Purpose::Confirm { rotated }, remark, terms)
    }
}

#[cfg(test)]
#[path = "signal_tests.rs"]
mod tests;
