//! `GET /events`: the history of all jobs as it is written, as server-sent events.
//!
//! One reader asks the database for all listeners; each listener has a place in the history of its own, so that a slow one
//! misses nothing: what is not in memory any more is read from the database. The id of an event is its seq, and a listener that
//! comes back with `Last-Event-ID` goes on behind it.
//!
//! On PostgreSQL an event may be committed before one with a lower seq. So a gap is waited for, at most [`GAP`]: then it was a
//! transaction that was rolled back.

use super::App;
use super::body::Query;
use super::error::ApiError;
use super::jobs::id;
use crate::clock::{BootTime, Clock};
use crate::job::JobId;
use crate::shutdown::Shutdown;
use crate::store::{Error, JobEvent, Store};
use axum::body::{Body, Bytes};
use axum::extract::State as Extract;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Events read at once.
const PIECE: u32 = 500;
/// Events kept in memory for listeners.
const KEPT: usize = 2000;
/// How long a gap in the numbers is waited for.
const GAP: Duration = Duration::from_secs(2);
/// Longest pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// Pause after an error of the database.
const ERROR_PAUSE: Duration = Duration::from_secs(1);
/// How often a silent connection is told that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Listeners at a time.
const LISTENERS: i64 = 10_000;

/// The history of jobs, for many listeners.
#[derive(Clone)]
pub struct Feed {
    store: Store,
    clock: Clock,
    shared: Arc<Shared>,
}

struct Shared {
    /// The newest events, in order.
    kept: Mutex<VecDeque<Arc<JobEvent>>>,
    /// The seq up to which listeners may be told.
    end: watch::Sender<i64>,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Feed")
    }
}

impl Feed {
    /// Nothing is read before [`Feed::run`] is.
    #[must_use]
    pub fn new(store: Store, clock: Clock) -> Self {
        let (end, _) = watch::channel(-1);
        Self { store, clock, shared: Arc::new(Shared { kept: Mutex::default(), end }) }
    }

    /// Reads until the shutdown. An error of the database is waited out.
    pub async fn run(self, shutdown: Shutdown) {
        let mut gap = None;
        while !shutdown.drain.is_cancelled() {
            let pause = match self.tick(&mut gap).await {
                Ok(true) => continue,
                Ok(false) => {
                    let wait = if gap.is_some() { LOOK_PAUSE / 10 } else { LOOK_PAUSE };
                    tokio::select! {
                        () = shutdown.drain.cancelled() => return,
                        changed = self.store.changed(wait) => if changed.is_ok() { continue },
                    }
                    ERROR_PAUSE
                }
                Err(error) => {
                    tracing::warn!(%error, "the history cannot be read just now, trying again");
                    ERROR_PAUSE
                }
            };
            tokio::select! {
                () = shutdown.drain.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One look; true when there may be more at once. `gap`: the seq that is missing, and since when it is.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn tick(&self, gap: &mut Option<(i64, BootTime)>) -> Result<bool, Error> {
        let end = *self.shared.end.borrow();
        if end < 0 {
            self.shared.end.send_replace(self.store.last_event().await?);
            return Ok(true);
        }
        // Without listeners nothing is read: they find their place by themselves.
        if self.shared.end.receiver_count() == 0 {
            self.shared.end.send_replace(self.store.last_event().await?);
            return Ok(false);
        }
        let events = self.store.events_after(end, PIECE).await?;
        let is_full = events.len() == usize::try_from(PIECE).unwrap_or(usize::MAX);
        let now = self.clock.boot();
        let mut last = end;
        let mut kept = self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            if event.seq != last + 1 && !self.store.is_in_order() {
                let since = match *gap {
                    Some((missing, since)) if missing == last + 1 => since,
                    _ => now,
                };
                *gap = Some((last + 1, since));
                if now.since(since) < GAP {
                    break;
                }
            }
            *gap = None;
            last = event.seq;
            if kept.len() == KEPT {
                kept.pop_front();
            }
            kept.push_back(Arc::new(event));
        }
        drop(kept);
        if last > end {
            self.shared.end.send_replace(last);
        }
        Ok(is_full && last > end)
    }

    /// Events behind `seq`, from memory or from the database, and the seq that they reach to.
    async fn after(&self, seq: i64, end: i64) -> Result<Vec<Arc<JobEvent>>, Error> {
        {
            let kept = self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.front().is_some_and(|first| first.seq <= seq + 1) {
                let from = kept.partition_point(|event| event.seq <= seq);
                return Ok(kept.iter().skip(from).take_while(|event| event.seq <= end).cloned().collect());
            }
        }
        let events = self.store.events_after(seq, PIECE).await?;
        Ok(events.into_iter().take_while(|event| event.seq <= end).map(Arc::new).collect())
    }
}

/// Which events.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenQuery {
    /// Of this job alone.
    job: Option<String>,
    /// Behind this seq; `Last-Event-ID` says the same and wins. Neither: from now on.
    after: Option<i64>,
}

struct Listener {
    app: Arc<App>,
    end: watch::Receiver<i64>,
    seq: i64,
    job: Option<JobId>,
    greeted: bool,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.app.metrics.listeners.dec();
    }
}

/// `GET /events`.
///
/// # Errors
/// 400 for a place that is none; 503 when too many listen.
pub async fn listen(
    Extract(app): Extract<Arc<App>>,
    Query(query): Query<ListenQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let job = query.job.as_deref().map(id).transpose()?;
    let last = headers.get("last-event-id").map(|text| {
        let number = text.to_str().ok().and_then(|text| text.trim().parse::<i64>().ok());
        number.ok_or_else(|| ApiError::bad("Last-Event-ID is no number"))
    });
    let after = last.transpose()?.or(query.after);
    if after.is_some_and(|seq| seq < 0) {
        return Err(ApiError::bad("after: use 0 or more"));
    }
    if app.metrics.listeners.get() >= LISTENERS {
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many listeners").after(30));
    }
    let end = app.feed.shared.end.subscribe();
    let seq = match after {
        Some(seq) => seq,
        None => app.store.last_event().await?,
    };
    app.metrics.listeners.inc();
    let listener = Listener { app, end, seq, job, greeted: false };
    let pieces = stream::unfold(listener, |mut listener| async move {
        let piece = listener.next().await?;
        Some((Ok::<Bytes, Infallible>(piece), listener))
    });
    let mut response = Body::from_stream(pieces).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

impl Listener {
    /// The next lines; None: the server ends.
    async fn next(&mut self) -> Option<Bytes> {
        // Something must be sent for the head of the answer to go out.
        if !std::mem::replace(&mut self.greeted, true) {
            return Some(Bytes::from_static(b": hello\n\n"));
        }
        loop {
            let end = *self.end.borrow_and_update();
            if end > self.seq {
                // In a box: a listener that waits must not keep the room that reading takes.
                match Box::pin(self.app.feed.after(self.seq, end)).await {
                    Ok(events) => {
                        if let Some(lines) = self.lines(&events, end) {
                            return Some(lines);
                        }
                        continue;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a listener could not be told of events, trying again");
                        tokio::time::sleep(ERROR_PAUSE).await;
                    }
                }
                continue;
            }
            tokio::select! {
                () = self.app.stopping.cancelled() => return None,
                changed = self.end.changed() => changed.ok()?,
                () = tokio::time::sleep(KEEP_ALIVE) => return Some(Bytes::from_static(b": alive\n\n")),
            }
        }
    }

    fn lines(&mut self, events: &[Arc<JobEvent>], end: i64) -> Option<Bytes> {
        // Nothing left up to the end: the rest of the numbers was never used.
        self.seq = events.last().map_or(end, |event| event.seq);
        let mut text = String::new();
        for event in events.iter().filter(|event| self.job.is_none_or(|job| job == event.job_id)) {
            let mut value = serde_json::to_value(event.as_ref()).unwrap_or_default();
            value["job_id"] = serde_json::Value::from(event.job_id.to_string());
            text.push_str(&format!("id: {}\nevent: job\ndata: {value}\n\n", event.seq));
        }
        (!text.is_empty()).then(|| Bytes::from(text))
    }
}
