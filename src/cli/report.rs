//! What became of a copy, in words and as an error.

use super::error::{Error, Result};
use super::output::{Output, bytes};
use super::when::spoken;
use crate::job::{Failure, Job, Report, State};
use crate::worker::Worked;
use crate::worker::watch::Totals;
use serde::Serialize;
use std::time::Duration;

/// Prints the finished job: the object for programs; for people what was done when it was completed.
///
/// # Errors
/// The job failed or was cancelled (the error says why), or stdout cannot be written.
pub fn finished(output: &mut Output, job: &Job, totals: &Totals) -> Result {
    if output.format().is_json() {
        output.json(job)?;
    } else if let (State::Completed, Some(report)) = (job.state, &job.report) {
        completed(output, job, report, totals)?;
    }
    match outcome(job) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// The error that a finished job means; None for a completed one.
#[must_use]
pub fn outcome(job: &Job) -> Option<Error> {
    let Job { id, source, destination, .. } = job;
    match (job.state, &job.failure) {
        (State::Completed, _) => None,
        (State::Cancelled, _) => {
            Some(Error::failed("cancelled", format!("job {id} was cancelled: {source} -> {destination}")))
        }
        (_, Some(failure)) => {
            let error = Error::failed(&failure.class, format!("job {id} failed: {}", reason(failure)));
            Some(error.hint(format!("when the cause is gone: freightliner jobs retry {id}")))
        }
        (state, None) => Some(Error::failed("failed", format!("job {id} is {state}: {source} -> {destination}"))),
    }
}

/// Why an attempt failed, on one line.
#[must_use]
pub fn reason(failure: &Failure) -> String {
    format!("{} ({}): {}", failure.stage, failure.class, failure.message)
}

fn completed(output: &mut Output, job: &Job, report: &Report, totals: &Totals) -> Result {
    let took = match (job.started_at, job.finished_at) {
        (Some(started), Some(finished)) => finished.since(started),
        _ => Duration::ZERO,
    };
    let Job { id, source, destination, .. } = job;
    if report.already_present {
        output.line(&format!("already there: {destination} is {source} (job {id})"))?;
    } else {
        output.line(&format!("copied {source} to {destination} (job {id})"))?;
    }
    let mut pairs = vec![("digest", report.digest.clone())];
    if let Some(index) = &report.rewritten_from {
        pairs.push(("made from", format!("{index}, for the platforms that were asked for")));
    }
    if report.verified {
        let found = match report.healed {
            0 => "everything below is there".to_owned(),
            healed => {
                format!("{} missing below it, brought", count(usize::try_from(healed).unwrap_or(usize::MAX), "part"))
            }
        };
        pairs.push(("verified", found));
    }
    if report.referrers_pushed > 0 {
        pairs.push(("referrers", format!("{} pushed", report.referrers_pushed)));
    }
    if !report.already_present || report.referrers_pushed > 0 {
        pairs.push(("manifests", format!("{} pushed", report.manifests_pushed)));
        pairs.push(("blobs", blobs(report)));
        pairs.push((
            "bytes",
            format!("{} copied, {}/s", bytes(report.bytes_copied), bytes(speed(report.bytes_copied, took))),
        ));
        pairs.extend(saved(totals));
    }
    pairs.push(("time", spoken(took)));
    pairs.push(("requests", report.requests.to_string()));
    output.pairs(&pairs)
}

/// What was not sent, when there is such.
fn saved(totals: &Totals) -> Option<(&'static str, String)> {
    let saved = totals.bytes_saved;
    (saved > 0).then(|| ("saved", format!("{} not sent: mounted or already there", bytes(saved))))
}

#[derive(Serialize)]
struct Run<'a> {
    #[serde(flatten)]
    worked: &'a Worked,
    #[serde(flatten)]
    totals: &'a Totals,
    duration_ms: u64,
}

/// Prints what a run of workers did: how the jobs ended, and, where something was done, what it cost and saved.
///
/// # Errors
/// Stdout cannot be written.
pub fn run(output: &mut Output, worked: &Worked, totals: &Totals, took: Duration) -> Result {
    if output.format().is_json() {
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        return output.json(&Run { worked, totals, duration_ms });
    }
    let Worked { completed, failed, cancelled, released, retried } = worked;
    output.line(&format!(
        "{completed} completed, {failed} failed, {cancelled} cancelled, {released} released, {retried} retried"
    ))?;
    if *totals == Totals::default() {
        return Ok(());
    }
    let Totals { images_copied, images_present, blobs_copied, blobs_mounted, blobs_present, blobs_resumed, .. } =
        *totals;
    let report = Report { blobs_copied, blobs_mounted, blobs_present, blobs_resumed, ..Report::default() };
    let rate = bytes(speed(totals.bytes_sent, took));
    let mut pairs = vec![
        ("images", format!("{images_copied} copied, {images_present} already there")),
        ("blobs", blobs(&report)),
        ("bytes", format!("{} sent, {rate}/s", bytes(totals.bytes_sent))),
    ];
    pairs.extend(saved(totals));
    pairs.push(("requests", totals.requests.to_string()));
    pairs.push(("time", spoken(took)));
    output.pairs(&pairs)
}

/// What happened to the blobs, the parts that are zero left out.
#[must_use]
pub fn blobs(report: &Report) -> String {
    let parts = [
        (report.blobs_copied, "copied"),
        (report.blobs_mounted, "mounted"),
        (report.blobs_present, "already there"),
        (report.blobs_resumed, "resumed"),
    ];
    let parts: Vec<_> =
        parts.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

/// `1 blob`, `2 blobs`.
#[must_use]
pub fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Bytes a second; a copy too short to be measured counts as a millisecond.
#[must_use]
pub fn speed(bytes: u64, took: Duration) -> u64 {
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1000) / ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_in_words() {
        let report = Report { blobs_copied: 2, blobs_present: 1, ..Report::default() };
        assert_eq!(blobs(&report), "2 copied, 1 already there");
        assert_eq!(blobs(&Report::default()), "none");
        assert_eq!(speed(1000, Duration::ZERO), 1_000_000);
        assert_eq!(speed(3000, Duration::from_secs(2)), 1500);
    }
}
