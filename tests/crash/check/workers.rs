//! No stale write: what workers say they wrote is in the history as theirs, and what they dropped is not.

use super::Findings;
use crate::evidence::{Evidence, Said};
use std::collections::BTreeMap;

pub fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    ends(evidence, findings);
    transfers(evidence, findings);
}

/// Every end that a worker logged as written is an event of that worker; every lease that it lost was taken from it.
fn ends(evidence: &Evidence<'_>, findings: &mut Findings) {
    let mut said: BTreeMap<&Said, usize> = BTreeMap::new();
    for one in &evidence.said {
        *said.entry(one).or_default() += 1;
    }
    for (one, times) in said {
        let theirs = evidence.events_of(one.job).filter(|event| {
            event.is_end() && event.worker.as_ref() == Some(&one.worker) && event.attempt == one.attempt
        });
        let written = match &one.state {
            Some(state) => theirs.filter(|event| !event.is_expiry() && event.to_state == *state).count(),
            None => theirs.filter(|event| event.is_expiry()).count(),
        };
        if written < times {
            let what = one.state.as_deref().unwrap_or("lost");
            let text = format!(
                "worker {} logged the end of attempt {} as {what} {times} times, the history has {written}",
                one.worker, one.attempt
            );
            findings.add(&[one.job], text);
        }
    }
}

/// Transfers belong to an attempt that was ended by its own worker.
fn transfers(evidence: &Evidence<'_>, findings: &mut Findings) {
    for transfer in &evidence.transfers {
        let of_attempt = evidence.attempts_of(transfer.job_id).into_iter().find(|attempt| {
            attempt.claim.lease_epoch == transfer.lease_epoch && attempt.claim.attempt == transfer.attempt
        });
        match of_attempt.and_then(|attempt| attempt.end) {
            None => findings.add(&[transfer.job_id], format!("has a transfer of no attempt: {transfer:?}")),
            Some(end) if end.is_expiry() => {
                findings.add(&[transfer.job_id], format!("a late worker wrote a transfer: {transfer:?}"));
            }
            Some(_) => {}
        }
    }
}
