//! Nothing that was acknowledged is lost, nothing was invented, and every end is explained.

use super::Findings;
use crate::book::Deed;
use crate::evidence::{Event, Evidence, Job};
use crate::plan::{DENIED, Source, TOMORROW_MS, Target, Way};
use crate::support::fake::Fault;
use std::collections::{BTreeMap, BTreeSet};

pub fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    acknowledged(evidence, findings);
    keys(evidence, findings);
    invented(evidence, findings);
    loads(evidence, findings);
    for job in evidence.jobs.values() {
        explained(evidence, job, findings);
    }
}

fn acknowledged(evidence: &Evidence<'_>, findings: &mut Findings) {
    for said in &evidence.book.acknowledged {
        let request = &evidence.plan.requests[said.request];
        let Some(id) = said.id else {
            let known = request.key.as_ref().is_some_and(|key| evidence.keys.iter().any(|row| row.key == *key));
            if !known {
                findings.add(&[], format!("an insert was acknowledged and is not there: {request:?}"));
            }
            continue;
        };
        match evidence.jobs.get(&id) {
            None => findings.add(&[id], format!("was acknowledged and is not there: {request:?}")),
            Some(job)
                if !evidence.requests_of(job).any(|(index, _)| index == said.request || request.key.is_some()) =>
            {
                let same = evidence.scene.source_of(request) == job.source
                    && evidence.scene.target_of(request) == job.destination;
                if !same {
                    findings.add(&[id], format!("was acknowledged as {request:?}, but is {job:?}"));
                }
            }
            Some(_) => {}
        }
    }
}

/// One key, one job.
fn keys(evidence: &Evidence<'_>, findings: &mut Findings) {
    let mut owners: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for job in evidence.jobs.values() {
        if let Some(key) = &job.idempotency_key {
            owners.entry(key).or_default().push(job.id);
        }
    }
    for row in &evidence.keys {
        owners.entry(&row.key).or_default().push(row.job_id);
    }
    for said in &evidence.book.acknowledged {
        if let (Some(key), Some(id)) = (&evidence.plan.requests[said.request].key, said.id) {
            owners.entry(key).or_default().push(id);
        }
    }
    for (key, owners) in owners {
        let owners: BTreeSet<i64> = owners.into_iter().collect();
        if owners.len() > 1 {
            findings.add(&owners.into_iter().collect::<Vec<_>>(), format!("all have the idempotency key {key}"));
        }
    }
}

/// No row that nobody asked for, and none more often than it was asked for.
fn invented(evidence: &Evidence<'_>, findings: &mut Findings) {
    let mut asked = vec![0_usize; evidence.plan.requests.len()];
    for exit in &evidence.book.exits {
        if let Deed::Ask { group } = exit.deed {
            for request in &evidence.plan.groups[group].requests {
                asked[*request] += 1;
            }
        }
    }
    let mut rows: BTreeMap<(&str, &str), Vec<i64>> = BTreeMap::new();
    for job in evidence.jobs.values() {
        rows.entry((&job.source, &job.destination)).or_default().push(job.id);
    }
    for ((source, destination), ids) in rows {
        let times: usize = evidence.requests_of(&evidence.jobs[&ids[0]]).map(|(index, _)| asked[index]).sum();
        if ids.len() > times {
            findings.add(&ids, format!("{source} to {destination} was asked for {times} times only"));
        }
    }
}

/// A list that was loaded again after it was interrupted added only what was missing: each line is there once for each load
/// that was finished, and once more when the last load of a list was not.
fn loads(evidence: &Evidence<'_>, findings: &mut Findings) {
    let groups = evidence.plan.groups.iter().enumerate().filter(|(_, group)| group.way == Way::Load);
    let is_unfinished = |group: usize| {
        let runs = evidence.book.exits.iter().filter(|exit| exit.deed == Deed::Ask { group });
        runs.max_by_key(|exit| exit.started_ms).is_some_and(|exit| exit.output.code() != Some(0))
    };
    let unfinished = groups.map(|(group, _)| group).any(is_unfinished);
    let mut lines: BTreeMap<(&str, &str), Vec<i64>> = BTreeMap::new();
    for job in evidence.jobs.values() {
        if let Some(line) = job.idempotency_key.as_deref().and_then(line_of) {
            lines.entry(line).or_default().push(job.id);
        }
    }
    for ((hash, line), ids) in lines {
        let finished = evidence.finished_loads.iter().filter(|load| *load == hash).count();
        if ids.len() > finished + usize::from(unfinished) {
            let times = ids.len();
            findings.add(&ids, format!("line {line} of list {hash} is there {times} times after {finished} loads"));
        }
    }
}

/// The list and the line that a key of the program's own names: `file:HASH:LOAD:LINE`.
fn line_of(key: &str) -> Option<(&str, &str)> {
    let mut parts = key.strip_prefix("file:")?.split(':');
    Some((parts.next()?, parts.nth(1)?))
}

/// The end of a job is one that its history allows.
fn explained(evidence: &Evidence<'_>, job: &Job, findings: &mut Findings) {
    let last = evidence.events_of(job.id).filter(|event| event.from_state.as_ref() != Some(&event.to_state)).last();
    let Some(last) = last else { return };
    let retried = evidence.book.retries.contains(&job.id) || evidence.book.failed_retried;
    if job.generation > 1 && !retried {
        findings.add(&[job.id], "has a second generation, but nobody asked for a retry");
    }
    let why = match job.state.as_str() {
        "completed" => completed(evidence, job, last),
        "cancelled" if evidence.book.cancels.contains(&job.id) => None,
        "cancelled" => Some("is cancelled, but nobody asked for that".to_owned()),
        "failed" => failed(evidence, job, last),
        // Asked for at a time that has not come.
        "scheduled" if evidence.requests_of(job).any(|(_, request)| request.delay_ms == Some(TOMORROW_MS)) => None,
        other => Some(format!("is still {other} after everything was drained")),
    };
    if let Some(why) = why {
        findings.add(&[job.id], why);
    }
}

/// It reported a digest that its source named while the attempt ran.
fn completed(evidence: &Evidence<'_>, job: &Job, last: &Event) -> Option<String> {
    let attempts = evidence.attempts_of(job.id);
    let attempt = attempts.iter().rfind(|attempt| attempt.end.is_some_and(|end| end.seq == last.seq))?;
    let digests = evidence.digests(job, attempt.claim.at - 2, last.at + 2);
    let reported = last.digest();
    if reported.as_ref().is_none_or(|digest| !digests.contains(digest)) {
        return Some(format!("reported {reported:?}, its source named {digests:?} while it ran"));
    }
    let row: serde_json::Value =
        job.report.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    (row["digest"].as_str() != reported.as_deref()).then(|| "its row and its event report different digests".to_owned())
}

/// It failed for a reason that this round gave it.
fn failed(evidence: &Evidence<'_>, job: &Job, last: &Event) -> Option<String> {
    let planned = |fits: &dyn Fn(&crate::plan::Request) -> bool| evidence.requests_of(job).any(|(_, one)| fits(one));
    let denied = |request: &crate::plan::Request| matches!(&request.target, Target::Registry { repository, .. } if repository == DENIED);
    let class = job.failure_class.as_deref().unwrap_or("none");
    let allowed = match class {
        "superseded" => superseded(evidence, job, last),
        "denied" => planned(&denied),
        "absent" => planned(&|request| request.source == Source::Absent),
        "rejected" => planned(&|request| request.source == Source::Unparsable),
        "retryable" => last.attempt == job.max_attempts,
        "corrupt" => evidence.plan.faults.iter().any(|(_, _, fault)| matches!(fault, Fault::WrongBytes)),
        "poison" => {
            let expired = |event: &&Event| event.is_expiry() && event.generation == job.generation;
            let expired = evidence.events_of(job.id).filter(expired).count();
            expired as u64 >= evidence.plan.poison_limit
        }
        _ => false,
    };
    let message = job.failure_message.as_deref().unwrap_or_default();
    (!allowed).then(|| format!("failed as {class}, for no reason that this round gave it: {message}"))
}

/// A job for the same target that was asked for later was completed before.
fn superseded(evidence: &Evidence<'_>, job: &Job, last: &Event) -> bool {
    let newer = |other: &&Job| {
        other.id != job.id
            && other.dest_key == job.dest_key
            && evidence.events_of(other.id).any(|event| event.is_completion() && event.seq < last.seq)
            && (other.asked_seq, other.id) > (job.asked_seq, job.id)
    };
    job.generation == 1 && evidence.jobs.values().any(|other| newer(&other))
}
