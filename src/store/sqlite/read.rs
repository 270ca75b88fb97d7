//! What people ask: jobs, history, numbers.

use super::{NEWEST_SCHEMA, Sqlite};
use crate::clock::UnixMillis;
use crate::job::{Job, JobId, State};
use crate::store::statements as sql;
use crate::store::{DatabaseInfo, Error, JobEvent, JobFilter, Stats, rows};
use sqlx::Row;

/// The window of `jobs stats`' throughput.
const HOUR_MS: i64 = 3_600_000;

impl Sqlite {
    pub(in crate::store) async fn job(&self, id: JobId) -> Result<Option<Job>, Error> {
        sqlx::query(sql::JOB).bind(id).fetch_optional(&self.inner.readers).await?.as_ref().map(rows::job).transpose()
    }

    pub(in crate::store) async fn jobs(
        &self,
        filter: &JobFilter,
        after: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<Job>, Error> {
        let statement = match filter {
            JobFilter { batch: Some(_), .. } => sql::JOBS_IN_BATCH,
            JobFilter { state: Some(_), .. } => sql::JOBS_IN_STATE,
            _ => sql::JOBS,
        };
        sqlx::query(statement)
            .bind(filter.state.map(State::as_str))
            .bind(filter.source.as_deref().map(glob))
            .bind(filter.destination.as_deref().map(glob))
            .bind(filter.since.map(|since| since.0))
            .bind(after)
            .bind(limit)
            .bind(&filter.queue)
            .bind(&filter.batch)
            .fetch_all(&self.inner.readers)
            .await?
            .iter()
            .map(rows::job)
            .collect()
    }

    pub(in crate::store) async fn events(&self, id: JobId) -> Result<Vec<JobEvent>, Error> {
        sqlx::query(sql::EVENTS).bind(id).fetch_all(&self.inner.readers).await?.iter().map(rows::event).collect()
    }

    pub(in crate::store) async fn queue_paused(&self, queue: &str) -> Result<bool, Error> {
        Ok(sqlx::query(sql::PAUSED).bind(queue).fetch_one(&self.inner.readers).await?.try_get("paused")?)
    }

    pub(in crate::store) async fn stats(&self) -> Result<Stats, Error> {
        let now = self.inner.clock.now();
        let mut stats = Stats::default();
        for row in sqlx::query(sql::COUNTS).fetch_all(&self.inner.readers).await? {
            let state: String = row.try_get("state")?;
            let count = u64::try_from(row.try_get::<i64, _>("jobs")?).unwrap_or(0);
            match state.parse::<State>().map_err(|error| Error::Unusable(error.to_string()))? {
                State::Scheduled => stats.scheduled = count,
                State::Pending => stats.pending = count,
                State::Running => stats.running = count,
                State::Completed => stats.completed = count,
                State::Failed => stats.failed = count,
                State::Cancelled => stats.cancelled = count,
            }
        }
        let oldest: Option<i64> =
            sqlx::query(sql::OLDEST_PENDING).fetch_one(&self.inner.readers).await?.try_get("run_at")?;
        stats.oldest_pending_age_ms =
            oldest.map(|run_at| u64::try_from(now.since(UnixMillis(run_at)).as_millis()).unwrap_or(u64::MAX));
        let row = sqlx::query(sql::THROUGHPUT).bind(now.0 - HOUR_MS).fetch_one(&self.inner.readers).await?;
        let number = |column: &str| row.try_get::<i64, _>(column).map(|number| u64::try_from(number).unwrap_or(0));
        stats.completed_last_hour = number("completed")?;
        stats.failed_last_hour = number("failed")?;
        stats.bytes_last_hour = number("bytes")?;
        Ok(stats)
    }

    pub(in crate::store) async fn info(&self) -> Result<DatabaseInfo, Error> {
        let row = sqlx::query(sql::SIZES).fetch_one(&self.inner.readers).await?;
        let count = |column: &str| row.try_get::<i64, _>(column).map(|number| u64::try_from(number).unwrap_or(0));
        let size = |suffix: &str| {
            let mut name = self.inner.path.clone().into_os_string();
            name.push(suffix);
            std::fs::metadata(name).map_or(0, |facts| facts.len())
        };
        Ok(DatabaseInfo {
            url: format!("sqlite:{}", self.inner.path.display()),
            engine: "sqlite".to_owned(),
            engine_version: self.inner.version.clone(),
            schema_version: NEWEST_SCHEMA,
            newest_known_schema: NEWEST_SCHEMA,
            size_bytes: size(""),
            wal_bytes: size("-wal"),
            jobs: count("jobs")?,
            events: count("events")?,
        })
    }

    pub(in crate::store) async fn changed(&self, at_most: std::time::Duration) -> Result<(), Error> {
        self.inner.watch.changed(&self.told, at_most).await
    }
}

/// A pattern as SQLite's GLOB: `*` and `?` are wild, everything else is itself; without either it matches anywhere.
fn glob(pattern: &str) -> String {
    let escaped = pattern.replace('[', "[[]");
    if pattern.contains(['*', '?']) { escaped } else { format!("*{escaped}*") }
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn patterns_without_wildcards_match_anywhere() {
        assert_eq!(glob("alpine"), "*alpine*");
        assert_eq!(glob("docker.io/*:3.?"), "docker.io/*:3.?");
        assert_eq!(glob("[::1]*"), "[[]::1]*");
    }
}
