//! `workers`: who works on the queue.

use super::Context;
use super::error::Result;
use super::report::count;
use super::when::spoken;
use crate::store::WorkerRow;
use serde::Serialize;
use std::collections::HashMap;
use std::time::Duration;

/// Look at who works.
#[derive(Debug, Clone, Copy, clap::Subcommand)]
pub enum WorkersCommand {
    /// List the worker processes, oldest first.
    List,
}

/// A worker as programs see it.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    worker: WorkerRow,
    running: u64,
}

/// Does it.
///
/// # Errors
/// The database cannot be read.
pub async fn run(context: &mut Context, command: WorkersCommand) -> Result {
    let WorkersCommand::List = command;
    let store = context.store().await?;
    let workers = store.workers().await?;
    let mut running: HashMap<String, u64> = HashMap::new();
    for lease in store.leases().await? {
        *running.entry(lease.worker).or_default() += 1;
    }
    let rows: Vec<Row> = workers
        .into_iter()
        .map(|worker| Row { running: running.remove(&worker.id).unwrap_or_default(), worker })
        .collect();
    if context.format().is_json() {
        return context.output.rows(&rows);
    }
    if rows.is_empty() {
        context.notes.note("no worker is known: start one with `freightliner work`");
    } else {
        let header = ["ID", "HOST", "PID", "VERSION", "QUEUE", "PLACES", "RUNNING", "STARTED", "SEEN", "LEASE"];
        let now = context.clock.now();
        context.output.table(
            &header,
            rows.iter().map(|Row { worker, running }| {
                vec![
                    worker.id.clone(),
                    worker.host.clone(),
                    worker.pid.to_string(),
                    worker.version.clone(),
                    worker.queue.clone().unwrap_or_else(|| "all".to_owned()),
                    places(worker),
                    running.to_string(),
                    worker.started_at.to_rfc3339(),
                    format!("{} ago", spoken(now.since(worker.seen_at))),
                    spoken(Duration::from_millis(u64::try_from(worker.lease_ttl_ms).unwrap_or_default())),
                ]
            }),
        )?;
    }
    // What is left belongs to workers whose rows are gone.
    let lost: u64 = running.values().sum();
    if lost > 0 {
        context.output.flush()?;
        let lost = count(usize::try_from(lost).unwrap_or(usize::MAX), "running job");
        context.notes.note(&format!("{lost} of workers that are not known any more: the next sweep takes them back"));
    }
    Ok(())
}

/// A process that works on one job of its own has no places for others.
fn places(worker: &WorkerRow) -> String {
    if worker.concurrency == 0 { "own job".to_owned() } else { worker.concurrency.to_string() }
}
