//! Jobs: asked for, listed, looked at, steered, waited for.

use super::auth::Caller;
use super::body::{Body, Path, Query};
use super::error::ApiError;
use super::{App, legacy};
use crate::access::Role;
use crate::clock::UnixMillis;
use crate::job::batch::BatchId;
use crate::job::{CopyOptions, DEFAULT_PRIORITY, DEFAULT_QUEUE, Enqueued, Job, JobId, Kind, NewJob, State};
use crate::store::{JobFilter, Selection};
use axum::extract::State as Extract;
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

/// Most jobs in one call: one transaction.
const JOBS_LIMIT: usize = 1000;
/// Most rows of a list.
const LIST_LIMIT: u32 = 1000;
/// Rows of a list when nobody says.
const LIST_DEFAULT: u32 = 50;
/// Longest wait of a long poll.
const LONGEST_WAIT: Duration = Duration::from_secs(50);
/// Longest pause between two looks while waiting.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// A copy that is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    source: String,
    destination: String,
    #[serde(default)]
    options: Value,
    priority: Option<i64>,
    queue: Option<String>,
    max_attempts: Option<i64>,
    /// RFC 3339, or unix milliseconds.
    run_at: Option<Value>,
    idempotency_key: Option<String>,
}

/// One copy, or many.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Asked {
    /// `[{...}, ...]`
    List(Vec<Value>),
    /// `{...}`, or `{"jobs": [...]}`.
    One(serde_json::Map<String, Value>),
}

/// A job from what was sent.
fn job(app: &App, caller: &Caller, wanted: Wanted) -> Result<NewJob, ApiError> {
    if caller.role < Role::Admin && [&wanted.source, &wanted.destination].iter().any(|text| text.starts_with("oci:")) {
        return Err(ApiError::forbidden("image layouts are files of the server: only the role admin may name them"));
    }
    let options = if wanted.options.is_null() { json!({}) } else { wanted.options };
    let options = CopyOptions::parse(&options).map_err(ApiError::bad)?;
    let mut job = NewJob::parse(&wanted.source, &wanted.destination, options, FilePath::new("/"))?;
    job.priority = wanted.priority.unwrap_or(DEFAULT_PRIORITY);
    job.queue = wanted.queue.unwrap_or_else(|| DEFAULT_QUEUE.to_owned());
    job.max_attempts = wanted.max_attempts.unwrap_or(app.max_attempts);
    job.run_at = wanted.run_at.map(|at| time(&at)).transpose()?;
    if let Some(key) = wanted.idempotency_key {
        job.idempotency_key = Some(key);
        job.joins_equal = false;
    }
    job.check()?;
    caller.may_write([job.parsed.dest_key().as_str()])?;
    Ok(job)
}

/// A time of a request.
fn time(value: &Value) -> Result<UnixMillis, ApiError> {
    let parsed = match value {
        Value::Number(ms) => ms.as_i64().map(UnixMillis),
        Value::String(text) => {
            chrono::DateTime::parse_from_rfc3339(text).ok().map(|at| UnixMillis(at.timestamp_millis()))
        }
        _ => None,
    };
    parsed.ok_or_else(|| {
        ApiError::bad(format!("run_at {value}: use RFC 3339, such as 2026-11-24T06:00:00Z, or unix milliseconds"))
    })
}

/// `POST /jobs`. 202 when something new waits, 200 when all of it was asked for before.
///
/// # Errors
/// 400 names the job (from 0) and what is wrong with it; nothing was enqueued then. 409: a key is known with other content.
pub async fn create(
    Extract(app): Extract<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Body(asked): Body<Asked>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let key = headers.get("idempotency-key").map(|key| key.to_str().unwrap_or_default().to_owned());
    let (list, single) = match asked {
        Asked::List(list) => (list, false),
        Asked::One(mut one) if one.len() == 1 && one.contains_key("jobs") => match one.remove("jobs") {
            Some(Value::Array(list)) => (list, false),
            _ => return Err(ApiError::bad("jobs must be a list")),
        },
        Asked::One(one) => (vec![Value::Object(one)], true),
    };
    if list.is_empty() || list.len() > JOBS_LIMIT {
        return Err(ApiError::bad(format!("a call asks for 1 to {JOBS_LIMIT} jobs, this one for {}", list.len())));
    }
    let mut jobs = Vec::with_capacity(list.len());
    for (place, value) in list.into_iter().enumerate() {
        let told = |error: ApiError| {
            if single { error } else { ApiError { message: format!("job {place}: {}", error.message), ..error } }
        };
        let wanted =
            serde_json::from_value(value).map_err(|error| told(ApiError::bad(format!("Invalid request: {error}"))))?;
        let mut job = job(&app, &caller, wanted).map_err(told)?;
        if let (Some(key), None) = (&key, &job.idempotency_key) {
            job.idempotency_key = Some(if single { key.clone() } else { format!("{key}#{place}") });
            job.joins_equal = false;
            job.check()?;
        }
        jobs.push(job);
    }
    let enqueued = app.store.enqueue(jobs, &caller.actor()).await?;
    let status = if enqueued.iter().any(|job| job.created) { StatusCode::ACCEPTED } else { StatusCode::OK };
    let row = |job: &Enqueued| json!({"id": job.id.to_string(), "created": job.created});
    let answer = match enqueued.as_slice() {
        [one] if single => row(one),
        all => json!({"jobs": all.iter().map(row).collect::<Vec<_>>(), "count": all.len()}),
    };
    Ok((status, Json(answer)))
}

/// Which jobs to list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// `copy` or `expand` lists rows, `replicate`, `replicate-tree`, `sync`, `mirror` and `checkpoint` batches.
    r#type: Option<String>,
    /// As the earlier program says it; both spellings of cancelled.
    status: Option<String>,
    state: Option<String>,
    batch: Option<String>,
    source: Option<String>,
    destination: Option<String>,
    queue: Option<String>,
    since: Option<String>,
    limit: Option<u32>,
    after: Option<String>,
}

/// A state by any of its names.
fn state(text: &str) -> Result<State, ApiError> {
    let text = if text == "canceled" { "cancelled" } else { text };
    text.parse().map_err(|_| {
        ApiError::bad(format!(
            "unknown state `{text}`: use scheduled, pending, running, completed, failed or cancelled"
        ))
    })
}

/// `GET /jobs`: newest first. `next` is the cursor of the next page.
///
/// # Errors
/// 400 for a filter that cannot be.
pub async fn list(Extract(app): Extract<Arc<App>>, Query(query): Query<ListQuery>) -> Result<Json<Value>, ApiError> {
    let limit = query.limit.unwrap_or(LIST_DEFAULT);
    if !(1..=LIST_LIMIT).contains(&limit) {
        return Err(ApiError::bad(format!("limit is {limit}: use 1 to {LIST_LIMIT}")));
    }
    let wanted = query.state.as_deref().or(query.status.as_deref()).map(state).transpose()?;
    let (rows, batches) = match query.r#type.as_deref() {
        None => (true, query.after.is_none() && query.is_plain()),
        Some("copy" | "expand") => (true, false),
        Some("replicate" | "replicate-tree" | "sync" | "mirror" | "checkpoint") => (false, true),
        Some(other) => return Err(ApiError::bad(format!("unknown type `{other}`"))),
    };
    let mut jobs = Vec::new();
    if batches {
        let after = query.after.as_deref().filter(|_| !rows).map(batch_id).transpose()?;
        let found = app.store.batches(None, after, limit).await?;
        jobs.extend(
            found
                .iter()
                .filter(|batch| query.r#type.as_deref().is_none_or(|kind| legacy::kind(batch) == kind))
                .filter(|batch| wanted.is_none_or(|state| batch.state.as_str() == state.as_str()))
                .map(legacy::batch),
        );
    }
    let mut next = None;
    if rows {
        let filter = JobFilter {
            state: wanted,
            batch: query.batch,
            source: query.source,
            destination: query.destination,
            queue: query.queue,
            since: query.since.map(|at| time(&Value::String(at))).transpose()?,
        };
        let after = query.after.as_deref().map(id).transpose()?;
        let kind = query.r#type;
        let found = app.store.jobs(&filter, after, limit).await?;
        if found.len() == usize::try_from(limit).unwrap_or(usize::MAX) {
            next = found.last().map(|job| job.id.to_string());
        }
        jobs.extend(found.iter().filter(|job| kind.as_deref().is_none_or(|kind| kind_of(job) == kind)).map(row));
    }
    Ok(Json(json!({"count": jobs.len(), "jobs": jobs, "next": next})))
}

impl ListQuery {
    /// Nothing is asked that batches do not have.
    fn is_plain(&self) -> bool {
        let filters = [&self.batch, &self.source, &self.destination, &self.queue, &self.since];
        filters.iter().all(|filter| filter.is_none())
    }
}

/// A job as the API shows it: as the command line does, its id a string, and what the earlier program said beside it.
pub fn row(job: &Job) -> Value {
    let mut row = serde_json::to_value(job).unwrap_or_default();
    row["id"] = json!(job.id.to_string());
    legacy::add(&mut row, job);
    row
}

const fn kind_of(job: &Job) -> &'static str {
    match job.kind {
        Kind::Copy => "copy",
        Kind::Expand => "expand",
    }
}

/// The id of a job.
///
/// # Errors
/// 400.
pub fn id(text: &str) -> Result<JobId, ApiError> {
    let id = text.parse::<JobId>().ok().filter(|id| *id > 0);
    id.ok_or_else(|| ApiError::bad(format!("`{}` is no id of a job", crate::oci::quote(text))))
}

/// The id of a batch.
///
/// # Errors
/// 400.
pub fn batch_id(text: &str) -> Result<BatchId, ApiError> {
    text.parse().map_err(|_| ApiError::bad(format!("`{}` is no id of a batch", crate::oci::quote(text))))
}

fn missing() -> ApiError {
    ApiError::missing("Job not found")
}

/// A job that must be there.
async fn find(app: &App, id: JobId) -> Result<Job, ApiError> {
    app.store.job(id).await?.ok_or_else(missing)
}

/// `GET /jobs/{id}`: a job, or a batch by its UUID.
///
/// # Errors
/// 404.
pub async fn show(Extract(app): Extract<Arc<App>>, Path(text): Path<String>) -> Result<Json<Value>, ApiError> {
    if let Ok(batch) = text.parse::<BatchId>() {
        let found = app.store.batches(Some(batch), None, 1).await?.pop().ok_or_else(missing)?;
        return Ok(Json(legacy::batch(&found)));
    }
    let Ok(id) = id(&text) else { return Err(missing()) };
    Ok(Json(row(&find(&app, id).await?)))
}

/// `GET /jobs/{id}/events`: its history, oldest first.
///
/// # Errors
/// 404.
pub async fn events(Extract(app): Extract<Arc<App>>, Path(text): Path<String>) -> Result<Json<Value>, ApiError> {
    let id = id(&text)?;
    find(&app, id).await?;
    let events = app.store.events(id).await?;
    Ok(Json(json!({"count": events.len(), "events": events})))
}

/// How long to wait.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitQuery {
    /// Seconds, at most 50.
    timeout: Option<f64>,
}

/// `GET /jobs/{id}/wait`: the job when it is finished, or as it is when the time is up.
///
/// # Errors
/// 404.
pub async fn wait(
    Extract(app): Extract<Arc<App>>,
    Path(text): Path<String>,
    Query(query): Query<WaitQuery>,
) -> Result<Json<Value>, ApiError> {
    let id = id(&text)?;
    let wanted = query.timeout.unwrap_or_else(|| LONGEST_WAIT.as_secs_f64());
    if !(0.0..=LONGEST_WAIT.as_secs_f64()).contains(&wanted) {
        return Err(ApiError::bad(format!("timeout: use 0 to {} seconds", LONGEST_WAIT.as_secs())));
    }
    let (began, most) = (app.clock.boot(), Duration::from_secs_f64(wanted));
    let store = app.store.clone();
    loop {
        let job = find(&app, id).await?;
        let left = most.saturating_sub(app.clock.boot().since(began));
        if job.state.is_finished() || left.is_zero() || app.stopping.is_cancelled() {
            return Ok(Json(row(&job)));
        }
        tokio::select! {
            changed = store.changed(left.min(LOOK_PAUSE)) => changed?,
            () = app.stopping.cancelled() => {}
        }
    }
}

/// One job that this caller may steer.
async fn steered(app: &App, caller: &Caller, id: JobId) -> Result<Job, ApiError> {
    let job = find(app, id).await?;
    if caller.destinations.is_some() {
        let parsed = crate::job::parse_row(&job.source, &job.destination, &job.options)?;
        caller.may_write([parsed.dest_key().as_str()])?;
    }
    Ok(job)
}

/// `POST /jobs/{id}/cancel`, for a batch too.
///
/// # Errors
/// 400: it is finished. 404.
pub async fn cancel(
    Extract(app): Extract<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(text): Path<String>,
) -> Result<Json<Value>, ApiError> {
    if text.parse::<BatchId>().is_ok() {
        return super::batches::cancel(Extract(app), Extension(caller), Path(text)).await;
    }
    let job = steered(&app, &caller, id(&text)?).await?;
    if app.store.cancel(&Selection::Ids(vec![job.id]), &caller.actor()).await? == 0 {
        let state = find(&app, job.id).await?.state;
        return Err(ApiError::bad(format!("job {} is {state} already", job.id)));
    }
    let state = find(&app, job.id).await?.state;
    let message = if state == State::Cancelled { "cancelled" } else { "its worker was asked to stop" };
    Ok(Json(json!({"job_id": text, "status": "cancelled", "state": state, "message": message})))
}

/// `POST /jobs/{id}/retry`, for a batch too.
///
/// # Errors
/// 400: there is nothing to retry. 404.
pub async fn retry(
    Extract(app): Extract<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(text): Path<String>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    if text.parse::<BatchId>().is_ok() {
        return super::batches::retry(Extract(app), Extension(caller), Path(text)).await;
    }
    let job = steered(&app, &caller, id(&text)?).await?;
    if app.store.retry(&Selection::Ids(vec![job.id]), &caller.actor()).await? == 0 {
        return Err(ApiError::bad(format!("job {} is {}: it goes on by itself", job.id, job.state)));
    }
    let answer = json!({"job_id": text, "original_job_id": text, "status": "pending", "message": "queued again"});
    Ok((StatusCode::ACCEPTED, Json(answer)))
}
