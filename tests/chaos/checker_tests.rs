//! That each rule of the checker can fail, and what explains what.

use std::time::Duration;

use crate::checker::{Figures, Violation, check};
use crate::history::{Answer, At, Event, Fate, Fault, How, Kind, Life, Local, Presented, Said, Target, TokenRequest};

const ONE: Local = Local(1);

fn at(seconds: f64) -> At {
    Duration::from_secs_f64(seconds)
}

fn token(presented: Presented, arrived: f64, ended: f64, said: Said, fate: Fate) -> Event {
    let life = Life { replica: 0, number: 0 };
    Event::Token(TokenRequest { life, presented, arrived: at(arrived), ended: at(ended), said, fate })
}

fn granted(next: &str) -> Said {
    Said::Granted { refresh_token: Some(next.to_owned()), sid: Some("sid".to_owned()) }
}

fn refused() -> Said {
    Said::Refused { error: "invalid_grant".to_owned() }
}

/// A refresh with a token, from 10 s to 11 s.
fn refresh(presented: &str, said: Said, fate: Fate) -> Event {
    token(Presented::RefreshToken(presented.to_owned()), 10.0, 11.0, said, fate)
}

/// The same token again.
fn again(presented: &str, arrived: f64) -> Event {
    token(Presented::RefreshToken(presented.to_owned()), arrived, arrived + 0.5, refused(), Fate::Delivered)
}

fn asked(how: How, sent: f64, answer: Answer) -> Event {
    Event::Request { local: ONE, how, replica: Some(0), sent: at(sent), got: at(sent + 0.1), answer }
}

fn answered(sent: f64, answer: Answer) -> Event {
    asked(How::Click, sent, answer)
}

fn served(sent: f64) -> Event {
    answered(sent, Answer::Served { sub: "alice".to_owned(), sid: "sid".to_owned() })
}

fn over_for(sent: f64, reason: Option<&str>) -> Event {
    answered(sent, Answer::Over { reason: reason.map(str::to_owned) })
}

fn login(local: Local, code: &str, began: f64, done: f64, had: Option<Local>) -> Event {
    Event::Login { local, sub: "alice".to_owned(), code: code.to_owned(), began: at(began), done: at(done), had }
}

fn fault(kind: Kind, from: f64, to: f64) -> Event {
    Event::Fault(Fault { kind, replica: Some(0), from: at(from), to: at(to) })
}

fn logout(target: Target, issued: f64, sent: f64, acknowledged: Option<f64>) -> Event {
    Event::LogoutToken { target, issued: at(issued), sent: at(sent), acknowledged: acknowledged.map(at) }
}

fn by_sid() -> Target {
    Target::Sid("sid".to_owned())
}

fn by_sub() -> Target {
    Target::Sub("alice".to_owned())
}

/// What the checker says of a session of alice that began after one second, and then this.
fn story(then: impl IntoIterator<Item = Event>) -> (Figures, Vec<Violation>) {
    let code = Presented::Code("code".to_owned());
    let mut events = vec![token(code, 0.5, 0.6, granted("first"), Fate::Delivered), login(ONE, "code", 0.0, 1.0, None)];
    events.extend(then);
    check(&events)
}

fn violations(then: impl IntoIterator<Item = Event>) -> Vec<Violation> {
    story(then).1
}

#[test]
fn p1_who_is_served_after_an_end_was_acknowledged() {
    let resurrected =
        |ended: f64, how| vec![Violation::Resurrected { local: ONE, sent: at(9.0), ended: at(ended), how }];
    let sign_out =
        |acknowledged: Option<f64>| Event::SignOut { local: ONE, sent: at(7.0), acknowledged: acknowledged.map(at) };
    assert_eq!(violations([sign_out(Some(8.0)), served(9.0)]), resurrected(8.0, "sign-out"));
    assert_eq!(violations([logout(by_sid(), 5.0, 7.0, Some(8.0)), served(9.0)]), resurrected(8.0, "logout token"));
    assert_eq!(violations([logout(by_sub(), 5.0, 7.0, Some(8.0)), served(9.0)]), resurrected(8.0, "logout token"));
    let told = [sign_out(None), over_for(7.9, Some("rp_initiated_logout")), served(9.0)];
    assert_eq!(violations(told), resurrected(8.0, "said to be over"));
    // However the browser asks.
    let page = asked(How::Page, 9.0, Answer::Served { sub: "alice".to_owned(), sid: "sid".to_owned() });
    assert_eq!(violations([sign_out(Some(8.0)), page]), resurrected(8.0, "sign-out"));
    // The login was granted before the logout, whenever it arrived; or the browser has had another one since.
    assert_eq!(violations([logout(by_sub(), 0.7, 7.0, Some(8.0)), served(9.0)]), resurrected(8.0, "logout token"));
    let another = || login(Local(2), "another", 7.5, 8.0, Some(ONE));
    assert_eq!(violations([another(), served(9.0)]), resurrected(8.0, "another login"));
    assert_eq!(violations([another(), served(9.0), fault(Kind::StoreCut, 7.0, 7.6)]), []);
    // Sent before, not acknowledged, of somebody else, or of a time when the login was not granted.
    for innocent in [
        sign_out(Some(9.0)),
        sign_out(None),
        logout(by_sid(), 5.0, 7.0, None),
        logout(Target::Sid("another".to_owned()), 5.0, 7.0, Some(8.0)),
        logout(Target::Sub("bob".to_owned()), 5.0, 7.0, Some(8.0)),
        logout(by_sub(), 0.55, 7.0, Some(8.0)),
    ] {
        assert_eq!(violations([innocent, served(9.0)]), []);
    }
    // The login was on its way: begun before, and granted after.
    for target in [by_sid(), by_sub()] {
        let overtaken = [logout(target, 0.2, 0.3, Some(0.4)), served(9.0)];
        assert_eq!(violations(overtaken), resurrected(0.4, "logout token"));
    }
}

#[test]
fn p2_what_is_presented_while_somebody_waits() {
    let first = || refresh("first", granted("second"), Fate::Delivered);
    let twice = Violation::PresentedTwice { token: "first".to_owned(), first: at(10.0), second: at(10.5) };
    assert_eq!(violations([first(), again("first", 10.5)]), std::slice::from_ref(&twice));
    let (figures, found) = story([first(), again("first", 10.5), fault(Kind::Kill, 10.2, 12.0)]);
    assert_eq!((found, figures.again.len()), (vec![], 1));
    // A fault that was over before, of another replica, or too short for a lease to lapse.
    let other = Event::Fault(Fault { kind: Kind::Kill, replica: Some(1), from: at(10.2), to: at(12.0) });
    for unrelated in [
        fault(Kind::Kill, 8.0, 9.0),
        fault(Kind::Stop, 1.0, 10.4),
        fault(Kind::StoreCut, 10.0, 10.4),
        fault(Kind::Restart, 10.2, 12.0),
        fault(Kind::Clock, 10.0, 12.0),
        other,
    ] {
        assert_eq!(violations([first(), again("first", 10.5), unrelated]), std::slice::from_ref(&twice));
    }
    // The answer takes its time, and the holder or its store stand still for so long that the lease lapses.
    let slow = || token(Presented::RefreshToken("first".to_owned()), 10.0, 26.0, granted("second"), Fate::Delivered);
    for (explained, is_explained) in [
        (vec![fault(Kind::Stop, 16.0, 20.0)], true),
        (vec![fault(Kind::StoreSilent, 16.0, 18.4)], true),
        (vec![fault(Kind::StoreSilent, 15.0, 16.0), fault(Kind::Stop, 17.0, 19.0)], true),
        // Too short, long ago.
        (vec![fault(Kind::Stop, 16.0, 18.0)], false),
        (vec![fault(Kind::StorePaused, 16.0, 18.0)], false),
        (vec![fault(Kind::Stop, 10.0, 12.0)], false),
        // It may finish for ten seconds.
        (vec![fault(Kind::Restart, 11.0, 21.0)], false),
        (vec![fault(Kind::Restart, 10.5, 20.5)], true),
        (vec![fault(Kind::Restart, 10.5, 15.0)], false),
    ] {
        let told = format!("{explained:?}");
        let found = violations([slow(), again("first", 20.8)].into_iter().chain(explained));
        assert_eq!(found.is_empty(), is_explained, "{told}: {found:?}");
    }
}

#[test]
fn p3_a_token_that_was_delivered_and_is_not_used() {
    let first = |fate| refresh("first", granted("second"), fate);
    let everywhere = |kind, from, to| Event::Fault(Fault { kind, replica: None, from: at(from), to: at(to) });
    let lost = Violation::LostToken { token: "first".to_owned(), first: at(10.0), second: at(14.0) };
    assert_eq!(violations([first(Fate::Delivered), again("first", 14.0)]), std::slice::from_ref(&lost));
    assert_eq!(violations([first(Fate::Abandoned), again("first", 14.0)]), std::slice::from_ref(&lost));
    assert_eq!(violations([first(Fate::Cut), again("first", 14.0)]), []);
    for (explained, second, is_explained) in [
        (vec![fault(Kind::Kill, 11.5, 13.0)], 14.0, true),
        (vec![fault(Kind::StoreFull, 10.5, 13.0)], 14.0, true),
        (vec![everywhere(Kind::Failover, 10.5, 13.0)], 14.0, true),
        (vec![fault(Kind::Stop, 10.5, 15.0)], 16.0, true),
        // It had the token in its hands all the time.
        (vec![fault(Kind::StoreFull, 10.5, 13.0), fault(Kind::Kill, 13.5, 15.0)], 16.0, true),
        // One trouble after another, though with pauses.
        (
            vec![fault(Kind::StoreFull, 10.5, 11.5), fault(Kind::StoreCut, 12.4, 13.5), fault(Kind::Kill, 14.2, 15.0)],
            16.0,
            true,
        ),
        (vec![everywhere(Kind::Still, 10.5, 11.5), everywhere(Kind::StoreSlow, 12.0, 15.5)], 16.0, true),
        // With the keys it waits for.
        (vec![fault(Kind::ProviderSlow, 10.5, 11.5), fault(Kind::Kill, 13.5, 15.0)], 16.0, true),
        // It had all the time to store it, before or after.
        (vec![fault(Kind::Kill, 12.5, 15.0)], 16.0, false),
        (vec![fault(Kind::StoreFull, 12.5, 17.0)], 18.0, false),
        (vec![fault(Kind::StoreFull, 10.5, 12.0), fault(Kind::Kill, 14.5, 15.0)], 16.0, false),
        (vec![fault(Kind::StoreFull, 10.5, 14.0)], 25.0, false),
        (
            vec![fault(Kind::StoreFull, 10.5, 11.5), fault(Kind::StoreCut, 14.0, 14.2), fault(Kind::Kill, 15.0, 16.0)],
            16.5,
            false,
        ),
        (vec![everywhere(Kind::StoreSlow, 10.5, 11.5)], 16.0, false),
        (vec![fault(Kind::Stop, 10.5, 12.0)], 16.0, false),
        (vec![fault(Kind::Restart, 10.5, 12.0)], 16.0, false),
        (vec![everywhere(Kind::ProviderDown, 10.5, 15.0)], 16.0, false),
    ] {
        let told = format!("{explained:?}");
        let found = violations([first(Fate::Delivered), again("first", second)].into_iter().chain(explained));
        assert_eq!(found.is_empty(), is_explained, "{told}: {found:?}");
    }
    assert_eq!(violations([refresh("first", Said::Unavailable, Fate::Delivered), again("first", 14.0)]), []);
}

#[test]
fn p4_p8_an_end_that_nobody_spoke_or_another_one_than_is_told() {
    let sign_out = |local, sent| Event::SignOut { local, sent: at(sent), acknowledged: None };
    let refused_at =
        |presented: &str, fate| token(Presented::RefreshToken(presented.to_owned()), 8.0, 8.5, refused(), fate);
    let words = [
        ("rp_initiated_logout", sign_out(ONE, 8.0)),
        ("superseded_by_login", Event::Callback { had: ONE, sent: at(8.0) }),
        ("back_channel_logout", logout(by_sid(), 5.0, 8.0, None)),
        ("back_channel_logout", logout(by_sub(), 5.0, 8.0, None)),
        ("refresh_token_rejected", refused_at("first", Fate::Delivered)),
    ];
    let reasons = [
        "rp_initiated_logout",
        "superseded_by_login",
        "back_channel_logout",
        "refresh_token_rejected",
        "idle_timeout",
        "absolute_lifetime",
    ];
    let lost = |reason: Option<&str>| Violation::Lost { local: ONE, at: at(9.1), reason: reason.map(str::to_owned) };
    for reason in reasons {
        assert_eq!(violations([over_for(9.0, Some(reason))]), [lost(Some(reason))]);
        for (name, word) in words.clone() {
            let expected = if name == reason { vec![] } else { vec![lost(Some(reason))] };
            assert_eq!(violations([word.clone(), over_for(9.0, Some(reason))]), expected, "{word:?}");
        }
    }
    // Who is not told why.
    assert_eq!(violations([over_for(9.0, None)]), [lost(None)]);
    for (_, word) in words {
        assert_eq!(violations([word, over_for(9.0, None)]), []);
    }
    for (reason, other) in [
        ("rp_initiated_logout", sign_out(Local(2), 8.0)),
        ("rp_initiated_logout", sign_out(ONE, 9.5)),
        ("superseded_by_login", Event::Callback { had: Local(2), sent: at(8.0) }),
        ("back_channel_logout", logout(Target::Sid("another".to_owned()), 5.0, 8.0, Some(8.5))),
        ("back_channel_logout", logout(by_sid(), 5.0, 9.5, None)),
        ("refresh_token_rejected", Event::ProviderEnd { sid: "sid".to_owned(), at: at(8.0) }),
        ("refresh_token_rejected", refused_at("another", Fate::Delivered)),
        ("refresh_token_rejected", refused_at("first", Fate::Cut)),
        ("refresh_token_rejected", refresh("first", Said::Unavailable, Fate::Delivered)),
    ] {
        assert_eq!(violations([other, over_for(9.0, Some(reason))]), [lost(Some(reason))]);
    }
}

#[test]
fn p14_a_store_that_is_being_replaced_may_not_know_a_session_yet() {
    let lost = |reason: &str| [Violation::Lost { local: ONE, at: at(20.1), reason: Some(reason.to_owned()) }];
    assert_ne!(violations([over_for(20.0, None)]), []);
    assert_ne!(violations([over_for(20.0, None), fault(Kind::Failover, 12.0, 15.0)]), [], "it is long ago");
    assert_eq!(violations([over_for(20.0, None), fault(Kind::Failover, 12.0, 17.0)]), []);
    // Nor is it an end: it is served when the new store is asked.
    assert_eq!(violations([over_for(20.0, None), fault(Kind::Failover, 12.0, 17.0), served(10.0)]), []);
    let told = violations([over_for(20.0, Some("idle_timeout")), fault(Kind::Failover, 12.0, 17.0)]);
    assert_eq!(told, lost("idle_timeout"));
}

#[test]
fn sessions_that_do_not_end_though_they_should() {
    let of = |how, sent| asked(how, sent, Answer::Served { sub: "alice".to_owned(), sid: "sid".to_owned() });
    let unended = |how, sent, since| vec![Violation::Unended { local: ONE, sent: at(sent), since: at(since), how }];
    // No word of the provider's for T.
    assert_eq!(violations([of(How::Poll, 10.4)]), []);
    assert_eq!(violations([of(How::Poll, 10.7)]), unended(How::Poll, 10.7, 0.5));
    let refreshed = |fate| token(Presented::RefreshToken("first".to_owned()), 9.0, 9.1, granted("second"), fate);
    assert_eq!(violations([of(How::Poll, 10.7), refreshed(Fate::Delivered)]), []);
    assert_eq!(violations([of(How::Poll, 10.7), refreshed(Fate::Cut)]), unended(How::Poll, 10.7, 0.5));
    // Whose clock is wrong cannot know; one that was wrong before can.
    assert_eq!(violations([of(How::Poll, 10.7), fault(Kind::Clock, 10.0, 12.0)]), []);
    assert_eq!(violations([of(How::Poll, 10.7), fault(Kind::Clock, 0.2, 1.0)]), []);
    assert_eq!(violations([of(How::Poll, 10.7), fault(Kind::Clock, 4.0, 6.0)]), unended(How::Poll, 10.7, 0.5));
    // The provider's session is gone, and a user asks.
    let gone = || Event::ProviderEnd { sid: "sid".to_owned(), at: at(5.0) };
    for how in [How::Click, How::Page] {
        assert_eq!(violations([gone(), of(how, 7.0)]), []);
        assert_eq!(violations([gone(), of(how, 7.2)]), unended(how, 7.2, 5.0));
        assert_eq!(violations([gone(), of(how, 7.2), fault(Kind::ProviderDown, 1.0, 5.0)]), []);
        assert_eq!(violations([gone(), of(how, 7.2), fault(Kind::ProviderDown, 1.0, 4.0)]), unended(how, 7.2, 5.0));
    }
    assert_eq!(violations([gone(), of(How::Poll, 7.2)]), []);
}

#[test]
fn p13_a_replay_that_ends_a_login_after_it() {
    let code = Presented::Code("code".to_owned());
    let login = [token(code, 99.5, 99.6, granted("first"), Fate::Delivered), login(ONE, "code", 99.0, 100.0, None)];
    for target in [by_sid(), by_sub()] {
        let events: Vec<_> = login
            .iter()
            .cloned()
            .chain([logout(target, 50.0, 105.0, Some(106.0)), over_for(107.0, Some("back_channel_logout"))])
            .collect();
        assert!(matches!(check(&events).1[..], [Violation::Lost { .. }]));
    }
}

#[test]
fn p12_a_code_that_is_sent_again() {
    let code = || Presented::Code("code".to_owned());
    let second = token(code(), 0.7, 0.8, refused(), Fate::Delivered);
    let twice = Violation::CodeTwice { code: "code".to_owned(), first: at(0.5), second: at(0.7) };
    assert_eq!(violations([second]), [twice]);
}

#[test]
fn answers_that_there_should_not_be() {
    let of_bob = Answer::Served { sub: "bob".to_owned(), sid: "sid".to_owned() };
    assert!(matches!(violations([answered(9.0, of_bob)])[..], [Violation::Mixed { .. }]));
    let of_another = Answer::Served { sub: "alice".to_owned(), sid: "another".to_owned() };
    assert!(matches!(violations([answered(9.0, of_another)])[..], [Violation::Mixed { .. }]));
    assert!(matches!(violations([answered(9.0, Answer::Other("500".to_owned()))])[..], [Violation::Odd { .. }]));
    // tower-sessions has its own words for a store that fails.
    let of_sessions = |how| asked(how, 9.0, Answer::Other("500 Internal Server Error: ".to_owned()));
    assert_eq!(violations([of_sessions(How::Page), fault(Kind::StoreCut, 8.0, 9.0)]), []);
    for (how, at_fault) in [(How::Page, Kind::ProviderCut), (How::Click, Kind::StoreCut)] {
        let found = violations([of_sessions(how), fault(at_fault, 8.0, 9.0)]);
        assert!(matches!(found[..], [Violation::Odd { .. }]), "{how:?} {at_fault:?}");
    }
    let stuck = Event::Stuck { sub: "alice".to_owned(), why: String::new() };
    assert!(matches!(violations([stuck])[..], [Violation::Stuck { .. }]));
    for fine in [Answer::Unavailable, Answer::Unconfirmed, Answer::Nothing] {
        assert_eq!(violations([answered(9.0, fine)]), []);
    }
}
