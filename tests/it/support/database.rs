//! The databases every test of the store runs on: a file of SQLite's, a database of a PostgreSQL cluster of our own.
//!
//! A test written as `for database in Database::all() { ... }` with `database.url()` runs on both.

use super::cluster::{Cluster, OwnDatabase};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

/// A fresh, empty place for a database; gone when dropped.
#[derive(Debug)]
pub enum Database {
    /// A folder for a database file.
    Sqlite { folder: tempfile::TempDir },
    /// A database of the shared cluster, or of one that the test has for itself.
    Postgres { own: OwnDatabase },
}

impl Database {
    /// One fresh database of every kind that can be had here; a kind that is missing is said loudly.
    pub fn all() -> Vec<Self> {
        [Some(Self::sqlite()), Self::postgres()].into_iter().flatten().collect()
    }

    pub fn sqlite() -> Self {
        Self::Sqlite { folder: tempfile::tempdir().expect("a temp folder") }
    }

    /// None, said loudly, where PostgreSQL is not installed.
    pub fn postgres() -> Option<Self> {
        Cluster::shared().map(Self::on)
    }

    /// A fresh database of this cluster.
    pub fn on(cluster: Arc<Cluster>) -> Self {
        Self::Postgres { own: OwnDatabase::create(cluster) }
    }

    /// What `--database` takes.
    pub fn url(&self) -> String {
        match self {
            Self::Sqlite { .. } => format!("sqlite:{}", self.file().display()),
            Self::Postgres { own } => own.url(),
        }
    }

    pub fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres { .. })
    }

    /// The database file, of SQLite.
    pub fn file(&self) -> PathBuf {
        match self {
            Self::Sqlite { folder } => folder.path().join("freightliner.db"),
            Self::Postgres { .. } => panic!("a database of a server has no file"),
        }
    }

    /// The shell of this database on one statement, as a stranger has it: `sqlite3` or `psql`, columns separated by `|`.
    /// None (said loudly) without that program.
    pub fn shell(&self, statement: &str) -> Option<Command> {
        let command = match self {
            Self::Sqlite { .. } => {
                let mut command = Command::new(super::need("sqlite3")?);
                command
                    .args(["-batch", "-bail", "-noheader", "-cmd", ".timeout 10000"])
                    .arg(self.file())
                    .arg(statement);
                command
            }
            Self::Postgres { own } => {
                let mut command = Command::new(super::need("psql")?);
                command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement]).arg(own.url());
                command
            }
        };
        Some(command)
    }
}
