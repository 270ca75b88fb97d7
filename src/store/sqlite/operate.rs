//! What operators do to jobs: cancel, retry, edit, pause, resume. In pieces, so that a million jobs stop no heartbeat.

use super::Sqlite;
use super::attempt::rows as parameter;
use super::writer::Lane;
use crate::clock::UnixMillis;
use crate::job::JobId;
use crate::store::statements as sql;
use crate::store::{Edit, Error, JobFilter, Selection};
use sqlx::Row;

/// Jobs changed in one transaction.
const PIECE: usize = 500;

impl Sqlite {
    pub(in crate::store) async fn cancel(&self, which: &Selection, actor: &str) -> Result<u64, Error> {
        self.change(sql::CANCEL, which, actor, None).await
    }

    pub(in crate::store) async fn retry(&self, which: &Selection, actor: &str) -> Result<u64, Error> {
        self.change(sql::RETRY, which, actor, None).await
    }

    pub(in crate::store) async fn pause(&self, which: &Selection, actor: &str) -> Result<u64, Error> {
        self.change(sql::PAUSE, which, actor, None).await
    }

    pub(in crate::store) async fn resume(&self, which: &Selection, actor: &str) -> Result<u64, Error> {
        self.change(sql::RESUME, which, actor, None).await
    }

    pub(in crate::store) async fn edit(&self, which: &Selection, edit: &Edit, actor: &str) -> Result<u64, Error> {
        edit.check()?;
        self.change(sql::EDIT, which, actor, Some(edit)).await
    }

    async fn change(
        &self,
        statement: &'static str,
        which: &Selection,
        actor: &str,
        edit: Option<&Edit>,
    ) -> Result<u64, Error> {
        let now = self.inner.clock.now();
        let mut changed = 0;
        match which {
            Selection::Ids(ids) => {
                self.all_exist(ids).await?;
                for piece in ids.chunks(PIECE) {
                    changed += self.change_piece(statement, piece, now, actor, edit).await?;
                }
            }
            Selection::Filter(filter) => {
                // Jobs that come while this goes on are not meant.
                let last: JobId = sqlx::query(sql::LAST_JOB).fetch_one(&self.inner.readers).await?.try_get("id")?;
                let mut after = 0;
                loop {
                    let page = self.page(filter, after, last).await?;
                    let Some(end) = page.last().copied() else { break };
                    changed += self.change_piece(statement, &page, now, actor, edit).await?;
                    after = end;
                }
            }
        }
        Ok(changed)
    }

    async fn all_exist(&self, ids: &[JobId]) -> Result<(), Error> {
        let ids = parameter(ids.iter().map(|id| (*id).into()).collect());
        match sqlx::query(sql::UNKNOWN_IDS).bind(ids).fetch_optional(&self.inner.readers).await? {
            Some(row) => Err(Error::NotFound(format!("job {} not found", row.try_get::<i64, _>("id")?))),
            None => Ok(()),
        }
    }

    async fn page(&self, filter: &JobFilter, after: JobId, last: JobId) -> Result<Vec<JobId>, Error> {
        sqlx::query(sql::PAGE)
            .bind(filter.state.map(crate::job::State::as_str))
            .bind(&filter.batch)
            .bind(&filter.queue)
            .bind(after)
            .bind(last)
            .bind(i64::try_from(PIECE).unwrap_or(i64::MAX))
            .fetch_all(&self.inner.readers)
            .await?
            .iter()
            .map(|row| Ok(row.try_get("id")?))
            .collect()
    }

    async fn change_piece(
        &self,
        statement: &'static str,
        ids: &[JobId],
        now: UnixMillis,
        actor: &str,
        edit: Option<&Edit>,
    ) -> Result<u64, Error> {
        let ids = parameter(ids.iter().map(|id| (*id).into()).collect());
        let (actor, edit) = (actor.to_owned(), edit.cloned());
        let changed = self.write(Lane::Bulk, move |connection| match edit {
            None => connection.run(statement, (ids, now.0, actor)),
            Some(edit) => {
                let run_at = edit.run_at.map(|at| at.0);
                let change = (ids, now.0, actor, edit.priority, run_at, edit.max_attempts, edit.queue);
                connection.run(statement, change)
            }
        });
        changed.await.inspect(|_| self.inner.watch.committed())
    }
}
