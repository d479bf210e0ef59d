//! Tenants that are found while the application runs, each with a relying party of its own.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use http::request::Parts;
use tokio::sync::Semaphore;

use super::context::Context;
use crate::clock::monotonic;

/// How long nobody is asked again for a tenant that there is not: strangers ask for any.
const ABSENCE: Duration = Duration::from_secs(60);
/// So many of those are remembered; then all are forgotten.
const MOST_ABSENT: usize = 1000;
/// So many tenants are looked up at once: who starts anew does not ask for all of them together.
const AT_ONCE: usize = 16;
/// No tenant's name is longer.
const LONGEST_NAME: usize = 253;

/// Says which tenant a request is for.
pub(crate) type NameOf = dyn Fn(&Parts) -> Option<String> + Send + Sync;

/// Finds a tenant and makes its relying party.
pub(crate) type Find = dyn Fn(String) -> BoxFuture<'static, Result<Option<Context>, Unresolved>> + Send + Sync;

/// The relying party of a request.
pub(crate) enum Party {
    Known(Context),
    /// The request is no tenant's.
    Nobody,
    /// The tenant has to be looked up.
    Wanted(BoxFuture<'static, Result<Option<Context>, Unresolved>>),
}

/// The application could not say who a tenant is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unresolved;

type Landing = Shared<BoxFuture<'static, Result<Option<Context>, Unresolved>>>;

pub(crate) struct Tenants {
    name_of: Box<NameOf>,
    find: Arc<Find>,
    known: Mutex<HashMap<String, Known>>,
    at_once: Arc<Semaphore>,
}

#[derive(Clone)]
enum Known {
    Here(Context),
    Absent {
        until: Instant,
    },
    /// It is being looked up.
    Wanted(Landing),
}

impl fmt::Debug for Tenants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenants").field("known", &self.known().len()).finish_non_exhaustive()
    }
}

impl Tenants {
    pub(crate) fn new(name_of: Box<NameOf>, find: Arc<Find>) -> Arc<Self> {
        Arc::new(Self { name_of, find, known: Mutex::default(), at_once: Arc::new(Semaphore::new(AT_ONCE)) })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose a request is.
    pub(crate) fn of(self: &Arc<Self>, parts: &Parts) -> Party {
        match (self.name_of)(parts) {
            Some(name) => self.named(name),
            None => Party::Nobody,
        }
    }

    /// The tenant of that name.
    pub(crate) fn named(self: &Arc<Self>, name: String) -> Party {
        if name.is_empty() || name.len() > LONGEST_NAME {
            return absent();
        }
        let mut known = self.known();
        let landing = match known.get(&name) {
            Some(Known::Here(context)) => return Party::Known(context.clone()),
            Some(Known::Absent { until }) if monotonic() < *until => return absent(),
            Some(Known::Wanted(landing)) => landing.clone(),
            Some(Known::Absent { .. }) | None => {
                let landing = self.look_up(name.clone());
                known.insert(name, Known::Wanted(landing.clone()));
                landing
            }
        };
        Party::Wanted(landing.boxed())
    }

    /// All that are here.
    pub(crate) fn here(&self) -> Vec<(String, Context)> {
        let known = self.known();
        let here = known.iter().filter_map(|(name, known)| match known {
            Known::Here(context) => Some((name.clone(), context.clone())),
            Known::Absent { .. } | Known::Wanted(_) => None,
        });
        here.collect()
    }

    /// Looks a tenant up anew when it is asked for next.
    pub(crate) fn forget(&self, name: &str) {
        self.known().remove(name);
    }

    /// Goes on whoever goes away: others wait for it too.
    fn look_up(self: &Arc<Self>, name: String) -> Landing {
        let tenants = self.clone();
        let task = tokio::spawn(async move {
            // Never closed.
            let _turn = tenants.at_once.clone().acquire_owned().await;
            let found = std::panic::AssertUnwindSafe((tenants.find)(name.clone())).catch_unwind().await;
            let found = found.unwrap_or_else(|_| {
                tracing::error!("the look-up of a tenant panicked");
                Err(Unresolved)
            });
            tenants.note(name, &found);
            found
        });
        async move { task.await.unwrap_or(Err(Unresolved)) }.boxed().shared()
    }

    fn note(&self, name: String, found: &Result<Option<Context>, Unresolved>) {
        let mut known = self.known();
        // Forgotten meanwhile: what was found may be old.
        if !matches!(known.get(&name), Some(Known::Wanted(_))) {
            return;
        }
        match found {
            Ok(Some(context)) => _ = known.insert(name, Known::Here(context.clone())),
            Ok(None) => {
                let absent = |known: &Known| matches!(known, Known::Absent { .. });
                if known.values().filter(|known| absent(known)).count() >= MOST_ABSENT {
                    known.retain(|_, known| !absent(known));
                }
                let until = monotonic() + ABSENCE;
                known.insert(name, Known::Absent { until });
            }
            // Whoever comes next asks again.
            Err(Unresolved) => _ = known.remove(&name),
        }
    }
}

fn absent() -> Party {
    Party::Wanted(std::future::ready(Ok(None)).boxed())
}
