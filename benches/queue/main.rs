//! The queue's benchmark: how fast it is, how soon it notices, what it costs, each beside the raw limit of this machine.
//!
//! `scripts/bench queue` runs it. Every rate counts operations that were acknowledged durable, over wall time; what the
//! database then holds is compared with what was asked for, and a difference makes the run fail: a figure of a queue that
//! lost something is no figure. The library is driven through its public door, `Store`, as the worker does; what concerns
//! processes uses the real program; the raw limit is taken by the database's own tools, in the same run and on the same
//! file system. A target that is missed is shown, it does not make the run fail: this program measures, it does not judge.
//!
//! It never measures with weaker settings than the program's own, and it leaves nothing behind.

mod arguments;
mod database;
mod death;
mod depth;
mod layouts;
mod program;
mod rates;
mod raw;
mod report;
mod timing;
mod upkeep;
mod wake;
mod worker;

use arguments::Arguments;
use database::Place;
use raw::Raw;
use report::Report;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Why something could not be measured, or was measured wrong.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a measure gives.
pub type Measured<T = ()> = Result<T, Failure>;

/// One run over one database: where, how much, and what came out.
pub struct Bench {
    place: Place,
    quick: bool,
    raw: Raw,
    report: Report,
}

impl Bench {
    /// A count, ten times smaller in a quick run.
    pub const fn scaled(&self, count: usize) -> usize {
        if self.quick { count / 10 } else { count }
    }
}

/// The measures in the order in which they run; `--only` takes these names.
pub const MEASURES: &[&str] = &[
    "raw",
    "enqueue",
    "claim",
    "settle",
    "lives",
    "drain",
    "bulk",
    "wake",
    "depth",
    "recovery",
    "sweep",
    "heartbeat",
    "idle",
    "size",
];

impl Bench {
    async fn measure(&mut self, name: &str) -> Measured {
        match name {
            "enqueue" => rates::enqueue(self).await,
            "claim" => rates::claim(self).await,
            "settle" => rates::settle(self).await,
            "lives" => rates::lives(self).await,
            "drain" => {
                rates::drain(self).await?;
                layouts::drain(self).await
            }
            "bulk" => rates::bulk(self).await,
            "wake" => wake::wake(self).await,
            "recovery" => death::recovery(self).await,
            "sweep" => death::sweep(self).await,
            "heartbeat" => upkeep::heartbeat(self).await,
            "idle" => upkeep::idle(self).await,
            "size" => upkeep::size(self).await,
            "depth" => depth::depth(self).await,
            // The raw limit is taken before everything else.
            _ => Ok(()),
        }
    }
}

async fn run(arguments: &Arguments) -> Measured<bool> {
    let mut report = Report::new(arguments);
    for reason in &arguments.left_out {
        report.left_out(reason)?;
    }
    for url in &arguments.databases {
        let place = match Place::new(url) {
            Ok(place) => place,
            Err(error) => {
                // The rest of a URL may hold a password.
                let kind = url.split(':').next().unwrap_or_default();
                report.left_out(&format!("{kind}: {error}"))?;
                continue;
            }
        };
        report.next_database(&place)?;
        let raw = raw::measure(&place, arguments.quick, &mut report)?;
        let mut bench = Bench { place, quick: arguments.quick, raw, report };
        for name in MEASURES.iter().filter(|name| arguments.wants(name)) {
            if let Err(error) = bench.measure(name).await {
                bench.report.wrong(name, &error.to_string())?;
            }
        }
        report = bench.report;
    }
    report.finish(arguments.json)?;
    Ok(report.is_good())
}

fn main() -> Measured<ExitCode> {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(message) => {
            report::say(&format!("error: {message}"))?;
            return Ok(ExitCode::from(2));
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        // Whoever is interrupted cleans up too: everything that was made is removed when it is dropped.
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            done = run(&arguments) => Ok(if done? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
            interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| ExitCode::from(130)).map_err(Failure::from),
            _ = terminate.recv() => Ok(ExitCode::from(143)),
        }
    })
}
