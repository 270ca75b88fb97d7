//! An OCI image layout directory as source or destination (image spec, image-layout.md).
//!
//! Read and written where it is, file by file, so that skopeo and others can use the same directory before, after and
//! meanwhile. Writing follows the same two steps as writing to a registry: blobs and manifests go in under their digest,
//! each complete at once (temporary file, fsync, rename), and one small change of `index.json` publishes them. That change
//! is made under a lock, and it leaves every byte alone that it does not mean: rewriting the file from what we understood
//! of it would lose what other tools wrote there.
//!
//! The lock is an `flock` on the file `oci-layout`: it exists in every layout and, unlike `index.json`, is never replaced,
//! so that all writers lock the same inode, and the kernel frees it when a writer dies.
//!
//! This room never writes through a symbolic link inside the layout, never deletes a blob, and does not check content
//! against digests: who reads or writes a blob has the `Verifier`.

mod blob;
mod error;
mod files;
mod index;
mod lock;

pub use blob::{BlobFile, BlobWriter};
pub use error::Error;

use crate::oci::{Digest, LayoutReference, Manifest, ManifestError};
use crate::tempfiles::{TempFiles, blocking};
use bytes::Bytes;
use files::Root;
use index::Index;
use std::path::Path;
use std::sync::Arc;
use tokio::io::AsyncWriteExt as _;

/// Largest manifest that is looked at to find out what it is, bytes: what common clients read at most. A caller that
/// wants the manifest itself brings its own limit.
const SNIFF_LIMIT_BYTES: u64 = 8 * 1024 * 1024;

/// An open layout. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Layout {
    root: Arc<Root>,
}

/// What index.json says of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Digest of the manifest or index.
    pub digest: Digest,
    /// Its size, bytes.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
    /// Its name in the layout (annotation `org.opencontainers.image.ref.name`).
    pub name: Option<String>,
}

impl Layout {
    /// Opens an existing layout for reading.
    ///
    /// # Errors
    /// Absent when the directory is not there, Refused when it is not a layout, or not yet (who makes one is still at it, or
    /// died), or of a later version.
    pub async fn open(dir: &Path) -> Result<Self, Error> {
        let dir = dir.to_owned();
        let root = blocking(move || {
            let root = Root::open(&dir)?;
            root.check_version()?;
            root.read_index()?;
            Ok::<_, Error>(root)
        });
        let root = root.await.map_err(Error::task).flatten()?;
        Ok(Self { root: Arc::new(root) })
    }

    /// Opens or makes a layout for writing (`oci-layout`, empty index.json), with its parent folders. What a writer that
    /// died left unfinished of these two files is finished.
    ///
    /// # Errors
    /// Refused when there is something else in its place, or index.json cannot be understood; Denied when it may not be
    /// written.
    pub async fn open_or_create(dir: &Path) -> Result<Self, Error> {
        let dir = dir.to_owned();
        let opened = blocking(move || Root::open_or_create(&dir)).await.map_err(Error::task).flatten();
        let (root, marker) = opened?;
        let root = Arc::new(root);
        let lock = lock::exclusive(marker, root.dir()).await?;
        let prepared = Arc::clone(&root);
        blocking(move || prepared.prepare(&lock)).await.map_err(Error::task).flatten()?;
        Ok(Self { root })
    }

    /// The layout's directory, as it was given.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.root.dir()
    }

    /// The entry that `reference` names; Ok(None) when there is none. The digest wins over the name; a digest that
    /// index.json does not list is looked for among the blobs. Without name and digest: the only entry there is.
    ///
    /// # Errors
    /// Refused when nothing is named and there are several (the message lists them), or when the digest names a blob that
    /// is no manifest; Corrupt when a manifest is not what its digest says.
    pub async fn resolve(&self, reference: &LayoutReference) -> Result<Option<Entry>, Error> {
        let index = self.index().await?;
        let located = |why: String| Error::refused(format!("{} in {}", why, self.shown()));
        if let Some(digest) = &reference.digest {
            return match index.by_digest(digest, reference.name.as_deref()).map_err(located)? {
                Some(entry) => Ok(Some(entry)),
                None => self.unlisted(digest).await,
            };
        }
        match &reference.name {
            Some(name) => index.by_name(name).map_err(located),
            None => index.only().map_err(located),
        }
    }

    /// All entries of index.json, as listed.
    ///
    /// # Errors
    /// Refused when one of them is not a descriptor.
    pub async fn entries(&self) -> Result<Vec<Entry>, Error> {
        let index = self.index().await?;
        index.entries().map_err(|why| Error::refused(format!("{why} in {}", self.shown())))
    }

    /// The entries of that name, or all of them that can be read: an entry of another tool with a digest that is not
    /// known here concerns nobody else.
    ///
    /// # Errors
    /// Refused when an entry of that name is not a descriptor.
    pub async fn entries_of(&self, name: Option<&str>) -> Result<Vec<Entry>, Error> {
        let index = self.index().await?;
        let found = name.map_or_else(|| Ok(index.readable()), |name| index.all_by_name(name));
        found.map_err(|why| Error::refused(format!("{why} in {}", self.shown())))
    }

    /// Whether index.json already says what `publish(entry)` would make it say.
    ///
    /// # Errors
    /// When index.json cannot be read or understood.
    pub async fn is_published(&self, entry: &Entry) -> Result<bool, Error> {
        Ok(self.index().await?.with_entry(entry).is_none())
    }

    /// Bytes of a manifest blob, at most `limit`. Not checked against the digest yet.
    ///
    /// # Errors
    /// Absent when it is not there; Refused when it is larger.
    pub async fn manifest(&self, digest: &Digest, limit: u64) -> Result<Bytes, Error> {
        let (root, digest) = (Arc::clone(&self.root), digest.clone());
        let bytes = blocking(move || root.read_blob(&digest, limit)).await.map_err(Error::task).flatten()?;
        Ok(Bytes::from(bytes))
    }

    /// Opens a blob for reading. Not checked against the digest.
    ///
    /// # Errors
    /// Absent when it is not there.
    pub async fn blob(&self, digest: &Digest) -> Result<BlobFile, Error> {
        let (root, digest) = (Arc::clone(&self.root), digest.clone());
        let (file, length, what) = blocking(move || root.open_blob(&digest)).await.map_err(Error::task).flatten()?;
        Ok(BlobFile::new(file, length, what))
    }

    /// Size of the blob in bytes, if it is there.
    ///
    /// # Errors
    /// When something else is in its place, or it cannot be looked at.
    pub async fn has_blob(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let (root, digest) = (Arc::clone(&self.root), digest.clone());
        blocking(move || root.blob_size(&digest)).await.map_err(Error::task).flatten()
    }

    /// Begins a blob, in a registered temporary file inside the layout.
    ///
    /// # Errors
    /// When the file cannot be registered or created.
    pub async fn write_blob(&self, digest: &Digest, temp: &TempFiles) -> Result<BlobWriter, Error> {
        let what = format!("blob {digest} of {}", self.shown());
        let created = temp.create_inside(self.root.dir()).await;
        let file = created.map_err(|cause| Error::write(&what, cause))?;
        Ok(BlobWriter::new(file, Arc::clone(&self.root), digest.clone(), what))
    }

    /// Puts the entry into index.json, atomically (temp file, fsync, rename, fsync of the folder), under a lock against
    /// other writers; replaces the entries of the same name. Without a name it is added, unless its digest is listed
    /// already. Everything it names must be there already.
    ///
    /// # Errors
    /// Retry when the manifest itself is not there (in its size), or another writer holds the lock for too long.
    pub async fn publish(&self, entry: &Entry, temp: &TempFiles) -> Result<(), Error> {
        if self.has_blob(&entry.digest).await? != Some(entry.size) {
            return Err(Error::retry(format!(
                "cannot publish {} in {}: there is no such manifest of {} bytes among its blobs",
                entry.digest,
                self.shown(),
                entry.size
            )));
        }
        let lock = self.lock().await?;
        self.publish_locked(entry, temp, lock).await
    }

    /// Puts under `name` the manifest that `change` makes of the one that has that name now (at most `limit` bytes of it are
    /// read), all under the lock against other writers. `change` gives None when it is right as it is.
    ///
    /// # Errors
    /// What `change` says, as Refused; as for [`publish`](Self::publish).
    pub async fn update(
        &self,
        name: &str,
        limit: u64,
        temp: &TempFiles,
        change: impl FnOnce(Option<Bytes>) -> Result<Option<Manifest>, String>,
    ) -> Result<(), Error> {
        let located = |why: String| Error::refused(format!("{why} in {}", self.shown()));
        let lock = self.lock().await?;
        let current = match self.index().await?.by_name(name).map_err(located)? {
            // An entry whose file is lost says nothing that could be kept.
            Some(entry) => match self.manifest(&entry.digest, limit).await {
                Err(error) if error.class() == crate::job::Class::Absent => None,
                read => Some(read?),
            },
            None => None,
        };
        let Some(manifest) = change(current).map_err(located)? else { return Ok(()) };
        let mut writer = self.write_blob(&manifest.digest, temp).await?;
        writer.write(manifest.bytes.clone()).await?;
        writer.commit().await?;
        let size = u64::try_from(manifest.bytes.len()).unwrap_or(u64::MAX);
        let Manifest { digest, media_type, .. } = manifest;
        self.publish_locked(&Entry { digest, size, media_type, name: Some(name.to_owned()) }, temp, lock).await
    }

    async fn lock(&self) -> Result<lock::Lock, Error> {
        let root = Arc::clone(&self.root);
        let marker = blocking(move || root.open_marker()).await.map_err(Error::task).flatten()?;
        lock::exclusive(marker, self.root.dir()).await
    }

    async fn publish_locked(&self, entry: &Entry, temp: &TempFiles, lock: lock::Lock) -> Result<(), Error> {
        let Some(document) = self.index().await?.with_entry(entry) else {
            return Ok(());
        };
        if u64::try_from(document.len()).is_ok_and(|length| length > index::INDEX_LIMIT_BYTES) {
            return Err(Error::refused(format!(
                "index.json of {} would grow over {} bytes; remove entries from it first",
                self.shown(),
                index::INDEX_LIMIT_BYTES
            )));
        }
        let what = format!("index.json of {}", self.shown());
        let failed = |cause| Error::write(&what, cause);
        let mut file = temp.create_inside(self.root.dir()).await.map_err(failed)?;
        file.file().write_all(&document).await.map_err(failed)?;
        let target = self.root.index_target().map_err(failed)?;
        file.persist_in(target, lock).await.map_err(failed)
    }

    async fn index(&self) -> Result<Index, Error> {
        let root = Arc::clone(&self.root);
        blocking(move || root.read_index()).await.map_err(Error::task).flatten()
    }

    /// A manifest that is among the blobs, but not in index.json (for example one of an index's images).
    async fn unlisted(&self, digest: &Digest) -> Result<Option<Entry>, Error> {
        if self.has_blob(digest).await?.is_none() {
            return Ok(None);
        }
        let bytes = self.manifest(digest, SNIFF_LIMIT_BYTES).await?;
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let parsed = blocking({
            let digest = digest.clone();
            move || Manifest::parse(bytes, None, Some(&digest))
        });
        match parsed.await.map_err(Error::task)? {
            Ok(manifest) => {
                Ok(Some(Entry { digest: manifest.digest, size, media_type: manifest.media_type, name: None }))
            }
            Err(cause) => {
                let message = format!("blob {digest} of {} is not usable as a manifest: {cause}", self.shown());
                Err(match cause {
                    ManifestError::Digest(_) => Error::corrupt(message),
                    _ => Error::refused(message),
                })
            }
        }
    }

    fn shown(&self) -> String {
        self.root.shown()
    }
}

#[cfg(test)]
mod tests;
