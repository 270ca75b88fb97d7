//! What a job is and what may happen to it. Pure: no I/O, no async, no clock.
//!
//! A job asks for one source reference to be copied to one destination. It lives in one row; [`state`] holds the table of
//! what may happen to it, [`retry`] the decision after a failed attempt, [`options`] what a row may ask for,
//! [`progress`] what an attempt did, [`batch`] many copies asked for as one, [`schedule`] what is asked for again and again, and [`replay`] what a history says of its row. Whether a job is *equal* to another, or
//! *the same target*, is a question of canonical references, answered once by [`NewJob::parse`].

pub mod batch;
pub mod large;
mod new;
pub mod options;
pub mod progress;
pub mod replay;
pub mod retry;
pub mod schedule;
pub mod state;

pub use new::{
    DEFAULT_MAX_ATTEMPTS, DEFAULT_PRIORITY, DEFAULT_QUEUE, Enqueued, Invalid, NewJob, Parsed, check_queue, parse_row,
};
pub use options::{CopyOptions, PlatformMode, Referrers};
pub use progress::{Failure, How, Progress, ProgressCounter, Report, Stage, Transfer};
pub use retry::Class;
pub use schedule::{Missed, NewSchedule, Overlap, Schedule, ScheduleId};
pub use state::{Event, IllegalTransition, State};

use crate::clock::UnixMillis;
use serde::{Serialize, Serializer};

/// The id of a job: short to type, ordered, never reused.
pub type JobId = i64;

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Copies one source to one destination.
    Copy,
    /// Lists what belongs to a batch and makes its jobs.
    Expand,
}

/// A job as its row says. Serialises to the object that users see (`jobs show -o json`).
#[derive(Debug, Clone, Serialize)]
pub struct Job {
    /// Never reused.
    pub id: JobId,
    /// What it does.
    pub kind: Kind,
    /// Starts at 1; an operator's retry raises it.
    pub generation: i64,
    /// As it was asked for.
    pub source: String,
    /// As it was asked for.
    pub destination: String,
    /// A JSON object; see [`CopyOptions`].
    pub options: serde_json::Value,
    /// Where it stands.
    pub state: State,
    /// The queue it waits in.
    pub queue: String,
    /// Lower runs first.
    pub priority: i64,
    /// The number of the running or last attempt in this generation; 0 before the first.
    pub attempt: i64,
    /// Attempts allowed in a generation.
    pub max_attempts: i64,
    /// Attempts in a row that ended by the death of their worker without progress.
    pub crash_count: i64,
    /// The fence: rises with every claim and reclaim, never falls.
    pub lease_epoch: i64,
    /// Not before this time.
    #[serde(serialize_with = "rfc3339")]
    pub run_at: UnixMillis,
    /// When the row came.
    #[serde(serialize_with = "rfc3339")]
    pub created_at: UnixMillis,
    /// When the running or last attempt started.
    #[serde(serialize_with = "rfc3339_option")]
    pub started_at: Option<UnixMillis>,
    /// When it was completed, failed or cancelled.
    #[serde(serialize_with = "rfc3339_option")]
    pub finished_at: Option<UnixMillis>,
    /// The worker that holds the lease.
    pub worker: Option<String>,
    /// Until when the lease holds unless it is renewed.
    #[serde(serialize_with = "rfc3339_option")]
    pub lease_until: Option<UnixMillis>,
    /// The batch it belongs to.
    pub batch_id: Option<String>,
    /// The schedule that made it.
    pub schedule_id: Option<i64>,
    /// Unique in the database.
    pub idempotency_key: Option<String>,
    /// When somebody asked to cancel it while it ran.
    #[serde(serialize_with = "rfc3339_option")]
    pub cancel_requested_at: Option<UnixMillis>,
    /// Since when an operator holds it back.
    #[serde(serialize_with = "rfc3339_option")]
    pub paused_at: Option<UnixMillis>,
    /// How far the running or last attempt came.
    pub progress: Option<Progress>,
    /// Why the last attempt failed.
    pub failure: Option<Failure>,
    /// What was done, when completed.
    pub report: Option<Report>,
}

/// A time as RFC 3339 UTC.
///
/// # Errors
/// Those of the serializer.
pub fn rfc3339<S: Serializer>(time: &UnixMillis, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_rfc3339())
}

/// A time as RFC 3339 UTC, or null.
///
/// # Errors
/// Those of the serializer.
pub fn rfc3339_option<S: Serializer>(time: &Option<UnixMillis>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.serialize_str(&time.to_rfc3339()),
        None => serializer.serialize_none(),
    }
}
