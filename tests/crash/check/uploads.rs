//! What was sent to the destination: only what somebody asked for, with the right digests, and no less than was recorded.

use super::Findings;
use crate::evidence::Evidence;
use crate::scene::pool;
use crate::support::fake::LoggedRequest;
use std::collections::{BTreeMap, BTreeSet};

pub fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    let requests = evidence.scene.destination.requests();
    strangers(evidence, findings);
    for request in requests.iter().filter(|request| is_upload(request) && request.status == Some(400)) {
        findings.add(&[], format!("the destination refused an upload: {} {}", request.method, request.path));
    }
    accounts(evidence, &requests, findings);
}

fn is_upload(request: &LoggedRequest) -> bool {
    request.path.contains("/blobs/uploads/") && matches!(request.method.as_str(), "PUT" | "PATCH" | "POST")
}

/// No blob that no job brought there.
fn strangers(evidence: &Evidence<'_>, findings: &mut Findings) {
    let destination = &evidence.scene.destination;
    for repository in destination.repositories() {
        let prefix = format!("{}/{repository}:", destination.authority());
        let jobs = evidence.jobs.values().filter(|job| job.destination.starts_with(&prefix));
        let digests: BTreeSet<String> = jobs.flat_map(|job| evidence.digests(job, 0, i64::MAX)).collect();
        let images = pool().iter().filter(|image| digests.contains(&image.digest));
        let wanted: BTreeSet<&str> =
            images.flat_map(|image| image.all_blobs()).map(|blob| blob.digest.as_str()).collect();
        for blob in destination.blobs(&repository).iter().filter(|blob| !wanted.contains(blob.as_str())) {
            findings.add(&[], format!("the destination has {blob} in {repository}, which no job wanted there"));
        }
    }
}

/// What the transfers say was copied did arrive: as many uploads of each blob, and as many bytes.
fn accounts(evidence: &Evidence<'_>, requests: &[LoggedRequest], findings: &mut Findings) {
    let destination = &evidence.scene.destination;
    let mut copied: BTreeMap<(&str, &str), (usize, i64, i64)> = BTreeMap::new();
    for transfer in &evidence.transfers {
        if transfer.how == "copied" && transfer.registry == destination.authority() {
            let account = copied.entry((&transfer.repository, &transfer.digest)).or_default();
            *account = (account.0 + 1, account.1 + transfer.bytes, transfer.job_id);
        }
    }
    let mut bytes: BTreeMap<&str, (i64, u64)> = BTreeMap::new();
    for ((repository, digest), (times, sum, job)) in copied {
        bytes.entry(repository).or_default().0 += sum;
        let escaped = digest.replace(':', "%3A");
        let arrived = requests.iter().filter(|request| {
            is_upload(request)
                && request.path.starts_with(&format!("/v2/{repository}/"))
                && (request.path.contains(digest) || request.path.contains(&escaped))
                // None: it took effect, and the answer was lost.
                && matches!(request.status, Some(201 | 204) | None)
        });
        let arrived = arrived.count();
        if arrived < times {
            findings.add(&[job], format!("{digest} was copied {times} times to {repository}, {arrived} arrived"));
        }
    }
    for request in requests.iter().filter(|request| is_upload(request)) {
        for (repository, account) in &mut bytes {
            if request.path.starts_with(&format!("/v2/{repository}/blobs/")) {
                account.1 += request.body_bytes;
            }
        }
    }
    for (repository, (recorded, received)) in bytes {
        if received < u64::try_from(recorded).unwrap_or(u64::MAX) {
            findings.add(&[], format!("{repository} received {received} bytes, {recorded} are recorded as copied"));
        }
    }
}
