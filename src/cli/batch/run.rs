//! A batch is written down, and worked on here until it is finished.

use super::{find, show};
use crate::cli::bars::TICK;
use crate::cli::error::{Error, Result};
use crate::cli::progress::Display;
use crate::cli::{Context, when};
use crate::clock::UnixMillis;
use crate::daemon;
use crate::job::batch::{BatchId, BatchKind, NewBatch};
use crate::job::{DEFAULT_PRIORITY, DEFAULT_QUEUE, check_queue};
use crate::mirror::Rules;
use crate::store::Store;
use std::time::Duration;

/// Where and when the jobs of a batch wait.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct How {
    /// Say what would be done; change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Lower runs first [default: 100].
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub priority: Option<i64>,
    /// With --detach: not before this time, for example 2026-11-23T06:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = when::time, conflicts_with = "after")]
    pub at: Option<UnixMillis>,
    /// With --detach: not before this much time has passed, for example 30s, 5m, 2h or 1d.
    #[arg(id = "after", long = "in", value_name = "DURATION", value_parser = when::duration)]
    pub after: Option<Duration>,
    /// Attempts before a copy is given up [default: 8].
    #[arg(long, value_name = "N")]
    pub max_attempts: Option<i64>,
    /// The queue to wait in [default: default].
    #[arg(long, value_name = "QUEUE")]
    pub queue: Option<String>,
}

impl How {
    /// Priority and attempts.
    ///
    /// # Errors
    /// A number that cannot be.
    pub fn numbers(&self, context: &Context) -> Result<(i64, i64)> {
        let priority = self.priority.unwrap_or(DEFAULT_PRIORITY);
        if i32::try_from(priority).is_err() {
            return Err(Error::usage(format!("priority is {priority}: it must fit into 32 bits")));
        }
        let max_attempts = self.max_attempts.unwrap_or_else(|| context.config.max_attempts());
        if !(1..=1000).contains(&max_attempts) {
            return Err(Error::usage(format!("max attempts is {max_attempts}: use 1 to 1000")));
        }
        Ok((priority, max_attempts))
    }
}

/// A batch that was asked for by a command.
#[derive(Debug)]
pub struct Start<'a> {
    /// What was asked for.
    pub kind: BatchKind,
    /// Of the mirror, of the file.
    pub name: Option<String>,
    /// As it was typed.
    pub source: String,
    /// As it was typed.
    pub destination: String,
    /// What belongs to it.
    pub rules: Rules,
    /// Where and when its jobs wait.
    pub how: &'a How,
    /// Only write it down.
    pub detach: bool,
}

impl Start<'_> {
    /// Writes the batch down and, unless it is detached, works on it until it is finished.
    ///
    /// # Errors
    /// A rule is wrong (all that is wrong is told), the batch did not complete, or a signal ended the command.
    pub async fn run(self, context: &mut Context) -> Result {
        let problems: Vec<String> = self
            .rules
            .rules
            .iter()
            .flat_map(|rule| rule.problems().into_iter().map(move |problem| format!("{}: {problem}", rule.name)))
            .collect();
        if !problems.is_empty() {
            return Err(Error::usage(problems.join("; ")));
        }
        if self.how.dry_run {
            return super::preview(context, &self.rules).await;
        }
        if (self.how.at.is_some() || self.how.after.is_some()) && !self.detach {
            return Err(Error::usage("--at and --in are for jobs that wait in the queue, not for this command")
                .hint("add --detach"));
        }
        // Nothing is asked for that this command could not even begin.
        context.client()?;
        let detach = self.detach;
        let batch = self.batch(context)?;
        let id = batch.id;
        let store = context.store().await?;
        let job = store.batch_add(batch, &context.actor()).await?;
        if !detach {
            return work_on(context, id).await;
        }
        if context.format().is_json() {
            return context.output.compact(&serde_json::json!({"batch_id": id, "id": job, "created": true}));
        }
        context.output.line(&id.to_string())
    }

    fn batch(self, context: &Context) -> Result<NewBatch> {
        let now = context.clock.now();
        let queue = self.how.queue.clone().unwrap_or_else(|| DEFAULT_QUEUE.to_owned());
        check_queue(&queue)?;
        let (priority, max_attempts) = self.how.numbers(context)?;
        Ok(NewBatch {
            id: BatchId::now_v7(),
            kind: self.kind,
            name: self.name,
            source: self.source,
            destination: self.destination,
            rules: Some(self.rules.to_json()),
            queue,
            priority,
            max_attempts,
            run_at: self.how.at.or_else(|| self.how.after.map(|after| now.plus(after))),
        })
    }
}

/// Works on a batch here, beside whoever else does, until it is finished; prints what it came to.
///
/// # Errors
/// It did not complete, or a signal ended the command: it goes on with the next worker then.
pub async fn work_on(context: &mut Context, id: BatchId) -> Result {
    let store = context.store().await?;
    if !context.format().is_json() {
        context.notes.note(&format!("batch {id}"));
    }
    tell_paused(context, &store, id).await?;
    let mut parts = context.parts(store.clone(), None)?;
    parts.settings.batch = Some(id);
    let watch = parts.watch.clone();
    let mut display = Display::new(context.notes.mode(), context.notes.clone(), context.clock.clone(), watch);
    let mut ticker = tokio::time::interval(TICK);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut working = std::pin::pin!(daemon::work(parts, true));
    let ended = loop {
        // Cancel-safe: the work is pinned outside and goes on in the next round.
        tokio::select! {
            ended = &mut working => break ended,
            _ = ticker.tick(), if display.shows() => display.tick(),
        }
    };
    display.end();
    let ended = ended?;
    if let Some(signal) = ended.signal {
        let how = if ended.aborted { "stopped at once by a second signal" } else { "interrupted" };
        if ended.aborted {
            context.abandon();
        }
        return Err(Error::interrupted(
            signal,
            format!("{how}: batch {id} stays queued and goes on with the next worker"),
        )
        .hint(format!(
            "to go on here: freightliner batch resume {id}; to call it off: freightliner batch cancel {id}"
        )));
    }
    let batch = find(&store, id).await?;
    show::finished(context, &store, &batch).await
}

/// Says that the queue is held back: until it goes on, nothing happens.
async fn tell_paused(context: &Context, store: &Store, id: BatchId) -> Result {
    let Some(lister) = find(store, id).await?.expand_job else { return Ok(()) };
    let Some(job) = store.job(lister).await? else { return Ok(()) };
    if store.queue_paused(&job.queue).await? {
        let queue = &job.queue;
        context.notes.note(&format!("queue `{queue}` is paused: to let it go on, freightliner queue resume {queue}"));
    }
    Ok(())
}
