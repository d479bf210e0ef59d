//! One connection for all operations, opened again when it breaks, to the node of a cluster that has the keys.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, ConnectionAddr, FromRedisValue, RedisError, RedisResult, ScriptInvocation};

use crate::registry::RegistryError;

/// The bound on one operation.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The pause before a connection is opened again.
pub(super) const RECONNECT_PAUSE: Duration = Duration::from_millis(500);
/// A cluster that sends us about more often than this is being moved around.
const REDIRECTS: usize = 3;

/// What a store is asked for.
pub(super) enum Ask<'a> {
    Command(Cmd),
    Script(ScriptInvocation<'a>),
}

pub(super) struct Connection {
    home: Client,
    current: Mutex<Current>,
}

#[derive(Clone)]
struct Current {
    manager: ConnectionManager,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Where the URL points.
    Home,
    /// At another node of the cluster.
    Away,
}

impl Connection {
    pub(super) fn new(home: Client) -> RedisResult<Self> {
        let current = Mutex::new(Current { manager: connect(&home)?, place: Place::Home });
        Ok(Self { home, current })
    }

    pub(super) fn home(&self) -> &Client {
        &self.home
    }

    /// Asks the store, wherever in a cluster it sends us: all keys of a registry are in one slot, so at one node.
    pub(super) async fn ask<T: FromRedisValue>(&self, ask: Ask<'_>) -> Result<T, RegistryError> {
        tokio::time::timeout(TIMEOUT, self.ask_around(ask))
            .await
            .map_err(|_| RegistryError::new("Redis did not answer in time"))?
            .map_err(failed)
    }

    async fn ask_around<T: FromRedisValue>(&self, ask: Ask<'_>) -> RedisResult<T> {
        let mut redirects = 0;
        loop {
            let Current { mut manager, place } = self.current();
            let answer = match &ask {
                Ask::Command(command) => command.query_async(&mut manager).await,
                Ask::Script(script) => script.invoke_async(&mut manager).await,
            };
            let Err(error) = answer else { return answer };
            match error.redirect_node() {
                Some((address, _)) if redirects < REDIRECTS => self.go_to(address)?,
                Some(_) => return Err(error),
                None => {
                    // The node may have left the cluster: ask for the way again next time.
                    if place == Place::Away && error.is_unrecoverable_error() {
                        self.set(connect(&self.home)?, Place::Home);
                    }
                    return Err(error);
                }
            }
            redirects += 1;
        }
    }

    fn current(&self) -> Current {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, manager: ConnectionManager, place: Place) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Current { manager, place };
    }

    fn go_to(&self, address: &str) -> RedisResult<()> {
        let unreadable = || RedisError::from((redis::ErrorKind::Parse, "a node's address cannot be read"));
        let (host, port) = address.rsplit_once(':').ok_or_else(unreadable)?;
        let port = port.parse().map_err(|_| unreadable())?;
        let info = self.home.get_connection_info().clone();
        let address = match info.addr() {
            // A node that does not know its own name sends the port only.
            ConnectionAddr::Tcp(home, _) => {
                ConnectionAddr::Tcp(if host.is_empty() { home } else { host }.to_owned(), port)
            }
            ConnectionAddr::TcpTls { host: home, insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host: if host.is_empty() { home } else { host }.to_owned(),
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => return Err(unreadable()),
        };
        tracing::debug!(host, port, "the keys are at another node of the cluster");
        self.set(connect(&Client::open(info.set_addr(address))?)?, Place::Away);
        Ok(())
    }
}

fn connect(client: &Client) -> RedisResult<ConnectionManager> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(TIMEOUT))
        .set_response_timeout(Some(TIMEOUT))
        .set_max_delay(RECONNECT_PAUSE)
        .set_number_of_retries(1);
    client.get_connection_manager_lazy(config)
}

fn failed(error: RedisError) -> RegistryError {
    // An error of Redis says what, and quotes no values.
    RegistryError::with_source(format!("Redis failed: {}", error.category()), error)
}
