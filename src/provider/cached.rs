//! Something of the provider's that is fetched rarely: its metadata, its keys.
//!
//! One fetch at a time, a pause between fetches, and the last good copy for as long as no newer one can be had.

use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::sync::Mutex;

/// A copy is renewed on use when it is this old.
const MAX_AGE: Duration = Duration::from_secs(60 * 60);
/// After a fetch that failed, the next one waits this long.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// A fetch that was forced by an unknown key comes at most once in this time.
const PAUSE_BETWEEN_FORCED: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Cached<T> {
    copy: RwLock<Option<Fetched<T>>>,
    /// Held while fetching.
    attempts: Mutex<Attempts>,
}

#[derive(Debug)]
pub(crate) struct Fetched<T> {
    pub(crate) value: Arc<T>,
    fetched_at: SystemTime,
}

impl<T> Clone for Fetched<T> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), fetched_at: self.fetched_at }
    }
}

#[derive(Debug, Default)]
struct Attempts {
    failed_at: Option<SystemTime>,
    forced_at: Option<SystemTime>,
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
        Self { copy: RwLock::new(None), attempts: Mutex::default() }
    }

    /// The copy, however old, if there is one.
    pub(crate) fn peek(&self) -> Option<Fetched<T>> {
        self.copy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A copy of at most an hour's age; an older one if a newer cannot be had; `None` if there is none at all.
    ///
    /// # Cancel safety
    /// The fetch is dropped with the future, and the next caller starts another.
    pub(crate) async fn get<F: Future<Output = Option<T>>>(
        &self,
        now: SystemTime,
        fetch: impl FnOnce() -> F,
    ) -> Option<Fetched<T>> {
        let fresh = |copy: &Fetched<T>| now.duration_since(copy.fetched_at).unwrap_or_default() < MAX_AGE;
        if let Some(copy) = self.peek().filter(fresh) {
            return Some(copy);
        }
        let mut attempts = self.attempts.lock().await;
        let copy = self.peek();
        if copy.as_ref().is_some_and(fresh) || is_within(attempts.failed_at, PAUSE_AFTER_FAILURE, now) {
            return copy;
        }
        self.fetch(&mut attempts, now, fetch).await.or(copy)
    }

    /// A newer copy than `than`, because a token names a key that is not in it.
    ///
    /// # Cancel safety
    /// As [`get`](Self::get); the pause counts from the attempt.
    pub(crate) async fn newer<F: Future<Output = Option<T>>>(
        &self,
        than: &Fetched<T>,
        now: SystemTime,
        fetch: impl FnOnce() -> F,
    ) -> Newer<T> {
        let mut attempts = self.attempts.lock().await;
        if let Some(copy) = self.peek().filter(|copy| !Arc::ptr_eq(&copy.value, &than.value)) {
            return Newer::Found(copy);
        }
        if is_within(attempts.forced_at, PAUSE_BETWEEN_FORCED, now) {
            return Newer::TooSoon;
        }
        // Before the fetch, so that one that is cancelled counts too.
        attempts.forced_at = Some(now);
        self.fetch(&mut attempts, now, fetch).await.map_or(Newer::Unavailable, Newer::Found)
    }

    async fn fetch<F: Future<Output = Option<T>>>(
        &self,
        attempts: &mut Attempts,
        now: SystemTime,
        fetch: impl FnOnce() -> F,
    ) -> Option<Fetched<T>> {
        attempts.failed_at = Some(now);
        let copy = Fetched { value: Arc::new(fetch().await?), fetched_at: now };
        attempts.failed_at = None;
        *self.copy.write().unwrap_or_else(PoisonError::into_inner) = Some(copy.clone());
        Some(copy)
    }
}

fn is_within(since: Option<SystemTime>, pause: Duration, now: SystemTime) -> bool {
    since.and_then(|since| now.duration_since(since).ok()).is_some_and(|passed| passed < pause)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A peer that answers with how often it was asked, or not.
    #[derive(Default)]
    struct Peer {
        asked: Cell<u32>,
        is_down: Cell<bool>,
    }

    impl Peer {
        fn fetch(&self) -> std::future::Ready<Option<u32>> {
            self.asked.set(self.asked.get() + 1);
            std::future::ready((!self.is_down.get()).then(|| self.asked.get()))
        }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[tokio::test]
    async fn a_copy_serves_for_an_hour_and_longer_if_there_is_no_newer() {
        let (cached, peer) = (Cached::new(), Peer::default());
        for (seconds, is_down, expected, asked) in [
            (0, true, None, 1),
            (0, false, None, 1),
            (1, false, Some(2), 2),
            (3600, false, Some(2), 2),
            (3601, true, Some(2), 3),
            (3601, false, Some(2), 3),
            (3602, false, Some(4), 4),
        ] {
            peer.is_down.set(is_down);
            let copy = cached.get(at(seconds), || peer.fetch()).await;
            assert_eq!((copy.map(|copy| *copy.value), peer.asked.get()), (expected, asked), "{seconds} {is_down}");
        }
    }

    #[tokio::test]
    async fn p6_a_newer_copy_is_asked_for_once_in_half_a_minute() {
        let (cached, peer) = (Cached::new(), Peer::default());
        let first = cached.get(at(0), || peer.fetch()).await.unwrap();
        for (seconds, is_down, expected) in [
            (1, false, "found 2"),
            // Who has the first copy is served by the second.
            (2, false, "found 2"),
            (30, true, "found 2"),
        ] {
            peer.is_down.set(is_down);
            assert_eq!(describe(&cached.newer(&first, at(seconds), || peer.fetch()).await), expected, "{seconds}");
        }
        peer.is_down.set(false);
        let second = cached.peek().unwrap();
        for (seconds, is_down, expected, asked) in [
            (30, false, "too soon", 2),
            (31, true, "unavailable", 3),
            (60, false, "too soon", 3),
            (61, false, "found 4", 4),
        ] {
            peer.is_down.set(is_down);
            let found = describe(&cached.newer(&second, at(seconds), || peer.fetch()).await);
            assert_eq!((found.as_str(), peer.asked.get()), (expected, asked), "{seconds} {is_down}");
        }
    }

    fn describe(newer: &Newer<u32>) -> String {
        match newer {
            Newer::Found(copy) => format!("found {}", copy.value),
            Newer::TooSoon => "too soon".to_owned(),
            Newer::Unavailable => "unavailable".to_owned(),
        }
    }
}
