//! What operators do to jobs: cancel, retry.

use super::connect::{Again, Statement, plain};
use super::{Postgres, statements as sql};
use crate::job::State;
use crate::store::rows::Columns;
use crate::store::{Error, Selection};

impl Postgres {
    pub(in crate::store) async fn cancel(&self, which: &Selection, actor: &str) -> Result<u64, Error> {
        // A second time it finds nothing left to cancel.
        self.change(sql::CANCEL, which, actor).await
    }

    pub(in crate::store) async fn retry(&self, which: &Selection, actor: &str) -> Result<u64, Error> {
        self.change(sql::RETRY, which, actor).await
    }

    /// Runs one of the two statements; unknown ids change nothing.
    async fn change(&self, text: &'static str, which: &Selection, actor: &str) -> Result<u64, Error> {
        let (ids, state, batch, queue) = match which {
            Selection::Ids(ids) => (Some(ids.clone()), None, None, None),
            Selection::Filter(filter) => (
                None,
                filter.state.map(State::as_str),
                filter.batch.as_deref().map(plain),
                filter.queue.as_deref().map(plain),
            ),
        };
        self.all_exist(ids.as_deref().unwrap_or_default()).await?;
        let statement =
            Statement::new(text).bind(ids).bind(state).bind(batch).bind(self.inner.now()).bind_text(actor).bind(queue);
        let rows = self.inner.bulk.rows(Again::Never, &statement).await?;
        self.inner.listener.committed();
        rows.first().map_or(Ok(0), |row| row.count("jobs"))
    }

    /// # Errors
    /// [`Error::NotFound`] names one that does not.
    pub(super) async fn all_exist(&self, ids: &[i64]) -> Result<(), Error> {
        if ids.is_empty() {
            return Ok(());
        }
        let look = Statement::new(sql::UNKNOWN_IDS).bind(ids);
        match self.inner.bulk.rows(Again::Harmless, &look).await?.first() {
            Some(row) => Err(Error::NotFound(format!("job {} not found", row.int("id")?))),
            None => Ok(()),
        }
    }
}
