//! `completions SHELL`.

use super::error::Result;
use super::{Cli, Output};
use clap::CommandFactory;

/// Print a completion script for a shell.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Does it.
///
/// # Errors
/// Stdout cannot be written.
pub fn run(mut output: Output, arguments: &CompletionsArgs) -> Result {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "freightliner", &mut script);
    output.raw(&script)?;
    output.flush()
}
