//! What people ask: jobs, history, numbers.

use super::connect::{Again, Statement, plain};
use super::{NEWEST_SCHEMA, Postgres, statements as sql};
use crate::job::{Job, JobId, State};
use crate::store::rows::{self, Columns};
use crate::store::{DatabaseInfo, Error, JobEvent, JobFilter, Stats};
use std::time::Duration;

/// The window of `jobs stats`' throughput.
const HOUR_MS: i64 = 3_600_000;

impl Postgres {
    pub(in crate::store) async fn job(&self, id: JobId) -> Result<Option<Job>, Error> {
        let rows = self.inner.readers.rows(Again::Harmless, &Statement::new(sql::JOB).bind(id)).await?;
        rows.first().map(rows::job).transpose()
    }

    pub(in crate::store) async fn jobs(
        &self,
        filter: &JobFilter,
        after: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<Job>, Error> {
        let statement = Statement::new(sql::JOBS)
            .bind(filter.state.map(State::as_str))
            .bind(filter.source.as_deref().map(like))
            .bind(filter.destination.as_deref().map(like))
            .bind(filter.since.map(|since| since.0))
            .bind(after)
            .bind(i64::from(limit))
            .bind(filter.queue.as_deref().map(plain))
            .bind(filter.batch.as_deref().map(plain));
        self.inner.readers.rows(Again::Harmless, &statement).await?.iter().map(rows::job).collect()
    }

    pub(in crate::store) async fn events(&self, id: JobId) -> Result<Vec<JobEvent>, Error> {
        let rows = self.inner.readers.rows(Again::Harmless, &Statement::new(sql::EVENTS).bind(id)).await?;
        rows.iter().map(rows::event).collect()
    }

    pub(in crate::store) async fn queue_paused(&self, queue: &str) -> Result<bool, Error> {
        self.inner.readers.row(&Statement::new(sql::PAUSED).bind_text(queue)).await?.flag("paused")
    }

    pub(in crate::store) async fn stats(&self) -> Result<Stats, Error> {
        let readers = &self.inner.readers;
        let mut stats = Stats::default();
        for row in readers.rows(Again::Harmless, &Statement::new(sql::COUNTS)).await? {
            let count = row.count("jobs")?;
            match row.text("state")?.parse::<State>().map_err(|error| Error::Unusable(error.to_string()))? {
                State::Scheduled => stats.scheduled = count,
                State::Pending => stats.pending = count,
                State::Running => stats.running = count,
                State::Completed => stats.completed = count,
                State::Failed => stats.failed = count,
                State::Cancelled => stats.cancelled = count,
            }
        }
        let oldest = readers.row(&Statement::new(sql::OLDEST_PENDING).bind(self.inner.now())).await?;
        stats.oldest_pending_age_ms = oldest.int_option("age")?.map(|age| u64::try_from(age).unwrap_or(0));
        let row = readers.row(&Statement::new(sql::THROUGHPUT).bind(self.inner.now()).bind(HOUR_MS)).await?;
        stats.completed_last_hour = row.count("completed")?;
        stats.failed_last_hour = row.count("failed")?;
        stats.bytes_last_hour = row.count("bytes")?;
        Ok(stats)
    }

    pub(in crate::store) async fn info(&self) -> Result<DatabaseInfo, Error> {
        let row = self.inner.readers.row(&Statement::new(sql::SIZES)).await?;
        Ok(DatabaseInfo {
            url: self.inner.url.clone(),
            engine: "postgres".to_owned(),
            engine_version: row.text("version")?,
            schema_version: row.int("schema")?,
            newest_known_schema: NEWEST_SCHEMA,
            size_bytes: row.count("bytes")?,
            wal_bytes: 0,
            jobs: row.count("jobs")?,
            events: row.count("events")?,
        })
    }

    pub(in crate::store) async fn changed(&self, at_most: Duration) -> Result<(), Error> {
        self.inner.listener.changed(&self.told, at_most, &self.inner.control).await
    }
}

/// A pattern as LIKE takes it: `*` and `?` are wild, everything else is itself; without either it matches anywhere.
fn like(pattern: &str) -> String {
    let mut like = String::with_capacity(pattern.len() + 2);
    for character in plain(pattern).chars() {
        match character {
            '*' => like.push('%'),
            '?' => like.push('_'),
            '%' | '_' | '\\' => like.extend(['\\', character]),
            other => like.push(other),
        }
    }
    if pattern.contains(['*', '?']) { like } else { format!("%{like}%") }
}

#[cfg(test)]
mod tests {
    use super::like;

    #[test]
    fn patterns_without_wildcards_match_anywhere() {
        assert_eq!(like("alpine"), "%alpine%");
        assert_eq!(like("docker.io/*:3.?"), "docker.io/%:3._");
        assert_eq!(like("my_app\\100%"), "%my\\_app\\\\100\\%%");
    }
}
