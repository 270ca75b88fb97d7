//! `jobs list`: newest first, a page at a time.

use crate::cli::Context;
use crate::cli::error::Result;
use crate::cli::report::reason;
use crate::cli::when::Since;
use crate::job::batch::BatchId;
use crate::job::{Job, JobId, State};
use crate::store::JobFilter;

/// Most jobs on one page: what a terminal or a script takes at a time; more by `--after`.
const LIMIT_MOST: i64 = 10_000;

/// List jobs, newest first.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// scheduled, pending, running, completed, failed or cancelled.
    #[arg(long, value_name = "STATE", value_parser = str::parse::<State>)]
    state: Option<State>,
    /// Jobs whose source matches; `*` and `?` match anything, other text is looked for anywhere.
    #[arg(long, value_name = "PATTERN")]
    source: Option<String>,
    /// Jobs whose destination matches.
    #[arg(long, value_name = "PATTERN")]
    destination: Option<String>,
    /// Jobs made since this time (2026-11-23T06:00:00Z), or since this long ago (2h).
    #[arg(long, value_name = "TIME", value_parser = Since::parse)]
    since: Option<Since>,
    /// Only this queue.
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// Only this batch.
    #[arg(long, value_name = "BATCH")]
    batch: Option<BatchId>,
    /// Jobs on a page.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=LIMIT_MOST))]
    limit: i64,
    /// Go on behind the job with this id, the last one of the page before.
    #[arg(long, value_name = "CURSOR", value_parser = clap::value_parser!(i64).range(1..))]
    after: Option<JobId>,
}

/// Does it.
///
/// # Errors
/// The database cannot be read.
pub async fn run(context: &mut Context, arguments: ListArgs) -> Result {
    let filter = JobFilter {
        state: arguments.state,
        source: arguments.source,
        destination: arguments.destination,
        queue: arguments.queue,
        batch: arguments.batch.map(|batch| batch.to_string()),
        since: arguments.since.map(|since| since.at(context.clock.now())),
    };
    let limit = u32::try_from(arguments.limit).unwrap_or(u32::MAX);
    let store = context.store().await?;
    // One more than a page tells whether there is another page.
    let mut jobs = store.jobs(&filter, arguments.after, limit.saturating_add(1)).await?;
    let more = jobs.len() > usize::try_from(limit).unwrap_or(usize::MAX);
    jobs.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    if context.format().is_json() {
        return context.output.rows(&jobs);
    }
    context
        .output
        .table(&["ID", "STATE", "SOURCE", "DESTINATION", "ATTEMPT", "CREATED", "NOTE"], jobs.iter().map(row))?;
    if let (true, Some(last)) = (more, jobs.last()) {
        context.output.flush()?;
        context.notes.note(&format!("there are more: add --after {}", last.id));
    }
    Ok(())
}

fn row(job: &Job) -> Vec<String> {
    vec![
        job.id.to_string(),
        job.state.to_string(),
        job.source.clone(),
        job.destination.clone(),
        format!("{}/{}", job.attempt, job.max_attempts),
        job.created_at.to_rfc3339(),
        note(job),
    ]
}

/// What is worth a word: how far a running job is, why another one is not completed.
fn note(job: &Job) -> String {
    if let Some(at) = job.paused_at {
        return format!("paused since {}", at.to_rfc3339());
    }
    match (job.state, &job.progress, &job.failure) {
        (State::Running, Some(progress), _) if progress.bytes_total > 0 => {
            let percent = u128::from(progress.bytes_done) * 100 / u128::from(progress.bytes_total);
            format!("{percent} %")
        }
        (State::Failed | State::Scheduled, _, Some(failure)) => reason(failure),
        (State::Scheduled, _, None) => format!("at {}", job.run_at.to_rfc3339()),
        _ => String::new(),
    }
}
