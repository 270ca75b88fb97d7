//! The writer's connection: SQLite called directly, on the writer's own thread.
//!
//! Not through sqlx, whose connection lives on a thread of its own: each statement and each row would be handed over and back,
//! which costs more than the statement itself. Both use one and the same SQLite library, so that their locks on the file
//! know of each other. It never waits for anything but the database.

use crate::store::Error;
use crate::store::rows::Columns;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Params, Row};
use std::path::Path;
use std::time::Duration;

/// Prepared statements that are kept: more than there are in `statements.rs`.
const STATEMENTS: usize = 200;

/// A connection that writes.
pub(super) struct Direct {
    connection: Connection,
}

impl Direct {
    /// Opens the file, creates it when it is not there, with a write-ahead log and commits that survive a power cut.
    ///
    /// # Errors
    /// Those of SQLite.
    pub(super) fn open(path: &Path, busy_timeout: Duration) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        let direct = Self { connection };
        direct.set_busy_timeout(busy_timeout)?;
        let pragmas = [
            ("journal_mode", "WAL"),
            ("synchronous", "FULL"),
            ("foreign_keys", "ON"),
            // The writer does that itself, after it has answered.
            ("wal_autocheckpoint", "0"),
            ("cache_size", super::CACHE_SIZE),
        ];
        for (name, value) in pragmas {
            direct.script(&format!("PRAGMA {name} = {value}"))?;
        }
        Ok(direct)
    }

    /// How long SQLite itself waits for a lock.
    pub(super) fn set_busy_timeout(&self, wait: Duration) -> Result<(), Error> {
        Ok(self.connection.busy_timeout(wait)?)
    }

    /// Runs statements without parameters; their rows are dropped.
    pub(super) fn script(&self, statements: &str) -> Result<(), Error> {
        Ok(self.connection.execute_batch(statements)?)
    }

    /// Runs a statement that gives no rows. Returns how many rows it changed.
    pub(super) fn run(&self, statement: &str, parameters: impl Params) -> Result<u64, Error> {
        let changed = self.connection.prepare_cached(statement)?.execute(parameters)?;
        Ok(u64::try_from(changed).unwrap_or(u64::MAX))
    }

    /// Runs a statement to its end and reads every row.
    pub(super) fn all<T>(
        &self,
        statement: &str,
        parameters: impl Params,
        mut read: impl FnMut(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut statement = self.connection.prepare_cached(statement)?;
        let mut rows = statement.query(parameters)?;
        let mut values = Vec::new();
        while let Some(row) = rows.next()? {
            values.push(read(row)?);
        }
        Ok(values)
    }

    /// As [`Direct::all`]; the first row, None when there is none.
    pub(super) fn first<T>(
        &self,
        statement: &str,
        parameters: impl Params,
        read: impl FnMut(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        Ok(self.all(statement, parameters, read)?.into_iter().next())
    }

    /// As [`Direct::first`], for a statement that always gives a row.
    pub(super) fn one<T>(
        &self,
        statement: &str,
        parameters: impl Params,
        read: impl FnMut(&Row<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let missing = || Error::Backend { message: "a statement gave no row".to_owned(), busy: false };
        self.first(statement, parameters, read)?.ok_or_else(missing)
    }

    /// Closes the connection; what is open is rolled back.
    pub(super) fn close(self) {
        if let Err((_, error)) = self.connection.close() {
            tracing::debug!(%error, "closing a connection");
        }
    }
}

impl Columns for Row<'_> {
    fn int_option(&self, column: &str) -> Result<Option<i64>, Error> {
        Ok(self.get(column)?)
    }

    fn bytes_option(&self, column: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(match self.get_ref(column)? {
            ValueRef::Null => None,
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.to_vec()),
            ValueRef::Integer(number) => Some(number.to_string().into_bytes()),
            ValueRef::Real(number) => Some(number.to_string().into_bytes()),
        })
    }

    fn flag(&self, column: &str) -> Result<bool, Error> {
        Ok(self.get(column)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_that_durability_needs_are_on() {
        let folder = tempfile::tempdir().unwrap();
        let direct = Direct::open(&folder.path().join("x.db"), Duration::from_secs(1)).unwrap();
        let number =
            |pragma: &str| direct.one(&format!("PRAGMA {pragma}"), [], |row| Ok(row.get::<_, i64>(0)?)).unwrap();
        assert_eq!(number("synchronous"), 2);
        assert_eq!(number("foreign_keys"), 1);
        assert_eq!(number("wal_autocheckpoint"), 0);
        assert_eq!(direct.one("PRAGMA journal_mode", [], |row| Ok(row.get::<_, String>(0)?)).unwrap(), "wal");
        direct.close();
    }
}
