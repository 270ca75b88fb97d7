//! What passes through the door for an attempt: claims, fences, leases, ends.

use crate::clock::UnixMillis;
use crate::job::{Failure, Job, JobId, Progress, Report, State, rfc3339};
use crate::store::Error;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Which attempt a write belongs to: the job and the epoch of its claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The job.
    pub job: JobId,
    /// Its `lease_epoch` as the claim left it.
    pub epoch: i64,
}

/// A claimed job: the right to end this attempt. Not `Clone`; [`settle`](crate::store::Store::settle) consumes it.
#[must_use = "a claim that is dropped leaves its job running until the sweeper reclaims it"]
#[derive(Debug)]
pub struct Claim {
    /// The row as the claim left it.
    pub job: Job,
    /// The canonical destination.
    pub dest_key: String,
}

impl Claim {
    /// The fence of this attempt.
    #[must_use]
    pub const fn fence(&self) -> Fence {
        Fence { job: self.job.id, epoch: self.job.lease_epoch }
    }
}

/// What a worker asks for.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// Who asks.
    pub worker: Uuid,
    /// At most so many jobs.
    pub room: usize,
    /// Only from this queue.
    pub queue: Option<String>,
    /// Only this job.
    pub only: Option<JobId>,
    /// How long the leases hold without renewal.
    pub lease_ttl: Duration,
    /// For these destination registries: at most so many running jobs, on all workers together.
    pub registry_limits: Arc<BTreeMap<String, u32>>,
}

/// What an attempt has done so far, written with every renewal and with its end.
#[derive(Debug, Clone, Copy, Default)]
pub struct Work {
    /// None before anything is known.
    pub progress: Option<Progress>,
    /// Bytes sent, those of blobs that were started again too.
    pub bytes_moved: u64,
}

/// What a renewal found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The lease holds.
    Yes,
    /// The lease holds, and somebody wants the job cancelled.
    CancelRequested,
    /// Somebody else has the job, or it was ended: drop the work.
    Lost,
}

/// Whether the tag may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmed {
    /// The lease was renewed just now.
    Yes,
    /// Somebody wants the job cancelled.
    CancelRequested,
    /// Somebody else has the job.
    Lost,
    /// A newer job for the same target is completed, or was until it was retried or removed: the tag must not go back.
    Superseded {
        /// The newer job.
        by: JobId,
    },
}

/// How an attempt ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The destination has it.
    Completed(Report),
    /// It failed; with another attempt after a pause, or for good.
    Failed {
        /// Why.
        failure: Failure,
        /// None: no other attempt.
        retry_in: Option<Duration>,
    },
    /// It was called off.
    Cancelled,
    /// It is given back unharmed, the attempt refunded.
    Released {
        /// For the history: `shutdown`.
        reason: &'static str,
    },
}

/// What settling did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The job is in this state now.
    Now(State),
    /// The lease was lost: nothing was written.
    LeaseLost,
}

/// An attempt whose end could not be written; the claim is still good.
#[derive(Debug)]
pub struct Unsettled {
    /// To try again with.
    pub claim: Claim,
    /// Why.
    pub error: Error,
}

/// A worker process incarnation, and what proves on which machine and folder it lives.
#[derive(Debug, Clone, Serialize)]
pub struct WorkerRow {
    /// A UUID made at its start.
    pub id: String,
    /// Host name, for people.
    pub host: String,
    /// Process id, for people.
    pub pid: i64,
    /// Of the machine.
    pub machine_id: String,
    /// Of the machine's boot.
    pub boot_id: String,
    /// Its state folder.
    pub state_dir: String,
    /// Device of the state folder.
    pub state_device: i64,
    /// Inode of the state folder.
    pub state_inode: i64,
    /// Of the program.
    pub version: String,
    /// How long its leases hold without renewal, milliseconds.
    pub lease_ttl_ms: i64,
    /// The queue it serves; None: all.
    pub queue: Option<String>,
    /// Jobs that it runs at a time.
    pub concurrency: i64,
    /// When it started.
    #[serde(serialize_with = "rfc3339")]
    pub started_at: UnixMillis,
    /// When it last said that it lives.
    #[serde(serialize_with = "rfc3339")]
    pub seen_at: UnixMillis,
}

/// A running job's lease as the sweeper compares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub job: JobId,
    /// Its epoch.
    pub epoch: i64,
    /// Raised by each renewal.
    pub beat: i64,
    /// Who holds it.
    pub worker: String,
}
