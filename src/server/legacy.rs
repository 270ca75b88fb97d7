//! The calls of the earlier program: same routes, fields and words.
//!
//! What it called a job is a batch here, known by its UUID; what it called a checkpoint is the same batch. Its answers stand
//! beside ours in the same objects, so that callers of either find what they know.

use super::App;
use super::auth::Caller;
use super::batches::{again, find};
use super::body::{Body, Path};
use super::error::ApiError;
use super::jobs::batch_id;
use crate::clock::UnixMillis;
use crate::job::batch::{Batch, BatchId, BatchKind, BatchState, NewBatch};
use crate::job::{CopyOptions, DEFAULT_PRIORITY, DEFAULT_QUEUE, Job, NewJob, State};
use crate::mirror::{Destination, Repositories, Rule, Rules, Tags, TreeOptions, tree};
use crate::oci::{Repository, Tag};
use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// The time that stands for none.
const NO_TIME: &str = "0001-01-01T00:00:00Z";
/// Batches in a list of checkpoints.
const CHECKPOINTS: u32 = 1000;

/// The earlier program's word for a state.
const fn status(state: State) -> &'static str {
    match state {
        State::Scheduled | State::Pending => "pending",
        State::Running => "running",
        State::Completed => "completed",
        State::Failed => "failed",
        State::Cancelled => "cancelled",
    }
}

fn end(at: Option<UnixMillis>) -> String {
    at.map_or_else(|| NO_TIME.to_owned(), UnixMillis::to_rfc3339)
}

fn nanoseconds(from: UnixMillis, to: Option<UnixMillis>) -> u64 {
    to.map_or(0, |to| u64::try_from(to.since(from).as_nanos()).unwrap_or(u64::MAX))
}

/// Adds what the earlier program said of a job.
pub fn add(row: &mut Value, job: &Job) {
    let kind = if job.kind == crate::job::Kind::Copy { "replicate" } else { "expand" };
    row["type"] = json!(kind);
    row["status"] = json!(status(job.state));
    row["start_time"] = json!(job.created_at.to_rfc3339());
    row["end_time"] = json!(end(job.finished_at));
    if let Some(failure) = job.failure.as_ref().filter(|_| job.state != State::Completed) {
        row["error"] = json!(failure.message);
    }
    if let Some(report) = &job.report {
        row["result"] = json!({
            "Success": job.state == State::Completed,
            "Error": null,
            "Duration": nanoseconds(job.started_at.unwrap_or(job.created_at), job.finished_at),
            "BytesCopied": report.bytes_copied,
            "LayersCopied": report.blobs_copied,
            "StartTime": job.started_at.unwrap_or(job.created_at).to_rfc3339(),
            "EndTime": end(job.finished_at),
        });
    }
}

/// What the earlier program called such a batch.
#[must_use]
pub const fn kind(batch: &Batch) -> &'static str {
    match batch.kind {
        BatchKind::Tags => "replicate",
        BatchKind::Tree => "replicate-tree",
        BatchKind::Sync => "sync",
        BatchKind::Mirror => "mirror",
    }
}

/// A batch as a job of the earlier program, with what we know of it.
pub fn batch(batch: &Batch) -> Value {
    let mut row = serde_json::to_value(batch).unwrap_or_default();
    row["type"] = json!(kind(batch));
    row["status"] = json!(batch.state.as_str());
    row["start_time"] = json!(batch.created_at.to_rfc3339());
    row["end_time"] = json!(end(batch.finished_at));
    let failed = batch.jobs.failed + batch.repositories_failed;
    if failed > 0 {
        row["error"] = json!(format!("{failed} of {} failed", batch.jobs.total + batch.repositories_failed));
    }
    if batch.state.is_finished() {
        row["result"] = result(batch);
    }
    row
}

fn result(batch: &Batch) -> Value {
    if batch.kind == BatchKind::Tags {
        return json!({
            "Request": {"Source": batch.source, "Destination": batch.destination},
            "Success": batch.state == BatchState::Completed,
            "Error": null,
            "Duration": nanoseconds(batch.created_at, batch.finished_at),
            "BytesCopied": batch.bytes_moved,
            "LayersCopied": 0,
            "StartTime": batch.created_at.to_rfc3339(),
            "EndTime": end(batch.finished_at),
        });
    }
    json!({
        "RepositoriesFound": batch.repositories,
        "RepositoriesReplicated": batch.repositories - batch.repositories_failed.min(batch.repositories),
        "RepositoriesSkipped": 0,
        "RepositoriesFailed": batch.repositories_failed,
        "TotalTagsCopied": batch.jobs.completed - batch.jobs.already_present.min(batch.jobs.completed),
        "TotalTagsSkipped": batch.jobs.already_present,
        "TotalErrors": batch.jobs.failed + batch.repositories_failed,
        "TotalBytesTransferred": batch.bytes_moved,
        "CheckpointID": batch.id,
    })
}

/// `POST /replicate`: as the earlier program took it, or `{source, destination}`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replicate {
    #[serde(default)]
    source_registry: String,
    #[serde(default)]
    source_repo: String,
    #[serde(default)]
    dest_registry: String,
    #[serde(default)]
    dest_repo: String,
    source: Option<String>,
    destination: Option<String>,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    force: bool,
    #[serde(default)]
    dry_run: bool,
}

/// One end of a request, by its two fields.
fn joined(which: &str, registry: &str, repository: &str) -> Result<String, ApiError> {
    for (field, value) in [("registry", registry), ("repo", repository)] {
        if value.trim().is_empty() {
            return Err(ApiError::bad(format!("Invalid request: {which}_{field} is required")));
        }
    }
    Ok(format!("{}/{}", registry.trim_end_matches('/'), repository.trim_start_matches('/')))
}

/// Source and destination of a request: as two texts, or each by registry and repository.
fn ends(
    texts: (Option<String>, Option<String>),
    [source_registry, source_repo]: [&str; 2],
    [dest_registry, dest_repo]: [&str; 2],
) -> Result<(String, String), ApiError> {
    match texts {
        (Some(source), Some(destination)) => Ok((source, destination)),
        (None, None) => {
            Ok((joined("source", source_registry, source_repo)?, joined("dest", dest_registry, dest_repo)?))
        }
        _ => Err(ApiError::bad("Invalid request: source and destination belong together")),
    }
}

fn no_dry_run(asked: bool) -> Result<(), ApiError> {
    if !asked {
        return Ok(());
    }
    let message = "not implemented: dry_run over the API (use freightliner replicate --dry-run); nothing was enqueued";
    Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, message))
}

/// 202 and the id of what was asked for.
type Accepted = (StatusCode, Json<Value>);

/// Replicates tags of a repository: those that are named, or all; with `{source, destination}` that names a tag, this one.
///
/// # Errors
/// 400 says which field is wrong.
pub async fn replicate(
    Extract(app): Extract<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Body(asked): Body<Replicate>,
) -> Result<Accepted, ApiError> {
    no_dry_run(asked.dry_run)?;
    let options = CopyOptions { force: asked.force, ..CopyOptions::default() };
    let tags = asked.tags.unwrap_or_default();
    let is_short = asked.source.is_some();
    let from = [asked.source_registry.as_str(), asked.source_repo.as_str()];
    let to = [asked.dest_registry.as_str(), asked.dest_repo.as_str()];
    let (source, destination) = ends((asked.source, asked.destination), from, to)?;
    let names_tag = |text: &str| text.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
    if is_short && tags.is_empty() && (names_tag(&source) || names_tag(&destination)) {
        return one(&app, &caller, &source, &destination, options).await;
    }
    let repository = |which: &str, text: &str| {
        Repository::parse(text).map_err(|error| ApiError::bad(format!("Invalid request: {which} `{text}`: {error}")))
    };
    let (from, to) = (repository("source", &source)?, repository("destination", &destination)?);
    for tag in &tags {
        tag.parse::<Tag>().map_err(|error| ApiError::bad(format!("Invalid request: tags: {error}")))?;
    }
    let rule = Rule {
        name: "tags".to_owned(),
        registry: from.host().to_owned(),
        prefix: String::new(),
        repositories: Repositories { include: vec![from.name().parse().map_err(ApiError::bad)?], exclude: Vec::new() },
        tags: Tags { names: tags, ..Tags::default() },
        skip_existing: false,
        destinations: vec![Destination::try_from(to.to_string()).map_err(ApiError::bad)?],
        options,
    };
    caller.may_write([to.to_string().as_str()])?;
    start(&app, &caller, BatchKind::Tags, None, (source, destination), Rules { rules: vec![rule] }).await
}

/// One image, as a job of its own.
async fn one(
    app: &App,
    caller: &Caller,
    source: &str,
    destination: &str,
    options: CopyOptions,
) -> Result<Accepted, ApiError> {
    if [source, destination].iter().any(|text| text.starts_with("oci:")) {
        return Err(ApiError::bad("image layouts: use POST /api/v1/jobs"));
    }
    let mut job = NewJob::parse(source, destination, options, std::path::Path::new("/"))?;
    job.max_attempts = app.max_attempts;
    caller.may_write([job.parsed.dest_key().as_str()])?;
    let enqueued = app.store.enqueue(vec![job], &caller.actor()).await?;
    let id = enqueued.first().map(|job| job.id.to_string());
    Ok((StatusCode::ACCEPTED, Json(json!({"job_id": id, "status": "pending"}))))
}

/// Writes a batch down.
///
/// # Errors
/// 400 for rules that cannot be.
pub async fn start(
    app: &App,
    caller: &Caller,
    kind: BatchKind,
    name: Option<String>,
    (source, destination): (String, String),
    rules: Rules,
) -> Result<Accepted, ApiError> {
    let problems: Vec<String> = rules.rules.iter().flat_map(Rule::problems).collect();
    if !problems.is_empty() {
        return Err(ApiError::bad(format!("Invalid request: {}", problems.join("; "))));
    }
    let batch = NewBatch {
        id: BatchId::now_v7(),
        kind,
        name,
        source,
        destination,
        rules: Some(rules.to_json()),
        queue: DEFAULT_QUEUE.to_owned(),
        priority: DEFAULT_PRIORITY,
        max_attempts: app.max_attempts,
        run_at: None,
    };
    let id = batch.id;
    app.store.batch_add(batch, &caller.actor()).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"job_id": id, "batch_id": id, "status": "pending"}))))
}

/// `POST /replicate-tree`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicateTree {
    #[serde(default)]
    source_registry: String,
    #[serde(default)]
    source_repo: String,
    #[serde(default)]
    dest_registry: String,
    #[serde(default)]
    dest_repo: String,
    source: Option<String>,
    destination: Option<String>,
    #[serde(default)]
    include_repos: Vec<String>,
    #[serde(default)]
    exclude_repos: Vec<String>,
    #[serde(default)]
    exclude_tags: Vec<String>,
    #[serde(default)]
    include_tags: Vec<String>,
    #[serde(default)]
    force: bool,
    #[serde(default)]
    dry_run: bool,
    /// Every batch can be resumed: without effect.
    #[serde(default, rename = "enable_checkpoint")]
    _enable_checkpoint: bool,
    /// The database has it: without effect.
    #[serde(default, rename = "checkpoint_dir")]
    _checkpoint_dir: Option<String>,
    resume_id: Option<String>,
}

/// Replicates the repositories below a prefix; with `resume_id` what failed of a batch waits again.
///
/// # Errors
/// 400 says which field is wrong. 404: there is no such batch to resume.
pub async fn replicate_tree(
    Extract(app): Extract<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Body(asked): Body<ReplicateTree>,
) -> Result<Accepted, ApiError> {
    no_dry_run(asked.dry_run)?;
    if let Some(id) = asked.resume_id.filter(|id| !id.is_empty()) {
        caller.may_write_anywhere()?;
        let batch = find(&app, &id).await?;
        again(&app, &caller, &batch).await?;
        return Ok((
            StatusCode::ACCEPTED,
            Json(json!({"job_id": batch.id, "batch_id": batch.id, "status": "pending"})),
        ));
    }
    let from = [asked.source_registry.as_str(), asked.source_repo.as_str()];
    let to = [asked.dest_registry.as_str(), asked.dest_repo.as_str()];
    let (source, destination) = ends((asked.source, asked.destination), from, to)?;
    let patterns = |field: &str, list: Vec<String>| {
        let parsed = list.into_iter().map(|text| text.parse());
        parsed
            .collect::<Result<Vec<_>, String>>()
            .map_err(|error| ApiError::bad(format!("Invalid request: {field}: {error}")))
    };
    let options = TreeOptions {
        include_repos: patterns("include_repos", asked.include_repos)?,
        exclude_repos: patterns("exclude_repos", asked.exclude_repos)?,
        include_tags: patterns("include_tags", asked.include_tags)?,
        exclude_tags: patterns("exclude_tags", asked.exclude_tags)?,
        copy: CopyOptions { force: asked.force, ..CopyOptions::default() },
    };
    let invalid = |error: String| ApiError::bad(format!("Invalid request: {error}"));
    let rules = tree(&source, &destination, options).map_err(invalid)?;
    let (host, path) = crate::mirror::place(&destination).map_err(invalid)?;
    caller.may_write([format!("{host}/{path}").trim_end_matches('/')])?;
    start(&app, &caller, BatchKind::Tree, None, (source, destination), rules).await
}

async fn checkpoint_row(app: &App, batch: &Batch, with_repositories: bool) -> Result<Value, ApiError> {
    let mut rows = Vec::new();
    if with_repositories {
        for listed in app.store.batch_repositories(batch.id).await? {
            let status = if listed.failure.is_some() { "failed" } else { batch.state.as_str() };
            let errors = u64::from(listed.failure.is_some());
            rows.push(json!({
                "name": listed.repository, "status": status, "tags_copied": listed.kept,
                "tags_skipped": listed.tags.saturating_sub(listed.kept), "errors": errors,
            }));
        }
    }
    Ok(json!({
        "id": batch.id,
        "created_at": batch.created_at.to_rfc3339(),
        "source": batch.source,
        "destination": batch.destination,
        "status": if batch.state == BatchState::Running { "in_progress" } else { batch.state.as_str() },
        "total_repositories": batch.repositories,
        "completed_repositories": batch.repositories - batch.repositories_failed.min(batch.repositories),
        "failed_repositories": batch.repositories_failed,
        "total_tags_copied": batch.jobs.completed,
        "total_tags_skipped": batch.jobs.already_present,
        "total_errors": batch.jobs.failed + batch.repositories_failed,
        "total_bytes_transferred": batch.bytes_moved,
        "repositories": rows,
    }))
}

/// `GET /checkpoints`.
///
/// # Errors
/// The database cannot be read.
pub async fn checkpoints(Extract(app): Extract<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let mut rows = Vec::new();
    for batch in app.store.batches(None, None, CHECKPOINTS).await? {
        rows.push(checkpoint_row(&app, &batch, false).await?);
    }
    Ok(Json(json!({"count": rows.len(), "checkpoints": rows})))
}

fn no_checkpoint() -> ApiError {
    ApiError::missing("Checkpoint not found")
}

/// `GET /checkpoints/{id}`.
///
/// # Errors
/// 404.
pub async fn checkpoint(Extract(app): Extract<Arc<App>>, Path(text): Path<String>) -> Result<Json<Value>, ApiError> {
    let batch = find(&app, &text).await.map_err(|error| match error.status {
        StatusCode::SERVICE_UNAVAILABLE => error,
        _ => no_checkpoint(),
    })?;
    checkpoint_row(&app, &batch, true).await.map(Json)
}

/// `DELETE /checkpoints/{id}`, `DELETE /batches/{id}`: it is in no list any more; its jobs stay.
///
/// # Errors
/// 404.
pub async fn forget(
    Extract(app): Extract<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(text): Path<String>,
) -> Result<Json<Value>, ApiError> {
    caller.may_write_anywhere()?;
    let Ok(id) = batch_id(&text) else { return Err(no_checkpoint()) };
    if !app.store.batch_hide(id).await? {
        return Err(no_checkpoint());
    }
    Ok(Json(json!({"id": id, "status": "deleted", "message": "it is in no list any more; its jobs stay"})))
}
