//! One attempt of one job, from claim to settle, top to bottom.

use super::expand;
use super::lease::{Ended, Lease, work};
use super::ledger::AttemptLedger;
use super::{Parts, places::Place, presence::Presence};
use crate::clock::{BootTime, UnixMillis};
use crate::job::retry::{Decision, decide};
use crate::job::{Class, Failure, Job, JobId, Kind, Parsed, Report, Stage, State, parse_row};
use crate::replicate::{self, Attempt, Ledger, Published, Staged};
use crate::store::{
    Claim, Confirmed, DestinationMoved, Fence, LatePublication, Outcome, Remark, Settled, Store, Unsettled,
};
use crate::tempfiles::{BoxFuture, Register, TempFiles};
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

/// The first pause before the end of an attempt is written again; it doubles up to the last.
const SETTLE_FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const SETTLE_LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long a worker that stops waits for a database that does not take the end of an attempt.
const SETTLE_PATIENCE: Duration = Duration::from_secs(5);

/// How long the destination is asked after a late publication.
const LATE_LOOK: Duration = Duration::from_secs(10);

/// How others end an attempt early.
#[derive(Debug, Clone, Default)]
pub struct Controls {
    /// Somebody wants the job cancelled.
    pub cancel: CancellationToken,
    /// The worker stops: give the job back.
    pub release: CancellationToken,
}

/// How an attempt ended, for those who count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// The job is in this state now.
    Settled(State),
    /// The job is somebody else's.
    LeaseLost,
    /// The end could not be written before the worker had to stop; the sweeper will reclaim the job.
    Unsettled,
}

/// What the work came to.
pub(super) enum Verdict {
    Done(Report),
    Failed(replicate::Error),
    Superseded { by: JobId },
    Panicked(String),
    Released,
    Cancelled,
    Lost,
    Untrusted,
}

/// Runs one attempt. Whatever happens inside, panics too, the claim is settled here and nowhere else.
pub async fn run(
    parts: &Parts,
    presence: &Presence,
    claim: Claim,
    claimed: BootTime,
    attempt: Arc<Attempt>,
    controls: Controls,
    mut place: Place,
) -> Finish {
    let watched = parts.watch.begin(&claim.job, &attempt);
    let span = tracing::info_span!("attempt", job = claim.job.id, attempt = claim.job.attempt, worker = %presence.id);
    async {
        let fence = claim.fence();
        let register = Arc::new(Registrar { store: parts.store.clone(), worker: presence.id, fence });
        let temp = TempFiles::new(presence.temp_folder(), presence.id, register);
        let ledger = AttemptLedger { store: parts.store.clone(), fence, seal: presence.seal.clone() };
        let ledger: Arc<dyn Ledger> = Arc::new(ledger);
        let lease = Lease::new(&parts.store, &parts.clock, &parts.settings, &attempt, fence, claimed);
        tracing::info!(source = %claim.job.source, destination = %claim.job.destination, "claimed");
        let verdict = {
            let work = AssertUnwindSafe(spine(parts, &claim, &lease, &temp, &ledger, &attempt)).catch_unwind();
            tokio::select! {
                verdict = work => verdict.unwrap_or_else(|panic| Verdict::Panicked(panic_text(panic.as_ref()))),
                ended = lease.keep(&controls.cancel) => match ended {
                    Ended::Lost => Verdict::Lost,
                    Ended::Untrusted => Verdict::Untrusted,
                    Ended::CancelRequested => Verdict::Cancelled,
                },
                () = controls.release.cancelled() => Verdict::Released,
            }
            // The work is dropped here, and its open files with it.
        };
        if let Err(error) = temp.close().await {
            tracing::warn!(%error, "temporary files are left; a sweep removes them");
        }
        let late = Late { parts, presence, wanted: wanted(&claim.job, &claim.dest_key).ok(), fence };
        let finish = settle(parts, claim, verdict, &attempt, &controls.release, &mut place).await;
        parts.watch.end(watched, &finish);
        if finish == Finish::LeaseLost
            && let Some(digest) = attempt.publishing.get()
        {
            late.record(digest).await;
        }
        finish
    }
    .instrument(span)
    .await
}

/// What kind of job it is decides what is done.
async fn spine(
    parts: &Parts,
    claim: &Claim,
    lease: &Lease<'_>,
    temp: &TempFiles,
    ledger: &Arc<dyn Ledger>,
    attempt: &Arc<Attempt>,
) -> Verdict {
    match claim.job.kind {
        Kind::Copy => replicate(parts, claim, lease, temp, ledger, attempt).await,
        Kind::Expand => expand::run(parts, claim).await,
    }
}

/// resolve, survey, plan, transfer, confirm, publish.
async fn replicate(
    parts: &Parts,
    claim: &Claim,
    lease: &Lease<'_>,
    temp: &TempFiles,
    ledger: &Arc<dyn Ledger>,
    attempt: &Arc<Attempt>,
) -> Verdict {
    let wanted = match wanted(&claim.job, &claim.dest_key) {
        Ok(wanted) => wanted,
        Err(message) => {
            return Verdict::Failed(replicate::Error::new(Stage::Intake, Class::Refused, message));
        }
    };
    loop {
        let staged = match parts.engine.stage(&wanted, temp, ledger, attempt).await {
            Ok(staged) => staged,
            Err(error) => return Verdict::Failed(error),
        };
        if staged.writes() {
            remark_moved(parts, claim, attempt).await;
        }
        let trusted = !attempt.distrust.load(Ordering::Relaxed);
        match publish(parts, claim, lease, staged, attempt).await {
            Ok(verdict) => return verdict,
            // What was remembered of the destination was wrong: once more, without it.
            Err(_) if trusted && attempt.distrust.load(Ordering::Relaxed) => attempt.progress.restart(),
            Err(error) => return Verdict::Failed(error),
        }
    }
}

/// Confirms the lease and publishes; both again where something had to be brought in between.
async fn publish(
    parts: &Parts,
    claim: &Claim,
    lease: &Lease<'_>,
    mut staged: Staged,
    attempt: &Arc<Attempt>,
) -> Result<Verdict, replicate::Error> {
    loop {
        if staged.writes() {
            match lease.confirm(claim).await {
                Ok(Confirmed::Yes) => {}
                Ok(Confirmed::CancelRequested) => return Ok(Verdict::Cancelled),
                Ok(Confirmed::Lost) => return Ok(Verdict::Lost),
                Ok(Confirmed::Superseded { by }) => return Ok(Verdict::Superseded { by }),
                Err(error) => {
                    let message = format!("confirming the lease: {error}");
                    return Err(replicate::Error::new(Stage::Confirm, Class::RETRY, message));
                }
            }
        }
        match parts.engine.publish(staged, attempt).await? {
            Published::Done(report) => return Ok(Verdict::Done(report)),
            Published::Again(again) => staged = *again,
        }
    }
}

/// What the row asks for. Its canonical target must be the one that the claim guards.
fn wanted(job: &Job, dest_key: &str) -> Result<Parsed, String> {
    let wanted = parse_row(&job.source, &job.destination, &job.options).map_err(|error| error.to_string())?;
    if wanted.dest_key() != dest_key {
        return Err(format!(
            "the row's dest_key `{dest_key}` is not its destination `{}`: leave that column out",
            wanted.dest_key()
        ));
    }
    Ok(wanted)
}

/// When the destination does not name what the newest completed job left there, the history says so: a person moved the tag,
/// or a worker that was stopped for longer than its lease published late. The copy goes on either way.
async fn remark_moved(parts: &Parts, claim: &Claim, attempt: &Attempt) {
    let Some(found) = attempt.found.get() else { return };
    let noted = async {
        let Some(published) = parts.store.published(&claim.dest_key).await? else { return Ok(()) };
        let algorithm = |digest: &str| digest.split(':').next().map(str::to_owned);
        if published.digest == *found || algorithm(&published.digest) != algorithm(found) {
            return Ok(());
        }
        tracing::warn!(expected = %published.digest, %found, written_by = published.job, "the destination was moved meanwhile");
        let worker = claim.job.worker.clone().unwrap_or_default();
        let moved =
            DestinationMoved { expected: published.digest, written_by: published.job, found: found.clone(), worker };
        parts.store.remark(claim.job.id, Remark::DestinationMoved(moved)).await
    };
    if let Err(error) = noted.await {
        tracing::warn!(%error, "that the destination was moved could not be written into the history");
    }
}

/// What is known of an attempt whose lease is lost, and whose tag may have been written all the same.
struct Late<'a> {
    parts: &'a Parts,
    presence: &'a Presence,
    wanted: Option<Parsed>,
    fence: Fence,
}

impl Late<'_> {
    /// Looks at the tag once, and writes both digests into the history of the job.
    async fn record(&self, digest: &str) {
        let found = match &self.wanted {
            Some(wanted) => match tokio::time::timeout(LATE_LOOK, self.parts.engine.published(wanted)).await {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => {
                    tracing::warn!(error = %error.message, "the destination could not be looked at");
                    None
                }
                Err(_) => None,
            },
            None => None,
        };
        tracing::warn!(
            %digest,
            found = found.as_deref().unwrap_or("unknown"),
            "the tag may have been written after the lease was lost"
        );
        let late = LatePublication {
            digest: digest.to_owned(),
            found,
            worker: self.presence.id.to_string(),
            lease_epoch: self.fence.epoch,
        };
        if let Err(error) = self.parts.store.remark(self.fence.job, Remark::PublishedLate(late)).await {
            tracing::error!(%error, "a late publication could not be written into the history");
        }
    }
}

/// Writes the end of the attempt, again and again while the database cannot take it.
async fn settle(
    parts: &Parts,
    mut claim: Claim,
    verdict: Verdict,
    attempt: &Attempt,
    release: &CancellationToken,
    place: &mut Place,
) -> Finish {
    let now = parts.clock.now();
    let Some(outcome) = outcome(parts, &claim.job, verdict, now) else {
        tracing::warn!("the lease is lost: what this attempt did is dropped");
        return Finish::LeaseLost;
    };
    let transfers = attempt.transfers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let mut pause = SETTLE_FIRST_PAUSE;
    let mut released_at = None;
    let mut told = false;
    loop {
        let end = parts.store.settle(claim, &outcome, work(attempt), &transfers);
        match place.free_with(parts.store.is_in_order(), end).await {
            Ok(Settled::Now(state)) => {
                log_end(state, &outcome, attempt);
                return Finish::Settled(state);
            }
            Ok(Settled::LeaseLost) => {
                tracing::warn!("the lease is lost: what this attempt did is dropped");
                return Finish::LeaseLost;
            }
            Err(Unsettled { claim: again, error })
                if error.is_transient() && !is_late(parts, release, &mut released_at) =>
            {
                // The trouble may last for hours; the end of it shows by the attempt's.
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%error, "the end of the attempt could not be written, trying again");
                }
                claim = again;
                place.take();
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(if release.is_cancelled() { SETTLE_FIRST_PAUSE } else { SETTLE_LONGEST_PAUSE });
            }
            Err(Unsettled { error, .. }) => {
                tracing::error!(%error, "the end of the attempt could not be written; a sweep reclaims the job");
                return Finish::Unsettled;
            }
        }
    }
}

/// The worker stops, and has waited long enough for the database.
fn is_late(parts: &Parts, release: &CancellationToken, released_at: &mut Option<BootTime>) -> bool {
    if !release.is_cancelled() {
        return false;
    }
    let now = parts.clock.boot();
    now.since(*released_at.get_or_insert(now)) >= SETTLE_PATIENCE
}

/// What to write; None when the lease is lost.
fn outcome(parts: &Parts, job: &Job, verdict: Verdict, now: UnixMillis) -> Option<Outcome> {
    let failed = |stage: Stage, class: Class, message: String| {
        let retry_in = match decide(parts.settings.retry, class, job.id, job.attempt, job.max_attempts) {
            Decision::Retry { pause } => Some(pause),
            Decision::GiveUp => None,
        };
        Outcome::Failed { failure: Failure::new(stage, class, message, now), retry_in }
    };
    Some(match verdict {
        Verdict::Done(report) => Outcome::Completed(report),
        Verdict::Failed(error) => failed(error.stage, error.class, error.message),
        Verdict::Panicked(text) => {
            let message = format!("the program panicked: {text}; please report this");
            match failed(Stage::Work, Class::RETRY, message) {
                Outcome::Failed { failure, retry_in } => {
                    Outcome::Failed { failure: Failure { class: "panic".to_owned(), ..failure }, retry_in }
                }
                other => other,
            }
        }
        Verdict::Superseded { by } => Outcome::Failed {
            failure: Failure {
                stage: Stage::Confirm.as_str().to_owned(),
                class: "superseded".to_owned(),
                message: format!(
                    "job {by}, asked for later, has written this destination already; retry this one to write it all the same"
                ),
                at: now,
            },
            retry_in: None,
        },
        Verdict::Released => Outcome::Released { reason: "shutdown" },
        // The write is fenced: when somebody has the job by now it changes nothing.
        Verdict::Untrusted => Outcome::Released { reason: "lease not renewed in time" },
        Verdict::Cancelled => Outcome::Cancelled,
        Verdict::Lost => return None,
    })
}

fn log_end(state: State, outcome: &Outcome, attempt: &Attempt) {
    match outcome {
        Outcome::Completed(report) => tracing::info!(
            digest = %report.digest,
            already_present = report.already_present,
            bytes_copied = report.bytes_copied,
            requests = report.requests,
            "completed"
        ),
        Outcome::Failed { failure, retry_in } => tracing::warn!(
            %state,
            stage = %failure.stage,
            class = %failure.class,
            error = %failure.message,
            retry_in_ms = retry_in.map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)),
            bytes_moved = attempt.progress.bytes_moved(),
            "the attempt failed"
        ),
        Outcome::Cancelled | Outcome::Released { .. } => tracing::info!(%state, "the attempt was ended early"),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

/// Registers the temporary files of an attempt in the database.
struct Registrar {
    store: Store,
    worker: Uuid,
    fence: Fence,
}

impl Register for Registrar {
    fn register<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let path = path.to_str().ok_or("the path is not UTF-8")?.to_owned();
            self.store.temp_register(path, self.worker, self.fence).await.map_err(|error| error.to_string())
        })
    }

    fn forget(&self, paths: Vec<PathBuf>) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let paths = paths.iter().filter_map(|path| path.to_str().map(str::to_owned)).collect();
            self.store.temp_forget(paths).await.map_err(|error| error.to_string())
        })
    }
}
