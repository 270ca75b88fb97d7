//! `db`: look after the database.

mod backup;
mod copy_to;
mod idle;
mod restore;
mod staging;

use super::Context;
use super::error::{Error, Result};
use super::output::bytes;

/// Look after the database.
#[derive(Debug, clap::Subcommand)]
pub enum DbCommand {
    /// Bring the database to this version's schema; every other command does so too.
    Migrate,
    /// Show where it is, its versions and sizes.
    Info,
    /// Check that it is whole; exit 1 when it is not.
    Check,
    /// Write a consistent copy to a new file, while others work.
    Backup(backup::BackupArgs),
    /// Put a backup in the place of the database, safe for workers to go on with.
    Restore(restore::RestoreArgs),
    /// Copy everything into an empty PostgreSQL database, for a queue that outgrows this host.
    CopyTo(copy_to::CopyToArgs),
}

/// Does it.
///
/// # Errors
/// The database cannot be used, or `check` found something.
pub async fn run(context: &mut Context, command: &DbCommand) -> Result {
    match command {
        DbCommand::Migrate => migrate(context).await,
        DbCommand::Info => info(context).await,
        DbCommand::Check => check(context).await,
        DbCommand::Backup(arguments) => backup::run(context, arguments).await,
        DbCommand::Restore(arguments) => restore::run(context, arguments).await,
        DbCommand::CopyTo(arguments) => copy_to::run(context, arguments).await,
    }
}

async fn migrate(context: &mut Context) -> Result {
    let info = context.store().await?.info().await?;
    if context.format().is_json() {
        return context.output.json(&serde_json::json!({"schema_version": info.schema_version}));
    }
    context.output.line(&format!("{} has schema version {}", info.url, info.schema_version))
}

async fn info(context: &mut Context) -> Result {
    let info = context.store().await?.info().await?;
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

async fn check(context: &mut Context) -> Result {
    let findings = context.store().await?.check().await?;
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
