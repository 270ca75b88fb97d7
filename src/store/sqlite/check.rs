//! `db check`: is the file sound, and do rows and history agree? Read-only, on a live database.
//!
//! Every job's events are replayed and compared with its row. That goes page by page: the jobs of a page and their events are
//! read in one short transaction, so each job is seen at one moment, however busy the database is, and the whole check is not
//! one long read that keeps the write-ahead log from being truncated. What comes while it goes on is checked or not.

use super::Sqlite;
use crate::job::JobId;
use crate::job::replay::{Facts, Replay};
use crate::store::statements as sql;
use crate::store::{Error, Finding, rows};
use futures_util::TryStreamExt;
use sqlx::{Row, SqliteConnection};
use std::collections::BTreeMap;

/// Jobs whose histories are read in one transaction.
const PAGE: i64 = 500;
/// Findings after which replaying ends: a database like that needs an operator, not a longer list.
const ENOUGH: usize = 100;

fn finding(check: &str, message: String) -> Finding {
    Finding { check: check.to_owned(), message }
}

impl Sqlite {
    pub(in crate::store) async fn check(&self) -> Result<Vec<Finding>, Error> {
        let mut connection = self.connect_reader().await?;
        let mut findings = file(&mut connection).await?;
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
}

/// The file itself: SQLite's own checks.
async fn file(connection: &mut SqliteConnection) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for row in sqlx::query("PRAGMA integrity_check").fetch_all(&mut *connection).await? {
        let message: String = row.try_get(0)?;
        if message != "ok" {
            findings.push(finding("integrity", message));
        }
    }
    for row in sqlx::query("PRAGMA foreign_key_check").fetch_all(connection).await? {
        let (table, parent): (String, String) = (row.try_get(0)?, row.try_get(2)?);
        findings.push(finding("foreign keys", format!("a row of {table} names a row of {parent} that is not there")));
    }
    Ok(findings)
}

/// Replays the jobs of one page. Returns the last one's id; None when there is none above `after`.
async fn page(
    connection: &mut SqliteConnection,
    after: JobId,
    findings: &mut Vec<Finding>,
) -> Result<Option<JobId>, Error> {
    use sqlx::Connection;
    let mut moment = connection.begin().await?;
    let mut jobs: BTreeMap<JobId, (Facts, Replay)> = BTreeMap::new();
    for row in sqlx::query(sql::CHECK_JOBS).bind(after).bind(PAGE).fetch_all(&mut *moment).await? {
        let id = row.try_get("id")?;
        jobs.insert(id, (rows::facts(&row)?, Replay::new(id)));
    }
    let last = jobs.last_key_value().map(|(id, _)| *id);
    if let Some(last) = last {
        let mut events = sqlx::query(sql::CHECK_EVENTS).bind(after).bind(last).fetch(&mut *moment);
        while let Some(row) = events.try_next().await? {
            // An event of no job is found by the foreign keys.
            if let Some((_, replay)) = jobs.get_mut(&row.try_get("job_id")?) {
                replay.event(&rows::entry(&row)?);
            }
        }
    }
    moment.rollback().await?;
    let faults = jobs.into_values().flat_map(|(facts, replay)| replay.end(&facts));
    findings.extend(faults.map(|fault| finding(fault.check, fault.message)));
    Ok(last)
}
