//! A folder for a file that is in the making, beside the place where it will stand: on the same file system, so that one
//! rename puts it there, whole.
//!
//! It goes with its owner. What an owner that was killed left is found by its lock, which the kernel dropped, and removed by
//! the next one.

use crate::cli::error::{Error, Result};
use crate::worker::presence::{Proof, probe};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How the names of these folders begin.
const PREFIX: &str = ".freightliner-making-";
/// The lock file in it.
const LOCK: &str = "lock";

/// A folder that goes with its owner.
pub struct Staging {
    folder: tempfile::TempDir,
    // Held for its lock.
    _lock: File,
}

impl Staging {
    /// A new folder, mode 0700, beside the file; folders of dead owners there are removed.
    ///
    /// # Errors
    /// The folder that the file will stand in is not there or cannot be written.
    pub fn beside(file: &Path) -> Result<Self> {
        let parent = parent(file);
        let failed = |error: &io::Error| {
            Error::failed("io", format!("cannot make {}: {}: {error}", file.display(), parent.display()))
                .hint("name a file in a folder that exists and that you may write")
        };
        remove_left(parent).map_err(|error| failed(&error))?;
        Self::new(parent).map_err(|error| failed(&error))
    }

    fn new(parent: &Path) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = File::from(rustix::fs::open(folder.path().join(LOCK), flags, Mode::RUSR | Mode::WUSR)?);
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { folder, _lock: lock })
    }

    /// The path of a file in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// The folder that a file stands in.
#[must_use]
pub fn parent(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The names in a folder are on the disk.
///
/// # Errors
/// The folder cannot be opened or synced.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Removes folders whose owners are dead. Only our own: in a shared folder others may make what they like.
fn remove_left(parent: &Path) -> io::Result<()> {
    let uid = rustix::process::geteuid().as_raw();
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // Of the entry itself: a link is not followed.
        let facts = entry.metadata()?;
        if !facts.is_dir() || facts.uid() != uid {
            continue;
        }
        let path = entry.path();
        match probe(&path.join(LOCK)) {
            Ok(Proof::Dead(_)) => {
                std::fs::remove_dir_all(&path)?;
                tracing::warn!(folder = %path.display(), "removed what an interrupted command left");
            }
            // An empty one is left by a death in the moment before its lock; one that is not empty is none of ours.
            Ok(Proof::Missing) => std::fs::remove_dir(&path).unwrap_or_default(),
            Ok(Proof::Alive) | Err(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_with_its_owner_and_a_dead_owners_with_the_next() {
        let root = tempfile::tempdir().unwrap();
        let names = || std::fs::read_dir(root.path()).unwrap().count();
        let file = root.path().join("copy.db");
        let living = Staging::beside(&file).unwrap();
        std::fs::write(living.path("half"), "x").unwrap();
        // As a killed owner leaves it: a lock file that nobody holds.
        let dead = root.path().join(format!("{PREFIX}dead"));
        std::fs::create_dir(&dead).unwrap();
        std::fs::write(dead.join(LOCK), "").unwrap();
        std::fs::write(dead.join("half"), "x").unwrap();
        std::fs::create_dir(root.path().join(format!("{PREFIX}empty"))).unwrap();
        let foreign = root.path().join(format!("{PREFIX}foreign"));
        std::fs::create_dir(&foreign).unwrap();
        std::fs::write(foreign.join("mine"), "x").unwrap();
        let second = Staging::beside(&file).unwrap();
        assert!(!dead.exists() && living.path("half").exists() && foreign.join("mine").exists());
        drop((living, second));
        assert_eq!(names(), 1);
        assert!(Staging::beside(&root.path().join("absent/copy.db")).is_err());
    }
}
