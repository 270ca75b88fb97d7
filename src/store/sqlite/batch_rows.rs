//! Batches: made, listed, looked at, called off.

use super::Sqlite;
use super::attempt::rows as parameter;
use super::direct::{Cell, Direct};
use super::writer::Lane;
use crate::job::batch::{Batch, BatchId, Listed, NewBatch, copy_key, expand_key};
use crate::job::{JobId, NewJob};
use crate::store::rows::{self, Columns};
use crate::store::statements::batch as sql;
use crate::store::{BatchTaken, Error, Fence};
use serde_json::Value;
use std::collections::HashMap;

/// A copy with the strings that the statement needs, computed before the writer has it.
struct Copy {
    key: String,
    source_key: String,
    dest_key: String,
    registry: String,
    options: String,
    job: NewJob,
}

impl Sqlite {
    pub(in crate::store) async fn batch_add(&self, batch: NewBatch, actor: &str) -> Result<JobId, Error> {
        let (now, actor) = (self.inner.clock.now(), actor.to_owned());
        let added = self.write(Lane::Control, move |connection| {
            let id = batch.id.to_string();
            let row = (
                id.as_str(),
                batch.kind.as_str(),
                batch.name.as_deref(),
                batch.source.as_str(),
                batch.destination.as_str(),
                batch.rules.as_deref(),
                None::<i64>,
                now.0,
                actor.as_str(),
            );
            if connection.run(sql::BATCH_ADD, row)? == 0 {
                return connection.one(sql::BATCH_JOB, [id], |row| row.int("id"));
            }
            let run_at = batch.run_at.unwrap_or(now);
            let state = if run_at > now { "scheduled" } else { "pending" };
            let key = expand_key(batch.id);
            let (attempts, queue) = (batch.max_attempts, batch.queue.as_str());
            let job = (id, state, queue, batch.priority, attempts, run_at.0, now.0, key.as_str(), key.as_str(), actor);
            connection.one(sql::BATCH_EXPAND, job, |row| row.int("id"))
        });
        added.await.inspect(|_| self.inner.watch.committed())
    }

    pub(in crate::store) async fn batches(
        &self,
        id: Option<BatchId>,
        after: Option<BatchId>,
        limit: u32,
    ) -> Result<Vec<Batch>, Error> {
        let text = |id: Option<BatchId>| id.map(|id| id.to_string());
        let look = sqlx::query(sql::BATCHES).bind(text(id)).bind(text(after)).bind(limit);
        look.fetch_all(&self.inner.readers).await?.iter().map(rows::batch).collect()
    }

    pub(in crate::store) async fn batch_rules(&self, id: BatchId) -> Result<Option<String>, Error> {
        let look = sqlx::query(sql::BATCH_RULES).bind(id.to_string());
        let row = look.fetch_optional(&self.inner.readers).await?;
        row.map_or(Ok(None), |row| row.text_option("rules"))
    }

    pub(in crate::store) async fn batch_rules_say(&self, fence: Fence, rules: String) -> Result<bool, Error> {
        self.write(Lane::Control, move |connection| {
            Ok(connection.run(sql::BATCH_SAY, (fence.job, fence.epoch, rules))? > 0)
        })
        .await
    }

    pub(in crate::store) async fn batch_take(
        &self,
        fence: Fence,
        batch: BatchId,
        jobs: Vec<NewJob>,
        actor: &str,
    ) -> Result<Option<BatchTaken>, Error> {
        let (now, actor) = (self.inner.clock.now(), actor.to_owned());
        let copies: Vec<Copy> = jobs.into_iter().map(|job| copy(batch, job)).collect();
        let taken = self.write(Lane::Bulk, move |connection| {
            if !is_held(connection, fence, batch)? {
                return Ok(None);
            }
            let row = |copy: &Copy| -> Vec<Cell<'_>> {
                vec![
                    fence.job.into(),
                    copy.key.clone().into(),
                    copy.job.source.clone().into(),
                    copy.job.destination.clone().into(),
                    copy.options.clone().into(),
                    copy.source_key.clone().into(),
                    copy.dest_key.clone().into(),
                    copy.registry.clone().into(),
                    now.0.into(),
                    actor.clone().into(),
                ]
            };
            let made = connection.many(sql::BATCH_TAKE, &copies.iter().map(row).collect::<Vec<_>>(), |_| Ok(()))?;
            let keys = parameter(copies.iter().map(|copy| Value::from(copy.key.as_str())).collect());
            let there: HashMap<String, String> = connection
                .all(sql::BATCH_TAKEN, [keys], |row| Ok((row.text("key")?, row.text("source_key")?)))?
                .into_iter()
                .collect();
            let clashes = copies.iter().filter_map(|copy| {
                let other = there.get(&copy.key).filter(|other| **other != copy.source_key)?;
                Some((copy.dest_key.clone(), other.clone(), copy.source_key.clone()))
            });
            let made = u64::try_from(made.len()).unwrap_or(u64::MAX);
            Ok(Some(BatchTaken { made, clashes: clashes.collect() }))
        });
        taken.await.inspect(|_| self.inner.watch.committed())
    }

    pub(in crate::store) async fn batch_listed(
        &self,
        fence: Fence,
        batch: BatchId,
        listed: Listed,
    ) -> Result<bool, Error> {
        let now = self.inner.clock.now();
        self.write(Lane::Control, move |connection| {
            if !is_held(connection, fence, batch)? {
                return Ok(false);
            }
            let Listed { rule, repository, tags, kept, failure } = listed;
            let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
            let (class, message) = failure.unzip();
            let row = (batch.to_string(), rule, repository, now.0, number(tags), number(kept), class, message);
            connection.run(sql::BATCH_LISTED, row)?;
            Ok(true)
        })
        .await
    }

    pub(in crate::store) async fn batch_repositories(&self, id: BatchId) -> Result<Vec<Listed>, Error> {
        let look = sqlx::query(sql::BATCH_REPOSITORIES).bind(id.to_string());
        look.fetch_all(&self.inner.readers).await?.iter().map(rows::listed).collect()
    }

    pub(in crate::store) async fn batch_waiting(&self, id: BatchId, limit: u32) -> Result<Vec<JobId>, Error> {
        let look = sqlx::query(sql::BATCH_WAITING).bind(id.to_string()).bind(limit);
        look.fetch_all(&self.inner.readers).await?.iter().map(|row| row.int("id")).collect()
    }

    pub(in crate::store) async fn batch_busy(&self, id: BatchId) -> Result<bool, Error> {
        sqlx::query(sql::BATCH_BUSY).bind(id.to_string()).fetch_one(&self.inner.readers).await?.flag("busy")
    }

    pub(in crate::store) async fn batch_hide(&self, id: BatchId) -> Result<bool, Error> {
        let now = self.inner.clock.now();
        self.write(Lane::Control, move |connection| {
            Ok(connection.first(sql::BATCH_HIDE, (id.to_string(), now.0), |row| row.text("id"))?.is_some())
        })
        .await
    }

    pub(in crate::store) async fn batch_stop(&self, id: BatchId, stop: bool) -> Result<bool, Error> {
        let now = self.inner.clock.now();
        let changed = self.write(Lane::Control, move |connection| {
            let id = id.to_string();
            let changed = if stop {
                connection.first(sql::BATCH_STOP, (id, now.0), |row| row.text("id"))?
            } else {
                connection.first(sql::BATCH_GO_ON, [id], |row| row.text("id"))?
            };
            Ok(changed.is_some())
        });
        changed.await.inspect(|_| self.inner.watch.committed())
    }
}

fn copy(batch: BatchId, job: NewJob) -> Copy {
    let dest_key = job.parsed.dest_key();
    Copy {
        key: copy_key(batch, &dest_key),
        source_key: job.parsed.source_key(),
        registry: job.parsed.dest_registry(),
        options: job.parsed.options.canonical(),
        dest_key,
        job,
    }
}

/// The listing may go on.
fn is_held(connection: &Direct, fence: Fence, batch: BatchId) -> Result<bool, Error> {
    let held = (fence.job, fence.epoch, batch.to_string());
    Ok(connection.first(sql::BATCH_HELD, held, |row| row.int("id"))?.is_some())
}
