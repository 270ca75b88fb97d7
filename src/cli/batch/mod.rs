//! `batch`: look at many copies that were asked for as one, and steer them.

mod file;
mod found;
mod run;
mod show;

pub use found::{decided, preview};
pub use run::{How, Start, work_on};

use super::error::{Error, Result};
use super::{Context, when};
use crate::clock::BootTime;
use crate::job::State;
use crate::job::batch::{Batch, BatchId, BatchState};
use crate::store::{JobFilter, Selection, Store};
use std::time::Duration;

/// Longest pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// Most batches on one page.
const LIMIT_MOST: i64 = 1_000;

/// Look at batches and steer them.
#[derive(Debug, clap::Subcommand)]
pub enum BatchCommand {
    /// List batches, newest first.
    List(ListArgs),
    /// Show a batch: states, bytes, what failed and why.
    Show(BatchArgs),
    /// Wait until a batch is finished; exit 0 only when all of it completed.
    Wait(WaitArgs),
    /// Work on a batch here until it is finished; what failed is tried again.
    Resume(ResumeArgs),
    /// Call off what is not finished of a batch.
    Cancel(BatchArgs),
    /// Queue again what failed or was called off, and what could not be listed.
    Retry(BatchArgs),
    /// Take a finished batch out of the lists; its jobs stay.
    Delete(BatchArgs),
    /// Write a batch to a file, in the form of the older program's checkpoints.
    Export(file::ExportArgs),
    /// Make a batch of such a file, or of a checkpoint file of the older program; it waits until it is resumed.
    Import(file::ImportArgs),
}

/// Which ones.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Batches on a page.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=LIMIT_MOST))]
    limit: i64,
    /// Go on behind the batch with this id, the last one of the page before.
    #[arg(long, value_name = "ID")]
    after: Option<BatchId>,
}

/// One batch.
#[derive(Debug, clap::Args)]
pub struct BatchArgs {
    /// The id of the batch.
    #[arg(value_name = "ID", required_unless_present = "named")]
    id: Option<BatchId>,
    /// The older spelling.
    #[arg(long = "id", id = "named", hide = true, value_name = "ID", conflicts_with = "id")]
    named: Option<BatchId>,
}

impl BatchArgs {
    fn id(&self) -> BatchId {
        self.id.or(self.named).unwrap_or_default()
    }
}

/// Which one, and how long.
#[derive(Debug, clap::Args)]
pub struct WaitArgs {
    #[command(flatten)]
    batch: BatchArgs,
    /// Give up waiting after this time, for example 5m [default: never].
    #[arg(long, value_name = "DURATION", value_parser = when::duration)]
    timeout: Option<Duration>,
}

/// Which one, and how.
#[derive(Debug, clap::Args)]
pub struct ResumeArgs {
    #[command(flatten)]
    batch: BatchArgs,
    /// Copies at a time [default: 16].
    #[arg(long, value_name = "N")]
    pub concurrency: Option<u64>,
}

/// Does it.
///
/// # Errors
/// There is no such batch, it is not completed, or the database cannot be used.
pub async fn run(context: &mut Context, command: BatchCommand) -> Result {
    match command {
        BatchCommand::List(arguments) => list(context, &arguments).await,
        BatchCommand::Show(arguments) => show::run(context, arguments.id()).await,
        BatchCommand::Wait(arguments) => wait(context, &arguments).await,
        BatchCommand::Resume(arguments) => resume(context, arguments.batch.id()).await,
        BatchCommand::Cancel(arguments) => cancel(context, arguments.id()).await,
        BatchCommand::Retry(arguments) => {
            let count = again(context, arguments.id()).await?;
            tell(context, count, "queued again")
        }
        BatchCommand::Delete(arguments) => file::delete(context, arguments.id()).await,
        BatchCommand::Export(arguments) => file::export(context, &arguments).await,
        BatchCommand::Import(arguments) => file::import(context, &arguments).await,
    }
}

/// The batch.
///
/// # Errors
/// It is not there, or the database cannot be read.
pub async fn find(store: &Store, id: BatchId) -> Result<Batch> {
    let found = store.batches(Some(id), None, 1).await?.into_iter().next();
    found.ok_or_else(|| Error::failed("not_found", format!("batch {id} not found")).hint("freightliner batch list"))
}

async fn list(context: &mut Context, arguments: &ListArgs) -> Result {
    let limit = u32::try_from(arguments.limit).unwrap_or(u32::MAX);
    let mut batches = context.store().await?.batches(None, arguments.after, limit.saturating_add(1)).await?;
    let more = batches.len() > usize::try_from(limit).unwrap_or(usize::MAX);
    batches.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    if context.format().is_json() {
        return context.output.rows(&batches);
    }
    let header = ["ID", "STATE", "KIND", "SOURCE", "DESTINATION", "COPIES", "DONE", "FAILED", "CREATED"];
    context.output.table(&header, batches.iter().map(row))?;
    if let (true, Some(last)) = (more, batches.last()) {
        context.output.flush()?;
        context.notes.note(&format!("there are more: add --after {}", last.id));
    }
    Ok(())
}

fn row(batch: &Batch) -> Vec<String> {
    let listing = if batch.listing.is_some_and(|state| !state.is_finished()) { "+" } else { "" };
    vec![
        batch.id.to_string(),
        batch.state.to_string(),
        batch
            .name
            .clone()
            .map_or_else(|| batch.kind.as_str().to_owned(), |name| format!("{} {name}", batch.kind.as_str())),
        batch.source.clone(),
        batch.destination.clone(),
        format!("{}{listing}", batch.jobs.total),
        batch.jobs.completed.to_string(),
        (batch.jobs.failed + batch.repositories_failed).to_string(),
        batch.created_at.to_rfc3339(),
    ]
}

async fn wait(context: &mut Context, arguments: &WaitArgs) -> Result {
    let (store, id) = (context.store().await?, arguments.batch.id());
    let deadline = arguments.timeout.map(|timeout| BootTime(context.clock.boot().0.saturating_add(timeout)));
    loop {
        let batch = find(&store, id).await?;
        if batch.state.is_finished() {
            return show::finished(context, &store, &batch).await;
        }
        let pause = deadline.map_or(LOOK_PAUSE, |deadline| deadline.since(context.clock.boot()).min(LOOK_PAUSE));
        if pause.is_zero() {
            return Err(Error::failed("timeout", format!("not finished in time: batch {id} is {}", batch.state)));
        }
        store.changed(pause).await?;
    }
}

async fn resume(context: &mut Context, id: BatchId) -> Result {
    again(context, id).await?;
    work_on(context, id).await
}

/// Everything that failed or was called off waits again. Returns how many jobs.
///
/// # Errors
/// There is no such batch, or the database cannot be written.
pub async fn again(context: &mut Context, id: BatchId) -> Result<u64> {
    let store = context.store().await?;
    let batch = find(&store, id).await?;
    store.batch_stop(id, false).await?;
    let mut count = 0;
    for state in [State::Failed, State::Cancelled] {
        count += store.retry(&Selection::Filter(of(batch.id, state)), &context.actor()).await?;
    }
    Ok(count)
}

async fn cancel(context: &mut Context, id: BatchId) -> Result {
    let store = context.store().await?;
    let batch = find(&store, id).await?;
    // First nothing more comes, then what is there is called off.
    if !matches!(batch.state, BatchState::Completed | BatchState::Failed) {
        store.batch_stop(id, true).await?;
    }
    let mut count = 0;
    for state in [State::Scheduled, State::Pending, State::Running] {
        count += store.cancel(&Selection::Filter(of(id, state)), &context.actor()).await?;
    }
    tell(context, count, "cancelled or asked to stop")
}

fn of(batch: BatchId, state: State) -> JobFilter {
    JobFilter { state: Some(state), batch: Some(batch.to_string()), ..JobFilter::default() }
}

fn tell(context: &mut Context, count: u64, what: &str) -> Result {
    if context.format().is_json() {
        return context.output.json(&serde_json::json!({"count": count}));
    }
    context
        .output
        .line(&format!("{} {what}", super::report::count(usize::try_from(count).unwrap_or(usize::MAX), "job")))
}
