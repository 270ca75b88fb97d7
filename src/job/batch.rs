//! Batches: many copies that were asked for as one. A batch has a row, a job of kind `expand` that lists what belongs to it,
//! and the jobs that one makes; what becomes of it is derived from them.

use super::{JobId, State, rfc3339, rfc3339_option};
use crate::clock::UnixMillis;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// The id of a batch (UUID version 7).
pub type BatchId = Uuid;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchKind {
    /// Several tags of one repository.
    Tags,
    /// The repositories below a prefix.
    Tree,
    /// What a file of rules selects.
    Sync,
    /// What a mirror of the configuration selects.
    Mirror,
}

impl BatchKind {
    /// The word in rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tags => "tags",
            Self::Tree => "tree",
            Self::Sync => "sync",
            Self::Mirror => "mirror",
        }
    }
}

impl FromStr for BatchKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Tags, Self::Tree, Self::Sync, Self::Mirror]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| format!("unknown kind of batch `{text}`"))
    }
}

/// A batch that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBatch {
    /// Chosen by who asks: asking again with the same id changes nothing.
    pub id: BatchId,
    /// What was asked for.
    pub kind: BatchKind,
    /// Of the mirror, of the file.
    pub name: Option<String>,
    /// For people.
    pub source: String,
    /// For people.
    pub destination: String,
    /// What is to be listed, JSON; None: the mirror of this name.
    pub rules: Option<String>,
    /// Of the jobs.
    pub queue: String,
    /// Of the jobs.
    pub priority: i64,
    /// Of the jobs.
    pub max_attempts: i64,
    /// Not before this; None: now.
    pub run_at: Option<UnixMillis>,
}

/// Where a batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchState {
    /// Nothing has begun.
    Pending,
    /// Something is being done, or was done while the rest waits.
    Running,
    /// All is done.
    Completed,
    /// Nothing is left to do, and something failed.
    Failed,
    /// Nothing is left to do, and something was called off.
    Cancelled,
}

impl BatchState {
    /// The word for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Nothing more happens unless somebody asks for a retry.
    #[must_use]
    pub const fn is_finished(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for BatchState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// How many copies of a batch are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All of them, as far as they are listed.
    pub total: u64,
    /// Wait for their time: a retry, mostly.
    pub scheduled: u64,
    /// Wait for a worker.
    pub pending: u64,
    /// Are being made.
    pub running: u64,
    /// Are done.
    pub completed: u64,
    /// Of those: the destination had it already.
    pub already_present: u64,
    /// Were given up.
    pub failed: u64,
    /// Were called off.
    pub cancelled: u64,
}

/// A batch and what its jobs come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Batch {
    /// Its id.
    pub id: BatchId,
    /// What was asked for.
    pub kind: BatchKind,
    /// Of the mirror, of the file.
    pub name: Option<String>,
    /// As it was asked for.
    pub source: String,
    /// As it was asked for.
    pub destination: String,
    /// Where it stands.
    pub state: BatchState,
    /// The state of the job that lists; None: it is not kept any more.
    pub listing: Option<State>,
    /// The job that lists.
    pub expand_job: Option<JobId>,
    /// The schedule that made it.
    pub schedule_id: Option<i64>,
    /// Who asked for it.
    pub created_by: String,
    /// When.
    #[serde(serialize_with = "rfc3339")]
    pub created_at: UnixMillis,
    /// When the first attempt of one of its jobs started.
    #[serde(serialize_with = "rfc3339_option")]
    pub started_at: Option<UnixMillis>,
    /// When the last of its jobs ended; None while there is something to do.
    #[serde(serialize_with = "rfc3339_option")]
    pub finished_at: Option<UnixMillis>,
    /// When it was called off.
    #[serde(serialize_with = "rfc3339_option")]
    pub cancelled_at: Option<UnixMillis>,
    /// Its copies.
    pub jobs: Counts,
    /// Repositories that were listed, those that could not be too.
    pub repositories: u64,
    /// Repositories that could not be listed.
    pub repositories_failed: u64,
    /// Bytes that went over the wire.
    pub bytes_moved: u64,
    /// Bytes of the blobs that are at their destinations, of the copies that have begun.
    pub bytes_done: u64,
    /// Bytes of the blobs of the copies that have begun.
    pub bytes_total: u64,
}

/// What the jobs of a batch come to.
#[must_use]
pub const fn state(jobs: &Counts, listing: Option<State>, cancelled: bool) -> BatchState {
    let begun = jobs.completed + jobs.failed + jobs.cancelled > 0;
    match listing {
        Some(State::Running) => return BatchState::Running,
        Some(State::Pending | State::Scheduled) if begun || jobs.running > 0 => return BatchState::Running,
        Some(State::Pending | State::Scheduled) => return BatchState::Pending,
        _ => {}
    }
    if jobs.running > 0 {
        return BatchState::Running;
    }
    if jobs.pending + jobs.scheduled > 0 {
        return if begun { BatchState::Running } else { BatchState::Pending };
    }
    if jobs.failed > 0 || matches!(listing, Some(State::Failed)) {
        return BatchState::Failed;
    }
    if cancelled || jobs.cancelled > 0 || matches!(listing, Some(State::Cancelled)) {
        return BatchState::Cancelled;
    }
    BatchState::Completed
}

impl Batch {
    /// The speed so far, bytes per second, and the time that the copies known by now will take at it, seconds. None: nothing
    /// moves, or too little is known.
    #[must_use]
    pub fn outlook(&self, now: UnixMillis) -> Option<(u64, u64)> {
        let started = self.started_at.filter(|_| !self.state.is_finished())?;
        let secs = now.since(started).as_secs_f64();
        if secs < 1.0 || self.bytes_moved == 0 {
            return None;
        }
        let finished = self.jobs.completed + self.jobs.failed + self.jobs.cancelled;
        let left = self.jobs.total.saturating_sub(finished);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an estimate"
        )]
        let outlook = {
            let speed = self.bytes_moved as f64 / secs;
            let time = if finished == 0 { f64::INFINITY } else { secs / finished as f64 * left as f64 };
            (speed as u64, if time.is_finite() { time as u64 } else { return None })
        };
        Some(outlook)
    }
}

/// What became of a repository of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The place of its rule, from 0.
    pub rule: u32,
    /// `host/name`.
    pub repository: String,
    /// Tags it has; 0 where they were named and need not be listed.
    pub tags: u64,
    /// Copies that its rule makes of it.
    pub kept: u64,
    /// Why it could not be listed: class and message.
    pub failure: Option<(String, String)>,
}

/// What a listing that was done found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Found {
    /// Repositories.
    pub repositories: u64,
    /// Tags they have.
    pub tags: u64,
    /// Copies to be made.
    pub jobs: u64,
}

/// The target of the job that lists: one at a time.
#[must_use]
pub fn expand_key(batch: BatchId) -> String {
    format!("batch:{batch}")
}

/// The key of a copy of a batch, by its canonical destination: who lists again finds the same job.
#[must_use]
pub fn copy_key(batch: BatchId, dest_key: &str) -> String {
    let hash = hex::encode(&Sha256::digest(dest_key)[..16]);
    format!("batch:{batch}:{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_what_the_jobs_come_to() {
        let counts = |pending, running, completed, failed, cancelled| Counts {
            pending,
            running,
            completed,
            failed,
            cancelled,
            ..Counts::default()
        };
        let done = Some(State::Completed);
        for (jobs, listing, cancelled, wanted) in [
            (counts(0, 0, 0, 0, 0), Some(State::Pending), false, BatchState::Pending),
            (counts(3, 0, 0, 0, 0), Some(State::Scheduled), false, BatchState::Pending),
            (counts(3, 0, 1, 0, 0), Some(State::Scheduled), false, BatchState::Running),
            (counts(0, 0, 0, 0, 0), Some(State::Running), false, BatchState::Running),
            (counts(3, 0, 0, 0, 0), done, false, BatchState::Pending),
            (counts(3, 0, 0, 1, 0), done, false, BatchState::Running),
            (counts(0, 1, 0, 1, 0), done, false, BatchState::Running),
            (counts(0, 0, 2, 1, 1), done, false, BatchState::Failed),
            (counts(0, 0, 2, 0, 0), Some(State::Failed), false, BatchState::Failed),
            (counts(0, 0, 2, 0, 1), done, false, BatchState::Cancelled),
            (counts(0, 0, 2, 0, 0), Some(State::Cancelled), false, BatchState::Cancelled),
            (counts(0, 0, 2, 0, 0), done, true, BatchState::Cancelled),
            (counts(0, 0, 2, 0, 0), done, false, BatchState::Completed),
            (counts(0, 0, 2, 0, 0), None, false, BatchState::Completed),
            (counts(0, 0, 0, 0, 0), done, false, BatchState::Completed),
        ] {
            assert_eq!(state(&jobs, listing, cancelled), wanted, "{jobs:?} {listing:?} {cancelled}");
        }
    }

    #[test]
    fn one_destination_has_one_key() {
        let batch = Uuid::nil();
        assert_eq!(copy_key(batch, "h/a:1"), copy_key(batch, "h/a:1"));
        assert_ne!(copy_key(batch, "h/a:1"), copy_key(batch, "h/a:2"));
        assert!(copy_key(batch, &"x".repeat(4000)).len() < 100);
        assert_ne!(expand_key(batch), copy_key(batch, ""));
    }
}
