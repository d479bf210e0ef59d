//! One call: the session's token goes with it, and the answer is judged.

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::response::Response;
use http::Request;
use http::request::Parts;
use url::Url;

use super::body::Outgoing;
use super::fault::{Fault, Outcome};
use super::judge::{AnswerStep, CallState, RejectionStep, Replaced, Seen, Sent, TokenAge, after_rejection, judge_call};
use super::listed::{Apis, Listed};
use super::transport::{API_TIMEOUT, NoAnswer, Transport};
use crate::manager::signal::NoToken;
use crate::manager::{Manager, REGISTRY_RETRY_AFTER, Refusal};
use crate::protocol::authorization::Authentication;
use crate::protocol::challenge::{self, ApiVerdict, Scheme};
use crate::session::end_reason::EndReason;
use crate::session::policy::RequestKind;
use crate::session::record::{ActivitySignal, SessionRecord};

/// What a call is made for.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) manager: &'a Arc<Manager>,
    pub(crate) apis: &'a Apis,
    pub(crate) record: &'a Arc<SessionRecord>,
    pub(crate) known: Known,
    /// Until when what is done for the session counts as its user's activity; never for passive requests.
    pub(crate) active_until: Option<SystemTime>,
}

/// Whether a record is known to be its session's still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// It was: the session may be over.
    Before,
    Now,
}

/// What came of a call.
#[derive(Debug)]
pub(crate) enum Called {
    Answered(Response),
    StepUp(Response, Authentication),
}

/// Why nothing came of it.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The API rejects everybody.
    AtFault,
    NoAnswer(NoAnswer),
    /// There is no token for this API.
    NoToken,
    /// The API is not listed.
    NotListed(String),
    /// The body was too long to be sent again.
    NotReplayed,
    Session(Refusal),
}

impl From<NoAnswer> for CallError {
    fn from(no_answer: NoAnswer) -> Self {
        Self::NoAnswer(no_answer)
    }
}

impl From<Refusal> for CallError {
    fn from(refusal: Refusal) -> Self {
        Self::Session(refusal)
    }
}

impl Call<'_> {
    /// Sends a request with the session's token, again if the judgement of the answer says so.
    pub(crate) async fn send(
        &self,
        transport: &mut impl Transport,
        request: Request<Body>,
    ) -> Result<Called, CallError> {
        let (parts, body) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string()).map_err(|error| NoAnswer::Invalid(error.to_string()))?;
        let Some(api) = self.apis.of(&url).cloned() else {
            return Err(CallError::NotListed(url.origin().ascii_serialization()));
        };
        let mut body = Outgoing::read(body).await.map_err(|error| NoAnswer::Invalid(error.to_string()))?;
        let record = self.standing_record().await?;
        let mut record = self.record_with_usable_token(&api, record).await?;
        let mut state = CallState::default();
        loop {
            let attempt = body.take().ok_or(CallError::NotReplayed)?;
            let sent_at = self.manager.now();
            let answer = transport.call(self.with_token(&parts, &url, &api, &record).await?, attempt);
            let answer = tokio::time::timeout(API_TIMEOUT, answer).await.map_err(|_| NoAnswer::Timeout)??;
            let rejection = match judge_call(state, self.see(&answer, &url, &api, &record)) {
                AnswerStep::PassBack => return Ok(Called::Answered(answer)),
                AnswerStep::SendAgain => {
                    state = state.with_nonce();
                    continue;
                }
                AnswerStep::StepUp(authentication) => return Ok(Called::StepUp(answer, authentication)),
                AnswerStep::BlameApi => return Err(self.end_or_blame_api(&api, &record).await),
                AnswerStep::LookUp(rejection) => rejection,
            };
            let (newer, replaced) = self.reload(&api, &record).await?;
            let step;
            let age = TokenAge::of(newer.access_token_obtained_at(api.audience()), sent_at);
            (state, step) = after_rejection(state, rejection, replaced, newer.login.signal, age);
            record = match step {
                RejectionStep::SendAgain => newer,
                RejectionStep::SendWhenOlder(left) => {
                    self.manager.sleep(left).await;
                    // The session may be over by now.
                    self.reload(&api, &newer).await?.0
                }
                RejectionStep::PassBack => return Ok(Called::Answered(answer)),
                RejectionStep::Renew => self.renew_after_rejection(&api, &newer).await?,
                RejectionStep::AskUserInfo => {
                    self.confirm(&newer).await?;
                    return Ok(Called::Answered(answer));
                }
                RejectionStep::Reject => return Err(self.end_or_blame_api(&api, &record).await),
            };
        }
    }

    /// Asks the provider whether the session stands, if somebody's activity may.
    async fn confirm(&self, record: &Arc<SessionRecord>) -> Result<(), CallError> {
        if !self.is_activity() {
            return Err(Refusal::Unconfirmed.into());
        }
        self.manager.signal(record).await.map(drop).map_err(CallError::Session)
    }

    fn see(&self, answer: &Response, url: &Url, api: &Listed, record: &SessionRecord) -> Seen {
        let nonce = self.manager.provider().note_nonce(url, answer.headers());
        let token = self.token(api, record);
        let scheme = token.map_or(Scheme::Bearer, |(token, _)| Scheme::of(token));
        let verdict = challenge::judge(answer.status(), answer.headers(), scheme);
        let sent = if token.is_some() { Sent::WithToken } else { Sent::WithoutToken };
        let now = self.manager.now();
        let fault = match verdict {
            ApiVerdict::Accepted | ApiVerdict::NonceWanted | ApiVerdict::StepUp(_) => Fault::Session,
            ApiVerdict::TokenRejected | ApiVerdict::Unexplained => api.fault(record, now),
        };
        let is_content = answer.status().is_success() || answer.status().is_redirection();
        if is_content && sent == Sent::WithToken {
            api.note(record, Outcome::Accepted, now);
        }
        Seen { verdict, sent, nonce, unexplained: api.unexplained(), fault }
    }

    fn token<'r>(
        &self,
        api: &Listed,
        record: &'r SessionRecord,
    ) -> Option<(&'r crate::protocol::names::AccessToken, SystemTime)> {
        let token = record.access_token(api.audience(), self.manager.policy())?;
        self.manager.provider().can_show(token.0).then_some(token)
    }

    /// The head of a request with the session's token for an API.
    async fn with_token(
        &self,
        parts: &Parts,
        url: &Url,
        api: &Listed,
        record: &SessionRecord,
    ) -> Result<Parts, NoAnswer> {
        let mut parts = parts.clone();
        if let Some((token, _)) = self.token(api, record) {
            let headers = self.manager.provider().headers_with(token, (&parts.method, url)).await;
            parts.headers.extend(headers.map_err(|error| NoAnswer::Invalid(error.to_string()))?);
        }
        Ok(parts)
    }

    /// Whether the call may ask the provider: what a program does by itself is no activity.
    fn is_activity(&self) -> bool {
        self.active_until.is_some_and(|until| self.manager.now() < until)
    }

    /// The record of a session that is not over.
    async fn standing_record(&self) -> Result<Arc<SessionRecord>, Refusal> {
        match self.known {
            Known::Now => Ok(self.record.clone()),
            Known::Before => {
                let kind = if self.is_activity() { RequestKind::UserActivity } else { RequestKind::Passive };
                self.manager.admit(self.record.key(), kind).await
            }
        }
    }

    /// The record, with a token whose time is not over.
    async fn record_with_usable_token(
        &self,
        api: &Listed,
        record: Arc<SessionRecord>,
    ) -> Result<Arc<SessionRecord>, CallError> {
        let is_usable = match (self.token(api, &record), record.login.signal) {
            (Some((_, until)), ActivitySignal::Refresh) => self.manager.now() < until,
            (None, ActivitySignal::Refresh) => false,
            (None, _) if api.audience().is_some() => return Err(CallError::NoToken),
            // The key is gone that it is bound to: without it, the API would take the user for nobody.
            (None, _) if record.access_token(api.audience(), self.manager.policy()).is_some() => {
                tracing::error!(session = ?record.key(), "the key is not there any more that an access token is bound to");
                return Err(match record.login.signal {
                    // The next page view brings another.
                    ActivitySignal::SilentLogin => Refusal::Unconfirmed.into(),
                    _ => CallError::NoToken,
                });
            }
            // What cannot be had anew is used for as long as it works; an API that needs none gets none.
            _ => true,
        };
        match is_usable {
            true => Ok(record),
            false if self.is_activity() => self.refresh(api, &record).await,
            false => self.adopt_refresh(api).await,
        }
    }

    /// The record with a good token that somebody's activity has brought meanwhile.
    async fn adopt_refresh(&self, api: &Listed) -> Result<Arc<SessionRecord>, CallError> {
        let newer = self.manager.look(self.record.key()).await?;
        if self.token_expired(api, &newer) { Err(Refusal::Unconfirmed.into()) } else { Ok(newer) }
    }

    async fn refresh(&self, api: &Listed, record: &Arc<SessionRecord>) -> Result<Arc<SessionRecord>, CallError> {
        if !self.is_activity() {
            return Err(Refusal::Unconfirmed.into());
        }
        self.manager.get_token(record, api.audience()).await.map_err(|error| match error {
            NoToken::Denied => CallError::NoToken,
            NoToken::Refused(refusal) => CallError::Session(refusal),
        })
    }

    /// A record with a new token, after an API refused the one there was.
    async fn renew_after_rejection(
        &self,
        api: &Listed,
        record: &Arc<SessionRecord>,
    ) -> Result<Arc<SessionRecord>, CallError> {
        match record.login.signal {
            ActivitySignal::Refresh => self.refresh(api, record).await,
            // The next page view brings another.
            ActivitySignal::SilentLogin if self.token_expired(api, record) => Err(Refusal::Unconfirmed.into()),
            _ => Err(self.end_or_blame_api(api, record).await),
        }
    }

    fn token_expired(&self, api: &Listed, record: &SessionRecord) -> bool {
        self.token(api, record).is_none_or(|(_, until)| self.manager.now() >= until)
    }

    /// The record as it is now, and whether its token is another one.
    async fn reload(
        &self,
        api: &Listed,
        record: &Arc<SessionRecord>,
    ) -> Result<(Arc<SessionRecord>, Replaced), Refusal> {
        let newer = self.manager.look(record.key()).await?;
        let is_same =
            self.token(api, &newer).map(|(token, _)| token) == self.token(api, record).map(|(token, _)| token);
        Ok((newer, if is_same { Replaced::No } else { Replaced::Yes }))
    }

    /// The token is good for nothing: the session ends, unless it is the API that is wrong.
    async fn end_or_blame_api(&self, api: &Listed, record: &SessionRecord) -> CallError {
        let now = self.manager.now();
        api.note(record, Outcome::Rejected, now);
        if api.fault(record, now) == Fault::Api {
            let api = api.base_url();
            tracing::error!(api, "an API rejects the fresh tokens of many sessions: none is ended for it");
            metrics::counter!("oidc_api_at_fault_total").increment(1);
            return CallError::AtFault;
        }
        let reason = EndReason::AccessTokenRejected;
        match self.manager.end(record.key(), reason).await {
            Ok(()) => Refusal::Ended(reason).into(),
            Err(error) => {
                tracing::error!(%error, "a session whose access token was rejected could not be ended");
                Refusal::Unavailable(REGISTRY_RETRY_AFTER).into()
            }
        }
    }
}
