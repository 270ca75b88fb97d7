//! What operators do to jobs: cancel, retry.

use super::Sqlite;
use crate::store::statements as sql;
use crate::store::{Error, Selection};
use sqlx::{AssertSqlSafe, Row};

impl Sqlite {
    pub(in crate::store) async fn cancel(&self, which: &Selection, actor: &str) -> Result<u64, Error> {
        self.change(sql::CANCEL, which, actor).await
    }

    pub(in crate::store) async fn retry(&self, which: &Selection, actor: &str) -> Result<u64, Error> {
        self.change(sql::RETRY, which, actor).await
    }

    /// Runs one of the two statements; unknown ids change nothing.
    async fn change(&self, statement: &'static str, which: &Selection, actor: &str) -> Result<u64, Error> {
        let now = self.inner.clock.now();
        let actor = actor.to_owned();
        let (ids, state, batch, queue) = match which {
            Selection::Ids(ids) => {
                let ids = serde_json::to_string(ids).map_err(|error| Error::Invalid(format!("ids: {error}")))?;
                (Some(ids), None, None, None)
            }
            Selection::Filter(filter) => {
                (None, filter.state.map(|state| state.as_str()), filter.batch.clone(), filter.queue.clone())
            }
        };
        self.inner
            .writer
            .write(move |connection| {
                Box::pin(async move {
                    if let Some(ids) = &ids
                        && let Some(row) =
                            sqlx::query(sql::UNKNOWN_IDS).bind(ids).fetch_optional(&mut *connection).await?
                    {
                        return Err(Error::NotFound(format!("job {} not found", row.try_get::<i64, _>("id")?)));
                    }
                    let done = sqlx::query(AssertSqlSafe(statement))
                        .bind(ids)
                        .bind(state)
                        .bind(batch)
                        .bind(now.0)
                        .bind(actor)
                        .bind(queue)
                        .execute(connection)
                        .await?;
                    Ok(done.rows_affected())
                })
            })
            .await
            .inspect(|_| self.inner.watch.committed())
    }
}
