//! What operators said holds: limits of queues and registries, pauses, times, and the record of what was removed.
//!
//! Who runs beside whom is told by the order of the events. Changes of queues are numbered apart from events, so there the
//! clock that both have decides: a change that may have been unseen by a claim does not count against it.

use super::Findings;
use crate::evidence::{Change, Event, Evidence};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Times in events and rows are rounded differently, milliseconds.
const ROUNDING_MS: i64 = 5;

pub fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    queues(evidence, findings);
    registry(evidence, findings);
    pauses(evidence, findings);
    times(evidence, findings);
    pruned(evidence, findings);
}

/// What may have held for a queue when something was claimed at this time: paused or not, and the limit.
fn in_force(changes: &[&Change], from_ms: i64, to_ms: i64) -> Vec<(bool, Option<i64>)> {
    let state = |change: &&&Change| (change.paused_at.is_some(), change.max_running);
    let before = changes.iter().rfind(|change| change.at < from_ms).as_ref().map_or((false, None), state);
    let within = changes.iter().filter(|change| (from_ms..=to_ms).contains(&change.at));
    std::iter::once(before).chain(within.map(|change| state(&change))).collect()
}

/// A queue never claims beyond its limit, and nothing while it is paused. No job changes its queue in these rounds.
fn queues(evidence: &Evidence<'_>, findings: &mut Findings) {
    let lag = evidence.scene.shell.lag_ms();
    let mut changes: BTreeMap<&str, Vec<&Change>> = BTreeMap::new();
    for change in &evidence.changes {
        changes.entry(&change.queue).or_default().push(change);
    }
    let mut running: HashMap<&str, i64> = HashMap::new();
    for event in &evidence.events {
        let Some(job) = evidence.jobs.get(&event.job_id) else { continue };
        let now = running.entry(&job.queue).or_default();
        *now += i64::from(event.is_claim()) - i64::from(event.is_end());
        let Some(changes) = changes.get(job.queue.as_str()).filter(|_| event.is_claim()) else { continue };
        let allowed = in_force(changes, event.at - lag, event.at);
        if allowed.iter().all(|(paused, _)| *paused) {
            findings.add(&[job.id], format!("event {}: claimed while queue {} is paused", event.seq, job.queue));
        }
        if allowed.iter().all(|(_, limit)| limit.is_some_and(|limit| *now > limit)) {
            let text = format!("event {}: {now} jobs of queue {} run, allowed was {allowed:?}", event.seq, job.queue);
            findings.add(&[job.id], text);
        }
    }
}

/// The destination is never written by more jobs than the configuration allows.
fn registry(evidence: &Evidence<'_>, findings: &mut Findings) {
    let Some(limit) = evidence.plan.registry_limit else { return };
    let authority = evidence.scene.destination.authority();
    let mut running: BTreeSet<i64> = BTreeSet::new();
    for event in &evidence.events {
        let writes_there = |job: &crate::evidence::Job| job.dest_registry.as_deref() == Some(authority.as_str());
        if !evidence.jobs.get(&event.job_id).is_some_and(writes_there) {
            continue;
        }
        if event.is_claim() {
            running.insert(event.job_id);
            if running.len() as u64 > limit {
                let text = format!("event {}: {} jobs for {authority} run, {limit} may", event.seq, running.len());
                findings.add(&running.iter().copied().collect::<Vec<_>>(), text);
                return;
            }
        } else if event.is_end() {
            running.remove(&event.job_id);
        }
    }
}

/// What a job's own events say ends a pause, and makes its time pass.
fn begins_anew(event: &Event) -> bool {
    // Plain SQL may have a paused job wait for a worker in one statement; the database sees to it that the pause ends then.
    let by_sql = (event.from_state.as_deref(), event.to_state.as_str()) == (Some("scheduled"), "pending");
    matches!(event.reason.as_deref(), Some("operator retry" | "an equal job was asked for"))
        || by_sql && event.reason.as_deref() == Some("plain SQL")
        || event.to_state == "cancelled"
        || matches!(event.from_state.as_deref(), Some("completed" | "failed" | "cancelled"))
}

/// No paused job is claimed, nor made ready.
fn pauses(evidence: &Evidence<'_>, findings: &mut Findings) {
    let mut paused: BTreeSet<i64> = BTreeSet::new();
    for event in &evidence.events {
        match event.reason.as_deref() {
            Some("paused") => drop(paused.insert(event.job_id)),
            Some("resumed") => drop(paused.remove(&event.job_id)),
            _ if begins_anew(event) => drop(paused.remove(&event.job_id)),
            _ if paused.contains(&event.job_id)
                && (event.to_state == "running" || event.reason.as_deref() == Some("due")) =>
            {
                findings.add(&[event.job_id], format!("event {}: it is paused", event.seq));
            }
            _ => {}
        }
    }
}

/// Nothing is claimed before the time that its last change gave it.
fn times(evidence: &Evidence<'_>, findings: &mut Findings) {
    let mut not_before: HashMap<i64, i64> = HashMap::new();
    for event in &evidence.events {
        if begins_anew(event) {
            not_before.remove(&event.job_id);
        } else if event.is_claim() {
            let early = not_before.remove(&event.job_id).map_or(0, |time| time - event.at);
            if early > ROUNDING_MS {
                findings.add(&[event.job_id], format!("event {}: claimed {early} ms before its time", event.seq));
            }
        } else if let Some(time) = event.detail("/run_at").as_i64() {
            not_before.insert(event.job_id, time);
        }
    }
}

/// Who is gone is on record, once and as what it was, and whoever is on record is gone with all that belonged to it.
fn pruned(evidence: &Evidence<'_>, findings: &mut Findings) {
    let gone: BTreeMap<i64, &str> =
        evidence.jobs.values().filter(|job| job.is_pruned()).map(|job| (job.id, job.state.as_str())).collect();
    let mut recorded: BTreeMap<i64, &str> = BTreeMap::new();
    for record in &evidence.prunes {
        if recorded.insert(record.job_id, &record.state).is_some() {
            findings.add(&[record.job_id], "is twice in audit_prunes");
        }
        let why = match gone.get(&record.job_id) {
            None => "is in audit_prunes and not gone",
            Some(state) if *state != record.state => "was something else when it was removed",
            Some(_) if !matches!(record.state.as_str(), "completed" | "failed" | "cancelled") => "was not finished",
            Some(_) if !record.actor.starts_with("cli:") || record.reason != "retention" => {
                "was removed by nobody known"
            }
            Some(_) => continue,
        };
        findings.add(&[record.job_id], format!("{why}: {record:?}"));
    }
    for id in gone.keys().filter(|id| !recorded.contains_key(id)) {
        findings.add(&[*id], "is gone, and not in audit_prunes");
    }
    for (id, what) in &evidence.remains {
        findings.add(&[*id], format!("was removed, but not its {what}"));
    }
    let youngest = evidence.plan.prunes().min();
    for record in &evidence.prunes {
        let age = record.at.saturating_sub(record.finished_at.unwrap_or(i64::MAX));
        if youngest.is_none_or(|youngest| age + ROUNDING_MS < youngest) {
            findings.add(&[record.job_id], format!("was removed {age} ms after its end; asked for was {youngest:?}"));
        }
    }
}
