//! The benchmark of copying: what it costs in time, processor, memory, requests and bytes, beside other tools.
//!
//! `scripts/bench copy` runs it. Source and destination are two real registries of this machine, with or without a round
//! trip of 10 ms between them and whoever copies; the destination of each run begins empty. All tools copy the same
//! corpus in the same run, and what the destination holds afterwards is looked up in its storage: a figure of a copy that
//! lacks something is no figure. Requests are counted by the registries' own access logs, bytes by these and by a proxy.
//! A target that is missed is shown, it does not make the run fail: this program measures, it does not judge.
//!
//! It leaves nothing behind.

mod arguments;
mod cases;
mod chunks;
mod corpus;
mod kill;
mod lab;
mod process;
mod proxy;
mod registry;
mod report;
mod tools;

use arguments::Arguments;
use cases::Sources;
use lab::Network;
use report::Report;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Why something could not be measured, or was measured wrong.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a measure gives.
pub type Measured<T = ()> = Result<T, Failure>;

/// The measures in the order in which they run; `--only` takes these names.
pub const MEASURES: &[&str] =
    &["layer", "layers", "corpus", "layer-far", "layer-narrow", "layers-far", "corpus-far", "kill", "kill-chunks"];

/// One run: how much, and what came out.
pub struct Bench {
    quick: bool,
    runs: usize,
    sources: Sources,
    report: Report,
}

impl Bench {
    /// How often each tool runs: distance takes long, and little disturbs it.
    fn runs(&self, network: Network) -> usize {
        if network == Network::Far { 1 } else { self.runs }
    }

    async fn measure(&mut self, name: &str) -> Measured {
        match name {
            "layer" => self.layer(Network::Local).await,
            "layers" => self.layers(Network::Local).await,
            "corpus" => self.corpus(Network::Local).await,
            "layer-far" => self.layer(Network::Far).await,
            "layer-narrow" => self.layer_narrow().await,
            "layers-far" => self.layers(Network::Far).await,
            "corpus-far" => self.corpus(Network::Far).await,
            "kill-chunks" => self.kill_chunks().await,
            _ => self.kill().await,
        }
    }
}

async fn run(arguments: &Arguments) -> Measured<bool> {
    tools::needed()?;
    let report = Report::new(arguments);
    let mut bench = Bench { quick: arguments.quick, runs: arguments.runs, sources: Sources::new()?, report };
    for name in MEASURES.iter().filter(|name| arguments.wants(name)) {
        report::say(&format!("measuring {name}"))?;
        if let Err(error) = bench.measure(name).await {
            bench.report.wrong(name, &error.to_string())?;
        }
    }
    bench.report.finish(arguments.json)?;
    Ok(bench.report.is_good())
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
