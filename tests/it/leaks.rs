//! P9 over all tests: what leaves is searched for every secret that any test has used or seen.
//!
//! What leaves: what the crate logs, at trace, with its spans; names and labels of metrics; `Debug` of what applications hold,
//! of events, records and errors; what browsers get from applications, but for what is theirs: the values of `Set-Cookie`, and
//! in `Location` the parameters that carry a secret to where it belongs.
//!
//! A test runs on a thread of its own, with all tasks of its runtime: what leaves there is kept until its world is dropped, or
//! the thread ends, and then searched. Secrets are everybody's.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::Write;
use std::sync::{LazyLock, Mutex, Once};

use http::StatusCode;
use http::header::{LOCATION, SET_COOKIE};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tower_oidc_session::test_provider::{TestProvider, TestProviderBuilder};
use tracing_subscriber::fmt::format::FmtSpan;
use url::Url;

use crate::browser::Page;

/// A secret is taken to pieces of this length: one that was cut short, or escaped in between, is found as well.
const PIECE: usize = 16;

/// More of one test is searched on the way, for the secrets that are known by then.
const KEPT: usize = 16 << 20;

type Piece = [u8; PIECE];

static SECRETS: LazyLock<Mutex<HashSet<Piece>>> = LazyLock::new(Mutex::default);

/// What left on a thread.
#[derive(Default)]
struct Left(Vec<u8>);

thread_local! {
    static LEFT: RefCell<Left> = RefCell::default();
}

impl Left {
    /// Where a secret stands, with what is around it.
    fn find(&self) -> Option<String> {
        let secrets = SECRETS.lock().unwrap();
        let piece = pieces(&self.0).find(|(_, piece)| secrets.contains(*piece));
        piece.map(|(at, _)| {
            let before = String::from_utf8_lossy(&self.0[at.saturating_sub(300)..at]);
            let after = String::from_utf8_lossy(&self.0[at..(at + 100).min(self.0.len())]);
            format!("a secret leaves: {before}>>>>{after}")
        })
    }
}

impl Drop for Left {
    /// The end of the thread: its test has been judged by now, so that nothing but the whole run can fail.
    #[expect(clippy::print_stderr, reason = "nobody can be told otherwise")]
    fn drop(&mut self) {
        if let Some(found) = self.find() {
            eprintln!("{:?}: {found}", std::thread::current().name());
            std::process::abort();
        }
    }
}

fn is_of_tokens(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// Whatever may be a piece of a secret, and where.
fn pieces(bytes: &[u8]) -> impl Iterator<Item = (usize, &Piece)> {
    let start = bytes.as_ptr() as usize;
    let words = bytes.split(|byte| !is_of_tokens(*byte)).filter(|word| word.len() >= PIECE);
    words.flat_map(move |word| {
        let at = word.as_ptr() as usize - start;
        word.windows(PIECE).enumerate().map(move |(index, piece)| (at + index, piece.try_into().unwrap()))
    })
}

/// Remembers a secret. Short ones are words, or what a test made up.
pub(crate) fn secret(secret: &str) {
    let secret = match secret.split_once('.') {
        // The header of a JWT is none.
        Some((header, rest)) if header.starts_with("eyJ") => rest,
        _ => secret,
    };
    let words = secret.as_bytes().split(|byte| !is_of_tokens(*byte));
    let pieces = words.flat_map(|word| word.chunks_exact(PIECE)).map(|piece| Piece::try_from(piece).unwrap());
    SECRETS.lock().unwrap().extend(pieces);
}

/// Whether there is a secret in what lies somewhere.
pub(crate) fn has_a_secret(bytes: &[u8]) -> bool {
    let secrets = SECRETS.lock().unwrap();
    pieces(bytes).any(|(_, piece)| secrets.contains(piece))
}

/// Keeps what leaves.
pub(crate) fn left(bytes: &[u8]) {
    // What comes while the thread ends is late even for that.
    let _ = LEFT.try_with(|left| {
        let bytes_left = &mut left.borrow_mut().0;
        bytes_left.extend_from_slice(bytes);
        bytes_left.push(b'\n');
    });
    if LEFT.try_with(|left| left.borrow().0.len() > KEPT).unwrap_or_default() {
        search();
    }
}

/// Searches when it is dropped.
pub(crate) struct Search;

impl Drop for Search {
    fn drop(&mut self) {
        search();
    }
}

/// Searches what has left on this thread, and forgets it.
fn search() {
    let mut left = LEFT.take();
    let found = left.find();
    // It has been searched.
    left.0.clear();
    if let Some(found) = found {
        assert!(std::thread::panicking(), "{found}");
    }
}

/// Takes what a browser got: from a page what is shown, and the headers.
pub(crate) fn page(page: &Page) {
    for (name, value) in &page.headers {
        if name != SET_COOKIE && name != LOCATION {
            left(value.as_bytes());
        }
    }
    // There the tests' application shows claims and token, for them to look at.
    if !["/me", "/poll"].contains(&page.url.path()) || page.status != StatusCode::OK {
        left(page.body.as_bytes());
    }
}

/// Takes the cookies that a browser got for secrets, and what a redirect carries to where it belongs.
pub(crate) fn headers(url: &Url, headers: &http::HeaderMap) {
    for cookie in headers.get_all(SET_COOKIE) {
        let cookie = cookie::Cookie::parse(cookie.to_str().unwrap()).unwrap();
        // The provider shows what is secret in its own.
        if !cookie.name().starts_with("op_session") {
            secret(cookie.value());
        }
        left(cookie.name().as_bytes());
    }
    let Some(to) = headers.get(LOCATION).and_then(|to| url.join(to.to_str().ok()?).ok()) else { return };
    left(to.path().as_bytes());
    for (name, value) in to.query_pairs() {
        match &*name {
            "code" | "code_challenge" | "id_token_hint" | "nonce" | "state" => secret(&value),
            _ => left(value.as_bytes()),
        }
    }
}

/// A provider whose secrets are known.
pub(crate) fn provider() -> TestProviderBuilder {
    watch();
    TestProvider::builder().on_secret(secret)
}

/// Logs of all threads that have no subscriber of their own, and metrics.
fn watch() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter("trace")
            .with_ansi(false)
            .without_time()
            .with_span_events(FmtSpan::NEW | FmtSpan::CLOSE)
            .with_writer(|| Logged)
            .finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
        metrics::set_global_recorder(Metrics).unwrap();
    });
}

struct Logged;

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        left(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Metrics;

fn take(key: &Key) {
    left(key.to_string().as_bytes());
}

impl Recorder for Metrics {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        take(key);
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        take(key);
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        take(key);
        Histogram::noop()
    }
}

#[test]
fn p9_what_leaves_is_found() {
    let found = |known: &str, text: &str| {
        secret(known);
        let mut left = Left(text.as_bytes().to_vec());
        let found = left.find().is_some();
        left.0.clear();
        found
    };
    // Of this test alone, as all others would find them.
    let opaque = "Gx1yZ0-leaks-Rk8_Qm4tN6vB2cD7wE9";
    assert!(found(opaque, &format!("{{\"token\":\"{opaque}\"}}")), "as it is");
    assert!(found(opaque, &format!("cut: {}…", &opaque[..20])), "its beginning");
    assert!(found(opaque, &format!("prefix{}", &opaque[10..])), "its end");
    assert!(!found(opaque, "leaks, Gx1yZ0"), "words");
    let jwt = "eyJhbGciOiJSUzI1NiJ9-leaks.eyJzdWIiOiJsZWFrcyJ9-leaks.c2lnbmF0dXJlIG9mIGxlYWtz-leaks";
    for part in [1, 2] {
        let part = jwt.split('.').nth(part).unwrap();
        assert!(found(jwt, part), "{part}");
    }
    assert!(!found(jwt, jwt.split('.').next().unwrap()), "the header is everybody's");
    let sealed = "Zm9v+YmFyYmF6cXV4cXV1eA/leaks_leaks_leaks=";
    assert!(found(sealed, &sealed.replace('+', "%2B").replace('/', "%2F")), "escaped");
    assert!(!found("secret", "it is secret"), "short ones are words");
}
