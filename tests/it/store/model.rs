//! Random lists of commands against the store and against a model of it in memory (`oracle`): every answer must be the same, and
//! every row after every command; at the end also the histories, the leases, and what the store says of it all.
//!
//! Two hundred lists run every time, more with `PROPTEST_CASES=10000`. A list that fails is made as short as it goes and
//! printed; its seed is added to `model.regressions` beside this file and tried first from then on. `PROPTEST_RNG_SEED=N` repeats
//! a whole run.
//!
//! Triggers ask the machine's clock, the store asks a manual one, which starts an hour ahead here and moves by hours. So what is
//! due by one clock is due by the other: times are long ago, or hours to come.

mod command;
mod drive;
mod oracle;

use super::{Bench, TTL, copy};
use drive::Drive;
use freightliner::store::Confirmed;
use oracle::Answer;
use proptest::test_runner::{Config, FileFailurePersistence, TestCaseError, TestRunner};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Lists that are tried every time.
const CASES: u32 = 200;

/// The workers of these tests.
fn worker(number: usize) -> String {
    worker_id(number).to_string()
}

fn worker_id(number: usize) -> uuid::Uuid {
    uuid::Uuid::from_u128(number as u128 + 1)
}

/// What some lists of a whole run must have come to: lists that get nowhere prove nothing.
const REACHED: [&str; 26] = [
    "Claims",
    "Confirmed(CancelRequested)",
    "Confirmed(Lost)",
    "Confirmed(Superseded)",
    "Confirmed(Yes)",
    "Enqueued",
    "Held(CancelRequested)",
    "Held(Lost)",
    "Held(Yes)",
    "Intake",
    "Invalid",
    "KeyConflict",
    "NotFound",
    "Pruned",
    "Reclaimed(None)",
    "Reclaimed(Some(Cancelled))",
    "Reclaimed(Some(Failed))",
    "Reclaimed(Some(Scheduled))",
    "Restored",
    "Settled(LeaseLost)",
    "Settled(Now(Cancelled))",
    "Settled(Now(Completed))",
    "Settled(Now(Failed))",
    "Settled(Now(Pending))",
    "Settled(Now(Scheduled))",
    "Changed(true)",
];

/// The kind of an answer, without numbers.
fn kind(answer: &Answer) -> String {
    let text = match answer {
        Answer::Claims(claims) if claims.is_empty() => "Nothing".to_owned(),
        Answer::Claims(_) => "Claims".to_owned(),
        Answer::Confirmed(Confirmed::Superseded { .. }) => "Confirmed(Superseded)".to_owned(),
        Answer::Held(_) | Answer::Confirmed(_) | Answer::Settled(_) | Answer::Reclaimed(_) | Answer::Changed(_) => {
            return format!("{answer:?}");
        }
        other => format!("{other:?}"),
    };
    match text.find(|c: char| !c.is_alphanumeric()) {
        Some(_) if text.starts_with("Confirmed") => text,
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

#[test]
fn random_commands_do_what_the_model_does() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let template = runtime.block_on(Bench::new());
    // A database of a server takes a while to make.
    let few = if template.database.url().starts_with("sqlite:") { CASES } else { CASES / 10 };
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(few);
    let mut runner = TestRunner::new(Config {
        cases,
        max_shrink_iters: 2_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/it/store/model.regressions"))),
        ..Config::default()
    });
    let reached: RefCell<BTreeMap<String, u32>> = RefCell::default();
    let result = runner.run(&command::commands(), |commands| {
        runtime.block_on(async {
            let mut drive = Drive::new(&template).await;
            for (step, command) in commands.iter().enumerate() {
                let done = drive.step(command).await;
                let answer = done.map_err(|why| TestCaseError::fail(format!("command {step}: {why}")))?;
                *reached.borrow_mut().entry(kind(&answer)).or_default() += 1;
            }
            drive.end().await.map_err(|why| TestCaseError::fail(format!("at the end: {why}")))
        })
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let reached = reached.into_inner();
    let missing: Vec<_> = REACHED.iter().filter(|kind| !reached.contains_key(**kind)).collect();
    assert!(cases < CASES || missing.is_empty(), "no list came to {missing:?}: {reached:#?}");
    println!("{reached:#?}");
}
