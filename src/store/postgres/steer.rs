//! What operators do to queues: pause, limit, and ask why a job does not run.

use super::connect::{Again, Statement};
use super::{Postgres, millis, statements as sql};
use crate::clock::UnixMillis;
use crate::job::JobId;
use crate::store::look::check_queue;
use crate::store::rows::{self, Columns};
use crate::store::{Error, Published, QueueChange, QueueRow, Remark, Why};
use sqlx::postgres::PgRow;
use std::time::Duration;

/// A worker that has said nothing for so long does not count as one that serves a queue.
const SILENT: Duration = Duration::from_secs(60);

fn limit(row: &PgRow) -> Result<Option<u32>, Error> {
    Ok(row.int_option("max_running")?.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX)))
}

impl Postgres {
    pub(in crate::store) async fn queues(&self) -> Result<Vec<QueueRow>, Error> {
        let statement = Statement::new(sql::QUEUES).bind(self.inner.now());
        let rows = self.inner.readers.rows(Again::Harmless, &statement).await?;
        rows.iter()
            .map(|row| {
                let oldest = row.int_option("oldest_pending_age_ms")?;
                Ok(QueueRow {
                    name: row.text("name")?,
                    paused_at: row.time("paused_at")?,
                    max_running: limit(row)?,
                    scheduled: row.count("scheduled")?,
                    pending: row.count("pending")?,
                    running: row.count("running")?,
                    oldest_pending_age_ms: oldest.map(|age| u64::try_from(age).unwrap_or(0)),
                })
            })
            .collect()
    }

    pub(in crate::store) async fn queue_change(
        &self,
        queue: &str,
        change: QueueChange,
        actor: &str,
    ) -> Result<bool, Error> {
        check_queue(queue)?;
        let statement = match change {
            QueueChange::Limit(Some(0)) => {
                return Err(Error::Invalid("a limit of 0 would stop the queue: pause it instead".to_owned()));
            }
            QueueChange::Pause => Statement::new(sql::QUEUE_PAUSE).bind_text(queue).bind(self.inner.now()),
            QueueChange::Resume => Statement::new(sql::QUEUE_RESUME).bind_text(queue),
            QueueChange::Limit(limit) => Statement::new(sql::QUEUE_LIMIT).bind_text(queue).bind(limit.map(i64::from)),
        };
        let rows = self.inner.bulk.rows(Again::Never, &statement.bind_text(actor)).await?;
        self.inner.listener.committed();
        Ok(!rows.is_empty())
    }

    pub(in crate::store) async fn why(&self, id: JobId) -> Result<Option<Why>, Error> {
        let statement = Statement::new(sql::WHY).bind(id).bind(self.inner.now()).bind(millis(SILENT));
        let rows = self.inner.readers.rows(Again::Harmless, &statement).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(Why {
            job: rows::job(row)?,
            now: UnixMillis(row.int("now")?),
            paused_at: row.time("paused_at")?,
            parsed: row.flag("parsed")?,
            queue_paused_at: row.time("queue_paused_at")?,
            queue_max_running: limit(row)?,
            queue_running: row.count("queue_running")?,
            registry: row.text_option("dest_registry")?,
            registry_running: row.count("registry_running")?,
            same_destination: row.int_option("same_destination")?,
            ahead: row.count("ahead")?,
            workers: row.count("workers")?,
            places: row.count("places")?,
        }))
    }

    pub(in crate::store) async fn remark(&self, job: JobId, remark: Remark) -> Result<(), Error> {
        let statement = Statement::new(sql::REMARK)
            .bind(job)
            .bind(self.inner.now())
            .bind_text(remark.worker())
            .bind(remark.reason())
            .bind_text(&remark.detail()?);
        // Twice in the history is better than not at all.
        self.inner.control.rows(Again::Harmless, &statement).await?;
        Ok(())
    }

    pub(in crate::store) async fn published(&self, dest_key: &str) -> Result<Option<Published>, Error> {
        let statement = Statement::new(sql::PUBLISHED).bind_text(dest_key);
        let rows = self.inner.control.rows(Again::Harmless, &statement).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let job = row.int("id")?;
        Ok(row.text_option("digest")?.map(|digest| Published { job, digest }))
    }
}
