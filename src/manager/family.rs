//! The managers of one application: one for each provider, or tenant, over one registry.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};

use crate::clock::Clock;
use crate::protocol::names::{ClientId, Registration};
use crate::registry::SessionRegistry;
use crate::session::end_reason::EndReason;
use crate::session::record::SessionRecord;

/// Who deals with the sessions of one provider.
pub(super) trait Member: Send + Sync {
    /// Whether sessions of that registration are its own.
    fn has(&self, registration: &Registration) -> bool;

    /// Says to everybody who has to know that one of them is over.
    fn conclude(self: Arc<Self>, record: &Arc<SessionRecord>, reason: EndReason);

    /// Brings to an end what is under way, within `bound`; gives how many refreshes were not finished.
    fn drain(self: Arc<Self>, bound: Duration) -> BoxFuture<'static, usize>;
}

/// Knows whose a session is. A registry may have those of other applications too, which are nobody's here.
pub(crate) struct Family {
    pub(crate) registry: Arc<dyn SessionRegistry>,
    pub(crate) clock: Arc<dyn Clock>,
    members: Mutex<HashMap<ClientId, Vec<Weak<dyn Member>>>>,
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl Family {
    pub(crate) fn new(registry: Arc<dyn SessionRegistry>, clock: Arc<dyn Clock>) -> Arc<Self> {
        registry.adopt_clock(&clock);
        Arc::new(Self { registry, clock, members: Mutex::default() })
    }

    fn members(&self) -> MutexGuard<'_, HashMap<ClientId, Vec<Weak<dyn Member>>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn join(&self, client: ClientId, member: Weak<dyn Member>) {
        let mut members = self.members();
        let of_client = members.entry(client).or_default();
        // Tenants come and go.
        of_client.retain(|member| member.strong_count() > 0);
        of_client.push(member);
    }

    /// Brings to an end what is under way at all of them, also at tenants that were forgotten meanwhile.
    pub(crate) async fn drain(&self, bound: Duration) -> usize {
        let members: Vec<_> = self.members().values().flatten().filter_map(Weak::upgrade).collect();
        join_all(members.into_iter().map(|member| member.drain(bound))).await.into_iter().sum()
    }

    /// Whose sessions of that registration are.
    pub(super) fn of(&self, registration: &Registration) -> Option<Arc<dyn Member>> {
        let members = self.members();
        let of_client = members.get(registration.client_id())?;
        // A tenant that was looked up anew may be there twice: the later one counts.
        of_client.iter().rev().filter_map(Weak::upgrade).find(|member| member.has(registration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::registry::memory::MemoryRegistry;

    struct Tenant;

    impl Member for Tenant {
        fn has(&self, _: &Registration) -> bool {
            true
        }

        fn conclude(self: Arc<Self>, _: &Arc<SessionRecord>, _: EndReason) {}

        fn drain(self: Arc<Self>, _: Duration) -> BoxFuture<'static, usize> {
            Box::pin(async { 2 })
        }
    }

    #[tokio::test]
    async fn tenants_that_are_gone_are_forgotten_and_others_are_not() {
        let family = Family::new(Arc::new(MemoryRegistry::new()), Arc::new(SystemClock));
        let join = |member: &Arc<dyn Member>| family.join(ClientId::new("shop"), Arc::downgrade(member));
        let count = || family.members().values().map(Vec::len).sum::<usize>();
        let (one, two): (Arc<dyn Member>, Arc<dyn Member>) = (Arc::new(Tenant), Arc::new(Tenant));
        join(&one);
        join(&two);
        assert_eq!(count(), 2);
        assert_eq!(family.drain(Duration::ZERO).await, 4);
        drop(one);
        assert_eq!(family.drain(Duration::ZERO).await, 2);
        join(&two);
        assert_eq!(count(), 2, "one is gone");
    }
}
