//! `db copy-to`: everything in this SQLite database goes into an empty PostgreSQL database.

use super::idle::{no_living_worker, no_living_worker_below};
use crate::cli::Context;
use crate::cli::error::{Error, Result};
use crate::cli::report::count;
use crate::cli::when::spoken;
use crate::store::{Copied, DatabaseUrl, Store};
use serde::Serialize;
use std::path::Path;

/// What cannot be done while a worker is at work.
const SO: &str = "its database cannot be copied";

/// Where to.
#[derive(Debug, clap::Args)]
pub struct CopyToArgs {
    /// An empty database: postgres://[USER@]HOST[:PORT]/DATABASE.
    #[arg(value_name = "URL")]
    url: String,
}

/// What was done, as programs see it.
#[derive(Debug, Serialize)]
struct Done {
    from: String,
    to: String,
    #[serde(flatten)]
    copied: Copied,
    duration_ms: u64,
}

/// Does it, all or nothing.
///
/// # Errors
/// One of the databases is of another kind, the target is not empty, a worker is at work, or a database fails.
pub async fn run(context: &mut Context, arguments: &CopyToArgs) -> Result {
    // What was typed may hold a password.
    let target: DatabaseUrl = arguments.url.parse().map_err(|error| Error::usage(format!("copy to: {error}")))?;
    let DatabaseUrl::Sqlite(file) = context.config.database.clone() else {
        return Err(Error::usage("only an SQLite database is copied: this one is PostgreSQL's already")
            .hint("PostgreSQL copies its own databases: pg_dump and pg_restore"));
    };
    if let DatabaseUrl::Sqlite(_) = target {
        return Err(Error::usage("a copy goes to PostgreSQL: give a URL that begins with postgres://")
            .hint("for a copy in a file use freightliner db backup FILE"));
    }
    if !file.exists() {
        return Err(Error::failed("not_found", format!("copy {}: there is no such database", file.display()))
            .hint("name it with --database sqlite:FILE"));
    }
    let start = context.clock.boot();
    let source = context.store().await?;
    idle(context, &source).await?;
    let to = Store::open(&target, context.clock.clone()).await?;
    let copied = source.copy_to(&to, &context.actor()).await;
    to.close().await;
    let copied = copied?;
    let took = context.clock.boot().since(start);
    let from = format!("sqlite:{}", file.display());
    if context.format().is_json() {
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        return context.output.json(&Done { from, to: target.to_string(), copied, duration_ms });
    }
    let number = |number: u64, noun| count(usize::try_from(number).unwrap_or(usize::MAX), noun);
    let jobs = number(copied.jobs, "job");
    context.output.line(&format!("copied {from} to {target}: {jobs} in {}", spoken(took)))?;
    context.output.pairs(&[
        ("history", format!("{}, {}", number(copied.events, "event"), number(copied.transfers, "transfer"))),
        ("queued again", format!("{} that ran", number(copied.requeued, "job"))),
        ("replaced", format!("{} that PostgreSQL cannot hold", number(copied.replaced, "text"))),
    ])?;
    context.notes.note("the old database is as it was: give every worker and whatever enqueues the new URL");
    Ok(())
}

/// Nobody works on the database: neither with our state folder, nor with another one that it knows of.
async fn idle(context: &Context, source: &Store) -> Result {
    no_living_worker(context, SO)?;
    for worker in source.workers().await? {
        let folder = Path::new(&worker.state_dir);
        if folder.is_dir() && folder != context.config.state_dir {
            no_living_worker_below(folder, SO)?;
        }
    }
    Ok(())
}
