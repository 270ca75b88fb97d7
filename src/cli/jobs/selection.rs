//! Which jobs an operator means: named by id, or chosen by a filter.

use crate::cli::error::Result;
use crate::job::batch::BatchId;
use crate::job::{Job, JobId, State};
use crate::store::{JobFilter, Selection, Store};
use std::collections::BTreeSet;

/// Jobs looked at in one step when the store cannot choose them by itself.
const PAGE: u32 = 1000;

/// Patterns of references.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Patterns {
    /// Of those, only the ones whose source matches; `*` and `?` match anything, other text is looked for anywhere.
    #[arg(long, value_name = "PATTERN")]
    source: Option<String>,
    /// Of those, only the ones whose destination matches.
    #[arg(long, value_name = "PATTERN")]
    destination: Option<String>,
}

/// Which jobs are meant; a state must be named, because finished jobs may be meant too.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").args(["ids", "state"]).required(true))]
pub struct AnyArgs {
    /// The ids of the jobs.
    #[arg(value_name = "ID", value_parser = clap::value_parser!(i64).range(1..), conflicts_with_all = ["source", "destination"])]
    ids: Vec<JobId>,
    /// All jobs in this state.
    #[arg(long, value_name = "STATE", value_parser = str::parse::<State>)]
    state: Option<State>,
    /// Of those, only the ones in this queue.
    #[arg(long, visible_alias = "in-queue", value_name = "QUEUE", requires = "state")]
    queue: Option<String>,
    #[command(flatten)]
    patterns: Patterns,
    /// Of those, only the ones of this batch.
    #[arg(long, value_name = "BATCH", conflicts_with = "ids")]
    batch: Option<BatchId>,
}

/// Which jobs are to be tried again.
#[derive(Debug, clap::Args)]
pub struct RetryArgs {
    #[command(flatten)]
    any: AnyArgs,
    /// Of the failed ones, only those that failed like this: denied, absent, refused, corrupt, poison, ...
    #[arg(long, value_name = "CLASS", requires = "state", conflicts_with = "ids")]
    failed_class: Option<String>,
}

/// Which waiting jobs are meant.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").args(["ids", "state", "queue", "source", "destination"]).multiple(true).required(true))]
pub struct WaitingArgs {
    /// The ids of the jobs.
    #[arg(value_name = "ID", value_parser = clap::value_parser!(i64).range(1..),
        conflicts_with_all = ["state", "queue", "source", "destination"])]
    ids: Vec<JobId>,
    /// All jobs in this state: scheduled or pending.
    #[arg(long, value_name = "STATE", value_parser = waiting_state)]
    state: Option<State>,
    /// All jobs that wait in this queue.
    #[arg(long, visible_alias = "in-queue", value_name = "QUEUE")]
    queue: Option<String>,
    #[command(flatten)]
    patterns: Patterns,
    /// Of those, only the ones of this batch.
    #[arg(long, value_name = "BATCH", conflicts_with = "ids")]
    batch: Option<BatchId>,
}

/// The states of a job that waits.
///
/// # Errors
/// It is no such state.
pub fn waiting_state(text: &str) -> std::result::Result<State, String> {
    match text.parse::<State>() {
        Ok(state @ (State::Scheduled | State::Pending)) => Ok(state),
        Ok(state) => Err(format!("{state} jobs do not wait: use scheduled or pending")),
        Err(_) => Err(format!("`{text}` is no state of a waiting job: use scheduled or pending")),
    }
}

/// What was typed, whichever command it was.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Named ones; empty: chosen by the rest.
    pub ids: Vec<JobId>,
    /// The state, or None: any that the command is for.
    pub state: Option<State>,
    /// The queue.
    pub queue: Option<String>,
    /// Patterns of references.
    pub patterns: Patterns,
    /// The class of the failure.
    pub failed_class: Option<String>,
    /// The batch.
    pub batch: Option<BatchId>,
}

impl From<AnyArgs> for Wanted {
    fn from(AnyArgs { ids, state, queue, patterns, batch }: AnyArgs) -> Self {
        Self { ids, state, queue, patterns, failed_class: None, batch }
    }
}

impl From<RetryArgs> for Wanted {
    fn from(RetryArgs { any, failed_class }: RetryArgs) -> Self {
        Self { failed_class, ..any.into() }
    }
}

impl From<WaitingArgs> for Wanted {
    fn from(WaitingArgs { ids, state, queue, patterns, batch }: WaitingArgs) -> Self {
        Self { ids, state, queue, patterns, failed_class: None, batch }
    }
}

impl Wanted {
    /// The jobs that were named, each once, or what the filter chooses now.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn selection(self, store: &Store) -> Result<Selection> {
        if !self.ids.is_empty() {
            return Ok(Selection::Ids(self.ids.into_iter().collect::<BTreeSet<_>>().into_iter().collect()));
        }
        let Patterns { source, destination } = self.patterns;
        let filter = JobFilter {
            state: self.state,
            queue: self.queue,
            source,
            destination,
            batch: self.batch.map(|batch| batch.to_string()),
            ..JobFilter::default()
        };
        if filter.source.is_none() && filter.destination.is_none() && self.failed_class.is_none() {
            return Ok(Selection::Filter(filter));
        }
        // Without a state, jobs that wait are meant: nobody has to walk through all that are finished.
        let states = filter.state.map_or_else(|| vec![State::Scheduled, State::Pending], |state| vec![state]);
        let mut ids = Vec::new();
        for state in states {
            let filter = JobFilter { state: Some(state), ..filter.clone() };
            let mut after = None;
            loop {
                let page = store.jobs(&filter, after, PAGE).await?;
                let Some(last) = page.last() else { break };
                after = Some(last.id);
                ids.extend(
                    page.iter()
                        .filter(|job| self.failed_class.as_deref().is_none_or(|class| failed(job, class)))
                        .map(|job| job.id),
                );
            }
        }
        ids.sort_unstable();
        Ok(Selection::Ids(ids))
    }
}

fn failed(job: &Job, class: &str) -> bool {
    job.failure.as_ref().is_some_and(|failure| failure.class == class)
}
