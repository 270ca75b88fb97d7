//! `jobs show`, `jobs events`, `jobs stats`: what is known.

use crate::cli::Context;
use crate::cli::context::no_such_job;
use crate::cli::error::Result;
use crate::cli::output::bytes;
use crate::cli::report::{blobs, reason};
use crate::cli::when::spoken;
use crate::clock::UnixMillis;
use crate::job::{Job, JobId};
use std::time::Duration;

/// `jobs show ID`.
///
/// # Errors
/// There is no such job, or the database cannot be read.
pub async fn job(context: &mut Context, id: JobId) -> Result {
    let job = context.store().await?.job(id).await?.ok_or_else(|| no_such_job(id))?;
    if context.format().is_json() { context.output.json(&job) } else { context.output.pairs(&pairs(&job)) }
}

fn pairs(job: &Job) -> Vec<(&'static str, String)> {
    let time = |time: Option<UnixMillis>| time.map(UnixMillis::to_rfc3339);
    let took = job.started_at.zip(job.finished_at).map(|(start, end)| spoken(end.since(start)));
    let options = job.options.as_object().is_some_and(|options| !options.is_empty()).then(|| job.options.to_string());
    let progress = job.progress.map(|progress| {
        let (done, total) = (bytes(progress.bytes_done), bytes(progress.bytes_total));
        format!("{done} of {total}, {} of {} blobs", progress.blobs_done, progress.blobs_total)
    });
    let mut pairs = vec![
        ("id", Some(job.id.to_string())),
        ("state", Some(job.state.to_string())),
        ("source", Some(job.source.clone())),
        ("destination", Some(job.destination.clone())),
        ("options", options),
        ("queue", Some(job.queue.clone())),
        ("priority", Some(job.priority.to_string())),
        ("generation", Some(job.generation.to_string())),
        ("attempt", Some(format!("{} of {}", job.attempt, job.max_attempts))),
        ("crashes", (job.crash_count > 0).then(|| job.crash_count.to_string())),
        ("lease epoch", Some(job.lease_epoch.to_string())),
        ("created", Some(job.created_at.to_rfc3339())),
        ("not before", Some(job.run_at.to_rfc3339())),
        ("paused", time(job.paused_at)),
        ("started", time(job.started_at)),
        ("finished", time(job.finished_at)),
        ("took", took),
        ("worker", job.worker.clone()),
        ("lease until", time(job.lease_until)),
        ("cancel asked", time(job.cancel_requested_at)),
        ("batch", job.batch_id.clone()),
        ("schedule", job.schedule_id.map(|id| id.to_string())),
        ("idempotency key", job.idempotency_key.clone()),
        ("progress", progress),
        (
            "last failure",
            job.failure.as_ref().map(|failure| format!("{} at {}", reason(failure), failure.at.to_rfc3339())),
        ),
    ];
    if let Some(report) = &job.report {
        pairs.extend([
            ("digest", Some(report.digest.clone())),
            ("made from", report.rewritten_from.clone()),
            ("already there", report.already_present.then(|| "yes".to_owned())),
            ("healed", report.verified.then(|| report.healed.to_string())),
            ("referrers pushed", (report.referrers_pushed > 0).then(|| report.referrers_pushed.to_string())),
            ("manifests pushed", Some(report.manifests_pushed.to_string())),
            ("blobs", Some(blobs(report))),
            ("bytes copied", Some(bytes(report.bytes_copied))),
            ("requests", Some(report.requests.to_string())),
        ]);
    }
    pairs.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// `jobs events ID`.
///
/// # Errors
/// There is no such job, or the database cannot be read.
pub async fn events(context: &mut Context, id: JobId) -> Result {
    let store = context.store().await?;
    let events = store.events(id).await?;
    if events.is_empty() && store.job(id).await?.is_none() {
        return Err(no_such_job(id));
    }
    if context.format().is_json() {
        return context.output.rows(&events);
    }
    let rows = events.iter().map(|event| {
        vec![
            event.seq.to_string(),
            event.at.to_rfc3339(),
            event.from_state.clone().unwrap_or_default(),
            event.to_state.clone(),
            event.attempt.to_string(),
            event.lease_epoch.to_string(),
            event.actor.clone(),
            event.worker.clone().unwrap_or_default(),
            event.reason.clone().unwrap_or_default(),
        ]
    });
    context.output.table(&["SEQ", "AT", "FROM", "TO", "ATTEMPT", "EPOCH", "ACTOR", "WORKER", "REASON"], rows)
}

/// `jobs stats`.
///
/// # Errors
/// The database cannot be read.
pub async fn stats(context: &mut Context) -> Result {
    let stats = context.store().await?.stats().await?;
    if context.format().is_json() {
        return context.output.json(&stats);
    }
    let age = stats.oldest_pending_age_ms.map_or_else(|| "none".to_owned(), |age| spoken(Duration::from_millis(age)));
    context.output.pairs(&[
        ("scheduled", stats.scheduled.to_string()),
        ("pending", stats.pending.to_string()),
        ("running", stats.running.to_string()),
        ("completed", stats.completed.to_string()),
        ("failed", stats.failed.to_string()),
        ("cancelled", stats.cancelled.to_string()),
        ("oldest pending", age),
        ("completed in the last hour", stats.completed_last_hour.to_string()),
        ("failed in the last hour", stats.failed_last_hour.to_string()),
        ("copied in the last hour", bytes(stats.bytes_last_hour)),
    ])
}
