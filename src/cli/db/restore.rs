//! `db restore`: a backup becomes the database, and nothing that a worker of the lost time still holds has any effect on it.
//!
//! Everything that can fail happens to a copy beside the database: copying, checking, raising the epochs. Then one rename
//! puts it in place, so that at every moment either the old database is there or the new one, whole. SQLite would read the
//! old one's write-ahead log into the new file, so the log is worked in and gone before. A log that stays although it was
//! worked in belongs to a process that has the database open.

use super::idle::no_living_worker;
use super::staging::{Staging, parent, sync_folder};
use crate::cli::Context;
use crate::cli::error::{Error, Result};
use crate::cli::report::count;
use crate::config::ensure_private_dir;
use crate::store::{DatabaseUrl, Restored, Store};
use serde::Serialize;
use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::io::AsyncWriteExt;

/// Bytes copied at a time.
const CHUNK: usize = 1024 * 1024;
/// The first bytes of an SQLite file: <https://www.sqlite.org/fileformat.html>, section 1.3.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Where the number of the program stands that a file belongs to.
const APPLICATION: std::ops::Range<usize> = 68..72;
/// Ours.
const OURS: &[u8; 4] = b"FRGT";
/// What SQLite puts beside a file and would read into another one of the same name.
const LOGS: [&str; 2] = ["-wal", "-journal"];

/// What is restored.
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// A file that `db backup` wrote.
    #[arg(value_name = "FILE", required_unless_present = "in_place")]
    file: Option<PathBuf>,
    /// Replace the database that is there; it is kept beside the new one.
    #[arg(long)]
    force: bool,
    /// The database has been restored by other means (pg_restore): only make it safe for workers.
    #[arg(long, conflicts_with_all = ["file", "force"])]
    in_place: bool,
}

/// What was done, as programs see it.
#[derive(Debug, Serialize)]
struct Done {
    database: String,
    from: Option<String>,
    kept: Option<String>,
    #[serde(flatten)]
    restored: Restored,
}

/// Does it.
///
/// # Errors
/// A worker is at work, the file is no sound backup, or a database is there already; the database is as it was then.
pub async fn run(context: &mut Context, arguments: &RestoreArgs) -> Result {
    no_living_worker(context, "its database cannot be restored")?;
    let done = match &arguments.file {
        Some(file) => from_file(context, &context.config.base.join(file), arguments.force).await?,
        None => {
            let store = context.store().await?;
            let restored = store.invalidate(&context.actor()).await?;
            Done { database: store.info().await?.url, from: None, kept: None, restored }
        }
    };
    if context.format().is_json() {
        return context.output.json(&done);
    }
    let number = |number: u64, noun| count(usize::try_from(number).unwrap_or(usize::MAX), noun);
    let Done { database, from, kept, restored } = done;
    let from = from.map(|from| format!(" from {from}")).unwrap_or_default();
    context.output.line(&format!("restored {database}{from}: {}", number(restored.jobs, "job")))?;
    let mut pairs = vec![
        ("queued again", format!("{} that ran when the backup was made", number(restored.requeued, "job"))),
        (
            "forgotten",
            format!("{}, {}", number(restored.workers, "worker"), number(restored.temp_files, "temporary file")),
        ),
    ];
    pairs.extend(kept.map(|kept| ("kept", format!("{kept}, the database that was there before"))));
    context.output.pairs(&pairs)
}

async fn from_file(context: &Context, backup: &Path, force: bool) -> Result<Done> {
    let DatabaseUrl::Sqlite(target) = &context.config.database else {
        return Err(Error::usage("PostgreSQL is restored by its own tools")
            .hint("use pg_restore or psql, then freightliner db restore --in-place, and only then start workers"));
    };
    let exists = target.symlink_metadata().is_ok();
    check_file(backup, target)?;
    if exists && !force {
        let message = format!("restore {}: there is a database already", target.display());
        return Err(Error::failed("exists", message).hint("--force replaces it and keeps it under another name"));
    }
    let failed = |error: io::Error| Error::failed("io", format!("restore {}: {error}", target.display()));
    ensure_private_dir(parent(target)).map_err(failed)?;
    let staging = Staging::beside(target)?;
    let made = staging.path("restored.db");
    copy(backup, &made).await.map_err(|error| {
        Error::failed("io", format!("cannot copy {} to {}: {error}", backup.display(), made.display()))
    })?;
    let restored = make_safe(context, backup, &made).await?;
    if exists {
        work_in_log(context, target).await?;
    }
    // The copy may have taken a while.
    no_living_worker(context, "its database cannot be restored")?;
    let kept = exists.then(|| with_suffix(target, &format!(".before-restore-{}", time_in_a_name(context))));
    // Nothing is awaited here: a signal cannot come between.
    replace(&made, target, kept.as_deref()).map_err(failed)?;
    let shown = |path: &Path| path.display().to_string();
    Ok(Done { database: shown(target), from: Some(shown(backup)), kept: kept.as_deref().map(shown), restored })
}

/// A backup of ours, not the database itself and not one that is in use.
fn check_file(backup: &Path, target: &Path) -> Result {
    let shown = backup.display();
    let failed = |error: io::Error| {
        let code = if error.kind() == io::ErrorKind::NotFound { "not_found" } else { "io" };
        Error::failed(code, format!("cannot read the backup {shown}: {error}"))
    };
    let mut file = File::open(backup).map_err(failed)?;
    let facts = file.metadata().map_err(failed)?;
    if target.metadata().is_ok_and(|target| (target.dev(), target.ino()) == (facts.dev(), facts.ino())) {
        return Err(Error::usage(format!("{shown} is the database itself"))
            .hint("to make a database safe that was restored by other means: freightliner db restore --in-place"));
    }
    let mut header = [0; 100];
    let whole = facts.is_file() && file.read_exact(&mut header).is_ok();
    if !whole || !header.starts_with(MAGIC) || header.get(APPLICATION) != Some(OURS.as_slice()) {
        return Err(Error::failed("invalid", format!("{shown} is no backup of a freightliner database"))
            .hint("name a file that `freightliner db backup` wrote"));
    }
    if let Some(log) = logs_of(backup, 1).into_iter().next() {
        let message = format!("{shown} is a database in use, not a backup: there is {}", log.display());
        return Err(Error::failed("in_use", message)
            .hint(format!("make a backup of it first: freightliner --database sqlite:{shown} db backup FILE")));
    }
    Ok(())
}

/// Copies the bytes; they are on the disk then. Dropped, it stops.
async fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let source = tokio::fs::File::open(from).await?;
    let mut target = tokio::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).await?;
    tokio::io::copy_buf(&mut tokio::io::BufReader::with_capacity(CHUNK, source), &mut target).await?;
    target.flush().await?;
    target.sync_all().await
}

/// Checks the copy and invalidates what workers of the lost time hold; all of it is in the file then, none in a log.
async fn make_safe(context: &Context, backup: &Path, made: &Path) -> Result<Restored> {
    let of_backup =
        |error: Error| Error { message: format!("backup {}: {}", backup.display(), error.message), ..error };
    let open = Store::open(&DatabaseUrl::Sqlite(made.to_owned()), context.clock.clone()).await;
    let store = open.map_err(|error| of_backup(error.into()))?;
    let checked = checked(context, &store).await;
    store.close().await;
    let restored = checked.map_err(of_backup)?;
    match logs_of(made, 1).into_iter().next() {
        None => Ok(restored),
        Some(log) => Err(Error::failed("backend", format!("{} was not worked in; nothing was changed", log.display()))),
    }
}

async fn checked(context: &Context, store: &Store) -> Result<Restored> {
    if let Some(finding) = store.check().await?.into_iter().next() {
        return Err(Error::failed("corrupt", format!("it is damaged: {}: {}", finding.check, finding.message))
            .hint("use another backup"));
    }
    Ok(store.invalidate(&context.actor()).await?)
}

/// Has SQLite work the log of the old database in, by opening and closing it. Whoever closes it last removes the log, an
/// empty one too. The database itself may be unusable, which may be why it is replaced.
async fn work_in_log(context: &Context, target: &Path) -> Result {
    if logs_of(target, 0).is_empty() {
        return Ok(());
    }
    let why = match Store::open(&DatabaseUrl::Sqlite(target.to_owned()), context.clock.clone()).await {
        Ok(store) => {
            store.close().await;
            "another process has the database open".to_owned()
        }
        Err(error) => {
            format!("the database that is there cannot be opened ({error}), and another process may have it open")
        }
    };
    match logs_of(target, 0).first() {
        None => Ok(()),
        Some(log) => Err(Error::failed("in_use", format!("restore {}: {why}", target.display())).hint(format!(
            "stop all workers, sqlite3 shells and other readers; if there are none, move {} and {} away",
            target.display(),
            log.display()
        ))),
    }
}

/// The old database gets its other name, the new one the old one's. With one rename the name changes hands.
fn replace(made: &Path, target: &Path, kept: Option<&Path>) -> io::Result<()> {
    let file = File::open(made)?;
    adopt(&file, made, target)?;
    file.sync_all()?;
    if let Some(kept) = kept {
        std::fs::hard_link(target, kept)?;
    }
    // An index of a log that is gone.
    match std::fs::remove_file(with_suffix(target, "-shm")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    sync_folder(parent(target))?;
    std::fs::rename(made, target)?;
    sync_folder(parent(target))
}

/// The new file belongs to whom the old one belonged to: who restores may be root, who works need not be.
fn adopt(file: &File, made: &Path, target: &Path) -> io::Result<()> {
    let (facts, mode) = match target.metadata() {
        Ok(facts) => {
            let mode = facts.mode() & 0o777;
            (facts, mode)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => (parent(target).metadata()?, 0o600),
        Err(error) => return Err(error),
    };
    file.set_permissions(Permissions::from_mode(mode))?;
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(made, Some(facts.uid()), Some(facts.gid()))?;
    }
    Ok(())
}

/// Logs beside a database of at least this size, bytes.
fn logs_of(database: &Path, least: u64) -> Vec<PathBuf> {
    let logs = LOGS.into_iter().map(|suffix| with_suffix(database, suffix));
    logs.filter(|log| log.metadata().is_ok_and(|facts| facts.len() >= least)).collect()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// The time as it may stand in a file's name, to the millisecond: `20261123T060000.000Z`.
fn time_in_a_name(context: &Context) -> String {
    context.clock.now().to_rfc3339().chars().filter(|c| !"-:".contains(*c)).collect()
}
