//! Who sends a request, for the audit log; and how much strangers may make it say.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::header::USER_AGENT;
use http::{Extensions, HeaderMap};

use crate::clock::is_within;
use crate::session::browser::Browser;

/// Says where a request comes from.
pub(crate) type ClientAddress = dyn Fn(&HeaderMap, &Extensions) -> Option<IpAddr> + Send + Sync;

/// Real ones are shorter; what is longer is somebody's joke on the audit log.
const LONGEST_USER_AGENT: usize = 256;

pub(crate) fn browser(address: Option<&ClientAddress>, headers: &HeaderMap, extensions: &Extensions) -> Browser {
    let user_agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
    Browser {
        address: address.and_then(|address| address(headers, extensions)),
        user_agent: user_agent.map(|text| text.chars().filter(|c| !c.is_control()).take(LONGEST_USER_AGENT).collect()),
    }
}

/// Anybody may send junk to the routes; it makes so many lines in this time at most.
const WINDOW: Duration = Duration::from_secs(60);
/// Enough to see what it is.
const MOST_LINES: u64 = 60;

/// Counts the lines that strangers cause.
#[derive(Debug, Default)]
pub(crate) struct Junk {
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    began: Option<SystemTime>,
    lines: u64,
}

/// Whether one more line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// It is; so many were not, in the window before.
    Written {
        unwritten: u64,
    },
    Unwritten,
}

impl Junk {
    pub(crate) fn line(&self, now: SystemTime) -> Line {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unwritten = 0;
        if window.began.is_none_or(|began| !is_within(began, WINDOW, now)) {
            unwritten = window.lines.saturating_sub(MOST_LINES);
            *window = Window { began: Some(now), lines: 0 };
        }
        window.lines += 1;
        if window.lines <= MOST_LINES { Line::Written { unwritten } } else { Line::Unwritten }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p12_junk_makes_a_bounded_number_of_lines_and_says_how_many_it_did_not() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let junk = Junk::default();
        let written = |seconds, count| (0..count).filter(|_| junk.line(at(seconds)) != Line::Unwritten).count();
        assert_eq!(written(0, 50), 50);
        assert_eq!(written(59, 1000), 10);
        assert_eq!(junk.line(at(60)), Line::Written { unwritten: 990 });
        assert_eq!(junk.line(at(61)), Line::Written { unwritten: 0 });
        assert_eq!(written(90, 100), 58);
        // A clock that was set back is no reason for silence.
        assert_eq!(junk.line(at(10)), Line::Written { unwritten: 42 });
    }

    #[test]
    fn a_browser_calls_itself_what_can_be_shown() {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, "x".repeat(1000).parse().unwrap());
        let found = browser(Some(&|_, _| Some([127, 0, 0, 1].into())), &headers, &Extensions::new());
        assert_eq!(found.user_agent().map(str::len), Some(LONGEST_USER_AGENT));
        assert_eq!(found.address(), Some([127, 0, 0, 1].into()));
        assert_eq!(browser(None, &HeaderMap::new(), &Extensions::new()), Browser::default());
    }
}
