//! Checkpoints of our own: the write-ahead log stays bounded while our own readers are always active.
//!
//! SQLite's automatic checkpoint copies what it can at every thousandth page and leaves the file as long as it ever was; with
//! a reader always at work it may never start the file over. So ours truncates the file, after the callers were answered, and
//! waits for readers the longer the larger the file is. A snapshot that somebody else keeps open must not be waited for: then
//! the file grows, and is truncated soon after the snapshot ends.

use crate::clock::{BootTime, Clock};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use std::path::PathBuf;
use std::time::Duration;

const MIB: u64 = 1024 * 1024;

/// From this size on the log is truncated when that is possible at once.
const SMALL: u64 = 8 * MIB;
/// How long readers are waited for, by the size of the log. A read of ours ends within its deadline; while it is waited for
/// nobody writes, so that the log cannot pass its bound.
const WAITS: [(u64, Duration); 3] = [
    (40 * MIB, Duration::from_millis(6000)),
    (20 * MIB, Duration::from_millis(200)),
    (SMALL, Duration::from_millis(10)),
];
/// The log is never longer than this unless somebody else keeps a snapshot open.
const BOUND: u64 = 64 * MIB;
/// Growth after which a checkpoint that was in vain is tried again.
const STEP: u64 = 8 * MIB;
/// Time after which a checkpoint that was in vain is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often the size is looked at when nobody writes here: others write too.
const LOOK: Duration = Duration::from_secs(2);

/// Decides when to truncate the log, and does it.
pub(super) struct Checkpoints {
    log: PathBuf,
    clock: Clock,
    busy_timeout: Duration,
    /// The last try was in vain: the size of the log then, and when that was.
    vain: Option<(u64, BootTime)>,
    told: bool,
}

impl Checkpoints {
    pub(super) fn new(options: &SqliteConnectOptions, clock: Clock) -> Self {
        let mut log = options.get_filename().as_os_str().to_owned();
        log.push("-wal");
        Self { log: log.into(), clock, busy_timeout: super::BUSY_TIMEOUT, vain: None, told: false }
    }

    /// Returns when the size is to be looked at although nothing was written here. Safe to drop.
    pub(super) async fn due(&self) {
        tokio::time::sleep(if self.vain.is_some() { AGAIN } else { LOOK }).await;
    }

    /// The log is long enough to be truncated, and that was not tried just now.
    pub(super) fn wanted(&self) -> bool {
        self.wait(self.size()).is_some()
    }

    /// Truncates the log when it is long enough. Its failure is nobody's error: what is committed is safe in the log.
    pub(super) async fn after_commit(&mut self, connection: &mut SqliteConnection) {
        let size = self.size();
        let Some(wait) = self.wait(size) else { return };
        match truncate(connection, wait, self.busy_timeout).await {
            Ok(true) => {
                if self.told {
                    tracing::info!(was_bytes = size, "the write-ahead log is short again");
                }
                (self.vain, self.told) = (None, false);
            }
            Ok(false) => {
                self.vain = Some((size, self.clock.boot()));
                if size > BOUND && !self.told {
                    self.told = true;
                    tracing::warn!(
                        bytes = size,
                        "the write-ahead log grows: another program keeps a transaction on the database open; end it"
                    );
                }
            }
            Err(error) => {
                self.vain = Some((size, self.clock.boot()));
                tracing::debug!(%error, "a checkpoint failed, trying again");
            }
        }
    }

    fn size(&self) -> u64 {
        std::fs::metadata(&self.log).map_or(0, |facts| facts.len())
    }

    /// How long to wait for readers; None when the log is short, or was tried just now.
    fn wait(&self, size: u64) -> Option<Duration> {
        let (_, wait) = WAITS.into_iter().find(|(from, _)| size >= *from)?;
        let Some((vain, at)) = self.vain else { return Some(wait) };
        if self.clock.boot().since(at) >= AGAIN {
            // Whoever was waited for in vain with all patience is not waited for again: everybody else would stand still.
            return Some(if vain > WAITS[0].0 { WAITS[2].1 } else { wait });
        }
        // Patience grows with the file, once for each step.
        let passed = |bound: u64| vain < bound && size >= bound;
        let worth_it = passed(WAITS[0].0) || passed(WAITS[1].0) || (vain < WAITS[0].0 && size >= vain + STEP);
        worth_it.then_some(wait)
    }
}

/// True when the log is empty now; false when somebody reads from it, or another process is at it.
async fn truncate(connection: &mut SqliteConnection, wait: Duration, usual: Duration) -> Result<bool, sqlx::Error> {
    set_busy_timeout(connection, wait).await?;
    let done = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut *connection).await;
    set_busy_timeout(connection, usual).await?;
    Ok(done?.try_get::<i64, _>(0)? == 0)
}

async fn set_busy_timeout(connection: &mut SqliteConnection, wait: Duration) -> Result<(), sqlx::Error> {
    let text = format!("PRAGMA busy_timeout = {}", wait.as_millis());
    sqlx::query(sqlx::AssertSqlSafe(text)).persistent(false).execute(connection).await?;
    Ok(())
}
