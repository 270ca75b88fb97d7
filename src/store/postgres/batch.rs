//! Batches: made, listed, looked at, called off.

use super::connect::{Again, Statement, plain};
use super::statements::batch as sql;
use super::{Postgres, int};
use crate::job::batch::{Batch, BatchId, Listed, NewBatch, copy_key, expand_key};
use crate::job::{JobId, NewJob};
use crate::store::rows::{self, Columns};
use crate::store::{BatchTaken, Error, Fence};
use std::collections::HashMap;

impl Postgres {
    pub(in crate::store) async fn batch_add(&self, batch: NewBatch, actor: &str) -> Result<JobId, Error> {
        let id = batch.id.to_string();
        let key = expand_key(batch.id);
        let statement = Statement::new(sql::BATCH_ADD)
            .bind(id.clone())
            .bind(batch.kind.as_str())
            .bind(batch.name.as_deref().map(plain))
            .bind_text(&batch.source)
            .bind_text(&batch.destination)
            .bind(batch.rules.as_deref().map(plain))
            .bind(self.inner.now())
            .bind_text(actor)
            .bind_text(&batch.queue)
            .bind(batch.priority)
            .bind(batch.max_attempts)
            .bind(batch.run_at.map(|at| at.0))
            .bind(key.clone())
            .bind(key);
        // Its id is chosen before: done twice it is made once.
        let rows = self.inner.bulk.rows(Again::Harmless, &statement).await?;
        self.inner.listener.committed();
        match rows.first() {
            Some(row) => row.int("id"),
            None => self.inner.bulk.row(&Statement::new(sql::BATCH_JOB).bind(id)).await?.int("id"),
        }
    }

    pub(in crate::store) async fn batches(
        &self,
        id: Option<BatchId>,
        after: Option<BatchId>,
        limit: u32,
    ) -> Result<Vec<Batch>, Error> {
        let text = |id: Option<BatchId>| id.map(|id| id.to_string());
        let statement = Statement::new(sql::BATCHES).bind(text(id)).bind(text(after)).bind(i64::from(limit));
        self.inner.readers.rows(Again::Harmless, &statement).await?.iter().map(rows::batch).collect()
    }

    pub(in crate::store) async fn batch_rules(&self, id: BatchId) -> Result<Option<String>, Error> {
        let statement = Statement::new(sql::BATCH_RULES).bind(id.to_string());
        let rows = self.inner.readers.rows(Again::Harmless, &statement).await?;
        rows.first().map_or(Ok(None), |row| row.text_option("rules"))
    }

    pub(in crate::store) async fn batch_rules_say(&self, fence: Fence, rules: String) -> Result<bool, Error> {
        let statement = Statement::new(sql::BATCH_SAY).bind(fence.job).bind(fence.epoch).bind_text(&rules);
        Ok(!self.inner.bulk.rows(Again::Harmless, &statement).await?.is_empty())
    }

    pub(in crate::store) async fn batch_take(
        &self,
        fence: Fence,
        batch: BatchId,
        jobs: Vec<NewJob>,
        actor: &str,
    ) -> Result<Option<BatchTaken>, Error> {
        let keys: Vec<String> = jobs.iter().map(|job| copy_key(batch, &job.parsed.dest_key())).collect();
        let column = |read: fn(&NewJob) -> String| jobs.iter().map(|job| plain(&read(job))).collect::<Vec<_>>();
        let statement = Statement::new(sql::BATCH_TAKE)
            .bind(fence.job)
            .bind(fence.epoch)
            .bind(batch.to_string())
            .bind(self.inner.now())
            .bind_text(actor)
            .bind(keys.clone())
            .bind(column(|job| job.source.clone()))
            .bind(column(|job| job.destination.clone()))
            .bind(column(|job| job.parsed.options.canonical()))
            .bind(column(|job| job.parsed.source_key()))
            .bind(column(|job| job.parsed.dest_key()))
            .bind(column(|job| job.parsed.dest_registry()));
        // Fenced, and each key makes one job.
        let row = self.inner.bulk.row(&statement).await?;
        if row.count("held")? == 0 {
            return Ok(None);
        }
        self.inner.listener.committed();
        let rows = self.inner.bulk.rows(Again::Harmless, &Statement::new(sql::BATCH_TAKEN).bind(keys.clone())).await?;
        let there: HashMap<String, String> =
            rows.iter().map(|row| Ok((row.text("key")?, row.text("source_key")?))).collect::<Result<_, Error>>()?;
        let clashes = jobs.iter().zip(&keys).filter_map(|(job, key)| {
            let wanted = job.parsed.source_key();
            let other = there.get(key).filter(|other| **other != wanted)?;
            Some((job.parsed.dest_key(), other.clone(), wanted))
        });
        Ok(Some(BatchTaken { made: row.count("made")?, clashes: clashes.collect() }))
    }

    pub(in crate::store) async fn batch_listed(
        &self,
        fence: Fence,
        batch: BatchId,
        listed: Listed,
    ) -> Result<bool, Error> {
        let Listed { rule, repository, tags, kept, failure } = listed;
        let (class, message) = failure.unzip();
        let statement = Statement::new(sql::BATCH_LISTED)
            .bind(fence.job)
            .bind(fence.epoch)
            .bind(batch.to_string())
            .bind(i64::from(rule))
            .bind_text(&repository)
            .bind(self.inner.now())
            .bind(int(tags))
            .bind(int(kept))
            .bind(class.as_deref().map(plain))
            .bind(message.as_deref().map(plain));
        Ok(!self.inner.bulk.rows(Again::Harmless, &statement).await?.is_empty())
    }

    pub(in crate::store) async fn batch_repositories(&self, id: BatchId) -> Result<Vec<Listed>, Error> {
        let statement = Statement::new(sql::BATCH_REPOSITORIES).bind(id.to_string());
        self.inner.readers.rows(Again::Harmless, &statement).await?.iter().map(rows::listed).collect()
    }

    pub(in crate::store) async fn batch_waiting(&self, id: BatchId, limit: u32) -> Result<Vec<JobId>, Error> {
        let statement = Statement::new(sql::BATCH_WAITING).bind(id.to_string()).bind(i64::from(limit));
        self.inner.control.rows(Again::Harmless, &statement).await?.iter().map(|row| row.int("id")).collect()
    }

    pub(in crate::store) async fn batch_busy(&self, id: BatchId) -> Result<bool, Error> {
        self.inner.control.row(&Statement::new(sql::BATCH_BUSY).bind(id.to_string())).await?.flag("busy")
    }

    pub(in crate::store) async fn batch_hide(&self, id: BatchId) -> Result<bool, Error> {
        let statement = Statement::new(sql::BATCH_HIDE).bind(id.to_string()).bind(self.inner.now());
        Ok(!self.inner.bulk.rows(Again::Harmless, &statement).await?.is_empty())
    }

    pub(in crate::store) async fn batch_stop(&self, id: BatchId, stop: bool) -> Result<bool, Error> {
        let statement = if stop {
            Statement::new(sql::BATCH_STOP).bind(id.to_string()).bind(self.inner.now())
        } else {
            Statement::new(sql::BATCH_GO_ON).bind(id.to_string())
        };
        let changed = !self.inner.bulk.rows(Again::Harmless, &statement).await?.is_empty();
        self.inner.listener.committed();
        Ok(changed)
    }
}
