//! The SQLite half of the store: one writer actor, a small pool of readers, a watch on other processes' commits.
//!
//! Several processes on one file are normal. WAL lets readers go on while somebody writes; `synchronous=FULL` makes a commit
//! survive a power cut. It never opens a file on a network file system, where SQLite's locks do not hold.

mod api;
mod attempt;
mod backup;
mod batch;
mod batch_rows;
mod check;
mod checkpoint;
mod claim;
mod direct;
mod enqueue;
mod export;
mod keep;
mod lanes;
mod ledger;
mod log;
mod migrate;
mod operate;
mod queue;
mod read;
mod reading;
mod schedule;
mod snapshots;
mod sql;
mod steer;
mod vault;
mod watch;
mod workers;
mod writer;

use super::Error;
use crate::clock::Clock;
use crate::store::rows::Columns;
use crate::store::standing::Board;
use direct::Direct;
use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePool, SqlitePoolOptions};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use writer::Writer;

pub(super) use export::Export;
use migrate::NEWEST as NEWEST_SCHEMA;

/// How long SQLite itself waits for a lock before it says BUSY; the writer then tries again.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long opening is tried again while the file is busy: SQLite does not wait when two processes that open a new file
/// both turn the write-ahead log on, one of them is told at once that it is locked.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);
/// The pause between two tries to open.
const OPEN_PAUSE: Duration = Duration::from_millis(20);
/// Readers at a time: the worker's loop, commands, and one spare.
const READERS: u32 = 4;
/// Pages that a connection keeps in memory, in SQLite's terms: negative is KiB. The indexes of a million jobs are written to at
/// random places.
const CACHE_SIZE: &str = "-32768";
/// The oldest SQLite that is sound: before 3.51.3 a WAL reset could lose a commit.
const OLDEST_SQLITE: (u32, u32, u32) = (3, 51, 3);

/// An open SQLite database. Cheap to clone.
pub struct Sqlite {
    inner: Arc<Inner>,
    /// Which commits this clone has told of.
    told: watch::Cursor,
}

impl Clone for Sqlite {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), told: watch::Cursor::default() }
    }
}

struct Inner {
    path: PathBuf,
    writer: Writer,
    readers: SqlitePool,
    reads: reading::Reads,
    watch: watch::Watch,
    clock: Clock,
    version: String,
    board: Arc<Board>,
}

impl Sqlite {
    /// Opens the file, creates it on first use (its folder with mode 0700), and migrates it.
    pub(super) async fn open(path: &Path, clock: Clock) -> Result<Self, Error> {
        prepare_folder(path)?;
        let (file, watching) = (path.to_owned(), clock.clone());
        let opened = tokio::task::spawn_blocking(move || open_writer(&file, &watching)).await;
        let opened = opened.unwrap_or_else(|error| Err(Error::Unusable(format!("opening it failed: {error}"))));
        let (connection, version) = opened.map_err(|error| match error {
            Error::Unusable(message) | Error::Backend { message, .. } => {
                Error::Unusable(format!("database {}: {message}", path.display()))
            }
            other => other,
        })?;
        let reading = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("query_only", "ON")
            .disable_statement_logging();
        let reads = reading::Reads::new(path);
        let readers = bounded_readers(&reads).connect_lazy_with(reading);
        let board = Arc::new(Board::default());
        let writer = Writer::start(connection, path.to_owned(), clock.clone(), board.clone())?;
        let watch = watch::Watch::new(path);
        Ok(Self {
            inner: Arc::new(Inner { path: path.to_owned(), writer, readers, reads, watch, clock, version, board }),
            told: watch::Cursor::default(),
        })
    }

    /// A connection of its own that only reads, for what takes long.
    async fn connect_reader(&self) -> Result<SqliteConnection, Error> {
        let options = SqliteConnectOptions::new()
            .filename(&self.inner.path)
            .read_only(true)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        Ok(options.connect().await?)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.inner.writer.is_closed()
    }

    /// Commits what was sent and closes the file, when this is the last clone.
    pub(super) async fn close(self) {
        if let Some(inner) = Arc::into_inner(self.inner) {
            inner.watch.close().await;
            inner.readers.close().await;
            inner.writer.close().await;
        }
    }
}

/// A pool whose connections end what takes too long. Nobody asks them for a sign of life: a file has no network in between.
fn bounded_readers(reads: &reading::Reads) -> SqlitePoolOptions {
    let (fresh, again) = (reads.clone(), reads.clone());
    SqlitePoolOptions::new()
        .max_connections(READERS)
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            let reads = fresh.clone();
            Box::pin(async move { reads.bound(connection).await })
        })
        .before_acquire(move |connection, _| {
            let reads = again.clone();
            Box::pin(async move { reads.bound(connection).await.map(|()| true) })
        })
}

/// The writer's connection to a migrated database, and the version of SQLite.
fn open_writer(path: &Path, clock: &Clock) -> Result<(Direct, String), Error> {
    let start = clock.boot();
    loop {
        match try_open_writer(path, clock) {
            Err(Error::Backend { busy: true, .. }) if clock.boot().since(start) < OPEN_PATIENCE => {
                std::thread::sleep(OPEN_PAUSE);
            }
            result => return result,
        }
    }
}

fn try_open_writer(path: &Path, clock: &Clock) -> Result<(Direct, String), Error> {
    let connection = Direct::open(path, BUSY_TIMEOUT)?;
    let version = sqlite_version(&connection)?;
    migrate::migrate(&connection, clock.now())?;
    Ok((connection, version))
}

fn sqlite_version(connection: &Direct) -> Result<String, Error> {
    let version = connection.one("SELECT sqlite_version() AS version", [], |row| row.text("version"))?;
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    if (next(), next(), next()) < OLDEST_SQLITE {
        let (major, minor, patch) = OLDEST_SQLITE;
        return Err(Error::Unusable(format!(
            "this program is linked with SQLite {version}; {major}.{minor}.{patch} or later is needed: build it with the bundled one"
        )));
    }
    Ok(version)
}

/// Makes the folder of the database and refuses network file systems.
fn prepare_folder(path: &Path) -> Result<(), Error> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
            Error::Unusable(format!("the folder of the database, {}, cannot be made: {error}", folder.display()))
        })?;
    }
    let facts = rustix::fs::statfs(folder)
        .map_err(|error| Error::Unusable(format!("the folder of the database, {}: {error}", folder.display())))?;
    if let Some(name) = network_file_system(facts.f_type) {
        return Err(Error::Unusable(format!(
            "the database {} is on a network file system ({name}), where SQLite's locks do not hold: put it on a local disk",
            path.display()
        )));
    }
    Ok(())
}

/// The name of a network file system by the magic number of statfs(2); None for others.
fn network_file_system(magic: impl TryInto<u64>) -> Option<&'static str> {
    // Some kernels hand the number out sign-extended from 32 bits.
    let magic = magic.try_into().ok()? & 0xffff_ffff;
    match magic {
        0x6969 => Some("NFS"),
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => Some("SMB"),
        0x5346_414f => Some("AFS"),
        0x00c3_6400 => Some("Ceph"),
        0x0bd0_0bd0 => Some("Lustre"),
        0x0102_1997 => Some("9P"),
        0x7461_636f => Some("OCFS2"),
        0x0116_1970 => Some("GFS2"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_name() {
        assert_eq!(network_file_system(0x6969_i64), Some("NFS"));
        assert_eq!(network_file_system(0xff53_4d42_u64), Some("SMB"));
        assert_eq!(network_file_system(0xef53_i64), None);
    }
}
