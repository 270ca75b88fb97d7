//! What was promised and what was asked for: the other side of the comparison.

use super::plan::Hit;
use super::support::binary::Output;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// What a process is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// `work`, until a signal.
    Work { host: usize },
    /// `work --drain`
    Drain,
    /// Asks for this group.
    Ask { group: usize },
    /// Steers this job, which may have been removed meanwhile.
    SteerJob { id: i64 },
    /// Anything else that must succeed.
    Steer,
}

/// A blow that a process received.
#[derive(Debug, Clone, Copy)]
pub struct Blow {
    pub at_ms: i64,
    pub hit: Hit,
    /// It had said that it works, so that its signal handlers stood.
    pub ready: bool,
}

/// A process that ended.
#[derive(Debug)]
pub struct Exit {
    pub label: String,
    pub deed: Deed,
    pub started_ms: i64,
    pub blows: Vec<Blow>,
    pub output: Output,
    /// Where its standard error is.
    pub log: PathBuf,
}

impl Exit {
    pub fn was(&self, hit: Hit) -> bool {
        self.blows.iter().any(|blow| blow.hit == hit)
    }

    /// When it was killed.
    pub fn killed_ms(&self) -> Option<i64> {
        self.blows.iter().find(|blow| blow.hit == Hit::Kill).map(|blow| blow.at_ms)
    }
}

/// An insert that was acknowledged. No id: the database said that the key is known.
#[derive(Debug, Clone)]
pub struct Acknowledged {
    pub request: usize,
    pub id: Option<i64>,
}

#[derive(Debug, Default)]
pub struct Book {
    pub acknowledged: Vec<Acknowledged>,
    pub exits: Vec<Exit>,
    /// Jobs that somebody asked to cancel, and to try again; also when the asker was killed over it.
    pub cancels: BTreeSet<i64>,
    pub retries: BTreeSet<i64>,
    /// Failed jobs were retried by their state.
    pub failed_retried: bool,
    /// From when on the moving tag named which image of the pool: not before, and surely after.
    pub moves: Vec<(i64, i64, usize)>,
    /// A line for everything that was done, with its time.
    pub diary: Vec<String>,
}
