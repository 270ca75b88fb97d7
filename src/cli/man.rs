//! `man`: the manual page of the program, or with `--dir` one page a command.

use super::error::{Error, Result};
use super::{Cli, Output};
use clap::CommandFactory;
use std::path::PathBuf;

/// Print the manual.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Write one page a command into this directory, which must exist.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Does it.
///
/// # Errors
/// Stdout or the directory cannot be written.
pub fn run(mut output: Output, arguments: &ManArgs) -> Result {
    let command = Cli::command();
    if let Some(dir) = &arguments.dir {
        return clap_mangen::generate_to(command, dir).map_err(|error| {
            Error::failed("io", format!("cannot write manual pages into {}: {error}", dir.display()))
        });
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).map_err(|error| Error::stdout(&error))?;
    output.raw(&page)?;
    output.flush()
}
