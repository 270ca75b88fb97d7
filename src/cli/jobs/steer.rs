//! `jobs cancel` and `jobs retry`: which jobs are meant, and how many it were.

use crate::cli::Context;
use crate::cli::error::{Error, Result};
use crate::cli::report::count as number;
use crate::job::{JobId, State};
use crate::store::{JobFilter, Selection};
use std::collections::BTreeSet;

/// Which jobs are meant.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").args(["ids", "state"]).required(true))]
pub struct SelectionArgs {
    /// The ids of the jobs.
    #[arg(value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
    ids: Vec<JobId>,
    /// All jobs in this state.
    #[arg(long, value_name = "STATE", value_parser = str::parse::<State>)]
    state: Option<State>,
    /// Of those, only the ones in this queue.
    #[arg(long, value_name = "QUEUE", requires = "state")]
    queue: Option<String>,
    /// Not implemented.
    #[arg(long, hide = true, value_name = "BATCH")]
    batch: Option<String>,
}

impl SelectionArgs {
    fn selection(self) -> Result<Selection> {
        if self.batch.is_some() {
            return Err(Error::not_implemented("--batch (batches)"));
        }
        match self.state {
            None if self.ids.is_empty() => Err(Error::usage("name the jobs: ID..., or --state STATE")),
            None => Ok(Selection::Ids(self.ids.into_iter().collect::<BTreeSet<_>>().into_iter().collect())),
            Some(_) => {
                Ok(Selection::Filter(JobFilter { state: self.state, queue: self.queue, ..JobFilter::default() }))
            }
        }
    }
}

/// `jobs cancel`.
///
/// # Errors
/// An id is unknown (nothing was changed then), or the database cannot be written.
pub async fn cancel(context: &mut Context, arguments: SelectionArgs) -> Result {
    let selection = arguments.selection()?;
    let store = context.store().await?;
    let count = store.cancel(&selection, &context.actor()).await?;
    counted(context, count, "cancelled or asked to stop")
}

/// `jobs retry`.
///
/// # Errors
/// An id is unknown (nothing was changed then), or the database cannot be written.
pub async fn retry(context: &mut Context, arguments: SelectionArgs) -> Result {
    let selection = arguments.selection()?;
    let store = context.store().await?;
    let count = store.retry(&selection, &context.actor()).await?;
    counted(context, count, "queued again")
}

fn counted(context: &mut Context, count: u64, what: &str) -> Result {
    if context.format().is_json() {
        return context.output.json(&serde_json::json!({"count": count}));
    }
    context.output.line(&format!("{} {what}", number(usize::try_from(count).unwrap_or(usize::MAX), "job")))
}
