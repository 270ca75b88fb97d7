//! `work`: run workers and sweeper until a signal, or with `--drain` until nothing is left to do.

use super::bars::TICK;
use super::error::{Error, Result};
use super::progress::Display;
use super::{Context, report, when};
use crate::config::rate;
use crate::daemon;
use std::time::Duration;

/// Run workers until a signal.
#[derive(Debug, clap::Args)]
pub struct WorkArgs {
    /// Jobs at a time [default: 16].
    #[arg(long, value_name = "N")]
    concurrency: Option<u64>,
    /// Bytes a second at most, all copies together, such as 50MiB/s; 0 is no limit [default: 0].
    #[arg(long, value_name = "RATE", value_parser = rate)]
    bandwidth: Option<u64>,
    /// End when nothing is pending, running or waiting for a retry; exit 1 when a job failed meanwhile.
    #[arg(long)]
    drain: bool,
    /// Only this queue.
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// How long running copies may go on after the first signal [default: 25s].
    #[arg(long, value_name = "DURATION", value_parser = when::duration)]
    shutdown_grace: Option<Duration>,
}

impl WorkArgs {
    /// Numbers of the configuration that these flags set.
    #[must_use]
    pub fn numbers(&self) -> Vec<(&'static str, &'static str, u64)> {
        // Parts of a second are rounded up: a grace of 500ms is not none.
        let secs = |grace: Duration| grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let concurrency = self.concurrency.map(|number| ("worker", "concurrency", number));
        let grace = self.shutdown_grace.map(|grace| ("worker", "shutdown_grace_secs", secs(grace)));
        let bandwidth = self.bandwidth.map(|bytes| ("copy", "bandwidth_bytes_per_sec", bytes));
        concurrency.into_iter().chain(bandwidth).chain(grace).collect()
    }
}

/// Does it.
///
/// # Errors
/// The database or the state folder cannot be used; with `--drain` a job failed; a second signal cut it short.
pub async fn run(context: &mut Context, arguments: WorkArgs) -> Result {
    let store = context.store().await?;
    let parts = context.parts(store, arguments.queue)?;
    let watch = parts.watch.clone();
    let started = context.clock.boot();
    let mut display = Display::new(context.notes.mode(), context.notes.clone(), context.clock.clone(), watch.clone());
    let mut ticker = tokio::time::interval(TICK);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut working = std::pin::pin!(daemon::work(parts, arguments.drain));
    let ended = loop {
        // Cancel-safe: the work is pinned outside and goes on in the next round.
        tokio::select! {
            ended = &mut working => break ended,
            _ = ticker.tick(), if display.shows() => display.tick(),
        }
    };
    display.end();
    let daemon::Ended { worked, signal, aborted } = ended?;
    let took = context.clock.boot().since(started);
    report::run(&mut context.output, &worked, &watch.totals(), took)?;
    match signal {
        Some(signal) if aborted => {
            context.abandon();
            Err(Error::interrupted(signal, "stopped at once by a second signal; its jobs go on with the next worker"))
        }
        Some(_) => Ok(()),
        None if worked.failed > 0 => Err(Error::failed("failed", format!("{} jobs failed", worked.failed))
            .hint("freightliner jobs list --state failed")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_settings() {
        let arguments = WorkArgs {
            concurrency: Some(3),
            bandwidth: Some(9),
            drain: false,
            queue: None,
            shutdown_grace: Some(Duration::from_millis(1500)),
        };
        let bandwidth = ("copy", "bandwidth_bytes_per_sec", 9);
        assert_eq!(
            arguments.numbers(),
            [("worker", "concurrency", 3), bandwidth, ("worker", "shutdown_grace_secs", 2)]
        );
    }
}
