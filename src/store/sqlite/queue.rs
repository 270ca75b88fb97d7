//! Into the queue and out of it: enqueue, due, intake, claim.

use super::attempt::rows as parameter;
use super::direct::Direct;
use super::writer::Lane;
use super::{NEWEST_SCHEMA, Sqlite};
use crate::clock::UnixMillis;
use crate::job::{Invalid, JobId, Parsed, parse_row};
use crate::store::error::check_schema;
use crate::store::statements as sql;
use crate::store::{Error, Intake, Waiting, rows};
use serde_json::json;
use sqlx::Row;

/// Rows that intake parses in one go.
const INTAKE_BATCH: i64 = 500;
/// Scheduled rows that become pending in one statement.
const DUE_BATCH: i64 = 1000;

/// A row that nobody had parsed, and what parsing came to.
pub(super) type Verdict = (JobId, Result<Parsed, Invalid>);

impl Sqlite {
    pub(in crate::store) async fn load_number(&self, content_hash: &str) -> Result<u64, Error> {
        let row = sqlx::query(sql::LOADS).bind(content_hash).fetch_one(&self.inner.readers).await?;
        Ok(u64::try_from(row.try_get::<i64, _>("loads")?).unwrap_or(0) + 1)
    }

    pub(in crate::store) async fn load_finished(&self, content_hash: &str, number: u64) -> Result<(), Error> {
        let now = self.inner.clock.now();
        let content_hash = content_hash.to_owned();
        self.write(Lane::Bulk, move |connection| {
            let load = (content_hash, i64::try_from(number).unwrap_or(i64::MAX), now.0);
            connection.run(sql::LOAD_FINISHED, load).map(|_| ())
        })
        .await
    }

    pub(in crate::store) async fn waiting(&self) -> Result<Waiting, Error> {
        let row = sqlx::query(sql::WAITING).bind(self.inner.clock.now().0).fetch_one(&self.inner.readers).await?;
        check_schema(row.try_get("schema")?, NEWEST_SCHEMA)?;
        Ok(Waiting {
            due: row.try_get("due")?,
            intake: row.try_get("intake")?,
            pending: row.try_get("pending")?,
            next_run_at: row.try_get::<Option<i64>, _>("next_run_at")?.map(UnixMillis),
        })
    }

    pub(in crate::store) async fn busy(&self, queue: Option<&str>) -> Result<bool, Error> {
        Ok(sqlx::query(sql::BUSY).bind(queue).fetch_one(&self.inner.readers).await?.try_get("busy")?)
    }

    pub(in crate::store) async fn last_event(&self) -> Result<i64, Error> {
        Ok(sqlx::query(sql::LAST_EVENT).fetch_one(&self.inner.readers).await?.try_get("seq")?)
    }

    pub(in crate::store) async fn failed_since(&self, seq: i64, queue: Option<&str>) -> Result<u64, Error> {
        let row = sqlx::query(sql::FAILED_SINCE).bind(seq).bind(queue).fetch_one(&self.inner.readers).await?;
        Ok(u64::try_from(row.try_get::<i64, _>("failed")?).unwrap_or(0))
    }

    pub(in crate::store) async fn due(&self) -> Result<u64, Error> {
        let now = self.inner.clock.now();
        self.write(Lane::Control, move |connection| connection.run(sql::DUE, (now.0, DUE_BATCH))).await
    }

    pub(in crate::store) async fn intake(&self) -> Result<Intake, Error> {
        let now = self.inner.clock.now();
        let parsed = self.parse_waiting().await?;
        if parsed.is_empty() {
            return Ok(Intake::default());
        }
        self.write(Lane::Control, move |connection| take_in(connection, &parsed, now)).await
    }

    /// Parses rows that nobody has parsed yet, a bounded number.
    pub(super) async fn parse_waiting(&self) -> Result<Vec<Verdict>, Error> {
        let found = sqlx::query(sql::UNPARSED).bind(INTAKE_BATCH).fetch_all(&self.inner.readers).await?;
        let mut parsed = Vec::with_capacity(found.len());
        for row in found {
            let (source, destination) = (rows::text(&row, "source")?, rows::text(&row, "destination")?);
            let options = rows::text(&row, "options")?;
            let verdict = if rows::text(&row, "kind")? == "copy" {
                serde_json::from_str(&options)
                    .map_err(|error| Invalid(format!("options: {error}")))
                    .and_then(|options| parse_row(&source, &destination, &options))
            } else {
                Err(Invalid(
                    "a job of kind expand belongs to a batch: use freightliner replicate-tree, sync or mirror run, or insert one row of kind copy for each image".to_owned(),
                ))
            };
            parsed.push((row.try_get("id")?, verdict));
        }
        Ok(parsed)
    }
}

/// Writes what parsing came to.
pub(super) fn take_in(connection: &Direct, parsed: &[Verdict], now: UnixMillis) -> Result<Intake, Error> {
    let mut intake = Intake::default();
    let mut accepted = Vec::with_capacity(parsed.len());
    for (id, verdict) in parsed {
        match verdict {
            Ok(parsed) => accepted.push(json!([
                id,
                parsed.source_key(),
                parsed.dest_key(),
                parsed.dest_registry(),
                parsed.options.canonical()
            ])),
            Err(Invalid(reason)) => {
                if connection.run(sql::REJECT, (id, reason, now.0))? > 0 {
                    intake.rejected.push((*id, reason.clone()));
                }
            }
        }
    }
    if !accepted.is_empty() {
        intake.accepted = connection.run(sql::PARSED, [parameter(accepted)])?;
    }
    Ok(intake)
}
