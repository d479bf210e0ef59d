//! What goes wrong, by chance, and is mended again.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use tokio::time::{Instant, sleep};
use tower_oidc_session::test_provider::{Endpoint, Fault, OldKeys, TestProvider};

use crate::history::{self, At, Event, Kind};
use crate::proxy::{Passage, Way};
use crate::site::Site;
use crate::users::World;

/// Between two faults of one nemesis.
const CALM: std::ops::Range<u64> = 500..4_000;
/// At the end of each round nothing new goes wrong anywhere: what has to be when all is well can be seen there alone.
const ROUND: u64 = 45;
const PEACE: u64 = 14;

fn millis(rng: &mut SmallRng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.random_range(range))
}

async fn goes_on(world: &World, rng: &mut SmallRng) -> bool {
    let mut goes_on = world.goes_on.subscribe();
    let calm = async {
        sleep(millis(rng, CALM)).await;
        let second = world.history.now().as_secs() % ROUND;
        if second >= ROUND - PEACE {
            sleep(Duration::from_secs(ROUND - second)).await;
        }
    };
    tokio::select! {
        () = calm => true,
        _ = goes_on.wait_for(|goes_on| !goes_on) => false,
    }
}

/// It is over.
pub(crate) fn note(world: &World, kind: Kind, replica: Option<usize>, from: At) {
    world.history.push(Event::Fault(history::Fault { kind, replica, from, to: world.history.now() }));
}

/// Faults of the replicas, one at a time, until the run is over.
pub(crate) async fn of_replicas(world: Arc<World>, mut rng: SmallRng) {
    while goes_on(&world, &mut rng).await {
        let number = rng.random_range(0..world.replicas.len());
        let replica = &world.replicas[number];
        let kind = [Kind::Kill, Kind::Kill, Kind::Stop, Kind::Restart, Kind::Clock][rng.random_range(0..5)];
        let from = world.history.now();
        match kind {
            Kind::Kill => {
                tokio::task::block_in_place(|| replica.kill());
                sleep(millis(&mut rng, 100..2_000)).await;
                tokio::task::block_in_place(|| replica.begin());
            }
            Kind::Stop => {
                replica.signal("STOP");
                sleep(millis(&mut rng, 100..8_000)).await;
                replica.signal("CONT");
            }
            Kind::Restart => {
                replica.signal("TERM");
                let begin = Instant::now();
                while !replica.has_ended() {
                    assert!(begin.elapsed() < Duration::from_secs(60), "a replica does not stop");
                    sleep(Duration::from_millis(20)).await;
                }
                tokio::task::block_in_place(|| replica.begin());
            }
            _ => {
                let far = [5, 25, 100, 1_000][rng.random_range(0..4)];
                replica.set_clock(if rng.random_bool(0.5) { far } else { -far });
                sleep(millis(&mut rng, 1_500..6_000)).await;
                replica.set_clock(0);
                // The file is looked at each second, by a clock that tells whole ones.
                sleep(Duration::from_secs(2)).await;
            }
        }
        note(&world, kind, Some(number), from);
    }
}

/// Faults of the provider and of the ways to it, one at a time, until the run is over.
pub(crate) async fn of_provider(world: Arc<World>, provider: TestProvider, mut rng: SmallRng) {
    while goes_on(&world, &mut rng).await {
        let number = rng.random_range(0..world.replicas.len());
        let way = &world.replicas[number].to_provider;
        let kind = [Kind::ProviderCut, Kind::ProviderSlow, Kind::ProviderDown, Kind::Keys][rng.random_range(0..4)];
        let from = world.history.now();
        let of = match kind {
            Kind::ProviderCut => {
                way.set(if rng.random_bool(0.5) { Way::CutBefore } else { Way::CutAfter });
                sleep(millis(&mut rng, 50..1_500)).await;
                way.set(Way::Open);
                Some(number)
            }
            Kind::ProviderSlow => {
                way.set(Way::Slow(millis(&mut rng, 50..4_000)));
                sleep(millis(&mut rng, 500..3_000)).await;
                way.set(Way::Open);
                Some(number)
            }
            Kind::ProviderDown => {
                let endpoints = [Endpoint::Token, Endpoint::Jwks, Endpoint::Discovery, Endpoint::UserInfo];
                for endpoint in endpoints {
                    provider.set_fault(endpoint, Fault::Status { code: 503, retry_after: None });
                }
                sleep(millis(&mut rng, 200..3_000)).await;
                provider.clear_faults();
                None
            }
            _ => {
                provider.rotate_keys(OldKeys::Keep);
                None
            }
        };
        note(&world, kind, of, from);
    }
}

const OF_STORE: [Kind; 6] =
    [Kind::StoreCut, Kind::StoreSilent, Kind::StorePaused, Kind::StoreFull, Kind::Failover, Kind::StoreCrash];

/// Faults of the store and of the ways to it, one at a time, until the run is over.
pub(crate) async fn of_store(world: &World, mut site: Site, mut rng: SmallRng) -> Site {
    let lead = |port| {
        for link in world.replicas.iter().filter_map(|replica| replica.to_store.as_ref()) {
            link.lead_to(port);
        }
    };
    while goes_on(world, &mut rng).await {
        let number = rng.random_range(0..world.replicas.len());
        let node = rng.random_range(0..64);
        let link = world.replicas[number].to_store.as_ref();
        let kind = OF_STORE[rng.random_range(0..OF_STORE.len())];
        let from = world.history.now();
        let of = match (kind, link) {
            (Kind::StoreCut | Kind::StoreSilent, None) => continue,
            (Kind::StoreCut | Kind::StoreSilent, Some(link)) => {
                link.set(if kind == Kind::StoreCut { Passage::Closed } else { Passage::Silent });
                sleep(millis(&mut rng, 50..4_000)).await;
                link.set(Passage::Open);
                Some(number)
            }
            (Kind::StorePaused, _) => {
                site.pause(node, millis(&mut rng, 50..3_000)).await;
                None
            }
            (Kind::StoreFull, _) => {
                site.fill(node, millis(&mut rng, 200..3_000)).await;
                None
            }
            (Kind::Failover, _) => {
                site.fail_over(node, lead).await;
                None
            }
            _ => {
                site.crash(node, lead).await;
                None
            }
        };
        note(world, kind, of, from);
        world.store_urls.send_replace(site.urls());
    }
    site
}
