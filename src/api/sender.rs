//! What client, request and layer send with: a session, and when its user asked.

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::response::Response;
use http::Request;

use super::error::{ApiError, Problem};
use crate::calls::call::{Call, CallError, Called, Known};
use crate::calls::transport::{Client, Transport};
use crate::manager::Refusal;
use crate::manager::watch::Standing;
use crate::protocol::authorization::Authentication;
use crate::session::end_reason::EndReason;
use crate::session::policy::RequestKind;
use crate::session::step_up;
use crate::web::context::Context;
use crate::web::extract::OidcSession;
use crate::web::navigation::Asker;

#[derive(Clone, Debug)]
pub(crate) struct Sender {
    session: OidcSession,
    /// What is done long after the request was admitted is no activity of its user's.
    active_until: SystemTime,
    standing: Arc<Standing>,
}

impl Sender {
    pub(super) fn of(session: OidcSession) -> Self {
        let context = session.request().context();
        let active_until = context.now() + context.policy().longest_silence();
        let standing = Arc::new(context.manager().standing(session.record(), session.looked()));
        Self { session, active_until, standing }
    }

    pub(super) fn session(&self) -> &OidcSession {
        &self.session
    }

    fn context(&self) -> &Context {
        self.session.request().context()
    }

    pub(super) fn own_client(&self) -> Client {
        self.context().apis().own_client().clone()
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response, ApiError> {
        self.send_by(&mut self.own_client(), request).await
    }

    pub(super) async fn send_by(
        &self,
        transport: &mut impl Transport,
        request: Request<Body>,
    ) -> Result<Response, ApiError> {
        match self.call(transport, request).await? {
            Called::Answered(answer) => Ok(answer),
            Called::StepUp(_, authentication) => Err(self.step_up(&authentication)),
        }
    }

    pub(super) async fn call(
        &self,
        transport: &mut impl Transport,
        request: Request<Body>,
    ) -> Result<Called, ApiError> {
        let context = self.context();
        let is_doubtful = self.session.request().is_over() || self.standing.is_doubtful(context.now());
        let call = Call {
            manager: context.manager(),
            apis: context.apis(),
            record: self.session.record(),
            known: if is_doubtful { Known::Before } else { Known::Now },
            active_until: match self.session.request().kind() {
                RequestKind::Passive => None,
                RequestKind::Navigation | RequestKind::UserActivity => Some(self.active_until),
            },
        };
        call.send(transport, request).await.map_err(|error| self.phrase(error))
    }

    fn phrase(&self, error: CallError) -> ApiError {
        let problem = match error {
            CallError::AtFault => Problem::AtFault,
            CallError::NoAnswer(no_answer) => no_answer.into(),
            CallError::NoToken => Problem::NoToken,
            CallError::NotListed(origin) => Problem::NotListed(origin),
            CallError::NotReplayed => Problem::NotReplayed,
            CallError::Session(refusal) => {
                // What belongs to the browser is the new session's, where a login has replaced this one.
                if refusal.is_over() && refusal != Refusal::Ended(EndReason::SupersededByLogin) {
                    self.session.request().mark_over();
                }
                Problem::Rejected(self.session.request().rejection(refusal))
            }
        };
        problem.into()
    }

    /// The login that an API asks for, unless the user has just done what it asks for.
    pub(super) fn step_up(&self, authentication: &Authentication) -> ApiError {
        let login = &self.session.record().login;
        let authentication =
            &step_up::wanted(&login.authentication, authentication.acr_values.as_deref(), authentication.max_age);
        if step_up::is_hopeless(&login.authentication, login.started_at, authentication, self.context().now()) {
            return Problem::StepUpFailed.into();
        }
        let request = self.session.request();
        let asker = request.asker();
        let return_to = match asker {
            Asker::Page => request.path(),
            Asker::Form | Asker::Script => None,
        };
        let login = self.context().paths().login(return_to, authentication);
        Problem::StepUp { login, asker, authentication: authentication.clone() }.into()
    }
}
