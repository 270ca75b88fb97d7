//! A backup: a consistent copy of the database while others write to it as fast as they can.
//!
//! Not by `VACUUM INTO`, which sees one moment to its end: as long as it takes, minutes for a large file, the log grows. Here
//! the file is copied in pieces, each as it is at a moment of its own (see `snapshots`). Pages that were written after they were
//! copied are copied again, until all that is left is copied at one moment: then the whole copy is of that moment. Should
//! others write faster than this copies, the rest is copied at one moment however long that takes.

use super::Sqlite;
use super::snapshots::{LOG, Snapshots};
use crate::store::Error;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How the work is cut, bytes.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Copied as of one moment: some milliseconds.
    piece: u64,
    /// If no more than this is left, it is copied at one moment.
    last: u64,
    /// Written before it must be on the disk.
    unsynced: u64,
    /// From this length on the log is to begin anew.
    log: u64,
    /// When this was written, and `rounds` times the size that the database had, the rest is copied at one moment.
    least: u64,
    rounds: u64,
}

const MIB: u64 = 1024 * 1024;
const LIMITS: Limits =
    Limits { piece: 2 * MIB, last: 8 * MIB, unsynced: 8 * MIB, log: LOG, least: 256 * MIB, rounds: 3 };
/// How the name of a copy in the making begins.
const PREFIX: &str = ".freightliner-backup-";
/// Where the first page says that there is a log: two for yes, one for no.
const VERSIONS: std::ops::Range<usize> = 18..20;

impl Sqlite {
    pub(in crate::store) async fn backup(&self, file: &Path) -> Result<(), Error> {
        if file.symlink_metadata().is_ok() {
            return Err(exists(file));
        }
        let wanted = Wanted(Arc::new(AtomicBool::new(true)));
        let (path, file, goes_on) = (self.inner.path.clone(), file.to_owned(), wanted.0.clone());
        let run = move || write(&path, &file, LIMITS, &|| goes_on.load(Ordering::Relaxed));
        let failed = |error| Error::Backend { message: format!("the backup ended badly: {error}"), busy: false };
        tokio::task::spawn_blocking(run).await.unwrap_or_else(|error| Err(failed(error)))
    }
}

/// Somebody waits for the backup. When this is dropped it ends soon and leaves nothing.
struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

fn exists(file: &Path) -> Error {
    Error::Invalid(format!("{} exists: give the backup another name", file.display()))
}

/// Writes the copy under another name; its own it gets when it is whole and on the disk.
fn write(database: &Path, file: &Path, limits: Limits, goes_on: &dyn Fn() -> bool) -> Result<(), Error> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Nobody else may read it, and it goes when this fails.
    let target = tempfile::Builder::new().prefix(PREFIX).tempfile_in(folder).map_err(unwritten)?;
    let snapshots = Snapshots::open(database, limits.log)?;
    let length =
        Copy { snapshots, target: target.as_file(), limits, copied: 0, stale: BTreeSet::new() }.run(goes_on)?;
    target.as_file().set_len(length).map_err(unwritten)?;
    target.as_file().sync_all().map_err(unwritten)?;
    target.persist_noclobber(file).map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => exists(file),
        _ => unwritten(error.error),
    })?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(unwritten)
}

fn unwritten(error: io::Error) -> Error {
    let advice = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            " (no space left: free some, or name a file on another disk)"
        }
        io::ErrorKind::FileTooLarge => " (raise the limit on the size of files)",
        _ => "",
    };
    Error::Backend { message: format!("writing the backup: {error}{advice}"), busy: false }
}

/// A copy in the making.
struct Copy<'a> {
    snapshots: Snapshots,
    target: &'a File,
    limits: Limits,
    /// So many pages from the first on were copied.
    copied: u32,
    /// Those among them that were written since.
    stale: BTreeSet<u32>,
}

impl Copy<'_> {
    /// Copies until all is of one moment. Returns how long the file is then.
    fn run(mut self, goes_on: &dyn Fn() -> bool) -> Result<u64, Error> {
        let page_size = self.snapshots.page_size() as u64;
        let enough = (u64::from(self.snapshots.pages()) * page_size * self.limits.rounds).max(self.limits.least);
        let (mut written, mut synced) = (0, 0);
        loop {
            let pages = self.snapshots.pages();
            // A database can become smaller.
            self.copied = self.copied.min(pages);
            let copied = self.copied;
            self.stale.extend(self.snapshots.take_changed());
            self.stale.retain(|page| *page <= copied);
            let left = (u64::from(pages - copied) + self.stale.len() as u64) * page_size;
            let is_last = left <= self.limits.last || written >= enough;
            written += self.copy_piece(if is_last { left } else { self.limits.piece }, goes_on)?;
            if is_last {
                return Ok(u64::from(pages) * page_size);
            }
            if written - synced >= self.limits.unsynced {
                // Little at a time: others wait for the disk too.
                self.target.sync_data().map_err(unwritten)?;
                synced = written;
            }
            self.snapshots.advance()?;
        }
    }

    /// Copies so many bytes of what is left, or a little more. Returns how many it were.
    fn copy_piece(&mut self, bytes: u64, goes_on: &dyn Fn() -> bool) -> Result<u64, Error> {
        let page_size = self.snapshots.page_size();
        let most = u32::try_from(self.limits.piece / page_size as u64).unwrap_or(u32::MAX).max(1);
        let mut buffer = Vec::new();
        let mut done = 0;
        while done < bytes {
            if !goes_on() {
                return Err(Error::Backend { message: "the backup was given up".to_owned(), busy: false });
            }
            let (first, count) = match self.snapshots.pages() - self.copied {
                0 => match self.stale.pop_first() {
                    Some(page) => (page, 1),
                    None => break,
                },
                new => (self.copied + 1, new.min(most)),
            };
            buffer.resize(count as usize * page_size, 0);
            self.snapshots.read(first, &mut buffer)?;
            if first == 1
                && let Some(versions) = buffer.get_mut(VERSIONS)
            {
                // The copy has no log beside it, so that it can be read where nothing can be written.
                versions.fill(1);
            }
            self.target.write_all_at(&buffer, u64::from(first - 1) * page_size as u64).map_err(unwritten)?;
            self.copied = self.copied.max(first - 1 + count);
            done += buffer.len() as u64;
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::super::direct::Direct;
    use super::*;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicI64, AtomicUsize};
    use std::time::Duration;

    /// Many small pieces.
    const SMALL: Limits = Limits { piece: 64 * 1024, last: 64 * 1024, log: 64 * 1024, ..LIMITS };
    const WRITERS: usize = 3;

    /// A database that others work on. Each transaction moves an amount from one account to another, writes that into the
    /// history, and counts.
    struct Scene {
        folder: tempfile::TempDir,
        /// The number of the last transaction of each writer that was acknowledged.
        acknowledged: [AtomicI64; WRITERS],
        stop: AtomicBool,
        backups: AtomicUsize,
    }

    impl Scene {
        fn new(page_size: u32, accounts: u32) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let plain = rusqlite::Connection::open(folder.path().join("x.db")).unwrap();
            plain
                .execute_batch(&format!(
                    "PRAGMA page_size = {page_size}; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;
                    CREATE TABLE accounts (id INTEGER PRIMARY KEY, amount INTEGER NOT NULL, filling BLOB);
                    CREATE INDEX by_amount ON accounts (amount, id);
                    CREATE TABLE history (writer INTEGER, n INTEGER, amount INTEGER, filling BLOB, PRIMARY KEY (writer, n));
                    CREATE TABLE totals (writer INTEGER PRIMARY KEY, n INTEGER NOT NULL, amount INTEGER NOT NULL);
                    INSERT INTO totals VALUES (0, 0, 0), (1, 0, 0), (2, 0, 0);
                    WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < {accounts} - 1)
                        INSERT INTO accounts SELECT n, 0, zeroblob(500) FROM n;"
                ))
                .unwrap();
            plain.close().unwrap();
            Self {
                folder,
                acknowledged: Default::default(),
                stop: AtomicBool::new(false),
                backups: AtomicUsize::new(0),
            }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("x.db")
        }

        fn goes_on(&self) -> bool {
            !self.stop.load(Ordering::SeqCst)
        }

        fn open(&self) -> Direct {
            Direct::open(&self.path(), Duration::from_secs(30)).unwrap()
        }

        /// Writes as fast as it can; sometimes much, and sometimes so that the file becomes shorter.
        fn write(&self, writer: usize, accounts: u32) {
            let direct = self.open();
            direct.script("PRAGMA synchronous = OFF").unwrap();
            let mut random = writer as u64 + 1;
            for n in 1.. {
                if !self.goes_on() {
                    return;
                }
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let account = |shift: u32| i64::try_from((random >> shift) % u64::from(accounts)).unwrap();
                let (from, to, amount) = (account(20), account(33), account(40));
                direct.script("BEGIN IMMEDIATE").unwrap();
                let change = "UPDATE accounts SET amount = amount + ?2, filling = randomblob(400) WHERE id = ?1";
                direct.run(change, (from, -amount)).unwrap();
                direct.run(change, (to, amount)).unwrap();
                let note = "INSERT INTO history VALUES (?1, ?2, ?3, randomblob(?4))";
                direct.run(note, (writer as i64, n, amount, if n % 50 == 0 { 100_000 } else { 100 })).unwrap();
                let count = "UPDATE totals SET n = ?2, amount = amount + ?3 WHERE writer = ?1";
                direct.run(count, (writer as i64, n, amount)).unwrap();
                if n % 200 == 0 {
                    direct.run("UPDATE history SET filling = NULL WHERE writer = ?1", [writer as i64]).unwrap();
                    direct.script("PRAGMA incremental_vacuum").unwrap();
                }
                direct.script("COMMIT").unwrap();
                self.acknowledged[writer].store(n, Ordering::SeqCst);
            }
        }

        /// Copies the log into the database, in every way that there is.
        fn checkpoint(&self) {
            let direct = self.open();
            direct.set_busy_timeout(Duration::from_millis(5)).unwrap();
            for mode in ["PASSIVE", "TRUNCATE", "PASSIVE", "RESTART", "FULL"].iter().cycle() {
                if !self.goes_on() {
                    return;
                }
                direct.script(&format!("PRAGMA wal_checkpoint({mode})")).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        }

        /// Reads, longer and longer ones.
        fn read(&self) {
            let direct = Direct::open_reading(&self.path(), Duration::from_secs(30)).unwrap();
            for at in 0..u64::MAX {
                if !self.goes_on() {
                    return;
                }
                direct.script("BEGIN; SELECT COUNT(*) FROM totals").unwrap();
                std::thread::sleep(Duration::from_millis(at % 40));
                direct.script("COMMIT").unwrap();
                // Now and then nobody reads, and the log begins anew while a piece is copied.
                std::thread::sleep(Duration::from_millis(at % 30));
            }
        }

        /// Makes a backup, and looks whether it is one of a moment after this call.
        fn backup(&self, limits: Limits) {
            let before: Vec<i64> = self.acknowledged.iter().map(|n| n.load(Ordering::SeqCst)).collect();
            let file = self.folder.path().join(format!("{}.db", self.backups.fetch_add(1, Ordering::SeqCst)));
            write(&self.path(), &file, limits, &|| true).unwrap();
            let copy =
                rusqlite::Connection::open_with_flags(&file, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
            let text = |query: &str| copy.query_row(query, [], |row| row.get::<_, String>(0)).unwrap();
            let number = |query: &str| copy.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap();
            assert_eq!(text("PRAGMA integrity_check"), "ok");
            assert_eq!(text("PRAGMA journal_mode"), "delete", "it needs no log");
            let size = number("PRAGMA page_count") * number("PRAGMA page_size");
            assert_eq!(file.metadata().unwrap().len(), u64::try_from(size).unwrap());
            assert_eq!(number("SELECT SUM(amount) FROM accounts"), 0);
            let wrong = "SELECT COUNT(*) FROM totals AS t WHERE (n, n, amount) IS NOT
                (SELECT COUNT(*), COALESCE(MAX(h.n), 0), COALESCE(SUM(amount), 0) FROM history AS h WHERE h.writer = t.writer)";
            assert_eq!(number(wrong), 0, "its tables are of different moments");
            for (writer, n) in before.into_iter().enumerate() {
                assert!(number(&format!("SELECT n FROM totals WHERE writer = {writer}")) >= n, "what was acknowledged");
            }
            std::fs::remove_file(&file).unwrap();
        }

        /// Backups while everybody is at work.
        fn backups_under_load(&self, accounts: u32, limits: Limits, rounds: usize) {
            std::thread::scope(|scope| {
                for writer in 0..WRITERS {
                    scope.spawn(move || self.write(writer, accounts));
                }
                scope.spawn(|| self.checkpoint());
                scope.spawn(|| self.read());
                // Whatever fails here, the others must end.
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    while self.acknowledged.iter().any(|n| n.load(Ordering::SeqCst) == 0) {
                        std::thread::yield_now();
                    }
                    for _ in 0..rounds {
                        self.backup(limits);
                    }
                }));
                self.stop.store(true, Ordering::SeqCst);
                done.unwrap();
            });
        }
    }

    #[test]
    fn a_backup_is_of_one_moment_while_all_write_read_and_checkpoint() {
        Scene::new(4096, 4000).backups_under_load(4000, SMALL, 6);
    }

    #[test]
    fn a_backup_is_right_with_other_sizes_of_pages() {
        for page_size in [1024, 65_536] {
            Scene::new(page_size, 1000).backups_under_load(1000, SMALL, 3);
        }
    }

    #[test]
    fn who_writes_faster_than_it_copies_does_not_make_it_last_for_ever() {
        let slow = Limits { piece: 1, last: 0, least: 0, rounds: 2, ..SMALL };
        Scene::new(4096, 1000).backups_under_load(1000, slow, 2);
    }
}
