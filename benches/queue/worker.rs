//! A worker without work: the loop of `worker::Worker`, with jobs that end at once.
//!
//! It does what that loop does with the store, in the same order: see who is to be cancelled, look at what waits, make due
//! what is due, claim as much as there is room for (with an intake before, when rows came by plain SQL), have a task settle
//! each claim by itself, then wait for the end of one of them or, after a short rest, for anybody's commit. What is left out
//! is what a job does. It must follow that loop when it changes; `freightliner work --drain` is measured too.

use crate::Measured;
use crate::rates::{Limits, complete, request};
use crate::timing::Timer;
use freightliner::store::Store;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use uuid::Uuid;

/// The longest wait between two looks, as the worker's.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// How often all is looked at while claims get what they ask for, as the worker's.
const FULL_LOOK: Duration = Duration::from_millis(50);
/// The pause after a look that found nothing, before commits are listened to, as the worker's.
const REST: Duration = Duration::from_millis(2);

/// One loop.
pub struct Worker {
    id: Uuid,
    store: Store,
    concurrency: usize,
    started: Option<UnboundedSender<Timer>>,
    running: JoinSet<Measured>,
    settled: usize,
    looked: Timer,
    full: bool,
}

/// What one look found.
struct Look {
    more: bool,
    pending: bool,
}

impl Worker {
    /// A loop that has so many jobs at a time. It tells `started` when a claim was answered.
    pub fn new(store: Store, concurrency: usize, started: Option<UnboundedSender<Timer>>) -> Self {
        Self {
            id: Uuid::now_v7(),
            store,
            concurrency,
            started,
            running: JoinSet::new(),
            settled: 0,
            looked: Timer::start(),
            full: false,
        }
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
        if self.full && self.looked.elapsed() < FULL_LOOK {
            let room = self.concurrency - self.running.len();
            if room > 0 {
                self.claim(room, false).await?;
            }
            return Ok(Look { more: !self.full, pending: true });
        }
        self.looked = Timer::start();
        self.full = false;
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
        let room = self.concurrency - self.running.len();
        let pending = waiting.pending || waiting.intake;
        if !pending || room == 0 {
            if waiting.intake {
                self.store.intake().await?;
            }
            return Ok(Look { more: waiting.due, pending });
        }
        let claimed = self.claim(room, waiting.intake).await?;
        Ok(Look { more: claimed > 0 && claimed < room || waiting.due, pending: true })
    }

    async fn claim(&mut self, room: usize, intake: bool) -> Measured<usize> {
        let request = request(self.id, room, &Limits::default());
        let claims =
            if intake { self.store.intake_and_claim(request).await?.1 } else { self.store.claim(request).await? };
        let claimed = claims.len();
        self.full = claimed > 0 && claimed == room;
        let now = Timer::start();
        for claim in claims {
            if let Some(started) = &self.started {
                started.send(now)?;
            }
            let store = self.store.clone();
            self.running.spawn(async move { complete(&store, claim).await });
        }
        Ok(claimed)
    }

    async fn wait(&mut self) -> Measured {
        tokio::select! {
            Some(ended) = self.running.join_next() => {
                ended??;
                self.settled += 1;
                tokio::task::yield_now().await;
                while let Some(ended) = self.running.try_join_next() {
                    ended??;
                    self.settled += 1;
                }
                Ok(())
            }
            changed = rested(&self.store) => {
                self.full = false;
                changed
            }
        }
    }
}

/// Returns when something may have changed, but not at once: as the worker's.
async fn rested(store: &Store) -> Measured {
    tokio::time::sleep(REST).await;
    Ok(store.changed(LONGEST_WAIT - REST).await?)
}
