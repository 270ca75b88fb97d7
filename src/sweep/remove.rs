//! Removing files without being led astray: everything goes through open folders, and links are removed, never followed.

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What was removed, or would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Removed {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// Folders within folders that are gone into: the program itself makes none.
const DEPTH: usize = 16;

fn open_folder(at: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn open_root(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Names in a folder; none when it is not there. One that cannot be read is said in the log: what is in it stays.
pub(super) fn names(folder: &Path) -> Vec<String> {
    let read = || std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>();
    match read() {
        // A name that is no UTF-8 is none of ours.
        Ok(names) => names.into_iter().filter_map(|name| name.into_string().ok()).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "a folder cannot be looked through for what dead workers left");
            Vec::new()
        }
    }
}

/// Removes one file of ours, and says why in the log.
pub(super) fn file(path: &Path, reason: &str) {
    match std::fs::remove_file(path) {
        Ok(()) => tracing::info!(path = %path.display(), reason, "removed"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "could not be removed"),
    }
}

/// Removes the folder `name` in `root` with everything in it.
pub(super) fn tree(root: &Path, name: &str, dry_run: bool) -> io::Result<Removed> {
    let mut removed = Removed::default();
    if name.is_empty() || name.starts_with('.') || name.contains('/') {
        return Err(io::Error::other(format!("`{name}` is no worker's id")));
    }
    let root_folder = match open_root(root) {
        Err(Errno::NOENT) => return Ok(removed),
        other => other?,
    };
    let name = OsStr::new(name);
    match open_folder(&root_folder, name) {
        Ok(folder) => {
            empty(&folder, &root.join(name), DEPTH, dry_run, &mut removed)?;
            if !dry_run {
                rustix::fs::unlinkat(&root_folder, name, AtFlags::REMOVEDIR)?;
            }
        }
        Err(Errno::NOENT) => {}
        // A file or a link that bears the id of a dead worker.
        Err(Errno::NOTDIR | Errno::LOOP) => one(&root_folder, name, root, dry_run, &mut removed)?,
        Err(error) => return Err(error.into()),
    }
    Ok(removed)
}

fn empty(folder: &OwnedFd, path: &Path, depth: usize, dry_run: bool, removed: &mut Removed) -> io::Result<()> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            entries.push(name);
        }
    }
    for name in entries {
        match open_folder(folder, &name) {
            Ok(inner) if depth > 0 => {
                empty(&inner, &path.join(&name), depth - 1, dry_run, removed)?;
                if !dry_run {
                    rustix::fs::unlinkat(folder, &name, AtFlags::REMOVEDIR)?;
                }
            }
            Ok(_) => return Err(io::Error::other(format!("{} is nested too deeply", path.display()))),
            Err(Errno::NOENT) => {}
            Err(_) => one(folder, &name, path, dry_run, removed)?,
        }
    }
    Ok(())
}

/// Removes one entry that is not a folder.
fn one(folder: &OwnedFd, name: &OsStr, path: &Path, dry_run: bool, removed: &mut Removed) -> io::Result<()> {
    let facts = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    if !dry_run {
        match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        tracing::info!(path = %path.join(name).display(), reason = "its worker is dead", "removed");
    }
    removed.files += 1;
    if FileType::from_raw_mode(facts.st_mode) == FileType::RegularFile {
        removed.bytes += u64::try_from(facts.st_size).unwrap_or(0);
    }
    Ok(())
}

/// Removes a registered file of a dead worker. Only paths of the two shapes that the program makes are believed:
/// `STATE_DIR/tmp/<worker>/NAME` and `LAYOUT/.freightliner-tmp/<worker>/NAME`.
pub(super) fn registered(path: &Path, worker: &str, own_folder: &Path, dry_run: bool) -> Result<Removed, String> {
    let name = path.file_name().ok_or("it has no name")?;
    let folder = path.parent().ok_or("it has no folder")?;
    if folder.file_name() != Some(OsStr::new(worker)) {
        return Err("its folder does not bear its worker's id".to_owned());
    }
    let root = folder.parent().ok_or("it has no folder")?;
    let inside_layout = root.file_name() == Some(OsStr::new(crate::tempfiles::INSIDE_FOLDER));
    if folder != own_folder && !inside_layout {
        return Err("it is in no folder that this program makes".to_owned());
    }
    let result = if inside_layout {
        in_layout(root.parent().ok_or("it has no folder")?, worker, name, dry_run)
    } else {
        in_folder(root, worker, name, dry_run)
    };
    result.map_err(|error| error.to_string())
}

fn in_folder(root: &Path, worker: &str, name: &OsStr, dry_run: bool) -> io::Result<Removed> {
    let mut removed = Removed::default();
    let Some(root_folder) = absent_is_none(open_root(root))? else { return Ok(removed) };
    let Some(folder) = absent_is_none(open_folder(&root_folder, OsStr::new(worker)))? else { return Ok(removed) };
    one(&folder, name, &root.join(worker), dry_run, &mut removed)?;
    Ok(removed)
}

/// As [`in_folder`], and the folders go when they are empty: the layout is somebody's.
fn in_layout(layout: &Path, worker: &str, name: &OsStr, dry_run: bool) -> io::Result<Removed> {
    let mut removed = Removed::default();
    let inside = OsStr::new(crate::tempfiles::INSIDE_FOLDER);
    let Some(layout_folder) = absent_is_none(open_root(layout))? else { return Ok(removed) };
    let Some(root) = absent_is_none(open_folder(&layout_folder, inside))? else { return Ok(removed) };
    let Some(folder) = absent_is_none(open_folder(&root, OsStr::new(worker)))? else { return Ok(removed) };
    let path: PathBuf = layout.join(inside).join(worker);
    one(&folder, name, &path, dry_run, &mut removed)?;
    if !dry_run {
        for (at, name) in [(&root, OsStr::new(worker)), (&layout_folder, inside)] {
            match rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(removed)
}

fn absent_is_none(opened: Result<OwnedFd, Errno>) -> io::Result<Option<OwnedFd>> {
    match opened {
        Ok(folder) => Ok(Some(folder)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const WORKER: &str = "01890000-0000-7000-8000-000000000001";

    #[test]
    fn a_tree_goes_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let precious = dir.path().join("precious");
        std::fs::create_dir(&precious).unwrap();
        std::fs::write(precious.join("file"), "keep").unwrap();
        let root = dir.path().join("tmp");
        let folder = root.join(WORKER);
        std::fs::create_dir_all(folder.join("deep")).unwrap();
        std::fs::write(folder.join("a"), "12345").unwrap();
        std::fs::write(folder.join("deep/b"), "678").unwrap();
        symlink(&precious, folder.join("link")).unwrap();
        let would = tree(&root, WORKER, true).unwrap();
        assert!(folder.join("a").exists(), "a dry run removes nothing");
        let removed = tree(&root, WORKER, false).unwrap();
        assert_eq!(would, removed);
        assert_eq!(removed, Removed { files: 3, bytes: 8 });
        assert!(!folder.exists());
        assert!(precious.join("file").exists());
        // The folder itself may be a link.
        symlink(&precious, root.join(WORKER)).unwrap();
        tree(&root, WORKER, false).unwrap();
        assert!(precious.join("file").exists() && !root.join(WORKER).exists());
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("tmp");
        std::fs::create_dir_all(dir.path().join("victim")).unwrap();
        std::fs::create_dir(&root).unwrap();
        for name in ["../victim", "..", ".", "", "/etc"] {
            assert!(tree(&root, name, false).is_err(), "{name}");
        }
        assert!(dir.path().join("victim").exists() && root.exists());
    }

    #[test]
    fn registered_paths_of_other_shapes_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("tmp").join(WORKER);
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "keep").unwrap();
        let elsewhere = dir.path().join("elsewhere").join(WORKER);
        std::fs::create_dir_all(&elsewhere).unwrap();
        std::fs::write(elsewhere.join("x"), "keep").unwrap();
        for path in [victim.clone(), elsewhere.join("x"), own.join("../../victim"), PathBuf::from("/")] {
            assert!(registered(&path, WORKER, &own, false).is_err(), "{}", path.display());
        }
        assert!(victim.exists() && elsewhere.join("x").exists());
    }

    #[test]
    fn registered_files_in_layouts_go_with_their_empty_folders() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join(crate::tempfiles::INSIDE_FOLDER).join(WORKER);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("blob"), "1234").unwrap();
        let removed = registered(&folder.join("blob"), WORKER, Path::new("/elsewhere"), false).unwrap();
        assert_eq!(removed, Removed { files: 1, bytes: 4 });
        assert!(dir.path().exists() && !dir.path().join(crate::tempfiles::INSIDE_FOLDER).exists());
    }
}
