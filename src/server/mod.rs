//! The door for programs: HTTP. What is there, who may call it, and how much at a time.
//!
//! Read [`routes`] for what there is: each group of routes asks for a role, and each file below has a noun. A call goes through
//! the layers from the outside in: request id and error body, origin, load, key, role with the audit row, handler. Handlers ask
//! the store and nothing else; they never print, and never wait for a registry but to explain a mirror.
//!
//! The server keeps nothing of its own: what it acknowledges is in the database before the answer is sent.

mod auth;
mod batches;
mod body;
mod cors;
mod error;
mod events;
mod health;
mod jobs;
mod layers;
mod legacy;
mod listen;
mod metrics;
mod mirrors;
mod queues;
mod schedules;
mod tls;

pub use cors::Origins;
pub use events::Feed;
pub use listen::{Error, Listener};

use crate::access::{KeyHash, Role};
use crate::clock::{BootTime, Clock};
use crate::store::Store;
use crate::worker::Parts;
use auth::{Gate, Guard};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{delete, get, post};
use error::ApiError;
use metrics::Metrics;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// How the server works; every value has a default.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it listens: a name or an address.
    pub host: String,
    /// The port; 0 takes a free one.
    pub port: u16,
    /// A second port for `/metrics` and health alone; None: there is none.
    pub metrics_port: Option<u16>,
    /// A key is asked for.
    pub needs_key: bool,
    /// A key that is not in the database, with all rights.
    pub key: Option<KeyHash>,
    /// Listening beyond this machine without keys was asked for in words.
    pub anybody: bool,
    /// Certificate chain and key, PEM files.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Web pages that may call.
    pub origins: Origins,
    /// Whose `X-Forwarded-For` is believed.
    pub proxies: Vec<IpAddr>,
    /// The name by which callers know it.
    pub external_host: Option<String>,
    /// Longest time for the head of a request, and for its body and answer together.
    pub read_timeout: Duration,
    /// Longest time for a call, its body included.
    pub call_timeout: Duration,
    /// How long calls may go on after the first signal.
    pub shutdown_timeout: Duration,
    /// Calls that are answered at a time; beyond it callers are asked to come again.
    pub calls_at_once: usize,
    /// Connections at a time.
    pub connections: usize,
    /// Largest body, bytes.
    pub body_limit: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: 8080,
            metrics_port: Some(2112),
            needs_key: false,
            key: None,
            anybody: false,
            tls: None,
            origins: Origins::default(),
            proxies: Vec::new(),
            external_host: None,
            read_timeout: Duration::from_secs(30),
            call_timeout: Duration::from_secs(60),
            shutdown_timeout: Duration::from_secs(15),
            calls_at_once: 512,
            connections: 16_384,
            body_limit: 4 * 1024 * 1024,
        }
    }
}

/// What every call works with.
pub struct App {
    store: Store,
    parts: Parts,
    clock: Clock,
    gate: Gate,
    metrics: Metrics,
    feed: Feed,
    settings: Settings,
    load: Arc<Semaphore>,
    started: BootTime,
    stopping: CancellationToken,
    /// Attempts of a job that does not say how many it may have.
    max_attempts: i64,
}

impl App {
    /// Puts together what calls need. `max_attempts`: of jobs that do not say.
    #[must_use]
    pub fn new(parts: Parts, settings: Settings, max_attempts: i64, stopping: CancellationToken) -> Arc<Self> {
        parts.watch.keep_ends();
        let gate = Gate::new(!settings.needs_key, settings.key);
        Arc::new(Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            gate,
            metrics: Metrics::default(),
            feed: Feed::new(parts.store.clone(), parts.clock.clone()),
            load: Arc::new(Semaphore::new(settings.calls_at_once)),
            started: parts.clock.boot(),
            settings,
            stopping,
            max_attempts,
            parts,
        })
    }

    /// The history of jobs for those who listen to it.
    #[must_use]
    pub fn feed(&self) -> Feed {
        self.feed.clone()
    }

    /// Counts what ended since the last time, so that nothing is forgotten between two readings.
    pub async fn count(&self) {
        self.metrics.count(&self.parts.watch);
        self.metrics.ask(&self.store, &self.clock).await;
    }
}

/// Everything that can be called.
pub fn routes(app: &Arc<App>) -> Router {
    let guarded = |role: Role, routes: Router<Arc<App>>| {
        routes.route_layer(from_fn_with_state(Guard { app: app.clone(), role }, auth::guard))
    };
    let api = Router::new()
        .merge(guarded(Role::Read, reading()))
        .merge(guarded(Role::Enqueue, enqueueing()))
        .merge(guarded(Role::Operate, operating()))
        .fallback(async || ApiError::missing("there is nothing at this path"))
        .method_not_allowed_fallback(layers::wrong_method)
        .layer(from_fn_with_state(app.clone(), auth::authenticate))
        .layer(from_fn_with_state(app.clone(), layers::shed));
    let origins = Arc::new(app.settings.origins.clone());
    let mut routes = open().nest("/api/v1", api);
    if !origins.is_empty() {
        routes = routes.layer(origins.layer());
    }
    outermost(app, routes)
}

/// What the second port has: nothing that needs a key.
pub fn gauges(app: &Arc<App>) -> Router {
    outermost(app, open())
}

fn outermost(app: &Arc<App>, routes: Router<Arc<App>>) -> Router {
    routes
        .fallback(async || ApiError::missing("there is nothing at this path"))
        .method_not_allowed_fallback(layers::wrong_method)
        .layer(DefaultBodyLimit::max(app.settings.body_limit))
        .layer(from_fn_with_state(app.clone(), layers::check_origin))
        .layer(from_fn(layers::catch_panics))
        .layer(from_fn_with_state(app.clone(), layers::outermost))
        .with_state(app.clone())
}

/// Needs no key.
fn open() -> Router<Arc<App>> {
    Router::new()
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/health/live", get(health::live))
        .route("/health/system", get(health::system))
        .route("/metrics", get(health::metrics))
}

fn reading() -> Router<Arc<App>> {
    Router::new()
        .route("/jobs", get(jobs::list))
        .route("/jobs/{id}", get(jobs::show))
        .route("/jobs/{id}/events", get(jobs::events))
        .route("/jobs/{id}/wait", get(jobs::wait))
        .route("/batches", get(batches::list))
        .route("/batches/{id}", get(batches::show))
        .route("/batches/{id}/repositories", get(batches::repositories))
        .route("/checkpoints", get(legacy::checkpoints))
        .route("/checkpoints/{id}", get(legacy::checkpoint))
        .route("/mirrors", get(mirrors::list))
        .route("/mirrors/{name}", get(mirrors::show))
        .route("/mirrors/{name}/explain", get(mirrors::explain))
        .route("/schedules", get(schedules::list))
        .route("/schedules/{name}", get(schedules::show))
        .route("/schedules/{name}/next", get(schedules::next))
        .route("/queues", get(queues::list))
        .route("/workers", get(queues::workers))
        .route("/stats", get(queues::stats))
        .route("/status", get(health::system))
        .route("/system/health", get(health::system))
        .route("/system/stats", get(queues::system_stats))
        .route("/events", get(events::listen))
}

fn enqueueing() -> Router<Arc<App>> {
    Router::new()
        .route("/jobs", post(jobs::create))
        .route("/replicate", post(legacy::replicate))
        .route("/replicate-tree", post(legacy::replicate_tree))
}

fn operating() -> Router<Arc<App>> {
    Router::new()
        .route("/jobs/{id}/cancel", post(jobs::cancel).delete(jobs::cancel))
        .route("/jobs/{id}/retry", post(jobs::retry))
        .route("/batches/{id}/cancel", post(batches::cancel))
        .route("/batches/{id}/retry", post(batches::retry))
        .route("/batches/{id}", delete(legacy::forget))
        .route("/checkpoints/{id}", delete(legacy::forget))
        .route("/mirrors/{name}/run", post(mirrors::run))
        .route("/schedules", post(schedules::add))
        .route("/schedules/{name}", delete(schedules::remove))
        .route("/schedules/{name}/pause", post(schedules::pause))
        .route("/schedules/{name}/resume", post(schedules::resume))
        .route("/schedules/{name}/run", post(schedules::run))
        .route("/queues/{name}/pause", post(queues::pause))
        .route("/queues/{name}/resume", post(queues::resume))
        .route("/queues/{name}/limit", post(queues::limit))
}
