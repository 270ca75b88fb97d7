//! `health-check`: the database opens and answers, the state folder takes a file. Made for container probes: quick, and
//! one word when all is well.

use super::Context;
use super::error::{Error, Result};
use crate::store::DatabaseUrl;
use std::io::Write as _;
use std::path::Path;

/// As much as the rows of one job and their log may take.
const PROBE_BYTES: usize = 64 * 1024;

/// Does it.
///
/// # Errors
/// The database or the state folder cannot be used; the message says which.
pub async fn run(context: &mut Context) -> Result {
    let store = context.store().await?;
    store.stats().await?;
    context.make_state_dir()?;
    takes_a_file("state folder", &context.config.state_dir)?;
    // Readers of a database whose disk is full notice nothing.
    if let DatabaseUrl::Sqlite(file) = &context.config.database {
        takes_a_file("folder of the database", file.parent().unwrap_or(file))?;
    }
    if context.format().is_json() {
        context.output.json(&serde_json::json!({"status": "ok"}))
    } else {
        context.output.line("OK")
    }
}

/// A little can be written there.
fn takes_a_file(what: &str, folder: &Path) -> Result {
    // Never named, so that nothing is left even if we are killed here.
    tempfile::tempfile_in(folder)
        .and_then(|mut file| file.write_all(&[0; PROBE_BYTES]).and_then(|()| file.sync_all()))
        .map_err(|error| Error::failed("io", format!("the {what} {} takes no file: {error}", folder.display())))
}
