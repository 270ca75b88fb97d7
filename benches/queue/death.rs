//! After a death: how soon a killed worker's job runs again, and how long it takes to remove what it left.

use crate::database::Database;
use crate::program::{self, Process};
use crate::rates::{claim_some, fill, numbered};
use crate::report::{Figure, Target};
use crate::timing::{Samples, Timer, millis};
use crate::{Bench, Failure, Measured};
use freightliner::clock::{Clock, UnixMillis};
use freightliner::job::{CopyOptions, NewJob};
use freightliner::store::{JobEvent, Store};
use freightliner::worker::{Settings, presence::Presence};
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Workers that are killed.
const DEATHS: usize = 10;
/// Deaths at different moments of the time between two sweeps.
const MOMENTS_MS: u64 = 370;
/// What has not happened by then never will.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the history is looked at. The times are those of its events, so this costs no precision.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Temporary files of a dead worker.
const FILES: usize = 10_000;
/// Registrations at a time.
const REGISTER_AT_ONCE: usize = 256;
/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// A job's worker is killed with SIGKILL while another worker waits on the same host: the time until the job is taken back
/// and until it runs again, as the history says.
///
/// # Errors
/// The job did not come back.
pub async fn recovery(bench: &mut Bench) -> Measured {
    let deaths = if bench.quick { DEATHS / 3 } else { DEATHS };
    let (mut reclaimed, mut restarted) = (Samples::default(), Samples::default());
    for number in 0..deaths {
        let database = bench.place.fresh()?;
        let store = database.open().await?;
        let pause = Duration::from_millis(MOMENTS_MS * u64::try_from(number)?);
        let (back, again) = one_death(&database, &store, pause).await?;
        reclaimed.add(back);
        restarted.add(again);
        store.close().await;
    }
    for (samples, what) in [(&reclaimed, "is taken back"), (&restarted, "runs again")] {
        for (rank, name) in [(50, "p50"), (100, "max")] {
            let with = json!({"deaths": deaths, "signal": "SIGKILL"});
            let name = format!("killed worker's job {what}, {name}");
            let figure = Figure::new("recovery", name, samples.percentile(rank), "ms", with);
            bench.report.add(figure.target((rank == 100).then_some(Target::AtMost(1000.0))))?;
        }
    }
    Ok(())
}

async fn one_death(database: &Database, store: &Store, pause: Duration) -> Measured<(Duration, Duration)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    // Both ends stall: an attempt that fails by itself, because a name is not known, would have nobody to die for it.
    let host = format!("127.0.0.1:{}", listener.local_addr()?.port());
    let (source, destination) = (format!("{host}/stalls:1"), format!("{host}/mirror:1"));
    let mut registry = JoinSet::new();
    registry.spawn(stall(listener));
    let mut workers = [program::start(database, &["work"])?, program::start(database, &["work"])?];
    until("two workers", async || Ok((store.workers().await?.len() == 2).then_some(()))).await?;
    let job = NewJob::parse(&source, &destination, CopyOptions::default(), Path::new("/"))?;
    let id = store.enqueue(vec![job], "bench").await?.first().ok_or("nothing was enqueued")?.id;
    let holder = until("the job to run", async || Ok(store.job(id).await?.and_then(|job| job.worker))).await?;
    tokio::time::sleep(pause).await;
    let rows = store.workers().await?;
    let pid = rows.iter().find(|row| row.id == holder).ok_or("the worker's row is gone")?.pid;
    let held = |worker: &&mut Process| i64::from(worker.id()) == pid;
    let killed = Clock::System.now();
    workers.iter_mut().find(held).ok_or("the job is somebody else's")?.kill()?;
    let after = |events: Vec<JobEvent>, wanted: &dyn Fn(&JobEvent) -> bool| -> Option<UnixMillis> {
        events.into_iter().find(|event| event.lease_epoch > 1 && wanted(event)).map(|event| event.at)
    };
    let expired = |event: &JobEvent| event.reason.as_deref() == Some("lease expired");
    let back = until("the job to be taken back", async || Ok(after(store.events(id).await?, &expired))).await?;
    let runs = |event: &JobEvent| event.to_state == "running";
    let again = until("the job to run again", async || Ok(after(store.events(id).await?, &runs))).await?;
    Ok((back.since(killed), again.since(killed)))
}

async fn until<T>(what: &str, look: impl AsyncFn() -> Measured<Option<T>>) -> Measured<T> {
    let timer = Timer::start();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if timer.elapsed() > PATIENCE {
            return Err(format!("waited {PATIENCE:?} in vain for {what}").into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A registry that speaks plain HTTP and never answers a request.
async fn stall(listener: TcpListener) -> Measured {
    let mut open = Vec::new();
    loop {
        let (mut stream, _) = listener.accept().await?;
        if is_tls(&mut stream).await? {
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await?;
        } else {
            open.push(stream);
        }
    }
}

async fn is_tls(stream: &mut TcpStream) -> Measured<bool> {
    Ok(stream.read_u8().await? == TLS_HANDSHAKE)
}

/// `freightliner sweep` after a worker died that had registered 10,000 temporary files.
///
/// # Errors
/// Not every file was removed.
pub async fn sweep(bench: &mut Bench) -> Measured {
    let files = bench.scaled(FILES);
    let database = bench.place.fresh()?;
    let store = database.open().await?;
    fill(&store, 1, numbered).await?;
    let settings = Settings::default();
    let dead = Presence::start(&store, database.folder(), &settings, 1, &Clock::System).await?;
    let folder = dead.temp_folder();
    let fence = claim_some(&store, dead.id, 1).await?.pop().ok_or("nothing could be claimed")?.fence();
    std::fs::create_dir_all(&folder)?;
    let mut registrations = JoinSet::new();
    for number in 0..files {
        let path = folder.join(format!("blob-{number}"));
        let (name, store, worker) = (path.display().to_string(), store.clone(), dead.id);
        registrations.spawn(async move { store.temp_register(name, worker, fence).await.map_err(Failure::from) });
        std::fs::write(&path, "left behind")?;
        while registrations.len() >= REGISTER_AT_ONCE {
            registrations.join_next().await.transpose()?.transpose()?;
        }
    }
    while let Some(registered) = registrations.join_next().await {
        registered??;
    }
    // Its lock is free now and its row is there, as after a crash.
    drop(dead);
    let timer = Timer::start();
    let swept = program::json(&database, &["sweep"])?;
    let time = timer.elapsed();
    let left = store.temp_workers().await?.len();
    store.close().await;
    if swept["temp_files_removed"] != json!(files) || swept["jobs_requeued"] != json!(1) || left > 0 || folder.exists()
    {
        return Err(format!("sweep: removed {swept}, and {left} workers still have files registered").into());
    }
    let with = json!({"files": files, "swept": swept});
    let inside = swept["duration_ms"].as_f64().unwrap_or(f64::NAN);
    let figure = Figure::new("sweep", format!("sweep of {files} files, by itself"), inside, "ms", with.clone());
    bench.report.add(figure.target(Target::AtMost(1000.0)))?;
    let name = format!("sweep of {files} files, whole command");
    bench.report.add(Figure::new("sweep", name, millis(time), "ms", with).target(Target::AtMost(1000.0)))
}
