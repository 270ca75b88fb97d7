//! The database as strangers use it: by the stock shells `sqlite3` and `psql`, never by the program's own code.

use super::support::binary::{Binary, Running};
use super::support::need;
use serde::de::DeserializeOwned;
use std::path::PathBuf;

/// Which database a round is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
}

/// A database shell and what it connects to.
pub struct Shell {
    kind: Kind,
    /// A file, or a URL.
    database: String,
    /// The shell as a program with its own folder for output.
    program: Binary,
}

impl Shell {
    /// The shell of this kind of database; a panic says which one is missing.
    pub fn new(kind: Kind, database: String) -> Self {
        let name = match kind {
            Kind::Sqlite => "sqlite3",
        };
        let program = need(name).unwrap_or_else(|| panic!("{name} is not installed: the checker needs it"));
        Self { kind, database, program: Binary::of(program) }
    }

    /// Where the shells' output is kept.
    pub fn folder(&self) -> PathBuf {
        self.program.home().parent().expect("a folder").to_owned()
    }

    /// Now, in unix milliseconds, as an expression.
    pub fn now_ms(&self) -> &'static str {
        match self.kind {
            Kind::Sqlite => "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)",
        }
    }

    /// Starts to run these statements; each row is a line, columns separated by `|`. An error ends it with a bad exit code.
    pub fn start(&self, statements: &str) -> Running {
        match self.kind {
            // Checkpoints are the program's: an old library that checkpoints beside it can damage the log.
            Kind::Sqlite => self.program.spawn(&[
                "-batch",
                "-bail",
                "-noheader",
                "-list",
                "-cmd",
                ".timeout 20000",
                "-cmd",
                "PRAGMA wal_autocheckpoint=0",
                &self.database,
                statements,
            ]),
        }
    }

    /// The rows of a query; a panic when it is refused.
    pub fn rows<T: DeserializeOwned>(&self, query: &str) -> Vec<T> {
        self.try_rows(query).unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// The rows of a query, or what the shell said.
    pub fn try_rows<T: DeserializeOwned>(&self, query: &str) -> Result<Vec<T>, String> {
        let output = match self.kind {
            Kind::Sqlite => {
                let timeout = ["-cmd", ".timeout 20000"];
                let arguments = [&["-batch", "-bail", "-json"], &timeout[..], &[&self.database, query]].concat();
                self.program.run(&arguments)
            }
        };
        if output.code() != Some(0) {
            return Err(output.errors());
        }
        // No row is no output at all.
        let text = output.text();
        let text = if text.trim().is_empty() { "[]" } else { text.trim() };
        serde_json::from_str(text).map_err(|error| format!("{error} in {text}"))
    }

    /// Whether somebody could write just now: not while another process stands still in the middle of a transaction.
    pub fn is_writable(&self) -> bool {
        match self.kind {
            Kind::Sqlite => {
                let lock = ["-batch", "-bail", "-cmd", ".timeout 60", &self.database, "BEGIN IMMEDIATE; ROLLBACK"];
                self.program.run(&lock).code() == Some(0)
            }
        }
    }

    /// What the database says about the soundness of its own files; `ok` when all is well.
    pub fn integrity(&self) -> String {
        match self.kind {
            Kind::Sqlite => {
                let output = self.program.run(&["-batch", "-bail", &self.database, "PRAGMA integrity_check"]);
                format!("{}{}", output.text(), output.errors()).trim().to_owned()
            }
        }
    }
}
