//! `checkpoint export`, `import` and `delete`: what users of the older program know.

use super::{BatchArgs, find};
use crate::cli::Context;
use crate::cli::error::{Error, Result};
use crate::job::batch::{Batch, BatchId, BatchKind, BatchState, Listed, NewBatch};
use crate::job::{DEFAULT_PRIORITY, DEFAULT_QUEUE, Job, Kind, State};
use crate::mirror::{Pattern, TreeOptions, tree};
use crate::store::{JobFilter, Selection, Store};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::PathBuf;

/// Jobs read in one step.
const PAGE: u32 = 1000;
/// Largest file that is imported, bytes.
const FILE_LIMIT_BYTES: u64 = 64 * 1024 * 1024;

/// Which one, and where to.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    #[command(flatten)]
    batch: BatchArgs,
    /// The file to write, also as -o or --output [default: checkpoint-ID.json]; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Where from.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// The file that was exported, or a checkpoint file of the older program.
    #[arg(short, long, value_name = "FILE")]
    input: PathBuf,
}

/// A batch as the older program exports it.
#[derive(Debug, Serialize)]
struct Checkpoint {
    id: String,
    created_at: String,
    source: String,
    destination: String,
    status: &'static str,
    total_repositories: u64,
    completed_repositories: u64,
    failed_repositories: u64,
    total_tags_copied: u64,
    total_tags_skipped: u64,
    total_errors: u64,
    total_bytes_transferred: u64,
    repositories: Vec<Repository>,
}

#[derive(Debug, Default, Serialize)]
struct Repository {
    name: String,
    status: &'static str,
    tags_copied: u64,
    tags_skipped: u64,
    errors: u64,
}

/// Writes a batch to a file.
///
/// # Errors
/// There is no such batch, or the file exists or cannot be written.
pub async fn export(context: &mut Context, arguments: &ExportArgs) -> Result {
    let store = context.store().await?;
    let batch = find(&store, arguments.batch.id()).await?;
    let checkpoint = checkpoint(&store, &batch).await?;
    let path = arguments.file.clone().unwrap_or_else(|| PathBuf::from(format!("checkpoint-{}.json", batch.id)));
    if path.as_os_str() == "-" {
        return context.output.json(&checkpoint);
    }
    let shown = path.display();
    let failed = |error: std::io::Error| Error::failed("io", format!("cannot write {shown}: {error}"));
    let text = serde_json::to_string_pretty(&checkpoint)
        .map_err(|error| Error::failed("io", format!("batch {} cannot be written as JSON: {error}", batch.id)))?;
    // Whole or not at all: it gets its name when it is on the disk.
    let path = context.config.base.join(&path);
    let folder = path.parent().unwrap_or(&context.config.base);
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(&path).map_err(|error| failed(error.error))?;
    context.notes.note(&format!("batch {} is in {shown}", batch.id));
    Ok(())
}

async fn checkpoint(store: &Store, batch: &Batch) -> Result<Checkpoint> {
    let mut repositories: BTreeMap<String, Repository> = BTreeMap::new();
    for Listed { repository, failure, .. } in store.batch_repositories(batch.id).await? {
        let entry = repositories.entry(repository).or_default();
        entry.errors += u64::from(failure.is_some());
    }
    let filter = JobFilter { batch: Some(batch.id.to_string()), ..JobFilter::default() };
    let mut after = None;
    let mut unfinished: Vec<String> = Vec::new();
    loop {
        let page = store.jobs(&filter, after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        for job in page.iter().filter(|job| job.kind == Kind::Copy) {
            count(job, &mut repositories, &mut unfinished);
        }
    }
    let mut repositories: Vec<Repository> = repositories
        .into_iter()
        .map(|(name, found)| {
            let status = match () {
                () if unfinished.contains(&name) => "in_progress",
                () if found.errors > 0 => "failed",
                () => "completed",
            };
            Repository { name, status, ..found }
        })
        .collect();
    repositories.sort_by(|one, other| one.name.cmp(&other.name));
    let of = |status: &str| repositories.iter().filter(|one| one.status == status).count() as u64;
    Ok(Checkpoint {
        id: batch.id.to_string(),
        created_at: batch.created_at.to_rfc3339(),
        source: batch.source.clone(),
        destination: batch.destination.clone(),
        status: match batch.state {
            BatchState::Pending => "pending",
            BatchState::Running => "in_progress",
            BatchState::Completed => "completed",
            BatchState::Failed => "failed",
            BatchState::Cancelled => "interrupted",
        },
        total_repositories: repositories.len() as u64,
        completed_repositories: of("completed"),
        failed_repositories: of("failed"),
        total_tags_copied: batch.jobs.completed - batch.jobs.already_present,
        total_tags_skipped: batch.jobs.already_present,
        total_errors: batch.jobs.failed + batch.repositories_failed,
        total_bytes_transferred: batch.bytes_moved,
        repositories,
    })
}

fn count(job: &Job, repositories: &mut BTreeMap<String, Repository>, unfinished: &mut Vec<String>) {
    let at = job.source.rfind('/').unwrap_or(0);
    let name = match job.source[at..].find(':') {
        Some(tag) => &job.source[..at + tag],
        None => &job.source,
    };
    let entry = repositories.entry(name.to_owned()).or_default();
    match job.state {
        State::Completed if job.report.as_ref().is_some_and(|report| report.already_present) => entry.tags_skipped += 1,
        State::Completed => entry.tags_copied += 1,
        State::Failed => entry.errors += 1,
        _ => {
            if !unfinished.iter().any(|known| known == name) {
                unfinished.push(name.to_owned());
            }
        }
    }
}

/// What both forms of files have in common: that of `export`, and that in which the older program kept its own.
#[derive(Debug, Deserialize)]
struct Imported {
    id: Option<String>,
    source: Option<String>,
    destination: Option<String>,
    source_registry: Option<String>,
    source_prefix: Option<String>,
    dest_registry: Option<String>,
    dest_prefix: Option<String>,
    #[serde(default)]
    repositories: serde_json::Value,
    #[serde(default)]
    completed_repositories: serde_json::Value,
}

impl Imported {
    fn ends(&self) -> Option<(String, String)> {
        let joined = |registry: &Option<String>, prefix: &Option<String>| {
            let registry = registry.as_deref().filter(|text| !text.is_empty())?;
            let prefix = prefix.as_deref().unwrap_or_default().trim_matches('/');
            Some(if prefix.is_empty() { registry.to_owned() } else { format!("{registry}/{prefix}") })
        };
        let source = self.source.clone().or_else(|| joined(&self.source_registry, &self.source_prefix))?;
        let destination = self.destination.clone().or_else(|| joined(&self.dest_registry, &self.dest_prefix))?;
        Some((source, destination))
    }

    /// Repositories that need not be copied again.
    fn completed(&self, registry: &str) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        if let serde_json::Value::Array(list) = &self.completed_repositories {
            names.extend(list.iter().filter_map(|name| name.as_str().map(str::to_owned)));
        }
        let done = |entry: &serde_json::Value| entry["status"] == "completed";
        match &self.repositories {
            serde_json::Value::Array(list) => names.extend(
                list.iter().filter(|entry| done(entry)).filter_map(|entry| entry["name"].as_str().map(str::to_owned)),
            ),
            serde_json::Value::Object(entries) => {
                names.extend(entries.iter().filter(|(_, entry)| done(entry)).map(|(name, _)| name.clone()));
            }
            _ => {}
        }
        let host = format!("{registry}/");
        for name in &mut names {
            if let Some(rest) = name.strip_prefix(&host) {
                *name = rest.to_owned();
            }
        }
        names.sort();
        names.dedup();
        names
    }
}

/// Makes a batch of a file, which waits until it is resumed; what is completed there is left out.
///
/// # Errors
/// The file cannot be read or understood, or there is a batch of its id.
pub async fn import(context: &mut Context, arguments: &ImportArgs) -> Result {
    let shown = arguments.input.display().to_string();
    let failed = |error: std::io::Error| Error::usage(format!("cannot read {shown}: {error}"));
    let file = std::fs::File::open(context.config.base.join(&arguments.input)).map_err(failed)?;
    let mut text = String::new();
    file.take(FILE_LIMIT_BYTES).read_to_string(&mut text).map_err(failed)?;
    let imported: Imported =
        serde_json::from_str(&text).map_err(|error| Error::usage(format!("{shown} is no checkpoint: {error}")))?;
    let Some((source, destination)) = imported.ends() else {
        return Err(Error::usage(format!("{shown} is no checkpoint: it names no source and destination")));
    };
    let id = match imported.id.as_deref() {
        Some(id) => id.parse().map_err(|_| Error::usage(format!("{shown}: its id `{id}` is no UUID")))?,
        None => BatchId::now_v7(),
    };
    let store = context.store().await?;
    if store.batches(Some(id), None, 1).await?.pop().is_some() {
        return Err(Error::failed("exists", format!("batch {id} is here already"))
            .hint(format!("freightliner batch show {id}")));
    }
    let mut rules = tree(&source, &destination, TreeOptions::default()).map_err(|error| {
        Error::usage(format!("{shown}: {error}"))
            .hint("write the registries' hosts into the file in the place of their short names")
    })?;
    let mut left_out = 0;
    for rule in &mut rules.rules {
        for name in imported.completed(&rule.registry) {
            let whole = if rule.below(&name).is_some() { name } else { format!("{}/{name}", rule.prefix) };
            rule.repositories.exclude.push(whole.parse::<Pattern>().map_err(Error::usage)?);
            left_out += 1;
        }
    }
    let batch = NewBatch {
        id,
        kind: BatchKind::Tree,
        name: None,
        source,
        destination,
        rules: Some(rules.to_json()),
        queue: DEFAULT_QUEUE.to_owned(),
        priority: DEFAULT_PRIORITY,
        max_attempts: context.config.max_attempts(),
        // Nobody takes it before it is called off, a moment later.
        run_at: Some(context.clock.now().plus(std::time::Duration::from_secs(3600))),
    };
    let actor = context.actor();
    let job = store.batch_add(batch, &actor).await?;
    store.batch_stop(id, true).await?;
    store.cancel(&Selection::Ids(vec![job]), &actor).await?;
    if context.format().is_json() {
        return context.output.json(&serde_json::json!({"batch_id": id, "completed_repositories": left_out}));
    }
    context.output.line(&id.to_string())?;
    context.notes.note(&format!("{left_out} repositories are completed; the others: freightliner batch resume {id}"));
    Ok(())
}

/// Takes a finished batch out of the lists; its jobs and their history stay as long as any.
///
/// # Errors
/// There is no such batch, or it is not finished.
pub async fn delete(context: &mut Context, id: BatchId) -> Result {
    let store = context.store().await?;
    let batch = find(&store, id).await?;
    if !batch.state.is_finished() {
        return Err(Error::failed("refused", format!("batch {id} is {}", batch.state))
            .hint(format!("call it off first: freightliner batch cancel {id}")));
    }
    store.batch_hide(id).await?;
    if context.format().is_json() {
        return context.output.json(&serde_json::json!({"id": id, "status": "deleted"}));
    }
    context.output.line(&format!("batch {id} is in no list any more; its jobs and their history stay"))
}
