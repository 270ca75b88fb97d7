//! The sweeper: what dead workers left. Leases that nobody keeps, temporary files, lock files, rows.
//!
//! Two kinds of evidence. *Proof*: the worker's row says that it lives, or lived before a reboot, on this machine with this
//! state folder, and its lock can be taken: the kernel says that the process is gone. *Observation*: the lease has shown the
//! same epoch and beat for its time to live plus a margin, on this sweeper's own clock of boot time; wall clocks prove nothing.
//! Start-up and the `sweep` command act by proof alone; a sweeper that goes on uses both. Each reclaim is a compare-and-set,
//! so that any number of sweepers may run. It never follows a link and never removes what is not registered or in a folder
//! that bears a dead worker's id.

mod remove;
mod retain;
mod upkeep;

use crate::clock::{BootTime, Clock, UnixMillis};
use crate::job::{JobId, State};
use crate::shutdown::Shutdown;
use crate::store::{Error, Lease, Store, WorkerRow};
use crate::worker::Retention;
use crate::worker::presence::{Place, Proof, probe};
use remove::Removed;
use retain::Retain;
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;
use uuid::Uuid;

pub use upkeep::Upkeep;

/// How often the locks of workers are looked at between two sweeps: a killed worker's jobs go on within a second.
const GLANCE: Duration = Duration::from_millis(300);
/// How long a machine that is gone, with temporary files on it, is waited for before its worker is forgotten.
const FILES_PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);
/// What a sweep did (`sweep -o json`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Swept {
    /// Jobs of dead workers that are scheduled again.
    pub jobs_requeued: u64,
    /// Jobs of dead workers that were given up as poison, or cancelled because that was asked.
    pub jobs_failed: u64,
    /// Temporary files removed.
    pub temp_files_removed: u64,
    /// Their size, bytes.
    pub temp_bytes_removed: u64,
    /// Dead workers removed.
    pub workers_removed: u64,
    /// How long it took, milliseconds.
    pub duration_ms: u64,
}

impl Swept {
    fn add(&mut self, removed: Removed) {
        self.temp_files_removed += removed.files;
        self.temp_bytes_removed += removed.bytes;
    }

    /// Something was reclaimed or removed.
    #[must_use]
    pub const fn did_anything(&self) -> bool {
        self.jobs_requeued + self.jobs_failed + self.temp_files_removed + self.workers_removed > 0
    }
}

/// How to sweep.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The time between two sweeps.
    pub interval: Duration,
    /// Added to a lease's time to live before it counts as abandoned.
    pub margin: Duration,
    /// Deaths in a row without progress after which a job fails as poison.
    pub poison_limit: i64,
    /// How long finished jobs are kept; None: nothing is removed.
    pub retention: Option<Retention>,
}

/// One sweep by proof alone.
///
/// # Errors
/// The store's; what was done until then is done.
pub async fn once(
    store: &Store,
    state_dir: &Path,
    clock: &Clock,
    poison_limit: i64,
    dry_run: bool,
) -> Result<Swept, Error> {
    let settings = Settings { interval: Duration::ZERO, margin: Duration::ZERO, poison_limit, retention: None };
    let mut sweeper =
        Sweeper::new(store.clone(), Place::here(state_dir, store.is_local())?, clock.clone(), settings, None);
    sweeper.dry_run = dry_run;
    sweeper.observes = false;
    sweeper.tick().await
}

/// A sweeper that goes on, and remembers what it saw.
pub struct Sweeper {
    store: Store,
    place: Place,
    clock: Clock,
    settings: Settings,
    /// Our own worker: alive by definition.
    own: Option<Uuid>,
    observes: bool,
    dry_run: bool,
    seen: HashMap<JobId, (Lease, BootTime)>,
    silent: HashMap<String, (UnixMillis, BootTime)>,
    /// Dead workers that the last sweep knew of.
    unburied: HashSet<String>,
    retain: Option<Retain>,
}

impl Sweeper {
    /// A sweeper for this place. `own`: the worker of this process.
    #[must_use]
    pub fn new(store: Store, place: Place, clock: Clock, settings: Settings, own: Option<Uuid>) -> Self {
        let retain = settings.retention.map(Retain::new);
        Self {
            store,
            place,
            clock,
            settings,
            own,
            observes: true,
            dry_run: false,
            seen: HashMap::new(),
            silent: HashMap::new(),
            unburied: HashSet::new(),
            retain,
        }
    }

    /// Sweeps until the shutdown drains: at every interval, and as soon as a lock of this folder says that a worker is dead.
    /// Removes finished jobs that are not kept any longer. Errors are logged and waited out.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut failing = false;
        loop {
            tokio::select! {
                () = shutdown.drain.cancelled() => return,
                () = self.next_sweep() => {}
            }
            let dead = self.place.dead();
            let swept = self.tick().await;
            self.unburied = dead.into_iter().collect();
            let still = std::mem::replace(&mut failing, swept.is_err());
            match swept {
                Ok(swept) if swept.did_anything() => tracing::info!(
                    jobs_requeued = swept.jobs_requeued,
                    jobs_failed = swept.jobs_failed,
                    temp_files_removed = swept.temp_files_removed,
                    workers_removed = swept.workers_removed,
                    "swept"
                ),
                Ok(_) => {}
                Err(error) if still => tracing::debug!(%error, "the sweep failed again"),
                Err(error) => tracing::warn!(%error, "the sweep failed, trying again at the next"),
            }
            if let Some(retain) = &mut self.retain {
                retain.tick(&self.store, &self.clock, &shutdown).await;
            }
        }
    }

    /// Returns when it is time for a sweep: the interval is over, or a worker died since the last one. A dead worker that the
    /// last sweep could not bury is not news.
    async fn next_sweep(&self) {
        let start = self.clock.boot();
        loop {
            let left = self.settings.interval.saturating_sub(self.clock.boot().since(start));
            tokio::time::sleep(left.min(GLANCE)).await;
            let over = self.clock.boot().since(start) >= self.settings.interval;
            if over || self.place.dead().iter().any(|worker| !self.unburied.contains(worker)) {
                return;
            }
        }
    }

    /// One sweep.
    ///
    /// # Errors
    /// The store's; what was done until then is done.
    pub async fn tick(&mut self) -> Result<Swept, Error> {
        let start = self.clock.boot();
        let mut swept = Swept::default();
        // Read before the workers: whoever registers a file after this look has its row by then.
        let with_files = self.store.temp_workers().await?;
        let mut workers = self.store.workers().await?;
        workers.retain(|worker| worker.id.parse::<Uuid>().is_ok());
        let leases = self.store.leases().await?;
        let own = self.own.map(|own| own.to_string());
        for worker in workers.iter().filter(|worker| Some(&worker.id) != own.as_ref()) {
            if self.place.is_of(worker) {
                self.bury(worker, &leases, &mut swept).await?;
            }
        }
        if self.observes {
            self.observe(&workers, &leases, &mut swept).await?;
            self.forget_silent(&workers, &leases, &with_files, &mut swept).await?;
        }
        self.remove_orphans(with_files, &workers, own.as_deref(), &mut swept).await?;
        swept.duration_ms = u64::try_from(self.clock.boot().since(start).as_millis()).unwrap_or(u64::MAX);
        Ok(swept)
    }

    /// Reclaims and removes all of a worker, when its lock proves that it is dead.
    async fn bury(&self, worker: &WorkerRow, leases: &[Lease], swept: &mut Swept) -> Result<(), Error> {
        let lock_path = self.place.lock_file(&worker.id);
        let lock = match probe(&lock_path) {
            Ok(Proof::Dead(lock)) => lock,
            // Without a lock file there is no proof: the lease decides.
            Ok(Proof::Alive | Proof::Missing) => return Ok(()),
            Err(error) => {
                tracing::warn!(worker = %worker.id, %error, "the worker's lock cannot be looked at");
                return Ok(());
            }
        };
        for lease in leases.iter().filter(|lease| lease.worker == worker.id) {
            let message = format!("worker {} (process {} on {}) died", worker.id, worker.pid, worker.host);
            self.reclaim(lease, message, swept).await;
        }
        self.remove_files_of(&worker.id, swept).await?;
        swept.workers_removed += 1;
        if self.dry_run {
            return Ok(());
        }
        if self.store.worker_gone(&worker.id).await? {
            tracing::info!(worker = %worker.id, pid = worker.pid, "removed a dead worker");
            remove::file(&lock_path, "its worker is dead");
        }
        drop(lock);
        Ok(())
    }

    /// One job that cannot be reclaimed does not keep the others.
    async fn reclaim(&self, lease: &Lease, message: String, swept: &mut Swept) {
        if self.dry_run {
            swept.jobs_requeued += 1;
            return;
        }
        match self.store.reclaim(lease.clone(), self.settings.poison_limit, message.clone()).await {
            Ok(Some(state)) => {
                tracing::warn!(job = lease.job, epoch = lease.epoch, worker = %lease.worker, %state, reason = %message, "reclaimed");
                if state == State::Scheduled {
                    swept.jobs_requeued += 1;
                } else {
                    swept.jobs_failed += 1;
                }
            }
            Ok(None) => tracing::debug!(job = lease.job, "the lease moved on meanwhile"),
            Err(error) => {
                tracing::error!(job = lease.job, %error, "the job cannot be reclaimed, trying again at the next sweep")
            }
        }
    }

    /// Removes rows of workers that have no job and have not said for long that they live: those of other machines, which no
    /// lock here can prove dead. One that lives after all inserts its row again.
    async fn forget_silent(
        &mut self,
        workers: &[WorkerRow],
        leases: &[Lease],
        with_files: &[String],
        swept: &mut Swept,
    ) -> Result<(), Error> {
        let now = self.clock.boot();
        let own = self.own.map(|own| own.to_string());
        let own = own.as_deref();
        self.silent.retain(|id, _| workers.iter().any(|worker| worker.id == *id));
        for worker in workers.iter().filter(|worker| Some(worker.id.as_str()) != own) {
            let since = match self.silent.get(&worker.id) {
                Some((seen_at, since)) if *seen_at == worker.seen_at => *since,
                _ => {
                    self.silent.insert(worker.id.clone(), (worker.seen_at, now));
                    continue;
                }
            };
            // The row says where the files are: their own machine needs it, when it comes back.
            let has_files = !self.place.is_local() && !self.place.is_of(worker) && with_files.contains(&worker.id);
            let patience =
                if has_files { FILES_PATIENCE } else { crate::worker::SEEN_INTERVAL * 6 + self.settings.margin };
            let works = leases.iter().any(|lease| lease.worker == worker.id);
            if now.since(since) < patience || works || self.dry_run {
                continue;
            }
            // A lock that somebody holds here is a sign of life as good as any.
            if self.place.is_of(worker) && matches!(probe(&self.place.lock_file(&worker.id)), Ok(Proof::Alive) | Err(_))
            {
                continue;
            }
            if self.store.worker_gone(&worker.id).await? {
                tracing::info!(worker = %worker.id, host = %worker.host, "removed a worker that has been silent for long");
                swept.workers_removed += 1;
            }
        }
        Ok(())
    }

    /// Reclaims leases that have not moved for their time to live plus the margin.
    async fn observe(&mut self, workers: &[WorkerRow], leases: &[Lease], swept: &mut Swept) -> Result<(), Error> {
        let now = self.clock.boot();
        let ttl: HashMap<&str, Duration> = workers
            .iter()
            .map(|worker| (worker.id.as_str(), Duration::from_millis(u64::try_from(worker.lease_ttl_ms).unwrap_or(0))))
            .collect();
        let longest = ttl.values().max().copied().unwrap_or(crate::worker::Settings::default().lease_ttl);
        let live: HashSet<JobId> = leases.iter().map(|lease| lease.job).collect();
        self.seen.retain(|job, _| live.contains(job));
        for lease in leases {
            let since = match self.seen.get(&lease.job) {
                Some((seen, since)) if seen == lease => *since,
                _ => {
                    self.seen.insert(lease.job, (lease.clone(), now));
                    continue;
                }
            };
            let patience = ttl.get(lease.worker.as_str()).copied().unwrap_or(longest) + self.settings.margin;
            if now.since(since) >= patience {
                let message = format!("worker {} did not renew its lease for {} s", lease.worker, patience.as_secs());
                self.reclaim(lease, message, swept).await;
            }
        }
        Ok(())
    }

    /// Folders and lock files that bear the id of a worker which nobody knows and nobody is.
    async fn remove_orphans(
        &self,
        with_files: Vec<String>,
        workers: &[WorkerRow],
        own: Option<&str>,
        swept: &mut Swept,
    ) -> Result<(), Error> {
        let known: HashSet<&str> = workers.iter().map(|worker| worker.id.as_str()).chain(own).collect();
        let mut orphans: HashSet<String> = with_files.into_iter().collect();
        orphans.extend(remove::names(&self.place.temp_root()));
        orphans.extend(
            remove::names(&self.place.lock_root())
                .into_iter()
                .filter_map(|name| name.strip_suffix(".lock").map(str::to_owned)),
        );
        for worker in orphans.iter().filter(|worker| !known.contains(worker.as_str()) && worker.parse::<Uuid>().is_ok())
        {
            let lock_path = self.place.lock_file(worker);
            // A worker locks its file before it makes anything, in this folder at least: without the file nobody is there.
            let proof = probe(&lock_path);
            if matches!(proof, Ok(Proof::Alive) | Err(_)) {
                continue;
            }
            // Its row may be younger than our look at the rows. Now that we hold its lock none can come any more: the next
            // sweep buries it, by this very file.
            if matches!(proof, Ok(Proof::Dead(_)))
                && self.store.workers().await?.iter().any(|known| known.id == *worker)
            {
                continue;
            }
            self.remove_files_of(worker, swept).await?;
            if !self.dry_run && matches!(proof, Ok(Proof::Dead(_))) {
                remove::file(&lock_path, "its worker is not known any more");
            }
        }
        Ok(())
    }

    /// Removes the temporary files of a dead worker, the registered ones first, then whatever is in its own folder.
    async fn remove_files_of(&self, worker: &str, swept: &mut Swept) -> Result<(), Error> {
        let folder = self.place.temp_folder(worker);
        let registered = self.store.temp_files_of(worker).await?;
        let mut gone = Vec::with_capacity(registered.len());
        let mut refused = Vec::new();
        for path in registered {
            match remove::registered(Path::new(&path), worker, &folder, self.dry_run) {
                Ok(removed) => {
                    swept.add(removed);
                    gone.push(path);
                }
                Err(reason) => refused.push((path, reason)),
            }
        }
        match remove::tree(&self.place.temp_root(), worker, self.dry_run) {
            Ok(removed) => swept.add(removed),
            Err(error) => tracing::warn!(folder = %folder.display(), %error, "a temporary folder is left"),
        }
        for (path, reason) in refused {
            // The same folder under another name: what was in it went with the tree. Or a folder of another machine.
            if std::fs::symlink_metadata(&path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
                gone.push(path);
            } else {
                tracing::warn!(%path, worker, %reason, "a temporary file is left");
            }
        }
        if !gone.is_empty() && !self.dry_run {
            self.store.temp_forget(gone).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::DatabaseUrl;
    use crate::worker::presence::Presence;

    #[tokio::test]
    async fn a_worker_that_came_and_died_during_a_sweep_is_buried_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::System;
        let url = DatabaseUrl::Sqlite(folder.path().join("freightliner.db"));
        let store = Store::open(&url, clock.clone()).await.unwrap();
        let state = folder.path().join("state");
        let settings = Settings { interval: Duration::ZERO, margin: Duration::ZERO, poison_limit: 10, retention: None };
        let mut sweeper =
            Sweeper::new(store.clone(), Place::here(&state, true).unwrap(), clock.clone(), settings, None);
        // The rows were read before it came; it died before the locks were looked at.
        let seen_by_the_sweep = store.workers().await.unwrap();
        let presence = Presence::start(&store, &state, &crate::worker::Settings::default(), 1, &clock).await.unwrap();
        let lock = sweeper.place.lock_file(&presence.id.to_string());
        drop(presence);
        sweeper.remove_orphans(Vec::new(), &seen_by_the_sweep, None, &mut Swept::default()).await.unwrap();
        assert!(lock.exists(), "the lock is the proof of its death");
        let swept = sweeper.tick().await.unwrap();
        assert_eq!((swept.workers_removed, lock.exists()), (1, false));
        assert!(store.workers().await.unwrap().is_empty());
    }
}
