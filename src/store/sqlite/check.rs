//! `db check`: is the file sound, and do rows and history agree? Read-only, on a live database.
//!
//! Every job's events are replayed and compared with its row. That goes page by page: the jobs of a page and their events are
//! read in one short transaction, so each job is seen at one moment, however busy the database is, and the whole check is not
//! one long read that keeps the write-ahead log from being truncated. What comes while it goes on is checked or not. SQLite's
//! own checks are long reads: they wait for their turn and give way to writers, and then go on in smaller pieces (see
//! `reading`).

use super::Sqlite;
use super::reading::Stopped;
use crate::job::JobId;
use crate::store::check::{ENOUGH, Histories, PAGE, finding};
use crate::store::statements as sql;
use crate::store::{Error, Finding, rows};
use futures_util::TryStreamExt;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row, SqliteConnection};
use std::time::Duration;

/// How often a check of one table is begun again because writers waited for it.
const TRIES: usize = 3;
/// How long SQLite's own checks may take while nobody waits for them: the file of a million jobs takes seconds.
const LONGEST: Duration = Duration::from_hours(1);

impl Sqlite {
    pub(in crate::store) async fn check(&self) -> Result<Vec<Finding>, Error> {
        let mut findings = self.check_file("integrity_check", unsound).await?;
        findings.extend(self.check_file("foreign_key_check", orphan).await?);
        let mut connection = self.connect_reader().await?;
        for row in sqlx::query(sql::CHECK_TARGETS).fetch_all(&mut connection).await? {
            let (target, jobs) = (rows::text(&row, "dest_key")?, row.try_get::<i64, _>("jobs")?);
            findings.push(finding("targets", format!("{jobs} running jobs write {target}")));
        }
        let mut after = Some(0);
        while let Some(last) = after
            && findings.len() < ENOUGH
        {
            after = page(&mut connection, last, &mut findings).await?;
        }
        super::keep::close(connection).await;
        Ok(findings)
    }

    /// One of SQLite's own checks: over the whole file, or table by table when writers do not leave it the time for that.
    async fn check_file(&self, pragma: &str, read: Reader) -> Result<Vec<Finding>, Error> {
        if let Some(findings) = self.check_once(format!("PRAGMA {pragma}"), read).await? {
            return Ok(findings);
        }
        let tables = sqlx::query("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name");
        let mut findings = Vec::new();
        for row in tables.fetch_all(&self.inner.readers).await? {
            let table = rows::text(&row, "name")?;
            let text = format!("PRAGMA {pragma}('{}')", table.replace('\'', "''"));
            let mut found = None;
            for _ in 0..TRIES {
                if found.is_none() {
                    found = self.check_once(text.clone(), read).await?;
                }
            }
            let Some(found) = found else {
                let message = format!(
                    "so much is written just now that table {table} could not be checked without having jobs wait: check a \
                     copy (`freightliner db backup FILE`, then `freightliner --database sqlite:FILE db check`), or try again \
                     later"
                );
                return Err(Error::Backend { message, busy: false });
            };
            findings.extend(found);
        }
        Ok(findings)
    }

    /// None when writers waited for it.
    async fn check_once(&self, text: String, read: Reader) -> Result<Option<Vec<Finding>>, Error> {
        let turn = self.inner.reads.turn(LONGEST).await;
        let mut connection = self.connect_reader().await?;
        let guard = self.inner.reads.guard(&mut connection, LONGEST, turn).await?;
        let rows = sqlx::query(AssertSqlSafe(text)).persistent(false).fetch_all(&mut connection).await;
        let stopped = guard.stopped();
        super::keep::close(connection).await;
        match rows {
            Err(_) if stopped == Stopped::InTheWay => Ok(None),
            rows => rows?.iter().filter_map(|row| read(row).transpose()).collect::<Result<_, _>>().map(Some),
        }
    }
}

/// What a row of a check says; None when it says that all is well.
type Reader = fn(&SqliteRow) -> Result<Option<Finding>, Error>;

fn unsound(row: &SqliteRow) -> Result<Option<Finding>, Error> {
    let message: String = row.try_get(0)?;
    Ok((message != "ok").then(|| finding("integrity", message)))
}

fn orphan(row: &SqliteRow) -> Result<Option<Finding>, Error> {
    let (table, parent): (String, String) = (row.try_get(0)?, row.try_get(2)?);
    Ok(Some(finding("foreign keys", format!("a row of {table} names a row of {parent} that is not there"))))
}

/// Replays the jobs of one page. Returns the last one's id; None when there is none above `after`.
async fn page(
    connection: &mut SqliteConnection,
    after: JobId,
    findings: &mut Vec<Finding>,
) -> Result<Option<JobId>, Error> {
    use sqlx::Connection;
    let mut moment = connection.begin().await?;
    let mut page = Histories::default();
    for row in sqlx::query(sql::CHECK_JOBS).bind(after).bind(PAGE).fetch_all(&mut *moment).await? {
        page.job(&row)?;
    }
    let last = page.last();
    if let Some(last) = last {
        let mut events = sqlx::query(sql::CHECK_EVENTS).bind(after).bind(last).fetch(&mut *moment);
        while let Some(row) = events.try_next().await? {
            page.event(&row)?;
        }
    }
    moment.rollback().await?;
    findings.extend(page.end());
    Ok(last)
}
