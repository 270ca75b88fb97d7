//! Migrations: forward only, one transaction each, safe when two processes migrate at once.
//!
//! Our own thirty lines and not sqlx's migrator, because that one takes no lock on SQLite: two processes that start together
//! would both run the same file. Here the version is read again inside `BEGIN IMMEDIATE`.

use super::direct::{Direct, Record};
use crate::clock::UnixMillis;
use crate::store::Error;
use crate::store::rows::Columns;
use sha2::{Digest, Sha256};

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
    Migration { version: 3, name: "order", sql: include_str!("../../../migrations/sqlite/0003_order.sql") },
    Migration { version: 4, name: "triggers", sql: include_str!("../../../migrations/sqlite/0004_triggers.sql") },
    Migration { version: 5, name: "mends", sql: include_str!("../../../migrations/sqlite/0005_mends.sql") },
    Migration { version: 6, name: "keys", sql: include_str!("../../../migrations/sqlite/0006_keys.sql") },
    Migration { version: 7, name: "ledger", sql: include_str!("../../../migrations/sqlite/0007_ledger.sql") },
    Migration { version: 8, name: "schedules", sql: include_str!("../../../migrations/sqlite/0008_schedules.sql") },
    Migration { version: 9, name: "batches", sql: include_str!("../../../migrations/sqlite/0009_batches.sql") },
    Migration { version: 10, name: "api", sql: include_str!("../../../migrations/sqlite/0010_api.sql") },
    Migration { version: 11, name: "vault", sql: include_str!("../../../migrations/sqlite/0011_vault.sql") },
];

/// The newest schema that this program knows.
pub(super) const NEWEST: i64 = 11;

/// "FRGT": tells our files from other programs' (`PRAGMA application_id`).
const APPLICATION_ID: i32 = 0x4652_4754;

/// Brings the database to the newest schema. Returns the version it has then.
///
/// # Errors
/// [`Error::Unusable`] when it belongs to a newer version or to another program; nothing is changed then.
pub(super) fn migrate(connection: &Direct, now: UnixMillis) -> Result<i64, Error> {
    if version(connection)? == NEWEST {
        return Ok(NEWEST);
    }
    connection.script("BEGIN IMMEDIATE")?;
    let result = migrate_locked(connection, now);
    connection.script(if result.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
    result
}

fn migrate_locked(connection: &Direct, now: UnixMillis) -> Result<i64, Error> {
    let from = version(connection)?;
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > from) {
        if migration.version == 1 {
            connection.script(&format!("PRAGMA application_id = {APPLICATION_ID}"))?;
            connection.script(
                "CREATE TABLE schema_migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL, \
                 checksum TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT",
            )?;
        }
        connection.script(migration.sql)?;
        let checksum = hex::encode(Sha256::digest(migration.sql));
        connection.run(
            "INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (?1, ?2, ?3, ?4)",
            (migration.version, migration.name, checksum, now.0),
        )?;
    }
    Ok(NEWEST)
}

/// The version of the schema; 0 for an empty file.
fn version(connection: &Direct) -> Result<i64, Error> {
    let facts = "SELECT (SELECT COUNT(*) FROM sqlite_schema) AS objects, \
         (SELECT COUNT(*) FROM sqlite_schema WHERE name = 'schema_migrations') AS ours, \
         (SELECT application_id FROM pragma_application_id) AS application";
    let read = |row: &Record<'_>| Ok((row.int("objects")?, row.int("ours")?, row.int("application")?));
    let (objects, ours, application) = connection.one(facts, [], read)?;
    if objects == 0 {
        return Ok(0);
    }
    if ours == 0 || application != i64::from(APPLICATION_ID) {
        return Err(Error::Unusable(
            "this SQLite file belongs to another program: give freightliner a file of its own".to_owned(),
        ));
    }
    let version =
        connection.one("SELECT MAX(version) AS version FROM schema_migrations", [], |row| row.int("version"))?;
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
