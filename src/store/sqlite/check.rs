//! `db check`: is the file sound, and do rows and history agree? Read-only, on a live database.

use super::Sqlite;
use crate::store::statements as sql;
use crate::store::{Error, Finding};
use sqlx::Row;

impl Sqlite {
    pub(in crate::store) async fn check(&self) -> Result<Vec<Finding>, Error> {
        let mut findings = Vec::new();
        let mut found = |check: &str, message: String| findings.push(Finding { check: check.to_owned(), message });
        // One transaction, so that all looks see the same moment.
        let mut reader = self.inner.readers.begin().await?;
        for row in sqlx::query("PRAGMA integrity_check").fetch_all(&mut *reader).await? {
            let message: String = row.try_get(0)?;
            if message != "ok" {
                found("integrity", message);
            }
        }
        for row in sqlx::query("PRAGMA foreign_key_check").fetch_all(&mut *reader).await? {
            let (table, parent): (String, String) = (row.try_get(0)?, row.try_get(2)?);
            found("foreign keys", format!("a row of {table} names a row of {parent} that is not there"));
        }
        for row in sqlx::query(sql::CHECK_LAST_EVENT).fetch_all(&mut *reader).await? {
            let (id, state): (i64, String) = (row.try_get("id")?, row.try_get("state")?);
            let said = row.try_get::<Option<String>, _>("said")?.unwrap_or_else(|| "nothing".to_owned());
            found("history", format!("job {id} is {state}, its last event says {said}"));
        }
        for row in sqlx::query(sql::CHECK_COMPLETIONS).fetch_all(&mut *reader).await? {
            let (id, generation, times): (i64, i64, i64) =
                (row.try_get("id")?, row.try_get("generation")?, row.try_get("times")?);
            found("completions", format!("job {id} was completed {times} times in generation {generation}"));
        }
        for row in sqlx::query(sql::CHECK_CHAIN).fetch_all(&mut *reader).await? {
            let (seq, id): (i64, i64) = (row.try_get("seq")?, row.try_get("id")?);
            found("chain", format!("event {seq} of job {id} does not follow from the one before, or its epoch fell"));
        }
        reader.rollback().await?;
        Ok(findings)
    }
}
