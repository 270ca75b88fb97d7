//! The proof that nothing breaks the queue, as a program: `scripts/crash`.
//!
//! A round is one fresh database, several real worker processes on it, and registries that misbehave. While some ask for
//! copies, by the command line and by plain SQL, and others cancel and retry them, a killer kills, stops and interrupts the
//! processes. Then everything goes on in peace to its end, and a checker compares the rows, the history, the logs and the
//! destination with what was promised. The seed decides the plan of a round; the machine decides what becomes of it.
//!
//! It prints a line a round, and ends with 1 when a round found a fault.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::missing_panics_doc,
    reason = "a test program: it prints, and says what went wrong by panicking"
)]

mod book;
mod check;
mod driver;
mod evidence;
mod hits;
mod operators;
mod plan;
mod random;
mod round;
mod scene;
mod sql;
#[path = "../it/support/mod.rs"]
#[expect(unused_imports, reason = "the rig offers more than this program uses")]
mod support;
mod trouble;

use sql::Kind;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;

const USAGE: &str = "usage: scripts/crash [--database sqlite|postgres|URL] [--seed S] [--rounds N] [--seeds A..B] [--at-once K] [--keep] [--plan] [--program FILE]
  --database D  sqlite; postgres, a server of our own; or the URL of a server, on which each round makes a database of its own
                and drops it at its end. Default: sqlite
  --seed S      begin with this seed; default: a new one each time
  --rounds N    so many rounds, each with the next seed; default 1
  --seeds A..B  the seeds from A to B, both included
  --at-once K   so many rounds beside each other; default 1
  --keep        keep plan, diary, logs and database of rounds that pass too
  --plan        print the plans of the rounds instead
  --program F   another build of the program";

/// What was typed.
struct Wanted {
    seeds: VecDeque<u64>,
    at_once: usize,
    rules: Rules,
}

/// What holds for all rounds.
struct Rules {
    kind: Kind,
    program: PathBuf,
    /// Keeps what rounds leave that pass.
    keep: bool,
    /// Only says what would be done.
    plan: bool,
}

fn main() -> ExitCode {
    let wanted = match parse(std::env::args().skip(1)) {
        Ok(wanted) => wanted,
        Err(problem) => {
            eprintln!("{problem}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if wanted.rules.plan {
        wanted.seeds.iter().for_each(|seed| println!("{:#?}", plan::Plan::new(*seed)));
        return ExitCode::SUCCESS;
    }
    if let Err(problem) = wanted.rules.kind.look() {
        eprintln!("{problem}");
        return ExitCode::from(2);
    }
    let (first, rounds) = (wanted.seeds[0], wanted.seeds.len());
    println!("{rounds} rounds on {} from seed {first} on", wanted.rules.kind.name());
    let (seeds, failed) = (Mutex::new(wanted.seeds), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..wanted.at_once {
            scope.spawn(|| {
                // A guard in the head of a `while let` would be held for its whole body.
                let next = || seeds.lock().expect("nobody panics here").pop_front();
                while let Some(seed) = next() {
                    let verdict = round::run(seed, &wanted.rules);
                    println!("{}{}", verdict.line, if verdict.trouble.is_some() { "; FAILED" } else { "" });
                    if let Some(trouble) = verdict.trouble {
                        println!("{trouble}\n");
                        failed.lock().expect("nobody panics here").push(seed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("nobody panicked");
    if failed.is_empty() {
        println!("{rounds} rounds passed");
        return ExitCode::SUCCESS;
    }
    println!("{} of {rounds} rounds failed, seeds {failed:?}", failed.len());
    ExitCode::FAILURE
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let (mut first, mut rounds, mut at_once) = (None, 1, 1);
    let mut rules =
        Rules { kind: Kind::Sqlite, program: env!("CARGO_BIN_EXE_freightliner").into(), keep: false, plan: false };
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{name} takes a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text} is no number"));
        match name.as_str() {
            "--seed" => first = Some(number(value()?)?),
            "--rounds" => rounds = number(value()?)?,
            "--at-once" => at_once = number(value()?)?.max(1),
            "--keep" => rules.keep = true,
            "--plan" => rules.plan = true,
            "--program" => rules.program = std::path::absolute(value()?).map_err(|error| error.to_string())?,
            "--seeds" => {
                let text = value()?;
                let (from, to) = text.split_once("..").ok_or("--seeds takes A..B")?;
                let (from, to) = (number(from.to_owned())?, number(to.trim_start_matches('=').to_owned())?);
                first = Some(from);
                rounds = (to + 1).checked_sub(from).ok_or("--seeds takes A..B with A not above B")?;
            }
            "--database" => rules.kind = Kind::parse(&value()?)?,
            other => return Err(format!("unknown argument {other}")),
        }
    }
    if rounds == 0 {
        return Err("there is nothing to do".to_owned());
    }
    let first = first.unwrap_or_else(|| u64::try_from(support::unix_millis()).unwrap_or(0) % 1_000_000_000);
    let at_once = usize::try_from(at_once).unwrap_or(1);
    Ok(Wanted { seeds: (first..first + rounds).collect(), at_once, rules })
}
