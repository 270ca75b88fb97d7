//! What must not be left, how processes ended, and whether the database is sound.

use super::Findings;
use crate::book::{Deed, Exit};
use crate::evidence::{Evidence, Job};
use crate::plan::{Hit, Way};
use rustix::process::Signal;
use serde_json::Value;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};

pub fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    for exit in &evidence.book.exits {
        if let Some(why) = badly_ended(evidence, exit) {
            let text = format!("{why}: {}\n{}\n{}", exit.label, exit.log.display(), exit.output);
            findings.add(&[], text);
        }
    }
    files(evidence, findings);
    for table in ["workers", "temp_files"] {
        let rows: Vec<Value> = evidence.scene.shell.rows(&format!("SELECT * FROM {table}"));
        for row in rows {
            findings.add(&[], format!("a row is left in {table}: {row}"));
        }
    }
    let integrity = evidence.scene.shell.integrity();
    if integrity != "ok" {
        findings.add(&[], format!("the database is not sound: {integrity}"));
    }
    let check = evidence.scene.start(&["db", "check"]).finish();
    if check.code() != Some(0) {
        findings.add(&[], format!("db check found something: {check}"));
    }
}

/// Temporary files and locks of all hosts and of the layout.
fn files(evidence: &Evidence<'_>, findings: &mut Findings) {
    for host in 0..evidence.plan.hosts {
        let state = evidence.scene.state(host);
        for path in ["tmp", "workers"].into_iter().flat_map(|name| below(&state.join(name))) {
            findings.add(&[], format!("{} is left", path.display()));
        }
    }
    let temporary = evidence.scene.layout().join(".freightliner-tmp");
    if temporary.exists() {
        findings.add(&[], format!("{} is left", temporary.display()));
    }
}

/// Everything below a folder, folders too.
fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.flat_map(|entry| [vec![entry.path()], below(&entry.path())].concat()).collect()
}

/// Why a process should not have ended like this; None when it may.
fn badly_ended(evidence: &Evidence<'_>, exit: &Exit) -> Option<String> {
    if exit.was(Hit::Kill) {
        return None;
    }
    let (code, signal) = (exit.output.code(), exit.output.status.signal());
    let terms: Vec<_> = exit.blows.iter().filter(|blow| blow.hit == Hit::Term).collect();
    // 143 of the program itself, or of a shell for it.
    let by_term = code == Some(143) || signal == Some(Signal::TERM.as_raw());
    let well = match exit.deed {
        Deed::Work { .. } if terms.is_empty() => return Some("a worker ended that nobody had asked to".to_owned()),
        // Before it is ready a signal may simply end it; a second one aborts.
        Deed::Work { .. } => code == Some(0) || by_term && (terms.len() > 1 || !terms[0].ready),
        Deed::Drain => code == Some(i32::from(failed_since(evidence, exit.started_ms))),
        Deed::Ask { group } if evidence.plan.groups[group].way == Way::Replicate => {
            let ended = |states: &[&str]| replicated(evidence, group, states);
            match code {
                Some(0) => ended(&["completed"]),
                // Its job may be removed before it has seen the end.
                Some(1) => {
                    ended(&["failed", "cancelled"])
                        || removed(evidence, group) && exit.output.errors().contains("not found")
                }
                _ => by_term && !terms.is_empty(),
            }
        }
        Deed::SteerJob { id } if code == Some(1) => evidence.jobs.get(&id).is_some_and(Job::is_pruned),
        Deed::Ask { .. } | Deed::Steer | Deed::SteerJob { .. } => code == Some(0) || by_term && !terms.is_empty(),
    };
    (!well).then(|| format!("ended with code {code:?}, signal {signal:?}"))
}

/// Jobs that this command can have followed.
fn followed<'b>(evidence: &'b Evidence<'_>, group: usize) -> impl Iterator<Item = &'b Job> {
    let request = &evidence.plan.requests[evidence.plan.groups[group].requests[0]];
    let (source, target) = (evidence.scene.source_of(request), evidence.scene.target_of(request));
    evidence.jobs.values().filter(move |job| job.source == source && job.destination == target)
}

fn replicated(evidence: &Evidence<'_>, group: usize, states: &[&str]) -> bool {
    let ended = |job: &Job| evidence.events_of(job.id).any(|event| states.contains(&event.to_state.as_str()));
    followed(evidence, group).any(ended)
}

fn removed(evidence: &Evidence<'_>, group: usize) -> bool {
    followed(evidence, group).any(Job::is_pruned)
}

/// A job failed for good while this ran.
fn failed_since(evidence: &Evidence<'_>, since_ms: i64) -> bool {
    evidence.events.iter().any(|event| {
        event.to_state == "failed" && event.from_state.as_deref() != Some("failed") && event.at >= since_ms
    })
}
