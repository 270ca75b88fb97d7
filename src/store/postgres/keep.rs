//! Keeping the database: retention, and what makes a restored one safe. Backups are the server's: `pg_dump`, or its archive.

use super::connect::{Again, Connections, Statement};
use super::{Postgres, statements as sql};
use crate::store::rows::Columns;
use crate::store::{Error, Prunable, Pruned, Restored, Retention};
use std::path::Path;
use std::time::Duration;

/// Added to every epoch by a restore: more than the claims and reclaims of a job in any lost time.
pub(super) const EPOCHS: i64 = 1_000_000;
/// How long a restore may take: it writes every job.
const RESTORE_LIMIT: Duration = Duration::from_secs(3600);
/// Rows that are gone, and index entries of them, that are worth a vacuum: a claim passes so many in about a millisecond.
const DEAD_ROWS: i64 = 50_000;
/// Seconds between two vacuums: one that could remove nothing, because somebody has an old snapshot open, is not repeated at once.
const TEND_SECONDS: i64 = 30;
/// How long a vacuum may take.
const TEND_LIMIT: Duration = Duration::from_secs(3600);

impl Postgres {
    pub(in crate::store) async fn tend(&self) -> Result<bool, Error> {
        let look = Statement::new(sql::UNTENDED).bind(DEAD_ROWS).bind(TEND_SECONDS);
        // A pooler's transaction is no place for a vacuum.
        if self.inner.sessions.is_pooled() || !self.inner.readers.row(&look).await?.flag("untended")? {
            return Ok(false);
        }
        let alone = Connections::new(&self.inner.sessions, &self.inner.clock, 1, TEND_LIMIT, &[]);
        let tended = alone.rows(Again::Never, &Statement::new(sql::TEND)).await;
        alone.close().await;
        tended?;
        Ok(true)
    }

    pub(in crate::store) async fn prune(&self, retention: Retention, limit: u32, actor: &str) -> Result<Pruned, Error> {
        let limit = i64::from(limit);
        let found = |ids: &[i64]| i64::try_from(ids.len()).unwrap_or(i64::MAX);
        let (mut ids, mut finished): (Vec<i64>, Vec<i64>) = (Vec::new(), Vec::new());
        for (state, before) in retention.states() {
            let left = limit - found(&ids);
            if left > 0 {
                let look = Statement::new(sql::PRUNABLE).bind(state.as_str()).bind(before.0).bind(left);
                for row in self.inner.bulk.rows(Again::Harmless, &look).await? {
                    ids.push(row.int("id")?);
                    finished.push(row.int("finished_at")?);
                }
            }
        }
        let mut pruned = Pruned { more: found(&ids) >= limit, ..Pruned::default() };
        if !ids.is_empty() {
            let statement = Statement::new(sql::PRUNE)
                .bind(ids)
                .bind(finished)
                .bind(self.inner.now())
                .bind_text(actor)
                .bind("retention");
            // A second time it finds none of them.
            pruned.jobs = self.inner.bulk.row(&statement).await?.count("jobs")?;
        }
        if let Some(before) = retention.keys_before {
            let statement = Statement::new(sql::PRUNE_KEYS).bind(before.0).bind(limit);
            pruned.keys = self.inner.bulk.row(&statement).await?.count("keys")?;
            let statement = Statement::new(sql::PRUNE_BATCHES).bind(before.0).bind(limit);
            self.inner.bulk.row(&statement).await?;
            pruned.more |= i64::try_from(pruned.keys).unwrap_or(i64::MAX) >= limit;
        }
        Ok(pruned)
    }

    pub(in crate::store) async fn prunable(&self, retention: Retention) -> Result<Prunable, Error> {
        let mut prunable = Prunable::default();
        for (state, before) in retention.states() {
            let look = Statement::new(sql::PRUNABLE_JOBS).bind(state.as_str()).bind(before.0);
            prunable.set(state, self.inner.readers.row(&look).await?.count("jobs")?);
        }
        if let Some(before) = retention.keys_before {
            let look = Statement::new(sql::PRUNABLE_KEYS)
                .bind(before.0)
                .bind(retention.completed_before.map(|before| before.0))
                .bind(retention.cancelled_before.map(|before| before.0))
                .bind(retention.failed_before.map(|before| before.0));
            prunable.keys = self.inner.readers.row(&look).await?.count("keys")?;
        }
        Ok(prunable)
    }

    pub(in crate::store) async fn backup(&self, _: &Path) -> Result<(), Error> {
        Err(Error::Invalid(
            "PostgreSQL makes its own backups, while it is used: pg_dump --format=custom --file=FILE DATABASE"
                .to_owned(),
        ))
    }

    pub(in crate::store) async fn invalidate(&self, actor: &str) -> Result<Restored, Error> {
        let alone = Connections::new(&self.inner.sessions, &self.inner.clock, 1, RESTORE_LIMIT, &[]);
        let statement = Statement::new(sql::RESTORE).bind(self.inner.now()).bind_text(actor).bind(EPOCHS);
        let rows = alone.rows(Again::Never, &statement).await;
        alone.close().await;
        let row = rows?.into_iter().next().ok_or_else(|| Error::Unusable("a statement gave no row".to_owned()))?;
        Ok(Restored {
            jobs: row.count("jobs")?,
            requeued: row.count("requeued")?,
            workers: row.count("workers")?,
            temp_files: row.count("temp_files")?,
        })
    }
}
