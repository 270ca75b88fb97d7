//! Commands that need a database at rest: nobody works.

use crate::cli::Context;
use crate::cli::error::{Error, Result};
use crate::worker::presence::{Place, Proof, probe};
use std::io;
use std::path::Path;

/// Nobody works here: the locks of workers prove it, whatever a database says. `so` is what cannot be done otherwise.
///
/// # Errors
/// A worker lives, or the locks cannot be read.
pub fn no_living_worker(context: &Context, so: &str) -> Result {
    context.make_state_dir()?;
    // Only for its folder: which database workers of this machine serve is no matter.
    no_living_worker_below(&context.config.state_dir, so)
}

/// As [`no_living_worker`], for the workers of a state folder.
///
/// # Errors
/// As there.
pub fn no_living_worker_below(state_dir: &Path, so: &str) -> Result {
    let folder = Place::here(state_dir, true)?.lock_root();
    let failed =
        |error: io::Error| Error::failed("io", format!("cannot look for workers in {}: {error}", folder.display()));
    for entry in std::fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(worker) = path.file_stem().filter(|_| path.extension().is_some_and(|kind| kind == "lock")) else {
            continue;
        };
        if let Proof::Alive = probe(&path).map_err(failed)? {
            let message = format!("worker {} is at work: {so}", worker.to_string_lossy());
            return Err(Error::failed("in_use", message).hint("stop all workers first, on every machine"));
        }
    }
    Ok(())
}
