//! Worker rows, leases as the sweeper sees them, and what dead workers left.

use super::connect::{Again, Statement};
use super::{Postgres, millis, statements as sql};
use crate::job::State;
use crate::store::crash::{crash_pause, is_poison};
use crate::store::rows::{self, Columns};
use crate::store::{Error, Lease, WorkerRow};

impl Postgres {
    pub(in crate::store) async fn worker_start(&self, worker: WorkerRow) -> Result<(), Error> {
        let statement = Statement::new(sql::WORKER_START)
            .bind_text(&worker.id)
            .bind_text(&worker.host)
            .bind(worker.pid)
            .bind_text(&worker.machine_id)
            .bind_text(&worker.boot_id)
            .bind_text(&worker.state_dir)
            .bind(worker.state_device)
            .bind(worker.state_inode)
            .bind_text(&worker.version)
            .bind(worker.lease_ttl_ms)
            .bind(self.inner.now())
            .bind(worker.queue)
            .bind(worker.concurrency);
        self.inner.control.rows(Again::Harmless, &statement).await?;
        Ok(())
    }

    pub(in crate::store) async fn worker_seen(&self, worker: uuid::Uuid) -> Result<bool, Error> {
        let statement = Statement::new(sql::WORKER_SEEN).bind(worker.to_string()).bind(self.inner.now());
        Ok(!self.inner.control.rows(Again::Harmless, &statement).await?.is_empty())
    }

    pub(in crate::store) async fn worker_gone(&self, worker: &str) -> Result<bool, Error> {
        let statement = Statement::new(sql::WORKER_GONE).bind_text(worker);
        Ok(!self.inner.control.rows(Again::Harmless, &statement).await?.is_empty())
    }

    pub(in crate::store) async fn workers(&self) -> Result<Vec<WorkerRow>, Error> {
        let rows = self.inner.control.rows(Again::Harmless, &Statement::new(sql::WORKERS)).await?;
        rows.iter().map(rows::worker).collect()
    }

    pub(in crate::store) async fn leases(&self) -> Result<Vec<Lease>, Error> {
        let rows = self.inner.control.rows(Again::Harmless, &Statement::new(sql::LEASES)).await?;
        rows.iter()
            .map(|row| {
                Ok(Lease {
                    job: row.int("id")?,
                    epoch: row.int("lease_epoch")?,
                    beat: row.int("lease_beat")?,
                    worker: row.text("worker")?,
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
        let look = Statement::new(sql::CRASH_FACTS).bind(lease.job).bind(lease.epoch).bind(lease.beat);
        let Some(facts) = self.inner.control.rows(Again::Harmless, &look).await?.into_iter().next() else {
            return Ok(None);
        };
        let crashes = facts.int("crashes")? + 1;
        let fruitless = facts.int("bytes_moved")? == 0;
        // Between the look and this only the holder could change the facts, and it would raise the beat.
        let statement = Statement::new(sql::RECLAIM)
            .bind(lease.job)
            .bind(lease.epoch)
            .bind(lease.beat)
            .bind(self.inner.now())
            .bind(is_poison(fruitless, facts.int("crash_count")? + 1, crashes, poison_limit))
            .bind_text(&message)
            .bind(millis(crash_pause(crashes)));
        let rows = self.inner.control.rows(Again::Harmless, &statement).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        self.inner.known.forget(crate::store::Fence { job: lease.job, epoch: lease.epoch });
        Ok(Some(row.text("state")?.parse().map_err(|error| Error::Unusable(format!("{error}")))?))
    }

    pub(in crate::store) async fn temp_files_of(&self, worker: &str) -> Result<Vec<String>, Error> {
        let rows = self.inner.control.rows(Again::Harmless, &Statement::new(sql::TEMP_OF).bind_text(worker)).await?;
        rows.iter().map(|row| row.text("path")).collect()
    }

    pub(in crate::store) async fn temp_workers(&self) -> Result<Vec<String>, Error> {
        let rows = self.inner.control.rows(Again::Harmless, &Statement::new(sql::TEMP_WORKERS)).await?;
        rows.iter().map(|row| row.text("worker")).collect()
    }
}
