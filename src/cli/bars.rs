//! Progress of one copy for people who watch: a bar on a terminal, a line now and then elsewhere.
//!
//! The engine counts, this module reads: it is asked by a ticker, so that a copy never waits for a terminal.

use super::output::{Notes, bytes};
use super::report::{reason, speed};
use super::when::spoken;
use crate::clock::{BootTime, Clock};
use crate::daemon::Seen;
use crate::job::large::LargeBlob;
use crate::job::{Job, JobId, Progress};
use crate::replicate::Attempt;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Pause between looks at the counters: fluent for the eye, nothing for the processor.
pub const TICK: Duration = Duration::from_millis(100);
/// Pause between lines where there is no terminal: a log of an hour's copy stays readable.
pub const LINE_PAUSE: Duration = Duration::from_secs(10);
/// Speed is that of so much time: steady for the eye, and a stall shows soon.
const SPEED_WINDOW: Duration = Duration::from_secs(5);
/// The bar; elapsed time comes first, because a total may not be known yet.
const STYLE: &str = "{prefix} {elapsed} [{bar:30}] {bytes}/{total_bytes} {msg}";
/// The bar of a large blob, below that of its job.
const BLOB_STYLE: &str = "  {prefix} [{bar:30}] {bytes}/{total_bytes}";
/// So much of a digest stands before the bar of a blob: algorithm and twelve digits.
const DIGEST_CHARS: usize = 19;

/// What is shown of one job.
pub struct Bars {
    job: JobId,
    notes: Notes,
    clock: Clock,
    /// Bars or lines are wanted at all.
    wanted: bool,
    attempt: Option<Arc<Attempt>>,
    bar: Option<ProgressBar>,
    blobs: HashMap<String, ProgressBar>,
    speed: Speed,
    last_line: BootTime,
    said: String,
}

impl Bars {
    /// Shows nothing yet. `wanted`: progress may be shown; what goes wrong is said in any case.
    #[must_use]
    pub fn new(job: JobId, notes: Notes, clock: Clock, wanted: bool) -> Self {
        let now = clock.boot();
        Self {
            job,
            notes,
            clock,
            wanted,
            attempt: None,
            bar: None,
            blobs: HashMap::new(),
            speed: Speed::default(),
            last_line: now,
            said: String::new(),
        }
    }

    /// Something changed.
    pub fn see(&mut self, seen: Seen) {
        match seen {
            Seen::Started(attempt) => {
                self.clear();
                self.last_line = self.clock.boot();
                self.attempt = Some(attempt);
            }
            Seen::Elsewhere(job) => {
                self.attempt = None;
                let worker = job.worker.as_deref().unwrap_or("unknown");
                self.say(format!("job {}: worker {worker} is at it; following", job.id));
                if let Some(progress) = job.progress {
                    self.show(progress, progress.bytes_done);
                }
            }
            Seen::Waiting(job) => {
                self.clear();
                self.say(waiting(&job, &self.clock));
            }
            Seen::Paused(job) => {
                self.clear();
                self.say(format!("job {} waits: its queue `{}` is paused", job.id, job.queue));
            }
        }
    }

    /// Time has passed.
    pub fn tick(&mut self) {
        if let Some(attempt) = &self.attempt {
            let (progress, moved) = (attempt.progress.read(), attempt.progress.bytes_moved());
            let large = attempt.progress.large.now();
            self.show(progress, moved);
            self.show_blobs(&large);
        }
    }

    /// Takes the bar away.
    pub fn clear(&mut self) {
        self.attempt = None;
        self.speed = Speed::default();
        for bar in self.bar.take().into_iter().chain(self.blobs.drain().map(|(_, bar)| bar)) {
            bar.finish_and_clear();
            self.notes.bars().remove(&bar);
        }
    }

    /// A bar for each large blob that is under way, below that of the job.
    fn show_blobs(&mut self, large: &[Arc<LargeBlob>]) {
        let Some(above) = &self.bar else { return };
        let bars = self.notes.bars();
        self.blobs.retain(|digest, bar| {
            let runs = large.iter().any(|blob| blob.digest == *digest);
            if !runs {
                bar.finish_and_clear();
                bars.remove(bar);
            }
            runs
        });
        for blob in large {
            let bar = self.blobs.entry(blob.digest.clone()).or_insert_with(|| {
                let name = blob.digest.chars().take(DIGEST_CHARS).collect::<String>();
                bars.insert_after(above, styled(blob.bytes_total, BLOB_STYLE).with_prefix(name))
            });
            bar.set_position(blob.bytes_done());
        }
    }

    /// `moved`: bytes that went over the wire; blobs that were there already make no speed.
    fn show(&mut self, progress: Progress, moved: u64) {
        if !self.wanted || progress.bytes_total == 0 {
            return;
        }
        let now = self.clock.boot();
        let per_second = self.speed.measure(now, moved);
        let left = progress.bytes_total.saturating_sub(progress.bytes_done).checked_div(per_second);
        let eta = left.map_or_else(|| "unknown".to_owned(), |secs| spoken(Duration::from_secs(secs.max(1))));
        let rest = format!("{}/s eta {eta}, {}/{} blobs", bytes(per_second), progress.blobs_done, progress.blobs_total);
        if self.notes.bars().is_hidden() {
            if now.since(self.last_line) >= LINE_PAUSE {
                self.last_line = now;
                let (done, total) = (bytes(progress.bytes_done), bytes(progress.bytes_total));
                self.notes.note(&format!("job {}: {done} of {total}, {rest}", self.job));
            }
            return;
        }
        let notes = &self.notes;
        let bar = self.bar.get_or_insert_with(|| {
            notes.bars().add(styled(progress.bytes_total, STYLE).with_prefix(format!("job {}", self.job)))
        });
        bar.set_length(progress.bytes_total);
        bar.set_position(progress.bytes_done);
        bar.set_message(rest);
    }

    /// Says it, unless it was the last thing said.
    fn say(&mut self, text: String) {
        if text != self.said {
            self.notes.note(&text);
            self.said = text;
        }
    }
}

fn styled(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style.progress_chars("=> "))
}

/// Speed over the last seconds.
#[derive(Debug, Default)]
pub struct Speed {
    samples: VecDeque<(BootTime, u64)>,
}

impl Speed {
    /// Bytes a second, with one more look at the counter.
    pub fn measure(&mut self, now: BootTime, moved: u64) -> u64 {
        while self.samples.len() > 1 && self.samples.front().is_some_and(|(time, _)| now.since(*time) > SPEED_WINDOW) {
            self.samples.pop_front();
        }
        self.samples.push_back((now, moved));
        let (since, before) = self.samples.front().copied().unwrap_or((now, moved));
        let took = now.since(since);
        if took.is_zero() { 0 } else { speed(moved.saturating_sub(before), took) }
    }
}

fn waiting(job: &Job, clock: &Clock) -> String {
    let Job { id, attempt, max_attempts, run_at, .. } = job;
    let pause = run_at.since(clock.now());
    match &job.failure {
        Some(failure) => format!(
            "job {id}: attempt {attempt} of {max_attempts} failed in {}; next try at {} (in {})",
            reason(failure),
            run_at.to_rfc3339(),
            spoken(pause),
        ),
        None if pause > Duration::ZERO => {
            format!("job {id} waits for its time, {}", run_at.to_rfc3339())
        }
        None => format!("job {id} waits: another job writes {}", job.destination),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_that_of_the_last_seconds() {
        let mut speed = Speed::default();
        let at = |ms| BootTime(Duration::from_millis(ms));
        assert_eq!(speed.measure(at(0), 0), 0);
        assert_eq!(speed.measure(at(1000), 5000), 5000);
        assert_eq!(speed.measure(at(5000), 5000), 1000);
        assert_eq!(speed.measure(at(11_000), 5000), 0);
        assert_eq!(speed.measure(at(11_500), 6000), 2000);
    }
}
