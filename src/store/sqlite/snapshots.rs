//! The pages of a database as they were at one moment, then at a later one, and which of them changed in between: while any
//! number of processes write to it, and without the log having to grow.
//!
//! A read transaction sees one moment, and as long as it lasts the log cannot begin anew. So there is a chain of short ones:
//! the next one has begun before the one before it ends. Why nothing is missed:
//!
//! - A reader of frames keeps the log from beginning anew, so that every frame that was written since stays there. A reader that
//!   found the whole log in the database needs none of them (SQLite's read lock 0); but as long as it is there nothing is
//!   copied into the database, so the log can begin anew once at most, before anything else was written. So whatever was
//!   committed since the older of two readers began is in the log when the later one has begun, and stays there until the
//!   first of them ends.
//! - The moment that is seen is that of the last commit in the log when the reader had begun. Each page is, as of then, in the
//!   last frame that holds it, and where there is none, in the database. Up to the reader's mark checkpoints of others may copy
//!   frames into the database meanwhile, so that a page there may be half old and half new; but that is a page with a frame,
//!   which is not read from there. Where all frames were in the database already, that is what is seen; it does not change until
//!   the reader ends.
//!
//! With such a chain there is a reader of the log at every moment, and it could still not begin anew. So for a moment nobody
//! may write: the rest of the log is copied into the database, and the next reader needs none of it.
//!
//! The database itself is read as a file. POSIX drops all locks that a process has on a file when it closes any descriptor of
//! it, those of SQLite too: another process could then take the database for unused. So that descriptor is never closed. The
//! index of the log (`-shm`) must not even be opened.

use super::checkpoint::{Copied, SMALL, copied, copy};
use super::direct::Direct;
use super::log::{FRAME_HEADER, Generation, Log};
use crate::clock::Clock;
use crate::store::Error;
use crate::store::rows::Columns;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The log begins anew when it is this long, bytes: before writers of ours copy it, and long before they wait for readers.
pub(super) const LOG: u64 = SMALL / 2;
/// How often a reader is begun. Once is enough, unless the log begins anew at just that moment.
const TRIES: u32 = 10;
/// How long other readers are waited for while nobody may write. Those of our own mostly take less.
const READERS_WAIT: Duration = Duration::from_millis(50);
/// The pause between two tries.
const PAUSE: Duration = Duration::from_micros(500);

/// A descriptor of a database, by device and inode.
type Kept = ((u64, u64), Arc<File>);

/// They are never closed.
static KEPT: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

/// The moment that is seen now, and what is needed for the next one.
pub(super) struct Snapshots {
    file: Arc<File>,
    log: Log,
    page_size: usize,
    /// Has a read transaction, but for the first moment.
    held: Direct,
    free: Direct,
    /// Takes the write lock, and writes nothing.
    lock: Direct,
    /// Copies from the log into the database.
    copier: Direct,
    /// From which length on the log is to begin anew, bytes.
    log_limit: u64,
    /// The size of the database in pages.
    pages: u32,
    /// Where the newest copy of a page is that may not be in the database yet, by page: the number of its frame.
    in_log: BTreeMap<u32, u32>,
    /// How far the log is known: None before the first moment.
    known: Option<(Option<Generation>, u32)>,
    /// Pages that were written since it was asked.
    changed: BTreeSet<u32>,
    /// The frame up to which readers let a checkpoint come who were waited for in vain.
    barrier: Option<i64>,
}

impl Snapshots {
    /// The database as it is now.
    ///
    /// # Errors
    /// Those of SQLite and of the file system.
    pub(super) fn open(path: &Path, log_limit: u64) -> Result<Self, Error> {
        let wait = super::BUSY_TIMEOUT;
        let lock = Direct::open(path, wait)?;
        lock.set_busy_timeout(Duration::ZERO)?;
        let page_size = lock.one("PRAGMA page_size", [], |row| row.count("page_size"))?;
        let page_size = usize::try_from(page_size).map_err(unreadable)?;
        let mut snapshots = Self {
            held: Direct::open_reading(path, wait)?,
            free: Direct::open_reading(path, wait)?,
            copier: Direct::open(path, wait)?,
            lock,
            file: keep(path).map_err(unreadable)?,
            log: Log::open(path, page_size).map_err(unreadable)?,
            page_size,
            log_limit,
            pages: 0,
            in_log: BTreeMap::new(),
            known: None,
            changed: BTreeSet::new(),
            barrier: None,
        };
        if !snapshots.step()? {
            let message = format!("the log of {} is not that of SQLite, or not its own", path.display());
            return Err(Error::Unusable(message));
        }
        Ok(snapshots)
    }

    pub(super) const fn page_size(&self) -> usize {
        self.page_size
    }

    /// The size of the database, pages.
    pub(super) const fn pages(&self) -> u32 {
        self.pages
    }

    /// Pages that were written since this was asked last, up to the moment that is seen now; there may be others among them.
    pub(super) fn take_changed(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.changed)
    }

    /// Reads pages, the first one with this number, from one, as they are at the moment that is seen now.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn read(&self, first: u32, pages: &mut [u8]) -> Result<(), Error> {
        self.read_files(first, pages).map_err(unreadable)
    }

    fn read_files(&self, first: u32, pages: &mut [u8]) -> io::Result<()> {
        let mut from_file = 0;
        while from_file < pages.len() {
            let (_, rest) = pages.split_at_mut(from_file);
            match self.file.read_at(rest, u64::from(first - 1) * self.page_size as u64 + from_file as u64) {
                // New pages may be in the log alone.
                Ok(0) => {
                    rest.fill(0);
                    break;
                }
                Ok(read) => from_file += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        for (number, page) in (first..).zip(pages.chunks_exact_mut(self.page_size)) {
            if let Some(frame) = self.in_log.get(&number) {
                self.log.read_page(*frame, page)?;
            }
        }
        Ok(())
    }

    /// Goes on to a later moment, when that is possible, and lets the log begin anew when it is long and nobody writes just now.
    /// To be called often: who has the write lock may be somebody who waits for our reader, so that the log can begin anew. Two
    /// steps let go of it.
    ///
    /// # Errors
    /// Those of SQLite and of the file system.
    pub(super) fn advance(&mut self) -> Result<(), Error> {
        self.step()?;
        let copied = self.look()?;
        if self.length(copied.frames) < self.log_limit {
            return Ok(());
        }
        if self.length(copied.frames - copied.until) >= self.log_limit {
            // Most of it, while others write.
            copy(&self.copier)?;
        }
        match self.lock.script("BEGIN IMMEDIATE") {
            Ok(()) => {
                let done = self.begin_log_anew();
                self.lock.script("ROLLBACK")?;
                done
            }
            Err(Error::Backend { busy: true, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Copies what is in the log, and sees the end of it in the database alone. Nobody may write meanwhile.
    fn begin_log_anew(&mut self) -> Result<(), Error> {
        self.step()?;
        let start = Clock::System.boot();
        loop {
            let copied = copy(&self.copier)?;
            if copied.is_all() {
                break;
            }
            if self.barrier == Some(copied.until) || Clock::System.boot().since(start) >= READERS_WAIT {
                self.barrier = Some(copied.until);
                break;
            }
            std::thread::sleep(PAUSE);
        }
        self.step().map(|_| ())
    }

    /// How much of the log is in the database.
    fn look(&self) -> Result<Copied, Error> {
        let start = Clock::System.boot();
        loop {
            let copied = copied(&self.copier)?;
            // It says so when somebody is about to change what it looks at.
            if copied.frames >= 0 || Clock::System.boot().since(start) >= super::BUSY_TIMEOUT {
                return Ok(copied);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Of so many frames, bytes.
    fn length(&self, frames: i64) -> u64 {
        u64::try_from(frames).unwrap_or(0).saturating_mul((self.page_size + FRAME_HEADER) as u64)
    }

    /// Begins the next reader, and ends the one before it. False when the log began anew at just that moment, again and again;
    /// then the moment stays.
    fn step(&mut self) -> Result<bool, Error> {
        for _ in 0..TRIES {
            let begun = self.begin();
            if matches!(begun, Ok(true)) {
                std::mem::swap(&mut self.held, &mut self.free);
            }
            // The one that is not held has a transaction, unless this was the first moment, or the beginning failed.
            if let Err(error) = self.free.script("ROLLBACK") {
                tracing::trace!(%error, "ending a read");
            }
            if begun? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn begin(&mut self) -> Result<bool, Error> {
        self.free.script("BEGIN")?;
        let pages = self.free.one("PRAGMA page_count", [], |row| row.count("page_count"))?;
        let generation = self.log.generation().map_err(unreadable)?;
        let now = self.look()?;
        // If the log began anew in the middle of that look, its two numbers do not belong together, or not to the generation. Then
        // it is shorter now, or has another generation.
        let after = self.look()?;
        let is_whole = now.frames <= after.frames && self.log.generation().map_err(unreadable)? == generation;
        Ok(is_whole && self.follow(generation, now, pages)?)
    }

    /// Reads what has come to the log. False when it is not what was expected; then nothing was changed.
    fn follow(&mut self, generation: Option<Generation>, copied: Copied, pages: u64) -> Result<bool, Error> {
        let busy = |_| Error::Backend { message: "its log is busy; try again".to_owned(), busy: true };
        let length = u32::try_from(copied.frames).map_err(busy)?;
        let from = match self.known {
            Some((known, length)) if known == generation => length,
            Some(_) => 0,
            // Nothing has to be known of a log that is in the database; the reader sees just that.
            None if copied.is_all() => length,
            None => 0,
        };
        let mut frames = Vec::new();
        if length > from {
            let Some(generation) = generation else { return Ok(false) };
            match self.log.frames(generation, from + 1..=length).map_err(unreadable)? {
                Some(found) if found.last().is_some_and(|last| last.pages > 0) => frames = found,
                _ => return Ok(false),
            }
        }
        if self.known.is_none_or(|(known, _)| known != generation) || copied.is_all() {
            self.in_log.clear();
        }
        if self.known.is_none() {
            self.pages = u32::try_from(pages).map_err(unreadable)?;
        }
        for (number, frame) in (from + 1..).zip(frames) {
            self.changed.insert(frame.page);
            if !copied.is_all() {
                self.in_log.insert(frame.page, number);
            }
            if frame.pages > 0 {
                self.pages = frame.pages;
            }
        }
        self.known = Some((generation, from.max(length)));
        Ok(true)
    }
}

/// A descriptor of the database that is never closed; the same one for the same file.
fn keep(path: &Path) -> io::Result<Arc<File>> {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let is = |facts: std::fs::Metadata| (facts.dev(), facts.ino());
    let wanted = is(std::fs::metadata(path)?);
    if let Some((_, file)) = kept.iter().find(|(known, _)| *known == wanted) {
        return Ok(file.clone());
    }
    // It is kept before anything else can go wrong.
    let file = Arc::new(File::open(path)?);
    kept.push((wanted, file.clone()));
    Ok(file)
}

fn unreadable(error: impl std::fmt::Display) -> Error {
    Error::Backend { message: format!("reading its files: {error}"), busy: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database with a table in it, and somebody who writes.
    fn database() -> (tempfile::TempDir, std::path::PathBuf, Direct) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let direct = Direct::open(&path, Duration::ZERO).unwrap();
        direct.script("CREATE TABLE t (n INTEGER PRIMARY KEY, x BLOB)").unwrap();
        (folder, path, direct)
    }

    fn write(direct: &Direct, rows: u32) {
        for _ in 0..rows {
            direct.run("INSERT INTO t (x) VALUES (randomblob(9000))", []).unwrap();
            direct
                .run("UPDATE t SET x = randomblob(8000) WHERE n = (SELECT ABS(RANDOM()) % MAX(n) + 1 FROM t)", [])
                .unwrap();
        }
    }

    fn rows(direct: &Direct) -> i64 {
        direct.one("SELECT COUNT(*) AS rows FROM t", [], |row| row.int("rows")).unwrap()
    }

    fn image(snapshots: &Snapshots) -> Vec<u8> {
        let mut image = vec![0; snapshots.pages() as usize * snapshots.page_size()];
        snapshots.read(1, &mut image).unwrap();
        image
    }

    fn assert_whole(image: &[u8], rows_then: i64) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("copy.db");
        std::fs::write(&path, image).unwrap();
        let copy = Direct::open(&path, Duration::ZERO).unwrap();
        let said = copy.one("PRAGMA integrity_check", [], |row| row.text("integrity_check")).unwrap();
        assert_eq!((said.as_str(), rows(&copy)), ("ok", rows_then));
        copy.close();
    }

    #[test]
    fn a_moment_stays_and_what_changes_until_the_next_one_is_known() {
        let (_folder, path, direct) = database();
        // Once all of the log is in the database at first, and once nothing is.
        for log_limit in [0, u64::MAX] {
            write(&direct, 20);
            let mut snapshots = Snapshots::open(&path, log_limit).unwrap();
            let (mut seen, mut rows_then, mut generations) = (image(&snapshots), rows(&direct), Vec::new());
            for round in 0..30 {
                assert_whole(&seen, rows_then);
                for mode in ["PASSIVE", "TRUNCATE", "NOOP"] {
                    write(&direct, round % 7);
                    direct.script(&format!("PRAGMA wal_checkpoint({mode})")).unwrap();
                    assert!(image(&snapshots) == seen, "others changed what is seen, round {round}, {mode}");
                }
                rows_then = rows(&direct);
                snapshots.advance().unwrap();
                let (now, changed) = (image(&snapshots), snapshots.take_changed());
                let size = snapshots.page_size();
                for (number, page) in (1..).zip(now.chunks(size)) {
                    let was = seen.get((number as usize - 1) * size..number as usize * size);
                    assert!(was == Some(page) || changed.contains(&number), "page {number} changed, round {round}");
                }
                seen = now;
                generations.push(snapshots.log.generation().unwrap());
            }
            generations.dedup();
            let expected = if log_limit == 0 { 10.. } else { 1.. };
            assert!(expected.contains(&generations.len()), "the log began anew {} times", generations.len());
        }
        direct.close();
    }

    #[test]
    fn the_log_begins_anew_as_soon_as_a_foreign_reader_ends() {
        let (_folder, path, direct) = database();
        write(&direct, 20);
        let foreign = Direct::open_reading(&path, Duration::ZERO).unwrap();
        foreign.script("BEGIN; SELECT COUNT(*) FROM t").unwrap();
        let mut snapshots = Snapshots::open(&path, 0).unwrap();
        let mut grow = |rows| {
            write(&direct, rows);
            snapshots.advance().unwrap();
            write(&direct, 1);
            copied(&direct).unwrap().frames
        };
        let before = grow(20);
        assert!(grow(20) > before, "a snapshot is kept");
        foreign.close();
        assert!(grow(0) < before, "nobody keeps one");
        direct.close();
    }

    #[test]
    fn a_descriptor_of_a_database_is_kept() {
        let (_folder, path, direct) = database();
        let one = keep(&path).unwrap();
        assert!(Arc::ptr_eq(&one, &keep(&path).unwrap()));
        assert!(Arc::strong_count(&one) >= 2, "it outlives who asked for it");
        direct.close();
    }
}
