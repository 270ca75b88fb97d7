//! Schedules as programs see them.

use super::{Timing, utc};
use crate::clock::UnixMillis;
use crate::job::Schedule;
use crate::job::schedule::{Fate, Occurrence};
use serde::Serialize;

/// A schedule as programs see it.
#[derive(Debug, Serialize)]
pub struct Row<'a> {
    /// Never reused.
    pub id: i64,
    /// Unique among those that are not removed.
    pub name: &'a str,
    /// active, paused, faulty or ended.
    pub state: &'static str,
    /// When.
    pub timing: &'a str,
    /// An IANA time zone.
    pub timezone: &'a str,
    /// Each job starts up to so much later, milliseconds.
    pub jitter_ms: i64,
    /// What becomes of missed times.
    pub missed: &'a str,
    /// What becomes of a time at which the last run is not over.
    pub overlap: &'a str,
    /// copy, mirror, tree or sync.
    pub kind: &'a str,
    /// Of the jobs.
    pub source: &'a str,
    /// Of the jobs.
    pub destination: &'a str,
    /// Of the jobs.
    pub options: &'a serde_json::Value,
    /// Of the jobs.
    pub queue: &'a str,
    /// Of the jobs.
    pub priority: i64,
    /// Of the jobs.
    pub max_attempts: i64,
    /// When it was made.
    pub created_at: String,
    /// The next time.
    pub next_at: Option<String>,
    /// The last time.
    pub last_at: Option<String>,
    /// Since when it is held back.
    pub paused_at: Option<String>,
    /// Since when there is no next time.
    pub ended_at: Option<String>,
    /// What is wrong with it.
    pub fault: Option<&'a str>,
}

/// A time as programs see it.
#[derive(Debug, Serialize)]
pub struct Past {
    /// When.
    pub at: String,
    /// What became of it.
    pub outcome: Fate,
    /// The job it made.
    pub job_id: Option<i64>,
    /// When that was decided.
    pub decided_at: String,
    /// More.
    pub detail: Option<String>,
}

impl From<Occurrence> for Past {
    fn from(occurrence: Occurrence) -> Self {
        Self {
            at: utc(occurrence.at),
            outcome: occurrence.fate,
            job_id: occurrence.job,
            decided_at: utc(occurrence.decided_at),
            detail: occurrence.detail,
        }
    }
}

impl<'a> From<&'a Schedule> for Row<'a> {
    fn from(schedule: &'a Schedule) -> Self {
        Self {
            id: schedule.id,
            name: &schedule.name,
            state: state(schedule),
            timing: &schedule.timing,
            timezone: &schedule.timezone,
            jitter_ms: schedule.jitter_ms,
            missed: &schedule.missed,
            overlap: &schedule.overlap,
            kind: &schedule.kind,
            source: &schedule.source,
            destination: &schedule.destination,
            options: &schedule.options,
            queue: &schedule.queue,
            priority: schedule.priority,
            max_attempts: schedule.max_attempts,
            created_at: utc(schedule.created_at),
            next_at: next_at(schedule).map(utc),
            last_at: schedule.last_at.map(utc),
            paused_at: schedule.paused_at.map(utc),
            ended_at: schedule.ended_at.map(utc),
            fault: schedule.fault.as_deref(),
        }
    }
}

/// Paused, faulty, ended or active.
#[must_use]
pub const fn state(schedule: &Schedule) -> &'static str {
    match schedule {
        Schedule { paused_at: Some(_), .. } => "paused",
        Schedule { fault: Some(_), .. } => "faulty",
        Schedule { ended_at: Some(_), .. } => "ended",
        _ => "active",
    }
}

/// The next time; before anybody has looked at the schedule, the one that will be found.
#[must_use]
pub fn next_at(schedule: &Schedule) -> Option<UnixMillis> {
    if state(schedule) != "active" {
        return None;
    }
    schedule.next_at.or_else(|| Timing::parse(&schedule.timing, &schedule.timezone).ok()?.first(schedule.base_at))
}
