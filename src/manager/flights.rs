//! One piece of work at a time for a key: who comes while it is under way awaits it too.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Work that goes on whoever goes away.
#[derive(Clone)]
pub(crate) struct Flight<V> {
    pub(crate) began_at: SystemTime,
    /// `None` if it crashed.
    pub(crate) landing: Shared<BoxFuture<'static, Option<V>>>,
}

/// The work that is under way in this process.
pub(crate) struct SingleFlight<K, V> {
    under_way: Mutex<HashMap<K, Flight<V>>>,
}

impl<K, V> SingleFlight<K, V>
where
    K: Copy + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { under_way: Mutex::default() })
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<K, Flight<V>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose work is under way.
    pub(crate) fn under_way_keys(&self) -> Vec<K> {
        self.under_way().keys().copied().collect()
    }

    /// Joins the work for `key`, or begins it with what `lead` gives, unless that is an error.
    pub(crate) fn join_or_lead<W, E>(
        self: &Arc<Self>,
        key: K,
        now: SystemTime,
        spawn: impl FnOnce(BoxFuture<'static, V>) -> JoinHandle<V>,
        lead: impl FnOnce() -> Result<W, E>,
    ) -> Result<Flight<V>, E>
    where
        W: Future<Output = V> + Send + 'static,
    {
        let mut under_way = self.under_way();
        if let Some(flight) = under_way.get(&key) {
            return Ok(flight.clone());
        }
        let work = lead()?;
        let (begun, task) = oneshot::channel::<JoinHandle<V>>();
        let landing = async move { task.await.ok()?.await.ok() }.boxed().shared();
        let flight = Flight { began_at: now, landing };
        under_way.insert(key, flight.clone());
        // A runtime that is about to end drops the work at once, which takes it off the list.
        drop(under_way);
        let landing = Landing { flights: self.clone(), key };
        let task = spawn(
            async move {
                // Dropped, and so off the list, before anybody hears of the result, even if the work panics.
                let _landing = landing;
                work.await
            }
            .boxed(),
        );
        // Nobody waits if it is not taken.
        let _ = begun.send(task);
        Ok(flight)
    }
}

struct Landing<K: Copy + Eq + Hash + Send + 'static, V: Clone + Send + Sync + 'static> {
    flights: Arc<SingleFlight<K, V>>,
    key: K,
}

impl<K: Copy + Eq + Hash + Send + 'static, V: Clone + Send + Sync + 'static> Drop for Landing<K, V> {
    fn drop(&mut self) {
        self.flights.under_way().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    fn lead<W: Future<Output = usize> + Send + 'static>(
        flights: &Arc<SingleFlight<u8, usize>>,
        key: u8,
        work: W,
    ) -> Shared<BoxFuture<'static, Option<usize>>> {
        let Ok(flight) = flights.join_or_lead(key, SystemTime::UNIX_EPOCH, tokio::spawn, || Ok::<_, Infallible>(work));
        flight.landing
    }

    #[test]
    fn p14_a_runtime_that_ends_drops_work_without_hanging() {
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let flights = SingleFlight::new();
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let handle = runtime.handle().clone();
            drop(runtime);
            let spawn = |work| handle.spawn(work);
            let begun = flights.join_or_lead(1, SystemTime::UNIX_EPOCH, spawn, || Ok::<_, Infallible>(async { 1 }));
            let Ok(flight) = begun;
            done.send((flight.landing.now_or_never(), flights.under_way_keys())).unwrap();
        });
        let dropped = is_done.recv_timeout(std::time::Duration::from_secs(10)).expect("it does not hang");
        assert_eq!(dropped, (Some(None), Vec::<u8>::new()));
    }

    #[tokio::test]
    async fn who_comes_meanwhile_joins_and_who_comes_later_leads() {
        let flights = SingleFlight::new();
        let (begun, go_on) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let work = || {
            let (begun, go_on) = (begun.clone(), go_on.clone());
            async move {
                let number = begun.fetch_add(1, Ordering::Relaxed);
                go_on.notified().await;
                number
            }
        };
        let (first, second) = (lead(&flights, 1, work()), lead(&flights, 1, work()));
        assert_eq!(flights.under_way_keys(), [1]);
        go_on.notify_one();
        assert_eq!((first.await, second.await), (Some(0), Some(0)));
        go_on.notify_one();
        assert_eq!(lead(&flights, 1, work()).await, Some(1));
        assert!(flights.under_way().is_empty());
    }

    #[tokio::test]
    async fn keys_do_not_wait_for_each_other() {
        let flights = SingleFlight::new();
        let never = lead(&flights, 1, std::future::pending());
        assert_eq!(lead(&flights, 2, async { 7 }).await, Some(7));
        assert_eq!(never.now_or_never(), None);
    }

    #[tokio::test]
    async fn work_goes_on_when_all_who_wait_have_gone() {
        let flights = SingleFlight::new();
        let (go_on, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        drop(lead(&flights, 1, {
            let (go_on, done) = (go_on.clone(), done.clone());
            async move {
                go_on.notified().await;
                done.notify_one();
                0
            }
        }));
        go_on.notify_one();
        done.notified().await;
    }

    #[tokio::test]
    async fn work_that_panics_makes_room() {
        let flights = SingleFlight::new();
        assert_eq!(lead(&flights, 1, async { panic!("the work crashed") }).await, None);
        assert_eq!(lead(&flights, 1, async { 7 }).await, Some(7));
    }

    #[tokio::test]
    async fn a_lead_that_declines_leaves_nothing_behind() {
        let flights = SingleFlight::<u8, usize>::new();
        let declined = flights
            .join_or_lead(1, SystemTime::UNIX_EPOCH, tokio::spawn, || Err::<std::future::Ready<usize>, _>("not now"));
        assert_eq!(declined.err(), Some("not now"));
        assert!(flights.under_way().is_empty());
    }
}
