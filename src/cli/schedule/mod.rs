//! `schedule`: what is enqueued again and again.

mod add;
mod import;

use super::error::{Error, Result};
use super::{Context, when};
use crate::clock::UnixMillis;
use crate::job::Schedule;
use crate::job::schedule::{Fate, Firing, Planned};
use crate::schedule::view::{Past, Row, next_at, state};
use crate::schedule::{Timing, plan, utc};
use crate::store::ScheduleChange;
use serde::Serialize;

/// Times that `schedule show` tells of.
const SHOWN: u32 = 20;
/// Most times that `schedule next` computes.
const MOST_NEXT: i64 = 10_000;

/// Have copies made again and again.
#[derive(Debug, clap::Subcommand)]
pub enum ScheduleCommand {
    /// Write a schedule down; whoever works fires it.
    Add(add::AddArgs),
    /// Make a schedule of each rule of the older program's scheduler.
    Import(import::ImportArgs),
    /// List schedules and their next times.
    List,
    /// Show a schedule, and what became of its last times.
    Show(NameArgs),
    /// Show the next times of a schedule.
    Next(NextArgs),
    /// Enqueue its job now, also while it is paused; its times stay as they are.
    Run(NameArgs),
    /// Let no time of a schedule make a job.
    Pause(NameArgs),
    /// Let a paused or mended schedule go on; what it missed meanwhile is not made up for.
    Resume(NameArgs),
    /// Remove a schedule; its jobs and its history stay.
    Remove(NameArgs),
}

/// One schedule.
#[derive(Debug, clap::Args)]
pub struct NameArgs {
    /// The name of the schedule.
    #[arg(value_name = "NAME")]
    name: String,
}

/// One schedule and how far to look.
#[derive(Debug, clap::Args)]
pub struct NextArgs {
    /// The name of the schedule.
    #[arg(value_name = "NAME")]
    name: String,
    /// How many times.
    #[arg(short = 'n', long = "count", value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(i64).range(1..=MOST_NEXT))]
    count: i64,
    /// From this time on [default: now].
    #[arg(long, value_name = "TIME", value_parser = when::time)]
    after: Option<UnixMillis>,
}

/// Does it.
///
/// # Errors
/// Something that was typed is wrong, there is no such schedule, or the database cannot be used.
pub async fn run(context: &mut Context, command: ScheduleCommand) -> Result {
    match command {
        ScheduleCommand::Add(arguments) => add::run(context, arguments).await,
        ScheduleCommand::Import(arguments) => import::run(context, arguments).await,
        ScheduleCommand::List => list(context).await,
        ScheduleCommand::Show(NameArgs { name }) => show(context, &name).await,
        ScheduleCommand::Next(arguments) => next(context, &arguments).await,
        ScheduleCommand::Run(NameArgs { name }) => fire(context, &name).await,
        ScheduleCommand::Pause(NameArgs { name }) => change(context, &name, ScheduleChange::Pause).await,
        ScheduleCommand::Resume(NameArgs { name }) => change(context, &name, ScheduleChange::Resume).await,
        ScheduleCommand::Remove(NameArgs { name }) => change(context, &name, ScheduleChange::Remove).await,
    }
}

async fn list(context: &mut Context) -> Result {
    let schedules = context.store().await?.schedules(None).await?;
    if context.format().is_json() {
        return context.output.rows(schedules.iter().map(Row::from));
    }
    if schedules.is_empty() {
        context.notes.note("there is no schedule: see `freightliner schedule add --help`");
        return Ok(());
    }
    let header = ["NAME", "STATE", "TIMING", "ZONE", "NEXT", "LAST", "SOURCE", "DESTINATION"];
    context.output.table(
        &header,
        schedules.iter().map(|schedule| {
            vec![
                schedule.name.clone(),
                state(schedule).to_owned(),
                schedule.timing.clone(),
                schedule.timezone.clone(),
                next_at(schedule).map(utc).unwrap_or_default(),
                schedule.last_at.map(utc).unwrap_or_default(),
                what(schedule),
                schedule.destination.clone(),
            ]
        }),
    )
}

/// What it copies, for people.
fn what(schedule: &Schedule) -> String {
    match schedule.kind.as_str() {
        "copy" => schedule.source.clone(),
        kind => format!("{kind} {}", schedule.source),
    }
}

/// The schedule of this name.
async fn named(context: &mut Context, name: &str) -> Result<Schedule> {
    let found = context.store().await?.schedules(Some(name)).await?;
    found.into_iter().next().ok_or_else(|| no_such_schedule(name))
}

fn no_such_schedule(name: &str) -> Error {
    Error::failed("not_found", format!("there is no schedule `{name}`")).hint("freightliner schedule list")
}

async fn show(context: &mut Context, name: &str) -> Result {
    let schedule = named(context, name).await?;
    let occurrences = context.store().await?.schedule_occurrences(schedule.id, SHOWN).await?;
    if context.format().is_json() {
        let past: Vec<Past> = occurrences.into_iter().map(Past::from).collect();
        return context.output.json(&Shown { schedule: Row::from(&schedule), occurrences: past });
    }
    let time = |time: Option<UnixMillis>| time.map(utc);
    let pairs = [
        ("id", Some(schedule.id.to_string())),
        ("name", Some(schedule.name.clone())),
        ("state", Some(state(&schedule).to_owned())),
        ("fault", schedule.fault.clone()),
        ("timing", Some(format!("{} ({})", schedule.timing, schedule.timezone))),
        ("jitter", (schedule.jitter_ms > 0).then(|| format!("{} ms", schedule.jitter_ms))),
        ("missed times", Some(schedule.missed.clone())),
        ("overlaps", Some(schedule.overlap.clone())),
        ("source", Some(what(&schedule))),
        ("destination", Some(schedule.destination.clone()).filter(|text| !text.is_empty())),
        (
            "options",
            schedule.options.as_object().is_some_and(|all| !all.is_empty()).then(|| schedule.options.to_string()),
        ),
        ("queue", Some(schedule.queue.clone())),
        ("priority", Some(schedule.priority.to_string())),
        ("created", Some(utc(schedule.created_at))),
        ("next", time(next_at(&schedule))),
        ("last", time(schedule.last_at)),
        ("paused", time(schedule.paused_at)),
        ("ended", time(schedule.ended_at)),
    ];
    let pairs: Vec<_> = pairs.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    context.output.pairs(&pairs)?;
    if occurrences.is_empty() {
        return Ok(());
    }
    context.output.line("")?;
    let rows = occurrences.into_iter().map(|past| {
        let job = past.job.map(|job| job.to_string()).unwrap_or_default();
        vec![utc(past.at), past.fate.as_str().to_owned(), job, past.detail.unwrap_or_default()]
    });
    context.output.table(&["TIME", "OUTCOME", "JOB", "DETAIL"], rows)
}

/// A schedule with its history.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    schedule: Row<'a>,
    occurrences: Vec<Past>,
}

async fn next(context: &mut Context, arguments: &NextArgs) -> Result {
    let schedule = named(context, &arguments.name).await?;
    let timing = Timing::parse(&schedule.timing, &schedule.timezone)
        .map_err(|why| Error::failed("faulty", format!("schedule `{}`: {why}", schedule.name)))?;
    let mut at = arguments.after.unwrap_or_else(|| context.clock.now());
    let mut times = Vec::new();
    while let Some(time) = timing.next(schedule.base_at, at)
        && i64::try_from(times.len()).unwrap_or(i64::MAX) < arguments.count
    {
        times.push(time);
        at = time;
    }
    if context.format().is_json() {
        let rows = times.iter().map(|time| serde_json::json!({"at": utc(*time), "local": timing.local(*time)}));
        return context.output.rows(rows);
    }
    if times.is_empty() {
        context.notes.note("it has no next time");
        return Ok(());
    }
    context.output.table(&["LOCAL", "UTC"], times.iter().map(|time| vec![timing.local(*time), utc(*time)]))
}

async fn fire(context: &mut Context, name: &str) -> Result {
    let schedule = named(context, name).await?;
    let batch = plan::batch(&schedule).map_err(|why| Error::failed("faulty", format!("schedule `{name}`: {why}")))?;
    let now = context.clock.now();
    let by_hand = Planned { at: now, fate: Fate::Fired, run_at: now, detail: Some("by hand".to_owned()) };
    let firing =
        Firing { schedule: schedule.id, seen: None, next_at: None, fault: None, occurrences: vec![by_hand], batch };
    let actor = context.actor();
    let fired = context.store().await?.schedules_fire(vec![firing], &actor).await?;
    let Some(job) = fired.into_iter().find_map(|occurrence| occurrence.job) else {
        let message = format!("schedule `{name}` was fired or removed at this very moment");
        return Err(Error::failed("failed", message).hint("freightliner schedule show"));
    };
    if context.format().is_json() {
        return context.output.compact(&serde_json::json!({"id": job, "created": true}));
    }
    context.output.line(&job.to_string())
}

async fn change(context: &mut Context, name: &str, change: ScheduleChange) -> Result {
    let actor = context.actor();
    let store = context.store().await?;
    let changed = store.schedule_change(name, change, &actor).await?.ok_or_else(|| no_such_schedule(name))?;
    if context.format().is_json() {
        return context.output.json(&serde_json::json!({"name": name, "changed": changed}));
    }
    let done = match (change, changed) {
        (ScheduleChange::Pause, true) => "is paused",
        (ScheduleChange::Pause, false) => "was paused already",
        (ScheduleChange::Resume, true) => "goes on",
        (ScheduleChange::Resume, false) => "was not paused",
        (ScheduleChange::Remove, true) => "is removed",
        (ScheduleChange::Remove, false) => "was removed already",
    };
    context.output.line(&format!("schedule `{name}` {done}"))
}
