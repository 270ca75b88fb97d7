//! The history of all jobs together, in the order of its seq: who runs beside whom, and who comes after whom.

use super::Findings;
use crate::evidence::{Event, Evidence};
use std::collections::{BTreeMap, HashMap};

pub fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    targets(evidence, findings);
    order(evidence, findings);
}

/// Never two running jobs for one target.
fn targets(evidence: &Evidence<'_>, findings: &mut Findings) {
    let mut running: HashMap<&str, i64> = HashMap::new();
    for event in &evidence.events {
        let Some(target) = evidence.jobs.get(&event.job_id).and_then(|job| job.dest_key.as_deref()) else { continue };
        if event.is_claim() {
            if let Some(other) = running.insert(target, event.job_id) {
                let text = format!("event {} claims a job for {target} while another one runs", event.seq);
                findings.add(&[event.job_id, other], text);
            }
        } else if event.is_end() {
            running.remove(target);
        }
    }
}

/// When the copy of a completion was asked for: not before and not after these events. Exact but for generations that are
/// over, whose number nobody kept.
fn asked(evidence: &Evidence<'_>, completion: &Event) -> (i64, i64) {
    let job = &evidence.jobs[&completion.job_id];
    if let (Some(asked), true) = (job.asked_seq, job.generation == completion.generation) {
        return (asked, asked);
    }
    let of_generation = |event: &&Event| event.generation == completion.generation && event.seq < completion.seq;
    let mut events = evidence.events_of(job.id).filter(of_generation);
    let first = events.find(|event| event.to_state == "pending").map_or(0, |event| event.seq);
    let claim = evidence.events_of(job.id).filter(of_generation).filter(|event| event.is_claim()).last();
    (first, claim.map_or(completion.seq, |event| event.seq))
}

/// A job that was asked for earlier never writes a tag after one that was asked for later, unless an operator retried it.
fn order(evidence: &Evidence<'_>, findings: &mut Findings) {
    let mut done: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    for event in evidence.events.iter().filter(|event| event.is_completion()) {
        let Some(target) = evidence.jobs.get(&event.job_id).and_then(|job| job.dest_key.as_deref()) else { continue };
        let earlier = done.entry(target).or_default();
        if event.wrote() && event.generation == 1 {
            let (_, asked_at_most) = asked(evidence, event);
            for before in earlier.iter().filter(|before| asked(evidence, before).0 > asked_at_most) {
                let text = format!(
                    "event {}: job {} wrote {target} after job {} (event {}), which was asked for later",
                    event.seq, event.job_id, before.job_id, before.seq
                );
                findings.add(&[event.job_id, before.job_id], text);
            }
        }
        earlier.push(event);
    }
}
