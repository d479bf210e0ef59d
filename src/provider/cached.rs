//! Something of the provider's that is fetched rarely: its metadata, its keys.
//!
//! 1. A good copy is served at once; when it is an hour old, one fetch in the background renews it.
//! 2. One fetch at a time: who needs its result joins it.
//! 3. After a fetch that failed nobody asks for a while, which grows, counted from the fetch's end.
//! 4. The last good copy stays for as long as no newer one can be had.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::sync::Mutex;

use super::circuit::Pause;
use crate::clock::{Clock, is_within};

/// A copy is renewed on use when it is this old.
const MAX_AGE: Duration = Duration::from_secs(60 * 60);
/// Or dated later than now by more than this: the clock was set.
const AHEAD: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Cached<T> {
    copy: RwLock<Option<Fetched<T>>>,
    /// How many fetches have begun.
    begun: AtomicU64,
    /// Held while fetching.
    attempts: Mutex<Attempts>,
}

#[derive(Debug)]
pub(crate) struct Fetched<T> {
    pub(crate) value: Arc<T>,
    dated: SystemTime,
    /// The how manieth fetch brought it.
    number: u64,
}

/// When somebody came, counted in fetches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived(u64);

impl<T> Clone for Fetched<T> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), dated: self.dated, number: self.number }
    }
}

impl<T> Fetched<T> {
    /// Whether the copy is this old. One that is dated later than now is not.
    pub(crate) fn is_older_than(&self, age: Duration, now: SystemTime) -> bool {
        now.duration_since(self.dated).is_ok_and(|passed| passed >= age)
    }

    /// Whether it was asked for after somebody had come: it has what there was by then.
    pub(crate) fn is_asked_for_after(&self, arrived: Arrived) -> bool {
        self.number > arrived.0
    }

    /// Whether the clock was ahead then: nobody knows how old it is.
    fn is_of_the_future(&self, now: SystemTime) -> bool {
        self.dated.duration_since(now).is_ok_and(|ahead| ahead > AHEAD)
    }
}

#[derive(Debug, Default)]
struct Attempts {
    /// After a fetch that failed.
    pause: Pause,
    /// When an unknown key, or an endpoint that is gone, last brought a fetch that succeeded.
    forced_at: Option<SystemTime>,
}

/// What there is.
#[derive(Debug)]
pub(crate) enum Held<T> {
    Good(Fetched<T>),
    /// Good still, but it is time to renew it.
    Due(Fetched<T>),
    Nothing,
}

/// What came of asking for something newer than a copy.
#[derive(Debug)]
pub(crate) enum Newer<T> {
    /// Here it is.
    Found(Fetched<T>),
    /// It was asked for only a moment ago.
    TooSoon,
    /// It could not be fetched.
    Unavailable,
}

impl<T> Cached<T> {
    pub(crate) fn new() -> Self {
        Self { copy: RwLock::new(None), begun: AtomicU64::new(0), attempts: Mutex::default() }
    }

    /// Now, counted in fetches.
    pub(crate) fn arrived(&self) -> Arrived {
        Arrived(self.begun.load(Ordering::Relaxed))
    }

    /// The copy, however old, if there is one.
    pub(crate) fn peek(&self) -> Option<Fetched<T>> {
        self.copy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn held(&self, now: SystemTime) -> Held<T> {
        match self.peek() {
            Some(copy) if copy.is_older_than(MAX_AGE, now) || copy.is_of_the_future(now) => Held::Due(copy),
            Some(copy) => Held::Good(copy),
            None => Held::Nothing,
        }
    }

    /// A copy that came after `than`, by a fetch of ours or of somebody else's.
    ///
    /// # Cancel safety
    /// The fetch is dropped with the future, and the next caller starts another.
    pub(crate) async fn renew<F: Future<Output = Option<T>>>(
        &self,
        than: Option<&Fetched<T>>,
        clock: &dyn Clock,
        fetch: impl FnOnce() -> F,
    ) -> Newer<T> {
        let mut attempts = self.attempts.lock().await;
        match self.newer_than(than) {
            Some(newer) => Newer::Found(newer),
            None if attempts.pause.check(clock.now()).is_err() => Newer::TooSoon,
            None => self.fetch(&mut attempts, clock, fetch).await,
        }
    }

    /// The same where something speaks for a newer one: a token names a key that is not in the copy, an endpoint is gone.
    /// A fetch that succeeded is followed by another for this no sooner than `interval` later.
    ///
    /// # Cancel safety
    /// As [`renew`](Self::renew).
    pub(crate) async fn force<F: Future<Output = Option<T>>>(
        &self,
        than: &Fetched<T>,
        interval: Duration,
        clock: &dyn Clock,
        fetch: impl FnOnce() -> F,
    ) -> Newer<T> {
        let mut attempts = self.attempts.lock().await;
        if let Some(newer) = self.newer_than(Some(than)) {
            return Newer::Found(newer);
        }
        let now = clock.now();
        let was_forced = attempts.forced_at.is_some_and(|at| is_within(at, interval, now));
        if was_forced || attempts.pause.check(now).is_err() {
            return Newer::TooSoon;
        }
        let newer = self.fetch(&mut attempts, clock, fetch).await;
        if let Newer::Found(_) = newer {
            attempts.forced_at = Some(now);
        }
        newer
    }

    fn newer_than(&self, than: Option<&Fetched<T>>) -> Option<Fetched<T>> {
        self.peek().filter(|copy| than.is_none_or(|than| !Arc::ptr_eq(&copy.value, &than.value)))
    }

    async fn fetch<F: Future<Output = Option<T>>>(
        &self,
        attempts: &mut Attempts,
        clock: &dyn Clock,
        fetch: impl FnOnce() -> F,
    ) -> Newer<T> {
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let fetched = fetch().await;
        let now = clock.now();
        let Some(value) = fetched else {
            attempts.pause.failed(now, None);
            return Newer::Unavailable;
        };
        attempts.pause = Pause::default();
        let copy = Fetched { value: Arc::new(value), dated: now, number };
        *self.copy.write().unwrap_or_else(PoisonError::into_inner) = Some(copy.clone());
        Newer::Found(copy)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32};

    use super::*;
    use crate::clock::Sleep;

    /// A clock that shows so many seconds.
    #[derive(Debug, Default)]
    struct Seconds(AtomicU64);

    impl Clock for Seconds {
        fn now(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.load(Ordering::Relaxed))
        }

        fn sleep_until(&self, _: SystemTime) -> Sleep {
            Box::pin(std::future::pending())
        }
    }

    /// A peer that answers with how often it was asked, or not.
    #[derive(Default)]
    struct Peer {
        clock: Seconds,
        asked: AtomicU32,
        is_down: AtomicBool,
    }

    impl Peer {
        fn fetch(&self) -> std::future::Ready<Option<u32>> {
            let asked = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
            std::future::ready((!self.is_down.load(Ordering::Relaxed)).then_some(asked))
        }

        fn set(&self, seconds: u64, is_down: bool) {
            self.clock.0.store(seconds, Ordering::Relaxed);
            self.is_down.store(is_down, Ordering::Relaxed);
        }
    }

    fn describe(newer: &Newer<u32>) -> String {
        match newer {
            Newer::Found(copy) => format!("found {}", copy.value),
            Newer::TooSoon => "too soon".to_owned(),
            Newer::Unavailable => "unavailable".to_owned(),
        }
    }

    #[tokio::test]
    async fn p4_pauses_after_failures_grow_to_four_seconds_and_a_success_ends_them() {
        let (cached, peer) = (Cached::new(), Peer::default());
        for (seconds, is_down, expected) in [
            (0, true, "unavailable"),
            (0, false, "too soon"),
            (1, true, "unavailable"),
            (2, true, "too soon"),
            (3, true, "unavailable"),
            (6, true, "too soon"),
            (7, true, "unavailable"),
            (10, true, "too soon"),
            (11, false, "found 5"),
        ] {
            peer.set(seconds, is_down);
            let newer = cached.renew(None, &peer.clock, || peer.fetch()).await;
            assert_eq!(describe(&newer), expected, "{seconds} {is_down}");
        }
        let copy = cached.peek().unwrap();
        peer.set(12, true);
        assert_eq!(describe(&cached.renew(Some(&copy), &peer.clock, || peer.fetch()).await), "unavailable");
        assert_eq!(*cached.peek().unwrap().value, 5, "the good copy stays");
        // A clock that was set back ends the pause.
        peer.set(0, false);
        assert_eq!(describe(&cached.renew(Some(&copy), &peer.clock, || peer.fetch()).await), "found 7");
    }

    #[tokio::test]
    async fn a_copy_is_due_after_an_hour() {
        let (cached, peer) = (Cached::new(), Peer::default());
        assert!(matches!(cached.held(peer.clock.now()), Held::Nothing));
        peer.set(10, false);
        cached.renew(None, &peer.clock, || peer.fetch()).await;
        for (seconds, is_due) in [(10, false), (3609, false), (3610, true)] {
            peer.set(seconds, false);
            assert_eq!(matches!(cached.held(peer.clock.now()), Held::Due(_)), is_due, "{seconds}");
        }
        // A clock that was ahead says nothing of its age.
        let copy = cached.peek().unwrap();
        peer.set(100, false);
        cached.renew(Some(&copy), &peer.clock, || peer.fetch()).await;
        for (seconds, is_due) in [(69, true), (70, false)] {
            peer.set(seconds, false);
            assert_eq!(matches!(cached.held(peer.clock.now()), Held::Due(_)), is_due, "{seconds}");
        }
    }

    #[tokio::test]
    async fn p6_what_was_asked_for_before_somebody_came_is_known_as_such() {
        let (cached, peer) = (Cached::new(), Peer::default());
        let (begun, go_on) = (tokio::sync::Notify::new(), tokio::sync::Notify::new());
        let slow = cached.renew(None, &peer.clock, || async {
            begun.notify_one();
            go_on.notified().await;
            peer.fetch().await
        });
        let meanwhile = async {
            begun.notified().await;
            let arrived = cached.arrived();
            go_on.notify_one();
            let Newer::Found(joined) = cached.renew(None, &peer.clock, || peer.fetch()).await else { panic!("none") };
            (arrived, joined)
        };
        let (_, (arrived, joined)) = futures_util::future::join(slow, meanwhile).await;
        assert!(!joined.is_asked_for_after(arrived));
        let Newer::Found(later) = cached.renew(Some(&joined), &peer.clock, || peer.fetch()).await else {
            panic!("none")
        };
        assert!(later.is_asked_for_after(arrived));
        assert_eq!((*joined.value, *later.value), (1, 2));
    }

    #[tokio::test]
    async fn p6_what_is_forced_is_so_once_in_an_interval_and_only_a_success_begins_it() {
        let (cached, peer) = (Cached::new(), Peer::default());
        cached.renew(None, &peer.clock, || peer.fetch()).await;
        let first = cached.peek().unwrap();
        let interval = Duration::from_secs(30);
        for (seconds, is_down, expected) in [
            (1, true, "unavailable"),
            (2, false, "found 3"),
            // Who has the first copy is served by the newer one.
            (3, true, "found 3"),
        ] {
            peer.set(seconds, is_down);
            let newer = cached.force(&first, interval, &peer.clock, || peer.fetch()).await;
            assert_eq!(describe(&newer), expected, "{seconds}");
        }
        let second = cached.peek().unwrap();
        for (seconds, expected) in [(3, "too soon"), (31, "too soon"), (32, "found 4")] {
            peer.set(seconds, false);
            let newer = cached.force(&second, interval, &peer.clock, || peer.fetch()).await;
            assert_eq!(describe(&newer), expected, "{seconds}");
        }
    }

    #[tokio::test]
    async fn p4_who_comes_while_a_fetch_is_under_way_joins_it() {
        let (cached, peer) = (Cached::new(), Peer::default());
        let gate = tokio::sync::Notify::new();
        let slow = cached.renew(None, &peer.clock, || async {
            gate.notified().await;
            peer.fetch().await
        });
        let joins = async {
            gate.notify_one();
            cached.renew(None, &peer.clock, || peer.fetch()).await
        };
        let (slow, joined) = futures_util::future::join(slow, joins).await;
        assert_eq!((describe(&slow).as_str(), describe(&joined).as_str()), ("found 1", "found 1"));
    }
}
