//! Batches: listed, looked at, called off, asked for again.

use super::App;
use super::auth::Caller;
use super::body::{Path, Query};
use super::error::ApiError;
use super::jobs::batch_id;
use crate::job::State;
use crate::job::batch::{Batch, BatchState};
use crate::store::{JobFilter, Selection};
use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Rows of a list when nobody says.
const LIST_DEFAULT: u32 = 50;
/// Most rows of a list.
const LIST_LIMIT: u32 = 1000;

/// Which batches to list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    limit: Option<u32>,
    after: Option<String>,
}

/// `GET /batches`: newest first. `next` is the cursor of the next page.
///
/// # Errors
/// 400 for a limit or a cursor that cannot be.
pub async fn list(Extract(app): Extract<Arc<App>>, Query(query): Query<ListQuery>) -> Result<Json<Value>, ApiError> {
    let limit = query.limit.unwrap_or(LIST_DEFAULT);
    if !(1..=LIST_LIMIT).contains(&limit) {
        return Err(ApiError::bad(format!("limit is {limit}: use 1 to {LIST_LIMIT}")));
    }
    let after = query.after.as_deref().map(batch_id).transpose()?;
    let batches = app.store.batches(None, after, limit).await?;
    let is_full = batches.len() == usize::try_from(limit).unwrap_or(usize::MAX);
    let next = batches.last().filter(|_| is_full).map(|batch| batch.id);
    Ok(Json(json!({"count": batches.len(), "batches": batches, "next": next})))
}

/// A batch that must be there.
///
/// # Errors
/// 404.
pub async fn find(app: &App, text: &str) -> Result<Batch, ApiError> {
    let found = app.store.batches(Some(batch_id(text)?), None, 1).await?.pop();
    found.ok_or_else(|| ApiError::missing("Batch not found"))
}

/// `GET /batches/{id}`.
///
/// # Errors
/// 404.
pub async fn show(Extract(app): Extract<Arc<App>>, Path(text): Path<String>) -> Result<Json<Batch>, ApiError> {
    find(&app, &text).await.map(Json)
}

/// `GET /batches/{id}/repositories`: what became of each.
///
/// # Errors
/// 404.
pub async fn repositories(Extract(app): Extract<Arc<App>>, Path(text): Path<String>) -> Result<Json<Value>, ApiError> {
    let batch = find(&app, &text).await?;
    let repositories = app.store.batch_repositories(batch.id).await?;
    Ok(Json(json!({"count": repositories.len(), "repositories": repositories})))
}

fn of(batch: &Batch, state: State) -> Selection {
    Selection::Filter(JobFilter { batch: Some(batch.id.to_string()), state: Some(state), ..JobFilter::default() })
}

/// `POST /batches/{id}/cancel`: nothing more comes, and what is there is called off.
///
/// # Errors
/// 400: it is finished. 403: the key is limited to some destinations. 404.
pub async fn cancel(
    Extract(app): Extract<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(text): Path<String>,
) -> Result<Json<Value>, ApiError> {
    caller.may_write_anywhere()?;
    let batch = find(&app, &text).await?;
    if matches!(batch.state, BatchState::Completed | BatchState::Failed) {
        return Err(ApiError::bad(format!("batch {} is {} already", batch.id, batch.state)));
    }
    app.store.batch_stop(batch.id, true).await?;
    let mut count = 0;
    for state in [State::Pending, State::Scheduled, State::Running] {
        count += app.store.cancel(&of(&batch, state), &caller.actor()).await?;
    }
    let message = format!("{count} jobs called off");
    Ok(Json(json!({"job_id": text, "status": "cancelled", "count": count, "message": message})))
}

/// `POST /batches/{id}/retry`: everything that failed or was called off waits again.
///
/// # Errors
/// 403: the key is limited to some destinations. 404.
pub async fn retry(
    Extract(app): Extract<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(text): Path<String>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    caller.may_write_anywhere()?;
    let batch = find(&app, &text).await?;
    let count = again(&app, &caller, &batch).await?;
    let message = format!("{count} jobs queued again");
    let answer =
        json!({"job_id": text, "original_job_id": text, "status": "pending", "count": count, "message": message});
    Ok((StatusCode::ACCEPTED, Json(answer)))
}

/// Everything of a batch that failed or was called off waits again. Returns how many jobs.
///
/// # Errors
/// The database cannot be used.
pub async fn again(app: &App, caller: &Caller, batch: &Batch) -> Result<u64, ApiError> {
    app.store.batch_stop(batch.id, false).await?;
    let mut count = 0;
    for state in [State::Failed, State::Cancelled] {
        count += app.store.retry(&of(batch, state), &caller.actor()).await?;
    }
    Ok(count)
}
