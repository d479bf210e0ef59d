//! The one writer of the registry. Each verb has a file: `admit` requests, `signal` activity, `login`, `end`, `watch`.

pub(crate) mod admit;
pub(crate) mod describe;
mod doubts;
pub(crate) mod end;
pub(crate) mod ends;
pub(crate) mod family;
mod flights;
mod guards;
mod landed;
pub(crate) mod login;
pub(crate) mod login_outcome;
mod over;
mod pauses;
mod refusal;
pub(crate) mod signal;
mod tasks;
pub(crate) mod upkeep;
pub(crate) mod watch;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

use self::doubts::{Doubts, Remarks};
use self::ends::Ends;
use self::family::{Family, Member};
use self::flights::SingleFlight;
use self::guards::Guards;
use self::landed::LandedLogins;
use self::login_outcome::LoginOutcome;
pub(crate) use self::over::Over;
use self::pauses::Pauses;
pub(crate) use self::refusal::{REGISTRY_RETRY_AFTER, Refusal, RetryAfter};
use self::tasks::Tasks;
use crate::clock::Clock;
use crate::protocol::authorization::Audience;
use crate::protocol::names::{Registration, Subject};
use crate::provider::Provider;
use crate::registry::store_clock::StoreClock;
use crate::registry::{EndMark, Loaded, RegistryError, SessionRegistry, Spent};
use crate::session::event::{SessionEvent, SessionInfo};
use crate::session::id::{AttemptKey, SessionKey};
use crate::session::new_login::{LoginRefused, NewLogin};
use crate::session::policy::SessionPolicy;
use crate::session::record::SessionRecord;
use crate::session::signal::Outcome;

pub(crate) type Listener = Arc<dyn Fn(&SessionEvent) + Send + Sync>;

/// So many front-channel logouts are followed at once; more would be strangers.
const FRAMES_AT_ONCE: usize = 64;

/// What the application says to a login.
pub(crate) type LoginHook = dyn Fn(NewLogin) -> BoxFuture<'static, Result<(), LoginRefused>> + Send + Sync;

pub(crate) struct Manager {
    /// Whose upkeep goes on as long as there is somebody.
    _family: Arc<Family>,
    registry: Arc<dyn SessionRegistry>,
    provider: Arc<Provider>,
    policy: SessionPolicy,
    clock: Arc<dyn Clock>,
    listeners: Vec<Listener>,
    on_login: Option<Box<LoginHook>>,
    flights: Arc<SingleFlight<SessionKey, Landed>>,
    logins: Arc<SingleFlight<AttemptKey, LoginOutcome>>,
    landed_logins: LandedLogins,
    store_clock: StoreClock,
    tasks: Tasks,
    pauses: Pauses,
    doubts: Doubts,
    remarks: Remarks,
    ends: Arc<Ends>,
    guards: Guards,
    /// Those who come by frames take turns.
    frames: Arc<Semaphore>,
    reported_expires_in: AtomicBool,
    reported_refresh_expires_in: AtomicBool,
}

/// What came of a signal, and whom the access token was asked for.
#[derive(Clone, Debug)]
struct Landed {
    audience: Option<Audience>,
    outcome: Outcome,
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager")
            .field("policy", &self.policy)
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}

impl Manager {
    pub(crate) fn new(
        family: &Arc<Family>,
        provider: Provider,
        policy: SessionPolicy,
        listeners: Vec<Listener>,
        on_login: Option<Box<LoginHook>>,
    ) -> Arc<Self> {
        let registry = family.registry.clone();
        let ends = Arc::new(Ends::default());
        registry.subscribe({
            // Registries forget no listener: of a tenant that is gone little is to be left.
            let ends = Arc::downgrade(&ends);
            Box::new(move |notice| {
                if let Some(ends) = ends.upgrade() {
                    ends.notice(notice);
                }
            })
        });
        let manager = Arc::new(Self {
            _family: family.clone(),
            registry,
            provider: Arc::new(provider),
            policy,
            clock: family.clock.clone(),
            listeners,
            on_login,
            flights: SingleFlight::new(),
            logins: SingleFlight::new(),
            landed_logins: LandedLogins::default(),
            store_clock: StoreClock::default(),
            tasks: Tasks::new(),
            pauses: Pauses::default(),
            doubts: Doubts::default(),
            remarks: Remarks::default(),
            ends,
            guards: Guards::new(),
            frames: Arc::new(Semaphore::new(FRAMES_AT_ONCE)),
            reported_expires_in: AtomicBool::new(false),
            reported_refresh_expires_in: AtomicBool::new(false),
        });
        let joined: Arc<dyn Member> = manager.clone();
        let client = manager.provider.client().registration.client_id().clone();
        family.join(client, Arc::downgrade(&joined));
        manager
    }

    pub(crate) fn provider(&self) -> &Arc<Provider> {
        &self.provider
    }

    pub(crate) fn policy(&self) -> &SessionPolicy {
        &self.policy
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// The time by the store's clock. Where that was never to be had it is long ago: a login that is begun then is covered by
    /// any logout, and goes through the provider once more.
    pub(crate) async fn store_time(&self) -> SystemTime {
        self.store_clock.time(&*self.registry).await.unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Waits for so long.
    pub(crate) async fn sleep(&self, pause: Duration) {
        self.clock.sleep(pause).await;
    }

    /// What `work` comes to, if it does within `patience`; else the work is dropped.
    pub(crate) async fn within<T>(&self, patience: Duration, work: impl Future<Output = T>) -> Option<T> {
        use futures_util::future::{Either, select};

        match select(std::pin::pin!(work), self.clock.sleep(patience)).await {
            Either::Left((result, _)) => Some(result),
            Either::Right(((), _)) => None,
        }
    }

    /// Runs what has to be finished, whoever goes away.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.tasks.spawn(work)
    }

    /// Brings to an end what is under way, within `bound`: no new signals, an end to streams. Returns how many sessions'
    /// refreshes were not finished.
    pub(crate) async fn drain(&self, bound: Duration) -> usize {
        if self.within(bound, self.tasks.finish()).await.is_some() {
            return 0;
        }
        let lost = self.flights.under_way_keys();
        for session in &lost {
            tracing::error!(?session, "the answer to a refresh has not come: the session may be lost");
        }
        lost.len()
    }

    /// Looks at a session without any effect on it.
    pub(crate) async fn look(&self, key: &SessionKey) -> Result<Arc<SessionRecord>, Refusal> {
        self.found(self.registry.load(key).await.map_err(|error| unavailable(&error))?)
    }

    /// The live sessions of a user, the oldest first.
    pub(crate) async fn sessions_of(
        &self,
        registration: &Registration,
        subject: &Subject,
    ) -> Result<Vec<SessionInfo>, RegistryError> {
        let found = self.records_of(registration, subject).await?;
        Ok(found.iter().map(|record| SessionInfo::of(record)).collect())
    }

    /// The same as the registry has them. Whoever asks at once sees the same order.
    async fn records_of(
        &self,
        registration: &Registration,
        subject: &Subject,
    ) -> Result<Vec<Arc<SessionRecord>>, RegistryError> {
        let mut found = self.registry.sessions_of(registration, subject).await?;
        found.sort_by_key(|record| (record.login.started_at, *record.key()));
        Ok(found)
    }

    /// Whether the store answers.
    pub(crate) async fn check_store(&self) -> Result<(), RegistryError> {
        self.registry.time().await.map(drop)
    }

    /// Notes that what is named so has been done; only the first who says so is told that it is new.
    pub(crate) async fn spend(&self, name: &AttemptKey) -> Result<Spent, RegistryError> {
        self.registry.spend(name).await
    }

    /// A live session of this client's. Those of others are nobody's here, whoever brings their keys.
    fn found(&self, loaded: Loaded) -> Result<Arc<SessionRecord>, Refusal> {
        match loaded {
            Loaded::Live(record) if self.has(record.registration()) => Ok(record),
            Loaded::Ended(mark) => Err(Refusal::Ended(mark.reason)),
            Loaded::Live(_) | Loaded::Unknown => Err(Refusal::Unknown),
        }
    }

    /// What is left of a session that ended.
    pub(crate) async fn end_mark(&self, key: &SessionKey) -> Result<Option<EndMark>, RegistryError> {
        Ok(match self.registry.load(key).await? {
            Loaded::Ended(mark) => Some(mark),
            Loaded::Live(_) | Loaded::Unknown => None,
        })
    }

    /// Tells those who listen.
    pub(crate) fn emit(&self, event: &SessionEvent) {
        for listener in &self.listeners {
            // One that panics takes nobody down with it, least of all the cleaner.
            let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| listener(event)));
            if told.is_err() {
                tracing::error!("a listener of session events panicked");
            }
        }
    }
}

/// Says in the log that the registry failed, and what that means for a request.
fn unavailable(error: &RegistryError) -> Refusal {
    tracing::error!(%error, "nothing can be said about a session");
    Refusal::Unavailable(REGISTRY_RETRY_AFTER)
}
