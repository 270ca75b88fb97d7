//! Batches: made, listed, looked at, called off.

use super::{Error, Fence, Store, on};
use crate::job::batch::{Batch, BatchId, Listed, NewBatch};
use crate::job::{JobId, NewJob};

/// What became of copies that a listing brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchTaken {
    /// New jobs.
    pub made: u64,
    /// Destinations to which another source of the same batch is copied already: the destination, that source, the one that
    /// was refused.
    pub clashes: Vec<(String, String, String)>,
}

impl Store {
    /// Writes a batch down, with the job that lists it. Returns that job. A batch of this id that is there stays as it is.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn batch_add(&self, batch: NewBatch, actor: &str) -> Result<JobId, Error> {
        on!(self, store => store.batch_add(batch, actor).await)
    }

    /// Batches, newest first, with ids below `after`, at most `limit`; with an id that one, if it is there.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn batches(&self, id: Option<BatchId>, after: Option<BatchId>, limit: u32) -> Result<Vec<Batch>, Error> {
        on!(self, store => store.batches(id, after, limit).await)
    }

    /// What is to be listed for a batch, JSON; None: nobody has said so yet, or there is no such batch.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn batch_rules(&self, id: BatchId) -> Result<Option<String>, Error> {
        on!(self, store => store.batch_rules(id).await)
    }

    /// Says what is to be listed, unless that is said already. False when the lease is lost.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn batch_rules_say(&self, fence: Fence, rules: String) -> Result<bool, Error> {
        on!(self, store => store.batch_rules_say(fence, rules).await)
    }

    /// Makes copies of a batch, in one transaction; those that were made before are not made again, and each destination is
    /// written by one. None when the lease of the listing is lost or the batch was called off: then nothing was made.
    ///
    /// # Errors
    /// [`Error::Backend`]; then nothing of it is done, unless the message says that this is not known.
    pub async fn batch_take(
        &self,
        fence: Fence,
        batch: BatchId,
        jobs: Vec<NewJob>,
        actor: &str,
    ) -> Result<Option<BatchTaken>, Error> {
        on!(self, store => store.batch_take(fence, batch, jobs, actor).await)
    }

    /// Writes down what became of a repository. False when the lease is lost or the batch was called off.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn batch_listed(&self, fence: Fence, batch: BatchId, listed: Listed) -> Result<bool, Error> {
        on!(self, store => store.batch_listed(fence, batch, listed).await)
    }

    /// What became of the repositories of a batch, by rule and name.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn batch_repositories(&self, id: BatchId) -> Result<Vec<Listed>, Error> {
        on!(self, store => store.batch_repositories(id).await)
    }

    /// Jobs of a batch that may be claimed: pending, in a queue that is not paused, their target not being written. Best
    /// first, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn batch_waiting(&self, id: BatchId, limit: u32) -> Result<Vec<JobId>, Error> {
        on!(self, store => store.batch_waiting(id, limit).await)
    }

    /// Some job of a batch is not finished.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn batch_busy(&self, id: BatchId) -> Result<bool, Error> {
        on!(self, store => store.batch_busy(id).await)
    }

    /// Takes a batch out of every list. False: it was in none, or there is no such batch. Its jobs stay.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn batch_hide(&self, id: BatchId) -> Result<bool, Error> {
        on!(self, store => store.batch_hide(id).await)
    }

    /// Has nothing more made for a batch (`true`), or allows it again. False: it was so already, or there is no such batch. Its
    /// jobs are another matter.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn batch_stop(&self, id: BatchId, stop: bool) -> Result<bool, Error> {
        on!(self, store => store.batch_stop(id, stop).await)
    }
}
