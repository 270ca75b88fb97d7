//! `replicate SRC DST`: enqueue the copy, work on it here until it is finished, print the report.
//!
//! The row comes first, so the command survives being killed: the job stays, and the next worker goes on with it.

use super::bars::{Bars, TICK};
use super::copy::CopyArgs;
use super::enqueue::print_one;
use super::error::{Error, Result};
use super::output::bytes;
use super::progress::{Display, Mode};
use super::report::count;
use super::{Context, report, tree};
use crate::config::rate;
use crate::daemon::{self, Followed};
use crate::job::NewJob;
use crate::worker::Parts;
use serde::Serialize;
use std::sync::{Mutex, PoisonError};

/// Copy an image and wait until it is there.
#[derive(Debug, clap::Args)]
pub struct ReplicateArgs {
    /// Where from: [docker://]HOST[:PORT]/REPO[:TAG][@DIGEST] or oci:DIR[:TAG].
    #[arg(value_name = "SRC")]
    source: String,
    /// Where to, in the same form.
    #[arg(value_name = "DST")]
    destination: String,
    /// Only put it into the queue and print the job's id.
    #[arg(long)]
    detach: bool,
    /// Blobs moved at a time [default: 4].
    #[arg(long, value_name = "N")]
    concurrency: Option<u64>,
    /// Bytes a second at most, all copies together, such as 50MiB/s; 0 is no limit [default: 0].
    #[arg(long, value_name = "RATE", value_parser = rate)]
    bandwidth: Option<u64>,
    #[command(flatten)]
    copy: CopyArgs,
}

impl ReplicateArgs {
    /// Numbers of the configuration that these flags set.
    #[must_use]
    pub fn numbers(&self) -> Vec<(&'static str, &'static str, u64)> {
        let concurrency = self.concurrency.map(|number| ("copy", "blobs_at_once", number));
        let bandwidth = self.bandwidth.map(|bytes| ("copy", "bandwidth_bytes_per_sec", bytes));
        concurrency.into_iter().chain(bandwidth).collect()
    }
}

/// Does it.
///
/// # Errors
/// Wrong usage; the job failed, was cancelled, or a signal ended the command (the job stays queued then).
pub async fn run(context: &mut Context, arguments: ReplicateArgs) -> Result {
    let ReplicateArgs { source, destination, detach, copy, .. } = arguments;
    if copy.several().is_some() {
        return tree::tags(context, &source, &destination, &copy, detach).await;
    }
    if copy.has_time() && !detach {
        return Err(Error::usage("--at and --in are for jobs that wait in the queue, not for this command")
            .hint("add --detach, or use `freightliner enqueue`"));
    }
    let job = copy.job(context, &source, &destination)?;
    if copy.dry_run {
        return preview(context, &job).await;
    }
    // Nothing is asked for that this command could not even begin.
    context.client()?;
    let store = context.store().await?;
    let parts = if detach { None } else { Some(context.parts(store.clone(), Some(job.queue.clone()))?) };
    if let Some(parts) = &parts {
        // What a killed run of the same command left waits again: this one goes on with it.
        daemon::sweep_by_proof(parts).await?;
    }
    let enqueued = store.enqueue(vec![job], &context.actor()).await?;
    let enqueued = *enqueued.first().ok_or_else(|| Error::failed("backend", "the database gave no id for the job"))?;
    let Some(parts) = parts else {
        return print_one(&mut context.output, enqueued);
    };
    if !enqueued.created {
        context.notes.note(&format!("job {} asks for the same already; following it", enqueued.id));
    }
    let (notes, clock) = (context.notes.clone(), context.clock.clone());
    let watch = parts.watch.clone();
    // Bars and lines of one job tell what it waits for, too.
    let shown = matches!(notes.mode(), Mode::Bars | Mode::Plain);
    let mode = if shown { Mode::None } else { notes.mode() };
    let display = Mutex::new(Display::new(mode, notes, clock, watch.clone()));
    let bars = Mutex::new(Bars::new(enqueued.id, context.notes.clone(), context.clock.clone(), shown));
    match follow(parts, enqueued.id, &bars, &display).await? {
        Followed::Finished(job) => report::finished(&mut context.output, &job, &watch.totals()),
        Followed::Aborted(signal) => {
            context.abandon();
            Err(Error::interrupted(
                signal,
                format!("stopped at once by a second signal: job {} goes on with the next worker", enqueued.id),
            ))
        }
        Followed::Interrupted(signal) => {
            let id = enqueued.id;
            Err(Error::interrupted(
                signal,
                format!("interrupted: job {id} stays queued and goes on with the next worker"),
            )
            .hint(format!("to call it off: freightliner jobs cancel {id}")))
        }
    }
}

/// Works on the job, or watches another worker do it, while the bars move.
async fn follow(parts: Parts, id: i64, bars: &Mutex<Bars>, display: &Mutex<Display>) -> Result<Followed> {
    let with_bars = |act: &dyn Fn(&mut Bars)| {
        // A poisoned bar is still a bar.
        act(&mut bars.lock().unwrap_or_else(PoisonError::into_inner));
    };
    let with_display = |act: &dyn Fn(&mut Display)| act(&mut display.lock().unwrap_or_else(PoisonError::into_inner));
    let mut seen = |seen: daemon::Seen| with_bars(&|bars| bars.see(seen.clone()));
    let mut ticker = tokio::time::interval(TICK);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut followed = std::pin::pin!(daemon::follow(parts, id, &mut seen));
    let outcome = loop {
        // Cancel-safe: the job's future is pinned outside and goes on in the next round.
        tokio::select! {
            outcome = &mut followed => break outcome,
            _ = ticker.tick() => {
                with_bars(&Bars::tick);
                with_display(&Display::tick);
            }
        }
    };
    with_bars(&Bars::clear);
    with_display(&Display::end);
    Ok(outcome?)
}

#[derive(Serialize)]
struct Previewed<'a> {
    source: &'a str,
    destination: &'a str,
    #[serde(flatten)]
    preview: crate::replicate::Preview,
}

/// `--dry-run`: what the copy would do.
///
/// # Errors
/// The source cannot be read, the destination cannot be looked at, or `--no-clobber` would stop the copy.
pub async fn preview(context: &mut Context, job: &NewJob) -> Result {
    let preview = context.engine()?.preview(&job.parsed).await?;
    let NewJob { source, destination, .. } = job;
    let output = &mut context.output;
    if output.format().is_json() {
        return output.json(&Previewed { source, destination, preview });
    }
    output.line(&match (&preview.destination_digest, preview.already_present) {
        (_, true) if preview.referrers > 0 => {
            format!("already there: {destination} is {source}, without all referrers")
        }
        (_, true) => format!("already there: {destination} is {source}; nothing would be done"),
        (Some(digest), _) if *digest != preview.digest => format!("would copy {source} and move {destination}"),
        _ => format!("would copy {source} to {destination}"),
    })?;
    let counted = |number: u64, noun| count(usize::try_from(number).unwrap_or(usize::MAX), noun);
    let mut size = format!(
        "{}, {}, {}",
        counted(preview.manifests, "manifest"),
        counted(preview.blobs, "blob"),
        bytes(preview.bytes)
    );
    if preview.referrers > 0 {
        size.push_str(&format!(", and {} with what they need", counted(preview.referrers, "referrer")));
    }
    output.pairs(&[
        ("digest", preview.digest),
        ("media type", preview.media_type),
        ("destination", preview.destination_digest.unwrap_or_else(|| "absent".to_owned())),
        ("to do", size),
    ])
}
