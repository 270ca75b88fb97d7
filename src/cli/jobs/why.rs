//! `jobs why`: what holds a job back, and what to do about it.

use super::JobArgs;
use super::reasons::{Facts, Reason, reasons};
use crate::cli::Context;
use crate::cli::context::no_such_job;
use crate::cli::error::Result;
use crate::job::{JobId, State};
use serde::Serialize;

/// The answer as programs see it: the reasons, and the facts behind them.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    id: JobId,
    state: State,
    reasons: Vec<Reason>,
    #[serde(flatten)]
    facts: &'a Facts,
}

/// Does it.
///
/// # Errors
/// There is no such job, or the database cannot be read.
pub async fn run(context: &mut Context, arguments: &JobArgs) -> Result {
    let id = arguments.id;
    let store = context.store().await?;
    let why = store.why(id).await?.ok_or_else(|| no_such_job(id))?;
    let workers = store.workers().await?;
    let leases = store.leases().await?;
    let serves = |worker: &str| {
        workers.iter().any(|row| row.id == worker && row.queue.as_ref().is_none_or(|queue| *queue == why.job.queue))
    };
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let facts = Facts {
        registry_max_running: why
            .registry
            .as_ref()
            .and_then(|registry| context.config.registry_limits.get(registry))
            .copied(),
        places_taken: count(leases.iter().filter(|lease| serves(&lease.worker)).count()),
        workers_of_other_queues: count(
            workers
                .iter()
                .filter(|row| row.concurrency > 0 && row.queue.as_ref().is_some_and(|queue| *queue != why.job.queue))
                .count(),
        ),
        why,
    };
    let reasons = reasons(&facts);
    if context.format().is_json() {
        let state = facts.why.job.state;
        return context.output.json(&Answer { id, state, reasons, facts: &facts });
    }
    let job = &facts.why.job;
    context.output.line(&format!("job {id} is {}: {} -> {}", job.state, job.source, job.destination))?;
    for reason in reasons {
        context.output.line(&format!("- {}", reason.message))?;
        if let Some(hint) = reason.hint {
            context.output.line(&format!("  {hint}"))?;
        }
    }
    Ok(())
}
