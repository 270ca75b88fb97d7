//! What operators do to queues: pause, limit, and ask why a job does not run.

use super::Sqlite;
use super::writer::Lane;
use crate::clock::UnixMillis;
use crate::job::JobId;
use crate::store::look::check_queue;
use crate::store::statements as sql;
use crate::store::{Error, Published, QueueChange, QueueRow, Remark, Why, rows};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use std::time::Duration;

/// A worker that has said nothing for so long does not count as one that serves a queue.
const SILENT: Duration = Duration::from_secs(60);

fn count(row: &SqliteRow, column: &str) -> Result<u64, Error> {
    Ok(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0))
}

fn limit(row: &SqliteRow) -> Result<Option<u32>, Error> {
    Ok(row.try_get::<Option<i64>, _>("max_running")?.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX)))
}

impl Sqlite {
    pub(in crate::store) async fn queues(&self) -> Result<Vec<QueueRow>, Error> {
        let now = self.inner.clock.now();
        sqlx::query(sql::QUEUES)
            .bind(now.0)
            .fetch_all(&self.inner.readers)
            .await?
            .iter()
            .map(|row| {
                let oldest = row.try_get::<Option<i64>, _>("oldest_pending_age_ms")?;
                Ok(QueueRow {
                    name: rows::text(row, "name")?,
                    paused_at: row.try_get::<Option<i64>, _>("paused_at")?.map(UnixMillis),
                    max_running: limit(row)?,
                    scheduled: count(row, "scheduled")?,
                    pending: count(row, "pending")?,
                    running: count(row, "running")?,
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
        if change == QueueChange::Limit(Some(0)) {
            return Err(Error::Invalid("a limit of 0 would stop the queue: pause it instead".to_owned()));
        }
        let (queue, actor, now) = (queue.to_owned(), actor.to_owned(), self.inner.clock.now());
        let changed = self.write(Lane::Control, move |connection| match change {
            QueueChange::Pause => connection.run(sql::QUEUE_PAUSE, (queue, now.0, actor)),
            QueueChange::Resume => connection.run(sql::QUEUE_RESUME, (queue, actor)),
            QueueChange::Limit(limit) => connection.run(sql::QUEUE_LIMIT, (queue, limit, actor)),
        });
        Ok(changed.await.inspect(|_| self.inner.watch.committed())? > 0)
    }

    pub(in crate::store) async fn why(&self, id: JobId) -> Result<Option<Why>, Error> {
        let now = self.inner.clock.now();
        let seen_since = now.0 - i64::try_from(SILENT.as_millis()).unwrap_or(i64::MAX);
        // One transaction: the job and the facts are of the same moment.
        let mut reader = self.inner.readers.begin().await?;
        let Some(job) = sqlx::query(sql::JOB).bind(id).fetch_optional(&mut *reader).await? else { return Ok(None) };
        let row = sqlx::query(sql::WHY).bind(id).bind(seen_since).fetch_one(&mut *reader).await?;
        reader.rollback().await?;
        let time = |column: &str| row.try_get::<Option<i64>, _>(column).map(|time| time.map(UnixMillis));
        Ok(Some(Why {
            job: rows::job(&job)?,
            now,
            paused_at: time("paused_at")?,
            parsed: row.try_get("parsed")?,
            queue_paused_at: time("queue_paused_at")?,
            queue_max_running: limit(&row)?,
            queue_running: count(&row, "queue_running")?,
            registry: row.try_get("dest_registry")?,
            registry_running: count(&row, "registry_running")?,
            same_destination: row.try_get("same_destination")?,
            ahead: count(&row, "ahead")?,
            workers: count(&row, "workers")?,
            places: count(&row, "places")?,
        }))
    }

    pub(in crate::store) async fn remark(&self, job: JobId, remark: Remark) -> Result<(), Error> {
        let now = self.inner.clock.now();
        let (reason, worker, detail) = (remark.reason(), remark.worker().to_owned(), remark.detail()?);
        let line = (job, now.0, worker, reason, detail);
        self.write(Lane::Control, move |connection| connection.run(sql::REMARK, line).map(|_| ())).await
    }

    pub(in crate::store) async fn published(&self, dest_key: &str) -> Result<Option<Published>, Error> {
        let row = sqlx::query(sql::PUBLISHED).bind(dest_key).fetch_optional(&self.inner.readers).await?;
        let Some(row) = row else { return Ok(None) };
        let digest: Option<String> = row.try_get("digest")?;
        let job = row.try_get("id")?;
        Ok(digest.map(|digest| Published { job, digest }))
    }
}
