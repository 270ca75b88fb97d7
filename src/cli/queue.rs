//! `queue`: the named queues, their pauses and their limits.

use super::Context;
use super::error::Result;
use super::report::count;
use super::when::spoken;
use crate::store::{QueueChange, QueueRow};
use serde::Serialize;
use std::time::Duration;

/// Most running jobs that a queue may be limited to, as the database has it: more is no limit.
const LIMIT_MOST: u32 = 1_000_000;

/// Look at queues, pause and limit them.
#[derive(Debug, clap::Subcommand)]
pub enum QueueCommand {
    /// List queues and what waits and runs in them.
    List,
    /// Start nothing more from a queue; what runs goes on.
    Pause(QueueArgs),
    /// Start jobs of a paused queue again.
    Resume(QueueArgs),
    /// Limit how many jobs of a queue run at a time, on all workers together.
    Limit(LimitArgs),
}

/// One queue.
#[derive(Debug, clap::Args)]
pub struct QueueArgs {
    /// The name of the queue; it need not have jobs yet.
    #[arg(value_name = "QUEUE")]
    name: String,
}

/// One queue and its limit.
#[derive(Debug, clap::Args)]
pub struct LimitArgs {
    /// The name of the queue; it need not have jobs yet.
    #[arg(value_name = "QUEUE")]
    name: String,
    /// At most so many running jobs, or `none`.
    #[arg(value_name = "N", value_parser = limit)]
    limit: Limit,
}

/// A limit as it was typed. A type of its own: clap takes an `Option` for an argument that may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limit(Option<u32>);

fn limit(text: &str) -> std::result::Result<Limit, String> {
    if text == "none" {
        return Ok(Limit(None));
    }
    match text.parse() {
        Ok(0) => Err("`0` would stop the queue: use `freightliner queue pause` for that".to_owned()),
        Ok(limit) if limit <= LIMIT_MOST => Ok(Limit(Some(limit))),
        _ => Err(format!("`{text}` is no limit: use 1 to {LIMIT_MOST}, or none")),
    }
}

/// A queue as programs see it.
#[derive(Debug, Serialize)]
struct Row {
    paused: bool,
    #[serde(flatten)]
    queue: QueueRow,
}

/// Does it.
///
/// # Errors
/// The name or the limit cannot be, or the database cannot be used.
pub async fn run(context: &mut Context, command: QueueCommand) -> Result {
    match command {
        QueueCommand::List => list(context).await,
        QueueCommand::Pause(QueueArgs { name }) => change(context, &name, QueueChange::Pause).await,
        QueueCommand::Resume(QueueArgs { name }) => change(context, &name, QueueChange::Resume).await,
        QueueCommand::Limit(LimitArgs { name, limit }) => change(context, &name, QueueChange::Limit(limit.0)).await,
    }
}

async fn list(context: &mut Context) -> Result {
    let queues = context.store().await?.queues().await?;
    if context.format().is_json() {
        let rows = queues.into_iter().map(|queue| Row { paused: queue.paused_at.is_some(), queue });
        return context.output.rows(rows);
    }
    if queues.is_empty() {
        context.notes.note("no queue has a job, a limit or a pause");
        return Ok(());
    }
    let header = ["QUEUE", "PAUSED", "RUNNING", "LIMIT", "PENDING", "SCHEDULED", "OLDEST PENDING"];
    context.output.table(
        &header,
        queues.iter().map(|queue| {
            vec![
                queue.name.clone(),
                queue.paused_at.map_or_else(|| "no".to_owned(), |at| format!("since {}", at.to_rfc3339())),
                queue.running.to_string(),
                queue.max_running.map_or_else(|| "none".to_owned(), |limit| limit.to_string()),
                queue.pending.to_string(),
                queue.scheduled.to_string(),
                queue.oldest_pending_age_ms.map(|age| spoken(Duration::from_millis(age))).unwrap_or_default(),
            ]
        }),
    )
}

async fn change(context: &mut Context, name: &str, change: QueueChange) -> Result {
    let store = context.store().await?;
    let changed = store.queue_change(name, change, &context.actor()).await?;
    let queue = store.queues().await?.into_iter().find(|queue| queue.name == name);
    let count_of = |count: fn(&QueueRow) -> u64| queue.as_ref().map_or(0, count);
    let running = count_of(|queue| queue.running);
    if context.format().is_json() {
        let paused = queue.as_ref().is_some_and(|queue| queue.paused_at.is_some());
        let max_running = queue.as_ref().and_then(|queue| queue.max_running);
        return context.output.json(&serde_json::json!({
            "name": name, "changed": changed, "paused": paused, "max_running": max_running, "running": running,
        }));
    }
    context.output.line(&said(name, change, changed))?;
    context.output.flush()?;
    let holds = matches!(change, QueueChange::Pause | QueueChange::Limit(Some(_)));
    if changed && holds && count_of(|queue| queue.scheduled + queue.pending + queue.running) == 0 {
        context.notes.note(&format!("no job waits or runs in `{name}` so far: it holds for those that come"));
    } else if let (true, QueueChange::Pause, 1..) = (changed, change, running) {
        let running = usize::try_from(running).unwrap_or(usize::MAX);
        context.notes.note(&format!("running jobs go on: {}", count(running, "job")));
    }
    Ok(())
}

/// What has become of the queue, in words.
fn said(name: &str, change: QueueChange, changed: bool) -> String {
    let state = match change {
        QueueChange::Pause if changed => "is paused".to_owned(),
        QueueChange::Pause => "is paused already".to_owned(),
        QueueChange::Resume => "is not paused".to_owned(),
        QueueChange::Limit(None) => "has no limit".to_owned(),
        QueueChange::Limit(Some(limit)) => {
            format!("runs at most {} at a time", count(usize::try_from(limit).unwrap_or(usize::MAX), "job"))
        }
    };
    match (change, changed) {
        (QueueChange::Resume, true) => format!("queue {name} goes on"),
        (_, true) => format!("queue {name} {state}"),
        (_, false) => format!("nothing changed: queue {name} {state}"),
    }
}

/// A queue's name as a shell takes it.
#[must_use]
pub fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@+".contains(c);
    if !name.is_empty() && !name.starts_with('-') && name.chars().all(plain) {
        return name.to_owned();
    }
    format!("'{}'", name.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        assert_eq!(limit("none"), Ok(Limit(None)));
        assert_eq!(limit("4"), Ok(Limit(Some(4))));
        assert!(limit("0").unwrap_err().contains("queue pause"));
        for text in ["", "-1", "1.5", "1000001", "all"] {
            assert!(limit(text).unwrap_err().contains("is no limit"), "{text}");
        }
    }

    #[test]
    fn words() {
        assert_eq!(said("a", QueueChange::Pause, true), "queue a is paused");
        assert_eq!(said("a", QueueChange::Pause, false), "nothing changed: queue a is paused already");
        assert_eq!(said("a", QueueChange::Resume, true), "queue a goes on");
        assert_eq!(said("a", QueueChange::Resume, false), "nothing changed: queue a is not paused");
        assert_eq!(said("a", QueueChange::Limit(Some(1)), true), "queue a runs at most 1 job at a time");
        assert_eq!(said("a", QueueChange::Limit(None), false), "nothing changed: queue a has no limit");
    }

    #[test]
    fn names_for_a_shell() {
        assert_eq!(quoted("nightly-1"), "nightly-1");
        assert_eq!(quoted("it's here"), r"'it'\''s here'");
        assert_eq!(quoted("-x"), "'-x'");
        assert_eq!(quoted("$HOME"), "'$HOME'");
    }
}
