//! A worker without work: the loop of `worker::Worker`, with jobs that end at once.
//!
//! It does what that loop does with the store, in the same order: see who is to be cancelled, look at what waits, make due
//! what is due, take in what came by plain SQL, claim as much as there is room for, have a task settle each claim by itself,
//! then wait for the end of one of them or for anybody's commit. What is left out is what a job does.

use crate::Measured;
use crate::rates::{claim_some, complete};
use crate::timing::Timer;
use freightliner::store::Store;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use uuid::Uuid;

/// The longest wait between two looks, as the worker's.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// One loop.
pub struct Worker {
    id: Uuid,
    store: Store,
    concurrency: usize,
    started: Option<UnboundedSender<Timer>>,
    running: JoinSet<Measured>,
    settled: usize,
}

/// What one look found.
struct Look {
    more: bool,
    pending: bool,
}

impl Worker {
    /// A loop that has so many jobs at a time. It tells `started` when a claim was answered.
    pub fn new(store: Store, concurrency: usize, started: Option<UnboundedSender<Timer>>) -> Self {
        Self { id: Uuid::now_v7(), store, concurrency, started, running: JoinSet::new(), settled: 0 }
    }

    /// Works until nothing waits and nothing runs; how many jobs it settled.
    ///
    /// # Errors
    /// The store's, or a job was settled otherwise than asked.
    pub async fn until_done(mut self) -> Measured<usize> {
        loop {
            let look = self.look().await?;
            if look.more {
                continue;
            }
            if self.running.is_empty() && !look.pending {
                return Ok(self.settled);
            }
            self.wait().await?;
        }
    }

    /// Works until it is dropped.
    ///
    /// # Errors
    /// As [`Worker::until_done`].
    pub async fn for_ever(mut self) -> Measured {
        loop {
            if !self.look().await?.more {
                self.wait().await?;
            }
        }
    }

    async fn look(&mut self) -> Measured<Look> {
        while let Some(ended) = self.running.try_join_next() {
            ended??;
            self.settled += 1;
        }
        if !self.running.is_empty() {
            self.store.cancel_asked(self.id).await?;
        }
        let mut waiting = self.store.waiting().await?;
        if waiting.due {
            self.store.due().await?;
            waiting.intake = true;
            waiting.pending = true;
        }
        if waiting.intake {
            waiting.pending |= self.store.intake().await?.accepted > 0;
        }
        let room = self.concurrency - self.running.len();
        if !waiting.pending || room == 0 {
            return Ok(Look { more: waiting.due, pending: waiting.pending });
        }
        let claims = claim_some(&self.store, self.id, room).await?;
        let claimed = claims.len();
        let now = Timer::start();
        for claim in claims {
            if let Some(started) = &self.started {
                started.send(now)?;
            }
            let store = self.store.clone();
            self.running.spawn(async move { complete(&store, claim).await });
        }
        Ok(Look { more: claimed > 0 && claimed < room || waiting.due, pending: true })
    }

    async fn wait(&mut self) -> Measured {
        tokio::select! {
            Some(ended) = self.running.join_next() => {
                ended??;
                self.settled += 1;
                Ok(())
            }
            changed = self.store.changed(LONGEST_WAIT) => Ok(changed?),
        }
    }
}
