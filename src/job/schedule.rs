//! Schedules: what is enqueued again and again. Rows and wishes; when they are due is a question for `schedule`.

use super::batch::BatchKind;
use super::new::check_queue;
use super::{Invalid, NewJob};
use crate::clock::UnixMillis;
use std::fmt;
use std::str::FromStr;

/// The id of a schedule; never reused.
pub type ScheduleId = i64;

/// Longest name of a schedule, bytes.
pub const NAME_LIMIT: usize = 128;
/// Longest jitter, milliseconds: a day.
pub const JITTER_LIMIT_MS: i64 = 24 * 60 * 60 * 1000;
/// Most missed occurrences that are caught up with.
pub const CATCH_UP_LIMIT: u32 = 1000;

/// A schedule as its row says. What anybody may have written is text here; the scheduler makes sense of it, or says why not.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Never reused.
    pub id: ScheduleId,
    /// Unique among those that are not removed.
    pub name: String,
    /// When: see `schedule::Timing`.
    pub timing: String,
    /// An IANA time zone.
    pub timezone: String,
    /// Each job starts up to so much later, milliseconds.
    pub jitter_ms: i64,
    /// What becomes of missed times: see [`Missed`].
    pub missed: String,
    /// What becomes of a time at which the last run is not over: see [`Overlap`].
    pub overlap: String,
    /// What it makes: copy, mirror, tree or sync.
    pub kind: String,
    /// Of the jobs; the name of a mirror.
    pub source: String,
    /// Of the jobs; empty for a mirror.
    pub destination: String,
    /// Of the jobs, a JSON object; of a tree, what it takes; the rules of a sync.
    pub options: serde_json::Value,
    /// Of the jobs.
    pub queue: String,
    /// Of the jobs.
    pub priority: i64,
    /// Of the jobs.
    pub max_attempts: i64,
    /// From when on it counts: when it was made, resumed, or given another time. Intervals are counted from here.
    pub base_at: UnixMillis,
    /// When it was made.
    pub created_at: UnixMillis,
    /// The next time; None: not looked at yet, or over.
    pub next_at: Option<UnixMillis>,
    /// The last time that was dealt with.
    pub last_at: Option<UnixMillis>,
    /// Set while it is held back.
    pub paused_at: Option<UnixMillis>,
    /// Since when there is no next time.
    pub ended_at: Option<UnixMillis>,
    /// Why it cannot be: it waits until somebody changes it.
    pub fault: Option<String>,
}

/// A schedule that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSchedule {
    /// Unique among those that are not removed; 1 to 128 bytes.
    pub name: String,
    /// When: see `schedule::Timing`.
    pub timing: String,
    /// An IANA time zone.
    pub timezone: String,
    /// Each job starts up to so much later, milliseconds.
    pub jitter_ms: i64,
    /// What becomes of missed times.
    pub missed: Missed,
    /// What becomes of a time at which the last run is not over.
    pub overlap: Overlap,
    /// What is enqueued.
    pub job: Asked,
    /// Held back from the start.
    pub paused: bool,
}

impl NewSchedule {
    /// Checks what the types do not.
    ///
    /// # Errors
    /// [`Invalid`] names the field.
    pub fn check(&self) -> Result<(), Invalid> {
        if self.name.is_empty() || self.name.len() > NAME_LIMIT || self.name.chars().any(char::is_control) {
            return Err(Invalid(format!("a schedule's name has 1 to {NAME_LIMIT} bytes and no control characters")));
        }
        if !(0..=JITTER_LIMIT_MS).contains(&self.jitter_ms) {
            return Err(Invalid("a jitter is a day at most".to_owned()));
        }
        check_queue(&self.job.queue)
    }
}

/// What a schedule enqueues again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// A copy, or a batch.
    pub kind: ScheduleKind,
    /// Where from; the name of a mirror.
    pub source: String,
    /// Where to; empty for a mirror.
    pub destination: String,
    /// How: a JSON object.
    pub options: String,
    /// The queue to wait in.
    pub queue: String,
    /// Lower runs first.
    pub priority: i64,
    /// Attempts allowed.
    pub max_attempts: i64,
}

impl From<NewJob> for Asked {
    fn from(job: NewJob) -> Self {
        Self {
            kind: ScheduleKind::Copy,
            options: job.parsed.options.canonical(),
            source: job.source,
            destination: job.destination,
            queue: job.queue,
            priority: job.priority,
            max_attempts: job.max_attempts,
        }
    }
}

/// What a schedule makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScheduleKind {
    /// One copy.
    Copy,
    /// What a mirror of the configuration selects.
    Mirror,
    /// The repositories below a prefix.
    Tree,
    /// What rules select.
    Sync,
}

impl ScheduleKind {
    /// The word in rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Mirror => "mirror",
            Self::Tree => "tree",
            Self::Sync => "sync",
        }
    }
}

impl FromStr for ScheduleKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Copy, Self::Mirror, Self::Tree, Self::Sync]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| format!("`{text}` is nothing that a schedule makes: use copy, mirror, tree or sync"))
    }
}

/// The batch that a time makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeBatch {
    /// A mirror or a tree.
    pub kind: BatchKind,
    /// Of the mirror.
    pub name: Option<String>,
    /// What is to be listed, JSON; None: what whoever lists it first knows of the mirror.
    pub rules: Option<String>,
}

/// What becomes of times at which nobody looked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Missed {
    /// Nothing: the next time counts.
    Skip,
    /// One run for all of them.
    #[default]
    Once,
    /// One run for each of the last so many, 1 to 1000.
    CatchUp(u32),
}

/// What becomes of a time at which jobs of the schedule are not finished.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overlap {
    /// It makes no job.
    #[default]
    Skip,
    /// It makes a job that waits, unless one waits already.
    Queue,
    /// It makes a job all the same.
    Allow,
    /// It makes a job, and the older ones are cancelled.
    Cancel,
}

impl FromStr for Missed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` says nothing about missed times: use skip, once, or catch-up=N with N from 1 to {CATCH_UP_LIMIT}"
            )
        };
        match text {
            "skip" => Ok(Self::Skip),
            "once" => Ok(Self::Once),
            _ => text
                .strip_prefix("catch-up=")
                .and_then(|number| number.parse().ok())
                .filter(|number| (1..=CATCH_UP_LIMIT).contains(number))
                .map(Self::CatchUp)
                .ok_or_else(wrong),
        }
    }
}

impl fmt::Display for Missed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Skip => formatter.write_str("skip"),
            Self::Once => formatter.write_str("once"),
            Self::CatchUp(number) => write!(formatter, "catch-up={number}"),
        }
    }
}

impl FromStr for Overlap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "skip" => Ok(Self::Skip),
            "queue" => Ok(Self::Queue),
            "allow" => Ok(Self::Allow),
            "cancel" => Ok(Self::Cancel),
            _ => Err(format!("`{text}` says nothing about runs that overlap: use skip, queue, allow or cancel")),
        }
    }
}

impl fmt::Display for Overlap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Skip => "skip",
            Self::Queue => "queue",
            Self::Allow => "allow",
            Self::Cancel => "cancel",
        })
    }
}

/// What became of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It made a job.
    Fired,
    /// Nobody looked, and it is not made up for.
    Missed,
    /// The last run was not over.
    Overlapped,
}

impl Fate {
    /// As it stands in rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fired => "fired",
            Self::Missed => "missed",
            Self::Overlapped => "overlapped",
        }
    }
}

impl FromStr for Fate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Fired, Self::Missed, Self::Overlapped]
            .into_iter()
            .find(|fate| fate.as_str() == text)
            .ok_or_else(|| format!("unknown outcome `{text}`"))
    }
}

/// A time that is to be dealt with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The time.
    pub at: UnixMillis,
    /// Fired or missed, as far as the clock decides it.
    pub fate: Fate,
    /// When its job starts.
    pub run_at: UnixMillis,
    /// More for people.
    pub detail: Option<String>,
}

/// What is to be done with a schedule, if it still is as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firing {
    /// Which.
    pub schedule: ScheduleId,
    /// Its next time and its base as they were seen; None: by hand, however it is, and nothing moves.
    pub seen: Option<(Option<UnixMillis>, UnixMillis)>,
    /// Its next time from now on; None: there is none.
    pub next_at: Option<UnixMillis>,
    /// Why it cannot be.
    pub fault: Option<String>,
    /// The times, in order.
    pub occurrences: Vec<Planned>,
    /// What each time makes; None: one copy.
    pub batch: Option<MadeBatch>,
}

/// A time that was dealt with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurrence {
    /// The schedule.
    pub schedule: ScheduleId,
    /// The time.
    pub at: UnixMillis,
    /// What became of it.
    pub fate: Fate,
    /// The job that it made.
    pub job: Option<super::JobId>,
    /// When that was decided.
    pub decided_at: UnixMillis,
    /// More for people.
    pub detail: Option<String>,
}

/// The key of the job of an occurrence: whoever fires it again finds the same job.
#[must_use]
pub fn occurrence_key(schedule: ScheduleId, at: UnixMillis) -> String {
    format!("schedule:{schedule}:{}", at.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rows_say_is_read_and_written() {
        for text in ["skip", "once", "catch-up=1", "catch-up=1000"] {
            assert_eq!(text.parse::<Missed>().unwrap().to_string(), text);
        }
        for text in ["", "Skip", "catch-up", "catch-up=0", "catch-up=1001", "catch-up=-1", "catch-up=x"] {
            assert!(text.parse::<Missed>().unwrap_err().contains("use skip, once"), "{text}");
        }
        for text in ["skip", "queue", "allow", "cancel"] {
            assert_eq!(text.parse::<Overlap>().unwrap().to_string(), text);
        }
        assert!("wait".parse::<Overlap>().unwrap_err().contains("use skip, queue, allow or cancel"));
        assert_eq!("missed".parse(), Ok(Fate::Missed));
    }
}
