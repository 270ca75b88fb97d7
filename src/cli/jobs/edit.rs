//! `jobs edit`: another priority, time, number of attempts or queue for jobs that wait.

use super::selection::{Patterns, Wanted, waiting_state};
use super::steer::{Before, not_waiting};
use crate::cli::error::Result;
use crate::cli::{Context, when};
use crate::clock::UnixMillis;
use crate::job::{JobId, State};
use crate::store::{Edit, Why};
use std::time::Duration;

/// Change waiting jobs.
#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("which").args(["ids", "state", "in_queue", "source", "destination"]).multiple(true).required(true),
    group = clap::ArgGroup::new("what")
        .args(["priority", "at", "after", "now", "max_attempts", "queue"]).multiple(true).required(true),
    group = clap::ArgGroup::new("time").args(["at", "after", "now"]),
)]
pub struct EditArgs {
    /// The ids of the jobs.
    #[arg(value_name = "ID", value_parser = clap::value_parser!(i64).range(1..),
        conflicts_with_all = ["state", "in_queue", "source", "destination"])]
    ids: Vec<JobId>,
    /// All jobs in this state: scheduled or pending.
    #[arg(long, value_name = "STATE", value_parser = waiting_state)]
    state: Option<State>,
    /// All jobs that wait in this queue.
    #[arg(long, value_name = "QUEUE")]
    in_queue: Option<String>,
    #[command(flatten)]
    patterns: Patterns,
    /// Of those, only the ones of this batch.
    #[arg(long, value_name = "BATCH", conflicts_with = "ids")]
    batch: Option<crate::job::batch::BatchId>,
    /// Lower runs first.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i64>,
    /// Not before this time, for example 2026-11-23T06:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = when::time)]
    at: Option<UnixMillis>,
    /// Not before this much time has passed, for example 30s, 5m, 2h, 1d or 1h30m.
    #[arg(id = "after", long = "in", value_name = "DURATION", value_parser = when::duration)]
    after: Option<Duration>,
    /// At once; also a job that waits for a retry. A paused one stays paused.
    #[arg(long)]
    now: bool,
    /// Attempts before it is given up.
    #[arg(long, value_name = "N")]
    max_attempts: Option<i64>,
    /// The queue to wait in from now on.
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
}

/// Does it.
///
/// # Errors
/// An id is unknown or a value cannot be (nothing was changed then), or the database cannot be written.
pub async fn run(context: &mut Context, arguments: EditArgs) -> Result {
    let now = context.clock.now();
    let edit = Edit {
        priority: arguments.priority,
        run_at: arguments
            .at
            .or_else(|| arguments.after.map(|after| now.plus(after)))
            .or_else(|| arguments.now.then_some(now)),
        max_attempts: arguments.max_attempts,
        queue: arguments.queue,
    };
    let wanted = Wanted {
        ids: arguments.ids,
        state: arguments.state,
        queue: arguments.in_queue,
        patterns: arguments.patterns,
        failed_class: None,
        batch: arguments.batch,
    };
    let store = context.store().await?;
    let selection = wanted.selection(&store).await?;
    let before = Before::look(&store, &selection).await?;
    let count = store.edit(&selection, &edit, &context.actor()).await?;
    let why_not = |why: &Why| not_waiting(why).or_else(|| edit.is_met_by(&why.job).then(|| "is so already".to_owned()));
    before.tell(context, count, "changed", why_not).await
}
