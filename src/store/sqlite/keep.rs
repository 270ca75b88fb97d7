//! Keeping the database: retention, backups, and what makes a restored one safe.

use super::Sqlite;
use super::attempt::rows as parameter;
use super::writer::Lane;
use crate::store::statements as sql;
use crate::store::{Error, Pruned, Restored, Retention};
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;
use std::path::Path;

/// Added to every epoch by a restore: more than the claims and reclaims of a job in any lost time.
const EPOCHS: i64 = 1_000_000;

impl Sqlite {
    pub(in crate::store) async fn prune(&self, retention: Retention, limit: u32, actor: &str) -> Result<Pruned, Error> {
        let now = self.inner.clock.now();
        let limit = i64::from(limit);
        let wanted = [
            ("completed", retention.finished_before),
            ("cancelled", retention.finished_before),
            ("failed", retention.failed_before),
        ];
        // Looked for by a reader: most looks find nothing, and the writer is not bothered with those.
        let mut ids: Vec<i64> = Vec::new();
        for (state, before) in wanted {
            let left = limit - i64::try_from(ids.len()).unwrap_or(i64::MAX);
            if let Some(before) = before.filter(|_| left > 0) {
                let found = sqlx::query(sql::PRUNABLE).bind(state).bind(before.0).bind(left);
                for row in found.fetch_all(&self.inner.readers).await? {
                    ids.push(row.try_get("id")?);
                }
            }
        }
        let more = i64::try_from(ids.len()).unwrap_or(i64::MAX) >= limit;
        let actor = actor.to_owned();
        self.write(Lane::Bulk, move |connection| {
            Box::pin(async move {
                let mut pruned = Pruned { more, ..Pruned::default() };
                if !ids.is_empty() {
                    let prune = sqlx::query(sql::PRUNE).bind(now.0).bind(actor).bind("retention");
                    let prune: i64 = prune.fetch_one(&mut *connection).await?.try_get("id")?;
                    pruned.jobs = remove(connection, prune, ids).await?;
                }
                if let Some(before) = retention.keys_before {
                    let keys = sqlx::query(sql::PRUNE_KEYS).bind(before.0).bind(limit).execute(connection).await?;
                    pruned.keys = keys.rows_affected();
                    pruned.more |= i64::try_from(pruned.keys).unwrap_or(i64::MAX) >= limit;
                }
                Ok(pruned)
            })
        })
        .await
    }

    pub(in crate::store) async fn backup(&self, file: &Path) -> Result<(), Error> {
        if file.exists() {
            return Err(Error::Invalid(format!("{} exists: give the backup another name", file.display())));
        }
        let name = file
            .to_str()
            .ok_or_else(|| Error::Invalid(format!("{}: the name must be UTF-8", file.display())))?
            .to_owned();
        // A reader's snapshot; writers go on, the log grows meanwhile.
        let mut connection = self.connect_reader().await?;
        sqlx::query(sql::BACKUP).bind(name).execute(&mut connection).await?;
        close(connection).await;
        Ok(())
    }

    pub(in crate::store) async fn invalidate(&self, actor: &str) -> Result<Restored, Error> {
        let now = self.inner.clock.now();
        let actor = actor.to_owned();
        self.write(Lane::Bulk, move |connection| {
            Box::pin(async move {
                let begun = sqlx::query(sql::RESTORE).bind(now.0).bind(&actor).bind(EPOCHS);
                let id: i64 = begun.fetch_one(&mut *connection).await?.try_get("id")?;
                let running = sqlx::query(sql::RESTORE_RUNNING).bind(now.0).bind(&actor);
                let requeued = running.execute(&mut *connection).await?.rows_affected();
                let epochs = sqlx::query(sql::RESTORE_EPOCHS).bind(EPOCHS).bind(&actor);
                let jobs = epochs.execute(&mut *connection).await?.rows_affected();
                let workers = sqlx::query(sql::RESTORE_WORKERS).execute(&mut *connection).await?.rows_affected();
                let temp_files = sqlx::query(sql::RESTORE_TEMP_FILES).execute(&mut *connection).await?.rows_affected();
                sqlx::query(sql::RESTORE_DONE).bind(id).bind(now.0).execute(connection).await?;
                Ok(Restored { jobs, requeued, workers, temp_files })
            })
        })
        .await
    }
}

/// Removes jobs with their history, recorded first. Returns how many.
async fn remove(connection: &mut SqliteConnection, prune: i64, ids: Vec<i64>) -> Result<u64, Error> {
    let ids = parameter(ids.into_iter().map(Into::into).collect());
    // Only what is still finished is recorded, and only what is recorded can be removed.
    sqlx::query(sql::PRUNE_RECORD).bind(prune).bind(&ids).execute(&mut *connection).await?;
    sqlx::query(sql::PRUNE_EVENTS).bind(prune).execute(&mut *connection).await?;
    sqlx::query(sql::PRUNE_TRANSFERS).bind(prune).execute(&mut *connection).await?;
    Ok(sqlx::query(sql::PRUNE_JOBS).bind(prune).execute(connection).await?.rows_affected())
}

async fn close(connection: SqliteConnection) {
    use sqlx::Connection;
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "closing a connection");
    }
}
