//! Composes worker and sweeper under one supervisor, and follows one job for one-shot commands.
//!
//! All tasks of the program are started here or in the worker, in sets that are awaited. The order at the start is fixed:
//! known to the database, swept by proof, then the first claim.

use crate::job::{Job, JobId, State};
use crate::replicate::Attempt;
use crate::shutdown::{Shutdown, Signal, Signals};
use crate::store::{Claim, ClaimRequest, Error as StoreError, Store};
use crate::sweep::{self, Sweeper};
use crate::worker::attempt::{self, Controls};
use crate::worker::presence::Presence;
use crate::worker::{Parts, Worked, Worker};
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
    let mut signals = Signals::catch().map_err(Error::Signals)?;
    let shutdown = Shutdown::default();
    let presence = Arc::new(start(&parts).await?);
    let mut tasks: JoinSet<Result<Option<Worked>, StoreError>> = JoinSet::new();
    let sweeper = Sweeper::new(
        parts.store.clone(),
        presence.place.clone(),
        parts.clock.clone(),
        sweep::Settings {
            interval: parts.settings.sweep_interval,
            margin: parts.settings.lease_margin,
            poison_limit: parts.settings.poison_limit,
        },
        Some(presence.id),
    );
    let until = shutdown.clone();
    tasks.spawn(async move {
        sweeper.run(until).await;
        Ok(None)
    });
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
                // The sweeper ends as soon as nothing new is taken; running copies still have their grace.
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

/// Tells systemd, when it listens.
fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// Known to the database, and everything swept that is provably dead, before the first claim.
async fn start(parts: &Parts) -> Result<Presence, Error> {
    let presence = Presence::start(&parts.store, &parts.state_dir, parts.settings.lease_ttl, &parts.clock).await?;
    sweep_by_proof(parts).await?;
    Ok(presence)
}

async fn sweep_by_proof(parts: &Parts) -> Result<(), Error> {
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
}

/// The longest wait between two looks at a job that somebody else has.
const LOOK: Duration = Duration::from_secs(1);

/// Claims the job by its id, works on it, and follows it through its retries until it is finished, whoever does it. Tells
/// `seen` of every change.
///
/// # Errors
/// The database or the state folder cannot be used, or there is no such job.
pub async fn follow(parts: Parts, id: JobId, seen: &mut (dyn FnMut(Seen) + Send)) -> Result<Followed, Error> {
    let mut signals = Signals::catch().map_err(Error::Signals)?;
    let presence = start(&parts).await?;
    let followed = follow_as(&parts, &presence, id, seen, &mut signals).await;
    presence.end(&parts.store).await;
    followed
}

async fn follow_as(
    parts: &Parts,
    presence: &Presence,
    id: JobId,
    seen: &mut (dyn FnMut(Seen) + Send),
    signals: &mut Signals,
) -> Result<Followed, Error> {
    let mut said = None;
    let mut swept = parts.clock.boot();
    loop {
        let job = parts.store.job(id).await?.ok_or(Error::NoJob(id))?;
        if job.state.is_finished() {
            return Ok(Followed::Finished(Box::new(job)));
        }
        if parts.clock.boot().since(swept) >= parts.settings.sweep_interval {
            sweep_by_proof(parts).await?;
            swept = parts.clock.boot();
        }
        let sent = parts.clock.boot();
        if let Some(claim) = claim(parts, presence, &job).await? {
            let attempt = Arc::new(Attempt::default());
            seen(Seen::Started(attempt.clone()));
            said = None;
            let controls = Controls::default();
            let running = attempt::run(parts, presence, claim, sent, attempt, controls.clone());
            tokio::pin!(running);
            let mut signal = None;
            loop {
                tokio::select! {
                    _ = &mut running => break,
                    () = cancel_asked(parts, presence, id), if !controls.cancel.is_cancelled() => {
                        controls.cancel.cancel();
                    }
                    received = signals.next() => {
                        if signal.replace(received).is_some() {
                            return Ok(Followed::Interrupted(received));
                        }
                        controls.release.cancel();
                    }
                }
            }
            if let Some(signal) = signal {
                return interrupted(parts, id, signal).await;
            }
            continue;
        }
        let now_said = (job.state, job.attempt, job.lease_epoch);
        if said != Some(now_said) {
            said = Some(now_said);
            let paused = job.state == State::Pending && parts.store.queue_paused(&job.queue).await?;
            seen(match job.state {
                State::Running => Seen::Elsewhere(job.clone()),
                _ if paused => Seen::Paused(job.clone()),
                _ => Seen::Waiting(job.clone()),
            });
        }
        let until_due = job.run_at.since(parts.clock.now()).max(Duration::from_millis(1));
        let wait = if job.state == State::Scheduled { until_due.min(LOOK) } else { LOOK };
        tokio::select! {
            changed = parts.store.changed(wait) => changed?,
            signal = signals.next() => return Ok(Followed::Interrupted(signal)),
        }
    }
}

/// The job may have been finished, or taken by another, before it could be given back.
async fn interrupted(parts: &Parts, id: JobId, signal: Signal) -> Result<Followed, Error> {
    Ok(match parts.store.job(id).await? {
        Some(job) if job.state.is_finished() => Followed::Finished(Box::new(job)),
        _ => Followed::Interrupted(signal),
    })
}

/// Claims this one job, when it can be claimed now.
async fn claim(parts: &Parts, presence: &Presence, job: &Job) -> Result<Option<Claim>, Error> {
    let waiting = parts.store.waiting().await?;
    if waiting.due {
        parts.store.due().await?;
    }
    if waiting.intake {
        parts.store.intake().await?;
    }
    let due = job.state == State::Scheduled && job.run_at <= parts.clock.now();
    if job.state != State::Pending && !due {
        return Ok(None);
    }
    let claims = parts
        .store
        .claim(ClaimRequest {
            worker: presence.id,
            room: 1,
            queue: None,
            only: Some(job.id),
            lease_ttl: presence.lease_ttl(),
        })
        .await?;
    Ok(claims.into_iter().next())
}

/// Returns when somebody wants the running job cancelled. An error of the database is not the copy's end: its lease is.
async fn cancel_asked(parts: &Parts, presence: &Presence, id: JobId) {
    loop {
        let asked = async {
            parts.store.changed(LOOK).await?;
            parts.store.cancel_asked(presence.id).await
        };
        match asked.await {
            Ok(fences) if fences.iter().any(|fence| fence.job == id) => return,
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "looking for a cancel failed");
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}
