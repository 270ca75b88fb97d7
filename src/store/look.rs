//! What passes through the door for those who look at the queue and steer it.

use crate::clock::UnixMillis;
use crate::job::{JobId, State, rfc3339};
use serde::Serialize;

/// What there is to do, at one look.
#[derive(Debug, Clone, Copy, Default)]
pub struct Waiting {
    /// A scheduled job's time has come.
    pub due: bool,
    /// A row has references that nobody parsed yet.
    pub intake: bool,
    /// A job is pending.
    pub pending: bool,
    /// The smallest time of the scheduled jobs.
    pub next_run_at: Option<UnixMillis>,
}

/// What an intake step did.
#[derive(Debug, Default)]
pub struct Intake {
    /// Rows whose references parse.
    pub accepted: u64,
    /// Rows that failed as rejected, with the reason.
    pub rejected: Vec<(JobId, String)>,
}

/// Which jobs a list shows.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// In this state.
    pub state: Option<State>,
    /// Of this batch.
    pub batch: Option<String>,
    /// Source pattern: `*` and `?` are wild; without either it matches anywhere.
    pub source: Option<String>,
    /// Destination pattern, likewise.
    pub destination: Option<String>,
    /// In this queue.
    pub queue: Option<String>,
    /// Created at this time or later.
    pub since: Option<UnixMillis>,
}

/// Which jobs `cancel` and `retry` mean.
#[derive(Debug, Clone)]
pub enum Selection {
    /// These; all must exist.
    Ids(Vec<JobId>),
    /// Those that match by state, batch and queue; the patterns are not used.
    Filter(JobFilter),
}

/// One transition or change of a job, as the database recorded it.
#[derive(Debug, Clone, Serialize)]
pub struct JobEvent {
    /// Rises over the whole database.
    pub seq: i64,
    /// The job.
    pub job_id: JobId,
    /// When.
    #[serde(serialize_with = "rfc3339")]
    pub at: UnixMillis,
    /// None for the first event.
    pub from_state: Option<String>,
    /// Equal to `from_state` when something else than the state changed.
    pub to_state: String,
    /// The row's epoch after the change.
    pub lease_epoch: i64,
    /// The attempt that the event belongs to.
    pub attempt: i64,
    /// The worker that had or took the job.
    pub worker: Option<String>,
    /// Who did it: `freightliner`, `sweeper`, `cli:USER`, or `sql` for anybody else's statement.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
    /// More, by kind of event.
    pub detail: Option<serde_json::Value>,
}

/// Numbers of the whole queue.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Stats {
    /// Jobs that wait for their time.
    pub scheduled: u64,
    /// Jobs that wait for a worker.
    pub pending: u64,
    /// Jobs that run.
    pub running: u64,
    /// Jobs that are done.
    pub completed: u64,
    /// Jobs that were given up.
    pub failed: u64,
    /// Jobs that were called off.
    pub cancelled: u64,
    /// How long the oldest pending job could have run already.
    pub oldest_pending_age_ms: Option<u64>,
    /// Completed within the last hour.
    pub completed_last_hour: u64,
    /// Failed within the last hour.
    pub failed_last_hour: u64,
    /// Blob bytes that completed jobs sent within the last hour.
    pub bytes_last_hour: u64,
}

/// Facts about the database.
#[derive(Debug, Clone, Serialize)]
pub struct DatabaseInfo {
    /// Without secrets.
    pub url: String,
    /// `sqlite`.
    pub engine: String,
    /// Of the engine.
    pub engine_version: String,
    /// The schema of the database.
    pub schema_version: i64,
    /// The newest schema that this program knows.
    pub newest_known_schema: i64,
    /// Of the main file, bytes.
    pub size_bytes: u64,
    /// Of the write-ahead log, bytes.
    pub wal_bytes: u64,
    /// Rows in `jobs`.
    pub jobs: u64,
    /// Rows in `job_events`.
    pub events: u64,
}

/// Rows of somebody's query.
#[derive(Debug, Clone)]
pub struct Table {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Values: null, numbers and strings; a BLOB as a string of hex digits.
    pub rows: Vec<Vec<serde_json::Value>>,
    /// There are more rows than the limit.
    pub truncated: bool,
}

/// Something that `db check` does not like.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Which check.
    pub check: String,
    /// What it found.
    pub message: String,
}
