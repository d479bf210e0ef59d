//! What goes wrong by itself: a machine that stands still, a store that is slow. The checker has to know of it as of any other fault.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use crate::history::Kind;
use crate::nemesis::note;
use crate::users::World;

/// How often it is looked.
const TICK: Duration = Duration::from_millis(50);
/// A machine that did nothing for longer stood still.
const STILL: Duration = Duration::from_millis(500);
/// A store that takes longer for one write keeps replicas from theirs, which wait for an answer no longer than twice that.
const SLOW: Duration = Duration::from_millis(500);
/// A write that takes longer is tried again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Writes down when the machine stood still.
pub(crate) async fn watch_machine(world: Arc<World>) {
    let watching = tokio::task::spawn_blocking(move || {
        let goes_on = world.goes_on.subscribe();
        while *goes_on.borrow() {
            let from = world.history.now();
            std::thread::sleep(TICK);
            if world.history.now().saturating_sub(from) > STILL {
                note(&world, Kind::Still, None, from);
            }
        }
    });
    watching.await.unwrap();
}

/// Writes down when the store took no write in time.
pub(crate) async fn watch_store(world: Arc<World>) {
    let goes_on = world.goes_on.subscribe();
    while *goes_on.borrow() {
        let urls = world.store_urls.borrow().clone();
        let from = world.history.now();
        // What is refused at once is a fault that was made, and is written down where it was.
        let _ = timeout(PATIENCE, join_all(urls.iter().map(|url| write(url, urls.len() == 1)))).await;
        if world.history.now().saturating_sub(from) > SLOW {
            note(&world, Kind::StoreSlow, None, from);
        }
        sleep(TICK * 4).await;
    }
}

/// As whoever comes anew.
async fn write(url: &str, is_alone: bool) -> Option<()> {
    if url.starts_with("postgres") {
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.ok()?;
        let connection = tokio::spawn(connection);
        let write = "CREATE TABLE IF NOT EXISTS probe (id int PRIMARY KEY, n int);
             INSERT INTO probe VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET n = probe.n + 1";
        let written = client.batch_execute(write).await.ok();
        drop(client);
        connection.await.ok()?.ok()?;
        return written;
    }
    let mut connection = redis::Client::open(url).ok()?.get_multiplexed_async_connection().await.ok()?;
    let mut write = redis::pipe();
    if is_alone {
        // With what confirms it.
        write.cmd("SET").arg("probe").arg(1).cmd("WAIT").arg(1).arg(0);
    } else {
        // Nodes of a cluster have their own parts of the keys; this is in none.
        write.cmd("PUBLISH").arg("probe").arg(1);
    }
    write.query_async::<redis::Value>(&mut connection).await.ok().map(drop)
}
