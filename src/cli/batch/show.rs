//! What a batch came to, for people and for programs.

use super::find;
use crate::cli::Context;
use crate::cli::error::{Error, Result};
use crate::cli::output::bytes;
use crate::cli::report::{count, reason};
use crate::cli::when::spoken;
use crate::job::batch::{Batch, BatchId, BatchState, Listed};
use crate::job::{Job, Kind, State};
use crate::store::{JobFilter, Store};
use serde::Serialize;

/// Jobs read in one step.
const PAGE: u32 = 1000;
/// Failures that are told one by one to people; programs get all.
const SHOWN: usize = 20;

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    batch: &'a Batch,
    /// Bytes a second so far, while something moves.
    bytes_per_sec: Option<u64>,
    /// Seconds that the rest will take at this speed, as far as it is listed.
    time_left_secs: Option<u64>,
    failures: Vec<Failed>,
    failed_repositories: Vec<Unlisted>,
    /// Why it could not be listed to its end.
    listing_failure: Option<Failed>,
}

#[derive(Serialize)]
struct Failed {
    job: i64,
    source: String,
    destination: String,
    stage: String,
    class: String,
    message: String,
}

#[derive(Serialize)]
struct Unlisted {
    repository: String,
    class: String,
    message: String,
}

/// Shows a batch.
///
/// # Errors
/// It is not there, or the database cannot be read.
pub async fn run(context: &mut Context, id: BatchId) -> Result {
    let store = context.store().await?;
    let batch = find(&store, id).await?;
    print(context, &store, &batch).await
}

/// Shows a finished batch; an error when it did not complete.
///
/// # Errors
/// It failed or was cancelled, at least partly.
pub async fn finished(context: &mut Context, store: &Store, batch: &Batch) -> Result {
    print(context, store, batch).await?;
    let id = batch.id;
    let jobs = &batch.jobs;
    match batch.state {
        BatchState::Completed => Ok(()),
        BatchState::Cancelled => Err(Error::failed("cancelled", format!("batch {id} was cancelled"))),
        _ => {
            let mut parts = Vec::new();
            if jobs.failed > 0 {
                parts.push(format!("{} of {} failed", jobs.failed, number(jobs.total, "copy")));
            }
            if batch.repositories_failed > 0 {
                parts.push(format!("{} could not be listed", number(batch.repositories_failed, "repository")));
            } else if batch.listing == Some(State::Failed) {
                parts.push("it could not be listed".to_owned());
            }
            Err(Error::failed("failed", format!("batch {id} failed: {}", parts.join(", ")))
                .hint(format!("when the cause is gone: freightliner batch retry {id}")))
        }
    }
}

fn number(number: u64, noun: &str) -> String {
    let plural = match noun {
        "copy" => "copies",
        "repository" => "repositories",
        other => return count(usize::try_from(number).unwrap_or(usize::MAX), other),
    };
    if number == 1 { format!("1 {noun}") } else { format!("{number} {plural}") }
}

/// The copies that failed, and the listing if that did.
async fn failures(store: &Store, batch: &Batch) -> Result<(Vec<Failed>, Option<Failed>)> {
    let filter = JobFilter { state: Some(State::Failed), batch: Some(batch.id.to_string()), ..JobFilter::default() };
    let (mut failures, mut listing) = (Vec::new(), None);
    let mut after = None;
    loop {
        let page = store.jobs(&filter, after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        for job in page {
            match job.kind {
                Kind::Copy => failures.extend(failed(job)),
                Kind::Expand => listing = failed(job),
            }
        }
    }
    failures.reverse();
    Ok((failures, listing))
}

fn failed(job: Job) -> Option<Failed> {
    let failure = job.failure?;
    Some(Failed {
        job: job.id,
        source: job.source,
        destination: job.destination,
        stage: failure.stage,
        class: failure.class,
        message: failure.message,
    })
}

async fn print(context: &mut Context, store: &Store, batch: &Batch) -> Result {
    let (failures, listing_failure) = failures(store, batch).await?;
    let unlisted = store.batch_repositories(batch.id).await?.into_iter().filter_map(|listed| {
        let Listed { repository, failure, .. } = listed;
        failure.map(|(class, message)| Unlisted { repository, class, message })
    });
    let failed_repositories: Vec<Unlisted> = unlisted.collect();
    let outlook = batch.outlook(context.clock.now());
    let (bytes_per_sec, time_left_secs) = outlook.unzip();
    if context.format().is_json() {
        let shown = Shown { batch, bytes_per_sec, time_left_secs, failures, failed_repositories, listing_failure };
        return context.output.json(&shown);
    }
    let output = &mut context.output;
    output.line(&format!("batch {}: {}", batch.id, batch.state))?;
    output.pairs(&pairs(batch, outlook))?;
    let unlisted = failed_repositories.iter().map(|one| format!("{} ({}): {}", one.repository, one.class, one.message));
    let mut unlisted: Vec<String> = unlisted.collect();
    if let (true, Some(failed)) = (unlisted.is_empty(), listing_failure) {
        unlisted.push(format!("job {}: {}", failed.job, failed.message));
    }
    told(output, "could not be listed:", unlisted)?;
    let failures = failures.into_iter().map(|failed| {
        let why = crate::job::Failure {
            stage: failed.stage,
            class: failed.class,
            message: failed.message,
            at: crate::clock::UnixMillis(0),
        };
        format!("job {}: {} -> {}: {}", failed.job, failed.source, failed.destination, reason(&why))
    });
    told(output, "failed:", failures.collect())
}

fn told(output: &mut crate::cli::Output, title: &str, lines: Vec<String>) -> Result {
    if lines.is_empty() {
        return Ok(());
    }
    output.line(title)?;
    let more = lines.len().saturating_sub(SHOWN);
    for line in lines.into_iter().take(SHOWN) {
        output.line(&format!("  {line}"))?;
    }
    if more > 0 {
        output.line(&format!("  and {more} more"))?;
    }
    Ok(())
}

fn pairs(batch: &Batch, outlook: Option<(u64, u64)>) -> Vec<(&'static str, String)> {
    let jobs = &batch.jobs;
    let what = batch.name.as_ref().map_or_else(String::new, |name| format!(" {name}"));
    let mut pairs = vec![
        ("kind", format!("{}{what}", batch.kind.as_str())),
        ("source", batch.source.clone()),
        ("destination", batch.destination.clone()),
    ];
    let listing = match batch.listing {
        Some(State::Completed) | None => String::new(),
        Some(state) => format!(", the listing is {state}"),
    };
    let listed = number(batch.repositories - batch.repositories_failed.min(batch.repositories), "repository");
    let unlisted = match batch.repositories_failed {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    pairs.push(("listed", format!("{listed}{unlisted}{listing}")));
    let mut states = Vec::new();
    for (name, jobs) in [
        ("completed", jobs.completed),
        ("failed", jobs.failed),
        ("cancelled", jobs.cancelled),
        ("running", jobs.running),
        ("pending", jobs.pending),
        ("scheduled", jobs.scheduled),
    ] {
        if jobs > 0 {
            states.push(format!("{jobs} {name}"));
        }
    }
    let already =
        if jobs.already_present > 0 { format!(" ({} already there)", jobs.already_present) } else { String::new() };
    let states = if states.is_empty() { String::new() } else { format!(": {}", states.join(", ")) };
    pairs.push(("copies", format!("{}{states}{already}", number(jobs.total, "copy"))));
    pairs.push(("bytes", format!("{} moved", bytes(batch.bytes_moved))));
    if let (Some(started), Some(finished)) = (batch.started_at, batch.finished_at) {
        pairs.push(("time", spoken(finished.since(started))));
    }
    if let Some((speed, left)) = outlook {
        pairs.push(("speed", format!("{}/s", bytes(speed))));
        pairs.push(("left", spoken(std::time::Duration::from_secs(left))));
    }
    pairs.push(("asked for", format!("{} by {}", batch.created_at.to_rfc3339(), batch.created_by)));
    pairs
}
