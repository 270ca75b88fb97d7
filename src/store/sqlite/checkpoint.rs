//! Checkpoints of our own: the write-ahead log stays bounded while our own readers are always active.
//!
//! SQLite's automatic checkpoint copies what it can at every thousandth page and leaves the file as long as it ever was; with
//! a reader always at work it may never start the file over. So ours, after the callers were answered, truncates a file that has
//! become long, and waits for readers the longer the larger it is. Whoever waits holds the write lock, and all processes stand still. So a
//! snapshot that somebody else keeps open must not be waited for: the file grows then, and is truncated soon after the snapshot
//! ends. What tells them apart is age. A first checkpoint that waits for nobody shows up to which frame the readers let it come;
//! a process waits only while it knows that this barrier is younger than any read of ours. One that has just started knows
//! nothing, and does not wait unless a long read of ours is under way: those end soon (see `reading`).

use super::direct::{Direct, Record};
use super::reading::Reads;
use crate::clock::{BootTime, Clock};
use crate::store::Error;
use crate::store::rows::Columns;
use std::path::{Path, PathBuf};
use std::time::Duration;

const MIB: u64 = 1024 * 1024;

/// What is in the log is copied when it is this long. The file keeps its length then and is written over from its start, which
/// costs a commit less than a file that grows.
pub(super) const SMALL: u64 = 8 * MIB;
/// From this size on the log is truncated when that is possible at once.
const ROOMY: u64 = 16 * MIB;
/// From this size on readers are waited for, with patience: no read of ours lasts longer than that (see `reading`). So far below
/// the bound, because one transaction of a few thousand jobs with long names adds tens of MiB.
pub(super) const LONG: u64 = 32 * MIB;
/// How long readers are waited for, by the size of the log. While they are waited for nobody writes, so that the log cannot pass
/// its bound.
const WAITS: [(u64, Duration); 3] = [(LONG, PATIENCE), (ROOMY, Duration::from_millis(200)), (SMALL, AT_ONCE)];
/// A snapshot that is older than this is not waited for any longer: it is not ours. A read of ours ends sooner, by so much that
/// neither a busy machine nor the time between two looks matters.
const PATIENCE: Duration = Duration::from_secs(6);
const _: () = assert!(super::reading::YIELDS.as_millis() + AGAIN.as_millis() < PATIENCE.as_millis());
/// The wait of a checkpoint that nobody seems to hold up.
const AT_ONCE: Duration = Duration::from_millis(10);
/// The log is never longer than this unless somebody else keeps a snapshot open.
const BOUND: u64 = 64 * MIB;
/// Growth after which a checkpoint that was in vain is tried again.
const STEP: u64 = 8 * MIB;
/// Time after which a checkpoint that was in vain is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often the size is looked at when nobody writes here: others write too.
const LOOK: Duration = Duration::from_secs(2);
/// The first look: somebody may have left a long log behind, and a read waits for its turn.
const FIRST_LOOK: Duration = Duration::from_millis(10);

/// The frame up to which readers let a checkpoint come.
#[derive(Debug, Clone, Copy)]
struct Barrier {
    frame: i64,
    /// It is not older than this; None when nobody here knows.
    since: Option<BootTime>,
    seen: BootTime,
}

/// Decides when to truncate the log, and does it.
pub(super) struct Checkpoints {
    log: PathBuf,
    reads: Reads,
    clock: Clock,
    busy_timeout: Duration,
    barrier: Option<Barrier>,
    /// When the log was seen short last.
    short: Option<BootTime>,
    /// The last try was in vain: the size of the log then, and when that was.
    vain: Option<(u64, BootTime)>,
    told: bool,
}

impl Checkpoints {
    pub(super) fn new(file: &Path, clock: Clock) -> Self {
        let mut log = file.as_os_str().to_owned();
        log.push("-wal");
        let busy_timeout = super::BUSY_TIMEOUT;
        Self {
            log: log.into(),
            reads: Reads::new(file),
            clock,
            busy_timeout,
            barrier: None,
            short: None,
            vain: None,
            told: false,
        }
    }

    /// After how long the size is to be looked at although nothing was written here.
    pub(super) const fn due(&self) -> Duration {
        match (self.vain, self.short) {
            (Some(_), _) => AGAIN,
            (None, None) => FIRST_LOOK,
            (None, Some(_)) => LOOK,
        }
    }

    /// The log is long enough to be truncated, and that was not tried just now.
    pub(super) fn wanted(&self) -> bool {
        self.is_worth_it(self.size())
    }

    /// Truncates the log when it is long enough. Its failure is nobody's error: what is committed is safe in the log.
    pub(super) fn after_commit(&mut self, connection: &Direct) {
        let size = self.size();
        if size < SMALL || (size < ROOMY && connection.log_length() < SMALL) {
            self.is_short(size);
            return;
        }
        if !self.is_worth_it(size) {
            return;
        }
        let done = if size < ROOMY { copy(connection).map(Copied::is_all) } else { self.shorten(connection, size) };
        match done {
            Ok(true) => self.is_short(size),
            Ok(false) => {
                // Not at the first look: a command that ends at once is not the one to say so.
                if size > BOUND && self.vain.is_some() && !self.told {
                    self.told = true;
                    tracing::warn!(
                        bytes = size,
                        "the write-ahead log grows: another program keeps a transaction on the database open; end it"
                    );
                }
                self.vain = Some((size, self.clock.boot()));
            }
            Err(error) => {
                self.vain = Some((size, self.clock.boot()));
                tracing::debug!(%error, "a checkpoint failed, trying again");
            }
        }
    }

    fn is_short(&mut self, was: u64) {
        if std::mem::take(&mut self.told) {
            tracing::info!(was_bytes = was, "the write-ahead log is short again");
        }
        self.short = Some(self.clock.boot());
        (self.barrier, self.vain) = (None, None);
    }

    fn size(&self) -> u64 {
        std::fs::metadata(&self.log).map_or(0, |facts| facts.len())
    }

    /// False when the log is short, or was tried just now.
    fn is_worth_it(&self, size: u64) -> bool {
        let Some((vain, at)) = self.vain else { return size >= SMALL };
        let grown = size >= vain.saturating_add(STEP) || WAITS.iter().any(|(from, _)| vain < *from && size >= *from);
        size >= SMALL && (grown || self.clock.boot().since(at) >= AGAIN)
    }

    /// True when the log is empty now; false when somebody reads from it, or another process is at it.
    fn shorten(&mut self, connection: &Direct, size: u64) -> Result<bool, Error> {
        let copied = copy(connection)?;
        if copied.until < 0 {
            return Ok(false);
        }
        let least = if copied.is_all() { AT_ONCE } else { Duration::ZERO };
        let age = self.age(copied.until);
        // Long reads of ours end within our patience, whenever each of them began, and no other one begins while the log is long:
        // they are waited for once.
        let left = if self.reads.are_under_way() {
            PATIENCE
        } else {
            age.map_or(Duration::ZERO, |age| PATIENCE.saturating_sub(age))
        };
        let wait = WAITS.iter().find(|(from, _)| size >= *from).map_or(AT_ONCE, |(_, wait)| *wait).min(left).max(least);
        if wait.is_zero() {
            return Ok(false);
        }
        connection.set_busy_timeout(wait)?;
        let done = connection.one("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.int("busy"));
        connection.set_busy_timeout(self.busy_timeout)?;
        Ok(done? == 0)
    }

    /// How old the oldest snapshot can be that lets a checkpoint come to this frame only; None when that is not known.
    fn age(&mut self, frame: i64) -> Option<Duration> {
        let now = self.clock.boot();
        let since = match self.barrier {
            Some(barrier) if barrier.frame == frame => barrier.since,
            // It was made after the last look.
            Some(barrier) => Some(barrier.seen),
            None => self.short,
        };
        self.barrier = Some(Barrier { frame, since, seen: now });
        since.map(|since| now.since(since))
    }
}

/// Frames of the log, and up to which of them the database has them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copied {
    pub(super) frames: i64,
    /// -1 when somebody else was at it.
    pub(super) until: i64,
}

impl Copied {
    pub(super) const fn is_all(self) -> bool {
        self.frames == self.until
    }
}

/// Copies what readers let it copy. Waits for nobody and holds nobody up.
pub(super) fn copy(connection: &Direct) -> Result<Copied, Error> {
    connection.one("PRAGMA wal_checkpoint(PASSIVE)", [], read)
}

/// How it stands. Copies nothing and takes no lock.
pub(super) fn copied(connection: &Direct) -> Result<Copied, Error> {
    connection.one("PRAGMA wal_checkpoint(NOOP)", [], read)
}

fn read(row: &Record<'_>) -> Result<Copied, Error> {
    Ok(Copied { frames: row.int("log")?, until: row.int("checkpointed")? })
}
