//! `sweep`: run the sweeper once and print what it reclaimed and removed.

use super::Context;
use super::error::Result;
use super::output::bytes;
use super::when::spoken;
use crate::sweep;
use std::time::Duration;

/// Take up what dead workers left.
#[derive(Debug, clap::Args)]
pub struct SweepArgs {
    /// Say what would be done; change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Does it.
///
/// # Errors
/// The database or the state folder cannot be used.
pub async fn run(context: &mut Context, arguments: &SweepArgs) -> Result {
    let store = context.store().await?;
    context.make_state_dir()?;
    let poison_limit = context.config.poison_limit();
    let swept = sweep::once(&store, &context.config.state_dir, &context.clock, poison_limit, arguments.dry_run).await?;
    if context.format().is_json() {
        return context.output.json(&swept);
    }
    if arguments.dry_run {
        context.output.line("dry run: nothing was changed; this is what a sweep would do")?;
    }
    context.output.pairs(&[
        ("jobs requeued", swept.jobs_requeued.to_string()),
        ("jobs failed", swept.jobs_failed.to_string()),
        ("temp files removed", format!("{} ({})", swept.temp_files_removed, bytes(swept.temp_bytes_removed))),
        ("workers removed", swept.workers_removed.to_string()),
        ("time", spoken(Duration::from_millis(swept.duration_ms))),
    ])
}
