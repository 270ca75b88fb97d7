//! Keeping the database: retention, and what makes a restored one safe.

use super::Sqlite;
use super::attempt::rows as parameter;
use super::direct::Direct;
use super::writer::Lane;
use crate::store::rows::Columns;
use crate::store::statements as sql;
use crate::store::{Error, Prunable, Pruned, Restored, Retention};
use sqlx::sqlite::SqliteConnection;

/// Added to every epoch by a restore: more than the claims and reclaims of a job in any lost time.
const EPOCHS: i64 = 1_000_000;

impl Sqlite {
    pub(in crate::store) async fn prune(&self, retention: Retention, limit: u32, actor: &str) -> Result<Pruned, Error> {
        let now = self.inner.clock.now();
        let limit = i64::from(limit);
        // Looked for by a reader: most looks find nothing, and the writer is not bothered with those.
        let mut found: Vec<serde_json::Value> = Vec::new();
        for (state, before) in retention.states() {
            let left = limit - i64::try_from(found.len()).unwrap_or(i64::MAX);
            if left > 0 {
                let look = sqlx::query(sql::PRUNABLE).bind(state.as_str()).bind(before.0).bind(left);
                for row in look.fetch_all(&self.inner.readers).await? {
                    found.push(serde_json::json!([row.int("id")?, row.int("finished_at")?]));
                }
            }
        }
        let more = i64::try_from(found.len()).unwrap_or(i64::MAX) >= limit;
        let actor = actor.to_owned();
        self.write(Lane::Bulk, move |connection| {
            let mut pruned = Pruned { more, ..Pruned::default() };
            if !found.is_empty() {
                let prune = connection.one(sql::PRUNE, (now.0, actor, "retention"), |row| row.int("id"))?;
                pruned.jobs = remove(connection, prune, found)?;
            }
            if let Some(before) = retention.keys_before {
                pruned.keys = connection.run(sql::PRUNE_KEYS, (before.0, limit))?;
                connection.run(sql::PRUNE_REPOSITORIES, (before.0, limit))?;
                connection.run(sql::PRUNE_BATCHES, (before.0, limit))?;
                connection.run(sql::PRUNE_OCCURRENCES, (before.0, limit))?;
                pruned.more |= i64::try_from(pruned.keys).unwrap_or(i64::MAX) >= limit;
            }
            Ok(pruned)
        })
        .await
    }

    pub(in crate::store) async fn prunable(&self, retention: Retention) -> Result<Prunable, Error> {
        let mut prunable = Prunable::default();
        for (state, before) in retention.states() {
            let look = sqlx::query(sql::PRUNABLE_JOBS).bind(state.as_str()).bind(before.0);
            prunable.set(state, look.fetch_one(&self.inner.readers).await?.count("jobs")?);
        }
        if let Some(before) = retention.keys_before {
            let look = sqlx::query(sql::PRUNABLE_KEYS)
                .bind(before.0)
                .bind(retention.completed_before.map(|before| before.0))
                .bind(retention.cancelled_before.map(|before| before.0))
                .bind(retention.failed_before.map(|before| before.0));
            prunable.keys = look.fetch_one(&self.inner.readers).await?.count("keys")?;
        }
        Ok(prunable)
    }

    pub(in crate::store) async fn invalidate(&self, actor: &str) -> Result<Restored, Error> {
        let now = self.inner.clock.now();
        let actor = actor.to_owned();
        self.write(Lane::Bulk, move |connection| {
            let id = connection.one(sql::RESTORE, (now.0, &actor, EPOCHS), |row| row.int("id"))?;
            let requeued = connection.run(sql::RESTORE_RUNNING, (now.0, &actor))?;
            let jobs = connection.run(sql::RESTORE_EPOCHS, (EPOCHS, &actor))?;
            let workers = connection.run(sql::RESTORE_WORKERS, [])?;
            let temp_files = connection.run(sql::RESTORE_TEMP_FILES, [])?;
            connection.run(sql::RESTORE_DONE, (id, now.0))?;
            Ok(Restored { jobs, requeued, workers, temp_files })
        })
        .await
    }
}

/// Removes jobs with their history, recorded first. Returns how many.
fn remove(connection: &Direct, prune: i64, found: Vec<serde_json::Value>) -> Result<u64, Error> {
    // Only what is finished as it was found is recorded, and only what is recorded can be removed.
    connection.run(sql::PRUNE_RECORD, (prune, parameter(found)))?;
    connection.run(sql::PRUNE_EVENTS, [prune])?;
    connection.run(sql::PRUNE_TRANSFERS, [prune])?;
    connection.run(sql::PRUNE_JOBS, [prune])
}

pub(super) async fn close(connection: SqliteConnection) {
    use sqlx::Connection;
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "closing a connection");
    }
}
