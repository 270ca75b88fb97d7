//! `jobs prune`: remove finished jobs that need not be kept any more, a small batch at a time.

use crate::cli::error::{Error, Result};
use crate::cli::report::count;
use crate::cli::{Context, when};
use crate::clock::UnixMillis;
use crate::job::State;
use crate::store::{Pruned, Retention};
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
    /// Only jobs in these states: failed; completed and cancelled go together. May be repeated [default: all three].
    #[arg(long = "state", value_name = "STATE", value_parser = finished_state)]
    states: Vec<State>,
}

fn finished_state(text: &str) -> std::result::Result<State, String> {
    match text.parse::<State>() {
        Ok(state) if state.is_finished() => Ok(state),
        Ok(state) => Err(format!("{state} jobs are not finished: use completed, failed or cancelled")),
        Err(_) => Err(format!("`{text}` is no state of a finished job: use completed, failed or cancelled")),
    }
}

/// What may go, of the jobs that were asked for.
///
/// # Errors
/// Completed jobs were asked for without cancelled ones, or the other way round.
fn retention(arguments: &PruneArgs, configured: crate::worker::Retention, now: UnixMillis) -> Result<Retention> {
    let named = |state| arguments.states.is_empty() || arguments.states.contains(&state);
    if named(State::Completed) != named(State::Cancelled) {
        return Err(Error::usage("completed and cancelled jobs are removed together")
            .hint("give --state completed --state cancelled, or --state failed"));
    }
    // No time at all means in the configuration that nothing is ever removed, on the command line that all is old enough.
    let kept = |configured: Duration| arguments.older_than.or_else(|| (!configured.is_zero()).then_some(configured));
    let before = |age: Duration| UnixMillis(now.0.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)));
    Ok(Retention {
        finished_before: kept(configured.finished).filter(|_| named(State::Completed)).map(before),
        failed_before: kept(configured.failed).filter(|_| named(State::Failed)).map(before),
        keys_before: Some(before(configured.keys)),
    })
}

/// Does it.
///
/// # Errors
/// The states make no sense, or the database cannot be written; what was removed until then stays removed.
pub async fn run(context: &mut Context, arguments: &PruneArgs) -> Result {
    let retention = retention(arguments, context.config.retention(), context.clock.now())?;
    let store = context.store().await?;
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
    let number = |number: u64, noun| count(usize::try_from(number).unwrap_or(usize::MAX), noun);
    context.output.line(&format!("{} removed", number(total.jobs, "finished job")))?;
    if total.keys > 0 {
        context.output.line(&format!("{} of jobs removed earlier forgotten", number(total.keys, "idempotency key")))?;
    }
    if (retention.finished_before, retention.failed_before) == (None, None) {
        context.output.flush()?;
        context.notes.note("the configuration keeps these jobs for ever: say --older-than to remove some");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
    const DAY: i64 = 86_400_000;

    fn of(older_than: Option<Duration>, states: &[State]) -> Result<Retention> {
        let arguments = PruneArgs { older_than, states: states.to_vec() };
        retention(&arguments, crate::worker::Retention::default(), NOW)
    }

    #[test]
    fn the_configuration_decides_unless_an_age_is_given() {
        let ago = |days: i64| Some(UnixMillis(NOW.0 - days * DAY));
        let all = of(None, &[]).unwrap();
        assert_eq!((all.finished_before, all.failed_before, all.keys_before), (ago(30), ago(90), ago(30)));
        let failed = of(None, &[State::Failed]).unwrap();
        assert_eq!((failed.finished_before, failed.failed_before), (None, ago(90)));
        let finished = of(Some(Duration::from_hours(24)), &[State::Completed, State::Cancelled]).unwrap();
        assert_eq!((finished.finished_before, finished.failed_before), (ago(1), None));
        let now = of(Some(Duration::ZERO), &[]).unwrap();
        assert_eq!((now.finished_before, now.failed_before), (Some(NOW), Some(NOW)));
        for state in [State::Completed, State::Cancelled] {
            assert!(of(None, &[state]).unwrap_err().message.contains("together"));
            assert!(of(None, &[state, State::Failed]).is_err());
        }
    }

    #[test]
    fn nothing_is_removed_that_the_configuration_keeps_for_ever() {
        let configured = crate::worker::Retention { finished: Duration::ZERO, ..crate::worker::Retention::default() };
        let arguments = PruneArgs { older_than: None, states: Vec::new() };
        let found = retention(&arguments, configured, NOW).unwrap();
        assert_eq!(found.finished_before, None);
        assert!(found.failed_before.is_some());
    }

    #[test]
    fn only_finished_states() {
        assert_eq!(finished_state("canceled"), Ok(State::Cancelled));
        assert!(finished_state("running").unwrap_err().contains("not finished"));
        assert!(finished_state("done").is_err());
    }
}
