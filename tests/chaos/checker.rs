//! Whether a history keeps the promises. Pure: the tests beside it show that each rule can fail.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::history::{Answer, At, Event, Fate, Fault, Kind, Local, Presented, Said, Target, TokenRequest};

/// How coarse `iat` is, and what sessions younger than a logout token by no more are ended by it (ADR 5).
const IAT: Duration = Duration::from_secs(2);
/// A logout token by `sid` may end sessions that are younger by so much.
const COVER: Duration = Duration::from_secs(30);
/// The harness looks at the provider's sessions now and then.
const LOOK: Duration = Duration::from_secs(2);
/// What a replica may have under way when it goes.
const UNDER_WAY: Duration = Duration::from_secs(2);
/// What a replica had sent when it was killed may be seen so much later, on a machine that is busy.
const ON_ITS_WAY: Duration = Duration::from_millis(500);
/// A holder that cannot renew its lease for so long may lose it.
const LAPSE: Duration = Duration::from_secs(3);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// P1: served though the session had ended, and that was acknowledged before the request was sent.
    Resurrected { local: Local, sent: At, ended: At, how: &'static str },
    /// P2: a refresh token was presented while a live holder waited for the answer.
    PresentedTwice { token: String, first: At, second: At },
    /// P3: a refresh token was presented again whose successor had been delivered to a replica that lived.
    LostToken { token: String, first: At, second: At },
    /// P4, P14: ended without a definite word.
    Lost { local: Local, at: At, reason: Option<String> },
    /// P12: a code was sent twice.
    CodeTwice { code: String, first: At, second: At },
    /// Somebody got another one's session.
    Mixed { local: Local, at: At, whose: String },
    /// An answer that nothing allows.
    Odd { local: Local, at: At, answer: String },
    /// P15: no way on after all was well.
    Stuck { sub: String, why: String },
}

/// What was counted; presentations that faults explain are counted apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) logins: u64,
    pub(crate) requests: u64,
    pub(crate) served: u64,
    pub(crate) unavailable: u64,
    pub(crate) unanswered: u64,
    pub(crate) refreshes: u64,
    pub(crate) sign_outs: u64,
    pub(crate) logout_tokens: u64,
    pub(crate) faults: BTreeMap<Kind, u64>,
    /// Tokens that were presented again, by what explains it.
    pub(crate) again: BTreeMap<&'static str, u64>,
    /// Sessions that ended since the provider took a token presented again for theft.
    pub(crate) cost_a_login: u64,
}

struct Session<'e> {
    sub: &'e str,
    sid: Option<&'e str>,
    code: &'e str,
    began: At,
    done: At,
}

pub(crate) fn check(events: &[Event]) -> (Figures, Vec<Violation>) {
    let history = Indexed::of(events);
    let mut violations = Vec::new();
    let mut figures = history.figures();
    history.finality(&mut violations);
    history.presentations(&mut figures, &mut violations);
    history.ends(&mut figures, &mut violations);
    history.oddities(&mut violations);
    (figures, violations)
}

struct Indexed<'e> {
    events: &'e [Event],
    sessions: HashMap<Local, Session<'e>>,
    /// By token, in the order of their arrivals.
    presentations: BTreeMap<&'e str, Vec<&'e TokenRequest>>,
    faults: Vec<&'e Fault>,
    /// When the provider's sessions were gone.
    gone: HashMap<&'e str, At>,
}

impl<'e> Indexed<'e> {
    fn of(events: &'e [Event]) -> Self {
        let mut sessions = HashMap::new();
        let mut presentations: BTreeMap<&str, Vec<&TokenRequest>> = BTreeMap::new();
        let (mut faults, mut gone) = (Vec::new(), HashMap::new());
        for event in events {
            match event {
                Event::Login { local, sub, code, began, done } => {
                    sessions.insert(*local, Session { sub, sid: None, code, began: *began, done: *done });
                }
                Event::Token(request) => {
                    let (Presented::Code(token) | Presented::RefreshToken(token)) = &request.presented;
                    presentations.entry(token).or_default().push(request);
                }
                Event::Fault(fault) => faults.push(fault),
                Event::ProviderEnd { sid, at } => _ = gone.entry(sid.as_str()).or_insert(*at),
                _ => {}
            }
        }
        for requests in presentations.values_mut() {
            requests.sort_by_key(|request| request.arrived);
        }
        for session in sessions.values_mut() {
            session.sid =
                presentations.get(session.code).into_iter().flatten().find_map(|request| match &request.said {
                    Said::Granted { sid, .. } => sid.as_deref(),
                    _ => None,
                });
        }
        Self { events, sessions, presentations, faults, gone }
    }

    fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for event in self.events {
            match event {
                Event::Login { .. } => figures.logins += 1,
                Event::Request { answer, .. } => {
                    figures.requests += 1;
                    match answer {
                        Answer::Served { .. } => figures.served += 1,
                        Answer::Unavailable => figures.unavailable += 1,
                        Answer::Nothing => figures.unanswered += 1,
                        _ => {}
                    }
                }
                Event::SignOut { acknowledged: Some(_), .. } => figures.sign_outs += 1,
                Event::LogoutToken { acknowledged: Some(_), .. } => figures.logout_tokens += 1,
                Event::Token(TokenRequest { presented: Presented::RefreshToken(_), .. }) => figures.refreshes += 1,
                Event::Fault(fault) => *figures.faults.entry(fault.kind).or_default() += 1,
                _ => {}
            }
        }
        figures
    }

    /// From when on a session must not be served any more, and why.
    fn finals(&self) -> HashMap<Local, (At, &'static str)> {
        let mut finals: HashMap<Local, (At, &'static str)> = HashMap::new();
        let mut end = |local: Local, at: At, how| {
            let known = finals.entry(local).or_insert((at, how));
            if at < known.0 {
                *known = (at, how);
            }
        };
        for event in self.events {
            match event {
                Event::SignOut { local, acknowledged: Some(at), .. } => end(*local, *at, "sign-out"),
                Event::Request { local, got, answer: Answer::Over { .. }, .. } => end(*local, *got, "said to be over"),
                Event::LogoutToken { target, issued, acknowledged: Some(at), .. } => {
                    for (local, _) in
                        self.sessions.iter().filter(|(_, session)| is_ended(session, target, *issued, *at))
                    {
                        end(*local, *at, "logout token");
                    }
                }
                _ => {}
            }
        }
        finals
    }

    fn finality(&self, violations: &mut Vec<Violation>) {
        let finals = self.finals();
        for event in self.events {
            if let Event::Request { local, sent, answer: Answer::Served { .. }, .. } = event
                && let Some((ended, how)) = finals.get(local)
                && sent > ended
            {
                violations.push(Violation::Resurrected { local: *local, sent: *sent, ended: *ended, how });
            }
        }
    }

    fn presentations(&self, figures: &mut Figures, violations: &mut Vec<Violation>) {
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
        let replica = first.life.replica;
        let during = |kind: Kind| {
            self.faults.iter().any(|fault| {
                fault.kind == kind
                    && fault.replica == Some(replica)
                    && fault.from <= second.arrived
                    && fault.to >= first.arrived
            })
        };
        if self.died(first, second.arrived) {
            return Some("holder killed");
        }
        if during(Kind::Restart) && first.fate == Fate::Abandoned {
            return Some("holder stopped before the answer came");
        }
        if during(Kind::Stop) {
            return Some("holder stood still");
        }
        // The holder could not renew its lease, or store what it had got, for a while; then another one may.
        let unwritable: Duration = self
            .faults
            .iter()
            .filter(|fault| fault.kind.is_of_store() && fault.replica.is_none_or(|of| of == replica))
            .filter_map(|fault| {
                let (from, to) = (fault.from.max(first.arrived), (fault.to + UNDER_WAY).min(second.arrived));
                to.checked_sub(from)
            })
            .sum();
        (unwritable >= LAPSE || (!waits && unwritable > Duration::ZERO)).then_some("store did not take it")
    }

    /// Whether the replica was killed while it waited, or with the answer in its hands.
    fn died(&self, request: &TokenRequest, before: At) -> bool {
        self.faults.iter().any(|fault| {
            fault.kind == Kind::Kill
                && fault.replica == Some(request.life.replica)
                && fault.from <= before
                && fault.to >= request.arrived
                && fault.from + ON_ITS_WAY >= request.arrived
                && fault.from <= request.ended + UNDER_WAY
        })
    }

    fn ends(&self, figures: &mut Figures, violations: &mut Vec<Violation>) {
        let mut told = std::collections::HashSet::new();
        for event in self.events {
            let Event::Request { local, got, answer: Answer::Over { reason }, .. } = event else { continue };
            let Some(session) = self.sessions.get(local) else { continue };
            // What is said again is no other end.
            if !told.insert(*local) {
                continue;
            }
            match self.why_over(*local, session, *got) {
                Some("token taken for theft") => figures.cost_a_login += 1,
                Some(_) => {}
                None => violations.push(Violation::Lost { local: *local, at: *got, reason: reason.clone() }),
            }
        }
    }

    /// The definite word that a session has ended by.
    fn why_over(&self, local: Local, session: &Session<'_>, at: At) -> Option<&'static str> {
        let word = self.events.iter().find_map(|event| match event {
            Event::SignOut { local: of, sent, .. } if *of == local && *sent <= at => Some("sign-out"),
            Event::Callback { had, sent } if *had == local && *sent <= at => Some("another login"),
            Event::LogoutToken { target, issued, sent, .. } if *sent <= at && is_of(session, target) => {
                let tolerance = if matches!(target, Target::Sid(_)) { COVER } else { Duration::ZERO };
                (session.began <= *issued + tolerance + IAT).then_some("logout token")
            }
            _ => None,
        });
        if word.is_some() {
            return word;
        }
        let is_gone = session.sid.and_then(|sid| self.gone.get(sid)).is_some_and(|gone| *gone <= at + LOOK);
        if is_gone {
            return Some("the provider's session is over");
        }
        self.family(session.code)
            .iter()
            .any(|request| matches!(request.said, Said::Refused { .. }) && request.arrived <= at)
            .then_some("token taken for theft")
    }

    /// All presentations of the tokens that came from a code. That no token is presented again without a reason is another
    /// rule.
    fn family(&self, code: &'e str) -> Vec<&'e TokenRequest> {
        let mut family = Vec::new();
        let mut tokens = vec![code];
        while let Some(token) = tokens.pop() {
            for request in self.presentations.get(token).into_iter().flatten() {
                if let Said::Granted { refresh_token: Some(next), .. } = &request.said {
                    tokens.push(next);
                }
                family.push(*request);
            }
        }
        family
    }

    fn oddities(&self, violations: &mut Vec<Violation>) {
        for event in self.events {
            match event {
                Event::Request { local, got, answer: Answer::Served { sub, sid }, .. }
                    if self.sessions.get(local).is_some_and(|of| of.sub != sub || of.sid != Some(sid)) =>
                {
                    violations.push(Violation::Mixed { local: *local, at: *got, whose: sub.clone() });
                }
                Event::Request { local, got, answer: Answer::Other(answer), .. } => {
                    violations.push(Violation::Odd { local: *local, at: *got, answer: answer.clone() });
                }
                Event::Stuck { sub, why } => {
                    violations.push(Violation::Stuck { sub: sub.clone(), why: why.clone() });
                }
                _ => {}
            }
        }
    }
}

/// Whether a logout that was acknowledged has to have ended a session, or to have kept it from coming into being.
fn is_ended(session: &Session<'_>, target: &Target, issued: At, acknowledged: At) -> bool {
    is_of(session, target)
        && match target {
            // The provider has no other session by that name.
            Target::Sid(_) => true,
            // Who has an ID token that is younger than the logout token is spared; who was on the way then, is not.
            Target::Sub(_) => session.done + IAT <= issued || (session.began <= issued && session.done > acknowledged),
        }
}

fn is_of(session: &Session<'_>, target: &Target) -> bool {
    match target {
        Target::Sid(sid) => session.sid == Some(sid),
        Target::Sub(sub) => session.sub == sub,
    }
}
