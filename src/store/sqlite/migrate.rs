//! Migrations: forward only, one transaction each, safe when two processes migrate at once.
//!
//! Our own thirty lines and not sqlx's migrator, because that one takes no lock on SQLite: two processes that start together
//! would both run the same file. Here the version is read again inside `BEGIN IMMEDIATE`.

use crate::clock::UnixMillis;
use crate::store::Error;
use sha2::{Digest, Sha256};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Executor, Row};

/// One step of the schema.
struct Migration {
    version: i64,
    name: &'static str,
    sql: &'static str,
}

/// All steps, in order. The same numbers on both databases.
const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "jobs", sql: include_str!("../../../migrations/sqlite/0001_jobs.sql") },
    Migration { version: 2, name: "operations", sql: include_str!("../../../migrations/sqlite/0002_operations.sql") },
];

/// The newest schema that this program knows.
pub(super) const NEWEST: i64 = 2;

/// "FRGT": tells our files from other programs' (`PRAGMA application_id`).
const APPLICATION_ID: i32 = 0x4652_4754;

/// Brings the database to the newest schema. Returns the version it has then.
///
/// # Errors
/// [`Error::Unusable`] when it belongs to a newer version or to another program; nothing is changed then.
pub(super) async fn migrate(connection: &mut SqliteConnection, now: UnixMillis) -> Result<i64, Error> {
    if version(connection).await? == NEWEST {
        return Ok(NEWEST);
    }
    connection.execute("BEGIN IMMEDIATE").await?;
    let result = migrate_locked(connection, now).await;
    connection.execute(if result.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
    result
}

async fn migrate_locked(connection: &mut SqliteConnection, now: UnixMillis) -> Result<i64, Error> {
    let from = version(connection).await?;
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > from) {
        if migration.version == 1 {
            connection.execute("PRAGMA application_id = 1179797332").await?;
            connection
                .execute(
                    "CREATE TABLE schema_migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL, \
                     checksum TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT",
                )
                .await?;
        }
        sqlx::raw_sql(migration.sql).execute(&mut *connection).await?;
        sqlx::query("INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (?1, ?2, ?3, ?4)")
            .bind(migration.version)
            .bind(migration.name)
            .bind(hex::encode(Sha256::digest(migration.sql)))
            .bind(now.0)
            .execute(&mut *connection)
            .await?;
    }
    Ok(NEWEST)
}

/// The version of the schema; 0 for an empty file.
async fn version(connection: &mut SqliteConnection) -> Result<i64, Error> {
    let row = sqlx::query(
        "SELECT (SELECT COUNT(*) FROM sqlite_schema) AS objects, \
         (SELECT COUNT(*) FROM sqlite_schema WHERE name = 'schema_migrations') AS ours, \
         (SELECT application_id FROM pragma_application_id) AS application",
    )
    .fetch_one(&mut *connection)
    .await?;
    if row.try_get::<i64, _>("objects")? == 0 {
        return Ok(0);
    }
    if row.try_get::<i64, _>("ours")? == 0 || row.try_get::<i32, _>("application")? != APPLICATION_ID {
        return Err(Error::Unusable(
            "this SQLite file belongs to another program: give freightliner a file of its own".to_owned(),
        ));
    }
    let version: i64 = sqlx::query("SELECT MAX(version) AS version FROM schema_migrations")
        .fetch_one(connection)
        .await?
        .try_get("version")?;
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
        assert_eq!(APPLICATION_ID, 1_179_797_332);
    }
}
