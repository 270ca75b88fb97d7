//! What is remembered of destinations: uploads that were begun, and blobs that were seen.

/// A blob at its destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobPlace {
    /// Host of the registry, with its port when it has one.
    pub registry: String,
    /// Name of the repository.
    pub repository: String,
    /// Of the blob.
    pub digest: String,
}

/// How far an upload has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadState {
    /// Where it goes on, sealed.
    pub location: Vec<u8>,
    /// Bytes that the registry has acknowledged.
    pub committed: u64,
    /// The state of the check after so many bytes.
    pub midstate: Vec<u8>,
}

/// Whose turn it is to bring a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadTurn {
    /// The caller's, and how far somebody had come before.
    Mine(Option<UploadState>),
    /// Another attempt is at it, or the caller's is over.
    Busy,
}

/// Where a blob was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobSeen {
    /// Of the blob.
    pub digest: String,
    /// In the repository that was asked about.
    pub here: bool,
    /// Another repository of the registry.
    pub elsewhere: Option<String>,
}
