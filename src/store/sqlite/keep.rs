//! Keeping the database: retention, backups, and what makes a restored one safe.

use super::Sqlite;
use super::attempt::rows as parameter;
use super::direct::Direct;
use super::writer::Lane;
use crate::clock::UnixMillis;
use crate::store::rows::Columns;
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
            let mut pruned = Pruned { more, ..Pruned::default() };
            if !ids.is_empty() {
                let prune = connection.one(sql::PRUNE, (now.0, actor, "retention"), |row| row.int("id"))?;
                pruned.jobs = remove(connection, prune, ids, retention)?;
            }
            if let Some(before) = retention.keys_before {
                pruned.keys = connection.run(sql::PRUNE_KEYS, (before.0, limit))?;
                pruned.more |= i64::try_from(pruned.keys).unwrap_or(i64::MAX) >= limit;
            }
            Ok(pruned)
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
fn remove(connection: &Direct, prune: i64, ids: Vec<i64>, retention: Retention) -> Result<u64, Error> {
    let ids = parameter(ids.into_iter().map(Into::into).collect());
    // Only what is still finished and old enough is recorded, and only what is recorded can be removed.
    let before = |time: Option<UnixMillis>| time.map(|time| time.0);
    let (finished, failed) = (before(retention.finished_before), before(retention.failed_before));
    connection.run(sql::PRUNE_RECORD, (prune, ids, finished, failed))?;
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
