//! The files of a layout, through an open handle of its directory. Blocking.

use super::Error;
use super::index::{INDEX_LIMIT_BYTES, Index};
use super::lock::Lock;
use crate::oci::Digest;
use crate::tempfiles::{Target, make_child_folder, open_folder};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

const MARKER_FILE: &str = "oci-layout";
const INDEX_FILE: &str = "index.json";
const BLOBS_FOLDER: &str = "blobs";

const MARKER_CONTENT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const EMPTY_INDEX: &[u8] =
    br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

/// Versions that are understood begin so: within a major version files are only added.
const VERSION_PREFIX: &str = "1.";

/// Largest file `oci-layout`, bytes; it holds one short field.
const MARKER_LIMIT_BYTES: u64 = 64 * 1024;

/// An open layout directory.
#[derive(Debug)]
pub(super) struct Root {
    dir: PathBuf,
    folder: OwnedFd,
}

impl Root {
    /// Opens the directory, whatever is in it.
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
        let shown = format!("layout {}", dir.display());
        let folder = open_folder(dir).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => Error::absent(format!("{shown} does not exist")),
            io::ErrorKind::NotADirectory => Error::refused(format!("{shown} is not a directory")),
            _ => Error::read(&shown, cause),
        })?;
        Ok(Self { dir: dir.to_owned(), folder })
    }

    /// Makes the directory if need be, and opens its file `oci-layout`, which may be empty then.
    pub(super) fn open_or_create(dir: &Path) -> Result<(Self, File), Error> {
        let shown = format!("layout {}", dir.display());
        if !dir.is_dir() {
            std::fs::create_dir_all(dir).map_err(|cause| match cause.kind() {
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                    Error::refused(format!("{shown} is not a directory, or a part of its path is not"))
                }
                _ => Error::write(&shown, cause),
            })?;
            if let Some(parent) = dir.parent().and_then(|parent| open_folder(parent).ok()) {
                // Best effort: what counts is made durable inside the layout.
                rustix::fs::fsync(parent).ok();
            }
        }
        let root = Self::open(dir)?;
        let marker = root.create_file(MARKER_FILE).map_err(|cause| Error::write(&root.file(MARKER_FILE), cause))?;
        Ok((root, marker))
    }

    /// Under the lock: both files of the layout are there and are understood.
    pub(super) fn prepare(&self, lock: &Lock) -> Result<(), Error> {
        let failed = |what: &str, cause| Error::write(&self.file(what), cause);
        let empty = |file: &File| file.metadata().map(|metadata| metadata.len() == 0);
        if empty(&lock.marker).map_err(|cause| failed(MARKER_FILE, cause))? {
            write_durably(&lock.marker, MARKER_CONTENT).map_err(|cause| failed(MARKER_FILE, cause))?;
        }
        self.check_version()?;
        let index = match self.read_file(INDEX_FILE, INDEX_LIMIT_BYTES)? {
            Some(content) if !content.is_empty() => Some(content),
            _ => None,
        };
        match index {
            Some(content) => drop(self.parse_index(&content)?),
            None => {
                let made = self.create_file(INDEX_FILE).and_then(|file| write_durably(&file, EMPTY_INDEX));
                made.map_err(|cause| failed(INDEX_FILE, cause))?;
            }
        }
        let blobs = make_child_folder(&self.folder, BLOBS_FOLDER, Mode::from_raw_mode(0o777));
        blobs.map_err(|cause| failed(BLOBS_FOLDER, cause))?;
        rustix::fs::fsync(&self.folder).map_err(|cause| failed(INDEX_FILE, cause.into()))
    }

    /// The file `oci-layout` says a version that is understood.
    pub(super) fn check_version(&self) -> Result<(), Error> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Marker {
            image_layout_version: String,
        }

        let shown = self.shown();
        let Some(content) = self.read_file(MARKER_FILE, MARKER_LIMIT_BYTES)? else {
            return Err(Error::refused(format!("{shown} is not an OCI image layout: it has no file {MARKER_FILE}")));
        };
        let marker: Marker = serde_json::from_slice(&content).map_err(|cause| {
            Error::refused(format!("{shown} is not an OCI image layout: its file {MARKER_FILE} is damaged: {cause}"))
        })?;
        let version = marker.image_layout_version;
        if version.starts_with(VERSION_PREFIX) {
            Ok(())
        } else {
            let version = crate::oci::quote(&version);
            Err(Error::refused(format!("{shown} is of the layout version {version}; only 1.x is understood")))
        }
    }

    /// The file `oci-layout` of an existing layout, to be locked.
    pub(super) fn open_marker(&self) -> Result<File, Error> {
        // Some network file systems lock only what is open for writing; elsewhere a layout may be locked whose marker may
        // only be read.
        let open = |access| {
            let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            rustix::fs::openat(&self.folder, MARKER_FILE, flags, Mode::empty())
        };
        let opened = match open(OFlags::RDWR) {
            Err(Errno::ACCESS | Errno::PERM) => open(OFlags::RDONLY),
            other => other,
        };
        opened.map(File::from).map_err(|cause| Error::write(&self.file(MARKER_FILE), cause.into()))
    }

    /// What index.json says now.
    pub(super) fn read_index(&self) -> Result<Index, Error> {
        let content = self.read_file(INDEX_FILE, INDEX_LIMIT_BYTES)?;
        let content = content.ok_or_else(|| Error::refused(format!("{} has no {INDEX_FILE}", self.shown())))?;
        self.parse_index(&content)
    }

    fn parse_index(&self, content: &[u8]) -> Result<Index, Error> {
        Index::parse(content).map_err(|why| Error::refused(format!("{} is damaged: {why}", self.file(INDEX_FILE))))
    }

    /// Where a new index.json goes.
    pub(super) fn index_target(&self) -> io::Result<Target> {
        let folder = self.folder.try_clone()?;
        Ok(Target { folder, name: INDEX_FILE.to_owned(), mode: self.file_mode()? })
    }

    /// Where a new blob goes; its folder exists on return.
    pub(super) fn blob_target(&self, digest: &Digest) -> io::Result<Target> {
        let mode = Mode::from_raw_mode(0o777);
        let blobs = make_child_folder(&self.folder, BLOBS_FOLDER, mode)?;
        let folder = make_child_folder(&blobs, digest.algorithm().as_str(), mode)?;
        Ok(Target { folder, name: digest.hex().to_owned(), mode: self.file_mode()? })
    }

    /// The content of a blob that has at most `limit` bytes.
    pub(super) fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, Error> {
        let content = self.read_file(&blob_path(digest), limit)?;
        content.ok_or_else(|| self.no_blob(digest))
    }

    /// A blob for reading, its size in bytes, and what to call it.
    pub(super) fn open_blob(&self, digest: &Digest) -> Result<(File, u64, String), Error> {
        let path = blob_path(digest);
        let (file, length) = self.open_file(&path)?.ok_or_else(|| self.no_blob(digest))?;
        Ok((file, length, self.file(&path)))
    }

    /// The size of a blob in bytes, if it is there.
    pub(super) fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        Ok(self.open_file(&blob_path(digest))?.map(|(_, length)| length))
    }

    fn no_blob(&self, digest: &Digest) -> Error {
        Error::absent(format!("{} has no blob {digest}", self.shown()))
    }

    /// A regular file for reading, and its size; None when it is not there. Never waits for the other end of a pipe.
    fn open_file(&self, path: &str) -> Result<Option<(File, u64)>, Error> {
        let failed = |cause: Errno| Error::read(&self.file(path), cause.into());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.folder, path, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(cause) => return Err(failed(cause)),
        };
        let status = rustix::fs::fstat(&file).map_err(failed)?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err(Error::refused(format!("{} is not a regular file", self.file(path))));
        }
        Ok(Some((file.into(), u64::try_from(status.st_size).unwrap_or(0))))
    }

    /// The content of a file of at most `limit` bytes; None when it is not there.
    fn read_file(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let Some((file, length)) = self.open_file(path)? else {
            return Ok(None);
        };
        let mut content = Vec::new();
        if length <= limit {
            let read = file.take(limit.saturating_add(1)).read_to_end(&mut content);
            read.map_err(|cause| Error::read(&self.file(path), cause))?;
        }
        let read = u64::try_from(content.len()).unwrap_or(u64::MAX);
        if length > limit || read > limit {
            return Err(Error::refused(format!("{} has more than {limit} bytes", self.file(path))));
        }
        Ok(Some(content))
    }

    /// A file for reading and writing, made empty if it is not there.
    fn create_file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.folder, name, flags, self.file_mode()?)?.into())
    }

    /// Whoever may read the layout's directory may read its files: they begin as temporary files, which nobody else may.
    fn file_mode(&self) -> io::Result<Mode> {
        let readable = Mode::RGRP | Mode::ROTH;
        let folder = Mode::from_raw_mode(rustix::fs::fstat(self.folder.as_fd())?.st_mode);
        Ok(Mode::RUSR | Mode::WUSR | (folder & readable))
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The layout, for messages.
    pub(super) fn shown(&self) -> String {
        format!("layout {}", self.dir.display())
    }

    /// One of its files, for messages.
    fn file(&self, path: &str) -> String {
        self.dir.join(path).display().to_string()
    }
}

/// Built from a digest, which cannot hold a `/`.
fn blob_path(digest: &Digest) -> String {
    format!("{BLOBS_FOLDER}/{}/{}", digest.algorithm(), digest.hex())
}

fn write_durably(mut file: &File, content: &[u8]) -> io::Result<()> {
    file.write_all(content)?;
    file.sync_all()
}
