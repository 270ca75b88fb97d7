//! `freightliner sql`: one read-only statement of somebody else's.
//!
//! Read-only three times over: only a statement that begins with a word that reads is let through (COPY would write files);
//! the server is asked to prepare it first, which it refuses for more than one; and it runs in a READ ONLY transaction of a
//! connection of its own, which the server ends at the deadline.

use super::Postgres;
use super::connect::part;
use crate::store::{Error, Table};
use futures_util::TryStreamExt;
use sqlx::postgres::{PgConnection, PgDatabaseError, PgRow, PgValueFormat};
use sqlx::{AssertSqlSafe, Column, Executor, Row, SqlSafeStr, Statement, TypeInfo, ValueRef};
use std::time::Duration;

/// How much longer than the server's limit we wait for its answer.
const GRACE: Duration = Duration::from_secs(1);

impl Postgres {
    pub(in crate::store) async fn query(&self, text: &str, limit: usize, deadline: Duration) -> Result<Table, Error> {
        refuse_writes(text)?;
        let mut connection = self.inner.sessions.connect().await?;
        let late = || Error::Backend {
            message: format!("the query took longer than {deadline:?}: narrow it, or give it more time"),
            busy: false,
        };
        let read = async {
            let begin = format!("BEGIN READ ONLY; SET LOCAL statement_timeout = {}", deadline.as_millis().max(1));
            sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut connection).await?;
            let table = read(&mut connection, text, limit).await?;
            // Rows beyond the limit are not waited for: the session ends with them.
            if !table.truncated {
                connection.execute("ROLLBACK").await?;
            }
            Ok(table)
        };
        let table = match tokio::time::timeout(deadline + GRACE, read).await {
            Ok(Ok(table)) => table,
            Ok(Err(error)) if is_late(&error) => return Err(late()),
            Ok(Err(error)) => return Err(refused(error)),
            Err(_) => return Err(late()),
        };
        part(connection).await;
        Ok(table)
    }
}

async fn read(connection: &mut PgConnection, text: &str, limit: usize) -> Result<Table, sqlx::Error> {
    let mut table = Table { columns: Vec::new(), rows: Vec::new(), truncated: false };
    let prepared = connection.prepare(AssertSqlSafe(text.to_owned()).into_sql_str()).await?;
    table.columns = prepared.columns().iter().map(|column| column.name().to_owned()).collect();
    // Behind a pooler its name would be in the way of whoever comes to this session next.
    connection.execute("DEALLOCATE ALL").await?;
    // Without parameters the server answers in text, which every type has.
    let mut rows = sqlx::raw_sql(AssertSqlSafe(text.to_owned())).fetch(&mut *connection);
    while let Some(row) = rows.try_next().await? {
        if table.rows.len() == limit {
            table.truncated = true;
            return Ok(table);
        }
        table.rows.push((0..row.columns().len()).map(|index| value(&row, index)).collect::<Result<_, _>>()?);
    }
    drop(rows);
    Ok(table)
}

/// Lets through what begins with a word that reads.
fn refuse_writes(text: &str) -> Result<(), Error> {
    let text = after_comments(text);
    let word: String = text.chars().take_while(char::is_ascii_alphabetic).collect::<String>().to_ascii_lowercase();
    match word.as_str() {
        "select" | "with" | "values" | "table" | "explain" | "show" => Ok(()),
        "" => Err(Error::Invalid(
            "sql: there is no statement: one SELECT, WITH, VALUES, TABLE, EXPLAIN or SHOW".to_owned(),
        )),
        _ => Err(Error::Invalid(
            "sql: this statement may write: one SELECT, WITH, VALUES, TABLE, EXPLAIN or SHOW".to_owned(),
        )),
    }
}

/// The text from its first word on. Comments may be nested.
fn after_comments(mut text: &str) -> &str {
    loop {
        text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '(');
        if let Some(line) = text.strip_prefix("--") {
            text = line.find('\n').map_or("", |end| &line[end..]);
        } else if text.starts_with("/*") {
            let mut depth = 0;
            let mut at = 0;
            while at < text.len() {
                let rest = &text[at..];
                if rest.starts_with("/*") {
                    (depth, at) = (depth + 1, at + 2);
                } else if rest.starts_with("*/") {
                    (depth, at) = (depth - 1, at + 2);
                    if depth == 0 {
                        break;
                    }
                } else {
                    at += rest.chars().next().map_or(1, char::len_utf8);
                }
            }
            text = &text[at.min(text.len())..];
        } else {
            return text;
        }
    }
}

fn is_late(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "57014")
}

/// What the server has against somebody's statement is that somebody's affair.
fn refused(error: sqlx::Error) -> Error {
    match error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>()) {
        Some(answer) if !matches!(answer.code().get(..2), Some("57" | "08" | "53" | "58" | "XX")) => {
            Error::Invalid(format!("SQL: {}", answer.message()))
        }
        _ => error.into(),
    }
}

/// A value as JSON; bytes as a string of hex digits, everything that JSON does not know as its text.
fn value(row: &PgRow, index: usize) -> Result<serde_json::Value, sqlx::Error> {
    let raw = row.try_get_raw(index)?;
    if raw.is_null() {
        return Ok(serde_json::Value::Null);
    }
    debug_assert_eq!(raw.format(), PgValueFormat::Text, "a simple query is answered in text");
    let text = raw.as_str().map_err(sqlx::Error::Decode)?;
    let number = || serde_json::from_str::<serde_json::Number>(text).ok().map(serde_json::Value::Number);
    let known = match raw.type_info().name() {
        "BOOL" => Some((text == "t").into()),
        // NaN and infinity are no JSON.
        "INT2" | "INT4" | "INT8" | "FLOAT4" | "FLOAT8" | "NUMERIC" | "OID" => number(),
        "BYTEA" => text.strip_prefix("\\x").map(Into::into),
        _ => None,
    };
    Ok(known.unwrap_or_else(|| text.into()))
}

#[cfg(test)]
mod tests {
    use super::refuse_writes;

    #[test]
    fn the_first_word_decides() {
        for text in
            ["SELECT 1", " -- delete\n/* a /* b */ */ (select 1)", "VALUES (1)", "TABLE jobs", "explain select 1"]
        {
            assert!(refuse_writes(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "-- nothing",
            "/* open",
            "COPY jobs TO '/x'",
            "DO $$ $$",
            "DELETE FROM jobs",
            "COMMIT",
            "/* select */ SET x = 1",
        ] {
            assert!(refuse_writes(text).is_err(), "{text}");
        }
    }
}
