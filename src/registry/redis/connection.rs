//! The way to the primary that has the keys of a partition: found again when it has moved, in a cluster too.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::PubSub;
use redis::{FromRedisValue, RedisError, RedisResult, Value, from_redis_value};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::names::Names;
use super::node::{Node, Ways};
use super::peer::{Ask, Failure, Kind, Next, Peer, TIMEOUT, Terms};
use crate::registry::RegistryError;
use crate::registry::call_time::record_call;
use crate::session::partition::Partition;

/// What is left of it for the answer of replicas to come back.
const WAY_BACK: Duration = Duration::from_millis(100);
/// The pause before a connection is opened again.
pub(super) const RECONNECT_PAUSE: Duration = Duration::from_millis(500);
/// A cluster that sends us about more often than this is being moved around.
const REDIRECTS: usize = 3;
/// So many nodes are remembered that have no partition any more: they may know who has.
const FORMER_NODES: usize = 16;

pub(super) struct Connection {
    names: Arc<Names>,
    places: Mutex<Places>,
    terms: Arc<Terms>,
    dropped: Arc<Notify>,
}

/// Where partitions are, as far as is known.
struct Places {
    /// By partition.
    nodes: Vec<Arc<Node>>,
    /// Those that have been configured.
    seeds: Vec<Arc<Node>>,
    /// Those that others have led to, by address, the latest last.
    led_to: Vec<(String, Arc<Node>)>,
}

impl Places {
    fn of(&self, partition: Partition) -> Option<Arc<Node>> {
        self.nodes.get(usize::from(partition.number())).cloned()
    }

    fn set(&mut self, partition: Partition, node: &Arc<Node>) {
        if let Some(place) = self.nodes.get_mut(usize::from(partition.number())) {
            *place = node.clone();
        }
    }

    /// All partitions of a node go together: one that is no cluster's has all or none.
    fn leave(&mut self, node: &Arc<Node>, another: &Arc<Node>) {
        for place in &mut self.nodes {
            if Arc::ptr_eq(place, node) {
                *place = another.clone();
            }
        }
    }

    /// Whoever has configured a node vouches for it; a cluster that gave an address did so long ago.
    fn go_home(&mut self, node: &Arc<Node>) {
        if let Some(home) = self.seeds.first().cloned()
            && !self.seeds.iter().any(|seed| Arc::ptr_eq(seed, node))
        {
            self.leave(node, &home);
        }
    }

    /// The node at an address that another gave.
    fn at(&mut self, address: &str) -> RedisResult<Arc<Node>> {
        if let Some((_, node)) = self.led_to.iter().find(|(known, _)| known == address) {
            return Ok(node.clone());
        }
        let [home, ..] = self.seeds.as_slice() else { return Err(RedisError::from(std::io::Error::other("no way"))) };
        let node = Arc::new(home.neighbour(address)?);
        self.led_to.push((address.to_owned(), node.clone()));
        let nodes = &self.nodes;
        let is_in_use = |node: &Arc<Node>| nodes.iter().any(|used| Arc::ptr_eq(used, node));
        let former = self.led_to.iter().filter(|(_, node)| !is_in_use(node)).count();
        if former > FORMER_NODES
            && let Some(oldest) = self.led_to.iter().position(|(_, node)| !is_in_use(node))
        {
            self.led_to.remove(oldest);
        }
        Ok(node)
    }

    /// One that was not tried yet.
    fn another(&self, tried: &[Arc<Node>]) -> Option<Arc<Node>> {
        let all = self.seeds.iter().chain(self.led_to.iter().rev().map(|(_, node)| node));
        all.into_iter().find(|node| !tried.iter().any(|tried| Arc::ptr_eq(tried, node))).cloned()
    }
}

/// Which connection an operation takes.
#[derive(Clone, Copy)]
enum Line {
    /// The one that all share.
    Shared,
    /// One of its own.
    Own,
}

/// An open connection, and whose it is.
struct Opened {
    node: Arc<Node>,
    peer: Peer,
}

impl Connection {
    pub(super) fn new(ways: Ways, names: Arc<Names>) -> Self {
        let terms: Arc<Terms> = Arc::default();
        let seeds: Vec<_> = ways.0.into_iter().map(|way| Arc::new(Node::new(way, Kind::Any, terms.clone()))).collect();
        let home = seeds.first().cloned();
        let nodes = Partition::all().filter_map(|_| home.clone()).collect();
        let places = Mutex::new(Places { nodes, seeds, led_to: Vec::new() });
        Self { names, places, terms, dropped: Arc::default() }
    }

    /// Is notified whenever a connection was dropped: others may lead to the same wrong place.
    pub(super) fn dropped(&self) -> Arc<Notify> {
        self.dropped.clone()
    }

    /// Whether replicas confirm what is to last.
    pub(super) fn is_confirmed(&self) -> bool {
        self.terms.confirmations() > 0
    }

    /// Where a partition is, as far as is known.
    pub(super) fn node_of(&self, partition: Partition) -> Option<Arc<Node>> {
        self.places().of(partition)
    }

    pub(super) fn confirm_by(&self, replicas: u32) {
        self.terms.set_confirmations(replicas);
    }

    /// Asks the primary of a partition, wherever in a cluster it is.
    pub(super) async fn ask<T: FromRedisValue>(&self, partition: Partition, ask: Ask<'_>) -> Result<T, RegistryError> {
        let began = Instant::now();
        let asked = timeout_at(began + TIMEOUT, self.ask_around(partition, &ask, Line::Shared)).await;
        record_call("redis", began.elapsed());
        answer(asked.unwrap_or_else(|_| Err(self.too_late(partition))).map(|(value, _)| value))
    }

    /// The same for a write that has to outlive this primary: it is answered when replicas have it.
    pub(super) async fn ask_for_good<T: FromRedisValue>(
        &self,
        partition: Partition,
        ask: Ask<'_>,
    ) -> Result<T, RegistryError> {
        match self.terms.confirmations() {
            0 => self.ask(partition, ask).await,
            replicas => {
                let began = Instant::now();
                let deadline = began + TIMEOUT;
                let asked = timeout_at(deadline, self.ask_and_confirm(partition, &ask, replicas, deadline)).await;
                record_call("redis", began.elapsed());
                answer(asked.unwrap_or_else(|_| Err(self.too_late(partition))))
            }
        }
    }

    /// A connection to where a partition is that hears what is published there, which is what is published at all nodes.
    pub(super) async fn subscriber(&self, partition: Partition) -> Result<PubSub, RegistryError> {
        let connecting = async {
            let opened = self.open(partition, Line::Shared).await?;
            Ok(opened.node.client().await?.get_async_pubsub().await?)
        };
        let connected = timeout_at(Instant::now() + TIMEOUT * 2, connecting).await;
        connected.unwrap_or(Err(Failure::TooLate)).map_err(failed)
    }

    /// Leaves a server that answers nobody, and the connections that nobody has used since.
    fn too_late(&self, partition: Partition) -> Failure {
        let node = self.node_of(partition);
        if let Some(node) = node
            && let Some(peer) = node.silent()
        {
            self.drop_peer(&node, &peer);
        }
        Failure::TooLate
    }

    async fn ask_and_confirm(
        &self,
        partition: Partition,
        ask: &Ask<'_>,
        replicas: u32,
        deadline: Instant,
    ) -> Result<Value, Failure> {
        let node = self.node_of(partition).ok_or(Failure::TooLate)?;
        let _turn = node.confirming.acquire().await.map_err(|_| Failure::TooLate)?;
        let (value, Opened { node, peer }) = self.ask_around(partition, ask, Line::Own).await?;
        let left = deadline.saturating_duration_since(Instant::now()).saturating_sub(WAY_BACK);
        let confirmed = peer.confirm(replicas, left).await;
        match &confirmed {
            Err(failure) if failure.next() == Next::Drop => self.drop_peer(&node, &peer),
            _ => node.give_back(peer),
        }
        confirmed.map(|()| value)
    }

    async fn ask_around(&self, partition: Partition, ask: &Ask<'_>, line: Line) -> Result<(Value, Opened), Failure> {
        let mut redirects = 0;
        loop {
            let opened = self.open(partition, line).await?;
            let failure = match opened.peer.ask(ask).await {
                Ok(value) => return Ok((value, opened)),
                Err(failure) => failure,
            };
            match (failure.next(), ask) {
                (Next::Moved(address), _) if redirects < REDIRECTS => {
                    // It is still good for what is there.
                    if let Line::Own = line {
                        opened.node.give_back(opened.peer);
                    }
                    self.lead_to(partition, address)?;
                }
                // Scripts touch several keys, of which some may not have arrived: they would see half of the truth.
                (Next::Asked(address), Ask::Read(key)) => {
                    let arriving = self.places().at(address)?;
                    return arriving.read_arriving(key).await.map(|value| (value, opened));
                }
                (Next::Asked(_), _) => return Err(Failure::OnTheirWay),
                (Next::Drop, _) => {
                    self.drop_peer(&opened.node, &opened.peer);
                    return Err(failure);
                }
                (Next::Ask, _) => {
                    let mut places = self.places();
                    if let Some(another) = places.another(&[opened.node]) {
                        places.set(partition, &another);
                    }
                    return Err(failure);
                }
                _ => return Err(failure),
            }
            redirects += 1;
        }
    }

    /// Connects to where a partition is. Nothing has been asked for yet, so where one node cannot say others may.
    async fn open(&self, partition: Partition, line: Line) -> Result<Opened, Failure> {
        let mut redirects = 0;
        let mut tried = Vec::new();
        loop {
            let Some(node) = self.node_of(partition) else { return Err(Failure::TooLate) };
            let failure = match self.connect(&node, partition, line).await {
                Ok(peer) => return Ok(Opened { node, peer }),
                Err(failure) => failure,
            };
            match failure.next() {
                Next::Moved(address) if redirects < REDIRECTS => {
                    redirects += 1;
                    self.lead_to(partition, address)?;
                }
                _ => {
                    tried.push(node.clone());
                    let mut places = self.places();
                    let Some(another) = places.another(&tried) else { return Err(failure) };
                    if failure.is_of_one_partition() {
                        places.set(partition, &another);
                    } else {
                        places.leave(&node, &another);
                    }
                }
            }
        }
    }

    async fn connect(&self, node: &Node, partition: Partition, line: Line) -> Result<Peer, Failure> {
        // Only who has to open a connection asks for it.
        let probe = || self.names.key(partition, "none");
        match line {
            Line::Shared => match node.current() {
                Some(peer) => Ok(peer),
                None => node.shared(&probe()).await,
            },
            Line::Own => node.own(&probe()).await,
        }
    }

    fn drop_peer(&self, node: &Arc<Node>, peer: &Peer) {
        node.forget(peer);
        self.places().go_home(node);
        self.dropped.notify_waiters();
    }

    fn lead_to(&self, partition: Partition, address: &str) -> RedisResult<()> {
        let mut places = self.places();
        let node = places.at(address)?;
        tracing::debug!(address, partition = partition.number(), "the keys are at another node of the cluster");
        places.set(partition, &node);
        Ok(())
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer<T: FromRedisValue>(asked: Result<Value, Failure>) -> Result<T, RegistryError> {
    let value = asked.map_err(failed)?;
    from_redis_value(value).map_err(|error| failed(RedisError::from(error).into()))
}

pub(super) fn failed(failure: Failure) -> RegistryError {
    match failure {
        // An error of Redis says what, and quotes no values.
        Failure::Redis(ref error) => RegistryError::with_source(failure.to_string(), error.clone()),
        failure => RegistryError::new(failure.to_string()),
    }
}
