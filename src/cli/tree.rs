//! `replicate-tree SRC DST`, and several tags of one repository: rules made of what was typed.

use super::Context;
use super::batch::{How, Start, again, work_on};
use super::copy::CopyArgs;
use super::error::{Error, Result};
use crate::job::batch::{BatchId, BatchKind};
use crate::mirror::{Destination, Pattern, Repositories, Rule, Rules, Tags, TreeOptions, place, tree};
use crate::oci::{Repository, Tag};
use std::path::PathBuf;

/// Largest list of repositories, bytes.
const LIST_LIMIT_BYTES: u64 = 16 * 1024 * 1024;

/// Copy the repositories below a prefix, as one batch.
#[derive(Debug, clap::Args)]
pub struct TreeArgs {
    /// Where from: HOST[:PORT][/PREFIX]; the repository of that name and all below it.
    #[arg(value_name = "SRC_PREFIX")]
    source: String,
    /// Where to: HOST[:PORT][/PREFIX], which takes the place of the source's.
    #[arg(value_name = "DST_PREFIX")]
    destination: String,
    /// Only repositories that match: names below the prefix, or whole names; `*` and `?` are wild, /.../ is a regular
    /// expression. May be repeated, or several with commas.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',', value_parser = str::parse::<Pattern>)]
    include_repo: Vec<Pattern>,
    /// No repositories that match.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',', value_parser = str::parse::<Pattern>)]
    exclude_repo: Vec<Pattern>,
    /// Only tags that match.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',', value_parser = str::parse::<Pattern>)]
    include_tag: Vec<Pattern>,
    /// No tags that match.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',', value_parser = str::parse::<Pattern>)]
    exclude_tag: Vec<Pattern>,
    /// Take the names of the repositories from this file, one a line, and do not ask the registry for a list of them.
    #[arg(long, value_name = "FILE")]
    repos_from: Option<PathBuf>,
    /// Copies at a time [default: 16].
    #[arg(long, visible_alias = "concurrency", value_name = "N")]
    pub workers: Option<u64>,
    /// Only put it into the queue and print the batch's id.
    #[arg(long)]
    detach: bool,
    /// Go on with this batch, which was interrupted or failed partly, instead of making a new one.
    #[arg(long, alias = "resume-id", value_name = "ID")]
    resume: Option<BatchId>,
    /// With --resume: pass over what is completed; it always is.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    skip_completed: Option<bool>,
    /// With --resume: try again what failed [default: true].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    retry_failed: Option<bool>,
    /// Every batch can be resumed: this says nothing any more.
    #[arg(long, alias = "enable-checkpoint", hide = true)]
    checkpoint: bool,
    /// Batches stand in the database: this says nothing any more.
    #[arg(long, hide = true, value_name = "DIR")]
    checkpoint_dir: Option<PathBuf>,
    #[command(flatten)]
    copy: CopyArgs,
}

/// Does it.
///
/// # Errors
/// What was typed is wrong, or the batch did not complete.
pub async fn run(context: &mut Context, arguments: TreeArgs) -> Result {
    if arguments.copy.idempotency_key.is_some() {
        return Err(Error::not_implemented("--idempotency-key of a batch"));
    }
    if arguments.checkpoint_dir.is_some() {
        context
            .notes
            .note("--checkpoint-dir has no effect: batches stand in the database, see `freightliner batch list`");
    }
    if let Some(id) = arguments.resume {
        if arguments.skip_completed == Some(false) {
            return Err(Error::usage("--skip-completed=false: a batch never does again what is done")
                .hint("leave --resume out to begin anew; add --force to go through everything again"));
        }
        if arguments.retry_failed.unwrap_or(true) {
            again(context, id).await?;
        }
        return work_on(context, id).await;
    }
    let (source, destination, options) = arguments.tree()?;
    let rules = tree(&source, &destination, options).map_err(Error::usage)?;
    let (kind, how, detach) = (BatchKind::Tree, arguments.how(), arguments.detach);
    Start { kind, name: None, source, destination, rules, how: &how, detach }.run(context).await
}

impl TreeArgs {
    /// The places as they were typed, and what the tree takes; what says how it is worked on is left to the command.
    ///
    /// # Errors
    /// What was typed is wrong.
    pub fn tree(&self) -> Result<(String, String, TreeOptions)> {
        for (which, text) in [("source", &self.source), ("destination", &self.destination)] {
            if text.starts_with("oci:") {
                return Err(Error::not_implemented(&format!(
                    "{which} `{text}`: an image layout as one side of a batch"
                )));
            }
        }
        if self.copy.several().is_some() {
            return Err(Error::usage("--tags and --all-tags are for one repository")
                .hint("use --include-tag and --exclude-tag"));
        }
        let mut include_repos = self.include_repo.clone();
        if let Some(path) = &self.repos_from {
            if !include_repos.is_empty() {
                return Err(Error::usage("--repos-from names the repositories: leave --include-repo out"));
            }
            let (registry, _) = place(&self.source).map_err(|error| Error::usage(format!("source {error}")))?;
            include_repos = listed(path, &registry)?;
        }
        let options = TreeOptions {
            include_repos,
            exclude_repos: self.exclude_repo.clone(),
            include_tags: self.include_tag.clone(),
            exclude_tags: self.exclude_tag.clone(),
            copy: self.copy.options(),
        };
        Ok((self.source.clone(), self.destination.clone(), options))
    }

    /// Where and when its jobs wait.
    #[must_use]
    pub fn how(&self) -> How {
        self.copy.how()
    }

    /// It goes on with a batch.
    #[must_use]
    pub const fn resumes(&self) -> bool {
        self.resume.is_some()
    }
}

/// The names that a file lists.
fn listed(path: &std::path::Path, registry: &str) -> Result<Vec<Pattern>> {
    let shown = path.display();
    let failed = |error: std::io::Error| Error::usage(format!("cannot read {shown}: {error}"));
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > LIST_LIMIT_BYTES {
        return Err(Error::usage(format!("{shown} is larger than {LIST_LIMIT_BYTES} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let mut names = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.strip_prefix(&format!("{registry}/")).unwrap_or(line);
        Repository::parse(&format!("{registry}/{name}"))
            .map_err(|error| Error::usage(format!("{shown}: line {number}: {error}")))?;
        names.push(name.parse().map_err(|error| Error::usage(format!("{shown}: line {number}: {error}")))?);
    }
    if names.is_empty() {
        return Err(Error::usage(format!("{shown} names no repository: write one a line")));
    }
    Ok(names)
}

fn destination(text: &str) -> Result<Destination> {
    Destination::try_from(text.to_owned()).map_err(|error| Error::usage(format!("destination: {error}")))
}

/// Several tags of one repository, as one batch.
///
/// # Errors
/// What was typed is wrong, or the batch did not complete.
pub async fn tags(context: &mut Context, source: &str, destination: &str, copy: &CopyArgs, detach: bool) -> Result {
    if copy.idempotency_key.is_some() {
        return Err(Error::not_implemented("--idempotency-key of a batch"));
    }
    let rule = several(source, destination, copy)?;
    let (source, destination) = (source.to_owned(), destination.to_owned());
    let rules = Rules { rules: vec![rule] };
    Start { kind: BatchKind::Tags, name: None, source, destination, rules, how: &copy.how(), detach }.run(context).await
}

fn several(source: &str, target: &str, copy: &CopyArgs) -> Result<Rule> {
    let repository = |which: &str, text: &str| {
        if text.starts_with("oci:") {
            return Err(Error::not_implemented(&format!("{which} `{text}`: an image layout as one side of a batch")));
        }
        Repository::parse(text).map_err(|error| {
            Error::usage(format!("{which} `{text}`: {error}"))
                .hint("with --tags and --all-tags, source and destination are repositories: HOST/REPOSITORY")
        })
    };
    let (from, to) = (repository("source", source)?, repository("destination", target)?);
    let names = copy.several().unwrap_or_default();
    for name in &names {
        name.parse::<Tag>().map_err(|error| Error::usage(format!("--tags: {error}")))?;
    }
    Ok(Rule {
        name: "tags".to_owned(),
        registry: from.host().to_owned(),
        prefix: String::new(),
        repositories: Repositories { include: vec![from.name().parse().map_err(Error::usage)?], exclude: Vec::new() },
        tags: Tags { names, ..Tags::default() },
        skip_existing: false,
        destinations: vec![destination(&to.to_string())?],
        options: copy.options(),
    })
}
