//! `db check`: do rows and history agree? Read-only, on a live database.
//!
//! Pages and foreign keys are the server's care: it checks the one when it was made with checksums, and enforces the other.
//! Every job's events are replayed and compared with its row, page by page as on SQLite: each page is one snapshot, so each job
//! is seen at one moment, and no snapshot is held for long, which would keep the server from vacuuming.

use super::connect::part;
use super::{Postgres, statements as sql};
use crate::job::JobId;
use crate::store::check::{ENOUGH, Histories, PAGE, finding};
use crate::store::rows::Columns;
use crate::store::{Error, Finding};
use futures_util::TryStreamExt;
use sqlx::Executor;
use sqlx::postgres::PgConnection;

impl Postgres {
    pub(in crate::store) async fn check(&self) -> Result<Vec<Finding>, Error> {
        let mut connection = self.inner.sessions.connect().await?;
        let findings = look(&mut connection).await;
        part(connection).await;
        findings
    }
}

async fn look(connection: &mut PgConnection) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    // The unique index allows none; who owns the database can take it away.
    for row in sqlx::query(sql::CHECK_TARGETS).persistent(false).fetch_all(&mut *connection).await? {
        let (target, jobs) = (row.text("dest_key")?, row.int("jobs")?);
        findings.push(finding("targets", format!("{jobs} running jobs write {target}")));
    }
    let mut after = Some(0);
    while let Some(last) = after
        && findings.len() < ENOUGH
    {
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        after = page(connection, last, &mut findings).await?;
        connection.execute("ROLLBACK").await?;
    }
    Ok(findings)
}

/// Replays the jobs of one page. Returns the last one's id; None when there is none above `after`.
async fn page(
    connection: &mut PgConnection,
    after: JobId,
    findings: &mut Vec<Finding>,
) -> Result<Option<JobId>, Error> {
    let mut jobs = Histories::default();
    let page = sqlx::query(sql::CHECK_JOBS).bind(after).bind(PAGE).persistent(false);
    for row in page.fetch_all(&mut *connection).await? {
        jobs.job(&row)?;
    }
    let last = jobs.last();
    if let Some(last) = last {
        let events = sqlx::query(sql::CHECK_EVENTS).bind(after).bind(last).persistent(false);
        let mut events = events.fetch(&mut *connection);
        while let Some(row) = events.try_next().await? {
            jobs.event(&row)?;
        }
    }
    findings.extend(jobs.end());
    Ok(last)
}
