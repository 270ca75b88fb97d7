//! Retention: finished jobs are removed after their time, in small pieces with a pause after each, so that nobody notices.

use crate::clock::{BootTime, Clock};
use crate::shutdown::Shutdown;
use crate::store::Store;
use crate::worker::Retention;
use std::time::Duration;

/// How often finished jobs are looked for that are not kept any longer.
const INTERVAL: Duration = Duration::from_secs(600);
/// Jobs removed in one transaction.
const PIECE: u32 = 200;
/// Calls of the API removed in one transaction.
const CALLS: u32 = 5000;
/// Transactions after which the sweeper looks at its workers again.
const PIECES: usize = 20;
/// Pause after each.
const PAUSE: Duration = Duration::from_millis(50);

/// Removes what is not kept any longer.
pub(super) struct Retain {
    kept: Retention,
    /// When it last came to its end.
    ended: Option<BootTime>,
}

impl Retain {
    /// Keeps finished jobs for so long.
    pub const fn new(kept: Retention) -> Self {
        Self { kept, ended: None }
    }

    /// Some pieces, when it is time again. An error is told and waited out until the next time.
    pub async fn tick(&mut self, store: &Store, clock: &Clock, shutdown: &Shutdown) {
        let boot = clock.boot();
        if self.ended.is_some_and(|last| boot.since(last) < INTERVAL) {
            return;
        }
        let mut removed = 0;
        for _ in 0..PIECES {
            match store.prune(self.kept.at(clock.now()), PIECE, "sweeper").await {
                Ok(pruned) => {
                    removed += pruned.jobs;
                    if !pruned.more {
                        self.ended = Some(boot);
                        self.calls(store, clock).await;
                        break;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "finished jobs could not be removed, trying again later");
                    self.ended = Some(boot);
                    break;
                }
            }
            tokio::select! {
                () = shutdown.drain.cancelled() => break,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
        if removed > 0 {
            tracing::info!(jobs = removed, "removed finished jobs that are not kept any longer");
        }
    }

    /// The record of calls of the API is kept as long as failed jobs are.
    async fn calls(&self, store: &Store, clock: &Clock) {
        let Some(before) = self.kept.at(clock.now()).failed_before else { return };
        for _ in 0..PIECES {
            match store.calls_prune(before, CALLS, "sweeper").await {
                Ok(0) => return,
                Ok(_) => tokio::time::sleep(PAUSE).await,
                Err(error) => {
                    tracing::warn!(%error, "old calls of the API could not be removed, trying again later");
                    return;
                }
            }
        }
    }
}
