//! `jobs wait`: until all are finished, or the time is up.

use crate::cli::context::no_such_job;
use crate::cli::error::{Error, Result};
use crate::cli::output::Rows;
use crate::cli::report::reason;
use crate::cli::{Context, when};
use crate::clock::BootTime;
use crate::job::{Job, JobId, State};
use std::time::Duration;

/// Longest pause between two looks: what changed between a look and the wait for a change is found by the next look.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// Wait until jobs are finished.
#[derive(Debug, clap::Args)]
pub struct WaitArgs {
    /// The ids of the jobs.
    #[arg(required = true, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
    ids: Vec<JobId>,
    /// Give up waiting after this time, for example 5m [default: never].
    #[arg(long, value_name = "DURATION", value_parser = when::duration)]
    timeout: Option<Duration>,
}

/// Does it.
///
/// # Errors
/// A job failed or was cancelled, is not there, or is not finished in time.
pub async fn run(context: &mut Context, arguments: &WaitArgs) -> Result {
    let store = context.store().await?;
    let deadline = arguments.timeout.map(|timeout| BootTime(context.clock.boot().0.saturating_add(timeout)));
    let mut waiting = Vec::new();
    for id in &arguments.ids {
        if !waiting.contains(id) {
            waiting.push(*id);
        }
    }
    let mut rows = Rows::new(context.format());
    let mut bad = Vec::new();
    loop {
        let mut left = Vec::with_capacity(waiting.len());
        for id in waiting {
            let job = store.job(id).await?.ok_or_else(|| no_such_job(id))?;
            if !job.state.is_finished() {
                left.push(id);
                continue;
            }
            tell(context, &mut rows, &job)?;
            if job.state != State::Completed {
                bad.push(id);
            }
        }
        waiting = left;
        let pause = deadline.map_or(LOOK_PAUSE, |deadline| deadline.since(context.clock.boot()).min(LOOK_PAUSE));
        if waiting.is_empty() || pause.is_zero() {
            break;
        }
        context.output.flush()?;
        store.changed(pause).await?;
    }
    rows.end(&mut context.output)?;
    if !waiting.is_empty() {
        return Err(Error::failed("timeout", format!("not finished in time: {}", names(&waiting))));
    }
    match bad.as_slice() {
        [] => Ok(()),
        bad => Err(Error::failed("failed", format!("not completed: {}", names(bad)))),
    }
}

fn tell(context: &mut Context, rows: &mut Rows, job: &Job) -> Result {
    if context.format().is_json() {
        return rows.add(&mut context.output, job);
    }
    let why = match (job.state, &job.failure) {
        (State::Failed, Some(failure)) => format!(": {}", reason(failure)),
        _ => String::new(),
    };
    context.output.line(&format!("{} {}{why}", job.id, job.state))
}

fn names(ids: &[JobId]) -> String {
    let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
    format!("{} {}", if ids.len() == 1 { "job" } else { "jobs" }, ids.join(", "))
}
