//! Notices commits of any process: `PRAGMA data_version`, asked by a connection that never writes.
//!
//! Polling that number is the truth: within [`POLL`] every commit is noticed, whatever else fails. Two things tell sooner.
//! This process says so itself after commits that may give somebody something to do ([`Watch::committed`]). And the kernel
//! says when somebody writes to the write-ahead log; the commit follows only after its fsync, so after such an event the
//! number is looked at a few times in short, growing steps. Either may be lost without harm.
//!
//! A thread does this from the first wait on, as long as anybody waits: a look costs microseconds there, and its pauses are
//! shorter than a runtime's timer can make them. The next who waits wakes it, and then it looks at once. What is noticed raises a number that all can see, and each waits for it to pass the number it last
//! returned with.
//!
//! The wal-index (`-shm`) holds the same fact and could be read for less. It must not be opened: closing a file drops all
//! POSIX locks of the process on it, those of SQLite too.

mod events;
#[cfg(test)]
mod tests;

use super::direct::Direct;
use crate::store::Error;
use crate::store::rows::Columns;
use events::{Events, rung};
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// How often the number is looked at when nothing is heard: the latest that a commit is noticed.
const POLL: Duration = Duration::from_millis(50);
/// Pauses before the looks that follow an event, in microseconds, until the commit shows. It follows its last write by one
/// fsync, so the first are short; all together are about as long as [`POLL`], because a disk may be slow.
const STEPS: [u64; 16] = [50, 50, 100, 100, 200, 200, 500, 500, 1000, 1000, 2000, 4000, 8000, 8000, 8000, 8000];
/// From this pause on an event ends it.
const LONG: u64 = 2000;
/// The step after such an event, and after a commit: bounds what a long transaction of somebody else costs, or a storm of
/// short ones.
const AGAIN: usize = 4;
/// The pause after a commit was noticed: bounds what a storm of short commits costs.
const PACE: Duration = Duration::from_millis(2);

/// Commits of all processes on one file.
pub(super) struct Watch {
    path: PathBuf,
    listen: bool,
    notices: Arc<watch::Sender<Notice>>,
    looker: Mutex<Option<Looker>>,
}

/// What all who wait can see.
#[derive(Debug, Default)]
struct Notice {
    /// How many times a commit was noticed.
    commits: u64,
    /// Why nothing can be noticed just now.
    failing: Option<Error>,
}

/// Up to where one subscriber has been told.
#[derive(Debug, Default)]
pub(super) struct Cursor(AtomicU64);

/// The thread that looks.
struct Looker {
    /// Written to when it has to end, and when somebody waits again.
    bell: Arc<OwnedFd>,
    stop: Arc<AtomicBool>,
    parked: Arc<AtomicBool>,
    ended: oneshot::Receiver<()>,
}

impl Watch {
    /// Of this database. Nothing is opened before somebody waits.
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), listen: true, notices: Arc::default(), looker: Mutex::default() }
    }

    /// Polls alone.
    #[cfg(test)]
    fn deaf(path: &Path) -> Self {
        let mut watch = Self::new(path);
        watch.listen = false;
        watch
    }

    /// This process has committed something that others may have to do with.
    pub(super) fn committed(&self) {
        self.notices.send_modify(|notice| notice.commits += 1);
    }

    /// Waits until somebody has committed since the last return with this cursor, at most so long; the first call returns as
    /// soon as the watch stands. May return for nothing, never misses a commit by more than [`POLL`]. May be dropped at any
    /// time.
    ///
    /// # Errors
    /// [`Error::Backend`] while the database cannot be read.
    pub(super) async fn changed(&self, cursor: &Cursor, at_most: Duration) -> Result<(), Error> {
        let told = cursor.0.load(Ordering::Relaxed);
        let mut notices = self.notices.subscribe();
        self.start()?;
        let wait = async {
            loop {
                {
                    let now = notices.borrow_and_update();
                    if now.commits != told {
                        // Several may wait with one cursor.
                        cursor.0.fetch_max(now.commits, Ordering::Relaxed);
                        return Ok(());
                    }
                    if let Some(error) = &now.failing {
                        return Err(error.clone());
                    }
                }
                if notices.changed().await.is_err() {
                    // Not while `self` is there.
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(at_most, wait).await.unwrap_or(Ok(()))
    }

    /// Starts the thread when it does not run.
    fn start(&self) -> Result<(), Error> {
        let mut looker = self.looker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(looker) = looker.as_ref() {
            looker.unpark();
            return Ok(());
        }
        let no =
            |error: std::io::Error| Error::Backend { message: format!("starting the watch: {error}"), busy: false };
        let bell =
            Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| no(error.into()))?);
        let (stop, parked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (end, ended) = oneshot::channel();
        let mut log = self.path.as_os_str().to_owned();
        log.push("-wal");
        let eyes = Eyes {
            path: self.path.clone(),
            notices: self.notices.clone(),
            bell: bell.clone(),
            stop: stop.clone(),
            parked: parked.clone(),
            events: if self.listen { Events::new(PathBuf::from(log)) } else { Events::none() },
            connection: None,
            seen: None,
        };
        let run = move || {
            eyes.run();
            if end.send(()).is_err() {
                tracing::trace!("nobody waits for the end of the watch");
            }
        };
        std::thread::Builder::new().name("sqlite-watch".to_owned()).spawn(run).map_err(no)?;
        *looker = Some(Looker { bell, stop, parked, ended });
        Ok(())
    }

    /// Closes the connection of the watch. A later wait opens it again.
    pub(super) async fn close(&self) {
        let looker = self.looker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(looker) = looker {
            looker.stop();
            if looker.ended.await.is_err() {
                tracing::error!("the watch of the database ended badly");
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(looker) = self.looker.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            looker.stop();
        }
    }
}

impl Looker {
    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.ring();
    }

    /// Somebody waits.
    fn unpark(&self) {
        if self.parked.swap(false, Ordering::SeqCst) {
            self.ring();
        }
    }

    fn ring(&self) {
        if let Err(error) = rustix::io::write(&self.bell, &1u64.to_ne_bytes()) {
            tracing::debug!(%error, "the watch of the database hears nobody ring: it looks when its pause is over");
        }
    }
}

/// What the thread has.
struct Eyes {
    path: PathBuf,
    notices: Arc<watch::Sender<Notice>>,
    bell: Arc<OwnedFd>,
    stop: Arc<AtomicBool>,
    /// It waits for the bell, because nobody waits for it.
    parked: Arc<AtomicBool>,
    events: Events,
    connection: Option<Direct>,
    /// The number at the last look.
    seen: Option<i64>,
}

impl Eyes {
    fn run(mut self) {
        self.events.renew();
        // What is there at the start counts as a commit: whoever came before the first look has not seen it.
        self.look();
        while !self.stop.load(Ordering::Acquire) {
            if self.notices.receiver_count() == 0 {
                self.park();
            } else if self.events.wait(self.bell.as_fd(), POLL) {
                self.follow();
            } else {
                self.still();
                self.events.renew();
                self.look();
            }
        }
        if let Some(connection) = self.connection.take() {
            connection.close();
        }
    }

    /// Waits until somebody waits; whoever came in just this moment is noticed after [`POLL`].
    fn park(&mut self) {
        self.parked.store(true, Ordering::SeqCst);
        if self.notices.receiver_count() == 0 {
            rung(self.bell.as_fd(), POLL);
        }
        self.parked.store(false, Ordering::SeqCst);
        self.still();
        if self.notices.receiver_count() > 0 {
            self.events.take();
            self.events.renew();
            self.look();
        }
    }

    /// The bell rings until it is read. Most times it has not rung, which is an error of the kind that is no news.
    fn still(&self) {
        if let Err(error) = rustix::io::read(&self.bell, &mut [0; 8]) {
            tracing::trace!(%error, "the bell of the watch");
        }
    }

    /// Somebody writes: looks until the commit shows. What was heard may have been of another commit than the one that shows
    /// first, so it goes on until nothing more does.
    fn follow(&mut self) {
        let mut step = 0;
        while step < STEPS.len() && !self.stop.load(Ordering::Acquire) && self.notices.receiver_count() > 0 {
            if self.look() {
                std::thread::sleep(PACE);
                step = AGAIN;
                continue;
            }
            let pause = STEPS[step];
            step += 1;
            if pause < LONG {
                std::thread::sleep(Duration::from_micros(pause));
                self.events.take();
            } else if self.events.wait(self.bell.as_fd(), Duration::from_micros(pause)) {
                step = AGAIN;
            }
        }
    }

    /// Whether somebody has committed since the last look; who waits is told.
    fn look(&mut self) -> bool {
        match self.version() {
            Ok(version) => {
                let changed = self.seen.replace(version) != Some(version);
                self.notices.send_if_modified(|notice| {
                    let healed = notice.failing.take().is_some();
                    notice.commits += u64::from(changed);
                    changed || healed
                });
                changed
            }
            Err(error) => {
                // It is opened again, and what it says then is a change: commits may have been missed.
                self.seen = None;
                if let Some(connection) = self.connection.take() {
                    connection.close();
                }
                self.notices.send_modify(|notice| notice.failing = Some(error));
                false
            }
        }
    }

    fn version(&mut self) -> Result<i64, Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                self.seen = None;
                Direct::open_reading(&self.path, super::BUSY_TIMEOUT)?
            }
        };
        self.connection.insert(connection).one("PRAGMA data_version", [], |row| row.int("data_version"))
    }
}
