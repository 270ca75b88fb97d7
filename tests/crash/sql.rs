//! The database as strangers use it: by the stock shells `sqlite3` and `psql`, never by the program's own code.

use super::support::binary::{Binary, Output, Running};
use super::support::database::Database;
use super::support::need;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which database a round is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

impl Kind {
    /// A fresh, empty database; a panic says what is missing for one.
    pub fn fresh(self) -> Database {
        match self {
            Self::Sqlite => Database::sqlite(),
            Self::Postgres => Database::postgres().expect("PostgreSQL is installed"),
        }
    }
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
    /// The shell of this database; a panic says which one is missing.
    pub fn new(kind: Kind, database: &Database) -> Self {
        let (name, database) = match kind {
            Kind::Sqlite => ("sqlite3", database.file().display().to_string()),
            Kind::Postgres => ("psql", database.url()),
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
            Kind::Postgres => "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
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
            Kind::Postgres => self.program.spawn(&self.psql(statements)),
        }
    }

    fn psql<'a>(&'a self, statements: &'a str) -> [&'a str; 9] {
        ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statements, &self.database]
    }

    fn sqlite(&self, options: &[&str], statements: &str) -> Output {
        self.program.run(&[&["-batch", "-bail"], options, &[&self.database, statements]].concat())
    }

    /// The rows of a query; a panic when it is refused.
    pub fn rows<T: DeserializeOwned>(&self, query: &str) -> Vec<T> {
        self.try_rows(query).unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// The rows of a query, or what the shell said.
    pub fn try_rows<T: DeserializeOwned>(&self, query: &str) -> Result<Vec<T>, String> {
        let output = match self.kind {
            Kind::Sqlite => self.sqlite(&["-json", "-cmd", ".timeout 20000"], query),
            Kind::Postgres => {
                let query = format!("SELECT COALESCE(JSON_AGG(found), '[]') FROM ({query}) AS found");
                self.program.run(&self.psql(&query))
            }
        };
        if output.code() != Some(0) {
            return Err(output.errors());
        }
        // No row is no output at all at sqlite3.
        let text = output.text();
        let text = if text.trim().is_empty() { "[]" } else { text.trim() };
        serde_json::from_str(text).map_err(|error| format!("{error} in {text}"))
    }

    /// Whether somebody could write just now: not while another process stands still in the middle of a transaction.
    pub fn is_writable(&self) -> bool {
        match self.kind {
            Kind::Sqlite => self.sqlite(&["-cmd", ".timeout 60"], "BEGIN IMMEDIATE; ROLLBACK").code() == Some(0),
            // It locks rows, not all of itself.
            Kind::Postgres => true,
        }
    }

    /// What the database says about the soundness of its own files; `ok` when all is well. A server has no such word.
    pub fn integrity(&self) -> String {
        match self.kind {
            Kind::Sqlite => {
                let output = self.sqlite(&[], "PRAGMA integrity_check");
                format!("{}{}", output.text(), output.errors()).trim().to_owned()
            }
            Kind::Postgres => "ok".to_owned(),
        }
    }

    /// Copies the database to a place that stays.
    pub fn store(&self, folder: &Path) -> bool {
        let mut copy = match self.kind {
            Kind::Sqlite => {
                let mut copy = Command::new("cp");
                copy.arg("-a").arg(Path::new(&self.database).parent().expect("a folder")).arg(folder.join("database"));
                copy
            }
            Kind::Postgres => {
                let mut copy = Command::new("pg_dump");
                copy.arg("--file").arg(folder.join("database.sql")).arg(&self.database);
                copy
            }
        };
        copy.status().is_ok_and(|status| status.success())
    }
}
