//! The program's worker, with jobs that end at once.
//!
//! What a job does is left out, and nothing else: the loop, its looks, claims and places are the program's own.

use crate::Measured;
use crate::rates::TTL;
use crate::timing::Timer;
use freightliner::clock::{BootTime, Clock};
use freightliner::job::Report;
use freightliner::shutdown::Shutdown;
use freightliner::store::{Claim, Outcome, Settled, Store, Work};
use freightliner::worker::attempt::{Controls, Finish};
use freightliner::worker::places::Place;
use freightliner::worker::presence::Presence;
use freightliner::worker::{Run, Settings};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedSender;

/// One loop.
pub struct Worker {
    worker: freightliner::worker::Worker<Nothing>,
    _state: Arc<TempDir>,
}

/// Workers of one process.
pub struct Workers {
    store: Store,
    settings: Settings,
    presence: Arc<Presence>,
    state: Arc<TempDir>,
}

impl Workers {
    /// Makes them known to the database; each has so many jobs at a time.
    ///
    /// # Errors
    /// The store's.
    pub async fn new(store: Store, concurrency: usize) -> Measured<Self> {
        let state = Arc::new(tempfile::tempdir()?);
        let settings = Settings { concurrency, lease_ttl: TTL, ..Settings::default() };
        let presence = Presence::start(&store, state.path(), &settings, concurrency, &Clock::System).await?;
        Ok(Self { store, settings, presence: Arc::new(presence), state })
    }

    /// One of them. It tells `started` when a job starts.
    pub fn one(&self, started: Option<UnboundedSender<Timer>>) -> Worker {
        let (store, settings, presence) = (self.store.clone(), self.settings.clone(), self.presence.clone());
        let nothing = Nothing { store: store.clone(), started };
        let worker = freightliner::worker::Worker::with(store, settings, Clock::System, presence, nothing);
        Worker { worker, _state: self.state.clone() }
    }
}

impl Worker {
    /// Works until nothing waits and nothing runs; how many jobs it completed.
    ///
    /// # Errors
    /// The store's.
    pub async fn until_done(self) -> Measured<usize> {
        Ok(usize::try_from(self.worker.run(&Shutdown::default(), true).await?.completed)?)
    }

    /// Works until it is dropped.
    ///
    /// # Errors
    /// The store's.
    pub async fn for_ever(self) -> Measured {
        self.worker.run(&Shutdown::default(), false).await?;
        Ok(())
    }
}

/// No work: each claim is settled as completed.
#[derive(Clone)]
struct Nothing {
    store: Store,
    started: Option<UnboundedSender<Timer>>,
}

impl Run for Nothing {
    async fn run(self, claim: Claim, _: BootTime, _: Controls, mut place: Place) -> Finish {
        if let Some(started) = &self.started
            && started.send(Timer::start()).is_err()
        {
            return Finish::Unsettled;
        }
        let outcome = Outcome::Completed(Report::default());
        let end = self.store.settle(claim, &outcome, Work::default(), &[]);
        match place.free_with(self.store.is_in_order(), end).await {
            Ok(Settled::Now(state)) => Finish::Settled(state),
            Ok(Settled::LeaseLost) => Finish::LeaseLost,
            Err(_) => Finish::Unsettled,
        }
    }
}
