//! What the queue costs while nothing new happens: heartbeats, an idle worker, bytes on the disk.

use crate::database::{Database, sqlite3};
use crate::rates::{BULK, EVENTS_OF_A_LIFE, TTL, claim_some, complete, expect, fill, numbered};
use crate::report::{Figure, Target};
use crate::timing::{Samples, Timer};
use crate::{Bench, Measured, program};
use freightliner::store::{Held, Work};
use futures_util::future::{join_all, try_join_all};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

/// Jobs that run at once.
const RUNNING: usize = 1_000;
/// Heartbeats of all of them.
const BEATS: usize = 20;
/// Jobs whose bytes are counted.
const LIVES: usize = 100_000;
/// How long an idle worker is watched.
const IDLE: Duration = Duration::from_secs(10);
/// Time for a worker to come to rest after its start.
const SETTLE_IN: Duration = Duration::from_secs(2);

/// All of 1,000 running jobs renew their leases at the same moment.
///
/// # Errors
/// A lease was lost.
pub async fn heartbeat(bench: &mut Bench) -> Measured {
    let running = bench.scaled(RUNNING);
    let database = bench.place.fresh()?;
    let store = database.open().await?;
    fill(&store, running, numbered).await?;
    let claims = claim_some(&store, Uuid::now_v7(), running).await?;
    if claims.len() != running {
        return Err(format!("heartbeat: {} jobs run instead of {running}", claims.len()).into());
    }
    let beat = async || {
        let renewals = claims.iter().map(|claim| store.renew(claim.fence(), TTL, Work::default()));
        let held = try_join_all(renewals).await?;
        if held.iter().any(|held| *held != Held::Yes) {
            return Err("heartbeat: a lease was lost".into());
        }
        Measured::Ok(())
    };
    beat().await?;
    let commits = database.commits_of(&beat).await?;
    let mut samples = Samples::default();
    for _ in 0..BEATS {
        let timer = Timer::start();
        beat().await?;
        samples.add(timer.elapsed());
    }
    store.close().await;
    let with = json!({"running": running, "beats": BEATS, "max_ms": samples.percentile(100)});
    let name = format!("heartbeat of {running} running jobs");
    let figure = Figure::new("heartbeat", format!("{name}, p50"), samples.percentile(50), "ms", with.clone());
    bench.report.add(figure.against(1000.0 / bench.raw.commits(1), "raw commits"))?;
    if let Some(commits) = commits {
        // The first of them may go alone, before the others are there.
        let figure = Figure::new("heartbeat", format!("{name}, commits"), commits, "commits", with);
        bench.report.add(figure.target(Target::AtMost(2.0)))?;
    }
    Ok(())
}

impl Database {
    /// How many transactions `work` committed, with nobody else at work. None on a server: its counters come late and count
    /// everybody.
    async fn commits_of(&self, work: &impl AsyncFn() -> Measured) -> Measured<Option<f64>> {
        if self.is_server() {
            return Ok(None);
        }
        sqlite3(&self.file(), "PRAGMA wal_checkpoint(TRUNCATE);")?;
        work().await?;
        let log = std::fs::read(self.file().with_extension("db-wal"))?;
        Ok(Some(commits_in(&log)))
    }
}

/// Commits in a write-ahead log that began empty: frames that say how large the database is after them
/// (<https://sqlite.org/fileformat2.html#the_write_ahead_log>).
fn commits_in(log: &[u8]) -> f64 {
    let number = |at: usize| log.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
    let (header, frame_header, page) = (32, 24, usize::try_from(number(8)).unwrap_or(0));
    let salt = log.get(16..24);
    let mut commits = 0.0;
    let mut at = header;
    while log.get(at + 8..at + 16).is_some_and(|of_frame| Some(of_frame) == salt) {
        if number(at + 4) > 0 {
            commits += 1.0;
        }
        at += frame_header + page;
    }
    commits
}

/// Processor time of `freightliner work` with nothing to do.
///
/// # Errors
/// The worker did not start, or the kernel does not say.
pub async fn idle(bench: &mut Bench) -> Measured {
    let database = bench.place.fresh()?;
    let store = database.open().await?;
    let worker = program::start(&database, &["work"])?;
    let timer = Timer::start();
    while store.workers().await?.is_empty() {
        if timer.elapsed() > SETTLE_IN * 10 {
            return Err("idle: the worker did not start".into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    store.close().await;
    tokio::time::sleep(SETTLE_IN).await;
    let (timer, before) = (Timer::start(), processor_time(worker.id())?);
    tokio::time::sleep(if bench.quick { IDLE / 3 } else { IDLE }).await;
    let used = processor_time(worker.id())? - before;
    let percent = 100.0 * used / timer.elapsed().as_secs_f64();
    let with = json!({"seconds": timer.elapsed().as_secs_f64()});
    let figure = Figure::new("idle", "idle worker, processor", percent, "% of a core", with);
    bench.report.add(figure.target(Target::AtMost(1.0)))
}

/// Time that a process has had on processors, seconds.
fn processor_time(process: u32) -> Measured<f64> {
    // The first number of schedstat: nanoseconds on a processor, of one thread.
    let mut nanos = 0.0;
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        nanos += text.split(' ').next().unwrap_or_default().parse::<f64>()?;
    }
    Ok(nanos / 1e9)
}

/// Bytes on the disk for each of 100,000 finished jobs, with their history and indexes.
///
/// # Errors
/// Rows or events are missing.
#[expect(clippy::cast_precision_loss, reason = "sizes of a benchmark are far below 2^52")]
pub async fn size(bench: &mut Bench) -> Measured {
    let jobs = bench.scaled(LIVES);
    let database = bench.place.fresh()?;
    let store = database.open().await?;
    let empty = database.bytes()?;
    fill(&store, jobs, numbered).await?;
    loop {
        let claims = claim_some(&store, Uuid::now_v7(), BULK).await?;
        if claims.is_empty() {
            break;
        }
        let settled = join_all(claims.into_iter().map(|claim| complete(&store, claim))).await;
        settled.into_iter().collect::<Measured<Vec<()>>>()?;
    }
    expect(&store, "size", jobs, jobs, EVENTS_OF_A_LIFE * u64::try_from(jobs)?).await?;
    let all = database.bytes()?;
    store.close().await;
    let with =
        json!({"jobs": jobs, "events": EVENTS_OF_A_LIFE * u64::try_from(jobs)?, "bytes": all, "empty_bytes": empty});
    let each = all.saturating_sub(empty) as f64 / jobs as f64;
    bench.report.add(Figure::new("size", "size on disk of a finished job", each, "bytes", with))
}

impl Database {
    /// Its size on the disk, after a checkpoint.
    fn bytes(&self) -> Measured<u64> {
        if self.is_server() {
            let said = self.sql("CHECKPOINT; SELECT pg_database_size(current_database());")?;
            return Ok(said.trim().parse()?);
        }
        sqlite3(&self.file(), "PRAGMA wal_checkpoint(TRUNCATE);")?;
        Ok(std::fs::metadata(self.file())?.len())
    }
}
