//! One blob of a layout, being read or written. Both move the bytes in large pieces, since every piece is a hop to the
//! file system's thread.

use super::Error;
use super::files::Root;
use crate::oci::Digest;
use crate::tempfiles::{FILE_BUFFER_BYTES, TempFile, blocking};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Smallest buffer for reading, bytes: an empty file must still be found to end.
const SMALLEST_PIECE_BYTES: usize = 512;

/// A blob being read.
#[derive(Debug)]
pub struct BlobFile {
    file: tokio::fs::File,
    length: u64,
    what: String,
}

impl BlobFile {
    pub(super) fn new(file: std::fs::File, length: u64, what: String) -> Self {
        let mut file = tokio::fs::File::from_std(file);
        file.set_max_buf_size(FILE_BUFFER_BYTES);
        Self { file, length, what }
    }

    /// Size of the file when it was opened, bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The next piece, at most 256 KiB; None at the end. Cancel-safe.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let length = usize::try_from(self.length).unwrap_or(usize::MAX);
        let mut piece = BytesMut::with_capacity(length.clamp(SMALLEST_PIECE_BYTES, FILE_BUFFER_BYTES));
        // Cancel-safe: what a dropped read has read stays in the file's own buffer.
        let read = self.file.read_buf(&mut piece).await.map_err(|cause| Error::read(&self.what, cause))?;
        Ok((read > 0).then(|| piece.freeze()))
    }
}

/// A blob being written into a registered temporary file inside the layout. Dropping it removes the file.
#[derive(Debug)]
pub struct BlobWriter {
    file: TempFile,
    buffer: Vec<u8>,
    root: Arc<Root>,
    digest: Digest,
    what: String,
}

impl BlobWriter {
    pub(super) fn new(file: TempFile, root: Arc<Root>, digest: Digest, what: String) -> Self {
        Self { file, buffer: Vec::new(), root, digest, what }
    }

    /// Takes the next piece, of any size. It is on its way to the disk when this returns; a failure may show only at a
    /// later piece or at `commit`.
    ///
    /// # Errors
    /// When the disk is full or the file cannot be written. The writer is of no use then.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        if self.buffer.len() + bytes.len() > FILE_BUFFER_BYTES {
            self.flush_buffer().await?;
        }
        if bytes.len() >= FILE_BUFFER_BYTES {
            let written = self.file.file().write_all(&bytes).await;
            return written.map_err(|cause| Error::write(&self.what, cause));
        }
        self.buffer.extend_from_slice(&bytes);
        Ok(())
    }

    /// fsync, then atomically in place under its digest. The caller has verified the content.
    ///
    /// # Errors
    /// When something of it cannot be written; the temporary file is gone then.
    pub async fn commit(mut self) -> Result<(), Error> {
        self.flush_buffer().await?;
        let Self { file, root, digest, what, .. } = self;
        let target = blocking(move || root.blob_target(&digest)).await.flatten();
        let target = target.map_err(|cause| Error::write(&what, cause))?;
        file.persist_in(target, ()).await.map_err(|cause| Error::write(&what, cause))
    }

    async fn flush_buffer(&mut self) -> Result<(), Error> {
        if !self.buffer.is_empty() {
            let written = self.file.file().write_all(&self.buffer).await;
            written.map_err(|cause| Error::write(&self.what, cause))?;
            self.buffer.clear();
        }
        Ok(())
    }
}
