//! Is it alive, and can it do its work?

use super::App;
use axum::Json;
use axum::extract::State as Extract;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a check may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// A worker that has not said for so long that it lives is not counted.
const SILENT: Duration = Duration::from_secs(60);
/// Room on a disk that it takes to go on, bytes.
const LEAST_ROOM: u64 = 16 * 1024 * 1024;

/// What a check found.
struct Check {
    ok: bool,
    message: String,
}

impl Check {
    fn new(ok: bool, message: impl Into<String>) -> Self {
        Self { ok, message: message.into() }
    }
}

async fn timed(app: &App, name: &str, check: impl Future<Output = Check>) -> (String, bool, Value) {
    let began = app.clock.boot();
    let found = tokio::time::timeout(PATIENCE, check).await;
    let found = found.unwrap_or_else(|_| Check::new(false, format!("no answer within {} s", PATIENCE.as_secs())));
    let took = app.clock.boot().since(began);
    let status = if found.ok { "healthy" } else { "unhealthy" };
    let row = json!({
        "status": status, "message": found.message, "duration": format!("{:.3}ms", took.as_secs_f64() * 1000.0),
        "timestamp": app.clock.now().to_rfc3339(),
    });
    (name.to_owned(), found.ok, row)
}

/// The database can be read.
async fn database(app: &App) -> Check {
    match app.store.waiting().await {
        Ok(_) => Check::new(true, "it answers"),
        Err(error) => Check::new(false, error.to_string()),
    }
}

/// The database can be written: this worker says that it lives, which is what it does all the time.
async fn writer(app: &App) -> Check {
    match app.store.worker_seen(uuid::Uuid::nil()).await {
        Ok(_) => Check::new(true, "it takes writes"),
        Err(error) => Check::new(false, error.to_string()),
    }
}

async fn workers(app: &App) -> Check {
    let now = app.clock.now();
    match app.store.workers().await {
        Ok(workers) => {
            let alive = workers.iter().filter(|worker| now.since(worker.seen_at) < SILENT).count();
            Check::new(alive > 0, format!("{alive} of {} say that they live", workers.len()))
        }
        Err(error) => Check::new(false, error.to_string()),
    }
}

fn room(folder: &Path) -> Check {
    match rustix::fs::statvfs(folder) {
        Ok(facts) => {
            let free = facts.f_bavail.saturating_mul(facts.f_frsize);
            Check::new(free >= LEAST_ROOM, format!("{} MiB free", free / 1024 / 1024))
        }
        Err(error) => Check::new(false, format!("{}: {error}", folder.display())),
    }
}

async fn checks(app: &App) -> (bool, Map<String, Value>) {
    let disk = async { room(&app.parts.state_dir) };
    let (database, writer, workers, disk) = tokio::join!(
        timed(app, "database", database(app)),
        timed(app, "writer", writer(app)),
        timed(app, "workers", workers(app)),
        timed(app, "disk", disk),
    );
    let all = [database, writer, workers, disk];
    let ok = all.iter().all(|(_, ok, _)| *ok);
    (ok, all.into_iter().map(|(name, _, row)| (name, row)).collect())
}

fn answer(app: &App, ok: bool, (good, bad): (&str, &str), mut rest: Map<String, Value>) -> Response {
    rest.insert("status".to_owned(), json!(if ok { good } else { bad }));
    rest.insert("timestamp".to_owned(), json!(app.clock.now().to_rfc3339()));
    rest.insert("version".to_owned(), json!(env!("CARGO_PKG_VERSION")));
    let uptime = app.clock.boot().since(app.started);
    rest.insert("uptime".to_owned(), json!(format!("{}s", uptime.as_secs())));
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = (status, Json(Value::Object(rest))).into_response();
    if !ok {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    }
    response
}

/// `GET /health`: it can do its work. 503 says why not.
pub async fn health(Extract(app): Extract<Arc<App>>) -> Response {
    can_work(&app, ("healthy", "unhealthy")).await
}

/// `GET /ready`, `/health/ready`: the same in the words of Kubernetes.
pub async fn ready(Extract(app): Extract<Arc<App>>) -> Response {
    can_work(&app, ("ready", "not_ready")).await
}

async fn can_work(app: &App, words: (&str, &str)) -> Response {
    let (ok, rows) = checks(app).await;
    let ok = ok && !app.stopping.is_cancelled();
    let mut rest = Map::new();
    rest.insert("checks".to_owned(), Value::Object(rows));
    rest.insert("stopping".to_owned(), json!(app.stopping.is_cancelled()));
    answer(app, ok, words, rest)
}

/// `GET /live`: the process answers. Whatever else is wrong, starting it again would not help.
pub async fn live(Extract(app): Extract<Arc<App>>) -> Response {
    answer(&app, true, ("alive", "not_alive"), Map::new())
}

/// `GET /status`, `/health/system`: all that is known.
pub async fn system(Extract(app): Extract<Arc<App>>) -> Response {
    let (ok, rows) = checks(&app).await;
    let mut rest = Map::new();
    rest.insert("checks".to_owned(), Value::Object(rows));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    rest.insert(
        "system".to_owned(),
        json!({"os": std::env::consts::OS, "arch": std::env::consts::ARCH, "num_cpu": cores}),
    );
    rest.insert("jobs_active".to_owned(), json!(app.parts.watch.running().len()));
    // What cannot be read is told by the checks.
    if let Ok(info) = app.store.info().await {
        rest.insert("database".to_owned(), json!(info));
    }
    answer(&app, ok, ("healthy", "unhealthy"), rest)
}

/// `GET /metrics`.
pub async fn metrics(Extract(app): Extract<Arc<App>>) -> Response {
    let text = app.metrics.text(&app.store, &app.parts.watch, &app.clock, app.parts.settings.concurrency).await;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
