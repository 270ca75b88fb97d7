//! Queues, workers, and numbers of the whole.

use super::App;
use super::auth::Caller;
use super::body::{Body, Path};
use super::error::ApiError;
use crate::store::{QueueChange, WorkerRow};
use axum::extract::State as Extract;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /queues`.
///
/// # Errors
/// The database cannot be read.
pub async fn list(Extract(app): Extract<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let queues = app.store.queues().await?;
    Ok(Json(json!({"count": queues.len(), "queues": queues})))
}

async fn change(app: &App, caller: &Caller, name: &str, change: QueueChange) -> Result<Json<Value>, ApiError> {
    caller.may_write_anywhere()?;
    let changed = app.store.queue_change(name, change, &caller.actor()).await?;
    Ok(Json(json!({"queue": name, "changed": changed})))
}

/// `POST /queues/{name}/pause`.
///
/// # Errors
/// 400: the name cannot be. 403: the key is limited to some destinations.
pub async fn pause(
    Extract(app): Extract<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    change(&app, &caller, &name, QueueChange::Pause).await
}

/// `POST /queues/{name}/resume`.
///
/// # Errors
/// As [`pause`].
pub async fn resume(
    Extract(app): Extract<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    change(&app, &caller, &name, QueueChange::Resume).await
}

/// A limit.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Jobs that run at a time; null lifts the limit.
    max_running: Option<u32>,
}

/// `POST /queues/{name}/limit`.
///
/// # Errors
/// As [`pause`].
pub async fn limit(
    Extract(app): Extract<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Body(limit): Body<Limit>,
) -> Result<Json<Value>, ApiError> {
    change(&app, &caller, &name, QueueChange::Limit(limit.max_running)).await
}

fn worker(row: &WorkerRow) -> Value {
    json!({
        "id": row.id, "host": row.host, "pid": row.pid, "version": row.version, "queue": row.queue,
        "concurrency": row.concurrency, "started_at": row.started_at.to_rfc3339(), "seen_at": row.seen_at.to_rfc3339(),
    })
}

/// `GET /workers`.
///
/// # Errors
/// The database cannot be read.
pub async fn workers(Extract(app): Extract<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let workers: Vec<Value> = app.store.workers().await?.iter().map(worker).collect();
    Ok(Json(json!({"count": workers.len(), "workers": workers})))
}

/// `GET /stats`: numbers of the whole queue.
///
/// # Errors
/// The database cannot be read.
pub async fn stats(Extract(app): Extract<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let stats = app.store.stats().await?;
    Ok(Json(json!(stats)))
}

/// `GET /system/stats`: the same in the earlier program's words.
///
/// # Errors
/// The database cannot be read.
pub async fn system_stats(Extract(app): Extract<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let stats = app.store.stats().await?;
    let total = app.parts.settings.concurrency;
    let active = app.parts.watch.running().len();
    Ok(Json(json!({
        "workers": {"total": total, "active": active, "idle": total.saturating_sub(active)},
        "jobs": {
            "queued": stats.pending + stats.scheduled, "running": stats.running,
            "complete": stats.completed, "failed": stats.failed,
        },
        "performance": {"completed_last_hour": stats.completed_last_hour, "throughput": stats.bytes_last_hour / 3600},
        "timestamp": app.clock.now().to_rfc3339(),
    })))
}
