//! That each rule of the checker can fail, and what explains what.

use std::time::Duration;

use crate::checker::{Figures, Violation, check};
use crate::history::{Answer, At, Event, Fate, Fault, Kind, Life, Local, Presented, Said, Target, TokenRequest};

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

fn answered(sent: f64, answer: Answer) -> Event {
    Event::Request { local: ONE, sent: at(sent), got: at(sent + 0.1), answer }
}

fn served(sent: f64) -> Event {
    answered(sent, Answer::Served { sub: "alice".to_owned(), sid: "sid".to_owned() })
}

fn over(sent: f64) -> Event {
    answered(sent, Answer::Over { reason: Some("refresh_token_rejected".to_owned()) })
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
    let mut events = vec![
        token(code, 0.5, 0.6, granted("first"), Fate::Delivered),
        Event::Login { local: ONE, sub: "alice".to_owned(), code: "code".to_owned(), began: at(0.0), done: at(1.0) },
    ];
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
    let told = [sign_out(None), over(7.9), served(9.0)];
    assert_eq!(violations(told), resurrected(8.0, "said to be over"));
    // Sent before, not acknowledged, of somebody else, or of a time when the login was not done.
    for innocent in [
        sign_out(Some(9.0)),
        sign_out(None),
        logout(by_sid(), 5.0, 7.0, None),
        logout(Target::Sid("another".to_owned()), 5.0, 7.0, Some(8.0)),
        logout(Target::Sub("bob".to_owned()), 5.0, 7.0, Some(8.0)),
        logout(by_sub(), 2.0, 7.0, Some(8.0)),
    ] {
        assert_eq!(violations([innocent, served(9.0)]), []);
    }
    // The login was on its way: begun before, and done after.
    for target in [by_sid(), by_sub()] {
        let overtaken = [logout(target, 0.2, 0.3, Some(0.9)), served(9.0)];
        assert_eq!(violations(overtaken), resurrected(0.9, "logout token"));
    }
}

#[test]
fn p2_what_is_presented_while_somebody_waits() {
    let first = || refresh("first", granted("second"), Fate::Delivered);
    let twice = Violation::PresentedTwice { token: "first".to_owned(), first: at(10.0), second: at(10.5) };
    assert_eq!(violations([first(), again("first", 10.5)]), std::slice::from_ref(&twice));
    for explained in [fault(Kind::Kill, 10.2, 12.0), fault(Kind::Stop, 9.0, 10.4)] {
        let (figures, violations) = story([first(), again("first", 10.5), explained]);
        assert_eq!((violations, figures.again.len()), (vec![], 1));
    }
    // A fault that was over before, of another replica, or too short for a lease to lapse.
    let other = Event::Fault(Fault { kind: Kind::Kill, replica: Some(1), from: at(10.2), to: at(12.0) });
    for unrelated in
        [fault(Kind::Kill, 8.0, 9.0), fault(Kind::Stop, 8.0, 9.0), fault(Kind::StoreCut, 10.0, 10.4), other]
    {
        assert_eq!(violations([first(), again("first", 10.5), unrelated]), std::slice::from_ref(&twice));
    }
}

#[test]
fn p3_a_token_that_was_delivered_and_is_not_used() {
    let first = |fate| refresh("first", granted("second"), fate);
    let lost = Violation::LostToken { token: "first".to_owned(), first: at(10.0), second: at(14.0) };
    assert_eq!(violations([first(Fate::Delivered), again("first", 14.0)]), std::slice::from_ref(&lost));
    assert_eq!(violations([first(Fate::Abandoned), again("first", 14.0)]), std::slice::from_ref(&lost));
    assert_eq!(violations([first(Fate::Cut), again("first", 14.0)]), []);
    for explained in [
        fault(Kind::Kill, 11.5, 13.0),
        fault(Kind::StoreFull, 10.5, 13.0),
        Event::Fault(Fault { kind: Kind::Failover, replica: None, from: at(10.5), to: at(13.0) }),
    ] {
        assert_eq!(violations([first(Fate::Delivered), again("first", 14.0), explained]), []);
    }
    // It had all the time to store it.
    let late = [first(Fate::Delivered), again("first", 30.0), fault(Kind::Kill, 20.0, 22.0)];
    assert!(matches!(violations(late)[..], [Violation::LostToken { .. }]));
    assert_eq!(violations([refresh("first", Said::Unavailable, Fate::Delivered), again("first", 14.0)]), []);
}

#[test]
fn p4_an_end_that_nobody_spoke() {
    let lost = Violation::Lost { local: ONE, at: at(9.1), reason: Some("refresh_token_rejected".to_owned()) };
    assert_eq!(violations([over(9.0)]), std::slice::from_ref(&lost));
    for word in [
        Event::SignOut { local: ONE, sent: at(8.0), acknowledged: None },
        Event::Callback { had: ONE, sent: at(8.0) },
        logout(by_sid(), 5.0, 8.0, None),
        logout(by_sub(), 5.0, 8.0, None),
        Event::ProviderEnd { sid: "sid".to_owned(), at: at(9.0) },
        token(Presented::RefreshToken("first".to_owned()), 8.0, 8.5, refused(), Fate::Delivered),
    ] {
        assert_eq!(violations([word, over(9.0)]), []);
    }
    for other in [
        Event::SignOut { local: Local(2), sent: at(8.0), acknowledged: None },
        Event::SignOut { local: ONE, sent: at(9.5), acknowledged: None },
        Event::Callback { had: Local(2), sent: at(8.0) },
        logout(Target::Sid("another".to_owned()), 5.0, 8.0, Some(8.5)),
        Event::ProviderEnd { sid: "another".to_owned(), at: at(8.0) },
        token(Presented::RefreshToken("another".to_owned()), 8.0, 8.5, refused(), Fate::Delivered),
        refresh("first", Said::Unavailable, Fate::Delivered),
    ] {
        assert_eq!(violations([other, over(9.0)]), std::slice::from_ref(&lost));
    }
}

#[test]
fn p13_a_replay_that_ends_a_login_after_it() {
    let code = Presented::Code("code".to_owned());
    let login = [
        token(code, 99.5, 99.6, granted("first"), Fate::Delivered),
        Event::Login { local: ONE, sub: "alice".to_owned(), code: "code".to_owned(), began: at(99.0), done: at(100.0) },
    ];
    for target in [by_sid(), by_sub()] {
        let events: Vec<_> =
            login.iter().cloned().chain([logout(target, 50.0, 105.0, Some(106.0)), over(107.0)]).collect();
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
    let stuck = Event::Stuck { sub: "alice".to_owned(), why: String::new() };
    assert!(matches!(violations([stuck])[..], [Violation::Stuck { .. }]));
    for fine in [Answer::Unavailable, Answer::Unconfirmed, Answer::Nothing] {
        assert_eq!(violations([answered(9.0, fine)]), []);
    }
}
