use std::net::IpAddr;

use super::*;
use crate::protocol::names::{ClientId, Issuer};
use crate::session::end_reason::EndMark;
use crate::session::login_attempt::ReturnTo;

const SECOND: Duration = Duration::from_secs(1);

fn registration() -> Registration {
    Registration::new(Issuer::new("https://op.example"), ClientId::new("shop"))
}

fn transaction(follows: Option<EndMark>) -> LoginTransaction {
    LoginTransaction {
        state: "state".to_owned(),
        nonce: "nonce".to_owned(),
        pkce_verifier: "verifier".to_owned(),
        return_to: ReturnTo::own("/".to_owned()),
        started_at: samples::LOGIN,
        authentication: Authentication { prompt: Prompt::Login, ..Authentication::default() },
        session: None,
        began_at: None,
        seen: None,
        follows,
        linked: Vec::new(),
        dpop_jkt: None,
    }
}

fn response(refresh_token: Option<&str>, scope: Option<&str>) -> TokenResponse {
    TokenResponse {
        access_token: AccessToken::new("access"),
        expires_in: None,
        refresh_expires_in: None,
        refresh_token: refresh_token.map(RefreshToken::new),
        id_token: None,
        scope: scope.map(str::to_owned),
    }
}

fn new_login<'a>(transaction: &'a LoginTransaction, requested_scopes: &'a [String]) -> NewLogin<'a> {
    NewLogin {
        key: SessionKey::from_bytes([7; 32]),
        registration: registration(),
        id_token: samples::id_token(),
        claims: Map::new(),
        transaction,
        requested_scopes,
        user_info: UserInfoEndpoint::Missing,
        browser: Browser::default(),
    }
}

fn of_login(login: NewLogin<'_>, response: TokenResponse, policy: &SessionPolicy) -> SessionRecord {
    SessionRecord::of_login(login, response, IdTokenHint::new("id"), samples::LOGIN, policy)
}

#[test]
fn a_session_signals_by_what_it_has() {
    use ActivitySignal::{None as Nothing, Refresh, SilentLogin, UserInfo};
    use UserInfoEndpoint::{Missing, There};

    let keeps = SessionPolicy::new;
    let discards = || SessionPolicy::new().discard_tokens();
    for (policy, refresh_token, user_info, expected) in [
        (keeps(), Some("refresh"), Missing, Refresh),
        (keeps(), Some("refresh"), There, Refresh),
        (keeps(), None, There, UserInfo),
        (keeps(), None, Missing, Nothing),
        (keeps().signal_by_silent_login(), Some("refresh"), There, Refresh),
        (keeps().signal_by_silent_login(), None, There, UserInfo),
        (keeps().signal_by_silent_login(), None, Missing, SilentLogin),
        (discards(), Some("refresh"), There, Nothing),
        (discards(), None, There, Nothing),
        (discards().signal_by_silent_login(), Some("refresh"), There, SilentLogin),
        (discards().signal_by_silent_login(), None, There, SilentLogin),
    ] {
        let transaction = transaction(None);
        let login = NewLogin { user_info, ..new_login(&transaction, &[]) };
        let record = of_login(login, response(refresh_token, None), &policy);
        let row = format!("{:?} {refresh_token:?} {user_info:?}", policy.tokens);
        assert_eq!(record.login.signal, expected, "{row}");
        assert_eq!(record.can_signal(), expected != Nothing, "{row}");
        let kept = policy.tokens == KeptTokens::All;
        assert_eq!(record.tokens.access_token.is_some(), kept, "{row}");
        assert_eq!(record.tokens.refresh_token.is_some(), kept && refresh_token.is_some(), "{row}");
        assert_eq!(record.login.authentication.prompt, Prompt::AsNeeded, "the prompt is over");
    }
}

#[test]
fn p7_offline_access_is_what_was_granted_or_asked_for_where_nothing_is_said() {
    for (granted, requested, expected) in [
        (Some("openid offline_access"), "openid", true),
        (Some("openid"), "offline_access", false),
        (Some("offline_access_not"), "offline_access", false),
        (None, "offline_access", true),
        (None, "openid", false),
    ] {
        let (transaction, requested) = (transaction(None), [requested.to_owned()]);
        let record = of_login(new_login(&transaction, &requested), response(None, granted), &SessionPolicy::new());
        assert_eq!(record.login.offline_access, expected, "{granted:?} {requested:?}");
    }
}

#[test]
fn who_comes_back_learns_why_the_session_before_ended_unless_it_was_by_the_same_hand() {
    let own = SubjectHash::of(&registration(), &Subject::new("alice"));
    let other = SubjectHash::of(&registration(), &Subject::new("bob"));
    let ended = EndReason::BackChannelLogout;
    for (reason, subject, expected) in [
        (ended, Some(own), Some(ended)),
        (ended, Some(other), None),
        (ended, None, None),
        (EndReason::RpInitiatedLogout, Some(own), None),
        (EndReason::SupersededByLogin, Some(own), None),
    ] {
        let transaction = transaction(Some(EndMark { reason, subject }));
        let record = of_login(new_login(&transaction, &[]), response(None, None), &SessionPolicy::new());
        assert_eq!(record.login.previous_end, expected, "{reason} {subject:?}");
    }
}

#[test]
fn a_browser_is_kept_where_something_is_known_of_it() {
    for address in [None, Some(IpAddr::from([192, 0, 2, 1]))] {
        let (transaction, browser) = (transaction(None), Browser { address, user_agent: None });
        let login = NewLogin { browser, ..new_login(&transaction, &[]) };
        let record = of_login(login, response(None, None), &SessionPolicy::new());
        assert_eq!(record.login.browser.as_deref().map(Browser::address), address.map(Some));
    }
}

#[test]
fn p8_a_record_says_until_when_it_stands_and_why_it_ends() {
    let policy = |idle: u32, absolute: u32| {
        SessionPolicy::new().op_session_lifetime(SECOND * idle).absolute_lifetime(SECOND * absolute)
    };
    let absolute = EndReason::AbsoluteLifetime;
    for (signals, idle, lifetime, session_expiry, expires, reason, unconfirmed) in [
        (true, 60, 100, None, 100, absolute, 40),
        (true, 100, 100, None, 100, absolute, 0),
        (true, 60, 100, Some(80), 80, EndReason::SessionExpiry, 20),
        (true, 60, 100, Some(101), 100, absolute, 40),
        (false, 60, 100, None, 60, EndReason::IdleTimeout, 0),
        // The first who asks then hears of the lifetime.
        (false, 100, 100, None, 100, absolute, 0),
    ] {
        let mut record = samples::record();
        record.session_expiry = session_expiry.map(|after| samples::LOGIN + SECOND * after);
        let record = if signals { record } else { record.without_signal() }.with_expiry(&policy(idle, lifetime));
        let row = format!("{signals} {idle} {lifetime} {session_expiry:?}");
        assert_eq!((record.expires_at(), record.expires_for()), (samples::LOGIN + SECOND * expires, reason), "{row}");
        assert_eq!(record.unconfirmed_for(), SECOND * unconfirmed, "{row}");
        assert_eq!(record.time_left(samples::LOGIN + SECOND * 10), SECOND * (expires - 10), "{row}");
        assert_eq!(record.time_left(samples::LOGIN + SECOND * 1000), Duration::ZERO, "{row}");
    }
}

#[test]
fn each_access_token_came_at_a_time_of_its_own() {
    let audience = Audience { resource: Some("billing".to_owned()), ..Audience::default() };
    let mut record = samples::record();
    assert_eq!(record.access_token_obtained_at(None), Some(samples::LOGIN));
    assert_eq!(record.access_token_obtained_at(Some(&audience)), None);
    let obtained_at = samples::LOGIN + SECOND;
    let token = OtherToken { access_token: AccessToken::new("other"), expires_in: None, obtained_at };
    record.tokens.others.insert(audience.name(), token);
    assert_eq!(record.access_token_obtained_at(Some(&audience)), Some(obtained_at));
}
