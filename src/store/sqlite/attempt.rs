//! The fenced writes of an attempt: renew, confirm, settle. Each names the epoch; zero rows means that the lease is lost.

use super::Sqlite;
use crate::clock::UnixMillis;
use crate::job::{JobId, Progress, Transfer};
use crate::store::statements as sql;
use crate::store::{Claim, Confirmed, Error, Fence, Held, Outcome, Settled, Work};
use sqlx::sqlite::{SqliteConnection, SqliteQueryResult, SqliteRow};
use sqlx::{Row, Sqlite as Dialect, query::Query, sqlite::SqliteArguments};
use std::time::Duration;

type Statement<'q> = Query<'q, Dialect, SqliteArguments>;

/// SQLite's integers are signed; sizes beyond that do not exist.
fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Binds progress as four parameters, NULL before anything is known.
fn bind_progress<'q>(statement: Statement<'q>, progress: Option<Progress>) -> Statement<'q> {
    statement
        .bind(progress.map(|progress| int(progress.bytes_done)))
        .bind(progress.map(|progress| int(progress.bytes_total)))
        .bind(progress.map(|progress| int(progress.blobs_done)))
        .bind(progress.map(|progress| int(progress.blobs_total)))
}

impl Sqlite {
    pub(in crate::store) async fn renew(&self, fence: Fence, ttl: Duration, work: Work) -> Result<Held, Error> {
        let until = self.inner.clock.now().plus(ttl);
        self.inner
            .writer
            .write(move |connection| Box::pin(async move { renew(connection, fence, until, work).await }))
            .await
    }

    pub(in crate::store) async fn confirm(&self, claim: &Claim, ttl: Duration, work: Work) -> Result<Confirmed, Error> {
        let until = self.inner.clock.now().plus(ttl);
        let fence = claim.fence();
        let dest_key = claim.dest_key.clone();
        let may_be_superseded = claim.job.generation == 1;
        self.inner
            .writer
            .write(move |connection| {
                Box::pin(async move {
                    match renew(&mut *connection, fence, until, work).await? {
                        Held::Lost => return Ok(Confirmed::Lost),
                        Held::CancelRequested => return Ok(Confirmed::CancelRequested),
                        Held::Yes => {}
                    }
                    if !may_be_superseded {
                        return Ok(Confirmed::Yes);
                    }
                    let newer =
                        sqlx::query(sql::SUPERSEDED).bind(dest_key).bind(fence.job).fetch_optional(connection).await?;
                    Ok(match newer {
                        Some(row) => Confirmed::Superseded { by: row.try_get("id")? },
                        None => Confirmed::Yes,
                    })
                })
            })
            .await
    }

    pub(in crate::store) async fn settle(
        &self,
        claim: &Claim,
        outcome: Outcome,
        work: Work,
        transfers: Vec<Transfer>,
    ) -> Result<Settled, Error> {
        let now = self.inner.clock.now();
        let fence = claim.fence();
        let (generation, attempt) = (claim.job.generation, claim.job.attempt);
        self.inner
            .writer
            .write(move |connection| {
                Box::pin(async move {
                    let Some(row) = end(&mut *connection, fence, outcome, work, now).await? else {
                        return Ok(Settled::LeaseLost);
                    };
                    let state: String = row.try_get("state")?;
                    if !transfers.is_empty() {
                        let transfers = serde_json::to_string(&transfers)
                            .map_err(|error| Error::Invalid(format!("transfers: {error}")))?;
                        sqlx::query(sql::TRANSFERS)
                            .bind(fence.job)
                            .bind(generation)
                            .bind(attempt)
                            .bind(fence.epoch)
                            .bind(now.0)
                            .bind(transfers)
                            .execute(connection)
                            .await?;
                    }
                    Ok(Settled::Now(state.parse().map_err(|error| Error::Unusable(format!("{error}")))?))
                })
            })
            .await
    }

    pub(in crate::store) async fn cancel_asked(&self, worker: uuid::Uuid) -> Result<Vec<Fence>, Error> {
        sqlx::query(sql::CANCEL_ASKED)
            .bind(worker.to_string())
            .fetch_all(&self.inner.readers)
            .await?
            .iter()
            .map(|row| Ok(Fence { job: row.try_get::<JobId, _>("id")?, epoch: row.try_get("lease_epoch")? }))
            .collect()
    }

    pub(in crate::store) async fn temp_register(
        &self,
        path: String,
        worker: uuid::Uuid,
        fence: Fence,
    ) -> Result<(), Error> {
        let now = self.inner.clock.now();
        self.inner
            .writer
            .write(move |connection| {
                Box::pin(async move {
                    sqlx::query(sql::TEMP_REGISTER)
                        .bind(path)
                        .bind(worker.to_string())
                        .bind(fence.job)
                        .bind(fence.epoch)
                        .bind(now.0)
                        .execute(connection)
                        .await?;
                    Ok(())
                })
            })
            .await
    }

    pub(in crate::store) async fn temp_forget(&self, paths: Vec<String>) -> Result<(), Error> {
        let paths = serde_json::to_string(&paths).map_err(|error| Error::Invalid(format!("paths: {error}")))?;
        self.inner
            .writer
            .write(move |connection| {
                Box::pin(async move {
                    let _: SqliteQueryResult = sqlx::query(sql::TEMP_FORGET).bind(paths).execute(connection).await?;
                    Ok(())
                })
            })
            .await
    }
}

async fn renew(connection: &mut SqliteConnection, fence: Fence, until: UnixMillis, work: Work) -> Result<Held, Error> {
    let statement = sqlx::query(sql::RENEW).bind(fence.job).bind(fence.epoch).bind(until.0);
    let row = bind_progress(statement, work.progress).bind(int(work.bytes_moved)).fetch_optional(connection).await?;
    Ok(match row {
        None => Held::Lost,
        Some(row) if row.try_get::<Option<i64>, _>("cancel_requested_at")?.is_some() => Held::CancelRequested,
        Some(_) => Held::Yes,
    })
}

/// The one statement for every exit from `running` that a worker takes.
async fn end(
    connection: &mut SqliteConnection,
    fence: Fence,
    outcome: Outcome,
    work: Work,
    now: UnixMillis,
) -> Result<Option<SqliteRow>, Error> {
    let moved = int(work.bytes_moved);
    let start = |text: &'static str| sqlx::query(text).bind(fence.job).bind(fence.epoch).bind(now.0);
    let statement = match outcome {
        Outcome::Completed(report) => {
            let report = serde_json::to_string(&report).map_err(|error| Error::Invalid(format!("report: {error}")))?;
            bind_progress(start(sql::COMPLETE).bind(report), work.progress).bind(moved)
        }
        Outcome::Failed { failure, retry_in } => {
            let next = retry_in.map(|pause| now.plus(pause).0);
            let statement = start(sql::FAIL).bind(failure.stage).bind(failure.class).bind(failure.message).bind(next);
            bind_progress(statement, work.progress).bind(moved)
        }
        Outcome::Cancelled => bind_progress(start(sql::CANCELLED), work.progress).bind(moved),
        Outcome::Released { reason } => start(sql::RELEASE).bind(reason).bind(moved),
    };
    Ok(statement.fetch_optional(connection).await?)
}
