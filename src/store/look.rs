//! What passes through the door for those who look at the queue and steer it.

use super::Error;
use crate::clock::UnixMillis;
use crate::job::{Job, JobId, Schedule, State, rfc3339, rfc3339_option};
use serde::Serialize;

/// What there is to do, at one look.
#[derive(Debug, Clone, Copy, Default)]
pub struct Waiting {
    /// A scheduled job's time has come.
    pub due: bool,
    /// A row has references that nobody parsed yet.
    pub intake: bool,
    /// A job is pending that is parsed: it may be claimed, unless a pause or a limit is against it.
    pub pending: bool,
    /// The smallest time of the scheduled jobs.
    pub next_run_at: Option<UnixMillis>,
}

/// Schedules that are due, at one look.
#[derive(Debug, Clone)]
pub struct SchedulesDue {
    /// The time of the look, by the clock that decides.
    pub now: UnixMillis,
    /// Those whose time has come, and those that nobody has looked at yet.
    pub schedules: Vec<Schedule>,
    /// The earliest time of all.
    pub next_at: Option<UnixMillis>,
}

/// What an operator does to a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScheduleChange {
    /// It makes no job until it is resumed.
    Pause,
    /// It counts from now on; what made it faulty is looked at again.
    Resume,
    /// It is there no more; its history stays.
    Remove,
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

/// A queue, and what waits and runs in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueRow {
    /// Its name.
    pub name: String,
    /// Since when nothing is claimed from it.
    #[serde(serialize_with = "rfc3339_option")]
    pub paused_at: Option<UnixMillis>,
    /// At most so many of its jobs run at a time, on all workers together; None: no limit.
    pub max_running: Option<u32>,
    /// Jobs that wait for their time, paused ones too.
    pub scheduled: u64,
    /// Jobs that wait for a worker.
    pub pending: u64,
    /// Jobs that run.
    pub running: u64,
    /// How long the oldest pending job could have run already, milliseconds.
    pub oldest_pending_age_ms: Option<u64>,
}

/// What an operator does to a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueChange {
    /// Nothing more is claimed from it; what runs goes on.
    Pause,
    /// Claims go on.
    Resume,
    /// At most so many jobs run at a time; None lifts the limit. What runs already goes on.
    Limit(Option<u32>),
}

/// What an operator changes of waiting jobs; None leaves a value as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit {
    /// Lower runs first.
    pub priority: Option<i64>,
    /// Not before this time; one that has passed means at once.
    pub run_at: Option<UnixMillis>,
    /// Attempts allowed.
    pub max_attempts: Option<i64>,
    /// The queue it waits in.
    pub queue: Option<String>,
}

impl Edit {
    /// The job is so already.
    #[must_use]
    pub fn is_met_by(&self, job: &Job) -> bool {
        self.priority.is_none_or(|priority| priority == job.priority)
            && self.run_at.is_none_or(|run_at| run_at == job.run_at)
            && self.max_attempts.is_none_or(|attempts| attempts == job.max_attempts)
            && self.queue.as_ref().is_none_or(|queue| *queue == job.queue)
    }

    /// Checks what can be checked without the database.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the value.
    pub fn check(&self) -> Result<(), Error> {
        let invalid = |message: String| Err(Error::Invalid(message));
        if let Some(priority) = self.priority
            && i32::try_from(priority).is_err()
        {
            return invalid(format!("priority is {priority}: it must fit into 32 bits"));
        }
        if let Some(attempts) = self.max_attempts
            && !(1..=1000).contains(&attempts)
        {
            return invalid(format!("max attempts is {attempts}: use 1 to 1000"));
        }
        if let Some(queue) = &self.queue {
            check_queue(queue)?;
        }
        if *self == Self::default() {
            return invalid("nothing to change: give a priority, a time, attempts or a queue".to_owned());
        }
        Ok(())
    }
}

/// A name that a queue can have.
pub(super) fn check_queue(name: &str) -> Result<(), Error> {
    crate::job::check_queue(name).map_err(|error| Error::Invalid(error.0))
}

/// What decides whether a job runs, at one look (`jobs why`).
#[derive(Debug, Clone, Serialize)]
pub struct Why {
    /// The job.
    pub job: Job,
    /// The moment of the look, by the clock that decides: the database's on PostgreSQL.
    #[serde(serialize_with = "rfc3339")]
    pub now: UnixMillis,
    /// Since when an operator holds it back.
    #[serde(serialize_with = "rfc3339_option")]
    pub paused_at: Option<UnixMillis>,
    /// Its references are parsed: it can be claimed.
    pub parsed: bool,
    /// Since when its queue is paused.
    #[serde(serialize_with = "rfc3339_option")]
    pub queue_paused_at: Option<UnixMillis>,
    /// The limit of its queue.
    pub queue_max_running: Option<u32>,
    /// Running jobs of its queue.
    pub queue_running: u64,
    /// The registry it writes to.
    pub registry: Option<String>,
    /// Running jobs that write to that registry.
    pub registry_running: u64,
    /// The running job that writes the same destination.
    pub same_destination: Option<JobId>,
    /// Pending jobs of its queue that go first; counted up to 1,000.
    pub ahead: u64,
    /// Workers that serve its queue and have said lately that they live.
    pub workers: u64,
    /// Jobs that they may run at a time, together.
    pub places: u64,
}

/// Which finished jobs are not kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Completed jobs that were finished before this time; None keeps them all.
    pub completed_before: Option<UnixMillis>,
    /// Cancelled jobs, likewise.
    pub cancelled_before: Option<UnixMillis>,
    /// Failed jobs, likewise.
    pub failed_before: Option<UnixMillis>,
    /// Idempotency keys of pruned jobs that are older than this time; None keeps them all.
    pub keys_before: Option<UnixMillis>,
}

impl Retention {
    /// The states whose jobs may go, each with its time.
    pub(super) fn states(&self) -> impl Iterator<Item = (State, UnixMillis)> {
        let of = |state, before: Option<UnixMillis>| before.map(|before| (state, before));
        [
            of(State::Completed, self.completed_before),
            of(State::Cancelled, self.cancelled_before),
            of(State::Failed, self.failed_before),
        ]
        .into_iter()
        .flatten()
    }
}

/// What retention would remove.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Prunable {
    /// Completed jobs.
    pub completed: u64,
    /// Cancelled jobs.
    pub cancelled: u64,
    /// Failed jobs.
    pub failed: u64,
    /// Idempotency keys of jobs that are not kept, or would not be.
    pub keys: u64,
}

impl Prunable {
    /// Takes the number of a finished state's jobs.
    pub(super) const fn set(&mut self, state: State, jobs: u64) {
        match state {
            State::Completed => self.completed = jobs,
            State::Cancelled => self.cancelled = jobs,
            State::Failed => self.failed = jobs,
            State::Scheduled | State::Pending | State::Running => {}
        }
    }

    /// All jobs.
    #[must_use]
    pub const fn jobs(&self) -> u64 {
        self.completed + self.cancelled + self.failed
    }
}

/// What one batch of retention removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Jobs, with their history.
    pub jobs: u64,
    /// Idempotency keys of jobs that were pruned long ago.
    pub keys: u64,
    /// It stopped at its limit: there may be more to remove.
    #[serde(skip)]
    pub more: bool,
}

/// What making a restored database safe did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// Jobs whose epoch was raised: all of them.
    pub jobs: u64,
    /// Jobs that were running when the backup was made; they are scheduled again.
    pub requeued: u64,
    /// Worker rows of the lost time, removed.
    pub workers: u64,
    /// Temporary files of the lost time, forgotten.
    pub temp_files: u64,
}

/// Rows that were copied into another database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Rows of `jobs`.
    pub jobs: u64,
    /// Rows of `job_events`.
    pub events: u64,
    /// Rows of `transfers`.
    pub transfers: u64,
    /// Jobs that were running: they are scheduled again in the copy.
    pub requeued: u64,
    /// Texts that the target cannot hold as they are, and that are others there.
    pub replaced: u64,
}

/// Something about a job that is no change of it and yet belongs into its history.
#[derive(Debug, Clone)]
pub enum Remark {
    /// An attempt may have written its tag after its lease was lost: the one write that no fence covers.
    PublishedLate(LatePublication),
    /// The destination did not name what the newest completed job for it had written: somebody else moved the tag, or a late
    /// publication did.
    DestinationMoved(DestinationMoved),
}

impl Remark {
    /// The word in the history.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::PublishedLate(_) => "published late",
            Self::DestinationMoved(_) => "destination moved",
        }
    }

    /// The worker that says so.
    #[must_use]
    pub fn worker(&self) -> &str {
        match self {
            Self::PublishedLate(late) => &late.worker,
            Self::DestinationMoved(moved) => &moved.worker,
        }
    }

    /// The rest, JSON.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is no JSON, which does not happen.
    pub(super) fn detail(&self) -> Result<String, Error> {
        let detail = match self {
            Self::PublishedLate(late) => serde_json::to_string(late),
            Self::DestinationMoved(moved) => serde_json::to_string(moved),
        };
        detail.map_err(|error| Error::Invalid(format!("remark: {error}")))
    }
}

/// A tag that names something else than was written.
#[derive(Debug, Clone, Serialize)]
pub struct DestinationMoved {
    /// The digest that the newest completed job wrote, or found there.
    pub expected: String,
    /// That job.
    pub written_by: JobId,
    /// The digest that the tag names.
    pub found: String,
    /// The worker that looked.
    pub worker: String,
}

/// What the newest completed job for a target left there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The job.
    pub job: JobId,
    /// The digest that it wrote, or found there.
    pub digest: String,
}

/// A tag that an attempt may have written after its lease was lost.
#[derive(Debug, Clone, Serialize)]
pub struct LatePublication {
    /// The digest that the attempt was writing.
    pub digest: String,
    /// The digest that the tag named afterwards; None when there is none or it could not be asked.
    pub found: Option<String>,
    /// The worker of the attempt.
    pub worker: String,
    /// The epoch of the attempt.
    pub lease_epoch: i64,
}
