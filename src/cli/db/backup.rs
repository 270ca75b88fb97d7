//! `db backup`: a consistent copy of the database in a new file, while others work on it.

use super::staging::{Staging, parent, sync_folder};
use crate::cli::Context;
use crate::cli::error::{Error, Result};
use crate::cli::output::bytes;
use crate::cli::when::spoken;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where the copy goes.
#[derive(Debug, clap::Args)]
pub struct BackupArgs {
    /// The file to write; it must not exist.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Does it. The file appears when it is whole and on the disk.
///
/// # Errors
/// The file exists or cannot be written, or the database has a tool of its own for that.
pub async fn run(context: &mut Context, arguments: &BackupArgs) -> Result {
    let file = context.config.base.join(&arguments.file);
    let exists = || {
        Error::failed("exists", format!("backup {}: the file exists, and a backup replaces nothing", file.display()))
            .hint("name another file, for example one with the date")
    };
    if file.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let start = context.clock.boot();
    let store = context.store().await?;
    let staging = Staging::beside(&file)?;
    let made = staging.path("backup.db");
    store.backup(&made).await.map_err(|error| {
        let error = Error::from(error);
        Error { message: format!("backup {}: {}", file.display(), error.message), ..error }
    })?;
    let size = publish(&made, &file).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(),
        _ => Error::failed("io", format!("backup {}: {error}", file.display())),
    })?;
    let took = context.clock.boot().since(start);
    if context.format().is_json() {
        let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let file = file.display().to_string();
        return context.output.json(&serde_json::json!({"file": file, "bytes": size, "duration_ms": took}));
    }
    context.output.line(&format!("wrote {}: {} in {}", file.display(), bytes(size), spoken(took)))
}

/// Gives the finished copy its name, which nobody else may have taken meanwhile. Returns its size.
fn publish(made: &Path, file: &Path) -> io::Result<u64> {
    let copy = File::open(made)?;
    copy.set_permissions(Permissions::from_mode(0o600))?;
    copy.sync_all()?;
    // A link and not a rename: it fails when the name is taken. The other name goes with its folder.
    match std::fs::hard_link(made, file) {
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported) => {
            // A file system without links.
            if file.symlink_metadata().is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            std::fs::rename(made, file)?;
        }
        result => result?,
    }
    sync_folder(parent(file))?;
    Ok(copy.metadata()?.len())
}
