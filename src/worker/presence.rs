//! A worker's presence: a row, and a lock that the kernel drops when the process dies.
//!
//! A lock and not a pid, because pids are reused and mean nothing across containers; a lock and not the lease alone, because
//! a killed worker's jobs should not wait for a clock. The lock proves something only to those who look at the same file: the
//! row says on which machine, in which boot and in which folder it lives.

use super::Settings;
use super::seal::Seal;
use crate::clock::{Clock, UnixMillis};
use crate::store::{Error, Store, WorkerRow};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Tries to make a lock file: a sweeper may look at it in the moment before it is locked.
const LOCK_TRIES: usize = 5;

/// What tells one machine's state folder from another's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    machine_id: String,
    boot_id: String,
    state_dir: PathBuf,
    device: i64,
    inode: i64,
    local: bool,
}

impl Place {
    /// This machine and this state folder, which is made with mode 0700 when it is not there. `local`: the database is a file
    /// of this machine ([`Store::is_local`]).
    ///
    /// # Errors
    /// [`Error::Unusable`] when the folder cannot be made or written.
    pub fn here(state_dir: &Path, local: bool) -> Result<Self, Error> {
        let unusable = |what: &Path, error: &io::Error| {
            Error::Unusable(format!(
                "state folder {}: {error}; use --state-dir DIR with a folder that can be written",
                what.display()
            ))
        };
        for folder in [state_dir.to_owned(), state_dir.join("workers"), state_dir.join("tmp")] {
            if !folder.is_dir() {
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&folder)
                    .map_err(|error| unusable(&folder, &error))?;
            }
        }
        let facts = std::fs::metadata(state_dir).map_err(|error| unusable(state_dir, &error))?;
        let read = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        Ok(Self {
            machine_id: read("/etc/machine-id"),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            state_dir: std::path::absolute(state_dir).map_err(|error| unusable(state_dir, &error))?,
            device: facts.dev().cast_signed(),
            inode: facts.ino().cast_signed(),
            local,
        })
    }

    /// The worker lives, or lived, on this machine with this state folder: its lock says the truth. Also when it was before
    /// the last boot, where the database is a file of this machine: that one has no workers on clones of the machine, a
    /// server's may.
    #[must_use]
    pub fn is_of(&self, worker: &WorkerRow) -> bool {
        if self.boot_id.is_empty() || self.machine_id != worker.machine_id || self.inode != worker.state_inode {
            return false;
        }
        if self.boot_id == worker.boot_id {
            return self.device == worker.state_device;
        }
        // Devices may be numbered anew by a boot; the path is the same then.
        self.local && !worker.boot_id.is_empty() && Path::new(&worker.state_dir) == self.state_dir
    }

    /// The database is a file of this machine: what nobody here knows, nobody knows.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        self.local
    }

    /// Lock files of this folder whose worker is dead, by the ids of the workers. Looks at locks alone: a few system calls.
    #[must_use]
    pub fn dead(&self) -> Vec<String> {
        // What cannot be read is said by the sweep.
        let Ok(entries) = std::fs::read_dir(self.lock_root()) else { return Vec::new() };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names
            .filter_map(|name| name.strip_suffix(".lock").map(str::to_owned))
            .filter(|worker| is_free(&self.lock_file(worker)))
            .collect()
    }

    /// The folder of a worker's temporary files.
    #[must_use]
    pub fn temp_folder(&self, worker: &str) -> PathBuf {
        self.state_dir.join("tmp").join(worker)
    }

    /// The lock file of a worker.
    #[must_use]
    pub fn lock_file(&self, worker: &str) -> PathBuf {
        self.state_dir.join("workers").join(format!("{worker}.lock"))
    }

    /// The folder of all workers' temporary files.
    #[must_use]
    pub fn temp_root(&self) -> PathBuf {
        self.state_dir.join("tmp")
    }

    /// The folder of all lock files.
    #[must_use]
    pub fn lock_root(&self) -> PathBuf {
        self.state_dir.join("workers")
    }
}

/// What the lock of a worker says.
#[derive(Debug)]
pub enum Proof {
    /// Somebody holds it.
    Alive,
    /// Nobody holds it; we do now, so that nobody else acts on the same proof.
    Dead(File),
    /// There is no lock file.
    Missing,
}

/// Looks at a worker's lock.
///
/// # Errors
/// The file cannot be opened for another reason than that it is not there.
pub fn probe(path: &Path) -> io::Result<Proof> {
    let file = match rustix::fs::open(path, OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(Proof::Missing),
        Err(error) => return Err(error.into()),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) if is_at(&file, path)? => Ok(Proof::Dead(file)),
        // Another sweeper removed it meanwhile.
        Ok(()) => Ok(Proof::Missing),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(Proof::Alive),
        Err(error) => Err(error.into()),
    }
}

/// Nobody holds this lock. Takes it shared and for a moment only, so that two who look do not hide the truth from each other.
fn is_free(path: &Path) -> bool {
    let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    opened.is_ok_and(|file| rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok())
}

/// The open file is still what the path names.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(named) => Ok(named.dev() == open.dev() && named.ino() == open.ino()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// This process as a worker: known to the database, locked on disk.
#[derive(Debug)]
pub struct Presence {
    /// Made at start; never the host name.
    pub id: Uuid,
    /// Where it lives.
    pub place: Place,
    started_at: UnixMillis,
    lease_ttl: Duration,
    queue: Option<String>,
    concurrency: usize,
    pub(super) seal: Arc<Seal>,
    // Held for its lock.
    _lock: File,
}

impl Presence {
    /// Locks first, then inserts the row: whoever sees the row can trust the lock. `concurrency` is 0 for a process that works on
    /// one job of its own only.
    ///
    /// # Errors
    /// [`Error::Unusable`] when the state folder cannot be written; else the store's.
    pub async fn start(
        store: &Store,
        state_dir: &Path,
        settings: &Settings,
        concurrency: usize,
        clock: &Clock,
    ) -> Result<Self, Error> {
        let place = Place::here(state_dir, store.is_local())?;
        let (id, lock) = lock_new(&place)
            .map_err(|error| Error::Unusable(format!("state folder {}: {error}", place.state_dir.display())))?;
        let presence = Self {
            id,
            place,
            started_at: clock.now(),
            lease_ttl: settings.lease_ttl,
            queue: settings.queue.clone(),
            concurrency,
            seal: Arc::new(Seal::new(state_dir)),
            _lock: lock,
        };
        store.worker_start(presence.row(clock)).await?;
        Ok(presence)
    }

    /// The row as it is now.
    fn row(&self, clock: &Clock) -> WorkerRow {
        let place = &self.place;
        WorkerRow {
            id: self.id.to_string(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            pid: i64::from(std::process::id()),
            machine_id: place.machine_id.clone(),
            boot_id: place.boot_id.clone(),
            state_dir: place.state_dir.display().to_string(),
            state_device: place.device,
            state_inode: place.inode,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            lease_ttl_ms: i64::try_from(self.lease_ttl.as_millis()).unwrap_or(i64::MAX),
            queue: self.queue.clone(),
            concurrency: i64::try_from(self.concurrency).unwrap_or(i64::MAX),
            started_at: self.started_at,
            seen_at: clock.now(),
        }
    }

    /// Says that it lives; inserts the row again when a sweeper has taken it for dead.
    ///
    /// # Errors
    /// The store's.
    pub async fn seen(&self, store: &Store, clock: &Clock) -> Result<(), Error> {
        if !store.worker_seen(self.id).await? {
            tracing::warn!(worker = %self.id, "this worker was taken for dead; it is back");
            store.worker_start(self.row(clock)).await?;
        }
        Ok(())
    }

    /// How long this worker's leases hold without renewal.
    #[must_use]
    pub const fn lease_ttl(&self) -> Duration {
        self.lease_ttl
    }

    /// The folder of this worker's temporary files.
    #[must_use]
    pub fn temp_folder(&self) -> PathBuf {
        self.place.temp_folder(&self.id.to_string())
    }

    /// Leaves nothing behind: folder, row, lock file. What could not be removed is logged; a sweep finds it.
    pub async fn end(self, store: &Store) {
        let id = self.id.to_string();
        match std::fs::remove_dir(self.place.temp_folder(&id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(worker = %id, %error, "temporary files are left; the next sweep removes them");
                return;
            }
            _ => {}
        }
        match store.worker_gone(&id).await {
            Ok(true) => {}
            // A job that could not be settled is still ours. The lock file stays: unlocked, it proves that we are gone.
            Ok(false) => {
                tracing::warn!(worker = %id, "a job is left running; the next sweep reclaims it");
                return;
            }
            Err(error) => {
                tracing::warn!(worker = %id, %error, "the worker's row is left; the next sweep removes it");
                return;
            }
        }
        if let Err(error) = std::fs::remove_file(self.place.lock_file(&id)) {
            tracing::warn!(worker = %id, %error, "the worker's lock file is left; the next sweep removes it");
        }
    }
}

fn lock_new(place: &Place) -> io::Result<(Uuid, File)> {
    for _ in 0..LOCK_TRIES {
        let id = Uuid::now_v7();
        let path = place.lock_file(&id.to_string());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)?);
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() && is_at(&file, &path)? {
            return Ok((id, file));
        }
    }
    Err(io::Error::other("no lock file could be locked"))
}
