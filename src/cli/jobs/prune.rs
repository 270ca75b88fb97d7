//! `jobs prune`: remove finished jobs that need not be kept any more, a small batch at a time.

use crate::cli::error::Result;
use crate::cli::report::count;
use crate::cli::{Context, when};
use crate::clock::UnixMillis;
use crate::job::State;
use crate::store::{Prunable, Pruned, Retention};
use serde::Serialize;
use std::time::Duration;

/// Jobs removed in one transaction: short enough that nobody else's write waits for it noticeably.
const BATCH: u32 = 500;
/// The pause between two batches, in which other processes get their turn at the database.
const PAUSE: Duration = Duration::from_millis(5);

/// Remove finished jobs that need not be kept.
#[derive(Debug, clap::Args)]
#[command(after_help = "Without --older-than the retention of the configuration decides: retention.finished_days for \
    completed and cancelled jobs, retention.failed_days for failed ones.")]
pub struct PruneArgs {
    /// Jobs that were finished longer ago than this, for example 30d [default: the retention of the configuration].
    #[arg(long, value_name = "DURATION", value_parser = when::duration)]
    older_than: Option<Duration>,
    /// Only jobs in this state: completed, failed or cancelled. May be repeated [default: all three].
    #[arg(long = "state", value_name = "STATE", value_parser = finished_state)]
    states: Vec<State>,
    /// Say how many would be removed, and remove nothing.
    #[arg(long)]
    dry_run: bool,
}

fn finished_state(text: &str) -> std::result::Result<State, String> {
    match text.parse::<State>() {
        Ok(state) if state.is_finished() => Ok(state),
        Ok(state) => Err(format!("{state} jobs are not finished: use completed, failed or cancelled")),
        Err(_) => Err(format!("`{text}` is no state of a finished job: use completed, failed or cancelled")),
    }
}

/// What may go, of the jobs that were asked for.
fn retention(arguments: &PruneArgs, configured: crate::worker::Retention, now: UnixMillis) -> Retention {
    let before = |age: Duration| UnixMillis(now.0.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)));
    let of = |state, configured: Duration| {
        let named = arguments.states.is_empty() || arguments.states.contains(&state);
        // No time at all means in the configuration that nothing is ever removed, on the command line that all is old enough.
        let kept = arguments.older_than.or_else(|| (!configured.is_zero()).then_some(configured));
        kept.filter(|_| named).map(before)
    };
    Retention {
        completed_before: of(State::Completed, configured.finished),
        cancelled_before: of(State::Cancelled, configured.finished),
        failed_before: of(State::Failed, configured.failed),
        keys_before: Some(before(configured.keys)),
    }
}

/// Does it.
///
/// # Errors
/// The database cannot be written; what was removed until then stays removed.
pub async fn run(context: &mut Context, arguments: &PruneArgs) -> Result {
    let retention = retention(arguments, context.config.retention(), context.clock.now());
    let store = context.store().await?;
    if arguments.dry_run {
        let prunable = store.prunable(retention).await?;
        return tell_dry(context, retention, &prunable);
    }
    let actor = context.actor();
    let mut total = Pruned::default();
    loop {
        let pruned = store.prune(retention, BATCH, &actor).await?;
        total.jobs += pruned.jobs;
        total.keys += pruned.keys;
        // A batch that removed nothing would do so for ever.
        if !pruned.more || (pruned.jobs, pruned.keys) == (0, 0) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    if context.format().is_json() {
        return context.output.json(&total);
    }
    context.output.line(&format!("{} removed", number(total.jobs, "finished job")))?;
    if total.keys > 0 {
        context.output.line(&format!("{} of jobs removed earlier forgotten", number(total.keys, "idempotency key")))?;
    }
    tell_kept(context, retention)
}

/// What would be removed.
#[derive(Debug, Serialize)]
struct Dry<'a> {
    dry_run: bool,
    jobs: u64,
    #[serde(flatten)]
    prunable: &'a Prunable,
}

fn tell_dry(context: &mut Context, retention: Retention, prunable: &Prunable) -> Result {
    let jobs = prunable.jobs();
    if context.format().is_json() {
        return context.output.json(&Dry { dry_run: true, jobs, prunable });
    }
    let Prunable { completed, cancelled, failed, keys } = *prunable;
    let of_each = [(completed, "completed"), (cancelled, "cancelled"), (failed, "failed")];
    let of_each: Vec<String> =
        of_each.iter().filter(|(jobs, _)| *jobs > 0).map(|(jobs, state)| format!("{jobs} {state}")).collect();
    let which = if of_each.is_empty() { String::new() } else { format!(": {}", of_each.join(", ")) };
    context.output.line(&format!("{} would be removed{which}", number(jobs, "finished job")))?;
    if keys > 0 {
        context.output.line(&format!("{} would be forgotten", number(keys, "idempotency key")))?;
    }
    tell_kept(context, retention)
}

/// When nothing could go, whatever there is: why.
fn tell_kept(context: &mut Context, retention: Retention) -> Result {
    let Retention { completed_before, cancelled_before, failed_before, .. } = retention;
    if [completed_before, cancelled_before, failed_before].iter().all(Option::is_none) {
        context.output.flush()?;
        context.notes.note("the configuration keeps these jobs for ever: say --older-than to remove some");
    }
    Ok(())
}

fn number(number: u64, noun: &str) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), noun)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
    const DAY: i64 = 86_400_000;

    /// Completed, cancelled and failed.
    fn of(older_than: Option<Duration>, states: &[State]) -> [Option<UnixMillis>; 3] {
        let arguments = PruneArgs { older_than, states: states.to_vec(), dry_run: false };
        let found = retention(&arguments, crate::worker::Retention::default(), NOW);
        assert_eq!(found.keys_before, Some(UnixMillis(NOW.0 - 30 * DAY)));
        [found.completed_before, found.cancelled_before, found.failed_before]
    }

    #[test]
    fn the_configuration_decides_unless_an_age_is_given_and_each_state_alone() {
        let ago = |days: i64| Some(UnixMillis(NOW.0 - days * DAY));
        assert_eq!(of(None, &[]), [ago(30), ago(30), ago(90)]);
        assert_eq!(of(None, &[State::Failed]), [None, None, ago(90)]);
        assert_eq!(of(None, &[State::Completed]), [ago(30), None, None]);
        assert_eq!(of(Some(Duration::from_hours(24)), &[State::Cancelled, State::Failed]), [None, ago(1), ago(1)]);
        assert_eq!(of(Some(Duration::ZERO), &[]), [Some(NOW); 3]);
    }

    #[test]
    fn nothing_is_removed_that_the_configuration_keeps_for_ever() {
        let configured = crate::worker::Retention { finished: Duration::ZERO, ..crate::worker::Retention::default() };
        let arguments = PruneArgs { older_than: None, states: Vec::new(), dry_run: false };
        let found = retention(&arguments, configured, NOW);
        assert_eq!((found.completed_before, found.cancelled_before), (None, None));
        assert!(found.failed_before.is_some());
    }

    #[test]
    fn only_finished_states() {
        assert_eq!(finished_state("canceled"), Ok(State::Cancelled));
        assert!(finished_state("running").unwrap_err().contains("not finished"));
        assert!(finished_state("done").is_err());
    }
}
