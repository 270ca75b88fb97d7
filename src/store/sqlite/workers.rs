//! Worker rows, leases as the sweeper sees them, and what dead workers left.

use super::Sqlite;
use super::writer::Lane;
use crate::job::State;
use crate::store::crash::{crash_pause, is_poison};
use crate::store::statements as sql;
use crate::store::{Error, Lease, WorkerRow, rows};
use sqlx::Row;

impl Sqlite {
    pub(in crate::store) async fn worker_start(&self, worker: WorkerRow) -> Result<(), Error> {
        self.write(Lane::Control, move |connection| {
            Box::pin(async move {
                sqlx::query(sql::WORKER_START)
                    .bind(worker.id)
                    .bind(worker.host)
                    .bind(worker.pid)
                    .bind(worker.machine_id)
                    .bind(worker.boot_id)
                    .bind(worker.state_dir)
                    .bind(worker.state_device)
                    .bind(worker.state_inode)
                    .bind(worker.version)
                    .bind(worker.lease_ttl_ms)
                    .bind(worker.started_at.0)
                    .bind(worker.queue)
                    .bind(worker.concurrency)
                    .execute(connection)
                    .await?;
                Ok(())
            })
        })
        .await
    }

    pub(in crate::store) async fn worker_seen(&self, worker: uuid::Uuid) -> Result<bool, Error> {
        let now = self.inner.clock.now();
        self.write(Lane::Control, move |connection| {
            Box::pin(async move {
                let seen =
                    sqlx::query(sql::WORKER_SEEN).bind(worker.to_string()).bind(now.0).execute(connection).await?;
                Ok(seen.rows_affected() > 0)
            })
        })
        .await
    }

    pub(in crate::store) async fn worker_gone(&self, worker: &str) -> Result<bool, Error> {
        let worker = worker.to_owned();
        self.write(Lane::Control, move |connection| {
            Box::pin(async move {
                Ok(sqlx::query(sql::WORKER_GONE).bind(worker).execute(connection).await?.rows_affected() > 0)
            })
        })
        .await
    }

    pub(in crate::store) async fn workers(&self) -> Result<Vec<WorkerRow>, Error> {
        sqlx::query(sql::WORKERS).fetch_all(&self.inner.readers).await?.iter().map(rows::worker).collect()
    }

    pub(in crate::store) async fn leases(&self) -> Result<Vec<Lease>, Error> {
        sqlx::query(sql::LEASES)
            .fetch_all(&self.inner.readers)
            .await?
            .iter()
            .map(|row| {
                Ok(Lease {
                    job: row.try_get("id")?,
                    epoch: row.try_get("lease_epoch")?,
                    beat: row.try_get("lease_beat")?,
                    worker: row.try_get("worker")?,
                })
            })
            .collect()
    }

    pub(in crate::store) async fn reclaim(
        &self,
        lease: Lease,
        poison_limit: i64,
        message: String,
    ) -> Result<Option<State>, Error> {
        let now = self.inner.clock.now();
        self.write(Lane::Control, move |connection| {
            Box::pin(async move {
                let Some(facts) = sqlx::query(sql::CRASH_FACTS)
                    .bind(lease.job)
                    .bind(lease.epoch)
                    .bind(lease.beat)
                    .fetch_optional(&mut *connection)
                    .await?
                else {
                    return Ok(None);
                };
                let crashes: i64 =
                    sqlx::query(sql::CRASHES).bind(lease.job).fetch_one(&mut *connection).await?.try_get("crashes")?;
                let fruitless = facts.try_get::<i64, _>("bytes_moved")? == 0;
                let in_a_row = facts.try_get::<i64, _>("crash_count")? + 1;
                let poison = is_poison(fruitless, in_a_row, crashes + 1, poison_limit);
                let row = sqlx::query(sql::RECLAIM)
                    .bind(lease.job)
                    .bind(lease.epoch)
                    .bind(lease.beat)
                    .bind(now.0)
                    .bind(poison)
                    .bind(message)
                    .bind(now.plus(crash_pause(crashes + 1)).0)
                    .fetch_optional(connection)
                    .await?;
                let Some(row) = row else { return Ok(None) };
                let state: String = row.try_get("state")?;
                Ok(Some(state.parse().map_err(|error| Error::Unusable(format!("{error}")))?))
            })
        })
        .await
    }

    pub(in crate::store) async fn temp_files_of(&self, worker: &str) -> Result<Vec<String>, Error> {
        sqlx::query(sql::TEMP_OF)
            .bind(worker)
            .fetch_all(&self.inner.readers)
            .await?
            .iter()
            .map(|row| Ok(row.try_get("path")?))
            .collect()
    }

    pub(in crate::store) async fn temp_workers(&self) -> Result<Vec<String>, Error> {
        sqlx::query(sql::TEMP_WORKERS)
            .fetch_all(&self.inner.readers)
            .await?
            .iter()
            .map(|row| Ok(row.try_get("worker")?))
            .collect()
    }
}
