//! Where application data lies, and how it goes.
//!
//! Not a matter of the feature `tower-sessions`: another process that ends a login removes what is bound to it as well.

use futures_util::future::join_all;

use super::RedisRegistry;
use super::peer::Ask;
use crate::registry::RegistryError;
use crate::session::id::SessionKey;
use crate::session::partition::Partition;

impl RedisRegistry {
    /// Data lies in a partition of its own, wherever its login does.
    pub(super) fn data(&self, name: &str) -> (Partition, String) {
        let partition = SessionKey::from_hex(name).map_or(Partition::FIRST, |hash| hash.partition());
        self.key(partition, format_args!("d:{name}"))
    }

    /// Removes data whose login has ended. Nobody waits for that: nobody is given it any more, and it expires by itself.
    pub(super) fn remove_data(&self, names: &[u8]) {
        let names: Vec<String> = String::from_utf8_lossy(names).split_whitespace().map(str::to_owned).collect();
        if names.is_empty() {
            return;
        }
        let registry = self.clone();
        tokio::spawn(async move {
            for error in
                join_all(names.iter().map(|name| registry.remove_one(name))).await.into_iter().filter_map(Result::err)
            {
                tracing::debug!(%error, "application data of a login that ended is left to expire");
            }
        });
    }

    pub(super) async fn remove_one(&self, name: &str) -> Result<(), RegistryError> {
        let (partition, key) = self.data(name);
        let mut command = redis::cmd("DEL");
        command.arg(key);
        self.shared.connection.ask::<u64>(partition, Ask::Command(command)).await.map(drop)
    }
}
