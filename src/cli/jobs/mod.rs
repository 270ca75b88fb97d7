//! `jobs`: look at jobs and steer them.

mod edit;
mod list;
mod prune;
mod reasons;
mod selection;
mod show;
mod steer;
mod wait;
mod why;

use super::Context;
use super::error::Result;
use crate::job::JobId;

/// Look at jobs and steer them.
#[derive(Debug, clap::Subcommand)]
pub enum JobsCommand {
    /// List jobs, newest first.
    List(list::ListArgs),
    /// Show everything about one job.
    Show(JobArgs),
    /// Tell why a job does not run, and what to do about it.
    Why(JobArgs),
    /// Wait until jobs are finished; exit 0 only when all completed.
    Wait(wait::WaitArgs),
    /// Call jobs off: waiting ones at once, running ones as soon as their worker notices.
    Cancel(selection::AnyArgs),
    /// Queue finished jobs again, with new attempts.
    Retry(selection::RetryArgs),
    /// Change the priority, time, attempts or queue of waiting jobs.
    Edit(edit::EditArgs),
    /// Hold waiting jobs back until they are resumed.
    Pause(selection::WaitingArgs),
    /// Let paused jobs go on.
    Resume(selection::WaitingArgs),
    /// Remove finished jobs that need not be kept, with their history.
    Prune(prune::PruneArgs),
    /// Show what happened to one job, transition by transition.
    Events(JobArgs),
    /// Count jobs by state, and what the last hour brought.
    Stats,
}

/// One job.
#[derive(Debug, clap::Args)]
pub struct JobArgs {
    /// The job's id.
    #[arg(value_parser = clap::value_parser!(i64).range(1..))]
    id: JobId,
}

/// Does it.
///
/// # Errors
/// See the commands.
pub async fn run(context: &mut Context, command: JobsCommand) -> Result {
    match command {
        JobsCommand::List(arguments) => list::run(context, arguments).await,
        JobsCommand::Show(arguments) => show::job(context, arguments.id).await,
        JobsCommand::Why(arguments) => why::run(context, &arguments).await,
        JobsCommand::Wait(arguments) => wait::run(context, &arguments).await,
        JobsCommand::Cancel(arguments) => steer::cancel(context, arguments).await,
        JobsCommand::Retry(arguments) => steer::retry(context, arguments).await,
        JobsCommand::Edit(arguments) => edit::run(context, arguments).await,
        JobsCommand::Pause(arguments) => steer::pause(context, arguments).await,
        JobsCommand::Resume(arguments) => steer::resume(context, arguments).await,
        JobsCommand::Prune(arguments) => prune::run(context, &arguments).await,
        JobsCommand::Events(arguments) => show::events(context, arguments.id).await,
        JobsCommand::Stats => show::stats(context).await,
    }
}
