//! Into the queue and out of it: enqueue, due, intake, claim.

use super::Sqlite;
use crate::clock::UnixMillis;
use crate::job::{Enqueued, Invalid, JobId, NewJob, Parsed, parse_row};
use crate::store::statements as sql;
use crate::store::{Claim, ClaimRequest, Error, Intake, Waiting, rows};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Row, ValueRef};

/// Rows that intake parses in one go.
const INTAKE_BATCH: i64 = 500;
/// Scheduled rows that become pending in one statement.
const DUE_BATCH: i64 = 1000;
/// Rows at the head of a queue that a claim looks at first.
const CLAIM_WINDOW: i64 = 1000;

impl Sqlite {
    pub(in crate::store) async fn enqueue(&self, jobs: Vec<NewJob>, actor: &str) -> Result<Vec<Enqueued>, Error> {
        let now = self.inner.clock.now();
        let actor = actor.to_owned();
        self.inner
            .writer
            .write(move |connection| {
                Box::pin(async move {
                    let mut enqueued = Vec::with_capacity(jobs.len());
                    for job in &jobs {
                        enqueued.push(enqueue_one(connection, job, now, &actor).await?);
                    }
                    Ok(enqueued)
                })
            })
            .await
            .inspect(|_| self.inner.watch.committed())
    }

    pub(in crate::store) async fn load_number(&self, content_hash: &str) -> Result<u64, Error> {
        let row = sqlx::query(sql::LOADS).bind(content_hash).fetch_one(&self.inner.readers).await?;
        Ok(u64::try_from(row.try_get::<i64, _>("loads")?).unwrap_or(0) + 1)
    }

    pub(in crate::store) async fn load_finished(&self, content_hash: &str, number: u64) -> Result<(), Error> {
        let now = self.inner.clock.now();
        let content_hash = content_hash.to_owned();
        self.inner
            .writer
            .write(move |connection| {
                Box::pin(async move {
                    sqlx::query(sql::LOAD_FINISHED)
                        .bind(content_hash)
                        .bind(i64::try_from(number).unwrap_or(i64::MAX))
                        .bind(now.0)
                        .execute(connection)
                        .await?;
                    Ok(())
                })
            })
            .await
    }

    pub(in crate::store) async fn waiting(&self) -> Result<Waiting, Error> {
        let row = sqlx::query(sql::WAITING).bind(self.inner.clock.now().0).fetch_one(&self.inner.readers).await?;
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
        self.inner
            .writer
            .write(move |connection| {
                Box::pin(async move {
                    Ok(sqlx::query(sql::DUE).bind(now.0).bind(DUE_BATCH).execute(connection).await?.rows_affected())
                })
            })
            .await
    }

    pub(in crate::store) async fn intake(&self) -> Result<Intake, Error> {
        let now = self.inner.clock.now();
        let parsed = self.parse_waiting().await?;
        if parsed.is_empty() {
            return Ok(Intake::default());
        }
        self.inner.writer.write(move |connection| Box::pin(take_in(connection, parsed, now))).await
    }

    pub(in crate::store) async fn intake_and_claim(
        &self,
        request: ClaimRequest,
    ) -> Result<(Intake, Vec<Claim>), Error> {
        let now = self.inner.clock.now();
        let parsed = self.parse_waiting().await?;
        self.inner
            .writer
            .write(move |connection| {
                Box::pin(async move {
                    let intake = take_in(&mut *connection, parsed, now).await?;
                    Ok((intake, claim(connection, &request, now).await?))
                })
            })
            .await
    }

    pub(in crate::store) async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claim>, Error> {
        let now = self.inner.clock.now();
        self.inner.writer.write(move |connection| Box::pin(async move { claim(connection, &request, now).await })).await
    }

    /// Parses rows that nobody has parsed yet, a bounded number.
    async fn parse_waiting(&self) -> Result<Vec<(JobId, Result<Parsed, Invalid>)>, Error> {
        let rows = sqlx::query(sql::UNPARSED).bind(INTAKE_BATCH).fetch_all(&self.inner.readers).await?;
        let mut parsed = Vec::with_capacity(rows.len());
        for row in rows {
            let (source, destination) = (rows::text(&row, "source")?, rows::text(&row, "destination")?);
            let options = rows::text(&row, "options")?;
            let verdict = if rows::text(&row, "kind")? == "copy" {
                serde_json::from_str(&options)
                    .map_err(|error| Invalid(format!("options: {error}")))
                    .and_then(|options| parse_row(&source, &destination, &options))
            } else {
                Err(Invalid(
                    "not implemented: jobs of kind expand; insert one row of kind copy for each image".to_owned(),
                ))
            };
            parsed.push((row.try_get::<JobId, _>("id")?, verdict));
        }
        Ok(parsed)
    }
}

/// Writes what parsing came to.
async fn take_in(
    connection: &mut SqliteConnection,
    parsed: Vec<(JobId, Result<Parsed, Invalid>)>,
    now: UnixMillis,
) -> Result<Intake, Error> {
    let mut intake = Intake::default();
    for (id, verdict) in parsed {
        match verdict {
            Ok(parsed) => {
                intake.accepted += sqlx::query(sql::PARSED)
                    .bind(id)
                    .bind(parsed.source_key())
                    .bind(parsed.dest_key())
                    .bind(parsed.dest_registry())
                    .bind(parsed.options.canonical())
                    .execute(&mut *connection)
                    .await?
                    .rows_affected();
            }
            Err(error) => {
                let rejected = sqlx::query(sql::REJECT)
                    .bind(id)
                    .bind(error.to_string())
                    .bind(now.0)
                    .execute(&mut *connection)
                    .await?
                    .rows_affected();
                if rejected > 0 {
                    intake.rejected.push((id, error.to_string()));
                }
            }
        }
    }
    Ok(intake)
}

async fn claim(
    connection: &mut SqliteConnection,
    request: &ClaimRequest,
    now: UnixMillis,
) -> Result<Vec<Claim>, Error> {
    let rows = match request.only {
        Some(id) => claim_one(connection, request, id, now).await?,
        None => claim_best(connection, request, now).await?,
    };
    let mut claims = rows
        .iter()
        .map(|row| Ok(Claim { job: rows::job(row)?, dest_key: row.try_get("dest_key")? }))
        .collect::<Result<Vec<_>, Error>>()?;
    // RETURNING promises no order.
    claims.sort_by_key(|claim| (claim.job.priority, claim.job.id));
    Ok(claims)
}

/// The best jobs. A first look at the head of each queue is enough nearly always; only when busy targets fill it are all
/// rows looked at.
async fn claim_best(
    connection: &mut SqliteConnection,
    request: &ClaimRequest,
    now: UnixMillis,
) -> Result<Vec<SqliteRow>, Error> {
    let mut claimed = Vec::new();
    for window in [CLAIM_WINDOW, i64::MAX] {
        let room = request.room.saturating_sub(claimed.len());
        if room == 0 {
            break;
        }
        let rows = sqlx::query(sql::CLAIM)
            .bind(request.worker.to_string())
            .bind(now.plus(request.lease_ttl).0)
            .bind(now.0)
            .bind(&request.queue)
            .bind(i64::try_from(room).unwrap_or(i64::MAX))
            .bind(window)
            .fetch_all(&mut *connection)
            .await?;
        claimed.extend(rows);
    }
    Ok(claimed)
}

async fn claim_one(
    connection: &mut SqliteConnection,
    request: &ClaimRequest,
    id: JobId,
    now: UnixMillis,
) -> Result<Vec<SqliteRow>, Error> {
    let statement = sqlx::query(sql::CLAIM_ONE)
        .bind(request.worker.to_string())
        .bind(now.plus(request.lease_ttl).0)
        .bind(now.0)
        .bind(id);
    Ok(statement.fetch_all(connection).await?)
}

async fn enqueue_one(
    connection: &mut SqliteConnection,
    job: &NewJob,
    now: UnixMillis,
    actor: &str,
) -> Result<Enqueued, Error> {
    if let Some(key) = &job.idempotency_key
        && let Some(id) = known_key(connection, key, job).await?
    {
        return Ok(Enqueued { id, created: false });
    }
    if job.joins_equal
        && job.run_at.is_none()
        && let Some(id) = join_equal(connection, job, now, actor).await?
    {
        return Ok(Enqueued { id, created: false });
    }
    let run_at = job.run_at.unwrap_or(now);
    let row = sqlx::query(sql::INSERT)
        .bind(&job.source)
        .bind(&job.destination)
        .bind(job.parsed.options.canonical())
        .bind(if run_at > now { "scheduled" } else { "pending" })
        .bind(&job.queue)
        .bind(job.priority)
        .bind(job.max_attempts)
        .bind(run_at.0)
        .bind(now.0)
        .bind(&job.idempotency_key)
        .bind(job.parsed.source_key())
        .bind(job.parsed.dest_key())
        .bind(job.parsed.dest_registry())
        .bind(job.parsed.options.canonical())
        .bind(actor)
        .fetch_one(connection)
        .await?;
    Ok(Enqueued { id: row.try_get("id")?, created: true })
}

/// The job that the key names, if it is known. A key with other content is an error that names the fields.
async fn known_key(connection: &mut SqliteConnection, key: &str, job: &NewJob) -> Result<Option<JobId>, Error> {
    let Some(row) = sqlx::query(sql::KEY).bind(key).fetch_optional(connection).await? else { return Ok(None) };
    let id: JobId = row.try_get("job_id")?;
    if row.try_get_raw("source")?.is_null() {
        // The job is not kept any more; what it asked for was done.
        return Ok(Some(id));
    }
    let source = rows::text(&row, "source")?;
    let (destination, options, queue) =
        (rows::text(&row, "destination")?, rows::text(&row, "options")?, rows::text(&row, "queue")?);
    let known = serde_json::from_str(&options).ok().and_then(|options| parse_row(&source, &destination, &options).ok());
    let differences: Vec<&str> = match known {
        Some(known) => [
            ("source", known.source_key() != job.parsed.source_key()),
            ("destination", known.dest_key() != job.parsed.dest_key()),
            ("options", known.options.canonical() != job.parsed.options.canonical()),
            ("queue", queue != job.queue),
        ]
        .into_iter()
        .filter_map(|(field, differs)| differs.then_some(field))
        .collect(),
        // It came by SQL and does not parse: what was asked now does.
        None => vec!["source or destination"],
    };
    if differences.is_empty() {
        return Ok(Some(id));
    }
    Err(Error::KeyConflict(format!(
        "idempotency key `{key}` belongs to job {id}, which differs in {}: use another key",
        differences.join(", ")
    )))
}

/// An equal job that waits takes the better priority and the earlier time, and the new key as a second one.
async fn join_equal(
    connection: &mut SqliteConnection,
    job: &NewJob,
    now: UnixMillis,
    actor: &str,
) -> Result<Option<JobId>, Error> {
    let Some(row) = sqlx::query(sql::EQUAL)
        .bind(job.parsed.dest_key())
        .bind(job.parsed.source_key())
        .bind(job.parsed.options.canonical())
        .bind(&job.queue)
        .fetch_optional(&mut *connection)
        .await?
    else {
        return Ok(None);
    };
    let id: JobId = row.try_get("id")?;
    sqlx::query(sql::JOIN).bind(id).bind(job.priority).bind(now.0).bind(actor).execute(&mut *connection).await?;
    if let Some(key) = &job.idempotency_key {
        sqlx::query(sql::KEY_ADD).bind(key).bind(id).bind(now.0).execute(connection).await?;
    }
    Ok(Some(id))
}
