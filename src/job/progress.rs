//! What an attempt did: progress while it runs, a report or a failure when it ends.

use super::Class;
use super::batch::Found;
use super::large::LargeBlobs;
use super::rfc3339;
use crate::clock::UnixMillis;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};

/// The step of a job's way where something happened; the same words in functions, log fields and failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Parsing what the row says.
    Intake,
    /// Listing what belongs to a batch.
    List,
    /// Reading what the source has.
    Resolve,
    /// Looking at what the destination has.
    Survey,
    /// Moving blobs and child manifests.
    Transfer,
    /// Making sure that the lease still holds.
    Confirm,
    /// Writing the tag.
    Publish,
    /// Ending the attempt in the database.
    Settle,
    /// The worker itself: panics and deaths.
    Work,
}

impl Stage {
    /// The word in rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Intake => "intake",
            Self::List => "list",
            Self::Resolve => "resolve",
            Self::Survey => "survey",
            Self::Transfer => "transfer",
            Self::Confirm => "confirm",
            Self::Publish => "publish",
            Self::Settle => "settle",
            Self::Work => "work",
        }
    }
}

/// How far an attempt is: content bytes and blobs, whether copied, mounted or already present.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Bytes that are at the destination.
    pub bytes_done: u64,
    /// Bytes of all blobs of the image, each digest counted once.
    pub bytes_total: u64,
    /// Blobs that are at the destination.
    pub blobs_done: u64,
    /// Blobs of the image, each digest counted once.
    pub blobs_total: u64,
}

/// Progress that one task writes and others read. All numbers only grow within an attempt, except bytes of a blob that is
/// started again.
#[derive(Debug, Default)]
pub struct ProgressCounter {
    bytes_done: AtomicU64,
    bytes_total: AtomicU64,
    blobs_done: AtomicU64,
    blobs_total: AtomicU64,
    bytes_moved: AtomicU64,
    /// Blobs to be watched by themselves.
    pub large: LargeBlobs,
}

impl ProgressCounter {
    /// There is this much to do, beside what was expected before.
    pub fn expect(&self, bytes: u64, blobs: u64) {
        self.bytes_total.fetch_add(bytes, Ordering::Relaxed);
        self.blobs_total.fetch_add(blobs, Ordering::Relaxed);
    }

    /// All of it is gone through once more. What went over the wire stays counted.
    pub fn restart(&self) {
        for counter in [&self.bytes_done, &self.bytes_total, &self.blobs_done, &self.blobs_total] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    /// Bytes went over the wire to the destination.
    pub fn moved(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
        self.bytes_moved.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of a blob that has to be started again.
    pub fn take_back(&self, bytes: u64) {
        self.bytes_done.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A blob that was taken to be at the destination is not: it has to be brought.
    pub fn missed(&self, bytes: u64) {
        self.take_back(bytes);
        self.blobs_done.fetch_sub(1, Ordering::Relaxed);
    }

    /// Bytes that need not move: the blob is there, or was mounted.
    pub fn skipped(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// One more blob is at the destination.
    pub fn blob_done(&self) {
        self.blobs_done.fetch_add(1, Ordering::Relaxed);
    }

    /// All bytes that went over the wire, those of blobs that were started again too.
    #[must_use]
    pub fn bytes_moved(&self) -> u64 {
        self.bytes_moved.load(Ordering::Relaxed)
    }

    /// The numbers now.
    #[must_use]
    pub fn read(&self) -> Progress {
        Progress {
            bytes_done: self.bytes_done.load(Ordering::Relaxed),
            bytes_total: self.bytes_total.load(Ordering::Relaxed),
            blobs_done: self.blobs_done.load(Ordering::Relaxed),
            blobs_total: self.blobs_total.load(Ordering::Relaxed),
        }
    }
}

/// Why the last attempt failed, as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The step.
    pub stage: String,
    /// [`Class::as_str`], or one of the words of the queue itself: `rejected`, `superseded`, `poison`, `crashed`, `panic`.
    pub class: String,
    /// One line for people.
    pub message: String,
    /// When.
    #[serde(serialize_with = "rfc3339")]
    pub at: UnixMillis,
}

impl Failure {
    /// A failure of a step with the class of its error.
    #[must_use]
    pub fn new(stage: Stage, class: Class, message: String, at: UnixMillis) -> Self {
        Self { stage: stage.as_str().to_owned(), class: class.as_str().to_owned(), message, at }
    }
}

/// What a completed job did, and what it cost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The digest that the destination has now.
    pub digest: String,
    /// The destination had it before; nothing was written but referrers.
    pub already_present: bool,
    /// The destination had the digest before, and everything below it was looked for.
    #[serde(default, skip_serializing_if = "is_false")]
    pub verified: bool,
    /// Blobs and manifests that were missing below a digest that the destination had, and were brought.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub healed: u64,
    /// Referrers (signatures, attestations, SBOMs, tags of cosign) that were brought to the destination.
    #[serde(default)]
    pub referrers_pushed: u64,
    /// The digest of the source's index, of which a smaller one was made for the platforms that were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewritten_from: Option<String>,
    /// Manifests and indexes written, the tagged one and those of referrers included, without lists of referrers.
    pub manifests_pushed: u64,
    /// Blobs whose bytes were sent.
    pub blobs_copied: u64,
    /// Blobs taken from another repository of the destination's registry.
    pub blobs_mounted: u64,
    /// Blobs that the destination had.
    pub blobs_present: u64,
    /// Blobs that went on from where an earlier attempt ended.
    pub blobs_resumed: u64,
    /// Blob bytes sent.
    pub bytes_copied: u64,
    /// Blob bytes that an earlier attempt had sent.
    pub bytes_resumed: u64,
    /// HTTP requests, to both sides and for tokens.
    pub requests: u64,
    /// What was listed, when the job listed a batch; it copied nothing then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed: Option<Found>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if hands out a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if hands out a reference")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// How a blob came to the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// Its bytes were sent.
    Copied,
    /// From another repository of the same registry.
    Mounted,
    /// It was there.
    Present,
    /// The rest of its bytes was sent.
    Resumed,
}

impl How {
    /// The word in rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Copied => "copied",
            Self::Mounted => "mounted",
            Self::Present => "present",
            Self::Resumed => "resumed",
        }
    }
}

/// One blob that an attempt brought to the destination, for the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Transfer {
    /// Host of the destination registry, or `oci` for a layout.
    pub registry: String,
    /// Repository name, or the layout's directory.
    pub repository: String,
    /// Of the blob.
    pub digest: String,
    /// Size of the blob, bytes.
    pub bytes: u64,
    /// Of these, what the destination had from an upload that was cut.
    pub resumed: u64,
    /// How it got there.
    pub how: How,
}
