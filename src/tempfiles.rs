//! Registered, owner-tagged temporary files (0600) that cannot outlive their job unnoticed.
//!
//! The path of every file is made known durably *before* the file exists, so that whoever cleans up after a dead worker
//! has a list and needs no guess. The obvious way, the system's temporary folder and a guard that deletes on drop, leaves
//! files behind at every `kill -9`. The life of a file: register, create, then either rename into place or unlink; and at
//! the end of the attempt `close` looks once more at everything that was made and takes it off the register.
//!
//! Files lie where they can be renamed from: in the worker's own folder, or, for targets on another file system, in
//! `.freightliner-tmp/<worker>/` inside the target's root. Folders are opened one by one without following links.
//!
//! Nothing here decides what is left over from other workers; that is the sweeper's. Nothing here follows a symbolic link
//! to create, rename or remove, except in the root a caller names.

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::AsyncWriteExt as _;

/// The folder for temporary files inside a foreign root; the worker's own folder lies in it.
pub const INSIDE_FOLDER: &str = ".freightliner-tmp";

/// How often a folder is made anew when somebody removes it in the same moment (another attempt's `close` does, when the
/// folder is empty). Each try needs such a coincidence.
const FOLDER_TRIES: u32 = 16;

/// Most bytes that one hop to the file system carries, per file: large enough to make the hops rare, small enough for
/// many files at once.
pub(crate) const FILE_BUFFER_BYTES: usize = 256 * 1024;

/// A boxed future.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where temporary files are made known before they exist. Implemented by the worker over the store; a no-op for tests.
pub trait Register: Send + Sync {
    /// Durable when it returns.
    fn register<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<(), String>>;
    /// The paths are gone from the disk. Paths that were never registered are ignored.
    fn forget<'a>(&'a self, paths: Vec<PathBuf>) -> BoxFuture<'a, Result<(), String>>;
}

/// A register that remembers nothing: for tests, and for commands that have no database. Files still go when they are
/// dropped or closed, but nobody finds them after a `kill -9`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unregistered;

impl Register for Unregistered {
    fn register<'a>(&'a self, _path: &'a Path) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn forget<'a>(&'a self, _paths: Vec<PathBuf>) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Makes temporary files for one attempt of one job. Cheap to clone; clones share what they made.
#[derive(Clone)]
pub struct TempFiles {
    inner: Arc<Inner>,
}

struct Inner {
    home: PathBuf,
    worker: uuid::Uuid,
    register: Arc<dyn Register>,
    /// Every path that was registered and not forgotten yet, with the folder it is in.
    made: Mutex<BTreeMap<PathBuf, Folder>>,
    /// Held shared while a file is registered and created, exclusively by `close`: otherwise `close` could forget a path
    /// whose file is created a moment later.
    gate: Arc<tokio::sync::RwLock<()>>,
}

/// A folder for temporary files: the last components are ours and never followed when they are links.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Folder {
    /// Exists already, or is made with its parents (for `home`). Links in it are followed.
    base: PathBuf,
    /// Folders below it, made 0700.
    components: Vec<String>,
    /// Whether `base` may be made.
    make_base: bool,
}

impl TempFiles {
    /// `home`: `STATE_DIR/tmp/<worker uuid>`, made 0700 on first use. `worker`: the same uuid, used for folders inside
    /// layouts.
    #[must_use]
    pub fn new(home: PathBuf, worker: uuid::Uuid, register: Arc<dyn Register>) -> Self {
        let (made, gate) = (Mutex::default(), Arc::default());
        Self { inner: Arc::new(Inner { home, worker, register, made, gate }) }
    }

    /// A new file in `home`, 0600, registered before it was created.
    ///
    /// # Errors
    /// When it cannot be registered (then no file was created) or created.
    pub async fn create(&self) -> Result<TempFile, io::Error> {
        let home = std::path::absolute(&self.inner.home)?;
        let (Some(base), Some(name)) = (home.parent(), home.file_name().and_then(|name| name.to_str())) else {
            return Err(failed("create a temporary file in", &home, io::ErrorKind::InvalidInput.into()));
        };
        self.create_in(Folder { base: base.to_owned(), components: vec![name.to_owned()], make_base: true }).await
    }

    /// A new file in `root/.freightliner-tmp/<worker>/` (same file system as `root`, so that it can be renamed into
    /// place), 0600, registered before it was created.
    ///
    /// # Errors
    /// When `root` does not exist, when one of the two folders is a symbolic link or no folder, when the file cannot be
    /// registered (then no file was created) or created.
    pub async fn create_inside(&self, root: &Path) -> Result<TempFile, io::Error> {
        let components = vec![INSIDE_FOLDER.to_owned(), self.inner.worker.to_string()];
        self.create_in(Folder { base: std::path::absolute(root)?, components, make_base: false }).await
    }

    async fn create_in(&self, folder: Folder) -> Result<TempFile, io::Error> {
        let name = uuid::Uuid::now_v7().to_string();
        let path = folder.path().join(&name);
        let gate = self.inner.gate.clone().read_owned().await;
        self.inner.made().insert(path.clone(), folder.clone());
        self.inner
            .register
            .register(&path)
            .await
            .map_err(|cause| failed("register the temporary file", &path, io::Error::other(cause)))?;
        // The gate goes with the work, which runs to its end even when nobody waits for it any more.
        blocking(move || {
            let made = folder.create_file(&name);
            drop(gate);
            let (folder, file) = made.map_err(|cause| failed("create the temporary file", &path, cause))?;
            let mut file = tokio::fs::File::from_std(file.into());
            file.set_max_buf_size(FILE_BUFFER_BYTES);
            Ok(TempFile { guard: Guard { folder, name, path, kept: false }, file })
        })
        .await
        .flatten()
    }

    /// Removes what is left, tells the register. Called at the end of every attempt, after its work was dropped.
    ///
    /// On success no file made by this `TempFiles` or a clone of it exists any more (except under the name it was
    /// persisted to), the folders are gone if they were empty, and the register has forgotten all paths. May be called
    /// again; files that are still open lose their name and cannot be persisted.
    ///
    /// # Errors
    /// When a file cannot be removed (its path stays on the register, for the sweeper), or the register fails (then the
    /// next `close` tells it again). Everything else was still done.
    pub async fn close(&self) -> Result<(), io::Error> {
        let gate = self.inner.gate.clone().write_owned().await;
        let mut by_folder: BTreeMap<Folder, Vec<PathBuf>> = BTreeMap::new();
        for (path, folder) in self.inner.made().iter() {
            by_folder.entry(folder.clone()).or_default().push(path.clone());
        }
        if by_folder.is_empty() {
            return Ok(());
        }
        let (gone, removal) = blocking(move || {
            let (mut gone, mut result) = (Vec::new(), Ok(()));
            for (folder, paths) in by_folder {
                match folder.remove_files(&paths) {
                    Ok(()) => gone.extend(paths),
                    Err(cause) => result = Err(cause),
                }
            }
            (gone, result)
        })
        .await?;
        let forgotten = self.inner.register.forget(gone.clone()).await;
        forgotten.map_err(|cause| io::Error::other(format!("take temporary files off the register: {cause}")))?;
        let mut made = self.inner.made();
        for path in &gone {
            made.remove(path);
        }
        drop(made);
        drop(gate);
        removal
    }
}

impl std::fmt::Debug for TempFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TempFiles").field("home", &self.inner.home).finish_non_exhaustive()
    }
}

impl Inner {
    /// Nothing panics while this is held, and a list of paths is never half-changed.
    fn made(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Folder>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Folder {
    fn path(&self) -> PathBuf {
        self.components.iter().fold(self.base.clone(), |path, component| path.join(component))
    }

    /// Creates a file that must not exist yet, and the folder with it.
    fn create_file(&self, name: &str) -> io::Result<(OwnedFd, OwnedFd)> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_create_file(name) {
                Err(cause) if cause.kind() == io::ErrorKind::NotFound && tries < FOLDER_TRIES => {}
                result => return result,
            }
        }
    }

    fn try_create_file(&self, name: &str) -> io::Result<(OwnedFd, OwnedFd)> {
        if self.make_base {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.base)?;
        }
        let mut folder = open_folder(&self.base)?;
        for component in &self.components {
            folder = make_child_folder(&folder, component, Mode::RWXU)?;
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder, name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok((folder, file))
    }

    /// The files of this folder are gone, and the folder too if nothing else was in it.
    fn remove_files(&self, paths: &[PathBuf]) -> io::Result<()> {
        let mut chain = match open_folder(&self.base) {
            Ok(base) => vec![base],
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(cause) => return Err(failed("clean up temporary files in", &self.path(), cause)),
        };
        for component in &self.components {
            let parent = chain.last().map(OwnedFd::as_fd);
            match parent.map(|parent| open_child_folder(parent, component)) {
                Some(Ok(child)) => chain.push(child),
                Some(Err(cause)) if cause.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("clean up temporary files in", &self.path(), cause));
                }
                _ => break,
            }
        }
        let mut result = Ok(());
        if let Some(folder) = chain.get(self.components.len()) {
            for path in paths {
                let name = path.file_name().unwrap_or_default();
                if let Err(cause) = remove(folder, name, AtFlags::empty()) {
                    result = Err(failed("remove the temporary file", path, cause));
                }
            }
        }
        for (parent, component) in chain.iter().zip(&self.components).rev() {
            if let Err(cause) = remove(parent, component, AtFlags::REMOVEDIR) {
                result = result.and(Err(failed("remove the folder of temporary files", &self.path(), cause)));
            }
        }
        // What the register forgets must not come back after a power cut. Where a file system cannot do this, nothing
        // can be done about it, and the next start's sweep is the answer.
        if let Some(base) = chain.first() {
            rustix::fs::fsync(base).ok();
        }
        result
    }
}

/// Unlinks, content with nothing being there and with a folder that others still use.
fn remove(folder: impl AsFd, name: impl rustix::path::Arg, flags: AtFlags) -> io::Result<()> {
    match rustix::fs::unlinkat(folder, name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) if flags.contains(AtFlags::REMOVEDIR) => Ok(()),
        Err(cause) => Err(cause.into()),
    }
}

/// A folder by its path; links in it are followed, since the caller named it.
pub(crate) fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// A folder in a folder; fails when it is a link.
pub(crate) fn open_child_folder(parent: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(|cause| match cause {
        Errno::NOTDIR | Errno::LOOP => {
            let why = format!("'{name}' is a symbolic link or a file, where a folder of this program belongs");
            io::Error::new(io::ErrorKind::NotADirectory, why)
        }
        other => other.into(),
    })
}

/// A folder in a folder, made if it is not there; its name is on the disk when this returns.
pub(crate) fn make_child_folder(parent: impl AsFd, name: &str, mode: Mode) -> io::Result<OwnedFd> {
    match open_child_folder(&parent, name) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    match rustix::fs::mkdirat(&parent, name, mode) {
        Ok(()) => rustix::fs::fsync(&parent)?,
        Err(Errno::EXIST) => {}
        Err(cause) => return Err(cause.into()),
    }
    open_child_folder(&parent, name)
}

/// Runs work that waits for the disk where it holds nobody up. It goes on to its end when the future is dropped.
/// Fails only when the work panicked or the runtime is going down.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

/// An error that says what was being done on what; keeps the kind and the cause.
fn failed(action: &str, path: &Path, cause: io::Error) -> io::Error {
    #[derive(Debug, thiserror::Error)]
    #[error("cannot {what}: {cause}")]
    struct Failed {
        what: String,
        #[source]
        cause: io::Error,
    }
    io::Error::new(cause.kind(), Failed { what: format!("{action} {}", path.display()), cause })
}

/// An open temporary file; unlinked when dropped, unless persisted.
pub struct TempFile {
    guard: Guard,
    file: tokio::fs::File,
}

impl std::fmt::Debug for TempFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TempFile").field("path", &self.guard.path).finish_non_exhaustive()
    }
}

/// Where a temporary file goes: a name in an open folder, with these permissions.
pub(crate) struct Target {
    pub(crate) folder: OwnedFd,
    pub(crate) name: String,
    pub(crate) mode: Mode,
}

impl TempFile {
    /// Where the file is while it is temporary.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.guard.path
    }

    /// The file, open for reading and writing. A failed write may show only at the next operation; `persist` sees it.
    pub fn file(&mut self) -> &mut tokio::fs::File {
        &mut self.file
    }

    /// fsync, rename to `target`, fsync of its folder. On return the content is durable under that name, with mode 0600.
    /// A file that was there is replaced; a link is replaced, not followed.
    ///
    /// # Errors
    /// When an earlier write, or one of these steps failed; the temporary file is gone then (after a failure of the last
    /// step alone `target` exists).
    pub async fn persist(self, target: &Path) -> Result<(), io::Error> {
        let (Some(parent), Some(name)) = (target.parent(), target.file_name().and_then(|name| name.to_str())) else {
            return Err(failed("rename a temporary file to", target, io::ErrorKind::InvalidInput.into()));
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent }.to_owned();
        let folder = blocking(move || open_folder(&parent)).await.flatten();
        let folder = folder.map_err(|cause| failed("rename a temporary file to", target, cause))?;
        let place = Target { folder, name: name.to_owned(), mode: Mode::RUSR | Mode::WUSR };
        let persisted = self.persist_in(place, ()).await;
        persisted.map_err(|cause| failed("rename a temporary file to", target, cause))
    }

    /// As `persist`, into an open folder. `held` is dropped when the file is in place (or failed to be), also when nobody
    /// waits for that any more: a lock that protects the target belongs there.
    pub(crate) async fn persist_in<Held: Send + 'static>(self, target: Target, held: Held) -> io::Result<()> {
        let Self { guard, mut file } = self;
        file.flush().await?;
        let file = file.into_std().await;
        blocking(move || {
            let _held = held;
            rustix::fs::fchmod(&file, target.mode)?;
            file.sync_all()?;
            rustix::fs::renameat(&guard.folder, guard.name.as_str(), &target.folder, target.name.as_str())?;
            guard.keep();
            Ok(rustix::fs::fsync(&target.folder)?)
        })
        .await
        .flatten()
    }
}

/// Unlinks the file on every way out but the one where it was renamed.
struct Guard {
    folder: OwnedFd,
    name: String,
    path: PathBuf,
    kept: bool,
}

impl Guard {
    /// The file has another name now.
    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(cause) = remove(&self.folder, self.name.as_str(), AtFlags::empty()) {
            // Still on the register: `close` tries again, and after it the sweeper.
            tracing::warn!(path = %self.path.display(), %cause, "cannot remove a temporary file");
        }
    }
}

#[cfg(test)]
mod tests;
