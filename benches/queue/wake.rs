//! How soon a job starts after somebody asked for it: in the same process, and from another one.
//!
//! One job at a time, to a worker's loop that waits. The time is from just before the call, or before the line that another
//! program's shell is given, until the job starts: it contains the commit of the insert and that of the claim.

use crate::database::Database;
use crate::rates::{EVENTS_OF_A_LIFE, expect, numbered};
use crate::report::{Figure, Target};
use crate::timing::{Samples, Timer};
use crate::worker::Workers;
use crate::{Bench, Measured};
use freightliner::store::Store;
use freightliner::worker::Settings;
use serde_json::json;
use std::io::Write as _;
use std::process::{Child, ChildStdin};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;

/// Samples of each.
const SAMPLES: usize = 1_000;
/// A job that has not started by then never will.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two samples the loop comes to rest; the pauses differ, so that they do not keep step with a poll.
const SHORTEST_PAUSE_MS: u64 = 8;
const PAUSES_MS: u64 = 31;
const PAUSE_STEP_MS: u64 = 7;

/// Both latencies.
///
/// # Errors
/// A job did not start or was not completed, or rows or events are missing.
pub async fn wake(bench: &mut Bench) -> Measured {
    for across in [false, true] {
        let database = bench.place.fresh()?;
        let store = database.open().await?;
        let samples = take(&database, &store, bench.scaled(SAMPLES), across).await?;
        let count = samples.count();
        expect(&store, "wake", count, count, EVENTS_OF_A_LIFE * u64::try_from(count)?).await?;
        store.close().await;
        let how = if across { "across processes" } else { "same process" };
        let limit = if across { 10.0 } else { 5.0 };
        for (rank, name) in [(50, "p50"), (99, "p99"), (100, "max")] {
            let with = json!({"samples": count, "inserted_by": if across { "plain SQL" } else { "enqueue" }});
            let name = format!("enqueue to start, {how}, {name}");
            let figure = Figure::new("wake", name, samples.percentile(rank), "ms", with);
            let figure = figure.against(1000.0 / bench.raw.commits(1), "raw commits");
            bench.report.add(figure.target((rank == 99).then_some(Target::AtMost(limit))))?;
        }
    }
    Ok(())
}

async fn take(database: &Database, store: &Store, count: usize, across: bool) -> Measured<Samples> {
    let (sender, mut started) = unbounded_channel();
    let mut worker = JoinSet::new();
    worker.spawn(Workers::new(store.clone(), Settings::default().concurrency).await?.one(Some(sender)).for_ever());
    let mut shell = if across { Some(Shell::open(database)?) } else { None };
    let mut samples = Samples::default();
    for number in 0..count {
        let pause = SHORTEST_PAUSE_MS + u64::try_from(number)? * PAUSE_STEP_MS % PAUSES_MS;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let asked = Timer::start();
        match &mut shell {
            Some(shell) => shell.insert(number)?,
            None => drop(store.enqueue(vec![numbered(number)?], "bench").await?),
        }
        samples.add(next(&mut started, &mut worker).await?.since(asked));
    }
    completed(store, count).await?;
    // The database is closed by who has it last.
    worker.shutdown().await;
    Ok(samples)
}

/// When the next job was claimed.
async fn next(started: &mut UnboundedReceiver<Timer>, worker: &mut JoinSet<Measured>) -> Measured<Timer> {
    let next = async {
        tokio::select! {
            Some(at) = started.recv() => Ok(at),
            Some(ended) = worker.join_next() => match ended? {
                Ok(()) => Err("the worker's loop ended".into()),
                Err(error) => Err(error),
            },
        }
    };
    tokio::time::timeout(PATIENCE, next).await.map_err(|_| format!("a job did not start within {PATIENCE:?}"))?
}

/// Waits until so many are completed: the last claim is settled after it was counted.
async fn completed(store: &Store, count: usize) -> Measured {
    let timer = Timer::start();
    while store.stats().await?.completed < u64::try_from(count)? {
        if timer.elapsed() > PATIENCE {
            return Err("not every job was completed".into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Another program with a connection of its own, that is ready to insert.
struct Shell {
    process: Child,
    input: ChildStdin,
}

impl Shell {
    fn open(database: &Database) -> Measured<Self> {
        let (process, input) = database.shell()?;
        Ok(Self { process, input })
    }

    fn insert(&mut self, number: usize) -> Measured {
        writeln!(
            self.input,
            "INSERT INTO jobs (source, destination) VALUES ('registry.example.com/a:{number}', 'mirror.example.com/a:{number}');"
        )?;
        Ok(self.input.flush()?)
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
