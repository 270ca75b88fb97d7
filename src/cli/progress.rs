//! How progress is shown, and the events that programs read.
//!
//! One JSON object a line on stderr. Names are stable: fields are added, never renamed. Every object has `event`, `at` and
//! `job`; an attempt begins with `started` and ends with `finished`, with any number of `progress` and `blob` between them.

use super::bars::{Bars, LINE_PAUSE, Speed};
use super::output::{Notes, bytes};
use super::report::count;
use crate::clock::{BootTime, Clock};
use crate::daemon::Seen;
use crate::job::JobId;
use crate::worker::watch::{End, Watch, Watched};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Pause between `progress` events of one attempt.
const EVENT_PAUSE: Duration = Duration::from_secs(1);

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Bars that move; lines where there is no terminal.
    Bars,
    /// A line now and then.
    Plain,
    /// Events for programs, one JSON object a line.
    Jsonl,
    /// Not at all.
    None,
}

/// Shows all attempts of this process.
pub struct Display {
    mode: Mode,
    notes: Notes,
    clock: Clock,
    watch: Watch,
    shown: BTreeMap<(JobId, i64), Shown>,
    speed: Speed,
    last_line: BootTime,
}

/// One attempt as it was shown last.
struct Shown {
    bars: Option<Bars>,
    speed: Speed,
    blobs: usize,
    last_event: Option<BootTime>,
}

impl Display {
    /// Shows nothing yet.
    #[must_use]
    pub fn new(mode: Mode, notes: Notes, clock: Clock, watch: Watch) -> Self {
        if mode == Mode::Jsonl {
            watch.keep_ends();
        }
        // Bars that nobody sees are lines.
        let mode = if mode == Mode::Bars && notes.bars().is_hidden() { Mode::Plain } else { mode };
        let last_line = clock.boot();
        let speed = Speed::default();
        Self { mode, notes, clock, watch, shown: BTreeMap::new(), speed, last_line }
    }

    /// Something is shown at all.
    #[must_use]
    pub fn shows(&self) -> bool {
        self.mode != Mode::None
    }

    /// Time has passed.
    pub fn tick(&mut self) {
        match self.mode {
            Mode::None => {}
            Mode::Plain => self.line(),
            Mode::Bars => self.bars(),
            Mode::Jsonl => self.events(),
        }
    }

    /// Nothing runs any more.
    pub fn end(&mut self) {
        if self.mode == Mode::Jsonl {
            self.events();
        }
        for shown in std::mem::take(&mut self.shown).into_values() {
            if let Some(mut bars) = shown.bars {
                bars.clear();
            }
        }
    }

    /// One line for all, now and then.
    fn line(&mut self) {
        let now = self.clock.boot();
        let running = self.watch.running();
        if running.is_empty() || now.since(self.last_line) < LINE_PAUSE {
            return;
        }
        self.last_line = now;
        let sum = |number: fn(&Watched) -> u64| running.iter().map(number).fold(0u64, u64::saturating_add);
        let done = sum(|watched| watched.counters.progress.read().bytes_done);
        let total = sum(|watched| watched.counters.progress.read().bytes_total);
        let moved = self.watch.totals().bytes_sent + sum(|watched| watched.counters.progress.bytes_moved());
        let rate = self.speed.measure(now, moved);
        let jobs = count(running.len(), "running job");
        self.notes.note(&format!("{jobs}: {} of {}, {}/s", bytes(done), bytes(total), bytes(rate)));
    }

    /// A bar for each attempt that runs.
    fn bars(&mut self) {
        let running = self.watch.running();
        let keys: Vec<_> = running.iter().map(key).collect();
        let over: Vec<_> = self.shown.keys().filter(|key| !keys.contains(key)).copied().collect();
        for key in over {
            if let Some(mut bars) = self.shown.remove(&key).and_then(|shown| shown.bars) {
                bars.clear();
            }
        }
        for watched in running {
            let shown = self.shown.entry(key(&watched)).or_insert_with(|| {
                let mut bars = Bars::new(watched.job, self.notes.clone(), self.clock.clone(), true);
                bars.see(Seen::Started(watched.counters.clone()));
                Shown { bars: Some(bars), ..Shown::new() }
            });
            if let Some(bars) = &mut shown.bars {
                bars.tick();
            }
        }
    }

    /// What happened since the last look.
    fn events(&mut self) {
        // Those that ended first: a job that is tried again ends before it begins.
        for end in self.watch.take_ends() {
            self.begun(&end.watched);
            self.blobs(&end.watched);
            self.finished(&end);
            self.shown.remove(&key(&end.watched));
        }
        for watched in self.watch.running() {
            self.begun(&watched);
            self.blobs(&watched);
            self.progress(&watched);
        }
    }

    fn emit(&self, event: &str, watched: &Watched, more: Value) {
        let mut object = json!({"event": event, "at": self.clock.now().to_rfc3339(), "job": watched.job});
        if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
            object.extend(more);
        }
        self.notes.event(&object);
    }

    fn begun(&mut self, watched: &Watched) {
        if self.shown.contains_key(&key(watched)) {
            return;
        }
        self.shown.insert(key(watched), Shown::new());
        let Watched { attempt, source, destination, .. } = watched;
        self.emit("started", watched, json!({"attempt": attempt, "source": source, "destination": destination}));
    }

    /// Blobs that have got there.
    fn blobs(&mut self, watched: &Watched) {
        let Some(shown) = self.shown.get_mut(&key(watched)) else { return };
        let new: Vec<_> = {
            let transfers = watched.counters.transfers.lock().unwrap_or_else(PoisonError::into_inner);
            transfers.get(shown.blobs..).unwrap_or_default().to_vec()
        };
        shown.blobs += new.len();
        for blob in new {
            let more = json!({
                "digest": blob.digest, "bytes": blob.bytes, "how": blob.how, "registry": blob.registry,
                "repository": blob.repository,
            });
            self.emit("blob", watched, more);
        }
    }

    fn progress(&mut self, watched: &Watched) {
        let now = self.clock.boot();
        let Some(shown) = self.shown.get_mut(&key(watched)) else { return };
        let progress = watched.counters.progress.read();
        if progress.bytes_total == 0 || shown.last_event.is_some_and(|last| now.since(last) < EVENT_PAUSE) {
            return;
        }
        shown.last_event = Some(now);
        let rate = shown.speed.measure(now, watched.counters.progress.bytes_moved());
        let large: Vec<_> = watched
            .counters
            .progress
            .large
            .now()
            .iter()
            .map(
                |blob| json!({"digest": blob.digest, "bytes_done": blob.bytes_done(), "bytes_total": blob.bytes_total}),
            )
            .collect();
        let mut more = counters(watched);
        more["rate"] = json!(rate);
        more["large_blobs"] = json!(large);
        self.emit("progress", watched, more);
    }

    fn finished(&self, end: &End) {
        let mut more = counters(&end.watched);
        more["attempt"] = json!(end.watched.attempt);
        more["state"] = end.state.map_or(Value::Null, |state| json!(state.to_string()));
        more["requests"] = json!(end.watched.counters.requests.load(Ordering::Relaxed));
        self.emit("finished", &end.watched, more);
    }
}

impl Shown {
    fn new() -> Self {
        Self { bars: None, speed: Speed::default(), blobs: 0, last_event: None }
    }
}

const fn key(watched: &Watched) -> (JobId, i64) {
    (watched.job, watched.attempt)
}

/// How far an attempt is.
fn counters(watched: &Watched) -> Value {
    json!(watched.counters.progress.read())
}
