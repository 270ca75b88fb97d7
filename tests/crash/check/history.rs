//! The history of each job alone, replayed from nothing: it must lead to the row.

use super::Findings;
use crate::evidence::{Event, Evidence, Job};
use freightliner::job::State;
use std::collections::HashMap;

/// A job as its events so far say.
#[derive(Debug)]
struct Replayed {
    state: String,
    generation: i64,
    epoch: i64,
    /// None: the event does not tell what an early end did with it.
    attempt: Option<i64>,
    worker: Option<String>,
}

pub fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    let mut replayed: HashMap<i64, Replayed> = HashMap::new();
    let mut completions: HashMap<(i64, i64), usize> = HashMap::new();
    for event in &evidence.events {
        let Some(job) = evidence.jobs.get(&event.job_id) else {
            findings.add(&[event.job_id], format!("event {} is of a job that does not exist", event.seq));
            continue;
        };
        if event.is_completion() {
            *completions.entry((event.job_id, event.generation)).or_default() += 1;
        }
        match replay(replayed.remove(&job.id), event, job) {
            Ok(next) => {
                replayed.insert(job.id, next);
            }
            Err(problem) => {
                findings.add(&[job.id], format!("event {}: {problem}", event.seq));
                let next = Replayed {
                    state: event.to_state.clone(),
                    generation: event.generation,
                    epoch: event.lease_epoch,
                    attempt: None,
                    worker: event.worker.clone(),
                };
                replayed.insert(job.id, next);
            }
        }
    }
    for ((job, generation), times) in completions.into_iter().filter(|(_, times)| *times > 1) {
        findings.add(&[job], format!("was completed {times} times in generation {generation}"));
    }
    for job in evidence.jobs.values() {
        match replayed.get(&job.id) {
            None => findings.add(&[job.id], "has no history"),
            Some(replayed) => compare(replayed, job, findings),
        }
    }
}

/// The row is what its history says.
fn compare(replayed: &Replayed, job: &Job, findings: &mut Findings) {
    let said = (&replayed.state, replayed.generation, replayed.epoch);
    let row = (&job.state, job.generation, job.lease_epoch);
    if said != row || replayed.attempt.is_some_and(|attempt| attempt != job.attempt) {
        findings.add(&[job.id], format!("its row is not what its history says: {replayed:?}"));
    }
    if job.worker.is_some() {
        findings.add(&[job.id], "has a worker although nothing runs any more");
    }
}

/// The job after `event`, or why that cannot have happened.
fn replay(before: Option<Replayed>, event: &Event, job: &Job) -> Result<Replayed, String> {
    let worker = event.worker.clone();
    let after = |attempt: Option<i64>, worker: Option<String>| Replayed {
        state: event.to_state.clone(),
        generation: event.generation,
        epoch: event.lease_epoch,
        attempt,
        worker,
    };
    let Some(before) = before else {
        let fresh = event.from_state.is_none()
            && matches!(event.to_state.as_str(), "pending" | "scheduled")
            && (event.generation, event.lease_epoch, event.attempt) == (1, 0, 0);
        return if fresh { Ok(after(Some(0), None)) } else { Err("is no beginning".to_owned()) };
    };
    if event.from_state.as_ref() != Some(&before.state) {
        return Err(format!("starts from {:?}, the one before ended in {}", event.from_state, before.state));
    }
    let (from, to): (State, State) = (parse(&before.state)?, parse(&event.to_state)?);
    if from == to {
        // A remark: nothing of the machine moves.
        let same = (event.generation, event.lease_epoch) == (before.generation, before.epoch);
        return if same { Ok(Replayed { ..before }) } else { Err("changes generation or epoch in place".to_owned()) };
    }
    if !from.may_become(to) {
        return Err(format!("{from} cannot become {to}"));
    }
    let reopened = i64::from(from.is_finished());
    if event.generation != before.generation + reopened {
        return Err(format!("generation {} after {}", event.generation, before.generation));
    }
    let rises = i64::from(event.is_claim() || event.is_expiry());
    if event.lease_epoch != before.epoch + rises {
        return Err(format!("epoch {} after {}, must rise by {rises}", event.lease_epoch, before.epoch));
    }
    if event.is_claim() {
        return claim(&before, event, job).map(|attempt| after(Some(attempt), worker));
    }
    if from == State::Running {
        if worker != before.worker {
            return Err(format!("ends an attempt of {:?}, but {:?} has the job", worker, before.worker));
        }
        if before.attempt.is_some_and(|attempt| attempt != event.attempt) {
            return Err(format!("ends attempt {}, but {:?} runs", event.attempt, before.attempt));
        }
        let refunded = Some((event.attempt - 1).max(0));
        return Ok(match to {
            State::Pending => after(refunded, None),
            _ if event.is_expiry() => after(refunded, None),
            // It depends on whether the worker gave it back or called it off.
            State::Cancelled => after(None, None),
            _ => after(Some(event.attempt), None),
        });
    }
    let anew = reopened == 1 || event.reason.as_deref() == Some("operator retry");
    Ok(after(if anew { Some(0) } else { before.attempt }, None))
}

fn claim(before: &Replayed, event: &Event, job: &Job) -> Result<i64, String> {
    if event.worker.is_none() {
        return Err("is a claim of nobody".to_owned());
    }
    if before.attempt.is_some_and(|attempt| event.attempt != attempt + 1) {
        return Err(format!("attempt {} after {:?}", event.attempt, before.attempt));
    }
    if event.attempt > job.max_attempts {
        return Err(format!("attempt {} of at most {}", event.attempt, job.max_attempts));
    }
    Ok(event.attempt)
}

fn parse(state: &str) -> Result<State, String> {
    state.parse().map_err(|error| format!("{error}"))
}
