//! The real program, as processes that are started, killed and timed.

use crate::database::Database;
use crate::{Failure, Measured};
use serde_json::Value;
use std::process::{Child, Command, Stdio};

/// A process of the program; killed when dropped.
pub struct Process(Child);

impl Process {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Ends it as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// It is gone already.
    pub fn kill(&mut self) -> Measured {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn command(database: &Database, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_freightliner"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", database.folder())
        .arg("--database")
        .arg(database.url())
        .arg("--state-dir")
        .arg(database.folder())
        .args(arguments)
        .stdin(Stdio::null());
    command
}

/// Starts the program and lets it run.
///
/// # Errors
/// It cannot be started.
pub fn start(database: &Database, arguments: &[&str]) -> Measured<Process> {
    Ok(Process(command(database, arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
}

/// Runs the program to its end; the JSON that it printed.
///
/// # Errors
/// It failed, or printed something else.
pub fn json(database: &Database, arguments: &[&str]) -> Measured<Value> {
    let output = command(database, arguments).args(["-o", "json"]).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::from(format!("freightliner {}: {}", arguments.join(" "), said.trim())));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
