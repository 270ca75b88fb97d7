//! The state machine: one table, written once.
//!
//! The database enforces the same edges by triggers, for everybody who writes SQL; a test compares the two. The table is a
//! `match` and not a typestate because states come out of rows at run time.

use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Waits for its time: asked for later, or for a retry.
    Scheduled,
    /// Waits for a worker.
    Pending,
    /// A worker holds its lease.
    Running,
    /// Done: the destination has the content.
    Completed,
    /// Given up.
    Failed,
    /// Called off.
    Cancelled,
}

impl State {
    /// All states, in the order of a job's life.
    pub const ALL: [Self; 6] =
        [Self::Scheduled, Self::Pending, Self::Running, Self::Completed, Self::Failed, Self::Cancelled];

    /// The word in rows, JSON and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Nothing more happens unless an operator asks for a retry.
    #[must_use]
    pub const fn is_finished(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// Some event leads from this state to `to`: the edges that the database lets through.
    #[must_use]
    pub fn may_become(self, to: Self) -> bool {
        Event::ALL.iter().any(|event| self.after(*event) == Ok(to))
    }

    /// The state after `event`.
    ///
    /// # Errors
    /// [`IllegalTransition`] when the table has no such edge; it names both.
    pub const fn after(self, event: Event) -> Result<Self, IllegalTransition> {
        use Event as E;
        match (self, event) {
            (Self::Scheduled, E::Due) => Ok(Self::Pending),
            (Self::Pending, E::Postpone) => Ok(Self::Scheduled),
            (Self::Pending, E::Claim) => Ok(Self::Running),
            (Self::Pending, E::Reject) => Ok(Self::Failed),
            (Self::Running, E::Succeed) => Ok(Self::Completed),
            (Self::Running, E::Retry | E::LeaseExpired) => Ok(Self::Scheduled),
            (Self::Running, E::GiveUp) => Ok(Self::Failed),
            (Self::Running, E::Release) => Ok(Self::Pending),
            (Self::Scheduled | Self::Pending | Self::Running, E::Cancel) => Ok(Self::Cancelled),
            (Self::Scheduled | Self::Completed | Self::Failed | Self::Cancelled, E::OperatorRetry) => Ok(Self::Pending),
            (from, event) => Err(IllegalTransition { from, event }),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "canceled" {
            return Ok(Self::Cancelled);
        }
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| UnknownState(text.to_owned()))
    }
}

/// A word that is no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown state `{0}`: use scheduled, pending, running, completed, failed or cancelled")]
pub struct UnknownState(String);

/// What may happen to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// Its time has come.
    Due,
    /// It was given a later time while it waited.
    Postpone,
    /// A worker took it.
    Claim,
    /// Its references do not parse.
    Reject,
    /// The attempt did what was asked.
    Succeed,
    /// The attempt failed; there will be another.
    Retry,
    /// The attempt failed; there will be no other.
    GiveUp,
    /// The worker gave it back, unharmed: the attempt is refunded.
    Release,
    /// The worker died or lost its lease, and there will be another attempt.
    LeaseExpired,
    /// Somebody called it off.
    Cancel,
    /// An operator wants it again: attempts start anew, the epoch goes on rising.
    OperatorRetry,
}

impl Event {
    /// All events.
    pub const ALL: [Self; 11] = [
        Self::Due,
        Self::Postpone,
        Self::Claim,
        Self::Reject,
        Self::Succeed,
        Self::Retry,
        Self::GiveUp,
        Self::Release,
        Self::LeaseExpired,
        Self::Cancel,
        Self::OperatorRetry,
    ];
}

/// An event that cannot happen in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("illegal transition: a {from} job cannot take the event {event:?}")]
pub struct IllegalTransition {
    /// The state the job is in.
    pub from: State,
    /// What was to happen.
    pub event: Event,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip() {
        for state in State::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert_eq!("canceled".parse(), Ok(State::Cancelled));
        assert!("done".parse::<State>().is_err());
    }

    #[test]
    fn the_edges_are_exactly_these() {
        use State::{Cancelled, Completed, Failed, Pending, Running, Scheduled};
        let edges: Vec<_> = State::ALL
            .into_iter()
            .flat_map(|from| State::ALL.into_iter().map(move |to| (from, to)))
            .filter(|(from, to)| from.may_become(*to))
            .collect();
        let mut expected = vec![
            (Scheduled, Pending),
            (Scheduled, Cancelled),
            (Pending, Scheduled),
            (Pending, Running),
            (Pending, Failed),
            (Pending, Cancelled),
            (Running, Scheduled),
            (Running, Pending),
            (Running, Completed),
            (Running, Failed),
            (Running, Cancelled),
            (Completed, Pending),
            (Failed, Pending),
            (Cancelled, Pending),
        ];
        expected.sort();
        let mut edges = edges;
        edges.sort();
        assert_eq!(edges, expected);
    }

    #[test]
    fn nothing_finishes_twice_and_errors_name_both() {
        for from in State::ALL.into_iter().filter(|state| state.is_finished()) {
            for event in Event::ALL.into_iter().filter(|event| *event != Event::OperatorRetry) {
                assert_eq!(from.after(event), Err(IllegalTransition { from, event }));
            }
        }
        let error = State::Completed.after(Event::Claim).unwrap_err().to_string();
        assert!(error.contains("completed") && error.contains("Claim"), "{error}");
    }
}
