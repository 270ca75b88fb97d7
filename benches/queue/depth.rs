//! Does a long queue slow the claim of a short one? And lists and counts over it.
//!
//! Each case is a database with many rows of one kind beside a thousand that can be claimed. A sample of it alternates with a
//! sample of the base case, a thousand pending rows and nothing else, so that whatever else this machine does meets both.

use crate::database::Database;
use crate::rates::{Limits, claim_within, complete, fill, numbered};
use crate::report::Figure;
use crate::timing::{Samples, Timer};
use crate::{Bench, Measured};
use freightliner::clock::Clock;
use freightliner::job::{CopyOptions, DEFAULT_PRIORITY, NewJob};
use freightliner::store::{JobFilter, Selection, Store};
use serde_json::json;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use uuid::Uuid;

/// Rows that can be claimed in every case.
const FEW: usize = 1_000;
/// The target for the median claim, as a multiple of the base case.
const RATIO: f64 = 1.5;
/// Samples of a claim of one job, and of eight.
const SAMPLES: [(usize, usize); 2] = [(1, 200), (8, 60)];

/// The queue of rows that are in the way.
const OTHER_QUEUE: &str = "a-queue-in-the-way";
/// The registry of rows that are in the way: at most one of its jobs may run.
const FULL_REGISTRY: &str = "full.example.com";

/// The number of the next job that replaces a claimed one: no other job has it.
static NEXT: AtomicUsize = AtomicUsize::new(10_000_000);

/// What lies in the database beside the rows that can be claimed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Pending(usize),
    Future(usize),
    Finished(usize),
    Paused(usize),
    BusyTarget(usize),
    FullQueue(usize),
    FullRegistry(usize),
}

impl Case {
    fn name(self) -> String {
        match self {
            Self::Pending(rows) => format!("{rows} pending"),
            Self::Future(rows) => format!("{rows} future rows of better priority"),
            Self::Finished(rows) => format!("{rows} finished"),
            Self::Paused(rows) => format!("{rows} in a paused queue"),
            Self::BusyTarget(rows) => format!("{rows} behind one busy target"),
            Self::FullQueue(rows) => format!("{rows} in a queue at its limit"),
            Self::FullRegistry(rows) => format!("{rows} to a registry at its limit"),
        }
    }

    async fn prepare(self, store: &Store, database: &Database) -> Measured {
        match self {
            Self::Pending(rows) => return fill(store, rows, numbered).await,
            Self::Future(rows) => {
                let at = Clock::System.now().plus(Duration::from_secs(1_000_000));
                fill(store, rows, |n| Ok(NewJob { run_at: Some(at), priority: 1, ..numbered(FEW + n)? })).await?;
            }
            Self::Finished(rows) => {
                fill(store, rows, |n| numbered(FEW + n)).await?;
                let cancelled = store.cancel(&Selection::Filter(JobFilter::default()), "bench").await?;
                if cancelled != u64::try_from(rows)? {
                    return Err(format!("{cancelled} rows were cancelled instead of {rows}").into());
                }
                tended(store).await?;
            }
            Self::Paused(rows) => {
                fill(store, rows, |n| Ok(NewJob { queue: OTHER_QUEUE.to_owned(), priority: 1, ..numbered(FEW + n)? }))
                    .await?;
                database.sql(&format!("INSERT INTO queues (name, paused_at) VALUES ('{OTHER_QUEUE}', 1);"))?;
            }
            Self::BusyTarget(rows) => {
                let same = numbered(FEW)?;
                fill(store, rows, |_| Ok(NewJob { joins_equal: false, priority: 1, ..same.clone() })).await?;
                keep_busy(store).await?;
            }
            Self::FullQueue(rows) => {
                let job = |n| Ok(NewJob { queue: OTHER_QUEUE.to_owned(), priority: 1, ..numbered(FEW + n)? });
                fill(store, rows, job).await?;
                database.sql(&format!("INSERT INTO queues (name, max_running) VALUES ('{OTHER_QUEUE}', 1);"))?;
                keep_busy(store).await?;
            }
            Self::FullRegistry(rows) => {
                fill(store, rows, |n| Ok(NewJob { priority: 1, ..to_full_registry(n)? })).await?;
                keep_busy(store).await?;
            }
        }
        fill(store, FEW, numbered).await
    }
}

/// As a process that works does every ten seconds, until there was a vacuum: this one, or the server's own, which may be under
/// way and is then waited for.
async fn tended(store: &Store) -> Measured {
    for _ in 0..60 {
        if store.is_local() || store.tend().await? {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// A claim takes one of the rows that lie in the way, and keeps it running.
async fn keep_busy(store: &Store) -> Measured {
    match claim_within(store, Uuid::now_v7(), 1, &limits()).await?.as_slice() {
        [claim] if claim.job.priority == 1 => Ok(()),
        _ => Err("the job that is to be in the way could not be claimed".into()),
    }
}

fn to_full_registry(number: usize) -> Measured<NewJob> {
    let source = format!("registry.example.com/team/application:{number}");
    let destination = format!("{FULL_REGISTRY}/team/application:{number}");
    Ok(NewJob::parse(&source, &destination, CopyOptions::default(), Path::new("/"))?)
}

fn limits() -> Limits {
    Limits::new([(FULL_REGISTRY.to_owned(), 1)].into())
}

impl Bench {
    async fn prepared(&mut self, case: Case) -> Measured<(Database, Store)> {
        let database = self.place.fresh()?;
        let store = database.open().await?;
        let timer = Timer::start();
        case.prepare(&store, &database).await?;
        crate::report::say(&format!("  ({} loaded in {:.0} s)", case.name(), timer.elapsed().as_secs_f64()))?;
        Ok((database, store))
    }
}

/// Claims of one job and of eight, for each case beside the base case.
///
/// # Errors
/// A claim failed or gave less than it should.
pub async fn depth(bench: &mut Bench) -> Measured {
    let (few, many) = (FEW, bench.scaled(1_000_000));
    let (_base_database, base) = bench.prepared(Case::Pending(few)).await?;
    for (room, count) in SAMPLES {
        let mut samples = Samples::default();
        for _ in 0..count {
            samples.add(sample(&base, room).await?);
        }
        let with = json!({"room": room, "samples": count, "p99_ms": samples.percentile(99)});
        let name = format!("claim of {room}, {few} pending, p50");
        let figure = Figure::new("depth", name, samples.percentile(50), "ms", with);
        bench.report.add(figure.against(1000.0 / bench.raw.commits(1), "raw commits"))?;
    }
    let cases = [
        Case::Pending(many / 10),
        Case::Pending(many),
        Case::Future(many),
        Case::Finished(many),
        Case::Paused(many),
        Case::BusyTarget(many),
        Case::FullQueue(many),
        Case::FullRegistry(many),
    ];
    for case in cases {
        // One that goes wrong does not keep the others.
        if let Err(error) = one_case(bench, case, many, &base).await {
            bench.report.wrong("depth", &format!("{}: {error}", case.name()))?;
        }
    }
    base.close().await;
    Ok(())
}

async fn one_case(bench: &mut Bench, case: Case, many: usize, base: &Store) -> Measured {
    let (_database, store) = bench.prepared(case).await?;
    for (room, count) in SAMPLES {
        compare(bench, case, room, count, base, &store).await?;
    }
    if case == Case::Pending(many) {
        look(bench, many, &store).await?;
    }
    store.close().await;
    Ok(())
}

async fn compare(bench: &mut Bench, case: Case, room: usize, count: usize, base: &Store, store: &Store) -> Measured {
    let (mut of_base, mut of_case) = (Samples::default(), Samples::default());
    for _ in 0..count {
        of_base.add(sample(base, room).await?);
        of_case.add(sample(store, room).await?);
    }
    let with = json!({
        "case": case.name(), "room": room, "samples": count, "p50_ms": of_case.percentile(50),
        "p99_ms": of_case.percentile(99), "base_p50_ms": of_base.percentile(50), "base_p99_ms": of_base.percentile(99),
        "base": format!("{FEW} pending"),
    });
    let name = format!("claim of {room}, {}, p50", case.name());
    let figure = Figure::new("depth", name, of_case.percentile(50), "ms", with);
    bench.report.add(figure.against(of_base.percentile(50), "at 1 thousand").ratio_at_most(RATIO))
}

/// The time of one claim. What it took is completed and replaced afterwards, so that the depth stays.
async fn sample(store: &Store, room: usize) -> Measured<Duration> {
    let limits = limits();
    let timer = Timer::start();
    let claims = claim_within(store, Uuid::now_v7(), room, &limits).await?;
    let time = timer.elapsed();
    if claims.len() != room || claims.iter().any(|claim| claim.job.priority != DEFAULT_PRIORITY) {
        return Err(format!("a claim of {room} gave {}, or one that cannot be claimed", claims.len()).into());
    }
    for claim in claims {
        complete(store, claim).await?;
    }
    let first = NEXT.fetch_add(room, Ordering::Relaxed);
    fill(store, room, |n| numbered(first + n)).await?;
    Ok(time)
}

/// Pages of `jobs list`, and `jobs stats`, as the program asks the store for them.
async fn look(bench: &mut Bench, rows: usize, store: &Store) -> Measured {
    let by_state = JobFilter { state: Some(freightliner::job::State::Pending), ..JobFilter::default() };
    let by_queue = JobFilter { queue: Some("default".to_owned()), ..JobFilter::default() };
    let no_such_queue = JobFilter { queue: Some("empty".to_owned()), ..JobFilter::default() };
    let completed = JobFilter { state: Some(freightliner::job::State::Completed), ..JobFilter::default() };
    let by_name = JobFilter { destination: Some(format!(":{}", rows / 2)), ..JobFilter::default() };
    let middle = i64::try_from(rows / 2)?;
    let pages = [
        ("first page", JobFilter::default(), None),
        ("a page in the middle", JobFilter::default(), Some(middle)),
        ("pending, in the middle", by_state, Some(middle)),
        ("completed", completed, None),
        ("by queue", by_queue, Some(middle)),
        ("of an empty queue", no_such_queue, None),
        ("one destination by pattern", by_name, None),
    ];
    for (what, filter, after) in pages {
        let mut samples = Samples::default();
        for _ in 0..10 {
            let timer = Timer::start();
            store.jobs(&filter, after, 50).await?;
            samples.add(timer.elapsed());
        }
        let with = json!({"rows": rows, "limit": 50, "samples": samples.count(), "p99_ms": samples.percentile(99)});
        let name = format!("jobs list at {rows} rows, {what}, p50");
        bench.report.add(Figure::new("depth", name, samples.percentile(50), "ms", with))?;
    }
    let mut samples = Samples::default();
    for _ in 0..5 {
        let timer = Timer::start();
        store.stats().await?;
        samples.add(timer.elapsed());
    }
    let with = json!({"rows": rows, "samples": samples.count(), "p99_ms": samples.percentile(99)});
    bench.report.add(Figure::new(
        "depth",
        format!("jobs stats at {rows} rows, p50"),
        samples.percentile(50),
        "ms",
        with,
    ))
}
