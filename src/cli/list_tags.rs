//! `list-tags REPO`: all pages, bounded.

use super::Context;
use super::error::{Error, Result};
use super::output::Format;
use crate::layout::Layout;
use crate::mirror::listing;
use crate::oci::{ImageReference, Repository};
use clap::builder::BoolishValueParser;

/// List the tags of a repository.
#[derive(Debug, clap::Args)]
pub struct ListTagsArgs {
    /// The repository: [docker://]HOST[:PORT]/REPO or oci:DIR.
    #[arg(value_name = "REPO")]
    repository: String,
    /// End after this many tags; 0: all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    limit: usize,
    /// alpha or alpha-desc; the default is the registry's order.
    #[arg(long, value_enum)]
    sort: Option<Sort>,
    /// Verify TLS; false also allows plain HTTP [default: true].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true,
        value_parser = BoolishValueParser::new())]
    tls_verify: Option<bool>,
    /// The older spelling of --output.
    #[arg(long, hide = true, value_parser = older_format)]
    format: Option<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Sort {
    Alpha,
    AlphaDesc,
}

fn older_format(text: &str) -> std::result::Result<Format, String> {
    match text {
        "table" | "simple" | "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        "jsonl" => Ok(Format::Jsonl),
        _ => Err("use -o text, json or jsonl".to_owned()),
    }
}

/// Does it.
///
/// # Errors
/// The repository is not there, may not be read, or its registry runs in a circle.
pub async fn run(context: &mut Context, arguments: &ListTagsArgs) -> Result {
    // Sorting needs all of them before any is left out.
    let limit = if arguments.sort.is_some() { 0 } else { arguments.limit };
    let (name, mut tags) = if arguments.repository.starts_with("oci:") {
        layout(context, &arguments.repository).await?
    } else {
        let text = &arguments.repository;
        let repository =
            Repository::parse(text).map_err(|error| Error::usage(format!("repository `{text}`: {error}")))?;
        let session = context.session(arguments.tls_verify)?;
        (repository.to_string(), listing::tags(&session, &repository, limit).await?)
    };
    match arguments.sort {
        Some(Sort::Alpha) => tags.sort(),
        Some(Sort::AlphaDesc) => tags.sort_by(|one, other| other.cmp(one)),
        None => {}
    }
    if arguments.limit > 0 {
        tags.truncate(arguments.limit);
    }
    let output = &mut context.output;
    let object = |tag: &String| serde_json::json!({"tag": tag});
    match arguments.format.unwrap_or_else(|| output.format()) {
        Format::Text => tags.iter().try_for_each(|tag| output.line(tag)),
        Format::Jsonl => tags.iter().try_for_each(|tag| output.compact(&object(tag))),
        Format::Json => {
            let list: Vec<_> = tags.iter().map(object).collect();
            output.json(&serde_json::json!({"repository": name, "tags": list, "count": tags.len()}))
        }
    }
}

async fn layout(context: &Context, text: &str) -> Result<(String, Vec<String>)> {
    let ImageReference::Layout(reference) = context.reference(text)? else {
        return Err(Error::usage(format!("repository `{text}`: it is no layout")));
    };
    let entries = Layout::open(&reference.dir).await?.entries().await?;
    let tags = entries.into_iter().filter_map(|entry| entry.name).collect();
    Ok((format!("oci:{}", reference.dir.display()), tags))
}
