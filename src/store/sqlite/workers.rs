//! Worker rows, leases as the sweeper sees them, and what dead workers left.

use super::Sqlite;
use super::direct::{Direct, Record};
use super::writer::Lane;
use crate::job::State;
use crate::store::crash::{crash_pause, is_poison};
use crate::store::rows::Columns;
use crate::store::statements as sql;
use crate::store::{Error, Lease, WorkerRow, rows};
use rusqlite::params;
use sqlx::Row;

impl Sqlite {
    pub(in crate::store) async fn worker_start(&self, worker: WorkerRow) -> Result<(), Error> {
        self.write(Lane::Control, move |connection| {
            let row = params![
                worker.id,
                worker.host,
                worker.pid,
                worker.machine_id,
                worker.boot_id,
                worker.state_dir,
                worker.state_device,
                worker.state_inode,
                worker.version,
                worker.lease_ttl_ms,
                worker.started_at.0,
                worker.queue,
                worker.concurrency
            ];
            connection.run(sql::WORKER_START, row).map(|_| ())
        })
        .await
    }

    pub(in crate::store) async fn worker_seen(&self, worker: uuid::Uuid) -> Result<bool, Error> {
        let now = self.inner.clock.now();
        let seen = move |connection: &Direct| connection.run(sql::WORKER_SEEN, (worker.to_string(), now.0));
        Ok(self.write(Lane::Control, seen).await? > 0)
    }

    pub(in crate::store) async fn worker_gone(&self, worker: &str) -> Result<bool, Error> {
        let worker = worker.to_owned();
        Ok(self.write(Lane::Control, move |connection| connection.run(sql::WORKER_GONE, [worker])).await? > 0)
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
            let Lease { job, epoch, beat, .. } = lease;
            let facts = |row: &Record<'_>| Ok((row.int("bytes_moved")?, row.int("crash_count")?));
            let Some((moved, in_a_row)) = connection.first(sql::CRASH_FACTS, (job, epoch, beat), facts)? else {
                return Ok(None);
            };
            let crashes = connection.one(sql::CRASHES, [job], |row| row.int("crashes"))?;
            let poison = is_poison(moved == 0, in_a_row + 1, crashes + 1, poison_limit);
            let next = now.plus(crash_pause(crashes + 1)).0;
            let reclaim = (job, epoch, beat, now.0, poison, message, next);
            match connection.first(sql::RECLAIM, reclaim, |row| row.text("state"))? {
                None => Ok(None),
                Some(state) => Ok(Some(state.parse().map_err(|error| Error::Unusable(format!("{error}")))?)),
            }
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
