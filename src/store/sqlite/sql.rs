//! `freightliner sql`: one read-only statement of somebody else's.
//!
//! Read-only three times over: the file is opened so, `query_only` is on, and only statements that read are let through at
//! all, because ATTACH and VACUUM INTO would write other files.

use super::Sqlite;
use super::reading::Stopped;
use crate::store::{Error, Table};
use futures_util::TryStreamExt;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{AssertSqlSafe, Column, ConnectOptions, Connection, Row, TypeInfo, ValueRef};
use std::time::Duration;

/// PRAGMAs that only read, by name.
const READING_PRAGMAS: &[&str] = &[
    "application_id",
    "collation_list",
    "compile_options",
    "data_version",
    "database_list",
    "encoding",
    "foreign_key_check",
    "foreign_key_list",
    "freelist_count",
    "function_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "journal_mode",
    "module_list",
    "page_count",
    "page_size",
    "pragma_list",
    "quick_check",
    "schema_version",
    "table_info",
    "table_list",
    "table_xinfo",
    "user_version",
];

impl Sqlite {
    pub(in crate::store) async fn query(&self, text: &str, limit: usize, deadline: Duration) -> Result<Table, Error> {
        refuse_writes(text)?;
        let options = SqliteConnectOptions::new()
            .filename(&self.inner.path)
            .read_only(true)
            .pragma("query_only", "ON")
            .pragma("trusted_schema", "OFF")
            .disable_statement_logging();
        let turn = self.inner.reads.turn(deadline).await;
        let mut connection = options.connect().await?;
        // When it is dropped, a statement that still runs in SQLite's thread stops, so that the process can end.
        let guard = self.inner.reads.guard(&mut connection, deadline, turn).await?;
        let read = async {
            let mut table = Table { columns: Vec::new(), rows: Vec::new(), truncated: false };
            let mut rows = sqlx::query(AssertSqlSafe(text.to_owned())).persistent(false).fetch(&mut connection);
            while let Some(row) = rows.try_next().await? {
                if table.rows.len() == limit {
                    table.truncated = true;
                    break;
                }
                if table.columns.is_empty() {
                    table.columns = row.columns().iter().map(|column| column.name().to_owned()).collect();
                }
                table.rows.push((0..row.columns().len()).map(|index| value(&row, index)).collect::<Result<_, _>>()?);
            }
            Ok::<_, Error>(table)
        };
        let result = tokio::time::timeout(deadline, read).await;
        let mut table = match (result, guard.stopped()) {
            (Ok(Ok(table)), _) => table,
            (Ok(Err(error)), Stopped::Not) => return Err(error),
            (Ok(Err(_)), Stopped::InTheWay) => return Err(in_the_way()),
            (Ok(Err(_)), Stopped::Late) | (Err(_), _) => return Err(too_long(deadline)),
        };
        if table.columns.is_empty() {
            table.columns = self.column_names(text).await?;
        }
        if let Err(error) = connection.close().await {
            tracing::debug!(%error, "closing a query's connection");
        }
        Ok(table)
    }

    /// Names of the columns of a statement that gave no row.
    async fn column_names(&self, text: &str) -> Result<Vec<String>, Error> {
        use sqlx::{Executor, SqlSafeStr, Statement};
        let mut connection = self.inner.readers.acquire().await?;
        let statement = connection.prepare(AssertSqlSafe(text.to_owned()).into_sql_str()).await?;
        Ok(statement.columns().iter().map(|column| column.name().to_owned()).collect())
    }
}

fn too_long(deadline: Duration) -> Error {
    let message = format!("the query took longer than {deadline:?}: narrow it, or give it more time");
    Error::Backend { message, busy: false }
}

/// More time would not help.
fn in_the_way() -> Error {
    let message = "the query was ended, because so much is written just now that jobs waited for it: narrow it, or ask a copy: \
                   `freightliner db backup FILE`, then `freightliner --database sqlite:FILE sql QUERY`";
    Error::Backend { message: message.to_owned(), busy: false }
}

/// A value as JSON; a BLOB as a string of hex digits.
fn value(row: &SqliteRow, index: usize) -> Result<serde_json::Value, Error> {
    let raw = row.try_get_raw(index)?;
    if raw.is_null() {
        return Ok(serde_json::Value::Null);
    }
    let kind = raw.type_info().name().to_owned();
    Ok(match kind.as_str() {
        "INTEGER" | "BOOLEAN" => row.try_get_unchecked::<i64, _>(index)?.into(),
        "REAL" => row.try_get_unchecked::<f64, _>(index)?.into(),
        "BLOB" => hex::encode(row.try_get_unchecked::<Vec<u8>, _>(index)?).into(),
        // Anybody may have stored bytes that are no text.
        _ => String::from_utf8_lossy(&row.try_get_unchecked::<Vec<u8>, _>(index)?).into(),
    })
}

/// Lets through one statement that starts with a word that reads.
fn refuse_writes(text: &str) -> Result<(), Error> {
    let words = words(text);
    let refuse =
        |why: &str| Err(Error::Invalid(format!("sql: {why}: one SELECT, WITH, VALUES, EXPLAIN or reading PRAGMA")));
    if let Some(end) = words.iter().position(|word| word == ";")
        && words[end..].iter().any(|word| word != ";")
    {
        return refuse("more than one statement");
    }
    let mut words = words.iter().map(String::as_str).filter(|word| *word != ";");
    match words.next() {
        None => refuse("there is no statement"),
        Some("select" | "with" | "values") => Ok(()),
        Some("explain") => match words.find(|word| !matches!(*word, "query" | "plan")) {
            Some("select" | "with" | "values") => Ok(()),
            _ => refuse("EXPLAIN of a statement that writes"),
        },
        Some("pragma") => {
            let name = words.next().unwrap_or_default();
            let name = name.rsplit('.').next().unwrap_or_default();
            // An argument of journal_mode and its like would set it.
            let sets = words.next().is_some_and(|word| word == "=")
                || (matches!(
                    name,
                    "journal_mode" | "user_version" | "application_id" | "encoding" | "page_size" | "schema_version"
                ) && text.contains('('));
            if READING_PRAGMAS.contains(&name) && !sets { Ok(()) } else { refuse("this PRAGMA may write") }
        }
        Some(_) => refuse("this statement may write"),
    }
}

/// The words of a statement in lower case, and `;` and `=` as words of their own; strings, quoted names and comments are one
/// word that matches nothing.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.find('\n').map_or("", |end| &comment[end..]);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.find("*/").map_or("", |end| &comment[end + 2..]);
        } else if let Some(close) = match first {
            '\'' | '"' | '`' => Some(first),
            '[' => Some(']'),
            _ => None,
        } {
            let quoted = &rest[1..];
            rest = quoted.find(close).map_or("", |end| &quoted[end + 1..]);
            words.push("''".to_owned());
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '.').unwrap_or(rest.len());
            words.push(rest[..end].to_lowercase());
            rest = &rest[end..];
        } else {
            if matches!(first, ';' | '=') {
                words.push(first.to_string());
            }
            rest = &rest[first.len_utf8()..];
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::refuse_writes;

    #[test]
    fn what_reads_is_let_through() {
        for text in [
            "SELECT 1",
            "select ';' ;",
            " -- a comment; with a semicolon\n WITH x AS (SELECT 1) SELECT * FROM x; -- end",
            "VALUES (1)",
            "EXPLAIN QUERY PLAN SELECT 1",
            "PRAGMA integrity_check",
            "PRAGMA table_info(jobs)",
            "PRAGMA journal_mode",
            "/* ; */ select [a;b] from \"c;d\"",
        ] {
            assert!(refuse_writes(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_may_write_is_refused() {
        for text in [
            "",
            ";",
            "ATTACH 'x.db' AS x",
            "VACUUM INTO 'x.db'",
            "INSERT INTO jobs (source, destination) VALUES ('a', 'b')",
            "SELECT 1; DELETE FROM jobs",
            "EXPLAIN DELETE FROM jobs",
            "PRAGMA journal_mode = DELETE",
            "PRAGMA journal_mode(DELETE)",
            "PRAGMA main.user_version=3",
            "PRAGMA wal_checkpoint",
            "-- nothing but this",
            "BEGIN",
        ] {
            assert!(refuse_writes(text).is_err(), "{text}");
        }
    }
}
