//! `schedule add`: what was typed becomes a row.

use crate::cli::arguments::usage;
use crate::cli::batch::How;
use crate::cli::copy::CopyArgs;
use crate::cli::error::{Error, Result};
use crate::cli::tree::TreeArgs;
use crate::cli::{Context, when};
use crate::clock::UnixMillis;
use crate::job::schedule::{Asked, ScheduleKind};
use crate::job::{DEFAULT_QUEUE, Missed, NewSchedule, Overlap};
use crate::schedule::{Timing, utc};
use clap::Parser;
use std::time::Duration;

/// A new schedule.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("timing").required(true))]
pub struct AddArgs {
    /// The name of the schedule, unique.
    #[arg(value_name = "NAME")]
    name: String,
    /// When: five cron fields (minute hour day month weekday), six with seconds in front, or @hourly, @daily and the like.
    #[arg(long, value_name = "EXPR", group = "timing")]
    cron: Option<String>,
    /// When: each time this much has passed, for example 15m.
    #[arg(long, value_name = "DURATION", group = "timing", value_parser = when::duration)]
    every: Option<Duration>,
    /// When: once, at this time, for example 2026-11-23T06:00:00Z.
    #[arg(long, value_name = "TIME", group = "timing", value_parser = when::time)]
    once: Option<UnixMillis>,
    /// The time zone of the cron fields, for example Europe/Berlin.
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    timezone: String,
    /// Times at which nobody worked: skip them, make up for them once, or catch-up=N for the last N of them.
    #[arg(long, value_name = "HOW", default_value_t, value_parser = str::parse::<Missed>)]
    missed: Missed,
    /// When the last run is not over: skip this one, queue one, allow both, or cancel the old one.
    #[arg(long, value_name = "HOW", default_value_t, value_parser = str::parse::<Overlap>)]
    overlap: Overlap,
    /// Start each job up to so much later.
    #[arg(long, value_name = "DURATION", default_value = "0s", hide_default_value = true, value_parser = when::duration)]
    jitter: Duration,
    /// Write it down paused.
    #[arg(long)]
    paused: bool,
    /// What to enqueue: SRC DST [options of enqueue], or mirror NAME, or replicate-tree SRC DST [its options].
    #[arg(last = true, required = true, num_args = 1.., value_name = "SRC DST | mirror NAME | replicate-tree SRC DST")]
    what: Vec<String>,
}

/// What stands behind `--`.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Copy {
    source: String,
    destination: String,
    #[command(flatten)]
    copy: CopyArgs,
}

/// What stands behind `-- mirror`.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Mirror {
    name: String,
    #[command(flatten)]
    how: How,
}

/// What stands behind `-- replicate-tree`.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Tree {
    #[command(flatten)]
    tree: TreeArgs,
}

/// Writes it down.
///
/// # Errors
/// Something that was typed is wrong, the name is taken, or the database cannot be written.
pub async fn run(context: &mut Context, arguments: AddArgs) -> Result {
    let job = asked(context, &arguments.what)?;
    let timing = match (&arguments.cron, arguments.every, arguments.once) {
        (Some(cron), ..) => cron.trim().to_owned(),
        (None, Some(every), _) => format!("@every {}", exact(every)),
        (None, None, once) => format!("@once {}", utc(once.unwrap_or_else(|| context.clock.now()))),
    };
    let parsed = Timing::parse(&timing, &arguments.timezone).map_err(Error::usage)?;
    let now = context.clock.now();
    if arguments.once.is_some_and(|once| once <= now) {
        return Err(Error::usage(format!("{} is over", utc(arguments.once.unwrap_or(now))))
            .hint("use `freightliner enqueue` for now, or a time to come"));
    }
    let schedule = NewSchedule {
        name: arguments.name.clone(),
        timing,
        timezone: arguments.timezone,
        jitter_ms: i64::try_from(arguments.jitter.as_millis()).unwrap_or(i64::MAX),
        missed: arguments.missed,
        overlap: arguments.overlap,
        job,
        paused: arguments.paused,
    };
    schedule.check()?;
    let Some(first) = parsed.first(now) else {
        return Err(Error::usage(format!("`{}` never comes", schedule.timing)).hint("see the day and the month"));
    };
    let store = context.store().await?;
    let Some(id) = store.schedule_add(schedule, &context.actor()).await? else {
        let message = format!("there is a schedule `{}` already", arguments.name);
        return Err(Error::failed("exists", message).hint("choose another name, or remove that one first"));
    };
    if context.format().is_json() {
        return context.output.json(&serde_json::json!({"id": id, "name": arguments.name, "next_at": utc(first)}));
    }
    context.output.line(&id.to_string())?;
    let held = if arguments.paused { ", when it is resumed" } else { "" };
    context.notes.note(&format!("its first time is {} ({}){held}", parsed.local(first), utc(first)));
    Ok(())
}

/// A duration in the largest unit that says it exactly.
fn exact(duration: Duration) -> String {
    let ms = duration.as_millis();
    let (unit_ms, unit) = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")]
        .into_iter()
        .find(|(unit_ms, _)| ms.is_multiple_of(*unit_ms))
        .unwrap_or((1, "ms"));
    format!("{}{unit}", ms / unit_ms)
}

/// What the words behind `--` mean.
fn asked(context: &Context, what: &[String]) -> Result<Asked> {
    match what.first().map(String::as_str) {
        Some("mirror") => return mirror(context, &what[1..]),
        Some("replicate-tree") => return tree(context, &what[1..]),
        _ => {}
    }
    let Copy { source, destination, copy } = Copy::try_parse_from(what).map_err(|error| usage(&error))?;
    if copy.several().is_some() {
        return Err(Error::not_implemented("schedules of --tags and --all-tags: use a mirror, or one schedule a tag"));
    }
    senseless(&copy.how(), copy.idempotency_key.is_some())?;
    Ok(copy.job(context, &source, &destination)?.into())
}

/// Refuses what cannot be meant for something that is made again and again.
fn senseless(how: &How, has_key: bool) -> Result {
    let given = [
        ("--at and --in", how.at.is_some() || how.after.is_some()),
        ("--idempotency-key", has_key),
        ("--dry-run", how.dry_run),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((option, _)) => Err(Error::usage(format!("{option} makes no sense for what is made again and again"))),
        None => Ok(()),
    }
}

fn mirror(context: &Context, words: &[String]) -> Result<Asked> {
    let Mirror { name, how } = Mirror::try_parse_from(words).map_err(|error| usage(&error))?;
    senseless(&how, false)?;
    if !context.config.mirrors.contains_key(&name) {
        let note =
            format!("there is no mirror `{name}` in the configuration of this command: the workers' must have it");
        context.notes.note(&note);
    }
    made(context, ScheduleKind::Mirror, (name, String::new()), "{}".to_owned(), &how)
}

fn tree(context: &Context, words: &[String]) -> Result<Asked> {
    let Tree { tree } = Tree::try_parse_from(words).map_err(|error| usage(&error))?;
    let how = tree.how();
    senseless(&how, false)?;
    if tree.resumes() {
        return Err(Error::usage("--resume makes no sense for what is made again and again"));
    }
    let (source, destination, options) = tree.tree()?;
    let text = serde_json::to_string(&options).map_err(|error| Error::usage(format!("options: {error}")))?;
    let rules = crate::mirror::tree(&source, &destination, options).map_err(Error::usage)?;
    let problems: Vec<String> = rules.rules.iter().flat_map(crate::mirror::Rule::problems).collect();
    if !problems.is_empty() {
        return Err(Error::usage(problems.join("; ")));
    }
    made(context, ScheduleKind::Tree, (source, destination), text, &how)
}

fn made(context: &Context, kind: ScheduleKind, ends: (String, String), options: String, how: &How) -> Result<Asked> {
    let (priority, max_attempts) = how.numbers(context)?;
    let queue = how.queue.clone().unwrap_or_else(|| DEFAULT_QUEUE.to_owned());
    let (source, destination) = ends;
    Ok(Asked { kind, source, destination, options, queue, priority, max_attempts })
}
