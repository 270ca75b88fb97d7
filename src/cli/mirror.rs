//! `mirror` and `sync`: rules from files, explained and run.

use super::Context;
use super::batch::{How, Start, decided};
use super::error::{Error, Result};
use super::output::Rows;
use crate::config::{document, sync};
use crate::job::batch::BatchKind;
use crate::mirror::copies::Decided;
use crate::mirror::{Rules, listing};
use serde::Serialize;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest file of rules, bytes.
const FILE_LIMIT_BYTES: u64 = 8 * 1024 * 1024;

/// Keep repositories in step by the rules of the configuration file.
#[derive(Debug, clap::Subcommand)]
pub enum MirrorCommand {
    /// List the mirrors of the configuration file.
    List,
    /// Tell for every repository and tag whether it is kept, and by which clause.
    Explain(ExplainArgs),
    /// Copy what a mirror selects, as one batch.
    Run(RunArgs),
}

/// Which mirror, and which of its repositories.
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// The name of the mirror.
    #[arg(value_name = "NAME")]
    name: String,
    /// Only repositories whose name holds this text.
    #[arg(long, value_name = "TEXT")]
    repository: Option<String>,
}

/// Which mirror, and how.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The name of the mirror.
    #[arg(value_name = "NAME")]
    name: String,
    /// Copies at a time [default: 16].
    #[arg(long, value_name = "N")]
    pub concurrency: Option<u64>,
    /// Only put it into the queue and print the batch's id.
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    how: How,
}

/// Copy what a file of rules selects, as one batch: the sync.yaml of the older program, named by --config.
#[derive(Debug, clap::Args)]
pub struct SyncArgs {
    /// Copies at a time [default: what the file says as `parallel`, or 3].
    #[arg(long, value_name = "N")]
    pub parallel: Option<u64>,
    /// Tell for every repository and tag whether it is kept, and by which clause; copy nothing.
    #[arg(long, conflicts_with = "dry_run")]
    explain: bool,
    /// Only put it into the queue and print the batch's id.
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    how: How,
}

/// Does it.
///
/// # Errors
/// There is no such mirror, something cannot be listed, or the batch did not complete.
pub async fn run(context: &mut Context, command: MirrorCommand) -> Result {
    match command {
        MirrorCommand::List => list(context),
        MirrorCommand::Explain(ExplainArgs { name, repository }) => {
            let rules = find(context, &name)?;
            explain(context, &rules, repository.as_deref()).await
        }
        MirrorCommand::Run(RunArgs { name, detach, how, .. }) => {
            let rules = find(context, &name)?;
            let (source, destination) = rules.ends();
            let kind = BatchKind::Mirror;
            Start { kind, name: Some(name), source, destination, rules, how: &how, detach }.run(context).await
        }
    }
}

/// `sync`; `file`: what `--config` names.
///
/// # Errors
/// The file has mistakes (all are told), something cannot be listed, or the batch did not complete.
pub async fn sync(context: &mut Context, arguments: SyncArgs, file: Option<&Path>) -> Result {
    let Some(path) = file else {
        return Err(Error::usage("sync needs --config FILE").hint("the file that says what to copy, YAML or TOML"));
    };
    let sync = read(context, path)?;
    for note in &sync.notes {
        context.notes.note(&format!("{}: {note}", path.display()));
    }
    if sync.rules.rules.is_empty() {
        context.notes.note("No images to sync");
        return Ok(());
    }
    if arguments.explain {
        return explain(context, &sync.rules, None).await;
    }
    let mut how = arguments.how;
    how.max_attempts = how.max_attempts.or(sync.max_attempts);
    context.config.set_concurrency(arguments.parallel.or(sync.parallel).unwrap_or(PARALLEL))?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let (source, destination) = (sync.source, sync.destination);
    let (kind, rules, detach) = (BatchKind::Sync, sync.rules, arguments.detach);
    Start { kind, name, source, destination, rules, how: &how, detach }.run(context).await
}

/// Copies at a time when the file does not say.
const PARALLEL: u64 = 3;

fn read(context: &Context, path: &Path) -> Result<sync::Sync> {
    let shown = path.display();
    let failed = |error: std::io::Error| Error::usage(format!("cannot read {shown}: {error}"));
    let path: PathBuf = context.config.base.join(path);
    let mut text = String::new();
    let file = std::fs::File::open(&path).map_err(failed)?;
    file.take(FILE_LIMIT_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > FILE_LIMIT_BYTES {
        return Err(Error::usage(format!("{shown} is larger than {FILE_LIMIT_BYTES} bytes")));
    }
    let is_toml = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml"));
    let node = if is_toml { document::toml(&text) } else { document::yaml(&text) };
    let sync = node.map_err(|problem| vec![problem]).and_then(|node| sync::read(&node));
    sync.map_err(|problems| {
        for problem in &problems {
            context.notes.note(&format!("{shown}: {problem}"));
        }
        let only_absent = problems.iter().all(|problem| problem.message.contains("not implemented: "));
        let lines = problems
            .iter()
            .map(|problem| serde_json::json!({"line": problem.place.line, "column": problem.place.column, "message": problem.message}));
        let lines = serde_json::Value::Array(lines.collect());
        let plural = if problems.len() == 1 { "mistake" } else { "mistakes" };
        let message = format!("{shown}: {} {plural}; nothing was done; the first: {}", problems.len(), problems[0]);
        let error = if only_absent { Error::failed("not_implemented", message) } else { Error::usage(message) };
        error.lines(lines)
    })
}

fn find(context: &Context, name: &str) -> Result<Rules> {
    let mirrors = &context.config.mirrors;
    mirrors.get(name).cloned().ok_or_else(|| {
        let known: Vec<&str> = mirrors.keys().map(String::as_str).collect();
        let hint = if known.is_empty() {
            "name a configuration file with [mirrors.NAME] sections by --config".to_owned()
        } else {
            format!("there is {}", known.join(", "))
        };
        Error::failed("not_found", format!("there is no mirror `{name}`")).hint(hint)
    })
}

fn list(context: &mut Context) -> Result {
    let mirrors = context.config.mirrors.clone();
    if context.format().is_json() {
        let rows = mirrors.iter().map(|(name, rules)| {
            let mut row = serde_json::to_value(&rules.rules[0]).unwrap_or_default();
            row["name"] = serde_json::Value::from(name.as_str());
            row
        });
        return context.output.rows(rows);
    }
    if mirrors.is_empty() {
        context.notes.note("there is no mirror: name a configuration file with [mirrors.NAME] sections by --config");
        return Ok(());
    }
    let rows = mirrors.iter().map(|(name, rules)| {
        let (source, destination) = rules.ends();
        vec![name.clone(), source, destination]
    });
    context.output.table(&["NAME", "SOURCE", "DESTINATION"], rows)
}

#[derive(Serialize)]
struct Explained<'a> {
    rule: &'a str,
    repository: String,
    tag: Option<&'a str>,
    kept: bool,
    clause: &'a str,
    destinations: Vec<&'a str>,
}

/// Tells of every repository and tag what was decided.
async fn explain(context: &mut Context, rules: &Rules, only: Option<&str>) -> Result {
    let mut rows = Rows::new(context.format());
    let mut failed = 0_usize;
    for rule in &rules.rules {
        let source = context.session(rule.options.src_tls_verify)?;
        let destination = context.session(rule.options.dest_tls_verify)?;
        let decisions = match listing::repositories(&source, rule).await {
            Ok(decisions) => decisions,
            Err(error) => {
                failed += 1;
                context.notes.note(&format!("{}: {error}", rule.name));
                continue;
            }
        };
        let kept: Vec<String> =
            decisions.iter().filter(|decision| decision.kept).map(|decision| decision.name.clone()).collect();
        for clash in rule.clashes(&kept) {
            failed += 1;
            context.notes.note(&format!("{}: {clash}", rule.name));
        }
        for decision in decisions.iter().filter(|decision| only.is_none_or(|text| decision.name.contains(text))) {
            let repository = format!("{}/{}", rule.registry, decision.name);
            if !decision.kept {
                let (kept, clause) = (false, decision.clause.as_str());
                let row = Explained { rule: &rule.name, repository, tag: None, kept, clause, destinations: Vec::new() };
                tell(context, &mut rows, &row)?;
                continue;
            }
            let decided = match decided(context, &source, &destination, rule, &decision.name).await {
                Ok(decided) => decided,
                Err((class, message)) => {
                    failed += 1;
                    context.notes.note(&format!("{repository} ({}): {message}", class.as_str()));
                    continue;
                }
            };
            for Decided { decision, jobs } in &decided {
                let destinations = jobs.iter().map(|job| job.destination.as_str()).collect();
                let (tag, kept, clause) = (Some(decision.name.as_str()), decision.kept, decision.clause.as_str());
                let row =
                    Explained { rule: &rule.name, repository: repository.clone(), tag, kept, clause, destinations };
                tell(context, &mut rows, &row)?;
            }
        }
    }
    rows.end(&mut context.output)?;
    if failed > 0 {
        return Err(Error::failed("failed", format!("{failed} could not be explained")));
    }
    Ok(())
}

fn tell(context: &mut Context, rows: &mut Rows, row: &Explained<'_>) -> Result {
    if context.format().is_json() {
        return rows.add(&mut context.output, row);
    }
    let name = row.tag.map_or_else(|| row.repository.clone(), |tag| format!("{}:{tag}", row.repository));
    let to = if row.destinations.is_empty() { String::new() } else { format!(" -> {}", row.destinations.join(", ")) };
    let word = if row.kept { "kept   " } else { "dropped" };
    context.output.line(&format!("{word} {name} ({}){to}", row.clause))
}
