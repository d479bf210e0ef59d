//! What a route wants of a session besides that there is one.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::record::Login;
use super::step_up;
use crate::protocol::authorization::{Authentication, can_be_asked_for};

/// The provider dates authentications by its own clock.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(30);

/// A route's requirements.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requirements {
    /// Claims, each with the value that it has to have, or to have among others.
    pub(crate) claims: Vec<(String, Value)>,
    /// `acr` values, one of which will do: blank where none will.
    pub(crate) acr: Option<String>,
    /// How long ago the user may have authenticated.
    pub(crate) max_age: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    Good,
    Forbidden,
    /// A login of this kind may help.
    StepUp(Authentication),
}

impl Requirements {
    /// Judges what the session's own login brought; what a refresh says of the user's authentication is about another.
    ///
    /// | the session | is judged |
    /// |---|---|
    /// | lacks a claim, or has to have an `acr` that no login can ask for | forbidden |
    /// | has another `acr`, or an older authentication | step-up |
    /// | the same, right after a login that asked for just that | forbidden |
    pub(crate) fn judge(&self, login: &Login, now: SystemTime) -> Judged {
        if !self.claims.iter().all(|(name, value)| login.claims.get(name).is_some_and(|found| has(found, value))) {
            return Judged::Forbidden;
        }
        if self.acr.as_deref().is_some_and(|wanted| !can_be_met(wanted)) {
            return Judged::Forbidden;
        }
        let acr = login.claims.get("acr").and_then(Value::as_str);
        let is_good =
            self.acr.as_deref().is_none_or(|wanted| wanted.split_ascii_whitespace().any(|one| acr == Some(one)));
        let is_young = self.max_age.is_none_or(|max_age| {
            // Where the provider does not say when, a login that asked for as much was answered by an authentication.
            let asked = login.authentication.max_age.filter(|asked| *asked <= max_age);
            let authenticated_at = login.auth_time.or_else(|| asked.map(|_| login.started_at));
            authenticated_at.is_some_and(|at| now <= at + max_age + CLOCK_TOLERANCE)
        });
        if is_good && is_young {
            return Judged::Good;
        }
        let wanted = step_up::wanted(&login.authentication, self.acr.as_deref(), self.max_age);
        if step_up::is_hopeless(&login.authentication, login.started_at, &wanted, now) {
            return Judged::Forbidden;
        }
        Judged::StepUp(wanted)
    }
}

/// Whether a login can have one of these `acr` values.
pub(crate) fn can_be_met(acr: &str) -> bool {
    can_be_asked_for(acr) && !acr.trim().is_empty()
}

/// Whether a claim is the value, or a list with it.
fn has(claim: &Value, value: &Value) -> bool {
    claim == value || claim.as_array().is_some_and(|list| list.contains(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::protocol::names::{ClientId, Issuer, Nonce, Registration, Subject};
    use crate::session::record::ActivitySignal;
    use crate::session::step_up::tests::of as wanted;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + second)
    }

    fn login(claims: &Value, auth_time: Option<u64>, asked: Authentication) -> Login {
        Login {
            registration: Registration::new(Issuer::new("https://op"), ClientId::new("shop")),
            subject: Subject::new("alice"),
            nonce: Nonce::new("nonce"),
            issued_at: at(0),
            auth_time: auth_time.map(at),
            started_at: at(0),
            signal: ActivitySignal::Refresh,
            claims: claims.as_object().cloned().unwrap(),
            offline_access: false,
            authentication: asked,
            previous_end: None,
            browser: None,
        }
    }

    #[test]
    fn claims_are_there_or_the_session_is_not_allowed() {
        for (claims, name, value, expected) in [
            (json!({"groups": ["staff", "admin"]}), "groups", json!("admin"), Judged::Good),
            (json!({"groups": ["staff"]}), "groups", json!("admin"), Judged::Forbidden),
            (json!({"groups": "admin"}), "groups", json!("admin"), Judged::Good),
            (json!({"groups": "administrator"}), "groups", json!("admin"), Judged::Forbidden),
            (json!({}), "groups", json!("admin"), Judged::Forbidden),
            (json!({"email_verified": true}), "email_verified", json!(true), Judged::Good),
            (json!({"email_verified": "true"}), "email_verified", json!(true), Judged::Forbidden),
        ] {
            let requirements = Requirements { claims: vec![(name.to_owned(), value)], ..Requirements::default() };
            let login = login(&claims, None, Authentication::default());
            assert_eq!(requirements.judge(&login, at(0)), expected, "{claims}");
        }
    }

    #[test]
    fn authentications_are_good_and_young_enough_or_made_anew() {
        let any = || wanted(None, None);
        let gold = || wanted(Some("gold"), None);
        let young = || wanted(None, Some(300));
        for (acr, auth_time, asked, wants, second, expected) in [
            (Some("gold"), None, any(), gold(), 0, Judged::Good),
            (Some("silver"), None, any(), gold(), 0, Judged::StepUp(gold())),
            (None, None, any(), gold(), 0, Judged::StepUp(gold())),
            (Some("gold"), None, any(), wanted(Some("platinum gold"), None), 0, Judged::Good),
            (Some("silver"), None, gold(), gold(), 59, Judged::Forbidden),
            (Some("silver"), None, gold(), gold(), 60, Judged::StepUp(gold())),
            (None, Some(0), any(), young(), 330, Judged::Good),
            (None, Some(0), any(), young(), 331, Judged::StepUp(young())),
            // Its age is not known; or the login asked for one as young.
            (None, None, any(), young(), 0, Judged::StepUp(young())),
            (None, None, young(), young(), 330, Judged::Good),
            (None, None, young(), young(), 331, Judged::StepUp(young())),
            (None, None, wanted(None, Some(900)), young(), 0, Judged::StepUp(young())),
            (Some("gold"), None, gold(), young(), 0, Judged::StepUp(wanted(Some("gold"), Some(300)))),
            (None, None, any(), wanted(Some(" "), None), 0, Judged::Forbidden),
        ] {
            let claims = acr.map_or_else(|| json!({}), |acr| json!({"acr": acr}));
            let requirements =
                Requirements { acr: wants.acr_values.clone(), max_age: wants.max_age, ..Requirements::default() };
            let login = login(&claims, auth_time, asked.clone());
            let judged = requirements.judge(&login, at(second));
            assert_eq!(judged, expected, "{acr:?} {auth_time:?} {asked:?} {wants:?} at {second}");
        }
    }
}
