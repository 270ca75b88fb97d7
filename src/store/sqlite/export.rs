//! The whole database, page by page, as it was at one moment: the source of a copy into another one.

use super::Sqlite;
use crate::store::Error;
use crate::store::copy::{Page, Sequence, Texts};
use crate::store::rows::Columns;
use futures_util::TryStreamExt;
use serde_json::{Map, Value};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Column, Executor, Row, TypeInfo, ValueRef};

/// Most rows of a page.
const PAGE_ROWS: usize = 1000;
/// A page ends after so many bytes of text.
const PAGE_BYTES: usize = 8 * 1024 * 1024;
/// The place of a row in its table; no column has this name.
const PLACE: &str = "place_of_row";

/// A read transaction, and an eye on what others write meanwhile.
pub(in crate::store) struct Export {
    connection: SqliteConnection,
    watch: SqliteConnection,
    version: i64,
}

impl Sqlite {
    /// The database as it is now.
    pub(in crate::store) async fn export(&self) -> Result<Export, Error> {
        let mut watch = self.connect_reader().await?;
        let version = data_version(&mut watch).await?;
        let mut connection = self.connect_reader().await?;
        // The moment is that of the first read.
        connection.execute("BEGIN").await?;
        connection.execute("SELECT 1 FROM jobs LIMIT 1").await?;
        Ok(Export { connection, watch, version })
    }
}

impl Export {
    /// The names of a table's columns, sorted.
    pub(in crate::store) async fn columns(&mut self, table: &str) -> Result<Vec<String>, Error> {
        let look = "SELECT name FROM pragma_table_info(?1) ORDER BY name";
        let rows = sqlx::query(look).bind(table).fetch_all(&mut self.connection).await?;
        rows.iter().map(|row| row.text("name")).collect()
    }

    /// How many rows a table has.
    pub(in crate::store) async fn count(&mut self, table: &str) -> Result<u64, Error> {
        let look = AssertSqlSafe(format!("SELECT COUNT(*) AS n FROM {table}"));
        sqlx::query(look).fetch_one(&mut self.connection).await?.count("n")
    }

    /// The rows behind a place; None when there are none.
    pub(in crate::store) async fn page(
        &mut self,
        table: &str,
        after: i64,
        texts: &mut Texts,
    ) -> Result<Option<Page>, Error> {
        let look = format!("SELECT rowid AS {PLACE}, * FROM {table} WHERE rowid > ?1 ORDER BY rowid");
        let mut found = sqlx::query(AssertSqlSafe(look)).bind(after).fetch(&mut self.connection);
        let (mut rows, mut bytes, mut last) = (Vec::new(), 0, after);
        while rows.len() < PAGE_ROWS
            && bytes < PAGE_BYTES
            && let Some(row) = found.try_next().await?
        {
            last = row.int(PLACE)?;
            rows.push(object(table, &row, texts, &mut bytes)?);
        }
        if rows.is_empty() {
            return Ok(None);
        }
        Ok(Some(Page { rows: Value::Array(rows).to_string(), last }))
    }

    /// The last number that each table has given, also to rows that are gone.
    pub(in crate::store) async fn sequences(&mut self) -> Result<Vec<Sequence>, Error> {
        let rows = sqlx::query("SELECT name, seq FROM sqlite_sequence").fetch_all(&mut self.connection).await?;
        rows.iter().map(|row| Ok(Sequence { table: row.text("name")?, last: row.int("seq")? })).collect()
    }

    /// Somebody has committed something since the copy was begun.
    pub(in crate::store) async fn has_changed(&mut self) -> Result<bool, Error> {
        Ok(data_version(&mut self.watch).await? != self.version)
    }

    pub(in crate::store) async fn close(self) {
        super::keep::close(self.connection).await;
        super::keep::close(self.watch).await;
    }
}

/// A number that another connection's commit changes.
async fn data_version(connection: &mut SqliteConnection) -> Result<i64, Error> {
    Ok(sqlx::query("PRAGMA data_version").fetch_one(connection).await?.try_get(0)?)
}

/// A row by names of columns. Every table is STRICT, so there are numbers and texts alone.
fn object(table: &str, row: &SqliteRow, texts: &mut Texts, bytes: &mut usize) -> Result<Value, Error> {
    let job = match table {
        "jobs" => row.int_option("id")?,
        "job_events" | "transfers" | "idempotency_keys" | "pruned_jobs" => row.int_option("job_id")?,
        _ => None,
    };
    let mut object = Map::new();
    for column in row.columns() {
        let name = column.name();
        if name == PLACE {
            continue;
        }
        let raw = row.try_get_raw(name)?;
        let value = if raw.is_null() {
            Value::Null
        } else if raw.type_info().name() == "INTEGER" {
            row.int(name)?.into()
        } else {
            let text = row.bytes_option(name)?.unwrap_or_default();
            *bytes += text.len();
            texts.value(table, name, &text, job)?
        };
        object.insert(name.to_owned(), value);
    }
    Ok(Value::Object(object))
}
