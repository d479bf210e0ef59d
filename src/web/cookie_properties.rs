//! Browsers that log in again and again, with whatever cookies of others between ours.

use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::protocol::authorization::Authentication;
use crate::protocol::names::{ClientId, Issuer, Subject};
use crate::session::end_reason::EndReason;
use crate::session::id::SubjectHash;
use crate::session::login_attempt::ReturnTo;
use crate::session::record::strategies::{cases, duration, moment};

fn registration(client: &str) -> Registration {
    Registration::new(Issuer::new("https://op"), ClientId::new(client))
}

fn cookies(client: &str, keys: &[u8]) -> Cookies {
    let keys: Vec<CookieKey> = keys.iter().map(|byte| CookieKey(vec![*byte; CookieKey::LENGTH])).collect();
    Cookies::new(&registration(client), &keys[0], &keys[1..], CookieKind::Host, "").unwrap()
}

fn state() -> impl Strategy<Value = String> {
    ("[A-Za-z0-9_-]{43}", any::<bool>()).prop_map(
        |(state, is_second)| {
            if is_second { format!("{state}{SECOND_ATTEMPT}") } else { state }
        },
    )
}

fn transaction() -> impl Strategy<Value = LoginTransaction> {
    let times = (moment(), option::of(moment()), option::of(moment()));
    let follows = option::of(select(EndReason::ALL.to_vec()));
    let linked = prop::collection::vec(("[a-z_]{1,10}", "\\PC{0,100}"), 0..2);
    (state(), "/[a-z?=&]{0,1200}", times, option::of(0..100_u64), follows, linked).prop_map(
        |(state, path, (started_at, began_at, seen), max_age, follows, linked)| LoginTransaction {
            state,
            nonce: "n".repeat(43),
            pkce_verifier: "v".repeat(43),
            return_to: ReturnTo::own(path),
            started_at,
            authentication: Authentication { max_age: max_age.map(Duration::from_secs), ..Authentication::default() },
            session: None,
            began_at,
            seen,
            follows: follows.map(|reason| EndMark {
                reason,
                subject: Some(SubjectHash::of(&registration("shop"), &Subject::new("alice"))),
            }),
            linked,
            dpop_jkt: None,
        },
    )
}

/// What others set: no name of ours.
fn junk() -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop::collection::vec(prop_oneof![0x20..=0x7e_u8, 0x80..=0xff_u8, Just(b'=')], 0..30);
    bytes.prop_filter("a header's bytes, and one cookie", |bytes| !bytes.contains(&b';') && !bytes.starts_with(b"__"))
}

/// The cookies of a browser, by name.
#[derive(Clone, Debug, Default)]
struct Browser(Vec<(String, String)>);

impl Browser {
    fn take(&mut self, set: &[HeaderValue]) {
        for set in set {
            let text = set.to_str().unwrap();
            assert!(text.starts_with("__Host-") && text.contains("; Secure") && text.contains("; HttpOnly"), "{text}");
            let (name, value) = text.split(';').next().unwrap().split_once('=').unwrap();
            self.0.retain(|(kept, _)| kept != name);
            if !text.contains("Max-Age=0") {
                self.0.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    /// A request, with the cookies of others before, between and after.
    fn headers(&self, junk: &[Vec<u8>]) -> HeaderMap {
        let mut all: Vec<Vec<u8>> = junk.to_vec();
        for (number, (name, value)) in self.0.iter().enumerate() {
            all.insert((number * 2 + 1).min(all.len()), format!("{name}={value}").into_bytes());
        }
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_bytes(&all.join(&b"; "[..])).unwrap());
        headers
    }
}

proptest! {
    #![proptest_config(cases(25))]

    #[test]
    fn p15_the_newest_attempt_is_found_and_all_are_bounded(
        logins in prop::collection::vec(transaction(), 1..25), junk in prop::collection::vec(junk(), 0..6),
    ) {
        let cookies = cookies("shop", &[1]);
        let mut browser = Browser::default();
        for login in &logins {
            browser.take(&cookies.set_login(&browser.headers(&junk), login));
            let headers = browser.headers(&junk);
            let found = cookies.login(&headers, &login.state, login.started_at).expect("the newest is there");
            let written = |login: &LoginTransaction| {
                let mut login = login.clone();
                // To the millisecond, rounded up: who has seen a logout has seen all of it.
                for time in [&mut login.began_at, &mut login.seen] {
                    *time = time.map(|time| {
                        let nanos = time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
                        let millis = u64::try_from(nanos.div_ceil(1_000_000)).unwrap();
                        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
                    });
                }
                serde_json::to_string(&login).unwrap()
            };
            prop_assert_eq!(serde_json::to_string(&found).unwrap(), written(login));
            let attempts = || browser.0.iter().filter(|(name, _)| name.starts_with(&cookies.login));
            let size: usize = attempts().map(|(name, value)| name.len() + value.len()).sum();
            // One alone may be longer.
            prop_assert!(attempts().count() <= MAX_LOGINS && (size <= MOST_LOGIN_BYTES || attempts().count() == 1));
            // It is for this application, with this key, in time, and for this state.
            let late = login.started_at + LOGIN_TIMEOUT;
            prop_assert!(cookies.login(&headers, &login.state, late).is_none());
            prop_assert!(self::cookies("shop", &[2]).login(&headers, &login.state, login.started_at).is_none());
            prop_assert!(self::cookies("shop", &[2, 1]).login(&headers, &login.state, login.started_at).is_some());
            prop_assert!(self::cookies("desk", &[1]).login(&headers, &login.state, login.started_at).is_none());
            let other = format!("{}{}", login.state.get(..42).unwrap(), if login.state.get(42..43) == Some("A") { "B" } else { "A" });
            prop_assert!(cookies.login(&headers, &other, login.started_at).is_none());
        }
        // Spent, it is gone, and the others are not.
        let last = logins.last().unwrap();
        let before = browser.0.len();
        browser.take(cookies.remove_login(&last.state).as_slice());
        prop_assert_eq!(browser.0.len(), before - 1);
        prop_assert!(cookies.login(&browser.headers(&junk), &last.state, last.started_at).is_none());
    }
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn the_session_is_found_among_whatever_others(
        id in "[A-Za-z0-9_-]{43}", junk in prop::collection::vec(junk(), 0..6), later in duration(),
    ) {
        let cookies = cookies("shop", &[1]);
        let id = SessionId::parse(id.as_bytes()).unwrap();
        let mut browser = Browser::default();
        prop_assert!(matches!(cookies.session(&browser.headers(&junk)[COOKIE]), Presented::Nothing));
        browser.take(&[cookies.set_session(&id, None)]);
        let headers = browser.headers(&junk);
        prop_assert!(matches!(cookies.session(&headers[COOKIE]), Presented::Id(found) if found == id));
        // The application beside it has another.
        prop_assert!(matches!(self::cookies("desk", &[1]).session(&headers[COOKIE]), Presented::Nothing));
        browser.take(&[cookies.remove_session()]);
        prop_assert!(matches!(cookies.session(&browser.headers(&junk)[COOKIE]), Presented::Nothing));
        // Any later, and nobody has been led on, or is bound to a form.
        prop_assert!(!cookies.was_led_on(&headers) && cookies.form(&headers).is_none());
        prop_assert!(cookies.login(&headers, "", SystemTime::UNIX_EPOCH + later).is_none());
    }

    #[test]
    fn p9_what_is_sealed_for_one_purpose_is_none_for_another(
        login in transaction(), reason in select(EndReason::ALL.to_vec()), at in any::<prop::sample::Index>(),
    ) {
        let cookies = cookies("shop", &[1]);
        let noted = Noted { key: SessionKey::from_bytes([7; 32]), mark: EndMark { reason, subject: None } };
        let mut browser = Browser::default();
        browser.take(&[cookies.set_ended(&noted).unwrap()]);
        let read = cookies.ended(&browser.headers(&[])).unwrap();
        prop_assert_eq!((read.key, read.mark), (noted.key, noted.mark));
        let sealed = browser.0[0].1.clone();
        prop_assert!(cookies.open_form(&sealed).is_none());
        prop_assert!(cookies.open_cookie(&cookies.login_name(&login.state).unwrap(), &sealed).is_none());
        // Nor is anything that somebody has changed.
        let at = at.index(sealed.len());
        let changed = format!("{}{}{}", &sealed[..at], if &sealed[at..=at] == "A" { "B" } else { "A" }, &sealed[at + 1..]);
        browser.0[0].1 = changed;
        prop_assert!(cookies.ended(&browser.headers(&[])).is_none());
    }
}
