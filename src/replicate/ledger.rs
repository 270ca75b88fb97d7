//! What must be remembered across attempts and processes: whose turn it is to bring a blob, how far its upload has come, and
//! where blobs were seen.
//!
//! The engine says what it needs; whoever runs attempts keeps it. All of it is a hint: nothing is believed of a registry that
//! it does not confirm, and a ledger that cannot be read or written costs bytes and requests, never a copy.

use crate::oci::{Digest, Repository};
use crate::tempfiles::BoxFuture;

/// How far an upload has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// As [`crate::registry::Upload::save`] gives it: a secret, to be sealed.
    pub location: String,
    /// Bytes that the registry has acknowledged.
    pub committed: u64,
    /// As [`crate::oci::Verifier::save`] gives it, after so many bytes.
    pub midstate: Vec<u8>,
}

/// Whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadTurn {
    /// The caller's, and how far somebody had come before.
    Mine(Option<Uploaded>),
    /// Another attempt is at it.
    Busy,
}

/// Where a blob was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Of the blob.
    pub digest: String,
    /// In the repository that was asked about.
    pub here: bool,
    /// The name of another repository of the registry.
    pub elsewhere: Option<String>,
}

/// The memory of one attempt. Its errors are told by whoever implements it and come as "nothing is known".
pub trait Ledger: Send + Sync {
    /// Takes the turn at bringing a blob to a repository.
    fn take<'a>(&'a self, repository: &'a Repository, digest: &'a Digest) -> BoxFuture<'a, UploadTurn>;
    /// Notes how far the upload has come. False when the turn is not the caller's any more.
    fn note<'a>(&'a self, repository: &'a Repository, digest: &'a Digest, uploaded: Uploaded) -> BoxFuture<'a, bool>;
    /// Ends the turn and forgets what was noted.
    fn end<'a>(&'a self, repository: &'a Repository, digest: &'a Digest) -> BoxFuture<'a, ()>;
    /// Where blobs were seen.
    fn seen<'a>(&'a self, repository: &'a Repository, digests: &'a [Digest]) -> BoxFuture<'a, Vec<Seen>>;
    /// The profile that a registry has shown itself to be of, by name.
    fn profile<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Option<String>>;
    /// A registry has shown its profile.
    fn shown<'a>(&'a self, host: &'a str, profile: &'static str) -> BoxFuture<'a, ()>;
    /// Blobs that are not in a repository in which they were seen.
    fn lost<'a>(&'a self, repository: &'a Repository, digests: &'a [Digest]) -> BoxFuture<'a, ()>;
}
