//! Keeping the database: retention, and what makes a restored one safe. Backups are the server's: `pg_dump`, or its archive.

use super::connect::{Again, Connections, Statement};
use super::{Postgres, statements as sql};
use crate::store::rows::Columns;
use crate::store::{Error, Pruned, Restored, Retention};
use std::path::Path;
use std::time::Duration;

/// Added to every epoch by a restore: more than the claims and reclaims of a job in any lost time.
pub(super) const EPOCHS: i64 = 1_000_000;
/// How long a restore may take: it writes every job.
const RESTORE_LIMIT: Duration = Duration::from_secs(3600);

impl Postgres {
    pub(in crate::store) async fn prune(&self, retention: Retention, limit: u32, actor: &str) -> Result<Pruned, Error> {
        let limit = i64::from(limit);
        let found = |ids: &[i64]| i64::try_from(ids.len()).unwrap_or(i64::MAX);
        let wanted = [
            ("completed", retention.finished_before),
            ("cancelled", retention.finished_before),
            ("failed", retention.failed_before),
        ];
        let mut ids: Vec<i64> = Vec::new();
        for (state, before) in wanted {
            let left = limit - found(&ids);
            if let Some(before) = before.filter(|_| left > 0) {
                let look = Statement::new(sql::PRUNABLE).bind(state).bind(before.0).bind(left);
                for row in self.inner.bulk.rows(Again::Harmless, &look).await? {
                    ids.push(row.int("id")?);
                }
            }
        }
        let mut pruned = Pruned { more: found(&ids) >= limit, ..Pruned::default() };
        if !ids.is_empty() {
            let statement =
                Statement::new(sql::PRUNE).bind(ids).bind(self.inner.now()).bind_text(actor).bind("retention");
            let before = |time: Option<crate::clock::UnixMillis>| time.map(|time| time.0);
            let statement = statement.bind(before(retention.finished_before)).bind(before(retention.failed_before));
            // A second time it finds none of them.
            pruned.jobs = self.inner.bulk.row(&statement).await?.count("jobs")?;
        }
        if let Some(before) = retention.keys_before {
            let statement = Statement::new(sql::PRUNE_KEYS).bind(before.0).bind(limit);
            pruned.keys = self.inner.bulk.row(&statement).await?.count("keys")?;
            pruned.more |= i64::try_from(pruned.keys).unwrap_or(i64::MAX) >= limit;
        }
        Ok(pruned)
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
