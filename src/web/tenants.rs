//! Tenants that are found while the application runs, each with a relying party of its own.

use std::collections::HashMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
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
/// And so many wait for that; more are answered 503 at once.
const MOST_WANTED: usize = 256;
/// A look-up that has taken this long has come to nothing.
const LONGEST_LOOK_UP: Duration = Duration::from_secs(10);
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
    known: Mutex<All>,
    at_once: Arc<Semaphore>,
}

#[derive(Default)]
struct All {
    by_name: HashMap<String, Known>,
    /// How many of them are absent.
    absent: usize,
    /// How many are being looked up.
    wanted: usize,
    /// The number of the last look-up.
    last: u64,
    /// The process is about to end.
    is_closing: bool,
}

#[derive(Clone)]
enum Known {
    Here(Context),
    Absent {
        until: Instant,
    },
    /// It is being looked up, by the look-up of this number.
    Wanted(u64, Landing),
}

impl All {
    /// Puts something in the place of what is known of a name.
    fn set(&mut self, name: String, known: Option<Known>) {
        let count = |all: &mut Self, known: Option<&Known>, by: isize| match known {
            Some(Known::Absent { .. }) => all.absent = all.absent.saturating_add_signed(by),
            Some(Known::Wanted(..)) => all.wanted = all.wanted.saturating_add_signed(by),
            Some(Known::Here(_)) | None => {}
        };
        count(self, known.as_ref(), 1);
        let before = match known {
            Some(known) => self.by_name.insert(name, known),
            None => self.by_name.remove(&name),
        };
        count(self, before.as_ref(), -1);
    }
}

impl fmt::Debug for Tenants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenants").field("known", &self.known().by_name.len()).finish_non_exhaustive()
    }
}

impl Tenants {
    pub(crate) fn new(name_of: Box<NameOf>, find: Arc<Find>) -> Arc<Self> {
        Arc::new(Self { name_of, find, known: Mutex::default(), at_once: Arc::new(Semaphore::new(AT_ONCE)) })
    }

    fn known(&self) -> MutexGuard<'_, All> {
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
            return answer(Ok(None));
        }
        let mut known = self.known();
        let landing = match known.by_name.get(&name) {
            Some(Known::Here(context)) => return Party::Known(context.clone()),
            Some(Known::Absent { until }) if monotonic() < *until => return answer(Ok(None)),
            Some(Known::Wanted(_, landing)) => landing.clone(),
            Some(Known::Absent { .. }) | None if known.is_closing || known.wanted >= MOST_WANTED => {
                return answer(Err(Unresolved));
            }
            Some(Known::Absent { .. }) | None => {
                known.last += 1;
                let number = known.last;
                let landing = self.look_up(name.clone(), number);
                known.set(name, Some(Known::Wanted(number, landing.clone())));
                landing
            }
        };
        Party::Wanted(landing.boxed())
    }

    /// All that are here.
    pub(crate) fn here(&self) -> Vec<(String, Context)> {
        let known = self.known();
        let here = known.by_name.iter().filter_map(|(name, known)| match known {
            Known::Here(context) => Some((name.clone(), context.clone())),
            Known::Absent { .. } | Known::Wanted(..) => None,
        });
        here.collect()
    }

    /// Looks a tenant up anew when it is asked for next.
    pub(crate) fn forget(&self, name: &str) {
        self.known().set(name.to_owned(), None);
    }

    /// Finds nobody any more.
    pub(crate) fn close(&self) {
        self.known().is_closing = true;
    }

    /// Goes on whoever goes away: others wait for it too.
    fn look_up(self: &Arc<Self>, name: String, number: u64) -> Landing {
        let tenants = self.clone();
        let task = tokio::spawn(async move {
            // Never closed.
            let turn = tenants.at_once.clone().acquire_owned().await;
            let finding = async { (tenants.find)(name.clone()).await };
            let finding = tokio::time::timeout(LONGEST_LOOK_UP, AssertUnwindSafe(finding).catch_unwind());
            let found = match finding.await {
                Ok(Ok(found)) => found,
                Ok(Err(_)) => {
                    tracing::error!(tenant = name, "the look-up of a tenant panicked");
                    Err(Unresolved)
                }
                Err(_) => {
                    tracing::error!(tenant = name, "the look-up of a tenant took too long");
                    Err(Unresolved)
                }
            };
            drop(turn);
            tenants.note(name, number, &found);
            found
        });
        async move { task.await.unwrap_or(Err(Unresolved)) }.boxed().shared()
    }

    fn note(&self, name: String, number: u64, found: &Result<Option<Context>, Unresolved>) {
        let mut known = self.known();
        // Forgotten meanwhile, and perhaps looked up anew: what was found may be old.
        if !matches!(known.by_name.get(&name), Some(Known::Wanted(wanted, _)) if *wanted == number) {
            return;
        }
        match found {
            Ok(Some(context)) => known.set(name, Some(Known::Here(context.clone()))),
            Ok(None) => {
                if known.absent >= MOST_ABSENT {
                    known.by_name.retain(|_, known| !matches!(known, Known::Absent { .. }));
                    known.absent = 0;
                }
                let until = monotonic() + ABSENCE;
                known.set(name, Some(Known::Absent { until }));
            }
            // Whoever comes next asks again.
            Err(Unresolved) => known.set(name, None),
        }
    }
}

fn answer(found: Result<Option<Context>, Unresolved>) -> Party {
    Party::Wanted(std::future::ready(found).boxed())
}
