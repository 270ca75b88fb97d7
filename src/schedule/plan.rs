//! What is to be done with a schedule at a moment. Pure: the same row and the same time give the same answer, in whatever
//! process; which of them does it, the store decides.

use super::Timing;
use crate::clock::UnixMillis;
use crate::job::batch::BatchKind;
use crate::job::parse_row;
use crate::job::schedule::{Fate, Firing, MadeBatch, Missed, Overlap, Planned, Schedule, ScheduleKind};
use crate::mirror::{Rules, TreeOptions, tree};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::time::Duration;

/// A time that is dealt with so much later still counts as punctual.
pub const LATE: Duration = Duration::from_secs(60);
/// Most punctual times of one look: one a second.
const PUNCTUAL_MOST: usize = 61;
/// How far it is looked back for the last times before now, at first; sixty times as far at each further step.
const LOOK_BACK: Duration = Duration::from_secs(60);

/// What a schedule's row says, understood.
struct Understood {
    timing: Timing,
    missed: Missed,
    overlap: Overlap,
    batch: Option<MadeBatch>,
}

/// What a time of a schedule makes; None: one copy.
///
/// # Errors
/// It cannot be made: one line.
pub fn batch(schedule: &Schedule) -> Result<Option<MadeBatch>, String> {
    let (source, destination) = (&schedule.source, &schedule.destination);
    match schedule.kind.parse()? {
        ScheduleKind::Copy => {
            parse_row(source, destination, &schedule.options).map_err(|error| error.to_string())?;
            Ok(None)
        }
        ScheduleKind::Mirror if source.is_empty() => Err("source is empty: it is the name of the mirror".to_owned()),
        ScheduleKind::Mirror => {
            Ok(Some(MadeBatch { kind: BatchKind::Mirror, name: Some(source.clone()), rules: None }))
        }
        ScheduleKind::Sync => {
            let rules = Rules::from_json(&schedule.options.to_string())?;
            let problems: Vec<String> = rules.rules.iter().flat_map(crate::mirror::Rule::problems).collect();
            if !problems.is_empty() {
                return Err(problems.join("; "));
            }
            Ok(Some(MadeBatch {
                kind: BatchKind::Sync,
                name: Some(schedule.name.clone()),
                rules: Some(rules.to_json()),
            }))
        }
        ScheduleKind::Tree => {
            let options: TreeOptions =
                serde_json::from_value(schedule.options.clone()).map_err(|error| format!("options: {error}"))?;
            let rules = tree(source, destination, options)?;
            Ok(Some(MadeBatch { kind: BatchKind::Tree, name: None, rules: Some(rules.to_json()) }))
        }
    }
}

fn understand(schedule: &Schedule) -> Result<Understood, String> {
    Ok(Understood {
        batch: batch(schedule)?,
        timing: Timing::parse(&schedule.timing, &schedule.timezone)?,
        missed: schedule.missed.parse()?,
        overlap: schedule.overlap.parse()?,
    })
}

/// What is to be done with a schedule that is due, or that nobody has looked at yet.
#[must_use]
pub fn plan(schedule: &Schedule, now: UnixMillis) -> Firing {
    let seen = Some((schedule.next_at, schedule.base_at));
    let id = schedule.id;
    let Understood { timing, missed, overlap, batch } = match understand(schedule) {
        Ok(understood) => understood,
        Err(fault) => {
            return Firing {
                schedule: id,
                seen,
                next_at: None,
                fault: Some(fault),
                occurrences: Vec::new(),
                batch: None,
            };
        }
    };
    let Some(first) = schedule.next_at.or_else(|| timing.first(schedule.base_at)) else {
        return Firing { schedule: id, seen, next_at: None, fault: None, occurrences: Vec::new(), batch: None };
    };
    if first > now {
        return Firing { schedule: id, seen, next_at: Some(first), fault: None, occurrences: Vec::new(), batch: None };
    }
    let times = wanted(&timing, schedule.base_at, first, now, missed, overlap);
    let fired = |at: UnixMillis| Planned { at, fate: Fate::Fired, run_at: at.plus(jitter(schedule, at)), detail: None };
    let mut occurrences: Vec<Planned> = times.into_iter().map(fired).collect();
    if occurrences.first().is_none_or(|planned| planned.at != first) {
        let until = occurrences.first().map_or(now, |planned| planned.at);
        let detail = Some(format!("missed, and whatever came before {}", until.to_rfc3339()));
        occurrences.insert(0, Planned { at: first, fate: Fate::Missed, run_at: first, detail });
    }
    Firing { schedule: id, seen, next_at: timing.next(schedule.base_at, now), fault: None, occurrences, batch }
}

/// The next time of a schedule whose next time is further away than it can be, because a clock was wrong; None: it is right.
#[must_use]
pub fn mended(schedule: &Schedule, now: UnixMillis) -> Option<Firing> {
    let next = schedule.next_at.filter(|next| *next > now)?;
    let timing = Timing::parse(&schedule.timing, &schedule.timezone).ok()?;
    let right = timing.next(schedule.base_at, now.max(schedule.base_at)).filter(|right| *right < next)?;
    let seen = Some((schedule.next_at, schedule.base_at));
    Some(Firing {
        schedule: schedule.id,
        seen,
        next_at: Some(right),
        fault: None,
        occurrences: Vec::new(),
        batch: None,
    })
}

/// The times from `first` to `now` that make a job, in order.
fn wanted(
    timing: &Timing,
    base: UnixMillis,
    first: UnixMillis,
    now: UnixMillis,
    missed: Missed,
    overlap: Overlap,
) -> Vec<UnixMillis> {
    let made_up = match missed {
        Missed::Skip => 0,
        Missed::Once => 1,
        Missed::CatchUp(number) => usize::try_from(number).unwrap_or(usize::MAX),
    };
    let last = last_times(timing, base, first, now, made_up.saturating_add(PUNCTUAL_MOST));
    let (late, mut punctual): (Vec<_>, Vec<_>) = last.into_iter().partition(|at| now.since(*at) > LATE);
    if overlap != Overlap::Allow && punctual.len() > 1 {
        // They would all stand in each other's way.
        punctual.drain(..punctual.len() - 1);
    }
    let made_up = match missed {
        // The run of now is the run for all that was missed.
        Missed::Once if !punctual.is_empty() => 0,
        _ => made_up,
    };
    let late = &late[late.len().saturating_sub(made_up)..];
    [late, &punctual].concat()
}

/// The last times up to `now`, at most `most`, none before `first`, in order.
fn last_times(
    timing: &Timing,
    base: UnixMillis,
    first: UnixMillis,
    now: UnixMillis,
    most: usize,
) -> VecDeque<UnixMillis> {
    let mut back = i64::try_from(LOOK_BACK.as_millis()).unwrap_or(i64::MAX);
    loop {
        let from = now.0.saturating_sub(back);
        let all = from <= first.0;
        let mut times = VecDeque::new();
        let mut at = if all { Some(first) } else { timing.next(base, UnixMillis(from)) };
        while let Some(time) = at.filter(|time| *time <= now) {
            if times.len() == most {
                times.pop_front();
            }
            times.push_back(time);
            at = timing.next(base, time);
        }
        if all || times.len() == most {
            return times;
        }
        back = back.saturating_mul(60);
    }
}

/// How much later the job of a time starts: less than the schedule's jitter, the same in every process.
fn jitter(schedule: &Schedule, at: UnixMillis) -> Duration {
    let hash = Sha256::digest(format!("{}:{}", schedule.id, at.0));
    let number = hash.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let most = u64::try_from(schedule.jitter_ms).unwrap_or(0);
    Duration::from_millis(if most == 0 { 0 } else { number % most })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(text: &str) -> UnixMillis {
        UnixMillis(chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis())
    }

    fn schedule(timing: &str, missed: &str, next_at: Option<&str>) -> Schedule {
        Schedule {
            kind: "copy".to_owned(),
            id: 7,
            name: "nightly".to_owned(),
            timing: timing.to_owned(),
            timezone: "UTC".to_owned(),
            jitter_ms: 0,
            missed: missed.to_owned(),
            overlap: "skip".to_owned(),
            source: "a.example/x:1".to_owned(),
            destination: "b.example/x:1".to_owned(),
            options: serde_json::json!({}),
            queue: "default".to_owned(),
            priority: 100,
            max_attempts: 8,
            base_at: millis("2026-11-20T00:00:00Z"),
            created_at: millis("2026-11-20T00:00:00Z"),
            next_at: next_at.map(millis),
            last_at: None,
            paused_at: None,
            ended_at: None,
            fault: None,
        }
    }

    /// What becomes of the times: `fired 01:00` and so on, and the next time.
    fn outcome(schedule: &Schedule, now: &str) -> (Vec<String>, Option<String>) {
        let firing = plan(schedule, millis(now));
        assert_eq!(firing.fault, None);
        let said = |planned: &Planned| format!("{} {}", planned.fate.as_str(), &planned.at.to_rfc3339()[5..16]);
        (firing.occurrences.iter().map(said).collect(), firing.next_at.map(|at| at.to_rfc3339()[5..16].to_owned()))
    }

    #[test]
    fn a_new_schedule_waits_for_its_first_time() {
        let (times, next) = outcome(&schedule("0 1 * * *", "once", None), "2026-11-20T00:00:01Z");
        assert_eq!((times, next.as_deref()), (vec![], Some("11-20T01:00")));
    }

    #[test]
    fn a_punctual_time_fires_whatever_is_said_of_missed_ones() {
        for missed in ["skip", "once", "catch-up=3"] {
            let hourly = schedule("@hourly", missed, Some("2026-11-20T05:00:00Z"));
            let (times, next) = outcome(&hourly, "2026-11-20T05:00:59Z");
            assert_eq!(
                (times, next.as_deref()),
                (vec!["fired 11-20T05:00".to_owned()], Some("11-20T06:00")),
                "{missed}"
            );
        }
    }

    #[test]
    fn missed_times_are_left_made_up_for_once_or_caught_up_with() {
        for (missed, now, expected) in [
            ("skip", "2026-11-20T09:30:00Z", vec!["missed 11-20T05:00"]),
            ("once", "2026-11-20T09:30:00Z", vec!["missed 11-20T05:00", "fired 11-20T09:00"]),
            (
                "catch-up=2",
                "2026-11-20T09:30:00Z",
                vec!["missed 11-20T05:00", "fired 11-20T08:00", "fired 11-20T09:00"],
            ),
            (
                "catch-up=9",
                "2026-11-20T08:30:00Z",
                vec!["fired 11-20T05:00", "fired 11-20T06:00", "fired 11-20T07:00", "fired 11-20T08:00"],
            ),
            ("skip", "2026-11-20T09:00:10Z", vec!["missed 11-20T05:00", "fired 11-20T09:00"]),
            ("once", "2026-11-20T09:00:10Z", vec!["missed 11-20T05:00", "fired 11-20T09:00"]),
            (
                "catch-up=1",
                "2026-11-20T09:00:10Z",
                vec!["missed 11-20T05:00", "fired 11-20T08:00", "fired 11-20T09:00"],
            ),
        ] {
            let hourly = schedule("@hourly", missed, Some("2026-11-20T05:00:00Z"));
            assert_eq!(outcome(&hourly, now).0, expected, "{missed} at {now}");
        }
    }

    #[test]
    fn of_years_of_missed_seconds_the_last_ones_are_found() {
        let each_second = schedule("* * * * * *", "catch-up=1000", Some("2020-01-01T00:00:00Z"));
        let (times, _) = outcome(&each_second, "2026-11-20T00:00:00Z");
        // One that tells of all that are left, a thousand, and the one of now.
        assert_eq!(times.len(), 1002);
    }

    #[test]
    fn what_makes_no_sense_is_a_fault_with_its_reason() {
        let right = || schedule("@hourly", "once", None);
        for (wrong, part) in [
            (Schedule { timing: "x".to_owned(), ..right() }, "is no timing"),
            (Schedule { timezone: "x".to_owned(), ..right() }, "time zone"),
            (Schedule { missed: "x".to_owned(), ..right() }, "missed times"),
            (Schedule { overlap: "x".to_owned(), ..right() }, "overlap"),
            (Schedule { source: "A B".to_owned(), ..right() }, "white space"),
            (Schedule { options: serde_json::json!({"nonsense": 1}), ..right() }, "nonsense"),
        ] {
            let firing = plan(&wrong, millis("2026-11-20T09:30:00Z"));
            assert!(firing.fault.as_deref().is_some_and(|fault| fault.contains(part)), "{firing:?}");
            assert!(firing.occurrences.is_empty());
        }
    }

    #[test]
    fn jitter_is_bounded_and_the_same_everywhere() {
        let jittery = Schedule { jitter_ms: 600_000, ..schedule("@hourly", "once", None) };
        let times: Vec<_> = (0..50).map(|hour| jitter(&jittery, UnixMillis(hour * 3_600_000))).collect();
        assert!(times.iter().all(|time| time.as_millis() < 600_000));
        assert!(times.iter().collect::<std::collections::HashSet<_>>().len() > 40);
        assert_eq!(times[3], jitter(&jittery, UnixMillis(3 * 3_600_000)));
    }

    #[test]
    fn a_time_that_a_wrong_clock_gave_is_mended() {
        let now = millis("2026-11-20T09:30:00Z");
        let wrong = schedule("@hourly", "once", Some("2036-01-01T00:00:00Z"));
        assert_eq!(mended(&wrong, now).unwrap().next_at, Some(millis("2026-11-20T10:00:00Z")));
        assert_eq!(mended(&schedule("@hourly", "once", Some("2026-11-20T10:00:00Z")), now), None);
    }
}
