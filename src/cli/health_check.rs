//! `health-check`: the database opens and answers, the state folder takes a file. Made for container probes: quick, and
//! one word when all is well.

use super::Context;
use super::error::{Error, Result};

/// Does it.
///
/// # Errors
/// The database or the state folder cannot be used; the message says which.
pub async fn run(context: &mut Context) -> Result {
    let store = context.store().await?;
    store.stats().await?;
    context.make_state_dir()?;
    let path = &context.config.state_dir;
    // Never named, so that nothing is left even if we are killed here.
    tempfile::tempfile_in(path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"ok").and_then(|()| file.sync_all()))
        .map_err(|error| Error::failed("io", format!("the state folder {} takes no file: {error}", path.display())))?;
    if context.format().is_json() {
        context.output.json(&serde_json::json!({"status": "ok"}))
    } else {
        context.output.line("OK")
    }
}
