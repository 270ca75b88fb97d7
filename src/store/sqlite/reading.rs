//! Reads that take long, and the write-ahead log.
//!
//! A read sees the database as it was at its first moment, and as long as it goes on the log cannot start over. So reads that
//! overlap would have the log grow without end, however short each of them is. Three rules keep that from happening:
//!
//! - What may take long begins only while the log is short ([`Reads::turn`]). Once the log has grown nobody begins, those who
//!   read come to their ends, and the next checkpoint finds nobody.
//! - Writers stand still when the log is long, and wait for readers, but not for ever (see `checkpoint`). A read ends before
//!   their patience does: in error, and with advice ([`Stopped::InTheWay`]). As long as nobody waits it may go on. That such a
//!   read is under way is seen by a lock that it shares with its like, on the folder of the database: it makes no file, and the
//!   kernel drops it on any death.
//! - Each read has a deadline.
//!
//! A progress handler of SQLite's looks after the last two, so that a read ends wherever it is, and its snapshot with it. One
//! long read is not bound by them: a copy into another database, during which nobody may write. A backup is many short ones
//! (see `backup`).

use super::checkpoint::{LONG, SMALL};
use crate::clock::{BootTime, Clock};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use sqlx::sqlite::SqliteConnection;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// Virtual-machine steps between two looks at the time: a few milliseconds at most.
const STEPS: i32 = 10_000;
/// How old a read may become while writers wait for it. Less than their patience.
pub(super) const YIELDS: Duration = Duration::from_millis(4500);
/// How long a read of the program's own may take: numbers over millions of rows.
const LONGEST: Duration = Duration::from_secs(30);
/// What may take long begins while the log is shorter than this.
const QUIET: u64 = 2 * SMALL;
/// How long such a read waits for its turn: longer than those that are under way may be in the way. When the log is still long
/// then, somebody else holds it, and this read makes it no longer.
const TURN: Duration = Duration::from_secs(10);
/// How often it looks for its turn.
const TURN_LOOK: Duration = Duration::from_millis(20);
/// Tries to take the lock: somebody who asks for it has it for a moment.
const LOCK_TRIES: u32 = 3;
/// The pause between two of them: longer than that moment.
const LOCK_PAUSE: Duration = Duration::from_millis(2);

/// Where the log is.
#[derive(Debug, Clone)]
pub(super) struct Reads {
    log: Arc<Path>,
}

/// The turn of a read that may take long; as long as it lasts, writers know that it will end. None: it began although the log
/// is long, and is nobody's business.
#[derive(Debug)]
pub(super) struct Turn {
    // Held for its lock.
    _lock: Option<File>,
}

/// Why a read was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// It was not, or not by us.
    Not,
    /// It took longer than it may.
    Late,
    /// Writers waited for it.
    InTheWay,
}

/// Looks after the reads of one connection. When it is dropped a read that still goes on ends.
#[derive(Debug)]
pub(super) struct Guard {
    said: Arc<AtomicU8>,
    // Held for its lock.
    _turn: Turn,
}

const NOT: u8 = 0;
const LATE: u8 = 1;
const IN_THE_WAY: u8 = 2;

impl Guard {
    pub(super) fn stopped(&self) -> Stopped {
        match self.said.load(Ordering::Relaxed) {
            NOT => Stopped::Not,
            LATE => Stopped::Late,
            _ => Stopped::InTheWay,
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.said.store(LATE, Ordering::Relaxed);
    }
}

impl Reads {
    pub(super) fn new(database: &Path) -> Self {
        let mut log = OsString::from(database);
        log.push("-wal");
        Self { log: PathBuf::from(log).into() }
    }

    fn length(&self) -> u64 {
        length(&self.log)
    }

    /// Waits until a read that may take long can begin, and at most so long.
    pub(super) async fn turn(&self, at_most: Duration) -> Turn {
        let start = Clock::System.boot();
        while self.length() >= QUIET {
            if Clock::System.boot().since(start) >= TURN.min(at_most) {
                return Turn { _lock: None };
            }
            tokio::time::sleep(TURN_LOOK).await;
        }
        for _ in 0..LOCK_TRIES {
            match self.lock(FlockOperation::NonBlockingLockShared) {
                Ok(lock) => return Turn { _lock: Some(lock) },
                Err(Errno::WOULDBLOCK) => tokio::time::sleep(LOCK_PAUSE).await,
                // Not every file system can lock a folder.
                Err(_) => break,
            }
        }
        Turn { _lock: None }
    }

    /// A read of ours that may take long is under way, in whatever process.
    pub(super) fn are_under_way(&self) -> bool {
        let is_taken = || matches!(self.lock(FlockOperation::NonBlockingLockExclusive), Err(Errno::WOULDBLOCK));
        is_taken()
            && (1..LOCK_TRIES).all(|_| {
                std::thread::sleep(LOCK_PAUSE);
                is_taken()
            })
    }

    fn lock(&self, how: FlockOperation) -> Result<File, Errno> {
        let folder = self.log.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = File::from(rustix::fs::open(folder, flags, Mode::empty())?);
        rustix::fs::flock(&folder, how).map(|()| folder)
    }

    /// From now on the connection's reads end at the deadline, or earlier when they are in the way.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) async fn guard(
        &self,
        connection: &mut SqliteConnection,
        deadline: Duration,
        turn: Turn,
    ) -> Result<Guard, sqlx::Error> {
        let said = Arc::new(AtomicU8::new(NOT));
        let (saying, log, begun) = (said.clone(), self.log.clone(), Clock::System.boot());
        let goes_on = move || {
            if saying.load(Ordering::Relaxed) == NOT {
                saying.store(judge(&log, begun, deadline), Ordering::Relaxed);
            }
            saying.load(Ordering::Relaxed) == NOT
        };
        connection.lock_handle().await?.set_progress_handler(STEPS, goes_on);
        Ok(Guard { said, _turn: turn })
    }

    /// As [`Reads::guard`] with the deadline of the program's own reads, for a connection that is about to be used. It lasts
    /// until the connection is used for something else.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) async fn bound(&self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let (log, begun) = (self.log.clone(), Clock::System.boot());
        let goes_on = move || judge(&log, begun, LONGEST) == NOT;
        connection.lock_handle().await?.set_progress_handler(STEPS, goes_on);
        Ok(())
    }
}

fn length(log: &Path) -> u64 {
    std::fs::metadata(log).map_or(0, |facts| facts.len())
}

fn judge(log: &Path, begun: BootTime, deadline: Duration) -> u8 {
    let age = Clock::System.boot().since(begun);
    if age >= deadline {
        LATE
    } else if age >= YIELDS && length(log) >= LONG {
        IN_THE_WAY
    } else {
        NOT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reads of a database whose log is so long.
    fn reads(folder: &tempfile::TempDir, log: u64) -> Reads {
        let reads = Reads::new(&folder.path().join("x.db"));
        std::fs::File::create(&*reads.log).unwrap().set_len(log).unwrap();
        reads
    }

    #[tokio::test]
    async fn a_long_read_is_seen_by_others_until_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let reads = reads(&folder, QUIET - 1);
        assert!(!reads.are_under_way());
        let (one, other) = (reads.turn(TURN).await, reads.turn(TURN).await);
        drop(one);
        assert!(reads.are_under_way());
        drop(other);
        assert!(!reads.are_under_way());
    }

    #[tokio::test]
    async fn a_long_read_waits_for_a_short_log_but_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let reads = reads(&folder, QUIET);
        let at_most = Duration::from_millis(50);
        let turn = reads.turn(at_most);
        tokio::pin!(turn);
        assert!(tokio::time::timeout(at_most / 2, &mut turn).await.is_err());
        let late = turn.await;
        assert!(!reads.are_under_way(), "nobody waits for the end of one that could not wait");
        drop(late);
        let turn = reads.turn(TURN);
        let shorten = async { std::fs::File::create(&*reads.log).unwrap() };
        let (_turn, _) = tokio::join!(turn, shorten);
        assert!(reads.are_under_way());
    }

    #[test]
    fn an_old_read_ends_when_it_is_in_the_way_and_each_at_its_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let deadline = YIELDS * 2;
        let said = |log, age: Duration| {
            let begun = BootTime(Clock::System.boot().0.saturating_sub(age));
            judge(&reads(&folder, log).log, begun, deadline)
        };
        assert_eq!(said(LONG, Duration::ZERO), NOT);
        assert_eq!(said(LONG - 1, YIELDS), NOT);
        assert_eq!(said(LONG, YIELDS), IN_THE_WAY);
        assert_eq!(said(0, deadline), LATE);
    }
}
