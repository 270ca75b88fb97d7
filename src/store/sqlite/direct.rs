//! The writer's connection: SQLite called directly, on the writer's own thread.
//!
//! Not through sqlx, whose connection lives on a thread of its own: each statement and each row would be handed over and back,
//! which costs more than the statement itself. Both use one and the same SQLite library, so that their locks on the file
//! know of each other. It never waits for anything but the database.

use crate::store::Error;
use crate::store::rows::Columns;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, OpenFlags, Params, Row, Rows, ToSql};
use std::path::Path;
use std::time::Duration;

/// Prepared statements that are kept: more than there are in `statements.rs`, in all the widths that [`Direct::many`] uses.
const STATEMENTS: usize = 300;
/// Rows in one `VALUES` at most: as many as the writer takes at a time. With fifteen columns that is half of what SQLite allows
/// in parameters.
const WIDEST: usize = 1024;
/// What stands before the row of parameters in a statement for [`Direct::many`].
const VALUES: &str = "VALUES (";

/// Bytes of a page in the write-ahead log.
const FRAME: u64 = 4096 + 24;

thread_local! {
    /// What SQLite said at the last commit: a connection belongs to one thread.
    static LOG_PAGES: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// A value of a parameter.
pub(super) enum Cell<'a> {
    Null,
    Int(i64),
    Text(&'a str),
    Owned(String),
}

/// A connection that writes.
pub(super) struct Direct {
    connection: Connection,
}

/// A row of an answer. Columns are found by name; that is quick when they are read in their order.
pub(super) struct Record<'a> {
    row: &'a Row<'a>,
    names: &'a [String],
    next: std::cell::Cell<usize>,
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
            // What a statement that fails half way would undo is kept in memory: a file would be made for most statements.
            ("temp_store", "MEMORY"),
        ];
        for (name, value) in pragmas {
            direct.script(&format!("PRAGMA {name} = {value}"))?;
        }
        direct.connection.wal_hook(Some(|_, pages| {
            LOG_PAGES.set(u64::try_from(pages).unwrap_or(0));
            Ok(())
        }));
        Ok(direct)
    }

    /// How much of the write-ahead log is in use after the last commit of this thread, bytes. The file may be longer.
    #[expect(clippy::unused_self, reason = "it is this connection's thread that knows")]
    pub(super) fn log_length(&self) -> u64 {
        LOG_PAGES.get() * FRAME
    }

    /// Opens the file to read only. It must be there.
    ///
    /// # Errors
    /// Those of SQLite.
    pub(super) fn open_reading(path: &Path, busy_timeout: Duration) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let direct = Self { connection: Connection::open_with_flags(path, flags)? };
        direct.set_busy_timeout(busy_timeout)?;
        direct.script("PRAGMA query_only = ON")?;
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
        read: impl FnMut(&Record<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut statement = self.connection.prepare_cached(statement)?;
        let names = names(&statement);
        let mut values = Vec::new();
        read_into(&mut values, statement.query(parameters)?, &names, read)?;
        Ok(values)
    }

    /// Runs a statement over many rows, and reads what it gives. The statement is written for one row, `VALUES (?1, ..., ?n)`,
    /// and has no other parameters. It is run for as many rows as a power of two says, so that few texts are prepared: it must
    /// leave alone a row whose first column is NULL.
    pub(super) fn many<T>(
        &self,
        statement: &str,
        rows: &[Vec<Cell<'_>>],
        mut read: impl FnMut(&Record<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut values = Vec::new();
        for rows in rows.chunks(WIDEST) {
            let mut statement = self.connection.prepare_cached(&widened(statement, rows.len().next_power_of_two()))?;
            let names = names(&statement);
            for (at, cell) in rows.iter().flatten().enumerate() {
                statement.raw_bind_parameter(at + 1, cell)?;
            }
            read_into(&mut values, statement.raw_query(), &names, &mut read)?;
        }
        Ok(values)
    }

    /// As [`Direct::all`]; the first row, None when there is none.
    pub(super) fn first<T>(
        &self,
        statement: &str,
        parameters: impl Params,
        read: impl FnMut(&Record<'_>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        Ok(self.all(statement, parameters, read)?.into_iter().next())
    }

    /// As [`Direct::first`], for a statement that always gives a row.
    pub(super) fn one<T>(
        &self,
        statement: &str,
        parameters: impl Params,
        read: impl FnMut(&Record<'_>) -> Result<T, Error>,
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

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Text(text) => (*text).into(),
            Self::Owned(text) => text.as_str().into(),
        }))
    }
}

impl From<i64> for Cell<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl<'a> From<&'a str> for Cell<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl From<String> for Cell<'_> {
    fn from(text: String) -> Self {
        Self::Owned(text)
    }
}

impl<'a, T: Into<Cell<'a>>> From<Option<T>> for Cell<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

fn names(statement: &CachedStatement<'_>) -> Vec<String> {
    statement.column_names().into_iter().map(str::to_owned).collect()
}

fn read_into<T>(
    values: &mut Vec<T>,
    mut rows: Rows<'_>,
    names: &[String],
    mut read: impl FnMut(&Record<'_>) -> Result<T, Error>,
) -> Result<(), Error> {
    while let Some(row) = rows.next()? {
        values.push(read(&Record { row, names, next: std::cell::Cell::new(0) })?);
    }
    Ok(())
}

/// The statement for so many rows instead of one.
fn widened(statement: &str, rows: usize) -> String {
    let Some((before, (row, after))) =
        statement.split_once(VALUES).and_then(|(before, rest)| rest.split_once(')').map(|parts| (before, parts)))
    else {
        return statement.to_owned();
    };
    let mut group = "(?".to_owned();
    group.push_str(&",?".repeat(row.matches(',').count()));
    group.push(')');
    let mut wide = String::with_capacity(statement.len() + rows * (group.len() + 1));
    wide.push_str(before);
    wide.push_str("VALUES ");
    for at in 0..rows {
        wide.push_str(if at == 0 { "" } else { "," });
        wide.push_str(&group);
    }
    wide.push_str(after);
    wide
}

impl Record<'_> {
    fn value(&self, column: &str) -> Result<ValueRef<'_>, Error> {
        let start = self.next.get();
        let (before, after) = self.names.split_at(start.min(self.names.len()));
        let is_it = |name: &String| name == column;
        let at = after.iter().position(is_it).map(|at| at + start).or_else(|| before.iter().position(is_it));
        let missing = || Error::Unusable(format!("a row cannot be read: it has no column {column}"));
        let at = at.ok_or_else(missing)?;
        self.next.set(at + 1);
        Ok(self.row.get_ref(at)?)
    }
}

impl Columns for Record<'_> {
    fn int_option(&self, column: &str) -> Result<Option<i64>, Error> {
        let unreadable = |error| Error::Unusable(format!("a row cannot be read: {column}: {error}"));
        self.value(column)?.as_i64_or_null().map_err(unreadable)
    }

    fn bytes_option(&self, column: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(match self.value(column)? {
            ValueRef::Null => None,
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.to_vec()),
            ValueRef::Integer(number) => Some(number.to_string().into_bytes()),
            ValueRef::Real(number) => Some(number.to_string().into_bytes()),
        })
    }

    fn flag(&self, column: &str) -> Result<bool, Error> {
        Ok(self.int(column)? != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_that_durability_needs_are_on() {
        let folder = tempfile::tempdir().unwrap();
        let direct = Direct::open(&folder.path().join("x.db"), Duration::from_secs(1)).unwrap();
        let number = |pragma: &str| direct.one(&format!("PRAGMA {pragma}"), [], |row| row.int(pragma)).unwrap();
        assert_eq!(number("synchronous"), 2);
        assert_eq!(number("foreign_keys"), 1);
        assert_eq!(number("wal_autocheckpoint"), 0);
        assert_eq!(direct.one("PRAGMA journal_mode", [], |row| row.text("journal_mode")).unwrap(), "wal");
        direct.close();
    }
    #[test]
    fn a_statement_for_one_row_serves_many() {
        let folder = tempfile::tempdir().unwrap();
        let direct = Direct::open(&folder.path().join("x.db"), Duration::from_secs(1)).unwrap();
        let statement = "WITH v (a, b) AS (VALUES (?1, ?2)) SELECT a, b FROM v WHERE a IS NOT NULL";
        for count in [0, 1, 2, 3, 8, 100, 256, 257, 1024, 1025, 3000] {
            let rows: Vec<Vec<Cell<'_>>> = (0..count)
                .map(|at: i64| vec![at.into(), if at % 2 == 0 { Cell::from("x") } else { None::<i64>.into() }])
                .collect();
            let found = direct.many(statement, &rows, |row| Ok((row.text_option("b")?, row.int("a")?))).unwrap();
            let wanted = (0..count).map(|at| ((at % 2 == 0).then(|| "x".to_owned()), at)).collect::<Vec<_>>();
            assert_eq!(found, wanted, "{count} rows");
        }
        direct.close();
    }
}
