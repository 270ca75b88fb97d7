//! The destination whole: every tag names what is there to its last byte, and it is what the newest completed job reported.

use super::Findings;
use crate::evidence::{Attempt, Evidence, Job};
use crate::support::content::Algorithm;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Clocks of a process and of this one are read at slightly different moments, milliseconds.
const SLACK_MS: i64 = 5;

/// Where content lies.
enum Place<'a> {
    Registry { fake: &'a crate::support::fake::Fake, repository: &'a str },
    Layout { folder: &'a Path },
}

impl Place<'_> {
    fn manifest(&self, digest: &str) -> Option<Vec<u8>> {
        match self {
            Self::Registry { fake, repository } => fake.manifest(repository, digest).map(|(_, bytes)| bytes.to_vec()),
            Self::Layout { .. } => self.blob(digest),
        }
    }

    fn blob(&self, digest: &str) -> Option<Vec<u8>> {
        match self {
            Self::Registry { fake, repository } => {
                fake.blob(repository, digest).map(|content| content.to_bytes().to_vec())
            }
            Self::Layout { folder } => std::fs::read(folder.join("blobs").join(digest.replacen(':', "/", 1))).ok(),
        }
    }
}

pub fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    let fake = &evidence.scene.destination;
    let mut tags: BTreeMap<String, String> = BTreeMap::new();
    for repository in fake.repositories() {
        let place = Place::Registry { fake, repository: &repository };
        for tag in fake.tags(&repository) {
            let digest = fake.digest_of(&repository, &tag).unwrap_or_default();
            whole(&place, &digest, &format!("{repository}:{tag}"), findings);
            tags.insert(fake.reference(&repository, &tag), digest);
        }
    }
    let folder = evidence.scene.layout();
    if folder.exists() {
        let place = Place::Layout { folder: &folder };
        for (tag, digest) in entries(&folder, findings) {
            whole(&place, &digest, &format!("the layout's {tag}"), findings);
            if tags.insert(format!("oci:{}:{tag}", folder.display()), digest).is_some() {
                findings.add(&[], format!("the layout names {tag} twice"));
            }
        }
    }
    let mut targets: BTreeMap<&str, Vec<&Job>> = BTreeMap::new();
    for job in evidence.jobs.values() {
        targets.entry(&job.destination).or_default().push(job);
    }
    for (target, jobs) in &targets {
        current(evidence, target, jobs, tags.get(*target), findings);
    }
    for tag in tags.keys().filter(|tag| !targets.contains_key(tag.as_str())) {
        findings.add(&[], format!("{tag} was written, and nobody asked for it"));
    }
}

/// What the layout's index names.
fn entries(folder: &Path, findings: &mut Findings) -> Vec<(String, String)> {
    let index: Value = match std::fs::read(folder.join("index.json")).map(|bytes| serde_json::from_slice(&bytes)) {
        Ok(Ok(index)) => index,
        // It is written last; nothing was published yet.
        Err(_) => return Vec::new(),
        Ok(Err(error)) => {
            findings.add(&[], format!("the layout's index.json is damaged: {error}"));
            return Vec::new();
        }
    };
    let name = |entry: &Value| entry["annotations"]["org.opencontainers.image.ref.name"].as_str().map(str::to_owned);
    let digest = |entry: &Value| entry["digest"].as_str().unwrap_or_default().to_owned();
    index["manifests"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| Some((name(entry)?, digest(entry))))
        .collect()
}

/// The manifest and everything it names is there, with the right digest.
fn whole(place: &Place<'_>, digest: &str, name: &str, findings: &mut Findings) {
    let fits = |bytes: &[u8], digest: &str| Algorithm::of(digest).is_some_and(|kind| kind.digest(bytes) == digest);
    let Some(bytes) = place.manifest(digest) else {
        return findings.add(&[], format!("{name} lacks the manifest {digest}"));
    };
    if !fits(&bytes, digest) {
        return findings.add(&[], format!("{name}: the manifest {digest} has other bytes"));
    }
    let manifest: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let list = |field: &str| manifest[field].as_array().cloned().unwrap_or_default();
    let digest_of = |descriptor: &Value| descriptor["digest"].as_str().unwrap_or_default().to_owned();
    for child in list("manifests") {
        whole(place, &digest_of(&child), name, findings);
    }
    for blob in list("layers").iter().chain(manifest.get("config")) {
        let digest = digest_of(blob);
        match place.blob(&digest) {
            None => findings.add(&[], format!("{name} lacks the blob {digest}")),
            Some(bytes) if !fits(&bytes, &digest) => {
                findings.add(&[], format!("{name}: the blob {digest} has other bytes"));
            }
            Some(_) => {}
        }
    }
}

/// The tag is what the newest completed job for the target reported, or what an attempt wrote that came to no good end.
fn current(evidence: &Evidence<'_>, target: &str, jobs: &[&Job], tag: Option<&String>, findings: &mut Findings) {
    let ids: Vec<i64> = jobs.iter().map(|job| job.id).collect();
    let completed = evidence.events.iter().rfind(|event| event.is_completion() && ids.contains(&event.job_id));
    let Some(tag) = tag else {
        if completed.is_some() {
            findings.add(&ids, format!("{target} is not there, although it was completed"));
        }
        return;
    };
    if completed.is_some_and(|event| event.digest().as_ref() == Some(tag)) {
        return;
    }
    let completed_seq = completed.map_or(0, |event| event.seq);
    let could_write = |attempt: &Attempt<'_>, job: &Job| {
        let end = attempt.end.map_or(i64::MAX, |end| end.at);
        evidence.digests(job, attempt.claim.at - SLACK_MS, end + SLACK_MS).contains(tag)
    };
    let attempts: Vec<_> =
        jobs.iter().flat_map(|job| evidence.attempts_of(job.id).into_iter().map(move |a| (*job, a))).collect();
    let wrote: Vec<_> = attempts.iter().filter(|(job, attempt)| could_write(attempt, job)).collect();
    // Published, and then its worker died, or was told to stop: what follows it wrote nothing.
    let set_ms = set_ms(evidence, target);
    let ended_after = |attempt: &Attempt<'_>| {
        attempt.end.is_none_or(|end| {
            let superseded = end.detail("/failure_class") == "superseded";
            end.seq > completed_seq && !superseded && set_ms.is_none_or(|set| set <= end.at + SLACK_MS)
        })
    };
    if !wrote.iter().any(|(_, attempt)| ended_after(attempt)) {
        // A layout does not tell when: then any moment will do.
        late(evidence, target, &wrote, set_ms.unwrap_or(i64::MAX - SLACK_MS), findings);
    }
}

/// When the tag was set last; None for a layout, which does not tell.
fn set_ms(evidence: &Evidence<'_>, target: &str) -> Option<i64> {
    let destination = &evidence.scene.destination;
    let history = destination.tag_history();
    let of_target = history.iter().rfind(|set| destination.reference(&set.repository, &set.tag) == target);
    of_target.map(|set| set.at_ms)
}

/// The tag was set by an attempt whose lease had ended. An event records that; a worker that died over it cannot
/// say so, and a job that is removed has no events.
fn late(evidence: &Evidence<'_>, target: &str, wrote: &[&(&Job, Attempt<'_>)], set_ms: i64, findings: &mut Findings) {
    let ids: Vec<i64> = wrote.iter().map(|(job, _)| job.id).collect();
    let recorded = |job: &Job| {
        let says = |reason: &String| reason.contains("late");
        evidence.events_of(job.id).any(|event| event.reason.as_ref().is_some_and(says))
    };
    let died = |attempt: &Attempt<'_>| {
        let worker = attempt.claim.worker.as_ref();
        worker.and_then(|worker| evidence.killed_ms.get(worker)).is_some_and(|killed| *killed <= set_ms + SLACK_MS)
    };
    let expired = |attempt: &Attempt<'_>| attempt.end.is_some_and(|end| end.is_expiry() && end.at <= set_ms + SLACK_MS);
    let mut late = wrote.iter().filter(|(_, attempt)| expired(attempt)).peekable();
    if late.peek().is_none() {
        let text = format!("{target} is not what the newest completed job reported; it was set at {set_ms}");
        findings.add(&ids, text);
    } else if late.any(|(job, attempt)| recorded(job) || died(attempt) || job.is_pruned()) {
        findings.late += 1;
    } else {
        findings.add(&ids, format!("{target} was set late, at {set_ms}, by a worker that lives; no event records it"));
    }
}
