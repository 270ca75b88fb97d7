//! `schedule import FILE`: the rules of the older program's scheduler become schedules.

use crate::cli::Context;
use crate::cli::error::{Error, Result};
use crate::config::{document, rules};
use crate::job::schedule::{Asked, ScheduleKind};
use crate::job::{DEFAULT_PRIORITY, DEFAULT_QUEUE, Missed, NewSchedule, Overlap};
use crate::mirror::Rules;
use crate::schedule::Timing;
use std::io::Read;
use std::path::PathBuf;

/// Largest file, bytes.
const FILE_LIMIT_BYTES: u64 = 8 * 1024 * 1024;

/// Which file, and where its times are.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// The file, YAML, with a list `rules`.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The time zone of the cron fields.
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    timezone: String,
}

/// Makes a schedule of each rule; those that are there already stay as they are.
///
/// # Errors
/// The file has mistakes (all are told; then nothing is made), or the database cannot be written.
pub async fn run(context: &mut Context, arguments: ImportArgs) -> Result {
    let shown = arguments.file.display().to_string();
    let failed = |error: std::io::Error| Error::usage(format!("cannot read {shown}: {error}"));
    let mut text = String::new();
    let file = std::fs::File::open(context.config.base.join(&arguments.file)).map_err(failed)?;
    file.take(FILE_LIMIT_BYTES).read_to_string(&mut text).map_err(failed)?;
    let book = document::yaml(&text).map_err(|problem| vec![problem]).and_then(|node| rules::read(&node));
    let book = book.map_err(|problems| {
        for problem in &problems {
            context.notes.note(&format!("{shown}: {problem}"));
        }
        Error::usage(format!("{shown}: {} mistakes; nothing was made; the first: {}", problems.len(), problems[0]))
    })?;
    for note in &book.notes {
        context.notes.note(&format!("{shown}: {note}"));
    }
    let mut schedules = Vec::new();
    for timed in book.rules {
        Timing::parse(&timed.timing, &arguments.timezone)
            .map_err(|error| Error::usage(format!("{shown}: {}: {error}", timed.name)))?;
        let job = Asked {
            kind: ScheduleKind::Sync,
            source: timed.rule.registry.clone(),
            destination: timed.rule.destinations.iter().cloned().map(String::from).collect::<Vec<_>>().join(", "),
            options: Rules { rules: vec![timed.rule] }.to_json(),
            queue: DEFAULT_QUEUE.to_owned(),
            priority: DEFAULT_PRIORITY,
            max_attempts: book.max_attempts.unwrap_or_else(|| context.config.max_attempts()),
        };
        let schedule = NewSchedule {
            name: timed.name,
            timing: timed.timing,
            timezone: arguments.timezone.clone(),
            jitter_ms: 0,
            missed: Missed::default(),
            overlap: Overlap::default(),
            job,
            paused: false,
        };
        schedule.check().map_err(|error| Error::usage(format!("{shown}: {}: {error}", schedule.name)))?;
        schedules.push(schedule);
    }
    let (store, actor) = (context.store().await?, context.actor());
    let (mut made, mut known) = (Vec::new(), 0);
    for schedule in schedules {
        let name = schedule.name.clone();
        match store.schedule_add(schedule, &actor).await? {
            Some(id) => made.push(serde_json::json!({"id": id, "name": name})),
            None => {
                known += 1;
                context.notes.note(&format!("there is a schedule `{name}` already: it stays as it is"));
            }
        }
    }
    if context.format().is_json() {
        return context.output.rows(made);
    }
    context.output.line(&format!("{} schedules made, {known} were there already", made.len()))
}
