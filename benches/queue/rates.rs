//! How many operations a second the queue acknowledges, each of them durable.

use crate::database::Database;
use crate::report::{Figure, Target};
use crate::timing::Timer;
use crate::worker::Workers;
use crate::{Bench, Failure, Measured};
use freightliner::job::{CopyOptions, NewJob, Report, State};
use freightliner::store::{Claim, ClaimRequest, Outcome, Settled, Store, Work};
use freightliner::worker::Settings;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use uuid::Uuid;

/// Callers of the one-job API at a time.
const CALLERS: [usize; 3] = [1, 8, 64];
/// How long one rate is taken.
const TAKE: Duration = Duration::from_secs(4);
/// How long one rate is taken in a quick run.
const TAKE_QUICK: Duration = Duration::from_millis(800);
/// Jobs in one call of the bulk API.
pub const BULK: usize = 1_000;
/// Jobs that wait when claims and settles are measured; a rate that uses them up ends early.
const STOCK: usize = 60_000;
/// Jobs of the drain.
const DRAINED: usize = 20_000;
/// Jobs of the bulk enqueue.
const BULK_JOBS: usize = 100_000;
/// How long leases hold: no measure takes as long.
pub const TTL: Duration = Duration::from_secs(3_600);
/// Events of a whole life: enqueued, claimed, succeeded.
pub const EVENTS_OF_A_LIFE: u64 = 3;

/// At most so many running jobs, by destination registry.
pub type Limits = Arc<BTreeMap<String, u32>>;

/// A job of its own target.
///
/// # Errors
/// None in fact: the references parse.
pub fn numbered(number: usize) -> Measured<NewJob> {
    let source = format!("registry.example.com/team/application:{number}");
    let destination = format!("mirror.example.com/team/application:{number}");
    Ok(NewJob::parse(&source, &destination, CopyOptions::default(), Path::new("/"))?)
}

/// Enqueues jobs in calls of [`BULK`]; each is made by `job` from its number. Every one must be new.
///
/// # Errors
/// The store's, or a job was there already.
pub async fn fill(store: &Store, count: usize, job: impl Fn(usize) -> Measured<NewJob>) -> Measured {
    let mut made = 0;
    while made < count {
        let until = count.min(made + BULK);
        let jobs = (made..until).map(&job).collect::<Measured<Vec<_>>>()?;
        let enqueued = store.enqueue(jobs, "bench").await?;
        if enqueued.len() != until - made || enqueued.iter().any(|one| !one.created) {
            return Err("an enqueued job was not new".into());
        }
        made = until;
    }
    Ok(())
}

/// Takes at most so many jobs, as a worker does.
///
/// # Errors
/// The store's.
pub async fn claim_some(store: &Store, worker: Uuid, room: usize) -> Measured<Vec<Claim>> {
    claim_within(store, worker, room, &Arc::default()).await
}

/// As [`claim_some`], with limits of running jobs for destination registries.
///
/// # Errors
/// The store's.
pub async fn claim_within(store: &Store, worker: Uuid, room: usize, limits: &Limits) -> Measured<Vec<Claim>> {
    Ok(store.claim(request(worker, room, limits)).await?)
}

/// What a worker asks for.
pub fn request(worker: Uuid, room: usize, limits: &Limits) -> ClaimRequest {
    ClaimRequest { worker, room, queue: None, only: None, registry_limits: limits.clone(), lease_ttl: TTL }
}

/// Ends a claim as completed; it must be so then.
///
/// # Errors
/// The store's, or the lease was lost.
pub async fn complete(store: &Store, claim: Claim) -> Measured {
    let outcome = Outcome::Completed(Report::default());
    match store.settle(claim, &outcome, Work::default(), &[]).await {
        Ok(Settled::Now(State::Completed)) => Ok(()),
        Ok(other) => Err(format!("a settled job is {other:?}").into()),
        Err(unsettled) => Err(unsettled.error.into()),
    }
}

/// Has so many callers take steps, each its next when the last was acknowledged, until the time is over or a step says that
/// nothing is left. How many steps were taken, and in what time.
async fn callers<F, T>(count: usize, time: Duration, step: F) -> Measured<(usize, Duration)>
where
    F: Fn(usize) -> T + Clone + Send + 'static,
    T: Future<Output = Measured<bool>> + Send,
{
    let (numbers, steps) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let over = Arc::new(AtomicBool::new(false));
    let timer = Timer::start();
    let mut running = JoinSet::new();
    for _ in 0..count {
        let (numbers, steps, over, step) = (numbers.clone(), steps.clone(), over.clone(), step.clone());
        running.spawn(async move {
            while timer.elapsed() < time && !over.load(Ordering::Relaxed) {
                if step(numbers.fetch_add(1, Ordering::Relaxed)).await? {
                    steps.fetch_add(1, Ordering::Relaxed);
                } else {
                    over.store(true, Ordering::Relaxed);
                }
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok((steps.load(Ordering::Relaxed), timer.elapsed()))
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^52")]
pub fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// The rows and the history say just this; otherwise what was measured was not the queue's work.
///
/// # Errors
/// A number differs.
pub async fn expect(store: &Store, what: &str, jobs: usize, completed: usize, events: u64) -> Measured {
    let (info, stats) = (store.info().await?, store.stats().await?);
    let found = (info.jobs, stats.completed, info.events);
    let wanted = (u64::try_from(jobs)?, u64::try_from(completed)?, events);
    if found != wanted {
        return Err(format!("{what}: jobs, completed and events are {found:?} instead of {wanted:?}").into());
    }
    Ok(())
}

impl Bench {
    const fn take(&self) -> Duration {
        if self.quick { TAKE_QUICK } else { TAKE }
    }

    fn rate(
        &mut self,
        measure: &'static str,
        callers: usize,
        count: usize,
        time: Duration,
        target: Option<f64>,
    ) -> Measured {
        let with = json!({"callers": callers, "operations": count, "seconds": time.as_secs_f64()});
        let name = format!("{measure}, {callers} callers");
        let figure = Figure::new(measure, name, per_second(count, time), "ops/s", with);
        let figure = figure.against(self.raw.commits(callers), "raw commits");
        self.report.add(figure.target(target.map(Target::AtLeast)))
    }

    async fn stocked(&self, count: usize) -> Measured<(Database, Store)> {
        let database = self.place.fresh()?;
        let store = database.open().await?;
        fill(&store, count, numbered).await?;
        Ok((database, store))
    }
}

/// One job a call, by 1, 8 and 64 callers.
///
/// # Errors
/// A call failed, or rows or events are missing.
pub async fn enqueue(bench: &mut Bench) -> Measured {
    for count in CALLERS {
        let (_database, store) = bench.stocked(0).await?;
        let to = store.clone();
        let step = move |number| {
            let to = to.clone();
            async move { Ok(to.enqueue(vec![numbered(number)?], "bench").await?.iter().all(|one| one.created)) }
        };
        let (done, time) = callers(count, bench.take(), step).await?;
        expect(&store, "enqueue", done, 0, u64::try_from(done)?).await?;
        store.close().await;
        let aim = count == 64 && bench.place.kind() == "sqlite";
        bench.rate("enqueue", count, done, time, aim.then_some(15_000.0))?;
    }
    Ok(())
}

/// One job a claim, by 1, 8 and 64 callers.
///
/// # Errors
/// A call failed, or rows or events are missing.
pub async fn claim(bench: &mut Bench) -> Measured {
    let stock = bench.scaled(STOCK);
    for count in CALLERS {
        let (_database, store) = bench.stocked(stock).await?;
        let from = store.clone();
        let step = move |_| {
            let from = from.clone();
            // The claim is dropped: its job stays running, as it should for this count.
            async move { Ok(!claim_some(&from, Uuid::now_v7(), 1).await?.is_empty()) }
        };
        let (done, time) = callers(count, bench.take(), step).await?;
        if store.stats().await?.running != u64::try_from(done)? {
            return Err("claim: not as many run as were claimed".into());
        }
        expect(&store, "claim", stock, 0, u64::try_from(stock + done)?).await?;
        store.close().await;
        bench.rate("claim", count, done, time, None)?;
    }
    Ok(())
}

/// One claim a settle, by 1, 8 and 64 callers.
///
/// # Errors
/// A call failed, or rows or events are missing.
pub async fn settle(bench: &mut Bench) -> Measured {
    let stock = bench.scaled(STOCK);
    for count in CALLERS {
        let (_database, store) = bench.stocked(stock).await?;
        let mut claims = Vec::with_capacity(stock);
        while claims.len() < stock {
            let some = claim_some(&store, Uuid::now_v7(), BULK).await?;
            if some.is_empty() {
                return Err("settle: not everything could be claimed".into());
            }
            claims.extend(some);
        }
        let claims = Arc::new(std::sync::Mutex::new(claims));
        let to = store.clone();
        let step = move |_| {
            let claim = claims.lock().map_or(None, |mut claims| claims.pop());
            let to = to.clone();
            async move {
                let Some(claim) = claim else { return Ok(false) };
                complete(&to, claim).await.map(|()| true)
            }
        };
        let (done, time) = callers(count, bench.take(), step).await?;
        expect(&store, "settle", stock, done, u64::try_from(2 * stock + done)?).await?;
        store.close().await;
        bench.rate("settle", count, done, time, None)?;
    }
    Ok(())
}

/// Enqueue, claim and settle of one job, one after the other, by 1, 8 and 64 callers. A caller may claim another caller's
/// job; there is always one.
///
/// # Errors
/// A call failed, or rows or events are missing.
pub async fn lives(bench: &mut Bench) -> Measured {
    let target = if bench.place.kind() == "sqlite" { 10_000.0 } else { 5_000.0 };
    for count in CALLERS {
        let (_database, store) = bench.stocked(0).await?;
        let through = store.clone();
        let step = move |number| {
            let through = through.clone();
            async move {
                through.enqueue(vec![numbered(number)?], "bench").await?;
                let claim = claim_some(&through, Uuid::now_v7(), 1).await?.pop();
                complete(&through, claim.ok_or("lives: nothing could be claimed")?).await.map(|()| true)
            }
        };
        let (done, time) = callers(count, bench.take(), step).await?;
        expect(&store, "lives", done, done, EVENTS_OF_A_LIFE * u64::try_from(done)?).await?;
        store.close().await;
        bench.rate("lives", count, done, time, (count == 64).then_some(target))?;
    }
    Ok(())
}

/// Works off 20,000 waiting jobs that end at once.
///
/// A worker here is the program's own, without what a job does: [`crate::worker`]. `concurrency` is the room of one loop; several loops share one open database, as tasks of one process.
///
/// # Errors
/// A call failed, or rows or events are missing.
pub async fn drain(bench: &mut Bench) -> Measured {
    let jobs = bench.scaled(DRAINED);
    let default = Settings::default().concurrency;
    for (workers, concurrency) in [(1, default), (1, 1), (1, 8), (1, 64), (8, default), (64, default)] {
        let (_database, store) = bench.stocked(jobs).await?;
        let known = Workers::new(store.clone(), concurrency).await?;
        let timer = Timer::start();
        let mut loops = JoinSet::new();
        for _ in 0..workers {
            loops.spawn(known.one(None).until_done());
        }
        let mut settled = 0;
        while let Some(ended) = loops.join_next().await {
            settled += ended??;
        }
        let time = timer.elapsed();
        drop(known);
        if settled != jobs {
            return Err(format!("drain: {settled} jobs were settled instead of {jobs}").into());
        }
        expect(&store, "drain", jobs, jobs, EVENTS_OF_A_LIFE * u64::try_from(jobs)?).await?;
        store.close().await;
        let with = json!({"jobs": jobs, "workers": workers, "concurrency": concurrency, "seconds": time.as_secs_f64()});
        let defaults = workers == 1 && concurrency == default;
        let name = format!("drain, {workers} workers x {concurrency}{}", if defaults { " (default)" } else { "" });
        let figure = Figure::new("drain", name, per_second(jobs, time), "jobs/s", with);
        let figure = figure.against(bench.raw.commits(workers * concurrency), "raw commits");
        bench.report.add(figure.target(defaults.then_some(Target::AtLeast(15_000.0))))?;
    }
    Ok(())
}

/// 100,000 jobs in calls of 1,000, one call after the other.
///
/// # Errors
/// A call failed, or rows or events are missing.
pub async fn bulk(bench: &mut Bench) -> Measured {
    let jobs = bench.scaled(BULK_JOBS);
    let database = bench.place.fresh()?;
    let store = database.open().await?;
    let timer = Timer::start();
    fill(&store, jobs, numbered).await?;
    let time = timer.elapsed();
    expect(&store, "bulk", jobs, 0, u64::try_from(jobs)?).await?;
    store.close().await;
    let with = json!({"jobs": jobs, "call": BULK, "seconds": time.as_secs_f64()});
    let figure = Figure::new("bulk", "bulk enqueue", per_second(jobs, time), "jobs/s", with);
    bench.report.add(figure.against(bench.raw.rows, "raw rows").target(Target::AtLeast(60_000.0)))
}
