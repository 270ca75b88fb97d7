//! Schedules of the configuration file become rows, when somebody begins to work.

use crate::job::schedule::Asked;
use crate::job::{NewSchedule, Schedule};
use crate::store::{Error, ScheduleChange, Store};

/// Who makes and changes them.
const ACTOR: &str = "configuration";

/// Adds what is not there, and puts another in the place of what is there and says something else. What the file does not name
/// stays. Where two files say different things of one name, the one that was read last counts.
///
/// # Errors
/// The store's.
pub async fn apply(store: &Store, schedules: &[NewSchedule]) -> Result<(), Error> {
    for wanted in schedules {
        let found = store.schedules(Some(&wanted.name)).await?.into_iter().next();
        match found {
            Some(found) if says(&found, wanted) => continue,
            Some(found) => {
                tracing::warn!(
                    schedule = found.name,
                    "the configuration says something else of a schedule: it is another one now"
                );
                store.schedule_change(&found.name, ScheduleChange::Remove, ACTOR).await?;
            }
            None => {}
        }
        // Somebody else may have been faster, with the same.
        store.schedule_add(wanted.clone(), ACTOR).await?;
    }
    Ok(())
}

fn says(found: &Schedule, wanted: &NewSchedule) -> bool {
    let Asked { kind, source, destination, options, queue, priority, max_attempts } = &wanted.job;
    let options: serde_json::Value = serde_json::from_str(options).unwrap_or_default();
    (&found.timing, &found.timezone, found.jitter_ms) == (&wanted.timing, &wanted.timezone, wanted.jitter_ms)
        && (found.missed.as_str(), found.overlap.as_str())
            == (&*wanted.missed.to_string(), &*wanted.overlap.to_string())
        && (found.kind.as_str(), &found.source, &found.destination) == (kind.as_str(), source, destination)
        && (&found.options, &found.queue) == (&options, queue)
        && (found.priority, found.max_attempts) == (*priority, *max_attempts)
}
