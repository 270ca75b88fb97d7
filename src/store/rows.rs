//! Rows to values. A row that this program cannot read is an error that names the column, never a guess.

use super::{BlobSeen, Error, JobEvent, Sealed, UploadState, WorkerRow};
use crate::access::{ApiKey, Destination, KeyHash, NewKey};
use crate::clock::UnixMillis;
use crate::job::batch::{self, Batch, Counts, Listed};
use crate::job::replay::{Entry, Facts};
use crate::job::schedule::{Occurrence, Schedule};
use crate::job::{Failure, Job, Kind, Progress};
use sqlx::Row;

/// How far an upload has come; None when nobody has noted anything yet.
pub(super) fn upload(row: &impl Columns) -> Result<Option<UploadState>, Error> {
    let (location, midstate) = (row.bytes_option("location")?, row.bytes_option("midstate")?);
    let committed = row.count("committed")?;
    Ok(location.zip(midstate).map(|(location, midstate)| UploadState { location, committed, midstate }))
}

/// Where a blob was seen.
pub(super) fn blob_seen(row: &impl Columns) -> Result<BlobSeen, Error> {
    let here = row.text_option("here")?.is_some();
    Ok(BlobSeen { digest: row.text("digest")?, here, elsewhere: row.text_option("elsewhere")? })
}

/// A row of either database. Columns are integers and texts, by name.
pub(super) trait Columns {
    /// An integer; None for NULL.
    fn int_option(&self, column: &str) -> Result<Option<i64>, Error>;
    /// The bytes of a text; None for NULL.
    fn bytes_option(&self, column: &str) -> Result<Option<Vec<u8>>, Error>;
    /// A truth.
    fn flag(&self, column: &str) -> Result<bool, Error>;

    /// An integer that is there.
    fn int(&self, column: &str) -> Result<i64, Error> {
        self.int_option(column)?.ok_or_else(|| unreadable(column, "it is NULL"))
    }

    /// A number of things, as counts come.
    fn count(&self, column: &str) -> Result<u64, Error> {
        Ok(u64::try_from(self.int(column)?).unwrap_or(0))
    }

    /// A time; None for NULL.
    fn time(&self, column: &str) -> Result<Option<UnixMillis>, Error> {
        Ok(self.int_option(column)?.map(UnixMillis))
    }

    /// Text of a column that anybody may have written: SQLite keeps bytes that are no UTF-8 there, and a row like that must
    /// neither stop a worker nor a list.
    fn text_option(&self, column: &str) -> Result<Option<String>, Error> {
        Ok(self.bytes_option(column)?.map(|bytes| {
            String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
        }))
    }

    /// As [`Columns::text_option`]; empty for NULL.
    fn text(&self, column: &str) -> Result<String, Error> {
        Ok(self.text_option(column)?.unwrap_or_default())
    }
}

macro_rules! columns {
    ($($row:ty),*) => {$(
        impl Columns for $row {
            fn int_option(&self, column: &str) -> Result<Option<i64>, Error> {
                Ok(self.try_get(column)?)
            }

            fn bytes_option(&self, column: &str) -> Result<Option<Vec<u8>>, Error> {
                Ok(self.try_get_unchecked(column)?)
            }

            fn flag(&self, column: &str) -> Result<bool, Error> {
                Ok(self.try_get(column)?)
            }
        }
    )*};
}

columns!(sqlx::sqlite::SqliteRow, sqlx::postgres::PgRow);

/// Text of a column that anybody may have written; empty for NULL.
pub(super) fn text(row: &impl Columns, column: &str) -> Result<String, Error> {
    row.text(column)
}

/// JSON of a column that anybody may have written; what SQLite takes for JSON and we do not is shown as a string.
fn json(text: String) -> serde_json::Value {
    serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text))
}

fn unreadable(column: &str, why: impl std::fmt::Display) -> Error {
    Error::Unusable(format!("a row cannot be read: {column}: {why}"))
}

/// A schedule from the columns that every statement of schedules selects.
pub(super) fn schedule(row: &impl Columns) -> Result<Schedule, Error> {
    Ok(Schedule {
        id: row.int("id")?,
        name: row.text("name")?,
        timing: row.text("timing")?,
        timezone: row.text("timezone")?,
        jitter_ms: row.int("jitter_ms")?,
        missed: row.text("missed")?,
        overlap: row.text("overlap")?,
        kind: row.text("kind")?,
        source: row.text("source")?,
        destination: row.text("destination")?,
        options: json(row.text("options")?),
        queue: row.text("queue")?,
        priority: row.int("priority")?,
        max_attempts: row.int("max_attempts")?,
        base_at: UnixMillis(row.int("base_at")?),
        created_at: UnixMillis(row.int("created_at")?),
        next_at: row.time("next_at")?,
        last_at: row.time("last_at")?,
        paused_at: row.time("paused_at")?,
        ended_at: row.time("ended_at")?,
        fault: row.text_option("fault")?,
    })
}

/// A batch and what its jobs come to.
pub(super) fn batch(row: &impl Columns) -> Result<Batch, Error> {
    let listing = row.text_option("listing")?;
    let listing = listing.map(|state| state.parse()).transpose().map_err(|error| unreadable("listing", error))?;
    let mut jobs = Counts {
        total: 0,
        scheduled: row.count("scheduled")?,
        pending: row.count("pending")?,
        running: row.count("running")?,
        completed: row.count("completed")?,
        already_present: row.count("already_present")?,
        failed: row.count("failed")?,
        cancelled: row.count("cancelled")?,
    };
    jobs.total = jobs.scheduled + jobs.pending + jobs.running + jobs.completed + jobs.failed + jobs.cancelled;
    let cancelled_at = row.time("cancelled_at")?;
    let state = batch::state(&jobs, listing, cancelled_at.is_some());
    Ok(Batch {
        id: row.text("id")?.parse().map_err(|error| unreadable("id", error))?,
        kind: row.text("kind")?.parse().map_err(|error| unreadable("kind", error))?,
        name: row.text_option("name")?,
        source: row.text("source")?,
        destination: row.text("destination")?,
        state,
        listing,
        expand_job: row.int_option("expand_job")?,
        schedule_id: row.int_option("schedule_id")?,
        created_by: row.text("created_by")?,
        created_at: UnixMillis(row.int("created_at")?),
        started_at: row.time("started_at")?,
        finished_at: row.time("finished_at")?.filter(|_| state.is_finished()),
        cancelled_at,
        jobs,
        repositories: row.count("repositories")?,
        repositories_failed: row.count("repositories_failed")?,
        bytes_moved: row.count("bytes_moved")?,
        bytes_done: row.count("bytes_done")?,
        bytes_total: row.count("bytes_total")?,
    })
}

/// What became of a repository of a batch.
pub(super) fn listed(row: &impl Columns) -> Result<Listed, Error> {
    Ok(Listed {
        rule: u32::try_from(row.int("rule")?).unwrap_or(u32::MAX),
        repository: row.text("repository")?,
        tags: row.count("tags")?,
        kept: row.count("kept")?,
        failure: row.text_option("failure_class")?.zip(row.text_option("failure_message")?),
    })
}

/// What became of a time of a schedule.
pub(super) fn occurrence(row: &impl Columns) -> Result<Occurrence, Error> {
    let outcome = row.text("outcome")?;
    Ok(Occurrence {
        schedule: row.int("schedule_id")?,
        at: UnixMillis(row.int("at")?),
        fate: outcome.parse().map_err(|error| unreadable("outcome", error))?,
        job: row.int_option("job_id")?,
        decided_at: UnixMillis(row.int("decided_at")?),
        detail: row.text_option("detail")?,
    })
}

/// A job from the columns that every statement of jobs selects.
pub(super) fn job(row: &impl Columns) -> Result<Job, Error> {
    let state = row.text("state")?;
    let kind = row.text("kind")?;
    let report = row.text_option("report")?;
    Ok(Job {
        id: row.int("id")?,
        kind: if kind == "expand" { Kind::Expand } else { Kind::Copy },
        generation: row.int("generation")?,
        source: row.text("source")?,
        destination: row.text("destination")?,
        options: json(row.text("options")?),
        state: state.parse().map_err(|error| unreadable("state", error))?,
        queue: row.text("queue")?,
        priority: row.int("priority")?,
        attempt: row.int("attempt")?,
        max_attempts: row.int("max_attempts")?,
        crash_count: row.int("crash_count")?,
        lease_epoch: row.int("lease_epoch")?,
        run_at: UnixMillis(row.int("run_at")?),
        created_at: UnixMillis(row.int("created_at")?),
        started_at: row.time("started_at")?,
        finished_at: row.time("finished_at")?,
        worker: row.text_option("worker")?,
        lease_until: row.time("lease_until")?,
        batch_id: row.text_option("batch_id")?,
        schedule_id: row.int_option("schedule_id")?,
        idempotency_key: row.text_option("idempotency_key")?,
        cancel_requested_at: row.time("cancel_requested_at")?,
        paused_at: row.time("paused_at")?,
        progress: progress(row)?,
        failure: failure(row)?,
        report: report.and_then(|report| serde_json::from_str(&report).ok()),
    })
}

fn progress(row: &impl Columns) -> Result<Option<Progress>, Error> {
    let number = |column: &str| -> Result<Option<u64>, Error> {
        Ok(row.int_option(column)?.map(|number| u64::try_from(number).unwrap_or(0)))
    };
    let (Some(bytes_done), Some(bytes_total), Some(blobs_done), Some(blobs_total)) =
        (number("bytes_done")?, number("bytes_total")?, number("blobs_done")?, number("blobs_total")?)
    else {
        return Ok(None);
    };
    Ok(Some(Progress { bytes_done, bytes_total, blobs_done, blobs_total }))
}

fn failure(row: &impl Columns) -> Result<Option<Failure>, Error> {
    let Some(class) = row.text_option("failure_class")? else { return Ok(None) };
    Ok(Some(Failure {
        stage: row.text("failure_stage")?,
        class,
        message: row.text("failure_message")?,
        at: row.time("failure_at")?.unwrap_or(UnixMillis(0)),
    }))
}

pub(super) fn event(row: &impl Columns) -> Result<JobEvent, Error> {
    Ok(JobEvent {
        seq: row.int("seq")?,
        job_id: row.int("job_id")?,
        at: UnixMillis(row.int("at")?),
        from_state: row.text_option("from_state")?,
        to_state: row.text("to_state")?,
        lease_epoch: row.int("lease_epoch")?,
        attempt: row.int("attempt")?,
        worker: row.text_option("worker")?,
        actor: row.text("actor")?,
        reason: row.text_option("reason")?,
        detail: row.text_option("detail")?.map(json),
    })
}

/// A sealed credential.
pub(super) fn sealed(row: &impl Columns) -> Result<Sealed, Error> {
    Ok(Sealed {
        registry: row.text("registry")?,
        username: row.text("username")?,
        key_id: row.text("key_id")?,
        sealed: row.text("sealed")?,
        created_at: UnixMillis(row.int("created_at")?),
        changed_at: UnixMillis(row.int("changed_at")?),
        changed_by: row.text("changed_by")?,
    })
}

/// What of a key is written in another form.
pub(super) struct KeyRow {
    pub hash: String,
    pub destinations: Option<String>,
}

/// The form of a key in its row.
pub(super) fn key_row(key: &NewKey) -> KeyRow {
    let destinations = key.destinations.as_ref().map(|all| serde_json::json!(all).to_string());
    KeyRow { hash: key.hash.to_hex(), destinations }
}

/// A key of the API.
pub(super) fn key(row: &impl Columns) -> Result<ApiKey, Error> {
    let destinations = row.text_option("destinations")?;
    let destinations: Option<Vec<Destination>> = destinations
        .map(|json| serde_json::from_str(&json).map_err(|error| unreadable("destinations", error)))
        .transpose()?;
    Ok(ApiKey {
        id: row.text("id")?,
        name: row.text("name")?,
        role: row.text("role")?.parse().map_err(|error| unreadable("role", error))?,
        hash: KeyHash::from_hex(&row.text("hash")?).ok_or_else(|| unreadable("hash", "it is no SHA-256"))?,
        destinations,
        created_at: UnixMillis(row.int("created_at")?),
        created_by: row.text("created_by")?,
        expires_at: row.time("expires_at")?,
        revoked_at: row.time("revoked_at")?,
        revoked_by: row.text_option("revoked_by")?,
    })
}

/// What `db check` compares with the history of a job.
pub(super) fn facts(row: &impl Columns) -> Result<Facts, Error> {
    Ok(Facts {
        state: row.text("state")?.parse().map_err(|error| unreadable("state", error))?,
        generation: row.int("generation")?,
        attempt: row.int("attempt")?,
        lease_epoch: row.int("lease_epoch")?,
        worker: row.text_option("worker")?,
    })
}

/// An event as `db check` replays it.
pub(super) fn entry(row: &impl Columns) -> Result<Entry, Error> {
    Ok(Entry {
        seq: row.int("seq")?,
        from: row.text_option("from_state")?,
        to: row.text("to_state")?,
        generation: row.int("generation")?,
        lease_epoch: row.int("lease_epoch")?,
        attempt: row.int("attempt")?,
        attempt_after: attempt_after(row)?,
        worker: row.text_option("worker")?,
    })
}

/// What the end of an attempt says of the row's attempt; None for other events, and where it says nothing. The text is read
/// here and not by the database: anybody may have written it, and PostgreSQL would refuse the whole statement.
fn attempt_after(row: &impl Columns) -> Result<Option<i64>, Error> {
    let Some(detail) = row.text_option("end_detail")? else { return Ok(None) };
    let detail: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&detail).map_err(|error| unreadable("detail", format_args!("no JSON object: {error}")))?;
    match detail.get("attempt_after") {
        None | Some(serde_json::Value::Null) => Ok(None),
        Some(number) => match number.as_i64() {
            Some(number) => Ok(Some(number)),
            None => Err(unreadable("detail", "attempt_after is no whole number")),
        },
    }
}

pub(super) fn worker(row: &impl Columns) -> Result<WorkerRow, Error> {
    Ok(WorkerRow {
        id: row.text("id")?,
        host: row.text("host")?,
        pid: row.int("pid")?,
        machine_id: row.text("machine_id")?,
        boot_id: row.text("boot_id")?,
        state_dir: row.text("state_dir")?,
        state_device: row.int("state_device")?,
        state_inode: row.int("state_inode")?,
        version: row.text("version")?,
        lease_ttl_ms: row.int("lease_ttl_ms")?,
        queue: row.text_option("queue")?,
        concurrency: row.int("concurrency")?,
        started_at: UnixMillis(row.int("started_at")?),
        seen_at: UnixMillis(row.int("seen_at")?),
    })
}
