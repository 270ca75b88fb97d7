//! Composes worker, scheduler and sweeper under one supervisor, and follows one job for one-shot commands.
//!
//! All tasks of the program are started here or in the worker, in sets that are awaited. The order at the start is fixed:
//! known to the database, swept by proof, then the first claim.

use crate::clock::BootTime;
use crate::job::{Job, JobId, State};
use crate::replicate::Attempt;
use crate::schedule::{self, Scheduler};
use crate::server::{App, Listener};
use crate::shutdown::{Shutdown, Signal, Signals};
use crate::store::{Claim, ClaimRequest, Error as StoreError, Store};
use crate::sweep::{self, Sweeper, Upkeep};
use crate::worker::attempt::{self, Controls};
use crate::worker::presence::Presence;
use crate::worker::{Parts, Worked, Worker, places::Place};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Why a long-lived part ended badly.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database or the state folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Signals cannot be caught.
    #[error("signals cannot be caught: {0}")]
    Signals(std::io::Error),
    /// A bug.
    #[error("a part of the program ended badly: {0}")]
    Panicked(tokio::task::JoinError),
    /// The job is not there.
    #[error("job {0} not found")]
    NoJob(JobId),
}

/// How `work` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// What was done.
    pub worked: Worked,
    /// The signal that asked for the stop; None when nothing was left to do.
    pub signal: Option<Signal>,
    /// A second signal came: what ran was let go as it was; the next sweep reclaims it.
    pub aborted: bool,
}

/// Sweeps by proof, then works until a signal, or with `drain` until nothing is left to do. After the first signal running
/// copies have the grace period, then they are released; a second signal ends the work at once.
///
/// # Errors
/// The database or the state folder cannot be used.
pub async fn work(parts: Parts, drain: bool) -> Result<Ended, Error> {
    run(parts, drain, None).await
}

/// What answers calls beside the work.
pub struct Served {
    /// What the calls share.
    pub app: Arc<App>,
    /// The ports, taken already.
    pub listeners: Vec<Listener>,
    /// Ends them together with the work.
    pub shutdown: Shutdown,
}

/// As [`work`] without an end, and answers calls meanwhile. After the first signal no new call is taken.
///
/// # Errors
/// As [`work`].
pub async fn serve(parts: Parts, served: Served) -> Result<Ended, Error> {
    run(parts, false, Some(served)).await
}

async fn run(parts: Parts, drain: bool, served: Option<Served>) -> Result<Ended, Error> {
    let mut signals = Signals::catch().map_err(Error::Signals)?;
    let shutdown = served.as_ref().map_or_else(Shutdown::default, |served| served.shutdown.clone());
    let presence = Arc::new(start(&parts, parts.settings.concurrency).await?);
    if parts.settings.batch.is_none() {
        schedule::apply(&parts.store, &parts.settings.schedules).await?;
    }
    if drain && parts.settings.batch.is_none() {
        // What is due already is part of what there is to do.
        let mut scheduler = Scheduler::new(parts.store.clone(), parts.clock.clone());
        while scheduler.tick().await?.more {}
    }
    let mut tasks = keepers(&parts, &presence, &shutdown);
    if let Some(served) = served {
        answer(&mut tasks, served);
    }
    let (worker, until) = (Worker::new(parts.clone(), presence.clone()), shutdown.clone());
    tasks.spawn(async move { worker.run(&until, drain).await.map(Some) });
    notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(worker = %presence.id, concurrency = parts.settings.concurrency, "working");
    let mut ended = Ended { worked: Worked::default(), signal: None, aborted: false };
    let grace = tokio::time::sleep(Duration::MAX);
    tokio::pin!(grace);
    let mut failure = None;
    loop {
        tokio::select! {
            task = tasks.join_next() => match task {
                None => break,
                Some(Ok(Ok(Some(worked)))) => {
                    ended.worked = worked;
                    shutdown.now();
                }
                // Scheduler, sweeper and upkeep end as soon as nothing new is taken; running copies still have their grace.
                Some(Ok(Ok(None))) => {}
                Some(Ok(Err(error))) => {
                    failure = Some(Error::Store(error));
                    shutdown.now();
                }
                Some(Err(error)) => {
                    failure = Some(Error::Panicked(error));
                    shutdown.now();
                }
            },
            signal = signals.next() => {
                if ended.signal.is_some() {
                    tracing::warn!(%signal, "stopping at once; the next sweep reclaims what ran");
                    ended.aborted = true;
                    return Ok(ended);
                }
                tracing::info!(%signal, grace_secs = parts.settings.shutdown_grace.as_secs(), "stopping");
                notify(&[sd_notify::NotifyState::Stopping]);
                ended.signal = Some(signal);
                shutdown.drain.cancel();
                grace.set(tokio::time::sleep(parts.settings.shutdown_grace));
            }
            () = &mut grace, if !shutdown.release.is_cancelled() => shutdown.release.cancel(),
        }
    }
    leave(presence, &parts.store).await;
    failure.map_or(Ok(ended), Err)
}

/// How often what ended is counted for the metrics, so that nothing is forgotten between two readings.
const COUNTING: Duration = Duration::from_secs(1);

/// The ports, the history for listeners, and the counting.
fn answer(tasks: &mut JoinSet<Result<Option<Worked>, StoreError>>, served: Served) {
    let Served { app, listeners, shutdown } = served;
    let (feed, until) = (app.feed(), shutdown.clone());
    tasks.spawn(async move {
        feed.run(until).await;
        Ok(None)
    });
    for listener in listeners {
        let until = shutdown.clone();
        tasks.spawn(async move {
            listener.run(until).await;
            Ok(None)
        });
    }
    tasks.spawn(async move {
        while !shutdown.drain.is_cancelled() {
            app.count().await;
            tokio::select! {
                () = shutdown.drain.cancelled() => {}
                () = tokio::time::sleep(COUNTING) => {}
            }
        }
        Ok(None)
    });
}

/// Scheduler, sweeper and upkeep, which go on beside the worker until nothing new is taken.
fn keepers(parts: &Parts, presence: &Presence, shutdown: &Shutdown) -> JoinSet<Result<Option<Worked>, StoreError>> {
    let mut tasks = JoinSet::new();
    let sweeper = Sweeper::new(
        parts.store.clone(),
        presence.place.clone(),
        parts.clock.clone(),
        sweep::Settings {
            interval: parts.settings.sweep_interval,
            margin: parts.settings.lease_margin,
            poison_limit: parts.settings.poison_limit,
            retention: Some(parts.settings.retention),
        },
        Some(presence.id),
    );
    let until = shutdown.clone();
    tasks.spawn(async move {
        sweeper.run(until).await;
        Ok(None)
    });
    let (upkeep, until) = (Upkeep::new(parts.store.clone(), parts.clock.clone()), shutdown.clone());
    tasks.spawn(async move {
        upkeep.run(until).await;
        Ok(None)
    });
    // Who works on one batch alone has nothing to do with schedules.
    if parts.settings.batch.is_none() {
        let (scheduler, until) = (Scheduler::new(parts.store.clone(), parts.clock.clone()), shutdown.clone());
        tasks.spawn(async move {
            scheduler.run(until).await;
            Ok(None)
        });
    }
    tasks
}

/// Tells systemd, when it listens.
fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// Known to the database, and everything swept that is provably dead, before the first claim.
async fn start(parts: &Parts, concurrency: usize) -> Result<Presence, Error> {
    let presence = Presence::start(&parts.store, &parts.state_dir, &parts.settings, concurrency, &parts.clock).await?;
    sweep_by_proof(parts).await?;
    Ok(presence)
}

/// Takes back what provably dead workers of this machine held.
///
/// # Errors
/// The database cannot be used.
pub async fn sweep_by_proof(parts: &Parts) -> Result<(), Error> {
    let swept = sweep::once(&parts.store, &parts.state_dir, &parts.clock, parts.settings.poison_limit, false).await?;
    if swept.did_anything() {
        tracing::info!(
            jobs_requeued = swept.jobs_requeued,
            jobs_failed = swept.jobs_failed,
            temp_files_removed = swept.temp_files_removed,
            workers_removed = swept.workers_removed,
            duration_ms = swept.duration_ms,
            "swept"
        );
    }
    Ok(())
}

async fn leave(presence: Arc<Presence>, store: &Store) {
    match Arc::try_unwrap(presence) {
        Ok(presence) => presence.end(store).await,
        Err(presence) => tracing::error!(worker = %presence.id, "an attempt outlived its worker"),
    }
}

/// What a one-shot command sees of its job.
#[derive(Debug, Clone)]
pub enum Seen {
    /// This process works on it; its progress can be read here.
    Started(Arc<Attempt>),
    /// Another worker has it.
    Elsewhere(Job),
    /// It waits: for a retry (the failure is in the row), for its time, or for another job that writes the same target.
    Waiting(Job),
    /// Its queue is paused.
    Paused(Job),
}

/// How a one-shot command ended.
#[derive(Debug, Clone)]
pub enum Followed {
    /// Completed, failed or cancelled.
    Finished(Box<Job>),
    /// A signal ended the command; the job was given back and stays queued.
    Interrupted(Signal),
    /// A second signal came: the job was let go as it was; the next sweep reclaims it.
    Aborted(Signal),
}

/// The longest wait between two looks at a job that somebody else has.
const LOOK: Duration = Duration::from_secs(1);
/// How long a database that fails is tried again before a one-shot command gives up. Longer than a foreign lock is waited for.
const DATABASE_PATIENCE: Duration = Duration::from_secs(120);

/// Claims the job by its id, works on it, and follows it through its retries until it is finished, whoever does it. Tells
/// `seen` of every change.
///
/// # Errors
/// The database or the state folder cannot be used, or there is no such job.
pub async fn follow(parts: Parts, id: JobId, seen: &mut (dyn FnMut(Seen) + Send)) -> Result<Followed, Error> {
    let mut signals = Signals::catch().map_err(Error::Signals)?;
    let presence = start(&parts, 0).await?;
    let follower = Follower { parts: &parts, presence: &presence, id };
    let followed = follower.run(seen, &mut signals).await;
    if !matches!(followed, Ok(Followed::Aborted(_))) {
        presence.end(&parts.store).await;
    }
    followed
}

struct Follower<'a> {
    parts: &'a Parts,
    presence: &'a Presence,
    id: JobId,
}

impl Follower<'_> {
    async fn run(&self, seen: &mut (dyn FnMut(Seen) + Send), signals: &mut Signals) -> Result<Followed, Error> {
        let parts = self.parts;
        let mut said = None;
        let mut swept = parts.clock.boot();
        let mut well = parts.clock.boot();
        loop {
            let looked = self.look(&mut swept).await;
            let now = parts.clock.boot();
            let (job, claim) = match looked {
                Ok(looked) => {
                    well = now;
                    looked
                }
                Err(Error::Store(error)) if error.is_transient() && now.since(well) < DATABASE_PATIENCE => {
                    tracing::warn!(%error, "the database cannot be used just now, trying again");
                    tokio::select! {
                        () = tokio::time::sleep(LOOK) => continue,
                        signal = signals.next() => return Ok(Followed::Interrupted(signal)),
                    }
                }
                Err(error) => return Err(error),
            };
            if let Some((claim, sent)) = claim {
                said = None;
                if let Some(ended) = self.attempt(claim, sent, seen, signals).await? {
                    return Ok(ended);
                }
                continue;
            }
            if job.state.is_finished() {
                return Ok(Followed::Finished(Box::new(job)));
            }
            let wait = match job.state {
                State::Scheduled => job.run_at.since(parts.clock.now()).clamp(Duration::from_millis(1), LOOK),
                _ => LOOK,
            };
            let now_said = (job.state, job.attempt, job.lease_epoch);
            if said != Some(now_said) {
                said = Some(now_said);
                seen(self.what(job).await);
            }
            tokio::select! {
                changed = parts.store.changed(wait) => if let Err(error) = changed {
                    tracing::debug!(%error, "watching the database failed");
                    tokio::time::sleep(LOOK).await;
                },
                signal = signals.next() => return Ok(Followed::Interrupted(signal)),
            }
        }
    }

    /// The job as it is; claimed, with the time of the claim, when that is possible.
    async fn look(&self, swept: &mut BootTime) -> Result<(Job, Option<(Claim, BootTime)>), Error> {
        let parts = self.parts;
        let job = parts.store.job(self.id).await?.ok_or(Error::NoJob(self.id))?;
        if parts.clock.boot().since(*swept) >= parts.settings.sweep_interval {
            sweep_by_proof(parts).await?;
            *swept = parts.clock.boot();
        }
        match job.state {
            State::Running if job.worker == Some(self.presence.id.to_string()) => self.take_back().await?,
            State::Scheduled if job.run_at <= parts.clock.now() => {
                parts.store.due().await?;
            }
            State::Pending => {
                parts.store.intake().await?;
                let sent = parts.clock.boot();
                let claims = parts
                    .store
                    .claim(ClaimRequest {
                        worker: self.presence.id,
                        room: 1,
                        queue: None,
                        only: Some(job.id),
                        lease_ttl: self.presence.lease_ttl(),
                        registry_limits: parts.settings.registry_limits.clone(),
                    })
                    .await?;
                return Ok((job, claims.into_iter().next().map(|claim| (claim, sent))));
            }
            _ => {}
        }
        Ok((job, None))
    }

    /// A lease of ours without an attempt of ours: its end could not be written.
    async fn take_back(&self) -> Result<(), Error> {
        for lease in self.parts.store.leases().await?.into_iter().filter(|lease| lease.job == self.id) {
            let message = "its worker could not write the end of its attempt".to_owned();
            self.parts.store.reclaim(lease, self.parts.settings.poison_limit, message).await?;
        }
        Ok(())
    }

    async fn what(&self, job: Job) -> Seen {
        match job.state {
            // This only chooses a message; an error shows itself in the next look.
            State::Running => Seen::Elsewhere(job),
            State::Pending if self.parts.store.queue_paused(&job.queue).await.unwrap_or(false) => Seen::Paused(job),
            _ => Seen::Waiting(job),
        }
    }

    /// One attempt. Some when a signal ended the command.
    async fn attempt(
        &self,
        claim: Claim,
        sent: BootTime,
        seen: &mut (dyn FnMut(Seen) + Send),
        signals: &mut Signals,
    ) -> Result<Option<Followed>, Error> {
        let attempt = Arc::new(Attempt::default());
        seen(Seen::Started(attempt.clone()));
        let controls = Controls::default();
        let mut running = std::pin::pin!(attempt::run(
            self.parts,
            self.presence,
            claim,
            sent,
            attempt,
            controls.clone(),
            Place::only()
        ));
        let mut signal = None;
        loop {
            tokio::select! {
                _ = &mut running => break,
                () = self.cancel_asked(), if !controls.cancel.is_cancelled() => controls.cancel.cancel(),
                received = signals.next() => {
                    if signal.replace(received).is_some() {
                        return Ok(Some(Followed::Aborted(received)));
                    }
                    controls.release.cancel();
                }
            }
        }
        let Some(signal) = signal else { return Ok(None) };
        // The job may have been finished before it could be given back.
        Ok(Some(match self.parts.store.job(self.id).await? {
            Some(job) if job.state.is_finished() => Followed::Finished(Box::new(job)),
            _ => Followed::Interrupted(signal),
        }))
    }

    /// Returns when somebody wants the running job cancelled. An error of the database is not the copy's end: its lease is.
    async fn cancel_asked(&self) {
        loop {
            let asked = async {
                self.parts.store.changed(LOOK).await?;
                self.parts.store.cancel_asked(self.presence.id).await
            };
            match asked.await {
                Ok(fences) if fences.iter().any(|fence| fence.job == self.id) => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "looking for a cancel failed");
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }
}
