//! Notices commits of any process: `PRAGMA data_version`, asked by a connection that never writes.
//!
//! Polling that number is the truth: within [`POLL`] every commit is noticed, whatever else fails. Two things tell sooner.
//! This process says so itself after commits that may give somebody something to do ([`Watch::committed`]). And the kernel
//! says when somebody writes to the write-ahead log; the commit follows only after its fsync, so after such an event the
//! number is looked at a few times in short, growing steps. Either may be lost without harm.
//!
//! No task does this: whoever waits looks, one at a time, for all who wait. What is noticed raises a number that all can see,
//! and each waits for it to pass the number it last returned with.
//!
//! The wal-index (`-shm`) holds the same fact and could be read for less. It must not be opened: closing a file drops all
//! POSIX locks of the process on it, those of SQLite too.

mod events;
#[cfg(test)]
mod tests;

use crate::store::Error;
use events::Events;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Row};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::time::{Interval, MissedTickBehavior};

/// How often the number is looked at when nothing is heard: the latest that a commit is noticed.
const POLL: Duration = Duration::from_millis(50);
/// Pauses before the looks that follow an event, in milliseconds, until the commit shows. It follows its last write by one
/// fsync, so the first are short; all together are as long as [`POLL`], because a disk may be slow.
const STEPS: [u64; 13] = [0, 1, 1, 1, 2, 2, 3, 5, 8, 8, 8, 8, 8];
/// The first of the longest steps; where it stays while more is written: bounds what a long transaction of somebody else, or
/// a storm of commits, costs.
const LONGEST: usize = 8;
/// The shortest time between two looks at once after an event: bounds what a storm of short commits costs.
const PACE: Duration = Duration::from_millis(2);

/// Commits of all processes on one file.
pub(super) struct Watch {
    options: SqliteConnectOptions,
    /// How many times a commit was noticed.
    noticed: watch::Sender<u64>,
    eyes: Mutex<Eyes>,
}

/// Up to where one subscriber has been told.
#[derive(Debug, Default)]
pub(super) struct Cursor(AtomicU64);

/// What whoever looks needs. Dropping a look half way costs nothing: the answer is thrown away, and the next one is compared
/// with what was seen before.
struct Eyes {
    connection: Option<SqliteConnection>,
    seen: Option<i64>,
    events: Events,
    poll: Option<Interval>,
    pace: Option<Interval>,
    /// The step after an event; past the last one it is quiet.
    step: usize,
    /// A pause is over and its look not yet done.
    owed: bool,
    /// Something was written since the last look.
    heard: bool,
}

impl Watch {
    pub(super) fn new(options: SqliteConnectOptions) -> Self {
        let mut log = options.get_filename().as_os_str().to_owned();
        log.push("-wal");
        Self::with(options, Events::new(PathBuf::from(log)))
    }

    fn with(options: SqliteConnectOptions, events: Events) -> Self {
        let eyes = Eyes {
            connection: None,
            seen: None,
            events,
            poll: None,
            pace: None,
            step: STEPS.len(),
            owed: false,
            heard: false,
        };
        // One more than a new cursor has been told, so that its first call returns at once.
        Self { options, noticed: watch::Sender::new(1), eyes: Mutex::new(eyes) }
    }

    /// Something was committed that somebody may wait for. To be called after such commits of this process, so that nobody has
    /// to find them; not after those that give nobody anything to do, and above all not after a claim that found nothing: it
    /// would wake those who claim.
    pub(super) fn committed(&self) {
        self.noticed.send_modify(|noticed| *noticed += 1);
    }

    /// Returns when something was committed since the last return with this cursor, or after `at_most`. The first call returns
    /// at once. Safe to drop while it waits. Callers with one cursor in common are all woken while they wait, but may take each
    /// other's commits while they do not.
    pub(super) async fn changed(&self, cursor: &Cursor, at_most: Duration) -> Result<(), Error> {
        let told = cursor.0.load(Ordering::Relaxed);
        let mut noticed = self.noticed.subscribe();
        let wait = async {
            if told == 0 {
                self.begin().await?;
            }
            loop {
                let now = *noticed.borrow_and_update();
                if now != told {
                    cursor.0.fetch_max(now, Ordering::Relaxed);
                    return Ok(());
                }
                tokio::select! {
                    // The sender is ours: this cannot fail.
                    _ = noticed.changed() => {}
                    looked = self.look() => looked?,
                }
            }
        };
        tokio::time::timeout(at_most, wait).await.unwrap_or(Ok(()))
    }

    /// Remembers the number as it is, when nobody has looked yet: only what is committed later is news.
    async fn begin(&self) -> Result<(), Error> {
        // Who has the lock does that.
        if let Ok(mut eyes) = self.eyes.try_lock()
            && eyes.seen.is_none()
        {
            eyes.version(&self.options).await?;
        }
        Ok(())
    }

    /// Returns when a look has noticed a commit and all who wait know it.
    async fn look(&self) -> Result<(), Error> {
        let mut eyes = self.eyes.lock().await;
        while !eyes.next(&self.options).await? {}
        self.committed();
        Ok(())
    }

    /// Closes its connection; a later look opens another one.
    pub(super) async fn close(&self) {
        let connection = self.eyes.lock().await.connection.take();
        if let Some(connection) = connection
            && let Err(error) = connection.close().await
        {
            tracing::debug!(%error, "closing the watch connection");
        }
    }
}

impl Eyes {
    /// Waits until it is time for a look, and looks: whether something was committed since the last one.
    async fn next(&mut self, options: &SqliteConnectOptions) -> Result<bool, Error> {
        if !self.owed {
            self.pause().await;
            self.owed = true;
        }
        // Taken before the look: what is written during it is the next event.
        self.heard |= self.events.take();
        let changed = self.version(options).await?;
        self.owed = false;
        let heard = std::mem::take(&mut self.heard);
        self.step = match (heard, changed) {
            // Writers come one after the other: nothing was written since the last look, so what was written then is
            // committed now.
            (false, true) => STEPS.len(),
            (false, false) => (self.step + 1).min(STEPS.len()),
            // This may have been an older commit, and the one of what was written is still to come.
            (true, true) => LONGEST,
            (true, false) if self.step == STEPS.len() => 0,
            (true, false) => (self.step + 1).min(LONGEST),
        };
        Ok(changed)
    }

    /// Returns when the number should be looked at: the next step after an event, an event, or the time of the poll.
    async fn pause(&mut self) {
        let poll = self.poll.get_or_insert_with(|| every(POLL));
        let pace = self.pace.get_or_insert_with(|| every(PACE));
        let heard = async {
            if self.step == STEPS.len() {
                self.events.next().await;
                self.heard = true;
                self.step = 0;
            }
            match STEPS[self.step] {
                0 => drop(pace.tick().await),
                pause => tokio::time::sleep(Duration::from_millis(pause)).await,
            }
        };
        tokio::select! {
            _ = poll.tick() => self.events.renew(),
            () = heard => poll.reset(),
        }
    }

    /// Asks for the number: whether it is another one than before.
    async fn version(&mut self, options: &SqliteConnectOptions) -> Result<bool, Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                // The number means nothing across connections.
                self.seen = None;
                options.connect().await?
            }
        };
        let connection = self.connection.insert(connection);
        let asked = async { sqlx::query("PRAGMA data_version").fetch_one(connection).await?.try_get::<i64, _>(0) };
        match asked.await {
            Ok(version) => Ok(self.seen.replace(version) != Some(version)),
            Err(error) => {
                self.connection = None;
                Err(error.into())
            }
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
