//! Schedules: due ones become jobs.
//!
//! Every process that works looks. What is to be done is computed from the row and the time ([`plan`]), without a lock; the
//! store then does it for the rows that are still as they were seen, with the jobs and what is noted of them in one
//! transaction. So a time fires once, however many look, whenever one of them dies.

mod apply;
pub mod plan;
mod timing;
pub mod view;

pub use apply::apply;
pub use timing::{Timing, utc};

use crate::clock::{BootTime, Clock, UnixMillis};
use crate::job::schedule::{Fate, Firing, Occurrence};
use crate::job::{Job, Kind};
use crate::shutdown::Shutdown;
use crate::store::{Error, Selection, Store};
use std::time::Duration;

/// Schedules that are fired in one transaction: few enough that claims get their turn between them.
const BATCH: u32 = 500;
/// The longest wait between two looks: new schedules are seen by then, and clocks that jumped. Commits wake nobody here; most
/// are none of its business.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// The pause after the database failed.
const ERROR_PAUSE: Duration = Duration::from_secs(1);
/// A wall clock that went back by so much was wrong before, and what was computed by it is looked at again.
const WENT_BACK: Duration = Duration::from_secs(2);
/// Who makes the jobs.
const ACTOR: &str = "scheduler";

/// What one look did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ticked {
    /// Jobs made.
    pub fired: usize,
    /// More is due.
    pub more: bool,
    /// How long nothing will be due.
    pub idle_for: Duration,
}

/// Fires schedules.
pub struct Scheduler {
    store: Store,
    clock: Clock,
    /// The clocks at the last look; None: it is the first.
    looked: Option<(BootTime, UnixMillis)>,
}

impl Scheduler {
    /// One that has not looked yet.
    #[must_use]
    pub const fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock, looked: None }
    }

    /// Fires what is due until the shutdown drains. Errors are logged and waited out.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut failing = false;
        while !shutdown.drain.is_cancelled() {
            let ticked = self.tick().await;
            let still = std::mem::replace(&mut failing, ticked.is_err());
            let wait = match ticked {
                Ok(Ticked { more: true, .. }) => continue,
                Ok(ticked) => ticked.idle_for,
                Err(error) => {
                    if still {
                        tracing::debug!(%error, "schedules could not be looked at again");
                    } else {
                        tracing::warn!(%error, "schedules cannot be looked at just now, trying again");
                    }
                    ERROR_PAUSE
                }
            };
            tokio::select! {
                () = shutdown.drain.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One look at what is due, and the jobs for it; bounded.
    ///
    /// # Errors
    /// The store's; what was fired until then is.
    pub async fn tick(&mut self) -> Result<Ticked, Error> {
        self.mend().await?;
        let due = self.store.schedules_due(BATCH).await?;
        let found = due.schedules.len();
        if found == 0 {
            let idle_for = due.next_at.map_or(LONGEST_WAIT, |next| next.since(due.now).min(LONGEST_WAIT));
            return Ok(Ticked { fired: 0, more: false, idle_for });
        }
        let firings: Vec<Firing> = due.schedules.iter().map(|schedule| plan::plan(schedule, due.now)).collect();
        for (schedule, firing) in due.schedules.iter().zip(&firings) {
            if let Some(fault) = &firing.fault {
                tracing::warn!(schedule = schedule.name, %fault, "a schedule is faulty, it waits until somebody changes it");
            }
        }
        let fired = self.fire(firings).await?;
        for occurrence in &fired {
            let name = due.schedules.iter().find(|schedule| schedule.id == occurrence.schedule);
            let name = name.map_or("", |schedule| schedule.name.as_str());
            let (at, outcome) = (occurrence.at.to_rfc3339(), occurrence.fate.as_str());
            tracing::info!(schedule = name, at, outcome, job = occurrence.job, "a scheduled time");
            if name_cancels(&due.schedules, occurrence) {
                self.cancel_older(occurrence).await?;
            }
        }
        let fired = fired.iter().filter(|occurrence| occurrence.fate == Fate::Fired).count();
        Ok(Ticked { fired, more: true, idle_for: Duration::ZERO })
    }

    /// Fires them together. When the database refuses that for one of them, the others are fired all the same.
    async fn fire(&self, firings: Vec<Firing>) -> Result<Vec<Occurrence>, Error> {
        match self.store.schedules_fire(firings.clone(), ACTOR).await {
            Err(error) if !error.is_transient() && !self.store.is_closed() => {
                tracing::debug!(%error, "schedules are fired one by one");
            }
            fired => return fired,
        }
        let mut all = Vec::new();
        for firing in firings {
            match self.store.schedules_fire(vec![firing.clone()], ACTOR).await {
                Ok(fired) => all.extend(fired),
                Err(error) if !error.is_transient() && !self.store.is_closed() => {
                    let fault = format!("its job cannot be made: {error}");
                    tracing::warn!(schedule = firing.schedule, %fault, "a schedule is faulty, it waits until somebody changes it");
                    let faulty = Firing { next_at: None, fault: Some(fault), occurrences: Vec::new(), ..firing };
                    self.store.schedules_fire(vec![faulty], ACTOR).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Times that were computed while the wall clock was ahead of the right time are computed again: at the first look, and
    /// whenever the clock went back.
    async fn mend(&mut self) -> Result<(), Error> {
        let (boot, wall) = (self.clock.boot(), self.clock.now());
        let before = self.looked;
        let went_back = before.is_none_or(|(then, said)| said.plus(boot.since(then)).since(wall) >= WENT_BACK);
        if went_back {
            let now = self.store.schedules_due(0).await?.now;
            let schedules = self.store.schedules(None).await?;
            let waiting = schedules.iter().filter(|schedule| {
                schedule.paused_at.is_none() && schedule.ended_at.is_none() && schedule.fault.is_none()
            });
            let firings: Vec<Firing> = waiting.filter_map(|schedule| plan::mended(schedule, now)).collect();
            if !firings.is_empty() {
                tracing::warn!(schedules = firings.len(), "the clock went back: times of schedules are computed again");
                self.store.schedules_fire(firings, ACTOR).await?;
            }
        }
        self.looked = Some((boot, wall));
        Ok(())
    }

    /// The job of a time takes the place of the older ones of its schedule.
    async fn cancel_older(&self, occurrence: &Occurrence) -> Result<(), Error> {
        let Some(job) = occurrence.job else { return Ok(()) };
        let older = self.store.schedule_older(occurrence.schedule, job).await?;
        if older.is_empty() {
            return Ok(());
        }
        for id in &older {
            // First nothing more comes of a batch that is still being listed.
            if let Some(Job { kind: Kind::Expand, batch_id: Some(batch), .. }) = self.store.job(*id).await?
                && let Ok(batch) = batch.parse()
            {
                self.store.batch_stop(batch, true).await?;
            }
        }
        match self.store.cancel(&Selection::Ids(older), ACTOR).await {
            // Finished and removed meanwhile.
            Err(Error::NotFound(_)) => Ok(()),
            cancelled => cancelled.map(drop),
        }
    }
}

/// The older runs of the schedule of a time that has fired are to be cancelled.
fn name_cancels(schedules: &[crate::job::Schedule], occurrence: &Occurrence) -> bool {
    occurrence.job.is_some()
        && schedules.iter().any(|schedule| schedule.id == occurrence.schedule && schedule.overlap == "cancel")
}
