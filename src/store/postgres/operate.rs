//! What operators do to jobs: cancel, retry, edit, pause, resume. In pieces, so that a million jobs hold no locks for long.

use super::connect::{Again, Statement, plain};
use super::{Postgres, statements as sql};
use crate::job::{JobId, State};
use crate::store::rows::Columns;
use crate::store::{Edit, Error, JobFilter, Selection};

/// Jobs changed in one statement.
const PIECE: usize = 500;

impl Postgres {
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
        text: &'static str,
        which: &Selection,
        actor: &str,
        edit: Option<&Edit>,
    ) -> Result<u64, Error> {
        let mut changed = 0;
        match which {
            Selection::Ids(ids) => {
                self.all_exist(ids).await?;
                for piece in ids.chunks(PIECE) {
                    changed += self.change_piece(text, piece, actor, edit).await?;
                }
            }
            Selection::Filter(filter) => {
                // Jobs that come while this goes on are not meant.
                let last = self.inner.bulk.row(&Statement::new(sql::LAST_JOB)).await?.int("id")?;
                let mut after = 0;
                loop {
                    let page = self.page(filter, after, last).await?;
                    let Some(end) = page.last().copied() else { break };
                    changed += self.change_piece(text, &page, actor, edit).await?;
                    after = end;
                }
            }
        }
        self.inner.listener.committed();
        Ok(changed)
    }

    /// # Errors
    /// [`Error::NotFound`] names one that does not.
    async fn all_exist(&self, ids: &[JobId]) -> Result<(), Error> {
        let look = Statement::new(sql::UNKNOWN_IDS).bind(ids);
        match self.inner.bulk.rows(Again::Harmless, &look).await?.first() {
            Some(row) => Err(Error::NotFound(format!("job {} not found", row.int("id")?))),
            None => Ok(()),
        }
    }

    async fn page(&self, filter: &JobFilter, after: JobId, last: JobId) -> Result<Vec<JobId>, Error> {
        let statement = Statement::new(sql::PAGE)
            .bind(filter.state.map(State::as_str))
            .bind(filter.batch.as_deref().map(plain))
            .bind(filter.queue.as_deref().map(plain))
            .bind(after)
            .bind(last)
            .bind(i64::try_from(PIECE).unwrap_or(i64::MAX));
        let rows = self.inner.readers.rows(Again::Harmless, &statement).await?;
        rows.iter().map(|row| row.int("id")).collect()
    }

    async fn change_piece(
        &self,
        text: &'static str,
        ids: &[JobId],
        actor: &str,
        edit: Option<&Edit>,
    ) -> Result<u64, Error> {
        let mut statement = Statement::new(text).bind(ids).bind(self.inner.now()).bind_text(actor);
        if let Some(edit) = edit {
            statement = statement
                .bind(edit.priority)
                .bind(edit.run_at.map(|at| at.0))
                .bind(edit.max_attempts)
                .bind(edit.queue.as_deref().map(plain));
        }
        let rows = self.inner.bulk.rows(Again::Never, &statement).await?;
        rows.first().map_or(Ok(0), |row| row.count("jobs"))
    }
}
