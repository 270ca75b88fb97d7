//! Where the keys come from: a file of the state folder that is made at the first use, or a command.

use super::ring::Ring;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// Largest file of keys, and longest answer of a command, bytes.
const TEXT_LIMIT: u64 = 64 * 1024;
/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there are no keys. Nothing secret is in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no file of keys.
    #[error("there is no key file {0}: nothing was ever stored here, or it belongs to another state folder")]
    Missing(PathBuf),
    /// Others can read it.
    #[error("the key file {path} can be read by others (mode {mode:04o}): chmod 600 {path}", path = .path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It cannot be read or written.
    #[error("the key file {path}: {source}", path = .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is no ring of keys.
    #[error("{0}")]
    Invalid(String),
    /// The command did not give keys.
    #[error("the key command: {0}")]
    Command(String),
}

/// Where the keys come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file, mode 0600, in a folder of its own.
    File(PathBuf),
    /// A command for the shell, which prints a key a line: any key service.
    Command(String),
}

impl Source {
    /// The file of a state folder.
    #[must_use]
    pub fn of(state_dir: &Path) -> Self {
        Self::File(state_dir.join("keys").join("vault.key"))
    }

    /// The keys as they are now.
    ///
    /// # Errors
    /// There are none, others can read them, or the command fails.
    pub async fn ring(&self) -> Result<Ring, Error> {
        match self {
            Self::File(path) => read(path),
            Self::Command(command) => ask(command).await,
        }
    }

    /// The keys; a file that is not there is made.
    ///
    /// # Errors
    /// As [`Source::ring`].
    pub async fn ring_or_new(&self) -> Result<Ring, Error> {
        match (self, self.ring().await) {
            (Self::File(path), Err(Error::Missing(_))) => {
                write(path, &Ring::generate()?, true)?;
                // Another process may have been faster: its key counts.
                read(path)
            }
            (_, ring) => ring,
        }
    }

    /// The keys with a new one in front. Where there are several already, a rotation was cut short and goes on with the first.
    /// Those of a command are as they are, because they are changed where they are kept. To be called under the [lock](Self::lock).
    ///
    /// # Errors
    /// As [`Source::ring`].
    pub async fn add_key(&self) -> Result<Ring, Error> {
        match self {
            Self::Command(_) => self.ring().await,
            Self::File(path) => {
                let ring = self.ring_or_new().await?;
                if ring.len() > 1 {
                    return Ok(ring);
                }
                let ring = ring.with_new()?;
                write(path, &ring, false)?;
                Ok(ring)
            }
        }
    }

    /// Nobody else on this machine changes the keys, or seals with them, until it is dropped. Two rotations at once would each
    /// forget the other's key.
    ///
    /// # Errors
    /// The file of the lock cannot be made.
    pub async fn lock(&self) -> Result<Option<File>, Error> {
        let Self::File(path) = self else { return Ok(None) };
        let path = path.with_extension("lock");
        let shown = path.clone();
        let lock = move || {
            if let Some(folder) = path.parent() {
                DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            }
            let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        let locked = tokio::task::spawn_blocking(lock).await.map_err(io::Error::other).and_then(|locked| locked);
        locked.map(Some).map_err(|source| Error::Io { path: shown, source })
    }

    /// Forgets all keys but this one; does nothing to those of a command. To be called under the [lock](Self::lock).
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn keep_only(&self, key_id: &str) -> Result<(), Error> {
        let Self::File(path) = self else { return Ok(()) };
        let ring = read(path)?;
        write(path, &ring.only(key_id), false)
    }
}

fn read(path: &Path) -> Result<Ring, Error> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::Missing(path.to_owned())),
        Err(error) => return Err(failed(error)),
    };
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Error::Open { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(String::new());
    file.take(TEXT_LIMIT).read_to_string(&mut text).map_err(failed)?;
    Ring::parse(&text).map_err(|error| Error::Invalid(format!("the key file {}: {error}", path.display())))
}

/// Whole or not at all. `new`: only where there is none.
fn write(path: &Path, ring: &Ring, new: bool) -> Result<(), Error> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let folder = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    // Made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(ring.to_text().as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    let named = if new { file.persist_noclobber(path) } else { file.persist(path) };
    match named {
        Ok(_) => File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed),
        Err(refused) if new && refused.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(refused) => Err(failed(refused.error)),
    }
}

async fn ask(command: &str) -> Result<Ring, Error> {
    let failed = |error: &dyn std::fmt::Display| Error::Command(error.to_string());
    let mut shell = tokio::process::Command::new("/bin/sh");
    shell.arg("-c").arg(command).stdin(std::process::Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(PATIENCE, shell.output()).await;
    let ended = ended.map_err(|_| failed(&format!("no answer within {} s", PATIENCE.as_secs())))?;
    let output = ended.map_err(|error| failed(&error))?;
    let text = Zeroizing::new(String::from_utf8(output.stdout).map_err(|_| failed(&"its answer is no text"))?);
    if !output.status.success() {
        return Err(failed(&output.status));
    }
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > TEXT_LIMIT {
        return Err(failed(&"its answer is too long"));
    }
    Ring::parse(&text).map_err(|error| failed(&error))
}
