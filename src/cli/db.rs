//! `db`: look after the database.

use super::Context;
use super::error::{Error, Result};
use super::output::bytes;

/// Look after the database.
#[derive(Debug, Clone, Copy, clap::Subcommand)]
pub enum DbCommand {
    /// Bring the database to this version's schema; every other command does so too.
    Migrate,
    /// Show where it is, its versions and sizes.
    Info,
    /// Check that it is whole; exit 1 when it is not.
    Check,
}

/// Does it.
///
/// # Errors
/// The database cannot be used, or `check` found something.
pub async fn run(context: &mut Context, command: &DbCommand) -> Result {
    let store = context.store().await?;
    match command {
        DbCommand::Migrate => {
            let info = store.info().await?;
            if context.format().is_json() {
                return context.output.json(&serde_json::json!({"schema_version": info.schema_version}));
            }
            context.output.line(&format!("{} has schema version {}", info.url, info.schema_version))
        }
        DbCommand::Info => {
            let info = store.info().await?;
            if context.format().is_json() {
                return context.output.json(&info);
            }
            context.output.pairs(&[
                ("url", info.url),
                ("engine", format!("{} {}", info.engine, info.engine_version)),
                ("schema", format!("{} (newest known: {})", info.schema_version, info.newest_known_schema)),
                ("size", bytes(info.size_bytes)),
                ("write-ahead log", bytes(info.wal_bytes)),
                ("jobs", info.jobs.to_string()),
                ("events", info.events.to_string()),
            ])
        }
        DbCommand::Check => {
            let findings = store.check().await?;
            if context.format().is_json() {
                context.output.json(&serde_json::json!({"ok": findings.is_empty(), "findings": findings}))?;
            } else if findings.is_empty() {
                context.output.line("ok")?;
            } else {
                let rows = findings.iter().map(|finding| vec![finding.check.clone(), finding.message.clone()]);
                context.output.table(&["CHECK", "FINDING"], rows)?;
            }
            match findings.len() {
                0 => Ok(()),
                count => Err(Error::failed("corrupt", format!("the check found {count} problems"))),
            }
        }
    }
}
