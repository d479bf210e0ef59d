//! Whether a history keeps the promises. Pure: the tests beside it show that each rule can fail.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use crate::history::{Answer, At, Event, Fate, Fault, How, Kind, Local, Presented, Said, Target, TokenRequest};
use crate::{G, T};

/// How coarse `iat` is, and what sessions younger than a logout token by no more are ended by it (ADR 5).
const IAT: Duration = Duration::from_secs(2);
/// A logout token by `sid` may end sessions that are younger by so much.
const COVER: Duration = Duration::from_secs(30);
/// How exactly times are told.
const SLACK: Duration = Duration::from_millis(100);
/// A replica may read a store that another has taken the place of for so long (docs/stores.md).
const OLD_STORE: Duration = Duration::from_secs(4);
/// After a fault it takes so long until a replica finds that all is well.
const RECOVERY: Duration = Duration::from_secs(3);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// P1: served though the session had ended, and that was acknowledged before the request was sent.
    Resurrected { local: Local, sent: At, ended: At, how: &'static str },
    /// P2: a refresh token was presented while a live holder waited for the answer.
    PresentedTwice { token: String, first: At, second: At },
    /// P3: a refresh token was presented again whose successor had been delivered to a replica that lived.
    LostToken { token: String, first: At, second: At },
    /// P4, P8, P14: ended without a definite word, or for another reason than the one that was told.
    Lost { local: Local, at: At, reason: Option<String> },
    /// Served longer than *T* after the provider's last word, or on after its session was gone though it could be asked.
    Unended { local: Local, sent: At, since: At, how: How },
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
    /// Requests with a session that had ended.
    pub(crate) with_old: u64,
    /// Scripts that were not told why a session had ended.
    pub(crate) not_told_why: u64,
    /// Requests of users after the provider's session was gone, with all well: they had to be refused.
    pub(crate) had_to_end: u64,
}

struct Session<'e> {
    sub: &'e str,
    sid: Option<&'e str>,
    began: At,
    /// When the provider granted the code: not before, and not after.
    granted: (At, At),
    /// All presentations of the tokens that came from the code.
    family: Vec<&'e TokenRequest>,
}

pub(crate) fn check(events: &[Event]) -> (Figures, Vec<Violation>) {
    let history = Indexed::of(events);
    let mut violations = Vec::new();
    let mut figures = history.figures();
    history.finality(&mut figures, &mut violations);
    history.presentations(&mut figures, &mut violations);
    history.ends(&mut figures, &mut violations);
    history.stays(&mut figures, &mut violations);
    history.oddities(&mut violations);
    (figures, violations)
}

pub(crate) struct Indexed<'e> {
    events: &'e [Event],
    sessions: HashMap<Local, Session<'e>>,
    /// By token, in the order of their arrivals.
    pub(crate) presentations: BTreeMap<&'e str, Vec<&'e TokenRequest>>,
    pub(crate) faults: Vec<&'e Fault>,
    /// When the provider's sessions were gone.
    gone: HashMap<&'e str, At>,
    /// When users first signed out, or came back from another login.
    signed_out: HashMap<Local, At>,
    came_back: HashMap<Local, At>,
    /// What logout tokens are about, when they were issued and sent.
    logouts: Vec<(&'e Target, At, At)>,
}

impl<'e> Indexed<'e> {
    fn of(events: &'e [Event]) -> Self {
        let mut indexed = Self {
            events,
            sessions: HashMap::new(),
            presentations: BTreeMap::new(),
            faults: Vec::new(),
            gone: HashMap::new(),
            signed_out: HashMap::new(),
            came_back: HashMap::new(),
            logouts: Vec::new(),
        };
        for event in events {
            match event {
                Event::Token(request) => {
                    let (Presented::Code(token) | Presented::RefreshToken(token)) = &request.presented;
                    indexed.presentations.entry(token).or_default().push(request);
                }
                Event::Fault(fault) => indexed.faults.push(fault),
                Event::ProviderEnd { sid, at } => _ = indexed.gone.entry(sid.as_str()).or_insert(*at),
                Event::SignOut { local, sent, .. } => _ = indexed.signed_out.entry(*local).or_insert(*sent),
                Event::Callback { had, sent } => _ = indexed.came_back.entry(*had).or_insert(*sent),
                Event::LogoutToken { target, issued, sent, .. } => indexed.logouts.push((target, *issued, *sent)),
                _ => {}
            }
        }
        for requests in indexed.presentations.values_mut() {
            requests.sort_by_key(|request| request.arrived);
        }
        for event in events {
            if let Event::Login { local, sub, code, began, done, .. } = event {
                let family = indexed.family(code);
                let grant = family.iter().find_map(|request| match (&request.presented, &request.said) {
                    (Presented::Code(_), Said::Granted { sid, .. }) => Some((sid, (request.arrived, request.ended))),
                    _ => None,
                });
                let (sid, granted) = grant.map_or((None, (*began, *done)), |(sid, times)| (sid.as_deref(), times));
                indexed.sessions.insert(*local, Session { sub, sid, began: *began, granted, family });
            }
        }
        indexed
    }

    fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for event in self.events {
            match event {
                Event::Login { .. } => figures.logins += 1,
                Event::Request { how, answer, .. } => {
                    figures.requests += 1;
                    match answer {
                        Answer::Over { reason: None } if *how != How::Page => figures.not_told_why += 1,
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
                Event::Request { local, sent, got, answer: Answer::Over { reason }, .. }
                    if !self.may_not_know(reason.as_deref(), *sent, *got) =>
                {
                    end(*local, *got, "said to be over");
                }
                Event::LogoutToken { target, issued, acknowledged: Some(at), .. } => {
                    for (local, _) in
                        self.sessions.iter().filter(|(_, session)| is_ended(session, target, *issued, *at))
                    {
                        end(*local, *at, "logout token");
                    }
                }
                // Where the store is in trouble, the one before may outlive the login.
                Event::Login { had: Some(local), began, done, .. }
                    if !self.faults.iter().any(|fault| fault.kind != Kind::Keys && fault.overlaps(*began, *done)) =>
                {
                    end(*local, *done, "another login");
                }
                _ => {}
            }
        }
        finals
    }

    fn finality(&self, figures: &mut Figures, violations: &mut Vec<Violation>) {
        let finals = self.finals();
        for event in self.events {
            if let Event::Request { local, sent, answer, .. } = event
                && let Some((ended, how)) = finals.get(local)
                && sent > ended
            {
                figures.with_old += 1;
                if matches!(answer, Answer::Served { .. }) {
                    violations.push(Violation::Resurrected { local: *local, sent: *sent, ended: *ended, how });
                }
            }
        }
    }

    /// Who is told no reason may have been asked for at a store that does not know the session yet, nor that another has taken over.
    fn may_not_know(&self, reason: Option<&str>, sent: At, got: At) -> bool {
        reason.is_none()
            && self.faults.iter().any(|fault| {
                matches!(fault.kind, Kind::Failover | Kind::StoreCrash)
                    && fault.overlaps(sent.saturating_sub(OLD_STORE), got)
            })
    }

    fn ends(&self, figures: &mut Figures, violations: &mut Vec<Violation>) {
        let mut told = HashSet::new();
        for event in self.events {
            let Event::Request { local, sent, got, answer: Answer::Over { reason }, .. } = event else { continue };
            if self.may_not_know(reason.as_deref(), *sent, *got) {
                continue;
            }
            let Some(session) = self.sessions.get(local) else { continue };
            let is_first = told.insert((*local, None));
            let word = self.why_over(*local, session, *got, reason.as_deref());
            if word == Some("token taken for theft") && is_first {
                figures.cost_a_login += 1;
            }
            if word.is_none() && told.insert((*local, Some(reason))) {
                violations.push(Violation::Lost { local: *local, at: *got, reason: reason.clone() });
            }
        }
    }

    /// The definite word that a session has ended by, which has to be the one that is told if one is.
    fn why_over(&self, local: Local, session: &Session<'_>, at: At, reason: Option<&str>) -> Option<&'static str> {
        let is_before = |times: &HashMap<Local, At>| times.get(&local).is_some_and(|time| *time <= at);
        let is_told = |name: &str| reason.is_none_or(|reason| reason == name);
        if is_told("rp_initiated_logout") && is_before(&self.signed_out) {
            return Some("sign-out");
        }
        if is_told("superseded_by_login") && is_before(&self.came_back) {
            return Some("another login");
        }
        if is_told("back_channel_logout")
            && self.logouts.iter().any(|(target, issued, sent)| *sent <= at && may_end(session, target, *issued))
        {
            return Some("logout token");
        }
        let refused = session.family.iter().find(|request| {
            matches!(&request.said, Said::Refused { error } if error == "invalid_grant")
                && request.fate == Fate::Delivered
                && request.arrived <= at
        });
        let refused = refused.filter(|_| is_told("refresh_token_rejected"))?;
        // The harness looks at the provider's sessions now and then.
        let gone = session.sid.and_then(|sid| self.gone.get(sid));
        let is_gone = gone.is_some_and(|gone| *gone <= refused.ended + IAT);
        Some(if is_gone { "the provider's session is over" } else { "token taken for theft" })
    }

    /// Sessions that are served though the provider has not confirmed them for too long.
    fn stays(&self, figures: &mut Figures, violations: &mut Vec<Violation>) {
        for event in self.events {
            let Event::Request { local, how, replica, sent, got, answer } = event else { continue };
            let Some(session) = self.sessions.get(local) else { continue };
            let is_served = matches!(answer, Answer::Served { .. });
            let grants = session.family.iter().filter(|request| {
                matches!(request.said, Said::Granted { .. })
                    && request.fate == Fate::Delivered
                    && request.arrived <= *got
            });
            let Some(last) = grants.max_by_key(|request| request.arrived) else { continue };
            // Who reads the time, and who wrote it down, may have had another clock.
            let has_other_clock = self.faults.iter().any(|fault| {
                fault.kind == Kind::Clock
                    && ((fault.replica == *replica && fault.overlaps(*sent, *got))
                        || (fault.replica == Some(last.life.replica) && fault.overlaps(last.arrived, last.ended)))
            });
            if has_other_clock {
                continue;
            }
            let mut unended =
                |since| violations.push(Violation::Unended { local: *local, sent: *sent, since, how: *how });
            if is_served && *sent > last.arrived + T + SLACK {
                unended(last.arrived);
                continue;
            }
            let Some(gone) = session.sid.and_then(|sid| self.gone.get(sid)) else { continue };
            if *how == How::Poll || *sent <= *gone + G + SLACK {
                continue;
            }
            let is_well = !self
                .faults
                .iter()
                .any(|fault| fault.kind != Kind::Keys && fault.overlaps(sent.saturating_sub(RECOVERY), *got));
            // Who was not answered is left in peace for a while.
            let was_unclear = session.family.iter().any(|request| {
                request.ended + T >= *sent && (request.said == Said::Unavailable || request.fate != Fate::Delivered)
            });
            if is_well && !was_unclear {
                figures.had_to_end += 1;
                if is_served {
                    unended(*gone);
                }
            }
        }
    }

    /// All presentations of the tokens that came from a code. That no token is presented again without a reason is another
    /// rule.
    fn family(&self, code: &str) -> Vec<&'e TokenRequest> {
        let mut family: Vec<&TokenRequest> = Vec::new();
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
                // What tower-sessions says where it could not save the application's data.
                Event::Request { replica, how: How::Page, sent, got, answer: Answer::Other(answer), .. }
                    if answer.trim_end() == "500 Internal Server Error:"
                        && self.faults.iter().any(|fault| {
                            fault.kind.is_of_store()
                                && fault.overlaps(*sent, *got)
                                && (fault.replica.is_none() || fault.replica == *replica)
                        }) => {}
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
    let (not_before, not_after) = session.granted;
    is_of(session, target)
        && match target {
            // The provider has no other session by that name.
            Target::Sid(_) => true,
            // Who has an ID token that is younger than the logout token is spared; who was on the way then, is not.
            Target::Sub(_) => not_after <= issued || (session.began <= issued && not_before > acknowledged),
        }
}

/// Whether a logout token may have ended a session: one that was granted after it, it spares.
fn may_end(session: &Session<'_>, target: &Target, issued: At) -> bool {
    let tolerance = if matches!(target, Target::Sid(_)) { COVER } else { Duration::ZERO };
    is_of(session, target) && session.granted.0 <= issued + tolerance + IAT
}

fn is_of(session: &Session<'_>, target: &Target) -> bool {
    match target {
        Target::Sid(sid) => session.sid == Some(sid),
        Target::Sub(sub) => session.sub == sub,
    }
}
