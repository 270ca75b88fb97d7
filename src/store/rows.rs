//! Rows to values. A row that this program cannot read is an error that names the column, never a guess.

use super::{Error, JobEvent, WorkerRow};
use crate::clock::UnixMillis;
use crate::job::{Failure, Job, Kind, Progress};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

fn time(row: &SqliteRow, column: &str) -> Result<Option<UnixMillis>, Error> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(UnixMillis))
}

/// Text of a column that anybody may have written: SQLite keeps bytes that are no UTF-8 there, and a row like that must
/// neither stop a worker nor a list.
pub(super) fn text(row: &SqliteRow, column: &str) -> Result<String, Error> {
    Ok(text_option(row, column)?.unwrap_or_default())
}

fn text_option(row: &SqliteRow, column: &str) -> Result<Option<String>, Error> {
    let bytes = row.try_get_unchecked::<Option<Vec<u8>>, _>(column)?;
    Ok(bytes.map(|bytes| {
        String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }))
}

/// JSON of a column that anybody may have written; what SQLite takes for JSON and we do not is shown as a string.
fn json(text: String) -> serde_json::Value {
    serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text))
}

fn unreadable(column: &str, why: impl std::fmt::Display) -> Error {
    Error::Unusable(format!("a row cannot be read: {column}: {why}"))
}

/// A job from the columns that every statement of jobs selects.
pub(super) fn job(row: &SqliteRow) -> Result<Job, Error> {
    let state: String = row.try_get("state")?;
    let kind: String = row.try_get("kind")?;
    let report = text_option(row, "report")?;
    Ok(Job {
        id: row.try_get("id")?,
        kind: if kind == "expand" { Kind::Expand } else { Kind::Copy },
        generation: row.try_get("generation")?,
        source: text(row, "source")?,
        destination: text(row, "destination")?,
        options: json(text(row, "options")?),
        state: state.parse().map_err(|error| unreadable("state", error))?,
        queue: text(row, "queue")?,
        priority: row.try_get("priority")?,
        attempt: row.try_get("attempt")?,
        max_attempts: row.try_get("max_attempts")?,
        crash_count: row.try_get("crash_count")?,
        lease_epoch: row.try_get("lease_epoch")?,
        run_at: UnixMillis(row.try_get("run_at")?),
        created_at: UnixMillis(row.try_get("created_at")?),
        started_at: time(row, "started_at")?,
        finished_at: time(row, "finished_at")?,
        worker: text_option(row, "worker")?,
        lease_until: time(row, "lease_until")?,
        batch_id: text_option(row, "batch_id")?,
        schedule_id: row.try_get("schedule_id")?,
        idempotency_key: text_option(row, "idempotency_key")?,
        cancel_requested_at: time(row, "cancel_requested_at")?,
        paused_at: time(row, "paused_at")?,
        progress: progress(row)?,
        failure: failure(row)?,
        report: report.and_then(|report| serde_json::from_str(&report).ok()),
    })
}

fn progress(row: &SqliteRow) -> Result<Option<Progress>, Error> {
    let number = |column: &str| -> Result<Option<u64>, Error> {
        Ok(row.try_get::<Option<i64>, _>(column)?.map(|number| u64::try_from(number).unwrap_or(0)))
    };
    let (Some(bytes_done), Some(bytes_total), Some(blobs_done), Some(blobs_total)) =
        (number("bytes_done")?, number("bytes_total")?, number("blobs_done")?, number("blobs_total")?)
    else {
        return Ok(None);
    };
    Ok(Some(Progress { bytes_done, bytes_total, blobs_done, blobs_total }))
}

fn failure(row: &SqliteRow) -> Result<Option<Failure>, Error> {
    let Some(class) = text_option(row, "failure_class")? else { return Ok(None) };
    Ok(Some(Failure {
        stage: text(row, "failure_stage")?,
        class,
        message: text(row, "failure_message")?,
        at: time(row, "failure_at")?.unwrap_or(UnixMillis(0)),
    }))
}

pub(super) fn event(row: &SqliteRow) -> Result<JobEvent, Error> {
    Ok(JobEvent {
        seq: row.try_get("seq")?,
        job_id: row.try_get("job_id")?,
        at: UnixMillis(row.try_get("at")?),
        from_state: row.try_get("from_state")?,
        to_state: row.try_get("to_state")?,
        lease_epoch: row.try_get("lease_epoch")?,
        attempt: row.try_get("attempt")?,
        worker: text_option(row, "worker")?,
        actor: text(row, "actor")?,
        reason: text_option(row, "reason")?,
        detail: text_option(row, "detail")?.map(json),
    })
}

pub(super) fn worker(row: &SqliteRow) -> Result<WorkerRow, Error> {
    Ok(WorkerRow {
        id: row.try_get("id")?,
        host: row.try_get("host")?,
        pid: row.try_get("pid")?,
        machine_id: row.try_get("machine_id")?,
        boot_id: row.try_get("boot_id")?,
        state_dir: row.try_get("state_dir")?,
        state_device: row.try_get("state_device")?,
        state_inode: row.try_get("state_inode")?,
        version: row.try_get("version")?,
        lease_ttl_ms: row.try_get("lease_ttl_ms")?,
        queue: text_option(row, "queue")?,
        concurrency: row.try_get("concurrency")?,
        started_at: UnixMillis(row.try_get("started_at")?),
        seen_at: UnixMillis(row.try_get("seen_at")?),
    })
}
