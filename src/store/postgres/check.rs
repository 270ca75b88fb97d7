//! `db check`: do rows and history agree? Read-only, on a live database.
//!
//! Pages and foreign keys are the server's care: it checks the one when it was made with checksums, and enforces the other.

use super::connect::part;
use super::{Postgres, statements as sql};
use crate::store::rows::Columns;
use crate::store::{Error, Finding};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Executor};

impl Postgres {
    pub(in crate::store) async fn check(&self) -> Result<Vec<Finding>, Error> {
        let mut connection = self.inner.sessions.connect().await?;
        // One snapshot, so that all looks see the same moment.
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let findings = look(&mut connection).await;
        connection.execute("ROLLBACK").await?;
        part(connection).await;
        findings
    }
}

async fn look(connection: &mut PgConnection) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    let mut found = |check: &str, message: String| findings.push(Finding { check: check.to_owned(), message });
    for row in rows(connection, sql::CHECK_LAST_EVENT).await? {
        let said = row.text_option("said")?.unwrap_or_else(|| "nothing".to_owned());
        found("history", format!("job {} is {}, its last event says {said}", row.int("id")?, row.text("state")?));
    }
    for row in rows(connection, sql::CHECK_COMPLETIONS).await? {
        let (id, generation, times) = (row.int("id")?, row.int("generation")?, row.int("times")?);
        found("completions", format!("job {id} was completed {times} times in generation {generation}"));
    }
    for row in rows(connection, sql::CHECK_CHAIN).await? {
        let (seq, id) = (row.int("seq")?, row.int("id")?);
        found("chain", format!("event {seq} of job {id} does not follow from the one before, or its epoch fell"));
    }
    Ok(findings)
}

async fn rows(connection: &mut PgConnection, text: &'static str) -> Result<Vec<PgRow>, Error> {
    Ok(sqlx::query(AssertSqlSafe(text)).persistent(false).fetch_all(connection).await?)
}
