//! Migrations: forward only, one transaction each, safe when several processes migrate at once.
//!
//! They take turns by an advisory lock that the transaction's end gives back, and read the version again when they have it.

use super::connect::{Sessions, part};
use crate::clock::Clock;
use crate::store::Error;
use sha2::{Digest, Sha256};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use std::time::Duration;

/// One step of the schema.
struct Migration {
    version: i64,
    name: &'static str,
    sql: &'static str,
}

/// All steps, in order. The same numbers on both databases.
const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "jobs", sql: include_str!("../../../migrations/postgres/0001_jobs.sql") },
    Migration { version: 2, name: "operations", sql: include_str!("../../../migrations/postgres/0002_operations.sql") },
    Migration { version: 3, name: "order", sql: include_str!("../../../migrations/postgres/0003_order.sql") },
    Migration { version: 4, name: "triggers", sql: include_str!("../../../migrations/postgres/0004_triggers.sql") },
    Migration { version: 5, name: "mends", sql: include_str!("../../../migrations/postgres/0005_mends.sql") },
    Migration { version: 6, name: "keys", sql: include_str!("../../../migrations/postgres/0006_keys.sql") },
    Migration { version: 7, name: "ledger", sql: include_str!("../../../migrations/postgres/0007_ledger.sql") },
    Migration { version: 8, name: "schedules", sql: include_str!("../../../migrations/postgres/0008_schedules.sql") },
    Migration { version: 9, name: "batches", sql: include_str!("../../../migrations/postgres/0009_batches.sql") },
    Migration { version: 10, name: "api", sql: include_str!("../../../migrations/postgres/0010_api.sql") },
    Migration { version: 11, name: "vault", sql: include_str!("../../../migrations/postgres/0011_vault.sql") },
];

/// The newest schema that this program knows.
pub(super) const NEWEST: i64 = 11;

/// The oldest server that knows what the migrations use, as `server_version_num`.
const OLDEST_SERVER: i32 = 130_000;
/// Tables of ours: a schema that has some of them but no record of migrations is not ours to touch.
const OURS: &str = "('jobs', 'job_events', 'queues', 'workers')";
/// How long opening is tried while the server starts, stops or cannot be reached.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);
/// The pause between two tries.
const OPEN_PAUSE: Duration = Duration::from_millis(100);

/// Brings the database to the newest schema.
///
/// # Errors
/// [`Error::Unusable`] when it belongs to a newer version or to another program, or is no database for us; nothing is changed
/// then.
pub(super) async fn open(sessions: &Sessions, clock: &Clock) -> Result<(), Error> {
    let start = clock.boot();
    let mut connection = loop {
        match sessions.connect().await {
            Ok(connection) => break connection,
            Err(Error::Backend { message, .. })
                if message.contains("starting up") && clock.boot().since(start) < OPEN_PATIENCE =>
            {
                tokio::time::sleep(OPEN_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    };
    let migrated = migrate(&mut connection, clock).await;
    part(connection).await;
    migrated
}

async fn migrate(connection: &mut PgConnection, clock: &Clock) -> Result<(), Error> {
    let schema = suitable(connection).await?;
    for migration in MIGRATIONS {
        if version(connection).await? >= migration.version {
            continue;
        }
        let mut transaction = connection.begin().await?;
        transaction.execute("SELECT pg_advisory_xact_lock(hashtext('freightliner migrations'))").await?;
        if version(&mut transaction).await? < migration.version {
            apply(&mut transaction, migration, &schema, clock).await?;
        }
        transaction.commit().await?;
    }
    // Also when there was nothing to do: it may be newer than we are.
    version(connection).await.map(drop)
}

async fn apply(connection: &mut PgConnection, migration: &Migration, schema: &str, clock: &Clock) -> Result<(), Error> {
    if migration.version == 1 {
        connection
            .execute(
                "CREATE TABLE schema_migrations (version BIGINT PRIMARY KEY, name TEXT NOT NULL, \
                 checksum TEXT NOT NULL, applied_at BIGINT NOT NULL)",
            )
            .await?;
    }
    let text = migration.sql.replace("@schema@", schema);
    sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *connection).await?;
    sqlx::query("INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES ($1, $2, $3, $4)")
        .persistent(false)
        .bind(migration.version)
        .bind(migration.name)
        .bind(hex::encode(Sha256::digest(migration.sql)))
        .bind(clock.now().0)
        .execute(connection)
        .await?;
    Ok(())
}

/// The schema to work in, as SQL writes it, when server and database are fit for us.
async fn suitable(connection: &mut PgConnection) -> Result<String, Error> {
    let row = sqlx::query(
        "SELECT CAST(current_setting('server_version_num') AS INTEGER) AS number, \
         current_setting('server_version') AS version, current_setting('server_encoding') AS encoding, \
         current_schema()::TEXT AS schema, quote_ident(current_schema()::TEXT) AS quoted",
    )
    .persistent(false)
    .fetch_one(connection)
    .await?;
    if row.try_get::<i32, _>("number")? < OLDEST_SERVER {
        let version: String = row.try_get("version")?;
        return Err(Error::Unusable(format!("the server is PostgreSQL {version}; 13 or later is needed")));
    }
    let encoding: String = row.try_get("encoding")?;
    if encoding != "UTF8" {
        return Err(Error::Unusable(format!(
            "the database has encoding {encoding}: create one with UTF8 (CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0)"
        )));
    }
    let Some(schema) = row.try_get::<Option<String>, _>("schema")? else {
        return Err(Error::Unusable(
            "no schema of the connection's search_path exists: create one, or name another".to_owned(),
        ));
    };
    // It is written into the bodies of functions.
    if schema.contains(['\'', '"', '$', '\\']) {
        return Err(Error::Unusable(format!("the schema `{schema}` has a name with quotes: use another one")));
    }
    Ok(row.try_get("quoted")?)
}

/// The version of the schema; 0 for an empty one.
async fn version(connection: &mut PgConnection) -> Result<i64, Error> {
    let row = sqlx::query(AssertSqlSafe(format!(
        "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'schema_migrations') AS recorded, \
         (SELECT tablename::TEXT FROM pg_tables WHERE schemaname = current_schema() AND tablename IN {OURS} \
            ORDER BY tablename LIMIT 1) AS ours"
    )))
    .persistent(false)
    .fetch_one(&mut *connection)
    .await?;
    if !row.try_get::<bool, _>("recorded")? {
        return match row.try_get::<Option<String>, _>("ours")? {
            None => Ok(0),
            Some(table) => Err(Error::Unusable(format!(
                "the database has a table `{table}` that belongs to another program: give freightliner a database or schema \
                 of its own"
            ))),
        };
    }
    let version = sqlx::query("SELECT MAX(version) AS version, COUNT(checksum) AS checked FROM schema_migrations")
        .persistent(false)
        .fetch_one(connection)
        .await
        .and_then(|row| row.try_get::<Option<i64>, _>("version"));
    let version = match version {
        Ok(version) => version.unwrap_or(0),
        Err(error) => {
            return Err(match Error::from(error) {
                Error::Invalid(message) => Error::Unusable(format!(
                    "the table schema_migrations belongs to another program ({message}): give freightliner a database or \
                     schema of its own"
                )),
                other => other,
            });
        }
    };
    if version > NEWEST {
        return Err(Error::Unusable(format!(
            "the database has schema {version}, this program knows {NEWEST}: it belongs to a newer freightliner; upgrade this one"
        )));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_by_one_to_the_newest() {
        let versions: Vec<_> = MIGRATIONS.iter().map(|migration| migration.version).collect();
        assert_eq!(versions, (1..=NEWEST).collect::<Vec<_>>());
    }
}
