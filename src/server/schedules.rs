//! Schedules: made, listed, looked at, steered.

use super::App;
use super::auth::Caller;
use super::body::{Body, Path, Query};
use super::error::ApiError;
use crate::config;
use crate::job::Schedule;
use crate::job::schedule::{Fate, Firing, Planned};
use crate::schedule::view::{Past, Row};
use crate::schedule::{Timing, plan, utc};
use crate::store::ScheduleChange;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Times that are told of a schedule.
const SHOWN: u32 = 20;
/// Most times that are computed.
const MOST_NEXT: usize = 1000;

fn missing() -> ApiError {
    ApiError::missing("Schedule not found")
}

async fn find(app: &App, name: &str) -> Result<Schedule, ApiError> {
    app.store.schedules(Some(name)).await?.pop().ok_or_else(missing)
}

/// `GET /schedules`.
///
/// # Errors
/// The database cannot be read.
pub async fn list(Extract(app): Extract<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let schedules = app.store.schedules(None).await?;
    let rows: Vec<Row<'_>> = schedules.iter().map(Row::from).collect();
    Ok(Json(json!({"count": rows.len(), "schedules": rows})))
}

/// `GET /schedules/{name}`, with what became of its last times.
///
/// # Errors
/// 404.
pub async fn show(Extract(app): Extract<Arc<App>>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    let schedule = find(&app, &name).await?;
    let past = app.store.schedule_occurrences(schedule.id, SHOWN).await?;
    let past: Vec<Past> = past.into_iter().map(Past::from).collect();
    let mut row = json!(Row::from(&schedule));
    row["occurrences"] = json!(past);
    Ok(Json(row))
}

/// How many times.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NextQuery {
    n: Option<usize>,
}

/// `GET /schedules/{name}/next`.
///
/// # Errors
/// 400: it is faulty. 404.
pub async fn next(
    Extract(app): Extract<Arc<App>>,
    Path(name): Path<String>,
    Query(query): Query<NextQuery>,
) -> Result<Json<Value>, ApiError> {
    let schedule = find(&app, &name).await?;
    let count = query.n.unwrap_or(10);
    if !(1..=MOST_NEXT).contains(&count) {
        return Err(ApiError::bad(format!("n is {count}: use 1 to {MOST_NEXT}")));
    }
    let timing = Timing::parse(&schedule.timing, &schedule.timezone).map_err(ApiError::bad)?;
    let (mut at, mut times) = (app.clock.now(), Vec::new());
    while let Some(time) = timing.next(schedule.base_at, at).filter(|_| times.len() < count) {
        times.push(json!({"at": utc(time), "local": timing.local(time)}));
        at = time;
    }
    Ok(Json(json!({"count": times.len(), "times": times})))
}

/// `POST /schedules`: `name`, and what a section of the configuration says.
///
/// # Errors
/// 400 names all that is wrong. 403: the key is limited to some destinations. 409: there is one of this name.
pub async fn add(
    Extract(app): Extract<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Body(mut asked): Body<Map<String, Value>>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    caller.may_write_anywhere()?;
    let Some(Value::String(name)) = asked.remove("name") else {
        return Err(ApiError::bad("Invalid request: name is required"));
    };
    let schedule = config::schedule(&name, Value::Object(asked))
        .map_err(|problems| ApiError::bad(format!("Invalid request: {}", problems.join("; "))))?;
    let sides = [&schedule.job.source, &schedule.job.destination];
    if caller.role < crate::access::Role::Admin && sides.iter().any(|text| text.starts_with("oci:")) {
        return Err(ApiError::forbidden("image layouts are files of the server: only the role admin may name them"));
    }
    let first = Timing::parse(&schedule.timing, &schedule.timezone).map_err(ApiError::bad)?.first(app.clock.now());
    let Some(id) = app.store.schedule_add(schedule, &caller.actor()).await? else {
        return Err(ApiError::new(StatusCode::CONFLICT, format!("there is a schedule `{name}` already")));
    };
    Ok((StatusCode::CREATED, Json(json!({"id": id, "name": name, "next_at": first.map(utc)}))))
}

async fn change(app: &App, caller: &Caller, name: &str, change: ScheduleChange) -> Result<Json<Value>, ApiError> {
    caller.may_write_anywhere()?;
    let changed = app.store.schedule_change(name, change, &caller.actor()).await?.ok_or_else(missing)?;
    Ok(Json(json!({"name": name, "changed": changed})))
}

/// `POST /schedules/{name}/pause`.
///
/// # Errors
/// 403: the key is limited to some destinations. 404.
pub async fn pause(
    Extract(app): Extract<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    change(&app, &caller, &name, ScheduleChange::Pause).await
}

/// `POST /schedules/{name}/resume`.
///
/// # Errors
/// As [`pause`].
pub async fn resume(
    Extract(app): Extract<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    change(&app, &caller, &name, ScheduleChange::Resume).await
}

/// `DELETE /schedules/{name}`: its jobs and its history stay.
///
/// # Errors
/// As [`pause`].
pub async fn remove(
    Extract(app): Extract<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    change(&app, &caller, &name, ScheduleChange::Remove).await
}

/// `POST /schedules/{name}/run`: its job now; its times stay as they are.
///
/// # Errors
/// 400: it is faulty. 403: the key is limited to some destinations. 404. 409: it was fired or removed at this moment.
pub async fn run(
    Extract(app): Extract<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    caller.may_write_anywhere()?;
    let schedule = find(&app, &name).await?;
    let batch = plan::batch(&schedule).map_err(|why| ApiError::bad(format!("schedule `{name}`: {why}")))?;
    let now = app.clock.now();
    let by_hand = Planned { at: now, fate: Fate::Fired, run_at: now, detail: Some("by hand".to_owned()) };
    let occurrences = vec![by_hand];
    let firing = Firing { schedule: schedule.id, seen: None, next_at: None, fault: None, occurrences, batch };
    let fired = app.store.schedules_fire(vec![firing], &caller.actor()).await?;
    let Some(job) = fired.into_iter().find_map(|occurrence| occurrence.job) else {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            format!("schedule `{name}` was fired or removed at this moment"),
        ));
    };
    Ok((StatusCode::ACCEPTED, Json(json!({"id": job.to_string(), "created": true}))))
}
