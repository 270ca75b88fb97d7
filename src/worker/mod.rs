//! Workers: claim while there is room, run attempts, drain.
//!
//! A worker is one process incarnation. Its loop waits for a commit of anybody or for the end of one of its attempts, looks
//! once at what there is to do, and does it: due, intake, claim. While it waits it leaves a claim behind for jobs that this
//! process enqueues. It never waits for an attempt before it looks again, and it never drops a claim: the claim future runs to
//! its end, and each claim is settled by its attempt.

pub mod attempt;
pub mod descriptors;
mod expand;
pub mod lease;
mod ledger;
pub mod places;
pub mod presence;
mod seal;
mod settings;
pub mod watch;

use crate::clock::{BootTime, Clock};
use crate::job::State;
use crate::job::batch::BatchId;
use crate::replicate::{Attempt, Engine};
use crate::shutdown::Shutdown;
use crate::store::{Claim, ClaimRequest, Error, Fence, Intake, Standing, Store};
use attempt::{Controls, Finish};
use places::{Place, Places};
use presence::Presence;
pub use settings::{Retention, Settings};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use watch::Watch;

/// What workers need. Cheap to clone.
#[derive(Clone)]
pub struct Parts {
    /// The database.
    pub store: Store,
    /// The replication engine.
    pub engine: Engine,
    /// How to work.
    pub settings: Settings,
    /// Temporary files, worker locks.
    pub state_dir: PathBuf,
    /// Time.
    pub clock: Clock,
    /// What the attempts do, for those who watch.
    pub watch: Watch,
}

/// What a worker did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Worked {
    /// Jobs completed.
    pub completed: u64,
    /// Jobs failed for good, rejected rows too.
    pub failed: u64,
    /// Jobs cancelled.
    pub cancelled: u64,
    /// Attempts given back at the stop.
    pub released: u64,
    /// Attempts that failed and will be repeated.
    pub retried: u64,
}

/// The longest wait between two looks, in case a wake-up is lost and the clock jumped.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// The shortest pause after a look that found nothing before commits are listened to again: bounds what a storm of commits
/// that are none of the worker's business costs, its own too. The end of an attempt does not wait for it.
const REST: Duration = Duration::from_millis(2);
/// As long as claims get all that they ask for, ends of attempts lead to the next claim at once; what else there is to do, a
/// cancel above all, is looked at this often.
const FULL_LOOK: Duration = Duration::from_millis(50);
/// Pause after the database failed.
const ERROR_PAUSE: Duration = Duration::from_secs(1);
/// The time between two signs of life in the worker's row.
pub const SEEN_INTERVAL: Duration = Duration::from_secs(10);

/// What is done with a claim.
pub trait Run: Clone + Send + 'static {
    /// Runs one attempt and settles it. `claimed` is when the claim was sent. The place is given back when the attempt ends.
    fn run(
        self,
        claim: Claim,
        claimed: BootTime,
        controls: Controls,
        place: Place,
    ) -> impl Future<Output = Finish> + Send + 'static;
}

/// Replicates: what a worker is there for.
#[derive(Clone)]
pub struct Copies {
    parts: Parts,
    presence: Arc<Presence>,
}

impl Run for Copies {
    async fn run(self, claim: Claim, claimed: BootTime, controls: Controls, place: Place) -> Finish {
        let attempt = Arc::new(Attempt::default());
        attempt::run(&self.parts, &self.presence, claim, claimed, attempt, controls, place).await
    }
}

/// A worker and what it runs.
pub struct Worker<R = Copies> {
    store: Store,
    settings: Settings,
    clock: Clock,
    presence: Arc<Presence>,
    run: R,
    running: JoinSet<(Fence, Finish)>,
    places: Arc<Places>,
    controls: HashMap<Fence, Controls>,
    worked: Worked,
    seen: BootTime,
    /// When all that there may be to do was looked at last.
    looked: BootTime,
    /// The last claim got all it asked for.
    full: bool,
    /// The claim that was left behind while nothing was to be done.
    standing: Option<Standing>,
    /// The last one that was left behind came to nothing.
    vain: bool,
}

/// What one look found and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tick {
    /// Jobs claimed.
    pub claimed: usize,
    /// More could be claimed at once.
    pub more: bool,
    /// How long nothing will be due.
    pub idle_for: Duration,
}

impl Worker<Copies> {
    /// A worker that is known to the database already, and replicates.
    #[must_use]
    pub fn new(parts: Parts, presence: Arc<Presence>) -> Self {
        let Parts { store, settings, clock, .. } = parts.clone();
        Self::with(store, settings, clock, presence.clone(), Copies { parts, presence })
    }
}

impl<R: Run> Worker<R> {
    /// A worker that is known to the database already, and does something else with what it claims.
    #[must_use]
    pub fn with(store: Store, settings: Settings, clock: Clock, presence: Arc<Presence>, run: R) -> Self {
        let seen = clock.boot();
        Self {
            store,
            settings,
            clock,
            presence,
            run,
            running: JoinSet::new(),
            places: Arc::default(),
            controls: HashMap::new(),
            worked: Worked::default(),
            seen,
            looked: seen,
            full: false,
            standing: None,
            vain: false,
        }
    }

    /// Works until drained: by the shutdown, or, with `until_done`, when nothing is left to do. When the shutdown says so,
    /// running attempts are released. Returns with no attempt running.
    ///
    /// # Errors
    /// [`Error::Outdated`]: a newer version has migrated the database; what ran was finished first. [`Error::Unusable`]: the
    /// database cannot be used any more; or, with `until_done`, what failed could not be counted.
    /// Anything else is waited out.
    pub async fn run(mut self, shutdown: &Shutdown, until_done: bool) -> Result<Worked, Error> {
        let mut failing = false;
        let mut since = None;
        while !shutdown.drain.is_cancelled() {
            let looked = self.next(&mut since).await;
            let wait = match looked {
                Ok(tick) => {
                    failing = false;
                    if tick.more {
                        continue;
                    }
                    if until_done && self.running.is_empty() && self.is_done().await {
                        break;
                    }
                    tick.idle_for
                }
                Err(error @ Error::Outdated(_)) => {
                    tracing::error!(%error, "finishing what runs, then ending");
                    self.drain(shutdown).await;
                    return Err(error);
                }
                Err(error) if self.store.is_closed() => {
                    shutdown.now();
                    self.drain(shutdown).await;
                    return Err(error);
                }
                Err(error) => {
                    if !failing {
                        tracing::error!(%error, "the database cannot be used just now, trying again");
                    }
                    failing = true;
                    self.full = false;
                    ERROR_PAUSE
                }
            };
            if !failing {
                self.stand();
            }
            let rest = self.rest();
            tokio::select! {
                () = shutdown.drain.cancelled() => {}
                () = filled(&mut self.standing) => {}
                () = self.places.freed(), if self.full => self.places.gather().await,
                Some(ended) = self.running.join_next() => self.ended(ended),
                () = wake(&self.store, rest, wait, failing) => {}
            }
            while let Some(ended) = self.running.try_join_next() {
                self.ended(ended);
            }
        }
        if let Err(error) = self.withdraw().await {
            tracing::debug!(%error, "the claim that was left behind failed");
        }
        self.drain(shutdown).await;
        // Jobs that failed elsewhere meanwhile count too: a sweep's, another worker's.
        if let Some(since) = since {
            match self.store.failed_since(since, self.settings.queue.as_deref()).await {
                Ok(failed) => self.worked.failed = self.worked.failed.max(failed),
                // Whoever waits for the end of the work must not be told that nothing failed when nobody knows.
                Err(error) if until_done => return Err(error),
                Err(error) => tracing::warn!(%error, "failures of other workers could not be counted"),
            }
        }
        Ok(self.worked)
    }

    /// What was claimed meanwhile, and what else there is to do.
    async fn next(&mut self, since: &mut Option<i64>) -> Result<Tick, Error> {
        self.withdraw().await?;
        if self.may_skip_looking() { self.claim_again().await } else { self.look(since).await }
    }

    /// The last claim got all it asked for, so there is more, and the last full look is not long ago.
    fn may_skip_looking(&self) -> bool {
        self.full && self.clock.boot().since(self.looked) < FULL_LOOK
    }

    /// How long commits of others are no reason to look.
    fn rest(&self) -> Duration {
        if self.full { FULL_LOOK.saturating_sub(self.clock.boot().since(self.looked)).max(REST) } else { REST }
    }

    fn room(&self) -> usize {
        self.settings.concurrency.saturating_sub(self.places.taken())
    }

    /// Fills what has become free, without a look at anything else.
    async fn claim_again(&mut self) -> Result<Tick, Error> {
        let room = self.room();
        let claimed = if room > 0 { self.claim(room, false).await? } else { 0 };
        Ok(Tick { claimed, more: !self.full, idle_for: LONGEST_WAIT })
    }

    /// A tick, but none before it is known where the history stood at the start.
    async fn look(&mut self, since: &mut Option<i64>) -> Result<Tick, Error> {
        if since.is_none() {
            *since = Some(self.store.last_event().await?);
        }
        self.tick().await
    }

    /// One look at what there is to do: due, intake, cancels, claim. Bounded.
    ///
    /// # Errors
    /// [`Error::Backend`]; what runs goes on.
    pub async fn tick(&mut self) -> Result<Tick, Error> {
        while let Some(ended) = self.running.try_join_next() {
            self.ended(ended);
        }
        self.looked = self.clock.boot();
        // Without room nothing is claimed, and nothing is learned of what waits.
        let room = self.room();
        self.full &= room == 0;
        let store = &self.store;
        if self.clock.boot().since(self.seen) >= SEEN_INTERVAL {
            self.presence.seen(store, &self.clock).await?;
            self.seen = self.clock.boot();
        }
        if !self.running.is_empty() {
            for fence in store.cancel_asked(self.presence.id).await? {
                if let Some(controls) = self.controls.get(&fence) {
                    controls.cancel.cancel();
                }
            }
        }
        if room > 0 && store.was_asked() {
            let claimed = self.claim(room, false).await?;
            if claimed > 0 {
                return Ok(Tick { claimed, more: true, idle_for: Duration::ZERO });
            }
        }
        let store = &self.store;
        let mut waiting = store.waiting().await?;
        if waiting.due {
            store.due().await?;
            waiting.intake = true;
            waiting.pending = true;
        }
        let claimed = match (waiting.intake, (waiting.pending || waiting.intake) && room > 0) {
            (_, true) => self.claim(room, waiting.intake).await?,
            (true, false) => {
                let intake = store.intake().await?;
                self.rejected(&intake);
                0
            }
            (false, false) => 0,
        };
        let idle_for = match waiting.next_run_at {
            Some(next) => next.since(self.clock.now()).clamp(Duration::from_millis(1), LONGEST_WAIT),
            None => LONGEST_WAIT,
        };
        Ok(Tick { claimed, more: claimed > 0 && claimed < room || waiting.due, idle_for })
    }

    /// Counts and tells rows that intake did not take.
    fn rejected(&mut self, intake: &Intake) {
        for (job, reason) in &intake.rejected {
            tracing::warn!(job, %reason, "a row was rejected");
        }
        self.worked.failed += u64::try_from(intake.rejected.len()).unwrap_or(u64::MAX);
    }

    fn request(&self, room: usize) -> ClaimRequest {
        ClaimRequest {
            worker: self.presence.id,
            room,
            queue: self.settings.queue.clone(),
            only: None,
            lease_ttl: self.presence.lease_ttl(),
            registry_limits: self.settings.registry_limits.clone(),
        }
    }

    /// Leaves a claim behind. Not after one that came to nothing, before the next look: enqueues of what may not run, however
    /// many, must not pay for a claim each.
    fn stand(&mut self) {
        let room = self.room();
        if room > 0 && self.settings.batch.is_none() && !std::mem::take(&mut self.vain) {
            self.standing = Some(self.store.stand(self.request(room)));
        }
    }

    /// Takes back the claim that was left behind, or starts what it has claimed.
    async fn withdraw(&mut self) -> Result<(), Error> {
        let Some(standing) = self.standing.take() else { return Ok(()) };
        if let Some(stood) = standing.withdraw().await? {
            self.vain = stood.claims.is_empty();
            self.start(stood.claims, stood.sent);
        }
        Ok(())
    }

    /// Claims and starts attempts, after an intake when rows wait for one. Returns how many.
    async fn claim(&mut self, room: usize, intake: bool) -> Result<usize, Error> {
        let sent = self.clock.boot();
        if let Some(batch) = self.settings.batch {
            return self.claim_of(batch, room, sent).await;
        }
        let request = self.request(room);
        let claims = if intake {
            let (intake, claims) = self.store.intake_and_claim(request).await?;
            self.rejected(&intake);
            claims
        } else {
            self.store.claim(request).await?
        };
        let claimed = claims.len();
        self.full = claimed > 0 && claimed == room;
        self.start(claims, sent);
        Ok(claimed)
    }

    /// The same, of a batch alone: by the ids of its jobs.
    async fn claim_of(&mut self, batch: BatchId, room: usize, sent: BootTime) -> Result<usize, Error> {
        let jobs = self.store.batch_waiting(batch, u32::try_from(room).unwrap_or(u32::MAX)).await?;
        let asks = jobs.into_iter().map(|job| {
            let request = ClaimRequest { only: Some(job), room: 1, queue: None, ..self.request(1) };
            self.store.claim(request)
        });
        let mut claims = Vec::new();
        let mut failed = None;
        for answer in futures_util::future::join_all(asks).await {
            match answer {
                Ok(claimed) => claims.extend(claimed),
                Err(error) => failed = Some(error),
            }
        }
        let claimed = claims.len();
        self.full = claimed > 0 && claimed == room;
        // What was claimed must be worked on, whatever became of the others.
        self.start(claims, sent);
        failed.map_or(Ok(claimed), Err)
    }

    fn start(&mut self, claims: Vec<Claim>, sent: BootTime) {
        for claim in claims {
            let fence = claim.fence();
            let controls = Controls::default();
            self.controls.insert(fence, controls.clone());
            let attempt = self.run.clone().run(claim, sent, controls, self.places.take());
            self.running.spawn(async move { (fence, attempt.await) });
        }
    }

    async fn is_done(&self) -> bool {
        let busy = match self.settings.batch {
            Some(batch) => self.store.batch_busy(batch).await,
            None => self.store.busy(self.settings.queue.as_deref()).await,
        };
        match busy {
            Ok(busy) => !busy,
            Err(error) => {
                tracing::error!(%error, "the database cannot be used just now, trying again");
                false
            }
        }
    }

    /// Waits for what runs; when the shutdown says so, has it released.
    async fn drain(&mut self, shutdown: &Shutdown) {
        if !self.running.is_empty() {
            tracing::info!(running = self.running.len(), "waiting for running copies");
        }
        let mut released = false;
        while !self.running.is_empty() {
            tokio::select! {
                Some(ended) = self.running.join_next() => self.ended(ended),
                () = shutdown.release.cancelled(), if !released => {
                    released = true;
                    for controls in self.controls.values() {
                        controls.release.cancel();
                    }
                }
            }
        }
    }

    fn ended(&mut self, ended: Result<(Fence, Finish), tokio::task::JoinError>) {
        match ended {
            Ok((fence, finish)) => {
                self.controls.remove(&fence);
                match finish {
                    Finish::Settled(State::Completed) => self.worked.completed += 1,
                    Finish::Settled(State::Failed) => self.worked.failed += 1,
                    Finish::Settled(State::Cancelled) => self.worked.cancelled += 1,
                    Finish::Settled(State::Pending) => self.worked.released += 1,
                    Finish::Settled(_) => self.worked.retried += 1,
                    Finish::LeaseLost | Finish::Unsettled => {}
                }
            }
            // The attempt's own panics are caught inside; this one was in the settling itself. The sweeper reclaims the job.
            Err(error) => tracing::error!(%error, "an attempt ended badly"),
        }
    }
}

/// Returns when the claim that was left behind was done; never without one.
async fn filled(standing: &mut Option<Standing>) {
    match standing {
        Some(standing) => standing.filled().await,
        None => std::future::pending().await,
    }
}

/// Returns when something may have changed, but not before `rest` is over, or after `wait`. While the database fails only the
/// wait counts.
async fn wake(store: &Store, rest: Duration, wait: Duration, failing: bool) {
    if failing {
        tokio::time::sleep(wait).await;
        return;
    }
    tokio::time::sleep(rest.min(wait)).await;
    if let Err(error) = store.changed(wait.saturating_sub(rest)).await {
        tracing::debug!(%error, "watching the database failed");
        tokio::time::sleep(wait).await;
    }
}
