//! Creating the schema, and bringing an older one up to date.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Error, Transaction};

use super::link::{Link, too_late};
use crate::registry::RegistryError;

/// Creating the schema may wait for other replicas that do the same.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Tables are waited for so long at a time, and with them everybody who comes after.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '300ms'";
/// The time in between.
const PAUSE: Duration = Duration::from_millis(500);

/// The schema of a new registry. Run over an older one it replaces the functions, and adds the tables and indices that
/// are not there.
const SCHEMA: &str = include_str!("schema.sql");

/// The version of `schema.sql`.
const VERSION: i64 = 3;

/// What else is to be done to the tables of version 1, 2 and so on, for the version that follows.
const STEPS: &[&str] = &[
    // Version 2 has other functions only.
    "",
    include_str!("version_3.sql"),
];

pub(super) async fn migrate(link: &Arc<Link>, schema: &str) -> Result<(), RegistryError> {
    let until = Instant::now() + TIMEOUT;
    timeout_at(until, migrate_until(until, link, schema)).await.unwrap_or_else(|_| Err(too_late()))
}

async fn migrate_until(until: Instant, link: &Arc<Link>, schema: &str) -> Result<(), RegistryError> {
    let found = loop {
        let mut lent = link.lend(until).await?;
        let migrated = bring_up_to_date(lent.client_mut(), schema).await;
        // Somebody who reads for long, as a backup does, is not waited for with locks in hand: all replicas would wait.
        if migrated.as_ref().is_err_and(is_in_the_way) {
            drop(lent.give_back(Ok(())));
            tracing::info!(schema, "the schema cannot be changed at the moment: its tables are in use");
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        break lent.give_back(migrated)?;
    };
    match found {
        Found::ThisVersion => Ok(()),
        Found::Another(Some(version)) if version > VERSION => Err(RegistryError::new(format!(
            "the schema {schema} is of version {version}, made by a newer version of this crate, which knows versions up \
             to {VERSION}"
        ))),
        Found::Another(version) => {
            Err(RegistryError::new(format!("the schema {schema} has a version that never was: {version:?}")))
        }
    }
}

/// Whether somebody else holds a lock.
fn is_in_the_way(error: &Error) -> bool {
    [Some(&SqlState::LOCK_NOT_AVAILABLE), Some(&SqlState::T_R_DEADLOCK_DETECTED)].contains(&error.code())
}

/// What is there in the end.
enum Found {
    ThisVersion,
    Another(Option<i64>),
}

async fn bring_up_to_date(client: &mut tokio_postgres::Client, schema: &str) -> Result<Found, Error> {
    let transaction = client.transaction().await?;
    // What waits is another replica's migration. Isolation is what a pooler in between left it at.
    let settings = format!(
        "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = {}",
        TIMEOUT.as_millis()
    );
    transaction.batch_execute(&settings).await?;
    let lock = "SELECT FROM pg_advisory_xact_lock(hashtextextended($1, 0))";
    transaction.query_typed(lock, &[(&format!("{schema} migrate"), Type::TEXT)]).await?;
    transaction.batch_execute(LOCK_TIMEOUT).await?;
    let found = match version(&transaction, schema).await? {
        None => apply(&transaction, schema, &[]).await?,
        Some(Some(VERSION)) => Found::ThisVersion,
        Some(Some(old @ 1..VERSION)) => {
            let done = usize::try_from(old - 1).unwrap_or(STEPS.len());
            apply(&transaction, schema, STEPS.get(done..).unwrap_or_default()).await?
        }
        Some(other) => Found::Another(other),
    };
    transaction.commit().await?;
    Ok(found)
}

/// The version that is there, if there is a schema.
async fn version(transaction: &Transaction<'_>, schema: &str) -> Result<Option<Option<i64>>, Error> {
    let table = format!("{schema}.schema_version");
    let exists = "SELECT to_regclass($1) IS NOT NULL";
    if !transaction.query_typed_one(exists, &[(&table, Type::TEXT)]).await?.get::<_, bool>(0) {
        return Ok(None);
    }
    let version = format!("SELECT max(version) FROM {table}");
    Ok(Some(transaction.query_typed_one(&version, &[]).await?.get(0)))
}

async fn apply(transaction: &Transaction<'_>, schema: &str, steps: &[&str]) -> Result<Found, Error> {
    let version = format!("INSERT INTO {schema}.schema_version VALUES ({VERSION})");
    for part in steps.iter().chain([&SCHEMA, &version.as_str()]) {
        transaction.batch_execute(&part.replace("{schema}", schema)).await?;
    }
    Ok(Found::ThisVersion)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_older_version_has_a_step() {
        assert_eq!(STEPS.len(), usize::try_from(VERSION).unwrap() - 1);
        assert!(SCHEMA.contains(&format!("version {VERSION}.")));
    }
}
